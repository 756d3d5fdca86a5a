"""Which URLs under ``WEBSOCKET_URL`` are served by consumers; all others are facilities."""

from django.urls import path

from chat.consumers import EchoConsumer, RandomConsumer
from chat.room_consumer import RoomConsumer

websocket_urlpatterns = [
    path("ws/echo/", EchoConsumer.as_websocket()),
    path("ws/random/", RandomConsumer.as_websocket()),
    path("ws/rooms/<slug:room>/", RoomConsumer.as_websocket()),
]
