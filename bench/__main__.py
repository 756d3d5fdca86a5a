"""``python -m bench``: measure, print a table, and with ``--write`` keep it in the documentation.

``--leaks`` measures connects and disconnects instead, and fails if they leave anything behind. ``--attacks`` measures
what hostile clients do to a worker and its other clients, and fails if a worker of the engine ends. ``--drops``
measures what clients have in the end whose network drops again and again, and fails if those of wsloop.v1 have not
everything. ``--async`` measures only the part of asynchronous code, ``--pages`` the socket of a page, ``--events``
groups of consumers and histories. ``--quick`` tries everything out on a small scale, without peers but for ``--drops``
and ``--async``; its figures mean nothing. Progress goes to standard error, results to standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgpack

from bench import asynchronous, events, idle, pages, report, siege
from bench.clients import Redis, Sockets, Stalled, batches, messages, request
from bench.deliveries import BURST, SIZE, deliveries
from bench.servers import (
    BareWorker,
    MeasuredRedis,
    Peers,
    Server,
    Worker,
    bare_uwsgi,
    signed_in,
    site_environment,
)
from testbed.attacks import ATTACKS, Attack, Target
from testbed.processes import free_port
from testbed.uwsgi import as_in_uwsgi_ini

FOUR_AUDIENCES = "/ws/bench?subscribe-broadcast&subscribe-user&subscribe-group&subscribe-session"
BROADCAST = "/ws/bench?subscribe-broadcast"
CHANNEL = "ws:broadcast:bench"
# What leaks are looked for in: a facility, and asynchronous sockets, a consumer in a group and an ASGI application.
LEAK_PATHS = FOUR_AUDIENCES, "/ws/async/rooms/leaks", "/ws/application"
CONSUMER, GROUP = "/ws/consumer", "ws:wsloop:group:bench"
WAYS = ("close", "reset", "half")
ENDED_WITHIN = 20.0  # seconds: the engine gives clients 10 to answer a close frame


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        signed_in, bare: numbers of idle sockets at which memory is looked at.
        cpu_at: those of them at which CPU is measured, for ``idle_time`` seconds.
        listeners: sockets that messages are delivered to.
        rounds: bursts, of which the median counts.
        connects, step: connects and disconnects in all, and after how many of them leaks are looked for.
    """

    signed_in: tuple[int, ...] = (1000, 5000)
    bare: tuple[int, ...] = (1000, 5000, 15000)
    cpu_at: tuple[int, ...] = (5000, 15000)
    idle_time: float = 60.0  # in this time the engine pings a client that says nothing at least once
    listeners: int = 1000
    rounds: int = 7
    connects: int = 50_000
    step: int = 10_000


QUICK = Scale((100, 200), (100, 200), cpu_at=(200,), idle_time=5.0, listeners=50, rounds=1, connects=1000, step=500)


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
    redis: MeasuredRedis,
    directory: Path,
    handshakes: Sequence[bytes],
    sizes: Sequence[int],
    scale: Scale,
    heartbeat: bool,
) -> Iterator[dict[str, float]]:
    """Open sockets on one worker, up to each of ``sizes``, and return one row for each."""
    with Worker(directory, redis.port, heartbeat) as worker:
        yield from idle.rows(worker, redis, handshakes, sizes, say, scale.cpu_at, scale.idle_time)


# Deliveries.


def through_redis(
    server: Server, path: str, redis: MeasuredRedis, channel: str, payloads: Sequence[bytes], scale: Scale
) -> dict[str, float]:
    """Measure a server that hands on what is published in ``channel`` to the WebSockets of ``path``."""
    sockets = Sockets(server.address)
    sockets.open(request(path) for _ in range(scale.listeners))
    publisher = Redis(redis.port)
    commands = [publisher.command(channel.encode(), payload) for payload in payloads]

    def publish(numbers: Sequence[int]) -> None:
        publisher.publish([commands[number] for number in numbers])

    result = deliveries(sockets, scale.rounds, publish, publisher.drain)
    publisher.close()
    sockets.close()
    return result


def plain_loop(directory: Path, word: str, scale: Scale) -> dict[str, float]:
    """Measure one process that only writes, ``each`` message for itself or ``joined``."""
    port = free_port()
    command = [sys.executable, "-m", "bench.peers.plain_loop", str(port)]
    with Server(command, directory / f"{port}.log", port=port) as server:
        server.tell(f"accept {scale.listeners}")
        sockets = Sockets(server.address)
        sockets.open(request("/") for _ in range(scale.listeners))
        figures = deliveries(
            sockets, scale.rounds, lambda numbers: server.tell(f"{word} {numbers[0]} {numbers[-1] + 1}")
        )
        sockets.close()
    return figures


def peers(
    environment: Peers, redis: MeasuredRedis, directory: Path, scale: Scale
) -> Iterator[tuple[str, dict[str, float] | str]]:
    """Measure the peers, each in one process; instead of figures, why one cannot be."""
    payloads = messages(BURST, SIZE)
    env = site_environment(directory, redis.port, heartbeat=False)
    packed = environment.run("-m", "bench.peers.channels_app", str(BURST), env=env).split()
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
        say(f"deliveries: {name}")
        try:
            with Server([str(environment.python), *words], directory / f"{port}.log", env, port) as server:
                yield name, through_redis(server, "/ws/bench", redis, channel, published, scale)
        except (RuntimeError, OSError, Stalled) as exc:
            yield name, f"not measured, {exc}"


# Leaks.


def leaks(redis: MeasuredRedis, directory: Path, scale: Scale) -> Iterator[dict[str, float]]:
    """Connect and disconnect over and over; return what one worker holds, after each step and when it has ended."""
    say(f"making {scale.step // 2} users, each with a session")
    keys = signed_in(directory, redis.port, scale.step // 2)
    with Worker(directory, redis.port, heartbeat=True) as worker:

        def churn(count: int) -> None:
            sockets = Sockets(worker.address)
            handshakes = [
                request(LEAK_PATHS[number % len(LEAK_PATHS)], keys[number % len(keys)]) for number in range(count)
            ]
            for batch in batches(handshakes, 500):
                whole = len(batch) * 9 // 10
                sockets.open(batch[:whole])
                sockets.abandon(batch[whole:])
                sockets.close(WAYS)

        def held(descriptors: int) -> dict[str, float]:
            """Return what the worker holds, at the latest when it should be back to so many descriptors."""
            deadline = time.monotonic() + ENDED_WITHIN
            while worker.descriptors() > descriptors and time.monotonic() < deadline:
                time.sleep(0.1)
            memory = worker.settled()
            while worker.descriptors() > descriptors and time.monotonic() < deadline:
                time.sleep(0.1)  # the connection that asked for it
            return {
                **memory,
                "descriptors": worker.descriptors(),
                "redis": redis.connections(),
                "channels": redis.channels(),
                "subscribers": redis.subscribers(CHANNEL),
            }

        churn(1000)  # warm
        time.sleep(2)  # abandoned handshakes end, and executors that are idle
        first = held(worker.descriptors())
        yield {"connects": 0, **first}
        for done in range(scale.step, scale.connects + 1, scale.step):
            began = time.monotonic()
            churn(scale.step)
            say(f"  {done} connects and disconnects ({scale.step / (time.monotonic() - began):.0f} a second)")
            yield {"connects": done, **held(int(first["descriptors"]))}
    yield {"redis": redis.connections(), "channels": redis.channels(), "subscribers": redis.subscribers(CHANNEL)}


def leaked(rows: Sequence[dict[str, float]]) -> list[str]:
    """Return what became more from the first row of ``leaks`` to any later one; memory is left to who reads it."""
    names = ("descriptors", "tasks", "greenlets", "consumers", "redis", "channels", "subscribers")
    return [name for name in names if any(row.get(name, 0) > rows[0][name] for row in rows)]


# Attacks.


def attacks(
    redis: MeasuredRedis, directory: Path, chosen: Sequence[Attack], bare: Path | None, quick: bool
) -> Iterator[tuple[Attack, dict[str, siege.Outcome]]]:
    """Run each attack on the engine and, if there is a uWSGI at ``bare``, on the echo of its own API."""
    (session,) = signed_in(directory, redis.port, 1)
    for attack in chosen:
        outcomes = {}
        for name in ("wsloop", "bare") if bare else ("wsloop",):
            headers = [f"Cookie: sessionid={session}"] if attack.session else []
            headers += ["X-Forwarded-For: 8.8.4.4"] if attack.address else []
            router, behind = free_port(), free_port()
            options = ["--http", f"127.0.0.1:{router}", "--http-websockets", "--socket", f"127.0.0.1:{behind}"]
            options += ["--http-to", f"127.0.0.1:{behind}"]
            options += as_in_uwsgi_ini("buffer-size", "http-timeout", "http-headers-timeout", "http-buffer-size")
            server: Server
            if bare is None or name == "wsloop":
                server = Worker(directory, redis.port, options=[*options, *as_in_uwsgi_ini("log-format")])
            else:
                server = BareWorker(directory, bare, options)
            with server:
                address = ("127.0.0.1", router) if attack.router else server.address
                target = Target(address, headers=tuple(headers))
                outcomes[name] = siege.measure(server, target, attack, min(2.0, attack.seconds) if quick else None)
            say(f"  {attack.words}, {name}: {outcomes[name].brief()}")
        yield attack, outcomes


# All together.


def peers_environment() -> tuple[Peers | None, dict[str, str]]:
    """Return the environment of the peers; if there is none, None, and the row that says why."""
    say("the peers, installed once into var/bench")
    environment = Peers()
    if environment.missing:
        return None, {"The peers": f"could not be installed, {environment.missing}"}
    return environment, {}


def measure_all(
    redis: MeasuredRedis, directory: Path, keys: Sequence[str], scale: Scale, limit: int, environment: Peers | None
) -> report.Results:
    """Measure idle sockets and deliveries.

    Args:
        keys: of sessions, as many as ``scale.signed_in`` has sockets.
        environment: of the peers; None: without them.
    """
    results = report.Results()
    too_many = [size for size in {*scale.signed_in, *scale.bare} if size + 100 > limit]
    if too_many:
        say(f"no more than {limit} descriptors are allowed here (ulimit -n): left out are {too_many} sockets")
    say("idle sockets, signed in, four audiences, with heartbeat")
    handshakes = [request(FOUR_AUDIENCES, key) for key in keys]
    sizes = [size for size in scale.signed_in if size not in too_many]
    results.signed_in = list(idle_sockets(redis, directory, handshakes, sizes, scale, heartbeat=True))

    say("the same, with compression agreed on")
    handshakes = [request(FOUR_AUDIENCES, key, compression=True) for key in keys]
    results.compressed = list(idle_sockets(redis, directory, handshakes, sizes, scale, heartbeat=True))

    say("the same, of wsloop.v1")
    handshakes = [request(FOUR_AUDIENCES, key, headers=[pages.PROTOCOL]) for key in keys]
    results.enveloped = list(idle_sockets(redis, directory, handshakes, sizes, scale, heartbeat=True))

    say("the same, of a consumer in a group")
    handshakes = [request(CONSUMER, key) for key in keys]
    sizes = [size for size in scale.signed_in if size not in too_many]
    results.consumers = list(idle_sockets(redis, directory, handshakes, sizes, scale, heartbeat=True))

    say("idle sockets, anonymous, broadcast only, without heartbeat")
    handshakes = [request(BROADCAST) for _ in range(max(scale.bare))]
    sizes = [size for size in scale.bare if size not in too_many]
    results.bare = list(idle_sockets(redis, directory, handshakes, sizes, scale, heartbeat=False))

    say("deliveries: wsloop")
    with Worker(directory, redis.port) as worker:
        payloads = messages(BURST, SIZE)
        results.deliveries["wsloop"] = through_redis(worker, BROADCAST, redis, CHANNEL, payloads, scale)
        say("deliveries: wsloop, a consumer in a group")
        payloads = [msgpack.packb({"type": "bench.message", "text": each.decode()}) for each in payloads]
        results.deliveries["wsloop, consumers"] = through_redis(worker, CONSUMER, redis, GROUP, payloads, scale)
    say("deliveries: plain loops")
    results.deliveries[report.BASE] = plain_loop(directory, "each", scale)
    # Paced there is nothing to join.
    results.deliveries[report.JOINED] = {"burst": plain_loop(directory, "joined", scale)["burst"]}
    if environment:
        results.peers = environment.versions()
        results.deliveries |= dict(peers(environment, redis, directory, scale))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--leaks", action="store_true", help="50,000 connects and disconnects, instead of all else")
    parser.add_argument("--quick", action="store_true", help="on a small scale, to see whether it runs")
    parser.add_argument("--write", action="store_true", help="keep the results in the documentation")
    parser.add_argument("--attacks", action="store_true", help="hostile clients, instead of all else")
    parser.add_argument("--drops", action="store_true", help="clients whose network drops, instead of all else")
    parser.add_argument("--async", action="store_true", dest="asynchronous", help="only that of asynchronous code")
    parser.add_argument("--pages", type=int, metavar="N", help="the sockets of N pages, instead of all else")
    parser.add_argument("--events", action="store_true", help="groups of consumers, and histories, instead of all else")
    parser.add_argument("--rounds", type=int, metavar="N", help="of the sockets of pages, of which the median counts")
    parser.add_argument(
        "--only", default="", help="of the attacks those with one of these in their names, separated by commas"
    )
    options = parser.parse_args()
    if options.only and options.write:
        parser.error("a part of the table is not kept")
    if options.quick and options.write:
        parser.error("figures of --quick mean nothing and are not kept")
    if not sys.platform.startswith("linux"):
        sys.exit("The measurements need Linux: they read /proc and use epoll.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # the servers are ended on the way out
    began = time.monotonic()
    scale = QUICK if options.quick else Scale()
    # For the sockets of pages a worker keeps a quarter of its descriptors to itself.
    limit = raise_limit(max(20_000, (options.pages or 0) * pages.MOST_SUBSCRIPTIONS * 4 // 3 + 1000))
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    failed = []
    try:
        with MeasuredRedis() as redis:
            if options.leaks:
                rows = list(leaks(redis, directory, scale))
                texts, failed = {"leaks": report.leaks_section(rows)}, leaked(rows)
            elif options.attacks:
                wanted = options.only.split(",")
                chosen = [each for each in ATTACKS if any(name in each.run.__name__ for name in wanted)]
                bare = bare_uwsgi()
                siege_rows = list(attacks(redis, directory, chosen, bare, options.quick))
                texts = {"attacks": report.attacks_section(siege_rows)}
                failed = [attack.words for attack, each in siege_rows if not each["wsloop"].survived]
            elif options.drops:
                from bench import drops  # needs websocket-client, which the other measurements do not

                plan = drops.QUICK if options.quick else drops.Plan()
                accounts, peers_versions = drops.measure_all(redis, directory, plan, say)
                texts = {"drops": report.drops_section(accounts, plan, peers_versions)}
                failed = drops.failed(accounts)
            elif options.pages:
                rounds = options.rounds or pages.Plan.rounds
                size = pages.QUICK if options.quick else pages.Plan(options.pages, rounds=rounds).fitting(limit)
                keys = signed_in(directory, redis.port, size.pages)
                texts = {"pages": report.pages_section(pages.measure_all(redis, directory, keys, size, say), size)}
            elif options.events:
                much = events.QUICK if options.quick else events.Plan(rounds=options.rounds or events.Plan.rounds)
                found = events.measure_all(redis, directory, much, say, options.only)
                texts = {"events": report.events_section(found, much)}
            else:
                coroutines = asynchronous.QUICK if options.quick else asynchronous.Plan()
                alone, texts = options.asynchronous, {}
                environment, missing = (None, {}) if options.quick and not alone else peers_environment()
                count = coroutines.idle if alone else max(coroutines.idle, *scale.signed_in)
                say(f"making {count} users, each with a session")
                keys = signed_in(directory, redis.port, count)
                if not alone:
                    results = measure_all(redis, directory, keys, scale, limit, environment)
                    results.deliveries |= missing
                    texts["results"] = report.results_section(results)
                measured = asynchronous.measure_all(environment, redis, directory, keys, coroutines, say)
                measured.missing |= missing
                command = "make bench-async" if alone else "make bench"
                texts["async"] = report.async_section(measured, coroutines, command)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(*texts.values(), sep="\n\n")
    if options.write:
        elsewhere = {"attacks": report.ATTACKS_PAGE, "drops": report.DROPS_PAGE}
        for section, text in texts.items():
            report.write(section, text, elsewhere.get(section, report.PAGE))
        if "attacks" in texts:
            report.write_attacks_plot(siege_rows)
        elif "results" in texts:
            report.write_plot(results)
    say(f"done in {time.monotonic() - began:.0f} s")
    if failed and options.attacks:
        sys.exit(f"The worker did not survive: {', '.join(failed)}")
    if failed and options.drops:
        sys.exit(f"Not everything arrived once and in order: {', '.join(failed)}")
    if failed:
        sys.exit(f"Connects and disconnects leave something behind: {', '.join(failed)}")


if __name__ == "__main__":
    main()
