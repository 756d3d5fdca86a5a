"""The names of Redis channels and the one way to publish: ws4redis's ``RedisStore``, made right.

Publisher (views) and subscriptions (sockets) share this module. Keys and channels are those of ws4redis,
``{prefix}user:{name}:{facility}`` and so on, and the key of a channel holds its last message. This module must not know
gevent, WebSockets or HTTP beyond ``request.user`` and ``request.session``.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from django.core.serializers.json import DjangoJSONEncoder
from django.utils.functional import Promise  # what gettext_lazy() returns
from redis import Redis, RedisCluster
from redis.crc import key_slot
from redis.exceptions import NoScriptError, RedisError
from ws4redis.redis_store import RedisMessage, RedisStore

from wsloop import addressees, conf, redis_options, strict_json
from wsloop.addressees import SELF
from wsloop.messages import HEAD, new_id

META_TTL = 30 * 86400  # seconds for which it is remembered where a history stands, longer than the history itself
LONGEST = 10**9  # seconds, 30 years
ONCE = 86400  # seconds in which a message with the same idempotency key is not published again: retries take less
TAG = re.compile(rb"[^{]*\{[^}]+\}")  # a name with what Redis Cluster takes for a hash tag: that alone counts
SCRIPT_ERROR = re.compile(r"^Error running script \(call to \w+\): @user_script:\s*\d+: -?(?=\S)|^user_script:\d+: ")
SCRIPTS = {  # by name: SHA-1, by which Redis knows it, and text
    path.stem: (hashlib.sha1(path.read_bytes()).hexdigest(), path.read_text())
    for path in (Path(__file__).parent / "lua").glob("*.lua")
}


def control_channel() -> bytes:
    """Return the name of the channel on which all workers of the site are told about users; see ``access``."""
    return f"{conf.prefix()}wsloop:control".encode()


def encode(message: Any) -> bytes:
    """Return what is published for ``message``: bytes as they are, text as UTF-8, all else as JSON.

    Raises:
        TypeError: if the message is neither of these nor can be written as JSON.
        ValueError: if it has a number that JSON does not know (``nan``, ``inf``), or half of a surrogate pair.
    """
    if isinstance(message, (bytes, bytearray, memoryview)):  # RedisMessage is a subclass of bytes
        return bytes(message)
    if isinstance(message, (str, Promise)):
        try:
            return str(message).encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair cannot be encoded as UTF-8") from None
    return strict_json.encode(message, DjangoJSONEncoder).encode()


class Outgoing(NamedTuple):
    """A message to be published.

    Attributes:
        channels: where to; the history of each has the message, in facilities that have one.
        payload: the message.
        expire: seconds for which it is kept as the last message of each channel; 0 keeps nothing.
        options: of the facility.
        key: idempotency key: in :data:`ONCE` seconds a message with the same key is published once in each channel.
        own: channel of this process, and what it is told before the message: see ``broker``.
    """

    channels: Sequence[bytes | str]
    payload: bytes
    expire: int
    options: conf.Facility = conf.PLAIN
    key: str = ""
    own: tuple[bytes, bytes] = (b"", b"")


Call = tuple[str, list[Any], list[Any]]  # name of a script, keys, arguments


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


def check(expire: Any, key: Any = "") -> None:
    """Refuse what Redis would refuse in the middle of publishing.

    Raises:
        ValueError: if ``expire`` is no whole number of seconds up to :data:`LONGEST`, or ``key`` no text.
    """
    if isinstance(expire, bool) or not isinstance(expire, int) or expire > LONGEST:
        raise ValueError(f"expire must be a whole number of seconds, up to {LONGEST}, not {expire!r}")
    if not isinstance(key, str):
        raise ValueError(f"key must be text, not {key!r}")


def publish(client: Redis, messages: Iterable[Outgoing]) -> None:
    """Publish messages in order, in one round trip, and all or none of them. (In a Redis Cluster: one by one.)

    Raises:
        redis.exceptions.RedisError: if Redis did not take them.
    """
    calls = [each for message in messages for each in _calls(message, is_cluster(client))]
    call(client, calls, transaction=len(calls) > 1)


def _calls(message: Outgoing, cluster: bool) -> Iterator[Call]:
    channels = list(message.channels)
    size, ttl = message.options.size, message.options.ttl
    several = len(channels) > 1
    # A message that looks as if it had a header gets one, or it would be taken for what it says.
    head = HEAD if several or size or message.payload.startswith(HEAD) else b""
    arguments = [message.payload, new_id(), max(message.expire, 0), size, ttl, max(META_TTL, ttl)]
    arguments += [ONCE if message.key else 0, head, "s" if several else "-", *message.own]
    for group in [[channel] for channel in channels] if cluster else [channels]:
        keys = [(each, *history_keys(each), _key(each, b"once") + b":" + message.key.encode()) for each in group]
        yield "publish", list(itertools.chain.from_iterable(keys)), arguments


def call(client: Redis, calls: Sequence[Call], transaction: bool) -> list[Any]:
    """Call scripts of this package, in one round trip, and return their answers.

    Args:
        client: of Redis.
        calls: which, with their keys and arguments.
        transaction: whether nothing else may come in between.

    Raises:
        redis.exceptions.RedisError: an error has the words of Redis and nothing else: redis-py puts the whole command
            into the text, the payload, and channels whose names may have the key of a session, which would stand in
            every log and report of the error.
    """
    if is_cluster(client):
        return [_call_one(client, each) for each in calls]
    commands = [("EVALSHA", SCRIPTS[name][0], keys, given) for name, keys, given in calls]
    answers = _pipeline(client, commands, transaction)
    missing = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if missing:  # of a Redis that has just been started; it keeps what it is given now
        again = [("EVAL", SCRIPTS[calls[number][0]][1], *calls[number][1:]) for number in missing]
        for number, answer in zip(missing, _pipeline(client, again, transaction), strict=True):
            answers[number] = answer
    for answer in answers:
        if isinstance(answer, RedisError):
            raise _plain(answer)
    return answers


def _pipeline(client: Redis, commands: Iterable[tuple[str, Any, list[Any], list[Any]]], transaction: bool) -> list[Any]:
    pipeline = client.pipeline(transaction=transaction)
    for name, script, keys, arguments in commands:
        pipeline.execute_command(name, script, len(keys), *keys, *arguments)
    try:
        return pipeline.execute(raise_on_error=False)
    except RedisError as exc:
        raise _plain(exc) from None


def _call_one(client: Redis, one: Call) -> Any:
    name, keys, arguments = one
    sha, text = SCRIPTS[name]
    try:
        try:
            return client.evalsha(sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return client.eval(text, len(keys), *keys, *arguments)
    except RedisError as exc:
        raise _plain(exc) from None


def _plain(exc: RedisError) -> RedisError:
    """Return the error with the words of Redis alone, and of those what a person can act on."""
    words = str(exc).rpartition(" of pipeline caused error: ")[2]
    # Redis itself quotes arguments of commands that it does not know, or that are renamed.
    words = words.partition(", with args beginning with")[0]
    # An error inside a script: the place in the script says nothing to who publishes.
    words = SCRIPT_ERROR.sub("", words.partition(" script: ")[0])
    exc.args = (words, *exc.args[1:])
    return exc


def is_cluster(client: Any) -> bool:
    """Tell whether commands about several keys must be sent one by one."""
    return isinstance(client, RedisCluster)


def masters(client: Any) -> int:
    """Return on how many servers messages are published."""
    return len(client.get_primaries()) if is_cluster(client) else 1


def tell_all(client: Any, channel: bytes, payload: bytes) -> None:
    """Publish something on every server on which messages are published.

    Raises:
        redis.exceptions.RedisError: if one of them did not take it.
    """
    if is_cluster(client):
        client.execute_command("PUBLISH", channel, payload, target_nodes=RedisCluster.PRIMARIES)
    else:
        client.publish(channel, payload)


def publish_bare(client: Any, messages: Sequence[tuple[bytes, bytes]]) -> list[Any]:
    """Publish pairs of channel and payload, which nothing keeps, in one round trip (in a Redis Cluster: one by one).

    Returns:
        for each how many have got it, or the error of Redis.

    Raises:
        redis.exceptions.RedisError: if Redis cannot be reached.
    """
    if is_cluster(client):
        answers: list[Any] = []
        for message in messages:
            try:
                answers.append(client.publish(*message))
            except RedisError as exc:  # what came before is published, and what follows would wait for the same
                answers += [exc] * (len(messages) - len(answers))
                break
        return answers
    with client.pipeline(transaction=False) as pipeline:
        for message in messages:
            pipeline.publish(*message)
        return list(pipeline.execute(raise_on_error=False))


def listeners(client: Any, channel: bytes) -> int:
    """Return how many connections listen to a channel, at all nodes of a Redis Cluster.

    Raises:
        redis.exceptions.RedisError: if Redis does not answer.
    """
    everywhere = {"target_nodes": RedisCluster.ALL_NODES} if is_cluster(client) else {}
    ((_, count),) = client.pubsub_numsub(channel, **everywhere)
    return int(count)


def last_messages(client: Redis, channels: Sequence[bytes | str]) -> list[bytes | None]:
    """Return the last message that each channel keeps, or None; in one round trip, but for a Redis Cluster.

    Raises:
        redis.exceptions.RedisError: if Redis does not answer.
    """
    if is_cluster(client):
        return [client.get(channel) for channel in channels]  # type: ignore[misc]
    return list(client.mget(channels))  # type: ignore[arg-type]


class Store(RedisStore):  # type: ignore[misc]
    """Overrides the broken methods of ws4redis's ``RedisStore``; subclasses of both inherit the mended ones."""

    _facility = ""

    def _get_message_channels(
        self,
        request: Any = None,
        facility: Any = None,
        broadcast: bool = False,
        groups: Any = (),
        users: Any = (),
        sessions: Any = (),
    ) -> list[str]:
        """Return the channels of a message, see :func:`wsloop.addressees.channels`.

        ws4redis crashes on a single name (``basestring``) and makes a channel of the object SELF or of the session key
        ``None`` for a visitor who has none, which all such visitors would share.
        """
        return addressees.channels(
            request, facility=facility, broadcast=broadcast, groups=groups, users=users, sessions=sessions
        )

    def publish_message(self, message: Any, expire: int | None = None) -> None:
        """Publish ``message`` on all channels of this store, in one transaction and one round trip.

        Args:
            message: text, bytes, or what can be written as JSON.
            expire: seconds for which it is also kept as each channel's last message; 0 keeps nothing; None takes
                ``WS4REDIS_EXPIRE``.

        Raises:
            redis.exceptions.RedisError: if Redis did not take it.
        """
        publish(self._connection, [self._outgoing(message, expire)])

    def _outgoing(self, message: Any, expire: int | None, key: str = "") -> Outgoing:
        kept = conf.expire() if expire is None else expire
        check(kept, key)
        return Outgoing(list(self._publishers), encode(message), kept, conf.facility(self._facility), key)


__all__ = ["SELF", "Outgoing", "RedisMessage", "Store", "call", "encode", "publish"]
