"""The channel layer: events for consumers, from anywhere, through Redis. Names are those of Django Channels.

How it works. A group is a Redis channel, to which each worker subscribes that has consumers in the group. So an event
for a group is published once, however many consumers and workers there are, and nothing is left of a group when its
consumers have ended, even if their workers were killed. Each worker also has a Redis channel of its own, for events and
requests for one of its consumers. The ``channel_name`` of a consumer begins with the name of its worker.

This module is the side that sends, for views, tasks and consumers alike; :mod:`wsloop.runtime.groups` is the side that
receives. It must not know gevent or sockets.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Any, Protocol

import msgpack
from redis.exceptions import TimeoutError as RedisTimeout

from wsloop import conf
from wsloop.backend import pool, publishing, scripts
from wsloop.exceptions import ChannelFull, MessageTooLarge
from wsloop.protocol.consumer_events import Event, handler_name

MAX_SIZE = 1024 * 1024  # bytes of an event, as all layers of Channels carry
MAX_NAME = 100  # characters of a group's name, as in Channels
REPLY_TTL = 60  # seconds
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.1  # seconds between two checks for the reply of a worker, doubled each time
CHANNEL = re.compile(r"specific\.([0-9a-f]+)![0-9a-f]+")


class LocalDelivery(Protocol):
    """The consumers of this process.

    Attributes:
        worker: the part of a ``channel_name`` that names this worker.
    """

    worker: str

    def check_thread(self) -> None:
        """Raise RuntimeError in a thread that must not use them."""

    def has(self, channel: str) -> bool:
        """Return whether a channel is that of one of them."""

    def put(self, channel: str, payload: bytes) -> bool:
        """Hand an event to one of them, and return whether it had room."""

    def add(self, group: str, channel: str) -> None:
        """Add one of them to a group."""

    def discard(self, group: str, channel: str) -> None:
        """Remove one of them from a group."""


class RemoteDelivery(Protocol):
    """The consumers of all processes, reached through Redis; in tests there are none."""

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Publish on a Redis channel, and return the number of subscribers reached, as far as it is known."""

    def send(self, worker: str, channel: str, payload: bytes) -> bool:
        """Send an event to a consumer of another worker, and return False if it is known to be full."""

    def ask(self, worker: str, request: list[str]) -> None:
        """Send a request to another worker, and wait until it has carried it out, or return if that worker has ended.

        Raises:
            redis.exceptions.TimeoutError: if it does not reply in time.
        """


def encode(message: Any) -> bytes:
    """Return an event as bytes.

    Raises:
        TypeError: if it is not a dictionary, or has a value that MessagePack cannot encode.
        ValueError: if its type is missing or invalid.
        MessageTooLarge: if it is larger than :data:`MAX_SIZE`.
    """
    if not isinstance(message, dict):
        raise TypeError(f"a message of the channel layer must be a dictionary, not {message!r}")
    handler_name(message)
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


def group_channel(group: str) -> bytes:
    """Return the Redis channel of a group.

    Raises:
        TypeError: if the name is invalid.
    """
    if not isinstance(group, str) or not 0 < len(group) <= MAX_NAME:
        raise TypeError(f"the name of a group must be text of 1 to {MAX_NAME} characters, not {group!r}")
    try:
        return f"{conf.prefix()}wsloop:group:{group}".encode()
    except UnicodeEncodeError:
        raise TypeError(f"the name of a group must be text that UTF-8 can encode, not {group!r}") from None


def worker_channel(worker: str) -> bytes:
    """Return the Redis channel of a worker."""
    return f"{conf.prefix()}wsloop:worker:{worker}".encode()


def full_key(channel: str) -> str:
    """Return the key that exists while a consumer is full."""
    return f"{conf.prefix()}wsloop:full:{channel}"


class RedisDelivery:
    """Implements :class:`RemoteDelivery`."""

    def publish(self, channel: bytes, payload: bytes) -> int:
        return int(pool.client().publish(channel, payload))

    def send(self, worker: str, channel: str, payload: bytes) -> bool:
        keys, arguments = [full_key(channel)], [worker_channel(worker), msgpack.packb(["send", channel, payload])]
        (reached,) = scripts.call(pool.client(), [("channel_send", keys, arguments)], transaction=False)
        return bool(reached >= 0)

    def ask(self, worker: str, request: list[str]) -> None:
        reply = f"{conf.prefix()}wsloop:reply:{secrets.token_hex(8)}"
        client, channel = pool.client(), worker_channel(worker)
        reached = self.publish(channel, msgpack.packb([*request, reply]))
        if not reached:
            reached = publishing.listeners(client, channel)
        if reached:
            # Polled: a blocking command of Redis would occupy one of the process's two connections.
            pause, end = FIRST_PAUSE, time.monotonic() + conf.option("REDIS_TIMEOUT")
            while not client.getdel(reply):
                if time.monotonic() > end:
                    raise RedisTimeout("timed out waiting for the worker of that consumer")
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)


class ChannelLayer:
    """Sends events to consumers.

    Attributes:
        local: the consumers of this process; None in a process that cannot have any, for example a shell.
        remote: the consumers of other processes; :mod:`wsloop.testing.memory` replaces both.
        ChannelFull, MessageTooLarge: as of :mod:`wsloop.exceptions`.
    """

    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge

    def __init__(self) -> None:
        self.local: LocalDelivery | None = None
        self.remote: RemoteDelivery = RedisDelivery()

    def group_send(self, group: str, message: Event) -> None:
        """Send an event to all consumers of a group.

        Raises:
            TypeError, ValueError, MessageTooLarge: if the message or the name is invalid.
            redis.exceptions.RedisError: if Redis did not accept it.
        """
        self._check_thread()
        self.remote.publish(group_channel(group), encode(message))

    def send(self, channel: str, message: Event) -> None:
        """Send an event to one consumer. Does nothing if the consumer has ended.

        Raises:
            ChannelFull: if the consumer is known to be full.
            TypeError, ValueError, MessageTooLarge: if the message or the name is invalid.
            redis.exceptions.RedisError: if Redis did not accept it.
        """
        self._check_thread()
        worker, payload = _worker(channel), encode(message)
        if self.local is not None and self.local.has(channel):
            taken = self.local.put(channel, payload)
        else:
            taken = self.remote.send(worker, channel, payload)
        if not taken:
            raise ChannelFull(f"the consumer {channel} has {conf.option('CHANNEL_CAPACITY')} events waiting")

    def group_add(self, group: str, channel: str) -> None:
        """Add a consumer to a group; when this returns Redis has acknowledged the subscription.

        Raises:
            TypeError: if a name is invalid.
            redis.exceptions.RedisError: if Redis, or the consumer's worker, did not reply in time.
        """
        self._change("add", group, channel)

    def group_discard(self, group: str, channel: str) -> None:
        """Remove a consumer from a group; raises the errors of :meth:`group_add`."""
        self._change("discard", group, channel)

    def _check_thread(self) -> None:
        if self.local is not None:
            self.local.check_thread()

    def _change(self, verb: str, group: str, channel: str) -> None:
        self._check_thread()
        group_channel(group)
        worker = _worker(channel)
        if self.local is not None and self.local.has(channel):
            getattr(self.local, verb)(group, channel)
        elif self.local is None or worker != self.local.worker:  # otherwise it was of this worker, and has ended
            self.remote.ask(worker, [verb, channel, group])


def acknowledge(reply: str) -> None:
    """Acknowledge a request of another process.

    Args:
        reply: the key that the other process polls.

    Raises:
        redis.exceptions.RedisError: if Redis did not accept it.
    """
    pool.client().set(reply, "done", ex=REPLY_TTL)


def _worker(channel: str) -> str:
    match = CHANNEL.fullmatch(channel) if isinstance(channel, str) else None
    if match is None:
        raise TypeError(f"a channel must be the channel_name of a consumer, not {channel!r}")
    return match[1]


LAYER = ChannelLayer()


def get_channel_layer(alias: str = "default") -> ChannelLayer:
    """Return the channel layer of this process.

    Raises:
        ValueError: if the alias is not "default".
    """
    if alias != "default":
        raise ValueError(f'the only channel layer is "default": there is no {alias!r}')
    return LAYER


__all__ = ["ChannelLayer", "get_channel_layer"]
