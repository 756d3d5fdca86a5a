"""The master that Sentinel names. Whole failovers: ``tests/integration/test_topologies.py``."""

import gevent
import pytest
import redis.exceptions
from redis import Redis

from testbed.processes import free_port, wait_until
from testbed.redis_servers import RedisServer
from testbed.topologies import Address
from tests.requires import need
from wsloop.backend import pool, sentinel

NAME = "mymaster"


@pytest.fixture
def start():
    """Start a server: ``start(sentinel=True)``."""
    need("redis-server")
    started = []

    def start(**options):
        started.append(RedisServer(**options))
        return started[-1].start()

    yield start
    for each in reversed(started):
        each.close()


@pytest.fixture
def watcher(start):
    return start(sentinel=True)


def watch(watcher, address):
    """Have the Sentinel say that the master is there."""
    with watcher.client() as client:
        if client.sentinel_masters():
            client.sentinel_remove(NAME)
        client.sentinel_monitor(NAME, *address, 1)


@pytest.fixture
def use(with_settings):
    def use(*watchers, **more):
        addresses = [each.address for each in watchers]
        with_settings(
            WS4REDIS_CONNECTION={"sentinels": addresses, "service_name": NAME, "client_name": "tested", **more}
        )
        pool.forget()

    yield use
    pool.forget()


def clients(server):
    """How many connections of wsloop a server has."""
    return [each["name"] for each in server.ask("CLIENT LIST")].count("tested")


def test_making_a_client_asks_nobody_and_no_connection_to_a_sentinel_stays(start, watcher, use):
    server = start()
    watch(watcher, server.address)
    use(watcher, db=3, sentinel_kwargs={"client_name": "tested"})
    pool.client()
    pool.client().set("key", "value")
    assert Redis(port=server.port, db=3).get("key") == b"value"
    pool.subscription_connection().disconnect()
    wait_until(lambda: clients(watcher) == 0, what="the end of the connections to Sentinel")


def test_it_has_no_more_connections_than_with_a_single_server(start, watcher, use):
    server = start()
    watch(watcher, server.address)
    use(watcher)
    greenlets = [gevent.spawn(pool.client().incr, "count") for _ in range(100)]
    gevent.joinall(greenlets, raise_error=True)
    assert sorted(greenlet.value for greenlet in greenlets) == list(range(1, 101))
    assert clients(server) == pool.MAX_CONNECTIONS


def test_a_master_that_takes_no_writes_any_more_is_left_and_the_command_not_sent_again(start, watcher, use):
    old, new = start(), start()
    watch(watcher, old.address)
    use(watcher)
    assert pool.client().incr("count") == 1
    watch(watcher, new.address)
    old.ask("REPLICAOF", "127.0.0.1", free_port())  # its clients stay connected
    with pytest.raises(redis.exceptions.ConnectionError):
        pool.client().incr("count")
    assert new.ask("GET", "count") is None
    assert pool.client().incr("count") == 1
    assert new.ask("GET", "count") == "1"


def test_a_command_whose_answer_got_lost_is_not_sent_again(start, watcher, use):
    line = Address(start())
    try:
        watch(watcher, ("127.0.0.1", line.port))
        use(watcher)
        assert pool.client().incr("count") == 1
        line.lose_answer_to(b"INCRBY")
        with pytest.raises(redis.exceptions.ConnectionError):
            pool.client().incr("count")
        assert pool.client().get("count") == b"2"
    finally:
        line.close()


def test_a_sentinel_that_is_silent_does_not_take_all_the_time_there_is(start, watcher, use, with_settings):
    silent = start(sentinel=True)
    server = start()
    watch(watcher, server.address)
    with_settings(WSLOOP={"REDIS_TIMEOUT": 2})
    use(silent, watcher)
    silent.pause()
    with gevent.Timeout(2):
        assert pool.client().ping()
    with gevent.Timeout(2):
        pool.subscription_connection().disconnect()
    master = sentinel.Master([silent.address, watcher.address], NAME, 1, {})
    assert master.get_master_address() == server.address
    with gevent.Timeout(0.4):  # the other one is asked first by now
        assert master.get_master_address() == server.address


def test_many_may_ask_at_once(start, watcher):
    server = start()
    watch(watcher, server.address)
    master = sentinel.Master([("127.0.0.1", free_port()), watcher.address], NAME, 5, {})
    greenlets = [gevent.spawn(master.get_master_address) for _ in range(20)]
    gevent.joinall(greenlets, raise_error=True)
    assert {greenlet.value for greenlet in greenlets} == {server.address}


def test_what_cannot_be_found_is_told(start, watcher, use):
    use(watcher, sentinel_kwargs={"client_name": "secret"})
    with pytest.raises(redis.exceptions.ConnectionError) as caught:
        pool.client().ping()
    where = f"127.0.0.1:{watcher.port}"
    assert str(caught.value) == f"Sentinel names no master 'mymaster' ({where}: no master of that name)"
    with watcher.client() as client:
        client.sentinel_monitor(NAME, "127.0.0.1", free_port(), 1)
        client.sentinel_set(NAME, "down-after-milliseconds", 100)
        wait_until(lambda: client.sentinel_master(NAME)["is_sdown"])
    with pytest.raises(redis.exceptions.ConnectionError, match=rf"'mymaster' \({where}: it is down\)"):
        pool.client().ping()
    watcher.kill()
    with pytest.raises(redis.exceptions.ConnectionError, match=rf"'mymaster' \({where}: .*refused") as caught:
        pool.subscription_connection()
    assert "secret" not in str(caught.value)
