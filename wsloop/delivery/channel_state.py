"""One channel with a history: its position, and the messages that wait until those before them have been delivered.

This module must not read histories.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gevent.event import Event

from wsloop.protocol.messages import Message, Position

WAITING_BYTES = 256 * 1024  # that may wait in one channel; more is dropped, because the history has it too

Waiting = tuple[int, Message, Any]  # its number among all messages that arrived, the message, and its origin


class ChannelState:
    """One channel.

    Attributes:
        position: of the last message that was delivered; None: not known yet.
        waiting: messages that wait for missing ones before them; None: nothing is missing.
        dropped: some of the waiting messages were dropped.
        known: ids of messages that were read from the history, and are still to arrive; None: there are none.
        ready: set as soon as the position is known; None: it is.
        subscriptions: how often the channel has been subscribed to: pages read before the last time may be outdated.
    """

    __slots__ = ("dropped", "known", "position", "ready", "size", "subscriptions", "waiting")

    def __init__(self) -> None:
        self.position: Position | None = None
        self.waiting: list[Waiting] | None = []
        self.size = 0
        self.dropped = False
        self.known: set[str] | None = None  # not an empty set: there may be 20,000 channels
        self.ready: Event | None = Event()
        self.subscriptions = 0

    def settle(self) -> None:
        """The position is known: wake who waits for it."""
        if self.ready is not None:
            self.ready.set()
            self.ready = None

    def expect(self, id: str) -> None:
        """A message was read from the history: it may be one of those that are still to arrive."""
        if self.known is None:
            self.known = set()
        self.known.add(id)

    def hold(self, messages: Iterable[Waiting] = ()) -> None:
        """Let ``messages``, and all that arrive from now on, wait; those that waited before are dropped."""
        self.waiting, self.size, self.dropped = [], 0, False
        for each in messages:
            self.wait(*each)

    def wait(self, number: int, message: Message, origin: Any) -> None:
        """Let one more message wait. Beyond :data:`WAITING_BYTES` those before it are dropped."""
        waiting = self.waiting
        assert waiting is not None
        self.size += len(message.payload)
        if self.size > WAITING_BYTES and waiting:
            waiting.clear()
            self.size = len(message.payload)
            self.dropped = True
        waiting.append((number, message, origin))
