"""Sees to it that messages of a channel with a history are delivered one after another, without gap, or the loss told.

How it works. Each channel that somebody listens to has a :class:`Line`, with the position of the last message that was
delivered. A message that follows it is delivered at once. Any other is a sign that something is missing: the
subscription was interrupted, or Redis lost its data, or another server has become the master. Then what arrives waits,
while what is missing is read from the history and delivered first. Where the history cannot tell what is missing the
loss is told, and the line goes on from the top.

Channels are looked at again when the subscription stands anew, and every ``CHECK_INTERVAL`` seconds: a subscription may
hang on a server that was the master once.

This module must not know WebSockets.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gevent
from gevent.event import Event
from redis.exceptions import RedisError

from wsloop import conf, history, metrics, pool
from wsloop.drain import Drain
from wsloop.messages import Message, Position

logger = logging.getLogger("wsloop.continuity")

CHECK_INTERVAL = 30.0  # seconds between two comparisons of all lines with what Redis has
AT_ONCE = 100  # channels read in one round trip
WAITING_BYTES = 64 * 1024  # what waits on one line; more is thrown away, for it is in the history too
IN_FLIGHT = 1.0  # seconds after which what Redis has published must have arrived
RETRY = 1.0  # seconds until it is read again, where Redis did not answer though the subscription stands


Waiting = tuple[int, Message, Any]  # which it was of all that arrived, the message, and its origin


class Line:
    """One channel.

    Attributes:
        options: of its facility.
        position: of the last message that was delivered; None: not known yet.
        waiting: messages that wait for what is missing before them; None: nothing is missing.
        known: ids of messages that were read from the history, and are still to arrive.
        ready: set while the position is known.
        subscriptions: how often the channel has been subscribed to: what was read before the last time may be too old.
    """

    __slots__ = ("known", "options", "position", "ready", "size", "subscriptions", "waiting")

    def __init__(self, options: conf.Facility) -> None:
        self.options = options
        self.position: Position | None = None
        self.waiting: list[Waiting] | None = []
        self.size = 0
        self.known: set[str] = set()
        self.ready = Event()
        self.subscriptions = 0


class Continuity:
    """The channels with a history that this process listens to.

    Args:
        deliver: called with channel, message and origin, in order; must not block.
        lost: called with a channel whose messages were lost, and the position from which it goes on; must not block.
        failed: called when something unforeseen was raised: what waits is lost.
        settle: called with channels; returns when those who listen have taken what was delivered, as far as they read.
    """

    def __init__(
        self,
        deliver: Callable[[bytes, Message, Any], None],
        lost: Callable[[bytes, Position], None],
        failed: Callable[[], None] = lambda: None,
        settle: Callable[[Sequence[bytes]], None] = lambda channels: None,
    ) -> None:
        self._settle = settle
        self._deliver = deliver
        self._lost = lost
        self._failed = failed
        self._lines: dict[bytes, Line] = {}
        self._behind: Drain[bytes] = Drain(self._catch_up)
        self._checking: gevent.Greenlet[[], None] | None = None
        self._numbers = itertools.count()

    def watch(self, channel: bytes, options: conf.Facility) -> bool:
        """Begin a line, and tell whether it is a new one. Its position is found out when it is :meth:`subscribed`."""
        new = channel not in self._lines
        if new:
            self._lines[channel] = Line(options)
        return new

    def forget(self, channel: bytes) -> None:
        """End a line: nobody listens to it any more."""
        self._lines.pop(channel, None)

    def subscribed(self, channel: bytes) -> None:
        """Find out what is missing, now that Redis has acknowledged the subscription (again). Never blocks."""
        line = self._lines.get(channel)
        if line is not None:
            line.subscriptions += 1
            self._read_on(channel, line)  # what has waited is in the history, or from before the gap
            if self._checking is None:
                self._checking = gevent.spawn(self._check)

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
            self._deliver(channel, message, origin)  # not kept: published by others, or with another configuration
        elif line.waiting is not None:
            self._wait(line, next(self._numbers), message, origin)
        elif line.position is not None and message.follows(line.position):
            if line.known:
                line.known.clear()
            line.position = message.position
            self._deliver(channel, message, origin)
        elif message.id not in line.known and message.position != line.position:
            self._read_on(channel, line, [(next(self._numbers), message, origin)])

    def _wait(self, line: Line, number: int, message: Message, origin: Any) -> None:
        waiting = line.waiting
        assert waiting is not None
        line.size += len(message.payload)
        if line.size > WAITING_BYTES:
            waiting.clear()
            line.size = 0
        else:
            waiting.append((number, message, origin))

    # What is missing.

    def _catch_up(self, channels: list[bytes]) -> None:
        try:
            self._catch_up_with(channels)
        except Exception:
            logger.exception("what is missing cannot be delivered")
            self._failed()

    def _catch_up_with(self, channels: list[bytes]) -> None:
        # One that is waiting stands still. Others have been filled since they were put here.
        waiting = ((channel, self._lines.get(channel)) for channel in channels)
        lines = {channel: line for channel, line in waiting if line is not None and line.waiting is not None}
        names = list(lines)
        for start in range(0, len(names), AT_ONCE):
            group = names[start : start + AT_ONCE]
            before = {channel: lines[channel].subscriptions for channel in group}
            try:
                pages = self._read([(channel, lines[channel]) for channel in group])
            except (RedisError, OSError) as exc:
                # When the subscription breaks as well, they are looked at as soon as it stands again.
                logger.warning("what is missing cannot be read, trying again: %s", exc)
                gevent.spawn_later(RETRY * random.uniform(0.5, 1.5), self._again, group)
                continue
            valid = [each for each in pages if lines[each[0]].subscriptions == before[each[0]]]  # others are read again
            self._fill([(channel, lines[channel], page) for channel, page in valid])
            # Who listens must take it before there is more, or would be closed for being slow.
            self._settle([channel for channel, page in valid if page.entries])
            gevent.sleep(0)

    def _again(self, channels: list[bytes]) -> None:
        for channel in channels:
            if channel in self._lines:
                self._behind.put(channel)

    def _read(self, lines: list[tuple[bytes, Line]], only_top: bool = False) -> list[tuple[bytes, history.Page]]:
        found: list[tuple[bytes, history.Page]] = []
        for options in {line.options for _, line in lines}:
            of_these = [(channel, line) for channel, line in lines if line.options == options]
            group = [(channel, None if only_top else line.position) for channel, line in of_these]
            pages = history.read(pool.client(), group, options)
            found += zip((channel for channel, _ in group), pages, strict=True)
        return found

    def _fill(self, found: list[tuple[bytes, Line, history.Page]]) -> None:
        """Deliver what was missing, and what has waited for it. In one step: nothing yields."""
        present = {channel: (line, page) for channel, line, page in found if self._lines.get(channel) is line}
        for channel, (line, page) in present.items():
            if line.position is None or not page.continuous:
                told, line.position, line.known = line.position is not None, page.top, set()
                if told:
                    logger.warning("messages of a channel are lost: Redis does not have what came after the last one")
                    metrics.lost("history")
                    self._lost(channel, page.top)
        for channel, message in history.merge((channel, page) for channel, (_, page) in present.items()):
            line = present[channel][0]
            line.known.add(message.id)
            line.position = message.position
            self._deliver(channel, message, None)
        waited = []
        for channel, (line, page) in present.items():
            line.ready.set()
            waiting, line.waiting, line.size = line.waiting or [], None, 0
            if line.position is not None and line.position.offset < page.top.offset:
                self._read_on(channel, line, waiting)
            else:
                waited.append([(number, channel, line, message, origin) for number, message, origin in waiting])
        for number, channel, line, message, origin in heapq.merge(*waited, key=lambda each: each[0]):
            if line.waiting is not None:
                self._wait(line, number, message, origin)
            elif line.position is not None and message.follows(line.position):
                line.position = message.position
                self._deliver(channel, message, origin)
            elif message.offset > present[channel][1].top.offset:
                self._read_on(channel, line, [(number, message, origin)])
            # Else it is among what was read, or from before, or what comes next will not follow.

    def _read_on(self, channel: bytes, line: Line, waiting: Iterable[Waiting] = ()) -> None:
        line.waiting, line.size = [], 0
        for each in waiting:
            self._wait(line, *each)
        self._behind.put(channel)

    def _check(self) -> None:
        """Compare all lines with what Redis has, until there are none."""
        while self._lines:
            gevent.sleep(CHECK_INTERVAL * random.uniform(0.8, 1.2))
            suspects = self._differing({each: line for each, line in self._lines.items() if line.waiting is None})
            if suspects:
                gevent.sleep(IN_FLIGHT)
                for channel, (line, position) in suspects.items():
                    if self._lines.get(channel) is line and line.waiting is None and line.position == position:
                        self._read_on(channel, line)
        self._checking = None

    def _differing(self, lines: dict[bytes, Line]) -> dict[bytes, tuple[Line, Position | None]]:
        """Return those lines that do not stand where Redis says, with where they stand."""
        names = list(lines)
        differing = {}
        for start in range(0, len(names), AT_ONCE):
            group = names[start : start + AT_ONCE]
            try:
                pages = self._read([(channel, lines[channel]) for channel in group], only_top=True)
            except (RedisError, OSError) as exc:
                logger.debug("positions cannot be compared: %s", exc)  # who needs Redis reports it
                return {}
            for channel, page in pages:
                position = lines[channel].position
                if page.top != position:
                    differing[channel] = lines[channel], position
        return differing
