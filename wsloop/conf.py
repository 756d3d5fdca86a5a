"""The settings of wsloop: the only module that reads them, each default beside its reason.

The names are those of django-websocket-redis, so that a site which moves over keeps its settings; what is new lives in
the dictionary ``WSLOOP``. Values are read when they are asked for, so ``override_settings`` works in tests. This module
must not know Redis commands, sockets or gevent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from redis.connection import SSLConnection, UnixDomainSocketConnection, parse_url

DEFAULTS: dict[str, float] = {
    # Largest message taken from a client, in bytes, over all of its fragments: that of Centrifugo and AnyCable.
    "MAX_MESSAGE_SIZE": 64 * 1024,
    # Output that may wait for one client, in bytes, before it is closed as too slow: 1 MiB bounds 1,000 stuck clients
    # to 1 GiB, and holds some thousand notifications.
    "MAX_QUEUED_BYTES": 1024 * 1024,
    # Seconds without a sign of life after which the server pings: below the 60 s after which uWSGI's http router, nginx
    # and most load balancers cut a silent line, twice.
    "PING_INTERVAL": 25,
    # Seconds a client has to answer a close frame and to hang up: slow phones manage, and stuck ones do not pile up.
    "CLOSE_TIMEOUT": 10,
    # Seconds until Redis must have answered, for a handshake as for a view that publishes.
    "REDIS_TIMEOUT": 5,
}


def option(name: str) -> float:
    """Return one option of the dictionary ``WSLOOP``, or its default.

    Raises:
        ImproperlyConfigured: if ``WSLOOP`` has a key that does not exist, or a value that is not a positive number.
    """
    given: dict[str, Any] = getattr(settings, "WSLOOP", {})
    unknown = set(given) - set(DEFAULTS)
    if unknown:
        raise ImproperlyConfigured(f"WSLOOP has no option {sorted(unknown)}; there are {list(DEFAULTS)}")
    value = given.get(name, DEFAULTS[name])
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise ImproperlyConfigured(f"WSLOOP[{name!r}] must be a positive number, not {value!r}")
    return value


def websocket_url() -> str:
    """Return the path below which sockets live, ``WEBSOCKET_URL`` (default ``/ws/``, as in ws4redis)."""
    return getattr(settings, "WEBSOCKET_URL", "/ws/")


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
    ``host``, ``port``, ``db``, ``password``, or ``unix_socket_path``, and ``ssl`` beside them.

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
    if "unix_socket_path" in options:
        options["path"] = options.pop("unix_socket_path")
        options["connection_class"] = UnixDomainSocketConnection
    if options.pop("ssl", False):
        options["connection_class"] = SSLConnection
    return options


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
