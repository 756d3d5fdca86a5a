"""Redis Cluster. Separate processes and lost nodes: ``tests/integration/test_topologies.py``."""

import contextlib

import gevent
import pytest
import redis.exceptions
from redis import RedisCluster

from testbed.processes import free_port, wait_until
from testbed.topologies import Address, ClusterSetup
from tests.requires import need
from tests.unit.peer import WAIT
from wsloop.backend import pool
from wsloop.backend.cluster import Cluster
from wsloop.backend.publishing import OutgoingMessage, publish


@pytest.fixture(scope="module")
def nodes():
    need("redis-server")
    with contextlib.closing(ClusterSetup()) as setup:
        yield setup.start()


@pytest.fixture
def client(nodes, with_settings):
    with_settings(WS4REDIS_CONNECTION=nodes.connection(client_name="tested"))
    pool.forget()
    for node in nodes.nodes:
        node.ask("FLUSHALL")
        node.ask("CONFIG", "RESETSTAT")
    yield pool.client()
    pool.client().close()
    pool.forget()


def clients(node):
    """How many connections of the client a node has."""
    return [each["name"] for each in node.ask("CLIENT LIST")].count("tested")


def other_than(nodes, node):
    return next(each for each in nodes.nodes if each is not node)


def key_of(nodes, node):
    """A key that this node has."""
    return next(f"key {number}" for number in range(1000) if nodes.node_of(f"key {number}") is node)


def redirections(nodes):
    """How often the nodes answered MOVED and ASK."""
    stats = [node.ask("INFO", "errorstats") for node in nodes.nodes]
    return {
        name: sum(each.get(f"errorstat_{name}", {"count": 0})["count"] for each in stats) for name in ("MOVED", "ASK")
    }


def test_it_is_a_client_of_a_cluster_and_making_it_opens_no_connection(nodes, client):
    assert isinstance(client, RedisCluster)
    assert sum(clients(node) for node in nodes.nodes) == 0
    client.close()
    assert sum(clients(node) for node in nodes.nodes) == 0
    assert client.ping()
    assert sum(clients(node) for node in nodes.nodes) > 0
    client.close()
    wait_until(lambda: sum(clients(node) for node in nodes.nodes) == 0, what="the end of the connections")
    assert client.ping()


def test_each_node_has_two_connections_at_most_and_the_nodes_are_asked_for_once(nodes, client):
    greenlets = [gevent.spawn(client.incr, f"{number % 10}") for number in range(300)]
    gevent.joinall(greenlets, raise_error=True)
    assert sorted(greenlet.value for greenlet in greenlets) == sorted([*range(1, 31)] * 10)
    assert [clients(node) for node in nodes.nodes] == [pool.MAX_CONNECTIONS] * 3
    stats = [node.ask("INFO", "commandstats") for node in nodes.nodes]
    asked = [each.get("cmdstat_cluster|slots") or each.get("cmdstat_cluster") for each in stats]  # before Redis 7
    assert sum(each["calls"] for each in asked if each) == 1


def test_one_node_that_is_silent_keeps_nobody_from_the_others(nodes, client, with_settings):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 0.5})
    pool.forget()
    client = pool.client()
    silent, other = nodes.nodes[:2]
    keys = key_of(nodes, silent), key_of(nodes, other)
    client.ping()
    silent.pause()
    try:
        stuck = [gevent.spawn(client.incr, keys[0]) for _ in range(10)]
        gevent.sleep(0)
        with gevent.Timeout(0.4):
            assert [client.incr(keys[1]) for _ in range(10)] == list(range(1, 11))
        gevent.joinall(stuck)
        assert all(isinstance(each.exception, redis.exceptions.RedisError) for each in stuck)
    finally:
        silent.resume()


def test_where_a_slot_has_moved_to_is_learnt(nodes, client):
    assert client.incr("moving") == 1
    nodes.move("moving", other_than(nodes, nodes.node_of("moving")))
    assert [client.incr("moving") for _ in range(5)] == [2, 3, 4, 5, 6]
    assert redirections(nodes) == {"MOVED": 1, "ASK": 0}


def test_while_a_slot_moves_its_keys_are_found(nodes, client):
    client.set("{asking}old", "stays")
    target = other_than(nodes, nodes.node_of("asking"))
    nodes.begin_to_move("asking", target)
    assert client.incr("{asking}new") == 1
    assert client.incr("{asking}new") == 2
    assert client.get("{asking}old") == b"stays"
    assert redirections(nodes) == {"MOVED": 0, "ASK": 2}
    nodes.move("asking", target)
    assert client.incr("{asking}new") == 3


def test_how_many_have_got_a_message_is_not_known(client):
    """A node counts its own connections only."""
    with client.pubsub() as subscription:
        subscription.subscribe("a")
        assert subscription.get_message(timeout=WAIT)["type"] == "subscribe"
        messages = [OutgoingMessage(["a", "b"], b"x", 0), OutgoingMessage([], b"to nobody", 0)]
        assert publish(client, messages) == [None, None]
        assert subscription.get_message(timeout=WAIT)["data"].endswith(b"x")


def test_errors_are_those_that_callers_expect_and_show_no_arguments(client):
    with pytest.raises(redis.exceptions.RedisError, match="same key slot") as caught:
        client.eval("return 1", 2, "secret 1", "secret 2")
    assert "secret" not in str(caught.value)
    with pytest.raises(redis.exceptions.RedisError, match="No way to dispatch") as caught:
        client.execute_command("REPLICAOF", "secret", "1")
    assert "secret" not in str(caught.value)
    assert client.ping()


def test_a_cluster_that_cannot_be_reached_is_a_broken_line_and_asked_again_next_time():
    client = Cluster([("127.0.0.1", free_port()), ("localhost", free_port())], 2, 1, {})
    for _ in range(2):
        with pytest.raises(redis.exceptions.ConnectionError, match="refused"):
            client.get("key")
        with pytest.raises(redis.exceptions.ConnectionError, match="refused"):
            client.addresses()
    client.close()


def test_a_name_that_leads_nowhere_is_a_broken_line_too():
    with pytest.raises(redis.exceptions.RedisError):
        Cluster([("nowhere.invalid", 6379)], 2, 1, {}).get("key")


def test_what_it_does_not_have_it_does_not_have(client):
    assert client.ping()
    with pytest.raises(AttributeError, match="nothing"):
        client.nothing  # noqa: B018


@pytest.fixture
def name():
    """An address, as a name of the DNS, behind which any server can stand."""
    address = Address()
    yield address
    address.close()


def test_a_command_whose_answer_got_lost_is_not_sent_again(name):
    need("redis-server")
    setup = ClusterSetup(masters=1, options=[f"cluster-announce-port {name.port}"])
    name.leads_to = setup.nodes[0]
    try:
        setup.start()
        client = Cluster([("127.0.0.1", name.port)], 2, 1, {})
        assert client.incr("count") == 1
        name.lose_answer_to(b"INCRBY")
        with pytest.raises(redis.exceptions.ConnectionError):
            client.incr("count")
        assert client.get("count") == b"2"
        client.close()
    finally:
        setup.close()


def test_when_all_known_nodes_are_gone_those_are_asked_that_were_given(name):
    need("redis-server")
    setups = [ClusterSetup(masters=1).start() for _ in range(2)]
    try:
        name.leads_to = setups[0].nodes[0]
        client = Cluster([("127.0.0.1", name.port)], 2, 1, {})
        client.set("key", "in the first")
        assert (setups[0].nodes[0].ask("GET", "key")) == "in the first"
        setups[0].nodes[0].kill()
        name.leads_to = setups[1].nodes[0]
        with pytest.raises(redis.exceptions.ConnectionError):
            client.get("key")
        assert client.get("key") is None
        client.close()
    finally:
        for setup in setups:
            setup.close()


def test_a_subscription_takes_any_node_that_can_be_reached(nodes, client, monkeypatch):
    monkeypatch.setattr(Cluster, "addresses", lambda self: [("127.0.0.1", free_port()), nodes.nodes[2].address])
    connection = pool.subscription_connection(protocol=2, client_name="subscription")
    assert connection.port == nodes.nodes[2].port
    assert "subscription" in [each["name"] for each in nodes.nodes[2].ask("CLIENT LIST")]
    connection.disconnect()
    monkeypatch.setattr(Cluster, "addresses", lambda self: [("127.0.0.1", free_port())])
    with pytest.raises(redis.exceptions.ConnectionError):
        pool.subscription_connection()


def test_subscriptions_spread_over_the_nodes(nodes, client):
    connections = [pool.subscription_connection() for _ in range(40)]
    assert {connection.port for connection in connections} == {node.port for node in nodes.nodes}
    for connection in connections:
        connection.disconnect()
