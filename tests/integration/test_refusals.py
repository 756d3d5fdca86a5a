"""Refused handshakes: the status, a body that a person can act on, no internals, a connection that stays sane."""

import contextlib
import http.client
import io
import re
import socket
import ssl
import sys

import pytest
import websocket

from testbed.certificates import make_certificate
from testbed.processes import ROOT, wait_until
from testbed.uwsgi import environment_of, has_ssl, uwsgi_binaries
from tests.integration.sites.hooks import SECRET_REASON
from tests.requires import missing, need

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def without(*names):
    return {name: value for name, value in UPGRADE.items() if name not in names}


def assert_actionable(answer, status, *words):
    """The refusal is plain text that names the rule, and tells nothing about the server."""
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    text = answer.text
    assert 15 <= len(text) <= 1000
    for word in words:
        assert re.search(word, text, re.IGNORECASE), f"{word!r} is not in {text!r}"
    for internal in ("Traceback", 'File "', str(ROOT), sys.prefix, "wsloop.", "django.", "Exception", "object at"):
        assert internal not in text, text
    assert not re.search(r"\w+Error\b|Error:", text), text
    assert not answer.headers.get_all("Set-Cookie")


REFUSALS = [
    ("POST", UPGRADE, 415, ["application/json"]),
    ("PUT", UPGRADE, 405, ["GET"]),
    ("HEAD", UPGRADE, 405, []),
    ("HEAD", {}, 405, []),
    ("HEAD", {**UPGRADE, "Host": "evil.example"}, 405, []),
    ("GET", {}, 426, ["websocket"]),
    ("GET", {**UPGRADE, "Upgrade": "h2c"}, 426, ["websocket"]),
    ("GET", without("Upgrade"), 426, ["websocket"]),
    ("GET", {**UPGRADE, "Sec-WebSocket-Version": "8"}, 426, ["13"]),
    ("GET", {**UPGRADE, "Sec-WebSocket-Version": "abc"}, 426, ["13"]),
    ("GET", without("Sec-WebSocket-Version"), 400, ["Sec-WebSocket-Version"]),
    ("GET", without("Sec-WebSocket-Key"), 400, ["Sec-WebSocket-Key"]),
    ("GET", {**UPGRADE, "Sec-WebSocket-Key": "short"}, 400, ["Sec-WebSocket-Key"]),
    ("GET", {**UPGRADE, "Sec-WebSocket-Key": "!" * 24}, 400, ["Sec-WebSocket-Key"]),
    ("GET", {**UPGRADE, "Sec-WebSocket-Key": "AAAA" * 8}, 400, ["Sec-WebSocket-Key"]),
    ("GET", {**UPGRADE, "Host": "evil.example"}, 400, ["host"]),
    ("GET", {**UPGRADE, "Host": "a b/c@"}, 400, ["host"]),
    ("GET", {**UPGRADE, "Origin": "http://evil.example"}, 403, ["origin"]),
    ("GET", {**UPGRADE, "Origin": "null"}, 403, ["origin"]),
    ("GET", {**UPGRADE, "Origin": "http://127.0.0.1:1"}, 403, ["origin"]),
    ("GET", {**UPGRADE, "Origin": "not an origin"}, 403, ["origin"]),
    ("GET", {**UPGRADE, "Origin": "{url}.evil.example"}, 403, ["origin"]),
    ("GET", {**UPGRADE, "Origin": "http://evil.example@{host}"}, 403, ["origin"]),
]


@pytest.mark.parametrize("which", ["direct", "site"])
@pytest.mark.parametrize(("method", "headers", "status", "words"), REFUSALS)
def test_refusals(request, which, facility, method, headers, status, words):
    site = request.getfixturevalue(which)
    headers = {name: value.format(url=site.url, host=site.host) for name, value in headers.items()}
    path = f"/ws/{facility}?subscribe-broadcast"
    if method == "HEAD":
        assert_has_headers_only(site, path, headers)
        return
    answer = site.request(method, path, headers=headers)
    assert_actionable(answer, status, *words)
    if status == 426:
        assert answer.headers["Sec-WebSocket-Version"] == "13"
    if status == 405:
        assert answer.headers["Allow"] == "GET"


def assert_has_headers_only(site, path, headers):
    """The answer to a HEAD is that to any other wrong method without its body, which http.client would not show."""
    lines = [f"HEAD {path} HTTP/1.1", *(f"{name}: {value}" for name, value in {"Host": site.host, **headers}.items())]
    received = b""
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in received:
            chunk = connection.recv(65536)
            assert chunk, received
            received += chunk
        head, _, behind = received.partition(b"\r\n\r\n")
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # the server may close it instead
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {site.host}\r\n\r\n".encode())
            while len(behind) < 5 and (chunk := connection.recv(65536)):
                behind += chunk
    assert behind[:5] in (b"", b"HTTP/"), "what comes next is the next answer"
    status, _, rest = head.partition(b"\r\n")
    assert status.split()[1] == b"405"
    answered = http.client.parse_headers(io.BytesIO(rest + b"\r\n\r\n"))
    other = site.request("PUT", path)
    assert {name: answered[name] for name in ("Allow", "Content-Type", "Content-Length", "Cache-Control")} == {
        "Allow": "GET",
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(other.content)),
        "Cache-Control": "no-store",
    }


def test_http_1_0_is_refused(direct, facility):
    """RFC 6455, section 4.1: at least HTTP/1.1."""
    lines = [f"GET /ws/{facility} HTTP/1.0", f"Host: {direct.host}", *(f"{n}: {v}" for n, v in UPGRADE.items()), "", ""]
    with socket.create_connection(("127.0.0.1", direct.port), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status in (400, 426, 505)
        assert b"HTTP/1.1" in answer.read()


@pytest.mark.parametrize("origin", ["{url}", None])
def test_same_origin_and_scripts_are_allowed(site, facility, origin):
    assert site.connect(f"{facility}?subscribe-broadcast", origin=origin and origin.format(url=site.url)).connected


def handshake(site, path, **headers):
    """The raw response to a handshake: status and headers, None if there was none."""
    headers = {"Host": site.host, **UPGRADE, **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode())
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(65536)
            if not chunk:
                return None
            data += chunk
    head = data.split(b"\r\n\r\n")[0] + b"\r\n\r\n"
    status, _, rest = head.partition(b"\r\n")
    return int(status.split()[1]), http.client.parse_headers(io.BytesIO(rest))


def test_the_answer_to_the_sample_of_the_rfc(site, facility):
    status, headers = handshake(site, f"/ws/{facility}")
    assert status == 101
    assert headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert headers["Upgrade"].lower() == "websocket"
    assert headers["Connection"].lower() == "upgrade"
    assert "Sec-WebSocket-Protocol" not in headers
    assert "Sec-WebSocket-Extensions" not in headers


@pytest.mark.parametrize("offer", ["foo", "foo, bar", "foo, foo", " , "])
def test_a_subprotocol_of_the_client_is_not_sent_back(site, facility, offer):
    status, headers = handshake(site, f"/ws/{facility}", Sec_WebSocket_Protocol=offer)
    if status == 101:
        assert "Sec-WebSocket-Protocol" not in headers
    else:
        assert status == 400
        assert offer in ("foo, foo", " , ")  # malformed by RFC 6455, section 4.1


@pytest.mark.parametrize("value", ["websocket", "WebSocket", "WEBSOCKET"])
@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade"])
def test_spellings_of_browsers_and_proxies(direct, facility, value, connection):
    assert handshake(direct, f"/ws/{facility}", Upgrade=value, Connection=connection)[0] == 101


# --- the site's own rules ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(shared_serve):
    return shared_serve(
        front="http-socket", settings={"WS4REDIS_ALLOWED_CHANNELS": "tests.integration.sites.hooks.listen_only"}
    )


def test_permission_denied(guarded, facility):
    cookies = guarded.login("john")
    answer = guarded.request("GET", f"/ws/{facility}?subscribe-group", headers=UPGRADE, cookies=cookies)
    assert_actionable(answer, 403)
    assert SECRET_REASON not in answer.text


def test_a_crash_of_the_policy(guarded, facility):
    cookies = guarded.login("john")
    guarded.mark_log()
    answer = guarded.request("GET", f"/ws/{facility}?crash=now", headers=UPGRADE, cookies=cookies)
    assert_actionable(answer, 500)
    assert SECRET_REASON not in answer.text
    log = wait_until(lambda: "ZeroDivisionError" in guarded.log_since_mark() and guarded.log_since_mark())
    assert SECRET_REASON in log
    assert "hooks.py" in log


# --- the connection afterwards ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("front", ["http", "http-keepalive", "http-socket"])
def test_the_connection_after_a_refusal(serve, facility, front):
    """A second request on the same connection gets its own answer, or the connection was closed and said so.

    Not with ``--http11-socket``: under gevent uWSGI 2.0 never answers the second request on a connection, whatever the
    application.
    """
    site = serve(front=front)
    for method, status, headers in (
        ("GET", 426, without("Upgrade")),
        ("GET", 403, {**UPGRADE, "Origin": "http://evil.example"}),
        ("GET", 400, {**UPGRADE, "Host": "evil"}),
        ("HEAD", 405, UPGRADE),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
        connection.request(method, f"/ws/{facility}", headers=headers)
        refusal = connection.getresponse()
        assert refusal.status == status
        length = int(refusal.headers["Content-Length"])
        assert len(refusal.read()) == (0 if method == "HEAD" else length)
        raw = connection.sock
        if raw is None:  # closed by http.client: the server said Connection: close, or meant it
            continue
        try:
            raw.sendall(f"GET /test/whoami/ HTTP/1.1\r\nHost: {site.host}\r\n\r\n".encode())
            answer = http.client.HTTPResponse(raw)
            answer.begin()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            continue
        finally:
            connection.close()
        assert answer.status == 200


def test_a_body_behind_a_refused_request_is_not_the_next_request(direct, facility):
    """No request smuggling: what a refused POST carries is not read as a request of its own."""
    smuggled = f"GET /test/whoami/ HTTP/1.1\r\nHost: {direct.host}\r\n\r\n"
    lines = [f"POST /ws/{facility} HTTP/1.1", f"Host: {direct.host}", f"Content-Length: {len(smuggled)}", "", smuggled]
    with socket.create_connection(("127.0.0.1", direct.port), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode())
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.count(b"HTTP/1.") == 1
    assert direct.token.encode() not in received


@pytest.mark.parametrize("binary", uwsgi_binaries(), ids=environment_of)
def test_http11_socket_says_why_not(serve, facility, binary):
    """uWSGI goes on reading the connection, and its gevent loop aborts when a client of such a socket hangs up."""
    site = serve(binary=binary, front="http11-socket")
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        site.connect(f"{facility}?subscribe-broadcast&publish-broadcast&echo")
    assert refusal.value.status_code == 501
    assert b"--http11-socket cannot serve WebSockets" in refusal.value.resp_body
    assert b"--http-socket" in refusal.value.resp_body


def test_https_socket_says_why_not(serve, facility, tmp_path):
    """The descriptor carries TLS records that only uWSGI can read: it cannot be taken over."""
    need("openssl")
    binaries = [binary for binary in uwsgi_binaries() if has_ssl(binary)]
    if not binaries:
        missing("no uWSGI here is built with OpenSSL")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    for binary in binaries:
        site = serve(binary=binary, front="https-socket", certificate=certificate, key=key)
        with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
            site.connect(f"{facility}?subscribe-broadcast", sslopt={"cert_reqs": ssl.CERT_NONE})
        assert refusal.value.status_code >= 500
        assert b"https-socket" in refusal.value.resp_body
        assert b"Traceback" not in refusal.value.resp_body
        assert site.request("GET", "/test/whoami/").status == 200


# --- Redis ------------------------------------------------------------------------------------------------------------


def test_redis_that_is_down(serve, private_redis, facility):
    site = serve(redis=private_redis, front="http-socket")
    private_redis.kill()
    answer = site.request("GET", f"/ws/{facility}?subscribe-broadcast", headers=UPGRADE)
    assert_actionable(answer, 503, "again|later|retry")
    assert int(answer.headers["Retry-After"]) >= 1
