"""Says who holds up an event loop: code that computes, or that blocks where gevent cannot switch, and coroutines that
block.

How it works. A thread of the operating system looks at the worker's thread a few times a second. gevent's loop counts
its rounds and knows when the current one began, so the thread need not ask it for anything: if the worker's thread
executes something, and that round has lasted for BLOCKED_AFTER, the thread takes the stack, and leaves a callback that
the loop runs as soon as it gets there. The callback knows how long it was. A C extension that does not release Python's
lock (GIL) keeps this thread waiting, too; it gets its turn where the extension returns, and so finds the line that
called it. The loop of coroutines says since when they run; if gevent's own loop is not held up meanwhile, a coroutine
blocks, and the callback takes its stack.

Greenlets and coroutines pay nothing for this, and the four looks a second take an idle worker 0.03 % of a core
(measured). gevent's own monitor (``GEVENT_MONITOR_THREAD_ENABLE``) calls a function at each switch of greenlets
instead, by which a switch takes 0.8 µs for 0.47, and 0.08 % of a core at rest. It prints to standard error while it
lasts, and cannot say how long it was in the end.

This module must not know asyncio, nor WebSockets.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import Any, NamedTuple

import gevent
from gevent import monkey
from gevent.hub import Hub

from wsloop import conf, metrics
from wsloop.greenlets import repeated, spawn

logger = logging.getLogger("wsloop.blocked")

# Those of the operating system: gevent's are greenlets.
start_thread = monkey.get_original("_thread", "start_new_thread")
thread_id = monkey.get_original("_thread", "get_ident")
sleep = monkey.get_original("time", "sleep")
current_frames = sys._current_frames

POLLS = Hub.run.__code__  # what a thread executes while all of its greenlets wait
IMPORTS = "<frozen importlib._bootstrap>"
DEEPEST = 60  # frames of a stack that are logged
# Whose code is not the site's.
LIBRARY = (os.path.dirname(os.__file__) + os.sep, os.path.dirname(__file__) + os.sep)
INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

Stack = list[tuple[str, int, str]]  # file, line and name of function, the innermost first


class Coroutines(NamedTuple):
    """An event loop of coroutines that has a greenlet of its own.

    Attributes:
        busy_since: returns the time (``monotonic()``) since when coroutines run; None while the loop waits.
        frame: returns the innermost frame of its greenlet, while others run.
        call_soon: has the loop call a function with arguments; called in the thread of the loop.
    """

    busy_since: Callable[[], float | None]
    frame: Callable[[], FrameType | None]
    call_soon: Callable[..., object]


class Watch:
    """Looks at the event loops of the thread that has made it, from a thread of its own, until :meth:`stop`.

    Args:
        after: seconds that a loop may be held up.

    Attributes:
        coroutines: the loop of coroutines, as soon as there is one.
    """

    def __init__(self, after: float) -> None:
        self.coroutines: Coroutines | None = None
        self._after = after
        self._loop: Any = gevent.get_hub().loop
        self._worker = thread_id()
        self._running = True
        self._looked_at = monotonic()
        # Of the round in which the worker was last seen busy: its number, when it began, and whether it is reported.
        self._round = -1
        self._began = 0.0
        self._told = False
        self._told_since: float | None = None  # of coroutines that block
        start_thread(self._run, ())

    def stop(self) -> None:
        """End the thread, with its next look."""
        self._running = False

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the worker's thread
        while self._running:
            sleep(self._look())

    def _look(self) -> float:
        """Look at both loops; return in how many seconds to look again."""
        frame = current_frames().get(self._worker)
        now, looked_at = monotonic(), self._looked_at
        self._looked_at = now
        held = 0.0
        if frame is not None and frame.f_code is POLLS:
            self._round = -1
        else:
            number = self._loop.iteration
            if number != self._round:
                # Not before the last look, even if somebody has set the clock meanwhile.
                self._round, self._told = number, False
                self._began = max(looked_at, now - max(0.0, time.time() - self._loop.now()))
            held = now - self._began
            if held >= self._after and not self._told:
                self._told = True
                self._loop.run_callback_threadsafe(self._ended, "gevent", self._began, _stack(frame))
        if held < self._after:
            self._look_at_coroutines(now)
            return self._after - held
        return self._after

    def _look_at_coroutines(self, now: float) -> None:
        since = self.coroutines and self.coroutines.busy_since()
        if since is not None and now - since >= self._after and since != self._told_since:
            self._told_since = since
            self._loop.run_callback_threadsafe(self._block, since)

    # In the worker's thread.

    def _block(self, since: float) -> None:
        """Take the stack of the coroutine that blocks, unless it has gone on."""
        if self.coroutines is not None and self.coroutines.busy_since() == since:
            self.coroutines.call_soon(self._ended, "asyncio", since, _stack(self.coroutines.frame()))

    def _ended(self, loop: str, began: float, stack: Stack) -> None:
        """The loop goes on."""
        if not any(filename == IMPORTS for filename, _, _ in stack):
            spawn(_report, loop, monotonic() - began, stack)


def _stack(frame: FrameType | None) -> Stack:
    """Return where a thread is. Does not read files: meanwhile it would go on."""
    stack: Stack = []
    while frame is not None:
        stack.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return stack


_reported: dict[tuple[str, str, str], tuple[float, int]] = {}


def _report(loop: str, seconds: float, stack: Stack) -> None:
    """Count a loop that was held up, and log it, unless the same function was logged a short time ago."""
    metrics.blocked(loop, seconds)
    filename, line, name = next(filter(_is_of_the_site, stack), stack[0] if stack else ("C code", 0, ""))
    more = repeated(_reported, (loop, filename, name))
    if more is not None:
        place = f"{_shown(filename)}:{line}" if line else filename
        frames = [traceback.FrameSummary(*each, lookup_line=False) for each in reversed(stack[:DEEPEST])]
        logger.warning(
            "%sevent loop blocked for %.0f ms, in %s%s\n%s",
            "asyncio's " if loop == "asyncio" else "",
            seconds * 1000,
            place,
            more,
            "".join(traceback.format_list(frames)).rstrip(),
        )


def _is_of_the_site(place: tuple[str, int, str]) -> bool:
    filename = place[0]
    return not filename.startswith(("<", *LIBRARY)) and not any(part in filename for part in INSTALLED)


def _shown(filename: str) -> str:
    """Return the name of a file below the directory that it was imported from."""
    filename = os.path.abspath(filename)
    directories = [os.path.join(os.path.abspath(each), "") for each in sys.path]
    return filename[max((len(each) for each in directories if filename.startswith(each)), default=0) :]


@functools.lru_cache(maxsize=1)
def _watch(process: int) -> Watch | None:
    after = conf.option("BLOCKED_AFTER")
    if after is None or not hasattr(gevent.get_hub().loop, "iteration"):  # not with libuv, which no worker has
        return None
    try:
        return Watch(after)
    except RuntimeError as exc:  # a limit of the system; uWSGI has threads wherever it has gevent
        logger.warning("event loops that are held up will not be logged: %s", exc)
        return None


def watch(coroutines: Coroutines | None = None) -> None:
    """Watch the event loop of this worker, and that of its coroutines, until it ends. May be called again.

    The first call must come from a greenlet of the worker, not from the process that forks it, nor while it starts.
    """
    found = _watch(os.getpid())
    if found is not None and coroutines is not None:
        found.coroutines = coroutines


__all__ = ["Coroutines", "Watch", "watch"]
