"""The URLs under ``WEBSOCKET_URL`` that consumers serve; all others are facilities."""

from django.conf import settings
from django.urls import include, path

from chat.consumers import EchoConsumer, RandomConsumer
from chat.rooms.consumer import RoomConsumer

consumers = [
    path("echo/", EchoConsumer.as_websocket()),
    path("random/", RandomConsumer.as_websocket()),
    path("rooms/<slug:room>/", RoomConsumer.as_websocket()),
]
websocket_urlpatterns = [path(settings.WEBSOCKET_URL.removeprefix("/"), include(consumers))]
