"""The process's Redis connections: two at most for handshakes, sockets and views, and how its subscription gets one.

A worker must not need more connections the more sockets or requests it serves, so whoever finds both taken waits.

In a process that gevent has patched, threads of the operating system (those of ``gevent.threadpool``, for example) have
a client of their own each: gevent's sockets and locks belong to the event loop of one thread. What such a thread has
opened is closed when Python collects its garbage.

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
    """Return the process's Redis client. Making it opens no connection, and forked processes open their own.

    Commands are not retried: a PUBLISH that was executed although its answer got lost must not be sent twice. A
    connection that broke while it lay idle is replaced when it is taken from the pool.

    Behind Sentinels each new connection goes to the master of that moment. For a Redis Cluster this is a
    :class:`wsloop.backend.cluster.Cluster`, a ``RedisCluster``, with as many connections to each node.
    """
    held = vars(_holder())
    found = held.get("client")
    if found is None:
        found = held.setdefault("client", _make_client())  # threads that were about it at once agree on the first
    return cast(Redis, found)


def forget() -> None:
    """Close the client of this thread, if it has one; the next call of :func:`client` makes another. For tests."""
    found = vars(_holder()).pop("client", None)
    if found is not None:
        found.close()
        if isinstance(found, Redis):  # which leaves a pool open that it was given
            found.connection_pool.disconnect()


_shared = SimpleNamespace()


@functools.cache
def _holder() -> Any:
    """Return what keeps the client: one for all, or, where gevent has patched the process, one for each thread."""
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

    Whoever asks owns it; it belongs to no pool. What is published anywhere in a cluster reaches all of its nodes.

    Args:
        more: keyword arguments of the connection that go before the setting's.

    Raises:
        redis.exceptions.RedisError, OSError: if Redis cannot be reached; of a cluster, what the last node tried raised.
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
