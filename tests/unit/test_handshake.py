"""From a request's environ to the headers of the 101, or a refusal in words."""

import base64
import hashlib
import logging

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory

from wsloop import conf, handshake
from wsloop.handshake import RefusalLog, check_origin, check_sizes, client_address, negotiate
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


# Origin.


def origin(origin, host="testserver", **meta):
    meta |= {"HTTP_HOST": host} | ({} if origin is None else {"HTTP_ORIGIN": origin})
    return check_origin(RequestFactory().get("/ws/news", **meta))


def refused_origin(*args, **meta):
    with pytest.raises(Refused) as caught:
        origin(*args, **meta)
    return caught.value


@pytest.fixture
def log(monkeypatch, caplog):
    """What is logged of refusals from now on, as one text for each."""
    monkeypatch.setattr(handshake, "refusals", RefusalLog())
    caplog.set_level(logging.WARNING, "wsloop.handshake")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "wsloop.handshake"]


@pytest.mark.parametrize(
    ("page", "host"),
    [
        (None, "testserver"),  # a script
        ("http://testserver", "testserver"),
        ("https://testserver", "testserver"),  # a proxy has ended TLS
        ("http://testserver:80", "testserver"),
        ("http://testserver", "testserver:80"),
        ("https://testserver:443", "testserver"),
        ("https://testserver", "testserver:443"),
        ("http://testserver:8000", "testserver:8000"),
        ("HTTP://TestServer", "testserver"),
        ("http://testserver", "TESTSERVER"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://[::1]", "[::1]"),
        ("http://[::1]:80", "[::1]"),
        ("https://[::1]", "[::1]:443"),
        ("http://testserver.:8000", "testserver.:8000"),
        ("http://testserver.", "testserver"),  # nginx's $host has no dot at the end
        ("https://testserver.", "testserver:443"),
        ("http://testserver.:8000", "testserver:8000"),
    ],
)
def test_pages_of_this_host_and_scripts_are_let_in(page, host):
    origin(page, host)


@pytest.mark.parametrize(
    ("page", "host"),
    [
        ("http://elsewhere.example", "testserver"),
        ("http://testserver.elsewhere.example", "testserver"),
        ("http://elsewhere.example/testserver", "testserver"),
        ("http://testserver@elsewhere.example", "testserver"),
        ("http://elsewhere.example#testserver", "testserver"),
        ("http://sub.testserver", "testserver"),
        ("http://testserver:8001", "testserver:8000"),
        ("http://testserver..", "testserver"),
        ("http://.testserver", "testserver"),
        ("http://testserver.:8001", "testserver.:8000"),
        ("http://testserver:8000", "testserver"),
        ("http://testserver", "testserver:8000"),
        ("http://testserver:443", "testserver"),  # not the default port of its scheme
        ("https://testserver:80", "testserver"),
        ("https://testserver", "testserver:80"),
        ("http://[::1]:8001", "[::1]:8000"),
        ("http://[::2]", "[::1]"),
        ("null", "testserver"),  # sandboxed frames, files
        ("", "testserver"),
        ("testserver", "testserver"),
        ("//testserver", "testserver"),
        ("ftp://testserver", "testserver"),
        ("chrome-extension://testserver", "testserver"),
        ("http://", "testserver"),
        ("http://[::1", "[::1]"),
        ("http://[garbage]", "testserver"),
        ("http://testserver:port", "testserver"),
        ("http://testserver http://testserver", "testserver"),
        ("https://test\x00server", "testserver"),
    ],
)
def test_pages_of_another_host_and_garbage_are_403_with_what_to_do(page, host):
    with pytest.raises(Refused) as caught:
        origin(page, host)
    assert caught.value.status == 403
    assert "Pages of another site may not open a WebSocket here" in caught.value.reason
    assert "proxy_set_header Host $http_host" in caught.value.reason


HOST_LINES = [
    ({}, {}, "behind nginx, set `proxy_set_header Host $http_host;`"),
    ({}, UWSGI_PASS, "behind nginx's uwsgi_pass, set `uwsgi_param HTTP_HOST $http_host;`, below `include"),
    ({}, {"DOCUMENT_ROOT": "/srv"}, "behind nginx's uwsgi_pass, set `uwsgi_param HTTP_HOST $http_host;`, below"),
    (
        {"USE_X_FORWARDED_HOST": True},
        {"HTTP_X_FORWARDED_HOST": "elsewhere.localhost"},
        "behind nginx, set `proxy_set_header X-Forwarded-Host $http_host;`",
    ),
    (
        {"USE_X_FORWARDED_HOST": True},
        {"HTTP_X_FORWARDED_HOST": "elsewhere.localhost", **UWSGI_PASS},
        "behind nginx's uwsgi_pass, set `uwsgi_param HTTP_X_FORWARDED_HOST $http_host;`, below `include",
    ),
    ({"USE_X_FORWARDED_HOST": True}, {}, "behind nginx, set `proxy_set_header Host $http_host;`"),
]


@pytest.mark.parametrize(("settings", "meta", "line"), HOST_LINES)
def test_what_to_do_about_the_host_fits_the_way_that_the_request_came(with_settings, log, settings, meta, line):
    with_settings(**settings, ALLOWED_HOSTS=["testserver", "elsewhere.localhost"])
    foreign = refused_origin("http://testserver:8000", **meta)
    with_settings(ALLOWED_HOSTS=["another.localhost"])
    disallowed = refused_origin("http://testserver:8000", **meta)
    assert (foreign.status, disallowed.status) == (403, 400)
    for told in (foreign.reason, disallowed.reason, *log()):
        assert line in told
    assert "ALLOWED_ORIGINS" in foreign.reason
    assert "ALLOWED_HOSTS" in disallowed.reason
    asked = meta.get("HTTP_X_FORWARDED_HOST", "testserver")
    header = "X-Forwarded-Host" if "HTTP_X_FORWARDED_HOST" in meta else "Host"
    assert [told.partition(";")[0].partition(",")[0] for told in log()] == [
        'refused: Origin: the page is of "http://testserver:8000"',
        f'refused: Host: the request is for the host "{asked}" ({header})',
    ]
    assert f'the request for the host "{asked}" ({header})' in log()[0]
    if asked != "testserver":
        assert asked not in foreign.reason + disallowed.reason, "the client is told no names of hosts behind the proxy"


@pytest.mark.parametrize(
    ("page", "meta", "words"),
    [
        (
            "http://elsewhere.example",
            {},
            "if it is another site that may open sockets here, name it in ALLOWED_ORIGINS",
        ),
        ("null", {}, "has no origin of its own; see ALLOWED_ORIGINS"),
        ("file://", {}, "has no origin of its own; see ALLOWED_ORIGINS"),
        ("", {}, "a proxy has emptied it"),
        ("http://testserver", {"wsgi.url_scheme": "https"}, "redirect such pages to https"),
        ("https://www.example", {"HTTP_X_FORWARDED_HOST": "www.example"}, "set USE_X_FORWARDED_HOST = True if"),
        ("https://www.example", {"HTTP_X_FORWARDED_HOST": "other.example"}, "a proxy has replaced the host"),
    ],
)
def test_the_log_says_what_may_have_to_be_done(log, page, meta, words):
    assert refused_origin(page, **meta).status == 403
    (line,) = log()
    assert f'the page is of "{page}", the request for the host "testserver" (Host); ' in line
    assert words in line


def test_a_page_without_encryption_is_told_so(log):
    reason = refused_origin("http://testserver", **{"wsgi.url_scheme": "https"}).reason
    assert "open the page with https" in reason
    assert "proxy" not in reason


@pytest.mark.parametrize("page", [None, "http://elsewhere.example", "http://testserver"])
@pytest.mark.parametrize(
    "host", ["elsewhere.example", "evil\x1b[31m.example", "a b", "testserver:port", "testserver, x"]
)
def test_a_host_that_is_not_ours_is_400_whatever_the_origin(log, page, host):
    assert refused_origin(page, host=host).status == 400
    (line,) = log()
    assert (
        f'the request is for the host "{host}" (Host), which is not one of ALLOWED_HOSTS'.replace("\x1b", "\\x1b")
        in line
    )


def test_a_request_without_a_host_is_400_where_the_server_has_another_name(log):
    request = RequestFactory().get("/ws/news", SERVER_NAME="behind.example")
    with pytest.raises(Refused) as caught:
        check_origin(request)
    assert caught.value.status == 400
    assert "behind.example" not in caught.value.reason
    assert 'the host "behind.example" (no Host)' in log()[0]


def test_what_a_client_sends_is_printable_and_bounded_in_the_log_and_no_secret(log):
    refused_origin("http://\x1b[31m\nforged\x85\xa0é?token=SECRET" + "x" * 4000)
    (line,) = log()
    assert line.isprintable()
    assert "http://\\x1b[31m\\nforged\\x85\\xa0é?token=[redacted]" in line
    assert "SECRET" not in line
    refused_origin("http://" + "x" * 4000)
    refused_origin(None, host="x" * 4000)
    assert [("…" in line, len(line) < 1000) for line in log()[1:]] == [(True, True)] * 2


def test_a_flood_of_refusals_does_not_fill_the_log(log, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(handshake.time, "monotonic", lambda: now)
    for _ in range(500):
        refused_origin("http://elsewhere.example")
    assert len(log()) == handshake.LOGGED
    refused_origin(None, host="elsewhere.example")
    assert log()[-1].startswith("refused: Host: "), "those of another kind are told"
    now += handshake.LOG_INTERVAL
    refused_origin("http://elsewhere.example")
    refused_origin(None, host="elsewhere.example")
    assert len(log()) == handshake.LOGGED + 4
    assert log()[-3] == f"refused: Origin: {500 - handshake.LOGGED} more in 60 s"
    assert log()[-2].startswith('refused: Origin: the page is of "http://elsewhere.example"')
    assert log()[-1].startswith("refused: Host: the request"), "none was left out"


def test_an_encrypted_site_lets_in_no_page_without_encryption(with_settings):
    with_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
    for proto, page, allowed in (
        ("https", "https://testserver", True),
        ("https", "http://testserver", False),
        ("http", "http://testserver", True),
    ):
        meta = {"HTTP_HOST": "testserver", "HTTP_ORIGIN": page, "HTTP_X_FORWARDED_PROTO": proto}
        request = RequestFactory().get("/ws/news", **meta)
        if allowed:
            check_origin(request)
        else:
            with pytest.raises(Refused):
                check_origin(request)


@pytest.mark.parametrize(
    ("pattern", "page"),
    [
        ("https://other.example", "https://other.example"),
        ("https://other.example", "https://other.example:443"),
        ("https://other.example:443", "https://other.example"),
        ("HTTPS://Other.Example", "https://other.EXAMPLE"),
        ("https://other.example:8443", "https://other.example:8443"),
        ("https://*.other.example", "https://www.other.example"),
        ("https://*.other.example", "https://a.b.other.example"),
        ("https://*.other.example:8443", "https://www.other.example:8443"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("*", "https://anything.example"),
        ("*", "null"),
        ("*", "file://"),
        ("null", "null"),
        ("file://", "file://"),
    ],
)
def test_pages_of_allowed_origins_are_let_in_besides_those_of_this_host(with_settings, pattern, page):
    with_settings(WSLOOP={"ALLOWED_ORIGINS": ["https://unrelated.example", pattern]})
    origin(page)
    origin("http://testserver")


@pytest.mark.parametrize(
    ("pattern", "page"),
    [
        ("https://other.example", "http://other.example"),
        ("https://other.example", "https://other.example:8443"),
        ("https://other.example", "https://www.other.example"),
        ("https://other.example", "https://other.example.evil.example"),
        ("https://*.other.example", "https://other.example"),
        ("https://*.other.example", "https://evil-other.example"),
        ("https://*.other.example", "https://evil.example/.other.example"),
        ("https://*.other.example", "https://evil.example#.other.example"),
        ("https://*.other.example", "https://evil.example?.other.example"),
        ("https://*.other.example", "https://evil.example:1.other.example"),
        ("https://*.other.example", "https://user@evil.example@.other.example"),
        ("https://*.other.example", "https://..other.example"),
        ("https://*.other.example", "https://.other.example"),
        ("https://*.other.example", "https://evil.example\n.other.example"),
        ("https://*.other.example", "https://www.other.example.evil.example"),
        ("https://*.other.example", "https://www.other.example:8443"),
        ("https://*.other.example", "null"),
        ("https://*.other.example", ""),
        ("https://null", "null"),
        *(("null", page) for page in ("NULL", "null/", "null://", "nullx", " null", "", "file://", "https://null")),
        *(("file://", page) for page in ("file:///", "FILE://", "file://host", "file:", "file:///index.html", "null")),
    ],
)
def test_look_alikes_of_allowed_origins_are_403(with_settings, pattern, page):
    with_settings(WSLOOP={"ALLOWED_ORIGINS": [pattern]})
    with pytest.raises(Refused) as caught:
        origin(page)
    assert caught.value.status == 403


@pytest.mark.parametrize(
    "pattern",
    [
        "NULL",
        "Null",
        "null/",
        "null://",
        " null",
        "file:",
        "file:/",
        "file:///",
        "file://host",
        "FILE://",
        "",
        "https://bücher.example",
    ],
)
def test_what_no_browser_sends_is_no_value_of_allowed_origins(with_settings, pattern):
    with_settings(WSLOOP={"ALLOWED_ORIGINS": [pattern]})
    with pytest.raises(ImproperlyConfigured, match=r'must be a list of origins, .* "null", "file://" or '):
        conf.option("ALLOWED_ORIGINS")


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
