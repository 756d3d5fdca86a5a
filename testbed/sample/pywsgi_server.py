"""A site on gevent's own WSGI server, as docs/how-to/run-in-production.rst has it: ``… 127.0.0.1:8000 wsgi``."""

from gevent import monkey

monkey.patch_all()

import signal  # noqa: E402
import sys  # noqa: E402
from importlib import import_module  # noqa: E402

import gevent  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402

from wsloop.pywsgi import Handler  # noqa: E402

if __name__ == "__main__":
    application = import_module(sys.argv[2]).application
    server = WSGIServer(sys.argv[1], application, handler_class=Handler)
    gevent.signal_handler(signal.SIGTERM, server.stop)
    server.serve_forever()
