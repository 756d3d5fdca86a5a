"""The URLs under ``WSLOOP["URL"]`` that consumers serve; all others are facilities."""

from django.urls import include, path

from chat.consumers import EchoConsumer, RandomConsumer
from chat.rooms.consumer import RoomConsumer
from wsloop.conf import websocket_url

consumers = [
    path("echo/", EchoConsumer.as_websocket()),
    path("random/", RandomConsumer.as_websocket()),
    path("rooms/<slug:room>/", RoomConsumer.as_websocket()),
]
websocket_urlpatterns = [path(websocket_url().removeprefix("/"), include(consumers))]
