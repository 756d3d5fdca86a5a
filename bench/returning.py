"""Thousands of signed-in clients that come back, in one process that does as little as a client can:
``python -m bench.returning``.

The first line of standard input is a JSON object: ``port``; ``kind``, one of ``KINDS``; ``path``; ``keys``, a session
key for each client; ``window``, how many handshakes are under way at the same time at first. Each later line is a
word: ``mark`` begins to count those who come back, ``report`` prints the account since then as a line of JSON. A line
of it comes a few times a second, too. Clients wait before they come back as the scripts of their servers do: those of
wsloop.v1 as ``wsloop.js``, with full jitter, or as long as a goodbye says; those of Socket.IO as its client. Those of
Channels, which has none, as the first.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import json
import os
import random
import re
import select
import socket
import time
from collections import Counter
from typing import Any
from urllib.parse import quote

from bench.clients import RECEIVE_SIZE, SOCKETS_PER_ADDRESS, request
from testbed.attacks import frame as client_frame

V1, PLAIN, SOCKETIO = KINDS = "v1", "plain", "socketio"
NUMBER = {V1: re.compile(rb'"n:(\d+):'), PLAIN: re.compile(rb"^(\d{8})\."), SOCKETIO: re.compile(rb'"message",(\d+)\]')}
POSITION, TOKEN = re.compile(rb'"position": "([^"]+)"'), re.compile(rb'"token": "([^"]+)"')
GOODBYE = re.compile(rb'"type": "goodbye".*"after": (\d+)')
ATTEMPT_TIMEOUT = 12.0  # seconds, as in wsloop.js
FIRST_DELAY, LONGEST_DELAY = 2.0, 30.0  # seconds, as in wsloop.js
STATUS = 0.2  # seconds between two lines
PONG = b"\x8a\x80\x00\x00\x00\x00"


class Client:
    """One client.

    Attributes:
        last: number of the last message that it has.
        after: seconds after which it comes back, if it was told; None: it was not.
    """

    __slots__ = (
        *("after", "attempt", "buffer", "closed_at", "failures", "key", "last", "number", "open", "position"),
        *("socket", "token", "upgraded"),
    )

    def __init__(self, number: int, key: str) -> None:
        self.number, self.key = number, key
        self.socket: socket.socket | None = None
        self.buffer = b""
        self.upgraded = self.open = False
        self.attempt = self.failures = 0
        self.last: int | None = None
        self.after: float | None = None
        self.token = self.position = b""
        self.closed_at = 0.0


class Crowd:
    """The clients; see the module for ``order``."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.kind: str = order["kind"]
        self.clients = [Client(number, key) for number, key in enumerate(order["keys"])]
        self.epoll = select.epoll()
        self.by_descriptor: dict[int, Client] = {}
        self.due: list[tuple[float, int, int]] = []  # time, number of the client, and of its attempt
        self.open = self.lost = self.doubled = self.not_recovered = self.drops = self.attempts = 0
        self.failures: Counter[str] = Counter()
        self.returned: list[float] = []
        self.waiting = iter(self.clients)
        self.beginning = True
        self.highest = 0

    # One client.

    def connect(self, client: Client) -> None:
        client.attempt += 1
        self.attempts += 1
        client.buffer, client.upgraded = b"", False
        connection = client.socket = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: the port is chosen by connect()
        connection.bind((f"127.0.0.{2 + self.attempts // SOCKETS_PER_ADDRESS % 250}", 0))
        code = connection.connect_ex(("127.0.0.1", self.order["port"]))
        if code not in (0, errno.EINPROGRESS):
            self.failed(client, "connect")
            return
        self.by_descriptor[connection.fileno()] = client
        self.epoll.register(connection, select.EPOLLOUT)
        heapq.heappush(self.due, (time.monotonic() + ATTEMPT_TIMEOUT, client.number, client.attempt))

    def failed(self, client: Client, why: str) -> None:
        """The connection has ended, or did not come about: come back later."""
        if client.socket is not None:
            self.by_descriptor.pop(client.socket.fileno(), None)
            client.socket.close()
            client.socket = None
        now = time.monotonic()
        if client.open:
            client.open = False
            client.closed_at = now
            self.open -= 1
            self.drops += 1
        else:
            self.failures[why] += 1
        after, client.after = client.after, None
        if after is None and self.kind == SOCKETIO:
            after = min(1.0 * 2**client.failures, 5.0) * random.uniform(0.5, 1.5)
        elif after is None:
            after = random.random() * min(LONGEST_DELAY, FIRST_DELAY * 2**client.failures)
        client.failures = min(client.failures + 1, 10)
        client.attempt += 1
        heapq.heappush(self.due, (now + after, client.number, client.attempt))

    def welcomed(self, client: Client) -> None:
        client.open = True
        client.failures = 0
        self.open += 1
        if client.closed_at:
            self.returned.append(time.monotonic())
        if self.beginning:
            self.begin_next()

    def begin_next(self) -> None:
        client = next(self.waiting, None)
        if client is not None:
            self.connect(client)

    def expired(self, client: Client) -> None:
        """A time has come: of an attempt that takes too long, or of the next one."""
        if client.socket is None:
            self.connect(client)
        elif not client.open:
            self.failed(client, "timeout")

    def handshake(self, client: Client) -> bytes:
        path, headers = self.order["path"], []
        if self.kind == V1:
            headers = ["Sec-WebSocket-Protocol: wsloop.v1"]
            if client.token:
                resume = b"~".join(filter(None, (client.token, client.position)))
                path += f"&resume={quote(resume.decode())}"
        return request(path, client.key, headers=headers)

    def ready(self, client: Client, events: int) -> None:
        connection = client.socket
        assert connection is not None
        if events & select.EPOLLOUT:
            if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.failed(client, "refused connection")
                return
            self.epoll.modify(connection, select.EPOLLIN)
            connection.send(self.handshake(client))
            return
        try:
            data = connection.recv(RECEIVE_SIZE)
        except OSError:
            data = b""
        if not data:
            self.failed(client, "hung up")
            return
        data = client.buffer + data
        if not client.upgraded:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                client.buffer = head
                return
            status = head.split(b" ", 2)[1].decode()
            if status != "101":
                self.failed(client, status)
                return
            client.upgraded = True
            if self.kind == PLAIN:
                self.welcomed(client)
        client.buffer = self.frames(client, connection, data)

    def frames(self, client: Client, connection: socket.socket, data: bytes) -> bytes:
        """Take all complete frames; return what is left."""
        start, size = 0, len(data)
        while size - start >= 2:
            length, head = data[start + 1], 2
            if length == 126:
                length, head = int.from_bytes(data[start + 2 : start + 4], "big"), 4
            elif length == 127:
                length, head = int.from_bytes(data[start + 2 : start + 10], "big"), 10
            if size - start < head + length:
                break
            opcode, payload = data[start] & 15, data[start + head : start + head + length]
            start += head + length
            if opcode == 1:
                self.text(client, connection, payload)
            elif opcode == 9:
                connection.send(PONG)
            elif opcode == 8:
                self.failed(client, "closed")
                return b""
        return data[start:]

    def text(self, client: Client, connection: socket.socket, payload: bytes) -> None:
        found = NUMBER[self.kind].search(payload)
        if found:
            number = int(found[1])
            if client.last is not None:
                if number <= client.last:
                    self.doubled += 1
                self.lost += max(0, number - client.last - 1)
            client.last = number
            self.highest = max(self.highest, number)
            if self.kind == V1 and (position := POSITION.search(payload)):
                client.position = position[1]
        elif self.kind == V1:
            if b'"welcome"' in payload:
                token = TOKEN.search(payload)
                assert token is not None, payload
                client.token, client.position = token[1], b""
                self.not_recovered += b'"recovered": false' in payload
                self.welcomed(client)
            elif goodbye := GOODBYE.search(payload):
                client.after = int(goodbye[1]) / 1000
        elif self.kind == SOCKETIO:
            if payload[:1] == b"0":
                connection.send(client_frame(b"40"))
            elif payload[:2] == b"40":
                self.welcomed(client)
            elif payload == b"2":
                connection.send(client_frame(b"3"))

    # All of them.

    def run(self) -> None:
        os.set_blocking(0, False)
        self.epoll.register(0, select.EPOLLIN)
        for _ in range(self.order["window"]):
            self.begin_next()
        told = 0.0
        while True:
            now = time.monotonic()
            if now - told >= STATUS:
                told = now
                self.tell()
            until = min(told + STATUS, self.due[0][0] if self.due else now + STATUS)
            for descriptor, events in self.epoll.poll(max(0.0, until - now), 1024):
                if descriptor == 0:
                    if not self.command():
                        return
                elif client := self.by_descriptor.get(descriptor):
                    self.ready(client, events)
            now = time.monotonic()
            while self.due and self.due[0][0] <= now:
                _, number, attempt = heapq.heappop(self.due)
                if self.clients[number].attempt == attempt:
                    self.expired(self.clients[number])

    def command(self) -> bool:
        words = os.read(0, 4096)
        if not words:
            return False
        for word in words.split():
            if word == b"mark":
                self.beginning = False
                self.returned.clear()
                self.failures.clear()
                self.lost = self.doubled = self.not_recovered = self.drops = self.attempts = 0
            else:
                self.tell(returned=self.returned, failures=self.failures)
        return True

    def tell(self, **more: Any) -> None:
        behind = sum(1 for each in self.clients if (each.last or 0) < self.highest)
        names = "open", "lost", "doubled", "not_recovered", "drops", "attempts", "highest"
        told = {name: getattr(self, name) for name in names} | {"behind": behind, "cpu": time.process_time()}
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps({"at": time.monotonic(), **told, **more}), flush=True)


if __name__ == "__main__":
    with open(0, "rb", buffering=0) as stdin:  # what follows is read without a buffer, too
        Crowd(json.loads(stdin.readline())).run()
