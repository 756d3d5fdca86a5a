"""The servers whose deliveries are compared, each in one process and each with the same sockets and messages.

Responsible for starting them, for how their sockets are opened, and for how a message is published to all of them, or
to one user. It must not know what is measured.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import msgpack

from bench.clients import Redis, frame, request
from bench.deliveries import BURST
from bench.servers import (
    MeasuredRedis,
    NodePeers,
    Peers,
    Server,
    Worker,
    bench_message,
    site_environment,
)
from testbed.attacks import frame as client_frame
from testbed.processes import free_port

WSLOOP, CONSUMERS, EACH, JOINED = "wsloop", "wsloop, consumers", "plain loop", "plain loop, joined"
SLOW = 20  # messages of a burst of servers that would need half a minute for a whole one


@dataclasses.dataclass(frozen=True)
class Ground:
    """What the servers share.

    Attributes:
        redis: through which messages are published.
        directory: for what they write, and with the database of the site.
        keys: of sessions of the users ``user00000``, ``user00001``, …
        peers, node: with their packages; None: they are left out.
    """

    redis: MeasuredRedis
    directory: Path
    keys: Sequence[str] = ()
    peers: Peers | None = None
    node: NodePeers | None = None

    def packages(self, kind: type[Contender]) -> Peers | NodePeers | None:
        """Return the packages that a server needs; None if it needs none, or is left out."""
        return {"peers": self.peers, "node": self.node, "": None}[kind.needs]


class Contender:
    """A server that takes part.

    Attributes:
        name: in the tables.
        needs: the attribute of the ground without whose packages it cannot take part.
        burst: messages of a burst.
        then, welcome: see ``Sockets.open``.
    """

    name = needs = ""
    burst = BURST
    then = welcome = b""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.port = free_port()
        self.topic = f"bench{self.port}"  # of this server only: all of them run all the time
        self.server = self.start()

    def start(self) -> Server:
        """Start the server."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the server at once: goodbyes to thousands of sockets take long, and nobody waits for them."""
        self.server.stop(signal.SIGKILL)

    def prepare(self, sockets: int) -> None:
        """Have the server expect so many sockets."""

    def cpu(self) -> float:
        """Return the seconds of CPU that it has used."""
        return self.server.cpu_of_all()

    def handshake(self, user: int | None) -> bytes:
        """Return the request of a socket that gets the messages to everybody, or those to one user."""
        return request(f"/{self.user(user)}" if user is not None else "/")

    def user(self, number: int) -> str:
        return f"user{number:05}"

    def channel(self, user: int | None) -> str:
        """Return the channel of Redis for messages to everybody, or to one user."""
        return f"{self.topic}:{self.user(user)}" if user is not None else self.topic

    def packed(self, user: int | None, text: bytes) -> bytes:
        """Return what is published in it."""
        return text

    def framed(self, text: bytes) -> bytes:
        """Return the bytes with which a message comes to a client."""
        return frame(text)

    def publisher(
        self, messages_to: Sequence[tuple[int | None, bytes]]
    ) -> tuple[Callable[[Sequence[int]], object], Callable[[], object]]:
        """Return functions: one publishes those of the messages with these numbers, one waits for the end of that."""
        line = Redis(self.ground.redis.port)
        commands = [line.command(self.channel(user).encode(), self.packed(user, text)) for user, text in messages_to]
        return lambda numbers: line.publish([commands[number] for number in numbers]), line.drain


class Wsloop(Contender):
    """One uWSGI worker with ``--http-socket``."""

    name = WSLOOP
    env = {"BENCH_QUIET": "1"}

    def start(self) -> Server:
        worker = Worker(self.ground.directory, self.ground.redis.port, env=self.env)
        self.port = worker.port
        return worker

    def handshake(self, user: int | None) -> bytes:
        if user is None:
            return request(f"/ws/{self.topic}?subscribe-broadcast")
        return request(f"/ws/{self.topic}?subscribe-user", self.ground.keys[user])

    def channel(self, user: int | None) -> str:
        return f"ws:broadcast:{self.topic}" if user is None else f"ws:user:{self.user(user)}:{self.topic}"


class Consumers(Wsloop):
    """Consumers in a group."""

    name = CONSUMERS

    def handshake(self, user: int | None) -> bytes:
        return request("/ws/consumer")

    def channel(self, user: int | None) -> str:
        return "ws:wsloop:group:bench"

    def packed(self, user: int | None, text: bytes) -> bytes:
        return bench_message(text)


class Loop(Contender):
    """One process that only writes: no WebSocket server, no Redis."""

    name, word = EACH, "each"

    def start(self) -> Server:
        command = [sys.executable, "-m", "bench.peers.plain_loop", str(self.port)]
        return Server(command, self.ground.directory / f"{self.port}.log", port=self.port)

    def prepare(self, sockets: int) -> None:
        self.server.tell(f"accept {sockets}")

    def publisher(self, messages_to):
        return lambda numbers: self.server.tell(f"{self.word} {numbers[0]} {numbers[-1] + 1}"), lambda: None


class JoinedLoop(Loop):
    name, word = JOINED, "joined"


class Program(Contender):
    """A peer in Python. ``command`` may have the fields ``port``, ``redis`` and ``topic``."""

    needs = "peers"
    command = ""

    def start(self) -> Server:
        words = self.command.format(port=self.port, redis=self.ground.redis.port, topic=self.topic).split()
        return self.run(words)

    def run(self, words: list[str]) -> Server:
        assert self.ground.peers
        env = site_environment(self.ground.directory, self.ground.redis.port, heartbeat=False)
        words = [str(self.ground.peers.python), *words]
        return Server(words, self.ground.directory / f"{self.port}.log", env, self.port)


class NodeProgram(Program):
    """A peer on Node."""

    needs = "node"

    def run(self, words: list[str]) -> Server:
        assert self.ground.node
        log = self.ground.directory / f"{self.port}.log"
        return Server(["node", *words], log, self.ground.node.env, self.port)


class UWebSockets(Program):
    name = "uWebSockets, socketify"
    command = "bench/peers/uwebsockets_server.py {port} {redis} {topic}"


class Picows(Program):
    name = "picows, uvloop"
    command = "bench/peers/picows_server.py {port} {redis} {topic}"


class Websockets(Program):
    name = "websockets, asyncio"
    command = "bench/peers/websockets_server.py {port} {redis} {topic} asyncio"


class WebsocketsUvloop(Program):
    name = "websockets, uvloop"
    command = "bench/peers/websockets_server.py {port} {redis} {topic} uvloop"


class Ws(NodeProgram):
    name = "ws, Node"
    command = "bench/peers/ws_server.cjs {port} {redis} {topic}"


class SocketIO(NodeProgram):
    """A message is an event, published as the adapter of another process does."""

    name = "Socket.IO, Redis adapter"
    command = "bench/peers/socketio/rooms.cjs {port} {redis} {topic}"
    then, welcome = client_frame(b"40"), b'40{"sid"'

    def handshake(self, user: int | None) -> bytes:
        return request(
            "/socket.io/?EIO=4&transport=websocket" + (f"&user={self.user(user)}" if user is not None else "")
        )

    def channel(self, user: int | None) -> str:
        return f"{self.topic}#/#" if user is None else f"{self.topic}#/#{self.user(user)}#"

    def packed(self, user: int | None, text: bytes) -> bytes:
        packet = {"type": 2, "data": ["message", text.decode()], "nsp": "/"}
        rooms = [] if user is None else [self.user(user)]
        return cast(bytes, msgpack.packb(["bench", packet, {"rooms": rooms, "except": [], "flags": {}}]))

    def framed(self, text: bytes) -> bytes:
        return frame(b'42["message","%b"]' % text)


class Channels(Program):
    """Over its layer on Redis's publish and subscribe."""

    name = "Channels, uvicorn"
    # Pings, every 20 s by default, would come between the bytes that are compared.
    command = "-m uvicorn bench.peers.channels_app:application --port {port} --log-level warning "
    command += "--ws-ping-interval 3600"
    burst = SLOW

    def group(self, user: int | None) -> str:
        return self.topic if user is None else f"{self.topic}-{self.user(user)}"

    def handshake(self, user: int | None) -> bytes:
        return request(f"/ws/bench?{self.group(user)}")

    def channel(self, user: int | None) -> str:
        return f"asgi__group__{self.group(user)}"

    def packed(self, user: int | None, text: bytes) -> bytes:
        return bench_message(text)


class Daphne(Channels):
    name = "Channels, daphne"
    command = "-m daphne bench.peers.channels_app:application --port {port} --verbosity 0 --ping-interval 3600"


OWN: tuple[type[Contender], ...] = Wsloop, Consumers
PEERS: tuple[type[Contender], ...] = (
    *(UWebSockets, Picows, Websockets, WebsocketsUvloop),
    *(Ws, SocketIO, Channels, Daphne),
)
