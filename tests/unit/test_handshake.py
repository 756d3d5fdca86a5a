"""From a request's environ to the headers of the 101, or a refusal in words."""

import base64
import hashlib

import pytest

from wsloop.handshake import check_sizes, client_address, negotiate
from wsloop.protocol.deflate import Deflate
from wsloop.refusals import Refused

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()

GOOD = {
    "REQUEST_METHOD": "GET",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_HOST": "localhost",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_UPGRADE": "websocket",
    "HTTP_SEC_WEBSOCKET_KEY": KEY,
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}
# What nginx's uwsgi_params add to a request.
UWSGI_PASS = {"DOCUMENT_ROOT": "/usr/share/nginx/html", "REQUEST_SCHEME": "http"}
UPGRADE = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]


def environ(**changes):
    """A good handshake with changes; None takes a variable away."""
    return {name: value for name, value in (GOOD | changes).items() if value is not None}


def refused(subprotocols=(), **changes):
    with pytest.raises(Refused) as caught:
        negotiate(environ(**changes), subprotocols)
    return caught.value


# RFC 6455, section 4.2.


def test_a_good_handshake_is_accepted():
    assert ACCEPT == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "the example of RFC 6455, section 1.3"
    assert negotiate(environ(), ())[0] == [*UPGRADE[:2], ("Sec-WebSocket-Accept", ACCEPT)]


@pytest.mark.parametrize(
    "changes",
    [
        {"HTTP_UPGRADE": "WebSocket"},
        {"HTTP_CONNECTION": "keep-alive, Upgrade"},  # Firefox
        {"HTTP_CONNECTION": "upgrade"},
        {"HTTP_SEC_WEBSOCKET_EXTENSIONS": "permessage-deflate; client_max_window_bits"},
    ],
)
def test_spellings_of_clients_are_accepted(changes):
    assert negotiate(environ(**changes), ())[0] == negotiate(environ(), ())[0]


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS", "CONNECT", None])
def test_another_method_is_405(method):
    refusal = refused(REQUEST_METHOD=method)
    assert refusal.status == 405
    assert refusal.headers == [("Allow", "GET")]
    assert refusal.reason == "A WebSocket is opened with a GET request."


@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/2", None])
def test_another_http_is_505_with_what_to_do(protocol):
    refusal = refused(SERVER_PROTOCOL=protocol)
    assert refusal.status == 505
    assert "proxy_http_version 1.1" in refusal.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"HTTP_UPGRADE": None, "HTTP_CONNECTION": None},
        {"HTTP_UPGRADE": None},
        {"HTTP_CONNECTION": None},
        {"HTTP_CONNECTION": "keep-alive"},
        {"HTTP_UPGRADE": "", "HTTP_CONNECTION": ""},  # a proxy that hands on what is not there
        {"HTTP_UPGRADE": "h2c"},
    ],
)
def test_without_an_upgrade_it_is_426_with_what_to_do(changes):
    refusal = refused(**changes)
    assert refusal.status == 426
    assert refusal.headers == UPGRADE
    assert "connect to it with a WebSocket client" in refusal.reason
    assert 'proxy_set_header Connection "upgrade"' in refusal.reason


@pytest.mark.parametrize("version", ["8", "7", "14", "13, 8", "latest"])
def test_another_version_is_426(version):
    refusal = refused(HTTP_SEC_WEBSOCKET_VERSION=version)
    assert refusal.status == 426
    assert refusal.headers == UPGRADE
    assert refusal.reason == "This server speaks version 13 of the WebSocket protocol (RFC 6455) only."


@pytest.mark.parametrize(
    ("changes", "header"),
    [
        ({"HTTP_SEC_WEBSOCKET_KEY": None}, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": ""}, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "c2hvcnQ="}, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "not base64!"}, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": None}, "Sec-WebSocket-Version"),
    ],
)
def test_a_header_that_is_missing_or_bad_is_400_and_named(changes, header):
    refusal = refused(**changes)
    assert refusal.status == 400
    assert refusal.reason == f"The header {header} is missing or not valid (RFC 6455, section 4.1)."


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"),
    [
        ((), None, None),
        ((), "chat", None),
        (("v2", "v1"), None, None),
        (("v2", "v1"), "v1", "v1"),
        (("v2", "v1"), "v1, v2", "v2"),  # the server's preference
        (("v2", "v1"), "chat, superchat", None),
    ],
)
def test_a_subprotocol_is_chosen_from_what_the_server_speaks(ours, theirs, chosen):
    answer = negotiate(environ(HTTP_SEC_WEBSOCKET_PROTOCOL=theirs), ours)[0]
    expected = [] if chosen is None else [("Sec-WebSocket-Protocol", chosen)]
    assert [header for header in answer if header[0] == "Sec-WebSocket-Protocol"] == expected


@pytest.mark.parametrize("variable", ["HTTP_SEC_WEBSOCKET_PROTOCOL", "HTTP_SEC_WEBSOCKET_EXTENSIONS"])
@pytest.mark.parametrize("value", ["a b", ",,;", "wsl\x00oop", "=;=", "grün"])
def test_garbage_is_refused_or_ignored_and_never_sent_back(variable, value):
    try:
        answer = negotiate(environ(**{variable: value}), ("v1",))[0]
    except Refused as refusal:
        assert refusal.status == 400
        assert value not in refusal.reason
    else:
        assert value not in str(answer)


@pytest.mark.parametrize("variable", ["HTTP_COOKIE", "HTTP_USER_AGENT", "HTTP_X.Y", "HTTP_"])
def test_garbage_in_other_headers_is_not_the_business_of_the_handshake(variable):
    assert negotiate(environ(**{variable: "\x00\x7f\xff"}), ())[0] == negotiate(environ(), ())[0]


def test_what_nginx_must_set_is_not_said_where_it_sets_that_by_itself():
    assert refused(SERVER_PROTOCOL="HTTP/2.0", **UWSGI_PASS).reason == "A WebSocket needs HTTP/1.1."
    assert "nginx" not in refused(HTTP_UPGRADE=None, **UWSGI_PASS).reason


# Sizes.


@pytest.mark.parametrize("variable", ["QUERY_STRING", "HTTP_ORIGIN", "HTTP_SEC_WEBSOCKET_PROTOCOL", "HTTP_UPGRADE"])
def test_headers_and_queries_over_the_bound_are_431(with_settings, reached, variable):
    with_settings(WSLOOP={"MAX_HEADER_SIZE": 300})
    check_sizes(environ(**{variable: "x" * 300}), "news")
    with pytest.raises(Refused) as caught:
        check_sizes(environ(**{variable: "x" * 301}), "news")
    assert caught.value.status == 431
    assert "300 bytes" in caught.value.reason
    assert reached("MAX_HEADER_SIZE") == 1


def test_a_query_that_uwsgi_has_dropped_is_431_too(with_settings, reached):
    with_settings(WSLOOP={"MAX_HEADER_SIZE": 300})
    check_sizes(environ(REQUEST_URI=f"/ws/{'x' * 400}?{'x' * 300}"), "news")
    with pytest.raises(Refused) as caught:
        check_sizes(environ(REQUEST_URI=f"/ws/news?{'x' * 301}"), "news")
    assert caught.value.status == 431
    assert reached("MAX_HEADER_SIZE") == 1


def test_a_facility_over_the_bound_is_414_and_bytes_count(with_settings, reached):
    with_settings(WSLOOP={"MAX_FACILITY_SIZE": 10})
    check_sizes(environ(), "ü" * 5)
    with pytest.raises(Refused) as caught:
        check_sizes(environ(), "ü" * 5 + "x")
    assert caught.value.status == 414
    assert reached("MAX_FACILITY_SIZE") == 1


# permessage-deflate (RFC 7692, section 7.1).


@pytest.mark.parametrize(
    ("offer", "agreed", "window_bits"),
    [
        ("permessage-deflate", "", 15),
        ("permessage-deflate; client_max_window_bits", "", 15),  # browsers
        ("permessage-deflate; client_no_context_takeover; server_no_context_takeover", "", 15),
        ("permessage-deflate; server_max_window_bits=10", "; server_max_window_bits=10", 10),
        ("permessage-deflate; client_max_window_bits=10", "; client_max_window_bits=10", 15),
        ("x-webkit-deflate-frame, permessage-deflate", "", 15),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", "", 15),  # zlib cannot do 8
        ("permessage-deflate; unknown, permessage-deflate; server_max_window_bits=9", "; server_max_window_bits=9", 9),
    ],
)
def test_compression_is_agreed_on_without_context_takeover(offer, agreed, window_bits):
    answer, extensions = negotiate(environ(HTTP_SEC_WEBSOCKET_EXTENSIONS=offer), (), compression=True)
    header = f"permessage-deflate; server_no_context_takeover; client_no_context_takeover{agreed}"
    assert dict(answer)["Sec-WebSocket-Extensions"] == header
    (extension,) = extensions
    assert extension.local_max_window_bits == window_bits
    assert type(extension) is Deflate


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; unknown",
        "permessage-bzip2",
    ],
)
def test_what_cannot_be_agreed_on_is_left_out_of_the_answer(offer):
    answer, extensions = negotiate(environ(HTTP_SEC_WEBSOCKET_EXTENSIONS=offer), (), compression=True)
    assert "Sec-WebSocket-Extensions" not in dict(answer)
    assert extensions == []


def test_without_compression_no_offer_is_taken():
    answer, extensions = negotiate(environ(HTTP_SEC_WEBSOCKET_EXTENSIONS="permessage-deflate"), (), compression=False)
    assert "Sec-WebSocket-Extensions" not in dict(answer)
    assert extensions == []


# Addresses.


@pytest.mark.parametrize(
    ("remote", "forwarded", "proxies", "counted"),
    [
        ("8.8.8.8", None, [], "8.8.8.8"),
        ("8.8.8.8", "9.9.9.9", [], "8.8.8.8"),  # anybody can send that header
        ("127.0.0.1", "9.9.9.9", [], None),
        ("10.1.2.3", None, [], None),
        ("", None, [], None),  # a unix socket
        ("", "9.9.9.9", [], None),
        ("garbage", None, [], None),
        ("127.0.0.1", "9.9.9.9", ["127.0.0.1"], "9.9.9.9"),
        ("", "9.9.9.9", ["127.0.0.1"], "9.9.9.9"),
        ("127.0.0.1", "1.1.1.1, 9.9.9.9", ["127.0.0.1"], "9.9.9.9"),  # the first one is what the client says
        ("127.0.0.1", "1.1.1.1, 9.9.9.9, 10.0.0.7", ["127.0.0.1", "10.0.0.0/8"], "9.9.9.9"),
        ("127.0.0.1", "10.0.0.7", ["127.0.0.1", "10.0.0.0/8"], None),
        ("127.0.0.1", "garbage", ["127.0.0.1"], None),
        ("127.0.0.1", "", ["127.0.0.1"], None),
        ("127.0.0.1", None, ["127.0.0.1"], None),
        ("8.8.8.8", "9.9.9.9", ["127.0.0.1"], "8.8.8.8"),
        ("2001:4860:4860::8888", None, [], "2001:4860:4860::/64"),
        ("2001:4860:4860::1", None, [], "2001:4860:4860::/64"),
        ("::ffff:8.8.8.8", None, [], "8.8.8.8"),
        ("::ffff:10.0.0.1", None, [], None),
        ("::1", None, [], None),
        ("fe80::1%eth0", None, [], None),
    ],
)
def test_the_address_that_a_connection_counts_for(with_settings, remote, forwarded, proxies, counted):
    with_settings(WSLOOP={"TRUSTED_PROXIES": proxies})
    assert client_address(environ(REMOTE_ADDR=remote, HTTP_X_FORWARDED_FOR=forwarded)) == counted
