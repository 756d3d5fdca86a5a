"""The options of redis-py's connections and pools: which ones wsloop takes, and which values they may have.

A name that redis-py does not know is refused at the start, not by the first connection. No error shows a value: one of
them is a password. This module must not read settings or connect to anything.
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

from django.core.exceptions import ImproperlyConfigured
from redis import ConnectionPool, Redis
from redis.connection import Connection
from redis.credentials import CredentialProvider

from wsloop.kinds import LONGEST, SHORTEST, is_utf8

PATH = "unix_socket_path"  # ws4redis's name for redis-py's "path"
# Of the pool, not of a connection. If all connections are taken, callers wait for one for "timeout" seconds.
POOL = ("max_connections", "timeout")
LEAST_CONNECTIONS = 2  # one is left to handshakes while a long recovery reads with the other
MOST_CONNECTIONS = 1000  # of a pool: each thread has one
# Options of redis-py that wsloop refuses, and why. Values that switch an option off are accepted.
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


# Options whose values are not checked by the kind of redis-py's default: a test, and what the value must be.
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


def without_refused(where: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options without those of :data:`REFUSED` that are switched off.

    Raises:
        ImproperlyConfigured: if one of them is not switched off.
    """
    for name, reason in REFUSED.items():
        if name in given and given[name] not in OFF:
            raise ImproperlyConfigured(f"{where} must not have {name!r}: {reason}. Leave it out.")
    return {name: value for name, value in given.items() if name not in REFUSED}


def check(where: str, options: dict[str, Any]) -> None:
    """Check options that redis-py would otherwise refuse only with the first connection.

    Raises:
        ImproperlyConfigured: if an option does not exist, or has a wrong value.
    """
    parameters = signature(connection_class(where, options))
    known = {*parameters, *POOL, "connection_class", "connection_pool"}
    for name in options:
        if name not in known and name in parameters_of(Redis):
            raise ImproperlyConfigured(
                f"{where} has {name!r}, which this kind of connection does not have: leave it out"
            )
        if name not in known:
            raise unknown(where, name, known)
    check_number(where, options, "port", 1, 65535)
    check_number(where, options, "db", 0, 10**6)
    check_number(where, options, "max_connections", LEAST_CONNECTIONS, MOST_CONNECTIONS)
    check_values(where, options, parameters)
    try:
        # Opens no connection. The text of an error may show a value.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ConnectionPool(**{name: options[name] for name in options if name not in POOL}).make_connection()
    except Exception as exc:
        raise ImproperlyConfigured(
            f"{where} has an option whose value redis-py refuses ({type(exc).__name__}): one of {sorted(options)}"
        ) from None


def check_values(where: str, options: dict[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    """Check that values are of the kind of redis-py's defaults, or of the kind that :data:`WANTED` names.

    Raises:
        ImproperlyConfigured: if one is not.
    """
    for name, value in options.items():
        option = PATH if name == "path" else name
        shown = f"{where}[{option!r}]"
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


def check_number(where: str, options: dict[str, Any], name: str, least: int, most: int | None = None) -> None:
    """Check a whole number, and convert one that is text, from the environment: redis-py accepts text, too.

    Raises:
        ImproperlyConfigured: if the value is not a whole number within the bounds.
    """
    value = options.get(name)
    if value is None:
        return
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if type(value) is not int or value < least or (most is not None and value > most):
        bounds = f"from {least} to {most}" if most is not None else f"{least} or more"
        raise ImproperlyConfigured(f"{where}[{name!r}] must be a whole number, {bounds}")
    options[name] = value


def connection_class(where: str, options: dict[str, Any]) -> type:
    found = options.get("connection_class", Connection)
    if not isinstance(found, type):
        raise ImproperlyConfigured(f'{where}["connection_class"] must be a class of connections of redis-py')
    return found


@functools.cache
def signature(kind: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class and of its bases, to which it passes on those that it does not know."""
    found: dict[str, inspect.Parameter] = {}
    for each in kind.__mro__:
        if "__init__" in vars(each) and each is not object:
            for name, parameter in inspect.signature(each).parameters.items():
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                    found.setdefault(name, parameter)
    return found


def parameters_of(kind: type) -> set[str]:
    return set(signature(kind))


def switches(kind: type) -> set[str]:
    found = {name for name, parameter in signature(kind).items() if isinstance(parameter.default, bool)}
    return found | {name for name in REFUSED if name in OFF_BY_WORD}


def to_bool(where: str, name: str, value: str) -> bool:
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.lower()]
    except KeyError:
        raise ImproperlyConfigured(
            f"{where} has a wrong value of {name!r} in the query of the URL: it must be True or False"
        ) from None


def unknown(where: str, name: str, known: Iterable[str]) -> ImproperlyConfigured:
    near = difflib.get_close_matches(str(name), [*known, PATH, "ssl"], 1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return ImproperlyConfigured(f"{where} has an option that redis-py does not know: {name!r}{meant}")
