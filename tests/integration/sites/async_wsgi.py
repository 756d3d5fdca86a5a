"""A site with asynchronous views and sockets: its wsgi.py names the WebSocket server, and nothing else is needed."""

from gevent import monkey

monkey.patch_all()

from django.core.wsgi import get_wsgi_application  # noqa: E402

django_application = get_wsgi_application()

from tests.integration.sites.async_sockets import echo, websocket_urlpatterns  # noqa: E402
from wsloop.server import WebsocketServer  # noqa: E402

websocket_application = WebsocketServer(urlpatterns=websocket_urlpatterns, asgi=echo)


def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/ws/"):
        return websocket_application(environ, start_response)
    return django_application(environ, start_response)
