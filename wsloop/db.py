"""The database connections of code that runs outside of a request of Django, which would give them back at its end.

This module must not know anything else of wsloop.
"""

from __future__ import annotations

import contextlib
from typing import Any

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import Error
from django.db import connections as databases
from django.db.backends.signals import connection_created


class _Opened:
    """How many database connections this process has opened."""

    count = 0


def _opened(**_: Any) -> None:
    _Opened.count += 1


connection_created.connect(_opened, dispatch_uid="wsloop.db")


def opened() -> int:
    """Return a number that is another one after a database connection was opened anywhere in this process."""
    return _Opened.count


def close_databases() -> None:
    """Give back the database connections of this greenlet: no Django view ends, which would do it."""
    for database in databases.all(initialized_only=True):
        if not database.in_atomic_block:  # but inside a test's transaction
            database.close()


def give_back() -> None:
    """As :func:`close_databases`, where a connection that is broken has been reported already."""
    with contextlib.suppress(Error):
        close_databases()


class DatabaseSyncToAsync(SyncToAsync[Any, Any]):
    """Wraps plain code that uses the database for coroutines; the name is that of Channels.

    ::

        john = await database_sync_to_async(User.objects.get)(username="john")

    The code runs in another thread or greenlet, whose connections are given back when it ends.
    """

    def thread_handler(self, *args: Any, **kwargs: Any) -> Any:
        """See asgiref: called in that thread or greenlet."""
        try:
            return super().thread_handler(*args, **kwargs)  # type: ignore[no-untyped-call]
        finally:
            give_back()


database_sync_to_async = DatabaseSyncToAsync  # as a function or decorator


async def aclose_old_connections() -> None:
    """Give back the database connections of the thread or greenlet in which ``sync_to_async`` runs code."""
    await sync_to_async(give_back)()


__all__ = [
    "DatabaseSyncToAsync",
    "aclose_old_connections",
    "close_databases",
    "database_sync_to_async",
    "give_back",
    "opened",
]
