"""Storms: thousands of signed-in clients that come back at the same time, because workers reload or one was killed.

Responsible for what is done to the server while messages are published and pages asked for, and for the account: how
long until the last client is back, what clients have missed, and how long the site's pages took meanwhile. The clients
are a process of their own (:mod:`bench.returning`), which reports its CPU time, so that one sees what it takes of the
machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.clients import Redis, messages
from bench.contenders import Steady
from bench.returning import PLAIN, SOCKETIO, V1
from bench.servers import MeasuredRedis, NodePeers, Peers, Server, Worker, bench_message, site_environment
from bench.siege import percentile
from testbed.processes import ROOT, free_port, wait_until
from testbed.uwsgi import as_in_uwsgi_ini

PATH = "/ws/storm?subscribe-broadcast&subscribe-user&subscribe-group&subscribe-session"
PAGE_TIMEOUT = 30.0  # seconds
TICKS = os.sysconf("SC_CLK_TCK")  # of the CPU time in /proc, a second
RELOAD, CHAIN, KILL = "touch var/reload", "touch var/chain-reload", "SIGKILL of a worker"
WINDOW = 50  # handshakes under way while the clients open for the first time


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        clients: number of clients, each with a session.
        rate: messages a second, each to all clients.
        pages: requests for a page a second.
        quiet: seconds before the storm in which pages are measured.
        patience: seconds that clients have to come back.
    """

    clients: int = 10_000
    rate: float = 1.0
    pages: float = 5.0
    quiet: float = 10.0
    patience: float = 180.0


QUICK = Plan(clients=200, quiet=2.0, patience=60.0)


@dataclasses.dataclass
class Storm:
    """What was measured of one storm.

    Attributes:
        dropped: connections that ended; ``missing`` of the clients have not come back.
        back: seconds until half of the clients, 99 % of them, and the last one were back.
        lost, doubled, not_recovered: messages that clients have missed or got twice, and clients that were told so.
        attempts: to connect; ``failures`` of them, by HTTP status or kind.
        pages: seconds that a page took: p50 and p99, quiet and during the storm; and the longest.
        bad_pages: pages that were not answered, or not with 200.
        generator: share of a core that the clients took meanwhile, in per cent.
        cpu: seconds of CPU that the server took.
    """

    dropped: int = 0
    missing: int = 0
    back: tuple[float, ...] = ()
    lost: int = 0
    doubled: int = 0
    not_recovered: int = 0
    attempts: int = 0
    failures: dict[str, int] = dataclasses.field(default_factory=dict)
    quiet: tuple[float, ...] = ()
    pages: tuple[float, ...] = ()
    bad_pages: int = 0
    generator: float = 0.0
    cpu: float = 0.0


class Crowd:
    """The process of the clients."""

    def __init__(self, port: int, kind: str, path: str, keys: Sequence[str]) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "bench.returning"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._count = len(keys)
        self.last: dict[str, Any] = {"open": 0}
        self._report = threading.Event()
        self.report: dict[str, Any] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._tell(json.dumps({"port": port, "kind": kind, "path": path, "keys": list(keys), "window": WINDOW}))

    def _read(self) -> None:
        for line in self._popen.stdout or ():
            told = json.loads(line)
            if "returned" in told:
                self.report = told
                self._report.set()
            else:
                self.last = told

    def _tell(self, line: str) -> None:
        assert self._popen.stdin
        self._popen.stdin.write(f"{line}\n")
        self._popen.stdin.flush()

    def mark(self) -> None:
        self._tell("mark")

    def account(self) -> dict[str, Any]:
        self._report.clear()
        self._tell("report")
        if not self._report.wait(60):
            raise RuntimeError("the clients do not answer")
        return self.report

    def all_open(self) -> bool:
        if self._popen.poll() is not None:
            raise RuntimeError("the clients have ended")
        return bool(self.last["open"] == self._count)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self._popen.wait()
        self._reader.join(10)


class Pages:
    """Asks for a page at a steady pace, whether the earlier ones were answered or not, until ``stop``."""

    def __init__(self, port: int, path: str, key: str, rate: float) -> None:
        self._port, self._path, self._key = port, path, key
        self.took: list[tuple[float, float | None]] = []  # when it was due, and seconds; None: no answer, or a bad one
        self._pool = ThreadPoolExecutor(300)
        self._ended = threading.Event()
        self._interval = 1 / rate
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            self._pool.submit(self._ask, due)
            due += self._interval

    def _ask(self, due: float) -> None:
        took = None
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PAGE_TIMEOUT)
            try:
                connection.request("GET", self._path, headers={"Cookie": f"sessionid={self._key}"})
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    took = time.monotonic() - due
            finally:
                connection.close()
        self.took.append((due, took))

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        self._pool.shutdown()

    def between(self, start: float, end: float) -> list[float]:
        """Return the seconds that pages took which were due in this time, in order; no answer is the timeout."""
        return sorted(PAGE_TIMEOUT if took is None else took for due, took in self.took if start <= due < end)


class Site(Worker):
    """The sample site on two workers, as its ``uwsgi.ini`` runs it."""

    def __init__(self, directory: Path, redis_port: int) -> None:
        self._files = {each: directory / each for each in ("workers-reload", "chain-reload")}
        options = ["--master", "--processes", "2", "--lazy-apps", "--single-interpreter", "--enable-threads"]
        for name, path in self._files.items():
            path.touch()
            options += [f"--touch-{name}", str(path)]
        options.append("--disable-logging")
        options += as_in_uwsgi_ini(
            "gevent", "worker-reload-mercy", "hook-post-fork", "forkbomb-delay", "listen", "buffer-size"
        )
        super().__init__(directory, redis_port, options=options, env={"BENCH_STORM": "1"})

    def workers(self) -> list[int]:
        return list(map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()))

    def reload(self) -> None:
        os.utime(self._files["workers-reload"])

    def chain_reload(self) -> None:
        os.utime(self._files["chain-reload"])

    def kill_one(self) -> None:
        os.kill(self.workers()[0], signal.SIGKILL)

    def cpu_time(self) -> float:
        """Return the CPU time of all processes, of those that have ended, too."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        total = sum(map(int, fields[11:15]))
        for each in self.workers():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / TICKS


class OfSite:
    """The site's own publisher, in a process."""

    def __init__(self, env: dict[str, str], rate: float) -> None:
        order = {"streams": {"n": {"facility": "storm", "broadcast": True}}, "rate": rate, "size": 128}
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "testbed.sample.steady_publisher", json.dumps(order)],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop(self) -> None:
        assert self._popen.stdin
        self._popen.stdin.close()
        self._popen.wait(30)


def measure(
    port: int,
    crowd: Crowd,
    act: Callable[[], object],
    plan: Plan,
    key: str,
    cpu_time: Callable[[], float],
    page: str | None,
) -> Storm:
    """Do something to the server, and return what becomes of its clients and pages."""
    storm = Storm()
    pages = Pages(port, page, key, plan.pages) if page else None
    quiet = time.monotonic()
    time.sleep(plan.quiet)
    crowd.mark()
    cpu, generator, began = cpu_time(), crowd.last["cpu"], time.monotonic()
    act()
    with contextlib.suppress(AssertionError):  # the account says what is missing
        wait_until(lambda: crowd.last["drops"] and crowd.last["at"] > began, 30, "the first drop")
        wait_until(lambda: crowd.all_open() and time.monotonic() > began + 5, plan.patience, "all clients back")
    ended = time.monotonic()
    storm.cpu = cpu_time() - cpu
    storm.generator = 100 * (crowd.last["cpu"] - generator) / (ended - began)
    time.sleep(2 + 2 / plan.rate)  # the last messages
    told = crowd.account()
    returned = sorted(each - began for each in told["returned"])
    storm.back = tuple(percentile(returned, share) for share in (0.5, 0.99, 1.0)) if returned else ()
    storm.dropped, storm.attempts, storm.failures = told["drops"], told["attempts"], told["failures"]
    storm.lost, storm.doubled, storm.not_recovered = told["lost"], told["doubled"], told["not_recovered"]
    storm.missing = plan.clients - told["open"]
    if pages:
        pages.stop()
        before, during = pages.between(quiet, began), pages.between(began, ended)
        storm.quiet = tuple(percentile(before, share) for share in (0.5, 0.99))
        storm.pages = tuple(percentile(during, share) for share in (0.5, 0.99, 1.0))
        storm.bad_pages = sum(took is None for due, took in pages.took if began <= due < ended)
    return storm


class Restarted:
    """A peer, whose whole server is stopped and started again, as there is no reload that keeps its port open.

    Args:
        start: returns the server, which listens.
    """

    def __init__(self, start: Callable[[], Server]) -> None:
        self._start = start
        self.server = start()

    def restart(self) -> None:
        self.server.stop(timeout=10)
        self.server = self._start()


def of_wsloop(
    redis: MeasuredRedis, directory: Path, keys: Sequence[str], plan: Plan, say: Callable[[str], object]
) -> Iterator[tuple[str, Storm]]:
    """Measure wsloop on two workers."""
    with Site(directory, redis.port) as site:
        env = site_environment(directory, redis.port, heartbeat=False) | {"BENCH_STORM": "1"}
        publisher = OfSite(env, plan.rate)
        try:
            with Crowd(site.port, V1, PATH, keys[: plan.clients]) as crowd:
                opened(crowd, plan, say)
                for name, act in ((RELOAD, site.reload), (CHAIN, site.chain_reload), (KILL, site.kill_one)):
                    yield f"wsloop, {name}", measure(site.port, crowd, act, plan, keys[0], site.cpu_time, "/")
        finally:
            publisher.stop()


def of_peer(
    start: Callable[[], Server],
    kind: str,
    path: str,
    publish: Callable[[Server, int], object],
    keys: Sequence[str],
    plan: Plan,
    say: Callable[[str], object],
) -> Storm:
    """Measure a peer whose server is restarted. It has no pages."""
    peer = Restarted(start)
    steady = None
    try:
        with Crowd(peer.server.port, kind, path, keys[: plan.clients]) as crowd:
            opened(crowd, plan, say)
            steady = Steady(lambda number: publish(peer.server, number), 1)
            return measure(peer.server.port, crowd, peer.restart, plan, keys[0], lambda: 0.0, None)
    finally:
        if steady is not None:
            steady.stop()
        peer.server.stop()


def peers(
    redis: MeasuredRedis, directory: Path, keys: Sequence[str], plan: Plan, say: Callable[[str], object]
) -> Iterator[tuple[str, Storm]]:
    """Measure Channels and Socket.IO, each in two processes."""
    python, node = Peers(), NodePeers()
    if python.missing is None:
        env = site_environment(directory, redis.port, heartbeat=False)
        port = free_port()
        command = [str(python.python), "-m", "uvicorn", "bench.peers.channels_app:signed_in", "--port", str(port)]
        command += ["--workers", "2", "--log-level", "warning"]
        packed = list(map(bench_message, messages(2000)))
        publisher = Redis(redis.port)

        def publish(server: Server, number: int) -> None:
            publisher.publish([publisher.command(b"asgi__group__bench", packed[number])])
            publisher.drain()

        def start() -> Server:
            return Server(command, directory / f"{port}.log", env, port)

        yield "Channels on uvicorn, restart", of_peer(start, PLAIN, "/ws/bench?bench", publish, keys, plan, say)
        publisher.close()
    if node.missing is None:
        other = free_port()

        def start_node() -> Server:
            words = ["node", "bench/peers/socketio/server.cjs", str(other), "streams", str(redis.port)]
            return Server(words, directory / f"{other}.log", node.env, other)

        def emit(server: Server, number: int) -> None:
            with contextlib.suppress(OSError, ValueError):  # it is being restarted
                server.tell(str(number))

        path = "/socket.io/?EIO=4&transport=websocket"
        yield "Socket.IO, restart", of_peer(start_node, SOCKETIO, path, emit, keys, plan, say)


def opened(crowd: Crowd, plan: Plan, say: Callable[[str], object]) -> None:
    """Return when all clients are open for the first time."""
    began = time.monotonic()
    wait_until(crowd.all_open, plan.patience, "all clients open")
    say(f"  {plan.clients} clients are open ({time.monotonic() - began:.1f} s)")


def measure_all(
    redis: MeasuredRedis,
    directory: Path,
    keys: Sequence[str],
    plan: Plan,
    say: Callable[[str], object],
    with_peers: bool,
) -> dict[str, Storm]:
    """Measure each storm, and tell about it."""
    storms = {}
    say(f"storms of {plan.clients} clients")
    for name, storm in of_wsloop(redis, directory, keys, plan, say):
        say(f"  {name}: {storm}")
        storms[name] = storm
    for name, storm in peers(redis, directory, keys, plan, say) if with_peers else ():
        say(f"  {name}: {storm}")
        storms[name] = storm
    return storms


def failed(storms: dict[str, Storm]) -> list[str]:
    """Return the storms of wsloop after which not all clients were back with all messages."""
    mine = {name: each for name, each in storms.items() if name.startswith("wsloop")}
    return [name for name, each in mine.items() if each.missing or each.lost or each.doubled or each.not_recovered]


__all__ = ["QUICK", "Plan", "Storm", "failed", "measure_all"]
