"""The inbox of a consumer: the bounded queue of its messages and events, and the conversion of entries to events.

Messages of the client and events of the channel layer wait in one queue, in the order in which they arrived, and are
bounded apart from each other: neither takes the other's room. This module must not know gevent, sockets or Redis.
"""

from __future__ import annotations

import collections
from typing import Any

from wsloop import layers
from wsloop.protocol import strict_json
from wsloop.protocol.consumer_events import Event, handler_name

# The kinds of entries. An event of the channel layer may have any type, that of a socket's event too, so the kind of an
# entry is not the type of its event.
CONNECT, DISCONNECT = "websocket.connect", "websocket.disconnect"
TEXT, BYTES = "text", "bytes"
EVENT, PRESENCE_CHANGED, RESUMED = "event", "presence.changed", "channel_layer.resumed"

MESSAGES = frozenset({TEXT, BYTES})
PUBLISHED = frozenset({EVENT, PRESENCE_CHANGED})

MAX_MESSAGES = 16  # messages of the client that wait; at most 1 MiB with the default MAX_MESSAGE_SIZE


class MalformedEvent(Exception):
    """A payload from Redis is not an event, or has a type that names no method; then the text says so."""


class Inbox:
    """A queue of entries.

    Attributes:
        entries: kind and content of each; None if there are none, because an empty deque occupies 760 bytes.
        messages: number of messages of the client.
        events_size: bytes of all published events.
    """

    __slots__ = ("entries", "events_size", "messages")

    def __init__(self) -> None:
        self.entries: collections.deque[tuple[str, Any]] | None = None
        self.messages = 0
        self.events_size = 0

    def has_room(self, size: int, capacity: int, max_bytes: float) -> bool:
        """Return whether one more published event fits; one that is alone may be larger than ``max_bytes``.

        Args:
            size: bytes of the event.
            capacity: number of events that may wait.
            max_bytes: bytes of events that may wait.
        """
        return self._events() < capacity and (not self.events_size or self.events_size + size <= max_bytes)

    def is_half_empty(self, capacity: int, max_bytes: float) -> bool:
        """Return whether at most half of the room for events is used."""
        return self._events() <= capacity / 2 and self.events_size <= max_bytes / 2

    def _events(self) -> int:
        """Return how many entries are not messages of the client."""
        return len(self.entries) - self.messages if self.entries else 0

    def put(self, kind: str, content: Any) -> None:
        """Append an entry.

        Args:
            kind: one of the constants above.
            content: the payload of a message or a published event in bytes, or the code of a ``DISCONNECT``.
        """
        entries = self.entries
        if entries is None:
            entries = self.entries = collections.deque()
        entries.append((kind, content))
        if kind in MESSAGES:
            self.messages += 1
        elif kind in PUBLISHED:
            self.events_size += len(content)

    def take(self) -> tuple[str, Any]:
        """Remove the first entry and return its kind and content.

        Raises:
            IndexError: if there is none.
        """
        entries = self.entries
        if entries is None:
            raise IndexError("take from an empty inbox")
        kind, content = entries.popleft()
        if not entries:
            self.entries = None
        if kind in MESSAGES:
            self.messages -= 1
        elif kind in PUBLISHED:
            self.events_size -= len(content)
        return kind, content

    def clear(self) -> None:
        """Remove all entries."""
        self.entries = None
        self.messages = self.events_size = 0


def event_of(kind: str, content: Any) -> Event:
    """Return the event with which a consumer is called for an entry.

    Raises:
        MalformedEvent: if a published payload is not an event.
    """
    if kind == TEXT:
        return {"type": "websocket.receive", "text": content.decode()}
    if kind == BYTES:
        return {"type": "websocket.receive", "bytes": content}
    if kind == DISCONNECT:
        return {"type": kind, "code": content}
    try:
        if kind == EVENT:
            event = layers.decode(content)
            if not isinstance(event["type"], str):
                raise TypeError
        elif kind == PRESENCE_CHANGED:
            event = {**strict_json.decode(content), "type": PRESENCE_CHANGED}
        else:
            event = {"type": kind}
    except Exception:  # the decoders raise many types, and anybody can publish to a Redis channel
        raise MalformedEvent from None
    try:
        handler_name(event)
    except ValueError as exc:  # in Channels the consumer fails, so that one event closes the sockets of a whole group
        raise MalformedEvent(f": {exc}") from None
    return event


__all__ = ["Inbox", "MalformedEvent", "event_of"]
