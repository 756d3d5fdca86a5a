"""The database connections of code that runs outside of a request of Django, which would give them back at its end.

This module must not know anything else of wsloop.
"""

from __future__ import annotations

import contextlib

from django.db import Error
from django.db import connections as databases


def close_databases() -> None:
    """Give back the database connections of this greenlet: no Django view ends, which would do it."""
    for database in databases.all(initialized_only=True):
        if not database.in_atomic_block:  # but inside a test's transaction
            database.close()


def give_back() -> None:
    """As :func:`close_databases`, where a connection that is broken has been reported already."""
    with contextlib.suppress(Error):
        close_databases()


__all__ = ["close_databases", "give_back"]
