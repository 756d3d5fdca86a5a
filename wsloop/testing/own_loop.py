"""The event loop of a test that is plain code: it serves consumers of coroutines while their communicators are called.

How it works. As in ``async_to_sync()``, the loop runs in another thread while the thread of the test waits for it, and
runs the blocking code that coroutines hand to ``sync_to_async()``. So that code is in the transaction of the test. In
contrast to ``async_to_sync()`` the loop is the same in all calls; between them it stands still, and nothing runs in
parallel to the test. This module must not know gevent.
"""

from __future__ import annotations

import asyncio
import functools
import queue
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from asgiref.sync import AsyncToSync, SyncToAsync


class Here(Executor):
    """Runs calls in the thread that waits in :meth:`run_until`."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._calls.put((future, functools.partial(fn, *args, **kwargs)))
        return future

    def run_until(self, result: Future[Any]) -> None:
        """Run calls until there is a result; none is submitted after it."""
        result.add_done_callback(lambda _: self._calls.put(None))
        while (call := self._calls.get()) is not None:
            future, function = call
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as exc:  # the coroutine that waits gets it
                    future.set_exception(exc)


class OwnLoop:
    """An event loop that runs only in :meth:`run`.

    Attributes:
        loop: the event loop.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = ThreadPoolExecutor(max_workers=1)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end, and meanwhile, in the thread of the caller, blocking code.

        Raises:
            BaseException: what the coroutine raises.
        """
        executor = Here()
        executors: dict[asyncio.AbstractEventLoop, Any] = AsyncToSync.loop_thread_executors
        executors[self.loop] = executor
        # Code that this thread runs for the loop finds it there; afterwards nobody must send anything to it.
        kept = dict(vars(SyncToAsync.threadlocal))
        try:
            task = self.loop.create_task(coroutine)
            result = self._thread.submit(self.loop.run_until_complete, task)
            try:
                executor.run_until(result)
            except BaseException:  # the test is interrupted
                self.loop.call_soon_threadsafe(task.cancel)
                raise
            return result.result()
        finally:
            del executors[self.loop]
            vars(SyncToAsync.threadlocal).clear()
            vars(SyncToAsync.threadlocal).update(kept)

    def close(self) -> None:
        """Cancel what is left in the loop, and close it."""
        if not self.loop.is_closed():
            self.run(_finish())
            self._thread.shutdown()
            self.loop.close()


async def _finish() -> None:
    loop = asyncio.get_running_loop()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


__all__ = ["OwnLoop"]
