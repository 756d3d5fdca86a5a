"""Events between a consumer and its socket: the method that one calls, and what may be sent."""

import pytest

from wsloop.protocol.consumer_events import (
    MAX_HEADERS,
    check_close,
    check_sent,
    handler_name,
    response_headers,
)

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
    with pytest.raises(ValueError, match="leading underscore"):
        handler_name({"type": kind})


def test_the_error_for_a_long_type_is_short():
    with pytest.raises(ValueError) as raised:
        handler_name({"type": "_" * 10**6})
    assert len(str(raised.value)) < 300


# Headers of the 101.


@pytest.mark.parametrize(
    ("given", "headers"),
    [
        (None, ()),
        ([], ()),
        ([(b"x-name", b"value")], (("x-name", "value"),)),
        ((("X-Name", "value"), ["X-Name", b"again"]), (("X-Name", "value"), ("X-Name", "again"))),
        ([("a!#$%&'*+-.^_`|~9", "")], (("a!#$%&'*+-.^_`|~9", ""),)),
        ([("x-name", b" \t a \t b\xff ")], (("x-name", "a \t b\xff"),)),
        (iter([("x-name", "Grüße")]), (("x-name", "Grüße"),)),
        ([("set-cookie", "a=b; HttpOnly"), ("Server", "x")], (("set-cookie", "a=b; HttpOnly"), ("Server", "x"))),
    ],
)
def test_headers(given, headers):
    assert response_headers(given) == headers


@pytest.mark.parametrize(
    "name", ["", b"", "a b", "a:", "a\r\nb", "ä", b"\xe4", "a\0", " a", "a\n", "(a)", None, 5, ["a"]]
)
def test_names_of_headers_that_are_none(name):
    with pytest.raises(ValueError, match="the name of a header must be letters, digits and hyphens, not"):
        response_headers([(name, "value")])


@pytest.mark.parametrize(
    "value", ["a\r\nb: c", b"a\nb", "a\r", "\0", "a\x7f", "\x1b", "a\n", "€", "\ud800", None, 5, ["a"], bytearray(b"a")]
)
def test_values_of_headers_that_are_none(value):
    with pytest.raises(
        ValueError, match="the header 'x-secret' must have one line of Latin-1 text as its value"
    ) as raised:
        response_headers([("x-secret", value)])
    assert "a" not in str(raised.value).replace(
        "the header 'x-secret' must have one line of Latin-1 text as its value", ""
    )


@pytest.mark.parametrize(
    "name",
    [
        *("Connection", b"UPGRADE", "content-length", "Transfer-Encoding", "trailer"),
        *("Sec-WebSocket-Accept", b"sec-websocket-protocol", "SEC-WEBSOCKET-EXTENSIONS", "sec-websocket-anything"),
    ],
)
def test_headers_of_the_handshake_itself_cannot_be_set(name):
    with pytest.raises(ValueError, match=r"accept\(\) cannot set the header .*: the handshake does"):
        response_headers([("x-name", "value"), (name, "value")])


@pytest.mark.parametrize(
    "headers", ["x-name", b"x", {"x-name": "value"}, 5, ["x-name"], [("a",)], [("a", "b", "c")], [None]]
)
def test_what_are_no_headers(headers):
    with pytest.raises(ValueError, match="headers must be pairs of name and value"):
        response_headers(headers)


def test_headers_are_bounded_in_all():
    one = [("x-name", "x" * (MAX_HEADERS - len("x-name: \r\n")))]
    assert response_headers(one)
    for more in ([("x-name", one[0][1] + "x")], [*one, ("a", "")], (("a", "") for _ in iter(int, 1))):
        with pytest.raises(ValueError, match="may have 4096 bytes in all"):
            response_headers(more)


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
