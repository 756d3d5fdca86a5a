"""Addresses of Redis Sentinels and of the nodes of a Redis Cluster, in the option ``REDIS`` as a dictionary.

No error shows a value: one of them is a password. This module must not read settings or connect to anything.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from redis import Redis

from wsloop.backend.option_values import (
    PATH,
    check_number,
    check_values,
    parameters_of,
    signature,
    unknown,
    without_refused,
)
from wsloop.kinds import is_utf8


def cluster_nodes(where: str, given: Any) -> list[tuple[str, int]]:
    """Return host and port of the given nodes of a cluster; empty if the setting names no cluster.

    Raises:
        ImproperlyConfigured: if it has an option that a cluster does not have.
    """
    if not isinstance(given, dict) or not (given.get("cluster") or "startup_nodes" in given):
        return []
    if given.get("cluster", True) is not True:
        raise ImproperlyConfigured(f'{where}["cluster"] must be True, or be left out without a cluster')
    for name in ("sentinels", "service_name", PATH):
        if name in given:
            raise ImproperlyConfigured(f'{where} names a cluster; leave out "{name}"')
    if given.get("db"):
        raise ImproperlyConfigured(f'{where} names a cluster, which has database 0 only; leave out "db"')
    if "startup_nodes" not in given:
        address = {"host": given.get("host", "localhost"), "port": given.get("port", 6379)}
        check_number(where, address, "port", 1, 65535)
        check_values(where, address, {})
        return [(address["host"], address["port"])]
    _check_addresses(where, "startup_nodes", given)
    return [(host, port) for host, port in given["startup_nodes"]]


def check_sentinels(where: str, given: dict[str, Any]) -> None:
    """Check the addresses of Sentinels, the name of the master, and the options of connections to Sentinels.

    Raises:
        ImproperlyConfigured: if one of them is wrong.
    """
    _check_addresses(where, "sentinels", given)
    name = given.get("service_name")
    if not isinstance(name, str) or not name:
        raise ImproperlyConfigured(
            f'{where} names Sentinels; write the name by which they know the master: "service_name": "mymaster"'
        )
    kwargs = given.get("sentinel_kwargs") or {}
    if not isinstance(kwargs, dict):
        raise ImproperlyConfigured(
            f'{where}["sentinel_kwargs"] must be a dictionary, such as {{"password": …}} of the Sentinels'
        )
    of_sentinels = f'{where}["sentinel_kwargs"]'
    kwargs = without_refused(of_sentinels, kwargs)
    known = parameters_of(Redis) - {"host", "port", PATH}
    for name in kwargs:
        if name not in known:
            raise unknown(of_sentinels, name, known)
    check_values(of_sentinels, kwargs, signature(Redis))
    if "path" in given:
        raise ImproperlyConfigured(f'{where} names Sentinels; leave out "unix_socket_path"')


def _is_address(value: Any) -> bool:
    if not isinstance(value, (list, tuple)) or [type(part) for part in value] != [str, int]:
        return False
    host, port = value
    return host != "" and is_utf8(host) and 1 <= port <= 65535


def _check_addresses(where: str, name: str, given: dict[str, Any]) -> None:
    addresses = given.get(name)
    for other in ("host", "port"):
        if other in given:
            raise ImproperlyConfigured(f'{where} has "{other}" and "{name}"; leave out one of them')
    if not isinstance(addresses, (list, tuple)) or not addresses or not all(map(_is_address, addresses)):
        raise ImproperlyConfigured(
            f'{where}["{name}"] must be a list of pairs of host and port: [("10.0.0.1", 6379), …]'
        )
