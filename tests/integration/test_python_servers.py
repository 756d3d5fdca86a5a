"""The core of the suite on the other servers: gunicorn with its gevent worker, and gevent's own WSGI server.

What could differ there is how a connection is taken over, how a worker ends, and what is logged. The tests that other
modules have of the rest run here again, on one site of each server.
"""

import contextlib
import json
import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import websocket

from testbed.certificates import make_certificate
from testbed.clients import Client
from testbed.processes import ROOT, Process, free_port, wait_until
from testbed.python_servers import PYTHON_SERVERS, children
from testbed.site_files import site_environment
from tests.docs.test_docs import code_blocks
from tests.integration import test_async_views as async_views
from tests.integration import test_recovery as recovery
from tests.integration.test_audiences import test_each_audience_hears_its_messages_and_no_others
from tests.integration.test_connections import test_the_worker_does_not_go_on_watching_the_connections_of_requests
from tests.integration.test_consumers import (
    name,
    test_a_chat_room_reaches_everybody_in_it_in_order,
    test_a_consumer_that_does_not_accept_refuses_the_handshake,
    test_a_loop_in_connect_ends_when_the_client_leaves,
    test_an_exception_closes_its_own_socket_with_1011,
)
from tests.integration.test_delivery import test_every_socket_hears_the_heartbeat_every_four_seconds
from tests.integration.test_fronts import Stream
from tests.integration.test_logs import forge_lines, token_of_john
from tests.integration.test_recovery import (
    test_a_slow_client_is_closed_and_resumes,
    test_who_comes_back_gets_what_was_missed_and_then_what_comes,
)
from tests.integration.test_signing_out import SIGNED_OUT, post

__all__ = [
    "name",
    "test_a_chat_room_reaches_everybody_in_it_in_order",
    "test_a_consumer_that_does_not_accept_refuses_the_handshake",
    "test_a_loop_in_connect_ends_when_the_client_leaves",
    "test_a_slow_client_is_closed_and_resumes",
    "test_an_exception_closes_its_own_socket_with_1011",
    "test_each_audience_hears_its_messages_and_no_others",
    "test_every_socket_hears_the_heartbeat_every_four_seconds",
    "test_the_worker_does_not_go_on_watching_the_connections_of_requests",
    "test_who_comes_back_gets_what_was_missed_and_then_what_comes",
]

CONSUMERS = ["--module", "tests.integration.sites.consumers_wsgi"]
PRODUCTION = ROOT / "docs/how-to/run-in-production.rst"
GUNICORN = str(Path(sys.executable).with_name("gunicorn"))
BOTH = "subscribe-broadcast&publish-broadcast&echo"


@pytest.fixture(scope="module", params=PYTHON_SERVERS)
def site(request, shared_serve):
    """Two workers of gunicorn, or the one of gevent's server, with consumers, and a history of each facility."""
    options = {**recovery.SETTINGS["WSLOOP"], "MAX_MESSAGE_SIZE": 100_000}
    logging = ["--access-logformat", '"%(r)s" %(s)s %(q)s'] if request.param == "gunicorn" else []
    return shared_serve(front=request.param, processes=2, options=[*CONSUMERS, *logging], settings={"WSLOOP": options})


@pytest.fixture(scope="module")
def kept(site):
    return site


@pytest.fixture(scope="module")
def consumers(site):
    return site


@pytest.fixture(scope="module")
def john(site):
    return site.login("john")


@pytest.fixture(scope="module")
def mary(site):
    return site.login("mary")


def goodbyes(clients):
    with ThreadPoolExecutor(len(clients)) as executor:
        return set(executor.map(lambda client: client.closing(60), clients))


def test_sockets_end_with_their_session(site, facility):
    cookies, elsewhere = site.login("mary"), site.login("mary")
    mine = [site.connect(f"{facility}?subscribe-user", cookies=cookies) for _ in range(4)]
    other = site.connect(f"{facility}?subscribe-user", cookies=elsewhere)
    post(site, "/accounts/logout/", cookies)
    assert goodbyes(mine) == {SIGNED_OUT}
    assert other.round_trip() == b"round trip"


def test_what_is_too_large_is_refused(site, facility):
    client = site.connect(f"{facility}?{BOTH}")
    client.send("x" * 100_001)
    assert client.closing() == 1009
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    frame = json.dumps({"type": "publish", "id": 1, "data": "x" * 200_000}).encode()
    answer = site.request("POST", f"/ws/{facility}?publish-broadcast", headers, frame)
    assert answer.status == 413


def test_a_token_in_the_query_is_in_no_log(site, facility):
    token = token_of_john(site)
    site.mark_log()
    client = site.connect(f"{facility}?token={token}&subscribe-user")
    stream = Stream(site, f"{facility}?token={token}&subscribe-user")
    site.publish(facility, "for john", users=["john"])
    assert client.next() == stream.next() == "for john"
    stream.close()
    assert site.request("GET", f"/ws/{facility}?t%6Fken={token}").status == 426
    assert site.request("GET", f"/nowhere?token={token}").status == 404
    wait_until(lambda: "/nowhere" in site.log_since_mark(), what="the last line")
    log = site.log_since_mark()
    assert token not in log
    assert re.search(rf'"GET /ws/{facility}\?\S*\[redacted\]\S* HTTP/1.1" 101 ', log), "the server's own line"


def check_that_lines_cannot_be_forged(site):
    """With the log format of gunicorn.conf.py, which gunicorn reads because it runs where that file is."""
    log = forge_lines(site)
    assert not [line for line in log.splitlines() if line.startswith("10.0.0.1")]
    assert re.search(
        r"^127\.0\.0\.1 \[.*\] GET /forged%0a10\.0\.0\.1%20admin%1b\[31m 404 \d+ bytes in \d+ ms$", log, re.M
    )
    assert "\x1b" not in log
    assert "SECRET" not in log


def test_sockets_hold_no_request(serve, facility):
    """Three requests at once, and more sockets than that; then a reload and the end, with goodbyes."""
    site = serve(front="gunicorn", gevent=3)
    check_that_lines_cannot_be_forged(site)
    clients = [site.connect(f"{facility}?subscribe-broadcast") for _ in range(10)]
    site.publish(facility, "hello", broadcast=True)
    assert [client.next() for client in clients] == ["hello"] * 10
    (worker,) = site.workers()
    # HUP: another worker comes, and the old one says goodbye and ends, although it holds sockets.
    site.send_signal(signal.SIGHUP)
    assert goodbyes(clients) == {1012}
    wait_until(lambda: worker not in site.workers() and len(site.workers()) == 1, 60, "the new worker alone")
    again = site.connect(f"{facility}?{BOTH}")
    again.send("back")
    assert again.until("back") == ["hello"]
    # TERM: of each of them.
    site.send_signal(signal.SIGTERM)
    assert again.closing(60) == 1012
    assert site.wait(60) == 0
    assert "Traceback" not in site.log()
    assert "worker timeout" not in site.log().lower(), "nobody was killed"
    assert "graceful timeout" not in site.log().lower()


def test_max_requests_says_goodbye(serve, facility):
    site = serve(front="gunicorn", options=["--max-requests", 5])
    client = site.connect(f"{facility}?subscribe-broadcast")
    (worker,) = site.workers()

    def another():
        with contextlib.suppress(OSError):
            return site.request("GET", "/test/whoami/").json()["pid"] != worker

    wait_until(another, 60, "another worker")
    assert client.closing(60) == 1012


def test_gevents_own_server_as_it_is_documented_says_goodbye(redis_server, site_files, facility, tmp_path):
    port = free_port()
    (code,) = [each for each in code_blocks(PRODUCTION, "python") if "pywsgi" in each]
    code = code.replace('("127.0.0.1", 8000)', f'("127.0.0.1", {port})').replace("mysite.wsgi", "wsgi")
    (tmp_path / "serve.py").write_text(code)
    env = site_environment(tmp_path, site_files, redis_server.url, "tests.integration.sites.settings")
    env |= {"SITE_TOKEN": "-", "SITE_SETTINGS": "{}", "PYTHONPATH": str(ROOT)}
    with Process([sys.executable, str(tmp_path / "serve.py")], tmp_path / "log", env) as process:
        wait_until(lambda: process.listens(port), 60, "the server listening")
        url = f"ws://127.0.0.1:{port}/ws/{facility}?subscribe-broadcast"
        options = {"timeout": 60, "suppress_origin": True, "class_": Client}
        clients = [websocket.create_connection(url, **options) for _ in range(20)]
        process.send_signal(signal.SIGTERM)
        assert goodbyes(clients) == {1012}
        for client in clients:
            client.shutdown()
        assert process.wait(60) == 0
        assert "Traceback" not in process.log()


# --- asynchronous code ------------------------------------------------------------------------------------------------


class Async(async_views.Async):
    """One worker of gunicorn, with asynchronous views, middleware, consumers and an ASGI application."""

    def __init__(self, serve, other):
        options = ["--module", "tests.integration.sites.async_wsgi", "--graceful-timeout", 12]
        settings = {"OTHER": other}
        self.site = serve(front="gunicorn", settings_module=async_views.MODULE, options=options, settings=settings)
        self.hosts = dict.fromkeys(("http-socket", "nginx"), self.site.host)  # it sends chunks, as nginx does
        self.cookies = self.site.login("john")
        self.get("/test/everything/1/")


def test_asynchronous_code(serve):
    with async_views.Numbered(("127.0.0.1", 0), async_views.Numbers) as other, ThreadPoolExecutor(1) as executor:
        executor.submit(other.serve_forever)
        try:
            on_gunicorn = Async(serve, other.server_address)
            site = on_gunicorn.site
            assert on_gunicorn.get("/test/everything/7/")
            async_views.test_each_part_arrives_as_it_is_made(on_gunicorn, "nginx")
            async_views.test_a_stream_that_sleeps_ends_soon_after_its_client_has_left(on_gunicorn, "nginx")
            consumer, application = (site.connect(path) for path in ("consumer/", "elsewhere/"))
            for client in (consumer, application):
                client.send("asynchronous")
                assert client.next() == "asynchronous"
            with on_gunicorn.begin("/test/stream/end/?then=sleep") as stream:
                for number in range(3):
                    async_views.read_until(stream, b"%d 1 \r\n" % number)
                    if number < 2:
                        on_gunicorn.get("/test/go-on/end/")
                # It has no end; half of the time for it is more than sockets need to end, and less than all.
                began = time.monotonic()
                site.send_signal(signal.SIGTERM)
                assert goodbyes([consumer, application]) == {1012}
                assert site.wait(60) == 0
                assert time.monotonic() - began < 12 or "graceful timeout" not in site.log()
            assert "streaming responses end before they are complete" in site.log()
        finally:
            other.shutdown()


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(port, path, encrypted=False):
    """The answer to a handshake that is refused."""
    options = {"sslopt": {"cert_reqs": 0}} if encrypted else {}
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        url = f"ws{'s' * encrypted}://127.0.0.1:{port}{path}"
        websocket.create_connection(url, timeout=30, suppress_origin=True, **options)
    return refusal.value.status_code, refusal.value.resp_body.decode()


def test_what_cannot_be_taken_over_says_what_to_do(redis_server, site_files, facility, tmp_path):
    """All at once, because each has to start: other workers, gunicorn's own TLS, a site that is loaded too early."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    env = site_environment(tmp_path, site_files, redis_server.url, "tests.integration.sites.settings")
    env |= {"SITE_TOKEN": "-", "SITE_SETTINGS": "{}", "PYTHONPATH": str(tmp_path)}
    source = (ROOT / "tests/integration/sites/consumers_wsgi.py").read_text()
    (tmp_path / "unpatched.py").write_text(source.replace("monkey.patch_all()", ""))
    kinds = {
        "tls": ["--certfile", str(certificate), "--keyfile", str(key), "wsgi"],
        "early": ["--preload", "unpatched"],
        "patched": ["--preload", "tests.integration.sites.consumers_wsgi"],
        "sync": ["--worker-class", "sync", "unpatched"],
        "gthread": ["--worker-class", "gthread", "wsgi"],
    }
    with contextlib.ExitStack() as stack:
        started = {}
        for kind, options in kinds.items():
            port = free_port()
            command = [GUNICORN, "--bind", f"127.0.0.1:{port}", *options]
            started[kind] = stack.enter_context(Process(command, tmp_path / f"{kind}.log", env)), port
        # Threads that are greenlets would hang in every request, and what is imported too early blocks all sockets.
        for kind, words in (
            ("gthread", "worker class gthread cannot serve WebSockets: run gunicorn with -k gevent"),
            ("early", "wsgi.py must begin with `from gevent import monkey; monkey.patch_all()`"),
        ):
            process, _ = started.pop(kind)
            assert process.wait(60)
            assert words in process.log()
        preloaded, port = started.pop("patched")
        says_goodbye(preloaded, port, facility)
        for kind, words in (
            (
                "tls",
                "--certfile cannot serve WebSockets, because it keeps the encryption to itself; use a proxy",
            ),
            ("sync", "gunicorn's worker class sync cannot serve WebSockets: run gunicorn with -k gevent"),
        ):
            process, port = started[kind]
            wait_until(lambda process=process, port=port: process.listens(port), 60, f"{kind} listening")
            status, body = refused(port, f"/ws/{facility}?subscribe-broadcast", kind == "tls")
            assert status == 501, body + process.log()
            assert words in body
            assert words in process.log()


def says_goodbye(process, port, facility):
    """A site that is loaded before the workers, and patches itself, serves as others do."""
    wait_until(lambda: process.listens(port), 60, "gunicorn listening")
    client = websocket.create_connection(
        f"ws://127.0.0.1:{port}/ws/{facility}?{BOTH}", timeout=60, suppress_origin=True, class_=Client
    )
    try:
        client.send("hello")
        assert client.next() == "hello"
        (worker,) = children(process.pid)
        os.kill(worker, signal.SIGTERM)
        assert client.closing(60) == 1012
    finally:
        client.shutdown()
