"""A client of Redis Cluster that behaves as the client of a single server does.

It opens no connection before it is used, sends nothing twice, and raises ``RedisError`` whatever goes wrong. This
module must not know settings, sockets or gevent.
"""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Callable, Iterable
from typing import Any

from redis import BlockingConnectionPool, ConnectionPool
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.commands.core import Script
from redis.exceptions import ConnectionError, RedisClusterException
from redis.retry import Retry


class Cluster:
    """The commands of ``redis.RedisCluster``; the nodes are asked for when the first one is executed.

    Redirections (MOVED, ASK) are followed: such a command was not executed. A command whose answer got lost is not sent
    again; the client learns where the nodes are now, and the next command goes there. Only a pipeline without
    transaction is outside of this: redis-py sends its commands again.

    Args:
        nodes: pairs of host and port of some nodes; the others are found through them.
        max_connections: how many connections each node gets at most; whoever finds all taken waits.
        timeout: seconds for which one waits for a free connection.
        options: keyword arguments of the connections.
    """

    def __init__(
        self, nodes: Iterable[tuple[str, int]], max_connections: int, timeout: float, options: dict[str, Any]
    ) -> None:
        self._nodes = list(nodes)
        # A class, for redis-py calls it with what is particular to a node.
        self._pool_class = functools.partial(
            BlockingConnectionPool, max_connections=max_connections, timeout=timeout, **options
        )
        self._lock = threading.Lock()
        self._client: _Client | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._connected(), name)

    def _connected(self) -> _Client:
        # The lock: of a hundred first commands one asks for the nodes, the others take what it found.
        with self._lock:
            if self._client is None:
                self._client = _Client.connect(self._nodes, self._pool_class, self._forget)
            return self._client

    def _forget(self) -> None:
        self._client = None

    def register_script(self, script: str | bytes) -> Script:
        """Return the script as a function, as ``Redis.register_script`` does. Opens no connection."""
        return Script(self, script.encode() if isinstance(script, str) else script)  # type: ignore[arg-type]

    def addresses(self) -> list[tuple[str, int]]:
        """Return host and port of all nodes in random order, and after them those given that are not among them.

        Raises:
            redis.exceptions.RedisError: if no node answers.
        """
        found = [(node.host, node.port) for node in self._connected().nodes_manager.nodes_cache.values()]
        random.shuffle(found)
        return list(dict.fromkeys([*found, *self._nodes]))

    def close(self) -> None:
        """Close the connections. Opens none, and the client can be used again."""
        if self._client is not None:
            self._client.close()


class _Client(RedisCluster):
    _forget: Callable[[], None] = staticmethod(lambda: None)

    @classmethod
    def connect(
        cls, nodes: list[tuple[str, int]], pool_class: Callable[..., ConnectionPool], forget: Callable[[], None]
    ) -> _Client:
        """Ask the given nodes for all of them.

        Args:
            pool_class: called with ``host``, ``port`` and what else redis-py wants of a node's connections.
            forget: called when none of the nodes known by then answers: those given may be names behind which others
                stand now.

        Raises:
            redis.exceptions.RedisError: if none answers.
        """
        host, port = nodes[0]
        try:
            client = cls(
                # Only a client that is made of a URL lets its nodes' pools be chosen.
                url=f"redis://{f'[{host}]' if ':' in host else host}:{port}",
                connection_pool_class=pool_class,
                startup_nodes=[ClusterNode(*node) for node in nodes[1:]],
                # While nodes are missing the others serve what they can.
                require_full_coverage=False,
                # After MOVED redis-py would now and then ask for the nodes while it holds on to its connection, of
                # which there are few. That slot is learnt in any case.
                reinitialize_steps=0,
                retry=Retry(NoBackoff(), 0),
            )
        except RedisClusterException as exc:
            raise _as_redis_error(exc) from exc
        except OSError as exc:
            raise ConnectionError(str(exc)) from exc
        client._forget = forget
        return client

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().execute_command(*args, **kwargs)  # type: ignore[no-untyped-call]
        except RedisClusterException as exc:
            self._forget()
            raise _as_redis_error(exc) from exc


def _as_redis_error(exc: RedisClusterException) -> ConnectionError:
    # It is none in redis-py. And without the command: its arguments are payloads, or channels whose names may have the
    # key of a session.
    return ConnectionError(str(exc).partition("\nCommand: ")[0])
