"""The socket of a consumer of coroutines under test: its handlers are tasks of the event loop of the test.

How it works. As on the server, each event is handled in a task of its own, so an idle socket leaves no task behind when
the loop of its test ends. The socket belongs to the loop in which its communicator was called last. Blocking code of a
handler runs where that of the test runs: asgiref finds the executor in the context, or by the loop. This module must
not know gevent.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from asgiref.sync import AsyncToSync

from wsloop.consumers.base import Consumer
from wsloop.protocol.consumer_events import Event
from wsloop.runtime.core import DISCONNECT, OVER
from wsloop.runtime.coroutines import CoroutineCore, handled, sleeps
from wsloop.testing.handler import place_in_coroutine
from wsloop.testing.memory import Memory
from wsloop.testing.sockets import MAX_UNREAD, Socket, message_event

CHECK_INTERVAL = 0.05  # seconds between two checks of a handler that goes on without its client


class TaskSocket(CoroutineCore, Socket):
    """A socket in real time. Arguments are those of :class:`wsloop.testing.sockets.Socket`."""

    virtual_time = False

    def __init__(self, consumer: Consumer, scope: dict[str, Any], memory: Memory, ended: Callable[[], None]) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # in which handlers may run; None: none at the moment
        self._executor: Any = None  # of the blocking code of the test
        self._task: asyncio.Task[None] | None = None
        self._starting = False
        self._cancelling = False  # the task was cancelled by this socket
        self._checked = False
        self._senders: collections.deque[asyncio.Future[None]] = collections.deque()  # wait until the test receives
        super().__init__(consumer, scope, memory, ended)

    # The client.

    def attend(self) -> None:
        loop = asyncio._get_running_loop()
        if loop is None:
            return
        self._executor = getattr(AsyncToSync.executors, "current", None)
        if loop is not self._loop:
            self._loop, self._starting, self._checked = loop, False, False
        if self._inbox.entries:
            self._wake()

    def cancel(self) -> None:
        self._ends_at = OVER
        self._interrupt()

    def _let_send(self) -> None:
        while self._senders:
            sender = self._senders.popleft()
            if not sender.done():
                sender.set_result(None)

    def _waits(self) -> str:
        task = self._task
        if task is None:
            return "runs"
        at = place_in_coroutine(task.get_coro())
        if self._blocked_sends:
            return f"waits until the test receives some of {len(self.output)} messages, at {at}"
        return f"{'sleeps' if sleeps(task) else 'waits'} at {at}"

    # Handlers.

    def _wake(self) -> None:
        if self._task is None and not self._starting:
            self._starting = True  # before, for the loop may be faster than this thread
            if not self._soon(self._start):
                self._starting = False

    def _soon(self, function: Callable[[], None]) -> bool:
        """Call a function in the event loop, from any thread; return False if there is none at the moment."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return False
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError:  # it was closed in between
            return False
        return True

    def _start(self) -> None:
        """Start a task for the next event, unless one runs."""
        self._starting = False
        while self._task is None and self._inbox.entries:
            event = self._take()
            if event is not None:
                contextvars.Context().run(self._handle_soon, event)
        self._memory.changed()

    def _handle_soon(self, event: Event) -> None:
        self._event = event
        self._start_task(self._handle(event))

    def _start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Start a task; in a context of its own."""
        handled.set(self)
        if self._executor is not None:
            AsyncToSync.executors.current = self._executor
        self._cancelling = False
        self._task = asyncio.get_running_loop().create_task(coroutine)

    async def _handle(self, event: Event) -> None:
        """Call the consumer with an event, then start the task for the next one."""
        assert self._consumer is not None
        if self._client_gone:
            self._end_soon()
        error: BaseException | None = None
        try:
            await self._consumer.dispatch(event)
        except BaseException as exc:
            error = exc
        self._task = None
        if isinstance(error, asyncio.CancelledError) and not self._cancelling:
            self._loop = None  # it ends, perhaps: what follows waits for the next call of the communicator
        self._handled(event, error)
        if self._loop is not None:
            self._start()
        if isinstance(error, KeyboardInterrupt):  # the test raises it: here it would stop the event loop
            self._memory.report(error)
        self._memory.changed()

    def _now(self) -> float:
        return monotonic()

    def _end_handler(self) -> None:
        if not self._checked:
            self._checked = True
            if not self._soon(self._check_handler):
                self._checked = False
        self._soon(self._let_send)

    def _check_handler(self) -> None:
        self._checked = False
        if self._task is None or self._handling is None:
            return
        late = self._now() >= self._ends_at
        if late:
            self._ends_at = OVER
        if late or self._may_interrupt(self._task):
            self._interrupt()
        self._checked = True
        asyncio.get_running_loop().call_later(CHECK_INTERVAL, self._check_handler)

    def _may_interrupt(self, task: asyncio.Task[None]) -> bool:
        """Return whether a handler that goes on without its client may be cancelled where it is."""
        return self._handling != DISCONNECT and sleeps(task)

    def _interrupt(self) -> None:
        if self._task is not None:
            self._cancelling = True
            self._soon(self._task.cancel)  # type: ignore[arg-type]  # what it returns does not matter

    # What the consumer does, in a task.

    def _transmit(self, payload: bytes, text: bool) -> Coroutine[Any, Any, None] | None:
        if len(self.output) >= MAX_UNREAD:
            return self._transmit_later(payload, text)
        self._emit(message_event(payload, text))
        return None

    async def _transmit_later(self, payload: bytes, text: bool) -> None:
        while len(self.output) >= MAX_UNREAD and not self._client_gone:
            sender = asyncio.get_running_loop().create_future()
            self._senders.append(sender)
            self._blocked_sends += 1
            try:
                await sender
            finally:
                self._blocked_sends -= 1
        if self._client_gone:
            await self._stop_caller()
        else:
            self._emit(message_event(payload, text))


__all__ = ["TaskSocket"]
