"""WebSockets for a plain WSGI Django site under uWSGI and gevent: the loop of django-websocket-redis, rebuilt.

Sites need :class:`wsloop.server.WebsocketServer` in ``wsgi.py``, :class:`wsloop.publisher.RedisPublisher` in views, and
the classes of :mod:`wsloop.consumers` where a socket needs code. ``docs/explanation/how-it-works.rst`` describes the
packages.
"""

__version__ = "0.1.0"
