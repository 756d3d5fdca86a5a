"""Asyncio's state follows its greenlet: no other greenlet of the thread sees a running event loop.

How it works. Asyncio keeps, for each thread of the operating system, the running loop, the hooks for asynchronous
generators and, from Python 3.14 on, the current task. While a loop waits, gevent runs other greenlets of that thread;
they would see that state, and Django would refuse them the database (``SynchronousOnlyOperation``). gevent calls the
attribute ``switch_out`` of a greenlet that it leaves. There the state is put aside, and ``switch`` and ``throw`` of
that greenlet, which are replaced on the object, put it back first. So it does not matter where a coroutine blocks: in
the selector, in ``time.sleep()``, in a lock. Other greenlets pay nothing.

``run_forever`` of the standard library's loops is wrapped once. So this holds for every loop, whoever makes it, and
needs no event loop policy, which Python 3.14 deprecates. This module must not know Django.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from typing import Any

from greenlet import getcurrent

TASK_IS_STATE = sys.version_info >= (3, 14)  # of the thread; before, the current task is looked up by its loop

_get_loop, _set_loop = asyncio._get_running_loop, asyncio._set_running_loop


class Travelling:
    """While it is entered, asyncio's state belongs to the current greenlet alone."""

    __slots__ = ("_away", "_greenlet", "_hooks", "_loop", "_switch", "_task", "_throw")

    def __init__(self) -> None:
        self._greenlet: Any = getcurrent()
        self._switch: Callable[..., Any] = self._greenlet.switch
        self._throw: Callable[..., Any] = self._greenlet.throw
        self._away = False
        self._loop: Any = None
        self._hooks: Any = ()
        self._task: Any = None

    def __enter__(self) -> None:
        greenlet = self._greenlet
        greenlet.switch_out, greenlet.switch, greenlet.throw = self.leave, self._come_back, self._come_back_with

    def __exit__(self, *error: object) -> None:
        greenlet, self._greenlet = self._greenlet, None
        del greenlet.switch_out, greenlet.switch, greenlet.throw

    def leave(self) -> None:
        """Put the state aside: another greenlet gets the thread."""
        loop = _get_loop()
        if loop is None:
            return  # it does not run yet, or no longer
        self._loop = loop
        self._hooks = sys.get_asyncgen_hooks()
        if TASK_IS_STATE:
            self._task = _swap_task(loop, None)
        _set_loop(None)
        sys.set_asyncgen_hooks(None, None)
        self._away = True

    def arrive(self) -> None:
        """Put the state back: the greenlet gets the thread again."""
        if self._away and self._greenlet is not None:  # not if the call was kept, and made when the loop had ended
            self._away = False
            _set_loop(self._loop)
            sys.set_asyncgen_hooks(*self._hooks)
            if TASK_IS_STATE:
                _swap_task(self._loop, self._task)
            self._loop = self._task = None

    def _come_back(self, *args: Any, **kwargs: Any) -> Any:
        self.arrive()
        return self._switch(*args, **kwargs)

    def _come_back_with(self, *error: Any) -> Any:
        self.arrive()
        return self._throw(*error)


def _swap_task(loop: Any, task: Any) -> Any:
    return asyncio.tasks._swap_current_task(loop, task)  # type: ignore[attr-defined]  # of Python 3.12 and later


def install() -> None:
    """Make asyncio's state follow its greenlet, for every loop of the standard library. May be called again."""
    base = asyncio.BaseEventLoop
    run_forever = base.run_forever
    if hasattr(run_forever, "travels"):
        return

    @functools.wraps(run_forever)
    def travelling(self: asyncio.BaseEventLoop) -> None:
        running = _get_loop()
        if running is not None:
            try:
                return run_forever(self)  # which refuses to run inside of another loop
            finally:
                _set_loop(running)  # that of Python 3.13.0 has taken it away
        with Travelling():
            return run_forever(self)

    travelling.travels = True  # type: ignore[attr-defined]
    base.run_forever = travelling  # type: ignore[method-assign]


__all__ = ["Travelling", "install"]
