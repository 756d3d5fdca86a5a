"""Which connections listen to which channel, and the fan-out: frame once, queue for all, write once per loop turn. A
little longer than other modules, because the way of a message is best read together.

How it works. A socket that is being set up *joins*: messages on its channels are buffered until they can be written.
Then :meth:`Hub.enter` makes it a subscriber, together with the buffered messages, in one step of the event loop, so
that no message is lost, doubled or overtaken in between. :meth:`Hub.deliver` encodes a message into one frame and gives
the same bytes to every subscriber; connections with new output are flushed together when the event loop gets its turn,
so that everything that one turn brings to a socket leaves in one write. If that takes longer than :data:`SLICE`, the
rest follows in the next turn, behind pages and other sockets; what is published meanwhile waits behind it, in the
queues of the connections. Consecutive messages of a channel are held back and joined once for all subscribers
(:mod:`wsloop.sockets.run`), until the turn ends or anything else touches the output or the subscribers of a connection.
If there is nothing else to write, they are queued for one connection after the other, each just before its flush.

Nothing here blocks, but for two methods that say so. This module must not know Redis or HTTP.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from time import monotonic
from typing import Any

import gevent
from gevent.event import Event

from wsloop import conf, metrics
from wsloop.greenlets import log, logged
from wsloop.metrics import TRAFFIC
from wsloop.protocol.close_codes import TOO_SLOW
from wsloop.protocol.dialects import DIALECTS, Dialect
from wsloop.protocol.events import EVENT_DIALECTS
from wsloop.protocol.messages import Message, Position
from wsloop.sockets.admission import Admission, Seat
from wsloop.sockets.census import Census
from wsloop.sockets.connection import Connection
from wsloop.sockets.heartbeat import Heartbeat
from wsloop.sockets.index import Index
from wsloop.sockets.joining import JoinBuffer, Payload, SharedPayloads
from wsloop.sockets.output import UNSETTLED, settle
from wsloop.sockets.run import Run

SLICE = 0.002  # seconds that flushing may take of a turn of the event loop
BREATH = 1e-6  # seconds until it goes on; see wsloop.fair_scheduler
MOST_MULTI_AUDIENCE = 20_000  # channels remembered for messages to several of them, until all have come


class Hub:
    """The connections of this process. A long class: see the module.

    Args:
        left: called with a connection that takes no more messages.
        expired: called with connections whose session or token ends about now.

    Attributes:
        admission: how many there are, and whose.
        census: how many there are of which kind.
        heartbeat: pings and ends them in time.
        clock_offset: seconds by which the clock of Redis is ahead of that of this process.
    """

    def __init__(
        self,
        left: Callable[[Connection], None],
        expired: Callable[[list[Connection]], None] = lambda connections: None,
    ) -> None:
        self._left = left
        self.admission = Admission()
        self.census = Census()
        self.heartbeat = Heartbeat(self._send, expired)
        self.pausing = self.heartbeat.pausing
        self._subscribers: dict[Dialect, Index[bytes]] = {
            dialect: Index() for dialect in (*DIALECTS.values(), *EVENT_DIALECTS.values())
        }
        self._latest_only: set[bytes] = set()  # channels of which a slow client gets the latest message only
        # The channels on which a message to several of them has come, by its id.
        self._multi_audience: collections.OrderedDict[str, set[bytes]] = collections.OrderedDict()
        self._multi_audience_size = 0
        self._draining: dict[Connection, Event] = {}
        self._joining: set[JoinBuffer] = set()
        self._dirty: list[Connection] = []
        self._run = Run()
        self._published: list[int] = []  # when the messages of this turn were, as far as that is known
        # Those that are being flushed, and the times of their messages.
        self._batch: Iterator[Connection] = iter(())
        self._unqueued: Iterator[Connection] = iter(())  # the same, if their messages are queued on the way
        self._batch_published: list[int] = []
        self.clock_offset = 0.0
        self._compress_from = conf.compress_from()
        self._loop: Any = gevent.get_hub().loop
        self._rest_timer: Any = self._loop.timer(BREATH)

    def __len__(self) -> int:
        """Return how many connections there are, closing ones included."""
        return len(self.heartbeat)

    @property
    def connections(self) -> set[Connection]:
        """The open connections."""
        return self.heartbeat.connections

    # The way of a connection.

    def join(self, channels: Iterable[bytes], latest_only: Collection[bytes] = ()) -> JoinBuffer:
        """Begin to buffer messages on ``channels``, until :meth:`enter` or :meth:`cancel`.

        Args:
            channels: of the subscriptions that are being made.
            latest_only: those of them of which a slow client gets the latest message only.
        """
        joining = JoinBuffer(channels, conf.option("MAX_QUEUED_BYTES"), latest_only)
        self._joining.add(joining)
        return joining

    def cancel(self, joining: JoinBuffer) -> None:
        """Buffer no longer; the socket was not opened. May be called again."""
        self._joining.discard(joining)

    def open(self, connection: Connection, seat: Seat) -> None:
        """Take charge of a connection, which has no channels yet, and begin to read it. Nothing yields."""
        self.admission.occupy(seat, connection)
        self.census.opened(connection.labels)
        self.heartbeat.add(connection)
        connection.start()

    def enter(self, joining: JoinBuffer, connection: Connection, first: Iterable[Payload]) -> None:
        """Make an open connection a subscriber of the channels, after writing ``first`` to it. Nothing yields."""
        settle()
        self._joining.discard(joining)
        connection.channels += joining.channels
        self._latest_only.update(joining.latest_only)
        self.census.subscribed(connection.dialect.name, joining.channels)
        for channel in joining.channels:
            self._subscribers[connection.dialect].add(channel, connection)
        self.send(connection, first)
        if joining.too_much:
            metrics.reached("MAX_QUEUED_BYTES")
            connection.close(TOO_SLOW, "more was published than a new connection can hold")

    def exit(self, connection: Connection, channels: Iterable[bytes]) -> None:
        """Reverse :meth:`enter` for some channels of an open connection. Nothing yields."""
        remaining = list(connection.channels)
        for channel in channels:
            remaining.remove(channel)
        connection.channels = tuple(remaining)
        self.census.unsubscribed(connection.dialect.name, channels)
        self._forget(connection, set(channels).difference(remaining))

    def closing(self, connection: Connection) -> None:
        """Forget a connection that takes no more messages; it counts for its visitor until it has ended."""
        if self.heartbeat.closing(connection):
            self._leave(connection)

    def closed(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        was_open, known = self.heartbeat.remove(connection)
        if was_open:
            self._leave(connection)
        if known:
            metrics.closed(connection.close_code)
            self.admission.vacate(connection)

    def _leave(self, connection: Connection) -> None:
        self.census.left(connection.labels)
        self.census.unsubscribed(connection.dialect.name, connection.channels)
        self._forget(connection, dict.fromkeys(connection.channels))
        self.drained(connection)
        self._left(connection)

    def _forget(self, connection: Connection, channels: Iterable[bytes]) -> None:
        settle()
        for channel in channels:
            self._subscribers[connection.dialect].remove(channel, connection)
            if channel in self._latest_only and not any(index[channel] for index in self._subscribers.values()):
                self._latest_only.discard(channel)

    # The way of a message.

    def deliver(self, channel: bytes, message: Message, origin: Connection | None = None) -> None:
        """Send a message to every subscriber of ``channel``. Called in the order of Redis.

        Args:
            channel: on which the message came.
            message: from Redis.
            origin: the connection of this process that published it, for echo suppression: it gets the message marked
                as its own, or not at all in a dialect without such a mark; None: nobody in particular.
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
        plain = origin is None and not message.multi_audience and channel not in self._latest_only
        if plain and len(message.payload) < self._compress_from:
            self._hold_back(channel, message)
            return
        settle()
        first, count = not self._dirty, 0
        latest = channel if channel in self._latest_only else None
        for dialect, index in self._subscribers.items():
            subscribers = index[channel]
            if not subscribers:
                continue
            if before:
                known = [
                    each for each in subscribers if not ((latest and each.lagging) or before.isdisjoint(each.channels))
                ]
                if known:
                    subscribers = set(subscribers).difference(known)
                    # Under a name of its own: it must not replace a message that is not read yet.
                    self._enqueue(dialect, latest and latest + b"\0position", dialect.position(channel, message), known)
            if origin is not None and origin in subscribers:
                subscribers = [each for each in subscribers if each is not origin]
                if dialect.has_envelopes:
                    self._enqueue(dialect, latest, dialect.message(channel, message, own=True), [origin])
                    count += 1
            self._enqueue(dialect, latest, dialect.message(channel, message), subscribers)
            count += len(subscribers)
        before.add(channel)
        if first and self._dirty:
            self._flush_soon()
        if count:
            TRAFFIC.messages_out += count
            self.census.delivered(channel, count)
            if message.time and self._dirty:
                self._published.append(message.time)

    def _hold_back(self, channel: bytes, message: Message) -> None:
        """Deliver a message together with those of the same channel that follow it at once, as one piece of output."""
        run = self._run
        if run.channel != channel or run.is_long:
            settle()
            run.begin(channel, self._subscribers)
            if not run.parts:
                return
            UNSETTLED.append(self._settle)
            if not self._dirty:
                self._flush_soon()
        count = 0
        for dialect, subscribers, frames in run.parts:
            payload = dialect.message(channel, message)
            if payload is not None:
                frame = dialect.encode(payload)
                frames.append(frame)
                run.size += len(frame)
                count += len(subscribers)
                TRAFFIC.bytes_out += len(frame) * len(subscribers)
        if count:
            TRAFFIC.messages_out += count
            self.census.delivered(channel, count)
            if message.time:
                self._published.append(message.time)

    def _settle(self) -> None:
        """Queue the messages that are held back: of what is being flushed, then of the run."""
        rest = list(self._unqueued)
        if rest:
            self._dirty += rest
            self._published, self._batch_published = self._batch_published + self._published, []
        self._dirty += self._run.take()

    def count_subscribers(self, channels: Iterable[bytes]) -> int:
        """Return how many connections are subscribers of one or several of these channels."""
        indexes = self._subscribers.values()
        return len({each for channel in channels for index in indexes for each in index[channel]})

    def lost(self, channel: bytes, position: Position) -> None:
        """Report to every subscriber of ``channel`` that messages are lost, and from which position it continues."""
        for joining in self._joining:
            joining.lost = joining.lost or channel in joining.channels
        for dialect, index in self._subscribers.items():
            text = dialect.lost(channel, position)
            if text is not None:
                self._send(dialect.encode(text), list(index[channel]))

    def _enqueue(
        self, dialect: Dialect, latest: bytes | None, payload: bytes | None, connections: Collection[Connection]
    ) -> None:
        """Queue a message, encoded once for all connections with the same compression; see :meth:`Output.enqueue`."""
        if not connections or payload is None:
            return
        frame = dialect.encode(payload)
        compressible = len(payload) >= self._compress_from
        frames = {0: frame}
        dirty = self._dirty
        TRAFFIC.bytes_out += 0 if compressible else len(frame) * len(connections)
        for connection in connections:
            if compressible:
                bits = connection.window_bits
                if bits not in frames:
                    frames[bits] = dialect.encode(payload, bits)
                frame = frames[bits]
                TRAFFIC.bytes_out += len(frame)
            if connection.enqueue(frame, latest):
                dirty.append(connection)

    def close_all(self, code: int, reason: str) -> None:
        """Begin to close every connection."""
        for connection in list(self.connections):
            connection.close(code, reason)

    def enqueue(self, connection: Connection, frame: bytes) -> None:
        """Queue a frame for one connection; it leaves together with all other output of this turn of the loop."""
        TRAFFIC.sent(1, len(frame))
        if connection.enqueue(frame):
            if not self._dirty:
                self._flush_soon()
            self._dirty.append(connection)

    def send(self, connection: Connection, payloads: Iterable[Payload]) -> None:
        """Send payloads to one connection at once."""
        encoded, count = [], 0
        for payload in payloads:
            if isinstance(payload, SharedPayloads):
                encoded.append(payload.frames(connection))
                count += len(payload)
            else:
                encoded.append(connection.frame(payload))
                count += 1
        frames = b"".join(encoded)
        TRAFFIC.sent(count, len(frames))
        # As one frame: several retained messages do not make a client a slow one.
        if frames and connection.enqueue(frames):
            connection.flush()

    def _flush_soon(self) -> None:
        """Have the event loop flush what is dirty from now on."""
        if not self._rest_timer.active:
            self._loop.run_callback(self._flush)

    def _flush(self) -> None:
        end = monotonic() + SLICE
        while True:
            for connection in self._batch:
                try:
                    connection.flush()
                except Exception as exc:
                    self._failed(connection, exc)
                if monotonic() >= end:
                    self._rest_timer.start(self._flush)
                    return
            if self._batch_published:
                now = time.time() + self.clock_offset
                for each in self._batch_published:
                    metrics.DELIVERY.observe(max(0.0, now - each / 1e6))
            self._batch_published = []
            if self._dirty:
                settle()
                self._batch, self._dirty = iter(self._dirty), []
            elif self._run.parts:
                # Nothing else waits: each socket is touched once, its messages queued and flushed.
                self._batch = self._unqueued = self._run.take()
            else:
                return
            self._batch_published, self._published = self._published, []

    @staticmethod
    def _failed(connection: Connection, exc: Exception) -> None:
        """End a connection that cannot be flushed, so that the others still get their messages."""
        log(connection.flush, exc)
        logged(connection.abort)  # else nothing would be flushed any more: the rest would wait for this one

    def _send(self, frame: bytes, connections: Iterable[Connection]) -> None:
        for connection in connections:
            if connection.enqueue(frame):
                try:
                    connection.flush()
                except Exception as exc:
                    self._failed(connection, exc)

    # Room in the output of connections.

    def clearing(self, connection: Connection) -> Event:
        """Flush, and return what is set when the kernel has taken all output of a connection, or it has ended."""
        settle()
        connection.flush()
        if connection.open and not connection.clear:
            return self._draining.setdefault(connection, Event())
        event = Event()
        event.set()
        return event

    def wait_until_clear(self, connection: Connection) -> None:
        """Return when :meth:`clearing` says so. Blocks."""
        self.clearing(connection).wait()

    def wait_for_room(self, channels: Iterable[bytes], timeout: float) -> None:
        """Return when no subscriber has more than half of what may wait, or after ``timeout`` seconds. Blocks.

        Subscribers that get the latest message only are not waited for.
        """
        settle()
        subscribers = {
            each
            for channel in set(channels) - self._latest_only
            for index in self._subscribers.values()
            for each in index[channel]
        }
        with gevent.Timeout(timeout, False):  # type: ignore[arg-type]
            for connection in subscribers:
                connection.flush()
                if connection.queued_bytes > connection.bounds.max_queued_bytes / 2:
                    self.wait_until_clear(connection)

    def drained(self, connection: Connection) -> None:
        """Wake who waits for it, see :meth:`clearing`."""
        event = self._draining.pop(connection, None)
        if event is not None:
            event.set()
