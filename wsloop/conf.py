"""The settings of wsloop: the only module that reads them, but for ``WS4REDIS_CONNECTION``.

The names are those of django-websocket-redis, so that a site which moves over keeps its settings; what is new lives in
the dictionary ``WSLOOP``. Each setting has a kind, which checks it, and a default beside its reason. A setting is read
and checked once, and again when Django says that it has changed (``override_settings`` in tests). This module must not
know Redis, sockets or gevent.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from wsloop import kinds
from wsloop.kinds import Kind, or_none, seconds, whole


class Option(NamedTuple):
    """One key of ``WSLOOP``: its default, and what values it may have."""

    default: Any
    kind: Kind


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


PLAIN = Facility()

_facility_options = kinds.dictionary(
    {
        "size": whole(0, kinds.LONGEST),
        "ttl": whole(1, kinds.LONGEST),
        **dict.fromkeys(("recover", "latest_only", "presence", "compression"), kinds.yes_or_no),
    }
)


def _facilities(name: str, value: Any) -> dict[str, Facility]:
    if not isinstance(value, dict) or not all(
        isinstance(pattern, str) and isinstance(options, dict) for pattern, options in value.items()
    ):
        raise kinds.wrong(name, "a dictionary of patterns to dictionaries", value)
    for pattern in value:
        if pattern.startswith("/"):
            raise ImproperlyConfigured(
                f"{name} has the pattern {pattern!r}, which no facility matches: the name of a facility is what "
                f"comes behind WEBSOCKET_URL. Write {pattern.lstrip('/')!r}."
            )
    return {
        pattern: Facility(**_facility_options(f"{name}[{pattern!r}]", options)) for pattern, options in value.items()
    }


OPTIONS: dict[str, Option] = {
    # What a client sends.
    # Largest message taken from a client, in bytes, over all of its fragments, decompressed: that of Centrifugo and
    # AnyCable. Redis takes 512 MiB.
    "MAX_MESSAGE_SIZE": Option(64 * 1024, whole(most=512 * 1024 * 1024)),
    # Frames a second taken from a client in the long run, and at once: a drawing page sends one for each animation
    # frame, 60 a second. None: any number.
    "RATE_LIMIT": Option((100, 200), or_none(kinds.rate)),
    # Largest header of a handshake, and largest query string, in bytes: the longest real ones have some hundred, with
    # a token in it.
    "MAX_HEADER_SIZE": Option(4096, whole(least=256)),
    # Longest facility, in bytes: it is part of the names of up to four channels, kept as long as the socket is open.
    "MAX_FACILITY_SIZE": Option(255, whole()),
    # What waits for a client.
    # Output that may wait for one client, in bytes, before it is closed as too slow: 1 MiB bounds 1,000 stuck clients
    # to 1 GiB, and holds some thousand notifications.
    "MAX_QUEUED_BYTES": Option(1024 * 1024, whole()),
    # Events of the channel layer that wait for one consumer, before more are dropped: ten times what Channels holds,
    # for a burst reaches all of a worker's consumers before the first of them can run. Not more than MAX_QUEUED_BYTES.
    "CHANNEL_CAPACITY": Option(1000, whole()),
    # How many there may be. All are counted by each worker for itself; None: any number.
    # Sockets of one worker, closing ones included. Three quarters of its descriptors are the limit where that is less,
    # so that the site goes on answering.
    "MAX_CONNECTIONS": Option(25_000, or_none(whole())),
    # Sockets of one user: many tabs on many devices.
    "MAX_CONNECTIONS_PER_USER": Option(100, or_none(whole())),
    # Sockets of one address: an office, a school, or many phones behind one gateway.
    "MAX_CONNECTIONS_PER_ADDRESS": Option(500, or_none(whole())),
    # Addresses and networks whose X-Forwarded-For is believed: none, for a client can send that header too.
    "TRUSTED_PROXIES": Option((), kinds.networks),
    # How long things may take, in seconds.
    # From the request to the 101: above REDIS_TIMEOUT, below the patience of proxies and people.
    "HANDSHAKE_TIMEOUT": Option(10, seconds),
    # Between two pings to a socket: half of the 60 s after which uWSGI's http router, nginx and most load balancers cut
    # a silent line. More often costs more: the pings of 15,000 idle sockets are nearly all that these cost. Connections
    # are parted into as many portions.
    "PING_INTERVAL": Option(30, whole(most=3600)),
    # For the answer to a ping: as much as Socket.IO grants; phones that wake up need some.
    "PING_TIMEOUT": Option(20, whole(most=3600)),
    # For the answer to a close frame and the end of the line: slow phones manage, and stuck ones do not pile up.
    "CLOSE_TIMEOUT": Option(10, seconds),
    # Until Redis must have answered, for a handshake as for a view that publishes.
    "REDIS_TIMEOUT": Option(5, seconds),
    # For a handler of a consumer to go on after its client has left: as much as Channels' daphne grants.
    "HANDLER_TIMEOUT": Option(10, seconds),
    # What is sent.
    # Smallest message that is compressed for clients which can take it, in bytes: below, compressing costs more than a
    # packet saves. None: nothing is compressed in either direction.
    "COMPRESS_FROM": Option(1024, or_none(whole())),
    # Who may open sockets.
    # Pages of other sites: none, for a browser sends the user's cookies with whatever a page opens.
    "ALLOWED_ORIGINS": Option((), kinds.origins),
    # Options of facilities: patterns of their names, as in shells, to dictionaries; the first that matches counts.
    "FACILITIES": Option({}, _facilities),
}
DEFAULTS: dict[str, Any] = {name: option.default for name, option in OPTIONS.items()}

_options_kind = kinds.dictionary({name: option.kind for name, option in OPTIONS.items()})


@functools.cache
def _options() -> dict[str, Any]:
    given: dict[str, Any] = _options_kind("WSLOOP", getattr(settings, "WSLOOP", {}))
    return DEFAULTS | given


def option(name: str) -> Any:
    """Return one option of the dictionary ``WSLOOP``, or its default.

    Raises:
        ImproperlyConfigured: if ``WSLOOP`` has a key that does not exist, or a value of the wrong kind.
    """
    return _options()[name]


def compress_from() -> float:
    """Return the size of the smallest message that is compressed, in bytes; infinity where none is."""
    smallest = option("COMPRESS_FROM")
    return float("inf") if smallest is None else float(smallest)


def facility(name: str) -> Facility:
    """Return the options of one facility, from the first pattern in ``WSLOOP["FACILITIES"]`` that matches it."""
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
        text = f"{name} = {value!r} is no module with a SessionStore: {type(exc).__name__}: {exc}"
        raise ImproperlyConfigured(text) from exc


SETTINGS: dict[str, Option] = {
    "WEBSOCKET_URL": Option("/ws/", kinds.path),
    "WS4REDIS_PREFIX": Option(None, or_none(kinds.text)),
    "WS4REDIS_EXPIRE": Option(3600, whole(0, kinds.LONGEST)),
    "WS4REDIS_HEARTBEAT": Option(None, or_none(_heartbeat)),
    "WS4REDIS_SUBSCRIBER": Option("ws4redis.subscriber.RedisSubscriber", _subscriber),
    "WS4REDIS_ALLOWED_CHANNELS": Option(None, or_none(kinds.function("request", "channels"))),
    "WS4REDIS_PROCESS_REQUEST": Option(None, or_none(kinds.function("request"))),
    "SESSION_ENGINE": Option("django.contrib.sessions.backends.db", _session_engine),
}


@functools.cache
def _setting(name: str) -> Any:
    default, kind = SETTINGS[name]
    return kind(name, getattr(settings, name, default))


def websocket_url() -> str:
    """Return the path below which sockets live, ``WEBSOCKET_URL`` (default ``/ws/``, as in ws4redis)."""
    return _setting("WEBSOCKET_URL")  # type: ignore[no-any-return]


def uses_forwarded_host() -> bool:
    """Return whether Django takes a request's host from ``X-Forwarded-Host``: its setting ``USE_X_FORWARDED_HOST``."""
    return bool(settings.USE_X_FORWARDED_HOST)


def prefix() -> str:
    """Return what precedes every Redis key and channel: ``WS4REDIS_PREFIX`` and a colon, or nothing."""
    value = _setting("WS4REDIS_PREFIX")
    return f"{value}:" if value else ""


def expire() -> int:
    """Return how long a published message is kept as the last one, in seconds; 0 keeps none. Default: an hour."""
    return _setting("WS4REDIS_EXPIRE")  # type: ignore[no-any-return]


def heartbeat() -> bytes | None:
    """Return the text sent to every socket every 4 s, or None: ``WS4REDIS_HEARTBEAT``."""
    value = _setting("WS4REDIS_HEARTBEAT")
    return value.encode() if value else None


def subscriber_path() -> str:
    """Return the dotted path of the subscriber class, ``WS4REDIS_SUBSCRIBER``."""
    return _setting("WS4REDIS_SUBSCRIBER")  # type: ignore[no-any-return]


def session_store() -> Any:
    """Return the class of the site's sessions, that of ``SESSION_ENGINE``."""
    return _setting("SESSION_ENGINE")


def callback(name: str) -> Callable[..., Any] | None:
    """Return the function that the setting ``name`` holds or names by dotted path; None where it is unset.

    Raises:
        ImproperlyConfigured: if it cannot be imported or called. (ws4redis went on without the policy then.)
    """
    return _setting(name)  # type: ignore[no-any-return]


def _forget(**kwargs: Any) -> None:
    _options.cache_clear()
    _setting.cache_clear()


setting_changed.connect(_forget, dispatch_uid="wsloop.conf")


# All of them.


def problems() -> Iterator[str]:
    """Yield what is wrong with each setting of this module that cannot be used."""
    given = getattr(settings, "WSLOOP", {})
    # Each key by itself, so that one that is wrong does not hide the others.
    for part in [{key: value} for key, value in given.items()] if isinstance(given, dict) else [given]:
        try:
            _options_kind("WSLOOP", part)
        except ImproperlyConfigured as exc:
            yield str(exc)
    for name in SETTINGS:
        try:
            _setting(name)
        except ImproperlyConfigured as exc:
            yield str(exc)


def contradictions() -> Iterator[tuple[str, str]]:
    """Yield which settings, each of them valid, do not go together, as pairs of what happens and what to do."""
    if option("PING_TIMEOUT") > option("PING_INTERVAL"):
        yield (
            f"PING_TIMEOUT ({option('PING_TIMEOUT')} s) is longer than PING_INTERVAL ({option('PING_INTERVAL')} s): a "
            "client must have answered before it is asked again, so PING_INTERVAL is what counts.",
            "Set PING_TIMEOUT of WSLOOP to PING_INTERVAL or less.",
        )
    if option("HANDSHAKE_TIMEOUT") <= option("REDIS_TIMEOUT"):
        yield (
            f"HANDSHAKE_TIMEOUT ({option('HANDSHAKE_TIMEOUT')} s) is not longer than REDIS_TIMEOUT "
            f"({option('REDIS_TIMEOUT')} s): handshakes that wait for Redis are given up before Redis is.",
            "Set HANDSHAKE_TIMEOUT of WSLOOP to twice REDIS_TIMEOUT.",
        )
    if option("MAX_MESSAGE_SIZE") > option("MAX_QUEUED_BYTES"):
        yield (
            f"MAX_MESSAGE_SIZE ({option('MAX_MESSAGE_SIZE')} bytes) is larger than MAX_QUEUED_BYTES "
            f"({option('MAX_QUEUED_BYTES')} bytes): two such messages, one right behind the other, close every socket "
            "that gets them with 4008.",
            "Set MAX_QUEUED_BYTES of WSLOOP to twice MAX_MESSAGE_SIZE or more: so much memory a client that does not "
            "read may take.",
        )
    yield from _facilities_in_vain()


def _facilities_in_vain() -> Iterator[tuple[str, str]]:
    given = getattr(settings, "WSLOOP", {}).get("FACILITIES", {})
    for number, (pattern, options) in enumerate(given.items()):
        before = next((each for each in list(given)[:number] if _covers(each, pattern)), None)
        if before is not None:
            yield (
                f"FACILITIES has {pattern!r} behind {before!r}, which matches the same names: the first that matches "
                f"counts, so the options of {pattern!r} never do.",
                f"Write {pattern!r} before {before!r}.",
            )
        vain = [name for name in ("ttl", "recover") if name in options and not options.get("size")]
        if vain:
            yield (
                f"FACILITIES[{pattern!r}] has {' and '.join(vain)} but no size: no messages are kept.",
                f'Add "size", the number of messages to keep of each channel, or remove {" and ".join(vain)}.',
            )


def _covers(pattern: str, other: str) -> bool:
    """Tell whether all names that ``other`` matches are matched by ``pattern``, as far as that can be told simply."""
    everything = bool(pattern) and not pattern.strip("*")
    return everything or (not set("*?[") & set(other) and fnmatch.fnmatchcase(other, pattern))
