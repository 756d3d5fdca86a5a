"""Work in greenlets and timers of the engine: whatever it raises is logged with its trace, and the rest goes on.

gevent prints such a trace to standard error, where no handler of ``LOGGING`` sees it, and what the greenlet was there
for is not done any more. So all of the engine's own work that nobody waits for is started here. What happens again and
again is logged once in :data:`QUIET` seconds. This module must not know anything else of wsloop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent

logger = logging.getLogger("wsloop.greenlets")

QUIET = 60.0  # seconds in which the same failure of the same work is not logged again

# When a failure was logged, and how often it has come since.
_failures: dict[tuple[str, type[BaseException]], tuple[float, int]] = {}


def logged(work: Callable[..., object], *arguments: Any) -> bool:
    """Do something, and tell whether that went well; if it raises an ``Exception``, log that instead."""
    try:
        work(*arguments)
        return True
    except Exception as exc:
        log(work, exc)
        return False


def log(work: Callable[..., object], error: Exception) -> None:
    """Log what some work has raised, with its trace, unless the same has been logged just now."""
    name = f"{work.__module__}.{getattr(work, '__qualname__', work)}"
    key, now = (name, type(error)), monotonic()
    logged_at, count = _failures.get(key, (float("-inf"), 0))
    if now < logged_at + QUIET:
        _failures[key] = logged_at, count + 1
        return
    _failures[key] = now, 0
    more = f" ({count} more times since it was logged last)" if count else ""
    logger.error("%s has failed, which is an error of the server%s", name, more, exc_info=error)


def spawn(work: Callable[..., object], *arguments: Any) -> gevent.Greenlet[..., Any]:
    """Do something in a greenlet of its own."""
    return gevent.spawn(logged, work, *arguments)


def spawn_later(seconds: float, work: Callable[..., object], *arguments: Any) -> gevent.Greenlet[..., Any]:
    """Do something in a greenlet of its own, some seconds from now."""
    return gevent.spawn_later(seconds, logged, work, *arguments)
