"""The socket of a room: what it is sent, and what it answers."""

import uuid

import pytest
from django.test import TestCase
from redis.exceptions import RedisError

from chat.models import Message, Room
from chat.rooms import consumer, conversation
from chat.rooms.conversation import PAGE
from project.routing import websocket_urlpatterns
from wsloop.layers import get_channel_layer
from wsloop.testing import WebsocketCommunicator

KNOWN = "Send an object with one of these types: message, typing, read, ping."


@pytest.fixture(autouse=True)
def without_redis(no_redis):
    """Events go from consumer to consumer; who is there is not known, and that is all the same."""


@pytest.fixture
def opened(database):
    """Open the socket of a room: ``opened(john, "tea", after=3)``; an unexpected answer at its end fails the test."""
    sockets = []

    def opened(user=None, room="tea", after=0):
        query = "" if after is None else f"?after={after}"
        socket = WebsocketCommunicator(websocket_urlpatterns, f"/ws/rooms/{room}/{query}", user=user)
        assert socket.connect() == (True, None)
        sockets.append(socket)
        return socket

    yield opened
    for socket in sockets:
        socket.disconnect()


@pytest.fixture
def write(john):
    """Write to a room and announce it, as a view does."""

    def write(*texts, author=john, room="tea"):
        for text in texts:
            with TestCase.captureOnCommitCallbacks(execute=True):
                conversation.write(room, author, text)

    return write


def told(socket):
    """All that has come since the last time it was asked."""
    found = []
    while not socket.receive_nothing(0):
        found.append(socket.receive_json_from())
    return found


def texts(socket):
    return [message["text"] for frame in told(socket) for message in frame["messages"]]


def send(socket, **content):
    with TestCase.captureOnCommitCallbacks(execute=True):
        socket.send_json_to(content)


def error(socket):
    """The sentences of the only thing that has come: an error."""
    (frame,) = told(socket)
    assert frame["type"] == "error"
    return frame["errors"]


# --- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
def test_a_socket_begins_with_what_comes_after_the_number_it_names(john, opened, count):
    room = Room.objects.create(slug="tea", last_number=3 + count)
    Message.objects.bulk_create(
        Message(room=room, number=number, author=john, text=str(number)) for number in range(1, 4 + count)
    )
    socket = opened(after=3)
    frames = told(socket)
    assert [message["number"] for frame in frames for message in frame["messages"]] == list(range(4, 4 + count))
    assert all(len(frame["messages"]) <= PAGE for frame in frames)


@pytest.mark.parametrize("after", [None, "", "abc", "-1", "9" * 30])
def test_a_socket_that_names_no_number_begins_with_what_is_new(opened, write, after):
    write("old")
    socket = opened(after=after)
    write("new")
    assert texts(socket) == ["new"]


def test_a_page_of_somebody_else_is_told_so(john):
    """It may be older than the sign-in; what is written there would be stored under another name."""
    for user, page, code in ((john, "mary", 4001), (None, "john", 4001), (john, "john", None), (john, "", None)):
        with WebsocketCommunicator(websocket_urlpatterns, f"/ws/rooms/tea/?after=0&as={page}", user=user) as socket:
            assert socket.connect() == (True, None)
            if code is None:
                socket.send_json_to({"type": "ping"})
                assert socket.receive_json_from() == {"type": "pong"}
            else:
                assert socket.receive_output()["code"] == code


def test_a_message_reaches_everybody_in_the_room_once(john, mary, opened):
    sender, other_window, reader, guest, elsewhere = (
        opened(john),
        opened(john),
        opened(mary),
        opened(),
        opened(mary, "beer"),
    )
    key = str(uuid.uuid4())
    send(sender, type="message", text=" Grüße\r\n🙂 ", key=key)
    message = Message.objects.select_related("author").get(room__slug="tea")
    frame = {"type": "messages", "messages": [conversation.as_data(message)]}
    assert frame["messages"][0]["text"] == "Grüße\n🙂"
    assert told(sender) == [{"type": "ack", "key": key, "number": 1}, frame]
    assert told(other_window) == told(reader) == told(guest) == [frame]
    assert told(elsewhere) == []


def test_what_a_view_stores_reaches_sockets(sign_in, opened):
    socket = opened()
    with TestCase.captureOnCommitCallbacks(execute=True):
        sign_in("john").post("/rooms/tea/", {"message": "by a form"})
    assert texts(socket) == ["by a form"]


def test_announcements_that_come_in_another_order_are_put_right(opened, write, john):
    socket = opened()
    with TestCase.captureOnCommitCallbacks() as announcements:
        for text in ("one", "two", "three"):
            conversation.write("tea", john, text)
    one, two, three = announcements
    two()
    assert texts(socket) == ["one", "two", "three"]  # all that was committed
    one()
    three()
    assert told(socket) == []
    write("four")
    assert texts(socket) == ["four"]


def test_announcements_that_are_lost_are_made_up_for(opened, write, john):
    socket = opened()
    conversation.write("tea", john, "lost")
    assert told(socket) == []
    write("announced")
    assert texts(socket) == ["lost", "announced"]
    conversation.write("tea", john, "lost as well")
    get_channel_layer().send(socket.consumer.channel_name, {"type": "channel_layer.resumed"})
    assert texts(socket) == ["lost as well"]
    conversation.write("tea", john, "lost without anybody noticing")
    send(socket, type="ping")
    *messages, pong = told(socket)
    assert [frame["messages"][0]["text"] for frame in messages] == ["lost without anybody noticing"]
    assert pong == {"type": "pong"}


def test_a_message_that_was_deleted_stops_nothing(opened, write):
    write("one", "two", "three")
    Message.objects.filter(text="three").delete()
    socket = opened(after=1)
    write("four", "five")
    assert texts(socket) == ["two", "four", "five"]


def test_ones_own_message_is_shown_though_it_cannot_be_announced(opened, john):
    socket = opened(john)
    socket.send_json_to({"type": "message", "text": "hello"})
    ack, messages = told(socket)
    assert (ack["number"], messages["messages"][0]["text"]) == (1, "hello")


def test_who_has_written_before_is_sent_what_was_written_in_between(opened, john, mary):
    """A message of one's own does not hide those of others that were not announced yet."""
    socket = opened(john)
    conversation.write("tea", mary, "of mary")
    send(socket, type="message", text="of john")
    ack, *_ = frames = told(socket)
    assert (ack["type"], ack["number"]) == ("ack", 2)
    assert [message["text"] for frame in frames[1:] for message in frame["messages"]] == ["of mary", "of john"]


# --- what it answers --------------------------------------------------------------------------------------------------


def test_a_message_that_is_sent_again_is_acknowledged_and_stored_once(opened, john):
    key = str(uuid.uuid4())
    for _ in range(2):
        socket = opened(john)
        send(socket, type="message", text="once", key=key)
        assert {"type": "ack", "key": key, "number": 1} in told(socket)
    assert Message.objects.filter(room__slug="tea").count() == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x" * 2001, "A message may have 2000 characters; this one has 2001."),
        (" \n", "Write something first."),
        ("\0", "Null characters are not allowed."),
    ],
)
def test_a_text_is_checked_as_that_of_the_form(opened, john, text, sentence):
    socket = opened(john)
    key = str(uuid.uuid4())
    send(socket, type="message", text=text, key=key)
    assert told(socket) == [{"type": "error", "key": key, "errors": {"message": [sentence]}}]
    assert not Room.objects.filter(slug="tea").exists()


def test_who_has_not_signed_in_reads_only(opened):
    socket = opened()
    send(socket, type="message", text="spam", key="a")
    assert told(socket) == [{"type": "error", "key": "a", "errors": {"__all__": ["Sign in to write."]}}]
    send(socket, type="typing")
    assert told(socket) == []


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        ("", "This is not valid JSON."),
        ("{", "This is not valid JSON."),
        ("--heartbeat--", "This is not valid JSON."),
        ("[" * 100_000, "This is not valid JSON."),
        ("9" * 10_000, "This is not valid JSON."),
        (b'{"type": "ping"}', "This is not valid JSON."),
        ('{"type": "message", "text": "\\ud83d", "key": null}', "This is not valid JSON."),  # half a character
        ("null", KNOWN),
        ("[]", KNOWN),
        ("{}", KNOWN),
        ('{"type": ["ping"]}', KNOWN),
        ('{"type": "take"}', KNOWN),
        ('{"type": "room.message", "message": {}}', KNOWN),
        ('{"type": "message"}', "A message must have a text, and may have a key, which is text as well."),
        (
            '{"type": "message", "text": {"a": 1}}',
            "A message must have a text, and may have a key, which is text as well.",
        ),
        (
            '{"type": "message", "text": "a", "key": 1}',
            "A message must have a text, and may have a key, which is text as well.",
        ),
        ('{"type": "read"}', "No message with this number was sent."),
        ('{"type": "read", "number": true}', "No message with this number was sent."),
        ('{"type": "read", "number": 1e300}', "No message with this number was sent."),
        ('{"type": "read", "number": 2}', "No message with this number was sent."),
        ('{"type": "read", "number": 0}', "No message with this number was sent."),
    ],
)
def test_a_frame_that_makes_no_sense_is_answered_and_the_socket_stays(opened, john, write, frame, sentence):
    write("one")
    socket = opened(john, after=1)
    if isinstance(frame, bytes):
        socket.send_to(bytes_data=frame)
    else:
        socket.send_to(text_data=frame)
    assert error(socket) == {"__all__": [sentence]}
    send(socket, type="ping")
    assert told(socket) == [{"type": "pong"}]


def test_a_key_that_is_none(opened, john):
    socket = opened(john)
    send(socket, type="message", text="hello", key="none")
    assert error(socket) == {"key": ["Enter a valid UUID."]}


# --- typing, reading, coming and going --------------------------------------------------------------------------------


def test_others_are_told_who_is_typing_but_not_too_often(opened, john, mary, monkeypatch):
    now = 100.0
    monkeypatch.setattr(consumer.time, "monotonic", lambda: now)
    typist, other_window, reader = opened(john), opened(john), opened(mary)
    for _ in range(10):
        send(typist, type="typing")
    assert told(reader) == [{"type": "typing", "user": "john"}]
    assert told(other_window) == told(typist) == []
    now += consumer.TYPING_INTERVAL
    send(typist, type="typing")
    send(typist, type="message", text="hello")
    send(typist, type="typing")
    assert [frame["type"] for frame in told(reader)] == ["typing", "messages", "typing"]


def test_what_was_read_is_noted(opened, john, mary, write):
    write("one", "two", "three", author=mary)
    socket = opened(john)
    told(socket)
    for number, mark in ((2, 2), (1, 2), (3, 3)):
        send(socket, type="read", number=number)
        assert conversation.read_mark("tea", john) == mark
    guest = opened()
    told(guest)
    send(guest, type="read", number=3)
    assert told(socket) == told(guest) == []


def test_who_comes_and_goes_is_passed_on(opened):
    socket = opened()
    for event in ({"event": "join", "user": "mary"}, {"event": "anonymous", "count": 2}):
        get_channel_layer().send(socket.consumer.channel_name, {"type": "presence.changed", **event})
        assert told(socket) == [{"type": "presence", **event}]


def test_a_socket_begins_with_who_is_there(opened, listen):
    assert told(opened()) == [{"type": "who", "users": [], "anonymous": 0}]


# --- what does not work -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x" * 51, "Lobby"])
def test_a_name_that_no_room_can_have_is_rejected(database, name):
    socket = WebsocketCommunicator(websocket_urlpatterns, f"/ws/rooms/{name}/")
    assert socket.connect()[0] is False
    socket.disconnect()


def test_a_socket_that_cannot_join_is_told_to_come_back(opened, monkeypatch):
    def fail(*args):
        raise RedisError("out of order")

    monkeypatch.setattr(get_channel_layer(), "group_add", fail)
    socket = opened()
    assert socket.receive_output() == {
        "type": "websocket.close",
        "code": 1013,
        "reason": "live updates are not available",
    }
