"""WebSockets for a plain WSGI Django site under uWSGI and gevent: the loop of django-websocket-redis, rebuilt.

A connection is set up one way through the modules, ``server -> handshake -> subscriptions -> hub -> connection ->
transport``, and a message goes one way, ``Redis -> broker -> hub -> connection -> socket``. Sites need two names:
:class:`wsloop.server.WebsocketServer` in ``wsgi.py`` and :class:`wsloop.publisher.RedisPublisher` in views.
"""

__version__ = "0.1.0"
