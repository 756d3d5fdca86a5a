"""What asynchronous code costs here and elsewhere: the same consumers, in one run, with the same client.

Responsible for what is measured, alike for every host: memory, handshakes, echoes and group messages; and how much
synchronous code slows down while asynchronous code works in the same worker. A round measures one host after the other,
so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import idle
from bench.clients import Sockets, Stalled, messages, request
from bench.deliveries import SIZE, deliveries
from bench.servers import MeasuredRedis, Peers, Server, Worker, site_environment
from bench.siege import TAIL, between, neighbour, percentile
from testbed.attacks import Target, frame
from testbed.processes import free_port

ASGI, UVICORN = "Channels on wsloop", "Channels on uvicorn, asyncio"
ASYNC, SYNC = "wsloop, async consumers", "wsloop, sync consumers"
PATHS = {ASGI: "/ws/asgi", ASYNC: "/ws/async", SYNC: "/ws/sync"}  # in a worker of bench.wsgi: in that of ASGI all
# Of uvicorn and daphne; their pings, every 20 s by default, would come between the bytes that are compared.
PEERS = {
    UVICORN: "-m uvicorn bench.peers.channels_app:site --port {port} --loop asyncio --log-level warning "
    "--ws-ping-interval 3600",
    "Channels on uvicorn, uvloop": "-m uvicorn bench.peers.channels_app:site --port {port} --loop uvloop "
    "--log-level warning --ws-ping-interval 3600",
    "Channels on daphne": "-m daphne bench.peers.channels_app:site --port {port} --verbosity 0 --ping-interval 3600",
}
VIEW = "/accounts/login/"
ALONE = "nothing"


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        idle: sockets at which memory is looked at.
        handshakes: opened one after the other, ``window`` of them at a time.
        echoing: sockets that echo, for ``seconds``.
        members: sockets in the chat room.
        burst, paced: messages to the room at once, and one after the other.
        rounds: of which the median counts.
    """

    idle: int = 2000
    handshakes: int = 300
    window: int = 10
    echoing: int = 50
    seconds: float = 2.0
    members: int = 200
    burst: int = 25
    paced: int = 10
    rounds: int = 5


QUICK = Plan(idle=100, handshakes=50, echoing=10, seconds=0.5, members=20, rounds=1)


@dataclasses.dataclass
class Beside:
    """Synchronous code of a worker beside sockets that echo at full rate.

    Attributes:
        load: their echoes a second, while ``echo_`` and ``view_`` were measured.
        echo_p50, echo_p99: of a sync consumer to a client that sends 50 messages a second, in ms.
        view_p50, view_p99: of a view that is requested 20 times a second, in ms.
        rate: echoes a second of as many sockets of a sync consumer, at full rate, too.
    """

    load: float
    echo_p50: float
    echo_p99: float
    view_p50: float
    view_p99: float
    rate: float


@dataclasses.dataclass
class Results:
    """What was measured.

    Attributes:
        hosts: for each of them KiB of a ``socket``, ``handshakes``, ``echoes``, and deliveries in a group, ``burst``
            and ``paced``, a second; as far as it could be measured.
        beside: what was measured beside each kind of load.
        missing: why something could not be measured, by its name.
        peers: names and versions of the peers.
    """

    hosts: dict[str, dict[str, float]]
    beside: dict[str, Beside]
    missing: dict[str, str]
    peers: str = ""


@dataclasses.dataclass
class Host:
    """A server whose sockets are measured: ``path`` is where they are."""

    server: Server
    path: str

    @contextlib.contextmanager
    def open(self, groups: Sequence[Sequence[bytes]], window: int = 10) -> Iterator[Sockets]:
        """Open sockets, group after group; at the end of the block return when the server has forgotten them."""
        with Sockets(self.server.address, window) as sockets:
            for handshakes in groups:
                sockets.open(handshakes)
            yield sockets
        self.server.rest()

    def memory(self, redis: MeasuredRedis, keys: Sequence[str], plan: Plan, say: Callable[[str], object]) -> float:
        """Return KiB of an idle socket."""
        handshakes = [request(f"{self.path}/echo", key) for key in keys[: plan.idle]]
        *_, last = idle.rows(self.server, redis, handshakes, [plan.idle], say)
        self.server.rest()
        return last["per_socket"]

    def measure(self, keys: Sequence[str], plan: Plan) -> Iterator[tuple[str, float]]:
        """Return the figures of one round."""
        began = time.perf_counter()
        with self.open([[request(f"{self.path}/echo", key) for key in keys[: plan.handshakes]]], plan.window):
            took = time.perf_counter() - began
        yield "handshakes", plan.handshakes / took
        with self.open([self.echoing(keys, plan)]) as sockets:
            count = sum(echoes(sockets, plan))
        yield "echoes", count / plan.seconds
        frames = [frame(message) for message in messages(max(plan.burst, plan.paced), SIZE)]
        with self.open([[request(f"{self.path}/rooms/bench", key) for key in keys[: plan.members]]]) as sockets:
            group = deliveries(
                sockets,
                1,
                lambda numbers: sockets.say(b"".join(frames[number] for number in numbers)),
                burst_size=plan.burst,
                paced_size=plan.paced,
            )
        yield from group.items()

    def echoing(self, keys: Sequence[str], plan: Plan) -> list[bytes]:
        """Return the handshakes of sockets that will echo."""
        return [request(f"{self.path}/echo", key) for key in keys[: plan.echoing]]


def echoes(sockets: Sockets, plan: Plan) -> list[int]:
    """Have all sockets echo JSON at full rate; return how many echoes each got."""
    texts = [json.dumps({"text": message.decode()}).encode() for message in messages(len(sockets), SIZE)]
    return sockets.echo(texts, plan.seconds)


# --- synchronous code beside it ---------------------------------------------------------------------------------------


def beside(worker: Server, names: Sequence[str], keys: Sequence[str], plan: Plan) -> dict[str, Beside]:
    """Measure synchronous code of a worker, alone and beside each of ``names``."""
    sync = Host(worker, PATHS[SYNC])
    loads = {ALONE: [], **{name: Host(worker, PATHS[name]).echoing(keys, plan) for name in names}}
    timed: dict[str, dict[str, list[float]]] = {
        name: {"echoes": [], "views": [], "load": [], "rate": []} for name in loads
    }
    for _ in range(plan.rounds):
        for name, load in loads.items():
            with sync.open([load]) as sockets, neighbour(worker, Target(worker.address), VIEW) as end:
                began = time.monotonic()
                if load:
                    timed[name]["load"].append(sum(echoes(sockets, plan)) / plan.seconds)
                else:
                    time.sleep(plan.seconds)
                ended = time.monotonic()
                time.sleep(TAIL)
                results = end()
            for kind in ("echoes", "views"):
                timed[name][kind] += between(results[kind], began, ended)
            with sync.open([sync.echoing(keys, plan), load]) as sockets:
                timed[name]["rate"].append(sum(echoes(sockets, plan)[: plan.echoing]) / plan.seconds)
    return {
        name: Beside(
            statistics.median(each["load"]) if each["load"] else 0.0,
            echo_p50=statistics.median(each["echoes"]),
            echo_p99=percentile(each["echoes"], 0.99),
            view_p50=statistics.median(each["views"]),
            view_p99=percentile(each["views"], 0.99),
            rate=statistics.median(each["rate"]),
        )
        for name, each in timed.items()
    }


# --- all together -----------------------------------------------------------------------------------------------------


class Hosts:
    """Starts the servers, and keeps what could not be measured.

    Args:
        environment: of the peers; None: without them.
    """

    def __init__(self, environment: Peers | None, redis: MeasuredRedis, directory: Path) -> None:
        self._environment, self._redis, self._directory = environment, redis, directory
        self.missing: dict[str, str] = {}

    def worker(self) -> Server:
        return Worker(self._directory, self._redis.port, env={"BENCH_UNLIMITED": "1", "BENCH_QUIET": "1"})

    def asgi(self) -> Server:
        assert self._environment
        env = {"BENCH_UNLIMITED": "1", "BENCH_ASGI": "1", "BENCH_QUIET": "1"}
        return Worker(self._directory, self._redis.port, python=self._environment.python, env=env)

    def peer(self, arguments: str) -> Server:
        assert self._environment
        port = free_port()
        command = [str(self._environment.python), *arguments.format(port=port).split()]
        env = site_environment(self._directory, self._redis.port, heartbeat=False)
        return Server(command, self._directory / f"{port}.log", env, port)

    def start(self, stack: contextlib.ExitStack) -> dict[str, Host]:
        """Start all of them, each in a process of its own."""
        starts: dict[str, Callable[[], Server]] = {}
        if self._environment:
            starts[ASGI] = self.asgi
            starts |= {name: functools.partial(self.peer, arguments) for name, arguments in PEERS.items()}
        starts |= {ASYNC: self.worker, SYNC: self.worker}
        hosts = {}
        for name, start in starts.items():
            with self.noting(name):
                hosts[name] = Host(stack.enter_context(start()), PATHS.get(name, PATHS[ASGI]))
        return hosts

    @contextlib.contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Note the error that ends the block."""
        try:
            yield
        except (RuntimeError, OSError, Stalled) as exc:
            self.missing[name] = f"not measured, {str(exc).strip().splitlines()[-1]}"


def measure_all(
    environment: Peers | None,
    redis: MeasuredRedis,
    directory: Path,
    keys: Sequence[str],
    plan: Plan,
    say: Callable[[str], object],
) -> Results:
    """Measure each host.

    Args:
        environment: of the peers; None: without them, and without what they serve.
        keys: of sessions, ``plan.idle`` of them.
        say: told about progress.
    """
    servers = Hosts(environment, redis, directory)
    figures: dict[str, dict[str, list[float]]] = {}
    sync: dict[str, Beside] = {}
    with contextlib.ExitStack() as stack:
        hosts = servers.start(stack)
        for name, host in hosts.items():
            say(f"asynchronous code, memory: {name}")
            with servers.noting(name):
                figures[name] = {"socket": [host.memory(redis, keys, plan, say)]}
        for number in range(plan.rounds):
            say(f"asynchronous code, round {number + 1} of {plan.rounds}")
            for name in [each for each in hosts if each not in servers.missing]:
                with servers.noting(name):
                    for kind, figure in hosts[name].measure(keys, plan):
                        figures[name].setdefault(kind, []).append(figure)
        say("synchronous code beside asynchronous")
        with servers.noting("Synchronous code beside it"):
            here = [name for name in PATHS if "echoes" in figures.get(name, ())]
            sync = beside(hosts[here[0]].server, here, keys, plan) if here else {}
    for name, why in servers.missing.items():
        say(f"  {name}: {why}")
    versions = environment.versions("channels", "channels_redis", "daphne", "uvicorn", "uvloop") if environment else ""
    medians = {
        name: {kind: statistics.median(each) for kind, each in measured.items()} for name, measured in figures.items()
    }
    return Results(medians, sync, servers.missing, versions)
