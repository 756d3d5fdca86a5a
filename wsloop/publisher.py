"""``RedisPublisher`` for views, tasks and shells: a superset of ``ws4redis.publisher.RedisPublisher``.

It works in any process that can reach Redis, with or without a server running. It must not know gevent or sockets.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from django.db import transaction
from ws4redis.publisher import RedisPublisher as StockPublisher
from ws4redis.redis_store import RedisStore

from wsloop import conf, pool
from wsloop.store import SELF, RedisMessage, Store, encode, publish


class RedisPublisher(Store, StockPublisher):  # type: ignore[misc]
    """Publishes messages to a facility's audiences.

    ::

        RedisPublisher(facility="news", broadcast=True).publish_message("Hello, everybody")
        RedisPublisher(facility="orders", users=[SELF], request=request).publish_message({"order": 7, "state": "paid"})

        with RedisPublisher(facility="import", users="john") as publisher:  # one round trip, nothing if it raises
            for row in rows:
                publisher.publish_message(f"{row} imported")

    Args:
        facility: what sockets name behind ``WEBSOCKET_URL``; may contain slashes.
        broadcast: True addresses everybody who listens to the facility.
        users: user names or user objects, one or several; SELF is the user who made the ``request``.
        groups: names or objects of groups, one or several; SELF means the groups of that user.
        sessions: session keys, one or several; SELF is the session of the ``request``.
        request: the request that SELF refers to. For a visitor without user or session SELF addresses nobody.

    Raises:
        ValueError: if users, groups or sessions are of another type.
    """

    def __init__(self, **kwargs: Any) -> None:
        # Not the stock initializer: its pool of connections grows with the requests.
        RedisStore.__init__(self, pool.client())
        self._publishers = self._get_message_channels(**kwargs)
        self._batch: list[tuple[bytes, int]] | None = None

    def publish_message(self, message: Any, expire: int | None = None, on_commit: bool = False) -> None:
        """Publish ``message`` to all audiences of this publisher, in one round trip.

        Args:
            message: text, bytes, or anything that can be written as JSON (with Django's encoder).
            expire: seconds for which it is also kept as each channel's last message, for those who connect later;
                0 keeps nothing; None takes ``WS4REDIS_EXPIRE``.
            on_commit: wait until the database transaction is committed, and forget the message if it is rolled back.

        Raises:
            TypeError: if the message cannot be written as JSON.
            redis.exceptions.RedisError: if Redis did not take it. With ``on_commit`` it is raised by the commit.
        """
        item = (encode(message), conf.expire() if expire is None else expire)
        if on_commit:
            transaction.on_commit(lambda: publish(self._connection, self._publishers, [item]))
        elif self._batch is not None:
            self._batch.append(item)
        else:
            publish(self._connection, self._publishers, [item])

    def pipeline_publish_message(self, message: Any, expire: int | None = None) -> None:
        """Publish ``message``; the same as :meth:`publish_message`, which always uses a pipeline here."""
        self.publish_message(message, expire)

    def fetch_message(self, request: Any, facility: str, audience: str = "any") -> bytes | None:
        """Return the last message kept for the ``request``'s session, user, groups or everybody, in that order.

        Args:
            request: tells whose messages to look for; None looks for those to everybody only.
            facility: the facility they were published to.
            audience: ``session``, ``user``, ``group``, ``broadcast``, or ``any`` for the first of them that has one.

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
            if audience in (name, "any"):
                channels += self._get_message_channels(request=request, facility=facility, **addressed)
        if not channels:
            return None
        return next((message for message in self._connection.mget(channels) if message), None)

    def __enter__(self) -> RedisPublisher:
        self._batch = []
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        batch, self._batch = self._batch, None
        if kind is None and batch:
            publish(self._connection, self._publishers, batch)


__all__ = ["SELF", "RedisMessage", "RedisPublisher"]
