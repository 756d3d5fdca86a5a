"""The channel layer: events for consumers, from anywhere, through Redis. Names are those of Django Channels. All that
sites import is here, so this module is a little longer than others.

How it works. A group is a Redis channel, to which each worker subscribes that has consumers in the group. So an event
for a group is published once, however many consumers and workers there are, and nothing is left of a group when its
consumers have ended, even if their workers were killed. Each worker also has a Redis channel of its own, for events and
requests for one of its consumers. The ``channel_name`` of a consumer begins with the name of its worker.

This module is the side that sends, for views, tasks and consumers alike; :mod:`wsloop.runtime.groups` is the side that
receives. It must not know gevent or sockets.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

from asgiref.sync import markcoroutinefunction
from django.core.exceptions import ImproperlyConfigured

from wsloop import conf
from wsloop.backend.layer_delivery import (
    REPLY_TTL,
    LocalDelivery,
    NoDelivery,
    Process,
    RedisDelivery,
    RemoteDelivery,
    acknowledge,
)
from wsloop.backend.layer_events import (
    DEFAULT_CHANNEL_LAYER,
    MAX_NAME,
    MAX_SIZE,
    decode,
    encode,
    full_key,
    group_channel,
    worker_channel,
    worker_of,
)
from wsloop.exceptions import ChannelFull, InvalidChannelLayerError, MessageTooLarge
from wsloop.mailbox import Mailbox
from wsloop.protocol.consumer_events import Event

Parameters = ParamSpec("Parameters")


class Done:
    """Something to await that is done."""

    def __await__(self) -> Iterator[None]:
        return iter(())


DONE = Done()


def _awaitable(method: Callable[Parameters, None]) -> Callable[Parameters, Any]:
    """Make a method of a layer usable from coroutines, too.

    Where an event loop runs, calling it returns a coroutine, as in Channels. Elsewhere, it has done its work when it
    returns; what it returns is for ``async_to_sync()``, which code for Channels has around it.
    """

    @functools.wraps(method)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Any:
        if asyncio._get_running_loop() is None:
            method(*args, **kwargs)
            return DONE
        layer: Any = args[0]
        return _later(layer, functools.partial(method, *args, **kwargs))

    return markcoroutinefunction(call)


async def _later(layer: ChannelLayer, call: Callable[[], None]) -> None:
    if layer.remote.blocks:
        await asyncio.to_thread(call)  # with the context variables of the caller
    else:
        call()


class ChannelLayer:
    """Sends events to consumers. Its methods can be called by plain code, and awaited by coroutines.

    Args:
        alias: of the layer. The groups of another alias are other groups, whatever their names.
        process: what it shares with the other layers of this process.

    Attributes:
        local: the consumers of this process; None in a process that cannot have any, for example a shell.
        remote: the consumers of other processes.
        in_memory: whether events stay in this process.
        ChannelFull, MessageTooLarge: as of :mod:`wsloop.exceptions`.
    """

    in_memory = False

    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge

    def __init__(self, alias: str = DEFAULT_CHANNEL_LAYER, process: Process | None = None) -> None:
        self.alias = alias
        self._process = process or Process()

    @property
    def local(self) -> LocalDelivery | None:
        return self._process.local

    @local.setter
    def local(self, local: LocalDelivery | None) -> None:
        self._process.local = local

    @property
    def remote(self) -> RemoteDelivery:
        remote = self._process.remote
        if self.in_memory and isinstance(remote, RedisDelivery):  # otherwise it is that of a test
            return NoDelivery(self._process)
        return remote

    @remote.setter
    def remote(self, remote: RemoteDelivery) -> None:
        self._process.remote = remote

    @_awaitable
    def group_send(self, group: str, message: Event) -> None:
        """Send an event to all consumers of a group.

        Raises:
            TypeError, ValueError, MessageTooLarge: if the message or the name is invalid.
            redis.exceptions.RedisError: if Redis did not accept it.
        """
        self._check_thread()
        self.remote.publish(group_channel(group, self.alias), encode(message))

    @_awaitable
    def send(self, channel: str, message: Event) -> None:
        """Send an event to one consumer. Does nothing if the consumer has ended.

        Raises:
            ChannelFull: if the consumer is known to be full.
            TypeError, ValueError, MessageTooLarge: if the message or the name is invalid.
            redis.exceptions.RedisError: if Redis did not accept it.
        """
        self._check_thread()
        worker, payload = worker_of(channel), encode(message)
        if self.local is not None and self.local.has(channel):
            taken = self.local.put(channel, payload)
        else:
            taken = self.remote.send(worker, channel, payload)
        if not taken:
            raise ChannelFull(f"the consumer {channel} has {conf.option('CHANNEL_CAPACITY')} events waiting")

    @_awaitable
    def group_add(self, group: str, channel: str) -> None:
        """Add a consumer to a group; when this returns Redis has acknowledged the subscription.

        Raises:
            TypeError: if a name is invalid.
            redis.exceptions.RedisError: if Redis, or the consumer's worker, did not reply in time.
        """
        self._change("add", group, channel)

    @_awaitable
    def group_discard(self, group: str, channel: str) -> None:
        """Remove a consumer from a group; raises the errors of :meth:`group_add`."""
        self._change("discard", group, channel)

    # What consumers of Channels ask of their layer.

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return the name of a new channel, from which :meth:`receive` takes events until the current task ends.

        Raises:
            RuntimeError: if this process has no consumers, because another server runs it.
        """
        local, task = self.consumers_here(), asyncio.current_task()
        assert task is not None
        mailbox = Mailbox()
        channel = mailbox.channel_name = local.enter(mailbox)
        self._process.mailboxes[channel] = mailbox

        def leave(_: object) -> None:
            local.leave(channel)
            del self._process.mailboxes[channel]

        task.add_done_callback(leave)
        return channel

    async def receive(self, channel: str) -> Event:
        """Return the next event of a channel that :meth:`new_channel` has made in this process.

        Raises:
            TypeError: if there is no such channel.
        """
        mailbox = self._process.mailboxes.get(channel)
        if mailbox is None:
            raise TypeError(f"there is no channel {channel!r} here, or the task that has made it has ended")
        event: Event = await mailbox.get()
        return event

    def consumers_here(self) -> LocalDelivery:
        """Return the consumers of this process.

        Raises:
            RuntimeError: if it cannot have any.
        """
        if self.local is None:
            raise RuntimeError(
                "only the server of wsloop, WebsocketServer in wsgi.py, brings events of the channel layer to "
                "consumers; tests have them with wsloop.testing"
            )
        return self.local

    def _check_thread(self) -> None:
        if self.local is not None:
            self.local.check_thread()

    def _change(self, verb: str, group: str, channel: str) -> None:
        self._check_thread()
        group_channel(group, self.alias)
        worker = worker_of(channel)
        if self.local is not None and self.local.has(channel):
            getattr(self.local, verb)(group, channel, self.alias)
        elif self.local is None or worker != self.local.worker:  # otherwise it was of this worker, and has ended
            self.remote.ask(worker, [verb, channel, group, self.alias])


PROCESS = Process()


class RedisChannelLayer(ChannelLayer):
    """The layer for ``CHANNEL_LAYERS``: events go through the Redis of the site.

    Args:
        alias: of the layer.
    """

    def __init__(self, alias: str = DEFAULT_CHANNEL_LAYER) -> None:
        super().__init__(alias, PROCESS)


class InMemoryChannelLayer(RedisChannelLayer):
    """A layer for ``CHANNEL_LAYERS`` in tests: events reach the consumers of this process, and need no Redis."""

    in_memory = True


LAYER = RedisChannelLayer()
BACKENDS: dict[str, type[RedisChannelLayer]] = {
    f"{__name__}.ChannelLayer": RedisChannelLayer,
    f"{__name__}.RedisChannelLayer": RedisChannelLayer,
    f"{__name__}.InMemoryChannelLayer": InMemoryChannelLayer,
    # So that a project which moves over need not change its settings.
    "channels_redis.core.RedisChannelLayer": RedisChannelLayer,
    "channels_redis.pubsub.RedisPubSubChannelLayer": RedisChannelLayer,
    "channels.layers.InMemoryChannelLayer": InMemoryChannelLayer,
}


def get_channel_layer(alias: str = DEFAULT_CHANNEL_LAYER) -> ChannelLayer:
    """Return a channel layer of this process.

    Args:
        alias: a key of the setting ``CHANNEL_LAYERS``, or "default", which needs no setting.

    Raises:
        InvalidChannelLayerError: if there is no such alias, or its backend cannot be used here.
    """
    try:
        backend = conf.channel_layers().get(alias)
    except ImproperlyConfigured as exc:
        raise InvalidChannelLayerError(str(exc)) from None
    return _layer(alias, backend)


@functools.cache
def _layer(alias: str, backend: str | None) -> ChannelLayer:
    if backend is None:
        if alias != DEFAULT_CHANNEL_LAYER:
            raise InvalidChannelLayerError(f"CHANNEL_LAYERS has no channel layer with the alias {alias!r}")
        return LAYER
    layer_class = BACKENDS.get(backend)
    if layer_class is None:
        raise InvalidChannelLayerError(
            f"CHANNEL_LAYERS[{alias!r}] has the BACKEND {backend!r}, but wsloop.layers has only its own; write "
            '"wsloop.layers.RedisChannelLayer"'
        )
    if alias == DEFAULT_CHANNEL_LAYER and layer_class is RedisChannelLayer:
        return LAYER
    return layer_class(alias)


__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "MAX_NAME",
    "MAX_SIZE",
    "REPLY_TTL",
    "ChannelLayer",
    "InMemoryChannelLayer",
    "LocalDelivery",
    "RedisChannelLayer",
    "RedisDelivery",
    "RemoteDelivery",
    "acknowledge",
    "decode",
    "encode",
    "full_key",
    "get_channel_layer",
    "group_channel",
    "worker_channel",
]
