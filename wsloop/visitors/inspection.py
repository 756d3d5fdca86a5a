"""What a worker tells about itself: the snapshot of its numbers, and its sockets.

How it works. The numbers that only grow are in :mod:`wsloop.metrics`; those of the moment are put together here when
somebody asks. Two things are measured beside: how late a timer of the event loop is, twice a second, and, now and then,
a round trip to Redis with the difference of the clocks, because the time of a message is that of Redis. This module
must not know the protocol of WebSockets.
"""

from __future__ import annotations

import heapq
import os
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gevent
from redis.exceptions import RedisError

from wsloop import metrics
from wsloop.backend import pool, scripts
from wsloop.greenlets import logged, spawn
from wsloop.protocol.messages import audience
from wsloop.sockets import servers
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub

TICK = 0.5  # seconds between two looks at the event loop: 0.01 % of a core
PROBE = 60  # ticks between two looks at Redis, if nobody asks for a snapshot meanwhile
SLOWEST = 10  # clients in a snapshot
SHOWN = 200  # sockets in an answer about sockets
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")

MACHINE = platform.node()


class Inspection:
    """The numbers of this process.

    Args:
        hub: of the process.
        subscribed: returns whether the process's subscription to Redis is established.
    """

    def __init__(self, hub: Hub, subscribed: Callable[[], bool]) -> None:
        self._hub = hub
        self._subscribed = subscribed
        self._started = time.time()
        self._redis_seconds: float | None = None
        self._probing: Any = None  # the greenlet of a look at Redis
        self._ticks = 0
        self._ticked_at = 0.0
        self._timer: Any = gevent.get_hub().loop.timer(TICK, TICK, ref=False)

    def start(self) -> None:
        """Begin to measure, for as long as the process lives, and show the numbers to :mod:`wsloop.metrics`."""
        metrics.set_gauges(self.gauges)
        self._ticked_at = time.monotonic()
        self._timer.start(logged, self._tick)
        self._begin_probe()

    def stop(self) -> None:
        """End what :meth:`start` has begun, a look at Redis under way, too. May be called again."""
        self._timer.stop()
        if self._probing is not None:
            self._probing.kill()
        metrics.set_gauges(dict)

    def _tick(self) -> None:
        now = time.monotonic()
        metrics.LOOP_DELAY.observe(max(0.0, now - self._ticked_at - TICK))
        self._ticked_at = now
        self._ticks += 1
        if self._ticks % PROBE == 0:
            self._begin_probe()

    def _begin_probe(self) -> None:
        if self._probing is None or self._probing.dead:
            self._probing = spawn(self._probe)

    def _probe(self) -> None:
        """Measure a round trip to Redis, and by how much its clock is ahead."""
        client: Any = pool.client()
        cluster = scripts.is_cluster(client)
        try:
            began = time.monotonic()
            sent = time.time()
            answer = client.ping() if cluster else client.time()
            took = time.monotonic() - began
        except (RedisError, OSError):
            self._redis_seconds = None  # whatever needs Redis reports that it is down
            return
        self._redis_seconds = took
        if not cluster:  # whose nodes have a clock each
            seconds, microseconds = answer
            self._hub.clock_offset = seconds + microseconds / 1e6 - (sent + took / 2)

    def gauges(self) -> dict[str, Any]:
        """Return the numbers of the moment, a part of :func:`wsloop.metrics.snapshot`. Never blocks."""
        census = self._hub.census
        waiting = [each for each in self._hub.connections if each.queued_bytes]
        found = {
            "sockets": _rows(census.sockets),
            "subscriptions": _rows(census.subscriptions),
            "queued_bytes": sum(each.queued_bytes for each in waiting),
            "slow_sockets": len(waiting),
            "redis_up": int(self._subscribed()),
            "started": self._started,
            "cpu": time.process_time(),
        }
        if self._redis_seconds is not None:
            found["redis_seconds"] = self._redis_seconds
        memory = _memory()
        return found if memory is None else found | {"memory": memory}

    def snapshot(self) -> dict[str, Any]:
        """Answer the request "snapshot": all numbers, and which worker they are of."""
        self._probe()
        slowest = heapq.nlargest(SLOWEST, self._hub.connections, key=lambda each: each.queued_bytes)
        return metrics.snapshot() | {
            "machine": MACHINE,
            "worker": servers.worker_number(),
            "pid": os.getpid(),
            "time": time.time(),
            "busiest": self._hub.census.busiest(),
            "slowest": [describe(each) for each in slowest if each.queued_bytes],
        }


def describe(connection: Connection) -> dict[str, Any]:
    """Return what staff may know of a socket: no session key."""
    visitor = connection.visitor
    heard = [audience(channel) for channel in connection.channels]
    dialect, place, _ = connection.labels
    return {
        "user": None if visitor.user is None else str(visitor.user),
        "address": visitor.address,
        "dialect": dialect,
        "place": place,
        "facilities": sorted({each.facility for each in heard}),
        "audiences": sorted({str(each) for each in heard}),
        "queued_bytes": connection.queued_bytes,
        "worker": servers.worker_number(),
        "machine": MACHINE,
    }


def describe_all(connections: Iterable[Connection]) -> dict[str, Any]:
    """Return how many sockets there are, and what is known of the first ones."""
    found = list(connections)
    return {"sockets": len(found), "shown": [describe(each) for each in found[:SHOWN]]}


def _rows(counts: dict[tuple[str, str, str], int]) -> list[list[Any]]:
    return [[*labels, number] for labels, number in counts.items()]


def _memory() -> int | None:
    """Return the resident memory of this process, in bytes; None where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE
    except OSError:
        return None


__all__ = ["Inspection", "describe", "describe_all"]
