"""The settings of wsloop: the only module that reads them.

All are options of the dictionary ``WSLOOP`` (:mod:`wsloop.options`). Where ``WSLOOP`` does not have an option, the
setting of ws4redis counts that it stands for, so that a site which moves over keeps its settings. A setting is read and
checked once, and again when Django signals a change (``override_settings`` in tests). This module must not know Redis,
sockets or gevent.
"""

from __future__ import annotations

import difflib
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
from wsloop.options import ALIASES, DEFAULTS, OPTIONS, PLAIN, Facility, Option

# Of difflib: WSLOPP is as near to WSLOOP, and SLOP is not. Long names of a site's own may begin as ws4redis's do.
ALIKE, NEARLY_EQUAL = 0.82, 0.93

_known = kinds.dictionary(dict.fromkeys(OPTIONS, kinds.anything))


@functools.cache
def option(name: str) -> Any:
    """Return one option of ``WSLOOP``, or its default.

    Raises:
        ImproperlyConfigured: if ``WSLOOP`` has an unknown option, or this one has a value of the wrong kind: a POLICY
            or PROCESS_REQUEST that cannot be imported, too. (ws4redis continued without the policy.)
    """
    _known("WSLOOP", given())
    return _checked(name)


def _checked(name: str) -> Any:
    return OPTIONS[name].kind(name_of(name), unchecked(name))


def given() -> Any:
    """Return the dictionary ``WSLOOP`` as the site has it, unchecked."""
    return getattr(settings, "WSLOOP", {})


def unchecked(name: str) -> Any:
    """Return the value of an option as the site has it, or its default."""
    if _has(name):
        return given()[name]
    return getattr(settings, ALIASES[name], DEFAULTS[name]) if name in ALIASES else DEFAULTS[name]


def name_of(name: str) -> str:
    """Return what an error calls an option: the setting of ws4redis if that is the one which the site has."""
    if name in ALIASES and not _has(name) and hasattr(settings, ALIASES[name]):
        return ALIASES[name]
    return f"WSLOOP[{name!r}]"


def _has(name: str) -> bool:
    options = given()
    return isinstance(options, dict) and name in options


def compress_from() -> float:
    """Return the size of the smallest message that is compressed, in bytes; infinity if compression is off."""
    smallest = option("COMPRESS_FROM")
    return float("inf") if smallest is None else float(smallest)


def facility(name: str) -> Facility:
    """Return the options of a facility, from the first pattern in ``WSLOOP["FACILITIES"]`` that matches its name."""
    return _matching(name)[1]


OTHER = "other"


def _matching(name: str) -> tuple[str, Facility]:
    for pattern, options in option("FACILITIES").items():
        if fnmatch.fnmatchcase(name, pattern):
            return pattern, options
    return OTHER, PLAIN


@functools.lru_cache(maxsize=4096)
def facility_pattern(name: str) -> str:
    """Return the pattern in ``WSLOOP["FACILITIES"]`` that a facility has its options from, :data:`OTHER` without one.

    There are few patterns, and any number of facilities.
    """
    return _matching(name)[0]


# The settings of Django and of Channels.


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
                f"{name}[{alias!r}] must have no CONFIG: all layers use the Redis of {name_of('REDIS')}, with "
                f"{name_of('PREFIX')}; the capacity is WSLOOP['CHANNEL_CAPACITY']."
            )
    return {alias: layer["BACKEND"] for alias, layer in value.items()}


SETTINGS: dict[str, Option] = {
    "CHANNEL_LAYERS": Option({}, _channel_layers),
    "SESSION_ENGINE": Option("django.contrib.sessions.backends.db", _session_engine),
}


@functools.cache
def _setting(name: str) -> Any:
    default, kind = SETTINGS[name]
    return kind(name, getattr(settings, name, default))


def websocket_url() -> str:
    """Return the path below which sockets are: the option ``URL``, by default ``/ws/``."""
    return option("URL")  # type: ignore[no-any-return]


def uses_forwarded_host() -> bool:
    """Return whether Django takes a request's host from ``X-Forwarded-Host``: its setting ``USE_X_FORWARDED_HOST``."""
    return bool(settings.USE_X_FORWARDED_HOST)


def debug() -> bool:
    """Return whether this is a site in development, which is told of mistakes that pass in silence: ``DEBUG``."""
    return bool(settings.DEBUG)


@functools.cache
def prefix() -> str:
    """Return the prefix of every Redis key and channel: the option ``PREFIX`` and a colon, or empty."""
    value = option("PREFIX")
    return f"{value}:" if value else ""


def expire() -> int:
    """Return for how long a published message is retained as the last one, in seconds; 0: not. Default: an hour."""
    return option("EXPIRE")  # type: ignore[no-any-return]


def heartbeat() -> bytes | None:
    """Return the text sent every 4 s to every socket without ``wsloop.v1``, or None: the option ``HEARTBEAT``."""
    value = option("HEARTBEAT")
    return value.encode() if value else None


def subscriber_path() -> str:
    """Return the dotted path of the subscriber class: the option ``SUBSCRIBER``."""
    return option("SUBSCRIBER")  # type: ignore[no-any-return]


def channel_layers() -> dict[str, str]:
    """Return the aliases of Channels' setting ``CHANNEL_LAYERS``, each with the dotted path of its backend."""
    return _setting("CHANNEL_LAYERS")  # type: ignore[no-any-return]


def channel_layer_hosts(alias: str) -> list[Any]:
    """Return the hosts of a layer of ``channels_redis``, as they are in ``CHANNEL_LAYERS``; None is its default."""
    return list(settings.CHANNEL_LAYERS[alias].get("CONFIG", {}).get("hosts") or [None])


def session_store() -> Any:
    """Return the class of the site's sessions, that of ``SESSION_ENGINE``."""
    return _setting("SESSION_ENGINE")


def session_cookie() -> str:
    """Return the name of the cookie with the key of a session, ``SESSION_COOKIE_NAME``."""
    return str(settings.SESSION_COOKIE_NAME)


def authentication_backends() -> list[str]:
    """Return the paths of the classes that find users, ``AUTHENTICATION_BACKENDS``."""
    return list(settings.AUTHENTICATION_BACKENDS)


def _forget(**kwargs: Any) -> None:
    option.cache_clear()
    _setting.cache_clear()
    prefix.cache_clear()
    facility_pattern.cache_clear()


setting_changed.connect(_forget, dispatch_uid="wsloop.conf")


def problems() -> Iterator[str]:
    """Yield a text for each setting of this module that cannot be used."""
    readers: list[Callable[[], Any]] = [lambda: _known("WSLOOP", given())]
    # Each option by itself, so that a wrong one does not hide the others.
    readers += [functools.partial(_checked, name) for name in OPTIONS]
    readers += [functools.partial(_setting, name) for name in SETTINGS]
    for read in readers:
        try:
            read()
        except ImproperlyConfigured as exc:
            yield str(exc)
    for name, alias in ALIASES.items():
        if _has(name) and hasattr(settings, alias) and getattr(settings, alias) != given()[name]:
            yield (
                f"WSLOOP[{name!r}] and {alias} are two names of one setting, and have different values: "
                f"WSLOOP[{name!r}] counts. Remove {alias}, or give both the same value."
            )


def mistyped() -> Iterator[tuple[str, str]]:
    """Yield settings of the site that nothing reads, each with the name that was meant, perhaps."""
    for name in dir(settings):
        if name.isupper() and name not in ("WSLOOP", *ALIASES.values()):
            near = difflib.get_close_matches(name, ["WSLOOP"], 1, ALIKE)
            near = near or difflib.get_close_matches(name, ALIASES.values(), 1, NEARLY_EQUAL)
            if near:
                yield name, near[0]


__all__ = [
    "ALIASES",
    "DEFAULTS",
    "OPTIONS",
    "PLAIN",
    "SETTINGS",
    "Facility",
    "channel_layer_hosts",
    "channel_layers",
    "compress_from",
    "debug",
    "expire",
    "facility",
    "facility_pattern",
    "given",
    "heartbeat",
    "mistyped",
    "name_of",
    "option",
    "prefix",
    "problems",
    "session_cookie",
    "session_store",
    "subscriber_path",
    "unchecked",
    "uses_forwarded_host",
    "websocket_url",
]
