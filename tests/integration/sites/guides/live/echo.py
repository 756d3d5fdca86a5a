from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)


class EchoConsumer(WebsocketConsumer):
    def connect(self):
        self.accept()

    def receive(self, text_data=None, bytes_data=None):
        if text_data:
            self.send(text_data=text_data)
        else:
            self.send(bytes_data=bytes_data)


class AsyncEchoConsumer(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        if text_data:
            await self.send(text_data=text_data)
        else:
            await self.send(bytes_data=bytes_data)


class SumConsumer(JsonWebsocketConsumer):
    def receive_json(self, content, **kwargs):
        if "numbers" not in content:
            self.send_json({"error": "numbers are missing"})
            self.close(code=4400)
        else:
            self.send_json({"numbers": content["numbers"], "sum": sum(content["numbers"])})


class AsyncSumConsumer(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content, **kwargs):
        if "numbers" not in content:
            await self.send_json({"error": "numbers are missing"})
            await self.close(code=4400)
        else:
            await self.send_json({"numbers": content["numbers"], "sum": sum(content["numbers"])})
