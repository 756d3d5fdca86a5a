"""Runs the handlers of a consumer in a greenlet that exists only while there is something to handle.

How it works. When an entry arrives in the inbox and no handler runs, a greenlet starts, calls the consumer with one
event after the other, and ends when the inbox is empty; so an idle socket has none. The greenlets of all consumers
share each round of the event loop. A handler that goes on without its client is ended when it sleeps, which cuts
nothing in half, or when its time is over.

This module must not know the meaning of events.
"""

from __future__ import annotations

import contextlib
import contextvars
from typing import Any

import gevent
from greenlet import GreenletExit

from wsloop import conf
from wsloop.db import close_databases, opened
from wsloop.exceptions import Disconnected
from wsloop.fair_scheduler import BREATH
from wsloop.greenlets import Greenlet
from wsloop.protocol.consumer_events import Event, Headers
from wsloop.runtime.inbox import DISCONNECT
from wsloop.runtime.runner import MORE, TURN, Runner
from wsloop.runtime.worker import ConsumerRuntime
from wsloop.sockets.connection import Connection

SLEEP = gevent.sleep.__code__


class GreenletRunner(Runner):
    """A consumer of plain code: its handlers run in greenlets. Arguments are those of :class:`Runner`.

    Attributes:
        greenlet: runs the handlers; None while there is nothing to do.
    """

    __slots__ = ("_sent", "_started_at", "_waits", "greenlet")

    ended_by = GreenletExit

    def __init__(self, runtime: ConsumerRuntime, *arguments: Any) -> None:
        self._sent = 0  # messages by the running handler
        self._started_at = 0.0  # when a handler was last started immediately, see _start()
        self._waits = False  # for the first turn of a greenlet
        self.greenlet: Greenlet | None = None
        super().__init__(runtime, *arguments)

    def _wake(self) -> None:
        if not self._waits and self.greenlet is None:
            self._start()

    def _start(self) -> None:
        self._runtime.running.add(self)
        if self._flow is None:
            hub = gevent.get_hub()
            now = hub.loop.now()  # the same during one round of the loop
            if gevent.getcurrent() is hub and now != self._started_at:
                # Immediately, up to where it blocks: its answer goes out even if the client's next message is invalid.
                self._started_at = now
                self._begin()
                return
        self._waits = True
        self._runtime.scheduler.enqueue(self._begin, self._flow)

    def _begin(self) -> None:
        self._waits = False
        self.greenlet = Greenlet(self._run)
        self.greenlet.runner = self  # type: ignore[attr-defined]
        self.greenlet.switch()

    def _run(self) -> None:
        try:
            done = 0
            while self._inbox.entries:
                event = self._take()
                if event is not None:
                    self._handle(event)
                self._after_event()
                done += 1
                if not done % TURN:
                    self._runtime.scheduler.yield_turn(self._flow or MORE)
        finally:
            self.greenlet = self._flow = None
            self._runtime.running.discard(self)
            if self._inbox.entries:  # it was killed between two handlers
                self._start()

    def _handle(self, event: Event) -> None:
        """Call the consumer with an event."""
        assert self._consumer is not None
        self._sent = 0
        before = opened()
        if self._client_gone:
            self._end_soon()
        try:
            # What a handler sets, translation.activate() for example, does not leak into the next one.
            contextvars.Context().run(self._consumer.dispatch, event)
        except BaseException as exc:
            self._handled(event, exc)
            if isinstance(exc, KeyboardInterrupt):
                raise
        else:
            self._handled(event)
        finally:
            self._stop_checking()
            if opened() != before:  # to look for connections takes 2 µs, for each event
                with contextlib.suppress(Exception):  # the code that used a broken connection has got the error
                    close_databases()

    # What the consumer does, in its greenlet or in one that it has spawned.

    def _open(self, subprotocol: str | None, headers: Headers) -> None:
        self._begin_opening(subprotocol, headers).get()

    def _transmit(self, payload: bytes, text: bool) -> None:
        connection = self._connection
        assert connection is not None
        frame = connection.frame(payload, text)
        while self._must_wait(connection, frame):
            self._wait_for_reader(connection)
        if not connection.accepting:
            self._stop_caller()
            return
        self._runtime.hub.enqueue(connection, frame)
        self._sent += 1
        if not self._sent % TURN:  # the client may read as fast as the handler sends
            self._runtime.scheduler.yield_turn(self._flow or MORE)

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
        if not clear:
            self._does_not_read(connection, waiting)

    def _handler_sleeps(self) -> bool:
        return self.greenlet is not None and _sleeps(self.greenlet)

    def _interrupt(self) -> None:
        if self.greenlet is not None:
            self.greenlet.throw(Disconnected())

    def _stop_caller(self) -> None:
        if getattr(gevent.getcurrent(), "runner", self) is self:
            gevent.sleep(BREATH)  # one that goes on nevertheless must not keep the others waiting
            if self._handling != DISCONNECT:  # which cleans up, and is to do all of it
                raise Disconnected


def _sleeps(greenlet: Any) -> bool:
    """Return whether a greenlet is in ``time.sleep()``, which is gevent's: ending it there cuts nothing in half."""
    return greenlet.gr_frame is not None and greenlet.gr_frame.f_code is SLEEP


__all__ = ["TURN", "GreenletRunner"]
