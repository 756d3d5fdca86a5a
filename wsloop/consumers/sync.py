"""Consumers that are plain code: their methods may block.

They have the names and the behaviour of the synchronous ones of Django Channels. This module must not know gevent,
Redis or sockets.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from websockets.frames import CloseCode

from wsloop.consumers.base import Consumer
from wsloop.exceptions import AcceptConnection, DenyConnection, StopConsumer
from wsloop.protocol import strict_json
from wsloop.protocol.consumer_events import Event, Header, handler_name
from wsloop.protocol.strict_json import NotJson


class SyncConsumer(Consumer):
    """Calls a method, plain code that may block, for each event of its socket."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in dir(cls):
            if name == "__call__":  # that of an ASGI application, for both kinds
                continue
            method = inspect.getattr_static(cls, name)
            method = getattr(method, "__func__", method)  # of a staticmethod or classmethod
            if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
                raise TypeError(
                    f"{cls.__name__}.{name} is `async def`, and {cls.__name__} is a consumer of plain code. Derive it "
                    f"from Async{_family(cls)}, or write `def {name}(…)` and omit `await`."
                )

    def dispatch(self, message: Event) -> None:
        """Call the method for an event.

        Raises:
            ValueError: if there is no such method.
        """
        name = handler_name(message)
        handler = getattr(self, name, None)
        if not callable(handler) or name == "dispatch":  # which would call itself
            kind = message["type"][:100]
            raise ValueError(f"{type(self).__name__} has no method {name[:100]}() for events of type {kind!r}")
        handler(message)

    def send(self, message: Event) -> None:
        """Send an event: ``websocket.accept``, ``websocket.send`` or ``websocket.close``."""
        self.base_send(message)


def _family(consumer_class: type[SyncConsumer]) -> str:
    """Return the name of the class of this module from which a consumer is derived."""
    return next(each.__name__ for each in consumer_class.__mro__ if each.__module__ == __name__).removeprefix("Sync")


class WebsocketConsumer(SyncConsumer):
    """A consumer with a method for each event of a socket; override :meth:`connect` and those below.

    Attributes:
        groups: groups of the channel layer that the consumer joins.
    """

    groups: Sequence[str] | None = None
    _wsloop_asked = True  # False while connect() has not been called, because the groups could not be joined

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = list(self.groups or ())  # its own: connect() may append to it

    def websocket_connect(self, message: Event) -> None:
        """Join the groups, and call :meth:`connect`."""
        self._wsloop_asked = False
        for group in self.groups or ():
            self.channel_layer.group_add(group, self.channel_name)
        self._wsloop_asked = True
        try:
            self.connect()
        except AcceptConnection:
            self.accept()
        except DenyConnection:
            self.close()

    def connect(self) -> None:
        """Decide whether to :meth:`accept` the socket or to reject it with :meth:`close`."""
        self.accept()

    def accept(self, subprotocol: str | None = None, headers: Iterable[Header] | None = None) -> None:
        """Open the socket.

        Args:
            subprotocol: one of ``scope["subprotocols"]``, or None.
            headers: pairs of name and value, text or bytes, that the 101 has besides those of the handshake.

        Raises:
            ValueError: if the client has not offered the subprotocol, or the 101 cannot have one of the headers.
            Disconnected: if the client has left.
        """
        event: Event = {"type": "websocket.accept", "subprotocol": subprotocol}
        if headers:
            event["headers"] = list(headers)
        super().send(event)

    def websocket_receive(self, message: Event) -> None:
        """Call :meth:`receive` with a message."""
        if message.get("text") is not None:
            self.receive(text_data=message["text"])
        else:
            self.receive(bytes_data=message["bytes"])

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Handle a message of the client; one of the arguments is None."""

    def send(  # type: ignore[override]
        self, text_data: str | None = None, bytes_data: bytes | None = None, close: bool | int = False
    ) -> None:
        """Send a message; then close the socket if ``close`` is True or a close code.

        Raises:
            Disconnected: if the socket has ended.
        """
        if text_data is not None:
            super().send({"type": "websocket.send", "text": text_data})
        elif bytes_data is not None:
            super().send({"type": "websocket.send", "bytes": bytes_data})
        else:
            raise ValueError("send() needs text_data or bytes_data")
        if close:
            self.close(close)

    def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Close the socket, or reject it with 403 if it has not been accepted.

        Args:
            code: close code (RFC 6455, section 7.4); None or True: 1000.
            reason: for the client, up to 123 bytes.

        Raises:
            ValueError: if a close frame cannot carry code or reason.
        """
        super().send({"type": "websocket.close", "code": None if code is True else code, "reason": reason})

    def websocket_disconnect(self, message: Event) -> None:
        """Leave the groups, and call :meth:`disconnect`."""
        for group in self.groups or ():
            self.channel_layer.group_discard(group, self.channel_name)
        if self._wsloop_asked:
            self._wsloop_asked = False
            self.disconnect(message["code"])
        raise StopConsumer

    def disconnect(self, code: int) -> None:
        """Clean up after the socket has ended with this close code."""


class JsonWebsocketConsumer(WebsocketConsumer):
    """A consumer whose messages are JSON."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        """Decode a message of the client, and call :meth:`receive_json`.

        A message that is binary or not JSON closes the socket with 1007. In Channels it is an error of the consumer,
        with which any client could fill the log.
        """
        try:
            content = self.decode_json(text_data or "")
        except NotJson as exc:
            self.close(CloseCode.INVALID_DATA, f"JSON is expected: {exc}")
            return
        except (ValueError, RecursionError):  # of a decode_json() of the site, whose messages may be secret
            self.close(CloseCode.INVALID_DATA, "JSON is expected")
            return
        self.receive_json(content, **kwargs)

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Handle a message of the client."""

    def send_json(self, content: Any, close: bool | int = False) -> None:
        """Encode ``content`` and send it; otherwise like :meth:`send`.

        Raises:
            TypeError, ValueError: if JSON cannot encode it; see :meth:`encode_json`.
        """
        super().send(text_data=self.encode_json(content), close=close)

    @classmethod
    def decode_json(cls, text_data: str) -> Any:
        """Return the value of a message of the client.

        Raises:
            ValueError: if it is not JSON (RFC 8259). ``NaN``, ``1e999``, integers of more than 64 bits and half of a
                surrogate pair, all of which Python's module accepts, are refused.
        """
        return strict_json.decode(text_data)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """Return the message for ``content``.

        Raises:
            TypeError: if it has a value that JSON cannot encode.
            ValueError: if it has ``nan``, ``inf`` or half of a surrogate pair, which browsers cannot read.
        """
        return strict_json.encode(content)


__all__ = ["JsonWebsocketConsumer", "SyncConsumer", "WebsocketConsumer"]
