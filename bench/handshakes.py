"""What a handshake costs the worker, by who comes and what for, beside Channels on uvicorn and a page of Django.

Responsible for the kinds of clients, and for what is counted: CPU of the server, which is the same however fast the
clients are, and how many are served a second.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import re
import time
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

from bench.asynchronous import PEERS, UVICORN
from bench.clients import Sockets, Stalled, request
from bench.lineup import Ground
from bench.pages import PROTOCOL, Client, Pages
from bench.record import Record, interleaved
from bench.servers import Server, Worker, site_environment
from testbed.processes import free_port

AUDIENCES = "subscribe-broadcast&subscribe-user&subscribe-group&subscribe-session"
ANONYMOUS, SIGNED_IN = "anonymous, broadcast", "signed in, four audiences"
HISTORY, RETURN = "the same, with a history", "the same, coming back with its position"
CONSUMER, CHANNELS = "signed in, consumer", "Channels, AuthMiddlewareStack, uvicorn"
PAGE = "a page of Django, signed in"
OF_PEERS = PEERS[UVICORN]
POSITION = re.compile('"token": "([^"]+)"')


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        count: handshakes of a round.
        windows: how many are under way at a time; fewer than the server's queue of connections.
        rounds: after one that does not count.
    """

    count: int = 1000
    windows: tuple[int, ...] = (10, 50)
    rounds: int = 5


QUICK = Plan(count=20, windows=(1, 5), rounds=1)


class Kind:
    """One kind of client.

    Args:
        server: to which it comes.
        handshakes: of the clients, made before each round.
    """

    def __init__(self, server: Server, handshakes: Callable[[], Sequence[bytes]]) -> None:
        self._server, self._handshakes = server, handshakes

    def measure(self, window: int) -> dict[str, float]:
        """Open all sockets; return ``cpu``, ms of the server for each, and ``rate``, how many were opened a second."""
        handshakes = self._handshakes()
        with Sockets(self._server.address, window) as sockets:
            self._server.rest()
            before, began = self._server.cpu_time(), time.perf_counter()
            sockets.open(handshakes)
            took = time.perf_counter() - began
            self._server.rest()
            cpu = self._server.cpu_time() - before
        self._server.rest()
        return {"cpu": 1000 * cpu / len(handshakes), "rate": len(handshakes) / took}


class Page(Kind):
    """A browser that asks for a page, on a connection of its own for each; ``window`` is always 1."""

    def measure(self, window: int) -> dict[str, float]:
        cookies = self._handshakes()
        self._server.rest()
        before, began = self._server.cpu_time(), time.perf_counter()
        for cookie in cookies:
            with contextlib.closing(http.client.HTTPConnection(*self._server.address, timeout=60)) as connection:
                connection.request("GET", "/", headers={"Cookie": cookie.decode()})
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise Stalled(f"a page was answered with {answer.status}")
        took = time.perf_counter() - began
        self._server.rest()
        return {"cpu": 1000 * (self._server.cpu_time() - before) / len(cookies), "rate": len(cookies) / took}


class Handshakes:
    """The measurement.

    Args:
        ground: with ``plan.count`` keys of sessions.
        say: told about progress.
    """

    def __init__(self, ground: Ground, plan: Plan, say: Callable[[str], object]) -> None:
        self._ground, self._plan, self._say = ground, plan, say
        self._keys = ground.keys[: plan.count]

    def measure(self) -> Record:
        """Measure all kinds, round after round."""
        record = Record("handshakes", "make bench-handshakes", dataclasses.asdict(self._plan))
        with contextlib.ExitStack() as stack:
            kinds = dict(self._kinds(stack, record))
            for window in self._plan.windows:
                for number, name in interleaved(1 + self._plan.rounds, list(kinds)):
                    if name == PAGE and window != self._plan.windows[0]:
                        continue
                    figures = kinds[name].measure(window)
                    self._say(f"  {name}, {window} at a time: {figures['cpu']:.2f} ms, {figures['rate']:.0f} a second")
                    if number:
                        record.rows.append({"kind": name, "window": window, "round": number, **figures})
        if self._ground.peers is not None and CHANNELS not in record.missing:
            record.peers = self._ground.peers.versions("channels", "channels_redis", "uvicorn")
        return record

    def _kinds(self, stack: contextlib.ExitStack, record: Record) -> Iterator[tuple[str, Kind]]:
        ground = self._ground
        worker = stack.enter_context(Worker(ground.directory, ground.redis.port, env={"BENCH_PAGES": "1"}))
        paths = {
            ANONYMOUS: ("/ws/bench?subscribe-broadcast", False),
            SIGNED_IN: (f"/ws/bench?{AUDIENCES}", True),
            HISTORY: (f"/ws/page-00?{AUDIENCES}", True),
            CONSUMER: ("/ws/sync/echo", True),
        }
        for name, (path, signed_in) in paths.items():
            yield name, Kind(worker, lambda path=path, signed_in=signed_in: self._new(path, signed_in))  # type: ignore[misc]
        yield RETURN, Kind(worker, lambda: self._returning(worker))
        yield PAGE, Page(worker, lambda: [f"sessionid={key}".encode() for key in self._keys])
        if ground.peers is not None:
            if ground.peers.missing:
                record.missing[CHANNELS] = f"not measured, {ground.peers.missing}"
                return
            port = free_port()
            command = [str(ground.peers.python), *OF_PEERS.format(port=port).split()]
            env = site_environment(ground.directory, ground.redis.port, heartbeat=False)
            uvicorn = stack.enter_context(Server(command, ground.directory / f"{port}.log", env, port))
            yield CHANNELS, Kind(uvicorn, lambda: self._new("/ws/asgi/echo", True))

    def _new(self, path: str, signed_in: bool) -> list[bytes]:
        return [request(path, key if signed_in else None) for key in self._keys]

    def _returning(self, worker: Server) -> list[bytes]:
        """Return the handshakes of clients that were connected a moment ago, and have missed nothing."""
        path = f"/ws/page-00?{AUDIENCES}"
        with Pages(worker.address, 10) as sockets:
            sockets.subscribe(Client(request(path, key, headers=[PROTOCOL]), b"", 1) for key in self._keys)
            welcomes = b"".join(sockets.received())
        worker.rest()
        positions = [quote(position) for position in POSITION.findall(welcomes.decode("latin-1"))]
        return [
            request(f"{path}&resume={position}", key, headers=[PROTOCOL])
            for position, key in zip(positions, self._keys, strict=True)
        ]


def measure(ground: Ground, plan: Plan, say: Callable[[str], object]) -> Record:
    """Measure handshakes; see :class:`Handshakes`."""
    say("handshakes")
    return Handshakes(ground, plan, say).measure()
