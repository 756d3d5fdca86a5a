"""Reloads, crashes and years of uptime in short: what ends, what stays behind, and what it takes of Redis."""

import asyncio
import base64
import contextlib
import os
import random
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import websocket

from testbed.processes import wait_until
from testbed.uwsgi import as_in_uwsgi_ini, each_with_one, in_short

BOTH = "subscribe-broadcast&publish-broadcast"


def redis_clients(redis):
    """How many connections this Redis has beside the one that asks."""
    with redis.client() as client:
        return len(client.client_list()) - 1


def channels(redis, pattern="*"):
    with redis.client() as client:
        return sorted(client.pubsub_channels(pattern))


@pytest.mark.parametrize(("binary", "front"), each_with_one(["http", "http-socket"]), ids=in_short)
def test_chain_reload_says_goodbye_with_1012(serve, private_redis, facility, tmp_path, binary, front):
    touch = tmp_path / "reload"
    touch.touch()
    site = serve(
        redis=private_redis,
        binary=binary,
        front=front,
        processes=2,
        options=["--lazy-apps", "--touch-chain-reload", touch],
        warm=False,
    )
    old = site.workers()
    for worker in old:
        with site.only(worker):
            site.connect(f"{facility}?subscribe-broadcast")
    later = time.time() + 60
    os.utime(touch, (later, later))
    with ThreadPoolExecutor(2) as executor:
        assert list(executor.map(lambda client: client.closing(30), site.clients)) == [1012, 1012]
    wait_until(lambda: len(site.workers()) == 2 and not set(old) & set(site.workers()), 30, "new workers")
    wait_until(lambda: "chain reloading complete" in site.log(), 30, "the end of the reload")
    # the new ones work, and of the old ones Redis knows nothing any more
    wait_until(lambda: not channels(private_redis, f"*{facility}"), what="no subscription")
    again = site.connect(f"{facility}?{BOTH}&echo")
    again.send("back")
    assert again.next() == "back"
    wait_until(lambda: redis_clients(private_redis) <= 6, what="the connections of two workers")


class Impatient:
    """A client that comes back at once when its socket ends: ``codes`` has what each one ended with, None if it broke.

    ``stays_away``: it does not come back any more.
    """

    stays_away = False

    def __init__(self, port, path):
        self.codes, self.is_open = [], False
        self._port = port
        key = base64.b64encode(os.urandom(16)).decode()
        self._head = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        ).encode()

    async def run(self):
        while not self.stays_away:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                writer.write(self._head)
                answer = await reader.readuntil(b"\r\n\r\n")
                if answer.startswith(b"HTTP/1.1 503 "):  # a worker refuses those that it cannot take soon
                    await asyncio.sleep(random.uniform(0.1, 0.5))
                    continue
                assert answer.startswith(b"HTTP/1.1 101 "), answer
                self.is_open = True
                self.codes.append(await self._ends(reader))
            finally:
                self.is_open = False
                writer.close()

    async def _ends(self, reader):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                first, length = await reader.readexactly(2)
                payload = await reader.readexactly(length)
                if first & 0xF == websocket.ABNF.OPCODE_CLOSE:
                    return int.from_bytes(payload[:2], "big")
        return None


def disconnect(site, facility, count, stop, reload=None):
    """Have as many clients connected, ``reload`` all workers under them, and ``stop`` the site: the codes of each."""
    clients = [Impatient(site.port, f"/ws/{facility}?subscribe-broadcast") for _ in range(count)]

    async def until(tasks, condition):
        for _ in range(600):
            for task in tasks:
                if task.done():
                    task.result()  # raises what has ended it
            if condition():
                return
            await asyncio.sleep(0.1)
        raise AssertionError([(client.is_open, client.codes) for client in clients])

    async def run():
        tasks = [asyncio.ensure_future(client.run()) for client in clients]
        await until(tasks, lambda: all(client.is_open for client in clients))
        if reload:
            old = site.workers()
            reload()
            await until(tasks, lambda: any(client.codes for client in clients))
            page = await asyncio.to_thread(site.request, "GET", "/test/whoami/", timeout=60)
            assert page.json()["pid"] not in old, "an old worker has answered"
            await until(tasks, lambda: len(site.workers()) == 2 and not {*old} & {*site.workers()})
            await until(tasks, lambda: all(client.codes and client.is_open for client in clients))
        for client in clients:
            client.stays_away = True
        stop()
        await asyncio.wait_for(asyncio.gather(*tasks), 60)

    asyncio.run(run())
    return [client.codes for client in clients]


STOPS = as_in_uwsgi_ini("hook-master-start", "hook-as-gateway")


@pytest.mark.parametrize(("binary", "how"), each_with_one(["touch", "SIGHUP"]), ids=in_short)
def test_a_reload_disconnects_each_client_once_and_a_stop_behind_the_router_says_goodbye(
    serve, private_redis, facility, tmp_path, binary, how
):
    """Clients that come back at once meet no old worker, and pages are answered by a new one."""
    touch = tmp_path / "reload"
    touch.touch()
    options = ["--lazy-apps", "--touch-workers-reload", touch, *STOPS]
    site = serve(redis=private_redis, binary=binary, processes=2, options=options)

    def reload():
        if how == "touch":
            later = time.time() + 60
            os.utime(touch, (later, later))
        else:
            site.send_signal(signal.SIGHUP)

    # As systemd and a terminal do it: the router and the workers get the signal, too.
    count = 500 if how == "touch" else 100
    codes = disconnect(site, facility, count, lambda: os.killpg(site.pid, signal.SIGTERM), reload)
    assert [each for each in codes if each != [1012, 1012]] == []
    assert site.wait(20) == 0
    wait_until(lambda: redis_clients(private_redis) == 0, what="no connection to Redis")
    assert channels(private_redis) == []


@pytest.mark.parametrize(
    ("front", "options", "number", "to"),
    [
        ("http", STOPS, signal.SIGINT, os.killpg),  # Ctrl-C
        ("http", STOPS, signal.SIGQUIT, os.kill),
        ("http-socket", [], signal.SIGTERM, os.kill),
    ],
)
def test_shutdown(serve, facility, front, options, number, to):
    site = serve(front=front, processes=2, options=options)
    assert disconnect(site, facility, 50, lambda: to(site.pid, number)) == [[1012]] * 50
    assert site.wait(20) == 0


def test_a_request_that_never_ends_keeps_no_socket_from_its_goodbye_and_no_server_alive(serve, facility):
    site = serve(front="http-socket", options=["--worker-reload-mercy", 4, *STOPS])
    client = site.connect(f"{facility}?subscribe-broadcast")
    with socket.create_connection(("127.0.0.1", site.port)) as endless:
        head = f"POST /test/publish/ HTTP/1.1\r\nHost: {site.host}\r\nContent-Length: 100\r\n\r\n"
        endless.sendall(head.encode())  # the view waits for the body
        site.request("GET", "/test/whoami/")  # accepted after it
        site.mark_log()
        site.send_signal(signal.SIGTERM)
        assert client.closing(20) == 1012
        assert "waiting for 1 running requests" in site.log_since_mark()
        site.wait(30)
    assert "The worker has not ended in 4 s (worker-reload-mercy)" in site.log_since_mark()


def test_shutdown_without_a_master(serve, private_redis, facility):
    """The command that ws4redis documents has neither --master nor --die-on-term: Ctrl-C ends it."""
    site = serve(redis=private_redis, front="http-socket", master=False)
    client = site.connect(f"{facility}?subscribe-broadcast")
    site.send_signal(signal.SIGINT)
    assert client.closing() in (1012, None)
    site.wait(20)
    assert redis_clients(private_redis) == 0


def test_a_worker_that_is_killed(serve, private_redis, facility):
    """Its sockets end, those of the other worker do not; the master starts another, which works."""
    site = serve(redis=private_redis, front="http-socket", processes=2)
    first, second = site.workers()
    with site.only(first):
        victim = site.connect(f"{facility}?{BOTH}&echo")
    with site.only(second):
        survivor = site.connect(f"{facility}?{BOTH}&echo")
    os.kill(first, signal.SIGKILL)
    assert victim.closing() is None
    survivor.send("still here")
    assert survivor.next() == "still here"
    third = wait_until(lambda: set(site.workers()) - {first, second}, what="another worker").pop()
    with site.only(third):
        newcomer = site.connect(f"{facility}?{BOTH}&echo")
    assert newcomer.next() == "still here"
    newcomer.send("hello")
    assert newcomer.next() == survivor.next() == "hello"


def test_three_redis_connections_per_worker_whatever_the_sockets(serve, private_redis, facility):
    site = serve(redis=private_redis, front="http-socket", settings={"WSLOOP": {"MAX_CONNECTIONS_PER_USER": None}})
    cookies = site.login("john")
    audiences = "&".join(f"{verb}-{a}" for verb in ("subscribe", "publish") for a in ("broadcast", "user", "group"))
    with ThreadPoolExecutor(20) as executor:
        clients = list(
            executor.map(lambda n: site.connect(f"{facility}/{n}?{audiences}&echo", cookies=cookies), range(200))
        )
        assert redis_clients(private_redis) <= 3
        list(executor.map(lambda client: client.send("all at once"), clients))
        list(executor.map(lambda client: client.next(), clients))
    assert redis_clients(private_redis) <= 3


@pytest.mark.timeout(300)
def test_hundreds_of_sockets_leave_nothing_behind(serve, private_redis, facility):
    """Descriptors, connections to Redis and subscriptions are what they were before: ``make bench-leaks`` in small."""
    site = serve(redis=private_redis, front="http-socket")
    cookies = site.login("john")
    audiences = "subscribe-broadcast&subscribe-user&subscribe-group&publish-broadcast"

    def visit(number):
        client = site.connect(f"{facility}/{number % 50}?{audiences}", cookies=cookies)
        if number % 3 == 0:
            client.send("hello")
        if number % 2:
            client.close()
        else:
            client.shutdown()
        site.clients.remove(client)

    with ThreadPoolExecutor(10) as executor:
        list(executor.map(visit, range(100)))
        wait_until(lambda: not channels(private_redis, f"*{facility}*"), what="no subscription after the first 100")
        time.sleep(1.5)  # the connection to the database of the handshakes is kept for a second
        before = site.descriptors()
        subscriptions = channels(private_redis)
        connections = redis_clients(private_redis)
        list(executor.map(visit, range(400)))
    wait_until(lambda: channels(private_redis) == subscriptions, what="no subscription")
    wait_until(lambda: site.descriptors() == before, what=f"descriptors {before}")
    assert redis_clients(private_redis) <= connections


def test_a_new_worker_after_max_requests_says_goodbye_too(serve, facility):
    site = serve(front="http-socket", options=["--max-requests", 5, "--min-worker-lifetime", 0])
    client = site.connect(f"{facility}?subscribe-broadcast")
    (worker,) = site.workers()
    wait_until(lambda: site.request("GET", "/test/whoami/").json()["pid"] != worker, 30, "another worker")
    assert client.closing() == 1012
