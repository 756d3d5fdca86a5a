"""Counts the open sockets and their subscriptions by a few labels, and which facilities have the most messages.

The numbers are kept as sockets come and go, so that nobody has to look at all of them. This module must not know
connections.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterable

from wsloop import conf
from wsloop.protocol.messages import audience

Labels = tuple[str, str, str]  # dialect, facility by its pattern, and audiences

PAGE = "(page)"  # stands for the facility of a socket of a whole page
NOWHERE: Labels = ("", "", "")
MOST_CHANNELS = 4096  # whose messages are counted until they are summed up
MOST_FACILITIES = 1000  # whose messages are counted; if there are more, the half with the fewest is forgotten
SHOWN = 20  # facilities


@functools.lru_cache(maxsize=1024)
def shared_labels(dialect: str, facility: str, audiences: str) -> Labels:
    """Return one object for equal labels: each connection keeps it."""
    return dialect, facility, audiences


class Census:
    """The open sockets of this process, in numbers.

    Attributes:
        sockets, subscriptions: numbers by labels; a subscription is one socket in one channel.
    """

    def __init__(self) -> None:
        self.sockets: collections.Counter[Labels] = collections.Counter()
        self.subscriptions: collections.Counter[Labels] = collections.Counter()
        # Messages, and sockets that got them: by channel, which is found faster, and by facility, as of the last sum.
        self._delivered: dict[bytes, list[int]] = {}
        self._facilities: dict[str, list[int]] = {}

    def add(self, counts: collections.Counter[Labels], labels: Iterable[Labels], number: int) -> None:
        """Count so many more, or less, of each."""
        for each in labels:
            counts[each] += number
            if not counts[each]:
                del counts[each]

    def opened(self, labels: Labels) -> None:
        """Count a socket."""
        self.add(self.sockets, [labels], 1)

    def left(self, labels: Labels) -> None:
        """Reverse :meth:`opened`."""
        self.add(self.sockets, [labels], -1)

    def subscribed(self, dialect: str, channels: Iterable[bytes]) -> None:
        """Count a socket's subscriptions to channels."""
        self.add(self.subscriptions, [(dialect, *_place(channel)) for channel in channels], 1)

    def unsubscribed(self, dialect: str, channels: Iterable[bytes]) -> None:
        """Reverse :meth:`subscribed`."""
        self.add(self.subscriptions, [(dialect, *_place(channel)) for channel in channels], -1)

    def delivered(self, channel: bytes, sockets: int) -> None:
        """Count a message that so many sockets get."""
        found = self._delivered.get(channel)
        if found is None:
            if len(self._delivered) >= MOST_CHANNELS:
                self._sum_up()
            found = self._delivered[channel] = [0, 0]
        found[0] += 1
        found[1] += sockets

    def _sum_up(self) -> None:
        """Add the numbers of channels to those of their facilities, and begin to count anew."""
        delivered, self._delivered = self._delivered, {}
        for channel, (messages, sockets) in delivered.items():
            facility = audience(channel).facility
            if facility not in self._facilities:
                self._facilities[facility] = [0, 0]
            total = self._facilities[facility]
            total[0] += messages
            total[1] += sockets
        if len(self._facilities) > MOST_FACILITIES:
            self._facilities = dict(self._sorted()[: MOST_FACILITIES // 2])

    def _sorted(self) -> list[tuple[str, list[int]]]:
        return sorted(self._facilities.items(), key=lambda item: item[1][1], reverse=True)

    def busiest(self) -> list[tuple[str, int, int]]:
        """Return the facilities with the most deliveries, with the numbers of their messages and deliveries."""
        self._sum_up()
        return [(facility, messages, sockets) for facility, (messages, sockets) in self._sorted()[:SHOWN]]


def place(facility: str, channels: Iterable[bytes]) -> tuple[str, str]:
    """Return the labels of a socket of a facility: the pattern, and the audiences, such as "broadcast+user"."""
    kinds = sorted({audience(channel).kind for channel in channels})
    return conf.facility_pattern(facility) if facility else PAGE, "+".join(kinds) or "none"


def _place(channel: bytes) -> tuple[str, str]:
    whom = audience(channel)
    return conf.facility_pattern(whom.facility), whom.kind


__all__ = ["NOWHERE", "PAGE", "Census", "Labels", "place", "shared_labels"]
