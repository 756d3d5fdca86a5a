"""One connection that was taken over from the WSGI server: output, reading and the end. The only writer to its socket.

How it works. The object has no greenlet. The event loop calls :meth:`Connection.ready`; what arrived goes to a
subclass, :class:`~wsloop.sockets.websocket.WebSocket` or :class:`~wsloop.sockets.event_stream.EventStream`. Frames to
send are encoded elsewhere, once for all connections, and queued here with :meth:`Connection.enqueue`;
:meth:`Connection.flush` joins what has gathered and gives it to the kernel. What the kernel does not take waits, up to
a number of bytes: see :class:`wsloop.sockets.output.Output`, which also has the table of a connection's states.

This module must not know Redis, HTTP, WebSockets, nor how the hub works.
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable, Mapping
from typing import Any

from wsloop import metrics
from wsloop.protocol.close_codes import TOO_SLOW
from wsloop.protocol.dialects import Dialect
from wsloop.protocol.frames import encode
from wsloop.protocol.messages import Position
from wsloop.sockets.census import NOWHERE
from wsloop.sockets.handler import ENDED, Handler
from wsloop.sockets.limits import Bounds, Meter
from wsloop.sockets.output import CLOSED, CLOSING, FINISHING, OPEN, OVERFLOWED, Output, settle
from wsloop.sockets.transport import READ, WRITE, Transport

logger = logging.getLogger("wsloop.connection")


class Connection(Output, abc.ABC):
    """An open connection on a taken-over socket. A subclass reads from it, and ends it in its protocol's way.

    Args:
        transport: its socket, from which reading starts with :meth:`start`.
        handler: gets its messages and its end.
        bounds: what the client may do.
        dialect: of the frames.
        window_bits: how messages to this client may be compressed, see :func:`wsloop.protocol.frames.encode`.

    Attributes:
        close_code: the code that a closing connection ends with (RFC 6455, section 7.1.5).
        close_reason: the reason beside that code; empty without one.
        dialect: of the frames.
        presence_scopes: where it is counted for presence: facilities, each with the name of the user.
        labels: for the hub: by which it is counted.
        channels: for the hub: those that this connection is subscribed to; once for each subscription with the channel.
        visitor: for the hub: the person behind it.
        meter: counts what the client sends.
        alive: for the heartbeat: whether there was a sign of life since it last looked.
    """

    __slots__ = (
        "_handler",
        "_held",
        "_rest",
        "_transport",
        "alive",
        "channels",
        "dialect",
        "labels",
        "meter",
        "presence_scopes",
        "visitor",
    )

    close_code: int
    close_reason: str

    def __init__(
        self, transport: Transport, handler: Handler, bounds: Bounds, dialect: Dialect, window_bits: int = 0
    ) -> None:
        super().__init__(bounds, window_bits)
        self._transport = transport
        self._handler = handler
        self._held = 0
        self._rest = b""  # of a read: the data after the frame because of which the connection is held
        self.meter = Meter()
        self.channels: tuple[bytes, ...] = ()
        self.labels = NOWHERE
        self.dialect = dialect
        self.presence_scopes: tuple[Any, ...] = ()
        self.visitor: Any = None
        self.alive = True

    def start(self) -> None:
        """Begin to read."""
        self._transport.start(self.ready)

    @property
    def held(self) -> bool:
        """Whether reading is stopped at the moment."""
        return self._held > 0

    @property
    def open(self) -> bool:
        """Whether neither side has begun to close it."""
        return self._state is OPEN or self._state is OVERFLOWED

    @property
    def hung_up(self) -> bool:
        """Whether the client has ended the stream; for a connection that is not read, and would not notice."""
        return self._transport.hung_up

    # Recovery, for connections that tell their clients how far they have come; others know by the messages.

    def resumes_from(self, token: str | None) -> None:
        """Take the token with which the client's subscription has begun; None: it has no recovery."""

    def catching_up(self, positions: Mapping[bytes, Position]) -> None:
        """Take the positions up to which a recovery has come, in channels that it is no subscriber of yet."""

    # Output; see Output.

    def frame(self, payload: bytes, text: bool | None = None) -> bytes:
        """Return the frame of a message for this client alone, compressed where that was negotiated and may pay.

        Args:
            payload: the message.
            text: whether it is text or binary; None: text if it is UTF-8.
        """
        bits = 0 if len(payload) < self.bounds.compress_from else self.window_bits
        return self.dialect.encode(payload, bits) if text is None else encode(payload, text, bits)

    def reply(self, payload: bytes, text: bool) -> None:
        """Send a message from within the handler's ``received``; all replies to one read leave together."""
        frame = self.frame(payload, text)
        metrics.TRAFFIC.sent(1, len(frame))
        self.enqueue(frame)

    def flush(self) -> None:
        """Hand the waiting frames to the kernel, as much as it takes."""
        if self._state is OVERFLOWED:
            self.close(TOO_SLOW, "too slow")
        while (queue := self._queue) and not self._writing:
            data = queue if isinstance(queue, bytes) and not self._sent else self._head()
            try:
                taken = self._transport.send(data)
            except OSError:
                self.abort()
                return
            if taken == self._queued_bytes:
                self._queue = None
                self._queued_bytes = self._sent = 0
                if self._latest:
                    self._queue_latest()
            else:
                self._taken(taken)
                if taken < len(data):
                    self._writing = True
                    self._watch()
        if self._state is FINISHING and not self._queue:
            self._transport.send_eof()

    def _watch(self) -> None:
        reading = 0 if self._held else READ
        self._transport.watch(reading + (WRITE if self._writing else 0))

    # Input.

    def ready(self, events: int) -> None:
        """Read, write or both; called by the event loop."""
        self._guarded(self._ready, events)

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception:
            # The loop would only print it, and call again at once, because the socket is still readable.
            logger.exception("Closed a connection because of an error of the server")
            self.abort()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            waiting = self._queued_bytes
            self._writing = False
            self.flush()
            self.alive = self.alive or self._queued_bytes < waiting  # it reads, if slowly
            self._watch()
            if self._queue is None:
                self._handler.drained(self)
        if events & READ and self._state is not CLOSED:
            data = self._transport.receive()
            if data:
                metrics.TRAFFIC.bytes_in += len(data)
                self._feed(data)
            elif data is not None:
                self.abort()

    @abc.abstractmethod
    def _feed(self, data: bytes) -> None:
        """Act on data that has arrived."""

    def _pause(self) -> None:
        self.hold()
        self._handler.pausing(self)

    def hold(self) -> None:
        """Stop reading until :meth:`release` has been called as often."""
        self._held += 1
        if self._held == 1:
            self._watch()

    def release(self) -> None:
        """Reverse one :meth:`hold`."""
        self._held -= 1
        if self._held:
            return
        rest, self._rest = self._rest, b""
        if rest:
            self._guarded(self._feed, rest)
        if not self._held:
            self._guarded(self._resume)

    def _resume(self) -> None:
        """Read again."""
        self._watch()

    # The end.

    @abc.abstractmethod
    def close(self, code: int, reason: str = "", after: int | None = None) -> None:
        """Begin to close. Output that waits goes first.

        Args:
            code: close code (RFC 6455, section 7.4).
            reason: for the client.
            after: see :meth:`wsloop.protocol.dialects.Dialect.goodbye`.
        """

    @abc.abstractmethod
    def fail(self, code: int, reason: str) -> None:
        """Close because of a fault of the client, without waiting for it (RFC 6455, section 7.1.7)."""

    def _say_goodbye(self, code: int, reason: str, after: int | None) -> None:
        """Queue what the dialect says before the end, behind the output that waits."""
        settle()
        self._queue_latest()
        goodbye = self.dialect.goodbye(code, reason, after) if self.accepting else None
        if goodbye is not None:
            frame = self.dialect.encode(goodbye)
            # If it does not fit, the waiting frames would be dropped for it.
            if self._queued_bytes + len(frame) <= self.bounds.max_queued_bytes:
                self.enqueue(frame)

    def _leave_open(self) -> None:
        settle()
        self._state = CLOSING
        self._latest = None
        self._handler.closing(self)

    def abort(self) -> None:
        """End the connection at once. May be called again."""
        if self._state is CLOSED:
            return
        self._state = CLOSED
        handler, self._handler = self._handler, ENDED
        self._forget()
        self._queue = self._latest = None
        self._rest = b""
        self._transport.close()
        handler.closed(self)

    def _forget(self) -> None:
        """Let go of what only an open connection needs."""


__all__ = ["Connection", "Handler"]
