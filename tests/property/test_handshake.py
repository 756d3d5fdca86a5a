"""Whatever stands in the headers of a handshake: an answer by the RFCs, or a refusal; and no page of a foreign host."""

import base64
import binascii
import hashlib
import io
import re

import pytest
from django.core.exceptions import DisallowedHost, SuspiciousOperation
from django.core.handlers.wsgi import WSGIRequest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from wsloop.handshake import HEADERS, check_sizes, client_address, negotiate
from wsloop.origin import check_origin
from wsloop.refusals import Refused

latin_1 = st.text(st.characters(max_codepoint=255), max_size=60)  # WSGI has a character for each byte
KEY = "dGhlIHNhbXBsZSBub25jZQ=="

names = st.sampled_from(
    ["server_no_context_takeover", "client_no_context_takeover", "server_max_window_bits", "client_max_window_bits"]
)
values = st.sampled_from(["", "=15", "=8", "=9", "=10", '="12"', "=7", "=16", "=010", "=x", "=", "= 9"])
parameters = st.lists(st.tuples(names, values).map("".join) | latin_1, max_size=4)
offers = st.lists(
    st.tuples(st.sampled_from(["permessage-deflate", "x-webkit-deflate-frame", ""]), parameters).map(
        lambda offer: "; ".join([offer[0], *offer[1]])
    ),
    max_size=3,
).map(", ".join)
LIKELY = {
    "Connection": st.sampled_from(["Upgrade", "keep-alive, Upgrade", "close", "upgrade,"]),
    "Upgrade": st.sampled_from(["websocket", "WebSocket", "h2c, websocket", "h2c"]),
    "Sec-WebSocket-Key": st.binary(min_size=14, max_size=18).map(lambda b: base64.b64encode(b).decode()) | st.just(KEY),
    "Sec-WebSocket-Version": st.sampled_from(["13", "8", "013", "13, 8", " 13"]),
    "Sec-WebSocket-Protocol": st.sampled_from(["wsloop.v1", "chat, wsloop.v1", "chat", ",", "a,a"]),
    "Sec-WebSocket-Extensions": offers,
}
GOOD = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13"}


@st.composite
def handshakes(draw):
    """An environ of which some headers are as they should be, some nearly, and some anything."""
    environ = {
        "REQUEST_METHOD": draw(st.sampled_from(["GET"] * 9 + ["POST"])),
        "SERVER_PROTOCOL": draw(st.sampled_from(["HTTP/1.1"] * 9 + ["HTTP/1.0"])),
    }
    for name in HEADERS:
        value = draw(st.just(GOOD.get(name)) | st.just(GOOD.get(name)) | LIKELY[name] | st.none() | latin_1)
        if value is not None:
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    return environ


def tokens(value):
    return [each.strip(" \t").lower() for each in value.split(",")]


@given(environ=handshakes(), spoken=st.sampled_from([(), ("wsloop.v1",)]), compression=st.booleans())
def test_a_handshake_is_answered_by_the_rfc_or_refused(environ, spoken, compression):
    try:
        headers, extensions = negotiate(environ, spoken, compression)
    except Refused as refused:
        assert refused.status in (400, 405, 426, 505)
        key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
        assert len(key) < 16 or key not in refused.reason, "something that the client said"
        return
    # RFC 6455, section 4.2.1
    assert environ["REQUEST_METHOD"] == "GET"
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert "upgrade" in tokens(environ["HTTP_CONNECTION"])
    assert "websocket" in tokens(environ["HTTP_UPGRADE"])
    assert environ["HTTP_SEC_WEBSOCKET_VERSION"].strip() == "13"
    key = environ["HTTP_SEC_WEBSOCKET_KEY"].strip()
    assert len(binascii.a2b_base64(key)) == 16
    # Section 4.2.2
    answer = dict(headers)
    assert len(answer) == len(headers)
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    assert answer.pop("Sec-WebSocket-Accept") == base64.b64encode(digest).decode()
    assert (answer.pop("Upgrade"), answer.pop("Connection")) == ("websocket", "Upgrade")
    if "Sec-WebSocket-Protocol" in answer:
        chosen = answer.pop("Sec-WebSocket-Protocol")
        assert chosen in spoken
        assert chosen in tokens(environ["HTTP_SEC_WEBSOCKET_PROTOCOL"])
    if extensions:
        assert compression
        check_agreement(answer.pop("Sec-WebSocket-Extensions"), environ["HTTP_SEC_WEBSOCKET_EXTENSIONS"], *extensions)
    assert not answer, "a header that nobody asked for"


def check_agreement(agreed, offered, extension):
    """RFC 7692, section 7.1: what the client may not do is not asked for, and what it asked for is promised."""
    name, *rest = [each.strip() for each in agreed.split(";")]
    assert name == "permessage-deflate"
    assert "permessage-deflate" in offered
    assert re.fullmatch(r"[a-z_0-9=; -]+", agreed), "something that the client said"
    parameters = dict(each.partition("=")[::2] for each in rest)
    assert len(parameters) == len(rest)
    assert {"server_no_context_takeover", "client_no_context_takeover"} <= set(parameters), "something is kept"
    if "client_max_window_bits" in parameters:
        assert "client_max_window_bits" in offered
    if "server_max_window_bits" in parameters:
        assert "server_max_window_bits" in offered
        assert extension.local_max_window_bits <= int(parameters["server_max_window_bits"]) <= 15
    assert 9 <= extension.local_max_window_bits <= 15


@given(
    environ=handshakes(), query=latin_1, facility=st.text(max_size=300), host=latin_1, factor=st.sampled_from([1, 99])
)
def test_sizes_are_checked_of_anything(environ, query, facility, host, factor):
    environ |= {"QUERY_STRING": query * factor, "HTTP_HOST": host * factor}
    name = facility.encode().decode("latin-1")  # as it stands in PATH_INFO
    largest = max(len(environ["QUERY_STRING"]), len(environ["HTTP_HOST"]))
    try:
        check_sizes(environ, name)
    except Refused as refused:
        assert (refused.status, largest > 4096) in ((431, True), (414, False))
    else:
        assert largest <= 4096
        assert len(facility.encode()) <= 255


# Who counts for what.

addresses = st.ip_addresses().map(str) | st.sampled_from(["", "unknown", "::ffff:8.8.8.8", "10.0.0.1", "fe80::1%eth0"])


@given(
    remote=addresses | latin_1,
    forwarded=st.lists(addresses | latin_1, max_size=4).map(", ".join),
    proxies=st.sampled_from([[], ["10.0.0.0/8"], ["0.0.0.0/0", "::/0"]]),
)
def test_an_address_is_worked_out_of_anything_and_is_nobody_elses(remote, forwarded, proxies):
    with override_settings(WSLOOP={"TRUSTED_PROXIES": proxies}):
        environ = {"REMOTE_ADDR": remote, "HTTP_X_FORWARDED_FOR": forwarded}
        address = client_address(environ)
        if address is not None:
            assert address in (str(address), address.lower())
        if not proxies:
            assert address == client_address({"REMOTE_ADDR": remote}), "a header that anybody can send is believed"


# Origins.

HOST = "www.example.com"
hosts = st.sampled_from([HOST, "WWW.example.com", "www.example.com:80", "www.example.com:443", "www.example.com:8000"])
pieces = st.sampled_from(
    ["http", "https", "ws", "://", ":", "//", "/", "\\", "@", "#", "?", ".", "%2e", " ", "\t", "\n", "\0", "[", "]",
     "null",
     HOST, "example.com", "www", "evil.com", "*", "xexample.com", ":80", ":443", ":8000", "www.example.com.evil.com"]
)  # fmt: skip
PARTS = [
    (["http://", "https://"], ["HTTP://", "ws://", "http:/", "//", "file://", "https:"]),
    ([""], ["user@", "evil.com/", "evil.com\\", "evil.com#", "evil.com?", "x", "a.b.", "-.", "*.", ".."]),
    ([HOST], ["WWW.EXAMPLE.COM", "example.com", "evil.com", "[::1]", "localhost"]),
    ([""], [":80", ":443", ":8000", ":", ":080", ":x", ":80:80"]),
    ([""], ["/", "/path", ".evil.com", "@evil.com", "#", "?", "\\", "\0", " ", "."]),
]


@st.composite
def near_misses(draw):
    """The site's own origin, with one or two of its parts changed, or none."""
    changed = draw(st.sets(st.integers(0, len(PARTS) - 1), max_size=2))
    return "".join(draw(st.sampled_from(choice[number in changed])) for number, choice in enumerate(PARTS))


origins = latin_1 | st.lists(pieces, max_size=8).map("".join) | near_misses()


def request(origin, host, secure=False):
    return WSGIRequest(
        {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/ws/x",
            "SERVER_NAME": "x",
            "SERVER_PORT": "443" if secure else "80",
            "wsgi.input": io.BytesIO(),
            "wsgi.url_scheme": "https" if secure else "http",
            "HTTP_HOST": host,
            "HTTP_ORIGIN": origin,
        }
    )


def let_in(*args):
    try:
        check_origin(request(*args))
    except Refused as refused:
        assert refused.status == 403
        return False
    return True


def parts(origin):
    """Scheme, host and port of an origin, by the WHATWG's rules, which drop tabs and newlines; None if it is none."""
    plain = re.sub(r"[\t\r\n]", "", origin).strip("".join(map(chr, range(33)))).lower()
    match = re.match(r"(https?)://([^/?#\\@:]+)(?::(\d+))?(?=[/?#]|$)", plain)
    return match and (match[1], match[2], match[3] or {"http": "80", "https": "443"}[match[1]])


@given(origin=near_misses() | origins, host=st.just(HOST) | hosts, secure=st.booleans())
@override_settings(ALLOWED_HOSTS=[HOST])
def test_no_page_of_a_foreign_host_is_let_in(origin, host, secure):
    name, _, port = host.lower().partition(":")
    if let_in(origin, host, secure):
        scheme, its_name, its_port = parts(origin)
        # With the dot of the root at its end or without it, it is the same name.
        assert its_name.removesuffix(".") == name.removesuffix(".") == HOST
        assert its_port == (port or its_port)
        assert port or its_port in ("80", "443")
        assert not (secure and scheme == "http")


@given(secure=st.booleans(), port=st.integers(1, 65535), upper=st.booleans())
@override_settings(ALLOWED_HOSTS=[HOST])
def test_every_page_of_the_own_host_is_let_in(secure, port, upper):
    host, scheme = (HOST.upper() if upper else HOST), "https" if secure else "http"
    suffix = "" if port == (443 if secure else 80) else f":{port}"
    assert let_in(f"{scheme}://{HOST}{suffix}", f"{host}{suffix}", secure)


PATTERNS = ["https://*.example.com", "https://example.org", "http://*.example.net:8000"]


@given(origin=near_misses() | origins)
@override_settings(ALLOWED_HOSTS=["testserver"], WSLOOP={"ALLOWED_ORIGINS": PATTERNS})
def test_a_wildcard_is_for_subdomains_and_for_nothing_else(origin):
    if let_in(origin, "testserver"):
        scheme, name, port = parts(origin)
        assert re.fullmatch(r"[a-z]+://[a-z0-9._-]+(:\d+)?", origin.lower()), "no browser sends this"
        assert (scheme, name, port) == ("https", "example.org", "443") or (
            (scheme, port) == ("https", "443") and name.endswith(".example.com") and name != ".example.com"
        )


@pytest.mark.parametrize(
    "origin", ["https://a.example.com", "https://a.b.example.com:443", "http://x.example.net:8000"]
)
@override_settings(ALLOWED_HOSTS=["testserver"], WSLOOP={"ALLOWED_ORIGINS": PATTERNS})
def test_the_subdomains_are_let_in(origin):
    assert let_in(origin, "testserver")


@given(origin=origins | st.none(), host=latin_1 | origins)
def test_any_host_header_is_answered_or_refused(origin, host):
    made = request(origin, host)
    if origin is None:
        del made.META["HTTP_ORIGIN"]
    try:
        check_origin(made)
    except (Refused, DisallowedHost) as exc:
        assert isinstance(exc, (Refused, SuspiciousOperation))
    else:
        assert re.fullmatch(r"(testserver|localhost|\[::1\]|127\.0\.0\.1)\.?(:\d*)?", host.lower())
