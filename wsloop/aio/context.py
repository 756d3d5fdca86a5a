"""Where the blocking code of a coroutine runs, in asgiref's thread-sensitive mode: in a line, or in the greenlet that
waits for the coroutine.

This module must not know WebSockets.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import asgiref.sync
from asgiref.current_thread_executor import CurrentThreadExecutor
from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext

from wsloop.aio.lines import Line


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
    """Runs blocking code in the greenlet that waits in ``async_to_sync()``, until that is over."""

    def run_until_future(self, future: Future[Any]) -> None:
        try:
            super().run_until_future(future)
        except BaseException:
            # The greenlet was killed, or its time is over. The coroutine goes on, and must not wait for it for ever.
            with self._work_ready:
                self._broken = True
                waiting, self._work_items = self._work_items, type(self._work_items)()
            for item in waiting:
                item.future.cancel()
            raise


def install() -> None:
    """Make ``async_to_sync()`` stand that its greenlet is ended. May be called again."""
    asgiref.sync.CurrentThreadExecutor = GreenletExecutor  # type: ignore[attr-defined]


__all__ = ["enter", "install"]
