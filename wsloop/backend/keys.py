"""Names of channels and keys in Redis that are wsloop's own; those of audiences are in :mod:`wsloop.addressees`.

This module must not connect to anything.
"""

from __future__ import annotations

import functools
import itertools
import re

from redis.crc import key_slot

from wsloop import conf
from wsloop.backend import redis_options

TAG = re.compile(rb"[^{]*\{[^}]+\}")  # a name with what Redis Cluster takes for a hash tag: that alone counts


def control_channel() -> bytes:
    """Return the name of the channel on which all workers of the site are told about users; see ``access``."""
    return f"{conf.prefix()}wsloop:control".encode()


def history_keys(channel: bytes | str) -> tuple[bytes, bytes]:
    """Return the keys of a channel's history: of the hash with its top, and of the stream."""
    return _key(channel, b"meta"), _key(channel, b"history")


def _key(channel: bytes | str, kind: bytes) -> bytes:
    name = channel if isinstance(channel, bytes) else channel.encode()
    return b"%bwsloop:%b:%b" % (conf.prefix().encode(), kind, _tagged(name))


@functools.lru_cache(maxsize=4096)
def _tagged(name: bytes) -> bytes:
    """Return a name with a hash tag that puts keys with it into the slot of the name itself, in a Redis Cluster."""
    if TAG.match(name):
        return name
    if b"}" not in name or not redis_options.nodes():
        return b"{%b}" % name
    slot = key_slot(name)  # of a name that would end the tag too early: any other tag of that slot
    return b"{%d}:%b" % (next(number for number in itertools.count() if key_slot(b"%d" % number) == slot), name)
