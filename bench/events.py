"""What events for many consumers, and histories, cost everybody else.

Responsible for what is measured: how long the echo of a neighbour takes while each member of a large group handles
events; what a history costs those who publish and listen; and how long many clients of ``wsloop.v1`` take that come
back at once and have missed messages.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgpack

from bench.clients import Redis, Sockets, Stalled, frame, messages, request
from bench.deliveries import SIZE
from bench.pages import PROTOCOL, RECOVERED, Client, Pages
from bench.servers import MeasuredRedis, Worker, cpu_time, site_environment
from bench.siege import TAIL, between, neighbour, percentile
from testbed.attacks import Target
from testbed.attacks import frame as client_frame
from testbed.processes import ROOT

SYNC, ASYNC = "consumers", "async consumers"
MEMBERS = {
    SYNC: ("/ws/consumer", "ws:wsloop:group:bench"),
    ASYNC: ("/ws/async/consumer", "ws:wsloop:group:bench-async"),
}
# Of the neighbour: a socket of a consumer, and one of a facility, whose messages come back by way of Redis.
ECHOES = {
    SYNC: "/ws/echo/",
    ASYNC: "/ws/async/plain",
    "facility": "/ws/echoes?subscribe-broadcast&publish-broadcast&echo",
}
QUIET = 2.0  # seconds
AIMS = {1000: 10, 2000: 30}  # ms: below which the median of the echoes is to be, by the number of members
# Facility and seconds for which the last message is retained.
PLAIN, EXPIRE, HISTORY, BOTH = "neither", "EXPIRE", "history", "both"
KINDS = {PLAIN: ("plain", 0), EXPIRE: ("plain", 600), HISTORY: ("kept", 0), BOTH: ("kept", 600)}
NEW, BACK = "handshake alone", "handshake and recovery"
OPEN = "recovery on open sockets"


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        members: sizes of the group.
        events: that are published at once.
        rounds: of which the median counts.
        listeners: sockets that get ``messages``, with a history and without.
        clients: that come back, of which each has missed so many messages.
    """

    members: tuple[int, ...] = (1000, 2000)
    events: int = 100
    rounds: int = 5
    listeners: int = 1000
    messages: int = 200
    clients: int = 1000
    missed: int = 100


QUICK = Plan(members=(20, 40), events=5, rounds=1, listeners=20, messages=10, clients=10, missed=5)


class Latency(NamedTuple):
    """Of the echoes of a neighbour, in ms: alone, and while the members of a group handle events; and how long these
    took, in seconds of the worker's CPU and of the clock.
    """

    quiet: float
    p50: float
    p99: float
    cpu: float
    seconds: float


class Cost(NamedTuple):
    """Seconds by the clock, and of CPU of all processes but the clients."""

    seconds: float
    cpu: float


@dataclasses.dataclass
class Results:
    """What was measured.

    Attributes:
        echoes: of a neighbour, by the kind of the members, their number, and the kind of the neighbour.
        histories: what publishing to all listeners and delivering costs, by the key of KINDS.
        recoveries: what it costs that all clients are up to date again.
    """

    echoes: dict[tuple[str, int, str], Latency] = dataclasses.field(default_factory=dict)
    histories: dict[str, Cost] = dataclasses.field(default_factory=dict)
    recoveries: dict[str, Cost] = dataclasses.field(default_factory=dict)


class Measurement:
    """Args:
    redis: the Redis that the workers use.
    directory: of the site's database.
    plan: how much is measured.
    say: told about progress.
    """

    def __init__(self, redis: MeasuredRedis, directory: Path, plan: Plan, say: Callable[[str], object]) -> None:
        self._redis = redis
        self._directory = directory
        self._plan = plan
        self._say = say
        self._env = {"BENCH_EVENTS": "1", "BENCH_UNLIMITED": "1"}

    def worker(self) -> Worker:
        return Worker(self._directory, self._redis.port, env=self._env)

    # A neighbour of a group.

    def echoes(self) -> Iterator[tuple[tuple[str, int, str], Latency]]:
        """Return how long echoes take beside each kind of group."""
        for members in MEMBERS:
            with self.worker() as worker, Sockets(worker.address) as sockets:
                path, _ = MEMBERS[members]
                for count in self._plan.members:
                    sockets.open(request(path) for _ in range(count - len(sockets)))
                    for kind in (members, "facility"):
                        latency = self._beside(worker, sockets, members, kind)
                        self._say(f"  {count} {members}, a neighbour of {kind}: {latency}")
                        yield (members, count, kind), latency

    def _beside(self, worker: Worker, sockets: Sockets, members: str, kind: str) -> Latency:
        texts = messages(self._plan.events, SIZE)
        publisher, channel = Redis(self._redis.port), MEMBERS[members][1].encode()
        commands = [
            publisher.command(channel, msgpack.packb({"type": "bench.message", "text": text.decode()}))
            for text in texts
        ]
        frames = b"".join(map(frame, texts))
        during: list[tuple[float, float]] = []
        cpu: list[float] = []
        with neighbour(worker, Target(worker.address, ECHOES[kind])) as end:
            quiet = time.monotonic()
            time.sleep(QUIET)
            for _ in range(1 + self._plan.rounds):
                worker.rest()
                sockets.expect(len(frames))
                began, before = time.monotonic(), worker.cpu_time()
                publisher.publish(commands)
                sockets.arrived()
                during.append((began, time.monotonic()))
                cpu.append(worker.cpu_time() - before)
                publisher.drain()
                sockets.check(itertools.repeat(frames))
            time.sleep(TAIL)
            results = end()
        publisher.close()
        took = [each for start, stop in during[1:] for each in between(results["echoes"], start, stop)]
        alone = between(results["echoes"], quiet, during[0][0])
        return Latency(
            statistics.median(alone),
            statistics.median(took or [0]),
            percentile(took or [0], 0.99),
            statistics.median(cpu[1:]),
            statistics.median(stop - start for start, stop in during[1:]),
        )

    # Histories.

    def histories(self) -> Iterator[tuple[str, Cost]]:
        """Return what messages cost those who publish, Redis, and the worker, round after round."""
        with self.worker() as worker, contextlib.ExitStack() as stack:
            program = stack.enter_context(self._publisher())
            facilities = {facility: stack.enter_context(Sockets(worker.address)) for facility, _ in KINDS.values()}
            for facility, sockets in facilities.items():
                sockets.open(request(f"/ws/{facility}?subscribe-broadcast") for _ in range(self._plan.listeners))
            payloads = messages(self._plan.messages, SIZE)
            expected = b"".join(map(frame, payloads))
            for number in range(1 + self._plan.rounds):
                for kind in list(KINDS)[:: 1 if number % 2 else -1]:
                    facility, expire = KINDS[kind]
                    sockets = facilities[facility]
                    sockets.expect(len(expected))
                    processes = [worker.cpu_time, lambda: cpu_time(self._redis.pid), lambda: cpu_time(program.pid)]
                    before, began = [each() for each in processes], time.perf_counter()
                    tell(program, f"{facility} {expire} {len(payloads)}")
                    sockets.arrived()
                    seconds = time.perf_counter() - began
                    heard(program)
                    worker.rest()
                    sockets.check(itertools.repeat(expected))
                    cpu = [each() - at for each, at in zip(processes, before, strict=True)]
                    if number:
                        yield kind, Cost(seconds, sum(cpu))

    @contextlib.contextmanager
    def _publisher(self) -> Iterator[subprocess.Popen[str]]:
        env = site_environment(self._directory, self._redis.port, heartbeat=False) | self._env
        command = [sys.executable, "-m", "bench.publisher"]
        with subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as program:
            try:
                yield program
            finally:
                program.kill()

    # Coming back.

    def recoveries(self) -> Iterator[tuple[str, Cost]]:
        """Return what it costs that clients come back, in all of these ways, round after round."""
        plan = self._plan
        with self.worker() as worker, self._publisher() as program, Pages(worker.address) as sockets:

            def publish() -> None:
                tell(program, f"kept 0 {plan.missed}")
                heard(program)

            publish()  # the channel has a position
            for number in range(1 + plan.rounds):
                for kind in (NEW, BACK, OPEN):
                    sockets.subscribe([back("kept")])
                    (first,) = sockets.received()
                    (token,) = re.findall(rb'"token": "([^"]+)"', first)
                    sockets.close()
                    missed = 0 if kind == NEW else plan.missed
                    if missed:
                        publish()
                    clients = [back("kept", token.decode(), missed) for _ in range(plan.clients)]
                    if kind == OPEN:
                        sockets.subscribe(each._replace(then=b"", welcomes=1, missed=0) for each in clients)
                    worker.rest()
                    before, began = worker.cpu_time(), time.perf_counter()
                    if kind == OPEN:
                        sockets.command([each._replace(welcomes=1) for each in clients])
                    else:
                        sockets.subscribe(clients)
                    seconds = time.perf_counter() - began
                    cost = Cost(seconds, worker.cpu_time() - before)
                    if not all(RECOVERED in received for received in sockets.received()):
                        raise Stalled("a client has not recovered what it has missed")
                    sockets.close()
                    worker.rest()
                    if number:
                        self._say(f"  {kind}: {cost}")
                        yield kind, cost


def back(facility: str, token: str | None = None, missed: int = 0) -> Client:
    """Return a client with one subscription; with a token it comes back."""
    command = {"type": "subscribe", "facility": facility, "audiences": ["broadcast"]}
    command |= {"resume": token} if token else {}
    handshake = request("/ws/", headers=[PROTOCOL])
    return Client(handshake, client_frame(json.dumps(command).encode()), 2, missed)


def tell(program: subprocess.Popen[str], line: str) -> None:
    """Write a line to a program."""
    assert program.stdin is not None
    program.stdin.write(f"{line}\n")
    program.stdin.flush()


def heard(program: subprocess.Popen[str]) -> None:
    """Return when a program has written a line."""
    assert program.stdout is not None
    if not program.stdout.readline():
        raise RuntimeError("the program that publishes has ended")


def measure_all(
    redis: MeasuredRedis, directory: Path, plan: Plan, say: Callable[[str], object], only: str = ""
) -> Results:
    """Measure everything, or ``only`` what one method of :class:`Measurement` does."""
    measurement, results = Measurement(redis, directory, plan, say), Results()
    if only in ("", "echoes"):
        say("echoes beside a group")
        results.echoes = dict(measurement.echoes())
    for name, into in (("histories", results.histories), ("recoveries", results.recoveries)):
        if only in ("", name):
            say(name)
            costs: dict[str, list[Cost]] = {}
            for kind, cost in getattr(measurement, name)():
                costs.setdefault(kind, []).append(cost)
            into |= {kind: Cost(*map(statistics.median, zip(*each, strict=True))) for kind, each in costs.items()}
            say(f"  {into}")
    return results
