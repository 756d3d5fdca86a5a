"""Runs work of the engine in greenlets and timers: exceptions are logged with their traces, and the engine goes on.

gevent prints such a trace to standard error, where no handler of ``LOGGING`` sees it. So the engine starts all of its
work here for whose result nobody waits. A repeated failure is logged once in :data:`QUIET` seconds. This module must
not know anything else of wsloop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent

logger = logging.getLogger("wsloop.greenlets")

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
    key, now = (name, type(error)), monotonic()
    logged_at, count = _failures.get(key, (float("-inf"), 0))
    if now < logged_at + QUIET:
        _failures[key] = logged_at, count + 1
        return
    _failures[key] = now, 0
    more = f" ({count} more times since this was last logged)" if count else ""
    logger.error("%s failed: an error of the server, not of the site%s", name, more, exc_info=error)


def spawn(work: Callable[..., object], *arguments: Any) -> Greenlet:
    """Call ``work`` in a new greenlet."""
    return Greenlet.spawn(logged, work, *arguments)


def spawn_later(seconds: float, work: Callable[..., object], *arguments: Any) -> Greenlet:
    """Call ``work`` in a new greenlet, some seconds from now."""
    return Greenlet.spawn_later(seconds, logged, work, *arguments)
