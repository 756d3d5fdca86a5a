"""Settings that are valid each by itself, but contradict each other or have no effect."""

from __future__ import annotations

import fnmatch
import importlib.util
from collections.abc import Iterator
from typing import Any

from wsloop import conf
from wsloop.backend import redis_options

CHANNELS_REDIS = "channels_redis.core.RedisChannelLayer"
MUCH = 1024**3  # bytes of Redis for the history of one channel


def contradictions() -> Iterator[tuple[str, str]]:
    """Yield pairs of a contradiction and what to do about it. All settings must be valid."""
    for name, meant in conf.mistyped():
        yield (
            f"the setting {name} has no effect: wsloop reads {meant}.",
            f"Call it {meant} if that was meant; else name wsloop.W014 in SILENCED_SYSTEM_CHECKS.",
        )
    if conf.option("PING_TIMEOUT") > conf.option("PING_INTERVAL"):
        yield (
            f"PING_TIMEOUT ({conf.option('PING_TIMEOUT')} s) is longer than PING_INTERVAL "
            f"({conf.option('PING_INTERVAL')} s): a client must have answered before the next ping, so PING_INTERVAL "
            "is what counts.",
            "Set PING_TIMEOUT of WSLOOP to PING_INTERVAL or less.",
        )
    if conf.option("HANDSHAKE_TIMEOUT") <= conf.option("REDIS_TIMEOUT"):
        yield (
            f"HANDSHAKE_TIMEOUT ({conf.option('HANDSHAKE_TIMEOUT')} s) is not longer than REDIS_TIMEOUT "
            f"({conf.option('REDIS_TIMEOUT')} s): handshakes that wait for Redis fail before Redis is given up.",
            "Set HANDSHAKE_TIMEOUT of WSLOOP to twice REDIS_TIMEOUT.",
        )
    if conf.option("MAX_MESSAGE_SIZE") > conf.option("MAX_QUEUED_BYTES"):
        yield (
            f"MAX_MESSAGE_SIZE ({conf.option('MAX_MESSAGE_SIZE')} bytes) is larger than MAX_QUEUED_BYTES "
            f"({conf.option('MAX_QUEUED_BYTES')} bytes): two such messages in a row close every socket that receives "
            "them with 4008.",
            "Set MAX_QUEUED_BYTES of WSLOOP to twice MAX_MESSAGE_SIZE or more: a client that does not read may take up "
            "that much memory.",
        )
    yield from _timeouts()
    yield from _limits_without_effect()
    yield from _histories()
    yield from _facilities_without_effect()
    yield from _layers_that_give_up()


def _timeouts() -> Iterator[tuple[str, str]]:
    handshake, blocked = conf.option("HANDSHAKE_TIMEOUT"), conf.option("BLOCKED_AFTER")
    for name in ("socket_timeout", "socket_connect_timeout", "timeout"):
        seconds = redis_options.connection().get(name)
        if seconds is not None and seconds >= handshake:
            yield (
                f"{conf.name_of('REDIS')} has {name} ({seconds} s), which is not shorter than HANDSHAKE_TIMEOUT "
                f"({handshake} s): handshakes that wait for Redis fail before Redis is given up.",
                f"Leave {name} out, or set HANDSHAKE_TIMEOUT of WSLOOP to twice as much.",
            )
    for name in ("REDIS_TIMEOUT", "PING_TIMEOUT"):
        if blocked is not None and blocked >= conf.option(name):
            yield (
                f"BLOCKED_AFTER ({blocked} s) is not shorter than {name} ({conf.option(name)} s): an event loop that "
                "is held up ends sockets or commands before the log says what holds it up.",
                f"Set BLOCKED_AFTER of WSLOOP to less than {name}; the default is {conf.DEFAULTS['BLOCKED_AFTER']} s.",
            )


def _limits_without_effect() -> Iterator[tuple[str, str]]:
    most = conf.option("MAX_CONNECTIONS")
    for name in ("MAX_CONNECTIONS_PER_USER", "MAX_CONNECTIONS_PER_ADDRESS"):
        one = conf.option(name)
        if most is not None and one is not None and one >= most:
            yield (
                f"{name} ({one}) is not less than MAX_CONNECTIONS ({most}): one visitor can take all sockets of a "
                "worker.",
                f"Set {name} of WSLOOP to a small part of MAX_CONNECTIONS.",
            )
    commands, frames = conf.option("COMMAND_RATE"), conf.option("RATE_LIMIT")
    if commands is not None and frames is not None and commands[0] > frames[0]:
        yield (
            f"COMMAND_RATE ({commands[0]} a second) is more than RATE_LIMIT ({frames[0]} a second): each command is a "
            "frame, so a client that sends that many is closed with 4029 before its commands wait.",
            "Set the first number of COMMAND_RATE of WSLOOP to less than that of RATE_LIMIT.",
        )
    if conf.option("CLIENTS_MAY_PUBLISH") and conf.option("POLICY") is not None:
        yield (
            f"CLIENTS_MAY_PUBLISH has no effect beside {conf.name_of('POLICY')}: the policy decides who may publish.",
            "Remove CLIENTS_MAY_PUBLISH from WSLOOP, and let the policy return the names that begin with publish-.",
        )
    compress_from, queued = conf.option("COMPRESS_FROM"), conf.option("MAX_QUEUED_BYTES")
    if compress_from is not None and compress_from > queued:
        yield (
            f"COMPRESS_FROM ({compress_from} bytes) is larger than MAX_QUEUED_BYTES ({queued} bytes): no message is "
            "compressed that could wait for a client.",
            "Set COMPRESS_FROM of WSLOOP to a smaller number, or to None, so that nothing negotiates compression.",
        )


def _histories() -> Iterator[tuple[str, str]]:
    unnoticed = conf.option("PING_INTERVAL") + min(conf.option("PING_TIMEOUT"), conf.option("PING_INTERVAL"))
    largest = conf.option("MAX_MESSAGE_SIZE")
    for pattern, options in conf.option("FACILITIES").items():
        if options.recovers and options.ttl < unnoticed:
            yield (
                f"FACILITIES[{pattern!r}] keeps its history for {options.ttl} s, and it takes up to {unnoticed} s "
                "until a dead connection is noticed (PING_INTERVAL and PING_TIMEOUT): then nothing is left to recover.",
                f'Set "ttl" to more than {unnoticed}, the longest absence that a page may recover from.',
            )
        if options.size * largest > MUCH:
            yield (
                f"FACILITIES[{pattern!r}] keeps {options.size} messages of up to MAX_MESSAGE_SIZE ({largest} bytes): "
                f"the history of one channel may take {options.size * largest / MUCH:.1f} GiB of Redis.",
                'Set a smaller "size", or a smaller MAX_MESSAGE_SIZE of WSLOOP.',
            )
        if conf.option("COMPRESS_FROM") is None and conf.given()["FACILITIES"][pattern].get("compression"):
            yield (
                f"FACILITIES[{pattern!r}] has compression, but COMPRESS_FROM is None: nothing is compressed.",
                "Set COMPRESS_FROM of WSLOOP to a number of bytes, or remove compression.",
            )


def _layers_that_give_up() -> Iterator[tuple[str, str]]:
    for alias, backend in conf.channel_layers().items():
        if backend != CHANNELS_REDIS or importlib.util.find_spec("channels_redis") is None:
            continue
        if not all(_has_timeout(host) for host in conf.channel_layer_hosts(alias)):
            yield (
                f"CHANNEL_LAYERS[{alias!r}]: channels_redis waits 5 s in one command, and redis-py 8 takes a connection"
                " for dead after 5 s. So a consumer of Channels fails when it gets no event for so long.",
                'Write each of its hosts as {"address": "redis://…", "socket_timeout": None}.',
            )


def _has_timeout(host: Any) -> bool:
    return "socket_timeout" in host if isinstance(host, (dict, str)) else False


def _facilities_without_effect() -> Iterator[tuple[str, str]]:
    given = conf.given().get("FACILITIES", {})
    for number, (pattern, options) in enumerate(given.items()):
        before = next((each for each in list(given)[:number] if _covers(each, pattern)), None)
        if before is not None:
            yield (
                f"FACILITIES has {pattern!r} behind {before!r}, which matches the same names: the first that matches "
                f"counts, so the options of {pattern!r} never do.",
                f"Write {pattern!r} before {before!r}.",
            )
        unused = [name for name in ("ttl", "recover") if name in options and not options.get("size")]
        if unused:
            yield (
                f"FACILITIES[{pattern!r}] has {' and '.join(unused)} but no size: no messages are kept.",
                f'Add "size", the number of messages to keep of each channel, or remove {" and ".join(unused)}.',
            )


def _covers(pattern: str, other: str) -> bool:
    """Return whether ``pattern`` matches all names that ``other`` matches, as far as a simple comparison shows."""
    everything = bool(pattern) and not pattern.strip("*")
    return everything or (not set("*?[") & set(other) and fnmatch.fnmatchcase(other, pattern))
