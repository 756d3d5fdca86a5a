"""What the consumers of one worker share: bounds, turns, and the list of those that must be ended with the worker.

This module must not know how a consumer is run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

import gevent

from wsloop import conf
from wsloop.aio.worker import worker_loop
from wsloop.fair_scheduler import FairScheduler, Flows
from wsloop.greenlets import logged
from wsloop.runtime.groups import LocalConsumers
from wsloop.sockets.hub import Hub

logger = logging.getLogger("wsloop.runner")

PEER_CHECK_INTERVAL = 1.0  # seconds
JOIN_INTERVAL = 0.01  # seconds
STARTS = 16  # tasks started in one round of the event loop of coroutines


class Starts:
    """Starts tasks of many consumers, a few in each round of their event loop, so that others' have their turn."""

    def __init__(self) -> None:
        self._flows = Flows()
        self._waits = False

    def put(self, start: Callable[[], None], flow: bytes) -> None:
        """Call ``start`` in the event loop when its turn comes, in the order of its flow. Never blocks."""
        self._flows.put(start, flow)
        if not self._waits:
            self._waits = True
            worker_loop().call_soon_threadsafe(self._next)

    def _next(self) -> None:
        for _ in range(STARTS):
            if not self._flows:
                break
            logged(self._flows.take())
        self._waits = bool(self._flows)
        if self._waits:
            worker_loop().call_soon(self._next)


class Running(Protocol):
    """A consumer whose handler runs."""

    def give_up(self) -> None:
        """End the handler, wherever it waits, and call only ``disconnect`` after it. Never blocks."""


class Unread(Protocol):
    """A consumer whose connection is not read."""

    def check_peer(self) -> None:
        """Find out whether the client has hung up. Never blocks."""


class ConsumerRuntime:
    """The consumers of this process.

    Args:
        hub: of the process.
        local_consumers: of the process.

    Attributes:
        scheduler: shares each round of the event loop among the handlers.
        starts: does so for coroutines, if they handle events that many consumers get.
        capacity: number of events that may wait for one consumer.
        max_bytes: bytes of events that may wait for one consumer.
        running: the consumers that have a greenlet.
        full: the consumers whose connection is not read, because their inbox is full.
    """

    def __init__(self, hub: Hub, local_consumers: LocalConsumers) -> None:
        self.hub = hub
        self.local_consumers = local_consumers
        self.scheduler = FairScheduler()
        self.starts = Starts()
        self.capacity: int = conf.option("CHANNEL_CAPACITY")
        self.max_bytes: int = conf.option("MAX_QUEUED_BYTES")
        self.running: set[Running] = set()
        self.full: set[Unread] = set()
        self._timer: Any = gevent.get_hub().loop.timer(PEER_CHECK_INTERVAL, PEER_CHECK_INTERVAL)

    def add_full(self, consumer: Unread) -> None:
        """Check regularly whether the client of a full consumer has hung up: unread connections do not show it."""
        if not self.full:
            self._timer.start(logged, self._check_peers)
        self.full.add(consumer)

    def remove_full(self, consumer: Unread) -> None:
        """Undo :meth:`add_full`."""
        self.full.discard(consumer)
        if not self.full:
            self._timer.stop()

    def _check_peers(self) -> None:
        for consumer in list(self.full):
            consumer.check_peer()

    def wait(self, timeout: float) -> None:
        """Return when no handler runs any more, or after ``timeout`` seconds.

        Handlers that run after half of the time are ended, so that there is time for ``disconnect``.
        """
        self._join(timeout / 2)
        for consumer in self.running:
            consumer.give_up()
        self._join(timeout / 2)
        if self.running:
            logger.warning("The worker stops before %d consumers have finished: they are cut off", len(self.running))

    def _join(self, timeout: float) -> None:
        end = monotonic() + timeout
        while self.running and monotonic() < end:
            gevent.sleep(JOIN_INTERVAL)  # greenlets that wait for their turn have not started: they cannot be joined


__all__ = ["ConsumerRuntime"]
