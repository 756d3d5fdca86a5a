"""The master that Redis Sentinel names: asked for whenever a connection is opened, so that a failover is followed.

To redis-py's pools a master behind Sentinels is one more kind of connection, as TLS and unix sockets are. This module
must not know settings, sockets or gevent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection


class Master:
    """Tells connections where the master is: what redis-py's ``SentinelManagedConnection`` asks its pool for.

    (redis-py's own ``SentinelConnectionPool`` does not wait for a free connection, and it forgets a Sentinel when two
    threads or greenlets look for the master at once.)

    Args:
        sentinels: pairs of host and port.
        service_name: what the Sentinels call the master.
        timeout: seconds after which the question is given up when all Sentinels were silent.
        options: keyword arguments of the connections to the Sentinels; a timeout among them goes first.
    """

    is_master = True
    check_connection = False

    def __init__(
        self, sentinels: Iterable[tuple[str, int]], service_name: str, timeout: float, options: dict[str, Any]
    ) -> None:
        addresses = list(sentinels)
        self.service_name = service_name
        each = timeout / len(addresses)
        # Who does not answer is not asked again: there are others, and whoever wants the connection tries again.
        options = {"socket_timeout": each, "socket_connect_timeout": each, **options, "retry": Retry(NoBackoff(), 0)}
        self._sentinel = Sentinel(addresses, sentinel_kwargs=options)
        self._lock = threading.Lock()

    def get_master_address(self) -> tuple[str, int]:
        """Ask the Sentinels, the one that answered last first; keeps no connection to them.

        Raises:
            redis.exceptions.ConnectionError: if none answers, or none knows a master that is up.
        """
        with self._lock:
            try:
                host, port = self._sentinel.discover_master(self.service_name)
            finally:
                self._sentinel.close()
        return host, port


def connection_options(
    sentinels: Iterable[tuple[str, int]], service_name: str, timeout: float, sentinel_options: dict[str, Any], tls: bool
) -> dict[str, Any]:
    """Return the keyword arguments that make any pool of redis-py connect to the master; see :class:`Master`.

    Opens no connection. When the server says that it is a master no longer the connection is closed, and the command
    fails as on a broken line: redis-py raises its ``ConnectionError``.
    """
    return {
        "connection_class": SentinelManagedSSLConnection if tls else SentinelManagedConnection,
        "connection_pool": Master(sentinels, service_name, timeout, sentinel_options),
    }
