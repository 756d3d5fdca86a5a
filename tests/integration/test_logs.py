"""What is in no log, answer or frame: tokens, keys of sessions, texts of exceptions, and lines that a client forged."""

import re
import socket
import struct
from pathlib import Path

import pytest
import websocket

from testbed.processes import ROOT, wait_until
from testbed.uwsgi import each_with_one, environment_of, in_short, is_elf, uwsgi_binaries

UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
SECRET = "secret-text-of-an-exception"
LINE = r"127\.0\.0\.1 \[[^]]+\] \S+( \S+)? \d+ \d+ bytes in \d+ ms"
# What a site plugs in, with a bug.
FAILING = f"""
from ws4redis.subscriber import RedisSubscriber

def policy(request, channels):
    raise ValueError("{SECRET}")

def process_request(request):
    raise ValueError("{SECRET}")

class OnSubscribing(RedisSubscriber):
    def set_pubsub_channels(self, request, channels):
        raise ValueError("{SECRET}")

class OnOpening(RedisSubscriber):
    def send_persisted_messages(self, websocket):
        raise ValueError("{SECRET}")

class OnPublishing(RedisSubscriber):
    def publish_message(self, message, expire=None):
        raise ValueError("{SECRET}")
"""
FAILURES = [
    {"WS4REDIS_ALLOWED_CHANNELS": "failing.policy"},
    {"WS4REDIS_PROCESS_REQUEST": "failing.process_request"},
    {"WS4REDIS_SUBSCRIBER": "failing.OnSubscribing"},
    {"WS4REDIS_SUBSCRIBER": "failing.OnOpening"},
]


def log_options():
    """The options of uwsgi.ini that say what uWSGI logs."""
    options = re.findall(r"^(log-format|ignore-write-errors) = (.*)$", (ROOT / "uwsgi.ini").read_text(), re.MULTILINE)
    assert len(options) == 2
    return [f"--{name}" if value == "true" else f"--{name}={value}" for name, value in options]


def routes(binary):
    """Whether this uWSGI was built with PCRE, and so has internal routing, which can leave a request out of the log."""
    return not is_elf(binary) or b"donotlog" in Path(binary).read_bytes()


binaries = pytest.mark.parametrize("binary", uwsgi_binaries(), ids=environment_of)
on_a_front = pytest.mark.parametrize(("binary", "front"), each_with_one(["http", "http-socket"]), ids=in_short)


def raw(site, request, answered=True):
    """Send bytes as they are; return what comes back until the line ends."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as connection:
        connection.sendall(request)
        if answered:
            return connection.makefile("rb").read()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets the line
        return None


def forge_lines(site):
    """Send requests that try to forge lines of a log, and one at the end; return what the log has of them."""
    host = f"Host: {site.host}\r\nConnection: close\r\n\r\n".encode()
    site.mark_log()
    for line in (
        b"GET /forged%0a10.0.0.1%20admin%1b[31m?token=SECRET HTTP/1.1",
        b"GET /forged\n10.0.0.1\x1b[31m HTTP/1.1",
        b"GE\n10.0.0.1 /forged HTTP/1.1",
        b"GET /%66orged?token=SECRET#x HTTP/1.1",
        b"GET /ws/forged%0a10.0.0.1?token=SECRET HTTP/1.1",
    ):
        raw(site, line + b"\r\n" + host)
    site.request("GET", "/the-end")
    wait_until(lambda: "/the-end" in site.log_since_mark(), what="the last line")
    return site.log_since_mark()


# uWSGI's log


@on_a_front
def test_lines_cannot_be_forged_with_the_log_format_of_uwsgi_ini(serve, binary, front):
    log = forge_lines(serve(binary=binary, front=front, options=log_options()))
    lines = log.splitlines()
    assert not [line for line in lines if line.startswith("10.0.0.1")]
    assert not [line for line in lines if " bytes in " in line and not re.fullmatch(LINE, line)]
    assert len([line for line in lines if "forged" in line]) >= 4  # the router refuses one of the requests
    assert "\x1b" not in log
    assert "SECRET" not in log


def test_uwsgi_ini_logs_the_path_as_it_was_sent(serve):
    site = serve(options=log_options())
    site.request("GET", "/gr%C3%BCn/%0a?page=2")
    wait_until(lambda: " 404 " in site.log(), what="the line")
    assert "GET /gr%C3%BCn/%0a 404 " in site.log()


def token_of_john(site):
    code = "from django.contrib.auth.models import User; from wsloop import tokens\n"
    return site.manage("shell", "-v0", "-c", f"{code}print(tokens.make(User.objects.get(username='john')))").strip()


@on_a_front
@pytest.mark.parametrize("logging", ["default", "uwsgi.ini"])
def test_a_token_in_the_query_is_not_logged(serve, facility, binary, front, logging):
    site = serve(binary=binary, front=front, options=log_options() if logging == "uwsgi.ini" else [])
    token = token_of_john(site)
    path = f"{facility}?subscribe-user&token={token}"
    if logging == "default" and not routes(binary):
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            site.connect(path)
        assert refused.value.status_code == 501
        assert b"would log the token in the URL. Send the token as a subprotocol" in refused.value.resp_body
        return
    client = site.connect(path)
    site.publish(facility, "hello", users=["john"])
    assert client.next() == "hello"
    raw(site, f"GET /ws/{path}x HTTP/1.1\r\nHost: {site.host}\r\n{UPGRADE}\r\n".encode())  # refused
    for _ in range(20):  # uWSGI's own line of it takes the option ignore-write-errors
        handshake = f"GET /ws/{path} HTTP/1.1\r\nHost: {site.host}\r\n{UPGRADE}{KEY}\r\n"
        raw(site, handshake.encode(), answered=False)
    assert site.connect(path).next() == "hello"  # the last message, kept; the lines of the others are written
    assert token not in site.log()
    assert f"GET /ws/{facility}?subscribe-user&token=[redacted] 101 " in site.log()


@binaries
def test_a_token_as_a_subprotocol_is_not_logged(serve, facility, binary):
    site = serve(binary=binary, front="http-socket")
    token = token_of_john(site)
    client = site.connect(f"{facility}?subscribe-user", subprotocols=["ws4redis", f"wsloop.token.{token}"])
    site.publish(facility, "hello", users=["john"])
    assert client.next() == "hello"
    assert token not in str(client.headers)
    assert token not in site.log()


# Errors


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("settings", FAILURES, ids=lambda settings: next(iter(settings.values())))
def test_clients_are_not_told_what_failed(serve, tmp_path, facility, settings, debug):
    (tmp_path / "failing.py").write_text(FAILING)
    settings = {"DEBUG": debug, **settings}
    site = serve(front="http-socket", settings=settings, env={"PYTHONPATH": str(tmp_path)})
    john = site.login("john")
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        site.connect(f"{facility}?subscribe-session&subscribe-user&publish-session", cookies=john)
    assert refused.value.status_code == 500
    told = f"{refused.value.resp_headers} {refused.value.resp_body}"
    for internal in (SECRET, "ValueError", "Traceback", ".py", *site.session_keys):
        assert internal not in told
    assert f"ValueError: {SECRET}" in site.log(), "the site's own log says it"
    assert "django.request" not in site.log(), "nothing of a WebSocket reaches Django's handlers, logs and e-mails"


@pytest.mark.parametrize("debug", [False, True])
def test_e_mails_about_errors_have_no_secrets(serve, tmp_path, facility, debug):
    """Those of Django's AdminEmailHandler; its ``include_html`` would add the local variables of every function."""
    (tmp_path / "failing.py").write_text(FAILING)
    mails = tmp_path / "mails"
    logging = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "console": {"class": "logging.StreamHandler"},
            "mail": {"class": "django.utils.log.AdminEmailHandler", "level": "ERROR"},
        },
        "root": {"handlers": ["console", "mail"], "level": "INFO"},
    }
    settings = {"DEBUG": debug, "LOGGING": logging, "ADMINS": [["A", "a@example.com"]], **FAILURES[0]}
    settings |= {"EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend", "EMAIL_FILE_PATH": str(mails)}
    site = serve(front="http-socket", settings=settings, env={"PYTHONPATH": str(tmp_path)})
    john, token = site.login("john"), token_of_john(site)
    for path, options in (
        (f"{facility}?subscribe-session", {"cookies": john}),
        (f"{facility}?subscribe-user&token={token}", {"cookies": john}),
        (f"{facility}?subscribe-user", {"subprotocols": ["ws4redis", f"wsloop.token.{token}"]}),
    ):
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            site.connect(path, **options)
        assert refused.value.status_code == 500
    sent = "".join(path.read_text().replace("=\n", "") for path in mails.iterdir())  # quoted-printable
    assert sent.count(f"ValueError\n{SECRET}") == 3
    assert not [secret for secret in (token, *site.session_keys) if secret in sent]
    assert token not in site.log()


@pytest.mark.parametrize("debug", [False, True])
def test_an_open_socket_is_not_told_what_failed(serve, tmp_path, facility, debug):
    (tmp_path / "failing.py").write_text(FAILING)
    settings = {"DEBUG": debug, "WS4REDIS_SUBSCRIBER": "failing.OnPublishing"}
    site = serve(front="http-socket", settings=settings, env={"PYTHONPATH": str(tmp_path)})
    client = site.connect(f"{facility}?subscribe-session&publish-session", cookies=site.login("john"))
    client.send("hello")
    opcode, data = client.recv_data()
    assert opcode == websocket.ABNF.OPCODE_CLOSE
    assert data == b"\x03\xf3internal error"  # 1011
    assert f"ValueError: {SECRET}" in site.log()


@pytest.mark.parametrize("debug", [False, True])
def test_refusals_do_not_tell_the_key_of_the_session(serve, facility, debug):
    site = serve(front="http-socket", settings={"DEBUG": debug}, options=["--buffer-size=16384"])
    john = site.login("john")
    (key,) = site.session_keys
    given = {line.partition(": ")[0]: line.partition(": ")[2] for line in (UPGRADE + KEY).splitlines()}
    for path, headers in (
        (facility, {}),
        (facility, {**given, "Origin": "http://evil.example"}),
        (facility, {**given, "Host": "evil.example"}),
        (f"a:b{facility}?subscribe-user", given),
        (f"{facility}?token=nonsense", given),
        (f"{facility}?" + "&".join(f"a{number}" for number in range(900)), given),
        ("x" * 300, given),
    ):
        answer = site.request("GET", f"/ws/{path}", headers=headers, cookies=john)
        assert answer.status >= 400
        assert key not in f"{answer.headers}{answer.text}"
    # that no key is in the log is checked when the site ends


@pytest.mark.parametrize("debug", [False, True])
def test_frames_do_not_tell_the_key_of_the_session(serve, facility, debug):
    """Not those of messages, and not the reason of the close frame when the user is signed out."""
    site = serve(front="http-socket", settings={"DEBUG": debug})
    john = site.login("john")
    client = site.connect(f"{facility}?subscribe-session&subscribe-user&publish-session&echo", cookies=john)
    client.send("hello")
    site.publish(facility, "from a view", cookies=john, sessions="SELF")
    frames = [client.recv_frame().data for _ in range(2)]
    account = "from django.contrib.auth.models import User; john = User.objects.get(username='john'); "
    site.manage("shell", "-v0", "-c", f"{account}john.is_active = False; john.save()")
    while not frames[-1].startswith((4001).to_bytes(2, "big")):
        frames.append(client.recv_frame().data)
    assert {b"hello", b"from a view"} <= set(frames)
    told = b"".join([*frames, str(client.headers).encode()])
    assert not [key for key in site.session_keys if key.encode() in told]


# Redis


@pytest.fixture
def full(serve, private_redis):
    """A site, on a Redis that takes no more; the cookies of john."""
    site = serve(redis=private_redis, front="http-socket")
    john = site.login("john")
    with private_redis.client() as client:
        client.config_set("maxmemory", 1)
    return site, john


def test_an_error_of_redis_in_a_view_shows_neither_payload_nor_session(full, facility):
    site, john = full
    with pytest.raises(AssertionError, match="publishing: 500"):
        site.publish(facility, "the-payload", cookies=john, sessions="SELF", users="SELF")
    assert "OutOfMemoryError: command not allowed when used memory > 'maxmemory'." in site.log()
    assert "the-payload" not in site.log()
    assert "ws:user" not in site.log()
    assert not [key for key in site.session_keys if key in site.log()]


def test_an_error_of_redis_in_a_socket_shows_neither_payload_nor_session(full, facility):
    site, john = full
    client = site.connect(f"{facility}?publish-session&publish-user", cookies=john)
    client.send("the-payload")
    wait_until(lambda: "which Redis did not accept" in site.log(), what="the line that tells of it")
    site.session_keys.clear()  # what is checked at the end is checked here
    assert "command not allowed when used memory > 'maxmemory'" in site.log()
    assert "the-payload" not in site.log()
    assert "ws:user" not in site.log()
