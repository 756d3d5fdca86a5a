"""Whose turn it is, of the handshakes that are under way: pages are answered while thousands of clients come back.

How it works. A handshake costs a part of what a page does, and after a restart they come by the thousands. So each
waits for its turn, in the order in which they came. Some get it together, because they share their queries, whenever
the event loop has nothing else to do: pages, messages, connections that wait to be accepted, and handshakes that have
begun go first. Lest these starve them, some begin each :data:`LONGEST` seconds in any case. A page takes many turns of
the loop, and each handshake that has begun makes them longer. So no further ones begin while :data:`MOST_BEGUN` have
not ended, unless the loop waits for events half of the time: then it is not the CPU that they need, but an answer, of a
service that knows the users, say. If :data:`MOST_WAITING` wait, or so many are under way that the server would have no
core left for a page, the next one is refused at once, which costs a tenth of a handshake. New clients and those that
come back are not told apart. This module must not know HTTP, nor what a handshake does.
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
MOST_BEGUN = 32  # and have not ended, while the CPU is what they need
SLACK = 0.5  # of the time in which the event loop waits for events: otherwise the CPU is
LOOK = 0.1  # seconds in which that is measured: turns and pauses of a busy loop alternate
LONGEST = 0.01  # seconds between two turns, if the loop always has something else to do
FIRST_RATE = 400.0  # handshakes a second, as long as nothing was measured: less than workers on a core of their own do
MANY = 8  # under way all the time in which it is measured: with fewer there might just be few clients
WINDOW = 1.0  # seconds over which it is measured


class Busy(Exception):
    """Too many handshakes are under way for one more."""


class Pauses:
    """In which part of the time the event loop waits for events, while it is looked at."""

    def __init__(self) -> None:
        loop: Any = gevent.get_hub().loop
        # The last before the wait, for gevent has a watcher there that runs greenlets; and the first after it.
        self._before = loop.prepare(ref=False, priority=loop.MINPRI)
        self._after = loop.check(ref=False, priority=loop.MAXPRI)
        self._since = self._began = self._waited = self._share = 0.0

    def look(self) -> None:
        """Look at it from now on."""
        if not self._before.active:
            self._since, self._waited, self._share = monotonic(), 0.0, 0.0
            self._before.start(self._begin)
            self._after.start(self._end)

    def stop(self) -> None:
        """Look no longer."""
        self._before.stop()
        self._after.stop()

    def share(self) -> float:
        """Return the part of the time, from 0 to 1, in the last whole :data:`LOOK`; 0 before there was one."""
        now = monotonic()
        if now - self._since >= LOOK:
            self._share = self._waited / (now - self._since)
            self._since, self._waited = now, 0.0
        return self._share

    def _begin(self) -> None:
        self._began = monotonic()

    def _end(self) -> None:
        self._waited += monotonic() - self._began


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
        self._pauses = Pauses()
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
        if self._waiting and self._room() > 0:
            self._soon()

    def _room(self) -> int:
        """Return how many more may begin."""
        return MOST_BEGUN - (self._under_way - len(self._waiting))

    def _wait(self) -> bool:
        if not self._timer.active:  # nobody waits, nor has one begun in this round of the loop
            self._timer.start(logged, self._next, update=True)
            if self._room() >= 0:  # without this one
                self._soon()
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

    def _soon(self) -> None:
        """Have the next ones begin when the event loop has nothing else to do."""
        if not self._idle.active:
            self._idle.start(logged, self._next)

    def _next(self) -> None:
        room = self._room()
        if not self._waiting:
            self._idle.stop()
            self._timer.stop()
            self._pauses.stop()
            self._crowded(False)
        elif room <= 0:
            self._idle.stop()  # which would keep the loop from waiting
            self._pauses.look()
            room = TOGETHER if self._pauses.share() > SLACK else 0
        for _ in range(min(TOGETHER, room, len(self._waiting))):
            self._waiting.popleft().switch(None)


__all__ = ["FIRST_RATE", "Busy", "Handshakes"]
