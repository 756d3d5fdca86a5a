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
from wsloop.backend import pool
from wsloop.delivery.broker import Broker, Unavailable
from wsloop.delivery.merge import HistoryMerge
from wsloop.facilities.shared_reading import Answer, SharedReading, page_size
from wsloop.protocol import resume_tokens
from wsloop.protocol.dialects import Dialect
from wsloop.protocol.messages import Message, Position
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub
from wsloop.sockets.joining import InitialFrames, JoinBuffer, Payload

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
        self._present = present
        if self._resume is None:
            self._begin_anew()
            return {}
        if resume_tokens.is_token(self._resume, present, self._groups):
            self.recovered, self.token = True, self._resume
            metrics.recovery(True)
            return present
        since = resume_tokens.read(self._resume, present)
        if since is None:
            self.fail()
            return {}
        self.recovered = True
        metrics.recovery(True)
        since = present | since
        self.token = resume_tokens.token(since, self._groups)
        return since

    def fail(self) -> None:
        """Start anew from the present, because the history does not have all missed messages."""
        self.recovered = False
        metrics.recovery(False)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.token = resume_tokens.token(self._present, self._groups)


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
        self._answer: Answer | None = None  # the first page
        self._merge: HistoryMerge | None = None  # the next ones
        self._since: Mapping[bytes, Position] = {}  # the end of the page, by channel that is recovered
        self._known: set[str] = set()
        self.unfinished = False

    @property
    def remaining(self) -> frozenset[bytes]:
        """The channels for which :meth:`go_on` is to be called."""
        return frozenset(self._channels) if self.unfinished else frozenset()

    @property
    def has_others(self) -> bool:
        """Whether there are channels that have nothing to recover."""
        return len(self._since) < len(set(self._channels))

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
        starts = {part: start for part in self._parts if (start := part.start(positions))}
        # Where the client is as far as this process, which will deliver what follows, there is nothing to read.
        missing = {channel: at for channel, at in _joined(starts).items() if at != positions[channel]}
        if missing:
            self._read(starts, missing)
            level = _joined(starts).keys() - missing.keys()
            if level and (self.unfinished or any(self._broker.position(each) != positions[each] for each in level)):
                # Messages of several channels are sent in the order of time, and those to several audiences once.
                self._read(starts, _joined(starts))
        self._known = {at.id for at in _joined(starts).values()}

    def _read(self, starts: dict[Part, dict[bytes, Position]], since: Mapping[bytes, Position]) -> None:
        """Read the first page from these positions, for the parts that can be recovered; the others are removed."""
        answer = READING.ask(pool.client(), since) if since else None
        lost = [part for part, start in starts.items() if answer and not answer.lost.keys().isdisjoint(start)]
        for part in lost:
            part.fail()
            del starts[part]
        if lost:
            self._read(starts, {channel: at for channel, at in since.items() if channel in _joined(starts)})
            return
        self._answer, self._since = answer, answer.end if answer else {}
        self.unfinished = answer is not None and not answer.complete
        if self.unfinished:
            self._merge = HistoryMerge(pool.client(), self._since, READING.read)
        else:
            self._broker.wait_for(self._since)

    def first_payloads(
        self, joining: JoinBuffer, welcomes: Iterable[bytes] = (), retained: Iterable[tuple[bytes, Message]] = ()
    ) -> list[Payload]:
        """Return the payloads that the subscriptions begin with, in order.

        Args:
            joining: has buffered live messages since :meth:`start` began; if the recovery is unfinished, only the
                channels that have nothing to recover are left in it.
            welcomes: the frames that come first.
            retained: the retained messages of the channels, with their channels.
        """
        if self.unfinished:
            joining.keep([each for each in self._channels if each not in self._since])
            # A channel of two subscriptions twice, as it is counted everywhere.
            self._channels = tuple(each for each in self._channels if each in self._since)
        frames = InitialFrames(self._dialect, self._known)
        frames.payloads += welcomes
        for channel, message in retained:
            frames.add(channel, message, retained=True)
        answer, self._answer = self._answer, None  # it is not kept while a long recovery goes on
        if answer is not None:
            answer.add_to(frames)
        self._add(frames, (), joining)
        return frames.payloads

    def tell(self, connection: Connection) -> None:
        """Tell the connection how far its recovery has come."""
        if self._since:
            connection.catching_up(self._since)

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
            messages = merge.take(page_size())
            self._since = merge.since
            if joining is None or not merge.complete:
                self._add(frames, messages, None)
                self.tell(connection)
                self._hub.send(connection, frames.payloads)
                return False
            self._broker.wait_for(merge.since)
            if not connection.open:
                return False
            if joining.lost:
                raise Unavailable("messages were lost during a recovery")
            self._add(frames, messages, joining)
            self.tell(connection)
            self._hub.enter(joining, connection, frames.payloads)
            return True
        finally:
            if joining is not None:
                self._hub.cancel(joining)

    def _add(
        self, frames: InitialFrames, messages: Iterable[tuple[bytes, Message]], joining: JoinBuffer | None
    ) -> None:
        """Add the page, and after the last page the buffered messages; nothing may yield until it is a subscriber.

        This process has delivered all messages of the page to others (:meth:`Broker.wait_for`), so they can come again
        only from ``joining``. Later messages there were published after the socket had joined.
        """
        for channel, message in messages:
            frames.add(channel, message)
        if joining is not None:
            for channel, message in joining.messages:
                read = self._since.get(channel)
                if read is None or not message.offset or message.offset > read.offset:
                    frames.add(channel, message)


def _joined(starts: Mapping[Part, Mapping[bytes, Position]]) -> dict[bytes, Position]:
    return {channel: at for start in starts.values() for channel, at in start.items()}
