"""How fast a server hands messages to its WebSockets, and what that costs it.

It must not know the server, nor how messages get to it.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.clients import Sockets, frame, messages

BURST, PACED, SIZE = 200, 100, 128  # messages; messages; bytes of one
LONG_ENOUGH = 4.0  # seconds after which no further round of a delivery is begun
AT_LEAST = 3  # messages that are sent one at a time, however long that takes
UNCHECKED = 20  # messages that are left in the kernel while the clock stands still
AFTERWARDS = 0.05  # seconds for the server to finish its turn, whose CPU counts


@dataclasses.dataclass
class Delivery:
    """Messages on their way to the sockets of one server.

    Args:
        sockets: connected to it.
        publish: publishes the messages with these numbers, without waiting for anything.
        done: called when all have arrived, outside of the time that is measured.
        cpu: returns the seconds of CPU that the server has used.
        framed: returns the bytes on the wire that bring a message.
    """

    sockets: Sockets
    publish: Callable[[Sequence[int]], object]
    done: Callable[[], object] = lambda: None
    cpu: Callable[[], float] = lambda: 0.0
    framed: Callable[[bytes], bytes] = frame

    def burst(self, count: int = BURST) -> dict[str, float]:
        """Publish messages at once, and return when every socket has all of them."""
        return self._at_once(
            [b"".join(map(self.framed, messages(count, SIZE)))] * len(self.sockets), range(count), count
        )

    def addressed(self, texts: Sequence[bytes], order: Sequence[int]) -> dict[str, float]:
        """Publish a message for each socket at once, and return when all have theirs.

        Args:
            texts: the messages, in the order in which the sockets were opened; all of one length.
            order: in which they are published.
        """
        return self._at_once(list(map(self.framed, texts)), order, 1)

    def _at_once(self, expected: Sequence[bytes], numbers: Sequence[int], each: int) -> dict[str, float]:
        self.sockets.expect(len(expected[0]))
        clock = Clock(self.cpu)
        with clock:
            self.publish(numbers)
            self.sockets.arrived()
        self.done()
        self.sockets.check(expected)
        return {"messages": len(numbers), **clock.figures(len(self.sockets) * each)}

    def paced(self, count: int = PACED, seconds: float = float("inf")) -> dict[str, Any]:
        """Publish messages one at a time: the next one when every socket has the last one.

        Args:
            count: messages; fewer if they take longer than ``seconds``.

        Returns:
            also the times in ms until a socket had a message, ``p50`` and ``p99``, and until the ``last`` one had it,
            for each message.
        """
        clock = Clock(self.cpu)
        last: list[float] = []
        delays: list[tuple[float, int]] = []
        unchecked = []
        for number, each in enumerate(map(self.framed, messages(count, SIZE))):
            self.sockets.expect(len(each))
            unchecked.append(each)
            with clock:
                published = time.perf_counter()
                self.publish([number])
                arrivals = self.sockets.arrived()
            last.append(arrivals[-1][0] - published)
            delays += ((at - published, sockets) for at, sockets in arrivals)
            over = number + 1 == count or (len(last) >= AT_LEAST and clock.seconds > seconds)
            if over or len(unchecked) == UNCHECKED:
                self.done()
                self.sockets.check(itertools.repeat(b"".join(unchecked)))
                unchecked = []
            if over:
                break
        return {
            "messages": len(last),
            **clock.figures(len(self.sockets) * len(last)),
            **{name: round(1000 * weighted(delays, share), 2) for name, share in (("p50", 0.5), ("p99", 0.99))},
            "last": [round(1000 * each, 2) for each in last],
        }

    def warm(self) -> None:
        """Deliver one message."""
        self.paced(1)


class Clock:
    """Runs in its blocks.

    Args:
        cpu: returns the seconds of CPU that the server has used.

    Attributes:
        seconds: that it has run.
        busy: seconds of them that this process has used.
    """

    def __init__(self, cpu: Callable[[], float]) -> None:
        self._cpu, self._used = cpu, cpu()
        self.seconds = self.busy = 0.0

    def __enter__(self) -> None:
        self._own, self._began = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began
        self.busy += time.process_time() - self._own

    def figures(self, deliveries: int) -> dict[str, float]:
        """Return deliveries a second as ``rate``, µs of the server's CPU for each as ``cpu``, where that is measured,
        and which share of the time this process was ``busy``: if that is near 1 it may be what has limited the rate.
        """
        figures = {"rate": round(deliveries / self.seconds), "busy": round(self.busy / self.seconds, 3)}
        if self._used:
            time.sleep(AFTERWARDS)
            figures["cpu"] = round(1e6 * (self._cpu() - self._used) / deliveries, 4)
        return figures


def weighted(values: Sequence[tuple[float, int]], share: float) -> float:
    """Return the smallest of values, each of which counts several times, that ``share`` of them do not exceed."""
    left = share * sum(weight for _, weight in values)
    for value, weight in sorted(values):
        left -= weight
        if left <= 0:
            return value
    return values[-1][0]


def deliveries(
    sockets: Sockets,
    count: int,
    publish: Callable[[Sequence[int]], object],
    done: Callable[[], object] = lambda: None,
    burst_size: int = BURST,
    paced_size: int = PACED,
    framed: Callable[[bytes], bytes] = frame,
) -> dict[str, float]:
    """Return deliveries a second, ``burst`` and ``paced``: medians of ``count`` rounds, or fewer if they take long."""
    delivery = Delivery(sockets, publish, done, framed=framed)
    delivery.warm()
    medians = {}
    for name, measure, size in (("burst", delivery.burst, burst_size), ("paced", delivery.paced, paced_size)):
        rates: list[float] = []
        began = time.monotonic()
        while len(rates) < count and (not rates or time.monotonic() - began < LONG_ENOUGH):
            rates.append(measure(size)["rate"])
        medians[name] = statistics.median(rates)
    return medians
