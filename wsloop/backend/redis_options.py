"""Where Redis is: ``WS4REDIS_CONNECTION``, checked, as keyword arguments of redis-py.

The setting is ws4redis's dictionary or a URL, and may have every option of redis-py's connections and pools but those
that would break what wsloop promises; a name that redis-py does not know is refused at the start, not by the first
connection. No error shows a value: one of them is a password. This module must not connect to anything.
"""

from __future__ import annotations

import codecs
import difflib
import functools
import inspect
import re
import ssl
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from redis import ConnectionPool, Redis
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.credentials import CredentialProvider

from wsloop import conf
from wsloop.backend import sentinel
from wsloop.kinds import LONGEST, SHORTEST, is_utf8

NAME = "WS4REDIS_CONNECTION"
DEFAULT = {"host": "localhost", "port": 6379, "db": 0}
FORMS = "redis://host:port/db, rediss://… (TLS) or unix:///path?db=0"
# Of the pool, not of a connection. Whoever finds all connections taken waits, for "timeout" seconds.
POOL = ("max_connections", "timeout")
LEAST_CONNECTIONS = 2  # one is left to handshakes while a long recovery reads with the other
MOST_CONNECTIONS = 1000  # of a pool: each thread has one
# What redis-py takes and wsloop does not, and why. Values that switch an option off are taken.
REFUSED = {
    "connection_pool": "wsloop has a pool of its own, whose size is max_connections",
    "single_connection_client": "wsloop has a pool of its own, whose size is max_connections",
    "decode_responses": "messages are bytes until it is known whether they are text",
    "retry": "no command may be sent twice: a message would be published twice",
    "retry_on_error": "no command may be sent twice: a message would be published twice",
    "retry_on_timeout": "no command may be sent twice: a message would be published twice",
    "cache": "nothing that wsloop reads may be old",
    "cache_config": "nothing that wsloop reads may be old",
    "queue_class": "the pool must be one whose waiting suits gevent",
    "command_packer": "names and messages are packed by redis-py's own",
}
OFF: tuple[Any, ...] = (None, False, [], ())
OFF_BY_WORD = ("decode_responses", "retry_on_timeout", "single_connection_client")  # in a URL: False


def _is_keepalive(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        type(key) is int and type(each) in (int, bytes) for key, each in value.items()
    )


def _is_error_handler(value: Any) -> bool:
    try:
        codecs.lookup_error(value)
    except (LookupError, TypeError, ValueError):
        return False
    return True


# What values may be whose kind is not that of redis-py's default.
WANTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "host": (lambda value: isinstance(value, str) and value != "" and is_utf8(value), "text, and not empty"),
    "path": (lambda value: isinstance(value, str) and value != "" and is_utf8(value), "text, and not empty"),
    "username": (lambda value: isinstance(value, str) and is_utf8(value), "text"),
    "password": (lambda value: isinstance(value, bytes) or (isinstance(value, str) and is_utf8(value)), "text"),
    "client_name": (
        lambda value: isinstance(value, str) and re.fullmatch(r"[!-~]*", value) is not None,
        "text without blanks",
    ),
    "encoding": (lambda value: value in ("utf-8", "utf8", "UTF-8"), "utf-8: names of channels are"),
    "encoding_errors": (_is_error_handler, "the name of one of Python's error handlers"),
    "protocol": (lambda value: type(value) is int and value in (2, 3), "2 or 3"),
    "socket_keepalive_options": (_is_keepalive, "a dictionary of numbers of socket options"),
    "redis_connect_func": (callable, "a function"),
    "credential_provider": (lambda value: isinstance(value, CredentialProvider), "a CredentialProvider of redis-py"),
    "parser_class": (lambda value: isinstance(value, type), "a class"),
    "ssl_min_version": (lambda value: value in {each.value for each in ssl.TLSVersion}, "one of ssl.TLSVersion"),
    "event_dispatcher": (lambda value: not isinstance(value, (str, bytes, int)), "an object of redis-py"),
    "driver_info": (lambda value: not isinstance(value, (str, bytes, int)), "an object of redis-py"),
    "maint_notifications_config": (lambda value: not isinstance(value, (str, bytes, int)), "an object of redis-py"),
}


@functools.cache
def _connection() -> dict[str, Any]:
    given = getattr(settings, NAME, DEFAULT)
    if isinstance(given, str):
        options = _without_refused(_of_url(given))
    elif isinstance(given, dict):
        options = _of_dictionary(_without_refused(given))
    else:
        raise ImproperlyConfigured(f"{NAME} must be a dictionary or a URL, {FORMS}")
    _check(options)
    return options


@functools.cache
def _nodes() -> tuple[tuple[str, int], ...]:
    return tuple(_cluster_nodes(getattr(settings, NAME, None)))


def connection() -> dict[str, Any]:
    """Return the keyword arguments of a redis-py connection pool.

    The setting may be a URL (``redis://``, ``rediss://`` or ``unix://``) or a dictionary as ws4redis takes it:
    ``host``, ``port``, ``db``, ``password``, or ``unix_socket_path``, and ``ssl`` beside them. Instead of an address
    there may be ``sentinels`` and ``service_name``, or ``cluster`` with one; see :func:`nodes`.

    Raises:
        ImproperlyConfigured: if it cannot be used; the text names the option, never its value.
    """
    return dict(_connection())


def nodes() -> list[tuple[str, int]]:
    """Return host and port of the nodes of a Redis Cluster; none where ``WS4REDIS_CONNECTION`` is of no cluster.

    The setting has ``"cluster": True`` beside ``host`` and ``port``, or ``startup_nodes``: a list of such pairs.

    Raises:
        ImproperlyConfigured: if it has anything that a cluster does not have.
    """
    return list(_nodes())


def _forget(**kwargs: Any) -> None:
    _connection.cache_clear()
    _nodes.cache_clear()


setting_changed.connect(_forget, dispatch_uid="wsloop.redis_options")


def _of_url(url: str) -> dict[str, Any]:
    try:
        options = dict(parse_url(url))
        parts = urlsplit(url)
    except ValueError as exc:
        # Its text may have a part of the password, but for this one.
        option = re.fullmatch(r"Invalid value for '(\w+)' in connection URL\.", str(exc))
        if option:
            raise ImproperlyConfigured(f"{NAME} has a wrong value of {option[1]!r} in the query of the URL") from None
        raise ImproperlyConfigured(f"{NAME} is no URL of Redis; write {FORMS}") from None
    if "@" in parts.query or "@" in parts.fragment or ("@" in parts.path and parts.scheme != "unix"):
        # The name of the host ended before: a part of the password would be taken for options.
        raise ImproperlyConfigured(f"{NAME} has a password with ?, # or /: write %3F, %23 or %2F for it, and %40 for @")
    # redis-py goes on with database 0 then.
    if parts.scheme != "unix" and not re.fullmatch(r"/?\d*/?", parts.path):
        raise ImproperlyConfigured(
            f"{NAME} has a path that is no number of a database; write {FORMS}, with % and / in a password as %25 and "
            "%2F"
        )
    switches = _switches(_class(options))
    for name, value in options.items():
        if name in switches and isinstance(value, str):  # redis-py would take "False" for true
            options[name] = _to_bool(name, value)
    return options


def _of_dictionary(given: dict[str, Any]) -> dict[str, Any]:
    options = dict(given)
    found = _cluster_nodes(given)
    for name in ("cluster", "startup_nodes"):
        options.pop(name, None)
    if found:
        options["host"], options["port"] = found[0]
        options.pop("db", None)
    tls = options.pop("ssl", False) or False
    if type(tls) is not bool:
        raise ImproperlyConfigured(f'{NAME}["ssl"] must be True or False')
    if options.get(_PATH) is None:
        options.pop(_PATH, None)
    else:
        options["path"] = options.pop(_PATH)
        options["connection_class"] = UnixDomainSocketConnection
    if tls:
        options["connection_class"] = SSLConnection
    if "sentinels" in options or "service_name" in options:
        _check_sentinels(options)
        sentinels = [tuple(each) for each in options.pop("sentinels")]
        kwargs = options.pop("sentinel_kwargs", None) or {}
        timeout = conf.option("REDIS_TIMEOUT")
        options |= sentinel.connection_options(sentinels, options.pop("service_name"), timeout, kwargs, tls)
    return options


# What the options may be.


def _without_refused(given: dict[str, Any], where: str = NAME) -> dict[str, Any]:
    """Refuse options that wsloop cannot work with, and return the others."""
    for name, reason in REFUSED.items():
        if name in given and given[name] not in OFF:
            raise ImproperlyConfigured(f"{where} must not have {name!r}: {reason}. Leave it out.")
    return {name: value for name, value in given.items() if name not in REFUSED}


def _check(options: dict[str, Any]) -> None:
    """Refuse options that redis-py would refuse with the first connection."""
    parameters = _signature(_class(options))
    known = {*parameters, *POOL, "connection_class", "connection_pool"}
    for name in options:
        if name not in known and name in _parameters(Redis):
            raise ImproperlyConfigured(
                f"{NAME} has {name!r}, which this kind of connection does not have: leave it out"
            )
        if name not in known:
            raise _unknown(NAME, name, known)
    _check_number(options, "port", 1, 65535)
    _check_number(options, "db", 0, 10**6)
    _check_number(options, "max_connections", LEAST_CONNECTIONS, MOST_CONNECTIONS)
    _check_values(NAME, options, parameters)
    try:
        # Opens no connection. What it raises may show a value.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ConnectionPool(**{name: options[name] for name in options if name not in POOL}).make_connection()
    except Exception as exc:
        raise ImproperlyConfigured(
            f"{NAME} has an option whose value redis-py refuses ({type(exc).__name__}); there are {sorted(options)}"
        ) from None


def _check_values(where: str, options: dict[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    """Refuse values that are of another kind than redis-py's defaults, or than :data:`WANTED` says."""
    for name, value in options.items():
        shown = f"{where}[{_PATH if name == 'path' else name!r}]" if name != "path" else f"{where}[{_PATH!r}]"
        default = parameters[name].default if name in parameters else None
        if value is None and name not in ("host", "path", "db", "port"):
            continue
        if name in ("socket_timeout", "socket_connect_timeout", "timeout"):
            if type(value) not in (int, float) or not SHORTEST <= value <= LONGEST:
                raise ImproperlyConfigured(f"{shown} must be a positive number of seconds, up to {LONGEST}")
        elif name in WANTED:
            fits, wanted = WANTED[name]
            if not fits(value):
                raise ImproperlyConfigured(f"{shown} must be {wanted}")
        elif type(default) is bool:
            if type(value) is not bool:
                raise ImproperlyConfigured(f"{shown} must be True or False")
        elif type(default) is int:
            least = 1 if name == "socket_read_size" else 0
            if type(value) is not int or not least <= value <= LONGEST:
                raise ImproperlyConfigured(f"{shown} must be a whole number, from {least} to {LONGEST}")


_PATH = "unix_socket_path"


def _check_number(options: dict[str, Any], name: str, least: int, most: int | None = None) -> None:
    """Check a whole number; text that is one, from the environment, becomes one, as redis-py takes it."""
    value = options.get(name)
    if value is None:
        return
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if type(value) is not int or value < least or (most is not None and value > most):
        bounds = f"from {least} to {most}" if most is not None else f"{least} or more"
        raise ImproperlyConfigured(f"{NAME}[{name!r}] must be a whole number, {bounds}")
    options[name] = value


def _class(options: dict[str, Any]) -> type:
    found = options.get("connection_class", Connection)
    if not isinstance(found, type):
        raise ImproperlyConfigured(f'{NAME}["connection_class"] must be a class of connections of redis-py')
    return found


@functools.cache
def _signature(kind: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class, those of its bases included, to which it hands on what it does not know."""
    found: dict[str, inspect.Parameter] = {}
    for each in kind.__mro__:
        if "__init__" in vars(each) and each is not object:
            for name, parameter in inspect.signature(each).parameters.items():
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                    found.setdefault(name, parameter)
    return found


def _parameters(kind: type) -> set[str]:
    return set(_signature(kind))


def _switches(kind: type) -> set[str]:
    found = {name for name, parameter in _signature(kind).items() if isinstance(parameter.default, bool)}
    return found | {name for name in REFUSED if name in OFF_BY_WORD}


def _to_bool(name: str, value: str) -> bool:
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.lower()]
    except KeyError:
        raise ImproperlyConfigured(
            f"{NAME} has a wrong value of {name!r} in the query of the URL: it must be True or False"
        ) from None


def _unknown(where: str, name: str, known: Iterable[str]) -> ImproperlyConfigured:
    near = difflib.get_close_matches(str(name), [*known, _PATH, "ssl"], 1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return ImproperlyConfigured(f"{where} has an option that redis-py does not know: {name!r}{meant}")


# Sentinels and Clusters.


def _cluster_nodes(given: Any) -> list[tuple[str, int]]:
    if not isinstance(given, dict) or not (given.get("cluster") or "startup_nodes" in given):
        return []
    if given.get("cluster", True) is not True:
        raise ImproperlyConfigured(f'{NAME}["cluster"] must be True, or be left out without a cluster')
    for name in ("sentinels", "service_name", "unix_socket_path"):
        if name in given:
            raise ImproperlyConfigured(f'{NAME} is of a cluster; leave out "{name}"')
    if given.get("db"):
        raise ImproperlyConfigured(f'{NAME} is of a cluster, which has database 0 only; leave out "db"')
    if "startup_nodes" not in given:
        address = {"host": given.get("host", "localhost"), "port": given.get("port", 6379)}
        _check_number(address, "port", 1, 65535)
        _check_values(NAME, address, {})
        return [(address["host"], address["port"])]
    _check_addresses("startup_nodes", given)
    return [(host, port) for host, port in given["startup_nodes"]]


def _check_sentinels(given: dict[str, Any]) -> None:
    _check_addresses("sentinels", given)
    name = given.get("service_name")
    if not isinstance(name, str) or not name:
        raise ImproperlyConfigured(
            f'{NAME} has sentinels; write the name they know the master by: "service_name": "mymaster"'
        )
    kwargs = given.get("sentinel_kwargs") or {}
    if not isinstance(kwargs, dict):
        raise ImproperlyConfigured(
            f'{NAME}["sentinel_kwargs"] must be a dictionary, as {{"password": …}} of the sentinels'
        )
    where = f'{NAME}["sentinel_kwargs"]'
    kwargs = _without_refused(kwargs, where)
    known = _parameters(Redis) - {"host", "port", _PATH}
    for name in kwargs:
        if name not in known:
            raise _unknown(where, name, known)
    _check_values(where, kwargs, _signature(Redis))
    if "path" in given:
        raise ImproperlyConfigured(f'{NAME} has sentinels; leave out "unix_socket_path"')


def _is_address(value: Any) -> bool:
    if not isinstance(value, (list, tuple)) or [type(part) for part in value] != [str, int]:
        return False
    host, port = value
    return host != "" and is_utf8(host) and 1 <= port <= 65535


def _check_addresses(name: str, given: dict[str, Any]) -> None:
    addresses = given.get(name)
    for other in ("host", "port"):
        if other in given:
            raise ImproperlyConfigured(f'{NAME} has "{other}" and "{name}"; leave out one of them')
    if not isinstance(addresses, (list, tuple)) or not addresses or not all(map(_is_address, addresses)):
        raise ImproperlyConfigured(
            f'{NAME}["{name}"] must be a list of pairs of host and port: [("10.0.0.1", 6379), …]'
        )


class _Wrong(Mapping[str, Any]):
    """Stands for a setting that cannot be used: whoever reads it is told why."""

    def __init__(self, error: ImproperlyConfigured) -> None:
        self._error = error

    def __getitem__(self, name: str) -> Any:
        raise self._error

    def __iter__(self) -> Any:
        raise self._error

    def __len__(self) -> int:
        raise self._error


def adapt_ws4redis() -> None:
    """Let the stock ``ws4redis.publisher`` understand the forms of ``WS4REDIS_CONNECTION`` that only wsloop knows.

    It unpacks the setting into a connection pool while it is imported, which fails on a URL and on ``ssl``. A setting
    that cannot be used raises there, and not here, so that ``manage.py check`` can name it with all others.
    """
    from ws4redis import settings as stock

    try:
        stock.WS4REDIS_CONNECTION = {name: value for name, value in _connection().items() if name != "timeout"}
    except ImproperlyConfigured as exc:
        stock.WS4REDIS_CONNECTION = _Wrong(exc)


__all__ = ["adapt_ws4redis", "connection", "nodes"]
