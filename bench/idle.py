"""What idle WebSockets cost a server: memory, and CPU.

It must not know the server, but that it collects its garbage when it is asked to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from bench.clients import Sockets, batches
from bench.servers import MeasuredRedis, Server

WARM_UP, WARM_UP_BATCH = 1000, 50  # sockets opened and closed before memory is looked at, and how many at a time
# Handshakes under way at the same time where memory is measured. Each needs far more than a socket while it lasts (a
# request, a database connection), and the allocator keeps what the busiest moment needed.
HANDSHAKES = 10


def rows(
    server: Server,
    redis: MeasuredRedis,
    handshakes: Sequence[bytes],
    sizes: Sequence[int],
    say: Callable[[str], object],
    cpu_at: Sequence[int] = (),
    idle_time: float = 60.0,
) -> Iterator[dict[str, float]]:
    """Open sockets, up to each of ``sizes``, and return one row for each: see ``report.Results``.

    Args:
        server: started for this.
        redis: the Redis that the server uses.
        handshakes: of the sockets.
        say: told about progress.
        cpu_at: those of ``sizes`` at which CPU is measured, for ``idle_time`` seconds.
    """
    with Sockets(server.address, HANDSHAKES) as sockets:
        for batch in batches(handshakes[:WARM_UP], WARM_UP_BATCH):
            sockets.open(batch)
            sockets.close()
        before = server.settled()
        yield {"sockets": 0, **before, "redis": redis.connections()}
        for size in sizes:
            began = time.monotonic()
            sockets.open(handshakes[len(sockets) : size])
            say(f"  {size} sockets open ({(time.monotonic() - began):.1f} s)")
            row: dict[str, float] = {"sockets": size, **server.settled(), "redis": redis.connections()}
            if size in cpu_at:
                cpu = server.cpu_time()
                pings = sockets.idle(idle_time)
                row["cpu"] = 100 * (server.cpu_time() - cpu) / idle_time
                say(f"  {pings} pings answered in {idle_time:g} s, {row['cpu']:.1f} % of a core")
                row |= server.settled()  # what heartbeats and pongs leave behind belongs to an idle socket
            row["per_socket"] = (row["Rss"] - before["Rss"]) / size
            yield row
