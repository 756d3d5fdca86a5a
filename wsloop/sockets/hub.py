"""Which connections listen to which channel, and the fan-out: frame once, put down for all, write once per loop turn.

How it works. A socket that is being set up is *joining*: what arrives on its channels is kept until it can be written.
Then :meth:`Hub.complete` makes it a member, together with what was kept, in one step of the event loop, so that no
message is lost, doubled or overtaken in between. :meth:`Hub.deliver` encodes a message into one frame and gives the
same bytes to every member; connections with new output are flushed together when the event loop gets its turn, so that
everything that one turn brings to a socket leaves in one write.

One timer serves all connections: heartbeats, pings, the deadlines of their answers, of sessions and of closing ones.
Connections are parted into as many portions as there are seconds between two pings, and each turn of the timer looks at
one portion. Who neither answers a ping nor says anything else has gone.

Nothing here blocks. This module must not know Redis or HTTP.
"""

from __future__ import annotations

import collections
import functools
import itertools
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

import gevent
from gevent.event import Event

from wsloop import conf, metrics
from wsloop.greenlets import log, logged
from wsloop.protocol.close_codes import TOO_SLOW
from wsloop.protocol.dialects import DIALECTS, Dialect
from wsloop.protocol.frames import PING, encode
from wsloop.protocol.messages import Message, Position
from wsloop.sockets.admission import NOBODY, Visitor, most_connections
from wsloop.sockets.connection import Connection
from wsloop.sockets.index import Index
from wsloop.sockets.joining import JoinBuffer, is_text
from wsloop.sockets.limits import Bucket

TICK = 1.0  # seconds between two turns of the timer
HEARTBEAT_INTERVAL = 4  # ticks; as in ws4redis
MOST_MULTI_AUDIENCE = 20_000  # channels of messages to several of them that are remembered, until all have come
PAUSE = 0.01  # seconds for which a connection that trickles is not read, at the least
RESUMED = 20  # connections read again after such a pause: thousands that trickle cost no more than these


@functools.cache
def encode_ping(dialect: Dialect) -> bytes:
    """Return the frame that shows clients of a dialect that the line is alive; nothing if it has none."""
    return b"" if dialect.ping is None else encode(dialect.ping, True)


class Hub:
    """The connections of this process.

    Args:
        left: called with a connection that takes no more messages.
        expired: called with connections whose session or token ends about now.

    Attributes:
        users, sessions: connections by the primary key of their user and by the key of their session, closing ones
            included.
    """

    def __init__(
        self,
        left: Callable[[Connection], None],
        expired: Callable[[list[Connection]], None] = lambda connections: None,
    ) -> None:
        self._left = left
        self._expired = expired
        # By dialect, and whether of unread messages the newest alone counts.
        self._subscribers: dict[tuple[Dialect, bool], Index[bytes]] = {
            (dialect, latest_only): Index() for dialect in DIALECTS.values() for latest_only in (False, True)
        }
        # Of messages to several channels, by their ids, on which they have come.
        self._multi_audience: collections.OrderedDict[str, set[bytes]] = collections.OrderedDict()
        self._multi_audience_size = 0
        self._draining: dict[Connection, Event] = {}
        self.users: Index[Any] = Index()
        self.sessions: Index[str] = Index()
        self._addresses: Index[str] = Index()
        self._joining: set[JoinBuffer] = set()
        self._working: collections.Counter[Visitor] = collections.Counter()
        self._portions: list[set[Connection]] = [set() for _ in range(conf.option("PING_INTERVAL"))]
        self._closing: dict[Connection, float] = {}
        self._dirty: list[Connection] = []
        self._pinged: dict[int, list[Connection]] = {}  # by the tick at which they must have answered
        self._expiring: set[Connection] = set()  # those whose session or token ends before they are looked at again
        self._paused: collections.deque[Connection] = collections.deque()
        self._compress_from = conf.compress_from()
        self._loop: Any = gevent.get_hub().loop
        self._timer: Any = self._loop.timer(TICK, TICK)
        self._resume_timer: Any = self._loop.timer(PAUSE, PAUSE)
        self._ticks = 0

    def __len__(self) -> int:
        """Return how many connections there are, closing ones included."""
        return sum(map(len, self._portions)) + len(self._closing)

    @property
    def connections(self) -> set[Connection]:
        """The open connections."""
        return set().union(*self._portions)

    def exceeded_limit(self, visitor: Visitor | None = None, joined: int = 0) -> str | None:
        """Return the setting whose bound leaves no room for one more connection, or None if there is room.

        Args:
            visitor: who wants to connect; without one only the number of all connections is looked at.
            joined: 1 if it is among those that are being set up already.
        """
        if len(self) + len(self._joining) + self._working.total() - joined >= most_connections():
            return "MAX_CONNECTIONS"
        if visitor is not None:
            for setting, index, attribute in (
                ("MAX_CONNECTIONS_PER_USER", self.users, "user"),
                ("MAX_CONNECTIONS_PER_ADDRESS", self._addresses, "address"),
            ):
                most, value = conf.option(setting), getattr(visitor, attribute)
                if most is not None and value is not None:
                    others = itertools.chain((each.visitor for each in self._joining), self._working.elements())
                    more = sum(getattr(other, attribute) == value for other in others)
                    if len(index[value]) + more - joined >= most:
                        return setting
        return None

    def join(self, channels: Iterable[bytes], visitor: Visitor = NOBODY) -> JoinBuffer:
        """Begin to keep what arrives on ``channels``, until :meth:`complete` or :meth:`cancel`."""
        joining = JoinBuffer(channels, conf.option("MAX_QUEUED_BYTES"), visitor)
        self._joining.add(joining)
        return joining

    def cancel(self, joining: JoinBuffer) -> None:
        """Stop keeping; the socket was not opened."""
        self._joining.discard(joining)

    def working(self, visitor: Visitor) -> None:
        """Count a socket that has ended for its visitor: the site's code still works for it, until :meth:`worked`."""
        self._working[visitor] += 1

    def worked(self, visitor: Visitor) -> None:
        """Take back one :meth:`working`."""
        self._working[visitor] -= 1
        if not self._working[visitor]:
            del self._working[visitor]

    def complete(self, joining: JoinBuffer, connection: Connection, news: Callable[[], Iterable[bytes]]) -> None:
        """Make ``connection`` a member of the channels, after writing ``news()`` to it. In one step: nothing yields."""
        connection.visitor = joining.visitor
        if not self:
            self._timer.start(logged, self._tick)
        self._portion(connection).add(connection)
        connection.shared = self._shared_bucket(joining.visitor)
        for index, key in self._keys(connection):
            index.add(key, connection)
        self.watch_expiry(connection)
        connection.start()
        self.enter(joining, connection, news)

    def enter(self, joining: JoinBuffer, connection: Connection, news: Callable[[], Iterable[bytes]]) -> None:
        """Make an open connection a member of the channels, after writing ``news()`` to it. In one step."""
        self._joining.discard(joining)
        connection.channels = joining.channels
        for channel in joining.channels:
            self._subscribers[connection.dialect, connection.latest_only].add(channel, connection)
        first = b"".join(connection.frame(payload, is_text(payload)) for payload in news())
        if first:
            connection.enqueue(first)  # as one: several kept messages are no sign of a slow client
        if joining.too_much:
            metrics.reached("MAX_QUEUED_BYTES")
            connection.close(TOO_SLOW, "more was published than a new connection can hold")
        connection.flush()

    def deliver(self, channel: bytes, message: Message, origin: Connection | None = None) -> None:
        """Give a message to every member of ``channel``. Called in the order of Redis.

        Args:
            channel: on which it came.
            message: what came.
            origin: the connection that has published it, if it is one of this process that is to be told from others:
                it gets the message as its own, or not at all where its dialect has no word for that.
        """
        for joining in self._joining:
            if channel in joining.channels:
                joining.add(channel, message)
        before: set[bytes] = set()
        if message.multi_audience:
            before = self._multi_audience.setdefault(message.id, before)
            self._multi_audience_size += channel not in before
            while self._multi_audience_size > MOST_MULTI_AUDIENCE and len(self._multi_audience) > 1:
                self._multi_audience_size -= len(self._multi_audience.popitem(last=False)[1])
        first = not self._dirty
        for (dialect, latest_only), index in self._subscribers.items():
            members = index[channel]
            if not members:
                continue
            put = self._replace if latest_only else self._enqueue
            if before:
                known = [each for each in members if not (each.lagging or before.isdisjoint(each.channels))]
                if known:
                    members = set(members).difference(known)
                    # Under a name of its own: it must not take the place of a message that is not read yet.
                    put(channel + b"\0position", dialect.position(channel, message), known)
            if origin is not None and origin in members:
                members = [each for each in members if each is not origin]
                if dialect.has_envelopes:
                    put(channel, dialect.message(channel, message, own=True), [origin])
            put(channel, dialect.message(channel, message), members)
        before.add(channel)
        if first and self._dirty:
            self._loop.run_callback(self._flush)

    def lost(self, channel: bytes, position: Position) -> None:
        """Tell every member of ``channel`` that messages are lost, and where it goes on."""
        for joining in self._joining:
            joining.lost = joining.lost or channel in joining.channels
        for (dialect, _), index in self._subscribers.items():
            text = dialect.lost(channel, position)
            if text is not None:
                self._send(encode(text, True), list(index[channel]))

    def _enqueue(self, channel: bytes, payload: bytes | None, members: Collection[Connection]) -> None:
        if not members or payload is None:
            return
        text = is_text(payload)
        frame = encode(payload, text)
        compressible = len(payload) >= self._compress_from
        frames = {0: frame}
        dirty = self._dirty
        for connection in members:
            if compressible:
                bits = connection.window_bits
                if bits not in frames:
                    frames[bits] = encode(payload, text, bits)
                frame = frames[bits]
            if connection.enqueue(frame):
                dirty.append(connection)

    def _replace(self, channel: bytes, payload: bytes | None, members: Collection[Connection]) -> None:
        if payload is None:
            return
        text = is_text(payload)
        for connection in members:
            if connection.replace(channel, connection.frame(payload, text)):
                self._dirty.append(connection)

    def close_all(self, code: int, reason: str) -> None:
        """Begin to close every connection."""
        for connection in list(self.connections):
            connection.close(code, reason)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            self._flush_one(connection)

    def _flush_one(self, connection: Connection) -> None:
        """Flush a connection; one that fails is ended, and keeps no other from its messages."""
        try:
            connection.flush()
        except Exception as exc:
            log(connection.flush, exc)
            connection.abort()

    def enqueue(self, connection: Connection, frame: bytes) -> None:
        """Put a frame down for one connection; it leaves with what else this turn of the loop brings."""
        if connection.enqueue(frame):
            if not self._dirty:
                self._loop.run_callback(self._flush)
            self._dirty.append(connection)

    # Recovery in several steps.

    def send(self, connection: Connection, texts: Iterable[bytes]) -> None:
        """Send something to one connection."""
        frames = b"".join(connection.frame(text, True) for text in texts)
        if frames and connection.enqueue(frames):
            connection.flush()

    def wait_until_clear(self, connection: Connection) -> None:
        """Return when the kernel has taken all that waits for a connection, or it has ended. Blocks."""
        connection.flush()
        if connection.open and not connection.clear:
            event = self._draining.setdefault(connection, Event())
            event.wait()

    def wait_for_room(self, channels: Iterable[bytes], timeout: float) -> None:
        """Return when no member has more than half of what may wait for it, or after ``timeout`` seconds. Blocks."""
        members = {
            each
            for channel in channels
            for (_, latest_only), index in self._subscribers.items()
            if not latest_only
            for each in index[channel]
        }
        with gevent.Timeout(timeout, False):  # type: ignore[arg-type]
            for connection in members:
                connection.flush()
                if connection.queued_bytes > connection.bounds.max_queued_bytes / 2:
                    self.wait_until_clear(connection)

    # What connections tell.

    def drained(self, connection: Connection) -> None:
        """Let go on who waits for it in :meth:`wait_until_clear`."""
        event = self._draining.pop(connection, None)
        if event is not None:
            event.set()

    def pausing(self, connection: Connection) -> None:
        """Release a connection that has held itself, after a moment in which more gathers in the kernel."""
        self._paused.append(connection)
        if len(self._paused) == 1:
            self._resume_timer.start(logged, self._resume, update=True)

    def _resume(self) -> None:
        for _ in range(min(RESUMED, len(self._paused))):
            self._paused.popleft().release()
        if not self._paused:
            self._resume_timer.stop()

    def closing(self, connection: Connection) -> None:
        """Forget a connection that takes no more messages; for its visitor it counts until it has ended."""
        if self._leave(connection):
            self._closing[connection] = self._loop.now() + conf.option("CLOSE_TIMEOUT")

    def closed(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        if self._leave(connection) or self._closing.pop(connection, None) is not None:
            for index, key in self._keys(connection):
                index.remove(key, connection)
        if not self:
            self._timer.stop()
            self._pinged.clear()
            self._expiring.clear()

    def _leave(self, connection: Connection) -> bool:
        """Take a connection out of its channels, and tell whether it was in."""
        portion = self._portion(connection)
        if connection not in portion:
            return False
        portion.remove(connection)
        for channel in connection.channels:
            self._subscribers[connection.dialect, connection.latest_only].remove(channel, connection)
        self.drained(connection)
        self._left(connection)
        return True

    def _portion(self, connection: Connection) -> set[Connection]:
        # Addresses of objects are multiples of their size; the factor (Knuth's) spreads them.
        return self._portions[(hash(connection) * 2654435761 >> 12) % len(self._portions)]

    def _keys(self, connection: Connection) -> list[tuple[Index[Any], Any]]:
        user, session, address = connection.visitor[:3]
        pairs = ((self.users, user), (self.sessions, session), (self._addresses, address))
        return [(index, key) for index, key in pairs if key is not None]

    def _shared_bucket(self, visitor: Visitor) -> Bucket | None:
        """Return what counts the frames of all connections of the same user; without one, of the same address."""
        index, key = (self.users, visitor.user) if visitor.user is not None else (self._addresses, visitor.address)
        if key is None:
            return None
        others = (each.shared for each in index[key] if each.visitor.user == visitor.user)
        return next((bucket for bucket in others if bucket is not None), None) or Bucket()

    # The timer.

    def _tick(self) -> None:
        self._ticks += 1
        # Each by itself: where one cannot be done, the others protect the server, and its users, all the same.
        for part in (self._beat, self._end_silent, self._ping, self._expire, self._end_closing):
            logged(part)

    def _end_silent(self) -> None:
        """End connections whose answer to a ping is due."""
        for connection in self._pinged.pop(self._ticks, ()):
            # One that is held is not read, so it cannot be heard.
            if not connection.alive and not connection.held and connection.open:
                metrics.reached("PING_TIMEOUT")
                connection.close(TOO_SLOW, "no answer to a ping")
                connection.abort()

    def _end_closing(self) -> None:
        """End connections whose clients do not finish closing."""
        now = self._loop.now()
        for connection in [each for each, deadline in self._closing.items() if deadline <= now]:
            metrics.reached("CLOSE_TIMEOUT")
            connection.abort()

    def _beat(self) -> None:
        heartbeat = conf.heartbeat()
        if heartbeat is None:
            return
        frame = encode(heartbeat, is_text(heartbeat))
        for number, portion in enumerate(self._portions):
            if number % HEARTBEAT_INTERVAL == self._ticks % HEARTBEAT_INTERVAL:  # in turn, not all at once
                self._send(frame, [each for each in portion if each.dialect.heartbeat])

    def _ping(self) -> None:
        """Ping the portion whose turn it is."""
        connections = list(self._portions[self._ticks % len(self._portions)])
        if not connections:
            return
        for connection in connections:
            connection.alive = False
            self.watch_expiry(connection)
        # An answer must be there before the next ping asks again.
        deadline = min(conf.option("PING_TIMEOUT"), len(self._portions))
        self._pinged.setdefault(self._ticks + deadline, []).extend(connections)
        for connection in connections:
            self._send(PING + encode_ping(connection.dialect), [connection])

    def watch_expiry(self, connection: Connection) -> None:
        """Look at ``visitor.expires``, which has just been set; ends far away are looked at again with the pings."""
        expires = connection.visitor.expires
        if expires is not None and expires <= time.time() + len(self._portions) * TICK:
            self._expiring.add(connection)

    def _expire(self) -> None:
        now = time.time()
        due = [each for each in self._expiring if (each.visitor.expires or now) <= now]
        if due:
            self._expiring = {each for each in self._expiring.difference(due) if each.open}
            self._expired([each for each in due if each.open])

    def _send(self, frame: bytes, connections: Iterable[Connection]) -> None:
        for connection in connections:
            if connection.enqueue(frame):
                self._flush_one(connection)
