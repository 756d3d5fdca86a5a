"""Consumers of a site that the tests run; each shows one thing that the engine promises."""

import gc
import os
import threading
import time

import gevent
from django.contrib.auth.models import Group
from django.urls import path, re_path

from wsloop.consumers import AsyncWebsocketConsumer, JsonWebsocketConsumer, SyncConsumer, WebsocketConsumer
from wsloop.exceptions import AcceptConnection, DenyConnection, StopConsumer
from wsloop.presence import who


class Chat(WebsocketConsumer):
    """The chat of Channels' tutorial: its imports and async_to_sync() are what is different."""

    def connect(self):
        self.room_name = self.scope["url_route"]["kwargs"]["room_name"]
        self.room_group_name = f"chat_{self.room_name}"
        self.channel_layer.group_add(self.room_group_name, self.channel_name)
        self.accept()

    def disconnect(self, close_code):
        self.channel_layer.group_discard(self.room_group_name, self.channel_name)

    def receive(self, text_data):
        self.channel_layer.group_send(self.room_group_name, {"type": "chat_message", "message": text_data})

    def chat_message(self, event):
        self.send(text_data=event["message"])


class Trace(WebsocketConsumer):
    """Writes down what is called, to standard error: the test reads the log."""

    groups = ["trace"]

    def note(self, *words):
        print("trace", self.kwargs["name"], *words, flush=True)

    def connect(self):
        self.note("connect", self.user.get_username() or "nobody")
        what = self.query.get("what")
        if what == "deny":
            raise DenyConnection
        if what == "close":
            self.close(reason="members only")
            return
        if what == "nothing":
            return
        if what == "crash":
            raise ZeroDivisionError("a bug of the site")
        if what == "accept":
            raise AcceptConnection
        if what == "late":
            time.sleep(30)
        subprotocol = self.query.get("subprotocol")
        self.accept(subprotocol)
        self.note("open")
        if what == "loop":
            while True:
                try:
                    time.sleep(0.01)
                except Exception:
                    self.note("swallowed")
        if what == "ticker":
            while True:
                self.send("tick")
                time.sleep(0.05)
        if what == "flood":
            while True:
                self.send(bytes_data=bytes(10_000))

    def receive(self, text_data=None, bytes_data=None):
        self.note("receive", text_data if bytes_data is None else len(bytes_data))
        word, _, rest = (text_data or "").partition(" ")
        if word == "crash":
            raise ZeroDivisionError("a bug of the site")
        if word == "sleep":
            time.sleep(float(rest))
        if word == "work":  # where no sleep is that could be ended at once
            threading.Event().wait(30)
        if word == "close":
            code, _, reason = rest.partition(" ")
            self.close(int(code), reason)
            return
        self.send(text_data, bytes_data)
        self.note("handled", text_data)

    def group_event(self, event):
        self.send(event["text"])

    def disconnect(self, close_code):
        self.note("disconnect", close_code)


class Json(JsonWebsocketConsumer):
    def receive_json(self, content):
        self.send_json({"was": content, "path": self.scope["path"], "name": self.channel_name})

    def sent(self, event):
        self.send_json(event)


class Low(SyncConsumer):
    def websocket_connect(self, event):
        self.send({"type": "websocket.accept"})

    def websocket_receive(self, event):
        self.send({"type": "websocket.send", "text": event["text"].upper()})

    def websocket_disconnect(self, event):
        raise StopConsumer()


class Room(JsonWebsocketConsumer):
    """Tells who comes and goes, and that it is told when the line to Redis stands again."""

    groups = ["room"]

    def connect(self):
        self.accept()
        self.send_json({"here": who(f"room/{self.kwargs['name']}/").users})

    def presence_changed(self, event):
        self.send_json(event)

    def channel_layer_resumed(self, event):
        self.send_json(event)

    def receive_json(self, content):
        self.send_json({"groups": list(Group.objects.values_list("name", flat=True))})

    def said(self, event):
        self.send_json(event)


class Greenlets(WebsocketConsumer):
    """Tells how many greenlets this worker has that have begun and not ended."""

    def receive(self, text_data=None, bytes_data=None):
        gc.collect()
        self.send(str(sum(isinstance(each, gevent.Greenlet) and bool(each) for each in gc.get_objects())))


class Blocks(AsyncWebsocketConsumer):
    """Holds up an event loop: that of coroutines until a file exists, or that of gevent for some seconds."""

    async def receive(self, text_data=None, bytes_data=None):
        if self.kwargs["how"] == "sleeping":
            while not os.path.exists(text_data):
                time.sleep(0.5)
        elif self.kwargs["how"] == "computing":
            end = time.monotonic() + float(text_data)
            while time.monotonic() < end:
                sum(range(1000))
        await self.send(text_data)


websocket_urlpatterns = [
    path("ws/blocks/<slug:how>/", Blocks.as_websocket()),
    path("ws/greenlets/", Greenlets.as_websocket()),
    path("ws/room/<slug:name>/", Room.as_websocket()),
    re_path(r"ws/chat/(?P<room_name>\w+)/$", Chat.as_asgi()),
    path("ws/trace/<slug:name>/", Trace.as_websocket()),
    path("ws/json/", Json.as_websocket()),
    path("ws/low/", Low.as_websocket()),
]
