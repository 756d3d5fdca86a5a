"""What travels through Redis: a message, and where it stands in the history of its channel.

Most messages travel bare, as ws4redis sends them: any reader of the channel can take them. A header comes before those
that have something to tell beside their payload: in facilities with a history where they stand, and of messages to
several channels that they are one. :mod:`wsloop.backend.publishing` has the script that writes it.

In a history each message has an id of its own and names the one before. So it can be seen whether two of them are
neighbours, and whether a position is still on the present line: Redis may lose its data, and a replica that becomes the
master may have missed the last messages and number others like them. (Centrifugo has one id, the epoch, for a whole
history; it stays the same in the second case.)

This module must not know Redis, sockets or HTTP.
"""

from __future__ import annotations

import functools
import re
import secrets
from typing import NamedTuple

from wsloop import conf

HEAD = b"\0w1 "  # no text begins with it, nor do images and the like
HEADER = re.compile(rb"\0w1 ([0-9]{1,16}) ([A-Za-z0-9_-]{1,32}) ([A-Za-z0-9_-]{1,32}) ([s-])\n")


class Position(NamedTuple):
    """Where a channel's history stands: offset and id of its newest message; offset 0 before there was any."""

    offset: int
    id: str


class Message(NamedTuple):
    """A message as it came from Redis.

    Attributes:
        payload: what was published.
        id: its own; the same in each channel it was published to. Empty for bare messages.
        offset: its number in the channel's history, from 1 on; 0: it is in none.
        previous: id of the message before it there.
        multi_audience: it was published to several channels at once.
    """

    payload: bytes
    id: str = ""
    offset: int = 0
    previous: str = ""
    multi_audience: bool = False

    @property
    def position(self) -> Position:
        return Position(self.offset, self.id)

    def follows(self, position: Position) -> bool:
        """Tell whether this message is the next one after ``position``."""
        return self.offset == position.offset + 1 and self.previous == position.id


def new_id() -> str:
    """Return an id that no other message has: 72 random bits."""
    return secrets.token_urlsafe(9)


def unwrap(data: bytes) -> Message:
    """Return the message that a payload from Redis carries, which is the whole of it where it has no header."""
    if data.startswith(HEAD):
        header = HEADER.match(data)
        if header is not None:
            offset, own, previous, several = header.groups()
            return Message(data[header.end() :], own.decode(), int(offset), previous.decode(), several == b"s")
    return Message(data)


class Audience(NamedTuple):
    """Whom a channel is for.

    Attributes:
        kind: "broadcast", "user", "group", "session" or "presence"; "other" for a channel that is none of these.
        name: of the group.
    """

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


@functools.lru_cache(maxsize=4096)
def audience(channel: bytes) -> Audience:
    """Return whom a channel is for, by its name."""
    kind, _, rest = channel.decode(errors="replace").removeprefix(conf.prefix()).partition(":")
    if kind not in ("broadcast", "user", "group", "session", "presence"):
        return Audience("other")
    # A facility has no colon where the audience is a group: see subscriptions.check_facility.
    return Audience(kind, rest.rpartition(":")[0]) if kind == "group" else Audience(kind)
