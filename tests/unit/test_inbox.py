"""What waits for a consumer: in order, counted and bounded by kind, and turned into events."""

import sys

import msgpack
import pytest

from wsloop.runtime.inbox import (
    BYTES,
    CONNECT,
    DISCONNECT,
    EVENT,
    PRESENCE_CHANGED,
    RESUMED,
    TEXT,
    Inbox,
    MalformedEvent,
    event_of,
)


@pytest.fixture
def inbox():
    return Inbox()


def test_entries_leave_in_their_order(inbox):
    entries = [(CONNECT, None), (TEXT, b"a"), (EVENT, b"123"), (BYTES, b"b"), (DISCONNECT, 1000)]
    for each in entries:
        inbox.put(*each)
    assert (inbox.messages, inbox.events_size) == (2, 3)
    assert [inbox.take() for _ in entries] == entries
    assert (inbox.messages, inbox.events_size, inbox.entries) == (0, 0, None)
    with pytest.raises(IndexError):
        inbox.take()


def test_an_empty_inbox_is_small(inbox):
    inbox.put(TEXT, b"a")
    inbox.take()
    assert sys.getsizeof(inbox) + sys.getsizeof(inbox.entries) < 100


def test_events_are_bounded_by_number(inbox):
    for number in range(3):
        inbox.put(TEXT, b"messages do not count")
        assert inbox.has_room(1, 3, 100) == (number < 3)
        inbox.put(EVENT, b"x")
    assert not inbox.has_room(1, 3, 100)


def test_events_are_bounded_in_bytes_unless_one_is_alone(inbox):
    assert inbox.has_room(1000, 3, 100)
    inbox.put(PRESENCE_CHANGED, bytes(60))
    assert inbox.has_room(40, 3, 100)
    assert not inbox.has_room(41, 3, 100)


def test_half_empty(inbox):
    for _ in range(2):
        inbox.put(EVENT, bytes(20))
        assert inbox.is_half_empty(4, 80)
    inbox.put(EVENT, b"")
    assert not inbox.is_half_empty(4, 80), "by number"
    assert inbox.is_half_empty(6, 80)
    assert not inbox.is_half_empty(6, 79), "by bytes"


def test_clearing(inbox):
    inbox.put(TEXT, b"a")
    inbox.put(EVENT, b"a")
    inbox.clear()
    assert (inbox.messages, inbox.events_size, inbox.entries) == (0, 0, None)


@pytest.mark.parametrize(
    ("kind", "content", "event"),
    [
        (CONNECT, None, {"type": "websocket.connect"}),
        (TEXT, "ä".encode(), {"type": "websocket.receive", "text": "ä"}),
        (BYTES, b"\xff", {"type": "websocket.receive", "bytes": b"\xff"}),
        (DISCONNECT, 1006, {"type": "websocket.disconnect", "code": 1006}),
        (RESUMED, None, {"type": "channel_layer.resumed"}),
        (EVENT, msgpack.packb({"type": "websocket.disconnect"}), {"type": "websocket.disconnect"}),
        (PRESENCE_CHANGED, b'{"event": "join", "type": "x"}', {"event": "join", "type": "presence.changed"}),
    ],
)
def test_events(kind, content, event):
    assert event_of(kind, content) == event


@pytest.mark.parametrize(
    ("kind", "payload"),
    [(EVENT, b""), (EVENT, msgpack.packb([1])), (EVENT, msgpack.packb({"type": "_x"})), (PRESENCE_CHANGED, b"[1]")],
)
def test_malformed_events(kind, payload):
    with pytest.raises(MalformedEvent):
        event_of(kind, payload)
