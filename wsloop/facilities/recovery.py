"""Recovery: a socket gets the messages that it missed before live ones, without gap or duplicate.

How it works. While live messages of its channels are already being buffered for the socket (*joining*, see ``hub``),
the histories are read from the client's positions. The two overlap, and so do the history and the messages that the
subscription has yet to deliver; offsets tell which are the same. The missed messages may be more than a socket should
hold at once; then the first page goes out at once, and the next pages follow as the client takes them. Live messages of
these channels are buffered again only for the last page, so a long recovery costs no memory; of other channels the
socket is a subscriber from the beginning.

This module must not know HTTP, nor the sockets of the operating system.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import gevent

from wsloop import conf, metrics
from wsloop.backend import history, pool
from wsloop.delivery.broker import Broker, Unavailable
from wsloop.delivery.merge import HistoryMerge
from wsloop.facilities.shared_reading import SharedReading
from wsloop.protocol import resume_tokens
from wsloop.protocol.dialects import Dialect
from wsloop.protocol.messages import Message, Position
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub
from wsloop.sockets.joining import InitialFrames, JoinBuffer

READING = SharedReading()


class Part:
    """The part of one subscription in a recovery.

    Args:
        channels: of the subscription.
        options: of its facility.
        resume: the client's positions; None if it sent none.
        groups: whether it listens to the user's groups, including those that the user joins later.

    Attributes:
        token: with which the client resumes later; None: the facility has no recovery.
        recovered: whether all missed messages follow; None: there is nothing to recover.
        wants_retained: whether to send the retained messages, which is so for a client without positions.
    """

    def __init__(
        self, channels: Sequence[bytes], options: conf.Facility, resume: str | None = None, groups: bool = False
    ) -> None:
        self.channels = tuple(channels)
        self.token: str | None = None
        self.recovered: bool | None = None
        self.wants_retained = resume is None
        self.options = options
        self._resume = resume
        self._groups = groups

    def start(self, positions: Mapping[bytes, Position | None]) -> dict[bytes, Position]:
        """Determine the client's positions.

        Args:
            positions: those of this process, by channel.

        Returns:
            empty if there is nothing to recover.
        """
        present = {each: at for each in self.channels if (at := positions[each]) is not None}
        if not self.options.recovers or not present:
            return {}
        self.token = resume_tokens.token(present, self._groups)
        if self._resume is None:
            return {}
        since = resume_tokens.read(self._resume, present)
        self.recovered = since is not None
        metrics.recovery(self.recovered)
        if since is None:
            return {}
        since = present | since
        self._anew, self.token = self.token, resume_tokens.token(since, self._groups)
        return since

    def fail(self) -> None:
        """Start anew from the present, because the history does not have all missed messages."""
        self.recovered, self.token = False, self._anew


class Recovery:
    """Brings some subscriptions of one socket from the client's positions to the present, in the order of time.

    Args:
        hub: of the process.
        broker: of the process; already subscribed to the channels.
        dialect: of the socket.
        parts: the subscriptions.

    Attributes:
        unfinished: whether there is more to recover than may be sent at once; then call :meth:`go_on`.
    """

    def __init__(self, hub: Hub, broker: Broker, dialect: Dialect, parts: Sequence[Part]) -> None:
        self._hub = hub
        self._broker = broker
        self._dialect = dialect
        self._parts = parts
        self._channels = tuple(channel for part in parts for channel in part.channels)
        self._latest_only = {each for part in parts if part.options.latest_only for each in part.channels}
        self._merge: HistoryMerge | None = None
        self._messages: list[tuple[bytes, Message]] = []  # to be sent next
        self._known: set[str] = set()
        self.unfinished = False

    @property
    def remaining(self) -> frozenset[bytes]:
        """The channels for which :meth:`go_on` is to be called."""
        return frozenset(self._channels) if self.unfinished else frozenset()

    @property
    def has_others(self) -> bool:
        """Whether there are channels that have nothing to recover."""
        return self._merge is None or len(self._merge.since) < len(set(self._channels))

    def join(self) -> JoinBuffer:
        """Begin to buffer live messages for the socket."""
        return self._hub.join(self._channels, self._latest_only)

    def start(self) -> None:
        """Determine the client's positions, from the moment that live messages are buffered for it, and read a page.

        Raises:
            redis.exceptions.RedisError: if Redis does not answer.
            Unavailable: if this process does not catch up with the client in time.
        """
        positions = {channel: self._broker.position(channel) for channel in self._channels}
        starts = {part: part.start(positions) for part in self._parts}
        since = {channel: at for start in starts.values() for channel, at in start.items()}
        if not since:
            return
        merge = HistoryMerge(pool.client(), since, READING.read)
        merge.read()
        for part, start in starts.items():
            if not merge.lost.keys().isdisjoint(start):
                part.fail()
                merge.remove(start)
                metrics.recovery(False)
        self._known = {at.id for part, start in starts.items() if part.recovered for at in start.values()}
        self._merge = merge
        self._messages = merge.take(_page_size())
        self.unfinished = not merge.complete
        if not self.unfinished:
            self._broker.wait_for(merge.since)

    def first_payloads(
        self, joining: JoinBuffer, welcomes: Iterable[bytes] = (), retained: Iterable[tuple[bytes, Message]] = ()
    ) -> list[bytes]:
        """Return the payloads that the subscriptions begin with, in order.

        Args:
            joining: has buffered live messages since :meth:`start` began; if the recovery is unfinished, only the
                channels that have nothing to recover are left in it.
            welcomes: the frames that come first.
            retained: the retained messages of the channels, with their channels.
        """
        if self.unfinished and self._merge is not None:
            joining.keep([each for each in self._channels if each not in self._merge.since])
            # A channel of two subscriptions twice, as it is counted everywhere.
            self._channels = tuple(each for each in self._channels if each in self._merge.since)
        frames = InitialFrames(self._dialect, self._known)
        frames.texts += welcomes
        for channel, message in retained:
            frames.add(channel, message, retained=True)
        self._add(frames, joining)
        return frames.texts

    def tell(self, connection: Connection) -> None:
        """Tell the connection how far its recovery has come."""
        if self._merge is not None:
            connection.catching_up(self._merge.since)

    def go_on(self, connection: Connection) -> None:
        """Send one page after another, as the client takes them, until it is a subscriber. Blocks.

        Raises:
            redis.exceptions.RedisError, OSError, Unavailable: if it is interrupted, because messages cannot be read.
        """
        entered = False
        try:
            while not entered:
                self._hub.wait_until_clear(connection)
                if not connection.open:
                    return
                entered = self._step(connection)
        finally:
            if not entered:
                self._broker.unsubscribe(self._channels)

    def _step(self, connection: Connection) -> bool:
        """Send the next page, and return whether it was the last one and the client is a subscriber now."""
        merge = self._merge
        assert merge is not None
        # Live messages are buffered only for a page that may be the last one.
        joining = self.join() if merge.complete else None
        try:
            merge.read(merge.since if joining else None)
            gevent.sleep(0)  # greenlets that wait for the connection get it before the next page
            frames = InitialFrames(self._dialect, self._known)
            for channel, position in merge.lost.items():  # trimmed meanwhile: the client is too slow for this history
                frames.add_text(self._dialect.lost(channel, position))
            merge.lost.clear()
            self._messages = merge.take(_page_size())
            if joining is None or not merge.complete:
                self._add(frames, None)
                self.tell(connection)
                self._hub.send(connection, frames.texts)
                return False
            self._broker.wait_for(merge.since)
            if not connection.open:
                return False
            if joining.lost:
                raise Unavailable("messages were lost during a recovery")
            self._add(frames, joining)
            self.tell(connection)
            self._hub.enter(joining, connection, frames.texts)
            return True
        finally:
            if joining is not None:
                self._hub.cancel(joining)

    def _add(self, frames: InitialFrames, joining: JoinBuffer | None) -> None:
        """Add the page, and after the last page the buffered messages; nothing may yield until it is a subscriber.

        This process has delivered all messages of the page to others (:meth:`Broker.wait_for`), so they can come again
        only from ``joining``. Later messages there were published after the socket had joined.
        """
        messages, self._messages = self._messages, []
        for channel, message in messages:
            frames.add(channel, message)
        if joining is not None:
            since = {} if self._merge is None else self._merge.since
            for channel, message in joining.messages:
                read = since.get(channel)
                if read is None or not message.offset or message.offset > read.offset:
                    frames.add(channel, message)


def _page_size() -> int:
    return min(history.PAGE_BYTES, int(conf.option("MAX_QUEUED_BYTES")) // 4)
