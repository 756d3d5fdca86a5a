"""Sees to it that messages of a channel with a history are delivered one after another, without gap, or the loss told.

How it works. Each channel that somebody listens to has a :class:`Line`, with the position of the last message that was
delivered. A message that follows it is delivered at once. Any other is a sign that something is missing: the
subscription was interrupted, or Redis lost its data, or another server has become the master. Then what arrives waits,
while what is missing is read from the history and delivered first. Where the history cannot tell what is missing the
loss is told, and the line goes on from the top.

Channels are looked at again when the subscription stands anew, and every ``CHECK_INTERVAL`` seconds: a subscription may
hang on a server that was the master once. Those that are behind at the same time catch up together
(:class:`Catching`), in the order of time.

This module must not know WebSockets.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
from collections.abc import Callable, Collection, Iterable
from time import monotonic
from typing import Any

import gevent
from gevent.event import Event
from redis.exceptions import RedisError

from wsloop import greenlets, metrics
from wsloop.backend import history, pool
from wsloop.backend.history import PAGE_BYTES
from wsloop.delivery.events import BrokerEvents
from wsloop.delivery.merge import Replay
from wsloop.drain import Drain
from wsloop.protocol.messages import Message, Position

logger = logging.getLogger("wsloop.continuity")

CHECK_INTERVAL = 30.0  # seconds between two comparisons of all lines with what Redis has
AT_ONCE = 100  # channels read in one round trip
WAITING_BYTES = 256 * 1024  # what waits on one line; more is thrown away, for it is in the history too
GATHERING = 0.02  # seconds in which lines gather that are read together, when all are subscribed to anew
ROUNDS = 20  # times that all is read again because more came meanwhile than may wait
SETTLING = 2.0  # seconds for which a catch-up waits for those who listen, in all: who is slower has to come back
IN_FLIGHT = 1.0  # seconds after which what Redis has published must have arrived
RETRY = 1.0  # seconds until it is read again, where Redis did not answer though the subscription stands


Waiting = tuple[int, Message, Any]  # which it was of all that arrived, the message, and its origin


class Line:
    """One channel.

    Attributes:
        position: of the last message that was delivered; None: not known yet.
        waiting: messages that wait for what is missing before them; None: nothing is missing.
        dropped: some of them were thrown away.
        known: ids of messages that were read from the history, and are still to arrive.
        ready: set while the position is known.
        subscriptions: how often the channel has been subscribed to: what was read before the last time may be too old.
    """

    __slots__ = ("dropped", "known", "position", "ready", "size", "subscriptions", "waiting")

    def __init__(self) -> None:
        self.position: Position | None = None
        self.waiting: list[Waiting] | None = []
        self.size = 0
        self.dropped = False
        self.known: set[str] = set()
        self.ready = Event()
        self.subscriptions = 0


class Continuity:
    """The channels with a history that this process listens to.

    Args:
        events: is told of messages and losses.
    """

    def __init__(self, events: BrokerEvents) -> None:
        self.events = events
        self._lines: dict[bytes, Line] = {}
        self._new: Drain[bytes] = Drain(self._begin)
        self._due: dict[bytes, None] = {}
        self._behind: Drain[None] = Drain(self._catch_up)
        self._checking: gevent.Greenlet[[], None] | None = None
        self._numbers = itertools.count()

    def watch(self, channel: bytes) -> bool:
        """Begin a line, and tell whether it is a new one. Its position is found out when it is :meth:`subscribed`."""
        new = channel not in self._lines
        if new:
            self._lines[channel] = Line()
        return new

    def forget(self, channel: bytes) -> None:
        """End a line: nobody listens to it any more."""
        self._lines.pop(channel, None)

    def subscribed(self, channel: bytes) -> None:
        """Find out what is missing, now that Redis has acknowledged the subscription (again). Never blocks."""
        line = self._lines.get(channel)
        if line is not None:
            line.subscriptions += 1
            self.read_on(channel, line)  # what has waited is in the history, or from before the gap
            if self._checking is None:
                self._checking = gevent.spawn(self._check)

    def stop(self) -> None:
        """Look at no line by itself any more, until one is subscribed to again."""
        if self._checking is not None:
            self._checking.kill()
            self._checking = None

    def position(self, channel: bytes) -> Position | None:
        """Return where a line stands; None for a channel that is none, or where it is not known."""
        line = self._lines.get(channel)
        return None if line is None else line.position

    def wait(self, channels: Iterable[bytes], timeout: float) -> bool:
        """Wait until the positions of all lines among ``channels`` are known, and tell whether they are."""
        lines = [self._lines[channel] for channel in channels if channel in self._lines]
        return all(line.ready.is_set() or line.ready.wait(timeout) for line in lines)

    def arrived(self, channel: bytes, message: Message, origin: Any) -> None:
        """Take a message from the subscription. Never blocks."""
        line = self._lines.get(channel)
        if line is None or not message.offset:
            # Not kept: published by others, or with another configuration.
            self.events.message(channel, message, origin)
        elif line.waiting is not None:
            self._wait(line, next(self._numbers), message, origin)
        elif line.position is not None and message.follows(line.position):
            if line.known:
                line.known.clear()
            line.position = message.position
            self.events.message(channel, message, origin)
        elif message.id not in line.known and message.position != line.position:
            self.read_on(channel, line, [(next(self._numbers), message, origin)])

    def _wait(self, line: Line, number: int, message: Message, origin: Any) -> None:
        waiting = line.waiting
        assert waiting is not None
        line.size += len(message.payload)
        if line.size > WAITING_BYTES and waiting:
            waiting.clear()
            line.size = len(message.payload)
            line.dropped = True
        waiting.append((number, message, origin))

    def line(self, channel: bytes) -> Line | None:
        """Return the line of a channel."""
        return self._lines.get(channel)

    # What is missing.

    def _begin(self, channels: list[bytes]) -> None:
        self._catch(channels, Catching.begin)

    def _catch_up(self, _: list[None]) -> None:
        gevent.sleep(GATHERING)
        due, self._due = list(self._due), {}
        self._catch(due, Catching.run)

    def _catch(self, channels: list[bytes], work: Callable[[Catching], None]) -> None:
        # One that is waiting stands still. Others have been filled since they were put here.
        waiting = ((channel, self._lines.get(channel)) for channel in channels)
        lines = {channel: line for channel, line in waiting if line is not None and line.waiting is not None}
        names = list(lines)
        for start in range(0, len(names), AT_ONCE):
            group = {channel: lines[channel] for channel in names[start : start + AT_ONCE]}
            try:
                work(Catching(self, group))
            except (RedisError, OSError) as exc:
                # When the subscription breaks as well, they are looked at as soon as it stands again.
                logger.warning("what is missing cannot be read, trying again: %s", exc)
                greenlets.spawn_later(RETRY * random.uniform(0.5, 1.5), self._again, list(group))
            except Exception:
                logger.exception("what is missing cannot be delivered")
                self.events.failed()
                return
            gevent.sleep(0)

    def _again(self, channels: list[bytes]) -> None:
        if self._checking is None:  # stopped
            return
        for channel in channels:
            line = self._lines.get(channel)
            if line is not None and line.waiting is not None:
                self._put(channel, line)

    def _put(self, channel: bytes, line: Line) -> None:
        if line.position is None:
            self._new.put(channel)
        else:
            self._due[channel] = None
            self._behind.put(None)

    def read_on(self, channel: bytes, line: Line, waiting: Iterable[Waiting] = ()) -> None:
        """Have what a line is missing be read, while ``waiting`` and all that arrives waits. Never blocks."""
        line.waiting, line.size, line.dropped = [], 0, False
        for each in waiting:
            self._wait(line, *each)
        self._put(channel, line)

    def _check(self) -> None:
        """Compare all lines with what Redis has, until there are none."""
        while self._lines:
            gevent.sleep(CHECK_INTERVAL * random.uniform(0.8, 1.2))
            greenlets.logged(self._compare)
        self._checking = None

    def _compare(self) -> None:
        suspects = self._differing({each: line for each, line in self._lines.items() if line.waiting is None})
        if suspects:
            gevent.sleep(IN_FLIGHT)
            for channel, (line, position) in suspects.items():
                if self._lines.get(channel) is line and line.waiting is None and line.position == position:
                    self.read_on(channel, line)

    def _differing(self, lines: dict[bytes, Line]) -> dict[bytes, tuple[Line, Position | None]]:
        """Return those lines that do not stand where Redis says, with where they stand."""
        names = list(lines)
        differing = {}
        for start in range(0, len(names), AT_ONCE):
            group = names[start : start + AT_ONCE]
            try:
                pages = history.read(pool.client(), [(channel, None) for channel in group])
            except (RedisError, OSError) as exc:
                logger.debug("positions cannot be compared: %s", exc)  # who needs Redis reports it
                return {}
            for channel, page in zip(group, pages, strict=True):
                position = lines[channel].position
                if page.top != position:
                    differing[channel] = lines[channel], position
        return differing


class Catching:
    """Brings lines from where they stand to the top, together.

    Args:
        continuity: whose lines they are.
        lines: by channel; all of them are waiting.
    """

    def __init__(self, continuity: Continuity, lines: dict[bytes, Line]) -> None:
        self._continuity = continuity
        self._lines = lines
        self._subscriptions = {channel: line.subscriptions for channel, line in lines.items()}
        self._patience = SETTLING
        self._rounds = 0

    def begin(self) -> None:
        """Find out where lines stand of which that is not known yet. Blocks.

        Raises:
            redis.exceptions.RedisError: if Redis does not answer.
        """
        pages = history.read(pool.client(), [(channel, None) for channel in self._lines])
        for channel, page in zip(self._lines, pages, strict=True):
            if self._valid(channel):
                self._lines[channel].position = page.top
        self._finish(self._lines)

    def run(self) -> None:
        """Read and deliver. Blocks.

        Raises:
            redis.exceptions.RedisError: if Redis does not answer.
        """
        since = {channel: line.position for channel, line in self._lines.items() if line.position is not None}
        replay = Replay(pool.client(), since)
        while True:
            if replay.complete:
                if self._covered(replay):
                    break
                replay.read(replay.since)
            else:
                replay.read()
            self._tell_lost(replay)
            messages = replay.take(PAGE_BYTES)
            for channel, message in messages:
                if self._valid(channel):
                    line = self._lines[channel]
                    line.known.add(message.id)
                    line.position = message.position
                    self._continuity.events.message(channel, message, None)
            self._settle({channel for channel, _ in messages})
        # Together, those too of which nothing was missing: a message to several of them must not come in one long
        # before it comes in another, for who is cut in between would get it twice.
        self._finish(replay.since)

    def _covered(self, replay: Replay) -> bool:
        """Tell whether what is left of the histories waits here already."""
        dropped = [line for line in self._lines.values() if line.dropped]
        self._rounds += bool(dropped)
        if dropped and self._rounds < ROUNDS:
            for line in dropped:
                line.dropped = False
            return False
        return replay.at_top or all(self._waits(channel, top) for channel, top in replay.tops.items())

    def _waits(self, channel: bytes, top: Position) -> bool:
        line = self._lines[channel]
        if not self._valid(channel) or line.position is None or line.position.offset >= top.offset:
            return True
        return any(message.follows(line.position) for _, message, _ in line.waiting or ())

    def _valid(self, channel: bytes) -> bool:
        """Tell whether it is still that line, and what was read is not from before a new subscription."""
        line = self._lines[channel]
        return self._continuity.line(channel) is line and line.subscriptions == self._subscriptions[channel]

    def _tell_lost(self, replay: Replay) -> None:
        for channel, top in replay.lost.items():
            if self._valid(channel):
                logger.warning("messages of a channel are lost: Redis does not have what came after the last one")
                metrics.lost("history")
                self._lines[channel].position, self._lines[channel].known = top, set()
                self._continuity.events.lost(channel, top)
        replay.lost.clear()

    def _settle(self, channels: Collection[bytes]) -> None:
        """Let those who listen take it before there is more, or they would be closed; but not for long."""
        began = monotonic()
        self._continuity.events.settle(channels, self._patience)
        self._patience = max(0.0, self._patience - (monotonic() - began))
        gevent.sleep(0)

    def _finish(self, channels: Iterable[bytes]) -> None:
        """Deliver what has waited meanwhile. In one step: nothing yields."""
        waited = []
        tops: dict[bytes, int] = {}
        for channel in filter(self._valid, channels):
            line = self._lines[channel]
            if line.position is None or line.waiting is None:
                continue
            tops[channel] = line.position.offset
            line.ready.set()
            if line.dropped:
                self._continuity.read_on(channel, line)
                continue
            waiting, line.waiting, line.size = line.waiting, None, 0
            waited.append([(number, channel, line, message, origin) for number, message, origin in waiting])
        for number, channel, line, message, origin in heapq.merge(*waited, key=lambda each: each[0]):
            if line.waiting is not None:
                line.waiting.append((number, message, origin))
            elif line.position is not None and message.follows(line.position):
                line.position = message.position
                self._continuity.events.message(channel, message, origin)
            elif message.offset > tops[channel]:
                self._continuity.read_on(channel, line, [(number, message, origin)])
            # Else it is among what was read, or from before, or what comes next will not follow.
