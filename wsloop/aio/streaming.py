"""Asynchronous streaming responses under WSGI: each part goes out as it comes, and the stream ends with its client.

Django's ``StreamingHttpResponse`` collects an asynchronous iterator to its end before it serves it to WSGI. Here a task
iterates, and hands one part after the other to the greenlet of the request, which waits for it. The task computes the
next part while one is sent, and no further ahead. This module must not know WebSockets.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import async_to_sync
from django.http import StreamingHttpResponse
from gevent.event import Event

from wsloop.aio import context
from wsloop.aio.lines import Line
from wsloop.sockets import transport

CLOSE_TIMEOUT = 10.0  # seconds that the iterator has to end after its client has left, as ASGI applications have


class Stream:
    """The parts of a response, for the greenlet of its request.

    Args:
        parts: the asynchronous iterator.
    """

    def __init__(self, parts: AsyncIterator[Any]) -> None:
        self._parts = parts
        self._ready = Event()  # a part is there, or the end
        self._part: Any = None
        self._taken: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._watcher: Any = None

    def __iter__(self) -> Iterator[Any]:
        async_to_sync(self._start)()
        assert self._loop is not None
        self._watcher = transport.watch_hang_up(self.close)
        try:
            while True:
                self._ready.wait()
                self._ready.clear()
                if self._taken is None:
                    break
                part, self._part = self._part, None
                self._loop.call_soon_threadsafe(self._go_on)
                yield part
        finally:
            self.close()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """The client has left, or all is sent: cancel the task. Never blocks."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.stop()
            watcher.close()
        if self._task is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def _start(self) -> None:
        """Start the task from here, so that it has the context of the request: its language, its time zone."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._iterate())

    def _go_on(self) -> None:
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(None)

    async def _iterate(self) -> None:
        line = Line()
        context.enter(line)
        assert self._loop is not None
        try:
            async for part in self._parts:
                self._part, self._taken = part, self._loop.create_future()
                self._ready.set()
                await self._taken
        except asyncio.CancelledError:
            pass
        except BaseException as exc:
            self._error = exc
        finally:
            close = getattr(self._parts, "aclose", None)
            try:
                if close is not None:
                    await asyncio.wait_for(close(), CLOSE_TIMEOUT)
            finally:
                self._taken = self._task = None
                self._ready.set()
                line.close()


def install() -> None:
    """Make Django's streaming responses serve asynchronous iterators part by part. May be called again."""
    original = StreamingHttpResponse.__iter__
    if hasattr(original, "streams"):
        return

    @functools.wraps(original)
    def parts(self: StreamingHttpResponse) -> Iterator[bytes]:
        if not self.is_async:
            return original(self)
        content: Any = self.streaming_content
        stream = Stream(content)
        self._resource_closers.append(stream.close)  # type: ignore[attr-defined]
        return iter(stream)

    parts.streams = True  # type: ignore[attr-defined]
    StreamingHttpResponse.__iter__ = parts  # type: ignore[method-assign]


__all__ = ["install"]
