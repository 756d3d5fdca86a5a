"""Delivers the messages of channels with a history one after another and without a gap, or reports the loss.

How it works. Each channel with a subscriber has a :class:`~wsloop.delivery.channel_state.ChannelState`, with the
position of the last message that was delivered. A message that follows it is delivered at once. Any other message shows
that some are missing: the subscription was interrupted, or Redis lost its data, or another server has become the
master. Then messages that arrive wait, while the missing ones are read from the history and delivered first. If the
history does not have them the loss is reported, and the channel continues from the top.

Channels are checked when the subscription is established again, and every ``CHECK_INTERVAL`` seconds: a subscription
may be held by a server that is no longer the master. Channels that are behind at the same time catch up together
(:mod:`wsloop.delivery.catch_up`), in the order of time.

This module must not know WebSockets.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gevent
from redis.exceptions import RedisError

from wsloop import greenlets
from wsloop.backend import history, pool
from wsloop.batch_queue import BatchQueue, batches
from wsloop.delivery.catch_up import CatchUp
from wsloop.delivery.channel_state import ChannelState, Waiting
from wsloop.delivery.events import BrokerEvents
from wsloop.protocol.messages import Message, Position

logger = logging.getLogger("wsloop.continuity")

CHECK_INTERVAL = 30.0  # seconds between two comparisons of all positions with those in Redis
AT_ONCE = 100  # channels read in one round trip
GATHERING = 0.02  # seconds in which channels gather that are read together, after all were subscribed to anew
IN_FLIGHT = 1.0  # seconds after which a message that Redis has published must have arrived
RETRY = 1.0  # seconds until channels are read again if Redis did not answer although the subscription is established


class GaplessDelivery:
    """The channels with a history that this process subscribes to.

    Args:
        events: receives messages and losses.
    """

    def __init__(self, events: BrokerEvents) -> None:
        self._events = events
        self._channels: dict[bytes, ChannelState] = {}
        self._new: BatchQueue[bytes] = BatchQueue(self._begin)
        self._due: dict[bytes, None] = {}
        self._behind: BatchQueue[None] = BatchQueue(self._catch_up)
        self._checking: gevent.Greenlet[[], None] | None = None
        self._numbers = itertools.count()

    def watch(self, channel: bytes) -> bool:
        """Track a channel, and return whether it is a new one. Its position is read by :meth:`subscribed`."""
        new = channel not in self._channels
        if new:
            self._channels[channel] = ChannelState()
        return new

    def forget(self, channel: bytes) -> None:
        """Stop tracking a channel: it has no subscriber any more."""
        self._channels.pop(channel, None)

    def subscribed(self, channel: bytes) -> None:
        """Read the missing messages, now that Redis has acknowledged the subscription (again). Never blocks."""
        state = self._channels.get(channel)
        if state is not None:
            state.subscriptions += 1
            self._start_catch_up(channel, state)  # messages that waited are in the history, or from before the gap
            if self._checking is None:
                self._checking = gevent.spawn(self._check)

    def stop(self) -> None:
        """Stop comparing positions, until a channel is subscribed to again."""
        if self._checking is not None:
            self._checking.kill()
            self._checking = None

    def position(self, channel: bytes) -> Position | None:
        """Return the position of a channel; None if the channel is not tracked, or its position is not known."""
        state = self._channels.get(channel)
        return None if state is None else state.position

    def behind(self, positions: Mapping[bytes, Position]) -> bool:
        """Return whether messages up to these positions are still missing, in any channel that is tracked here."""
        present = ((self.position(channel), wanted) for channel, wanted in positions.items())
        return any(here is not None and here.offset < wanted.offset for here, wanted in present)

    def wait(self, channels: Iterable[bytes], timeout: float) -> bool:
        """Wait until the positions of all tracked ``channels`` are known, and return whether they are."""
        states = [self._channels[channel] for channel in channels if channel in self._channels]
        return all(state.ready is None or state.ready.wait(timeout) for state in states)

    def arrived(self, channel: bytes, message: Message, origin: Any) -> None:
        """Take a message from the subscription. Never blocks."""
        state = self._channels.get(channel)
        if state is None or not message.offset:
            # Not in a history: published by others, or with another configuration.
            self._events.message(channel, message, origin)
        elif state.waiting is not None:
            state.wait(next(self._numbers), message, origin)
        elif state.position is not None and message.follows(state.position):
            state.known = None
            state.position = message.position
            self._events.message(channel, message, origin)
        elif message.id not in (state.known or ()) and message.position != state.position:
            self._start_catch_up(channel, state, [(next(self._numbers), message, origin)])

    def _start_catch_up(self, channel: bytes, state: ChannelState, waiting: Iterable[Waiting] = ()) -> None:
        """Have the missing messages of a channel read, while ``waiting`` and all that arrive wait. Never blocks."""
        state.hold(waiting)
        self._put(channel, state)

    def _put(self, channel: bytes, state: ChannelState) -> None:
        if state.position is None:
            self._new.put(channel)
        else:
            self._due[channel] = None
            self._behind.put(None)

    def _begin(self, channels: list[bytes]) -> None:
        self._catch(channels, CatchUp.begin)

    def _catch_up(self, _: list[None]) -> None:
        gevent.sleep(GATHERING)
        due, self._due = list(self._due), {}
        self._catch(due, CatchUp.run)

    def _catch(self, channels: list[bytes], work: Callable[[CatchUp], None]) -> None:
        # Messages of these channels wait. Other channels have caught up since they were put into the queue.
        waiting = ((channel, self._channels.get(channel)) for channel in channels)
        states = {channel: state for channel, state in waiting if state is not None and state.waiting is not None}
        for group in map(dict, batches(states.items(), AT_ONCE)):
            catch_up = CatchUp(self._events, self._channels, group)
            try:
                work(catch_up)
            except (RedisError, OSError) as exc:
                # If the subscription breaks as well, they are checked as soon as it is established again.
                logger.warning("Could not read missing messages, retrying: %s", exc)
                greenlets.spawn_later(RETRY * random.uniform(0.5, 1.5), self._again, list(group))
            except Exception:
                logger.exception("Could not deliver missing messages")
                self._events.failed()
                return
            finally:
                for channel in catch_up.behind:
                    self._put(channel, group[channel])
            gevent.sleep(0)

    def _again(self, channels: list[bytes]) -> None:
        if self._checking is None:  # stopped
            return
        for channel in channels:
            state = self._channels.get(channel)
            if state is not None and state.waiting is not None:
                self._put(channel, state)

    def _check(self) -> None:
        """Compare the positions of all channels with those in Redis, until no channel is tracked."""
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
                    self._start_catch_up(channel, state)

    def _differing(self, states: dict[bytes, ChannelState]) -> dict[bytes, tuple[ChannelState, Position | None]]:
        """Return the channels whose position differs from that in Redis, with their state and position."""
        differing = {}
        for group in batches(states, AT_ONCE):
            try:
                tops = history.tops(pool.client(), group)
            except (RedisError, OSError) as exc:
                logger.debug("Could not compare positions: %s", exc)  # whatever needs Redis reports that it is down
                return {}
            for channel, top in zip(group, tops, strict=True):
                position = states[channel].position
                if top != position:
                    differing[channel] = states[channel], position
        return differing
