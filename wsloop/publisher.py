"""``RedisPublisher`` for views, tasks and shells: a superset of ``ws4redis.publisher.RedisPublisher``.

It works in any process that can reach Redis, with or without a server running. It must not know gevent or sockets.
"""

from __future__ import annotations

import difflib
import functools
import heapq
import logging
from collections.abc import Sequence
from importlib import import_module
from types import TracebackType
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from wsloop import commits, conf
from wsloop.addressees import as_list, facility_name, mistake
from wsloop.backend import pool
from wsloop.backend.history import Entry, latest, tops
from wsloop.backend.publishing import OutgoingMessage, last_messages, publish
from wsloop.protocol import resume_tokens
from wsloop.refusals import hints
from wsloop.store import SELF, RedisMessage, Store

try:
    from ws4redis.publisher import RedisPublisher as StockPublisher
except ImportError:  # see wsloop.stock
    StockPublisher = object

ARGUMENTS = ("facility", "broadcast", "users", "groups", "sessions", "request")


def _no_argument(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    meant = f"; {close[0]!r} was meant, perhaps" if close else f", but {', '.join(sorted(known))}"
    return f"RedisPublisher has no argument {name!r}{meant}"


class RedisPublisher(Store, StockPublisher):  # type: ignore[misc]
    """Publishes messages to a facility's audiences.

    ::

        RedisPublisher(facility="news", broadcast=True).publish_message("Hello, everybody")
        RedisPublisher(facility="orders", users=[SELF], request=request).publish_message({"order": 7, "state": "paid"})

        with RedisPublisher(facility="import", users="john") as publisher:  # one round trip, nothing if it raises
            for row in rows:
                publisher.publish_message(f"{row} imported")

    Args:
        facility: the part of the sockets' URL behind ``WSLOOP["URL"]``; may contain slashes.
        broadcast: True addresses all subscribers of the facility.
        users: user names or user objects, one or several; SELF stands for the user of the ``request``.
        groups: names or objects of groups, one or several; SELF stands for the groups of that user.
        sessions: session keys, one or several; SELF stands for the session of the ``request``.
        request: the request that SELF refers to. For a visitor without user or session SELF addresses nobody.
        others: arguments of the ``_get_message_channels`` of a site's own subclass.

    Raises:
        TypeError: if there is no such argument.
        ValueError: if users, groups or sessions are of another type.
    """

    def __init__(
        self,
        *,
        facility: str,
        broadcast: bool = False,
        users: Any = (),
        groups: Any = (),
        sessions: Any = (),
        request: Any = None,
        **others: Any,
    ) -> None:
        # Not the stock initializer: its pool of connections grows with the requests.
        if others and type(self)._get_message_channels is RedisPublisher._get_message_channels:
            raise TypeError(_no_argument(next(iter(others)), ARGUMENTS))
        groups = as_list(groups, "groups")  # an iterator can be read only once
        audiences = {"broadcast": broadcast, "users": users, "sessions": sessions}
        self._publishers = self._get_message_channels(
            request=request, facility=facility, groups=groups, **audiences, **others
        )
        self._facility = facility_name(facility)
        self._own_groups = any(each is SELF for each in groups)
        self._mistake = mistake(self._publishers, request, facility, users, groups, sessions) if conf.debug() else ""
        self._batch: list[tuple[OutgoingMessage, bool | str, bool | str]] | None = None

    @property
    def _connection(self) -> Any:
        return pool.client()  # that of the calling thread; the publisher may have been made in another one

    def publish_message(
        self,
        message: Any,
        expire: int | None = None,
        on_commit: bool | str = False,
        key: str = "",
        outbox: bool | str = False,
    ) -> int | None:
        """Publish ``message`` to all audiences of this publisher, in one round trip.

        Args:
            message: text, bytes, or an object that can be encoded as JSON (with Django's encoder).
            expire: seconds for which it is also retained as each channel's last message, for sockets that open later;
                0 retains nothing; None takes ``WSLOOP["EXPIRE"]``.
            on_commit: publish after the commit of the database transaction, and not at all if it is rolled back. If
                transactions are open in several databases all of them must be committed; the alias of a database
                (``on_commit="orders"``) waits for that one alone.
            key: idempotency key: of several messages with the same key each audience gets the first, for 24 hours. So a
                view or task that does not know whether Redis has accepted a message can publish it again.
            outbox: write the message into the database, in the open transaction, and publish it after the commit, at
                once or when Redis can be reached again. See ``wsloop.outbox``. The table is in the database that the
                router names for ``wsloop_outbox``; the alias of a database writes into the table there.

        Returns:
            how many connections to Redis have got it, added up over the audiences: a worker of wsloop has one for all
            of its sockets, and counts once for each audience that any of them subscribes to. So 0 means that nobody
            listens now, and more is not a number of people. None where Redis does not tell it: if the message is
            published later (``on_commit``, ``outbox``, in a ``with`` block), if its ``key`` was published before, and
            in a Redis Cluster.

        Raises:
            TypeError: if the message cannot be encoded as JSON.
            ValueError: if it contains a number that JSON does not have (``nan``), or there is no such database.
            ImproperlyConfigured: with ``outbox``, if the application is not installed, or if a transaction is open in
                another database than that of the table, so that the message would not depend on it.
            redis.exceptions.RedisError: if Redis did not accept it. With ``on_commit`` the commit raises it.
        """
        item = self._outgoing(message, expire, key)
        for value, argument in ((on_commit, "on_commit"), (outbox, "outbox")):
            if not isinstance(value, bool):
                commits.alias(value, argument)
        return self._send(item, on_commit, outbox)

    def _send(self, item: OutgoingMessage, on_commit: bool | str = False, outbox: bool | str = False) -> int | None:
        if self._mistake:
            hints.log(logging.WARNING, "publisher", "%s", self._mistake)
        if self._batch is not None:
            self._batch.append((item, on_commit, outbox))
            return None
        return self._publish([(item, on_commit, outbox)])

    def _publish(self, entries: list[tuple[OutgoingMessage, bool | str, bool | str]]) -> int | None:
        """Publish messages, each with its ``on_commit`` and ``outbox``; those without both in one round trip.

        Returns:
            of the last one, see :meth:`publish_message`.
        """
        reached = None
        for item, _, outbox in entries:
            if outbox:
                using = None if outbox is True else outbox
                _outbox().put(self._publishers, item.payload, item.expire, self._facility, item.key, using)
        late: dict[bool | str, list[OutgoingMessage]] = {}
        for item, on_commit, outbox in entries:
            if not outbox:
                late.setdefault(on_commit, []).append(item)
        for on_commit, items in late.items():
            if on_commit:
                using = None if on_commit is True else on_commit
                commits.on_commit(functools.partial(_publish_all, items), using)
            else:
                reached = publish(pool.client(), items)[-1]
        return reached

    def fetch_message(self, request: Any, facility: str, audience: str = "any") -> bytes | None:
        """Return the retained last message of the ``request``'s session, user, groups or broadcast, in that order.

        Args:
            request: whose session, user and groups are meant; None: only the broadcast.
            facility: name of the facility.
            audience: ``session``, ``user``, ``group``, ``broadcast``, or ``any`` for the first of them with a message.

        Raises:
            ValueError: if there is no such audience.
            redis.exceptions.RedisError: if Redis does not answer.
        """
        if audience not in ("session", "user", "group", "broadcast", "any"):
            raise ValueError(f"audience must be session, user, group, broadcast or any, not {audience!r}")
        channels: list[str] = []
        for name, addressed in (
            ("session", {"sessions": [SELF]}),
            ("user", {"users": [SELF]}),
            ("group", {"groups": [SELF]}),
            ("broadcast", {"broadcast": True}),
        ):
            if audience == "any" and ":" in facility_name(facility) and name in ("user", "group"):
                continue  # a facility with a colon does not have these audiences
            if audience in (name, "any"):
                channels += self._get_message_channels(request=request, facility=facility, **addressed)
        if not channels:
            return None
        return next((message for message in last_messages(pool.client(), channels) if message), None)

    def history(self, limit: int = 100) -> list[Entry]:
        """Return the newest messages from the histories of this publisher's audiences, the oldest of them first.

        A message to several audiences is returned once. SELF stands for the ``request``'s own audiences.

        Args:
            limit: maximum number of messages.

        Returns:
            entries with ``message.payload`` (bytes), ``message.offset`` and ``time`` (microseconds since the epoch);
            empty in facilities without the option ``size``.

        Raises:
            ValueError: if the limit is not positive.
            redis.exceptions.RedisError: if Redis does not answer.
        """
        if type(limit) is not int or limit <= 0:
            raise ValueError(f"limit must be a positive whole number, not {limit!r}")
        found = [latest(pool.client(), channel, limit) for channel in self._publishers]
        merged = {entry.message.id: entry for entry in heapq.merge(*found, key=lambda entry: entry.time)}
        return list(merged.values())[-limit:]

    def token(self) -> str:
        """Return a resume token for the present positions of this publisher's audiences.

        A page passes it to its socket, which then receives all messages published after this call: see the template tag
        ``websocket_token``, and ``docs/reference/wsloop-v1.rst``.

        Returns:
            empty in facilities without recovery.

        Raises:
            redis.exceptions.RedisError: if Redis does not answer.
        """
        return token(self._facility, [channel.encode() for channel in self._publishers], self._own_groups)

    def __enter__(self) -> RedisPublisher:
        self._batch = []
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        batch, self._batch = self._batch, None
        if kind is None and batch:
            self._publish(batch)


def token(facility: str, channels: Sequence[bytes], groups: bool = False) -> str:
    """Return a resume token for the present positions of channels of a facility; see :meth:`RedisPublisher.token`.

    Args:
        groups: whether the socket listens to the groups of its user, whichever these are.
    """
    if not conf.facility(facility).recovers or not channels:
        return ""
    positions = dict(zip(channels, tops(pool.client(), channels), strict=True))
    return resume_tokens.token(positions, groups=groups)


def _publish_all(items: list[OutgoingMessage]) -> None:
    publish(pool.client(), items)


def _outbox() -> Any:
    if not apps.is_installed("wsloop.outbox"):
        raise ImproperlyConfigured(
            'outbox=True needs the application: add "wsloop.outbox" to INSTALLED_APPS and run manage.py migrate'
        )
    return import_module("wsloop.outbox")


__all__ = ["SELF", "RedisMessage", "RedisPublisher"]
