"""The event loop of this process, and the places of asgiref and Django that must know it.

The loop runs in a greenlet of its own from its first use until the process ends. ``async def`` views, asynchronous
consumers and ASGI applications share it. This module must not know WebSockets.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from typing import Any

import gevent
from asgiref.sync import SyncToAsync
from gevent import monkey

from wsloop.aio import streaming, travel
from wsloop.aio.loop import HubEventLoop, thread_id

logger = logging.getLogger("wsloop.aio")


class WorkerLoop:
    """The loop of one process, and the greenlet that runs it.

    Attributes:
        loop: the event loop.
        thread: that it belongs to.
    """

    def __init__(self) -> None:
        self.loop = HubEventLoop()
        self.thread = thread_id()
        self.greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        while not self.loop.is_closed():
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as exc:
                # asyncio lets them through. The task that has raised it has ended with it; the others go on.
                logger.error("A coroutine has raised %s: the event loop goes on", type(exc).__name__, exc_info=exc)


@functools.lru_cache(maxsize=1)
def _worker_loop(process: int) -> WorkerLoop:
    return WorkerLoop()


def worker_loop() -> HubEventLoop:
    """Return the event loop of this process, which runs."""
    return _worker_loop(os.getpid()).loop


class _MainLoop:
    """``SyncToAsync.threadlocal.main_event_loop`` where none is set: the loop of the process, in its thread."""

    def __get__(self, instance: object, owner: type) -> HubEventLoop | None:
        found = _worker_loop(os.getpid())
        return found.loop if found.thread == thread_id() else None


class _Process:
    def __get__(self, instance: object, owner: type) -> int:
        return os.getpid()


class _ThreadLocal(threading.local):
    """What asgiref keeps per thread, which here is a greenlet: ``async_to_sync()`` looks up the loop in it.

    Without a loop it would make a thread and a loop for each call.
    """

    main_event_loop = _MainLoop()
    main_event_loop_pid = _Process()


def install() -> None:
    """Make asynchronous code work in this process. May be called again.

    Does nothing where gevent has not patched the process: there threads are threads, and asyncio works as it is.
    """
    if monkey.is_module_patched("threading") and monkey.is_module_patched("select"):
        travel.install()
        streaming.install()
        if not isinstance(SyncToAsync.threadlocal, _ThreadLocal):
            local: Any = _ThreadLocal()
            SyncToAsync.threadlocal = local


__all__ = ["install", "worker_loop"]
