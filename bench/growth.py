"""What a delivery costs wsloop as there are more of everything: sockets, channels, workers.

Responsible for what grows, step by step, and for all else to stay as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.apart import Apart
from bench.clients import Redis, frame, request
from bench.crowd import Crowd
from bench.deliveries import SIZE, Delivery
from bench.lineup import Contender, Ground, Wsloop
from bench.pages import PROTOCOL, Client, Pages
from bench.record import Record
from bench.servers import Server, Worker
from testbed.attacks import frame as client_frame

BURST = 20  # messages: the kernel holds those of all sockets
REPEATED = 3  # times that each step is measured in a round


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: each with new workers.
        sockets: numbers of those of one worker, which refuses more than three quarters of its descriptors.
        both: numbers of those of two workers together.
        channels: numbers of them, beside ``listeners`` sockets that listen to one, and on as many other sockets.
        seconds, paced: bounds of messages one at a time.
    """

    rounds: int = 3
    sockets: tuple[int, ...] = (100, 1000, 5000, 10_000, 15_000)
    both: tuple[int, ...] = (100, 1000, 5000, 10_000, 18_000)
    channels: tuple[int, ...] = (0, 1000, 5000, 10_000, 20_000)
    listeners: int = 1000
    seconds: float = 1.0
    paced: int = 50


QUICK = Plan(rounds=1, sockets=(10, 20), both=(20, 30), channels=(0, 10, 40), listeners=10, seconds=0.1, paced=3)


class OneWorker(Wsloop):
    name, burst, workers = "one worker", BURST, 1

    def start(self) -> Server:
        options = ["--disable-logging", "--processes", str(self.workers)]
        options += ["--master", "--lazy-apps"] if self.workers > 1 else []
        worker = Worker(self.ground.directory, self.ground.redis.port, options=options, env=self.env)
        self.port = worker.port
        return worker


class TwoWorkers(OneWorker):
    name, workers = "two workers", 2


class Subscribers:
    """Sockets with several subscriptions each, no two of them to the same channel."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._sockets = Pages(("127.0.0.1", contender.port))
        self._line = Redis(contender.ground.redis.port)

    def subscribe(self, sockets: int, channels: int) -> None:
        """Open sockets anew that have so many channels together."""
        self._sockets.close()
        each = channels // sockets
        names = [[f"{self._contender.topic}-{at:05}-{number:02}" for number in range(each)] for at in range(sockets)]
        self._sockets.subscribe(map(_page, names))
        # A socket gets its message by any of its subscriptions.
        self._names = [own[at % each] for at, own in enumerate(names)]

    def addressed(self) -> dict[str, float]:
        """Send a message to each socket."""
        texts = [f"{name} ".ljust(SIZE, ".").encode() for name in self._names]
        channels = [f"ws:broadcast:{name}".encode() for name in self._names]
        commands = [self._line.command(channel, text) for channel, text in zip(channels, texts, strict=True)]

        def publish(numbers: Sequence[int]) -> None:
            self._line.publish([commands[number] for number in numbers])

        delivery = Delivery(self._sockets, publish, self._line.drain, self._contender.cpu, _framed)
        return delivery.addressed(texts, range(len(texts)))


def _page(facilities: Sequence[str]) -> Client:
    body = [{"type": "subscribe", "facility": each, "audiences": ["broadcast"]} for each in facilities]
    handshake = request("/ws/", headers=[PROTOCOL])
    return Client(handshake, client_frame(json.dumps(body).encode()), welcomes=1 + len(facilities))


def _framed(text: bytes) -> bytes:
    facility, data = text.decode().split(" ")[0], text.decode()
    content = {"type": "message", "facility": facility, "audience": "broadcast", "data": data}
    return frame(json.dumps(content).encode())


def measure(ground: Ground, plan: Plan, say: Callable[[str], object]) -> Record:
    """Measure how the cost of a delivery grows."""
    about = {"rounds": plan.rounds, "size": SIZE, "burst": BURST, "listeners": plan.listeners}
    record = Record("growth", "make bench-deliveries PART=growth", about)

    def note(grows: str, step: int, kind: str, number: int, figures: dict[str, Any]) -> None:
        figures.pop("last", None)
        record.rows.append({"grows": grows, "step": step, "kind": kind, "round": number, **figures})
        say(f"  {grows} {step:,}, {kind}: {figures['cpu']:.2f} µs, {figures['rate']:,} a second")

    for number in range(plan.rounds):
        for worker, steps in ((OneWorker, plan.sockets), (TwoWorkers, plan.both)):
            if not steps:
                continue
            with _running(worker(ground)) as contender, Apart(functools.partial(Crowd, contender)) as crowd:
                for step in steps:
                    crowd("listen", step)
                    for _ in range(REPEATED):
                        note(worker.name, step, "burst", number, crowd("burst"))
                        note(worker.name, step, "paced", number, crowd("paced", plan.paced, plan.seconds))
        with (
            _running(OneWorker(ground)) as contender,
            Apart(functools.partial(Crowd, contender)) as crowd,
            Apart(functools.partial(Subscribers, contender)) as others,
        ):
            crowd("listen", plan.listeners)
            for step in plan.channels:
                if step:
                    others("subscribe", plan.listeners, step)
                for _ in range(REPEATED):
                    note("channels", step, "paced", number, crowd("paced", plan.paced, plan.seconds))
                    if step:
                        note("channels", step, "addressed", number, others("addressed"))
    return record


@contextlib.contextmanager
def _running(contender: Contender) -> Iterator[Contender]:
    try:
        contender.server.rest()  # the second worker may still load the site
        yield contender
    finally:
        contender.stop()
