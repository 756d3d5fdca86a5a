"""Runs consumers: hands each what happens to its socket, one event after the other, in a greenlet that ends with it.

How it works. A :class:`Runner` is the handler of one connection. What the client sends, and what the channel layer
brings, goes into its inbox. If no handler runs, a greenlet begins that takes the events out, calls the consumer
with each, and ends when there are none; so an idle socket has none.

::

    CONNECTING --- accept() ---> OPENING --- 101 ---> OPEN --- the client leaves, or close() ---> LEFT
        |                           |                                                              ^
        +-- close(), an exception --+------------ the client has gone -----------------------------+

The first event is ``websocket.connect``, before the 101, while the request's greenlet waits in :meth:`Runner.connect`.
``accept()`` lets that go on, and waits until the socket is open. The last event is ``websocket.disconnect``, once, in
whichever way it ended. What the client sent before it left is handled before; a handler that runs then is ended if it
sleeps, or sends, or goes on for too long.

The inbox is bounded: while it is full the socket is not read, and what the channel layer brings is dropped and counted.
This module must not know sockets, nor what the events are about.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import enum
import logging
from http import HTTPStatus
from time import monotonic
from typing import Any

import gevent
from django.core.exceptions import PermissionDenied
from gevent.event import AsyncResult
from greenlet import GreenletExit
from redis.exceptions import RedisError
from websockets.frames import CloseCode

from wsloop import conf, layers, metrics
from wsloop.consumers import SyncConsumer, begin
from wsloop.db import close_databases
from wsloop.exceptions import Disconnected, StopConsumer
from wsloop.fair_scheduler import BREATH, FairScheduler
from wsloop.greenlets import logged
from wsloop.protocol import strict_json
from wsloop.protocol.close_codes import TOO_SLOW
from wsloop.protocol.consumer_events import Event, check_sent, encode_text, handler_name
from wsloop.refusals import Refused, try_again
from wsloop.runtime.groups import LocalConsumers
from wsloop.sockets.admission import Seat
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub
from wsloop.sockets.visitor import NOBODY, Visitor

logger = logging.getLogger("wsloop.runner")

MOST_MESSAGES = 16  # messages of the client that wait; at most 1 MiB with MAX_MESSAGE_SIZE as it is
LOOK = 0.25  # seconds between two looks at a handler that goes on although its client has left
LOOK_FULL = 1.0  # seconds between two looks at whether clients that are not read have hung up
SLEEP = gevent.sleep.__code__
TURN = 8  # messages that a handler sends, or events handled, before other consumers get their turn
EVENT, PRESENCE_CHANGED, RESUMED = "event", "presence.changed", "channel_layer.resumed"


class State(enum.Enum):
    CONNECTING = enum.auto()
    OPENING = enum.auto()
    OPEN = enum.auto()
    LEFT = enum.auto()


class NotUnderstood(Exception):
    """What came from Redis is no event."""


class ConsumerRuntime:
    """What the consumers of one process share.

    Args:
        hub, local_consumers: of the process.
    """

    def __init__(self, hub: Hub, local_consumers: LocalConsumers) -> None:
        self.hub = hub
        self.local_consumers = local_consumers
        self.scheduler = FairScheduler()
        self.capacity, self.most_bytes = conf.option("CHANNEL_CAPACITY"), conf.option("MAX_QUEUED_BYTES")
        self.running: set[Runner] = set()  # those whose greenlet runs
        self.full: set[Runner] = set()  # those whose connection is held
        self._timer: Any = gevent.get_hub().loop.timer(LOOK_FULL, LOOK_FULL)

    def hold(self, runner: Runner) -> None:
        """Look at a connection that is not read: the end of the line would not be noticed otherwise."""
        if not self.full:
            self._timer.start(logged, self._look)
        self.full.add(runner)

    def release(self, runner: Runner) -> None:
        """Take a :meth:`hold` back."""
        self.full.discard(runner)
        if not self.full:
            self._timer.stop()

    def _look(self) -> None:
        for runner in list(self.full):
            runner.look_for_peer()

    def wait(self, timeout: float) -> None:
        """Return when no handler runs any more, or after ``timeout`` seconds; half of them is for ``disconnect``."""
        self._join(timeout / 2)
        for runner in self.running:
            runner.give_up()
        self._join(timeout / 2)
        if self.running:
            logger.warning("the worker ends while %d consumers still work: they are cut off", len(self.running))

    def _join(self, timeout: float) -> None:
        end = monotonic() + timeout
        while self.running and monotonic() < end:
            gevent.sleep(0.01)  # not joined: those that stand in line have not begun


class Runner:
    """One consumer and its connection.

    Args:
        runtime: of the process.
        consumer: just made.
        scope: of the socket.
        presence: the Redis channel on which it is told who comes and goes; None: nobody tells.
        visitor: for whom the socket counts, until its handlers have ended.

    Attributes:
        channel_name: of the consumer.
        subscriptions: the Redis channels that it gets events from.
        greenlet: runs its handlers; None while there is nothing to do.
    """

    __slots__ = (
        "_begun",
        "_closes",
        "_connection",
        "_consumer",
        "_count",
        "_decision",
        "_ends_at",
        "_events_size",
        "_handling",
        "_hung_up",
        "_inbox",
        "_messages",
        "_opening",
        "_presence",
        "_runtime",
        "_seat",
        "_started_at",
        "_state",
        "_stopped",
        "_stuck",
        "_timer",
        "_visitor",
        "channel_name",
        "greenlet",
        "subscriptions",
    )

    def __init__(
        self,
        runtime: ConsumerRuntime,
        consumer: SyncConsumer,
        scope: dict[str, Any],
        presence: bytes | None = None,
        visitor: Visitor = NOBODY,
    ) -> None:
        self._runtime = runtime
        self._consumer: SyncConsumer | None = consumer
        self._presence = presence if hasattr(consumer, handler_name({"type": PRESENCE_CHANGED})) else None
        self._state = State.CONNECTING
        self._closes: tuple[int, str] | None = None  # code and reason, where it closes before the 101 is out
        self._begun = False  # it has been asked about its socket
        self._stopped = False  # by itself: what the client has sent besides is not for it any more
        self._connection: Connection | None = None
        self._inbox: collections.deque[tuple[str, Any]] = collections.deque()
        self._messages = 0  # of the client, in the inbox
        self._events_size = 0  # bytes, of events in the inbox
        self._handling: str | None = None  # what kind of event the consumer is called with, see _put()
        self._stuck = False  # a handler waits for the client to read
        self._hung_up = False  # the client has gone, although there may be more to read
        self._count = 0
        self._visitor = visitor
        self._seat: Seat | None = None  # while it works although its socket has ended
        self._decision: AsyncResult[str | None] | None = AsyncResult()
        self._opening: AsyncResult[None] | None = None
        self._timer: Any = None
        self._started_at = 0.0  # when a handler was last run at once
        self._ends_at = 0.0  # when handlers have to end that go on without the client; 0: it is there
        self.greenlet: gevent.Greenlet[[], None] | None = None
        self.subscriptions: set[bytes] = set()
        self.channel_name = runtime.local_consumers.enter(self)
        try:
            begin(consumer, scope, self._do, layers.get_channel_layer(), self.channel_name)
        except BaseException:
            runtime.local_consumers.leave(self.channel_name)
            raise

    # The handshake, in the request's greenlet.

    def connect(self) -> str | None:
        """Ask the consumer, and return the subprotocol that it accepts with.

        Raises:
            Refused: if it rejects the socket, or fails.
        """
        assert self._decision is not None
        if self._presence is not None:
            try:
                self._runtime.local_consumers.subscribe(self, self._presence)
            except BaseException:
                self._end()
                raise
        self._put("websocket.connect", None)
        return self._decision.get()

    def opened(self, connection: Connection) -> None:
        """The 101 is out: let the consumer go on."""
        opening, self._opening = self._opening, None
        if opening is not None:  # else it has ended already
            self._decision = None
            self._connection = connection
            self._state = State.OPEN
            opening.set(None)
            if self._closes is not None:
                connection.close(*self._closes)

    def failed(self) -> None:
        """There will be no socket, whatever the consumer says."""
        self._leave(CloseCode.ABNORMAL_CLOSURE)
        self._count_work()

    # What happens to the connection, in the event loop.

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        self._messages += 1
        if self._messages == MOST_MESSAGES:
            connection.hold()
            self._runtime.hold(self)
        self._put("text" if text else "bytes", payload)

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

    def look_for_peer(self) -> None:
        """Find out whether the client has hung up, while it is not read."""
        if self._connection is not None and not self._hung_up and self._connection.hung_up:
            self._hung_up = True
            self._end_handler()

    # What the channel layer brings, in the event loop or in another consumer's greenlet.

    def put(self, channel: bytes, payload: bytes) -> bool:
        """See :class:`wsloop.runtime.groups.LocalConsumer`."""
        if self._state is State.LEFT:
            return True
        size = self._events_size + len(payload)
        too_large = size > self._runtime.most_bytes and self._events_size > 0
        if too_large or self._events >= self._runtime.capacity:
            metrics.lost("channel")
            if self._stuck and self._connection is not None:
                self._connection.close(TOO_SLOW, "too slow")
            return False
        self._events_size = size
        self._put(PRESENCE_CHANGED if channel == self._presence else EVENT, payload)
        return True

    @property
    def _events(self) -> int:
        """How many of the channel layer wait."""
        return len(self._inbox) - self._messages

    def resumed(self) -> None:
        """See :class:`wsloop.runtime.groups.LocalConsumer`."""
        if self._begun and self._state is not State.LEFT and hasattr(self._consumer, handler_name({"type": RESUMED})):
            self._put(RESUMED, None)

    # The end.

    def _leave(self, code: int) -> None:
        """Have ``disconnect`` be called behind all that the client has sent."""
        if self._state is State.LEFT or self._consumer is None:
            return
        self._state = State.LEFT
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.set_exception(Disconnected())
        self._decision = None
        self._put("websocket.disconnect", int(code))
        self._end_handler()

    def _count_work(self) -> None:
        """Count running handlers against the visitor, so that reconnecting cannot exceed the limit."""
        if self._consumer is not None and self._seat is None:
            self._seat = self._runtime.hub.admission.keep(self._visitor)

    def give_up(self) -> None:
        """There is no more time: end a handler that runs, wherever it waits, and call nothing but ``disconnect``."""
        self._ends_at = float("-inf")
        if self._handling not in (None, "websocket.disconnect"):
            self._stop_looking()
            self._end_handler()

    def _end_handler(self) -> None:
        """Have a handler that runs be ended as soon as it sleeps, or when it has gone on for too long."""
        if self._handling is not None and self._timer is None:
            if not self._ends_at or self._handling == "websocket.disconnect":
                self._ends_at = monotonic() + conf.option("HANDLER_TIMEOUT")
            self._timer = gevent.get_hub().loop.timer(0, LOOK)
            self._timer.start(logged, self._look_at_handler)

    def _look_at_handler(self) -> None:
        greenlet = self.greenlet
        if greenlet is None or self._handling is None:
            self._stop_looking()
        elif _sleeps(greenlet) and self._handling != "websocket.disconnect":
            greenlet.throw(Disconnected())
        elif monotonic() >= self._ends_at:
            if self._ends_at > 0:
                logger.warning("%s is ended: it has gone on for too long without its client", self._name())
                self._ends_at = float("-inf")
            greenlet.throw(Disconnected())

    def _stop_looking(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()

    # The consumer's greenlet.

    def _put(self, kind: str, content: Any) -> None:
        self._inbox.append((kind, content))
        if self.greenlet is None:
            self._start()

    def _start(self) -> None:
        self._runtime.running.add(self)
        self.greenlet = gevent.Greenlet(self._run)
        self.greenlet.runner = self  # type: ignore[attr-defined]
        hub = gevent.get_hub()
        now = hub.loop.now()  # the same during one round of the loop
        if gevent.getcurrent() is hub and now != self._started_at:
            # At once, up to where it blocks: what it answers goes out even if what comes next is a fault of the client.
            self._started_at = now
            self.greenlet.switch()
        else:
            self._runtime.scheduler.enqueue(self.greenlet.switch)

    def _run(self) -> None:
        try:
            done = 0
            while self._inbox:
                kind, content = self._inbox.popleft()
                self._handle(kind, content)
                done += 1
                if not done % TURN:
                    self._runtime.scheduler.yield_turn()
        finally:
            self.greenlet = None
            self._runtime.running.discard(self)
            if self._inbox:  # it was ended between two handlers, by whoever holds it
                self._start()

    def _handle(self, kind: str, content: Any) -> None:
        if kind in ("text", "bytes"):
            self._messages -= 1
        elif kind in (EVENT, PRESENCE_CHANGED):
            self._events_size -= len(content)
        try:
            if self._wants(kind):
                self._dispatch(kind, _event(kind, content))
        except NotUnderstood:
            logger.warning("not understood: an event of %d bytes for %s", len(content), self._name())
        finally:
            if self._connection is not None and self._messages < MOST_MESSAGES // 2 and self in self._runtime.full:
                self._runtime.release(self)
                self._connection.release()
            if kind == "websocket.disconnect":
                self._end()
            elif self._events_size <= self._runtime.most_bytes / 2 and self._events <= self._runtime.capacity / 2:
                self._runtime.local_consumers.has_room(self.channel_name)

    def _wants(self, kind: str) -> bool:
        """Tell whether the consumer is to be called with what was put into its inbox."""
        if kind == "websocket.connect":
            self._begun = self._state is not State.LEFT
            return self._begun
        if kind == "websocket.disconnect":
            return self._begun
        if kind in ("text", "bytes"):
            return not (self._stopped or (self._ends_at and monotonic() >= self._ends_at))
        return self._state is not State.LEFT  # of others, who need not know yet that it has left

    def _dispatch(self, kind: str, event: Event) -> None:
        """Call the consumer with an event, and see to what it raises.

        Args:
            kind: what was put into the inbox; an event of the channel layer may have any type, those of sockets too.
            event: that is handled.
        """
        assert self._consumer is not None
        self._handling = kind
        self._count = 0
        try:
            if self._hung_up or self._state is State.LEFT:
                self._end_handler()
            # What a handler sets, translation.activate() for example, is not there for the next one by chance.
            contextvars.Context().run(self._consumer.dispatch, event)
            if kind == "websocket.connect" and self._state is State.CONNECTING:
                raise RuntimeError("connect() has called neither accept() nor close()")
        except StopConsumer:
            self._close(CloseCode.NORMAL_CLOSURE)
        except GreenletExit:  # Disconnected, the worker ends, or the site's own code has ended the greenlet
            if self._state is State.CONNECTING:
                refused = try_again(HTTPStatus.SERVICE_UNAVAILABLE, "The server is restarting.")
                self._refuse(refused, CloseCode.SERVICE_RESTART)
            elif kind == "websocket.disconnect" and self._ends_at > 0:
                logger.warning("disconnect() of %s ends early: it has sent to its socket", self._name())
            if not (self._hung_up or self._state is State.LEFT):  # else what the client sent before is handled yet
                self._close(CloseCode.NORMAL_CLOSURE)
        except KeyboardInterrupt:  # no error of the handler: it only ran when somebody stopped the server
            raise
        except BaseException as exc:
            self._failed(event, exc)
        finally:
            self._handling = None
            self._stop_looking()
            with contextlib.suppress(Exception):  # a broken one has been reported by whoever used it
                close_databases()

    def _failed(self, event: Event, error: BaseException) -> None:
        if self._state is State.CONNECTING and isinstance(error, (PermissionDenied, RedisError)):
            self._refuse(error, CloseCode.ABNORMAL_CLOSURE)
            return
        if self._state is State.CONNECTING:
            reason = "The site's code for this WebSocket has failed; the site's log says why."
            self._refuse(Refused(HTTPStatus.INTERNAL_SERVER_ERROR, reason), CloseCode.INTERNAL_ERROR)
        else:
            self._close(CloseCode.INTERNAL_ERROR, "internal error")
        logger.error("%s has failed with an event %s", self._name(), event["type"], exc_info=error)

    def _name(self) -> str:
        """Return what the log says of a consumer: nothing that is secret, and nothing that asks the database."""
        consumer = self._consumer
        if consumer is None:
            return "a consumer"
        path, user = consumer.scope["path"], consumer.scope["user"]
        return f"{type(consumer).__name__} at {path!r} for {type(user).__name__} {getattr(user, 'pk', None)!r}"

    def _refuse(self, reason: BaseException, code: int) -> None:
        decision = self._decision
        if decision is not None:
            decision.set_exception(reason)
        self._leave(code)

    def _end(self) -> None:
        """Forget everything: nothing is called any more."""
        self._runtime.release(self)
        self._runtime.local_consumers.leave(self.channel_name)
        self._inbox.clear()
        self._consumer = self._connection = None
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.give_back()

    # What the consumer does, in its greenlet or in one that it has spawned.

    def _do(self, event: Event) -> None:
        self._runtime.local_consumers.check_thread()
        consumer = self._consumer
        check_sent(event, () if consumer is None else consumer.scope["subprotocols"])
        if event["type"] == "websocket.accept":
            self._accept(event.get("subprotocol"))
        elif event["type"] == "websocket.close":
            code = event.get("code")
            self._close(CloseCode.NORMAL_CLOSURE if code is None else code, event.get("reason") or "")
        elif event.get("text") is not None:
            self._send(encode_text(event["text"]), True)
        else:
            self._send(bytes(event["bytes"]), False)

    def _accept(self, subprotocol: str | None) -> None:
        if self._state is State.LEFT:
            raise Disconnected
        if self._state is not State.CONNECTING or self._decision is None:
            raise RuntimeError("the socket was accepted before")
        self._state = State.OPENING
        opening = self._opening = AsyncResult()
        self._decision.set(subprotocol)
        opening.get()

    def _send(self, payload: bytes, text: bool) -> None:
        connection = self._connection
        if self._state is State.LEFT or self._hung_up:
            self._gone()
            return
        if connection is None:
            raise RuntimeError("send() comes after accept()")
        frame = connection.frame(payload, text)
        most = connection.bounds.max_queued_bytes / 2
        while connection.queued_bytes and connection.queued_bytes + len(frame) > most and connection.open:
            self._wait_for_reader(connection)
        if not connection.accepting:
            self._gone()
            return
        self._runtime.hub.enqueue(connection, frame)
        self._count += 1
        if not self._count % TURN:
            self._runtime.scheduler.yield_turn()  # a client that reads fast must not keep the others waiting

    def _gone(self) -> None:
        """Tell who sends that the client has left; not a handler of another consumer, which has its own client.

        Raises:
            Disconnected: to end a handler of this one, and what it has spawned.
        """
        if getattr(gevent.getcurrent(), "runner", self) is self:
            gevent.sleep(BREATH)  # one that goes on all the same must not keep the others waiting
            raise Disconnected

    def _wait_for_reader(self, connection: Connection) -> None:
        """Return when the client has read what waits for it, or has not read anything for too long."""
        waiting, clear = connection.queued_bytes, False
        self._stuck = True
        try:
            with gevent.Timeout(conf.option("PING_TIMEOUT"), False):  # type: ignore[arg-type]
                self._runtime.hub.wait_until_clear(connection)
                clear = True
        finally:
            self._stuck = False
        if not clear and connection.open and connection.queued_bytes >= waiting:
            metrics.reached("PING_TIMEOUT")
            connection.close(TOO_SLOW, "too slow")

    def _close(self, code: int, reason: str = "") -> None:
        self._stopped = True
        if self._state is State.CONNECTING:
            reason = reason or "This site does not allow you to open this WebSocket. Sign in, perhaps."
            self._refuse(Refused(HTTPStatus.FORBIDDEN, reason), CloseCode.ABNORMAL_CLOSURE)
        elif self._connection is not None:
            self._connection.close(code, reason)
        elif self._state is State.OPENING:
            self._closes = code, reason


def _event(kind: str, content: Any) -> Event:
    """Return the event that a consumer gets for what was put into its inbox.

    Raises:
        NotUnderstood: if what came from Redis is no event.
    """
    if kind == "text":
        return {"type": "websocket.receive", "text": content.decode()}
    if kind == "bytes":
        return {"type": "websocket.receive", "bytes": content}
    try:
        if kind == EVENT:
            event = layers.decode(content)
            handler_name(event)
            return event
        if kind == PRESENCE_CHANGED:
            return {**strict_json.decode(content), "type": PRESENCE_CHANGED}
    except Exception:  # whatever they make of what somebody else has published
        raise NotUnderstood from None
    if kind == "websocket.disconnect":
        return {"type": kind, "code": content}
    return {"type": kind}


def _sleeps(greenlet: Any) -> bool:
    """Tell whether a greenlet is in ``time.sleep()``, which is gevent's: ending it there cuts nothing in half."""
    return greenlet.gr_frame is not None and greenlet.gr_frame.f_code is SLEEP


__all__ = ["ConsumerRuntime", "Runner"]
