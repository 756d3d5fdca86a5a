"""A handler under test: a call in a greenlet of its own, in the transaction of the test.

Handlers are in the thread of the test, so they share its transaction. Where gevent has patched the process, what
belongs to a thread belongs to a greenlet; so each handler is given the database connections of the test. This module
must not know when a handler runs.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from django.db import connections
from greenlet import greenlet

FOREVER = float("inf")
MACHINERY = {"wsloop", "asyncio", "asgiref"}  # packages in which no code of a site waits


class Handler:
    """A call that runs in virtual time.

    Args:
        function: to call.
        ended: called at the end, with the exception that the function has raised or None.
        modules: in which ``sleep`` may have been imported by name.
        ends_at: the virtual time in seconds from which it must end: its next pause raises Disconnected.

    Attributes:
        wakes_at: the virtual time at which it goes on; None while it runs, or does not wait for time.
    """

    def __init__(
        self,
        function: Callable[[], None],
        ended: Callable[[BaseException | None], None],
        modules: Iterable[ModuleType] = (),
        ends_at: float = FOREVER,
    ) -> None:
        self.ended = ended
        self.modules = [time, *modules]
        self.ends_at = ends_at
        self.wakes_at: float | None = None
        self.endings = 0
        self.error: BaseException | None = None
        self._function = function
        self._databases = connections.all()
        self.greenlet = greenlet(self._run)
        self.greenlet.gr_context = contextvars.copy_context()

    def _run(self) -> None:
        try:
            for database in self._databases:
                connections[database.alias] = database
                database.inc_thread_sharing()
            self._function()
        except BaseException as exc:
            self.error = exc
        finally:
            for database in self._databases:
                database.dec_thread_sharing()

    def where(self) -> str:
        """Return the place in the site's code where this handler waits."""
        return place(self.greenlet.gr_frame)


def place(frame: Any) -> str:
    """Return file and line of the innermost frame that is not wsloop's."""
    while frame is not None and frame.f_globals.get("__name__", "").startswith("wsloop."):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def place_in_coroutine(coroutine: Any) -> str:
    """Return file and line where a coroutine waits: of the innermost frame that is neither wsloop's nor a library's."""
    found = ""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] not in MACHINERY:
            found = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return found


def uncommitted() -> str:
    """Return a hint for a failure if functions wait for a commit, which may never happen in a test case."""
    if not any(database.run_on_commit for database in connections.all(initialized_only=True)):
        return ""
    return (
        "(Functions wait for a commit, and TestCase never commits: on_commit and outbox=True take effect at the end of "
        "`with self.captureOnCommitCallbacks(execute=True):`.)"
    )


__all__ = ["FOREVER", "Handler", "place", "place_in_coroutine", "uncommitted"]
