"""How a handshake ends that opens no socket: a status of HTTP, words that a person can act on, and a bounded log.

This module must not know anything of wsloop but redaction.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from wsloop.redaction import redact

logger = logging.getLogger("wsloop.handshake")

LOGGED = 10  # refusals of one kind that are logged one by one in LOG_INTERVAL: a client can bring about any number
LOG_INTERVAL = 60.0  # seconds
SHOWN = 300  # characters of what a client has sent, in the log: the longest name of a host fits, with scheme and port
RETRY_AFTER = 5  # seconds; the broker tries to reach Redis at least as often


class Refused(Exception):
    """The handshake ends with an HTTP response instead of the 101.

    Args:
        status: HTTP status.
        reason: what is wrong and what to do, for the person who wrote the client or runs the site. Never internals.
        headers: further response headers.
    """

    def __init__(self, status: HTTPStatus, reason: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = list(headers)


def try_again(status: HTTPStatus, reason: str) -> Refused:
    """Return a refusal for now only."""
    return Refused(status, f"{reason} Try again in a few seconds.", [("Retry-After", str(RETRY_AFTER))])


class RefusalLog:
    """Tells the log of refusals that clients can bring about: some of each kind, and how many it has left out."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[float, int]] = {}  # when the interval began, and how many there were in it

    def log(self, level: int, kind: str, message: str, *arguments: Any) -> None:
        """Log a refusal, with ``kind`` in front of its message, unless there were too many of that kind."""
        now = time.monotonic()
        began, count = self._kinds.get(kind, (now, 0))
        if now - began >= LOG_INTERVAL:
            if count > LOGGED:
                logger.log(level, "refused: %s: %d more in %.0f s", kind, count - LOGGED, now - began)
            began, count = now, 0
        self._kinds[kind] = began, count + 1
        if count < LOGGED:
            logger.log(level, f"refused: %s: {message}", kind, *arguments)


refusals = RefusalLog()


def shown(value: str) -> str:
    """Return what a client has sent as it may stand in a log: one line, without secrets, bounded."""
    text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in redact(value))
    return f"{text[:SHOWN]}…" if len(text) > SHOWN else text


__all__ = ["RETRY_AFTER", "RefusalLog", "Refused", "refusals", "shown", "try_again"]
