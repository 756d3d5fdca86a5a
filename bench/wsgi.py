"""The sample site's WSGI application, and some URLs more.

``/bench/collect``: what the worker's memory is compared by must not be garbage; it answers how many tasks, greenlets
and consumers there are. ``/bench/turn``: the longest turn of the event loop since it was last asked for, in seconds.
``/ws/application``: an ASGI application without Channels. ``/ws/consumer``: a consumer in one group, as that of the
peer ``channels_app``. ``/bench/publish/FACILITIES/MESSAGES``: messages for pages. ``/ws/async/…``: the echo and the
chat rooms of that peer, as consumers of wsloop, and the consumer in one group as coroutines. ``/ws/sync/…``: the same
in plain code. ``/ws/asgi/…``, with ``BENCH_ASGI=1`` and where Channels is installed: the peer itself.
"""

from wsgi import application as site  # first: it patches the process

import asyncio  # isort: skip
import functools
import gc
import json
import os
import time
from typing import Any

import gevent
from django.urls import path

from bench.coroutines import derive
from wsloop.aio.worker import worker_loop
from wsloop.consumers import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from wsloop.engine import engine
from wsloop.publisher import RedisPublisher
from wsloop.server import WebsocketServer


class Consumer(WebsocketConsumer):
    groups = ["bench"]

    def bench_message(self, event):
        self.send(text_data=event["text"])


class AsyncConsumer(AsyncWebsocketConsumer):
    groups = ["bench-async"]

    async def bench_message(self, event):
        await self.send(text_data=event["text"])


class AsyncPlain(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data)


class Echo(JsonWebsocketConsumer):
    def receive_json(self, content, **kwargs):
        self.send_json(content)


class Room(WebsocketConsumer):
    def connect(self):
        self.room = f"room-{self.scope['url_route']['kwargs']['room']}"
        self.channel_layer.group_add(self.room, self.channel_name)
        self.accept()

    def disconnect(self, close_code):
        self.channel_layer.group_discard(self.room, self.channel_name)

    def receive(self, text_data=None, bytes_data=None):
        self.channel_layer.group_send(self.room, {"type": "room_message", "text": text_data})

    def room_message(self, event):
        self.send(text_data=event["text"])


AsyncEcho, AsyncRoom = derive(AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer)
consumers = WebsocketServer(
    urlpatterns=[
        path("ws/consumer", Consumer.as_websocket()),
        path("ws/async/consumer", AsyncConsumer.as_websocket()),
        path("ws/async/plain", AsyncPlain.as_websocket()),
        path("ws/async/echo", AsyncEcho.as_websocket()),
        path("ws/async/rooms/<slug:room>", AsyncRoom.as_websocket()),
        path("ws/sync/echo", Echo.as_websocket()),
        path("ws/sync/rooms/<slug:room>", Room.as_websocket()),
    ]
)


async def echo(scope, receive, send):
    """A small ASGI application, with a task of its own."""
    await receive()
    await send({"type": "websocket.accept"})
    beside = asyncio.create_task(asyncio.sleep(3600))
    try:
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
    finally:
        beside.cancel()


servers = {
    "/ws/application": WebsocketServer(asgi=echo),
    "/ws/consumer": consumers,
    "/ws/async": consumers,
    "/ws/sync": consumers,
}
if os.environ.get("BENCH_ASGI"):
    from bench.peers import channels_app

    servers["/ws/asgi"] = WebsocketServer(asgi=channels_app.site)


class Turns:
    """Watches the event loop: a turn is from the end of one wait for events to the beginning of the next one."""

    def __init__(self):
        self._began, self._longest = time.monotonic(), 0.0
        loop: Any = gevent.get_hub().loop
        self._watchers = first, last = loop.check(ref=False), loop.prepare(ref=False)
        first.priority, last.priority = loop.MAXPRI, loop.MINPRI  # before and after everything else of a turn
        first.start(self._begin)
        last.start(self._end)

    def _begin(self):
        self._began = time.monotonic()

    def _end(self):
        self._longest = max(self._longest, time.monotonic() - self._began)

    def longest(self):
        """Return the seconds of the longest turn since the last time."""
        longest, self._longest = self._longest, 0.0
        return longest


turns = functools.cache(Turns)  # of the process, from the first time on


def application(environ, start_response):
    if server := servers.get("/".join(environ["PATH_INFO"].split("/")[:3])):
        return server(environ, start_response)
    if environ["PATH_INFO"].startswith("/bench/publish/"):
        publish(*map(int, environ["PATH_INFO"].split("/")[3:]))
        start_response("204 No Content", [])
        return []
    if environ["PATH_INFO"] == "/bench/turn":
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(turns().longest()).encode()]
    if environ["PATH_INFO"] != "/bench/collect":
        return site(environ, start_response)
    while gc.collect():
        pass
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(held()).encode()]


def publish(facilities, count):
    for number in range(facilities):
        with RedisPublisher(facility=f"page-{number:02}", broadcast=True) as publisher:
            for each in range(count):
                publisher.publish_message(f"{each:08}".ljust(128, "."))


def held():
    """Count what sockets may leave behind. Not with isinstance(), which wakes lazy objects up."""
    greenlets = [each for each in gc.get_objects() if issubclass(type(each), gevent.Greenlet)]
    members = engine().local_consumers
    return {
        "tasks": len(asyncio.all_tasks(worker_loop())),
        "greenlets": sum(map(bool, greenlets)),
        "consumers": len(members._consumers) + len(members._subscribed) + len(engine().consumer_runtime.running),
    }
