"""What gets the events of a connection. This module must not know what does."""

from __future__ import annotations

from typing import Any, Protocol

Connection = Any  # wsloop.sockets.connection.Connection, which knows this module


class Handler(Protocol):
    """Gets the events of a connection; each method is called from the event loop and must not block."""

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        """A complete message has arrived; ``text`` is whether it is text, then valid UTF-8, or binary."""

    def pausing(self, connection: Connection) -> None:
        """The connection is held, because its client sends too fast or trickles; release it in some milliseconds."""

    def drained(self, connection: Connection) -> None:
        """The kernel was full, and has now taken all output that waited."""

    def ending(self, connection: Connection) -> None:
        """The client has sent its close frame; hold the connection while messages of it wait to be handled."""

    def closing(self, connection: Connection) -> None:
        """The connection takes no more messages and waits for the peer to hang up."""

    def closed(self, connection: Connection) -> None:
        """The connection has ended."""


class EndedHandler:
    """The handler of a connection that has ended, so that it keeps no other object alive."""

    def received(self, connection: Connection, payload: bytes, text: bool) -> None: ...

    def pausing(self, connection: Connection) -> None: ...

    def drained(self, connection: Connection) -> None: ...

    def ending(self, connection: Connection) -> None: ...

    def closing(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...


ENDED = EndedHandler()

__all__ = ["ENDED", "Handler"]
