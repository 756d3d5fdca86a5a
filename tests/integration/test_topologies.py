"""Redis behind Sentinels and Redis Cluster, from processes with gevent as the server and without as a task queue."""

import contextlib
import json
import os
import subprocess
import sys

import pytest

from testbed.processes import ROOT, wait_until
from testbed.topologies import ClusterSetup, SentinelSetup
from tests.requires import need

PROCESS = """
import json, sys
if sys.argv[1] == "gevent":
    from gevent import monkey
    monkey.patch_all()
from django.conf import settings
settings.configure(WS4REDIS_CONNECTION=json.loads(sys.argv[2]), WSLOOP={"REDIS_TIMEOUT": 2})
from redis.exceptions import RedisError
from wsloop.backend import pool

def subscribe(channel):
    global connection
    connection = pool.subscription_connection(protocol=2, client_name="wsloop")
    connection.send_command("SUBSCRIBE", channel)
    connection.read_response()
    return connection.port

def read():
    return connection.read_response()[2]

for line in sys.stdin:
    name, *arguments = json.loads(line)
    try:
        answer = (globals().get(name) or getattr(pool.client(), name))(*arguments)
        print(json.dumps([answer, None], default=bytes.decode), flush=True)
    except RedisError as exc:
        print(json.dumps([None, str(exc)]), flush=True)
"""


class Failed(Exception):
    """wsloop's client raised an error of redis-py, with this text."""


class Client:
    """wsloop's client and subscription in a process of their own."""

    def __init__(self, kind, connection):
        command = [sys.executable, "-c", PROCESS, kind, json.dumps(connection)]
        env = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._popen = subprocess.Popen(command, cwd=ROOT, env=env, text=True, **pipes)

    def __call__(self, *command):
        self._popen.stdin.write(json.dumps(command) + "\n")
        self._popen.stdin.flush()
        answer, error = json.loads(self._popen.stdout.readline())
        if error is not None:
            raise Failed(error)
        return answer

    def close(self):
        self._popen.stdin.close()
        try:
            self._popen.wait(10)
        finally:
            self._popen.kill()
            self._popen.wait()
            self._popen.stdout.close()


@pytest.fixture(params=["gevent", "threads"])
def start_client(request):
    clients = []

    def start(connection):
        clients.append(Client(request.param, connection))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


@pytest.fixture
def sentinels():
    need("redis-server")
    with contextlib.closing(SentinelSetup(password="secret")) as setup:
        yield setup.start()


@pytest.fixture
def cluster():
    need("redis-server")
    with contextlib.closing(ClusterSetup(password="secret")) as setup:
        yield setup.start()


def test_a_client_and_a_subscription_find_the_master_after_a_failover(sentinels, start_client):
    client = start_client(sentinels.connection())
    first = sentinels.master.port
    assert client("subscribe", "channel") == first
    assert client("publish", "channel", "one") == 1
    assert client("read") == "one"
    assert client("incr", "count") == 1
    assert client("wait", 1, 5000) == 1, "the replica has it"

    sentinels.fail_over()

    with pytest.raises(Failed):
        client("read")
    second = client("subscribe", "channel")
    assert second == sentinels.master.port != first
    assert client("incr", "count") == 2
    assert client("publish", "channel", "two") == 1
    assert client("read") == "two"
    assert sentinels.master.ask("GET", "count") == "2"


def test_while_there_is_no_master_commands_fail_and_are_not_sent_later(sentinels, start_client):
    client = start_client(sentinels.connection())
    assert client("incr", "count") == 1
    assert client("wait", 1, 5000) == 1
    sentinels.master.kill()
    with pytest.raises(Failed):
        client("incr", "count")
    with pytest.raises(Failed):
        client("subscribe", "channel")
    wait_until(lambda: sentinels.known_master() == sentinels.replica.port, timeout=40, what="a failover")
    assert client("get", "count") == "1"
    assert client("incr", "count") == 2


@pytest.mark.parametrize("start_client", ["gevent"], indirect=True)
def test_when_the_master_is_exchanged_the_subscription_ends_with_the_old_one(sentinels, start_client):
    client = start_client(sentinels.connection())
    first = client("subscribe", "channel")
    assert client("incr", "count") == 1
    sentinels.switch()
    with pytest.raises(Failed):  # or the process would listen where nobody publishes
        client("read")
    assert client("subscribe", "channel") == sentinels.master.port != first
    assert client("incr", "count") == 2
    assert client("publish", "channel", "message") == 1
    assert client("read") == "message"


@pytest.mark.parametrize("start_client", ["gevent"], indirect=True)
def test_one_sentinel_that_answers_is_enough(sentinels, start_client):
    for sentinel in sentinels.sentinels[:2]:
        sentinel.kill()
    client = start_client(sentinels.connection())
    assert client("incr", "count") == 1
    assert client("subscribe", "channel") == sentinels.master.port


@pytest.mark.parametrize("start_client", ["gevent"], indirect=True)
def test_a_wrong_password_is_told_without_showing_it(sentinels, start_client):
    client = start_client(sentinels.connection(password="wrong-secret"))
    with pytest.raises(Failed, match=r"(?i)pass") as caught:
        client("ping")
    assert "wrong-secret" not in str(caught.value)


def test_a_cluster_has_all_keys_and_one_subscription_hears_all_nodes(cluster, start_client):
    client = start_client(cluster.connection())
    port = client("subscribe", "channel")
    assert port in [node.port for node in cluster.nodes]
    names = {cluster.node_of(str(number)).port: str(number) for number in range(20)}
    assert len(names) == 3
    for name in names.values():
        assert client("set", name, f"value of {name}")
        assert client("get", name) == f"value of {name}"
    for node in cluster.nodes:
        node.ask("PUBLISH", "channel", f"from {node.port}")
        assert client("read") == f"from {node.port}"
    client("publish", "channel", "from the client")
    assert client("read") == "from the client"


def test_a_script_runs_where_the_keys_of_its_hash_tag_are(cluster, start_client):
    client = start_client(cluster.connection())
    script = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('PUBLISH', 'channel', ARGV[1]) return KEYS[2]"
    client("subscribe", "channel")
    for number in range(20):
        keys = [f"history:{{{number}}}", f"meta:{{{number}}}"]
        assert client("eval", script, 2, *keys, f"message {number}") == keys[1]
        assert client("read") == f"message {number}"
        assert cluster.node_of(str(number)).ask("GET", keys[0]) == f"message {number}"
    sha = client("script_load", script)
    for number in range(20):
        assert client("evalsha", sha, 2, f"history:{{{number}}}", f"meta:{{{number}}}", "again")
        assert cluster.node_of(str(number)).ask("GET", f"history:{{{number}}}") == "again"
    with pytest.raises(Failed, match="same key slot"):
        client("evalsha", sha, 2, "history:{0}", "meta:{1}", "nowhere")


def test_slots_may_move(cluster, start_client):
    client = start_client(cluster.connection())
    assert client("incr", "count") == 1
    target = next(node for node in cluster.nodes if node is not cluster.node_of("count"))
    cluster.move("count", target)
    assert client("incr", "count") == 2
    assert target.ask("GET", "count") == "2"


def test_a_lost_node_takes_its_keys_along_and_nothing_else(cluster, start_client):
    lost = cluster.nodes[0]  # the one that the setting names
    names = {cluster.node_of(str(number)).port: str(number) for number in range(20)}
    client = start_client(cluster.connection())
    assert client("incr", names[lost.port]) == 1
    for node in cluster.nodes:
        node.ask("CONFIG SET", "cluster-require-full-coverage", "no")
    lost.kill()
    for node in cluster.nodes:
        if node is lost:
            with pytest.raises(Failed):
                client("incr", names[node.port])
        else:
            assert client("incr", names[node.port]) == 1
    assert client("subscribe", "channel") != lost.port
    client("publish", "channel", "message")
    assert client("read") == "message"
