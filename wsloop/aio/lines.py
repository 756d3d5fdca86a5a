"""Executors whose threads are greenlets: blocking code of coroutines, which runs beside the event loop.

A :class:`Pool` runs calls side by side. A :class:`Line` runs them one after the other in one greenlet, and so with the
same database connections, as Django's asynchronous ORM expects it. Both give the database connections back. This module
must not know asyncio.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from gevent.event import Event

from wsloop.db import give_back
from wsloop.greenlets import spawn

SIDE_BY_SIDE = 100  # greenlets of a pool: as many as uwsgi.ini allows requests
IDLE = 1.0  # seconds that a line keeps its greenlet, and its database connections, while it has nothing to do


class _Call:
    """A call, and the future for its result."""

    __slots__ = ("arguments", "function", "future")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.future: Future[Any] = Future()
        self.function, self.arguments = function, (arguments, keywords)

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        arguments, keywords = self.arguments
        try:
            result = self.function(*arguments, **keywords)
        except BaseException as exc:  # GreenletExit and gevent.Timeout, too: the coroutine that waits gets it
            self.future.set_exception(exc)
        else:
            self.future.set_result(result)
        finally:
            del self.function, self.arguments  # the future may live on


class Pool(Executor):
    """Runs calls side by side, each in a greenlet: no more than :data:`SIDE_BY_SIDE`, the others wait."""

    def __init__(self) -> None:
        self._waiting: collections.deque[_Call] = collections.deque()
        self._running = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        call = _Call(fn, args, kwargs)
        self._waiting.append(call)
        if self._running < SIDE_BY_SIDE:
            self._running += 1
            spawn(self._work)
        return call.future

    def _work(self) -> None:
        try:
            while self._waiting:
                self._waiting.popleft().run()
                give_back()
        finally:
            self._running -= 1


class Line(Executor):
    """Runs calls one after the other, in one greenlet, which exists while there is work, and IDLE seconds more."""

    __slots__ = ("_closed", "_more", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[_Call] = []  # a deque occupies 760 bytes, and each ASGI application has a line
        self._more: Event | None = None  # set for the greenlet when there is a call; None: there is no greenlet
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        call = _Call(fn, args, kwargs)
        self._waiting.append(call)
        if self._more is None:
            self._more = Event()
            spawn(self._work)
        else:
            self._more.set()
        return call.future

    def close(self) -> None:
        """Give the database connections back as soon as nothing is left to do. It can be used again."""
        self._closed = True
        if self._more is not None:
            self._more.set()

    def _work(self) -> None:
        more = self._more
        assert more is not None
        self._closed = False
        try:
            while True:
                while self._waiting:
                    self._waiting.pop(0).run()
                if self._closed:
                    break
                more.clear()
                if not more.wait(IDLE):
                    break
            give_back()
        finally:
            self._more = None
            if self._waiting:  # a call came while the connections were given back
                self._more = Event()
                spawn(self._work)


__all__ = ["Line", "Pool"]
