"""Where the blocking code of a coroutine runs, in asgiref's thread-sensitive mode: in a line, or in the greenlet that
waits for the coroutine.

This module must not know WebSockets.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import asgiref.sync
from asgiref.current_thread_executor import CurrentThreadExecutor
from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext

from wsloop.aio.lines import Line, Pool
from wsloop.aio.loop import thread_id


def enter(line: Line) -> None:
    """In the current context, run the blocking code of coroutines in ``line``: ``sync_to_async()``, Django's ORM.

    Otherwise asgiref runs that of all coroutines in one thread, one call after the other.
    """
    sensitive = ThreadSensitiveContext()
    SyncToAsync.context_to_thread_executor[sensitive] = line
    SyncToAsync.thread_sensitive_context.set(sensitive)
    if getattr(AsyncToSync.executors, "current", None) is not None:
        AsyncToSync.executors.current = None  # of a request that ends before this context does


class GreenletExecutor(CurrentThreadExecutor):
    """Runs blocking code in the greenlet that waits in ``async_to_sync()``; and when that is over, in a line.

    A coroutine is cancelled when its greenlet is killed, or its time is over: nobody waits for it any more. What it has
    to do then, and tasks that it has started when it has returned, can have blocking code run, too. asgiref lets the
    first go on until it waits for ever, and the others fail.
    """

    _line: Line | None = None

    def run_until_future(self, future: Future[Any]) -> None:
        try:
            super().run_until_future(future)
        except BaseException:
            with self._work_ready:
                self._broken = True
                waiting, self._work_items = self._work_items, collections.deque()
            for item in waiting:
                self._later().submit(item.run)
            loop = getattr(SyncToAsync.threadlocal, "main_event_loop", None)
            if loop is not None:  # its task begins with this turn of the loop at the latest
                loop.call_soon_threadsafe(loop.call_soon, _cancel, SyncToAsync.threadlocal.task_context)
            raise

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:
            executor: CurrentThreadExecutor | None = self
            while executor is not None:
                if not executor._broken:
                    raise  # a greenlet has called it for itself, and would wait for ever
                executor = executor._old_executor
            return self._later().submit(fn, *args, **kwargs)

    def _later(self) -> Line:
        if self._line is None:
            self._line = Line()
        return self._line


def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for each in tasks:
        each.cancel()


class _Executors:
    """Stands for ``ThreadPoolExecutor`` in asgiref.

    In a thread of gevent's pool, ``async_to_sync()`` makes an executor for its event loop. The executor's greenlet
    would wait for more when that thread has ended, and Python at its exit would wait for the greenlet, for ever.
    """

    def __init__(self) -> None:
        self._thread = thread_id()

    def __call__(self, max_workers: int) -> Executor:
        return ThreadPoolExecutor(max_workers) if thread_id() == self._thread else Pool()


def install() -> None:
    """Make blocking code of coroutines run after the end of ``async_to_sync()``, too. May be called again."""
    asgiref.sync.CurrentThreadExecutor = GreenletExecutor  # type: ignore[attr-defined]
    asgiref.sync.ThreadPoolExecutor = _Executors()  # type: ignore[assignment, attr-defined]


__all__ = ["enter", "install"]
