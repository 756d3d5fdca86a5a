"""Code for one socket: the classes from which sites derive consumers, like those of Django Channels.

A consumer object serves one socket. An event, a dictionary with a ``type``, calls the method of that name; the consumer
sends events, too. Methods are plain code that may block (:mod:`wsloop.consumers.sync`), or coroutines
(:mod:`wsloop.consumers.asynchronous`). :mod:`wsloop.runtime` runs consumers on sockets, :mod:`wsloop.testing` in tests.
"""

from wsloop.consumers.asynchronous import AsyncConsumer, AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer
from wsloop.consumers.sync import JsonWebsocketConsumer, SyncConsumer, WebsocketConsumer
from wsloop.exceptions import AcceptConnection, DenyConnection, StopConsumer  # found here in Channels, too
from wsloop.protocol.consumer_events import handler_name as get_handler_name

__all__ = [
    "AcceptConnection",
    "AsyncConsumer",
    "AsyncJsonWebsocketConsumer",
    "AsyncWebsocketConsumer",
    "DenyConnection",
    "JsonWebsocketConsumer",
    "StopConsumer",
    "SyncConsumer",
    "WebsocketConsumer",
    "get_handler_name",
]
