"""Sees to it that messages of a channel with a history are delivered one after another, without gap, or the loss told.

How it works. Each channel with a subscriber has a :class:`ChannelState`, with the position of the last message that was
delivered. A message that follows it is delivered at once. Any other is a sign that something is missing: the
subscription was interrupted, or Redis lost its data, or another server has become the master. Then what arrives waits,
while what is missing is read from the history and delivered first. Where the history cannot tell what is missing the
loss is reported, and the channel continues from the top.

Channels are looked at again when the subscription stands anew, and every ``CHECK_INTERVAL`` seconds: a subscription may
hang on a server that was the master once. Those that are behind at the same time catch up together
(:class:`CatchUp`), in the order of time.

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
from wsloop.batch_queue import BatchQueue
from wsloop.delivery.events import BrokerEvents
from wsloop.delivery.merge import HistoryMerge
from wsloop.protocol.messages import Message, Position

logger = logging.getLogger("wsloop.continuity")

CHECK_INTERVAL = 30.0  # seconds between two comparisons of all channels with what Redis has
AT_ONCE = 100  # channels read in one round trip
WAITING_BYTES = 256 * 1024  # that may wait in one channel; more is dropped, because the history has it too
GATHERING = 0.02  # seconds in which channels gather that are read together, after all were subscribed to anew
ROUNDS = 20  # times that all is read again because more came meanwhile than may wait
SETTLING = 2.0  # seconds for which a catch-up waits for those who listen, in all: who is slower has to come back
IN_FLIGHT = 1.0  # seconds after which what Redis has published must have arrived
RETRY = 1.0  # seconds until it is read again, where Redis did not answer though the subscription stands


Waiting = tuple[int, Message, Any]  # which it was of all that arrived, the message, and its origin


class ChannelState:
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


class GaplessDelivery:
    """The channels with a history that this process listens to.

    Args:
        events: is told of messages and losses.
    """

    def __init__(self, events: BrokerEvents) -> None:
        self.events = events
        self._channels: dict[bytes, ChannelState] = {}
        self._new: BatchQueue[bytes] = BatchQueue(self._begin)
        self._due: dict[bytes, None] = {}
        self._behind: BatchQueue[None] = BatchQueue(self._catch_up)
        self._checking: gevent.Greenlet[[], None] | None = None
        self._numbers = itertools.count()

    def watch(self, channel: bytes) -> bool:
        """Track a channel, and return whether it is a new one. :meth:`subscribed` finds its position out."""
        new = channel not in self._channels
        if new:
            self._channels[channel] = ChannelState()
        return new

    def forget(self, channel: bytes) -> None:
        """Track a channel no longer: it has no subscriber any more."""
        self._channels.pop(channel, None)

    def subscribed(self, channel: bytes) -> None:
        """Find out what is missing, now that Redis has acknowledged the subscription (again). Never blocks."""
        state = self._channels.get(channel)
        if state is not None:
            state.subscriptions += 1
            self.start_catch_up(channel, state)  # what has waited is in the history, or from before the gap
            if self._checking is None:
                self._checking = gevent.spawn(self._check)

    def stop(self) -> None:
        """Compare no channel by itself any more, until one is subscribed to again."""
        if self._checking is not None:
            self._checking.kill()
            self._checking = None

    def position(self, channel: bytes) -> Position | None:
        """Return the position of a channel; None if the channel is not tracked, or its position is not known."""
        state = self._channels.get(channel)
        return None if state is None else state.position

    def wait(self, channels: Iterable[bytes], timeout: float) -> bool:
        """Wait until the positions of all tracked ``channels`` are known, and return whether they are."""
        states = [self._channels[channel] for channel in channels if channel in self._channels]
        return all(state.ready.is_set() or state.ready.wait(timeout) for state in states)

    def arrived(self, channel: bytes, message: Message, origin: Any) -> None:
        """Take a message from the subscription. Never blocks."""
        state = self._channels.get(channel)
        if state is None or not message.offset:
            # Not kept: published by others, or with another configuration.
            self.events.message(channel, message, origin)
        elif state.waiting is not None:
            self._wait(state, next(self._numbers), message, origin)
        elif state.position is not None and message.follows(state.position):
            if state.known:
                state.known.clear()
            state.position = message.position
            self.events.message(channel, message, origin)
        elif message.id not in state.known and message.position != state.position:
            self.start_catch_up(channel, state, [(next(self._numbers), message, origin)])

    def _wait(self, state: ChannelState, number: int, message: Message, origin: Any) -> None:
        waiting = state.waiting
        assert waiting is not None
        state.size += len(message.payload)
        if state.size > WAITING_BYTES and waiting:
            waiting.clear()
            state.size = len(message.payload)
            state.dropped = True
        waiting.append((number, message, origin))

    def state(self, channel: bytes) -> ChannelState | None:
        """Return the state of a channel."""
        return self._channels.get(channel)

    # What is missing.

    def _begin(self, channels: list[bytes]) -> None:
        self._catch(channels, CatchUp.begin)

    def _catch_up(self, _: list[None]) -> None:
        gevent.sleep(GATHERING)
        due, self._due = list(self._due), {}
        self._catch(due, CatchUp.run)

    def _catch(self, channels: list[bytes], work: Callable[[CatchUp], None]) -> None:
        # One that is waiting stands still. Others have been filled since they were put here.
        waiting = ((channel, self._channels.get(channel)) for channel in channels)
        states = {channel: state for channel, state in waiting if state is not None and state.waiting is not None}
        names = list(states)
        for start in range(0, len(names), AT_ONCE):
            group = {channel: states[channel] for channel in names[start : start + AT_ONCE]}
            try:
                work(CatchUp(self, group))
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
            state = self._channels.get(channel)
            if state is not None and state.waiting is not None:
                self._put(channel, state)

    def _put(self, channel: bytes, state: ChannelState) -> None:
        if state.position is None:
            self._new.put(channel)
        else:
            self._due[channel] = None
            self._behind.put(None)

    def start_catch_up(self, channel: bytes, state: ChannelState, waiting: Iterable[Waiting] = ()) -> None:
        """Have a channel's missing messages read, while ``waiting`` and all that arrives waits. Never blocks."""
        state.waiting, state.size, state.dropped = [], 0, False
        for each in waiting:
            self._wait(state, *each)
        self._put(channel, state)

    def _check(self) -> None:
        """Compare all channels with what Redis has, until there are none."""
        while self._channels:
            gevent.sleep(CHECK_INTERVAL * random.uniform(0.8, 1.2))
            greenlets.logged(self._compare)
        self._checking = None

    def _compare(self) -> None:
        suspects = self._differing({each: state for each, state in self._channels.items() if state.waiting is None})
        if suspects:
            gevent.sleep(IN_FLIGHT)
            for channel, (state, position) in suspects.items():
                if self._channels.get(channel) is state and state.waiting is None and state.position == position:
                    self.start_catch_up(channel, state)

    def _differing(self, states: dict[bytes, ChannelState]) -> dict[bytes, tuple[ChannelState, Position | None]]:
        """Return the channels whose position differs from that in Redis, with their state and position."""
        names = list(states)
        differing = {}
        for start in range(0, len(names), AT_ONCE):
            group = names[start : start + AT_ONCE]
            try:
                pages = history.read(pool.client(), [(channel, None) for channel in group])
            except (RedisError, OSError) as exc:
                logger.debug("positions cannot be compared: %s", exc)  # who needs Redis reports it
                return {}
            for channel, page in zip(group, pages, strict=True):
                position = states[channel].position
                if page.top != position:
                    differing[channel] = states[channel], position
        return differing


class CatchUp:
    """Brings channels from their positions to the top of their histories, together.

    Args:
        gapless: whose channels they are.
        states: by channel; all of them are waiting.
    """

    def __init__(self, gapless: GaplessDelivery, states: dict[bytes, ChannelState]) -> None:
        self._gapless = gapless
        self._states = states
        self._subscriptions = {channel: state.subscriptions for channel, state in states.items()}
        self._patience = SETTLING
        self._rounds = 0

    def begin(self) -> None:
        """Find out the positions that are not known yet. Blocks.

        Raises:
            redis.exceptions.RedisError: if Redis does not answer.
        """
        pages = history.read(pool.client(), [(channel, None) for channel in self._states])
        for channel, page in zip(self._states, pages, strict=True):
            if self._valid(channel):
                self._states[channel].position = page.top
        self._finish(self._states)

    def run(self) -> None:
        """Read and deliver. Blocks.

        Raises:
            redis.exceptions.RedisError: if Redis does not answer.
        """
        since = {channel: state.position for channel, state in self._states.items() if state.position is not None}
        merge = HistoryMerge(pool.client(), since)
        while True:
            if merge.complete:
                if self._covered(merge):
                    break
                merge.read(merge.since)
            else:
                merge.read()
            self._tell_lost(merge)
            messages = merge.take(PAGE_BYTES)
            for channel, message in messages:
                if self._valid(channel):
                    state = self._states[channel]
                    state.known.add(message.id)
                    state.position = message.position
                    self._gapless.events.message(channel, message, None)
            self._settle({channel for channel, _ in messages})
        # Together, those too of which nothing was missing: a message to several of them must not come in one long
        # before it comes in another, for who is cut in between would get it twice.
        self._finish(merge.since)

    def _covered(self, merge: HistoryMerge) -> bool:
        """Tell whether what is left of the histories waits here already."""
        dropped = [state for state in self._states.values() if state.dropped]
        self._rounds += bool(dropped)
        if dropped and self._rounds < ROUNDS:
            for state in dropped:
                state.dropped = False
            return False
        return merge.at_top or all(self._waits(channel, top) for channel, top in merge.tops.items())

    def _waits(self, channel: bytes, top: Position) -> bool:
        state = self._states[channel]
        if not self._valid(channel) or state.position is None or state.position.offset >= top.offset:
            return True
        return any(message.follows(state.position) for _, message, _ in state.waiting or ())

    def _valid(self, channel: bytes) -> bool:
        """Return whether the state is still current, and what was read is not from before a new subscription."""
        state = self._states[channel]
        return self._gapless.state(channel) is state and state.subscriptions == self._subscriptions[channel]

    def _tell_lost(self, merge: HistoryMerge) -> None:
        for channel, top in merge.lost.items():
            if self._valid(channel):
                logger.warning("messages of a channel are lost: Redis does not have what came after the last one")
                metrics.lost("history")
                self._states[channel].position, self._states[channel].known = top, set()
                self._gapless.events.lost(channel, top)
        merge.lost.clear()

    def _settle(self, channels: Collection[bytes]) -> None:
        """Let those who listen take it before there is more, or they would be closed; but not for long."""
        began = monotonic()
        self._gapless.events.wait_for_room(channels, self._patience)
        self._patience = max(0.0, self._patience - (monotonic() - began))
        gevent.sleep(0)

    def _finish(self, channels: Iterable[bytes]) -> None:
        """Deliver what has waited meanwhile. In one step: nothing yields."""
        waited = []
        tops: dict[bytes, int] = {}
        for channel in filter(self._valid, channels):
            state = self._states[channel]
            if state.position is None or state.waiting is None:
                continue
            tops[channel] = state.position.offset
            state.ready.set()
            if state.dropped:
                self._gapless.start_catch_up(channel, state)
                continue
            waiting, state.waiting, state.size = state.waiting, None, 0
            waited.append([(number, channel, state, message, origin) for number, message, origin in waiting])
        for number, channel, state, message, origin in heapq.merge(*waited, key=lambda each: each[0]):
            if state.waiting is not None:
                state.waiting.append((number, message, origin))
            elif state.position is not None and message.follows(state.position):
                state.position = message.position
                self._gapless.events.message(channel, message, origin)
            elif message.offset > tops[channel]:
                self._gapless.start_catch_up(channel, state, [(number, message, origin)])
            # Else it is among what was read, or from before, or what comes next will not follow.
