"""Prometheus counters of each process; any exporter of the site shows them with its own.

This module must not know anything else of wsloop.
"""

from prometheus_client import Counter

_reached = Counter(
    "wsloop_bounds_reached",
    "Handshakes refused and WebSockets closed because a bound was reached, by the setting that holds it",
    ["setting"],
)

_recoveries = Counter("wsloop_recoveries", "Clients that reconnected with a resume token, by outcome", ["outcome"])
_lost = Counter("wsloop_lost", "Events by which messages were lost, by kind", ["kind"])

_blocked = Counter("wsloop_blocked", "Times that an event loop was held up for BLOCKED_AFTER seconds or more", ["loop"])
_blocked_seconds = Counter("wsloop_blocked_seconds", "Seconds of those times", ["loop"])


def reached(setting: str) -> None:
    """Count that the bound in ``WSLOOP[setting]`` was reached: what then happens is documented with each."""
    _reached.labels(setting).inc()


def recovery(complete: bool) -> None:
    """Count a client that has asked for missed messages, by whether it gets all of them."""
    _recoveries.labels("complete" if complete else "not recovered").inc()


def blocked(loop: str, seconds: float) -> None:
    """Count that an event loop, "gevent" or "asyncio", was held up for so long."""
    _blocked.labels(loop).inc()
    _blocked_seconds.labels(loop).inc(seconds)


def lost(kind: str, count: int = 1) -> None:
    """Count a loss.

    Args:
        kind: "publication": messages of sockets that Redis did not accept; "interruption": the subscription broke, and
            messages in facilities without history are missed until it is established again; "history": a channel whose
            history does not have the missing messages; "replaced": messages of latest-only facilities that a client did
            not read in time; "channel": events for a consumer whose inbox was full.
        count: number of losses.
    """
    _lost.labels(kind).inc(count)
