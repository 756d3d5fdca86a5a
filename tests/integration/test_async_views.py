"""Asynchronous views, middleware and streams beside plain ones, in one worker of a real uWSGI, with real databases."""

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from testbed.processes import ROOT, free_port, wait_until
from testbed.site_files import site_environment
from tests.requires import need

MODULE = "tests.integration.sites.async_settings"
MERCY = 3  # seconds
WAYS = 7  # of everything() to wait
POOL = 10  # connections


class Numbers(BaseHTTPRequestHandler):
    """Another server, for clients in views: it answers a bit later with the number in the path."""

    def do_GET(self):
        time.sleep(0.05)
        body = self.path[1:].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Numbered(ThreadingHTTPServer):
    request_queue_size = 100
    daemon_threads = True


@pytest.fixture(scope="module")
def other():
    with Numbered(("127.0.0.1", 0), Numbers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address
        server.shutdown()
        thread.join()


class Async:
    """One worker, and three ways to it: nginx, an http-socket, and uWSGI's http router."""

    def __init__(self, serve, other, **settings):
        direct, router, behind = (f"127.0.0.1:{free_port()}" for _ in range(3))
        options = ["--http-socket", direct, "--socket", behind, "--http", router, "--http-to", behind]
        options += ["--module", "tests.integration.sites.async_wsgi", "--worker-reload-mercy", MERCY]
        settings = {"OTHER": other, **settings}
        # A master that is told to reload starts itself again.
        self.site = serve(front="nginx-http", settings_module=MODULE, options=options, settings=settings, warm=False)
        self.hosts = {"nginx": self.site.host, "http-socket": direct, "http": router}
        self.cookies = self.site.login("john")
        self.get("/test/everything/1/")  # imports what HTTP clients need
        self.get("/test/watch/")

    def get(self, path, host="http-socket"):
        """Return the answer as JSON, and what middleware has written into it."""
        with contextlib.closing(http.client.HTTPConnection(self.hosts[host], timeout=60)) as connection:
            connection.request("GET", path, headers={"Cookie": self.cookies})
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, f"{path}: {answer.status}\n{body[-2000:]!r}\n{self.site.log()[-4000:]}"
            self.passed = answer.headers.get("X-Passed")
            return json.loads(body)

    @contextlib.contextmanager
    def begin(self, path, host="http-socket"):
        """Open a connection, ask for ``path`` and leave at the end, whether or not there was an answer."""
        address, _, port = self.hosts[host].partition(":")
        with socket.create_connection((address, int(port)), timeout=20) as connection:
            head = f"GET {path} HTTP/1.1\r\nHost: {self.hosts[host]}\r\nCookie: {self.cookies}\r\n\r\n"
            connection.sendall(head.encode())
            yield connection


@pytest.fixture(scope="module")
def on_sqlite(shared_serve, other):
    need("nginx")
    return Async(shared_serve, other)


@pytest.fixture(scope="module")
def on_postgres(shared_serve, redis_server, site_files, other, postgres, tmp_path_factory):
    """The default database without a pool, and the same one by the name ``pooled`` with one."""
    pool = {"min_size": 1, "max_size": POOL, "timeout": 20}
    databases = {
        "default": postgres.settings(OPTIONS={"application_name": "plain"}),
        "pooled": postgres.settings(OPTIONS={"application_name": "pooled", "pool": pool}),
    }
    env = site_environment(tmp_path_factory.mktemp("site"), site_files, redis_server.url, MODULE)
    env |= {"SITE_SETTINGS": json.dumps({"DATABASES": databases})}
    for command in (["migrate", "-v0"], ["demo_data"]):
        command = [sys.executable, "manage.py", *command]
        subprocess.run(command, cwd=ROOT, env=env, check=True, timeout=60, stdout=subprocess.DEVNULL)
    return Async(shared_serve, other, DATABASES=databases)


# Of the module, so that `make test` leaves these tests together, in a process that starts both sites once.
@pytest.fixture(scope="module", params=["on_sqlite", "on_postgres"])
def site(request):
    return request.getfixturevalue(request.param)


def saw_nothing(site):
    """Assert that the greenlet that looks for running loops, each millisecond, has seen none."""
    seen = site.get("/test/watch/")
    assert seen["leaks"] == []
    return seen["looks"]


# Views and middleware.


@pytest.mark.parametrize(
    "site, database",
    [("on_sqlite", "default"), ("on_postgres", "default"), ("on_postgres", "pooled")],
    indirect=["site"],
)
def test_fifty_asynchronous_views_and_fifty_plain_ones_at_once(site, database):
    looks = saw_nothing(site)
    paths = [f"/test/{view}/{number}/?db={database}" for number in range(50) for view in ("everything", "plain")]
    with ThreadPoolExecutor(100) as clients:
        answers = list(clients.map(site.get, paths))
    assert answers[::2] == [[number] * WAYS for number in range(50)]
    assert answers[1::2] == [[number] * 3 for number in range(50)]
    assert saw_nothing(site) > looks + 10
    assert "SynchronousOnlyOperation" not in site.site.log_since_mark()


@pytest.mark.parametrize("view", ["everything", "plain"])
def test_middleware_of_all_kinds_around_views(site, view):
    site.get(f"/test/{view}/1/")
    assert site.passed == "both-sync plain-1 async-john outer"


def test_synchronous_orm_in_an_asynchronous_view_is_refused(site):
    assert "You cannot call this from an async context" in site.get("/test/wrong/")
    assert site.get("/test/plain/1/") == [1, 1, 1]


def test_no_connection_of_postgres_stays_open(on_postgres, postgres):
    import psycopg

    paths = [f"/test/{view}/1/?db={db}" for view in ("everything", "plain", "wrong") for db in ("default", "pooled")]
    with ThreadPoolExecutor(20) as clients:
        list(clients.map(on_postgres.get, [path.replace("wrong/1", "wrong") for path in paths * 4]))
    with psycopg.connect(host=str(postgres.directory), user="postgres", autocommit=True) as connection:

        def opened(name):
            query = "SELECT state FROM pg_stat_activity WHERE application_name = %s"
            return [state for (state,) in connection.execute(query, [name])]

        wait_until(lambda: opened("plain") == [], what="no connection left")
        wait_until(lambda: set(opened("pooled")) == {"idle"}, what="those of the pool are free")
        assert len(opened("pooled")) <= POOL


# Streams.


END = {"http-socket": b"", "http": b"", "nginx": b"\r\n"}  # of a part: nginx sends chunks


def read_until(connection, end, got=b""):
    while not got.endswith(end):
        data = connection.recv(65536)
        assert data, f"the stream ended after {got!r}"
        got += data
    return got


@pytest.mark.parametrize("host", ["http-socket", "http", "nginx"])
def test_each_part_arrives_as_it_is_made(on_sqlite, host):
    name = f"parts-{host}"
    with on_sqlite.begin(f"/test/stream/{name}/", host) as connection:
        for number in range(3):
            last = b"0\r\n\r\n" if host == "nginx" and number == 2 else b""  # it may come together with the part
            read_until(connection, b"%d 1 " % number + END[host] + last)
            if number < 2:
                assert name not in on_sqlite.get("/test/streams/")["ended"]
                on_sqlite.get(f"/test/go-on/{name}/")
        if host != "nginx":
            assert connection.recv(1) == b""
    wait_until(lambda: name in on_sqlite.get("/test/streams/")["ended"])


def test_streams_use_postgres(on_postgres):
    with ThreadPoolExecutor(20) as clients:

        def take(number):
            with on_postgres.begin(f"/test/stream/many-{number}/?db=pooled") as connection:
                got = b""
                for part in range(3):
                    got = read_until(connection, b"%d 1 " % part, got)
                    if part < 2:
                        on_postgres.get(f"/test/go-on/many-{number}/")
                return got

        assert all(got.endswith(b"0 1 1 1 2 1 ") for got in clients.map(take, range(20)))
    saw_nothing(on_postgres)


@pytest.mark.parametrize("host", ["http-socket", "http", "nginx"])
def test_a_stream_that_sleeps_ends_soon_after_its_client_has_left(on_sqlite, host):
    name = f"left-{host}"
    with on_sqlite.begin(f"/test/stream/{name}/?then=sleep", host) as connection:
        for number in range(3):
            read_until(connection, b"%d 1 " % number + END[host])
            if number < 2:
                on_sqlite.get(f"/test/go-on/{name}/")
    began = time.monotonic()
    wait_until(lambda: name in on_sqlite.get("/test/streams/")["ended"])
    assert time.monotonic() - began < 3


def test_no_more_than_one_part_is_made_ahead_for_a_client_that_does_not_read(on_sqlite):
    name = "flood"
    with on_sqlite.begin(f"/test/stream/{name}/?then=flood") as connection:
        for number in range(2):
            read_until(connection, b"%d 1 " % number)
            on_sqlite.get(f"/test/go-on/{name}/")

        def made():
            return on_sqlite.get("/test/streams/")["made"].get(name, 0)

        wait_until(made)
        wait_until(lambda: made() == (time.sleep(0.1), made())[1], what="it stands still")
        assert made() < 100, "what the kernel takes, in parts of 100 kB"
    wait_until(lambda: name in on_sqlite.get("/test/streams/")["ended"])


def test_an_error_in_the_middle_ends_the_response_and_is_in_the_log(on_sqlite):
    name = "fails"
    with on_sqlite.begin(f"/test/stream/{name}/?then=fail") as connection:
        for number in range(2):
            read_until(connection, b"%d 1 " % number)
            on_sqlite.get(f"/test/go-on/{name}/")
        got = b"".join(iter(lambda: connection.recv(65536), b""))
        assert got == b"2 1 "
    wait_until(lambda: "ZeroDivisionError: in the middle of a stream" in on_sqlite.site.log_since_mark())
    assert name in on_sqlite.get("/test/streams/")["ended"]


# What is left.


def test_nothing_is_left_of_five_hundred_asynchronous_sockets(on_sqlite):
    """``make bench-leaks`` does it with tens of thousands."""
    names = ("tasks", "greenlets", "descriptors", "connections", "running", "consumers")

    def come_and_go(number):
        path = ("/ws/consumer/", "/ws/application/")[number % 2]
        client = on_sqlite.site.connect(path)
        client.send(str(number))
        assert client.next() == str(number)
        if number % 3:
            client.close()
        else:
            client.shutdown()
        on_sqlite.site.clients.remove(client)

    def held():
        found = on_sqlite.get("/test/held/")
        return {name: found[name] for name in names}

    with ThreadPoolExecutor(20) as clients:
        list(clients.map(come_and_go, range(20)))
        wait_until(lambda: held()["connections"] == 0)
        time.sleep(1.5)  # executors that are idle give their greenlets up
        before = held()
        list(clients.map(come_and_go, range(500)))

    def back():
        now = held()
        return all(now[name] <= before[name] for name in names) or None

    try:
        wait_until(back)
    except AssertionError:
        assert held() == before
    saw_nothing(on_sqlite)


# Last: they end the worker.


def test_a_worker_with_views_and_streams_under_way_ends_within_the_mercy(on_sqlite):
    (worker,) = on_sqlite.site.workers()
    with (
        on_sqlite.begin("/test/waits/"),
        on_sqlite.begin("/test/stream/end/?then=sleep") as stream,
    ):
        for number in range(2):
            read_until(stream, b"%d 1 " % number)
            on_sqlite.get("/test/go-on/end/")
        read_until(stream, b"2 1 ")
        began = time.monotonic()
        on_sqlite.site.send_signal(signal.SIGHUP)
        wait_until(lambda: workers(on_sqlite) not in ([worker], []), timeout=MERCY + 10)
        assert time.monotonic() - began < MERCY + 5
    wait_until(lambda: answers(on_sqlite), timeout=20)


def workers(site):
    with contextlib.suppress(OSError):  # the master begins anew
        return site.site.workers()
    return []


def answers(site):
    with contextlib.suppress(OSError, http.client.HTTPException):
        return site.get("/test/plain/1/") == [1, 1, 1]
