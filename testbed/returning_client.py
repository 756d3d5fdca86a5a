"""A client of wsloop.v1 that comes back whenever its line ends, and keeps account of what it was sent.

It has the socket of one facility, or that of a whole page, with several subscriptions.

Responsible for the client's side of ``docs/reference/wsloop-v1.rst``: positions, coming back, dead lines. It must not
know how the server works, nor what is done to it. There is no task per client: it is an ``asyncio.Protocol`` around the
parser of ``websockets``, and some timers.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlsplit

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from testbed.ledger import Ledger

SUBPROTOCOL = Subprotocol("wsloop.v1")
FOR_GOOD = {1002, 1007, 1008, 1009, 4001}  # close codes after which coming back is no use
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds before coming back where the server has not said when
OPENING = 15.0  # seconds from connecting to the welcome

QUIET = logging.getLogger("testbed.returning_client")
QUIET.setLevel(logging.CRITICAL)


class Swarm(Protocol):
    """What a client needs of those it is one of; see :class:`testbed.swarm.Swarm`."""

    loop: asyncio.AbstractEventLoop
    high: Callable[[], Mapping[str, int]]
    received: Callable[[str, int, dict[str, Any]], object]
    closing: bool


@dataclasses.dataclass
class Break:
    """One end of a line: ``at`` and ``closed_at`` (of the close frame, if any) on the loop's clock, in seconds."""

    at: float
    code: int | None
    closed_at: float | None
    goodbye: dict[str, Any] | None
    welcomed: bool


class Line(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = client.swarm.loop
        resume = None if client.page else client.resume(client.facility)
        uri = client.url if resume is None else f"{client.url}&resume={quote(resume, safe='~.:-_')}"
        self._protocol = ClientProtocol(parse_uri(uri), subprotocols=[SUBPROTOCOL], max_size=None, logger=QUIET)
        self.resumed = {facility for facility in client.facilities if client.tokens.get(facility)}
        self.waiting = set(client.facilities)  # for their welcomes
        self.transport: Any = None
        self.heard = self._loop.time()
        self.ping: float | None = None  # seconds; known with the welcome
        self.goodbye: dict[str, Any] | None = None
        self.code: int | None = None
        self.closed_at: float | None = None
        self.high = client.swarm.high() if self.resumed else {}
        self.recovered: set[str] = set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        request = self._protocol.connect()
        for name, value in self._client.headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)
        self._write()

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        self._protocol.receive_data(data)
        self._events()
        self._write()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._events()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.line_ended(self)

    def _events(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                if self._protocol.handshake_exc is not None:
                    self._client.refused(event.status_code, event.headers.get("Retry-After"))
                elif self._client.page:
                    self.send(json.dumps([self._client.subscribe(facility) for facility in self._client.page]))
                continue
            assert isinstance(event, Frame)
            if event.opcode is Opcode.TEXT:
                assert event.fin, "the server does not send fragments"
                self._client.frame(self, json.loads(bytes(event.data)))
            elif event.opcode is Opcode.CLOSE:
                self.closed_at = self._loop.time()
                assert self._protocol.close_rcvd
                self.code = self._protocol.close_rcvd.code
            elif event.opcode not in (Opcode.PING, Opcode.PONG):
                raise AssertionError(f"a frame of wsloop.v1 is text, not {event}")

    def _write(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.transport.write(data)
            elif self.transport.can_write_eof():
                with contextlib.suppress(OSError):
                    self.transport.write_eof()

    def send(self, text: str) -> None:
        self._protocol.send_text(text.encode())
        self._write()

    def close(self) -> None:
        if self.transport is None:
            return
        with contextlib.suppress(Exception):
            self._protocol.send_close(1000)
            self._write()

    def silent(self, now: float) -> bool:
        """Return whether nothing has come for so long that the line is taken for dead."""
        return now - self.heard > (OPENING if self.ping is None else 2 * self.ping)


class Client:
    """One subscriber that comes back whenever its line ends.

    Args:
        swarm: of it.
        url: of the socket, with a query.
        streams: names of those that it is to receive.
        headers: of the handshake.
        page: for the socket of a page, the audiences to subscribe to by facility; None: the URL has the facility.

    Attributes:
        streams: names of those that it is to receive.
        subscribed: of the last welcome.
        attempts: when it began to connect, on the loop's clock, in seconds.
        welcomes: pairs of a time on the loop's clock, in seconds, and ``recovered`` (None, True or False).
        breaks: the ends of its lines.
        refusals: HTTP status to how often.
        recovered: messages that had been published before it connected again.
        kept: last messages from before its first connection.
        other: frames of other types: presence, acknowledgements, errors beside ``lost``.
    """

    def __init__(
        self,
        swarm: Swarm,
        url: str,
        streams: Sequence[str],
        headers: Mapping[str, str],
        page: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.swarm, self.url, self.streams, self.headers = swarm, url, tuple(streams), headers
        self.page = page
        self.facility = unquote(urlsplit(url).path.removeprefix("/ws/"))
        self.facilities = list(page or [self.facility])
        self.ledger = Ledger()
        self.tokens: dict[str, str | None] = {}  # by facility
        self.positions: dict[str, dict[str, str]] = {}  # by facility and channel
        self._streams_of: dict[str, set[str]] = {}  # names of streams that facilities have brought
        self.subscribed: Any = None
        self.line: Line | None = None
        self.welcomes: list[tuple[float, bool | None]] = []
        self.breaks: list[Break] = []
        self.other: list[dict[str, Any]] = []
        self.refusals: collections.Counter[int] = collections.Counter()
        self.recovered = self.kept = self.dead_lines = self.failed = 0
        self.ended: str | None = None  # why it does not come back
        self._attempts = 0
        self.attempts: list[float] = []  # when it began to connect
        self._retry_after: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> bool:
        return self.line is not None and not self.line.waiting and self.line.code is None

    def resume(self, facility: str) -> str | None:
        """Return the client's positions in a facility, or None."""
        token = self.tokens.get(facility)
        return None if token is None else "~".join([token, *self.positions.get(facility, {}).values()])

    def subscribe(self, facility: str) -> dict[str, Any]:
        """Return the frame that subscribes to a facility."""
        assert self.page is not None
        frame = {"type": "subscribe", "id": facility, "facility": facility, "audiences": list(self.page[facility])}
        resume = self.resume(facility)
        return frame if resume is None else {**frame, "resume": resume}

    # From here on in the loop's thread.

    def connect(self) -> None:
        if self.ended is None:
            task = self.swarm.loop.create_task(self._connect())
            self._tasks.add(task)  # the loop itself holds tasks weakly
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        self._attempts += 1
        self.attempts.append(self.swarm.loop.time())
        self.line = line = Line(self)
        uri = parse_uri(self.url)
        try:
            await asyncio.wait_for(self.swarm.loop.create_connection(lambda: line, uri.host, uri.port), OPENING)
        except (OSError, TimeoutError, asyncio.TimeoutError):
            if line.transport is None:
                self.failed += 1
                self.line_ended(line)
            else:
                line.transport.abort()

    def refused(self, status: int, retry_after: str | None) -> None:
        self.refusals[status] += 1
        if status in (429, 502, 503, 504):
            self._retry_after = None if retry_after is None else float(retry_after)
        else:
            self.ended = f"refused with {status}"

    def line_ended(self, line: Line) -> None:
        now = self.swarm.loop.time()
        self.breaks.append(Break(now, line.code, line.closed_at, line.goodbye, not line.waiting))
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

    def frame(self, line: Line, frame: dict[str, Any]) -> None:
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
            streams = self._streams_of.get(frame["facility"], set()) if self.page else None
            self.ledger.lost((frame["audience"], frame.get("name")), streams)
        elif self.page and (kind == "unsubscribed" or frame.get("code") == "unavailable"):
            self._subscribe_later(line, frame["facility"])
        elif kind != "ping":
            self.other.append(frame)

    def _welcome(self, line: Line, frame: dict[str, Any]) -> None:
        facility = frame["facility"]
        if line.ping is None:
            line.ping = frame["ping"]
            if self.page:
                assert facility == ""
                return
        assert facility in line.waiting, "a second welcome"
        line.waiting.remove(facility)
        recovered = frame["recovered"]
        if recovered:
            line.recovered.add(facility)
        self.tokens[facility], self.positions[facility] = frame.get("token"), {}
        self.subscribed = frame["subscribed"]
        self.welcomes.append((self.swarm.loop.time(), recovered))
        self._attempts = 0
        if facility in line.resumed and not recovered:
            self.ledger.lost(streams=self._streams_of.get(facility, set()) if self.page else None)

    def _subscribe_later(self, line: Line, facility: str) -> None:
        """The server has ended a subscription, or could not make it: ask again, on the same line."""
        line.waiting.add(facility)
        if self.resume(facility) is not None:
            line.resumed.add(facility)

        def again() -> None:
            if self.line is line and line.code is None:
                line.send(json.dumps(self.subscribe(facility)))

        self.swarm.loop.call_later(random.uniform(0.5, 1.0) * FIRST_PAUSE * 4, again)

    def _keep(self, frame: dict[str, Any]) -> None:
        position = frame.get("position")
        if position is not None:
            self.positions.setdefault(frame["facility"], {})[position.partition(".")[0]] = position

    def _message(self, line: Line, frame: dict[str, Any]) -> None:
        facility = frame["facility"]
        assert facility not in line.waiting, "a message before the welcome"
        if frame.get("kept") and facility not in line.resumed:
            self.kept += 1
            return
        name, number, *_ = frame["data"].split(":", 2)
        number = int(number)
        self._streams_of.setdefault(facility, set()).add(name)
        if facility in line.recovered and number <= line.high.get(name, 0):
            self.recovered += 1
        self.ledger.message(name, number, (frame["audience"], frame.get("name")))
        self.swarm.received(name, number, frame)


def history(client: Client) -> str:
    """Return what happened to a client, in a line."""
    events = [(at, f"welcome recovered={recovered}") for at, recovered in client.welcomes]
    events += [(each.at, f"end {each.code}{' after a goodbye' if each.goodbye else ''}") for each in client.breaks]
    began = client.welcomes[0][0] if client.welcomes else 0.0
    return ", ".join(f"{at - began:.2f} s {what}" for at, what in sorted(events))
