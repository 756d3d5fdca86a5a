"""From a request to the channels that its socket subscribes and publishes to, with ws4redis's subscriber classes.

A site may have its own subclass of ``ws4redis.subscriber.RedisSubscriber`` (the option ``SUBSCRIBER``), written
for a Redis connection per socket. Here it gets a client that records its subscriptions, for the shared subscription,
and a stand-in for the socket that records the messages it sends before the socket is open. This module must not know
sockets.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from ws4redis.subscriber import RedisSubscriber

from wsloop import conf, kinds, routing
from wsloop.backend import pool, publishing
from wsloop.refusals import Refused
from wsloop.store import SELF, Store

PRESENCE = "subscribe-presence"  # the policy decides about it as about audiences


class Subscriber(Store, RedisSubscriber):  # type: ignore[misc]
    """ws4redis's subscriber with its broken methods fixed; always a base of the site's own class."""

    def set_pubsub_channels(self, request: HttpRequest, channels: Iterable[str]) -> None:
        """Work out the channels for what the client asked for and the policy allowed, such as ``subscribe-user``."""
        wanted = set(channels)
        self._facility = routing.facility(request)

        def names(verb: str) -> list[str]:
            return self._get_message_channels(
                request=request,
                facility=self._facility,
                broadcast=f"{verb}-broadcast" in wanted,
                groups=[SELF] if f"{verb}-group" in wanted else [],
                users=[SELF] if f"{verb}-user" in wanted else [],
                sessions=[SELF] if f"{verb}-session" in wanted else [],
            )

        self._publishers = set(names("publish"))
        self._subscription = self._connection.pubsub()
        for channel in names("subscribe"):
            self._subscription.subscribe(channel)

    @property
    def publishes_itself(self) -> bool:
        """Whether the site's own class decides what becomes of a message."""
        return type(self).publish_message is not Subscriber.publish_message

    def publish_message(self, message: Any, expire: int | None = None) -> None:
        """Publish a message of the client; see :meth:`wsloop.store.Store.publish_message`."""
        payload = publishing.encode(message)
        self._connection.publish_all(self._publishers, payload, conf.expire() if expire is None else expire)

    def send_persisted_messages(self, websocket: RetainedRecorder) -> None:
        """Send the retained message of each channel, in one round trip."""
        channels = list(self._subscription.channels)
        if channels:
            found = publishing.last_messages(pool.client(), channels)
            for channel, message in zip(channels, found, strict=True):
                if message:
                    websocket.send(message, channel=channel)


class RetainedRecorder:
    """Stands in for the WebSocket until it is open: records the messages that a subscriber sends."""

    closed = False

    def __init__(self) -> None:
        self.sent: list[tuple[bytes | None, bytes]] = []

    def send(self, message: bytes | str, binary: bool | None = None, *, channel: bytes | None = None) -> None:
        """Record a message; ``channel`` is the one that retained it, if known."""
        self.sent.append((channel, message.encode() if isinstance(message, str) else bytes(message)))


class RecordingPubSub:
    """Stands in for redis-py's ``PubSub``: records the channels that a subscriber subscribes to.

    Attributes:
        channels: as in redis-py, a dictionary whose keys are the channels, as bytes.
    """

    connection = None
    subscribed = False  # nothing to release: the subscription belongs to the process

    def __init__(self) -> None:
        self.channels: dict[bytes, None] = {}

    def subscribe(self, *channels: Any, **handlers: Any) -> None:
        """Record channels, given one by one or in lists."""
        if handlers:
            name = conf.name_of("SUBSCRIBER")
            raise ImproperlyConfigured(f"{name}: handlers for single channels are not supported")
        for channel in channels:
            self.channels.update(
                dict.fromkeys(as_bytes(channel if isinstance(channel, (list, tuple, set)) else [channel]))
            )

    def unsubscribe(self, *channels: Any) -> None:
        """Remove channels, or all of them."""
        for channel in as_bytes(channels) or list(self.channels):
            self.channels.pop(channel, None)

    def psubscribe(self, *patterns: Any, **handlers: Any) -> None:
        name = conf.name_of("SUBSCRIBER")
        raise ImproperlyConfigured(f"{name}: subscribe to channels; patterns are not supported")

    def reset(self) -> None:
        self.channels.clear()


class RecordingClient:
    """Stands in for the Redis client of one socket's subscriber: the process's client, except for pub/sub.

    Attributes:
        publish_hook: called with the channels, payload and expiry (seconds) of a message that the subscriber publishes
            for an open socket; None: the message goes straight to Redis.
    """

    def __init__(self) -> None:
        self.publish_hook: Callable[[Sequence[bytes], bytes, int], None] | None = None

    def pubsub(self, **options: Any) -> RecordingPubSub:
        return RecordingPubSub()

    def publish(self, channel: bytes | str, message: bytes | str) -> None:
        self.publish_all([channel], publishing.encode(message), expire=0)

    def publish_all(self, channels: Iterable[bytes | str], payload: bytes, expire: int) -> None:
        """Publish to several channels in one round trip."""
        publishing.check(expire)
        if self.publish_hook is None:
            publishing.publish(pool.client(), [publishing.OutgoingMessage(as_bytes(channels), payload, expire)])
        else:
            self.publish_hook(as_bytes(channels), payload, expire)

    def __getattr__(self, name: str) -> Any:
        return getattr(pool.client(), name)


def as_bytes(names: Iterable[bytes | str]) -> tuple[bytes, ...]:
    """Return names of channels as Redis reports them."""
    return tuple(name if isinstance(name, bytes) else str(name).encode() for name in names)


@functools.cache
def subscriber_class(path: str) -> type[Subscriber]:
    """Return the class that the option ``SUBSCRIBER`` names, with the fixed base class added.

    In the method resolution order :class:`Subscriber` comes right before ws4redis's class: the site's own methods come
    first, and the inherited ones are the fixed ones.

    Raises:
        ImproperlyConfigured: if there is no such class.
    """
    name = conf.name_of("SUBSCRIBER")
    given = kinds.imported(name, path)
    if not (isinstance(given, type) and issubclass(given, RedisSubscriber)):
        raise ImproperlyConfigured(f"{name} = {path!r} is not a subclass of ws4redis's RedisSubscriber")
    if given is RedisSubscriber or issubclass(given, Subscriber):
        return Subscriber if given is RedisSubscriber else given
    return type(given.__name__, (given, Subscriber), {"__module__": given.__module__})


def requested(request: HttpRequest, possible: Iterable[str]) -> tuple[list[str], bool]:
    """Return the channels among ``possible`` that the query asks for, and whether it asks for the echo.

    Unknown parameters are ignored, case does not matter, and each channel counts once (as in ws4redis).
    """
    names = [name.strip().lower() for name in request.GET]
    return [name for name in dict.fromkeys(names) if name in possible], "echo" in names


def work_out(given: type[Subscriber], request: HttpRequest, facility: str, channels: list[str]) -> Subscriber:
    """Return a subscriber that has worked out the names of these channels in Redis.

    Raises:
        Refused, Exception: see :func:`check_facility`; and what the site's subscriber raises.
    """
    check_facility(facility, channels)
    subscriber = given(RecordingClient())
    subscriber.set_pubsub_channels(request, channels)
    return subscriber


def check_facility(facility: str, channels: Iterable[str]) -> None:
    """Refuse a facility with which one group or user could read messages for another.

    In ws4redis's keys a colon separates the name and the facility: ``group:team:admins:news`` is the facility
    ``news`` of the group ``team:admins``, and the facility ``admins:news`` of the group ``team``.

    Raises:
        Refused: 400.
    """
    if ":" in facility and any(name.endswith(("-group", "-user")) for name in channels):
        reason = "A facility with a colon cannot have the audiences user and group: its channels would be ambiguous."
        raise Refused(HTTPStatus.BAD_REQUEST, reason, kind="URL", told=reason)
