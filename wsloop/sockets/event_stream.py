"""A stream of Server-Sent Events: the response to a request, which ends only with the connection.

How it works. It is a connection like a WebSocket, with the same bounds, but for its frames
(:mod:`wsloop.protocol.events`) and for input, which is thrown away. The response has no length: the end of the stream
is its end, in HTTP/1.0 and 1.1, and a proxy in between may cut it into chunks. Behind the messages of each write comes
an ``id`` with the client's positions in all of its channels, which a browser sends back when it reconnects.

Source: HTML, section 9.2. This module must not know Redis, nor how the hub works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from wsloop.protocol import events
from wsloop.protocol.close_codes import ABNORMAL
from wsloop.protocol.dialects import Dialect
from wsloop.protocol.messages import Position
from wsloop.sockets.connection import Connection, Handler
from wsloop.sockets.limits import Bounds
from wsloop.sockets.output import FINISHING
from wsloop.sockets.transport import Transport

UNREAD = 50  # seconds for which the kernel tries to deliver what is sent, before it ends the connection
Positions = Callable[[Iterable[bytes]], Mapping[bytes, Position]]


class EventStream(Connection):
    """An open stream.

    Args:
        transport, handler, bounds, dialect: see :class:`Connection`.
        positions: returns the positions up to which messages of channels were delivered in this process, if known.
    """

    __slots__ = ("_catching_up", "_code", "_positions", "_reason", "_token", "_told")

    def __init__(
        self, transport: Transport, handler: Handler, bounds: Bounds, dialect: Dialect, positions: Positions
    ) -> None:
        super().__init__(transport, handler, bounds, dialect)
        self._positions = positions
        self._token = ""
        self._told = ""  # the last id
        self._catching_up: Mapping[bytes, Position] = {}
        self._code, self._reason = ABNORMAL, ""
        transport.end_when_unread(UNREAD)

    @property
    def alive(self) -> bool:
        """True: a browser sends nothing. The kernel ends a connection to a client that has gone."""
        return True

    @alive.setter
    def alive(self, value: bool) -> None:
        pass

    @property
    def close_code(self) -> int:  # type: ignore[override]
        return self._code

    @property
    def close_reason(self) -> str:  # type: ignore[override]
        return self._reason

    def resumes_from(self, token: str | None) -> None:
        self._token = token or ""

    def catching_up(self, positions: Mapping[bytes, Position]) -> None:
        self._catching_up = dict(positions)

    def frame(self, payload: bytes, text: bool | None = None) -> bytes:
        return self.dialect.encode(payload)

    def flush(self) -> None:
        if self._token and self._queue and self.accepting and self._latest is None:
            told = events.last_id(self._token, {**self._catching_up, **self._positions(self.channels)})
            if told != self._told:
                self._told = told
                self.enqueue(events.id_line(told))
        super().flush()

    def _feed(self, data: bytes) -> None:
        self._pause()  # input is thrown away, but not at any speed

    def close(self, code: int, reason: str = "", after: int | None = None) -> None:
        """End the stream: behind what waits, and an event that says why."""
        if self.open:
            self._code, self._reason = code, reason
            self._say_goodbye(code, reason, after)
            self._leave_open()
            self._state = FINISHING
            super().flush()

    def fail(self, code: int, reason: str) -> None:
        self.close(code, reason)


__all__ = ["EventStream"]
