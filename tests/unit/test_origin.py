"""Which pages may open sockets, and what the log says of the others."""

import logging

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory

from wsloop import conf, refusals
from wsloop.origin import check_origin
from wsloop.refusals import RefusalLog, Refused

# What nginx's uwsgi_params add to a request.
UWSGI_PASS = {"DOCUMENT_ROOT": "/usr/share/nginx/html", "REQUEST_SCHEME": "http"}


def origin(origin, host="testserver", **meta):
    meta |= {"HTTP_HOST": host} | ({} if origin is None else {"HTTP_ORIGIN": origin})
    try:
        check_origin(RequestFactory().get("/ws/news", **meta))
    except Refused as exc:
        refusals.refusals.refused(exc, "GET /ws/news")  # as the stages of a handshake do
        raise


def refused_origin(*args, **meta):
    with pytest.raises(Refused) as caught:
        origin(*args, **meta)
    return caught.value


@pytest.fixture
def log(monkeypatch, caplog):
    """What is logged of refusals from now on, as one text for each."""
    monkeypatch.setattr(refusals, "refusals", RefusalLog())
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
        ("http://testserver:8000.", "testserver:8000"),  # a dot behind the port ends no name
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


def test_a_request_without_a_host_is_400_where_the_server_has_another_name():
    request = RequestFactory().get("/ws/news", SERVER_NAME="behind.example")
    with pytest.raises(Refused) as caught:
        check_origin(request)
    assert caught.value.status == 400
    assert "behind.example" not in caught.value.reason
    assert 'the host "behind.example" (no Host)' in caught.value.detail


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
    monkeypatch.setattr(refusals.time, "monotonic", lambda: now)
    for _ in range(500):
        refused_origin("http://elsewhere.example")
    assert len(log()) == refusals.LOGGED
    refused_origin(None, host="elsewhere.example")
    assert log()[-1].startswith("refused: Host: "), "those of another kind are told"
    now += refusals.LOG_INTERVAL
    refused_origin("http://elsewhere.example")
    refused_origin(None, host="elsewhere.example")
    assert len(log()) == refusals.LOGGED + 4
    assert log()[-3] == f"refused: Origin: {500 - refusals.LOGGED} more in 60 s"
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
        ("https://other.example.", "https://other.example."),
        ("https://127.0.0.1:8443", "https://127.0.0.1:8443"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("https://[2001:DB8::1]", "https://[2001:db8::1]"),
        ("http://my_host", "http://my_host"),
        ("app://-", "app://-"),
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
        "https://..",
        "https://.",
        "https://",
        "https://.example.com",
        "https://example..com",
        "https://example.com..",
        f"https://{'a' * 64}.example",
        "https://" + "a." * 128 + "com",
        "https://example.com:",
        "https://user@example.com",
        "https://example.com?query",
        "https://example.com#fragment",
        "https://exa mple.com",
        "https://example.com\n",
        "://example.com",
        "1https://example.com",
        "https:example.com",
        "https://*.*.example.com",
        "https://*.",
        "https://[::::::]",
        "https://[]",
        "https://[::1",
        "https://::1",
        "https://[::1]x",
        "https://[fe80::1%25eth0]",
        "https://[127.0.0.1]",
        "https://*.[::1]",
        "https://127.0.0.256",
        "https://127.0.0.1.",
        "https://10.0.1",
        "https://*.0.0.1",
        "https://example.1",
    ],
)
def test_what_no_browser_sends_is_no_value_of_allowed_origins(with_settings, pattern):
    with_settings(WSLOOP={"ALLOWED_ORIGINS": [pattern]})
    with pytest.raises(ImproperlyConfigured, match=r'must be a list of origins, .* "null", "file://" or '):
        conf.option("ALLOWED_ORIGINS")


LOOPBACK = ["localhost:8000", "127.0.0.1:8000", "[::1]:8000"]


@pytest.mark.parametrize("host", LOOPBACK)
@pytest.mark.parametrize("page", LOOPBACK)
def test_names_of_the_loopback_are_one_site_while_it_is_developed(with_settings, page, host):
    with_settings(DEBUG=True)
    origin(f"http://{page}", host)
    with_settings(DEBUG=False)
    if page == host:
        origin(f"http://{page}", host)
    else:
        assert refused_origin(f"http://{page}", host).status == 403


@pytest.mark.parametrize(
    ("page", "host"),
    [
        ("http://localhost:8001", "127.0.0.1:8000"),
        ("http://localhost", "127.0.0.1:8000"),
        ("http://elsewhere.example:8000", "127.0.0.1:8000"),
        ("http://localhost.elsewhere.example:8000", "127.0.0.1:8000"),
        ("http://127.0.0.1.elsewhere.example:8000", "127.0.0.1:8000"),
        ("http://localhost:8000.elsewhere.example", "127.0.0.1:8000"),
        ("http://elsewhere.example/@localhost:8000", "127.0.0.1:8000"),
        ("http://127.0.0.2:8000", "127.0.0.1:8000"),
        ("http://localhost:8000", "testserver:8000"),
        ("null", "127.0.0.1:8000"),
    ],
)
def test_but_no_other_pages_are_even_then(with_settings, page, host):
    with_settings(DEBUG=True)
    assert refused_origin(page, host).status == 403
