"""Prometheus's metrics, made of what processes have counted: of this one, or of all workers by their snapshots.

prometheus_client's own way to add up processes, files in ``PROMETHEUS_MULTIPROC_DIR``, is not used: it needs a
directory that is emptied before each start, a hook for each worker that ends, and a write to a mapped file for each
number that changes. Here a worker that has ended is not asked, and each worker has series of its own, which begin anew
when it is replaced; so no sum goes backwards.

This module must not know gevent, Redis or sockets.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    REGISTRY,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from wsloop import metrics
from wsloop.metrics import DELAY_BOUNDS, DELIVERY_BOUNDS, HANDSHAKE_BOUNDS

Snapshot = Mapping[str, Any]
PLACE = ("dialect", "facility", "audience")


class Family(NamedTuple):
    """One metric.

    Attributes:
        name: without ``wsloop_``, and without ``_total``.
        help: what it is.
        key: of the snapshot.
        labels: of each of its numbers; several ones stand in a row before it, a single one is a key.
        bounds: of a histogram.
        gauge: whether it may go down.
    """

    name: str
    help: str
    key: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    gauge: bool = False


FAMILIES = (
    Family("sockets", "Open sockets", "sockets", PLACE, gauge=True),
    Family(
        "subscriptions",
        "Channels that open sockets listen to, once for each socket",
        "subscriptions",
        PLACE,
        gauge=True,
    ),
    Family("handshake_seconds", "From a request to its 101 or refusal", "handshakes", ("outcome",), HANDSHAKE_BOUNDS),
    Family("messages_in", "Messages from clients", "messages_in"),
    Family("messages_out", "Messages to clients, each counted for every socket", "messages_out"),
    Family("bytes_in", "Bytes from sockets", "bytes_in"),
    Family("bytes_out", "Bytes to sockets", "bytes_out"),
    Family("delivery_seconds", "From Redis to the sockets of a worker", "delivery", (), DELIVERY_BOUNDS),
    Family("queued_bytes", "Bytes that wait for clients to read", "queued_bytes", gauge=True),
    Family("slow_sockets", "Sockets with bytes that wait", "slow_sockets", gauge=True),
    Family("closes", "Sockets that have ended, by close code", "closes", ("code",)),
    Family("recoveries", "Clients that reconnected with a resume token, by outcome", "recoveries", ("outcome",)),
    Family("lost", "Events by which messages were lost, by kind", "lost", ("kind",)),
    Family(
        "bounds_reached",
        "Handshakes refused and WebSockets closed because a bound was reached, by the setting that holds it",
        "bounds_reached",
        ("setting",),
    ),
    Family("redis_up", "1 if the worker's subscription to Redis is established", "redis_up", gauge=True),
    Family("redis_seconds", "The last round trip to Redis", "redis_seconds", gauge=True),
    Family("loop_delay_seconds", "How late a timer of the event loop was", "loop_delay", (), DELAY_BOUNDS),
    Family("blocked", "Times that an event loop was held up for BLOCKED_AFTER seconds or more", "blocked", ("loop",)),
    Family("blocked_seconds", "Seconds of those times", "blocked_seconds", ("loop",)),
    Family("worker_started_seconds", "When the worker began, in seconds since the epoch", "started", gauge=True),
    Family("worker_cpu_seconds", "CPU time of the worker", "cpu"),
    Family("worker_memory_bytes", "Resident memory of the worker", "memory", gauge=True),
)


def families(snapshots: Iterable[Snapshot], of_workers: bool) -> Iterator[Metric]:
    """Yield the metrics of processes.

    Args:
        snapshots: of :func:`wsloop.metrics.snapshot`; those of workers have their number as ``worker``.
        of_workers: whether each number has that as its label.
    """
    snapshots = list(snapshots)
    more = ("worker",) if of_workers else ()
    for family in FAMILIES:
        kind: Callable[..., Any] = GaugeMetricFamily if family.gauge else CounterMetricFamily
        made = (HistogramMetricFamily if family.bounds else kind)(
            f"wsloop_{family.name}", f"{family.help}.", labels=[*more, *family.labels]
        )
        for snapshot in snapshots:
            if family.key in snapshot:
                worker = [str(snapshot["worker"])] if of_workers else []
                for labels, value in _numbers(snapshot[family.key], family):
                    _add(made, family, [*worker, *labels], value)
        yield made


def _numbers(value: Any, family: Family) -> Iterator[tuple[list[str], Any]]:
    if not family.labels:
        yield [], value
    elif len(family.labels) == 1:
        yield from (([label], number) for label, number in value.items())
    else:
        yield from ((labels, number) for *labels, number in value)


def _add(made: Any, family: Family, labels: list[str], value: Any) -> None:
    if not family.bounds:
        made.add_metric(labels, value)
        return
    *counts, total = value
    buckets, sum_of = [], 0
    for bound, count in zip([*map(str, family.bounds), "+Inf"], counts, strict=True):
        sum_of += count
        buckets.append((bound, sum_of))
    made.add_metric(labels, buckets, total)


class _Workers(Collector):
    def __init__(self, snapshots: Iterable[Snapshot], missing: int) -> None:
        self._snapshots = list(snapshots)
        self._missing = missing

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("wsloop_workers", "Workers that are shown here.", len(self._snapshots))
        yield GaugeMetricFamily("wsloop_workers_silent", "Workers of the site that did not answer.", self._missing)
        yield from families(self._snapshots, of_workers=True)


def text(snapshots: Iterable[Snapshot], missing: int, accept: str) -> tuple[bytes, str]:
    """Return the metrics of workers in a format of Prometheus, and its content type.

    Args:
        snapshots: of the workers, with ``worker``.
        missing: number of workers that have not answered.
        accept: the header of the request, by which prometheus_client chooses the format.
    """
    registry = CollectorRegistry()
    registry.register(_Workers(snapshots, missing))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Here(Collector):
    """The metrics of this process, for an exporter of the site."""

    def describe(self) -> Iterable[Metric]:
        return families([], of_workers=False)

    def collect(self) -> Iterable[Metric]:
        return families([metrics.snapshot()], of_workers=False)


@functools.cache
def register() -> None:
    """Show the numbers of this process to exporters of the site, with the site's own. May be called again."""
    REGISTRY.register(_Here())


__all__ = ["register", "text"]
