"""An echo and a chat room as coroutines: the same code, whether it is derived from Channels' consumers or wsloop's.

This module must not know either of them.
"""

from __future__ import annotations

from typing import Any


def derive(json_consumer: Any, consumer: Any) -> tuple[Any, Any]:
    """Return the echo and the chat room.

    Args:
        json_consumer, consumer: the classes ``AsyncJsonWebsocketConsumer`` and ``AsyncWebsocketConsumer``.
    """

    class Echo(json_consumer):
        """Returns each message."""

        channel_layer_alias = "core"  # here wsloop has a layer of its own, whatever the setting names

        async def receive_json(self, content, **kwargs):
            await self.send_json(content)

    class Room(consumer):
        """Sends each message to everybody in the room that the URL names."""

        channel_layer_alias = "core"

        async def connect(self):
            self.room = f"room-{self.scope['url_route']['kwargs']['room']}"
            await self.channel_layer.group_add(self.room, self.channel_name)
            await self.accept()

        async def disconnect(self, close_code):
            await self.channel_layer.group_discard(self.room, self.channel_name)

        async def receive(self, text_data=None, bytes_data=None):
            await self.channel_layer.group_send(self.room, {"type": "room_message", "text": text_data})

        async def room_message(self, event):
            await self.send(text_data=event["text"])

    return Echo, Room
