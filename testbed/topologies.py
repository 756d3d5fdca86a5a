"""Redis as large sites run it: a master with a replica and Sentinels, or a Cluster; and addresses that change hands."""

from __future__ import annotations

import contextlib
import socket
import threading

from redis.exceptions import ConnectionError as RedisConnectionError

from testbed.processes import free_port, wait_until
from testbed.redis_servers import RedisServer

SLOTS = 16384


class Address:
    """An address behind which any server can stand, as behind a name of the DNS; an answer may get lost on the way.

    Attributes:
        port: where it listens.
        leads_to: the ``RedisServer`` that new connections reach.
    """

    def __init__(self, leads_to=None):
        self.leads_to = leads_to
        self._lose = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_answer_to(self, command):
        """Break the connection on which the next such command is sent when the server has executed it."""
        self._lose = command

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError), client, socket.create_connection(self.leads_to.address) as server:
            lost = threading.Event()
            threading.Thread(target=self._answer, args=(server, client, lost), daemon=True).start()
            while data := client.recv(65536):
                if self._lose and self._lose in data:
                    self._lose = None
                    lost.set()
                server.sendall(data)

    @staticmethod
    def _answer(server, client, lost):
        with contextlib.suppress(OSError):
            while (data := server.recv(65536)) and not lost.is_set():
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class SentinelSetup:
    """A master, a replica and Sentinels that make the replica master a second after the master has gone.

    Args:
        sentinels: how many; more than half of them must agree.
        password: of the servers; the Sentinels have it too, with an ``s`` behind it.
    """

    service_name = "mymaster"

    def __init__(self, sentinels=3, binary=None, password=None):
        self.password = password
        self.master = RedisServer(binary=binary, password=password)
        self.replica = RedisServer([f"replicaof 127.0.0.1 {self.master.port}"], binary=binary, password=password)
        name = self.service_name
        options = [
            f"sentinel monitor {name} 127.0.0.1 {self.master.port} {sentinels // 2 + 1}",
            f"sentinel down-after-milliseconds {name} 1000",
            f"sentinel failover-timeout {name} 3000",
        ]
        secret = f"{password}s" if password else None
        if password:
            options += [f"sentinel auth-pass {name} {password}", f"sentinel sentinel-pass {secret}"]
        self.sentinels = [RedisServer(options, binary=binary, sentinel=True, password=secret) for _ in range(sentinels)]

    def start(self):
        for each in (self.master, self.replica):
            each.start()
        wait_until(lambda: self.replica.ask("INFO")["master_link_status"] == "up", what="the replica")
        for each in self.sentinels:
            each.start()
        wait_until(self._is_complete, timeout=30, what="Sentinels that know each other and the replica")
        return self

    def _is_complete(self):
        for each in self.sentinels:
            with each.client() as client:
                state = client.sentinel_master(self.service_name)
                replicas = client.sentinel_slaves(self.service_name)
            if state["num-other-sentinels"] != len(self.sentinels) - 1 or not state["is_master"]:
                return False
            if [replica["is_disconnected"] or replica["is_sdown"] for replica in replicas] != [False]:
                return False
        return True

    def connection(self, **more):
        """The option ``REDIS`` as a dictionary."""
        options = {"sentinels": [each.address for each in self.sentinels], "service_name": self.service_name, "db": 0}
        if self.password:
            options |= {"password": self.password, "sentinel_kwargs": {"password": f"{self.password}s"}}
        return {**options, **more}

    def known_master(self):
        """Port of the master in the opinion of all Sentinels; None where they differ or it is not up."""
        ports = set()
        for each in self.sentinels:
            with each.client() as client:
                state = client.sentinel_master(self.service_name)
            ports.add(state["port"] if state["is_master"] and not state["is_sdown"] else None)
        return ports.pop() if len(ports) == 1 else None

    def fail_over(self):
        """Kill the master and return when the replica is the master; ``master`` is that one then."""
        self.master.kill()
        wait_until(self._is_promoted, timeout=40, what="a failover")
        self.master, self.replica = self.replica, self.master

    def switch(self):
        """Have the Sentinels make the replica master while the master is up, as before maintenance."""
        self.sentinels[0].ask("SENTINEL FAILOVER", self.service_name)
        wait_until(self._is_promoted, timeout=40, what="a failover")
        self.master, self.replica = self.replica, self.master
        wait_until(lambda: _role_of(self.replica) == "slave", timeout=40, what="the old master's new role")

    def _is_promoted(self):
        return self.known_master() == self.replica.port and _role_of(self.replica) == "master"

    def close(self):
        for each in (*self.sentinels, self.replica, self.master):
            each.close()


class ClusterSetup:
    """A Redis Cluster of masters that share the slots evenly."""

    def __init__(self, masters=3, binary=None, password=None, options=()):
        self.password = password
        lines = ["cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-node-timeout 2000", *options]
        # The nodes talk to each other on ports of their own: 10,000 above, as by default, the kernel may have given one
        # to a connection.
        self._buses = [free_port() for _ in range(masters)]
        self.nodes = [
            RedisServer([*lines, f"cluster-port {bus}"], binary=binary, password=password) for bus in self._buses
        ]

    def start(self):
        for number, node in enumerate(self.nodes):
            node.start()
            first, last = (SLOTS * each // len(self.nodes) for each in (number, number + 1))
            node.ask("CLUSTER ADDSLOTS", *range(first, last))
            node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            node.ask("CLUSTER MEET", *self.nodes[0].address, self._buses[0])
        wait_until(self._is_complete, timeout=30, what="a cluster whose nodes know each other")
        return self

    def _is_complete(self):
        states = [node.ask("CLUSTER INFO") for node in self.nodes]
        return all(
            state["cluster_state"] == "ok" and state["cluster_known_nodes"] == str(len(self.nodes)) for state in states
        )

    def connection(self, **more):
        """The option ``REDIS`` as a dictionary."""
        host, port = self.nodes[0].address
        options = {"cluster": True, "host": host, "port": port}
        return {**options, **({"password": self.password} if self.password else {}), **more}

    def slot(self, key):
        return int(self.nodes[0].ask("CLUSTER KEYSLOT", key))

    def node_of(self, key):
        """The node that has the slot of ``key``."""
        slot = self.slot(key)
        for first, last, (_, port, *_), *_ in self._ranges():
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"no node has slot {slot}")

    def _ranges(self):
        running = next(node for node in self.nodes if node.running)
        with running.client() as client:
            client.response_callbacks.clear()
            return client.execute_command("CLUSTER SLOTS")

    def begin_to_move(self, key, target):
        """Open the slot of ``key`` for a move; a key that is not where it was is redirected with ASK."""
        source, slot = self.node_of(key), self.slot(key)
        target.ask("CLUSTER SETSLOT", slot, "IMPORTING", source.ask("CLUSTER MYID"))
        source.ask("CLUSTER SETSLOT", slot, "MIGRATING", target.ask("CLUSTER MYID"))

    def move(self, key, target):
        """Move the slot of ``key`` with all that is in it to the node ``target``."""
        source, slot = self.node_of(key), self.slot(key)
        self.begin_to_move(key, target)
        names = source.ask("CLUSTER GETKEYSINSLOT", slot, 1000)
        if names:
            auth = ["AUTH", self.password] if self.password else []
            source.ask("MIGRATE", *target.address, "", 0, 5000, *auth, "KEYS", *names)
        identity = target.ask("CLUSTER MYID")
        for node in (target, source, *(each for each in self.nodes if each not in (source, target))):
            node.ask("CLUSTER SETSLOT", slot, "NODE", identity)

    def close(self):
        for node in self.nodes:
            node.close()


def _role_of(server):
    """``master`` or ``slave``; None while it cannot say: a server whose role changes ends all its connections."""
    try:
        return server.ask("INFO")["role"]
    except (RedisConnectionError, ConnectionError):  # redis-py lets that of the first command through as it is
        return None
