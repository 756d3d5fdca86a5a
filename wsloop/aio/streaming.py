"""Asynchronous streaming responses under WSGI: each part goes out as it comes, and the stream ends with its client.

Django's ``StreamingHttpResponse`` collects an asynchronous iterator to its end before it serves it to WSGI. Here a task
iterates, and hands one part after the other to the greenlet of the request, which waits for it. The task computes the
next part while one is sent, and no further ahead. This module must not know WebSockets.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import async_to_sync
from django.http import StreamingHttpResponse
from gevent.event import Event

from wsloop.aio import context
from wsloop.aio.lines import Line
from wsloop.sockets import servers

logger = logging.getLogger("wsloop.aio")

CLOSE_TIMEOUT = 10.0  # seconds that an iterator has to end after its client has left


class Stream:
    """The parts of a response, for the greenlet of its request.

    Args:
        parts: the asynchronous iterator.
        source: the one of the site, which ``parts`` iterates.
    """

    def __init__(self, parts: AsyncIterator[Any], source: AsyncIterator[Any]) -> None:
        self._parts, self._source = parts, source
        self._ready = Event()  # a part is there, or the end
        self._part: Any = None
        self._taken: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._deadline: asyncio.TimerHandle | None = None
        self._error: BaseException | None = None
        self._watcher: Any = None

    def __iter__(self) -> Iterator[Any]:
        async_to_sync(self._start)()
        assert self._loop is not None
        self._watcher = servers.watch_hang_up(self.close)
        running = _running(os.getpid())
        running.add(self)
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
            running.discard(self)
            self.close()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """The client has left, or all is sent: cancel the task. Never blocks. May be called again."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.stop()
            watcher.close()
        if self._task is not None and self._loop is not None and not self._closing:
            self._closing = True  # one cancellation, or what the iterator does at its end would be cancelled, too
            self._loop.call_soon_threadsafe(self._cancel)

    async def _start(self) -> None:
        """Start the task from here, so that it has the context of the request: its language, its time zone."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._iterate())

    def _go_on(self) -> None:
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(None)

    def _cancel(self) -> None:
        if self._task is not None and self._loop is not None:
            self._task.cancel()
            self._deadline = self._loop.call_later(CLOSE_TIMEOUT, self._give_up)

    def _give_up(self) -> None:
        """Its time is over: cancel it once more, and end the request in any case."""
        if self._task is not None:
            self._task.cancel()
            self._taken = None
            self._ready.set()

    async def _iterate(self) -> None:
        line = Line()
        context.enter(line)
        assert self._loop is not None
        try:
            async for part in self._parts:
                self._part, self._taken = part, self._loop.create_future()
                self._ready.set()
                await self._taken
        except BaseException as exc:
            self._ended_by(exc)
        for iterator in (self._parts, self._source):
            close = getattr(iterator, "aclose", None)
            if close is not None:
                try:
                    await close()
                except BaseException as exc:
                    self._ended_by(exc)
        self._taken = self._task = None
        self._ready.set()
        line.close()
        if self._deadline is not None:
            self._deadline.cancel()

    def _ended_by(self, error: BaseException) -> None:
        if self._error is None and not (self._closing and isinstance(error, asyncio.CancelledError)):
            self._error = error


@functools.lru_cache(maxsize=1)
def _running(process: int) -> set[Stream]:
    """Return the streams of this process, which end before uWSGI kills a worker that waits for them to reload."""
    running: set[Stream] = set()

    def end() -> None:
        if running:
            logger.warning("The worker reloads: %d streaming responses end before they are complete", len(running))
        for each in running:
            each.close()

    servers.before_reload(end)
    return running


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
        stream = Stream(content, self._iterator)  # type: ignore[attr-defined]
        self._resource_closers.append(stream.close)  # type: ignore[attr-defined]
        return iter(stream)

    parts.streams = True  # type: ignore[attr-defined]
    StreamingHttpResponse.__iter__ = parts  # type: ignore[method-assign]


__all__ = ["install"]
