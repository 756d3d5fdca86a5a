"""From the outbox's table to Redis: in order, at least once, and by the idempotency key once.

How it works. :func:`drain` reads the oldest visible rows, publishes them in the order of their ids, and deletes them
when Redis has accepted them. There may be any number of drainers, in requests and in the command, and no locks:

- At least once: a row is deleted only after Redis has accepted it. After a failure before that, the row still exists.
- Once: every row has a key, and Redis drops a message whose key it has seen in the same channel
  (``publishing.ONCE`` seconds). So a message published by two drainers, or again after a failure before the deletion,
  arrives once.
- In order: each drainer publishes all rows that it sees, from the oldest on. So when it publishes a row, every older
  row that was committed when it read has been published: by itself, just now, or by the drainer that deleted it.
  Messages published before by another drainer are dropped, which does not change the order of the first copies. (With
  ``SKIP LOCKED`` a second drainer would overtake the first.)

An id is assigned before the commit. A long transaction may commit a row with a lower id than rows that are published
already: it is published when it becomes visible.

A message that Redis refuses while it accepts others is set aside with the error of Redis, so that it does not block
those behind it.

This module must not know sockets, gevent or HTTP.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence

from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from django.db import models, router, transaction
from redis.exceptions import RedisError, ResponseError

from wsloop import commits, conf
from wsloop.backend import pool, publishing
from wsloop.outbox.models import Message

logger = logging.getLogger("wsloop.outbox")

BATCH = 100  # rows published in one round trip
AFTER_COMMIT = 1000  # maximum of rows published by one request: a backlog is left to the command


def put(
    channels: Sequence[str], payload: bytes, expire: int, facility: str, key: str = "", using: str | None = None
) -> None:
    """Write a message as a row, and try to publish it after the commit, or at once if no transaction is open.

    Args:
        channels: names of Redis channels.
        payload: the message.
        expire: seconds for which it is retained as the last message of each channel; 0 retains nothing.
        facility: the facility whose options apply.
        key: idempotency key; by default a random one.
        using: alias of the database whose table gets the row; None: the one that the router names.

    Raises:
        ImproperlyConfigured: if a transaction is open in another database only, on which the row would not depend.
        django.db.Error: if the row could not be written. A failure of Redis is logged, and the row remains.
    """
    if not channels:
        return
    row = Message(channels=list(channels), payload=payload, expire=expire, facility=facility)
    row.key = key or secrets.token_hex(16)
    database = using or router.db_for_write(Message)
    others = commits.open_transactions()
    if others and database not in others:
        raise ImproperlyConfigured(
            f"The outbox's table is in the database {database!r}, but the open transaction is in "
            f"{', '.join(map(repr, others))}: the message would be published even if that is rolled back. Let the "
            f"database router name {others[0]!r} for wsloop_outbox, or migrate the table there as well and write "
            f"outbox={others[0]!r}."
        )
    connection = transaction.get_connection(database)
    if not connection.in_atomic_block and not connection.get_autocommit():
        raise transaction.TransactionManagementError(
            f"The outbox needs a transaction of Django: the database {database!r} is not in autocommit mode, so the "
            "commit would not be noticed."
        )
    row.save(force_insert=True, using=database)
    for _, function, _ in reversed(connection.run_on_commit):
        commit = getattr(function, "__self__", None)
        if isinstance(commit, _Commit) and not commit.done:
            break
    else:
        commit = _Commit(database)
    connection.on_commit(commit.publish, robust=True)


class _Commit:
    """The callback after a commit, one for all rows written in the transaction."""

    def __init__(self, database: str) -> None:
        self._database = database
        self.done = False

    def publish(self) -> None:
        """Publish the committed rows. Raises nothing: the caller's work is done, and the rows are stored."""
        if self.done:
            return
        self.done = True
        try:
            drain(AFTER_COMMIT, self._database)
        except (RedisError, DatabaseError) as exc:
            logger.warning("Could not publish the outbox; its messages wait: %s", describe(exc))


def drain(limit: int, using: str | None = None) -> int:
    """Publish the messages that wait in the outbox, the oldest first.

    Args:
        limit: maximum of rows to publish.
        using: alias of the database with the table; None: the one that the router names.

    Returns:
        the number of rows published or set aside; less than ``limit`` if none waits any more.

    Raises:
        redis.exceptions.RedisError: if Redis does not accept them; the rows remain.
        django.db.Error: if the database does not answer.
        RuntimeError: inside a transaction.
    """
    done = 0
    while done < limit:
        rows = _oldest(min(BATCH, limit - done), using)
        if not rows:
            break
        taken = _publish(rows)
        _table(using).filter(pk__in=[row.pk for row in taken]).delete()
        done += len(rows)
    return done


def _oldest(count: int, using: str | None) -> list[Message]:
    # Durable: in a transaction of the caller it would see, and publish, rows that may yet be rolled back.
    with transaction.atomic(using=using or router.db_for_write(Message), durable=True):
        return list(waiting(using).order_by("pk")[:count])


def _publish(rows: Sequence[Message]) -> list[Message]:
    """Publish rows and return those that Redis accepted; the others are set aside."""
    client = pool.client()
    try:
        publishing.publish(client, [_outgoing(row) for row in rows])
        return list(rows)
    except ResponseError:
        pass
    # Redis refused one of them, or all, and others may have been published: those are dropped by their keys.
    taken = []
    for row in rows:
        try:
            publishing.publish(client, [_outgoing(row)])
        except ResponseError as exc:
            # If Redis accepts nothing at all (full, read-only), the row is not at fault: this raises.
            probe = f"{conf.prefix()}wsloop:outbox"
            publishing.publish(client, [publishing.OutgoingMessage([probe], b"", expire=1)])
            _set_aside(row, describe(exc))
        else:
            taken.append(row)
    return taken


def _outgoing(row: Message) -> publishing.OutgoingMessage:
    options = conf.facility(row.facility)
    return publishing.OutgoingMessage(row.channels, bytes(row.payload), row.expire, options, row.key)


def _set_aside(row: Message, words: str) -> None:
    row.refused = words
    if _table(row._state.db).filter(pk=row.pk).update(refused=words):
        logger.error("Set aside message %s of the outbox, which Redis refuses: %s", row.pk, words)


def waiting(using: str | None = None) -> models.QuerySet[Message]:
    """Return the rows that wait to be published: all except those that were set aside."""
    return _table(using).filter(refused="")


def _table(using: str | None) -> models.QuerySet[Message]:
    return Message.objects.using(using or router.db_for_write(Message))


def describe(exc: Exception) -> str:
    """Return an error in one line."""
    return f"{type(exc).__name__}: {' '.join(str(exc).split())}"
