"""Serves a connection with a consumer: the handshake, messages in both directions, and the end.

How it works. A :class:`Runner` is the handler of one connection. ``connect()`` of the consumer runs before the 101,
while the request's greenlet waits in :meth:`Runner.connect`. ``accept()`` ends that wait, and returns when the socket
is open. What the client and the channel layer bring goes into the inbox; while it is full of messages the socket is not
read. ``send()`` waits while the client does not read.

This module must not know the sockets of the operating system, nor the meaning of events.
"""

from __future__ import annotations

from typing import Any

import gevent
from gevent.event import AsyncResult

from wsloop import conf, metrics
from wsloop.consumers.base import Consumer
from wsloop.exceptions import Disconnected
from wsloop.protocol.close_codes import ABNORMAL, TOO_SLOW
from wsloop.protocol.consumer_events import handler_name
from wsloop.runtime.handlers import TURN, GreenletHandlers
from wsloop.runtime.inbox import BYTES, CONNECT, EVENT, MAX_MESSAGES, PRESENCE_CHANGED, RESUMED, TEXT
from wsloop.runtime.state import LEFT
from wsloop.runtime.worker import ConsumerRuntime
from wsloop.sockets.admission import Seat
from wsloop.sockets.connection import Connection
from wsloop.sockets.visitor import NOBODY, Visitor


class Runner(GreenletHandlers):
    """One consumer and its connection.

    Args:
        runtime: of the process.
        consumer: new.
        scope: of the socket.
        presence: the Redis channel on which changes of presence are published; None: there are none.
        visitor: for whom the socket counts, until its handlers have ended.

    Attributes:
        channel_name: of the consumer.
        subscriptions: the Redis channels that it gets events from.
    """

    __slots__ = (
        "_connection",
        "_decision",
        "_opening",
        "_presence",
        "_seat",
        "_visitor",
        "subscriptions",
    )

    def __init__(
        self,
        runtime: ConsumerRuntime,
        consumer: Consumer,
        scope: dict[str, Any],
        presence: bytes | None = None,
        visitor: Visitor = NOBODY,
    ) -> None:
        self._presence = presence if hasattr(consumer, handler_name({"type": PRESENCE_CHANGED})) else None
        self._visitor = visitor
        self._seat: Seat | None = None  # while handlers run although the socket has ended
        self._connection: Connection | None = None  # while it is open
        self._decision: AsyncResult[str | None] | None = AsyncResult()  # for the request's greenlet
        self._opening: AsyncResult[None] | None = None  # for the consumer's
        self.subscriptions: set[bytes] = set()
        super().__init__(runtime, consumer, scope)

    # The handshake, in the request's greenlet.

    def connect(self) -> str | None:
        """Ask the consumer, and return the subprotocol that it accepts with.

        Raises:
            Refused: if it rejects the socket, or fails.
        """
        decision = self._decision
        assert decision is not None
        if self._presence is not None:
            try:
                self._runtime.local_consumers.subscribe(self, self._presence)
            except BaseException:
                self._end()
                raise
        self._put(CONNECT)
        return decision.get()

    def opened(self, connection: Connection) -> None:
        """The 101 is out: let the consumer go on."""
        opening, self._opening = self._opening, None
        if opening is not None:  # otherwise the socket has ended already
            self._decision = None
            self._connection = connection
            opening.set(None)
            self._opened()

    def failed(self) -> None:
        """There will be no socket, whatever the consumer decides."""
        self._leave(ABNORMAL)
        self._count_work()

    # What happens to the connection, in the event loop.

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        if self._inbox.messages == MAX_MESSAGES - 1:
            connection.hold()
            self._runtime.add_full(self)
        self._put(TEXT if text else BYTES, payload)

    def pausing(self, connection: Connection) -> None:
        self._runtime.hub.pausing(connection)

    def drained(self, connection: Connection) -> None:
        self._runtime.hub.drained(connection)

    def closing(self, connection: Connection) -> None:
        self._runtime.hub.closing(connection)
        self._leave(connection.close_code)

    def closed(self, connection: Connection) -> None:
        self._runtime.hub.closed(connection)
        self._leave(connection.close_code)
        self._count_work()

    def check_peer(self) -> None:
        """Find out whether the client has hung up, while its connection is not read."""
        if self._connection is not None and self._connection.hung_up:
            self._hung_up()

    def _leave(self, code: int) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.set_exception(Disconnected())
        self._decision = None
        super()._leave(code)

    def _count_work(self) -> None:
        """Count running handlers against the visitor, so that reconnecting cannot exceed the limit."""
        if self._consumer is not None and self._seat is None:
            self._seat = self._runtime.hub.admission.keep(self._visitor)

    # What the channel layer brings, in the event loop or in another consumer's greenlet.

    def put(self, channel: bytes, payload: bytes) -> bool:
        """See :class:`wsloop.runtime.groups.LocalConsumer`."""
        kind = PRESENCE_CHANGED if channel == self._presence else EVENT
        taken = self._put_published(kind, payload, self._runtime.capacity, self._runtime.max_bytes)
        if not taken:
            metrics.lost("channel")
        return taken

    def resumed(self) -> None:
        """See :class:`wsloop.runtime.groups.LocalConsumer`."""
        wanted = hasattr(self._consumer, handler_name({"type": RESUMED}))
        if wanted and self._connect_called and self._state is not LEFT:
            self._put(RESUMED)

    def _after_event(self) -> None:
        """Read the connection again, and note that there is room for events, where half of the inbox is empty."""
        inbox, runtime = self._inbox, self._runtime
        if self._connection is not None and inbox.messages < MAX_MESSAGES // 2 and self in runtime.full:
            runtime.remove_full(self)
            self._connection.release()
        if self._consumer is not None and inbox.is_half_empty(runtime.capacity, runtime.max_bytes):
            runtime.local_consumers.has_room(self.channel_name)

    def _release(self) -> None:
        self._runtime.remove_full(self)
        self._connection = None
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.give_back()

    # What the consumer does, in its greenlet or in one that it has spawned.

    def _open(self, subprotocol: str | None) -> None:
        assert self._decision is not None
        opening = self._opening = AsyncResult()
        self._decision.set(subprotocol)
        opening.get()

    def _refuse(self, error: BaseException, code: int) -> None:
        assert self._decision is not None
        self._decision.set_exception(error)

    def _close_connection(self, code: int, reason: str) -> None:
        if self._connection is not None:
            self._connection.close(code, reason)

    def _transmit(self, payload: bytes, text: bool) -> None:
        connection = self._connection
        assert connection is not None
        frame = connection.frame(payload, text)
        most = connection.bounds.max_queued_bytes / 2
        while connection.queued_bytes and connection.queued_bytes + len(frame) > most and connection.open:
            self._wait_for_reader(connection)
        if not connection.accepting:
            self._stop_caller()
            return
        self._runtime.hub.enqueue(connection, frame)
        self._sent += 1
        if not self._sent % TURN:  # the client may read as fast as the handler sends
            self._runtime.scheduler.yield_turn()

    def _wait_for_reader(self, connection: Connection) -> None:
        """Return when the client has read its output, or has not read anything for PING_TIMEOUT seconds."""
        waiting, clear = connection.queued_bytes, False
        self._blocked_sends += 1
        try:
            with gevent.Timeout(conf.option("PING_TIMEOUT"), False):  # type: ignore[arg-type]
                self._runtime.hub.wait_until_clear(connection)
                clear = True
        finally:
            self._blocked_sends -= 1
        if not clear and connection.open and connection.queued_bytes >= waiting:
            metrics.reached("PING_TIMEOUT")
            connection.close(TOO_SLOW, "too slow")


__all__ = ["ConsumerRuntime", "Runner"]
