"""How a communicator waits: in virtual time for plain code, in an event loop for coroutines, for both in one test.

Code of consumers that are not coroutines never sees an event loop: asgiref takes it to the thread of the test. This
module must not know gevent or sockets.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

from wsloop.aio import travel
from wsloop.testing.memory import Memory
from wsloop.testing.scheduler import no_event_loop

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

if "gevent.monkey" in sys.modules and sys.modules["gevent.monkey"].is_module_patched("threading"):
    # Tests in a patched process: the thread of the event loop is a greenlet, and the others must not see the loop.
    travel.install()


def run_now(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of a coroutine that does not wait for an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as exc:
        result: Result = exc.value
        return result
    coroutine.close()
    raise RuntimeError("an event loop is needed here")


async def in_thread(
    memory: Memory, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Call plain code in the thread of the test's plain code, where no event loop runs.

    That is this thread if none runs here, or if a communicator was connected in it before; otherwise it is that to
    which asgiref takes plain code.
    """
    if asyncio._get_running_loop() is None:
        return function(*args, **kwargs)
    if memory.scheduler.here:
        with no_event_loop():
            return function(*args, **kwargs)
    return await sync_to_async(function)(*args, **kwargs)


async def until(memory: Memory, timeout: float, done: Callable[[], bool], virtual: bool) -> bool:
    """Let the consumers of a test run until ``done()``, for at most ``timeout`` seconds.

    Args:
        memory: of the test.
        timeout: virtual seconds, then real ones while consumers of coroutines run; or only real ones.
        done: called after each change.
        virtual: whether virtual time passes.

    Returns:
        the result of ``done()``.
    """
    scheduler = memory.scheduler
    if asyncio._get_running_loop() is None:
        return scheduler.run(timeout, done)
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    changed = asyncio.Event()
    with memory.watched(lambda: loop.call_soon_threadsafe(changed.set)):
        await asyncio.sleep(0)
        if virtual and await in_thread(memory, scheduler.run, timeout, done):
            return True
        while True:
            changed.clear()
            if scheduler.ready:
                await in_thread(memory, scheduler.turn)
            if done():
                return True
            if virtual and not memory.busy:
                return False
            try:
                await asyncio.wait_for(changed.wait(), max(end - loop.time(), 0))
            except asyncio.TimeoutError:
                return done()


__all__ = ["in_thread", "run_now", "until"]
