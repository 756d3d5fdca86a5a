"""What a site needs on its server, written for the site at hand: the files of ``manage.py wsloop_init``.

``site`` reads the settings, ``wsgi_module`` adds to ``wsgi.py``, ``files`` fills the templates in, and ``advice`` says
what is left to do. This package must not know Redis, sockets or gevent, and writes nothing: the command does.
"""
