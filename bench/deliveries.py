"""How fast a server hands messages to all of its WebSockets.

It must not know the server, nor how messages get to it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from bench.clients import Sockets, frame, messages

BURST, PACED, SIZE = 200, 100, 128  # messages; messages; bytes of one
LONG_ENOUGH = 4.0  # seconds after which no further round of a delivery is begun


def rounds(count: int, measure: Callable[[], float]) -> float:
    """Return the median of ``count`` measurements, fewer if they take long."""
    results: list[float] = []
    began = time.monotonic()
    while len(results) < count and (not results or time.monotonic() - began < LONG_ENOUGH):
        results.append(measure())
    return statistics.median(results)


def deliveries(
    sockets: Sockets,
    count: int,
    publish: Callable[[Sequence[int]], object],
    done: Callable[[], object] = lambda: None,
    burst_size: int = BURST,
    paced_size: int = PACED,
    framed: Callable[[bytes], bytes] = frame,
) -> dict[str, float]:
    """Return deliveries a second of one server.

    Args:
        sockets: connected to it, all in one broadcast.
        count: rounds.
        publish: publishes the messages with these numbers, without waiting for anything.
        done: called when all have arrived, outside of the time that is measured.
        burst_size, paced_size: messages of a round.
        framed: returns the bytes on the wire that bring a message.
    """
    frames = [framed(message) for message in messages(max(burst_size, paced_size), SIZE)]
    bursts = frames[:burst_size]

    def burst() -> float:
        sockets.expect()
        began = time.perf_counter()
        publish(range(burst_size))
        sockets.collect(sum(map(len, bursts)))
        took = time.perf_counter() - began
        done()
        sockets.check(b"".join(bursts))
        return len(sockets) * burst_size / took

    def paced() -> float:
        sockets.expect()
        began = time.perf_counter()
        for number in range(paced_size):
            publish([number])
            sockets.collect(len(frames[number]))
        took = time.perf_counter() - began
        done()
        sockets.check(b"".join(frames[:paced_size]))
        return len(sockets) * paced_size / took

    sockets.expect()
    publish([0])
    sockets.collect(len(frames[0]))  # warm
    done()
    return {"burst": rounds(count, burst), "paced": rounds(count, paced)}
