"""The process's Redis connections besides the subscription: two at most, shared by handshakes, sockets and views.

A worker must not need more connections the more sockets or requests it serves, so whoever finds both taken waits.
This module must not know WebSockets, and works without gevent, in shells and task queues too.
"""

from __future__ import annotations

import functools

from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from wsloop import conf

MAX_CONNECTIONS = 2  # with the subscription that makes three a worker; one a request would grow with the traffic


@functools.cache
def client() -> Redis:
    """Return the process's Redis client. Making it opens no connection, and forked processes open their own.

    Commands are not retried: a PUBLISH that was executed although its answer got lost must not be sent twice. A
    connection that broke while it lay idle is replaced when it is taken from the pool.
    """
    timeout = conf.option("REDIS_TIMEOUT")
    options = {"socket_timeout": timeout, "socket_connect_timeout": timeout} | conf.redis_options()
    options["retry"] = Retry(NoBackoff(), 0)
    return Redis(connection_pool=BlockingConnectionPool(max_connections=MAX_CONNECTIONS, timeout=timeout, **options))
