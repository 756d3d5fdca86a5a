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
    Published,
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


# Events for several consumers.


def published(*numbers, **more):
    events = [Published(msgpack.packb({"type": "happened", "number": number} | more)) for number in numbers]
    return events, sum(map(len, events))


def test_events_that_are_put_in_together_leave_one_by_one_in_their_order(inbox):
    events, size = published(1, 2, 3)
    inbox.put(TEXT, b"before")
    inbox.put_all(events, size)
    inbox.put(TEXT, b"behind")
    inbox.put_all(*published(4))
    taken = []
    while inbox.entries:
        taken.append(inbox.take())
    assert [kind for kind, _ in taken] == [TEXT, EVENT, EVENT, EVENT, TEXT, EVENT]
    assert [event_of(*each)["number"] for each in taken if each[0] == EVENT] == [1, 2, 3, 4]
    assert (inbox.messages, inbox.events_size) == (0, 0)
    assert inbox.has_room(10**6, 1, 100)


def test_each_of_them_counts(inbox):
    events, size = published(1, 2, 3)
    assert inbox.has_room(size, 3, size, count=3)
    assert not inbox.has_room(size, 2, size, count=3)
    assert not inbox.has_room(size, 3, size - 1, count=3)
    inbox.put_all(events, size)
    for left in (3, 2, 1):
        assert inbox.events_size == left * len(events[0])
        assert not inbox.has_room(0, left, 10**6)
        assert inbox.has_room(0, left + 1, 10**6)
        inbox.take()
    inbox.put_all(events, size)
    inbox.clear()
    assert inbox.has_room(10**6, 1, 100)


def test_two_inboxes_with_the_same_events_do_not_disturb_each_other():
    events, size = published(1, 2)
    one, two = Inbox(), Inbox()
    for inbox in (one, two):
        inbox.put_all(events, size)
    assert one.take()[1] is two.take()[1] is events[0]
    assert one.take()[1] is two.take()[1] is events[1]


@pytest.mark.parametrize("more", [{}, {"parts": [1], "of": {"a": 1}}])
def test_what_a_consumer_does_to_its_event_no_other_sees(more):
    (event,), _ = published(1, **more)
    first = event_of(EVENT, event)
    first.pop("type")
    if more:
        first["parts"].append(2)
        first["of"].clear()
    first["number"] = 2
    assert event_of(EVENT, event) == event_of(EVENT, event) == {"type": "happened", "number": 1, **more}


def test_an_event_for_several_is_decoded_once(monkeypatch):
    (event,), _ = published(1)
    assert event_of(EVENT, event)["number"] == 1
    monkeypatch.setattr("wsloop.layers.decode", None)
    assert event_of(EVENT, event)["number"] == 1


def test_a_malformed_event_for_several_is_so_for_each():
    event = Published(msgpack.packb({"type": "_x"}))
    for _ in range(2):
        with pytest.raises(MalformedEvent):
            event_of(EVENT, event)
