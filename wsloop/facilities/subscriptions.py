"""From a request to the channels that its socket subscribes and publishes to, with ws4redis's subscriber classes.

A site may have its own subclass of ``ws4redis.subscriber.RedisSubscriber`` (the option ``SUBSCRIBER``), written
for a Redis connection per socket. Here it gets a client that records its subscriptions, for the shared subscription,
and a stand-in for the socket that records the messages it sends before the socket is open. This module must not know
sockets.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest

from wsloop import conf, kinds, routing
from wsloop.backend import pool, publishing
from wsloop.facilities.recording import RecordingClient, RetainedRecorder
from wsloop.refusals import Refused
from wsloop.stock import SELF, RedisStore, RedisSubscriber
from wsloop.store import Store

logger = logging.getLogger("wsloop.handlers")

STOCK = "ws4redis.subscriber.RedisSubscriber"
PRESENCE = "subscribe-presence"  # the policy decides about it as about audiences


# Store comes last: of classes that a site's class shares with its publisher, the methods go before those of Store.
class Subscriber(RedisSubscriber, Store):  # type: ignore[misc]
    """ws4redis's subscriber with its broken methods fixed; always a base of the site's own class.

    Attributes:
        site_calls: the queue of the site's code for an open socket, one call after the other; None: there is none.
    """

    site_calls: Any = None

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
        return type(self).publish_message is not Store.publish_message

    @property
    def starts_itself(self) -> bool:
        """Whether the site's own class decides which messages a socket gets first."""
        return type(self).send_persisted_messages is not Subscriber.send_persisted_messages

    @property
    def releases_itself(self) -> bool:
        """Whether the site's own class wants to know when the socket has ended."""
        return type(self).release is not RedisSubscriber.release

    def _send(self, item: publishing.OutgoingMessage) -> None:
        for channels in [[channel] for channel in item.channels] if item.one_by_one else [item.channels]:
            self._connection.publish_all(channels, item.payload, item.expire)

    def send_persisted_messages(self, websocket: RetainedRecorder) -> None:
        """Send the retained message of each channel, in one round trip."""
        channels = list(self._subscription.channels)
        if channels:
            found = publishing.last_messages(pool.client(), channels)
            for channel, message in zip(channels, found, strict=True):
                if message:
                    websocket.send(message, channel=channel)


@functools.cache
def subscriber_class(path: str) -> type[Subscriber]:
    """Return the class that the option ``SUBSCRIBER`` names, with the fixed base class added.

    In the method resolution order :class:`Subscriber` comes right before ws4redis's ``RedisSubscriber``, and its base
    :class:`wsloop.store.Store` right before ``RedisStore``: the site's own methods come first, those of other base
    classes too, and the inherited ones are the fixed ones. (ws4redis's documentation has sites derive such a class from
    ``RedisStore`` alone.)

    Raises:
        ImproperlyConfigured: if there is no such class.
    """
    name = conf.name_of("SUBSCRIBER")
    if path == STOCK:  # the default, which may not be installed
        return Subscriber
    given = kinds.imported(name, path)
    if not (isinstance(given, type) and issubclass(given, RedisStore)):
        raise ImproperlyConfigured(f"{name} = {path!r} is not a subclass of ws4redis's RedisSubscriber")
    if issubclass(given, Subscriber):
        return given
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
    try:
        subscriber.set_pubsub_channels(request, channels)
    except BaseException:
        release(subscriber)
        raise
    return subscriber


def release(subscriber: Subscriber) -> None:
    """Tell the site's class that there is no socket, or no longer. Blocks as long as the site's code does."""
    subscriber._connection.publish_hook = None  # of the messages of the socket
    try:
        subscriber.release()
    except BaseException as exc:  # the site's code may let a gevent.Timeout out, or call sys.exit()
        if isinstance(exc, KeyboardInterrupt):
            raise
        logger.exception("%s.release failed", type(subscriber).__name__)


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
