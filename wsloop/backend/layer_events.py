"""Events for consumers in Redis: how they are encoded, and the names of keys and channels.

This module must not know which consumers there are.
"""

from __future__ import annotations

import re
from typing import Any

import msgpack

from wsloop import conf
from wsloop.exceptions import MessageTooLarge
from wsloop.protocol.consumer_events import Event

DEFAULT_CHANNEL_LAYER = "default"
MAX_SIZE = 1024 * 1024  # bytes of an event, as all layers of Channels carry
MAX_NAME = 100  # characters of a group's name, as in Channels
CHANNEL = re.compile(r"specific\.([0-9a-f]+)![0-9a-f]+")


def encode(message: Any) -> bytes:
    """Return an event as bytes.

    Raises:
        TypeError: if it is not a dictionary, or has a value that MessagePack cannot encode.
        ValueError: if it has no type. Which types name a method is the business of the receiver, as in Channels.
        MessageTooLarge: if it is larger than :data:`MAX_SIZE`.
    """
    if not isinstance(message, dict):
        raise TypeError(f"a message of the channel layer must be a dictionary, not {message!r}")
    if not isinstance(message.get("type"), str) or not message["type"]:
        raise ValueError('a message of the channel layer needs a "type", the name of the method that handles it')
    try:
        payload: bytes = msgpack.packb(message)
        decode(payload)  # some keys can be packed but not unpacked
    except (OverflowError, TypeError, ValueError) as exc:
        raise TypeError(f"the channel layer cannot encode this message: {exc}") from None
    if len(payload) > MAX_SIZE:
        raise MessageTooLarge(f"a message of the channel layer may have {MAX_SIZE} bytes, this one has {len(payload)}")
    return payload


def decode(payload: bytes) -> Event:
    """Return the event that :func:`encode` made into bytes."""
    return msgpack.unpackb(payload, strict_map_key=False)  # type: ignore[no-any-return]


def group_channel(group: str, alias: str = DEFAULT_CHANNEL_LAYER) -> bytes:
    """Return the Redis channel of a group of the layer with this alias.

    Raises:
        TypeError: if the name is invalid.
    """
    if not isinstance(group, str) or not 0 < len(group) <= MAX_NAME:
        raise TypeError(f"the name of a group must be text of 1 to {MAX_NAME} characters, not {group!r}")
    try:
        layer = "" if alias == DEFAULT_CHANNEL_LAYER else f"/{alias}"  # an alias has no colon
        return f"{conf.prefix()}wsloop:group{layer}:{group}".encode()
    except UnicodeEncodeError:
        raise TypeError(f"the name of a group must be text that UTF-8 can encode, not {group!r}") from None


def worker_channel(worker: str) -> bytes:
    """Return the Redis channel of a worker."""
    return f"{conf.prefix()}wsloop:worker:{worker}".encode()


def full_key(channel: str) -> str:
    """Return the key that exists while a consumer is full."""
    return f"{conf.prefix()}wsloop:full:{channel}"


def worker_of(channel: str) -> str:
    """Return the worker of a consumer, which its ``channel_name`` names.

    Raises:
        TypeError: if it is not the name of one.
    """
    match = CHANNEL.fullmatch(channel) if isinstance(channel, str) else None
    if match is None:
        raise TypeError(f"a channel must be the channel_name of a consumer, not {channel!r}")
    return match[1]


__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "MAX_NAME",
    "MAX_SIZE",
    "decode",
    "encode",
    "full_key",
    "group_channel",
    "worker_channel",
    "worker_of",
]
