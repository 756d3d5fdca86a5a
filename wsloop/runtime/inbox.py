"""The inbox of a consumer: the bounded queue of its messages and events, and the conversion of entries to events.

Messages of the client and events of the channel layer wait in one queue, in the order in which they arrived, and are
bounded apart from each other: neither takes the other's room. Events for many consumers are put in as they were
published, several at once, and are decoded once for all of them. This module must not know gevent, sockets or Redis.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from operator import length_hint
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
EVENTS = "events"  # only inside an inbox: the rest of some events that were put in together

FLAT = frozenset({str, int, float, bool, bytes, type(None)})  # values that consumers can have in common

MAX_MESSAGES = 16  # messages of the client that wait; at most 1 MiB with the default MAX_MESSAGE_SIZE


class MalformedEvent(Exception):
    """A payload from Redis is not an event, or has a type that names no method; then the text says so."""


class Published:
    """A published event that several consumers get: decoded once, but each has a dictionary of its own.

    Args:
        payload: from Redis.
    """

    __slots__ = ("_event", "payload")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self._event: Event | None = None  # decoded, if copies of it have nothing in common that can change

    def __len__(self) -> int:
        """Return how many bytes it has."""
        return len(self.payload)

    def event(self) -> Event:
        """Return the event; see :func:`event_of`."""
        if self._event is not None:
            return self._event.copy()
        event = _decoded(self.payload)
        if FLAT.issuperset(map(type, event.values())):
            self._event = event.copy()
        return event


class Inbox:
    """A queue of entries.

    Attributes:
        entries: kind and content of each; None if there are none, because an empty deque occupies 760 bytes.
        messages: number of messages of the client.
        events_size: bytes of all published events.
    """

    __slots__ = ("_more", "entries", "events_size", "messages")

    def __init__(self) -> None:
        self.entries: collections.deque[tuple[str, Any]] | None = None
        self.messages = 0
        self.events_size = 0
        self._more = 0  # events beyond the first of each entry

    def has_room(self, size: int, capacity: int, max_bytes: float, count: int = 1) -> bool:
        """Return whether more published events fit; one that is alone may be larger than ``max_bytes``.

        Args:
            size: bytes of the events.
            capacity: number of events that may wait.
            max_bytes: bytes of events that may wait.
            count: number of the events.
        """
        alone = count == 1 and not self.events_size
        return self._events() + count <= capacity and (alone or self.events_size + size <= max_bytes)

    def is_half_empty(self, capacity: int, max_bytes: float) -> bool:
        """Return whether at most half of the room for events is used."""
        return self._events() <= capacity / 2 and self.events_size <= max_bytes / 2

    def _events(self) -> int:
        """Return how many entries are not messages of the client."""
        return len(self.entries) - self.messages + self._more if self.entries else 0

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

    def put_all(self, events: Sequence[Published], size: int) -> None:
        """Append events, at least one.

        Args:
            events: shared with other inboxes; it must not change any more.
            size: bytes of the events.
        """
        entries = self.entries
        if entries is None:
            entries = self.entries = collections.deque()
        entries.append((EVENTS, iter(events)))
        self._more += len(events) - 1
        self.events_size += size

    def take(self) -> tuple[str, Any]:
        """Remove the first entry and return its kind and content; of events that were put in together the first one.

        Raises:
            IndexError: if there is none.
        """
        entries = self.entries
        if entries is None:
            raise IndexError("take from an empty inbox")
        kind, content = entries[0]
        if kind is EVENTS:
            return EVENT, self._take_event(entries, content)
        entries.popleft()
        if not entries:
            self.entries = None
        if kind in MESSAGES:
            self.messages -= 1
        elif kind in PUBLISHED:
            self.events_size -= len(content)
        return kind, content

    def _take_event(self, entries: collections.deque[tuple[str, Any]], events: Iterator[Published]) -> Published:
        event = next(events)
        self.events_size -= len(event)
        if length_hint(events):
            self._more -= 1
        else:
            entries.popleft()
            if not entries:
                self.entries = None
        return event

    def clear(self) -> None:
        """Remove all entries."""
        self.entries = None
        self.messages = self.events_size = self._more = 0


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
    if kind == EVENT:
        return content.event() if isinstance(content, Published) else _decoded(content)
    if kind != PRESENCE_CHANGED:
        return {"type": kind}
    try:
        return {**strict_json.decode(content), "type": PRESENCE_CHANGED}
    except Exception:  # as below
        raise MalformedEvent from None


def _decoded(payload: bytes) -> Event:
    try:
        event = layers.decode(payload)
        if not isinstance(event["type"], str):
            raise TypeError
    except Exception:  # the decoder raises many types, and anybody can publish to a Redis channel
        raise MalformedEvent from None
    try:
        handler_name(event)
    except ValueError as exc:  # in Channels the consumer fails, so that one event closes the sockets of a whole group
        raise MalformedEvent(f": {exc}") from None
    return event


__all__ = ["Inbox", "MalformedEvent", "Published", "event_of"]
