"""The guides on one server: hosted as they are, and moved over to wsloop's consumers."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.integration.sites.guides.settings")

from django.core.wsgi import get_wsgi_application  # noqa: E402

django_application = get_wsgi_application()

from django.urls import include, path, re_path  # noqa: E402
from moved.routing import websocket_urlpatterns  # noqa: E402 - the package "live" with other imports

from tests.integration.sites.guides import by_hand, within  # noqa: E402
from tests.integration.sites.guides.asgi import application as asgi_application  # noqa: E402
from wsloop.server import WebsocketServer  # noqa: E402

websocket_application = WebsocketServer(
    urlpatterns=[
        path("ws/moved/", include([*by_hand.websocket_urlpatterns, *websocket_urlpatterns])),
        re_path(r"^ws/within/", within.within),
        re_path(r"^ws/shared/", within.shared),
    ],
    asgi=asgi_application,
)


def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/ws/"):
        return websocket_application(environ, start_response)
    return django_application(environ, start_response)
