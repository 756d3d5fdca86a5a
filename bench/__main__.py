"""``python -m bench``: measure, print a table, and with ``--write`` keep it in the documentation.

``--leaks`` measures connects and disconnects instead, and fails if they leave anything behind. ``--attacks`` measures
what hostile clients do to a worker and its other clients, and fails if a worker of the engine ends. ``--drops``
measures what clients have in the end whose network drops again and again, and fails if those of wsloop.v1 have not
everything. ``--storm`` measures how thousands of clients come back at the same time, and fails if those of wsloop.v1
are not all there with all messages. ``--deliveries`` measures only messages on their way out, ``--async`` only
asynchronous code, ``--idle`` only idle sockets, ``--pages`` the socket of a page, ``--handshakes`` what it costs to
open a socket, ``--events`` groups of consumers and histories. ``--quick`` tries everything out on a small scale,
without peers but for ``--drops`` and ``--async``; its figures mean nothing. Progress goes to standard error, results to
standard output.
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

from bench import (
    asynchronous,
    delivery_parts,
    events,
    full,
    growth,
    handshakes,
    idle,
    pages,
    record_tables,
    report,
    siege,
)
from bench.clients import Sockets, batches, request
from bench.lineup import Ground
from bench.record import Record
from bench.servers import (
    BareWorker,
    MeasuredRedis,
    NodePeers,
    Peers,
    Server,
    Worker,
    bare_uwsgi,
    signed_in,
)
from testbed.attacks import ATTACKS, Attack, Target
from testbed.processes import free_port
from testbed.uwsgi import as_in_uwsgi_ini

FOUR_AUDIENCES = "/ws/bench?subscribe-broadcast&subscribe-user&subscribe-group&subscribe-session"
BROADCAST = "/ws/bench?subscribe-broadcast"
CHANNEL = "ws:broadcast:bench"
BARE = "anonymous, broadcast"  # without a heartbeat
# What leaks are looked for in: a facility, and asynchronous sockets, a consumer in a group and an ASGI application.
LEAK_PATHS = FOUR_AUDIENCES, "/ws/async/rooms/leaks", "/ws/application"
CONSUMER = "/ws/consumer"
DELIVERIES = *delivery_parts.NAMES, "growth", "full"
WAYS = ("close", "reset", "half")
ENDED_WITHIN = 20.0  # seconds: the engine gives clients 10 to answer a close frame


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        signed_in, bare: numbers of idle sockets at which memory is looked at.
        cpu_at: those of them at which CPU is measured, for ``idle_time`` seconds.
        connects, step: connects and disconnects in all, and after how many of them leaks are looked for.
    """

    signed_in: tuple[int, ...] = (1000, 5000)
    bare: tuple[int, ...] = (1000, 5000, 15_000)
    cpu_at: tuple[int, ...] = (5000, 15_000)
    idle_time: float = 60.0  # in this time the engine pings a client that says nothing at least once
    connects: int = 50_000
    step: int = 10_000


QUICK = Scale((100, 200), (100, 200), cpu_at=(200,), idle_time=5.0, connects=1000, step=500)


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


# Deliveries.


def deliveries(
    redis: MeasuredRedis, directory: Path, chosen: Sequence[str], quick: bool, rounds: int | None
) -> Iterator[Record]:
    """Measure the chosen parts about messages on their way out; without peers if it is to be quick."""
    plan = delivery_parts.QUICK if quick else delivery_parts.Plan()
    growing, filled = (growth.QUICK, full.QUICK) if quick else (growth.Plan(), full.Plan())
    if rounds:
        plan, growing = dataclasses.replace(plan, rounds=rounds), dataclasses.replace(growing, rounds=rounds)
        filled = dataclasses.replace(filled, rounds=rounds)
    keys = signed_in(directory, redis.port, plan.users if "users" in chosen else 1)
    ground = Ground(redis, directory, keys, *(() if quick else (Peers(), NodePeers())))
    for name in chosen:
        if name == "growth":
            say("deliveries: growth")
            yield growth.measure(ground, growing, say)
        elif name == "full":
            say("deliveries: full")
            yield full.measure(ground, filled, say)
        else:
            yield delivery_parts.Parts(ground, plan, say).measure(name)


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


def measure_idle(redis: MeasuredRedis, directory: Path, keys: Sequence[str], scale: Scale, limit: int) -> Record:
    """Measure idle sockets.

    Args:
        keys: of sessions, as many as ``scale.signed_in`` has sockets.
        limit: descriptors of a process.
    """
    record = Record("idle", "make bench", dataclasses.asdict(scale))
    too_many = [size for size in {*scale.signed_in, *scale.bare} if size + 100 > limit]
    if too_many:
        say(f"no more than {limit} descriptors are allowed here (ulimit -n): left out are {too_many} sockets")
    kinds = {
        "signed in, four audiences": [request(FOUR_AUDIENCES, key) for key in keys],
        "the same, compressed": [request(FOUR_AUDIENCES, key, compression=True) for key in keys],
        "the same, wsloop.v1": [request(FOUR_AUDIENCES, key, headers=[pages.PROTOCOL]) for key in keys],
        "signed in, consumer": [request(CONSUMER, key) for key in keys],
        BARE: [request(BROADCAST) for _ in range(max(scale.bare))],
    }
    for kind, requests in kinds.items():
        say(f"idle sockets: {kind}")
        sizes = [size for size in (scale.bare if kind == BARE else scale.signed_in) if size not in too_many]
        with Worker(directory, redis.port, heartbeat=kind != BARE) as worker:
            for row in idle.rows(worker, redis, requests, sizes, say, scale.cpu_at, scale.idle_time):
                record.rows.append({"kind": kind, **row})
    return record


def parts(words: str) -> list[str]:
    """Return the names of parts of the deliveries; all of them for ``all``.

    Raises:
        argparse.ArgumentTypeError: if there is no such part.
    """
    names = list(DELIVERIES) if words == "all" else words.split(",")
    if unknown := [name for name in names if name not in DELIVERIES]:
        raise argparse.ArgumentTypeError(f"no part is called {unknown[0]!r}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--leaks", action="store_true", help="50,000 connects and disconnects, instead of all else")
    parser.add_argument("--quick", action="store_true", help="on a small scale, to see whether it runs")
    parser.add_argument("--write", action="store_true", help="keep the results in the documentation")
    parser.add_argument("--attacks", action="store_true", help="hostile clients, instead of all else")
    parser.add_argument("--drops", action="store_true", help="clients whose network drops, instead of all else")
    parser.add_argument("--storm", action="store_true", help="clients that all come back, instead of all else")
    parser.add_argument("--clients", type=int, metavar="N", help="of the storm")
    parser.add_argument("--idle", action="store_true", help="only idle sockets")
    parser.add_argument("--async", action="store_true", dest="asynchronous", help="only that of asynchronous code")
    parser.add_argument("--handshakes", action="store_true", help="only what handshakes cost")
    parser.add_argument("--pages", type=int, metavar="N", help="the sockets of N pages, instead of all else")
    parser.add_argument("--events", action="store_true", help="groups of consumers, and histories, instead of all else")
    parser.add_argument(
        "--deliveries", type=parts, metavar="PART,…", help=f"only these parts ({', '.join(DELIVERIES)}), or all of them"
    )
    parser.add_argument("--tables", action="store_true", help="make tables and plots again of what has been measured")
    parser.add_argument("--rounds", type=int, metavar="N", help="of pages and of deliveries, whose median counts")
    parser.add_argument(
        "--only", default="", help="of the attacks those with one of these in their names, separated by commas"
    )
    options = parser.parse_args()
    if options.tables:
        for name in record_tables.SHOWN:
            if kept := Record.kept(name):
                record_tables.write(kept)
        return
    if options.only and options.write:
        parser.error("a part of the table is not kept")
    if options.quick and options.write:
        parser.error("figures of --quick mean nothing and are not kept")
    if not sys.platform.startswith("linux"):
        sys.exit("The measurements need Linux: they read /proc and use epoll.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # the servers are ended on the way out
    began = time.monotonic()
    scale = QUICK if options.quick else Scale()
    # A worker keeps a quarter of its descriptors to itself.
    limit = raise_limit(max(20_000, (options.pages or 0) * pages.MOST_SUBSCRIPTIONS * 4 // 3 + 1000))
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    failed = []
    texts: dict[str, str] = {}
    records: list[Record] = []
    try:
        with MeasuredRedis() as redis:
            if options.handshakes:
                many = handshakes.QUICK if options.quick else handshakes.Plan()
                many = dataclasses.replace(many, rounds=options.rounds or many.rounds)
                ground = Ground(redis, directory, signed_in(directory, redis.port, many.count))
                ground = ground if options.quick else dataclasses.replace(ground, peers=Peers())
                records = [handshakes.measure(ground, many, say)]
            elif options.idle:
                keys = signed_in(directory, redis.port, max(scale.signed_in))
                records = [measure_idle(redis, directory, keys, scale, limit)]
            elif options.deliveries:
                records = list(deliveries(redis, directory, options.deliveries, options.quick, options.rounds))
            elif options.leaks:
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
            elif options.storm:
                from bench import storm  # needs what bench.drops does

                weather = storm.QUICK if options.quick else storm.Plan(clients=options.clients or storm.Plan.clients)
                keys = signed_in(directory, redis.port, weather.clients)
                storms = storm.measure_all(redis, directory, keys, weather, say, with_peers=not options.quick)
                texts = {"storm": report.storm_section(storms, weather, "")}
                failed = storm.failed(storms)
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
                alone = options.asynchronous
                environment, missing = (None, {}) if options.quick and not alone else peers_environment()
                count = coroutines.idle if alone else max(coroutines.idle, *scale.signed_in)
                say(f"making {count} users, each with a session")
                keys = signed_in(directory, redis.port, count)
                if not alone:
                    records = [measure_idle(redis, directory, keys, scale, limit)]
                    records += list(deliveries(redis, directory, DELIVERIES, options.quick, options.rounds))
                measured = asynchronous.measure_all(environment, redis, directory, keys, coroutines, say)
                measured.missing |= missing
                command = "make bench-async" if alone else "make bench"
                texts["async"] = report.async_section(measured, coroutines, command)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(*texts.values(), *map(record_tables.section, records), sep="\n\n")
    if options.write:
        for record in records:
            record.keep()
            record_tables.write(record)
        elsewhere = {"attacks": report.ATTACKS_PAGE, "drops": report.DROPS_PAGE}
        for section, text in texts.items():
            report.write(section, text, elsewhere.get(section, report.PAGE))
        if "attacks" in texts:
            report.write_attacks_plot(siege_rows)
    say(f"done in {time.monotonic() - began:.0f} s")
    if failed and options.attacks:
        sys.exit(f"The worker did not survive: {', '.join(failed)}")
    if failed and options.drops:
        sys.exit(f"Not everything arrived once and in order: {', '.join(failed)}")
    if failed and options.storm:
        sys.exit(f"Not all clients were back with all messages: {', '.join(failed)}")
    if failed:
        sys.exit(f"Connects and disconnects leave something behind: {', '.join(failed)}")


if __name__ == "__main__":
    main()
