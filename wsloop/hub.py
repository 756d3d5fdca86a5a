"""Which connections listen to which channel, and the fan-out: frame once, put down for all, write once per loop turn.

How it works. A socket that is being set up is *joining*: what arrives on its channels is kept until it can be written.
Then :meth:`Hub.complete` makes it a member, together with what was kept, in one step of the event loop, so that no
message is lost, doubled or overtaken in between. :meth:`Hub.deliver` encodes a message into one frame and gives the
same bytes to every member; connections with new output are flushed together when the event loop gets its turn, so that
everything that one turn brings to a socket leaves in one write. One timer serves all connections: heartbeats, pings
and the deadlines of closing ones.

Nothing here blocks. This module must not know Redis or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gevent

from wsloop import conf
from wsloop.connection import PING, TOO_SLOW, Connection, encode

TICK = 1.0  # seconds between two turns of the timer
HEARTBEAT_INTERVAL = 4  # ticks; as in ws4redis


def is_text(payload: bytes) -> bool:
    """Tell whether a message leaves as text: a payload has no type in Redis, so whatever is UTF-8 does."""
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


class Joining:
    """What arrives on ``channels`` for a socket that is not open yet.

    Attributes:
        channels: the channels it will be subscribed to.
        messages: pairs of channel and payload, in order.
        too_much: more has arrived than one connection may hold; the socket must be refused.
    """

    __slots__ = ("_bound", "_size", "channels", "messages", "too_much")

    def __init__(self, channels: Iterable[bytes], bound: int) -> None:
        self.channels = tuple(channels)
        self.messages: list[tuple[bytes, bytes]] = []
        self.too_much = False
        self._bound = bound
        self._size = 0

    def add(self, channel: bytes, payload: bytes) -> None:
        self._size += len(payload)
        self.too_much = self.too_much or self._size > self._bound
        if not self.too_much:
            self.messages.append((channel, payload))

    def news(self, persisted: Sequence[tuple[bytes | None, bytes]], count: int) -> list[bytes]:
        """Return what the client gets first: kept messages, then what has been published meanwhile, nothing twice.

        Args:
            persisted: pairs of channel (None if unknown) and kept message, read while joining.
            count: how many of ``messages`` had been delivered when ``persisted`` was read, at the least. A kept
                message that is among them is the same one; later equal ones are others.
        """
        known = self.messages[:count]
        kept = []
        for channel, payload in persisted:
            twin = next((one for one in known if one[1] == payload and channel in (one[0], None)), None)
            if twin is None:
                kept.append(payload)
            elif channel is None:
                known.remove(twin)
        return kept + [payload for _, payload in self.messages]


class Hub:
    """The connections of this process.

    Args:
        left: called with the channels of a connection that has ended.

    Attributes:
        connections: the open ones.
    """

    def __init__(self, left: Callable[[Sequence[bytes]], None]) -> None:
        self._left = left
        self._members: dict[bytes, set[Connection]] = {}
        self._joining: set[Joining] = set()
        self.connections: set[Connection] = set()
        self._closing: dict[Connection, float] = {}
        self._dirty: list[Connection] = []
        self._loop: Any = gevent.get_hub().loop
        self._timer: Any = self._loop.timer(TICK, TICK)
        self._ticks = 0

    def __len__(self) -> int:
        """Return how many connections there are, closing ones included."""
        return len(self.connections) + len(self._closing)

    def join(self, channels: Iterable[bytes]) -> Joining:
        """Begin to keep what arrives on ``channels``, until :meth:`complete` or :meth:`cancel`."""
        joining = Joining(channels, int(conf.option("MAX_QUEUED_BYTES")))
        self._joining.add(joining)
        return joining

    def cancel(self, joining: Joining) -> None:
        """Stop keeping; the socket was not opened."""
        self._joining.discard(joining)

    def complete(self, joining: Joining, connection: Connection, news: Callable[[], Iterable[bytes]]) -> None:
        """Make ``connection`` a member of the channels, after writing ``news()`` to it. In one step: nothing yields."""
        self._joining.discard(joining)
        connection.channels = joining.channels
        if not self:
            self._timer.start(self._tick)
        self.connections.add(connection)
        for channel in joining.channels:
            self._members.setdefault(channel, set()).add(connection)
        connection.start()
        first = b"".join(encode(payload, is_text(payload)) for payload in news())
        if first:
            connection.enqueue(first)  # as one: several kept messages are no sign of a slow client
        if joining.too_much:
            connection.close(TOO_SLOW, "more was published than a new connection can hold")
        connection.flush()

    def deliver(self, channel: bytes, payload: bytes, origin: Connection | None = None) -> None:
        """Give a message to every member of ``channel`` except ``origin``. Called in the order of Redis."""
        for joining in self._joining:
            if channel in joining.channels:
                joining.add(channel, payload)
        members = self._members.get(channel)
        if not members:
            return
        frame = encode(payload, is_text(payload))
        dirty = self._dirty
        first = not dirty
        for connection in members:
            if connection is not origin and connection.enqueue(frame):
                dirty.append(connection)
        if first and dirty:
            self._loop.run_callback(self._flush)

    def close_all(self, code: int, reason: str) -> None:
        """Begin to close every connection."""
        for connection in list(self.connections):
            connection.close(code, reason)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()

    # What connections tell.

    def closing(self, connection: Connection) -> None:
        """Forget a connection that takes no more messages, but for its deadline."""
        self._leave(connection)
        self._closing[connection] = self._loop.now() + conf.option("CLOSE_TIMEOUT")

    def closed(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._leave(connection)
        self._closing.pop(connection, None)
        if not self:
            self._timer.stop()

    def _leave(self, connection: Connection) -> None:
        if connection not in self.connections:
            return
        self.connections.remove(connection)
        for channel in connection.channels:
            members = self._members[channel]
            members.discard(connection)
            if not members:
                del self._members[channel]
        self._left(connection.channels)

    # The timer.

    def _tick(self) -> None:
        self._ticks += 1
        heartbeat = conf.heartbeat()
        if heartbeat is not None and not self._ticks % HEARTBEAT_INTERVAL:
            self._send(encode(heartbeat, is_text(heartbeat)), list(self.connections))
        if not self._ticks % max(1, int(conf.option("PING_INTERVAL"))):
            silent = [connection for connection in self.connections if not connection.heard]
            for connection in self.connections:
                connection.heard = False
            self._send(PING, silent)
        now = self._loop.now()
        for connection in [each for each, deadline in self._closing.items() if deadline <= now]:
            connection.abort()

    def _send(self, frame: bytes, connections: Iterable[Connection]) -> None:
        for connection in connections:
            if connection.enqueue(frame):
                connection.flush()
