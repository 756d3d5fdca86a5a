"""FairScheduler: work of which there may be much stops now and then, so that sockets, timers and requests have theirs.

gevent's loop goes round: it looks at sockets and timers, then it runs greenlets. What a thousand consumers do with a
burst of messages would all be done in one round; so they share :data:`SLICE` seconds of each, and stand in line.
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
BREATH = 1e-6  # seconds: with 0 gevent would go round some fifty times before it looks at sockets and timers


class FairScheduler:
    """The slice of each round that some greenlets share."""

    def __init__(self) -> None:
        self._line: collections.deque[Callable[[], object]] = collections.deque()
        self._timer: Any = gevent.get_hub().loop.timer(BREATH)  # runs out in the next round
        self._over_at = 0.0

    def enqueue(self, go_on: Callable[[], object]) -> None:
        """Have ``go_on`` be called from the event loop when it is its turn. Never blocks."""
        self._line.append(go_on)
        if not self._timer.active:
            self._timer.start(logged, self._next)

    def yield_turn(self) -> None:
        """Return at once if there is time left in this round and nobody waits, else when it is this greenlet's turn."""
        if not self._timer.active:
            self._over_at = monotonic() + SLICE
            self._timer.start(logged, self._next)
        elif self._line or monotonic() >= self._over_at:
            waiter: Waiter[None] = Waiter()
            self.enqueue(functools.partial(waiter.switch, None))
            waiter.get()

    def _next(self) -> None:
        self._over_at = monotonic() + SLICE
        if self._line:
            self._timer.start(logged, self._next)
        while self._line and monotonic() < self._over_at:
            self._line.popleft()()
