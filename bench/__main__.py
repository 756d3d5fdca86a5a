"""``python -m bench``: measure, print a table, and with ``--write`` keep it in ``docs/reference/performance.rst``.

``--leaks`` measures 50,000 connects and disconnects instead. Progress goes to standard error, results to standard
output.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import report
from bench.clients import Redis, Sockets, Stalled, batches, frame, messages, request
from bench.servers import Peers, Process, RedisServer, Worker, free_port, signed_in

FOUR_AUDIENCES = "/ws/bench?subscribe-broadcast&subscribe-user&subscribe-group&subscribe-session"
BROADCAST = "/ws/bench?subscribe-broadcast"
CHANNEL = "ws:broadcast:bench"
WARM_UP = 200  # sockets opened and closed before memory is looked at: code is loaded, buffers are allocated
IDLE_TIME = 50.0  # seconds in which CPU is measured: the engine pings a client that says nothing once in this time
LISTENERS, BURST, PACED, SIZE = 1000, 200, 100, 128  # sockets; messages; messages; bytes
ROUNDS, LONG_ENOUGH = 7, 4.0  # bursts, of which the median counts; fewer where they take longer than that, in seconds
WAYS = ("close", "reset", "half")


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def raise_limit(wanted: int) -> int:
    """Allow this process and its children ``wanted`` descriptors, or as many as possible; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # only root may raise the hard limit
        hard = max(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


# Idle sockets.


def idle_sockets(
    redis: RedisServer, directory: Path, handshakes: Sequence[bytes], sizes: Sequence[int], heartbeat: bool
) -> Iterator[dict[str, float]]:
    """Open sockets on one worker, up to each of ``sizes``, and return one row for each."""
    with Worker(directory, redis.port, heartbeat) as worker:
        sockets = Sockets(worker.address)
        sockets.open(handshakes[:WARM_UP])
        sockets.close()
        before = worker.settled()
        yield {"sockets": 0, **before, "redis": redis.connections()}
        for size in sizes:
            began = time.monotonic()
            sockets.open(handshakes[len(sockets) : size])
            say(f"  {size} sockets open ({(time.monotonic() - began):.1f} s)")
            row = {"sockets": size, **worker.settled(), "redis": redis.connections()}
            if size == 5000:
                cpu = worker.cpu_time()
                pings = sockets.idle(IDLE_TIME)
                row["cpu"] = 100 * (worker.cpu_time() - cpu) / IDLE_TIME
                say(f"  {pings} pings answered in {IDLE_TIME:g} s, {row['cpu']:.1f} % of a core")
                row |= worker.settled()  # what heartbeats and pongs leave behind belongs to an idle socket
            row["per_socket"] = (row["Rss"] - before["Rss"]) / size
            yield row
        sockets.close()


# Deliveries.


def rounds(measure: Callable[[], float]) -> float:
    """Return the median of several measurements, fewer if they take long."""
    results: list[float] = []
    began = time.monotonic()
    while len(results) < ROUNDS and (not results or time.monotonic() - began < LONG_ENOUGH):
        results.append(measure())
    return statistics.median(results)


def deliveries(
    sockets: Sockets, publish: Callable[[Sequence[int]], object], done: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Return deliveries a second of one server.

    Args:
        sockets: connected to it, all in one broadcast.
        publish: publishes the messages with these numbers, without waiting for anything.
        done: called when all have arrived, outside of the time that is measured.
    """
    frames = [frame(message) for message in messages(BURST, SIZE)]

    def burst() -> float:
        sockets.expect()
        began = time.perf_counter()
        publish(range(BURST))
        sockets.collect(sum(map(len, frames)))
        took = time.perf_counter() - began
        done()
        sockets.check(b"".join(frames))
        return len(sockets) * BURST / took

    def paced() -> float:
        sockets.expect()
        began = time.perf_counter()
        for number in range(PACED):
            publish([number])
            sockets.collect(len(frames[number]))
        took = time.perf_counter() - began
        done()
        sockets.check(b"".join(frames[:PACED]))
        return len(sockets) * PACED / took

    sockets.expect()
    publish([0])
    sockets.collect(len(frames[0]))  # warm
    done()
    return {"burst": rounds(burst), "paced": rounds(paced)}


def through_redis(server: Process, redis: RedisServer, channel: str, payloads: Sequence[bytes]) -> dict[str, float]:
    """Measure a server that hands on what is published in ``channel``."""
    sockets = Sockets(server.address)
    sockets.open(request(BROADCAST if isinstance(server, Worker) else "/ws/bench") for _ in range(LISTENERS))
    publisher = Redis(redis.port)
    commands = [publisher.command(channel.encode(), payload) for payload in payloads]
    result = deliveries(
        sockets, lambda numbers: publisher.publish([commands[each] for each in numbers]), publisher.drain
    )
    publisher.close()
    sockets.close()
    return result


def plain_loop(directory: Path, word: str) -> dict[str, float]:
    """Measure one process that only writes, ``each`` message for itself or ``joined``."""
    port = free_port()
    command = [sys.executable, "-m", "bench.peers.plain_loop", str(port)]
    with Process(command, directory / f"{port}.log", port=port) as server:
        server.tell(f"accept {LISTENERS}")
        sockets = Sockets(server.address)
        sockets.open(request("/") for _ in range(LISTENERS))
        figures = deliveries(sockets, lambda numbers: server.tell(f"{word} {numbers[0]} {numbers[-1] + 1}"))
        sockets.close()
    return figures


def peers(environment: Peers, redis: RedisServer, directory: Path) -> Iterator[tuple[str, dict[str, float] | str]]:
    """Measure the peers, each in one process; instead of figures, why one cannot be."""
    payloads = messages(BURST, SIZE)
    packed = environment.run("-m", "bench.peers.channels_app", str(BURST)).split()
    for name, arguments, channel, published in (
        ("picows, uvloop", "bench/peers/picows_server.py {port} {redis} {channel}", CHANNEL, payloads),
        ("websockets, uvloop", "bench/peers/websockets_server.py {port} {redis} {channel} uvloop", CHANNEL, payloads),
        ("websockets, asyncio", "bench/peers/websockets_server.py {port} {redis} {channel} asyncio", CHANNEL, payloads),
        (
            "Channels, uvicorn, pub/sub layer",
            # Its pings, every 20 s by default, would come between the bytes that are compared.
            "-m uvicorn bench.peers.channels_app:application --port {port} --log-level warning --ws-ping-interval 3600",
            "asgi__group__bench",
            [bytes.fromhex(each) for each in packed],
        ),
    ):
        port = free_port()
        words = arguments.format(port=port, redis=redis.port, channel=channel).split()
        env = os.environ | {"BENCH_REDIS_PORT": str(redis.port)}
        say(f"deliveries: {name}")
        try:
            with Process([str(environment.python), *words], directory / f"{port}.log", env, port) as server:
                yield name, through_redis(server, redis, channel, published)
        except (RuntimeError, OSError, Stalled) as exc:
            yield name, f"not measured, {exc}"


# Leaks.


def leaks(redis: RedisServer, directory: Path, total: int, step: int) -> Iterator[dict[str, float]]:
    """Connect and disconnect ``total`` times; return what one worker holds, after each ``step``."""
    say(f"making {step // 2} users")
    keys = signed_in(directory, redis.port, step // 2)
    with Worker(directory, redis.port, heartbeat=True) as worker:

        def churn(count: int) -> None:
            sockets = Sockets(worker.address)
            handshakes = [request(FOUR_AUDIENCES, keys[number % len(keys)]) for number in range(count)]
            for batch in batches(handshakes, 500):
                whole = len(batch) * 9 // 10
                sockets.open(batch[:whole])
                sockets.abandon(batch[whole:])
                sockets.close(WAYS)

        def settled(base: int | None) -> dict[str, float]:
            deadline = time.monotonic() + 20
            while base is not None and worker.descriptors() > base and time.monotonic() < deadline:
                time.sleep(0.1)  # until the last closing handshakes are over
            memory = worker.settled()
            return {
                **memory,
                "descriptors": worker.descriptors(),
                "redis": redis.connections(),
                "channels": redis.channels(),
                "subscribers": redis.subscribers(CHANNEL),
            }

        churn(1000)  # warm
        time.sleep(1)
        first = settled(None)
        yield {"connects": 0, **first}
        for done in range(step, total + 1, step):
            began = time.monotonic()
            churn(step)
            say(f"  {done} connects and disconnects ({step / (time.monotonic() - began):.0f} a second)")
            yield {"connects": done, **settled(int(first["descriptors"]))}
    yield {"redis": redis.connections(), "channels": redis.channels(), "subscribers": redis.subscribers(CHANNEL)}


def measure_all(redis: RedisServer, directory: Path, limit: int) -> report.Results:
    """Do all measurements but that of leaks."""
    results = report.Results()
    say("making 5000 users, each with a session")
    keys = signed_in(directory, redis.port, 5000)
    handshakes = [request(FOUR_AUDIENCES, key) for key in keys]
    say("idle sockets, signed in, four audiences, with heartbeat")
    results.signed_in = list(idle_sockets(redis, directory, handshakes, [1000, 5000], heartbeat=True))

    say("idle sockets, anonymous, broadcast only, without heartbeat")
    sizes = [size for size in (1000, 5000, 15000) if size + 200 < limit]
    handshakes = [request(BROADCAST) for _ in range(max(sizes))]
    results.bare = list(idle_sockets(redis, directory, handshakes, sizes, heartbeat=False))

    say("deliveries: wsloop")
    with Worker(directory, redis.port) as worker:
        results.deliveries["wsloop"] = through_redis(worker, redis, CHANNEL, messages(BURST, SIZE))
    say("deliveries: plain loops")
    results.deliveries[report.BASE] = plain_loop(directory, "each")
    # Paced there is nothing to join.
    results.deliveries["plain loop of send(), joined"] = {"burst": plain_loop(directory, "joined")["burst"]}
    say("the peers, installed once into var/bench")
    environment = Peers()
    if environment.missing:
        results.deliveries["The peers"] = f"could not be installed: {environment.missing}"
    else:
        results.peers = environment.versions()
        results.deliveries |= dict(peers(environment, redis, directory))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--leaks", action="store_true", help="50,000 connects and disconnects, instead of all else")
    parser.add_argument("--write", action="store_true", help="keep the results in docs/reference/performance.rst")
    options = parser.parse_args()
    began = time.monotonic()
    limit = raise_limit(20_000)
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with RedisServer(directory) as redis:
            if options.leaks:
                section = "leaks"
                text = report.leaks_section(list(leaks(redis, directory, 50_000, 10_000)))
            else:
                section = "results"
                results = measure_all(redis, directory, limit)
                text = report.results_section(results)
                if options.write:
                    report.write_plot(results)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(text)
    if options.write:
        report.write(section, text)
    say(f"done in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
