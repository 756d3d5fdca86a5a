"""One timer for all connections: heartbeats, pings and their deadlines, ends of sessions, and of closing ones.

How it works. Connections are divided into as many portions as there are seconds between two pings, and each tick of the
timer pings one portion: in pieces, so that neither the pings nor the answers to them, which come together, occupy a
turn of the event loop for long. A connection that neither answers a ping nor sends anything else is ended. Sessions and
tokens that end within one round of the portions are compared with the clock at every tick. Connections that trickle are
held, and released a few at a time. This module must not know channels.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterable
from typing import Any

import gevent

from wsloop import conf, metrics
from wsloop.greenlets import logged
from wsloop.protocol.close_codes import TOO_SLOW
from wsloop.protocol.dialects import BARE, Dialect
from wsloop.sockets.connection import Connection

TICK = 1.0  # seconds between two turns of the timer
HEARTBEAT_INTERVAL = 4  # ticks; as in ws4redis
PIECES = 8  # in which pings and heartbeats of a tick are sent, at the most
PIECE = 25  # connections that make a piece, at the least
PAUSE = 0.01  # seconds for which a connection that trickles is not read, at the least
RESUMED = 20  # connections read again after such a pause: thousands that trickle cost no more than these


class Heartbeat:
    """The connections of this process: open ones in portions, closing ones with their deadlines.

    Args:
        send: sends a frame to connections.
        expired: called with the connections whose session or token has just ended.
    """

    def __init__(
        self,
        send: Callable[[bytes, Iterable[Connection]], None],
        expired: Callable[[list[Connection]], None],
    ) -> None:
        self._send = send
        self._expired = expired
        self._portions: list[set[Connection]] = [set() for _ in range(conf.option("PING_INTERVAL"))]
        self._closing: dict[Connection, float] = {}
        self._pinged: dict[int, list[Connection]] = {}  # by the tick at which they must have answered
        self._expiring: set[Connection] = set()  # those whose session or token ends before their next ping
        self._loop: Any = gevent.get_hub().loop
        self._timer: Any = self._loop.timer(TICK, TICK)
        self._ticks = 0
        self._unpinged: collections.deque[Connection] = collections.deque()  # those that this tick still has to ping
        self._unsent: collections.deque[tuple[bytes, Connection]] = collections.deque()  # heartbeats of this tick
        self._piece = 0  # connections to which they are sent at a time
        self._piece_timer: Any = self._loop.timer(TICK / PIECES, TICK / PIECES)
        self._paused: collections.deque[Connection] = collections.deque()
        self._resume_timer: Any = self._loop.timer(PAUSE, PAUSE)

    def __len__(self) -> int:
        """Return how many connections there are, closing ones included."""
        return sum(map(len, self._portions)) + len(self._closing)

    @property
    def connections(self) -> set[Connection]:
        """The open connections."""
        return set().union(*self._portions)

    def add(self, connection: Connection) -> None:
        """Take charge of an open connection."""
        if not self:
            self._timer.start(logged, self._tick)
        self._portion(connection).add(connection)
        self.watch_expiry(connection)

    def closing(self, connection: Connection) -> bool:
        """Give a connection ``CLOSE_TIMEOUT`` seconds to end, and return whether it was an open one."""
        if not self._remove(connection):
            return False
        self._closing[connection] = self._loop.now() + conf.option("CLOSE_TIMEOUT")
        return True

    def remove(self, connection: Connection) -> tuple[bool, bool]:
        """Forget a connection that has ended; return whether it was an open one, and whether it was here at all."""
        was_open = self._remove(connection)
        known = was_open or self._closing.pop(connection, None) is not None
        if not self:
            self._timer.stop()
            self._piece_timer.stop()
            self._unpinged.clear()
            self._unsent.clear()
            self._pinged.clear()
            self._expiring.clear()
        return was_open, known

    def watch_expiry(self, connection: Connection) -> None:
        """Look at ``visitor.expires``, which has just been set; an end far away is looked at again with each ping."""
        expires = connection.visitor.expires
        if expires is not None and expires <= time.time() + len(self._portions) * TICK:
            self._expiring.add(connection)

    def pausing(self, connection: Connection) -> None:
        """Release a connection that has held itself, after a moment in which more data gathers in the kernel."""
        self._paused.append(connection)
        if len(self._paused) == 1:
            self._resume_timer.start(logged, self._resume, update=True)

    def _resume(self) -> None:
        for _ in range(min(RESUMED, len(self._paused))):
            self._paused.popleft().release()
        if not self._paused:
            self._resume_timer.stop()

    def _remove(self, connection: Connection) -> bool:
        portion = self._portion(connection)
        if connection not in portion:
            return False
        portion.remove(connection)
        return True

    def _portion(self, connection: Connection) -> set[Connection]:
        # Addresses of objects are multiples of their size; the factor (Knuth's) spreads them.
        return self._portions[(hash(connection) * 2654435761 >> 12) % len(self._portions)]

    def _tick(self) -> None:
        self._ticks += 1
        # Each by itself: if one fails, the others still protect the server and its users.
        for part in (self._end_silent, self._ping, self._beat, self._begin_sending, self._expire, self._end_closing):
            logged(part)

    def _beat(self) -> None:
        heartbeat = conf.heartbeat()
        if heartbeat is None:
            return
        frame = BARE.encode(heartbeat)
        for number, portion in enumerate(self._portions):
            if number % HEARTBEAT_INTERVAL == self._ticks % HEARTBEAT_INTERVAL:  # in turn, not all at once
                self._unsent += [(frame, each) for each in portion if each.dialect.heartbeat]

    def _end_silent(self) -> None:
        """End connections whose answer to a ping is due."""
        for connection in self._pinged.pop(self._ticks, ()):
            self._end_if_silent(connection)

    def _end_if_silent(self, connection: Connection) -> None:
        # A connection that is held is not read, so no answer can arrive.
        if not connection.alive and not connection.held and connection.open:
            metrics.reached("PING_TIMEOUT")
            connection.close(TOO_SLOW, "no answer to a ping")
            connection.abort()

    def _ping(self) -> None:
        """Ping the portion whose turn it is."""
        self._unpinged += self._portions[self._ticks % len(self._portions)]
        for connection in self._unpinged:
            self.watch_expiry(connection)

    def _begin_sending(self) -> None:
        """Send the first piece of what this tick has to send; the others follow before the next one."""
        count = len(self._unpinged) + len(self._unsent)
        self._piece = max(PIECE, -(-count // PIECES))
        if count > self._piece:
            self._piece_timer.start(logged, self._send_piece, update=True)
        self._send_piece(0)

    def _send_piece(self, late: int = 1) -> None:
        """Send a piece; ``late``: how many ticks more those have to answer who get their ping only now."""
        due = conf.option("PING_TIMEOUT") + late
        beats: dict[Dialect, bytes] = {}
        for _ in range(self._piece):
            if self._unpinged:
                connection = self._unpinged.popleft()
                self._end_if_silent(connection)  # an answer must be there before the next ping asks again
                dialect = connection.dialect
                if dialect not in beats:
                    beats[dialect] = dialect.beat()
                connection.alive = False
                if due <= len(self._portions):
                    self._pinged.setdefault(self._ticks + due, []).append(connection)
                self._send(beats[dialect], [connection])
            elif self._unsent:
                frame, connection = self._unsent.popleft()
                self._send(frame, [connection])
            else:
                break
        if not self._unpinged and not self._unsent:
            self._piece_timer.stop()

    def _expire(self) -> None:
        now = time.time()
        due = [each for each in self._expiring if (each.visitor.expires or now) <= now]
        if due:
            self._expiring = {each for each in self._expiring.difference(due) if each.open}
            self._expired([each for each in due if each.open])

    def _end_closing(self) -> None:
        """End connections whose clients do not finish closing."""
        now = self._loop.now()
        for connection in [each for each, deadline in self._closing.items() if deadline <= now]:
            metrics.reached("CLOSE_TIMEOUT")
            connection.abort()


__all__ = ["Heartbeat"]
