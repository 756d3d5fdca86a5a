"""Moved over, but for the routers and the middleware of Channels, which stay around wsloop's consumers.

And the other way round: Channels' consumers with wsloop's layer, so that they share its groups.
"""

from channels.auth import AuthMiddlewareStack
from channels.routing import URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import path
from moved.routing import websocket_urlpatterns

from tests.integration.sites.guides.live import chat
from tests.integration.sites.guides.middleware import TokenAuthMiddleware


class ChatConsumer(chat.ChatConsumer):
    channel_layer_alias = "wsloop"


class AsyncChatConsumer(chat.AsyncChatConsumer):
    channel_layer_alias = "wsloop"


def stack(patterns):
    """What ``asgi.py`` has around its consumers. The patterns continue behind that of the site."""
    return AllowedHostsOriginValidator(AuthMiddlewareStack(TokenAuthMiddleware(URLRouter(patterns))))


within = stack(websocket_urlpatterns)
shared = stack(
    [
        path("sync/chat/<room_name>/", ChatConsumer.as_asgi()),
        path("async/chat/<room_name>/", AsyncChatConsumer.as_asgi()),
    ]
)
