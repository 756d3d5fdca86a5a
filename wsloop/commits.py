"""The transactions on which a message depends, in sites with one database and with several.

This module must not know Redis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connections, transaction


def alias(value: Any, argument: str) -> str:
    """Return the alias of a database that an argument names.

    Raises:
        TypeError: if it is not text.
        ValueError: if there is no such database.
    """
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be True or the alias of a database, not {value!r}")
    if value not in connections.settings:
        raise ValueError(f"{argument} names the database {value!r}; there are {sorted(connections.settings)}")
    return value


def open_transactions() -> list[str]:
    """Return the aliases of the databases in which this thread or greenlet has an open transaction.

    Those that Django's ``TestCase`` opens around a test do not count: a site does not know of them.
    """
    return [each.alias for each in connections.all(initialized_only=True) if _is_open(each)]


def _is_open(connection: Any) -> bool:
    if connection.in_atomic_block:
        return any(not getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)
    return connection.connection is not None and not connection.autocommit


def on_commit(publish: Callable[[], None], using: str | None = None) -> None:
    """Call ``publish`` when all transactions that are open now have been committed, and never if one is rolled back.

    Args:
        publish: called at once if there is no open transaction.
        using: alias of the only database to consider.

    Raises:
        django.db.transaction.TransactionManagementError: if a database is not in autocommit mode.
    """
    # None: Django's default, so that the tests of a site can observe its on_commit callbacks.
    aliases: list[str | None] = [using] if using is not None else [*open_transactions()] or [None]
    waiting = set(aliases)

    def committed(database: str | None) -> None:
        waiting.discard(database)
        if not waiting:
            publish()

    for each in aliases:
        connection = transaction.get_connection(each)
        if not connection.in_atomic_block and not connection.get_autocommit():  # before any callback is registered
            raise transaction.TransactionManagementError(
                f"on_commit needs a transaction of Django: the database {connection.alias!r} is not in autocommit mode"
            )
    for each in aliases:
        transaction.on_commit(lambda database=each: committed(database), using=each)  # type: ignore[misc]
