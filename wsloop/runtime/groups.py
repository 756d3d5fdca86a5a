"""The consumers of this process: which are in which group, who gets what comes, and how what they publish goes out.

How it works. A group is a Redis channel that the broker subscribes to for its first member here. What comes on it is
put into the inbox of each member, and what comes on the worker's own channel into that of the one it names. Nothing of
this is kept in Redis but a note, for some seconds, that a consumer has no room, so that who sends to it is told.

This module must not know WebSockets.
"""

from __future__ import annotations

import copy
import logging
import secrets
from typing import Any, Protocol, cast

import gevent
import msgpack
from gevent import monkey
from gevent.event import AsyncResult
from redis.exceptions import ConnectionError as RedisUnreachable
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from wsloop import greenlets, layers
from wsloop.backend import pool, publishing
from wsloop.batch_queue import BatchQueue, batches
from wsloop.delivery.broker import Broker, Unavailable

logger = logging.getLogger("wsloop.members")

thread_id = monkey.get_original("_thread", "get_ident")  # of the operating system's thread; gevent's are greenlets

BATCH, BATCH_BYTES = 100, 256 * 1024  # events published in one round trip, and bytes of them
RETRY = 0.5  # seconds until it is asked again whether the subscription stands
FULL_TTL = 10  # seconds; who sends to a consumer whose worker was killed while it was full finds out then

GroupEvent = tuple[bytes, bytes, Any]  # channel, payload, and the AsyncResult for how many have got it


class LocalConsumer(Protocol):
    """A consumer, as it is seen from here.

    Attributes:
        channel_name: of its channel, see :meth:`LocalConsumers.enter`.
        subscriptions: the Redis channels of its groups, and of whose presence it watches.
    """

    channel_name: str
    subscriptions: set[bytes]

    def put(self, channel: bytes, payload: bytes) -> bool:
        """Put an event down that came on a Redis channel, and tell whether there was room. Never blocks."""

    def resumed(self) -> None:
        """What was published meanwhile may be lost, but nothing that is published from now on. Never blocks."""


class BatchingDelivery(layers.RedisDelivery):
    """The way to other workers for the consumers of one: what they publish at the same time goes out together.

    One after the other they would wait for each other's answers, as the process has two connections to publish with.
    """

    def __init__(self) -> None:
        self._outbox: BatchQueue[GroupEvent] = BatchQueue(self._send_all)

    def publish(self, channel: bytes, payload: bytes) -> int:
        reached: AsyncResult[int] = AsyncResult()
        self._outbox.put((channel, payload, reached))
        return cast(int, reached.get())

    def _send_all(self, items: list[GroupEvent]) -> None:
        failure: Exception | None = None
        for batch in batches(items, BATCH, BATCH_BYTES, lambda each: len(each[1])):
            answers: list[Any] = [failure] * len(batch)
            if failure is None:
                try:
                    answers = publishing.publish_bare(pool.client(), [item[:2] for item in batch])
                except Exception as exc:  # whatever it is, nobody must wait for ever
                    answers = [exc] * len(batch)
                # The rest has waited for the same line, and does not wait for it again.
                failure = next((each for each in answers if isinstance(each, (RedisUnreachable, RedisTimeout))), None)
            for (_, _, reached), answer in zip(batch, answers, strict=True):
                if isinstance(answer, Exception):
                    reached.set_exception(_another(answer))
                else:
                    reached.set(answer)


def _another(error: Exception) -> Exception:
    """Return an error like this one, which would gather the frames of all whom it is raised to."""
    try:
        return copy.copy(error)
    except Exception:  # a constructor that wants more than ``args``
        return error


class LocalConsumers:
    """Implements :class:`wsloop.layers.LocalDelivery`; one for each worker.

    Args:
        broker: of the process.
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
        self._notes: BatchQueue[tuple[str, bool]] = BatchQueue(self._note)

    def __len__(self) -> int:
        """Return how many consumers there are."""
        return len(self._consumers)

    def check_thread(self) -> None:
        """Refuse a thread of another one's: greenlets and connections of this one are not for it, and would hang.

        Raises:
            RuntimeError: in another thread than the worker's.
        """
        if thread_id() != self._thread:
            raise RuntimeError(
                "consumers and the channel layer belong to the worker's own thread: return what was found in another "
                "one, and send it from the handler"
            )

    def enter(self, member: LocalConsumer) -> str:
        """Return the name of a new consumer's channel."""
        self._numbers += 1
        channel = f"specific.{self.worker}!{secrets.token_hex(4)}{self._numbers:x}"
        self._consumers[channel] = member
        return channel

    def leave(self, channel: str) -> None:
        """Forget a consumer, which then is in no group any more."""
        member = self._consumers.pop(channel, None)
        if member is not None:
            for subscription in list(member.subscriptions):
                self.unsubscribe(member, subscription)
        self.has_room(channel)

    def has(self, channel: str) -> bool:
        """Tell whether this is the channel of one of these consumers."""
        return channel in self._consumers

    def put(self, channel: str, payload: bytes) -> bool:
        """Hand an event to the consumer with this channel, and tell whether it had room."""
        member = self._consumers.get(channel)
        return member is None or member.put(self.channel, payload)

    def add(self, group: str, channel: str) -> None:
        """Make a consumer a member of a group. Blocks until Redis has acknowledged the subscription.

        Raises:
            redis.exceptions.ConnectionError: if it has not.
        """
        member = self._consumers.get(channel)
        if member is not None:
            self.subscribe(member, layers.group_channel(group))

    def discard(self, group: str, channel: str) -> None:
        """Take a consumer out of a group."""
        member = self._consumers.get(channel)
        if member is not None:
            self.unsubscribe(member, layers.group_channel(group))

    def subscribe(self, member: LocalConsumer, channel: bytes) -> None:
        """Have a consumer get what is published on a Redis channel; raises what :meth:`add` raises."""
        if channel in member.subscriptions:
            return
        try:
            self._broker.subscribe([channel])
        except Unavailable as exc:
            raise RedisUnreachable(str(exc)) from None
        if channel in member.subscriptions or not self.has(member.channel_name):  # meanwhile
            self._broker.unsubscribe([channel])
            return
        member.subscriptions.add(channel)
        self._subscribed.setdefault(channel, {})[member] = None

    def unsubscribe(self, member: LocalConsumer, channel: bytes) -> None:
        """Take a :meth:`subscribe` back. Never blocks."""
        if channel in member.subscriptions:
            member.subscriptions.remove(channel)
            members = self._subscribed[channel]
            del members[member]
            if not members:
                del self._subscribed[channel]
            self._broker.unsubscribe([channel])

    # What Redis brings.

    def deliver(self, channel: bytes, payload: bytes) -> None:
        """Hand on what came on a Redis channel. Never blocks."""
        for member in list(self._subscribed.get(channel, ())):
            member.put(channel, payload)

    def on_request(self, payload: bytes) -> None:
        """Act on what came on this worker's channel. Never blocks."""
        try:
            request = msgpack.unpackb(payload)
        except Exception:  # whatever MessagePack makes of what somebody else has published
            request = None
        match request:
            case ["send", str(channel), bytes(event)]:
                if not self.put(channel, event):
                    self._full.add(channel)
                    self._notes.put((channel, True))
            case [("add" | "discard") as verb, str(channel), str(group), str(reply)]:
                greenlets.spawn(self._change, verb, channel, group, reply)
            case _:
                logger.warning("not understood: a message of %d bytes on the channel of this worker", len(payload))

    def has_room(self, channel: str) -> None:
        """Take back that a consumer is full. Never blocks."""
        if channel in self._full:
            self._full.discard(channel)
            self._notes.put((channel, False))

    def _note(self, notes: list[tuple[str, bool]]) -> None:
        try:
            for channel, full in dict(notes).items():
                if full:
                    pool.client().set(layers.full_key(channel), 1, ex=FULL_TTL)
                else:
                    pool.client().delete(layers.full_key(channel))
        except (RedisError, OSError) as exc:
            logger.warning("it cannot be told which consumers are full: %s", exc)
        gevent.sleep(0)

    def _change(self, verb: str, channel: str, group: str, reply: str) -> None:
        try:
            getattr(self, verb)(group, channel)
            layers.answer(reply)
        except (RedisError, OSError, TypeError) as exc:  # who has asked is told by the silence
            logger.warning("%s of a group for another process: %s", verb, exc)

    def resumed(self) -> None:
        """Tell all consumers that the subscription stands again, as soon as it does. Never blocks."""
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
        for member in list(self._consumers.values()):
            member.resumed()


__all__ = ["BatchingDelivery", "LocalConsumers"]
