"""The process's Redis connections besides the subscription."""

import subprocess
import sys

import gevent
import pytest
import redis.exceptions
from gevent.threadpool import ThreadPool

from testbed.processes import ROOT
from tests.unit.peer import WAIT
from wsloop.backend import pool
from wsloop.presence import who
from wsloop.publisher import RedisPublisher


def test_there_is_one_client_and_making_it_opens_no_connection(own_redis):
    with own_redis.client() as redis:
        before = len(redis.client_list())
        assert pool.client() is pool.client()
        assert len(redis.client_list()) == before


def test_whoever_finds_all_connections_taken_waits(own_redis):
    with own_redis.client() as redis:
        before = len(redis.client_list())
        greenlets = [gevent.spawn(pool.client().incr, "count") for _ in range(100)]
        gevent.joinall(greenlets, timeout=WAIT, raise_error=True)
        assert sorted(greenlet.value for greenlet in greenlets) == list(range(1, 101))
        assert len(redis.client_list()) - before == pool.MAX_CONNECTIONS == 2


def test_waiting_is_bounded(own_redis, with_settings):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 0.1})
    taken = [pool.client().connection_pool.get_connection() for _ in range(pool.MAX_CONNECTIONS)]
    try:
        with pytest.raises(redis.exceptions.ConnectionError):
            pool.client().ping()
    finally:
        for connection in taken:
            pool.client().connection_pool.release(connection)
    assert pool.client().ping()


def test_an_answer_that_does_not_come_is_waited_for_so_long_and_not_longer(own_redis, with_settings):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 0.1})
    assert pool.client().ping()
    own_redis.pause()
    try:
        with pytest.raises(redis.exceptions.TimeoutError), gevent.Timeout(2):  # redis-py's own default is more
            pool.client().ping()
    finally:
        own_redis.resume()
    assert pool.client().ping()


def test_a_command_whose_answer_got_lost_is_not_sent_again(gate):
    assert pool.client().incr("count") == 1
    gate.lose_next_answer()
    with pytest.raises(redis.exceptions.ConnectionError):
        pool.client().incr("count")
    assert pool.client().get("count") == b"2"


def test_a_connection_that_broke_while_it_lay_idle_is_replaced(own_redis):
    assert pool.client().set("key", "value")
    own_redis.kill()
    own_redis.start()
    assert pool.client().set("key", "value")


def test_timeouts_of_the_setting_go_first(own_redis, with_settings):
    with_settings(WS4REDIS_CONNECTION={"unix_socket_path": own_redis.socket_path, "socket_timeout": 1.5})
    pool.forget()
    assert pool.client().connection_pool.connection_kwargs["socket_timeout"] == 1.5


def test_a_subscription_has_a_connection_of_its_own(own_redis, with_settings):
    with_settings(WS4REDIS_CONNECTION=own_redis.connection(client_name="of-the-setting", socket_timeout=1.5))
    connections = [pool.subscription_connection(), pool.subscription_connection(protocol=2, client_name="subscription")]
    with own_redis.client() as redis:
        assert {"of-the-setting", "subscription"} <= {each["name"] for each in redis.client_list()}
    assert [connection.socket_timeout for connection in connections] == [1.5, 1.5]
    for connection in connections:
        connection.disconnect()


def test_a_subscription_that_cannot_connect_raises_what_redis_py_raises(own_redis):
    own_redis.kill()
    with pytest.raises(redis.exceptions.ConnectionError):
        pool.subscription_connection()


# Threads of the operating system, beside greenlets.


def work(facility, number):
    """All that a thread may do with Redis."""
    publisher = RedisPublisher(facility=facility, broadcast=True)
    for _ in range(20):
        publisher.publish_message({"number": number}, key=f"{number}")
        assert publisher.fetch_message(None, facility)
        assert publisher.history(1)
        assert publisher.token()
        assert who(facility) == ([], 0)
    return pool.client()


def in_a_thread(threads, function, *arguments):
    """Call a function in a thread of a pool; in the end the connections of the thread are closed."""

    def call():
        try:
            return function(*arguments)
        finally:
            pool.forget()

    return threads.spawn(call)


def test_threads_and_greenlets_publish_side_by_side(own_redis, with_settings, facility):
    with_settings(WSLOOP={"FACILITIES": {"*": {"size": 1000, "presence": True}}})
    threads = ThreadPool(4)
    try:
        jobs = [in_a_thread(threads, work, facility, number) for number in range(8)]
        greenlets = [gevent.spawn(work, facility, number) for number in range(8, 16)]
        gevent.joinall(greenlets, timeout=WAIT, raise_error=True)
        clients = {job.get(timeout=WAIT) for job in jobs}
        assert {greenlet.value for greenlet in greenlets} == {pool.client()}
        assert pool.client() not in clients
        published = [entry.message.payload for entry in RedisPublisher(facility=facility, broadcast=True).history(1000)]
        assert sorted(published) == sorted(b'{"number": %d}' % number for number in range(16))
    finally:
        threads.kill()


def test_a_thread_that_waits_for_redis_keeps_nobody_waiting(gate, facility):
    pool.client().ping()
    threads = ThreadPool(1)
    try:
        gate.hold("INCRBY")
        job = in_a_thread(threads, lambda: pool.client().incr("count"))
        gate.wait_for(1)
        with gevent.Timeout(WAIT):
            assert pool.client().ping()
        gate.hold()
        gate.let_through(1)
        assert job.get(timeout=WAIT) == 1
    finally:
        threads.kill()


def test_in_a_process_without_gevent_all_threads_share_the_client(own_redis):
    code = """
import sys, threading, time
from django.conf import settings
settings.configure(WS4REDIS_CONNECTION=sys.argv[1])
from wsloop.backend import pool
make = pool._make_client
def make_slowly():
    time.sleep(0.2)  # so that all of them are about it
    return make()
pool._make_client = make_slowly
found = []
def use():
    client = pool.client()
    found.append((client.ping(), client))
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert found == [(True, pool.client())] * 8
assert "gevent" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, own_redis.url], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_clients_that_are_forgotten_are_closed(own_redis):
    with own_redis.client() as redis:
        before = len(redis.client_list())
        client = pool.client()
        client.ping()
        pool.forget()
        pool.forget()
        assert len(redis.client_list()) == before
        assert pool.client() is not client
