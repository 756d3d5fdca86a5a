"""A client of Redis Cluster that behaves as the client of a single server does.

It opens no connection before it is used, sends no command twice, and raises ``RedisError`` whatever goes wrong. This
module must not know settings, sockets or gevent.
"""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Iterable
from typing import Any

from redis import BlockingConnectionPool
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import ClusterError, ConnectionError, RedisClusterException
from redis.retry import Retry


class Cluster(RedisCluster):
    """A ``RedisCluster`` that asks for the nodes when it executes its first command.

    Redirections (MOVED, ASK) are followed: such a command was not executed. A command whose answer got lost is not sent
    again; the client learns where the nodes are now, and the next command goes there. Pipelines are outside of this:
    redis-py sends commands of one without transaction again, and its ``RedisClusterException`` gets through.

    Args:
        nodes: pairs of host and port of some nodes; the others are found through them.
        max_connections: how many connections each node gets at most; whoever finds all taken waits.
        timeout: seconds for which one waits for a free connection.
        options: keyword arguments of the connections.
    """

    def __init__(
        self, nodes: Iterable[tuple[str, int]], max_connections: int, timeout: float, options: dict[str, Any]
    ) -> None:
        # What redis-py's __init__ does is done in _open().
        self._nodes = list(nodes)
        # A class to redis-py, which calls it with what is particular to a node.
        self._pool_class = functools.partial(
            BlockingConnectionPool, max_connections=max_connections, timeout=timeout, **options
        )
        # Of a hundred first commands one asks for the nodes, the others wait for what it finds.
        self._opening = threading.RLock()
        self._is_opening = False

    def __getattr__(self, name: str) -> Any:
        # Only for what is not there: an attribute that redis-py's __init__ sets.
        if name.startswith("__"):
            raise AttributeError(name)
        with self._opening:
            if "nodes_manager" not in self.__dict__ and not self._is_opening:
                self._open()
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(name) from None

    def _open(self) -> None:
        self._is_opening = True
        host, port = self._nodes[0]
        try:
            super().__init__(
                # Only a client that is made of a URL lets its nodes' pools be chosen.
                url=f"redis://{f'[{host}]' if ':' in host else host}:{port}",
                connection_pool_class=self._pool_class,
                startup_nodes=[ClusterNode(*node) for node in self._nodes[1:]],
                # While nodes are missing the others serve what they can.
                require_full_coverage=False,
                # After MOVED redis-py would now and then ask for the nodes while it holds on to its connection, of
                # which there are few. That slot is learnt in any case.
                reinitialize_steps=0,
                retry=Retry(NoBackoff(), 0),
            )
        except BaseException as exc:
            self._forget()
            if isinstance(exc, (RedisClusterException, OSError)):
                raise ConnectionError(str(exc)) from exc
            raise
        finally:
            self._is_opening = False

    def _forget(self) -> None:
        self.__dict__.pop("nodes_manager", None)

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Execute a command as ``RedisCluster`` does.

        Raises:
            redis.exceptions.RedisError: also where redis-py raises its ``RedisClusterException``, which is none.
        """
        try:
            return super().execute_command(*args, **kwargs)  # type: ignore[no-untyped-call]
        except RedisClusterException as exc:
            if exc.__cause__ is None:
                raise ClusterError(_without_arguments(exc)) from None
            # No node answers. Those known by now may be gone, and the names that were given lead to others today.
            self._forget()
            raise ConnectionError(str(exc)) from exc

    def addresses(self) -> list[tuple[str, int]]:
        """Return host and port of all nodes in random order, and after them those given that are not among them.

        Raises:
            redis.exceptions.RedisError: if no node answers.
        """
        found = [(node.host, node.port) for node in self.nodes_manager.nodes_cache.values()]
        random.shuffle(found)
        return list(dict.fromkeys([*found, *self._nodes]))

    def close(self) -> None:
        """Close the connections. Opens none, and the client can be used again."""
        if "nodes_manager" in self.__dict__:
            self.disconnect_connection_pools()  # type: ignore[no-untyped-call]  # redis-py leaves given pools open
            self._forget()


def _without_arguments(exc: RedisClusterException) -> str:
    # They are payloads, or channels whose names may have the key of a session.
    return str(exc).partition("\nCommand: ")[0].partition(" to execute (")[0]
