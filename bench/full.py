"""What a worker does that is full of idle sockets, and how long its pages take meanwhile.

Responsible for what the worker has to do while it is looked at: nothing, as many idle sockets as can be, and a message
each second to all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import time
from collections.abc import Callable, Iterator

from bench.clients import Redis, Sockets, messages, request
from bench.deliveries import SIZE
from bench.lineup import Ground
from bench.record import Record
from bench.servers import Worker
from bench.siege import TAIL, between, neighbour, percentile
from testbed.attacks import Target

EMPTY, IDLE, FANOUT = "no socket", "idle sockets", "a message a second to all of them"
PATH, CHANNEL = "/ws/bench?subscribe-broadcast", b"ws:broadcast:bench"
ECHO, PAGE = "/ws/echo/", "/accounts/login/"  # of the neighbour
PAUSE = 1.0  # seconds between two messages


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: each with a new worker.
        sockets: of the full worker: it takes 15,000 with 20,000 descriptors, and its neighbour needs some.
        seconds: of each look; in a minute every client is pinged twice.
        beside: of each look with a neighbour, who asks for pages.
    """

    rounds: int = 3
    sockets: int = 14_990
    seconds: float = 30.0
    beside: float = 15.0


QUICK = Plan(rounds=1, sockets=30, seconds=1.0, beside=1.5)


def measure(ground: Ground, plan: Plan, say: Callable[[str], object]) -> Record:
    """Measure an empty worker, the same full of idle sockets, and then with a message a second to all of them."""
    record = Record("full", "make bench-deliveries PART=full", dataclasses.asdict(plan) | {"size": SIZE})
    env = {"BENCH_UNLIMITED": "1"}
    for number in range(plan.rounds):
        with Worker(ground.directory, ground.redis.port, env=env) as worker, Sockets(worker.address) as sockets:
            for kind in (EMPTY, IDLE, FANOUT):
                if kind == IDLE:
                    sockets.open([request(PATH)] * plan.sockets)
                figures = _looked_at(worker, sockets, ground.redis.port, kind, plan)
                record.rows.append({"kind": kind, "round": number, **figures})
                say(f"  {kind}: " + ", ".join(f"{name} {figure:.1f}" for name, figure in figures.items()))
    return record


def _looked_at(worker: Worker, sockets: Sockets, redis_port: int, kind: str, plan: Plan) -> dict[str, float]:
    """Return ``cpu``, % of a core, and in ms ``turn``, the event loop's longest, and ``p50`` and ``p99`` of a page."""
    with _busy(sockets, redis_port, kind == FANOUT) as spend:
        worker.settled()
        _longest_turn(worker)
        before = worker.cpu_time()
        spend(plan.seconds)
        cpu = 100 * (worker.cpu_time() - before) / plan.seconds
        turn = 1000 * _longest_turn(worker)
        with neighbour(worker, Target(worker.address, ECHO), PAGE) as end:
            began = time.monotonic()
            spend(plan.beside)
            ended = time.monotonic()
            time.sleep(TAIL)
            views = between(end()["views"], began, ended)
    return {"cpu": cpu, "turn": turn, "p50": percentile(views, 0.5), "p99": percentile(views, 0.99)}


@contextlib.contextmanager
def _busy(sockets: Sockets, redis_port: int, publishes: bool) -> Iterator[Callable[[float], None]]:
    """Yield what lets clients live for some seconds."""
    line = Redis(redis_port)
    commands = [line.command(CHANNEL, text) for text in messages(1, SIZE)]

    def spend(seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if publishes:
                line.publish(commands)
            sockets.idle(min(left, PAUSE) if publishes else left)

    try:
        yield spend
    finally:
        line.close()


def _longest_turn(worker: Worker) -> float:
    """Return the seconds of the longest turn of the worker's event loop since this was last called."""
    connection = http.client.HTTPConnection(*worker.address, timeout=30)
    try:
        connection.request("GET", "/bench/turn")
        return float(json.loads(connection.getresponse().read()))
    finally:
        connection.close()
