"""The one entry point of the server: WebSockets to wsloop, everything else to Django."""

from gevent import monkey

monkey.patch_all()  # first of all: sockets, locks and time imported later must be gevent's

import os  # noqa: E402

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from project import startup  # noqa: E402

startup.prepare()  # refuses to start without a secret key; starts the embedded Redis if no REDIS_URL

from django.core.wsgi import get_wsgi_application  # noqa: E402

django_application = get_wsgi_application()

try:
    import uwsgi
except ImportError:  # gunicorn, or manage.py runserver
    uwsgi = None

from project.routing import websocket_urlpatterns  # noqa: E402
from wsloop.conf import websocket_url  # noqa: E402
from wsloop.redaction import request_line  # noqa: E402
from wsloop.server import WebsocketServer  # noqa: E402

websocket_application = WebsocketServer(urlpatterns=websocket_urlpatterns)

from chat import frontend  # noqa: E402

frontend.lookout.server()  # logs where the scripts of /react/ come from


def application(environ, start_response):
    # For the logs of uwsgi.ini and gunicorn.conf.py: variables of the servers would let a client forge lines.
    path = environ.get("REQUEST_URI" if uwsgi is not None else "RAW_URI", "").partition("?")[0]
    line = request_line(environ.get("REQUEST_METHOD", ""), path)
    if uwsgi is not None:
        uwsgi.set_logvar("request", line[:255])
    else:
        environ["request_line"] = line
    if environ.get("PATH_INFO", "").startswith(websocket_url()):
        return websocket_application(environ, start_response)
    return django_application(environ, start_response)
