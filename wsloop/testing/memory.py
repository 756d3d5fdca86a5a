"""The channel layer without Redis: events go straight to the consumers that a test has connected.

It stands in for both sides of :class:`wsloop.layers.ChannelLayer`, this process and all others, so names and messages
are checked and encoded as always. This module must not know Redis or sockets.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Protocol

from wsloop import layers
from wsloop.testing.scheduler import Scheduler


class Member(Protocol):
    """A consumer, as it is seen from here."""

    def put(self, payload: bytes) -> bool:
        """Put an event down, and tell whether there was room."""


class Memory:
    """Implements :class:`wsloop.layers.LocalDelivery` and :class:`wsloop.layers.RemoteDelivery`.

    Attributes:
        scheduler: runs the handlers of all consumers of this test.
        users: how many have it in :func:`use`.
        before: what the channel layer had instead.
        worker: what the names of channels begin with.
    """

    def __init__(self, before: tuple[layers.LocalDelivery | None, layers.RemoteDelivery]) -> None:
        self.scheduler = Scheduler()
        self.users = 0
        self.before = before
        self.worker = secrets.token_hex(8)
        self._members: dict[str, Member] = {}
        self._groups: dict[bytes, dict[str, None]] = {}

    def enter(self, member: Member) -> str:
        """Return the name of a new consumer's channel."""
        channel = f"specific.{self.worker}!{secrets.token_hex(8)}"
        self._members[channel] = member
        return channel

    def leave(self, channel: str) -> None:
        """Forget a consumer, which then is in no group any more."""
        self._members.pop(channel, None)
        for members in self._groups.values():
            members.pop(channel, None)

    # This process.

    def check_thread(self) -> None:
        """Allow all: gevent has not patched the tests, so threads are not what they are in a worker."""

    def has(self, channel: str) -> bool:
        """Tell whether a channel is that of a consumer."""
        return channel in self._members

    def put(self, channel: str, payload: bytes) -> bool:
        """Hand an event to a consumer, and tell whether it had room."""
        member = self._members.get(channel)
        taken = member is None or member.put(payload)
        self.scheduler.turn()
        return taken

    def add(self, group: str, channel: str) -> None:
        """Make a consumer a member of a group."""
        if self.has(channel):
            self._groups.setdefault(layers.group_channel(group), {})[channel] = None

    def discard(self, group: str, channel: str) -> None:
        """Take a consumer out of a group."""
        self._groups.get(layers.group_channel(group), {}).pop(channel, None)

    # All others, of which there are none.

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Hand an event to all members of a group."""
        members = [self._members[each] for each in self._groups.get(channel, ())]
        for member in members:
            member.put(payload)
        self.scheduler.turn()
        return len(members)

    def send(self, worker: str, channel: str, payload: bytes) -> bool:
        """Nothing happens: that consumer has ended."""
        return True

    def ask(self, worker: str, request: list[str]) -> None:
        """Nothing happens: that consumer has ended."""


@contextlib.contextmanager
def own() -> Iterator[Memory]:
    """Let the process's channel layer be one in memory, for a test."""
    layer = layers.get_channel_layer()
    memory = Memory((layer.local, layer.remote))
    layer.local = layer.remote = memory
    try:
        yield memory
    finally:
        layer.local, layer.remote = memory.before


@contextlib.contextmanager
def use() -> Iterator[Memory]:
    """Let the process's channel layer be one in memory, that of the test if it has one."""
    layer = layers.get_channel_layer()
    memory = layer.remote if isinstance(layer.remote, Memory) else Memory((layer.local, layer.remote))
    layer.local = layer.remote = memory
    memory.users += 1
    try:
        yield memory
    finally:
        memory.users -= 1
        if not memory.users and layer.remote is memory:
            layer.local, layer.remote = memory.before


def forget() -> None:
    """Let the channel layer be what it was, also if a test has left consumers behind."""
    layer = layers.get_channel_layer()
    while isinstance(layer.remote, Memory):
        layer.local, layer.remote = layer.remote.before


__all__ = ["Memory", "forget", "own", "use"]
