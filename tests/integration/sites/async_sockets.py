"""Asynchronous sockets of both kinds: a consumer of wsloop, and an ASGI application."""

import asyncio

from django.contrib.auth.models import User
from django.urls import path

from wsloop.consumers import AsyncWebsocketConsumer


class Echo(AsyncWebsocketConsumer):
    groups = ["everybody"]

    async def connect(self):
        await User.objects.acount()
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        await asyncio.sleep(0)
        await self.send(text_data=text_data)


async def echo(scope, receive, send):
    """An application with a task of its own, which it ends as applications do."""
    await receive()
    await User.objects.acount()
    await send({"type": "websocket.accept"})
    beside = asyncio.create_task(asyncio.sleep(3600))
    try:
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
    finally:
        beside.cancel()


websocket_urlpatterns = [path("ws/consumer/", Echo.as_websocket())]
