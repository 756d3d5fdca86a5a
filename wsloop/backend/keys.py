"""Names of wsloop's own channels and keys in Redis; those of audiences are in :mod:`wsloop.addressees`.

This module must not connect to anything.
"""

from __future__ import annotations

import functools
import itertools
import re

from redis.crc import key_slot

from wsloop import conf
from wsloop.backend import redis_options

TAG = re.compile(rb"[^{]*\{[^}]+\}")  # a name with a hash tag of Redis Cluster, which alone determines the slot


def control_channel() -> bytes:
    """Return the name of the channel for notices about changed users, to which all workers of the site subscribe."""
    return f"{conf.prefix()}wsloop:control".encode()


def requests_channel() -> bytes:
    """Return the name of the channel for requests to all workers of the site; see :mod:`wsloop.backend.asking`."""
    return f"{conf.prefix()}wsloop:requests".encode()


def answers_channel(request: str) -> bytes:
    """Return the name of the channel for the answers to a request, by its id."""
    return f"{conf.prefix()}wsloop:answers:{request}".encode()


def history_keys(channel: bytes | str) -> tuple[bytes, bytes]:
    """Return the keys of a channel's history: that of the hash with its top, and that of the stream."""
    return _key(channel, b"meta"), _key(channel, b"history")


def once_key(channel: bytes | str, key: str) -> bytes:
    """Return the key that exists once a message with this idempotency key has been published in a channel."""
    return _key(channel, b"once") + b":" + key.encode()


def _key(channel: bytes | str, kind: bytes) -> bytes:
    name = channel if isinstance(channel, bytes) else channel.encode()
    return b"%bwsloop:%b:%b" % (conf.prefix().encode(), kind, _tagged(name))


@functools.lru_cache(maxsize=4096)
def _tagged(name: bytes) -> bytes:
    """Return a name with a hash tag that places keys with it in the slot of the name itself, in a Redis Cluster."""
    if TAG.match(name):
        return name
    if b"}" not in name or not redis_options.nodes():
        return b"{%b}" % name
    slot = key_slot(name)  # the brace in the name would end the tag too early: use any other tag of that slot
    return b"{%d}:%b" % (next(number for number in itertools.count() if key_slot(b"%d" % number) == slot), name)
