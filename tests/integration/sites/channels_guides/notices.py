import channels.layers
from asgiref.sync import async_to_sync
from channels import layers
from channels.generic.websocket import JsonWebsocketConsumer
from channels.layers import get_channel_layer


class NoticesConsumer(JsonWebsocketConsumer):
    groups = ["notices"]

    def connect(self):
        self.accept()
        self.send_json({"channel": self.channel_name})

    def notice(self, event):
        self.send_json({"text": event["text"]})


async def _tell(group, text):
    await layers.get_channel_layer().group_send(group, {"type": "notice", "text": text})


def tell_all(text):
    async_to_sync(_tell)("notices", text)


def tell_all_directly(text):
    channel_layer = get_channel_layer()
    async_to_sync(
        channel_layer.group_send
    )("notices", {"type": "notice", "text": text})  # fmt: skip


def tell_one(channel_name, text):
    async_to_sync(channels.layers.get_channel_layer().send)(channel_name, {"type": "notice", "text": text})
