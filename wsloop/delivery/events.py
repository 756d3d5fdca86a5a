"""What the process's line to Redis tells those who listen: one interface, and the same words all the way.

This module must not know Redis.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from wsloop.protocol.messages import Message, Position


class BrokerEvents:
    """Told by :class:`wsloop.delivery.broker.Broker`, in the order of Redis; here nothing is done with it.

    The reader of the subscription calls all of them but :meth:`wait_for_room`; they must not block. What they raise
    ends the subscription, and :meth:`failed` is called.
    """

    def message(self, channel: bytes, message: Message, origin: Any) -> None:
        """A message has come on a channel. In facilities with a history none is missing before it.

        Args:
            channel: on which it came.
            message: what came.
            origin: what :meth:`~wsloop.delivery.broker.Broker.publish` was given with exactly this message, if it is of
                this process; None otherwise.
        """

    def lost(self, channel: bytes, position: Position) -> None:
        """Messages of a channel with a history are lost for good; it goes on from this position."""

    def failed(self) -> None:
        """Something unforeseen was raised: messages are lost, in any channel."""

    def connected(self) -> None:
        """The subscription stands, or stands again: what was published before may have been missed."""

    def wait_for_room(self, channels: Collection[bytes], timeout: float) -> None:
        """Return when those who listen have taken what they were given, or after ``timeout`` seconds. May block."""


__all__ = ["BrokerEvents"]
