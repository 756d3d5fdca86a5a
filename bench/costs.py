"""What one delivery, one socket and one publish cost on real processes: the figures ``bench.simulation`` computes with.

``python -m bench.costs`` measures all of them anew, in parts of some minutes, which may be named: ``redis``,
``workers``, ``check``. The last one measures what the model predicts, in other numbers than those it was made from. CPU
time is that of a whole process, by its clock of the kernel, and the least of several turns counts: other load of the
machine takes caches away, and never adds any.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.clients import Redis, Sockets, batches, frame, messages, request
from bench.report import circumstances
from bench.servers import MeasuredRedis, Worker, signed_in
from testbed.redis_servers import RedisServer
from testbed.topologies import ClusterSetup
from wsloop.backend.scripts import SCRIPTS

RECORDED = Path(__file__).with_name("costs.json")
SIZE = 128  # bytes of a message
CHANNEL = "ws:broadcast:bench"
BROADCAST = "/ws/bench?subscribe-broadcast"
FOUR_AUDIENCES = "/ws/bench?subscribe-broadcast&subscribe-user&subscribe-group&subscribe-session"
SHAPES = ((1, 1), (10, 1), (100, 1), (2000, 1), (500, 50), (2000, 50))  # sockets, messages published at once
DELIVERIES = 300_000  # of one shape, about
WARM, IDLE, IDLE_TIME = 300, 2000, 30.0  # sockets, sockets, seconds
SUBSCRIBERS = (1, 8, 64)  # of Redis, each a worker
PUBLISHES, REPEATS, PAUSE = 400, 12, 0.25  # messages, measurements of which the least counts, seconds


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used, to the microsecond."""
    return time.clock_gettime((~pid << 3) | 2)  # see clock_getcpuclockid(3)


@dataclasses.dataclass
class Costs:
    """Seconds of CPU, and bytes, of one of each.

    Attributes:
        message: a message that arrives in a worker, whatever becomes of it there.
        write: a socket that is written to, in a turn of the loop in which it gets one or more messages.
        joined: each further message for a socket in the same turn.
        handshake, signed_in: a socket that is opened, anonymous, and signed in with four audiences; in the worker.
        ping: a ping, with the client's answer.
        socket: bytes of a worker's memory, of a socket that is signed in.
        publish, history: Redis's part of a message that is published without and with a history of 100.
        subscriber: Redis's part of it for each worker that has subscribed to the channel.
        opening: Redis's part of the handshake of a signed-in user.
        node, passed: of a Redis Cluster: the node that takes a message, for each other node; and each other node, for a
            message that it is passed.
    """

    message: float = 0.0
    write: float = 0.0
    joined: float = 0.0
    handshake: float = 0.0
    signed_in: float = 0.0
    ping: float = 0.0
    socket: float = 0.0
    publish: float = 0.0
    history: float = 0.0
    subscriber: float = 0.0
    opening: float = 0.0
    node: float = 0.0
    passed: float = 0.0


def solve(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Return the coefficients with which the rows come closest to the values, in proportion (least squares)."""
    scaled = [[each / value for each in row] for row, value in zip(rows, values, strict=True)]
    size = len(rows[0])
    matrix = [[sum(row[i] * row[j] for row in scaled) for j in range(size)] for i in range(size)]
    right = [sum(row[i] for row in scaled) for i in range(size)]
    for i in range(size):  # Gauss, without pivots: the matrix is positive definite
        for j in range(i + 1, size):
            factor = matrix[j][i] / matrix[i][i]
            matrix[j] = [a - factor * b for a, b in zip(matrix[j], matrix[i], strict=True)]
            right[j] -= factor * right[i]
    result = [0.0] * size
    for i in reversed(range(size)):
        result[i] = (right[i] - sum(matrix[i][j] * result[j] for j in range(i + 1, size))) / matrix[i][i]
    return result


# Workers.


def broadcast(
    workers: Sequence[Worker], groups: Sequence[Sockets], redis: MeasuredRedis, burst: int, turns: int
) -> float:
    """Publish messages to all sockets, ``burst`` at once, and return the CPU of all workers for one burst."""
    publisher = Redis(redis.port)
    commands = [publisher.command(CHANNEL.encode(), each) for each in messages(burst, SIZE)]
    frames = b"".join(map(frame, messages(burst, SIZE)))

    def turn() -> None:
        for sockets in groups:
            sockets.expect(len(frames))
        publisher.publish(commands)
        for sockets in groups:
            sockets.arrived()
            sockets.check(itertools.repeat(frames))

    turn()  # warm
    before = sum(cpu(each.pid) for each in workers)
    for _ in range(turns):
        turn()
    used = (sum(cpu(each.pid) for each in workers) - before) / turns
    publisher.drain()
    publisher.close()
    return used


def worker_costs(costs: Costs, redis: MeasuredRedis, directory: Path, say: Callable[[str], object]) -> None:
    """Measure messages, sockets and pings in one worker."""
    rows, values = [], []
    with Worker(directory, redis.port) as worker, Sockets(worker.address) as sockets:
        for count, burst in sorted(SHAPES):
            sockets.open(request(BROADCAST) for _ in range(count - len(sockets)))
            turns = min(100, max(2, DELIVERIES // (count * burst * REPEATS)))
            used = min(broadcast([worker], [sockets], redis, burst, turns) for _ in range(REPEATS))
            say(f"  {count} sockets, {burst} messages at once: {1e6 * used / count / burst:.2f} µs a delivery")
            rows.append([burst, count, count * (burst - 1)])
            values.append(used)
    costs.message, costs.write, costs.joined = (max(0.0, each) for each in solve(rows, values))

    keys = signed_in(directory, redis.port, IDLE)
    with Worker(directory, redis.port) as worker, Sockets(worker.address, 10) as sockets:
        sockets.open(request(FOUR_AUDIENCES, key) for key in keys[:WARM])
        costs.handshake = min(opened(worker, sockets, [request(BROADCAST) for _ in range(100)]) for _ in range(5))
        sockets.close()
        sockets.open(request(FOUR_AUDIENCES, key) for key in keys[:100])
        before, of_redis = worker.settled()["Rss"], cpu(redis.pid)
        rest = [request(FOUR_AUDIENCES, key) for key in keys[100:]]
        costs.signed_in = min(opened(worker, sockets, each) for each in batches(rest, 100))
        costs.opening = (cpu(redis.pid) - of_redis) / len(rest)
        costs.socket = 1024 * (worker.settled()["Rss"] - before) / len(rest)
        say(f"  handshakes {1e3 * costs.handshake:.2f} and {1e3 * costs.signed_in:.2f} ms, {costs.socket:.0f} bytes")
        worker.rest()
        of_worker = cpu(worker.pid)
        pings = sockets.idle(IDLE_TIME)
        costs.ping = (cpu(worker.pid) - of_worker) / pings
        say(f"  {pings} pings, {1e6 * costs.ping:.1f} µs each")


def opened(worker: Worker, sockets: Sockets, handshakes: Sequence[bytes]) -> float:
    """Open sockets and return the worker's CPU for one of them."""
    before = cpu(worker.pid)
    sockets.open(handshakes)
    return (cpu(worker.pid) - before) / len(handshakes)


# Redis.


@contextlib.contextmanager
def subscribers(port: int, count: int, channel: str) -> Iterator[None]:
    """Be as many workers, which read what Redis sends them and do nothing with it."""
    ended = threading.Event()
    connections = []
    for _ in range(count):
        connections.append(each := socket.create_connection(("127.0.0.1", port)))
        each.sendall(b"SUBSCRIBE %s\r\n" % channel.encode())
        each.recv(1024)
        each.setblocking(False)

    def read() -> None:
        while not ended.wait(0.002):
            for connection in connections:
                with contextlib.suppress(BlockingIOError):
                    while connection.recv(1 << 18):
                        pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        ended.set()
        reader.join()
        for each in connections:
            each.close()


def publish(server: RedisServer, size: int, count: int = PUBLISHES, watched: Sequence[RedisServer] = ()) -> list[float]:
    """Publish as ``RedisPublisher`` does, one message in a request; return the CPU of each server for a message.

    Args:
        server: which is sent the messages.
        size: of the history; 0: none.
        watched: servers besides it whose CPU counts.
    """
    # In a Cluster all keys of a script are in one slot.
    keys = [CHANNEL, *(f"{{{CHANNEL}}}:{name}" for name in ("meta", "history", "once"))]
    head = "w" if size else ""
    arguments = ["x" * SIZE, "0123456789abcdef", 0, size, 3600, 30 * 86400, 0, head, "-", "", ""]
    with server.client() as client:
        script = client.script_load(SCRIPTS["publish"][1])
        for _ in range(50):
            client.evalsha(script, len(keys), *keys, *arguments)
        servers = server, *watched
        idle = [cpu(each.pid) for each in servers]
        time.sleep(PAUSE)  # what servers do that nobody asks
        before, began = [cpu(each.pid) for each in servers], time.monotonic()
        for _ in range(count):
            client.evalsha(script, len(keys), *keys, *arguments)
        time.sleep(PAUSE)  # until it has been passed to all
        used, pauses = [cpu(each.pid) for each in servers], (time.monotonic() - began) / PAUSE
    return [(c - b - (b - a) * pauses) / count for a, b, c in zip(idle, before, used, strict=True)]


def redis_costs(costs: Costs, say: Callable[[str], object]) -> None:
    """Measure Redis: publishing, each subscriber of it, and what a Cluster adds."""
    rows, values = [], []
    with RedisServer() as server:
        for count in SUBSCRIBERS:
            with subscribers(server.port, count, CHANNEL):
                turns = [(publish(server, 0)[0], publish(server, 100)[0]) for _ in range(REPEATS)]
            for size, used in zip((0, 100), map(min, zip(*turns, strict=True)), strict=True):
                say(f"  Redis, history {size}, {count} subscribers: {1e6 * used:.1f} µs a message")
                rows.append([1.0, float(size > 0), float(count)])
                values.append(used)
    costs.publish, more, costs.subscriber = solve(rows, values)
    costs.history = costs.publish + more
    results = {}
    for masters in (3, 6):
        cluster = ClusterSetup(masters).start()
        try:
            server = cluster.node_of(CHANNEL)
            others = [each for each in cluster.nodes if each is not server]
            measured = [publish(server, 0, watched=others) for _ in range(REPEATS)]
            own, *passed = [min(each) for each in zip(*measured, strict=True)]
            results[masters] = own, sum(passed) / len(passed)
            say(f"  Cluster of {masters}: {1e6 * own:.1f} µs, each other node {1e6 * results[masters][1]:.1f} µs")
        finally:
            cluster.close()
    costs.node = max(0.0, (results[6][0] - results[3][0]) / 3)
    costs.passed = sum(each for _, each in results.values()) / len(results)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# What the model predicts, beside what real processes do.

UNHURRIED = {"BENCH_PAGES": "1"}  # no pings while sockets are opened that nobody reads
LISTENERS, USERS, ROOMS, ROOM, CHECKED_SUBSCRIBERS = 2500, 1000, 20, 50, 32


def check(costs: Costs, directory: Path) -> list[tuple[str, float, float]]:
    """Return what was looked at, and the seconds of CPU that the model predicts and that were used."""
    found: list[tuple[str, float, float]] = []

    def add(row: tuple[str, float, float]) -> None:
        found.append(row)
        say("  {}: {:.6f} {:.6f}".format(*row))

    with MeasuredRedis() as redis, contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(directory, redis.port, env=UNHURRIED)) for _ in range(2)]
        groups = [stack.enter_context(Sockets(each.address, 20)) for each in workers]
        of_two = f"2 workers with {LISTENERS:,} sockets each"

        for sockets in groups:
            sockets.open(request(BROADCAST) for _ in range(LISTENERS))
        for burst in (1, 20):
            used = min(broadcast(workers, groups, redis, burst, 2) for _ in range(8))
            predicted = burst * costs.message + LISTENERS * (costs.write + (burst - 1) * costs.joined)
            add((f"{of_two}: {burst} broadcast{'s at once' * (burst > 1)}", 2 * predicted, used))
        for sockets in groups:
            sockets.close()

        paths = [f"/ws/room-{number}?subscribe-broadcast" for number in range(ROOMS)]
        for sockets in groups:
            sockets.open(request(each) for each in paths for _ in range(ROOM // 2))
        channels = [f"ws:broadcast:room-{number}" for number in range(ROOMS)]
        used = to_channels(workers, groups, redis, channels)
        predicted = ROOMS * (2 * costs.message + ROOM * costs.write)
        add((f"2 workers: a message to each of {ROOMS} rooms of {ROOM}", predicted, used))
        for sockets in groups:
            sockets.close()

        keys = signed_in(directory, redis.port, USERS)
        groups[0].open(request("/ws/bench?subscribe-user", key) for key in keys)
        channels = [f"ws:user:user{number:05}:bench" for number in range(USERS)]
        used = to_channels(workers[:1], groups[:1], redis, channels)
        add((f"1 worker: a message to each of {USERS:,} users", USERS * (costs.message + costs.write), used))
    with RedisServer() as server, subscribers(server.port, CHECKED_SUBSCRIBERS, CHANNEL):
        used = min(publish(server, 100)[0] for _ in range(REPEATS))
        what = f"Redis: a message with a history to {CHECKED_SUBSCRIBERS} workers"
        add((what, costs.history + CHECKED_SUBSCRIBERS * costs.subscriber, used))
    return found


def to_channels(
    workers: Sequence[Worker], groups: Sequence[Sockets], redis: MeasuredRedis, channels: Sequence[str]
) -> float:
    """Publish a message in each channel, of which each socket has one, and return the CPU of all workers."""
    publisher = Redis(redis.port)
    commands = [publisher.command(each.encode(), b"x" * SIZE) for each in channels]
    expected = frame(b"x" * SIZE)
    results = []
    for _ in range(REPEATS):
        for sockets in groups:
            sockets.expect(len(expected))
        before = sum(cpu(each.pid) for each in workers)
        publisher.publish(commands)
        for sockets in groups:
            sockets.arrived()
            sockets.check(itertools.repeat(expected))
        results.append(sum(cpu(each.pid) for each in workers) - before)
    publisher.drain()
    publisher.close()
    return min(results[1:])


PARTS = "redis", "workers", "check"


def main() -> None:
    parts = sys.argv[1:] or PARTS
    if unknown := set(parts).difference(PARTS):
        sys.exit(f"There is no part {min(unknown)!r}, but {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # the servers are ended on the way out
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {"costs": {}, "checked": []}
    costs = Costs(**recorded["costs"])
    directory = Path(tempfile.mkdtemp(prefix="costs-"))
    try:
        for part in parts:
            own = directory / part  # for a database: the users of another part have the same names
            own.mkdir()
            if part == "redis":
                redis_costs(costs, say)
            elif part == "workers":
                with MeasuredRedis() as redis:
                    worker_costs(costs, redis, own, say)
            else:
                recorded["checked"] = check(costs, own)
            recorded |= {"costs": dataclasses.asdict(costs), "circumstances": circumstances("make bench-costs")}
            RECORDED.write_text(json.dumps(recorded, indent=2) + "\n")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
