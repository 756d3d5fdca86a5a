"""Merges the histories of several channels from given positions on, page by page, in the order of time.

How it works. One page of each channel is held; the oldest message of all pages is the next one. If the page of a
channel is used up and its history may continue, the next page is read before any other message is returned; and no
message is returned that is newer than the moment at which any other history was found to end. So the copies of a
message to several channels are returned one right after the other, or none of them, and memory is bounded by a page for
each channel.

This module must not know sockets or gevent.
"""

from __future__ import annotations

import collections
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence

from redis import Redis

from wsloop.backend import history
from wsloop.protocol.messages import Message, Position

Reading = Callable[[Redis, Sequence[tuple[bytes, Position]]], list[history.Page]]


class HistoryMerge:
    """The messages of some channels from given positions up to the tops of their histories.

    Args:
        client: of Redis.
        since: the position before the first message, by channel.
        read: as :func:`wsloop.backend.history.read`; None: that itself.

    Attributes:
        since: the position of the last message returned, by channel.
        tops: the tops of the histories when they were read last, by channel.
        lost: channels with missing messages, and the positions from which they continue; the caller removes them.
    """

    def __init__(self, client: Redis, since: Mapping[bytes, Position], read: Reading | None = None) -> None:
        self._client = client
        self._history = read or history.read
        self._pages: dict[bytes, collections.deque[history.Entry]] = {channel: collections.deque() for channel in since}
        self._times: dict[bytes, int] = dict.fromkeys(since, 0)
        self._next: list[tuple[int, bytes]] = []  # a heap: the time of the first message of each channel with a page
        self._unread = set(since)  # channels without a page, whose histories may continue
        self._read_at: dict[bytes, int] = {}  # when histories were found to end with their pages
        self._horizon = float("inf")  # the first of these times
        self.since = dict(since)
        self.tops: dict[bytes, Position] = {}
        self.lost: dict[bytes, Position] = {}

    @property
    def complete(self) -> bool:
        """Whether all messages are returned that there were when the first of the histories was found to end."""
        return not self._unread and not self._ready()

    @property
    def at_top(self) -> bool:
        """Whether all messages that were read are returned."""
        return not self._unread and not self._next

    def read(self, channels: Iterable[bytes] | None = None) -> None:
        """Read the next pages that are needed to continue, or those of ``channels`` anew.

        Raises:
            redis.exceptions.RedisError: if Redis does not answer.
        """
        wanted = sorted(set(self._unread if channels is None else channels))
        if not wanted:
            return
        pages = self._history(self._client, [(channel, self.since[channel]) for channel in wanted])
        self._next = [each for each in self._next if each[1] not in wanted]
        heapq.heapify(self._next)
        for channel, page in zip(wanted, pages, strict=True):
            self._unread.discard(channel)
            self._read_at.pop(channel, None)
            self.tops[channel] = page.top
            self._pages[channel] = collections.deque(page.entries)
            if not page.continuous:
                self.lost[channel] = self.since[channel] = page.top
            if page.complete:
                self._read_at[channel] = page.time
            if page.entries:
                self._put(channel)
        self._horizon = min(self._read_at.values(), default=float("inf"))

    def take(self, most: int) -> list[tuple[bytes, Message]]:
        """Return the next messages with their channels, up to the first that exceeds ``most`` bytes in all.

        Returns:
            an empty list if the next pages must be read first, or all messages are returned.
        """
        taken: list[tuple[bytes, Message]] = []
        size = 0
        while size < most and not self._unread and self._ready():
            _, channel = heapq.heappop(self._next)
            message = self._pages[channel].popleft().message
            self.since[channel] = message.position
            taken.append((channel, message))
            size += len(message.payload)
            if self._pages[channel]:
                self._put(channel)
            elif message.offset < self.tops[channel].offset:
                self._unread.add(channel)
        return taken

    def _ready(self) -> bool:
        return bool(self._next) and self._next[0][0] < self._horizon

    def _put(self, channel: bytes) -> None:
        # Never backwards: the clock may have been set back, and the order of a channel is that of its offsets.
        self._times[channel] = max(self._times[channel], self._pages[channel][0].time)
        heapq.heappush(self._next, (self._times[channel], channel))
