"""Many clients that speak wsloop.v1, who keep account of what they were sent, and a publisher of numbered messages.

Responsible for the client's side of ``docs/reference/wsloop-v1.rst``: positions, coming back, dead lines; and for the
verdict at the end: whether each client has every message, was told what it has lost, or neither. It must not know how
the server works, nor what is done to it.

All clients live on one asyncio loop in a thread of its own, so tests go on as if they were alone. There is no task per
client: a client is an ``asyncio.Protocol`` around the parser of ``websockets``, and some timers.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import logging
import random
import subprocess
import sys
import threading
import time
from urllib.parse import quote

from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from tests.integration.harness import ROOT, wait_until

SUBPROTOCOL = "wsloop.v1"
FOR_GOOD = {1002, 1007, 1008, 1009, 4001}  # close codes after which coming back is no use
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds before coming back where the server has not said when
OPENING = 15.0  # seconds from connecting to the welcome
WATCH = 0.25  # seconds between two looks for dead lines

QUIET = logging.getLogger("tests.swarm")
QUIET.setLevel(logging.CRITICAL)


# --- the account ------------------------------------------------------------------------------------------------------


class Stream:
    """What one client has of one stream of numbered messages: 1, 2, 3, …"""

    __slots__ = ("audience", "disorder", "duplicates", "last", "repeated", "told", "told_lost", "unexplained")

    def __init__(self):
        self.last = 0
        self.audience = None
        self.told = False  # a loss was told after ``last``
        self.told_lost, self.unexplained = [], []  # pairs, first and last number
        self.duplicates, self.disorder = [], []
        self.repeated = []  # came again after a loss had been told: a new Redis does not know what the old one took

    def message(self, number):
        if number > self.last:
            self._missing(number - 1)
            self.last, self.told = number, False
        elif any(first <= number <= last for first, last in self.told_lost + self.unexplained):
            self.disorder.append(number)
        elif self.told:
            self.repeated.append(number)
        else:
            self.duplicates.append(number)

    def _missing(self, until):
        if until > self.last:
            (self.told_lost if self.told else self.unexplained).append((self.last + 1, until))

    def end(self, last):
        """No message after ``last`` was published."""
        self._missing(last)
        self.last = max(self.last, last)


class Ledger:
    """What one client was sent: ``delivered`` counts messages, ``told`` how often it was told of a loss."""

    def __init__(self):
        self.streams = collections.defaultdict(Stream)
        self.delivered = self.told = 0

    def message(self, name, number, audience):
        stream = self.streams[name]
        stream.audience = audience
        stream.message(number)
        self.delivered += 1

    def lost(self, audience=None):
        """A loss was told, for one audience (with its name) or for all."""
        self.told += 1
        for stream in self.streams.values():
            # Of a stream that has brought nothing yet the audience is not known.
            if audience is None or stream.audience in (None, audience):
                stream.told = True


@dataclasses.dataclass
class Verdict:
    """The accounts of all clients, added up. Ranges are counted by their messages."""

    clients: int = 0
    complete: int = 0
    delivered: int = 0
    recovered: int = 0
    told_lost: int = 0
    unexplained: int = 0
    duplicates: int = 0
    disorder: int = 0
    repeated: int = 0
    faults: list = dataclasses.field(default_factory=list)  # in words, for the report of a failure

    def __str__(self):
        counts = {name: value for name, value in dataclasses.asdict(self).items() if name != "faults"}
        return "\n".join([str(counts), *self.faults[:20]])

    @property
    def honest(self):
        """Each client has everything, once and in order, or was told that it has not."""
        return not (self.unexplained or self.duplicates or self.disorder)

    @property
    def whole(self):
        """Each client has everything, once and in order."""
        return self.honest and self.complete == self.clients


# --- the clients ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Break:
    """One end of a line: ``at`` and ``closed_at`` (of the close frame, if any) on the loop's clock, in seconds."""

    at: float
    code: int | None
    closed_at: float | None
    goodbye: dict | None
    welcomed: bool


class Line(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, client, resume):
        self._client = client
        self._loop = client.swarm.loop
        uri = client.url if resume is None else f"{client.url}&resume={quote(resume, safe='~.:-_')}"
        self._protocol = ClientProtocol(parse_uri(uri), subprotocols=[SUBPROTOCOL], max_size=None, logger=QUIET)
        self.resumed = resume is not None
        self.transport = None
        self.heard = self._loop.time()
        self.ping = None  # seconds; known with the welcome
        self.goodbye = self.code = self.closed_at = None
        self.high = client.swarm.high() if self.resumed else {}
        self.recovered = False

    def connection_made(self, transport):
        self.transport = transport
        request = self._protocol.connect()
        for name, value in self._client.headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)
        self._write()

    def data_received(self, data):
        self.heard = self._loop.time()
        self._protocol.receive_data(data)
        self._events()
        self._write()

    def eof_received(self):
        self._protocol.receive_eof()
        self._events()

    def connection_lost(self, exc):
        self._client.line_ended(self)

    def _events(self):
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                if self._protocol.handshake_exc is not None:
                    self._client.refused(event.status_code, event.headers.get("Retry-After"))
            elif event.opcode is Opcode.TEXT:
                assert event.fin, "the server does not send fragments"
                self._client.frame(self, json.loads(event.data))
            elif event.opcode is Opcode.CLOSE:
                self.closed_at = self._loop.time()
                self.code = self._protocol.close_rcvd.code
            elif event.opcode not in (Opcode.PING, Opcode.PONG):
                raise AssertionError(f"a frame of wsloop.v1 is text, not {event}")

    def _write(self):
        for data in self._protocol.data_to_send():
            if data:
                self.transport.write(data)
            elif self.transport.can_write_eof():
                with contextlib.suppress(OSError):
                    self.transport.write_eof()

    def send(self, text):
        self._protocol.send_text(text.encode())
        self._write()

    def close(self):
        if self.transport is None:
            return
        with contextlib.suppress(Exception):
            self._protocol.send_close(1000)
            self._write()

    def silent(self, now):
        """Whether nothing has come for so long that the line is taken for dead."""
        return now - self.heard > (OPENING if self.ping is None else 2 * self.ping)


class Client:
    """One subscriber that comes back whenever its line ends.

    Attributes:
        streams: names of those that it is to receive.
        subscribed: of the last welcome.
        welcomes: pairs of a time on the loop's clock, in seconds, and ``recovered`` (None, True or False).
        breaks: the ends of its lines.
        refusals: HTTP status to how often.
        recovered: messages that had been published before it connected again.
        kept: last messages from before its first connection.
        other: frames of other types: presence, acknowledgements, errors beside ``lost``.
    """

    def __init__(self, swarm, url, streams, headers):
        self.swarm, self.url, self.streams, self.headers = swarm, url, tuple(streams), headers
        self.ledger = Ledger()
        self.token, self.positions = None, {}
        self.subscribed = None
        self.line = None
        self.welcomes, self.breaks, self.other = [], [], []
        self.refusals = collections.Counter()
        self.recovered = self.kept = self.dead_lines = self.failed = 0
        self.ended = None  # why it does not come back
        self._attempts = 0
        self._retry_after = None
        self._tasks = set()

    @property
    def open(self):
        return self.line is not None and self.line.ping is not None and self.line.code is None

    def resume(self):
        """What goes into the URL, or None."""
        return None if self.token is None else "~".join([self.token, *self.positions.values()])

    # From here on in the loop's thread.

    def connect(self):
        if self.ended is None:
            task = self.swarm.loop.create_task(self._connect())
            self._tasks.add(task)  # the loop itself holds tasks weakly
            task.add_done_callback(self._tasks.discard)

    async def _connect(self):
        self._attempts += 1
        self.line = line = Line(self, self.resume())
        uri = parse_uri(self.url)
        try:
            await asyncio.wait_for(self.swarm.loop.create_connection(lambda: line, uri.host, uri.port), OPENING)
        except (OSError, TimeoutError, asyncio.TimeoutError):
            if line.transport is None:
                self.failed += 1
                self.line_ended(line)
            else:
                line.transport.abort()

    def refused(self, status, retry_after):
        self.refusals[status] += 1
        if status in (429, 502, 503, 504):
            self._retry_after = None if retry_after is None else float(retry_after)
        else:
            self.ended = f"refused with {status}"

    def line_ended(self, line):
        now = self.swarm.loop.time()
        self.breaks.append(Break(now, line.code, line.closed_at, line.goodbye, line.ping is not None))
        self.line = None
        goodbye, retry_after, self._retry_after = line.goodbye, self._retry_after, None
        if goodbye is not None and not goodbye["reconnect"]:
            self.ended = f"goodbye {goodbye['code']} {goodbye['reason']}"
        elif goodbye is None and line.code in FOR_GOOD:
            self.ended = f"closed with {line.code}"
        if self.ended is not None or self.swarm.closing:
            return
        if goodbye is not None and goodbye.get("after") is not None:
            pause = goodbye["after"] / 1000
        elif retry_after is not None:
            pause = retry_after * random.uniform(1.0, 1.5)
        else:
            pause = random.uniform(0.5, 1.0) * min(FIRST_PAUSE * 2 ** min(self._attempts, 10), LONGEST_PAUSE)
        self.swarm.loop.call_later(pause, self.connect)

    def frame(self, line, frame):
        kind = frame["type"]
        if kind == "message":
            self._keep(frame)
            self._message(line, frame)
        elif kind == "position":
            self._keep(frame)
        elif kind == "welcome":
            self._welcome(line, frame)
        elif kind == "goodbye":
            line.goodbye = frame
        elif kind == "error" and frame["code"] == "lost":
            self._keep(frame)
            self.ledger.lost((frame["audience"], frame.get("name")))
        elif kind != "ping":
            self.other.append(frame)

    def _welcome(self, line, frame):
        assert line.ping is None, "a second welcome"
        line.ping = frame["ping"]
        line.recovered = frame["recovered"] is True
        self.token, self.positions = frame.get("token"), {}
        self.subscribed = frame["subscribed"]
        self.welcomes.append((self.swarm.loop.time(), frame["recovered"]))
        self._attempts = 0
        if line.resumed and not line.recovered:
            self.ledger.lost()

    def _keep(self, frame):
        position = frame.get("position")
        if position is not None:
            self.positions[position.partition(".")[0]] = position

    def _message(self, line, frame):
        assert line.ping is not None, "a message before the welcome"
        if frame.get("kept") and not line.resumed:
            self.kept += 1
            return
        name, number, *_ = frame["data"].split(":", 2)
        number = int(number)
        if line.recovered and number <= line.high.get(name, 0):
            self.recovered += 1
        self.ledger.message(name, number, (frame["audience"], frame.get("name")))
        self.swarm.received(name, number, frame)


class Swarm:
    """The clients and their thread; to be used in a ``with`` block, at whose end all of them are closed.

    Args:
        high: returns the last number of each stream that is known to be published; called in the loop's thread.
        received: called in the loop's thread with stream, number and frame of each message, for all clients.
    """

    def __init__(self, high=dict, received=lambda name, number, frame: None):
        self.high, self.received = high, received
        self.loop = asyncio.new_event_loop()
        self.errors = []  # of the clients themselves: the protocol was broken, or they are
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.clients = []
        self.closing = False
        self._thread = threading.Thread(target=self._run, name="swarm", daemon=True)

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self._watch)
        self.loop.run_forever()

    def _watch(self):
        now = self.loop.time()
        for client in self.clients:
            line = client.line
            if line is not None and line.transport is not None and line.silent(now):
                client.dead_lines += 1
                line.transport.abort()
        self.loop.call_later(WATCH, self._watch)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self.closing = True
        with contextlib.suppress(concurrent.futures.TimeoutError):
            self.call(lambda: [client.line.close() for client in self.clients if client.line], timeout=20)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and any(client.line for client in self.clients):
                time.sleep(0.02)
            self.call(self._abort, timeout=20)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(20)
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        if kind is None:
            assert not self.errors, self.errors[:3]

    def _abort(self):
        for client in self.clients:
            if client.line and client.line.transport:
                client.line.transport.abort()

    def call(self, function, timeout=60.0):
        """Call ``function`` in the loop's thread and return what it returns."""
        future = concurrent.futures.Future()

        def run():
            try:
                future.set_result(function())
            except BaseException as exc:
                future.set_exception(exc)

        self.loop.call_soon_threadsafe(run)
        return future.result(timeout)

    def add(self, count, url, streams, cookies=None, token=None, has=None, within=5.0, timeout=60.0):
        """Open ``count`` clients of ``url`` (with a query), begun over ``within`` seconds, and wait until all are open.

        They must be open before the first message of their ``streams`` is published, or begin with the ``token`` of a
        page: then ``has`` says up to which number of each stream they have the messages.
        """
        headers = {"Cookie": cookies} if cookies else {}
        clients = [Client(self, url, streams, headers) for _ in range(count)]
        for client in clients:
            client.token = token
            for name, number in (has or {}).items():
                client.ledger.streams[name].last = number

        def begin():
            self.clients += clients
            for number, client in enumerate(clients):
                self.loop.call_later(min(within, count / 200) * number / count, client.connect)

        self.call(begin)
        self.wait_open(timeout, clients)
        return clients

    def wait_open(self, timeout=60.0, clients=None):
        """Wait until all clients, or those given, have been welcomed."""
        clients = self.clients if clients is None else clients
        wait_until(lambda: self._all_open(clients), timeout, what=f"{len(clients)} open sockets")

    def _all_open(self, clients):
        self._check()
        return all(client.open for client in clients)

    def _check(self):
        assert not self.errors, self.errors[:3]
        ended = collections.Counter(client.ended for client in self.clients if client.ended is not None)
        assert not ended, f"clients do not come back: {ended}"

    def wait_for(self, published, timeout=60.0):
        """Wait until every client has the last message of each of its streams; ``published``: their last numbers.

        What was lost before, and told, is no reason not to get what comes next.
        """

        def behind():
            self._check()
            return [
                f"{name} {client.ledger.streams[name].last}; {history(client)}"
                for client in self.clients
                for name in client.streams
                if client.ledger.streams[name].last < published[name]
            ]

        deadline = time.monotonic() + timeout
        while late := self.call(behind):
            assert time.monotonic() < deadline, f"{len(late)} do not have the last of {published}: {late[:5]}"
            time.sleep(0.05)

    def verdict(self, published):
        """Close the accounts, with the last number of each stream that was published, and add them up."""
        return self.call(lambda: self._verdict(published))

    def _verdict(self, published):
        total = Verdict(clients=len(self.clients))
        for number, client in enumerate(self.clients):
            ledger = client.ledger
            flawed = False
            unexpected = set(ledger.streams) - set(client.streams)
            if unexpected:
                total.disorder += 1
                total.faults.append(f"client {number}: messages of {unexpected}, which are not for it")
            for name in client.streams:
                stream = ledger.streams[name]
                stream.end(published[name])
                for kind in ("told_lost", "unexplained"):
                    ranges = getattr(stream, kind)
                    setattr(total, kind, getattr(total, kind) + sum(last - first + 1 for first, last in ranges))
                for kind in ("duplicates", "disorder", "repeated"):
                    setattr(total, kind, getattr(total, kind) + len(getattr(stream, kind)))
                wrong = {
                    kind: getattr(stream, kind)[:5]
                    for kind in ("unexplained", "duplicates", "disorder")
                    if getattr(stream, kind)
                }
                if wrong:
                    total.faults.append(f"client {number}, stream {name}: {wrong}; {history(client)}")
                flawed = flawed or bool(wrong or stream.told_lost)
            total.complete += not flawed
            total.delivered += ledger.delivered
            total.recovered += client.recovered
        return total


def history(client):
    """What happened to a client, in a line."""
    events = [(at, f"welcome recovered={recovered}") for at, recovered in client.welcomes]
    events += [(each.at, f"end {each.code}{' after a goodbye' if each.goodbye else ''}") for each in client.breaks]
    began = client.welcomes[0][0] if client.welcomes else 0.0
    return ", ".join(f"{at - began:.2f} s {what}" for at, what in sorted(events))


# --- the publisher ----------------------------------------------------------------------------------------------------


class Publisher:
    """Publishes numbered messages from a process of the site's, until it is stopped; see ``sites/steady_publisher.py``.

    Args:
        site: whose settings and Redis it has.
        streams: names to keyword arguments of ``RedisPublisher``.
        rate: messages a second, all streams together.
        size: bytes of a message, at least.
        env: further environment, such as another ``REDIS_URL``.

    Attributes:
        published: stream to the last number that Redis has taken.
        began: stream to the times at which its messages were first tried, on the monotonic clock.
        failures: why tries have failed.
    """

    def __init__(self, site, streams, rate=20, size=0, env=None):
        order = json.dumps({"streams": streams, "rate": rate, "size": size})
        self.published = dict.fromkeys(streams, 0)
        self.began = {name: [] for name in streams}
        self.failures = []
        self._stopped = False
        self._popen = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.integration.sites.steady_publisher", order],
            cwd=ROOT,
            env={**site.env, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._popen.stdout:
            if line.startswith("!"):
                self.failures.append(line[2:].rstrip("\n"))
            else:
                name, number, began = line.split()
                self.began[name].append(float(began))
                self.published[name] = int(number)

    def high(self):
        return dict(self.published)

    def wait(self, more, timeout=60.0):
        """Wait until ``more`` further messages of each stream have been taken by Redis."""
        before = self.high()

        def taken():
            assert self._popen.poll() is None, "the publisher has ended"
            return all(self.published[name] >= number + more for name, number in before.items())

        wait_until(taken, timeout, what=f"{more} more published messages after {before}; {self.failures[-3:]}")

    def stop(self, timeout=60.0):
        """End it when Redis has taken what it is about to publish, and return the last number of each stream."""
        if not self._stopped:
            self._stopped = True
            self._popen.stdin.close()
            try:
                code = self._popen.wait(timeout)
            finally:
                self._popen.kill()
                self._popen.wait()
                self._reader.join(10)
                self._popen.stdout.close()
            assert code == 0, f"the publisher ended with {code}; {self.failures[-3:]}"
        return self.published

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        elif not self._stopped:
            self._stopped = True
            self._popen.kill()
            self._popen.wait()
            self._popen.stdin.close()
            self._reader.join(10)
            self._popen.stdout.close()
