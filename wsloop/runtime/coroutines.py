"""The rules that hold only for consumers of coroutines: what they await, and how a handler without its client ends.

They are the same on a connection (:mod:`wsloop.runtime.tasks`) and under test. This module must not know gevent,
connections, nor who runs the event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from greenlet import GreenletExit

from wsloop.exceptions import Disconnected
from wsloop.protocol.consumer_events import Event
from wsloop.runtime.core import DISCONNECT, ConsumerCore

SLEEP = asyncio.sleep.__code__

# Whose handler runs: of the tasks that a handler creates, too.
handled: contextvars.ContextVar[Any] = contextvars.ContextVar("wsloop.handled")


class CoroutineCore(ConsumerCore):
    """One consumer whose handlers are tasks."""

    __slots__ = ()

    ended_by = (asyncio.CancelledError, GreenletExit)

    async def _perform(self, event: Event) -> None:
        waiting = self._do(event)
        if waiting is not None:
            await waiting

    async def _stop_caller(self) -> None:
        if handled.get(self) is self:
            await asyncio.sleep(0)  # one that goes on nevertheless must not keep the others waiting
            if self._handling != DISCONNECT:  # which cleans up, and is to do all of it
                raise Disconnected


def sleeps(task: asyncio.Task[Any]) -> bool:
    """Return whether a task is in ``asyncio.sleep()``: cancelling it there cuts nothing in half."""
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        if getattr(coroutine, "cr_code", None) is SLEEP:
            return True
        coroutine = getattr(coroutine, "cr_await", None)
    return False


__all__ = ["CoroutineCore", "handled", "sleeps"]
