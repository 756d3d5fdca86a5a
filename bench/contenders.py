"""The servers of ``bench.drops``, with clients that come back, and publishers: wsloop, and others beside it.

Responsible for starting each of them and for noting what each client was sent, in the same form for all. It must not
know what is done to the network between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from bench.clients import Redis, messages
from bench.servers import NodePeers, Peers, Server, bench_message, site_environment
from testbed import returning_client
from testbed.clients import HEARTBEAT
from testbed.ledger import Ledger
from testbed.processes import ROOT, free_port, wait_until
from testbed.publisher import Publisher
from testbed.redis_servers import RedisServer
from testbed.site_files import make_site_files
from testbed.sites import Site, Sites
from testbed.swarm import Swarm

WSLOOP = "wsloop, wsloop.v1"
PAUSE = 0.2, 0.4  # seconds that clients wait before they come back: of every server alike
NAME = "b"  # of the stream of messages, where they have one
TOLD = 0  # instead of the number of a message: the client was told that messages are missing

# What a client was sent: pairs of a time on the monotonic clock and the number of a message, or TOLD.
Events = Sequence[tuple[float, int]]


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

    def lost(self, audience=None, streams=None):
        super().lost(audience, streams)
        self.events.append((time.monotonic(), TOLD))


@contextlib.contextmanager
def of_wsloop_v1(ports: Sequence[int], path: str) -> Iterator[Callable[[], list[Events]]]:
    """Open a client of wsloop.v1 at each port; what is yielded returns what they were sent so far."""
    pause = returning_client.FIRST_PAUSE
    returning_client.FIRST_PAUSE = PAUSE[1] / 2  # which it doubles before the first time
    try:
        with Swarm() as clients:
            for port in ports:
                (client,) = clients.add(1, f"ws://127.0.0.1:{port}{path}", (NAME,))
                client.ledger = Noted()
            yield lambda: [client.ledger.events.copy() for client in clients.clients]
    finally:
        returning_client.FIRST_PAUSE = pause


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
                        if (found := number(str(text))) is not None:
                            events[client].append((time.monotonic(), found))
            await asyncio.sleep(dice.uniform(*PAUSE))

    async def keep_all_open() -> None:
        await asyncio.gather(*(keep_open(client, port) for client, port in enumerate(ports)))

    loop = asyncio.new_event_loop()
    task = loop.create_task(keep_all_open())

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.run_until_complete(asyncio.sleep(0.05))  # transports that have been told to close do so

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
        redis: for all of them.
        directory: for what they write.
        count: messages that there will be at most.
    """

    def __init__(self, redis: RedisServer, directory: Path, count: int) -> None:
        self._redis, self._directory, self._count = redis, directory, count
        self._peers: Peers | None = None
        self._node: NodePeers | None = None
        self._files = directory / "site"

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

        if not self._files.exists():
            self._files.mkdir()
            make_site_files(self._files)
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
        env = site_environment(self._directory, self._redis.port, heartbeat=False)
        packed = list(map(bench_message, messages(self._count)))
        numbers = {text.decode(): number for number, text in enumerate(messages(self._count))}
        port = free_port()
        command = [str(peers.python), "-m", "uvicorn", "bench.peers.channels_app:application", "--port", str(port)]
        log = self._directory / f"{port}.log"
        publisher = Redis(self._redis.port)

        def publish(number: int) -> None:
            publisher.publish([publisher.command(b"asgi__group__bench", packed[number])])
            publisher.drain()

        with Server([*command, "--workers", "2", "--log-level", "warning"], log, env, port):
            yield Running(
                port, lambda ports: plain(ports, "/ws/bench?bench", numbers.get), lambda rate: Steady(publish, rate)
            )
        publisher.close()

    @contextlib.contextmanager
    def socketio(self, recovery: str) -> Iterator[Running]:
        self._node = node = self._node or NodePeers()
        if node.missing:
            raise RuntimeError(node.missing)
        port = free_port()
        command = ["node", "bench/peers/socketio/server.cjs", str(port), recovery, str(self._redis.port)]
        with Server(command, self._directory / f"{port}.log", node.env, port) as server:
            yield Running(
                port,
                lambda ports: of_socketio(ports, node.env, recovery != "none"),
                lambda rate: Steady(lambda number: server.tell(str(number)), rate),
            )
