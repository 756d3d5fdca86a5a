"""The one entry point of the server: WebSockets to wsloop, everything else to Django."""

from gevent import monkey

monkey.patch_all()  # first of all: sockets, locks and time imported later must be gevent's

import os  # noqa: E402

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from project import startup  # noqa: E402

startup.prepare()  # refuses to start without a secret key; starts the embedded Redis if no REDIS_URL

from django.conf import settings  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402

django_application = get_wsgi_application()

from project.routing import handlers  # noqa: E402
from wsloop.server import WebsocketServer  # noqa: E402

websocket_application = WebsocketServer(handlers=handlers)


def application(environ, start_response):
    if environ.get("PATH_INFO", "").startswith(settings.WEBSOCKET_URL):
        return websocket_application(environ, start_response)
    return django_application(environ, start_response)
