"""The events of the process's subscription to Redis: one interface, and the same words in all modules.

This module must not know Redis.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from wsloop.protocol.messages import Message, Position


class BrokerEvents:
    """Receives the events of :class:`wsloop.delivery.broker.Broker`, in the order of Redis; these methods do nothing.

    The reader of the subscription calls all of them except :meth:`wait_for_room`; they must not block. If one of them
    raises, the subscription is made anew, and :meth:`failed` is called.
    """

    def message(self, channel: bytes, message: Message, origin: Any) -> None:
        """A message has arrived. In facilities with a history none is missing before it.

        Args:
            channel: of the message.
            message: with its payload.
            origin: as passed to :meth:`~wsloop.delivery.broker.Broker.publish` with exactly this message, if this
                process published it; None otherwise.
        """

    def lost(self, channel: bytes, position: Position) -> None:
        """Messages of a channel with a history are lost for good; the channel continues from this position."""

    def failed(self) -> None:
        """An unexpected error occurred: messages may be lost, in any channel."""

    def connected(self) -> None:
        """The subscription is established (again): messages published before may have been missed."""

    def wait_for_room(self, channels: Collection[bytes], timeout: float) -> None:
        """Return when the receivers have taken their messages, or after ``timeout`` seconds. May block."""


__all__ = ["BrokerEvents"]
