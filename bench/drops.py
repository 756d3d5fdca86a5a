"""What clients have in the end whose network drops for two seconds again and again: wsloop, and others beside it.

Responsible for the scenario, which is the same for each server; for clients that come back; and for the account of what
each of them got. It must not know how any server works. Needs what the tests need: their failing network, and their
clients of wsloop.v1.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import dataclasses
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from bench.clients import Redis, messages
from bench.servers import ROOT, NodePeers, Peers, Process, RedisServer, free_port
from tests.integration import swarm
from tests.integration.cutting_proxy import CuttingProxy
from tests.integration.harness import HEARTBEAT, Site, Sites, make_site_files, wait_until
from tests.integration.swarm import Ledger, Publisher, Swarm

STALLED, RESET, RESET_LATE, LEFT = "stalled", "reset", "reset late", "left"
KINDS = (STALLED, RESET, RESET_LATE, LEFT)
OUTAGE = 2.0  # seconds
EVERY = 5.0, 8.0  # seconds from the beginning of a drop to that of the next one of the same network
PAUSE = 0.2, 0.4  # seconds that clients wait before they come back: of every server alike
CALM = 5.0  # seconds at the end without a drop, in which all come back
SETTLING = 20.0  # seconds that clients have afterwards to get the last message
WSLOOP = "wsloop, wsloop.v1"
ON_ITS_WAY = 0.5  # seconds before a drop in which what was published may still be on its way
NAME = "b"  # of the stream of messages, where they have one
TOLD = 0  # instead of the number of a message: the client was told that messages are missing


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is done to every server.

    Attributes:
        clients, networks: how many; each network has as many clients as the others, and fails by itself.
        seconds: how long messages are published.
        rate: messages a second.
        seed: of the drops.
    """

    clients: int = 50
    networks: int = 10
    seconds: float = 60.0
    rate: int = 20
    seed: int = 1


QUICK = Plan(clients=8, networks=4, seconds=15.0)


@dataclasses.dataclass(frozen=True)
class Drop:
    """A network carries nothing from ``at`` on, in seconds, for ``OUTAGE``."""

    at: float
    network: int
    kind: str


def drops(plan: Plan) -> list[Drop]:
    """Return the drops of all networks in the order of time: the same for the same plan."""
    found = []
    for network in range(plan.networks):
        dice = random.Random(f"{plan.seed} {network}")
        at = dice.uniform(1, EVERY[1])
        while at + OUTAGE + CALM <= plan.seconds:
            found.append(Drop(at, network, dice.choice(KINDS)))
            at += dice.uniform(*EVERY)
    return sorted(found, key=lambda drop: drop.at)


class Network(CuttingProxy):
    """The line of some clients."""

    def begin(self, kind: str) -> None:
        self.stall()
        if kind == RESET:
            self.cut()
        elif kind == LEFT:
            self._call(self._leave)

    def end(self, kind: str) -> None:
        if kind == RESET_LATE:
            self.cut()
        self.go()

    def _leave(self) -> None:
        """Reset the clients' side of each line; the servers' hears nothing of it, nor anything else any more."""
        for client in [end for end in self.ends if not end.is_server]:
            server, client.other = client.other, None
            if server is not None:
                server.hold("left")
            client.reset()

    def __exit__(self, *exception: object) -> None:
        self._call(lambda: [end.reset() for end in self.ends if end.is_server])
        super().__exit__(*exception)


# --- the account ------------------------------------------------------------------------------------------------------

# What a client was sent: pairs of a time on the monotonic clock and the number of a message, or TOLD.
Events = Sequence[tuple[float, int]]


@dataclasses.dataclass
class Account:
    """What all clients of one server got.

    Attributes:
        published: messages.
        due: those that the clients should have got, together.
        delivered: those of them that they got.
        told_lost, silent: those that they did not, with a word of the server that something is missing, and without.
        duplicates, disorder: messages that came again, or after a later one.
        told: how often a client was told that something is missing.
        lost_in: kind of drop to messages that were lost in such.
        delays: seconds from publishing to arrival of what was delivered, sorted.
    """

    published: int
    due: int = 0
    told_lost: int = 0
    silent: int = 0
    duplicates: int = 0
    disorder: int = 0
    told: int = 0
    lost_in: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    delays: list[float] = dataclasses.field(default_factory=list)

    @property
    def delivered(self) -> int:
        return self.due - self.told_lost - self.silent

    def delay(self, share: float) -> float:
        """Return the delay, in seconds, that so large a share of what was delivered did not exceed."""
        return self.delays[min(int(share * len(self.delays)), len(self.delays) - 1)] if self.delays else float("nan")


def account(began: Sequence[float], clients: Sequence[tuple[Events, Sequence[Drop]]], start: float) -> Account:
    """Add up what the clients of one server got.

    Args:
        began: when messages 1, 2, 3, … were published, on the monotonic clock.
        clients: of each what it was sent, and the drops of its network in the order of time.
        start: from when on the times of the drops count.
    """
    total = Account(published=len(began))
    for events, dropped in clients:
        total.due += len(began)
        ledger = Ledger()
        stream = ledger.streams[NAME]
        seen = set()
        for at, number in events:
            if number == TOLD:
                ledger.lost()
                continue
            ledger.message(NAME, number, None)
            if number not in seen:
                seen.add(number)
                total.delays.append(at - began[number - 1])
        stream.end(len(began))
        total.told += ledger.told
        late = set(stream.disorder)
        total.disorder += len(late)
        # Of a message that came late and then again the ledger says that it was late twice.
        total.duplicates += sum(number != TOLD for _, number in events) - len(seen)
        starts = [start + drop.at for drop in dropped]
        for ranges, kind in ((stream.told_lost, "told_lost"), (stream.unexplained, "silent")):
            missing = [number for first, last in ranges for number in range(first, last + 1) if number not in seen]
            setattr(total, kind, getattr(total, kind) + len(missing))
            for number in missing:
                # What was on its way when the network dropped was lost there too.
                before = bisect.bisect_right(starts, began[number - 1] + ON_ITS_WAY)
                where = dropped[before - 1].kind if before else "no drop"
                total.lost_in[where] = total.lost_in.get(where, 0) + 1
    total.delays.sort()
    return total


# --- publishing -------------------------------------------------------------------------------------------------------


class Steady:
    """Publishes 1, 2, 3, … at a steady pace with ``publish``, from a thread, until ``stop``."""

    def __init__(self, publish: Callable[[int], object], rate: int) -> None:
        self.began: list[float] = []
        self._publish, self._interval = publish, 1 / rate
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            self.began.append(time.monotonic())
            self._publish(len(self.began))
            due += self._interval
            self._ended.wait(max(due - time.monotonic(), 0))

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(10)


class OfSite:
    """The same, with wsloop's own publisher in a process of the site's."""

    def __init__(self, site: Site, facility: str, rate: int) -> None:
        self._publisher = Publisher(site, {NAME: {"facility": facility, "broadcast": True}}, rate)
        self.began: list[float] = self._publisher.began[NAME]

    def stop(self) -> None:
        self._publisher.stop()


# --- clients ----------------------------------------------------------------------------------------------------------


class Noted(Ledger):
    """What one client of wsloop.v1 was sent, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[float, int]] = []

    def message(self, name, number, audience):
        super().message(name, number, audience)
        self.events.append((time.monotonic(), number))

    def lost(self, audience=None):
        super().lost(audience)
        self.events.append((time.monotonic(), TOLD))


@contextlib.contextmanager
def of_wsloop_v1(ports: Sequence[int], path: str) -> Iterator[Callable[[], list[Events]]]:
    """Open a client of wsloop.v1 at each port; what is yielded returns what they were sent so far."""
    pause, swarm.FIRST_PAUSE = swarm.FIRST_PAUSE, PAUSE[1] / 2  # which it doubles before the first time
    try:
        with Swarm() as clients:
            for port in ports:
                (client,) = clients.add(1, f"ws://127.0.0.1:{port}{path}", (NAME,))
                client.ledger = Noted()
            yield lambda: [client.ledger.events.copy() for client in clients.clients]
    finally:
        swarm.FIRST_PAUSE = pause


@contextlib.contextmanager
def plain(ports: Sequence[int], path: str, number: Callable[[str], int | None]) -> Iterator[Callable[[], list[Events]]]:
    """Open a client at each port that only comes back; ``number`` is that of a text, None if it has none."""
    events: list[list[tuple[float, int]]] = [[] for _ in ports]
    opened: set[int] = set()

    async def keep_open(client: int, port: int) -> None:
        dice = random.Random(client)
        while True:
            with contextlib.suppress(OSError, TimeoutError, asyncio.TimeoutError, WebSocketException):
                uri = f"ws://127.0.0.1:{port}{path}"
                async with connect(uri, open_timeout=15, ping_interval=None, close_timeout=1) as socket:
                    opened.add(client)
                    async for text in socket:
                        if (found := number(text)) is not None:
                            events[client].append((time.monotonic(), found))
            await asyncio.sleep(dice.uniform(*PAUSE))

    async def keep_all_open() -> None:
        await asyncio.gather(*(keep_open(client, port) for client, port in enumerate(ports)))

    loop = asyncio.new_event_loop()
    task = loop.create_task(keep_all_open())

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run, name="plain clients", daemon=True)
    thread.start()
    try:
        wait_until(lambda: len(opened) == len(ports), 60, "all clients open")
        yield lambda: [each.copy() for each in events]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(20)
        loop.close()


@contextlib.contextmanager
def of_socketio(ports: Sequence[int], env: dict[str, str], recovery: bool) -> Iterator[Callable[[], list[Events]]]:
    """Open a client of Socket.IO at each port; ``recovery``: that a client is not recovered is a word of the server."""
    pauses = [str(round(1000 * pause)) for pause in PAUSE]
    command = ["node", "bench/peers/socketio/clients.cjs", *pauses, *map(str, ports)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    events: list[list[tuple[float, int]]] = [[] for _ in ports]
    opened: set[int] = set()

    def read() -> None:
        for line in process.stdout or ():
            client, event, at = line.split()
            if event == "open":
                opened.add(int(client))
            elif event.isdecimal():
                events[int(client)].append((float(at), int(event)))
            elif event == "again" and recovery:
                events[int(client)].append((float(at), TOLD))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        wait_until(lambda: len(opened) == len(ports), 60, "all clients open")
        yield lambda: [each.copy() for each in events]
    finally:
        process.kill()
        process.wait()
        reader.join(10)


# --- servers ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Running:
    """A server that is measured: its ``port``, how its clients are opened at some ports, how publishing begins."""

    port: int
    clients: Callable[[Sequence[int]], contextlib.AbstractContextManager[Callable[[], list[Events]]]]
    publish: Callable[[int], Steady | OfSite]


class Servers:
    """Starts each server of one run.

    Args:
        plan: how many messages there will be.
        redis: for all of them.
        directory: for what they write.
    """

    def __init__(self, plan: Plan, redis: RedisServer, directory: Path) -> None:
        self._plan, self._redis, self._directory = plan, redis, directory
        self._peers: Peers | None = None
        self._node: NodePeers | None = None
        self._files = directory / "site"
        self._files.mkdir()
        make_site_files(self._files)

    def names(self) -> dict[str, Callable[[], contextlib.AbstractContextManager[Running]]]:
        return {
            WSLOOP: lambda: self.wsloop("/ws/drops?subscribe-broadcast", True),
            "wsloop, as ws4redis": lambda: self.wsloop("/ws/bare?subscribe-broadcast", False),
            "Channels": self.channels,
            "Socket.IO": lambda: self.socketio("none"),
            "Socket.IO, recovery": lambda: self.socketio("memory"),
            "Socket.IO, recovery, streams": lambda: self.socketio("streams"),
        }

    def versions(self) -> str:
        """Return names and versions of the peers that have been started."""
        found = []
        if self._peers and not self._peers.missing:
            found.append(self._peers.versions("channels", "channels_redis", "uvicorn"))
        if self._node and not self._node.missing:
            found.append(self._node.versions())
        return ", ".join(found)

    @contextlib.contextmanager
    def wsloop(self, path: str, recovery: bool) -> Iterator[Running]:
        facilities = {"drops": {"size": 10_000, "ttl": 600}}
        unbounded = {"MAX_CONNECTIONS_PER_ADDRESS": None, "MAX_CONNECTIONS_PER_USER": None}
        settings = {"WSLOOP": {"FACILITIES": facilities, **unbounded}}

        def number(text: str) -> int | None:
            return None if text == HEARTBEAT else int(text.split(":", 2)[1])

        with Sites(self._redis, self._files) as serve:
            site = serve(front="http-socket", processes=2, options=["--disable-logging"], settings=settings)
            yield Running(
                site.port,
                lambda ports: of_wsloop_v1(ports, path) if recovery else plain(ports, path, number),
                lambda rate: OfSite(site, "drops" if recovery else "bare", rate),
            )

    @contextlib.contextmanager
    def channels(self) -> Iterator[Running]:
        self._peers = peers = self._peers or Peers()
        if peers.missing:
            raise RuntimeError(peers.missing)
        count = round(self._plan.rate * (self._plan.seconds + SETTLING))
        packed = [bytes.fromhex(line) for line in peers.run("-m", "bench.peers.channels_app", str(count)).split()]
        numbers = {text.decode(): number for number, text in enumerate(messages(count))}
        port = free_port()
        command = [str(peers.python), "-m", "uvicorn", "bench.peers.channels_app:application", "--port", str(port)]
        env = os.environ | {"BENCH_REDIS_PORT": str(self._redis.port)}
        log = self._directory / f"{port}.log"
        publisher = Redis(self._redis.port)

        def publish(number: int) -> None:
            publisher.publish([publisher.command(b"asgi__group__bench", packed[number])])
            publisher.drain()

        with Process([*command, "--workers", "2", "--log-level", "warning"], log, env, port):
            yield Running(
                port, lambda ports: plain(ports, "/ws/bench", numbers.get), lambda rate: Steady(publish, rate)
            )
        publisher.close()

    @contextlib.contextmanager
    def socketio(self, recovery: str) -> Iterator[Running]:
        self._node = node = self._node or NodePeers()
        if node.missing:
            raise RuntimeError(node.missing)
        port = free_port()
        command = ["node", "bench/peers/socketio/server.cjs", str(port), recovery, str(self._redis.port)]
        with Process(command, self._directory / f"{port}.log", node.env, port) as server:
            yield Running(
                port,
                lambda ports: of_socketio(ports, node.env, recovery != "none"),
                lambda rate: Steady(lambda number: server.tell(str(number)), rate),
            )


# --- all together -----------------------------------------------------------------------------------------------------


def measure(server: Running, plan: Plan, script: Sequence[Drop]) -> Account:
    """Have the networks of the clients of one server drop as in the script, and return what the clients got."""
    acts = [(drop.at, Network.begin, drop) for drop in script]
    acts += [(drop.at + OUTAGE, Network.end, drop) for drop in script]
    acts.sort(key=lambda act: act[0])
    with contextlib.ExitStack() as stack:
        networks = [stack.enter_context(Network(server.port)) for _ in range(plan.networks)]
        of_client = [client % plan.networks for client in range(plan.clients)]
        sent = stack.enter_context(server.clients([networks[number].port for number in of_client]))
        publisher = server.publish(plan.rate)
        stack.callback(publisher.stop)
        wait_until(lambda: publisher.began, 60, "the first message")
        start = time.monotonic()
        for at, act, drop in acts:
            time.sleep(max(start + at - time.monotonic(), 0))
            act(networks[drop.network], drop.kind)
        time.sleep(max(start + plan.seconds - time.monotonic(), 0))
        publisher.stop()
        last = len(publisher.began)
        with contextlib.suppress(AssertionError):  # the account says what is missing
            wait_until(lambda: all(each and each[-1][1] == last for each in sent()), SETTLING, "the last message")
        per_network = [[drop for drop in script if drop.network == number] for number in range(plan.networks)]
        clients = [(events, per_network[number]) for events, number in zip(sent(), of_client, strict=True)]
        return account(publisher.began[:last], clients, start)


def failed(accounts: Mapping[str, Account | str]) -> list[str]:
    """Return the names of servers with recovery of wsloop's whose clients have not everything, once and in order."""
    found = accounts.get(WSLOOP)
    if not isinstance(found, Account):
        return [WSLOOP]
    return [] if found.delivered == found.due and not (found.duplicates or found.disorder) else [WSLOOP]


def measure_all(
    redis: RedisServer, directory: Path, plan: Plan, say: Callable[[str], object]
) -> tuple[dict[str, Account | str], str]:
    """Measure each server; instead of an account, why one cannot be. Also return the versions of the peers."""
    servers = Servers(plan, redis, directory)
    accounts: dict[str, Account | str] = {}
    for name, start in servers.names().items():
        say(f"drops: {name}")
        try:
            with start() as server:
                accounts[name] = measure(server, plan, drops(plan))
        except (RuntimeError, OSError) as exc:
            accounts[name] = f"not measured, {exc}"
            say(f"  {accounts[name]}")
        else:
            say(f"  {accounts[name].delivered} of {accounts[name].due} delivered")
    return accounts, servers.versions()
