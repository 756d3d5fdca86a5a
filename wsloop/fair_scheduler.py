"""Shares the event loop fairly: work that is much takes turns, so that sockets, timers and requests get theirs.

In each round gevent's loop polls sockets and timers, then runs greenlets. A thousand consumers would handle a burst of
messages in one round, and delay everything else; so they share :data:`SLICE` seconds of each round. What they have to
do belongs to *flows*, such as the group of the channel layer that it is for. The flows take turns, and what belongs to
one flow stands in one queue: who waits in another flow does not wait for a group of a thousand.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Any

import gevent
from gevent.hub import Waiter

from wsloop.greenlets import logged

SLICE = 0.002  # seconds
BREATH = 1e-6  # seconds: with 0 gevent would run greenlets some fifty times before it polls sockets and timers

Work = Callable[[], object]


class Flows:
    """Queues that take turns."""

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        self._queues: collections.OrderedDict[Hashable, collections.deque[Work]] = collections.OrderedDict()

    def __bool__(self) -> bool:
        """Return whether there is anything to do."""
        return bool(self._queues)

    def put(self, work: Work, flow: Hashable) -> None:
        """Append to the queue of a flow."""
        queue = self._queues.get(flow)
        if queue is None:
            queue = self._queues[flow] = collections.deque()
        queue.append(work)

    def take(self) -> Work:
        """Remove and return what is next: the first of the flow whose turn it is.

        Raises:
            StopIteration: if there is nothing.
        """
        flow = next(iter(self._queues))
        queue = self._queues[flow]
        work = queue.popleft()
        if queue:
            self._queues.move_to_end(flow)
        else:
            del self._queues[flow]
        return work


class FairScheduler:
    """The slice of each round that a set of greenlets shares."""

    def __init__(self) -> None:
        self._flows = Flows()
        self._timer: Any = gevent.get_hub().loop.timer(BREATH)  # expires in the next round
        self._slice_ends_at = 0.0

    def enqueue(self, go_on: Work, flow: Hashable = None) -> None:
        """Call ``go_on`` from the event loop when its turn comes, in the order of its flow. Never blocks."""
        self._flows.put(go_on, flow)
        if not self._timer.active:
            self._timer.start(logged, self._next)

    def yield_turn(self, flow: Hashable = None) -> None:
        """Return immediately if nothing is queued and the slice has not ended; otherwise at this greenlet's turn."""
        if not self._timer.active:
            self._slice_ends_at = monotonic() + SLICE
            self._timer.start(logged, self._next)
        elif self._flows or monotonic() >= self._slice_ends_at:
            waiter: Waiter[None] = Waiter()
            self.enqueue(functools.partial(waiter.switch, None), flow)
            waiter.get()

    def _next(self) -> None:
        self._slice_ends_at = monotonic() + SLICE
        if self._flows:
            self._timer.start(logged, self._next)
        while self._flows and monotonic() < self._slice_ends_at:
            self._flows.take()()
