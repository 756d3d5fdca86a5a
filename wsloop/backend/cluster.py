"""A client of Redis Cluster that behaves like the client of a single server.

It opens no connection before it is used, sends no command twice, and raises ``RedisError`` for every failure. This
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

    Redirections (MOVED, ASK) are followed: such a command was not executed. A command whose answer was lost is not sent
    again; the client asks for the present nodes, and the next command goes there. None of this holds for pipelines:
    redis-py sends the commands of one without transaction again, and its ``RedisClusterException`` gets through.

    Args:
        nodes: pairs of host and port of some nodes; the others are found through them.
        max_connections: maximum of connections to each node; callers wait if all are taken.
        timeout: seconds to wait for a free connection.
        options: keyword arguments of the connections.
    """

    def __init__(
        self, nodes: Iterable[tuple[str, int]], max_connections: int, timeout: float, options: dict[str, Any]
    ) -> None:
        # redis-py's __init__ connects; _open() calls it.
        self._nodes = list(nodes)
        # Used as a class by redis-py, which calls it with the arguments that differ from node to node.
        self._pool_class = functools.partial(
            BlockingConnectionPool, max_connections=max_connections, timeout=timeout, **options
        )
        # Of many first commands at once one asks for the nodes, and the others wait for its result.
        self._opening = threading.RLock()
        self._is_opening = False

    def __getattr__(self, name: str) -> Any:
        # Called only for missing attributes: those that redis-py's __init__ sets.
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
                # Only a client made from a URL accepts a class for the pools of its nodes.
                url=f"redis://{f'[{host}]' if ':' in host else host}:{port}",
                connection_pool_class=self._pool_class,
                startup_nodes=[ClusterNode(*node) for node in self._nodes[1:]],
                # While nodes are missing the others serve their slots.
                require_full_coverage=False,
                # After MOVED redis-py would now and then ask for the nodes while it holds one of the few connections.
                # It updates the one slot in any case.
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
            redis.exceptions.RedisError: also where redis-py raises ``RedisClusterException``, which is not a subclass.
        """
        try:
            return super().execute_command(*args, **kwargs)  # type: ignore[no-untyped-call]
        except RedisClusterException as exc:
            if exc.__cause__ is None:
                raise ClusterError(_without_arguments(exc)) from None
            # No node answers. The known nodes may be gone, and the given names may lead to other addresses now.
            self._forget()
            raise ConnectionError(str(exc)) from exc

    def addresses(self) -> list[tuple[str, int]]:
        """Return host and port of all nodes in random order, followed by the given ones that are not among them.

        Raises:
            redis.exceptions.RedisError: if no node answers.
        """
        found = [(node.host, node.port) for node in self.nodes_manager.nodes_cache.values()]
        random.shuffle(found)
        return list(dict.fromkeys([*found, *self._nodes]))

    def close(self) -> None:
        """Close the connections. Opens none; the client can be used again."""
        if "nodes_manager" in self.__dict__:
            self.disconnect_connection_pools()  # type: ignore[no-untyped-call]  # redis-py leaves given pools open
            self._forget()


def _without_arguments(exc: RedisClusterException) -> str:
    # The arguments are payloads, or channels whose names may contain the key of a session.
    return str(exc).partition("\nCommand: ")[0].partition(" to execute (")[0]
