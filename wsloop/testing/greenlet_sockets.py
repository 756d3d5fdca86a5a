"""The socket of a consumer of plain code under test: its handlers run in the scheduler of the test, in virtual time.

This module must not know gevent.
"""

from __future__ import annotations

import contextvars
import functools
import sys
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit

from wsloop.consumers.base import Consumer
from wsloop.exceptions import Disconnected
from wsloop.protocol.consumer_events import Event
from wsloop.runtime.core import DISCONNECT
from wsloop.testing.handler import FOREVER, Handler
from wsloop.testing.memory import Memory
from wsloop.testing.sockets import MAX_UNREAD, Socket, message_event


class GreenletSocket(Socket):
    """A socket of the thread in which it was made, and of its scheduler. Arguments are those of :class:`Socket`."""

    virtual_time = True
    ended_by = GreenletExit

    def __init__(self, consumer: Consumer, scope: dict[str, Any], memory: Memory, ended: Callable[[], None]) -> None:
        self._scheduler = memory.scheduler
        self._scheduler.claim()
        self._handler: Handler | None = None
        self._sender: Handler | None = None  # waits until the test receives
        self._modules = [
            sys.modules[each.__module__] for each in type(consumer).__mro__ if each.__module__ in sys.modules
        ]
        super().__init__(consumer, scope, memory, ended)

    # The client.

    def _let_send(self) -> None:
        if self._sender is not None:
            self._scheduler.wake(self._sender)

    def _waits(self) -> str:
        handler = self._handler
        assert handler is not None
        if self._sender is not None:
            return f"waits until the test receives some of {len(self.output)} messages, at {handler.where()}"
        if handler.wakes_at is not None and handler.wakes_at < FOREVER:
            return f"sleeps for {handler.wakes_at - self._scheduler.now:g} s more, at {handler.where()}"
        return "runs"

    # Handlers.

    def _wake(self) -> None:
        self._scheduler.soon(self._next)
        self._memory.changed()

    def _next(self) -> None:
        """Start the handler of the next event, unless a handler runs."""
        while self._handler is None and self._inbox.entries:
            event = self._take()
            if event is not None:
                self._handle(event)

    def _handle(self, event: Event) -> None:
        assert self._consumer is not None
        call = functools.partial(contextvars.Context().run, self._consumer.dispatch, event)
        self._event = event
        self._handler = Handler(call, self._handler_ended, self._modules)
        if self._client_gone:
            self._end_soon()
        self._scheduler.start(self._handler)

    def _handler_ended(self, error: BaseException | None) -> None:
        self._handler = None
        self._handled(self._event, error)
        self._wake()
        if isinstance(error, KeyboardInterrupt):
            raise error

    def _now(self) -> float:
        return self._scheduler.now

    def _end_handler(self) -> None:
        assert self._handler is not None
        if self._handling == DISCONNECT:
            self._handler.ends_at = self._ends_at
        else:
            self._scheduler.end(self._handler)

    # What the consumer does.

    def _transmit(self, payload: bytes, text: bool) -> None:
        handler = self._scheduler.current()
        while len(self.output) >= MAX_UNREAD and handler is not None:
            self._sender = handler
            self._blocked_sends += 1
            try:
                self._scheduler.pause(handler)
            finally:
                self._blocked_sends -= 1
                self._sender = None
        self._emit(message_event(payload, text))

    def _stop_caller(self) -> None:
        handler = self._scheduler.current()
        if handler is None:
            raise Disconnected
        if handler is self._handler and self._handling != DISCONNECT:  # which is to clean up all
            self._scheduler.refuse(handler)


__all__ = ["GreenletSocket"]
