"""Runs handlers of consumers in the thread of the test, in virtual time: what sleeps gives the test its turn.

How it works. Each handler has a greenlet, to which the scheduler switches, and which switches back when the handler has
ended, sleeps, or waits for the test. Nothing runs beside the test: it drives. It puts events in, and lets virtual time
pass, :meth:`Scheduler.run`, which goes on from one sleeping handler that wakes up to the next without waiting. While a
handler runs ``time.sleep`` is replaced, so that it sleeps in virtual time; the clocks, ``time.time()`` and the others,
stay as they are.

Because all of it is one thread, handlers are in the test's transaction. Where gevent has patched the process what
belongs to a thread belongs to a greenlet, so each handler is given the database connections of the test.

This module must not know what a handler is about, nor Redis, nor sockets.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from django.db import connections
from greenlet import GreenletExit, getcurrent, greenlet

from wsloop.exceptions import Disconnected

FOREVER = float("inf")
SHORTEST = 0.001  # virtual seconds that a sleep takes at least: a loop with sleep(0) would stop the clock otherwise
LOOK = 0.01  # real seconds between two looks at threads that handlers have started
MOST_STEPS = 100_000  # of handlers, before it is taken for a circle that they call each other
MOST_ENDINGS = 100  # times that a handler is told to end

real_sleep = time.sleep


class Handler:
    """A call that runs in virtual time.

    Args:
        function: what is called.
        ended: called with what the function has raised, or None, when it has ended.
        modules: in which ``sleep`` may have been imported by name.
        ends_at: when it is told to end, by raising Disconnected from what it waits in; see :attr:`Scheduler.now`.

    Attributes:
        wakes_at: when it goes on; None while it runs, or waits for something else than time.
    """

    def __init__(
        self,
        function: Callable[[], None],
        ended: Callable[[BaseException | None], None],
        modules: Iterable[ModuleType] = (),
        ends_at: float = FOREVER,
    ) -> None:
        self.ended = ended
        self.modules = [time, *modules]
        self.ends_at = ends_at
        self.wakes_at: float | None = None
        self.endings = 0
        self.error: BaseException | None = None
        self._function = function
        self._databases = connections.all()
        self.greenlet = greenlet(self._run)
        self.greenlet.gr_context = contextvars.copy_context()

    def _run(self) -> None:
        try:
            for database in self._databases:
                connections[database.alias] = database
                database.inc_thread_sharing()
            self._function()
        except BaseException as exc:
            self.error = exc
        finally:
            for database in self._databases:
                database.dec_thread_sharing()

    def where(self) -> str:
        """Return the place in the site's code where this handler waits."""
        return _place(self.greenlet.gr_frame)


class Scheduler:
    """Runs handlers. It belongs to the thread that has made it; others may call :meth:`soon`.

    Attributes:
        now: virtual time, in seconds.
        errors: what handlers have raised, for the test to be told.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.errors: list[BaseException] = []
        self._thread = threading.get_ident()
        self._running = False
        self._ready: collections.deque[Callable[[], None]] = collections.deque()
        self._handlers: dict[greenlet, Handler] = {}
        self._threads: set[threading.Thread] = set()

    # By whom the handlers are for.

    def soon(self, function: Callable[[], None]) -> None:
        """Have a function called at the test's next turn, or at once: see :meth:`turn`."""
        self._ready.append(function)

    def start(self, handler: Handler) -> None:
        """Run a handler."""
        self._handlers[handler.greenlet] = handler
        self.soon(functools.partial(self._resume, handler))

    def wake(self, handler: Handler) -> None:
        """Let a handler go on that pauses."""
        handler.wakes_at = self.now

    def end(self, handler: Handler) -> None:
        """Raise Disconnected in a handler, from what it waits in now, or will wait in next."""
        handler.ends_at = self.now
        if handler.greenlet.gr_frame is not None:  # it pauses
            self.wake(handler)

    def current(self) -> Handler | None:
        """Return the handler that calls this; None if it is called by anybody else."""
        return self._handlers.get(getcurrent())

    def pause(self, handler: Handler, until: float = FOREVER) -> None:
        """Let the test have its turn, until a moment of virtual time or :meth:`wake`. Called by the handler itself.

        Raises:
            Disconnected: if the handler is to end before.
        """
        if self.now < handler.ends_at:
            handler.wakes_at = min(until, handler.ends_at)
            self._switch_back(handler)
        if self.now >= handler.ends_at:
            self.refuse(handler)

    def refuse(self, handler: Handler) -> None:
        """Tell a handler that it has nobody to work for. Called by the handler itself.

        Raises:
            Disconnected: always, unless the handler has been told many times, and is left where it is.
        """
        handler.endings += 1
        if handler.endings > MOST_ENDINGS:
            handler.error = RuntimeError(
                f"a handler goes on without its client, at {_place(sys._getframe())}: "
                "it must let wsloop.exceptions.Disconnected pass, which is a BaseException"
            )
            del self._handlers[handler.greenlet]
            while True:
                with contextlib.suppress(GreenletExit):  # when it is collected, too, it would only go on
                    self._switch_back(handler)
        raise Disconnected

    def _switch_back(self, handler: Handler) -> None:
        parent = handler.greenlet.parent
        assert parent is not None
        parent.switch()

    # By the test.

    def turn(self) -> None:
        """Run what is ready, until nothing is. Does nothing inside of a handler, or in another thread.

        Raises:
            RuntimeError: if there is no end to it.
        """
        if self._running or threading.get_ident() != self._thread:
            return
        self._running = True
        try:
            for _ in range(MOST_STEPS):
                if not self._ready:
                    return
                self._ready.popleft()()
            self._ready.clear()
            raise RuntimeError(f"there is no end to what handlers do: {MOST_STEPS} steps, and no sleep among them")
        finally:
            self._running = False

    def run(self, seconds: float, done: Callable[[], bool]) -> bool:
        """Run what is ready, then let virtual time pass until ``done()``, but not longer than ``seconds``.

        Where handlers have started threads, those are waited for in real time.

        Returns:
            whether it is done.

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
        """Raise what a handler has raised, if any has."""
        if self.errors:
            raise self.errors.pop(0)

    def _wait_for_threads(self, seconds: float, done: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end and any(thread.is_alive() for thread in self._threads):
            self.turn()
            real_sleep(LOOK)
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
        """Replace ``sleep``, under whatever name it is in these modules, but not what a test has put in its place."""
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
        self.pause(handler, self.now + max(seconds, SHORTEST))


def uncommitted() -> str:
    """Return what a failure should say if something waits for a commit, which a test case may never do."""
    if not any(database.run_on_commit for database in connections.all(initialized_only=True)):
        return ""
    return (
        "(Something waits for a commit, which TestCase never does; what on_commit and outbox=True put off is done at "
        "the end of `with self.captureOnCommitCallbacks(execute=True):`.)"
    )


def _place(frame: Any) -> str:
    """Return file and line of the site's code that has led to a frame."""
    while frame is not None and frame.f_globals.get("__name__", "").startswith("wsloop."):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _threads() -> set[threading.Thread]:
    """Return the threads that are alive, but those that ``threading`` makes up for greenlets."""
    return {each for each in threading.enumerate() if not isinstance(each, threading._DummyThread)}


__all__ = ["Handler", "Scheduler", "uncommitted"]
