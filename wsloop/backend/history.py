"""Reads what Redis keeps of a channel: pages of messages from a position on, and whether anything is missing before.

Positions and the line of ids are explained in :mod:`wsloop.protocol.messages`. The keys are those of
:mod:`wsloop.backend.publishing`, which writes them. This module must not know sockets or gevent.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis import Redis

from wsloop.backend import keys, scripts
from wsloop.protocol.messages import Message, Position, new_id

PAGE = 200  # messages read of a channel at once
PAGE_BYTES = 256 * 1024  # likewise, of all channels together
LEAST_BYTES = 16 * 1024  # likewise, of each channel, however many there are
# Seconds for which it is remembered that a channel is empty; while somebody listens it is told again. Any name under a
# pattern may be asked for, and each costs some hundred bytes: not for long.
EMPTY_META = 900


class Entry(NamedTuple):
    """A kept message, and when it was published: microseconds since the epoch, by the clock of Redis."""

    message: Message
    time: int


class Page(NamedTuple):
    """What a channel has kept since a position.

    Attributes:
        entries: the messages behind that position, in order, perhaps not all of them.
        top: where the history stands.
        continuous: nothing is missing between the position and the first entry, or the top if there is none.
        time: when it was read, as the times of the entries.
    """

    entries: list[Entry]
    top: Position
    continuous: bool
    time: int = 0

    @property
    def complete(self) -> bool:
        """Whether the entries reach the top."""
        return not self.entries or self.entries[-1].message.offset >= self.top.offset


def read(client: Redis, questions: Sequence[tuple[bytes, Position | None]]) -> list[Page]:
    """Return a page for each channel with the position after which it begins, in one round trip.

    All pages together have about PAGE_BYTES, but each has LEAST_BYTES, and one message at the least.

    Args:
        client: of Redis.
        questions: pairs of channel and position; without a position only the top is read.

    Raises:
        redis.exceptions.RedisError: if Redis does not answer.
    """
    size = max(PAGE_BYTES // max(len(questions), 1), LEAST_BYTES)
    calls: list[scripts.Call] = []
    for channel, since in questions:
        start = "" if since is None else since.offset
        arguments = [start, PAGE + 1, size, new_id(), EMPTY_META]
        calls.append(("history", list(keys.history_keys(channel)), arguments))
    return [
        _page(answer, since)
        for answer, (_, since) in zip(scripts.call(client, calls, transaction=False), questions, strict=True)
    ]


def latest(client: Redis, channel: str | bytes, limit: int) -> list[Entry]:
    """Return the newest messages of a channel, the oldest of them first.

    Raises:
        redis.exceptions.RedisError: if Redis does not answer.
    """
    _, history = keys.history_keys(channel)
    found: Any = client.xrevrange(history, count=limit)
    return [_entry(number, list(itertools.chain.from_iterable(fields.items()))) for number, fields in reversed(found)]


def _page(answer: Any, since: Position | None) -> Page:
    top, time = Position(int(answer[0]), answer[1].decode()), int(answer[3])
    if since is None:
        return Page([], top, True, time)
    entries = [_entry(number, fields) for number, fields in answer[2]]
    if entries and entries[0].message.offset == since.offset:
        continuous = entries.pop(0).message.id == since.id
    elif entries:
        continuous = entries[0].message.follows(since)
    else:
        continuous = top == since
    if not continuous or (not entries and top != since):
        return Page([], top, False, time)
    return Page(entries, top, True, time)


def _entry(number: bytes, fields: Sequence[bytes]) -> Entry:
    _, own, _, previous, _, several, _, time, _, payload = fields
    offset = int(number.partition(b"-")[0])
    return Entry(Message(payload, own.decode(), offset, previous.decode(), several == b"s"), int(time))


__all__ = ["Entry", "Page", "latest", "read"]
