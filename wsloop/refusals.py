"""Refused handshakes: an HTTP status, a text that a person can act on, and a bounded log.

This module must not know anything of wsloop but redaction.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from wsloop.redaction import redact

logger = logging.getLogger("wsloop.handshake")

LOGGED = 10  # refusals of one kind that are logged one by one in LOG_INTERVAL: a client can cause any number
LOG_INTERVAL = 60.0  # seconds
SHOWN = 300  # characters of a client's text in the log: the longest host name fits, with scheme and port
RETRY_AFTER = 5  # seconds; the broker tries to reach Redis at least as often


TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # the name of a header
FORBIDDEN = re.compile(r"[\0\r\n]")  # in its value
FRAMING = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"})


class Refused(Exception):
    """The handshake ends with an HTTP response other than the 101.

    Args:
        status: HTTP status.
        reason: what is wrong and what to do, for the author of the client or the operator of the site. No internals.
        headers: further response headers.
    """

    def __init__(self, status: HTTPStatus, reason: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = list(headers)


class Denied(Refused):
    """The handshake ends with a response of the site's own code.

    Args:
        status: HTTP status.
        headers: pairs of bytes, as in ASGI; those that frame the body are the server's.
        body: bytes.

    Raises:
        ValueError: if a header is not valid.
    """

    def __init__(self, status: HTTPStatus, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        super().__init__(status, "The site's code has answered.", [])
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        for name, value in pairs:
            if not TOKEN.fullmatch(name) or FORBIDDEN.search(value):
                raise ValueError(f"not a valid header (RFC 9110, section 5): {name!r}")
        self.headers = [each for each in pairs if each[0].lower() not in FRAMING]
        self.body = body


def try_again(status: HTTPStatus, reason: str) -> Refused:
    """Return a temporary refusal."""
    return Refused(status, f"{reason} Try again in a few seconds.", [("Retry-After", str(RETRY_AFTER))])


class RefusalLog:
    """Logs refusals that clients can cause: some of each kind, and then only their number."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[float, int]] = {}  # start and number of refusals of the current interval

    def log(self, level: int, kind: str, message: str, *arguments: Any) -> None:
        """Log a refusal, its ``kind`` before the message, unless there were too many of that kind."""
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
    """Return a client's text for a log: one line, without secrets, bounded."""
    text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in redact(value))
    return f"{text[:SHOWN]}…" if len(text) > SHOWN else text


__all__ = ["RETRY_AFTER", "RefusalLog", "Refused", "refusals", "shown", "try_again"]
