"""The event loop of this process, and the places of asgiref and Django that must know it.

The loop runs in a greenlet of its own from its first use until the process ends. ``async def`` views, asynchronous
consumers and ASGI applications share it. This module must not know WebSockets.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, cast

import gevent
from asgiref.sync import SyncToAsync
from gevent import monkey
from greenlet import GreenletExit

from wsloop import blocked
from wsloop.aio import context, streaming, travel
from wsloop.aio.lines import Line
from wsloop.aio.loop import HubEventLoop, thread_id
from wsloop.exceptions import Disconnected
from wsloop.fair_scheduler import BREATH
from wsloop.greenlets import logged
from wsloop.sockets import servers

logger = logging.getLogger("wsloop.aio")

LAST_WORDS = 1.0  # seconds that tasks have when their worker ends
END_INTERVAL = 0.01  # seconds between two looks whether they have ended
NAMED = 5  # tasks that a log line names


class WorkerLoop:
    """The loop of one process, and the greenlet that runs it."""

    def __init__(self) -> None:
        self.loop = HubEventLoop()
        self.loop.set_exception_handler(_report)
        self._ending = False
        self.greenlet = gevent.spawn(self._run)
        blocked.watch(
            blocked.Coroutines(
                lambda: self.loop.busy_since, lambda: self.greenlet.gr_frame, self.loop.call_soon_threadsafe
            )
        )
        servers.at_exit(lambda: logged(self.end), last=True)  # behind the sockets' end, which coroutines may handle

    def _run(self) -> None:
        while True:
            try:
                self.loop.run_forever()
                if self._ending:
                    return
                logger.error("A coroutine has stopped the event loop of all coroutines: it goes on")
            except (SystemExit, KeyboardInterrupt) as exc:
                # asyncio lets them through. The task that has raised it has ended with it; the others go on.
                logger.error("A coroutine has raised %s: the event loop goes on", type(exc).__name__, exc_info=exc)
            except GreenletExit:
                raise
            except BaseException as exc:
                # Thrown into this greenlet, as gevent.Timeout does around an `await`. All tasks go on.
                logger.error("%s has interrupted the event loop, which goes on", type(exc).__name__, exc_info=exc)
                gevent.sleep(BREATH)  # should it happen again and again, greenlets have their turn

    def end(self, timeout: float = LAST_WORDS) -> None:
        """Cancel all tasks, and return when they have ended, or after ``timeout`` seconds. Blocks.

        Tasks that handle their cancellation for longer are cut off with their worker, and logged.
        """
        loop = self.loop
        loop.call_soon_threadsafe(self._cancel_all)
        end = monotonic() + timeout
        while asyncio.all_tasks(loop) and monotonic() < end:
            gevent.sleep(END_INTERVAL)
        left = asyncio.all_tasks(loop)
        if left:
            names = sorted({getattr(each.get_coro(), "__qualname__", "?") for each in left})[:NAMED]
            logger.warning("The worker stops before %d tasks have ended: %s", len(left), ", ".join(names))
        self._ending = True
        loop.call_soon_threadsafe(loop.stop)
        self.greenlet.join(timeout)

    def _cancel_all(self) -> None:
        for each in asyncio.all_tasks(self.loop):
            each.cancel()


def _report(loop: asyncio.AbstractEventLoop, occurred: dict[str, Any]) -> None:
    """Log what asyncio has to say, but that a task has sent to a socket that had ended, which is not a fault."""
    if not isinstance(occurred.get("exception"), Disconnected):
        loop.default_exception_handler(occurred)


@functools.lru_cache(maxsize=1)
def _worker_loop(process: int) -> WorkerLoop:
    return WorkerLoop()


def worker_loop() -> HubEventLoop:
    """Return the event loop of this process, which runs."""
    return _worker_loop(os.getpid()).loop


class _MainLoop:
    """``SyncToAsync.threadlocal.main_event_loop`` where none is set: the loop of the process, in its thread.

    Others, such as those of gevent's pool, get a loop for each call, as without wsloop.
    """

    def __init__(self) -> None:
        self._thread = thread_id()

    def __get__(self, instance: object, owner: type) -> HubEventLoop | None:
        return worker_loop() if thread_id() == self._thread else None


class _Process:
    def __get__(self, instance: object, owner: type) -> int:
        return os.getpid()


class _ThreadLocal(threading.local):
    """What asgiref keeps per thread, which here is a greenlet: ``async_to_sync()`` looks up the loop in it.

    Without a loop it would make a thread and a loop for each call.
    """

    main_event_loop = _MainLoop()  # of the thread that imports this, which gevent's hub of the process runs in
    main_event_loop_pid = _Process()

    def __init__(self) -> None:
        self.task_context: list[asyncio.Task[Any]] = []  # what this greenlet waits for


def install() -> None:
    """Make asynchronous code work in this process. May be called again.

    Does nothing where gevent has not patched the process: there threads are threads, and asyncio works as it is.
    """
    if monkey.is_module_patched("threading") and monkey.is_module_patched("select"):
        travel.install()
        context.install()
        streaming.install()
        if not isinstance(SyncToAsync.threadlocal, _ThreadLocal):
            local: Any = _ThreadLocal()
            SyncToAsync.threadlocal = local
            # For loops of the site's own, asyncio.run() for example. asgiref's keeps its database connections for ever.
            SyncToAsync.single_thread_executor = cast(ThreadPoolExecutor, Line())


__all__ = ["install", "worker_loop"]
