"""What the socket of a whole page costs, beside a socket for each of its facilities, in the same run.

Responsible for what is measured, alike for both: memory of idle sockets, and of idle streams of Server-Sent Events; how
long many clients take to come back and recover what they have missed; and how fast a broadcast reaches them. A client
counts as open when its subscriptions are made, and all that they have missed is there.
"""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import json
import re
import select
import socket
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from bench.clients import RECEIVE_SIZE, Redis, Sockets, Stalled, frame, messages, request
from bench.deliveries import BURST, SIZE, deliveries
from bench.idle import HANDSHAKES
from bench.servers import MeasuredRedis, Worker
from testbed.attacks import frame as client_frame

PAGE, SINGLE, STREAM = "page", "single", "stream"
PROTOCOL = "Sec-WebSocket-Protocol: wsloop.v1"
AUDIENCES = ["broadcast", "user"]
# Facilities without a history, so that the frames of messages are known beforehand.
FAN_OUT = {PAGE: "bench", SINGLE: "other"}
WELCOME, MESSAGE, RECOVERED, ERROR = b'{"type": "welcome"', b'{"type": "message"', b'"recovered": true', b'"error"'
TEXT_PING = frame(b'{"type": "ping"}')  # comes with each ping
WARM_UP = 5  # before memory is looked at there is one of so many pages
FEW = 10  # pages that come back before that is measured
BURSTS = 7  # in a round, to each kind of sockets in turn: other load of the machine meets both
MOST_SUBSCRIPTIONS = 20  # of a page
WINDOW = 50  # clients that come back at the same time


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        pages: number of pages.
        sizes: subscriptions of an idle page; the last one counts for all else.
        missed: messages that each facility has published meanwhile.
        rounds: of which the median counts.
    """

    pages: int = 1000
    sizes: tuple[int, ...] = (1, 5, MOST_SUBSCRIPTIONS)
    missed: int = 5
    rounds: int = 3

    def fitting(self, descriptors: int) -> Plan:
        """Return the same with as many pages as a worker admits sockets, one for each of their facilities, where it may
        have so many descriptors: a quarter is left to the site.
        """
        return dataclasses.replace(self, pages=min(self.pages, (descriptors - 200) * 3 // 4 // self.sizes[-1]))


QUICK = Plan(pages=10, sizes=(1, 3), missed=2, rounds=1)


class Cost(NamedTuple):
    """What it costs that all clients come back: ``seconds``, CPU of the worker in ``cpu`` seconds; of Redis its
    ``commands``, and the ``reads`` from connections that brought them: round trips, or less.
    """

    seconds: float
    cpu: float
    commands: float
    reads: float


@dataclasses.dataclass
class Results:
    """What was measured.

    Attributes:
        memory: KiB of a page, of as many sockets of one facility, and of a stream, by subscriptions.
        resumed: what it cost that all have come back, by kind: with one socket a page, or with one for each facility.
        deliveries: a second, to sockets of pages and to as many of one facility: ``burst`` and ``paced``.
    """

    memory: dict[int, dict[str, float]] = dataclasses.field(default_factory=dict)
    resumed: dict[str, Cost] = dataclasses.field(default_factory=dict)
    deliveries: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)


class Client(NamedTuple):
    """One connection to be opened.

    Attributes:
        handshake: what it sends first.
        then: what it sends when that is answered.
        welcomes, missed: the frames of these kinds for which it waits.
    """

    handshake: bytes
    then: bytes
    welcomes: int
    missed: int = 0

    def complete(self, received: bytes) -> bool:
        if ERROR in received:
            raise Stalled(f"the server has answered {received!r}")
        return received.count(WELCOME) >= self.welcomes and received.count(MESSAGE) >= self.missed


def clients(
    kind: str, key: str, facilities: Sequence[str], tokens: Mapping[str, str] | None = None, missed: int = 0
) -> Iterator[Client]:
    """Return the connections of one page.

    Args:
        kind: one socket, one stream, or a single socket for each facility.
        key: of its session.
        facilities: to which it subscribes.
        tokens: with which it comes back, by facility; None: it is new.
        missed: messages of each facility that it waits for.
    """
    if kind == SINGLE:
        for facility in facilities:
            path = f"/ws/{facility}?" + "&".join(f"subscribe-{each}" for each in AUDIENCES)
            path += f"&resume={quote(tokens[facility])}" if tokens else ""
            yield Client(request(path, key, headers=[PROTOCOL]), b"", 1, missed)
        return
    commands = [
        {"type": "subscribe", "facility": each, "audiences": AUDIENCES} | ({"resume": tokens[each]} if tokens else {})
        for each in facilities
    ]
    body = json.dumps(commands).encode()
    welcomes, missed = 1 + len(facilities), missed * len(facilities)
    if kind == STREAM:
        head = ["POST /ws/ HTTP/1.1", "Host: 127.0.0.1", "Origin: http://127.0.0.1", f"Cookie: sessionid={key}"]
        head += ["Accept: text/event-stream", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        yield Client("\r\n".join([*head, "", ""]).encode() + body, b"", welcomes, missed)
    else:
        yield Client(request("/ws/", key, headers=[PROTOCOL]), client_frame(body), welcomes, missed)


class Pages(Sockets):
    """The connections of pages to one server."""

    def subscribe(self, connections: Iterable[Client]) -> None:
        """Open connections, as many at a time as the window has, and return when each is complete."""
        waiting: dict[int, tuple[socket.socket, Client, bytes, bytes]] = {}
        order = list(self._sockets)
        todo = iter(connections)
        try:
            while True:
                for client in itertools.islice(todo, self._window - len(waiting)):
                    connection = self.connect(client.handshake)
                    waiting[connection.fileno()] = connection, client, b"", b""
                    order.append(connection.fileno())
                    self._epoll.register(connection, select.EPOLLIN)
                if not waiting:
                    self._sockets = {descriptor: self._sockets[descriptor] for descriptor in order}
                    return
                for descriptor in self._ready():
                    if descriptor not in waiting:
                        self._take(descriptor)
                        continue
                    connection, client, head, received = waiting[descriptor]
                    data = connection.recv(RECEIVE_SIZE)
                    if not data:
                        raise Stalled(f"the server has closed a socket; its last bytes were {head + received!r}")
                    if not head:
                        head, end, data = (received + data).partition(b"\r\n\r\n")
                        if not end:
                            waiting[descriptor] = connection, client, b"", head
                            continue
                        if head.split(b" ")[1] not in (b"101", b"200"):
                            raise Stalled(f"refused: {head!r} {data!r}")
                        received = b""
                        connection.sendall(client.then)
                    received += data
                    waiting[descriptor] = connection, client, head, received
                    if client.complete(received):
                        del waiting[descriptor]
                        self._sockets[descriptor] = connection
                        self._chunks[descriptor] = [received]
        finally:
            for connection, *_ in waiting.values():
                connection.close()

    def command(self, connections: Sequence[Client]) -> None:
        """Send the commands of clients whose connections are open, all at once, and return when each is complete."""
        self._chunks = {descriptor: [] for descriptor in self._sockets}
        waiting = dict(zip(self._sockets, connections, strict=True))
        for descriptor, client in waiting.items():
            self._sockets[descriptor].send(client.then)
        while waiting:
            for descriptor in self._ready():
                self._take(descriptor)
                if descriptor in waiting and waiting[descriptor].complete(b"".join(self._chunks[descriptor])):
                    del waiting[descriptor]

    def _without_ping(self, descriptor: int, data: bytes) -> bytes:
        return super()._without_ping(descriptor, data).replace(TEXT_PING, b"")

    def received(self) -> Iterator[bytes]:
        """Return all bytes that each connection has received, in the order in which they were opened."""
        return (b"".join(self._chunks[descriptor]) for descriptor in self._sockets)


def wanted(kind: str, keys: Iterable[str], names: Sequence[str]) -> Iterator[Client]:
    """Return the connections of a new page for each session."""
    return itertools.chain.from_iterable(clients(kind, key, names) for key in keys)


def facilities(count: int) -> list[str]:
    """Return names of facilities with a history, see ``bench.settings``."""
    return [f"page-{number:02}" for number in range(count)]


class Measurement:
    """Args:
    redis: the Redis that the workers use.
    directory: of the site's database.
    keys: of sessions, one for each page, of different users.
    plan: how much is measured.
    say: told about progress.
    """

    def __init__(
        self, redis: MeasuredRedis, directory: Path, keys: Sequence[str], plan: Plan, say: Callable[[str], object]
    ) -> None:
        self._redis = redis
        self._directory = directory
        self._keys = keys
        self._plan = plan
        self._say = say

    def worker(self) -> Worker:
        return Worker(self._directory, self._redis.port, env={"BENCH_PAGES": "1", "BENCH_QUIET": "1"})

    def memory(self, kind: str, sizes: Sequence[int]) -> Iterator[float]:
        """Return KiB that an idle page costs a worker that serves nothing else, for each number of subscriptions.

        Only for single sockets there can be several sizes: more of them are opened. A part of the pages is there
        before, so that memory which the process needs anyway does not count.
        """
        names = facilities(sizes[-1])
        first = max(1, self._plan.pages // WARM_UP)
        before, keys = self._keys[:first], self._keys[first : self._plan.pages]
        with self.worker() as worker, Pages(worker.address, HANDSHAKES) as sockets:
            sockets.subscribe(wanted(kind, before, names[: sizes[0]]))
            resident = worker.settled()["Rss"]
            for present, size in itertools.pairwise((0, *sizes)):
                sockets.subscribe(wanted(kind, keys, names[present:size]))
                yield (worker.settled()["Rss"] - resident) / len(keys)

    def resume(self, worker: Worker) -> Iterator[tuple[str, Cost]]:
        """Cut the connections of all pages, and return what it costs that they come back, round after round."""
        names, keys = facilities(self._plan.sizes[-1]), self._keys[: self._plan.pages]
        with Pages(worker.address, WINDOW) as sockets:
            tokens = []
            for key in keys:  # one by one, so that it is known whose tokens they are
                sockets.subscribe(clients(PAGE, key, names))
            for received in sockets.received():
                found = re.findall(rb'"facility": "(page-\d+)".*?"token": "([^"]+)"', received)
                tokens.append({facility.decode(): token.decode() for facility, token in found})
            sockets.close()
            publish(worker, len(names), self._plan.missed)
            for round in range(1 + self._plan.rounds):  # the first one warms the worker up
                for kind in (PAGE, SINGLE) if round % 2 else (SINGLE, PAGE):
                    worker.rest()
                    some = keys if round else keys[:FEW]
                    back = [
                        each
                        for key, own in zip(some, tokens, strict=False)
                        for each in clients(kind, key, names, own, self._plan.missed)
                    ]
                    cost = self._cost(worker, sockets, back)
                    if not all(RECOVERED in received for received in sockets.received()):
                        raise Stalled("a client has not recovered what it has missed")
                    sockets.close()
                    if round:
                        self._say(f"  {kind}: {len(back)} sockets, {cost.seconds:.1f} s, CPU {cost.cpu:.1f} s")
                        yield kind, cost

    def _cost(self, worker: Worker, sockets: Pages, back: Sequence[Client]) -> Cost:
        with self._redis.client() as client:

            def counted() -> tuple[int, int]:
                calls = sum(each["calls"] for each in client.info("commandstats").values())
                return calls, client.info("stats")["total_reads_processed"]

            before, cpu, began = counted(), worker.cpu_time(), time.perf_counter()
            sockets.subscribe(back)
            seconds = time.perf_counter() - began
            after = counted()
            return Cost(seconds, worker.cpu_time() - cpu, after[0] - before[0], after[1] - before[1])

    def fan_out(self, worker: Worker) -> Iterator[tuple[str, dict[str, float]]]:
        """Return deliveries a second of a broadcast to as many sockets as there are pages, round after round."""
        publisher = Redis(self._redis.port)
        with Pages(worker.address, WINDOW) as page, Pages(worker.address, WINDOW) as single:
            keys, others = self._keys[: self._plan.pages], facilities(self._plan.sizes[-1] - 1)
            page.subscribe(wanted(PAGE, keys, [FAN_OUT[PAGE], *others]))
            single.subscribe(wanted(SINGLE, keys, [FAN_OUT[SINGLE]]))
            worker.rest()
            for _ in range(self._plan.rounds * BURSTS):
                for kind, sockets in ((PAGE, page), (SINGLE, single)):
                    yield kind, _deliveries(sockets, publisher, FAN_OUT[kind])
        publisher.close()
        worker.rest()


def _deliveries(sockets: Sockets, publisher: Redis, facility: str) -> dict[str, float]:
    commands = [publisher.command(f"ws:broadcast:{facility}".encode(), each) for each in messages(BURST, SIZE)]

    def send(numbers: Sequence[int]) -> None:
        publisher.publish([commands[number] for number in numbers])

    def framed(message: bytes) -> bytes:
        content = {"type": "message", "facility": facility, "audience": "broadcast", "data": message.decode()}
        return frame(json.dumps(content).encode())

    return deliveries(sockets, 1, send, publisher.drain, framed=framed)


def publish(worker: Worker, facilities: int, count: int) -> None:
    """Publish messages to the broadcast of each facility, by a page of ``bench.wsgi``."""
    connection = http.client.HTTPConnection(*worker.address, timeout=60)
    connection.request("GET", f"/bench/publish/{facilities}/{count}")
    if connection.getresponse().status != 204:
        raise RuntimeError("the messages could not be published")
    connection.close()


def measure_all(
    redis: MeasuredRedis, directory: Path, keys: Sequence[str], plan: Plan, say: Callable[[str], object]
) -> Results:
    """Measure everything; see :class:`Measurement`."""
    measurement, results = Measurement(redis, directory, keys, plan, say), Results()
    say(f"{plan.pages} pages: memory of idle ones")
    rounds = []
    for _ in range(plan.rounds):
        rounds.append(
            {kind: [next(measurement.memory(kind, [size])) for size in plan.sizes] for kind in (PAGE, STREAM)}
        )
        rounds[-1][SINGLE] = list(measurement.memory(SINGLE, plan.sizes))
        say(f"  {rounds[-1]}")
    for number, size in enumerate(plan.sizes):
        results.memory[size] = {
            kind: statistics.median(each[kind][number] for each in rounds) for kind in (PAGE, SINGLE, STREAM)
        }
    with measurement.worker() as worker:
        say(f"{plan.pages} pages: a broadcast")
        speeds = list(measurement.fan_out(worker))
        results.deliveries = {
            kind: {each: statistics.median(speed[each] for of, speed in speeds if of == kind) for each in speeds[0][1]}
            for kind in (PAGE, SINGLE)
        }
        say(f"{plan.pages} pages: all come back")
        costs: dict[str, list[Cost]] = {PAGE: [], SINGLE: []}
        for kind, cost in measurement.resume(worker):
            costs[kind].append(cost)
    results.resumed = {kind: Cost(*map(statistics.median, zip(*each, strict=True))) for kind, each in costs.items()}
    return results
