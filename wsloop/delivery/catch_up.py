"""Brings channels from their positions to the top of their histories, and delivers the messages that waited meanwhile.

This module must not know subscriptions or WebSockets.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Collection, Iterable, Mapping
from time import monotonic

import gevent

from wsloop import metrics
from wsloop.backend import history, pool
from wsloop.backend.history import PAGE_BYTES
from wsloop.delivery.channel_state import ChannelState
from wsloop.delivery.events import BrokerEvents
from wsloop.delivery.merge import HistoryMerge
from wsloop.protocol.messages import Position

logger = logging.getLogger("wsloop.continuity")

ROUNDS = 20  # times that histories are read again because more messages arrived meanwhile than may wait
SETTLING = 2.0  # seconds for which one catch-up waits for slow receivers, in all; clients slower than that reconnect


class CatchUp:
    """Brings some channels up to date, together and in the order of time.

    Args:
        events: receives messages and losses.
        channels: the states of all tracked channels; may change meanwhile.
        states: those of the channels to bring up to date, by channel; their messages wait.

    Attributes:
        behind: channels of which messages are missing again, so that another catch-up is due.
    """

    def __init__(
        self, events: BrokerEvents, channels: Mapping[bytes, ChannelState], states: Mapping[bytes, ChannelState]
    ) -> None:
        self._events = events
        self._channels = channels
        self._states = states
        self._subscriptions = {channel: state.subscriptions for channel, state in states.items()}
        self._patience = SETTLING
        self._rounds = 0
        self.behind: list[bytes] = []

    def begin(self) -> None:
        """Read the positions, which are not known yet. Blocks.

        Raises:
            redis.exceptions.RedisError: if Redis does not answer.
        """
        tops = history.tops(pool.client(), [*self._states])
        for channel, top in zip(self._states, tops, strict=True):
            if self._valid(channel):
                self._states[channel].position = top
        self._finish(self._states)

    def run(self) -> None:
        """Read and deliver the missing messages. Blocks.

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
            self._report_lost(merge)
            messages = merge.take(PAGE_BYTES)
            for channel, message in messages:
                if self._valid(channel):
                    state = self._states[channel]
                    state.expect(message.id)
                    state.position = message.position
                    self._events.message(channel, message, None)
            self._settle({channel for channel, _ in messages})
        # All channels at once, including those without missing messages: a message to several of them must not arrive
        # in one long before the others, or a client that reconnects in between would get it twice.
        self._finish(merge.since)

    def _covered(self, merge: HistoryMerge) -> bool:
        """Return whether the unread rest of the histories is among the waiting messages already."""
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
        """Return whether the state is current, and pages read are not from before a new subscription."""
        state = self._states[channel]
        return self._channels.get(channel) is state and state.subscriptions == self._subscriptions[channel]

    def _report_lost(self, merge: HistoryMerge) -> None:
        for channel, top in merge.lost.items():
            if self._valid(channel):
                logger.warning("Lost messages of a channel: its history does not have those after the last delivered")
                metrics.lost("history")
                self._states[channel].position, self._states[channel].known = top, None
                self._events.lost(channel, top)
        merge.lost.clear()

    def _settle(self, channels: Collection[bytes]) -> None:
        """Wait until the receivers have taken these messages, or more would close them; but not for long."""
        began = monotonic()
        self._events.wait_for_room(channels, self._patience)
        self._patience = max(0.0, self._patience - (monotonic() - began))
        gevent.sleep(0)

    def _finish(self, channels: Iterable[bytes]) -> None:
        """Deliver the messages that waited meanwhile, in one step: nothing yields."""
        waited = []
        tops: dict[bytes, int] = {}
        for channel in filter(self._valid, channels):
            state = self._states[channel]
            if state.position is None or state.waiting is None:
                continue
            tops[channel] = state.position.offset
            state.settle()
            if state.dropped:
                state.hold()
                self.behind.append(channel)
                continue
            waiting, state.waiting, state.size = state.waiting, None, 0
            waited.append([(number, channel, state, message, origin) for number, message, origin in waiting])
        for number, channel, state, message, origin in heapq.merge(*waited, key=lambda each: each[0]):
            if state.waiting is not None:
                state.waiting.append((number, message, origin))
            elif state.position is not None and message.follows(state.position):
                state.position = message.position
                self._events.message(channel, message, origin)
            elif message.offset > tops[channel]:
                state.hold([(number, message, origin)])
                self.behind.append(channel)
            # Else it is among the messages read, or from before, or the next one will not follow.
