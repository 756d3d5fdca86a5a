import asyncio
import json
import random
from time import sleep

from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer


class NumbersConsumer(WebsocketConsumer):
    def connect(self):
        self.accept()

        for i in range(1000):
            self.send(json.dumps({"number": random.randint(1, 100), "count": i}))
            sleep(1)


class AsyncNumbersConsumer(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()

        for i in range(1000):
            await self.send(json.dumps({"number": random.randint(1, 100), "count": i}))
            await asyncio.sleep(1)
