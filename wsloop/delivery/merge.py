"""What several channels have kept since where somebody stands: read page by page, handed out in the order of time.

How it works. Of each channel a page is kept; the oldest message of all pages is the next one. A channel of which there
may be more, but whose page is used up, is read on before anything else is handed out; and nothing is handed out that is
newer than the moment at which any other channel was found to have no more. So the copies of a message to several
channels are handed out one right after the other, or none of them, and memory is bounded by a page for each channel.

This module must not know sockets or gevent.
"""

from __future__ import annotations

import collections
import heapq
from collections.abc import Iterable, Mapping

from redis import Redis

from wsloop.backend import history
from wsloop.protocol.messages import Message, Position


class HistoryMerge:
    """The way of some channels from positions to the top.

    Args:
        client: of Redis.
        since: where it begins, by channel.

    Attributes:
        since: up to where messages have been handed out, by channel.
        tops: where the histories stood when they were read last.
        lost: channels of which something is missing, with the position from which they go on; the caller takes them
            out.
    """

    def __init__(self, client: Redis, since: Mapping[bytes, Position]) -> None:
        self._client = client
        self._pages: dict[bytes, collections.deque[history.Entry]] = {channel: collections.deque() for channel in since}
        self._times: dict[bytes, int] = dict.fromkeys(since, 0)
        self._next: list[tuple[int, bytes]] = []  # a heap: of each channel with a page the time of its first message
        self._unread = set(since)  # channels without a page, of which there may be more
        self._read_at: dict[bytes, int] = {}  # when channels were found to have no more than their pages
        self._horizon = float("inf")  # the first of these times
        self.since = dict(since)
        self.tops: dict[bytes, Position] = {}
        self.lost: dict[bytes, Position] = {}

    @property
    def complete(self) -> bool:
        """Whether all has been handed out that there was when the first of the channels was found to have no more."""
        return not self._unread and not self._ready()

    @property
    def at_top(self) -> bool:
        """Whether all has been handed out that was there when it was read."""
        return not self._unread and not self._next

    def read(self, channels: Iterable[bytes] | None = None) -> None:
        """Read on where it is needed in order to go on, or those ``channels`` anew.

        Raises:
            redis.exceptions.RedisError: if Redis does not answer.
        """
        wanted = set(self._unread if channels is None else channels)
        if not wanted:
            return
        pages = history.read(self._client, [(channel, self.since[channel]) for channel in wanted])
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
        """Return the next messages with their channels: of ``most`` bytes, and one more; none: read on, or complete."""
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
        # Never back: the clock may have been set back, and the order of a channel is that of its offsets.
        self._times[channel] = max(self._times[channel], self._pages[channel][0].time)
        heapq.heappush(self._next, (self._times[channel], channel))
