"""The messages in Redis, and their positions in the history of a channel.

Most messages travel bare, as ws4redis sends them: any reader of the channel can take them. A header precedes messages
with more facts than their payload: their position, in facilities with a history, and that copies in several channels
are one message. :mod:`wsloop.backend.publishing` has the script that writes it.

In a history each message has an id of its own and names the previous one. This shows whether two messages are
neighbours, and whether a position is still part of the present history: Redis may lose its data, and a replica that
becomes the master may have missed the last messages and give their numbers to others. (Centrifugo has one id, the
epoch, for a whole history; it stays the same in the second case.)

This module must not know Redis, sockets or HTTP.
"""

from __future__ import annotations

import base64
import functools
import re
import secrets
from typing import NamedTuple

from wsloop import conf

HEAD = b"\0w1 "  # no text begins with it, nor do images and the like
HEADER = re.compile(rb"\0w1 ([0-9]{1,16}) ([A-Za-z0-9_-]{1,32}) ([A-Za-z0-9_-]{1,32}) ([s-])(?: ([0-9]{1,17}))?\n")


class Position(NamedTuple):
    """A position in a channel's history: offset and id of a message; offset 0 is before the first one."""

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
        time: when Redis published it, in microseconds since the epoch, by the clock of Redis; 0: that is not known.
    """

    payload: bytes
    id: str = ""
    offset: int = 0
    previous: str = ""
    multi_audience: bool = False
    time: int = 0

    @property
    def position(self) -> Position:
        return Position(self.offset, self.id)

    def follows(self, position: Position) -> bool:
        """Return whether this message is the next one after ``position``."""
        return self.offset == position.offset + 1 and self.previous == position.id


def new_id() -> str:
    """Return an id that no other message has: 72 random bits."""
    return secrets.token_urlsafe(9)


def unwrap(data: bytes) -> Message:
    """Return the message that a payload from Redis carries, which is the whole of it where it has no header."""
    if data.startswith(HEAD):
        header = HEADER.match(data)
        if header is not None:
            offset, own, previous, several, time = header.groups()
            place = own.decode(), int(offset), previous.decode()
            return Message(data[header.end() :], *place, several == b"s", int(time or 0))
    return Message(data)


class Audience(NamedTuple):
    """The audience of a channel.

    Attributes:
        kind: "broadcast", "user", "group", "session" or "presence"; "other" for any other channel.
        name: of the group.
        facility: its name; empty for "other".
    """

    kind: str
    name: str = ""
    facility: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


def as_json(payload: bytes) -> dict[str, str]:
    """Return a payload as JSON can carry it: as ``data`` if it is text, else as ``base64``."""
    try:
        return {"data": payload.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(payload).decode()}


@functools.lru_cache(maxsize=1024)
def shared(channel: bytes) -> bytes:
    """Return one object for equal names of a channel: each of its subscribers keeps it."""
    return channel


@functools.lru_cache(maxsize=4096)
def audience(channel: bytes) -> Audience:
    """Return the audience of a channel, by its name."""
    kind, _, rest = channel.decode(errors="replace").removeprefix(conf.prefix()).partition(":")
    if kind not in ("broadcast", "user", "group", "session", "presence"):
        return Audience("other")
    if kind in ("group", "user"):  # a facility has no colon there: see subscriptions.check_facility
        name, _, facility = rest.rpartition(":")
        return Audience(kind, name if kind == "group" else "", facility)
    return Audience(kind, "", rest.partition(":")[2] if kind == "session" else rest)
