"""The socket of one consumer under test: the rules of a real one, in virtual time and without a connection.

The rules are those of :mod:`wsloop.runtime.core`. Handlers run in the scheduler of the test, and what would go to the
client is collected in ``output``. This module must not know gevent.
"""

from __future__ import annotations

import collections
import contextvars
import functools
import sys
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit

from wsloop import conf
from wsloop.consumers.base import Consumer
from wsloop.exceptions import Disconnected
from wsloop.protocol.close_codes import ABNORMAL
from wsloop.protocol.consumer_events import Event, Headers, encode_text
from wsloop.refusals import Refused
from wsloop.runtime.core import BYTES, CONNECT, CONNECTING, DISCONNECT, EVENT, LEFT, TEXT, ConsumerCore
from wsloop.testing.handler import FOREVER, Handler
from wsloop.testing.memory import Memory

MAX_UNREAD = 1000  # messages that the test has not received, before send() waits for it
NO_LIMIT = float("inf")


class Socket(ConsumerCore):
    """Calls a consumer with events, and carries out what it does.

    Args:
        consumer: new.
        scope: of the socket.
        memory: the channel layer.
        ended: called when the consumer has ended.

    Attributes:
        output: events for the client, ``websocket.send`` and ``websocket.close``.
        answer: to the handshake: whether it was accepted, and the subprotocol or the close code; None before.
        headers: that the consumer has added to the 101.
        ended: whether disconnect() has returned.
        channel_name: of the consumer.
    """

    ended_by = GreenletExit

    def __init__(self, consumer: Consumer, scope: dict[str, Any], memory: Memory, ended: Callable[[], None]) -> None:
        self.output: collections.deque[Event] = collections.deque()
        self.answer: tuple[bool, str | int | None] | None = None
        self.headers: Headers = ()
        self.ended = False
        self._scheduler = memory.scheduler
        self._when_ended = ended
        self._code = 0
        self._event: Event = {}
        self._handler: Handler | None = None
        self._sender: Handler | None = None  # waits until the test receives
        self._modules = [
            sys.modules[each.__module__] for each in type(consumer).__mro__ if each.__module__ in sys.modules
        ]
        super().__init__(consumer, scope, memory)

    # The client.

    @property
    def left(self) -> bool:
        """Whether the socket has ended, for the client."""
        return self._state is LEFT

    @property
    def idle(self) -> bool:
        """Whether no handler runs and no entry waits."""
        return self._handler is None and not self._inbox.entries

    def connect(self) -> None:
        """Begin the handshake."""
        self._put(CONNECT)

    def receive(self, message: str | bytes) -> None:
        """The client has sent a message.

        Raises:
            ValueError: if it is text that UTF-8 cannot encode.
        """
        if isinstance(message, str):
            self._put(TEXT, encode_text(message))
        else:
            self._put(BYTES, message)

    def take(self) -> Event:
        """Return the next event for the client."""
        event = self.output.popleft()
        if self._sender is not None:
            self._scheduler.wake(self._sender)
        return event

    def leave(self, code: int) -> None:
        """The client has closed the socket with this code."""
        self._leave(ABNORMAL if self._state is CONNECTING else code)

    def doing(self) -> str:
        """Return a description of what the consumer does at the moment."""
        handler = self._handler
        if self.left and handler is None:
            return f"the socket has ended, with close code {self._code}"
        if handler is None:
            return "no handler runs"
        what = f"the handler of {self._event['type']}"
        if self._sender is not None:
            return f"{what} waits until the test receives some of {len(self.output)} messages, at {handler.where()}"
        if handler.wakes_at is not None and handler.wakes_at < FOREVER:
            return f"{what} sleeps for {handler.wakes_at - self._scheduler.now:g} s more, at {handler.where()}"
        return f"{what} runs"

    # The channel layer.

    def put(self, payload: bytes) -> bool:
        """See :class:`wsloop.testing.memory.LocalConsumer`."""
        return self._put_published(EVENT, payload, conf.option("CHANNEL_CAPACITY"), NO_LIMIT)

    # Handlers.

    def _wake(self) -> None:
        self._scheduler.soon(self._next)

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

    def _report(self, event: Event, error: BaseException) -> None:
        self._scheduler.errors.append(error)

    def _leave(self, code: int) -> None:
        if not self.left:
            self._code = code
        super()._leave(code)

    def _release(self) -> None:
        self.ended = True
        self._when_ended()

    # What the consumer does.

    def _open(self, subprotocol: str | None, headers: Headers) -> None:
        self.answer = (True, subprotocol)
        self.headers = headers
        self._opened()

    def _refuse(self, error: BaseException, code: int) -> None:
        self.answer = (False, code)
        if not isinstance(error, Refused):  # otherwise _report() gets the error, or there is none
            self._scheduler.errors.append(error)

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
        self.output.append({"type": "websocket.send", **({"text": payload.decode()} if text else {"bytes": payload})})

    def _stop_caller(self) -> None:
        handler = self._scheduler.current()
        if handler is None:
            raise Disconnected
        if handler is self._handler:
            self._scheduler.refuse(handler)

    def _close_connection(self, code: int, reason: str) -> None:
        self.output.append({"type": "websocket.close", "code": code, "reason": reason})
        self._leave(code)


__all__ = ["Socket"]
