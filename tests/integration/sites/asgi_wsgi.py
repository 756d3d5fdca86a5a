"""A site that hosts an ASGI application."""

from gevent import monkey

monkey.patch_all()

from django.core.wsgi import get_wsgi_application  # noqa: E402

django_application = get_wsgi_application()

from tests.integration.sites.asgi_application import application as asgi_application  # noqa: E402
from wsloop.server import WebsocketServer  # noqa: E402

websocket_application = WebsocketServer(asgi=asgi_application)


def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/ws/"):
        return websocket_application(environ, start_response)
    return django_application(environ, start_response)
