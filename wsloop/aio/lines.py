"""Executors whose threads are greenlets: blocking code of coroutines, which runs beside the event loop.

A :class:`Pool` runs calls side by side. A :class:`Line` runs them one after the other in one greenlet, and so with the
same database connections, as Django's asynchronous ORM expects it. Both give the database connections back. This module
must not know asyncio.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Protocol

from gevent.event import Event

from wsloop.db import give_back
from wsloop.greenlets import spawn

SIDE_BY_SIDE = 100  # greenlets of a pool: as many as uwsgi.ini allows requests
IDLE = 1.0  # seconds that a line keeps its greenlet, and its database connections, while it has nothing to do


class _Call:
    """A call, and what is told its result."""

    __slots__ = ("_answer", "_arguments", "_function")

    def __init__(self, answer: Answer, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._answer, self._function, self._arguments = answer, function, arguments

    def run(self) -> None:
        if not self._answer.begin():
            return
        try:
            result = self._function(*self._arguments)
        except BaseException as exc:  # GreenletExit and gevent.Timeout, too: the coroutine that waits gets it
            self._answer.fail(exc)
        else:
            self._answer.succeed(result)


class Answer(Protocol):
    """Is told the result of a call, in the greenlet that runs it."""

    def begin(self) -> bool:
        """Return whether the result is still wanted."""

    def succeed(self, result: Any) -> None:
        """The call has returned."""

    def fail(self, error: BaseException) -> None:
        """The call has raised an exception."""


class _FutureAnswer:
    """An answer for who is not in the event loop of this process: locks, as threads need them, cost time."""

    def __init__(self) -> None:
        self.future: Future[Any] = Future()
        self.begin, self.fail = self.future.set_running_or_notify_cancel, self.future.set_exception
        self.succeed = self.future.set_result


class _Greenlets(Executor):
    """What both executors have: the two ways to call a function."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        answer = _FutureAnswer()
        self.call(answer, functools.partial(fn, **kwargs) if kwargs else fn, args)
        return answer.future

    def call(self, answer: Answer, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Call ``function(*arguments)`` in a greenlet, and tell ``answer`` how that ended. Never blocks."""
        raise NotImplementedError


class Pool(_Greenlets):
    """Runs calls side by side, each in a greenlet: no more than :data:`SIDE_BY_SIDE`, the others wait."""

    def __init__(self) -> None:
        self._waiting: collections.deque[_Call] = collections.deque()
        self._running = 0

    def call(self, answer: Answer, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._waiting.append(_Call(answer, function, arguments))
        if self._running < SIDE_BY_SIDE:
            self._running += 1
            spawn(self._work)

    def _work(self) -> None:
        try:
            while self._waiting:
                self._waiting.popleft().run()
                give_back()
        finally:
            self._running -= 1


class Line(_Greenlets):
    """Runs calls one after the other, in one greenlet, which exists while there is work, and IDLE seconds more."""

    __slots__ = ("_closed", "_more", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[_Call] = []  # a deque occupies 760 bytes, and each ASGI application has a line
        self._more: Event | None = None  # set for the greenlet when there is a call; None: there is no greenlet
        self._closed = False

    def call(self, answer: Answer, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._waiting.append(_Call(answer, function, arguments))
        if self._more is None:
            self._begin()
        else:
            self._more.set()

    def close(self) -> None:
        """Give the database connections back as soon as nothing is left to do. It can be used again."""
        self._closed = True
        if self._more is not None:
            self._more.set()

    def _begin(self) -> None:
        self._more, self._closed = Event(), False
        spawn(self._work)

    def _work(self) -> None:
        more = self._more
        assert more is not None
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
                self._begin()


__all__ = ["Answer", "Line", "Pool"]
