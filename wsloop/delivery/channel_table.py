"""Bookkeeping of a subscription: the subscribers of each channel, and the answers of Redis to the commands sent.

Redis answers SUBSCRIBE and UNSUBSCRIBE in order, so a channel is subscribed when the answer to the last command about
it has arrived and the channel still has subscribers. This module must not send or read anything.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable

from gevent.event import AsyncResult

from wsloop.delivery import answers
from wsloop.delivery.answers import Unavailable


class ChannelTable:
    """The channels that this process subscribes to.

    Args:
        permanent: channels of the process itself, which are never left.

    Attributes:
        counts: the number of subscribers by channel.
        pending: those of them that Redis has not acknowledged on the present connection.
    """

    def __init__(self, *permanent: bytes) -> None:
        self.counts: dict[bytes, int] = dict.fromkeys(permanent, 1)
        self.pending: set[bytes] = set(permanent)  # these, because they are few
        self._unanswered: collections.Counter[bytes] = collections.Counter()
        self._waiting: dict[bytes, list[AsyncResult[None]]] = {}

    def add(self, channels: Iterable[bytes]) -> tuple[bytes, ...]:
        """Count a subscriber of each channel, and return the channels that had none before."""
        new = []
        for channel in channels:
            count = self.counts.get(channel, 0)
            self.counts[channel] = count + 1
            if not count:
                self.pending.add(channel)
                new.append(channel)
        return tuple(new)

    def remove(self, channels: Iterable[bytes]) -> tuple[bytes, ...]:
        """Count a subscriber of each channel less, and return the channels that have none left."""
        left = []
        for channel in channels:
            self.counts[channel] -= 1
            if not self.counts[channel]:
                del self.counts[channel]
                self.pending.discard(channel)
                self._waiting.pop(channel, None)
                left.append(channel)
        return tuple(left)

    def sent(self, channels: Iterable[bytes]) -> None:
        """Expect one more answer about each channel."""
        self._unanswered.update(channels)

    def answered(self, channel: bytes) -> bool:
        """Take an answer about a channel, and return whether the channel is subscribed now."""
        self._unanswered[channel] -= 1
        if self._unanswered[channel]:
            return False
        del self._unanswered[channel]
        self.pending.discard(channel)
        return channel in self.counts

    def wake(self, channel: bytes) -> None:
        """Wake the greenlets that wait for the acknowledgement of a channel."""
        for waiter in self._waiting.pop(channel, ()):
            waiter.set()

    def wait(self, channels: Iterable[bytes]) -> None:
        """Return when Redis has acknowledged all of these channels.

        Raises:
            Unavailable: if Redis does not acknowledge within ``REDIS_TIMEOUT`` seconds, or the connection breaks.
        """
        for channel in channels:
            if channel in self.pending:
                waiter: AsyncResult[None] = AsyncResult()
                self._waiting.setdefault(channel, []).append(waiter)
                answers.wait(waiter)

    def disconnected(self, reason: Unavailable) -> None:
        """Expect no more answers: the connection has ended. Greenlets that wait get ``reason`` raised."""
        self._unanswered.clear()
        self.pending.update(self.counts)
        waiting, self._waiting = self._waiting, {}
        answers.fail(itertools.chain.from_iterable(waiting.values()), reason)
