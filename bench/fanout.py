"""What a message costs the hub, in one process without Redis and without clients that read, and how much of it is
counting for the metrics.

The hub and its connections are the engine's own, on pairs of sockets that are emptied between the rounds. A message is
the only one of its turn of the event loop, which is the dearest way: each of its costs counts once for each socket.
"""

from __future__ import annotations

import resource
import socket
import statistics
import time
import timeit
from collections.abc import Iterator

from gevent import monkey

CHANNEL = b"ws:broadcast:bench"
SIZE = 128  # bytes of a message
SOCKETS = (1, 10, 100, 1000)
ROUNDS = 15
MESSAGES = 2000  # deliveries of a round, about
FULL = 64  # messages that a socket takes before its client reads


class Fanout:
    """A hub with connections that listen to one channel.

    Args:
        count: number of connections, each of two descriptors.
    """

    def __init__(self, count: int) -> None:
        # Django is set up before the engine is imported.
        from wsloop.protocol.dialects import BARE
        from wsloop.sockets import hub
        from wsloop.sockets.handler import ENDED
        from wsloop.sockets.hub import Hub
        from wsloop.sockets.limits import Bounds
        from wsloop.sockets.transport import Transport
        from wsloop.sockets.websocket import WebSocket

        hub.SLICE = float("inf")  # all of a message in one turn
        socketpair = monkey.get_original("socket", "socketpair")
        self.hub = Hub(lambda connection: None)
        self._clients: list[socket.socket] = []
        for _ in range(count):
            server, client = socketpair()
            client.setblocking(False)
            bounds = Bounds(65536, 1 << 20, None, 0, float("inf"))
            connection = WebSocket(Transport(server.detach()), ENDED, bounds, [], BARE)
            self.hub.open(connection, self.hub.admission.take())
            self.hub.enter(self.hub.join([CHANNEL]), connection, [])
            self._clients.append(client)

    def deliver(self, *messages: object) -> None:
        """Hand messages to all connections, and their output to the kernel, as a turn of the loop does."""
        for message in messages:
            self.hub.deliver(CHANNEL, message)  # type: ignore[arg-type]
        self.hub._flush()

    def drain(self) -> None:
        """Have the clients read all."""
        for client in self._clients:
            try:
                while client.recv(1 << 20):
                    pass
            except BlockingIOError:
                pass

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for connection in list(self.hub.connections):
            connection.abort()


def counting() -> float:
    """Return the seconds that counting one message takes, however many sockets get it."""
    from wsloop import metrics
    from wsloop.sockets.census import Census

    census = Census()

    def count() -> None:
        metrics.TRAFFIC.bytes_out += 130 * 1000
        metrics.TRAFFIC.messages_out += 1000
        census.delivered(CHANNEL, 1000)
        metrics.DELIVERY.observe(0.0004)

    return min(timeit.repeat(count, number=20_000, repeat=7)) / 20_000


def set_up() -> None:
    """Have Django ready for the engine."""
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(SECRET_KEY="not used", INSTALLED_APPS=["wsloop"], WSLOOP={})
        django.setup()


def rows(sockets: tuple[int, ...] = SOCKETS, rounds: int = ROUNDS) -> Iterator[tuple[int, float, float]]:
    """Measure, and yield for each number of sockets: it, the CPU seconds of a message, and the share of counting."""
    set_up()
    from wsloop.protocol.messages import Message

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    each = counting()
    message = Message(b"x" * SIZE, "id", 0, "-", False, time.time_ns() // 1000)
    for count in sockets:
        fanout = Fanout(count)
        times = []
        for _ in range(rounds):
            number = min(FULL, max(1, MESSAGES // count))
            began = time.process_time()
            for _ in range(number):
                fanout.deliver(message)
            times.append((time.process_time() - began) / number)
            fanout.drain()
        fanout.close()
        took = statistics.median(times)
        yield count, took, each / took


def main() -> None:
    print(f"{'sockets':>8} {'µs a message':>13} {'µs a delivery':>14} {'of it counting':>15}")
    for count, took, share in rows():
        print(f"{count:8} {1e6 * took:13.1f} {1e6 * took / count:14.2f} {share:15.1%}")


if __name__ == "__main__":
    main()
