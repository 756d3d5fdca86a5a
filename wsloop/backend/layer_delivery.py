"""The two ways of an event to a consumer: within this process, and through Redis to another one.

This module must not know which consumers there are.
"""

from __future__ import annotations

import secrets
import time
from typing import Any, Protocol

import msgpack
from redis.exceptions import TimeoutError as RedisTimeout

from wsloop import conf
from wsloop.backend import pool, publishing, scripts
from wsloop.backend.layer_events import DEFAULT_CHANNEL_LAYER, full_key, worker_channel

REPLY_TTL = 60  # seconds
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.1  # seconds between two checks for the reply of a worker, doubled each time


class LocalDelivery(Protocol):
    """The consumers of this process.

    Attributes:
        worker: the part of a ``channel_name`` that names this worker.
    """

    worker: str

    def enter(self, consumer: Any) -> str:
        """Add a consumer, and return the name of its channel."""

    def leave(self, channel: str) -> None:
        """Remove the consumer with this channel from its groups, and forget it."""

    def deliver(self, channel: bytes, payload: bytes) -> None:
        """Hand an event to those of them that are in the group with this Redis channel."""

    def check_thread(self) -> None:
        """Raise RuntimeError in a thread that must not use them."""

    def has(self, channel: str) -> bool:
        """Return whether a channel is that of one of them."""

    def put(self, channel: str, payload: bytes) -> bool:
        """Hand an event to one of them, and return whether it had room."""

    def add(self, group: str, channel: str, alias: str = DEFAULT_CHANNEL_LAYER) -> None:
        """Add one of them to a group of the layer with this alias."""

    def discard(self, group: str, channel: str, alias: str = DEFAULT_CHANNEL_LAYER) -> None:
        """Remove one of them from a group."""


class RemoteDelivery(Protocol):
    """The consumers of all processes, reached through Redis; in tests there are none.

    Attributes:
        blocks: whether its methods may wait for Redis, so that a coroutine must not call them itself.
    """

    blocks: bool

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Publish on a Redis channel, and return the number of subscribers reached, as far as it is known."""

    def send(self, worker: str, channel: str, payload: bytes) -> bool:
        """Send an event to a consumer of another worker, and return False if it is known to be full."""

    def ask(self, worker: str, request: list[str]) -> None:
        """Send a request to another worker, and wait until it has carried it out, or return if that worker has ended.

        Raises:
            redis.exceptions.TimeoutError: if it does not reply in time.
        """


class RedisDelivery:
    """Implements :class:`RemoteDelivery`."""

    blocks = True

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


class NoDelivery:
    """Implements :class:`RemoteDelivery` for a layer in memory: there are no other processes.

    Args:
        process: of this layer.
    """

    blocks = True  # LocalDelivery.add() may

    def __init__(self, process: Process) -> None:
        self._process = process

    def publish(self, channel: bytes, payload: bytes) -> int:
        if self._process.local is not None:
            self._process.local.deliver(channel, payload)
        return 0

    def send(self, worker: str, channel: str, payload: bytes) -> bool:
        return True

    def ask(self, worker: str, request: list[str]) -> None:
        pass


class Process:
    """What the layers of a process share, whatever their alias.

    Attributes:
        local: the consumers of this process; None in a process that cannot have any, for example a shell.
        remote: the consumers of other processes; :mod:`wsloop.testing.memory` replaces both.
        mailboxes: of channels that code for Channels has made, by their names.
    """

    def __init__(self) -> None:
        self.local: LocalDelivery | None = None
        self.remote: RemoteDelivery = RedisDelivery()
        self.mailboxes: dict[str, Any] = {}


def acknowledge(reply: str) -> None:
    """Acknowledge a request of another process.

    Args:
        reply: the key that the other process polls.

    Raises:
        redis.exceptions.RedisError: if Redis did not accept it.
    """
    pool.client().set(reply, "done", ex=REPLY_TTL)


__all__ = ["REPLY_TTL", "LocalDelivery", "NoDelivery", "Process", "RedisDelivery", "RemoteDelivery", "acknowledge"]
