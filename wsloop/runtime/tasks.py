"""Runs the handlers of a consumer whose methods are coroutines: each in a task of the worker's event loop.

How it works. When an entry arrives in the inbox and no handler runs, the loop starts a task for it, and after its end
one for the next; so an idle socket has none. Blocking code that a handler hands to ``sync_to_async()``, Django's ORM
included, runs in a line of its own. A handler that goes on without its client is cancelled when it is in
``asyncio.sleep()``, or when its time is over. This module must not know the meaning of events.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from wsloop import conf
from wsloop.aio import context
from wsloop.aio.lines import Line
from wsloop.aio.loop import set_result
from wsloop.aio.worker import worker_loop
from wsloop.protocol.consumer_events import Event, Headers
from wsloop.runtime.coroutines import CoroutineCore, handled, sleeps
from wsloop.runtime.runner import TURN, Runner
from wsloop.runtime.worker import ConsumerRuntime
from wsloop.sockets.connection import Connection


async def until(linkable: Any) -> Any:
    """Wait for an event or result of gevent, and return what its ``get()`` or ``wait()`` does."""
    if not linkable.ready():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        link = lambda _: loop.call_soon_threadsafe(set_result, future, None)  # noqa: E731 - to be unlinked
        linkable.rawlink(link)
        try:
            await future
        finally:
            linkable.unlink(link)
    return linkable.get() if hasattr(linkable, "get") else None


@types.coroutine
def _turn() -> Generator[None]:
    """Give the others their turn."""
    yield


class TaskRunner(CoroutineCore, Runner):
    """A consumer of coroutines: its handlers run in tasks. Arguments are those of :class:`Runner`.

    Attributes:
        task: runs a handler; None while there is nothing to do.
    """

    __slots__ = ("_sent", "_starting", "task")

    def __init__(self, runtime: ConsumerRuntime, *arguments: Any) -> None:
        self._starting = False
        self._sent = 0  # messages
        self.task: asyncio.Task[None] | None = None
        super().__init__(runtime, *arguments)

    def _wake(self) -> None:
        if self.task is None and not self._starting:
            self._runtime.running.add(self)
            self._start_soon()

    def _start_soon(self) -> None:
        self._starting = True
        if self._flow is None:
            worker_loop().call_soon_threadsafe(self._start)
        else:
            self._runtime.starts.put(self._start, self._flow)

    def _start(self) -> None:
        """Start a task for the next event; in the event loop, while none runs."""
        self._starting = False
        self.task = None
        while self._inbox.entries:
            event = self._take()
            if event is not None:
                contextvars.Context().run(self._handle_soon, event)
                return
            self._after_event()
        self._flow = None
        self._runtime.running.discard(self)

    def _handle_soon(self, event: Event) -> None:
        handled.set(self)
        self._run_in_line(functools.partial(self._handle, event))

    def _run_in_line(self, work: Callable[[Line], Coroutine[Any, Any, None]]) -> None:
        """Start the task, in the current context; blocking code of ``work(line)`` runs in that line."""
        line = Line()
        context.enter(line)
        self.task = asyncio.get_running_loop().create_task(work(line))

    async def _handle(self, event: Event, line: Line) -> None:
        """Call the consumer with an event, then start the task for the next one."""
        assert self._consumer is not None
        if self._client_gone:
            self._end_soon()
        try:
            await self._consumer.dispatch(event)
        except BaseException as exc:
            self._handled(event, exc)
            if isinstance(exc, KeyboardInterrupt):
                raise
        else:
            self._handled(event)
        finally:
            self._stop_checking()
            line.close()
            self._after_event()
            if self._flow is not None and self._inbox.entries:  # others have their turn
                self.task = None
                self._start_soon()
            else:
                self._start()

    def _handler_sleeps(self) -> bool:
        return self.task is not None and sleeps(self.task)

    def _interrupt(self) -> None:
        if self.task is not None:
            worker_loop().call_soon_threadsafe(self.task.cancel)

    # What the consumer does, in a task.

    def _open(self, subprotocol: str | None, headers: Headers) -> Coroutine[Any, Any, None]:
        return until(self._begin_opening(subprotocol, headers))

    def _transmit(self, payload: bytes, text: bool) -> Awaitable[None] | None:
        connection = self._connection
        assert connection is not None
        frame = connection.frame(payload, text)
        if self._must_wait(connection, frame):
            return self._transmit_later(connection, frame)
        if not connection.accepting:
            return self._stop_caller()
        self._runtime.hub.enqueue(connection, frame)
        self._sent += 1
        return None if self._sent % TURN else _turn()  # the client may read as fast as the handler sends

    async def _transmit_later(self, connection: Connection, frame: bytes) -> None:
        while self._must_wait(connection, frame):
            waiting = connection.queued_bytes
            self._blocked_sends += 1
            try:
                await asyncio.wait_for(until(self._runtime.hub.clearing(connection)), conf.option("PING_TIMEOUT"))
            except asyncio.TimeoutError:
                self._does_not_read(connection, waiting)
            finally:
                self._blocked_sends -= 1
        if connection.accepting:
            self._runtime.hub.enqueue(connection, frame)
            await _turn()  # it need not have waited: the kernel may have taken everything
        else:
            await self._stop_caller()


__all__ = ["TURN", "TaskRunner"]
