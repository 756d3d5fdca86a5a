"""Pages of the past: the messages of a subscription, backwards, merged over its channels in the order of time.

A page is named by its end in each channel that has earlier messages: a position, and ``+`` where the message there
belongs to the page. This module must not know connections.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from wsloop.backend import history, pool
from wsloop.backend.history import End
from wsloop.protocol import resume_tokens
from wsloop.protocol.messages import Message


class Page(NamedTuple):
    """A page of the past.

    Attributes:
        messages: pairs of channel and message, the oldest first; a message to several audiences comes once.
        before: names the page before this one, which may be empty; None: there is none.
    """

    messages: list[tuple[bytes, Message]]
    before: str | None


def page(channels: Sequence[bytes], before: str | None, limit: int) -> Page:
    """Return a page of the past. Blocks.

    Args:
        channels: of the subscription, with a history.
        before: names the page; None: the last one.
        limit: number of messages, at most.

    Raises:
        ValueError: if ``before`` names no page.
        redis.exceptions.RedisError: if Redis does not answer.
    """
    ends = dict.fromkeys(channels, End()) if before is None else _ends(channels, before)
    answers = history.past(pool.client(), list(ends.items()), limit) if ends else []
    read = dict(zip(ends, answers, strict=True))
    # Before the last message read of a channel there may be others, newer than the next one of another channel.
    horizon = max((entries[-1].time for entries, more in read.values() if more and entries), default=0)
    newest_first = heapq.merge(
        *([(entry.time, channel, entry.message) for entry in entries] for channel, (entries, _) in read.items()),
        key=lambda each: each[0],
        reverse=True,
    )
    taken: list[tuple[bytes, Message]] = []
    known: set[str] = set()
    consumed = dict.fromkeys(read, 0)
    for time, channel, message in newest_first:
        if message.id not in known:
            if time < horizon or len(taken) == limit:
                break
            known.add(message.id)
            taken.append((channel, message))
        consumed[channel] += 1
    later = []
    for channel, (entries, more) in read.items():
        if consumed[channel] < len(entries):
            later.append(resume_tokens.position(channel, entries[consumed[channel]].message.position) + "+")
        elif more:
            later.append(resume_tokens.position(channel, entries[-1].message.position))
    return Page(taken[::-1], "~".join(later) or None)


def _ends(channels: Sequence[bytes], before: str) -> dict[bytes, End]:
    found: dict[str, End] = {}
    for each in before.split("~"):
        name, at = resume_tokens.read_position(each.removesuffix("+"))
        found[name] = End(at, each.endswith("+"))
    labels = {channel: resume_tokens.label(channel) for channel in channels}
    return {channel: found[name] for channel, name in labels.items() if name in found}


__all__ = ["Page", "page"]
