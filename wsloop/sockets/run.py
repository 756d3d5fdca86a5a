"""Consecutive messages of a channel, joined once for all of its subscribers.

A burst of messages to many sockets costs one entry in the queue of each, in place of one for each message. The hub
holds them back within a turn of the event loop, and whatever touches the output of a connection meanwhile has them
queued first (:func:`wsloop.sockets.output.settle`), so that the order is that of single messages. This module must not
know how they are queued.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from wsloop.protocol.dialects import Dialect
from wsloop.sockets.connection import Connection

LONGEST = 64 * 1024  # bytes of frames


class Run:
    """Consecutive messages of one channel that are held back within a turn of the event loop.

    Attributes:
        channel: theirs; None: there are none, or nobody gets them.
        parts: of each dialect with subscribers: it, the subscribers, and the frames.
        size: bytes of the frames.
        published: when, as far as that is known.
    """

    __slots__ = ("channel", "parts", "published", "size")

    channel: bytes | None
    parts: list[tuple[Dialect, Collection[Connection], list[bytes]]]

    def __init__(self) -> None:
        self.begin(None, ())

    def begin(self, channel: bytes | None, subscribers: Iterable[tuple[Dialect, Collection[Connection]]]) -> None:
        """Begin to hold messages back for connections, which must not change until the run is settled."""
        self.parts = [(dialect, connections, []) for dialect, connections in subscribers if connections]
        self.channel = channel if self.parts else None
        self.size = 0
        self.published: list[int] = []

    @property
    def is_long(self) -> bool:
        """Whether another message belongs into the next run: a client that reads slowly is sent one in pieces."""
        return self.size > LONGEST


__all__ = ["Run"]
