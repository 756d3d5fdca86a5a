"""The channel layer without Redis: events go directly to the consumers that a test has connected.

It replaces both sides of :class:`wsloop.layers.ChannelLayer`, this process and all others, so that names and messages
are checked and encoded as usual. This module must not know Redis or sockets.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from typing import Protocol

from wsloop import layers
from wsloop.testing.own_loop import OwnLoop
from wsloop.testing.scheduler import Scheduler


class LocalConsumer(Protocol):
    """A consumer, as it is seen from here."""

    def put(self, payload: bytes) -> bool:
        """Put an event into the inbox, and return whether there was room."""


class InLoop(Protocol):
    """The socket of a consumer whose handlers need an event loop.

    Attributes:
        idle: whether no handler runs and none is going to.
    """

    @property
    def idle(self) -> bool: ...


class Memory:
    """Implements :class:`wsloop.layers.LocalDelivery` and :class:`wsloop.layers.RemoteDelivery`, for all layers.

    Attributes:
        scheduler: runs the handlers of all consumers of this test that are plain code.
        in_loop: the sockets of those that are coroutines.
        users: number of blocks of :func:`use` that are open.
        before: ``local`` and ``remote`` of the channel layer outside of those blocks.
        worker: the part of a ``channel_name`` that names this worker.
    """

    blocks = False

    def __init__(self, before: tuple[layers.LocalDelivery | None, layers.RemoteDelivery]) -> None:
        self.scheduler = Scheduler()
        self.in_loop: set[InLoop] = set()
        self.users = 0
        self.before = before
        self.worker = secrets.token_hex(8)
        self._consumers: dict[str, LocalConsumer] = {}
        self._groups: dict[bytes, dict[str, None]] = {}
        self._watchers: set[Callable[[], object]] = set()
        self._loop: OwnLoop | None = None

    def enter(self, consumer: LocalConsumer) -> str:
        """Add a consumer, and return the name of its channel."""
        channel = f"specific.{self.worker}!{secrets.token_hex(8)}"
        self._consumers[channel] = consumer
        return channel

    def leave(self, channel: str) -> None:
        """Remove the consumer with this channel from its groups, and forget it."""
        self._consumers.pop(channel, None)
        for channels in self._groups.values():
            channels.pop(channel, None)

    # For communicators.

    @property
    def busy(self) -> bool:
        """Whether the handler of a consumer of coroutines runs."""
        return not all(each.idle for each in self.in_loop)

    def report(self, error: BaseException) -> None:
        """Keep an exception of a handler for the next call of a communicator."""
        self.scheduler.errors.append(error)

    def changed(self) -> None:
        """What a communicator waits for may have happened. From any thread."""
        for watcher in list(self._watchers):
            with contextlib.suppress(RuntimeError):  # its event loop has ended
                watcher()

    @contextlib.contextmanager
    def watched(self, watcher: Callable[[], object]) -> Iterator[None]:
        """Call ``watcher`` on each change, from any thread."""
        self._watchers.add(watcher)
        try:
            yield
        finally:
            self._watchers.remove(watcher)

    def own_loop(self) -> OwnLoop:
        """Return the event loop for tests that have none."""
        if self._loop is None:
            self._loop = OwnLoop()
        return self._loop

    def owns(self, loop: object) -> bool:
        """Return whether an event loop is that of :meth:`own_loop`."""
        return self._loop is not None and self._loop.loop is loop

    def close(self) -> None:
        """Close the event loop of :meth:`own_loop`."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    # This process.

    def check_thread(self) -> None:
        """Allow all threads: without gevent they are not those of a worker."""

    def has(self, channel: str) -> bool:
        """Return whether a channel is that of a consumer."""
        return channel in self._consumers

    def put(self, channel: str, payload: bytes) -> bool:
        """Hand an event to a consumer, and return whether it had room."""
        consumer = self._consumers.get(channel)
        taken = consumer is None or consumer.put(payload)
        self.scheduler.turn()
        return taken

    def add(self, group: str, channel: str, alias: str = layers.DEFAULT_CHANNEL_LAYER) -> None:
        """Add a consumer to a group."""
        if self.has(channel):
            self._groups.setdefault(layers.group_channel(group, alias), {})[channel] = None

    def discard(self, group: str, channel: str, alias: str = layers.DEFAULT_CHANNEL_LAYER) -> None:
        """Remove a consumer from a group."""
        self._groups.get(layers.group_channel(group, alias), {}).pop(channel, None)

    def deliver(self, channel: bytes, payload: bytes) -> None:
        """Hand an event to all consumers of a group."""
        self.publish(channel, payload)

    # Other processes, of which there are none.

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Hand an event to all consumers of a group."""
        consumers = [self._consumers[each] for each in self._groups.get(channel, ())]
        for consumer in consumers:
            consumer.put(payload)
        self.scheduler.turn()
        return len(consumers)

    def send(self, worker: str, channel: str, payload: bytes) -> bool:
        """Do nothing: that consumer has ended."""
        return True

    def ask(self, worker: str, request: list[str]) -> None:
        """Do nothing: that consumer has ended."""


@contextlib.contextmanager
def own() -> Iterator[Memory]:
    """Replace the channel layer of the process by one in memory, for a test."""
    layer = layers.LAYER
    memory = Memory((layer.local, layer.remote))
    layer.local = layer.remote = memory
    try:
        yield memory
    finally:
        _restore(memory)
        memory.close()


@contextlib.contextmanager
def use() -> Iterator[Memory]:
    """Replace the channel layer of the process by one in memory: that of the test, if it has one."""
    layer = layers.LAYER
    memory = layer.remote if isinstance(layer.remote, Memory) else Memory((layer.local, layer.remote))
    layer.local = layer.remote = memory
    memory.users += 1
    try:
        yield memory
    finally:
        memory.users -= 1
        if not memory.users:
            _restore(memory)


def forget() -> None:
    """Restore the channel layer, even if a test has left consumers behind."""
    layer = layers.LAYER
    while isinstance(layer.remote, Memory):
        memory = layer.remote
        _restore(memory)
        memory.close()


def _restore(memory: Memory) -> None:
    """Restore the channel layer, unless this one was forgotten: then the garbage collector ends the block, any time."""
    layer = layers.LAYER
    if layer.remote is memory:
        layer.local, layer.remote = memory.before


__all__ = ["Memory", "forget", "own", "use"]
