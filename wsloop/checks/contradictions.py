"""Settings that are valid each by itself, but contradict each other or have no effect."""

from __future__ import annotations

import fnmatch
import importlib.util
from collections.abc import Iterator
from typing import Any

from wsloop import conf

CHANNELS_REDIS = "channels_redis.core.RedisChannelLayer"


def contradictions() -> Iterator[tuple[str, str]]:
    """Yield pairs of a contradiction and what to do about it. All settings must be valid."""
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
    yield from _facilities_without_effect()
    yield from _layers_that_give_up()


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
