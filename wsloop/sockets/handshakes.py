"""Whose turn it is, of the handshakes that are under way: pages are answered while thousands of clients come back.

How it works. A handshake costs as much CPU as a page, and after a restart they come by the thousands. So each waits for
its turn, in the order in which they came. Some get it together, because they share their queries, whenever the event
loop has nothing else to do: pages, messages, connections that wait to be accepted, and handshakes that have begun go
first. Lest these starve them, some begin each :data:`LONGEST` seconds in any case. So few are under way at a time,
however many come, and none of them is older than its client's patience. If :data:`MOST_WAITING` wait, or so many are
under way that the server would have no core left for a page, the next one is refused at once, which costs a tenth of a
handshake. New clients and those that come back are not told apart. This module must not know HTTP, nor what a handshake
does.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import gevent
from gevent.hub import Waiter

from wsloop.greenlets import logged

MOST_WAITING = 400  # one to two seconds of them
TOGETHER = 16  # that begin in a turn: they share their questions to the database and to Redis
LONGEST = 0.01  # seconds between two turns, if the loop always has something else to do
FIRST_RATE = 200.0  # handshakes a second, as long as nothing was measured: less than workers on a core of their own do
MANY = 8  # under way all the time in which it is measured: with fewer there might just be few clients
WINDOW = 1.0  # seconds over which it is measured


class Busy(Exception):
    """Too many handshakes are under way for one more."""


class Handshakes:
    """The handshakes of this process.

    Args:
        cores: requests that the server answers at a time; a tenth of them is left to pages.
        crowded: called with True when the first one has to wait, and with False when none waits any more.

    Attributes:
        rate: handshakes a second that this process does when it has many to do.
    """

    def __init__(self, cores: float, crowded: Callable[[bool], object] = bool) -> None:
        loop: Any = gevent.get_hub().loop
        self.rate = FIRST_RATE
        self._crowded = crowded
        self._most = max(1.0, cores * 9 / 10)
        self._under_way = 0
        self._waiting: collections.deque[Waiter[None]] = collections.deque()
        self._idle, self._timer = loop.idle(), loop.timer(LONGEST, LONGEST)
        self._since = 0.0  # when many were under way
        self._done = 0  # since then

    @contextlib.contextmanager
    def turn(self) -> Iterator[bool]:
        """Wait for a turn, and count a handshake as under way within the ``with`` block. Blocks.

        Returns:
            whether it had to wait.

        Raises:
            Busy: if there are too many.
        """
        if len(self._waiting) >= MOST_WAITING or self._under_way >= self._most:
            raise Busy
        self._under_way += 1
        if self._under_way == MANY:
            self._since, self._done = monotonic(), 0
        try:
            yield self._wait()
        finally:
            self._end()

    def _end(self) -> None:
        if self._under_way >= MANY:
            self._done += 1
            now = monotonic()
            if now - self._since >= WINDOW:
                self.rate = self._done / (now - self._since)
                self._since, self._done = now, 0
        self._under_way -= 1

    def _wait(self) -> bool:
        if not self._idle.active:  # nobody waits, nor has one begun in this round of the loop
            self._idle.start(logged, self._next)
            self._timer.start(logged, self._next, update=True)
            return False
        if not self._waiting:
            self._crowded(True)
        waiter: Waiter[None] = Waiter()
        self._waiting.append(waiter)
        try:
            waiter.get()
        except BaseException:
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiter)
            raise
        return True

    def _next(self) -> None:
        if not self._waiting:
            self._idle.stop()
            self._timer.stop()
            self._crowded(False)
            return
        for _ in range(min(TOGETHER, len(self._waiting))):
            self._waiting.popleft().switch(None)


__all__ = ["FIRST_RATE", "Busy", "Handshakes"]
