"""The process's Redis connections: two at most for handshakes, sockets and views, and one for its subscription.

The number of connections must not grow with the sockets or requests of a worker, so callers wait if both are taken.

In a process that gevent has patched, each thread of the operating system (those of ``gevent.threadpool``, for example)
has a client of its own: gevent's sockets and locks belong to the event loop of one thread. The connections of such a
thread are closed by Python's garbage collector.

This module must not know WebSockets, and works without gevent, in shells and task queues too.
"""

from __future__ import annotations

import functools
import sys
from types import SimpleNamespace
from typing import Any, cast

from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionInterface, ConnectionPool
from redis.exceptions import RedisError
from redis.retry import Retry

from wsloop import conf
from wsloop.backend import redis_options
from wsloop.backend.cluster import Cluster
from wsloop.backend.option_values import POOL

MAX_CONNECTIONS = 2  # with the subscription that makes three a worker; one a request would grow with the traffic


def client() -> Redis:
    """Return the process's Redis client. Creating it opens no connection, and forked processes open their own.

    Commands are not retried: a PUBLISH that was executed although its answer was lost must not be sent twice. A
    connection that broke while it was idle is replaced when it is taken from the pool.

    Behind Sentinels each new connection goes to the master of that moment. For a Redis Cluster this is a
    :class:`wsloop.backend.cluster.Cluster`, a ``RedisCluster``, with as many connections to each node.
    """
    held = vars(_holder())
    found = held.get("client")
    if found is None:
        found = held.setdefault("client", _make_client())  # threads that get here at once agree on the first
    return cast(Redis, found)


def forget() -> None:
    """Close the client of this thread, if it has one; the next call of :func:`client` creates another. For tests."""
    found = vars(_holder()).pop("client", None)
    if found is not None:
        found.close()
        if isinstance(found, Redis):  # close() leaves a pool open that was passed to it
            found.connection_pool.disconnect()


_shared = SimpleNamespace()


@functools.cache
def _holder() -> Any:
    """Return the holder of the client: one for all threads, or one for each if gevent has patched the process."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        return monkey.get_original("_thread", "_local")()  # gevent's own differs from greenlet to greenlet
    return _shared


def _make_client() -> Redis:
    options = _options()
    more = {"max_connections": MAX_CONNECTIONS, "timeout": conf.option("REDIS_TIMEOUT")}
    more |= {name: options.pop(name) for name in POOL if name in options}
    nodes = redis_options.nodes()
    if nodes:
        return cast(Redis, Cluster(nodes, more["max_connections"], more["timeout"], options))
    return Redis(connection_pool=BlockingConnectionPool(**more, **options))


def subscription_connection(**more: Any) -> ConnectionInterface:
    """Return a new connection for the process's subscription, connected: to the master, or any node of a cluster.

    The caller owns it; it belongs to no pool. A message published at any node of a cluster reaches all of its nodes.

    Args:
        more: keyword arguments of the connection, which override the setting's.

    Raises:
        redis.exceptions.RedisError, OSError: if Redis cannot be reached; in a cluster, the error of the last node.
    """
    options = {name: value for name, value in _options().items() if name not in POOL} | more
    if not redis_options.nodes():
        return _connect(options)
    for host, port in (addresses := cast(Cluster, client()).addresses()):
        try:
            return _connect(options | {"host": host, "port": port})
        except (RedisError, OSError):
            if (host, port) == addresses[-1]:
                raise
    raise AssertionError("a cluster has nodes")


def _connect(options: dict[str, Any]) -> ConnectionInterface:
    connection = ConnectionPool(**options).make_connection()
    connection.connect()
    return connection


def _options() -> dict[str, Any]:
    timeout = conf.option("REDIS_TIMEOUT")
    options = {"socket_timeout": timeout, "socket_connect_timeout": timeout} | redis_options.connection()
    return options | {"retry": Retry(NoBackoff(), 0)}
