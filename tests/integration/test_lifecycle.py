"""Reloads, crashes and years of uptime in short: what ends, what stays behind, and what it takes of Redis."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from testbed.processes import wait_until
from testbed.uwsgi import each_with_one, environment_of, in_short, uwsgi_binaries

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


@pytest.mark.parametrize("binary", uwsgi_binaries(), ids=environment_of)
@pytest.mark.parametrize(
    ("front", "goodbye"),
    [("http-socket", {1012}), ("http", {1012, None})],  # the router may be ended before the workers
)
def test_shutdown(serve, private_redis, facility, binary, front, goodbye):
    site = serve(redis=private_redis, binary=binary, front=front, processes=2)
    clients = [site.connect(f"{facility}?subscribe-broadcast") for _ in range(20)]
    site.send_signal(signal.SIGTERM)
    with ThreadPoolExecutor(len(clients)) as executor:
        assert set(executor.map(lambda client: client.closing(), clients)) <= goodbye
    site.wait(20)
    wait_until(lambda: redis_clients(private_redis) == 0, what="no connection to Redis")
    assert channels(private_redis) == []


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
def test_a_thousand_sockets_leave_nothing_behind(serve, private_redis, facility):
    """Descriptors, connections to Redis, subscriptions and memory are what they were before."""
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
        list(executor.map(visit, range(300)))
        wait_until(lambda: not channels(private_redis, f"*{facility}*"), what="no subscription after the first 300")
        before = site.descriptors()
        subscriptions = channels(private_redis)
        connections = redis_clients(private_redis)
        list(executor.map(visit, range(1000)))
    wait_until(lambda: channels(private_redis) == subscriptions, what="no subscription")
    wait_until(lambda: site.descriptors() == before, what=f"descriptors {before}")
    assert redis_clients(private_redis) <= connections


def test_a_new_worker_after_max_requests_says_goodbye_too(serve, facility):
    site = serve(front="http-socket", options=["--max-requests", 5, "--min-worker-lifetime", 0])
    client = site.connect(f"{facility}?subscribe-broadcast")
    (worker,) = site.workers()
    wait_until(lambda: site.request("GET", "/test/whoami/").json()["pid"] != worker, 30, "another worker")
    assert client.closing() == 1012
