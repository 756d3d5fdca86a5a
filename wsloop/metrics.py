"""What a process counts, in plain numbers, which cost a message nothing that can be measured.

How it works. The engine adds to numbers here; nobody reads them until somebody asks. :mod:`wsloop.exposition` makes
Prometheus's metrics of them when it is asked, of this process or, of their snapshots, of all workers. What is not a
number that only grows, such as the number of sockets, is asked for then (:func:`set_gauges`). The labels of a number
have few values each: no user, no session, no address, no name of a facility but as its pattern in the settings.

This module must not know anything else of wsloop.
"""

from __future__ import annotations

import bisect
import collections
from collections.abc import Callable, Sequence
from typing import Any

# Upper bounds, in seconds. A handshake takes a millisecond or asks a database; a message takes some hundred µs.
HANDSHAKE_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DELIVERY_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DELAY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

# Close codes that are counted by themselves: those of RFC 6455 and of this project. A client may send any other.
CODES = frozenset({*range(1000, 1016), 4001, 4003, 4008, 4029, 4030, 4500})


class Histogram:
    """How many values lie between some bounds, and their sum.

    Args:
        bounds: upper ones, in order; there is one more without a bound.
    """

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect.bisect_left(self._bounds, value)] += 1
        self.sum += value


class Traffic:
    """What has passed through the sockets of this process.

    Attributes:
        messages_in: that clients have sent; pings, pongs and close frames are none.
        bytes_in: that the kernel has handed over, headers of frames included.
        messages_out: handed to sockets, each as often as there are sockets that get it; heartbeats and pings are none.
        bytes_out: of these messages, compressed, headers of frames included.
    """

    __slots__ = ("bytes_in", "bytes_out", "messages_in", "messages_out")

    def __init__(self) -> None:
        self.messages_in = self.bytes_in = self.messages_out = self.bytes_out = 0

    def sent(self, messages: int, size: int) -> None:
        """Count messages to one socket, and the bytes of their frames."""
        self.messages_out += messages
        self.bytes_out += size


TRAFFIC = Traffic()
DELIVERY = Histogram(DELIVERY_BOUNDS)  # seconds from Redis to the kernel
LOOP_DELAY = Histogram(DELAY_BOUNDS)  # seconds that a timer of gevent's loop was late
_handshakes: dict[str, Histogram] = {}  # by outcome

Numbers = collections.defaultdict[str, float]
_reached, _recoveries, _lost, _closes, _blocked, _blocked_seconds = (Numbers(float) for _ in range(6))

_gauges: Callable[[], dict[str, Any]] = dict


def set_gauges(gauges: Callable[[], dict[str, Any]]) -> None:
    """Have a function called for the numbers of the moment: it returns a part of the snapshot."""
    global _gauges
    _gauges = gauges


def reached(setting: str) -> None:
    """Count that the bound in ``WSLOOP[setting]`` was reached: what then happens is documented with each."""
    _reached[setting] += 1


def recovery(complete: bool) -> None:
    """Count a client that has asked for missed messages, by whether it gets all of them."""
    _recoveries["complete" if complete else "not recovered"] += 1


def blocked(loop: str, seconds: float) -> None:
    """Count that an event loop, "gevent" or "asyncio", was held up for so long."""
    _blocked[loop] += 1
    _blocked_seconds[loop] += seconds


def lost(kind: str, count: int = 1) -> None:
    """Count a loss.

    Args:
        kind: "publication": messages of sockets that Redis did not accept; "interruption": the subscription broke, and
            messages in facilities without history are missed until it is established again; "history": a channel whose
            history does not have the missing messages; "replaced": messages of latest-only facilities that a client did
            not read in time; "channel": events for a consumer whose inbox was full.
        count: number of losses.
    """
    _lost[kind] += count


def handshake(outcome: str, seconds: float) -> None:
    """Count a handshake.

    Args:
        outcome: "opened", "left" if the client has hung up, or the HTTP status of the refusal.
        seconds: from the request to the answer.
    """
    if outcome not in _handshakes:
        _handshakes[outcome] = Histogram(HANDSHAKE_BOUNDS)
    _handshakes[outcome].observe(seconds)


def closed(code: int) -> None:
    """Count the end of a connection, by its close code (RFC 6455, section 7.1.5)."""
    _closes[str(code) if code in CODES else "other"] += 1


def snapshot() -> dict[str, Any]:
    """Return all numbers of this process, as JSON can carry them.

    Returns:
        numbers; by a label, a dictionary of numbers; of a histogram, a list of its counts with the sum at the end.
    """
    return {
        "bounds_reached": dict(_reached),
        "recoveries": dict(_recoveries),
        "lost": dict(_lost),
        "closes": dict(_closes),
        "blocked": dict(_blocked),
        "blocked_seconds": dict(_blocked_seconds),
        "handshakes": {outcome: [*each.counts, each.sum] for outcome, each in _handshakes.items()},
        "delivery": [*DELIVERY.counts, DELIVERY.sum],
        "loop_delay": [*LOOP_DELAY.counts, LOOP_DELAY.sum],
        **{name: getattr(TRAFFIC, name) for name in Traffic.__slots__},
        **_gauges(),
    }
