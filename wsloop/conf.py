"""The settings of wsloop: the only module that reads them, but for ``WS4REDIS_CONNECTION``.

The names are those of django-websocket-redis, so that a site which moves over keeps its settings; new ones are options
of the dictionary ``WSLOOP`` (:mod:`wsloop.options`). A setting is read and checked once, and again when Django signals
a change (``override_settings`` in tests). This module must not know Redis, sockets or gevent.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from wsloop import kinds
from wsloop.kinds import or_none, whole
from wsloop.options import DEFAULTS, OPTIONS, OPTIONS_KIND, PLAIN, Facility, Option


@functools.cache
def _options() -> dict[str, Any]:
    return DEFAULTS | OPTIONS_KIND("WSLOOP", given())  # type: ignore[no-any-return]


def given() -> Any:
    """Return the dictionary ``WSLOOP`` as the site has it, unchecked."""
    return getattr(settings, "WSLOOP", {})


def option(name: str) -> Any:
    """Return one option of ``WSLOOP``, or its default.

    Raises:
        ImproperlyConfigured: if ``WSLOOP`` has an unknown option, or a value of the wrong kind.
    """
    return _options()[name]


def compress_from() -> float:
    """Return the size of the smallest message that is compressed, in bytes; infinity if compression is off."""
    smallest = option("COMPRESS_FROM")
    return float("inf") if smallest is None else float(smallest)


def facility(name: str) -> Facility:
    """Return the options of a facility, from the first pattern in ``WSLOOP["FACILITIES"]`` that matches its name."""
    for pattern, options in option("FACILITIES").items():
        if fnmatch.fnmatchcase(name, pattern):
            return options  # type: ignore[no-any-return]
    return PLAIN


# The settings of ws4redis.

MOST_HEARTBEAT = 1024  # bytes: it goes to every socket every 4 s


def _heartbeat(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise kinds.wrong(name, 'text such as "--heartbeat--", or None', value)
    if len(kinds.text(name, value).encode()) > MOST_HEARTBEAT:
        raise kinds.wrong(name, f"text of up to {MOST_HEARTBEAT} bytes", value)
    return value


def _subscriber(name: str, value: Any) -> str:
    if not isinstance(value, str) or "." not in value:
        raise kinds.wrong(name, 'the dotted path of a class, such as "mysite.sockets.Subscriber"', value)
    return value


def _session_engine(name: str, value: Any) -> Any:
    try:
        return importlib.import_module(value).SessionStore
    except Exception as exc:  # the code of the module included
        text = f"{name} = {value!r} is not a module with a SessionStore: {type(exc).__name__}: {exc}"
        raise ImproperlyConfigured(text) from exc


def _channel_layers(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
        raise kinds.wrong(
            name, 'a dictionary such as {"default": {"BACKEND": "wsloop.layers.RedisChannelLayer"}}', value
        )
    for alias, layer in value.items():
        if not isinstance(alias, str) or not re.fullmatch(r"[\w.-]+", alias):
            raise kinds.wrong(f"{name}: an alias", "text of letters, digits, hyphens, underscores and dots", alias)
        if not isinstance(layer.get("BACKEND"), str):
            raise kinds.wrong(f"{name}[{alias!r}]['BACKEND']", "the dotted path of a class", layer.get("BACKEND"))
        if layer["BACKEND"].startswith("wsloop.") and layer.get("CONFIG"):
            raise ImproperlyConfigured(
                f"{name}[{alias!r}] must have no CONFIG: all layers use the Redis of WS4REDIS_CONNECTION, with "
                "WS4REDIS_PREFIX; the capacity is WSLOOP['CHANNEL_CAPACITY']."
            )
    return {alias: layer["BACKEND"] for alias, layer in value.items()}


SETTINGS: dict[str, Option] = {
    "WEBSOCKET_URL": Option("/ws/", kinds.path),
    "WS4REDIS_PREFIX": Option(None, or_none(kinds.text)),
    "WS4REDIS_EXPIRE": Option(3600, whole(0, kinds.LONGEST)),
    "WS4REDIS_HEARTBEAT": Option(None, or_none(_heartbeat)),
    "WS4REDIS_SUBSCRIBER": Option("ws4redis.subscriber.RedisSubscriber", _subscriber),
    "WS4REDIS_ALLOWED_CHANNELS": Option(None, or_none(kinds.function("request", "channels"))),
    "WS4REDIS_PROCESS_REQUEST": Option(None, or_none(kinds.function("request"))),
    "CHANNEL_LAYERS": Option({}, _channel_layers),
    "SESSION_ENGINE": Option("django.contrib.sessions.backends.db", _session_engine),
}


@functools.cache
def _setting(name: str) -> Any:
    default, kind = SETTINGS[name]
    return kind(name, getattr(settings, name, default))


def websocket_url() -> str:
    """Return the path below which sockets are, ``WEBSOCKET_URL`` (default ``/ws/``, as in ws4redis)."""
    return _setting("WEBSOCKET_URL")  # type: ignore[no-any-return]


def uses_forwarded_host() -> bool:
    """Return whether Django takes a request's host from ``X-Forwarded-Host``: its setting ``USE_X_FORWARDED_HOST``."""
    return bool(settings.USE_X_FORWARDED_HOST)


def prefix() -> str:
    """Return the prefix of every Redis key and channel: ``WS4REDIS_PREFIX`` and a colon, or empty."""
    value = _setting("WS4REDIS_PREFIX")
    return f"{value}:" if value else ""


def expire() -> int:
    """Return for how long a published message is retained as the last one, in seconds; 0: not. Default: an hour."""
    return _setting("WS4REDIS_EXPIRE")  # type: ignore[no-any-return]


def heartbeat() -> bytes | None:
    """Return the text sent to every socket every 4 s, or None: ``WS4REDIS_HEARTBEAT``."""
    value = _setting("WS4REDIS_HEARTBEAT")
    return value.encode() if value else None


def subscriber_path() -> str:
    """Return the dotted path of the subscriber class, ``WS4REDIS_SUBSCRIBER``."""
    return _setting("WS4REDIS_SUBSCRIBER")  # type: ignore[no-any-return]


def channel_layers() -> dict[str, str]:
    """Return the aliases of Channels' setting ``CHANNEL_LAYERS``, each with the dotted path of its backend."""
    return _setting("CHANNEL_LAYERS")  # type: ignore[no-any-return]


def channel_layer_hosts(alias: str) -> list[Any]:
    """Return the hosts of a layer of ``channels_redis``, as they are in ``CHANNEL_LAYERS``; None is its default."""
    return list(settings.CHANNEL_LAYERS[alias].get("CONFIG", {}).get("hosts") or [None])


def session_store() -> Any:
    """Return the class of the site's sessions, that of ``SESSION_ENGINE``."""
    return _setting("SESSION_ENGINE")


def callback(name: str) -> Callable[..., Any] | None:
    """Return the function that the setting ``name`` holds or names by dotted path; None if it is not set.

    Raises:
        ImproperlyConfigured: if it cannot be imported or called. (ws4redis continued without the policy.)
    """
    return _setting(name)  # type: ignore[no-any-return]


def _forget(**kwargs: Any) -> None:
    _options.cache_clear()
    _setting.cache_clear()


setting_changed.connect(_forget, dispatch_uid="wsloop.conf")


def problems() -> Iterator[str]:
    """Yield a text for each setting of this module that cannot be used."""
    options = given()
    # Each option by itself, so that a wrong one does not hide the others.
    for part in [{key: value} for key, value in options.items()] if isinstance(options, dict) else [options]:
        try:
            OPTIONS_KIND("WSLOOP", part)
        except ImproperlyConfigured as exc:
            yield str(exc)
    for name in SETTINGS:
        try:
            _setting(name)
        except ImproperlyConfigured as exc:
            yield str(exc)


__all__ = [
    "DEFAULTS",
    "OPTIONS",
    "PLAIN",
    "SETTINGS",
    "Facility",
    "callback",
    "channel_layers",
    "compress_from",
    "expire",
    "facility",
    "given",
    "heartbeat",
    "option",
    "prefix",
    "problems",
    "session_store",
    "subscriber_path",
    "uses_forwarded_host",
    "websocket_url",
]
