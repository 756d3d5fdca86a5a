"""Reads the history of a channel: pages of messages from a position on, and whether messages before it are missing.

Positions and the chain of ids are explained in :mod:`wsloop.protocol.messages`. The keys are those of
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
# Seconds for which the id of an empty history is kept; reads renew it while the channel has subscribers. Not long,
# because clients may name any facility that matches a pattern, and each costs some hundred bytes.
EMPTY_META = 900


class Entry(NamedTuple):
    """A message of a history, and its time of publication: microseconds since the epoch, by the clock of Redis."""

    message: Message
    time: int


class Page(NamedTuple):
    """A part of a channel's history, from a position on.

    Attributes:
        entries: the messages after that position, in order, perhaps not all of them.
        top: the position of the newest message.
        continuous: no message is missing between the position and the first entry, or the top if there are no entries.
        time: of reading, in the unit of the entries' times.
    """

    entries: list[Entry]
    top: Position
    continuous: bool
    time: int = 0

    @property
    def complete(self) -> bool:
        """Whether the entries reach the top."""
        return not self.entries or self.entries[-1].message.offset >= self.top.offset


def read(client: Redis, questions: Sequence[tuple[bytes, Position]]) -> list[Page]:
    """Return a page of each channel's history, in one round trip.

    All pages together have about PAGE_BYTES, but each may have LEAST_BYTES, and at least one message.

    Args:
        client: of Redis.
        questions: pairs of a channel and the position after which the page begins.

    Raises:
        redis.exceptions.RedisError: if Redis does not answer.
    """
    size = max(PAGE_BYTES // max(len(questions), 1), LEAST_BYTES)
    calls: list[scripts.Call] = []
    for channel, since in questions:
        arguments = [since.offset, PAGE + 1, size, new_id(), EMPTY_META]
        calls.append(("history", list(keys.history_keys(channel)), arguments))
    return [
        _page(answer, since)
        for answer, (_, since) in zip(scripts.call(client, calls, transaction=False), questions, strict=True)
    ]


def tops(client: Redis, channels: Sequence[str | bytes]) -> list[Position]:
    """Return the top of each channel's history, in one call of a script, except in a Redis Cluster.

    Raises:
        redis.exceptions.RedisError: if Redis does not answer.
    """
    found = [keys.history_keys(channel) for channel in channels]
    together = [[each] for each in found] if scripts.is_cluster(client) else [found]
    calls: list[scripts.Call] = [("tops", [*itertools.chain(*each)], [new_id(), EMPTY_META]) for each in together]
    answers = itertools.chain(*scripts.call(client, calls, transaction=False))
    return [Position(int(offset), id.decode()) for offset, id in zip(answers, answers, strict=True)]


def latest(client: Redis, channel: str | bytes, limit: int) -> list[Entry]:
    """Return the newest messages of a channel's history, the oldest of them first.

    Raises:
        redis.exceptions.RedisError: if Redis does not answer.
    """
    _, history = keys.history_keys(channel)
    found: Any = client.xrevrange(history, count=limit)
    return [_entry(number, list(itertools.chain.from_iterable(fields.items()))) for number, fields in reversed(found)]


class End(NamedTuple):
    """Where a page of the past ends: at the message at ``position``, or with it; None: with the newest message."""

    position: Position | None = None
    inclusive: bool = False


def past(client: Redis, questions: Sequence[tuple[bytes, End]], limit: int) -> list[tuple[list[Entry], bool]]:
    """Return a page of each channel's history, backwards, in one round trip.

    All pages together have about PAGE_BYTES, but of each channel there is one message, at least.

    Args:
        client: of Redis.
        questions: pairs of a channel and the end of its page.
        limit: number of messages of each channel, at most.

    Returns:
        for each channel the messages, the newest first, and whether there may be earlier ones. If the message at the
        end is not there any more, there are none.

    Raises:
        redis.exceptions.RedisError: if Redis does not answer.
    """
    size = PAGE_BYTES // max(len(questions), 1)
    calls: list[scripts.Call] = []
    for channel, (position, inclusive) in questions:
        _, history = keys.history_keys(channel)
        end = ["", "", 0] if position is None else [position.offset, position.id, int(inclusive)]
        calls.append(("past", [history], [*end, limit, size]))
    answers = scripts.call(client, calls, transaction=False)
    return [([_entry(number, fields) for number, fields in page], bool(more)) for page, more in answers]


def _page(answer: Any, since: Position) -> Page:
    top, time = Position(int(answer[0]), answer[1].decode()), int(answer[3])
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


__all__ = ["End", "Entry", "Page", "latest", "past", "read", "tops"]
