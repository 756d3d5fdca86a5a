"""Runs work of the engine in greenlets and timers: exceptions are logged with their traces, and the engine goes on.

gevent prints such a trace to standard error, where no handler of ``LOGGING`` sees it. So the engine starts all of its
work here for whose result nobody waits. A repeated failure is logged once in :data:`QUIET` seconds. This module must
not know anything else of wsloop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

import gevent

logger = logging.getLogger("wsloop.greenlets")

Key = TypeVar("Key", bound=tuple[object, ...])

QUIET = 60.0  # seconds during which the same failure of the same work is not logged again

# When a failure was last logged, and how often it has occurred since.
_failures: dict[tuple[str, type[BaseException]], tuple[float, int]] = {}


class Greenlet(gevent.Greenlet):  # type: ignore[type-arg]  # generic for mypy only
    """A greenlet that does not note where it was started: that takes half of the time, and keeps coroutines' frames."""

    spawning_stack_limit = 0


def logged(work: Callable[..., object], *arguments: Any) -> bool:
    """Call ``work`` and return True; if it raises an ``Exception``, log that and return False."""
    try:
        work(*arguments)
        return True
    except Exception as exc:
        log(work, exc)
        return False


def log(work: Callable[..., object], error: Exception) -> None:
    """Log an exception of ``work`` with its trace, unless the same was logged in the last :data:`QUIET` seconds."""
    name = f"{work.__module__}.{getattr(work, '__qualname__', work)}"
    more = repeated(_failures, (name, type(error)))
    if more is not None:
        logger.error("%s failed: an error of the server, not of the site%s", name, more, exc_info=error)


def repeated(seen: dict[Key, tuple[float, int]], key: Key) -> str | None:
    """Return None if ``key`` was logged in the last :data:`QUIET` seconds; else text for the end of its message.

    Args:
        seen: when each key was last logged, and how often it has occurred since.
    """
    now = monotonic()
    logged_at, count = seen.get(key, (float("-inf"), 0))
    if now < logged_at + QUIET:
        seen[key] = logged_at, count + 1
        return None
    seen[key] = now, 0
    return f" ({count} more times since this was last logged)" if count else ""


def spawn(work: Callable[..., object], *arguments: Any) -> Greenlet:
    """Call ``work`` in a new greenlet."""
    return Greenlet.spawn(logged, work, *arguments)


def spawn_later(seconds: float, work: Callable[..., object], *arguments: Any) -> Greenlet:
    """Call ``work`` in a new greenlet, some seconds from now."""
    return Greenlet.spawn_later(seconds, logged, work, *arguments)
