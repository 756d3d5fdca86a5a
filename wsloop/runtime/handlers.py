"""Runs the handlers of a consumer in a greenlet that exists only while there is something to handle.

How it works. When an entry arrives in the inbox and no handler runs, a greenlet starts, calls the consumer with one
event after the other, and ends when the inbox is empty; so an idle socket has none. The greenlets of all consumers
share each round of the event loop. A handler that goes on without its client is ended when it sleeps, which cuts
nothing in half, or when its time is over.

This module must not know connections, nor the meaning of events.
"""

from __future__ import annotations

import abc
import contextvars
import logging
from time import monotonic
from typing import Any

import gevent
from greenlet import GreenletExit

from wsloop.consumers.base import Consumer
from wsloop.db import close_databases
from wsloop.exceptions import Disconnected
from wsloop.fair_scheduler import BREATH
from wsloop.greenlets import logged
from wsloop.protocol.consumer_events import Event
from wsloop.runtime.core import OVER, ConsumerCore
from wsloop.runtime.inbox import DISCONNECT
from wsloop.runtime.worker import ConsumerRuntime

logger = logging.getLogger("wsloop.runner")

HANDLER_CHECK_INTERVAL = 0.25  # seconds between two checks of a handler that goes on without its client
TURN = 8  # messages that a handler sends, or events handled, before other consumers get their turn
SLEEP = gevent.sleep.__code__


class GreenletHandlers(ConsumerCore):
    """A consumer whose handlers run in greenlets.

    Args:
        runtime: of the process.
        consumer: new.
        scope: of the socket.

    Attributes:
        greenlet: runs the handlers; None while there is nothing to do.
    """

    __slots__ = ("_runtime", "_sent", "_started_at", "_timer", "greenlet")

    ended_by = GreenletExit

    def __init__(self, runtime: ConsumerRuntime, consumer: Consumer, scope: dict[str, Any]) -> None:
        self._runtime = runtime
        self._sent = 0  # messages by the running handler
        self._timer: Any = None  # checks a handler that goes on without its client
        self._started_at = 0.0  # when a handler was last started immediately, see _start()
        self.greenlet: gevent.Greenlet[[], None] | None = None
        super().__init__(consumer, scope, runtime.local_consumers)

    def _wake(self) -> None:
        if self.greenlet is None:
            self._start()

    def _start(self) -> None:
        self._runtime.running.add(self)
        self.greenlet = gevent.Greenlet(self._run)
        self.greenlet.runner = self  # type: ignore[attr-defined]
        hub = gevent.get_hub()
        now = hub.loop.now()  # the same during one round of the loop
        if gevent.getcurrent() is hub and now != self._started_at:
            # Immediately, up to where it blocks: its answer goes out even if the client's next message is invalid.
            self._started_at = now
            self.greenlet.switch()
        else:
            self._runtime.scheduler.enqueue(self.greenlet.switch)

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
                    self._runtime.scheduler.yield_turn()
        finally:
            self.greenlet = None
            self._runtime.running.discard(self)
            if self._inbox.entries:  # it was killed between two handlers
                self._start()

    @abc.abstractmethod
    def _after_event(self) -> None:
        """An entry has left the inbox, and its handler has ended. Never blocks."""

    def _handle(self, event: Event) -> None:
        """Call the consumer with an event."""
        assert self._consumer is not None
        self._sent = 0
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
            if self._timer is not None:
                self._stop_checking()
            try:  # noqa: SIM105 - contextlib.suppress() takes 0.3 µs, for each event
                close_databases()
            except Exception:  # the code that used a broken connection has got the error
                pass

    def _report(self, event: Event, error: BaseException) -> None:
        logger.error("%s failed to handle an event %s", self._name(), event["type"], exc_info=error)

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
        greenlet = self.greenlet
        if greenlet is None or self._handling is None:
            self._stop_checking()
        elif _sleeps(greenlet) and self._handling != DISCONNECT:
            greenlet.throw(Disconnected())
        elif self._now() >= self._ends_at:
            if self._ends_at > OVER:
                logger.warning("Ended a handler of %s that went on for too long without its client", self._name())
                self._ends_at = OVER
            greenlet.throw(Disconnected())

    def _stop_checking(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()

    def _stop_caller(self) -> None:
        if getattr(gevent.getcurrent(), "runner", self) is self:
            gevent.sleep(BREATH)  # one that goes on nevertheless must not keep the others waiting
            raise Disconnected


def _sleeps(greenlet: Any) -> bool:
    """Return whether a greenlet is in ``time.sleep()``, which is gevent's: ending it there cuts nothing in half."""
    return greenlet.gr_frame is not None and greenlet.gr_frame.f_code is SLEEP


__all__ = ["TURN", "GreenletHandlers"]
