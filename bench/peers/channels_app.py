"""Django Channels: a consumer in one group, over the layer on Redis's publish and subscribe. Served by uvicorn.

As a program it prints, in hexadecimal, what ``group_send`` publishes for each of COUNT messages, so that they can be
published as they are for every server: ``python -m bench.peers.channels_app COUNT``.
"""

import os
import sys

import django
from django.conf import settings

CONFIG = {"hosts": [("127.0.0.1", int(os.environ.get("BENCH_REDIS_PORT", "0")))]}
settings.configure(
    SECRET_KEY="of a benchmark that only listens on the loopback and ends with it",
    ALLOWED_HOSTS=["127.0.0.1"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": CONFIG}},
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.layers import get_channel_layer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from bench.clients import messages  # noqa: E402


class Consumer(AsyncWebsocketConsumer):
    groups = ["bench"]

    async def bench_message(self, event):
        await self.send(text_data=event["text"])


application = ProtocolTypeRouter({"websocket": URLRouter([path("ws/bench", Consumer.as_asgi())])})

if __name__ == "__main__":
    layer = get_channel_layer()
    for message in messages(int(sys.argv[1])):
        print(layer.serialize({"type": "bench.message", "text": message.decode()}).hex())
