"""Django Channels: ``application``, consumers in one group each, over the layer on Redis's publish and subscribe.

And ``signed_in``, the same for users with a session, and ``site``, as the documentation of Channels has it: an echo and
chat rooms for users with a session, over the layer ``channels_redis.core``. Served by uvicorn, by daphne, and by
wsloop.
"""

import gc
import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.settings")
django.setup()

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.urls import path  # noqa: E402

from bench.coroutines import derive  # noqa: E402


class Consumer(AsyncWebsocketConsumer):
    """In the group that the query names."""

    async def websocket_connect(self, message):
        self.groups = [self.scope["query_string"].decode()]
        await super().websocket_connect(message)

    async def bench_message(self, event):
        await self.send(text_data=event["text"])


async def collect(scope, receive, send):
    """Answer any HTTP request, when there is no garbage left: what memory is compared by must not be that."""
    while gc.collect():
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


Echo, Room = derive(AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer)
patterns = [path("ws/asgi/echo", Echo.as_asgi()), path("ws/asgi/rooms/<slug:room>", Room.as_asgi())]
site = ProtocolTypeRouter(
    {"http": collect, "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(patterns)))}
)
bench = URLRouter([path("ws/bench", Consumer.as_asgi())])
application = ProtocolTypeRouter({"websocket": bench})
signed_in = ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(bench))})
