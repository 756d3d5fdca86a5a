"""The process's Redis connections: two at most for handshakes, sockets and views, and how its subscription gets one.

A worker must not need more connections the more sockets or requests it serves, so whoever finds both taken waits.
This module must not know WebSockets, and works without gevent, in shells and task queues too.
"""

from __future__ import annotations

import functools
from typing import Any, cast

from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionInterface, ConnectionPool
from redis.exceptions import RedisError
from redis.retry import Retry

from wsloop import conf
from wsloop.cluster import Cluster

MAX_CONNECTIONS = 2  # with the subscription that makes three a worker; one a request would grow with the traffic


@functools.cache
def client() -> Redis:
    """Return the process's Redis client. Making it opens no connection, and forked processes open their own.

    Commands are not retried: a PUBLISH that was executed although its answer got lost must not be sent twice. A
    connection that broke while it lay idle is replaced when it is taken from the pool.

    Behind Sentinels each new connection goes to the master of that moment. For a Redis Cluster this is a
    :class:`wsloop.cluster.Cluster`, a ``RedisCluster``, with as many connections to each node.
    """
    options = _options()
    timeout = conf.option("REDIS_TIMEOUT")
    nodes = conf.redis_nodes()
    if nodes:
        return cast(Redis, Cluster(nodes, MAX_CONNECTIONS, timeout, options))
    return Redis(connection_pool=BlockingConnectionPool(max_connections=MAX_CONNECTIONS, timeout=timeout, **options))


def subscription_connection(**more: Any) -> ConnectionInterface:
    """Return a new connection for the process's subscription, connected: to the master, or any node of a cluster.

    Whoever asks owns it; it belongs to no pool. What is published anywhere in a cluster reaches all of its nodes.

    Args:
        more: keyword arguments of the connection that go before the setting's.

    Raises:
        redis.exceptions.RedisError, OSError: if Redis cannot be reached; of a cluster, what the last node tried raised.
    """
    options = _options() | more
    if not conf.redis_nodes():
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
    options = {"socket_timeout": timeout, "socket_connect_timeout": timeout} | conf.redis_options()
    return options | {"retry": Retry(NoBackoff(), 0)}
