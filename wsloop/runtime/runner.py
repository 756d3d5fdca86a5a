"""Serves a connection with a consumer: the handshake, messages in both directions, and the end. A little longer than
other modules, because the way of one consumer is best read together.

How it works. A :class:`Runner` is the handler of one connection. ``connect()`` of the consumer runs before the 101,
while the request's greenlet waits in :meth:`Runner.connect`. ``accept()`` ends that wait, and returns when the socket
is open. What the client and the channel layer bring goes into the inbox; while it is full of messages the socket is not
read. ``send()`` waits while the client does not read. Consumers of plain code are run by
:mod:`wsloop.runtime.handlers`, those of coroutines by :mod:`wsloop.runtime.tasks`.

This module must not know how handlers are run, the sockets of the operating system, nor the meaning of events.
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Collection, Sequence
from time import monotonic
from typing import Any

import gevent
from gevent.event import AsyncResult

from wsloop import metrics
from wsloop.consumers.base import Consumer
from wsloop.exceptions import Disconnected
from wsloop.greenlets import logged
from wsloop.protocol.close_codes import ABNORMAL, TOO_SLOW
from wsloop.protocol.consumer_events import Event, Headers, handler_name
from wsloop.runtime.core import OVER, ConsumerCore
from wsloop.runtime.inbox import (
    BYTES,
    CONNECT,
    DISCONNECT,
    EVENT,
    MAX_MESSAGES,
    PRESENCE_CHANGED,
    RESUMED,
    TEXT,
    Published,
)
from wsloop.runtime.state import LEFT
from wsloop.runtime.worker import ConsumerRuntime
from wsloop.sockets.admission import Seat
from wsloop.sockets.connection import Connection
from wsloop.sockets.visitor import NOBODY, Visitor

logger = logging.getLogger("wsloop.runner")

# The flow of handlers that go on after their first turn, which is in None. Those of an event of the channel layer are
# in that of the Redis channel on which it came.
MORE = "more"
TURN = 8  # messages that a handler sends, or events handled, before others get their turn
HANDLER_CHECK_INTERVAL = 0.25  # seconds between two checks of a handler that goes on without its client


class Runner(ConsumerCore):
    """One consumer and its connection. A subclass runs the handlers.

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
        "_flow",
        "_opening",
        "_presence",
        "_runtime",
        "_seat",
        "_timer",
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
        self._runtime = runtime
        self._presence = presence if hasattr(consumer, handler_name({"type": PRESENCE_CHANGED})) else None
        self._visitor = visitor
        self._flow: bytes | None = None  # see MORE; of what came last
        self._timer: Any = None  # checks a handler that goes on without its client
        self._seat: Seat | None = None  # while handlers run although the socket has ended
        self._connection: Connection | None = None  # while it is open
        self._decision: AsyncResult[tuple[str | None, Headers]] | None = AsyncResult()  # for the request's greenlet
        self._opening: AsyncResult[None] | None = None  # for the consumer's
        self.subscriptions: Collection[bytes] = ()
        super().__init__(consumer, scope, runtime.local_consumers)

    # The handshake, in the request's greenlet.

    def connect(self) -> tuple[str | None, Headers]:
        """Ask the consumer, and return the subprotocol and the headers that it accepts with.

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
        accepted = decision.get()
        assert accepted is not None
        return accepted

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

    def ending(self, connection: Connection) -> None:
        pass

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        self._flow = None
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
        self._flow = None
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
        self._flow = channel
        taken = self._put_published(kind, payload, self._runtime.capacity, self._runtime.max_bytes)
        if not taken:
            metrics.lost("channel")
        return taken

    def put_all(self, channel: bytes, events: Sequence[Published], size: int) -> None:
        """See :class:`wsloop.runtime.groups.LocalConsumer`."""
        runtime = self._runtime
        if channel == self._presence or not self._inbox.has_room(
            size, runtime.capacity, runtime.max_bytes, len(events)
        ):
            for event in events:  # as many as there is room for
                self.put(channel, event.payload)
        elif self._state is not LEFT:
            self._flow = channel
            self._inbox.put_all(events, size)
            self._wake()

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

    def _report(self, event: Event, error: BaseException) -> None:
        logger.error("%s failed to handle an event %s", self._name(), event["type"], exc_info=error)

    def _release(self) -> None:
        self._runtime.remove_full(self)
        self._connection = None
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.give_back()

    # The end of handlers whose client has left.

    def give_up(self) -> None:
        """The worker stops: end a handler that runs, wherever it waits, and call only ``disconnect`` after it."""
        self._ends_at = OVER
        if self._handling not in (None, DISCONNECT):
            self._stop_checking()
            self._end_handler()

    def _now(self) -> float:
        return monotonic()

    def _end_handler(self) -> None:
        if self._timer is None:
            self._timer = gevent.get_hub().loop.timer(0, HANDLER_CHECK_INTERVAL)
            self._timer.start(logged, self._check_handler)

    def _check_handler(self) -> None:
        if self._handling is None:
            self._stop_checking()
        elif self._handling != DISCONNECT and self._handler_sleeps():
            self._interrupt()
        elif self._now() >= self._ends_at:
            if self._ends_at > OVER:
                logger.warning("Ended a handler of %s that went on for too long without its client", self._name())
                self._ends_at = OVER
            self._interrupt()

    @abc.abstractmethod
    def _handler_sleeps(self) -> bool:
        """Return whether the running handler sleeps, so that ending it there cuts nothing in half."""

    @abc.abstractmethod
    def _interrupt(self) -> None:
        """End the running handler where it waits."""

    def _stop_checking(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()

    # What the consumer does.

    def _begin_opening(self, subprotocol: str | None, headers: Headers) -> AsyncResult[None]:
        """Answer the handshake, and return what is set when the 101 is out, or to Disconnected."""
        assert self._decision is not None
        opening: AsyncResult[None] = AsyncResult()
        self._opening = opening
        self._decision.set((subprotocol, headers))
        return opening

    def _refuse(self, error: BaseException, code: int) -> None:
        assert self._decision is not None
        self._decision.set_exception(error)

    def _close_connection(self, code: int, reason: str) -> None:
        if self._connection is not None:
            self._connection.close(code, reason)

    def _must_wait(self, connection: Connection, frame: bytes) -> bool:
        """Return whether a frame must wait for the client to read: half of what may be queued is queued."""
        waiting = connection.queued_bytes
        return bool(waiting) and waiting + len(frame) > connection.bounds.max_queued_bytes / 2 and connection.open

    def _does_not_read(self, connection: Connection, waiting: int) -> None:
        """PING_TIMEOUT has passed for a frame that waits: close the connection if nothing was read meanwhile.

        Args:
            waiting: the bytes that were queued before.
        """
        if connection.open and connection.queued_bytes >= waiting:
            metrics.reached("PING_TIMEOUT")
            connection.close(TOO_SLOW, "too slow")


__all__ = ["TURN", "ConsumerRuntime", "Runner"]
