"""Runs handlers of consumers in the thread of the test, in virtual time: a sleeping handler gives the test its turn.

How it works. Each handler has a greenlet. The scheduler switches to it, and it switches back when the handler ends,
sleeps, or waits for the test. Nothing runs in parallel: the test drives. It adds events, and lets virtual time pass
with :meth:`Scheduler.run`, which continues the sleeping handlers in the order of their times, without waiting. While a
handler runs, ``time.sleep`` is replaced by a sleep in virtual time; ``time.time()`` and the other clocks are not.

This module must not know what handlers do, nor Redis, nor sockets.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from wsloop.exceptions import Disconnected
from wsloop.testing.handler import FOREVER, Handler, place

SHORTEST_SLEEP = 0.001  # virtual seconds: otherwise a loop with sleep(0) would stop the clock
THREAD_CHECK_INTERVAL = 0.01  # real seconds between two checks of threads that handlers have started
MAX_STEPS = 100_000  # of handlers in one turn; beyond it they call each other without end
MAX_ENDINGS = 100  # times that Disconnected is raised in a handler

real_sleep = time.sleep


class Scheduler:
    """Runs handlers. It belongs to one thread, that of :meth:`claim`; others may call :meth:`soon`.

    Attributes:
        now: virtual time, in seconds.
        errors: exceptions of handlers, which the test has not seen yet.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.errors: list[BaseException] = []
        self._thread = threading.get_ident()
        self._claimed = False
        self._running = False
        self._ready: collections.deque[Callable[[], None]] = collections.deque()
        self._handlers: dict[greenlet, Handler] = {}
        self._threads: set[threading.Thread] = set()

    def claim(self) -> None:
        """Belong to the thread that calls this first. Until then it belongs to the one that has created it."""
        if not self._claimed:
            self._claimed = True
            self._thread = threading.get_ident()

    @property
    def here(self) -> bool:
        """Whether it belongs to this thread, for good."""
        return self._claimed and threading.get_ident() == self._thread

    @property
    def ready(self) -> bool:
        """Whether :meth:`turn` would run something."""
        return bool(self._ready) and not self._running

    # Called by the consumer's side.

    def soon(self, function: Callable[[], None]) -> None:
        """Call a function in the next :meth:`turn`."""
        self._ready.append(function)

    def start(self, handler: Handler) -> None:
        """Start a handler in the next turn."""
        self._handlers[handler.greenlet] = handler
        self.soon(functools.partial(self._resume, handler))

    def wake(self, handler: Handler) -> None:
        """Let a paused handler go on."""
        handler.wakes_at = self.now

    def end(self, handler: Handler) -> None:
        """Raise Disconnected in a handler, in its present or next pause."""
        handler.ends_at = self.now
        if handler.greenlet.gr_frame is not None:  # it pauses
            self.wake(handler)

    def current(self) -> Handler | None:
        """Return the handler that calls this; None if the caller is not a handler."""
        return self._handlers.get(getcurrent())

    def pause(self, handler: Handler, until: float = FOREVER) -> None:
        """Switch to the test, until a point in virtual time or :meth:`wake`. Called by the handler itself.

        Raises:
            Disconnected: if the handler must end before.
        """
        if self.now < handler.ends_at:
            handler.wakes_at = min(until, handler.ends_at)
            self._switch_back(handler)
        if self.now >= handler.ends_at:
            self.refuse(handler)

    def refuse(self, handler: Handler) -> None:
        """End the handler that calls this, because its client has left.

        Raises:
            Disconnected: always; but a handler that has caught it :data:`MAX_ENDINGS` times is suspended for ever.
        """
        handler.endings += 1
        if handler.endings > MAX_ENDINGS:
            handler.error = RuntimeError(
                f"a handler goes on without its client, at {place(sys._getframe())}: "
                "it must not catch wsloop.exceptions.Disconnected, which is a BaseException"
            )
            del self._handlers[handler.greenlet]
            while True:
                with contextlib.suppress(GreenletExit):  # raised when it is garbage collected
                    self._switch_back(handler)
        raise Disconnected

    def _switch_back(self, handler: Handler) -> None:
        parent = handler.greenlet.parent
        assert parent is not None
        parent.switch()

    # By the test.

    def turn(self) -> None:
        """Run the functions of :meth:`soon` until there are none. Does nothing in a handler or another thread.

        Raises:
            RuntimeError: if they do not end.
        """
        if self._running or threading.get_ident() != self._thread:
            return
        self._running = True
        try:
            with no_event_loop():  # Django finds the connections of the thread, not those of a coroutine
                for _ in range(MAX_STEPS):
                    if not self._ready:
                        return
                    self._ready.popleft()()
            self._ready.clear()
            raise RuntimeError(f"the handlers do not end: they took {MAX_STEPS} steps without a sleep")
        finally:
            self._running = False

    def run(self, seconds: float, done: Callable[[], bool]) -> bool:
        """Take a turn, then let virtual time pass until ``done()``, for at most ``seconds``.

        Threads that handlers have started are waited for in real time.

        Returns:
            the result of ``done()``.

        Raises:
            RuntimeError: in another thread than that of the test.
        """
        if threading.get_ident() != self._thread:
            raise RuntimeError("the communicators of a test belong to the thread that has connected the first of them")
        end = self.now + seconds
        self.turn()
        while not done():
            sleeping = [each for each in self._handlers.values() if each.wakes_at is not None and each.wakes_at <= end]
            if not sleeping:
                self._wait_for_threads(seconds, done)
                self.now = end
                return done()
            first = min(sleeping, key=lambda each: each.wakes_at or 0.0)
            assert first.wakes_at is not None
            self.now = max(self.now, first.wakes_at)
            first.wakes_at = None
            self.soon(functools.partial(self._resume, first))
            self.turn()
        return True

    def raise_error(self) -> None:
        """Raise the first exception of a handler that has not been raised yet."""
        if self.errors:
            raise self.errors.pop(0)

    def _wait_for_threads(self, seconds: float, done: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end and any(thread.is_alive() for thread in self._threads):
            self.turn()
            real_sleep(THREAD_CHECK_INTERVAL)
        self.turn()

    def _resume(self, handler: Handler) -> None:
        before = _threads()
        handler.wakes_at = None
        handler.greenlet.parent = getcurrent()
        with self._virtual_sleep(handler.modules):
            handler.greenlet.switch()
        self._threads |= _threads() - before
        if handler.greenlet.dead:
            del self._handlers[handler.greenlet]
        if handler.greenlet not in self._handlers:
            handler.ended(handler.error)

    @contextlib.contextmanager
    def _virtual_sleep(self, modules: Iterable[ModuleType]) -> Iterator[None]:
        """Replace ``sleep`` under any name in these modules, but not a replacement by the test."""
        gevent = sys.modules.get("gevent")
        real = [real_sleep] if gevent is None else [real_sleep, gevent.sleep]
        found = [
            (vars(module), name, value)
            for module in dict.fromkeys([*modules, *([] if gevent is None else [gevent])])
            for name, value in list(vars(module).items())
            if any(value is each for each in real)
        ]
        for names, name, value in found:
            names[name] = functools.partial(self._sleep, value)
        try:
            yield
        finally:
            for names, name, value in found:
                names[name] = value

    def _sleep(self, real: Callable[..., None], seconds: float = 0, *args: Any, **kwargs: Any) -> None:
        handler = self.current()
        if handler is None:
            real(seconds, *args, **kwargs)
            return
        if not seconds >= 0:
            raise ValueError("sleep length must be non-negative")
        self.pause(handler, self.now + max(seconds, SHORTEST_SLEEP))


@contextlib.contextmanager
def no_event_loop() -> Iterator[None]:
    """Hide the event loop of a test that is a coroutine: handlers are plain code, which may query the database."""
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)


def _threads() -> set[threading.Thread]:
    """Return the threads that are alive, without those that ``threading`` invents for greenlets."""
    return {each for each in threading.enumerate() if not isinstance(each, threading._DummyThread)}


__all__ = ["Scheduler", "no_event_loop"]
