"""Publishes: a message to all of its channels in one round trip, and into their histories.

Publishers in views and messages of sockets share this module. Keys and channels are those of ws4redis,
``{prefix}user:{name}:{facility}`` and so on, and the key of a channel holds its last message. This module must not know
audiences.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from django.core.serializers.json import DjangoJSONEncoder
from django.utils.functional import Promise  # returned by gettext_lazy()
from redis import Redis, RedisCluster
from redis.exceptions import RedisError

from wsloop import conf
from wsloop.backend.keys import history_keys, once_key
from wsloop.backend.scripts import Call, call, is_cluster
from wsloop.kinds import is_utf8
from wsloop.protocol import strict_json
from wsloop.protocol.messages import HEAD, new_id

META_TTL = 30 * 86400  # seconds for which the top of a history is kept, longer than the history itself
LONGEST = 10**9  # seconds, 30 years
ONCE = 86400  # seconds in which a message with the same idempotency key is not published again: retries end earlier


def encode(message: Any) -> bytes:
    """Return the payload for ``message``: bytes as they are, text as UTF-8, all else as JSON.

    Raises:
        TypeError: if the message is neither of these nor can be encoded as JSON.
        ValueError: if it contains a number that JSON does not have (``nan``, ``inf``), or half of a surrogate pair.
    """
    if isinstance(message, (bytes, bytearray, memoryview)):  # RedisMessage is a subclass of bytes
        return bytes(message)
    if isinstance(message, (str, Promise)):
        try:
            return str(message).encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair cannot be encoded as UTF-8") from None
    return strict_json.encode(message, DjangoJSONEncoder).encode()


class OutgoingMessage(NamedTuple):
    """A message to be published.

    Attributes:
        channels: of the message; it is added to the history of each, in facilities that have one.
        payload: the message.
        expire: seconds for which it is retained as the last message of each channel; 0 retains nothing.
        options: of the facility.
        key: idempotency key: in :data:`ONCE` seconds a message with the same key is published once in each channel.
        own: the process's own channel, and the note published there immediately before the message: see
            :mod:`wsloop.delivery.own_channel`; empty: none.
        one_by_one: whether a channel on which Redis does not accept it keeps it from no other.
    """

    channels: Sequence[bytes | str]
    payload: bytes
    expire: int
    options: conf.Facility = conf.PLAIN
    key: str = ""
    own: tuple[bytes, bytes] = (b"", b"")
    one_by_one: bool = False


def check(expire: Any, key: Any = "") -> None:
    """Check arguments that Redis would otherwise refuse in the middle of publishing.

    Raises:
        ValueError: if ``expire`` is not a whole number of seconds up to :data:`LONGEST`, or ``key`` not text that can
            be encoded as UTF-8.
    """
    if type(expire) is not int or not -LONGEST <= expire <= LONGEST:
        raise ValueError(f"expire must be a whole number of seconds, up to {LONGEST}, not {expire!r}")
    if not isinstance(key, str) or not is_utf8(key):
        raise ValueError(f"key must be text that can be encoded as UTF-8, not {key!r}")


def publish(client: Redis, messages: Iterable[OutgoingMessage]) -> list[int | None]:
    """Publish messages in order, in one round trip, and all or none of them. (In a Redis Cluster: one by one.)

    If one of them may be published ``one_by_one``, each is published by itself.

    Returns:
        for each message the number of connections to Redis that have got it, added up over its channels. None if that
        is not known: in a Redis Cluster, where a node knows its own connections only, or if the message with this key
        was published before, in all of its channels.

    Raises:
        redis.exceptions.RedisError: if Redis did not accept them.
    """
    messages = list(messages)
    cluster = is_cluster(client)
    together = not any(message.one_by_one for message in messages)
    calls = [[*_calls(message, cluster or message.one_by_one)] for message in messages]
    every = [each for one in calls for each in one]
    answers = iter(call(client, every, transaction=together and len(every) > 1))
    return [_reached([next(answers) for _ in one], cluster) for one in calls]


def _reached(answers: list[list[int]], cluster: bool) -> int | None:
    counts = [count for answer in answers for count in answer]
    if cluster or (counts and max(counts) < 0):
        return None
    return sum(count for count in counts if count >= 0)


def _calls(message: OutgoingMessage, apart: bool) -> Iterator[Call]:
    channels = list(message.channels)
    size, ttl = message.options.size, message.options.ttl
    several = len(channels) > 1
    # A message that begins like a header needs one, or its beginning would be read as a header.
    head = HEAD if several or size or message.payload.startswith(HEAD) else b""
    arguments = [message.payload, new_id(), max(message.expire, 0), size, ttl, max(META_TTL, ttl)]
    arguments += [ONCE if message.key else 0, head, "s" if several else "-", *message.own]
    for group in [[channel] for channel in channels] if apart else [channels]:
        keys = [(each, *history_keys(each), once_key(each, message.key)) for each in group]
        yield "publish", list(itertools.chain.from_iterable(keys)), arguments


def masters(client: Any) -> int:
    """Return the number of servers on which messages are published."""
    return len(client.get_primaries()) if is_cluster(client) else 1


def tell_all(client: Any, channel: bytes, payload: bytes) -> None:
    """Publish a payload on every server on which messages are published.

    Raises:
        redis.exceptions.RedisError: if one of them did not accept it.
    """
    if is_cluster(client):
        client.execute_command("PUBLISH", channel, payload, target_nodes=RedisCluster.PRIMARIES)
    else:
        client.publish(channel, payload)


def publish_bare(client: Any, messages: Sequence[tuple[bytes, bytes]]) -> list[Any]:
    """Publish pairs of channel and payload, without history, in one round trip (in a Redis Cluster: one by one).

    Returns:
        for each the number of subscribers that received it, or the error of Redis.

    Raises:
        redis.exceptions.RedisError: if Redis cannot be reached.
    """
    if is_cluster(client):
        answers: list[Any] = []
        for message in messages:
            try:
                answers.append(client.publish(*message))
            except RedisError as exc:  # those before are published, and those behind would wait for the same
                answers += [exc] * (len(messages) - len(answers))
                break
        return answers
    with client.pipeline(transaction=False) as pipeline:
        for message in messages:
            pipeline.publish(*message)
        return list(pipeline.execute(raise_on_error=False))


def listeners(client: Any, channel: bytes) -> int:
    """Return the number of connections that subscribe to a channel, over all nodes of a Redis Cluster.

    Raises:
        redis.exceptions.RedisError: if Redis does not answer.
    """
    everywhere = {"target_nodes": RedisCluster.ALL_NODES} if is_cluster(client) else {}
    ((_, count),) = client.pubsub_numsub(channel, **everywhere)
    return int(count)


def last_messages(client: Redis, channels: Sequence[bytes | str]) -> list[bytes | None]:
    """Return the retained last message of each channel, or None; in one round trip, except in a Redis Cluster.

    Raises:
        redis.exceptions.RedisError: if Redis does not answer.
    """
    if is_cluster(client):
        return [client.get(channel) for channel in channels]  # type: ignore[misc]
    return list(client.mget(channels))  # type: ignore[arg-type]


def last_messages_and_tell_all(
    client: Any, channels: Sequence[bytes], channel: bytes, payload: bytes
) -> list[bytes | None]:
    """Return the retained messages as :func:`last_messages` does, and then do what :func:`tell_all` does.

    In one round trip, except in a Redis Cluster.

    Raises:
        redis.exceptions.RedisError: if Redis does not answer.
    """
    if is_cluster(client) or not channels:
        found = last_messages(client, channels) if channels else []
        tell_all(client, channel, payload)
        return found
    with client.pipeline(transaction=False) as pipeline:
        pipeline.mget(channels)
        pipeline.publish(channel, payload)
        found, _ = pipeline.execute()
        return list(found)


__all__ = ["OutgoingMessage", "encode", "publish"]
