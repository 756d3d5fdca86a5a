"""Events between a consumer and its socket: the method that one calls, and what may be sent."""

import pytest

from wsloop.protocol.consumer_events import check_close, check_sent, handler_name

# Names.


@pytest.mark.parametrize(
    ("kind", "name"),
    [("chat.message", "chat_message"), ("chat_message", "chat_message"), ("a.b.c", "a_b_c"), ("x._y", "x__y")],
)
def test_the_method_is_named_after_the_type(kind, name):
    assert handler_name({"type": kind}) == name


@pytest.mark.parametrize("event", [{}, {"type": ""}, {"type": None}, {"type": 5}, {"type": b"chat"}, {"type": ["a"]}])
def test_an_event_without_a_type_is_refused(event):
    with pytest.raises(ValueError, match='an event needs a "type"'):
        handler_name(event)


@pytest.mark.parametrize("kind", ["_private", "__init__", ".class", "._x"])
def test_a_type_that_would_call_what_is_not_meant_for_others_is_refused(kind):
    with pytest.raises(ValueError, match="must not begin with an underscore or a dot"):
        handler_name({"type": kind})


# Close codes.


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_close_codes_that_may_be_sent(code):
    check_close(code, "")
    check_close(code, "ä" * 61 + "x")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, -1, "1000", None, True])
def test_close_codes_that_may_not(code):
    with pytest.raises(ValueError, match=r"1000 to 1014 except 1004 to 1006, or 3000 to 4999"):
        check_close(code, "")


@pytest.mark.parametrize("reason", [b"bytes", 5, None, "\ud800"])
def test_reasons_that_may_not(reason):
    with pytest.raises(ValueError):
        check_close(1000, reason)


def test_reasons_are_measured_in_bytes():
    with pytest.raises(ValueError, match="may have 123 bytes, this one has 124"):
        check_close(1000, "ä" * 62)


@pytest.mark.parametrize(
    ("event", "error", "words"),
    [
        ({}, ValueError, "not None"),
        ({"type": "websocket.http"}, ValueError, "not 'websocket.http'"),
        ({"type": "websocket.accept", "subprotocol": "soap"}, ValueError, "has not offered the subprotocol 'soap'"),
        ({"type": "websocket.accept", "subprotocol": ""}, ValueError, "has not offered the subprotocol ''"),
        ({"type": "websocket.send"}, TypeError, "must be text"),
        ({"type": "websocket.send", "text": b"x"}, TypeError, "must be text"),
        ({"type": "websocket.send", "bytes": "x"}, TypeError, "must be text"),
        ({"type": "websocket.send", "text": 1, "bytes": b"x"}, TypeError, "must be text"),
        ({"type": "websocket.close", "code": 1005}, ValueError, "a close code must be"),
        ({"type": "websocket.close", "reason": "x" * 124}, ValueError, "123 bytes"),
    ],
)
def test_what_cannot_be_done_for_a_consumer(event, error, words):
    with pytest.raises(error, match=words):
        check_sent(event, ["chat"])


@pytest.mark.parametrize(
    "event",
    [
        {"type": "websocket.accept"},
        {"type": "websocket.accept", "subprotocol": "chat"},
        {"type": "websocket.send", "text": ""},
        {"type": "websocket.send", "text": None, "bytes": b""},
        {"type": "websocket.close"},
        {"type": "websocket.close", "code": 3000, "reason": None},
    ],
)
def test_what_can(event):
    check_sent(event, ["chat"])
