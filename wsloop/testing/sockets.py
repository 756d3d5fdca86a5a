"""The socket of one consumer under test: the rules of a real one, without a connection.

The rules are those of :mod:`wsloop.runtime.core`. What would go to the client is collected in ``output``. Subclasses
run the handlers: those of plain code in virtual time (:mod:`wsloop.testing.greenlet_sockets`), those of coroutines in
an event loop (:mod:`wsloop.testing.task_sockets`). This module must not know either of them.
"""

from __future__ import annotations

import abc
import collections
from collections.abc import Callable
from typing import Any

from wsloop import conf
from wsloop.consumers.base import Consumer
from wsloop.protocol.close_codes import ABNORMAL
from wsloop.protocol.consumer_events import Event, Headers, encode_text
from wsloop.refusals import Refused
from wsloop.runtime.core import BYTES, CONNECT, CONNECTING, EVENT, LEFT, TEXT, ConsumerCore
from wsloop.runtime.inbox import MalformedEvent
from wsloop.testing.memory import Memory

MAX_UNREAD = 1000  # messages that the test has not received, before send() waits for it
NO_LIMIT = float("inf")


class Socket(ConsumerCore):
    """Calls a consumer with events, and carries out what it does. A subclass runs the handlers.

    Args:
        consumer: new.
        scope: of the socket.
        memory: the channel layer.
        ended: called when the consumer has ended.

    Attributes:
        virtual_time: whether the sleeps of its handlers take no time.
        output: events for the client, ``websocket.send`` and ``websocket.close``.
        answer: to the handshake: whether it was accepted, and the subprotocol or the close code; None before.
        headers: that the consumer has added to the 101.
        ended: whether disconnect() has returned.
        channel_name: of the consumer.
    """

    virtual_time: bool

    def __init__(self, consumer: Consumer, scope: dict[str, Any], memory: Memory, ended: Callable[[], None]) -> None:
        self.output: collections.deque[Event] = collections.deque()
        self.answer: tuple[bool, str | int | None] | None = None
        self.headers: Headers = ()
        self.ended = False
        self._memory = memory
        self._when_ended = ended
        self._code = 0
        self._event: Event = {}  # whose handler runs
        super().__init__(consumer, scope, memory)

    # The client.

    @property
    def left(self) -> bool:
        """Whether the socket has ended, for the client."""
        return self._state is LEFT

    @property
    def idle(self) -> bool:
        """Whether no handler runs and no entry waits."""
        return self._handling is None and not self._inbox.entries

    def attend(self) -> None:
        """A call of the communicator begins: handlers may run in its event loop, if there is one."""

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
        self._let_send()
        return event

    def leave(self, code: int) -> None:
        """The client has closed the socket with this code."""
        self._leave(ABNORMAL if self._state is CONNECTING else code)

    def cancel(self) -> None:
        """The test no longer waits for the end: end what runs."""

    def doing(self) -> str:
        """Return a description of what the consumer does at the moment."""
        if self._handling is not None:
            return f"the handler of {self._event['type']} {self._waits()}"
        return f"the socket has ended, with close code {self._code}" if self.left else "no handler runs"

    @abc.abstractmethod
    def _waits(self) -> str:
        """Return for what the running handler waits, and where."""

    @abc.abstractmethod
    def _let_send(self) -> None:
        """The test has received: let a ``send()`` go on that waits for it."""

    # The channel layer.

    def put(self, payload: bytes) -> bool:
        """See :class:`wsloop.testing.memory.LocalConsumer`."""
        return self._put_published(EVENT, payload, conf.option("CHANNEL_CAPACITY"), NO_LIMIT)

    # The end.

    def _report(self, event: Event, error: BaseException) -> None:
        self._memory.report(error)

    def _discard(self, size: int, error: MalformedEvent) -> None:
        super()._discard(size, error)
        self._memory.report(ValueError(str(error).removeprefix(": ")))  # on the server nobody would see it

    def _leave(self, code: int) -> None:
        if not self.left:
            self._code = code
        super()._leave(code)

    def _release(self) -> None:
        self.ended = True
        self._when_ended()
        self._memory.changed()

    # What the consumer does.

    def _open(self, subprotocol: str | None, headers: Headers) -> None:
        self.answer = (True, subprotocol)
        self.headers = headers
        self._opened()
        self._memory.changed()

    def _refuse(self, error: BaseException, code: int) -> None:
        self.answer = (False, code)
        if not isinstance(error, Refused):  # otherwise _report() gets the error, or there is none
            self._memory.report(error)
        self._memory.changed()

    def _emit(self, event: Event) -> None:
        """Give an event to the client."""
        self.output.append(event)
        self._memory.changed()

    def _close_connection(self, code: int, reason: str) -> None:
        self._emit({"type": "websocket.close", "code": code, "reason": reason})
        self._leave(code)


def message_event(payload: bytes, text: bool) -> Event:
    """Return the event for a message to the client."""
    return {"type": "websocket.send", **({"text": payload.decode()} if text else {"bytes": payload})}


__all__ = ["MAX_UNREAD", "Socket", "message_event"]
