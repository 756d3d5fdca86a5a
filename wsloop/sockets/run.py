"""Consecutive messages of a channel, joined once for all of its subscribers.

A burst of messages to many sockets costs one entry in the queue of each, in place of one for each message. The hub
holds them back within a turn of the event loop, and whatever touches the output of a connection meanwhile has them
queued first (:func:`wsloop.sockets.output.settle`), so that the order is that of single messages. This module must not
know how they are queued.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from wsloop.protocol.dialects import Dialect
from wsloop.sockets.connection import Connection
from wsloop.sockets.index import Index

LONGEST = 64 * 1024  # bytes of frames

Part = tuple[Dialect, Collection[Connection], list[bytes]]


class Run:
    """Consecutive messages of one channel that are held back within a turn of the event loop.

    Attributes:
        channel: theirs; None: there are none, or nobody gets them.
        parts: of each dialect with subscribers: it, the subscribers, and the frames.
        size: bytes of the frames.
    """

    __slots__ = ("channel", "parts", "size")

    def __init__(self) -> None:
        self.channel: bytes | None = None
        self.parts: list[Part] = []
        self.size = 0

    def begin(self, channel: bytes, indexes: Mapping[Dialect, Index[bytes]]) -> None:
        """Begin to hold messages back for connections, which must not change until the run is taken."""
        self.parts = [(dialect, index[channel], []) for dialect, index in indexes.items() if channel in index.of]
        self.channel = channel if self.parts else None
        self.size = 0

    @property
    def is_long(self) -> bool:
        """Whether another message belongs into the next run: a client that reads slowly is sent one in pieces."""
        return self.size > LONGEST

    def take(self) -> Iterator[Connection]:
        """End the run; return an iterator, which queues its messages for one connection after the other, and has those
        that are to be flushed then.
        """
        parts, self.parts, self.channel = self.parts, [], None
        return _queue(parts)


def _queue(parts: list[Part]) -> Iterator[Connection]:
    for _, connections, frames in parts:
        output = frames[0] if len(frames) == 1 else b"".join(frames)
        if output:
            for each in connections:
                if each.append(output):
                    yield each


__all__ = ["Run"]
