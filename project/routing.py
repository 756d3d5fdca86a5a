"""The URLs under ``WEBSOCKET_URL`` that are code and no notifications."""

from chat.echo import Echo

handlers = {"echo/": Echo}
