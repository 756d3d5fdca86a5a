"""The settings of wsloop: the only module that reads them, each default beside its reason.

The names are those of django-websocket-redis, so that a site which moves over keeps its settings; what is new lives in
the dictionary ``WSLOOP``. Values are read when they are asked for, so ``override_settings`` works in tests. This module
must not know Redis commands, sockets or gevent.
"""

from __future__ import annotations

import fnmatch
import importlib
import ipaddress
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from redis.connection import SSLConnection, UnixDomainSocketConnection, parse_url

from wsloop import sentinel

DEFAULTS: dict[str, Any] = {
    # What a client sends.
    # Largest message taken from a client, in bytes, over all of its fragments, decompressed: that of Centrifugo and
    # AnyCable.
    "MAX_MESSAGE_SIZE": 64 * 1024,
    # Frames a second taken from a client in the long run, and at once: a drawing page sends one for each animation
    # frame, 60 a second. None: any number.
    "RATE_LIMIT": (100, 200),
    # Largest header of a handshake, and largest query string, in bytes: the longest real ones have some hundred, with
    # a token in it.
    "MAX_HEADER_SIZE": 4096,
    # Longest facility, in bytes: it is part of the names of up to four channels, kept as long as the socket is open.
    "MAX_FACILITY_SIZE": 255,
    # What waits for a client.
    # Output that may wait for one client, in bytes, before it is closed as too slow: 1 MiB bounds 1,000 stuck clients
    # to 1 GiB, and holds some thousand notifications.
    "MAX_QUEUED_BYTES": 1024 * 1024,
    # Events of the channel layer that wait for one consumer, before more are dropped: ten times what Channels holds,
    # for a burst reaches all of a worker's consumers before the first of them can run. Not more than MAX_QUEUED_BYTES.
    "CHANNEL_CAPACITY": 1000,
    # How many there may be. All are counted by each worker for itself; None: any number.
    # Sockets of one worker, closing ones included. Three quarters of its descriptors are the limit where that is less,
    # so that the site goes on answering.
    "MAX_CONNECTIONS": 25_000,
    # Sockets of one user: many tabs on many devices.
    "MAX_CONNECTIONS_PER_USER": 100,
    # Sockets of one address: an office, a school, or many phones behind one gateway.
    "MAX_CONNECTIONS_PER_ADDRESS": 500,
    # Addresses and networks whose X-Forwarded-For is believed: none, for a client can send that header too.
    "TRUSTED_PROXIES": (),
    # How long things may take, in seconds.
    # From the request to the 101: above REDIS_TIMEOUT, below the patience of proxies and people.
    "HANDSHAKE_TIMEOUT": 10,
    # Between two pings to a socket: half of the 60 s after which uWSGI's http router, nginx and most load balancers cut
    # a silent line. More often costs more: the pings of 15,000 idle sockets are nearly all that these cost.
    "PING_INTERVAL": 30,
    # For the answer to a ping: as much as Socket.IO grants; phones that wake up need some.
    "PING_TIMEOUT": 20,
    # For the answer to a close frame and the end of the line: slow phones manage, and stuck ones do not pile up.
    "CLOSE_TIMEOUT": 10,
    # Until Redis must have answered, for a handshake as for a view that publishes.
    "REDIS_TIMEOUT": 5,
    # For a handler of a consumer to go on after its client has left: as much as Channels' daphne grants.
    "HANDLER_TIMEOUT": 10,
    # What is sent.
    # Smallest message that is compressed for clients which can take it, in bytes: below, compressing costs more than a
    # packet saves. None: nothing is compressed in either direction.
    "COMPRESS_FROM": 1024,
    # Who may open sockets.
    # Pages of other sites: none, for a browser sends the user's cookies with whatever a page opens.
    "ALLOWED_ORIGINS": (),
    # Options of facilities: patterns of their names, as in shells, to dictionaries; the first that matches counts.
    "FACILITIES": {},
}


class Facility(NamedTuple):
    """The options of one facility, with their defaults.

    Attributes:
        size: messages kept of each of its channels, so that clients get what they have missed; 0: none, for they cost
            memory of Redis.
        ttl: seconds for which they are kept after the last one; by default as long as ws4redis keeps the last message.
        recover: whether clients may ask for what they have missed; False: the history is for views alone.
        latest_only: a client that does not read fast enough misses messages but the newest of each channel, instead of
            being closed: for prices and positions, where only the newest counts.
        presence: whether it is known who is there.
        compression: whether its sockets may negotiate compression. Off where a message mixes a secret with text of
            somebody else, who could guess the secret by the size on the wire (BREACH).
    """

    size: int = 0
    ttl: int = 3600
    recover: bool = True
    latest_only: bool = False
    presence: bool = False
    compression: bool = True

    @property
    def recovers(self) -> bool:
        """Whether a client can come back to where it was."""
        return self.size > 0 and self.recover


FACILITY_DEFAULTS: dict[str, Any] = Facility()._asdict()

WHOLE = ("MAX_", "PING_", "COMPRESS_", "CHANNEL_")  # numbers of things, bytes, and turns of the hub's timer
MAY_BE_NONE = {
    "RATE_LIMIT",
    "MAX_CONNECTIONS",
    "MAX_CONNECTIONS_PER_USER",
    "MAX_CONNECTIONS_PER_ADDRESS",
    "COMPRESS_FROM",
}


def option(name: str) -> Any:
    """Return one option of the dictionary ``WSLOOP``, or its default.

    Raises:
        ImproperlyConfigured: if ``WSLOOP`` has a key that does not exist, or a value of the wrong kind.
    """
    given: dict[str, Any] = getattr(settings, "WSLOOP", {})
    if not isinstance(given, dict):
        raise ImproperlyConfigured(f"WSLOOP must be a dictionary, not {given!r}")
    if not given:
        return DEFAULTS[name]
    unknown = set(given) - set(DEFAULTS)
    if unknown:
        raise ImproperlyConfigured(f"WSLOOP has no option {sorted(unknown)}; there are {list(DEFAULTS)}")
    value = given.get(name, DEFAULTS[name])
    if not (value is None and name in MAY_BE_NONE):
        check = KINDS.get(name) or (_check_integer if name.startswith(WHOLE) else _check_number)
        check(f"WSLOOP[{name!r}]", value)
    return value


def compress_from() -> float:
    """Return the size of the smallest message that is compressed, in bytes; infinity where none is."""
    smallest = option("COMPRESS_FROM")
    return float("inf") if smallest is None else float(smallest)


def facility(name: str) -> Facility:
    """Return the options of one facility, from the first pattern in ``WSLOOP["FACILITIES"]`` that matches it."""
    for pattern, options in option("FACILITIES").items():
        if fnmatch.fnmatchcase(name, pattern):
            return Facility(**options)
    return PLAIN


PLAIN = Facility()


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ImproperlyConfigured(f"{name} must be a positive number, not {value!r}")


def _check_integer(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ImproperlyConfigured(f"{name} must be a positive whole number, not {value!r}")


def _check_rate(name: str, value: Any) -> None:
    try:
        rate, burst = value
        _check_number(name, rate)
        _check_number(name, burst)
    except (TypeError, ValueError, ImproperlyConfigured):
        raise ImproperlyConfigured(
            f"{name} must be two positive numbers, frames a second and at once, or None, not {value!r}"
        ) from None


def _check_origins(name: str, value: Any) -> None:
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(each, str) and (each in ("*", *NAMELESS_ORIGINS) or ORIGIN.fullmatch(each)) for each in value
    ):
        raise ImproperlyConfigured(
            f'{name} must be a list of origins, "https://example.com", "https://*.example.com", "null", "file://" or '
            f'"*", written as browsers send them (no path, no slash at the end, "xn--…" for names that are not ASCII), '
            f"not {value!r}"
        )


def _check_proxies(name: str, value: Any) -> None:
    try:
        if isinstance(value, str) or not all(isinstance(each, str) for each in value):
            raise ValueError
        for each in value:
            ipaddress.ip_network(each)
    except (TypeError, ValueError):
        raise ImproperlyConfigured(
            f'{name} must be a list of addresses and networks such as "10.0.0.0/8", not {value!r}'
        ) from None


def _check_facilities(name: str, value: Any) -> None:
    if not isinstance(value, dict) or not all(
        isinstance(pattern, str) and isinstance(options, dict) for pattern, options in value.items()
    ):
        raise ImproperlyConfigured(f"{name} must be a dictionary of patterns to dictionaries, not {value!r}")
    for pattern, options in value.items():
        unknown = set(options) - set(FACILITY_DEFAULTS)
        if unknown:
            raise ImproperlyConfigured(
                f"{name}[{pattern!r}] has no option {sorted(unknown)}; there are {list(FACILITY_DEFAULTS)}"
            )
        for key, given in options.items():
            where = f"{name}[{pattern!r}][{key!r}]"
            if type(FACILITY_DEFAULTS[key]) is bool:
                if type(given) is not bool:
                    raise ImproperlyConfigured(f"{where} must be True or False, not {given!r}")
            elif not (key == "size" and type(given) is int and given == 0):
                _check_integer(where, given)


# What browsers send for pages without an origin of their own: sandboxed frames, data: URLs and local files.
NAMELESS_ORIGINS = ("null", "file://")
# Scheme, host with perhaps a wildcard for its subdomains, and perhaps a port. A file has no host.
ORIGIN = re.compile(r"(?!file:)[a-z][a-z0-9+.-]*://(\*\.)?([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.IGNORECASE)

KINDS: dict[str, Callable[[str, Any], None]] = {
    "RATE_LIMIT": _check_rate,
    "TRUSTED_PROXIES": _check_proxies,
    "ALLOWED_ORIGINS": _check_origins,
    "FACILITIES": _check_facilities,
}


def websocket_url() -> str:
    """Return the path below which sockets live, ``WEBSOCKET_URL`` (default ``/ws/``, as in ws4redis)."""
    return getattr(settings, "WEBSOCKET_URL", "/ws/")


def uses_forwarded_host() -> bool:
    """Return whether Django takes a request's host from ``X-Forwarded-Host``: its setting ``USE_X_FORWARDED_HOST``."""
    return bool(settings.USE_X_FORWARDED_HOST)


def prefix() -> str:
    """Return what precedes every Redis key and channel: ``WS4REDIS_PREFIX`` and a colon, or nothing."""
    value = getattr(settings, "WS4REDIS_PREFIX", None)
    return f"{value}:" if value else ""


def expire() -> int:
    """Return how long a published message is kept as the last one, in seconds; 0 keeps none. Default: an hour."""
    return getattr(settings, "WS4REDIS_EXPIRE", 3600)


def heartbeat() -> bytes | None:
    """Return the text sent to every socket every 4 s, or None: ``WS4REDIS_HEARTBEAT``."""
    value = getattr(settings, "WS4REDIS_HEARTBEAT", None)
    return value.encode() if value else None


def subscriber_path() -> str:
    """Return the dotted path of the subscriber class, ``WS4REDIS_SUBSCRIBER``."""
    return str(getattr(settings, "WS4REDIS_SUBSCRIBER", "ws4redis.subscriber.RedisSubscriber"))


def session_store() -> Any:
    """Return the class of the site's sessions, that of ``SESSION_ENGINE``."""
    return importlib.import_module(settings.SESSION_ENGINE).SessionStore


def callback(name: str) -> Callable[..., Any] | None:
    """Return the function that the setting ``name`` holds or names by dotted path; None where it is unset.

    Raises:
        ImproperlyConfigured: if it cannot be imported or called. (ws4redis went on without the policy then.)
    """
    value = getattr(settings, name, None)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = import_string(value)
        except ImportError as exc:
            raise ImproperlyConfigured(f"{name} = {value!r} cannot be imported: {exc}") from exc
    if not callable(value):
        raise ImproperlyConfigured(f"{name} must be a function or the dotted path of one, not {value!r}")
    return value  # type: ignore[no-any-return]


def redis_options() -> dict[str, Any]:
    """Return ``WS4REDIS_CONNECTION`` as keyword arguments of a redis-py connection pool.

    The setting may be a URL (``redis://``, ``rediss://`` or ``unix://``) or a dictionary as ws4redis takes it:
    ``host``, ``port``, ``db``, ``password``, or ``unix_socket_path``, and ``ssl`` beside them. Instead of an address
    there may be ``sentinels`` and ``service_name``, or ``cluster`` with one; see :func:`redis_nodes`.

    Raises:
        ImproperlyConfigured: if it is neither, or the URL is not one of Redis.
    """
    given = getattr(settings, "WS4REDIS_CONNECTION", {"host": "localhost", "port": 6379, "db": 0})
    if isinstance(given, str):
        try:
            return dict(parse_url(given))
        except ValueError as exc:
            # The URL may hold a password: say what is wrong with it without showing it.
            raise ImproperlyConfigured(
                "WS4REDIS_CONNECTION is no URL of Redis; write redis://host:port/db, rediss://… (TLS) or unix:///path?db=0"
            ) from exc
    if not isinstance(given, dict):
        raise ImproperlyConfigured("WS4REDIS_CONNECTION must be a dictionary or a URL")
    options = dict(given)
    nodes = redis_nodes()
    for name in ("cluster", "startup_nodes"):
        options.pop(name, None)
    if nodes:
        options["host"], options["port"] = nodes[0]
        options.pop("db", None)
    if "unix_socket_path" in options:
        options["path"] = options.pop("unix_socket_path")
        options["connection_class"] = UnixDomainSocketConnection
    tls = options.pop("ssl", False)
    if tls:
        options["connection_class"] = SSLConnection
    if "sentinels" in options or "service_name" in options:
        _check_sentinels(options)
        sentinels = [tuple(each) for each in options.pop("sentinels")]
        kwargs = options.pop("sentinel_kwargs", None) or {}
        timeout = option("REDIS_TIMEOUT")
        options |= sentinel.connection_options(sentinels, options.pop("service_name"), timeout, kwargs, tls)
    return options


def redis_nodes() -> list[tuple[str, int]]:
    """Return host and port of the nodes of a Redis Cluster; none where ``WS4REDIS_CONNECTION`` is of no cluster.

    The setting has ``"cluster": True`` beside ``host`` and ``port``, or ``startup_nodes``: a list of such pairs.

    Raises:
        ImproperlyConfigured: if it has anything that a cluster does not have.
    """
    given = getattr(settings, "WS4REDIS_CONNECTION", None)
    if not isinstance(given, dict) or not (given.get("cluster") or "startup_nodes" in given):
        return []
    if given.get("cluster", True) is not True:
        raise ImproperlyConfigured('WS4REDIS_CONNECTION["cluster"] must be True, or be left out without a cluster')
    for name in ("sentinels", "service_name", "unix_socket_path"):
        if name in given:
            raise ImproperlyConfigured(f'WS4REDIS_CONNECTION is of a cluster; leave out "{name}"')
    if given.get("db"):
        raise ImproperlyConfigured('WS4REDIS_CONNECTION is of a cluster, which has database 0 only; leave out "db"')
    if "startup_nodes" not in given:
        return [(given.get("host", "localhost"), given.get("port", 6379))]
    _check_addresses("startup_nodes", given)
    return [(host, port) for host, port in given["startup_nodes"]]


def _check_sentinels(given: dict[str, Any]) -> None:
    _check_addresses("sentinels", given)
    name = given.get("service_name")
    if not isinstance(name, str) or not name:
        raise ImproperlyConfigured(
            'WS4REDIS_CONNECTION has sentinels; write the name they know the master by: "service_name": "mymaster"'
        )
    if not isinstance(given.get("sentinel_kwargs") or {}, dict):
        raise ImproperlyConfigured(
            'WS4REDIS_CONNECTION["sentinel_kwargs"] must be a dictionary, as {"password": …} of the sentinels'
        )
    if "path" in given:
        raise ImproperlyConfigured('WS4REDIS_CONNECTION has sentinels; leave out "unix_socket_path"')


def _check_addresses(name: str, given: dict[str, Any]) -> None:
    addresses = given.get(name)
    for other in ("host", "port"):
        if other in given:
            raise ImproperlyConfigured(f'WS4REDIS_CONNECTION has "{other}" and "{name}"; leave out one of them')
    if (
        not isinstance(addresses, (list, tuple))
        or not addresses
        or not all(
            isinstance(each, (list, tuple)) and [type(part) for part in each] == [str, int] for each in addresses
        )
    ):
        raise ImproperlyConfigured(
            f'WS4REDIS_CONNECTION["{name}"] must be a list of pairs of host and port: [("10.0.0.1", 6379), …]'
        )


def validate() -> None:
    """Read every setting once.

    Raises:
        ImproperlyConfigured: for the first one that is wrong.
    """
    for name in DEFAULTS:
        option(name)
    redis_options()
    for name in ("WS4REDIS_ALLOWED_CHANNELS", "WS4REDIS_PROCESS_REQUEST"):
        callback(name)


def adapt_ws4redis() -> None:
    """Let the stock ``ws4redis.publisher`` understand the forms of ``WS4REDIS_CONNECTION`` that only wsloop knows.

    It unpacks the setting into a connection pool while it is imported, which fails on a URL and on ``ssl``.
    """
    from ws4redis import settings as stock

    stock.WS4REDIS_CONNECTION = redis_options()
