"""The consumers of this worker, and their groups: delivers the events that arrive from Redis.

How it works. A group is a Redis channel, to which the broker subscribes for the first of its consumers in this worker.
An event that arrives on it is put into the inbox of each of them; an event on the worker's own channel into the inbox
of the consumer that it names. Events of a group that arrive one right after the other are put in together, when the
turn of the event loop ends, or before anything else touches the inboxes or the members. Redis stores nothing of this
but a note, for some seconds, that a consumer has no room, so that further senders get an error.

This module must not know WebSockets.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Sequence
from typing import Any, Protocol

import gevent
import msgpack
from redis.exceptions import ConnectionError as RedisUnreachable
from redis.exceptions import RedisError

from wsloop import greenlets, layers
from wsloop.aio.loop import thread_id
from wsloop.backend import pool
from wsloop.batch_queue import BatchQueue
from wsloop.delivery.broker import Broker, Unavailable
from wsloop.greenlets import logged
from wsloop.runtime.inbox import Published

logger = logging.getLogger("wsloop.members")

RETRY = 0.5  # seconds between two attempts to renew the subscriptions
FULL_TTL = 10  # seconds; afterwards senders find out that the worker of a full consumer was killed


class LocalConsumer(Protocol):
    """A consumer, as it is seen from here.

    Attributes:
        channel_name: the name of its channel, see :meth:`LocalConsumers.enter`.
        subscriptions: the Redis channels of its groups, and that of the presence it watches.
    """

    channel_name: str
    subscriptions: Collection[bytes]

    def put(self, channel: bytes, payload: bytes) -> bool:
        """Put an event from a Redis channel into the inbox, and return whether there was room. Never blocks."""

    def put_all(self, channel: bytes, events: Sequence[Published], size: int) -> None:
        """Put several events, of ``size`` bytes in all, into the inbox, as far as there is room. Never blocks."""

    def resumed(self) -> None:
        """Events may have been lost, but none that is published from now on will be. Never blocks."""


class LocalConsumers:
    """Implements :class:`wsloop.layers.LocalDelivery`; one for each worker.

    Args:
        broker: of the process.

    Attributes:
        worker: the part of a ``channel_name`` that names this worker.
        channel: the Redis channel of this worker.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._thread = thread_id()
        self.worker = secrets.token_hex(8)
        self.channel = layers.worker_channel(self.worker)
        self._numbers = 0
        self._consumers: dict[str, LocalConsumer] = {}
        self._subscribed: dict[bytes, dict[LocalConsumer, None]] = {}
        self._full: set[str] = set()
        self._resuming = False
        self._held_channel: bytes | None = None  # of the events that are held back, see _settle()
        self._held: list[Published] = []
        self._held_size = 0
        self._loop: Any = gevent.get_hub().loop
        self._notes: BatchQueue[tuple[str, bool]] = BatchQueue(self._write_notes)

    def __len__(self) -> int:
        """Return the number of consumers."""
        return len(self._consumers)

    def check_thread(self) -> None:
        """Refuse calls from other threads, in which the greenlets and connections of this one would hang.

        Raises:
            RuntimeError: in another thread than the worker's.
        """
        if thread_id() != self._thread:
            raise RuntimeError(
                "consumers and the channel layer belong to the worker's own thread: return the result from the other "
                "thread, and send it from the handler"
            )

    def enter(self, consumer: LocalConsumer) -> str:
        """Add a consumer, and return the name of its channel."""
        self._numbers += 1
        channel = f"specific.{self.worker}!{secrets.token_hex(4)}{self._numbers:x}"
        self._consumers[channel] = consumer
        return channel

    def leave(self, channel: str) -> None:
        """Remove the consumer with this channel from its groups, and forget it."""
        consumer = self._consumers.pop(channel, None)
        if consumer is not None:
            self._settle()
            for subscription in list(consumer.subscriptions):
                self.unsubscribe(consumer, subscription)
        self.has_room(channel)

    def has(self, channel: str) -> bool:
        """Return whether this is the channel of one of these consumers."""
        return channel in self._consumers

    def put(self, channel: str, payload: bytes) -> bool:
        """Hand an event to the consumer with this channel, and return whether it had room."""
        self._settle()
        consumer = self._consumers.get(channel)
        return consumer is None or consumer.put(self.channel, payload)

    def add(self, group: str, channel: str, alias: str = layers.DEFAULT_CHANNEL_LAYER) -> None:
        """Add a consumer to a group. Blocks until Redis has acknowledged the subscription.

        Raises:
            redis.exceptions.ConnectionError: if it has not.
        """
        consumer = self._consumers.get(channel)
        if consumer is not None:
            self.subscribe(consumer, layers.group_channel(group, alias))

    def discard(self, group: str, channel: str, alias: str = layers.DEFAULT_CHANNEL_LAYER) -> None:
        """Remove a consumer from a group."""
        consumer = self._consumers.get(channel)
        if consumer is not None:
            self.unsubscribe(consumer, layers.group_channel(group, alias))

    def subscribe(self, consumer: LocalConsumer, channel: bytes) -> None:
        """Deliver messages of a Redis channel to a consumer; raises the errors of :meth:`add`."""
        if channel in consumer.subscriptions:
            return
        try:
            self._broker.subscribe([channel])
        except Unavailable as exc:
            raise RedisUnreachable(str(exc)) from None
        if channel in consumer.subscriptions or not self.has(consumer.channel_name):  # changed while this blocked
            self._broker.unsubscribe([channel])
            return
        self._settle()
        consumer.subscriptions = (*consumer.subscriptions, channel)  # most have one or none: a set has 216 bytes
        self._subscribed.setdefault(channel, {})[consumer] = None

    def unsubscribe(self, consumer: LocalConsumer, channel: bytes) -> None:
        """Undo :meth:`subscribe`. Never blocks."""
        if channel in consumer.subscriptions:
            self._settle()
            consumer.subscriptions = tuple(each for each in consumer.subscriptions if each != channel)
            consumers = self._subscribed[channel]
            del consumers[consumer]
            if not consumers:
                del self._subscribed[channel]
            self._broker.unsubscribe([channel])

    # What Redis brings.

    def deliver(self, channel: bytes, payload: bytes) -> None:
        """Hand a message from a Redis channel to its consumers, at the end of this turn of the loop. Never blocks."""
        if channel in self._subscribed:
            if channel != self._held_channel:
                self._settle()
                self._held_channel = channel
                self._loop.run_callback(self._settle)
            self._held.append(Published(payload))
            self._held_size += len(payload)

    def _settle(self) -> None:
        """Hand out the events that are held back."""
        if self._held_channel is None:
            return
        channel, events, size = self._held_channel, self._held, self._held_size
        self._held_channel, self._held, self._held_size = None, [], 0
        for consumer in list(self._subscribed.get(channel, ())):
            logged(consumer.put_all, channel, events, size)

    def on_request(self, payload: bytes) -> None:
        """Act on a message from this worker's channel. Never blocks."""
        try:
            request = msgpack.unpackb(payload)
        except Exception:  # MessagePack raises many types, and anybody can publish to a Redis channel
            request = None
        match request:
            case ["send", str(channel), bytes(event)]:
                if not self.put(channel, event):
                    self._full.add(channel)
                    self._notes.put((channel, True))
            case [("add" | "discard") as verb, str(channel), str(group), str(alias), str(reply)]:
                greenlets.spawn(self._change, verb, channel, group, alias, reply)
            case _:
                logger.warning("Discarded malformed message (%d bytes) on the channel of this worker", len(payload))

    def has_room(self, channel: str) -> None:
        """Note that a consumer is no longer full. Never blocks."""
        if channel in self._full:
            self._full.discard(channel)
            self._notes.put((channel, False))

    def _write_notes(self, notes: list[tuple[str, bool]]) -> None:
        try:
            for channel, full in dict(notes).items():
                if full:
                    pool.client().set(layers.full_key(channel), 1, ex=FULL_TTL)
                else:
                    pool.client().delete(layers.full_key(channel))
        except (RedisError, OSError) as exc:
            logger.warning("Could not update consumer backpressure flags: %s", exc)
        gevent.sleep(0)

    def _change(self, verb: str, channel: str, group: str, alias: str, reply: str) -> None:
        try:
            getattr(self, verb)(group, channel, alias)
            layers.acknowledge(reply)
        except (RedisError, OSError, TypeError) as exc:  # the caller's request times out
            what = "add a consumer to" if verb == "add" else "remove a consumer from"
            logger.warning("Could not %s a group for another process: %s", what, exc)

    def resumed(self) -> None:
        """Call ``resumed()`` of all consumers as soon as the subscription is complete again. Never blocks."""
        if self._consumers and not self._resuming:
            self._resuming = True
            greenlets.spawn(self._resume)

    def _resume(self) -> None:
        try:
            while self._consumers:
                channels = list(self._subscribed)
                try:
                    self._broker.ready()
                    self._broker.subscribe(channels)  # returns when Redis has acknowledged all of them
                except Unavailable:
                    gevent.sleep(RETRY)
                else:
                    self._broker.unsubscribe(channels)
                    break
        finally:
            self._resuming = False
        self._settle()
        for consumer in list(self._consumers.values()):
            consumer.resumed()


__all__ = ["LocalConsumers"]
