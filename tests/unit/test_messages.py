"""What travels through Redis, and whom a channel is for."""

import pytest

from wsloop.protocol.messages import HEAD, Audience, Message, Position, audience, new_id, unwrap

PAYLOADS = [b"", b"hello", b"\n", b"\0", b"\xff\x00", b"two\nlines\n", HEAD, HEAD + b"1 a b -\nother", b"x" * 100_000]


def wrap(payload, offset=b"17", own=b"kP3xQ0aZ-_09", previous=b"-", several=b"-", time=b""):
    """A header as publish.lua writes it."""
    return HEAD + b"%b %b %b %b%b\n" % (offset, own, previous, several, time) + payload


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_header_is_taken_off_and_nothing_else(payload):
    assert unwrap(wrap(payload)) == Message(payload, "kP3xQ0aZ-_09", 17, "-", False)
    assert unwrap(wrap(payload, b"0", b"a", b"b", b"s")) == Message(payload, "a", 0, "b", True)
    timed = wrap(payload, time=b" 1700000000123456")
    assert unwrap(timed) == Message(payload, "kP3xQ0aZ-_09", 17, "-", False, 1700000000123456)


@pytest.mark.parametrize("payload", [each for each in PAYLOADS if not each.startswith(HEAD)])
def test_without_a_header_all_of_it_is_the_message(payload):
    message = unwrap(payload)
    assert message == (payload, "", 0, "", False, 0)
    assert message.position == (0, "")


@pytest.mark.parametrize(
    "data",
    [
        HEAD,
        HEAD + b"\n",
        HEAD + b"17 a b -",  # no end
        HEAD + b"17 a b - \nx",
        HEAD + b"17 a b x\nx",
        HEAD + b"17 a b\nx",
        HEAD + b"17  b -\nx",
        HEAD + b"-1 a b -\nx",
        HEAD + b"1.5 a b -\nx",
        HEAD + b"12345678901234567 a b -\nx",
        HEAD + b"17 \xc3\xbc b -\nx",
        HEAD + b"17 a" + b"a" * 32 + b" b -\nx",
        HEAD + b"17 a b -\r\nx",
        HEAD + b"17 a b - 1x\nx",
        HEAD + b"17 a b - -1\nx",
        HEAD + b"17 a b - 1 2\nx",
        HEAD + b"17 a b - 123456789012345678\nx",
        HEAD[1:] + b"17 a b -\nx",
        b" " + wrap(b"x"),
        wrap(b"x").replace(b"w1", b"w2"),
    ],
)
def test_a_broken_header_is_none(data):
    assert unwrap(data) == Message(data)


def test_the_largest_number_of_a_history():
    assert unwrap(wrap(b"", offset=b"9999999999999999")).offset == 9999999999999999


def test_which_message_follows_which():
    first = Message(b"1", "a", 1, "-")
    second = Message(b"2", "b", 2, "a")
    assert second.follows(first.position)
    assert not first.follows(second.position)
    assert not second.follows(second.position)
    assert not second.follows(Position(1, "other")), "the same number on another line"
    assert not second._replace(offset=3).follows(first.position)
    assert first.follows(Position(0, "-"))
    assert not first.follows(Position(0, "genesis"))


def test_ids_fit_the_header_and_differ():
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(unwrap(wrap(b"", own=each.encode())).id == each for each in ids)


# Whom a channel is for.


@pytest.mark.parametrize(
    ("channel", "whom", "text"),
    [
        (b"unit:broadcast:news", Audience("broadcast", "", "news"), "broadcast"),
        (b"unit:user:john:news", Audience("user", "", "news"), "user"),
        (b"unit:session:a-secret:news", Audience("session", "", "news"), "session"),
        (b"unit:group:chatters:rooms/1", Audience("group", "chatters", "rooms/1"), "group:chatters"),
        (b"unit:group:team:a:news", Audience("group", "team:a", "news"), "group:team:a"),
        ("unit:group:grün:news".encode(), Audience("group", "grün", "news"), "group:grün"),
        (b"unit:presence:news", Audience("presence", "", "news"), "presence"),
        (b"unit:everything:news", Audience("other"), "other"),
        (b"broadcast:news", Audience("broadcast", "", "news"), "broadcast"),
        (b"\xff\xfe", Audience("other"), "other"),
    ],
)
def test_whom_a_channel_is_for_without_a_secret(channel, whom, text):
    assert audience(channel) == whom
    assert str(whom) == text
