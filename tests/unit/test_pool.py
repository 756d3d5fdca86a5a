"""The process's Redis connections besides the subscription."""

import gevent
import pytest
import redis.exceptions

from tests.unit.peer import WAIT
from wsloop import pool


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
    pool.client.cache_clear()
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
