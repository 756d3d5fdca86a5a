"""Where Redis is: the option ``REDIS``, checked, as keyword arguments of redis-py.

It is ws4redis's dictionary or a URL, and may have every option of redis-py's connections and pools except
those that would break a guarantee of wsloop; see :mod:`wsloop.backend.option_values`. No error shows a value: one of
them is a password. This module must not connect to anything.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from redis.connection import SSLConnection, UnixDomainSocketConnection, parse_url

from wsloop import conf
from wsloop.backend import sentinel
from wsloop.backend.node_addresses import check_sentinels, cluster_nodes
from wsloop.backend.option_values import PATH, check, connection_class, switches, to_bool, without_refused

FORMS = "redis://host:port/db, rediss://… (TLS) or unix:///path?db=0"


@functools.cache
def _connection() -> dict[str, Any]:
    where, given = conf.name_of("REDIS"), conf.unchecked("REDIS")
    if isinstance(given, str):
        options = without_refused(where, _of_url(where, given))
    elif isinstance(given, dict):
        options = _of_dictionary(where, without_refused(where, given))
    else:
        raise ImproperlyConfigured(f"{where} must be a dictionary or a URL, {FORMS}")
    check(where, options)
    return options


@functools.cache
def _nodes() -> tuple[tuple[str, int], ...]:
    return tuple(cluster_nodes(conf.name_of("REDIS"), conf.unchecked("REDIS")))


def connection() -> dict[str, Any]:
    """Return the keyword arguments of a redis-py connection pool.

    The setting may be a URL (``redis://``, ``rediss://`` or ``unix://``) or a dictionary as ws4redis takes it:
    ``host``, ``port``, ``db``, ``password``, or ``unix_socket_path``, and ``ssl`` beside them. Instead of an address
    there may be ``sentinels`` and ``service_name``, or ``cluster`` with one; see :func:`nodes`.

    Raises:
        ImproperlyConfigured: if the setting cannot be used; the text names the option, never its value.
    """
    return dict(_connection())


def nodes() -> list[tuple[str, int]]:
    """Return host and port of the given nodes of a Redis Cluster; empty if the option ``REDIS`` names no cluster.

    The setting has ``"cluster": True`` beside ``host`` and ``port``, or ``startup_nodes``: a list of such pairs.

    Raises:
        ImproperlyConfigured: if it has an option that a cluster does not have.
    """
    return list(_nodes())


def _forget(**kwargs: Any) -> None:
    _connection.cache_clear()
    _nodes.cache_clear()


setting_changed.connect(_forget, dispatch_uid="wsloop.redis_options")


def _of_url(where: str, url: str) -> dict[str, Any]:
    try:
        options = dict(parse_url(url))
        parts = urlsplit(url)
    except ValueError as exc:
        # The text of any other ValueError may have a part of the password.
        option = re.fullmatch(r"Invalid value for '(\w+)' in connection URL\.", str(exc))
        if option:
            raise ImproperlyConfigured(f"{where} has a wrong value of {option[1]!r} in the query of the URL") from None
        raise ImproperlyConfigured(f"{where} is not a URL of Redis; write {FORMS}") from None
    if "@" in parts.query or "@" in parts.fragment or ("@" in parts.path and parts.scheme != "unix"):
        # The host ended before it: a part of the password would be taken for options.
        raise ImproperlyConfigured(
            f"{where} has a password with ?, # or /: write %3F, %23 or %2F for it, and %40 for @"
        )
    # redis-py would ignore the path and use database 0.
    if parts.scheme != "unix" and not re.fullmatch(r"/?\d*/?", parts.path):
        raise ImproperlyConfigured(
            f"{where} has a path that is not the number of a database; write {FORMS}, with % and / in a password as "
            "%25 and %2F"
        )
    known_switches = switches(connection_class(where, options))
    for name, value in options.items():
        if name in known_switches and isinstance(value, str):  # redis-py would take "False" for true
            options[name] = to_bool(where, name, value)
    return options


def _of_dictionary(where: str, given: dict[str, Any]) -> dict[str, Any]:
    options = dict(given)
    found = cluster_nodes(where, given)
    for name in ("cluster", "startup_nodes"):
        options.pop(name, None)
    if found:
        options["host"], options["port"] = found[0]
        options.pop("db", None)
    tls = options.pop("ssl", False) or False
    if type(tls) is not bool:
        raise ImproperlyConfigured(f'{where}["ssl"] must be True or False')
    if options.get(PATH) is None:
        options.pop(PATH, None)
    else:
        options["path"] = options.pop(PATH)
        options["connection_class"] = UnixDomainSocketConnection
    if tls:
        options["connection_class"] = SSLConnection
    if "sentinels" in options or "service_name" in options:
        check_sentinels(where, options)
        sentinels = [tuple(each) for each in options.pop("sentinels")]
        kwargs = options.pop("sentinel_kwargs", None) or {}
        timeout = conf.option("REDIS_TIMEOUT")
        options |= sentinel.connection_options(sentinels, options.pop("service_name"), timeout, kwargs, tls)
    return options


class _Wrong(Mapping[str, Any]):
    """Stands for a setting that cannot be used: reading it raises the reason."""

    def __init__(self, error: ImproperlyConfigured) -> None:
        self._error = error

    def __getitem__(self, name: str) -> Any:
        raise self._error

    def __iter__(self) -> Any:
        raise self._error

    def __len__(self) -> int:
        raise self._error


def adapt_ws4redis() -> None:
    """Give ws4redis's own modules the values of wsloop's options, under their names.

    ``ws4redis.publisher`` unpacks where Redis is into a connection pool while it is imported, which fails on a URL and
    on ``ssl``: it gets what redis-py takes. A setting that cannot be used raises there, and not here, so that
    ``manage.py check`` can name it with all others.
    """
    try:
        from ws4redis import settings as stock
    except ImportError:  # it is not installed
        return
    for name, alias in conf.ALIASES.items():
        setattr(stock, alias, conf.unchecked(name))
    try:
        stock.WS4REDIS_CONNECTION = {name: value for name, value in _connection().items() if name != "timeout"}
    except ImproperlyConfigured as exc:
        stock.WS4REDIS_CONNECTION = _Wrong(exc)


__all__ = ["adapt_ws4redis", "connection", "nodes"]
