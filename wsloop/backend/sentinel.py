"""The address of the master from Redis Sentinel, asked for with each new connection, so that a failover is followed.

For redis-py's pools a master behind Sentinels is one more kind of connection, like TLS and unix sockets. This module
must not know settings, sockets or gevent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, SentinelManagedConnection, SentinelManagedSSLConnection


class Master:
    """Provides the address of the master, for which redis-py's ``SentinelManagedConnection`` asks its pool.

    (redis-py's own ``SentinelConnectionPool`` does not wait for a free connection, and its ``Sentinel`` loses a server
    when two threads or greenlets look for the master at once.)

    Args:
        sentinels: pairs of host and port.
        service_name: the Sentinels' name of the master.
        timeout: seconds to wait for all Sentinels together.
        options: keyword arguments of the connections to the Sentinels; a timeout among them takes precedence.
    """

    is_master = True
    check_connection = False

    def __init__(
        self, sentinels: Iterable[tuple[str, int]], service_name: str, timeout: float, options: dict[str, Any]
    ) -> None:
        self.service_name = service_name
        self._sentinels = list(sentinels)
        each = timeout / len(self._sentinels)
        self._options = {"socket_timeout": each, "socket_connect_timeout": each, **options}
        # A Sentinel that does not answer is not asked again: there are others, and the caller retries.
        self._options["retry"] = Retry(NoBackoff(), 0)

    def get_master_address(self) -> tuple[str, int]:
        """Return host and port of the master, from the Sentinel that answered last if it answers again.

        Keeps no connection to a Sentinel.

        Raises:
            redis.exceptions.ConnectionError: if no Sentinel answers, or none knows a master that is up.
        """
        failures = []
        for host, port in self._sentinels:
            try:
                with Redis(host, port, **self._options) as client:
                    state = client.sentinel_masters().get(self.service_name)
            except (RedisError, OSError) as exc:
                failures.append(f"{host}:{port}: {exc}")
                continue
            if state and state["is_master"] and not state["is_sdown"] and not state["is_odown"]:
                others = [each for each in self._sentinels if each != (host, port)]
                self._sentinels = [(host, port), *others]
                return state["ip"], state["port"]
            failures.append(f"{host}:{port}: " + ("it is down" if state else "no master of that name"))
        raise MasterNotFoundError(f"Sentinel names no master {self.service_name!r} ({'; '.join(failures)})")


def connection_options(
    sentinels: Iterable[tuple[str, int]], service_name: str, timeout: float, sentinel_options: dict[str, Any], tls: bool
) -> dict[str, Any]:
    """Return the keyword arguments with which any pool of redis-py connects to the master; see :class:`Master`.

    Opens no connection. When the server is no longer the master the connection is closed, and the command fails as on a
    broken connection: redis-py raises its ``ConnectionError``.
    """
    return {
        "connection_class": SentinelManagedSSLConnection if tls else SentinelManagedConnection,
        "connection_pool": Master(sentinels, service_name, timeout, sentinel_options),
    }
