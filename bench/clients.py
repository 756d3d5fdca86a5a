"""Many WebSockets in one process, as lean as Python has them: plain sockets and one epoll.

Responsible for opening them, for telling when bytes have arrived, cheaply enough not to be what is measured, and for
checking them. While the clock runs nothing is received: it is known how many bytes must come, and the kernel tells once
for each socket that it has them. Afterwards they are compared, for every socket.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence

from testbed.attacks import frame as client_frame

RECEIVE_SIZE = 65536  # bytes
AT_A_TIME = 256  # events of one poll: so exact are the times at which sockets have their messages
TIMEOUT = 60.0  # seconds without any progress
SOCKETS_PER_ADDRESS = 10_000  # client ports of one address: fewer than the 28,232 that Linux gives by default
PING, PONG = b"\x89\x00", b"\x8a\x80\x00\x00\x00\x00"  # without payload; the client's is masked, with zeros
CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"  # 1000, masked with zeros
NO_LINGER = struct.pack("ii", 1, 0)  # closing sends RST


class Stalled(Exception):
    """The server has closed a socket, refused it, or sends nothing any more."""


def request(path: str, session: str | None = None, compression: bool = False, headers: Sequence[str] = ()) -> bytes:
    """Return the handshake of one client.

    Args:
        path: with the query.
        session: its session key; None: an anonymous one.
        compression: whether it offers permessage-deflate, as browsers do.
        headers: further ones.
    """
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Origin: http://127.0.0.1",  # as browsers do; Channels refuses those without
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
    ]
    if session is not None:
        lines.append(f"Cookie: sessionid={session}")
    if compression:
        lines.append("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
    return "\r\n".join([*lines, *headers, "", ""]).encode()


def frame(payload: bytes) -> bytes:
    """Return the text frame in which a server sends ``payload`` (RFC 6455, section 5.2)."""
    size = len(payload)
    return (bytes([0x81, size]) if size < 126 else struct.pack("!BBH", 0x81, 126, size)) + payload


def messages(count: int, size: int = 128) -> list[bytes]:
    """Return different messages of ``size`` bytes."""
    return [f"{number:08}".encode().ljust(size, b".") for number in range(count)]


class Sockets:
    """The open WebSockets to one server; in a ``with`` block they are closed at its end.

    Args:
        address: host and port of the server.
        window: handshakes under way at the same time; fewer than the server's queue of connections.
    """

    _made = 0  # of all instances: the next one must not use the ports of those that have just been closed

    def __init__(self, address: tuple[str, int], window: int = 50) -> None:
        self._address = address
        self._window = window
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._chunks: dict[int, list[bytes]] = {}  # what came while sockets were opened
        self._edge: set[int] = set()  # those that the kernel tells of only once
        self._expected = 0

    def __len__(self) -> int:
        return len(self._sockets)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, requests: Iterable[bytes], then: bytes = b"", welcome: bytes = b"") -> None:
        """Open a WebSocket with each handshake; send ``then`` on it, and wait until ``welcome`` has come."""
        waiting: dict[int, tuple[socket.socket, bytes]] = {}
        order = list(self._sockets)
        todo = iter(requests)
        try:
            while True:
                while len(waiting) < self._window and (handshake := next(todo, None)) is not None:
                    connection = self.connect(handshake)
                    waiting[connection.fileno()] = connection, b""
                    order.append(connection.fileno())
                    self._epoll.register(connection, select.EPOLLIN)
                if not waiting:
                    self._sockets = {descriptor: self._sockets[descriptor] for descriptor in order}
                    return
                for descriptor in self._ready():
                    if descriptor not in waiting:
                        self._take(descriptor)
                        continue
                    connection, answer = waiting[descriptor]
                    data = connection.recv(RECEIVE_SIZE)
                    head, end, rest = (answer + data).partition(b"\r\n\r\n")
                    if not data or (end and b" 101 " not in head[:20]):
                        raise Stalled(f"refused: {(answer + data).decode(errors='replace')!r}")
                    if then and end and b"\r\n\r\n" not in answer:
                        connection.sendall(then)
                    if not end or welcome not in rest:
                        waiting[descriptor] = connection, answer + data
                        continue
                    del waiting[descriptor]
                    self._sockets[descriptor] = connection
                    if PING in rest:
                        rest = self._without_ping(descriptor, rest)
                    self._chunks[descriptor] = [rest]
        finally:
            for connection, _ in waiting.values():
                connection.close()

    def connect(self, handshake: bytes) -> socket.socket:
        """Return a connection on which ``handshake`` has been sent."""
        connection = socket.socket()
        connection.settimeout(TIMEOUT)
        # One address has too few ports for all the sockets of a run, those that linger in TIME_WAIT included.
        Sockets._made += 1
        connection.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: the port is chosen by connect()
        connection.bind((f"127.0.0.{2 + Sockets._made // SOCKETS_PER_ADDRESS % 250}", 0))
        connection.connect(self._address)
        connection.sendall(handshake)
        connection.setblocking(False)
        return connection

    def _ready(self) -> list[int]:
        events = self._epoll.poll(TIMEOUT, 4096)
        if not events:
            raise Stalled(f"nothing has come for {TIMEOUT:g} s")
        return [descriptor for descriptor, _ in events]

    def _take(self, descriptor: int) -> bytes:
        data = self._sockets[descriptor].recv(RECEIVE_SIZE)
        if not data:
            raise Stalled(f"the server has closed a socket; its last bytes were {self._chunks[descriptor][-1]!r}")
        if PING in data:
            data = self._without_ping(descriptor, data)
        self._chunks[descriptor].append(data)
        return data

    # What arrives.

    def expect(self, size: int) -> None:
        """Have ``arrived`` wait until each socket has ``size`` bytes more than it had to have before.

        What has come is left in the kernel until ``check``, so it should not be more than some dozen KiB.
        """
        self._expected += size
        for descriptor, connection in self._sockets.items():
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, self._expected)
            if descriptor not in self._edge:
                self._epoll.modify(descriptor, select.EPOLLIN | select.EPOLLET)
                self._edge.add(descriptor)

    def arrived(self) -> list[tuple[float, int]]:
        """Return as soon as each socket has all that it is expected to have.

        Returns:
            moments, of ``time.perf_counter()``, and how many sockets had it at each, of which it was not known before.
        """
        missing, poll, arrivals = set(self._sockets), self._epoll.poll, []
        while missing:
            events = poll(TIMEOUT, AT_A_TIME)
            if not events:
                raise Stalled(f"{len(missing)} sockets have not got everything for {TIMEOUT:g} s")
            before = len(missing)
            missing.difference_update([descriptor for descriptor, _ in events])
            arrivals.append((time.perf_counter(), before - len(missing)))
        return arrivals

    def check(self, expected: Iterable[bytes]) -> None:
        """Receive what has come, and compare it, in the order in which the sockets were opened.

        Raises:
            Stalled: if a socket has got anything else.
        """
        wrong = 0
        for descriptor, wanted in zip(self._sockets, expected, strict=False):
            wrong += self._received(descriptor, len(wanted)) != wanted
        self._expected = 0
        if wrong:
            raise Stalled(f"{wrong} of {len(self)} sockets have got other bytes than were published")

    def _received(self, descriptor: int, size: int) -> bytes:
        """Return so many of the next bytes of a socket, without pings, which were counted when they arrived."""
        connection, data = self._sockets[descriptor], b""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        connection.settimeout(TIMEOUT)
        while len(data) < size:
            more = connection.recv(RECEIVE_SIZE)
            if not more:
                raise Stalled("the server has closed a socket")
            data = self._without_ping(descriptor, data + more)
        connection.setblocking(False)
        return data

    def _without_ping(self, descriptor: int, data: bytes) -> bytes:
        """Answer a ping, and return what came with it. (The messages that are measured never contain its bytes.)"""
        if PING in data:
            self._sockets[descriptor].send(PONG)
        return data.replace(PING, b"")

    def echo(self, texts: Sequence[bytes], seconds: float) -> list[int]:
        """Have each socket send its text, and again when that has come back; return how often it has, for each.

        Args:
            texts: one for each socket, in the order in which ``open`` has opened them.
            seconds: after which no more is sent.
        """
        poll, sockets = self._epoll.poll, self._sockets
        send = {descriptor: each.send for descriptor, each in sockets.items()}
        receive = {descriptor: each.recv for descriptor, each in sockets.items()}
        out = {descriptor: client_frame(text) for descriptor, text in zip(sockets, texts, strict=True)}
        back = {descriptor: frame(text) for descriptor, text in zip(sockets, texts, strict=True)}
        begun, counts = dict.fromkeys(sockets, b""), dict.fromkeys(sockets, 0)
        end = time.perf_counter() + seconds
        for descriptor in sockets:
            send[descriptor](out[descriptor])
        missing = len(sockets)
        while missing:
            events = poll(TIMEOUT, 4096)
            if not events:
                raise Stalled(f"{missing} sockets have got nothing for {TIMEOUT:g} s")
            going_on = time.perf_counter() < end
            for descriptor, _ in events:
                data = receive[descriptor](RECEIVE_SIZE)
                if data != back[descriptor]:
                    if not data:
                        raise Stalled("the server has closed a socket")
                    data = begun[descriptor] + (self._without_ping(descriptor, data) if PING in data else data)
                    if not back[descriptor].startswith(data):
                        raise Stalled(f"a socket has got other bytes than it has sent: {data!r}")
                    if data != back[descriptor]:
                        begun[descriptor] = data
                        continue
                    begun[descriptor] = b""
                if going_on:
                    counts[descriptor] += 1
                    send[descriptor](out[descriptor])
                else:
                    missing -= 1
        return list(counts.values())

    def say(self, data: bytes) -> None:
        """Send ``data`` on the first socket."""
        next(iter(self._sockets.values())).sendall(data)

    def idle(self, seconds: float) -> int:
        """Do nothing but what an idle browser does, answer pings, for some time; return how many came."""
        pings = 0
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for descriptor, _ in self._epoll.poll(left, 4096):
                connection = self._sockets[descriptor]
                data = connection.recv(RECEIVE_SIZE)
                if not data:
                    raise Stalled("the server has closed a socket")
                if PING in data:  # heartbeats are text, and never contain it
                    connection.send(PONG)
                    pings += 1
        return pings

    # The end.

    def close(self, ways: Sequence[str] = ("reset",)) -> None:
        """End every socket, in turn by each of ``ways``, and return when the server has ended those that it must.

        ``close``: a close frame, and then what the server answers; ``half``: the end of the stream, without one;
        ``reset``: RST, as when a machine is gone.
        """
        waiting = set()
        for number, (descriptor, connection) in enumerate(self._sockets.items()):
            way = ways[number % len(ways)]
            if way == "reset":
                self._epoll.unregister(connection)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                connection.close()
            else:
                if way == "close":
                    connection.send(CLOSE)
                else:
                    connection.shutdown(socket.SHUT_WR)
                waiting.add(descriptor)
        while waiting:
            for descriptor in self._ready():
                connection = self._sockets[descriptor]
                try:
                    data = connection.recv(RECEIVE_SIZE)
                except ConnectionResetError:
                    data = b""
                if not data:
                    self._epoll.unregister(connection)
                    connection.close()
                    waiting.discard(descriptor)
        self._sockets.clear()
        self._edge.clear()

    def abandon(self, requests: Iterable[bytes]) -> None:
        """Send handshakes and end the connections at once, before the server can answer."""
        for handshake in requests:
            connection = self.connect(handshake)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            connection.close()


class Redis:
    """A connection to Redis that only publishes, prepared beforehand, so that publishing costs next to nothing."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pending = 0

    @staticmethod
    def command(channel: bytes, payload: bytes) -> bytes:
        """Return PUBLISH as it goes over the line."""
        words = (b"PUBLISH", channel, payload)
        return b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)

    def publish(self, commands: Sequence[bytes]) -> None:
        """Send commands in one go."""
        self._pending += len(commands)
        self._socket.sendall(b"".join(commands))

    def drain(self) -> int:
        """Read the answers to all commands; return how many subscribers the last one reached."""
        answers = b""
        while answers.count(b"\r\n") < self._pending:
            answers += self._socket.recv(RECEIVE_SIZE)
        self._pending = 0
        return int(answers.split(b"\r\n")[-2].lstrip(b":"))

    def close(self) -> None:
        self._socket.close()


def batches(requests: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    """Return ``requests`` in parts of ``size``."""
    for start in range(0, len(requests), size):
        yield requests[start : start + size]
