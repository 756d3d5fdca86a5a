"""Shares the event loop fairly: greenlets with much work take turns, so that sockets, timers and requests get theirs.

In each round gevent's loop polls sockets and timers, then runs greenlets. A thousand consumers would handle a burst of
messages in one round, and delay everything else; so they share :data:`SLICE` seconds of each round, in a queue.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
from gevent.hub import Waiter

from wsloop.greenlets import logged

SLICE = 0.005  # seconds
BREATH = 1e-6  # seconds: with 0 gevent would run greenlets some fifty times before it polls sockets and timers


class FairScheduler:
    """The slice of each round that a set of greenlets shares."""

    def __init__(self) -> None:
        self._queue: collections.deque[Callable[[], object]] = collections.deque()
        self._timer: Any = gevent.get_hub().loop.timer(BREATH)  # expires in the next round
        self._slice_ends_at = 0.0

    def enqueue(self, go_on: Callable[[], object]) -> None:
        """Call ``go_on`` from the event loop when its turn comes. Never blocks."""
        self._queue.append(go_on)
        if not self._timer.active:
            self._timer.start(logged, self._next)

    def yield_turn(self) -> None:
        """Return immediately if nothing is queued and the slice has not ended; otherwise at this greenlet's turn."""
        if not self._timer.active:
            self._slice_ends_at = monotonic() + SLICE
            self._timer.start(logged, self._next)
        elif self._queue or monotonic() >= self._slice_ends_at:
            waiter: Waiter[None] = Waiter()
            self.enqueue(functools.partial(waiter.switch, None))
            waiter.get()

    def _next(self) -> None:
        self._slice_ends_at = monotonic() + SLICE
        if self._queue:
            self._timer.start(logged, self._next)
        while self._queue and monotonic() < self._slice_ends_at:
            self._queue.popleft()()
