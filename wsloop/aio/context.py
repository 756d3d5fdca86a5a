"""Where the blocking code of a coroutine runs: asgiref's thread-sensitive mode, bound to a line.

This module must not know WebSockets.
"""

from __future__ import annotations

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


__all__ = ["enter"]
