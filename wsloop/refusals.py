"""What is refused, and why: for the client a text that a person can act on, for the operator one line in a bounded log.

Mistakes that would pass in silence are logged in the same way. This module must not know anything of wsloop but
redaction.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from wsloop.redaction import one_line, redact

logger = logging.getLogger("wsloop.handshake")

LOGGED = 10  # refusals of one kind that are logged one by one in LOG_INTERVAL: a client can cause any number
LOG_INTERVAL = 60.0  # seconds
SHOWN = 300  # characters of a client's text in the log: the longest host name fits, with scheme and port
RETRY_AFTER = 5  # seconds; the broker tries to reach Redis at least as often
FAILURE = "error"  # kind of a refusal because of an error that is logged already, with its traceback
NOT_ALLOWED = "This site does not allow you to open this WebSocket. Sign in, perhaps."


TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # the name of a header
FORBIDDEN = re.compile(r"[\0\r\n]")  # in its value
FRAMING = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"})


class Refused(Exception):
    """The handshake ends with an HTTP response other than the 101, or, with ``told``, with a socket that says why.

    Args:
        status: HTTP status.
        reason: what is wrong and what to do, for the author of the client or the operator of the site. No internals.
        headers: further response headers.
        kind: what has decided, for the log: a header, a setting, or the part of the site.
        detail: for the log, in place of the reason: what was asked for, what is allowed, and what to do. Texts of the
            client must have gone through :func:`shown`.
        told: for a client of ``wsloop.v1``, whose page cannot see the response: why it need not come back, in up to 123
            bytes (RFC 6455, section 5.5). Any page may read it. Empty: that client gets the response, too.
        signed_out: whether the client may come back with another token.
    """

    def __init__(
        self,
        status: HTTPStatus,
        reason: str,
        headers: Sequence[tuple[str, str]] = (),
        *,
        kind: str = "request",
        detail: str = "",
        told: str = "",
        signed_out: bool = False,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = list(headers)
        self.kind = kind
        self.detail = detail or reason
        self.told = told
        self.signed_out = signed_out


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
        super().__init__(status, "The site's code has answered.", kind="consumer")
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        for name, value in pairs:
            if not TOKEN.fullmatch(name) or FORBIDDEN.search(value):
                raise ValueError(f"not a valid header (RFC 9110, section 5): {name!r}")
        self.headers = [each for each in pairs if each[0].lower() not in FRAMING]
        self.body = body


def try_again(status: HTTPStatus, reason: str, kind: str, detail: str = "", retry_after: int = RETRY_AFTER) -> Refused:
    """Return a temporary refusal. It is never told over a socket: clients come back after pauses that grow."""
    headers = [("Retry-After", str(retry_after))]
    return Refused(status, f"{reason} Try again in a few seconds.", headers, kind=kind, detail=detail)


class RefusalLog:
    """Logs what clients can cause: some of each kind, and then only their number.

    Args:
        word: with which each line begins.
        repeats: whether a line that says the same as the last one of its kind is written, too.
        to: the logger.
    """

    def __init__(self, word: str = "refused", repeats: bool = True, to: logging.Logger = logger) -> None:
        self._word = word
        self._repeats = repeats
        self._logger = to
        self._last: dict[str, str] = {}  # line of each kind in the current interval
        self._kinds: dict[str, tuple[float, int]] = {}  # start and number of lines of the current interval

    def log(self, level: int, kind: str, message: str, *arguments: Any) -> None:
        """Log a line, its ``kind`` before the message, unless there were too many of that kind.

        Args:
            level: of :mod:`logging`.
            kind: one of a fixed number, which no client chooses.
            message, arguments: as for :mod:`logging`.
        """
        now = time.monotonic()
        began, count = self._kinds.get(kind, (now, 0))
        if now - began >= LOG_INTERVAL:
            if count > LOGGED:
                self._logger.log(level, f"{self._word}: %s: %d more in %.0f s", kind, count - LOGGED, now - began)
            began, count = now, 0
            self._last.pop(kind, None)
        if not self._repeats:
            line = message % arguments if arguments else message
            if self._last.get(kind) == line:
                return
            self._last[kind] = line
        self._kinds[kind] = began, count + 1
        if count < LOGGED:
            self._logger.log(level, f"{self._word}: %s: {message}", kind, *arguments)

    def refused(self, refused: Refused, what: str, level: int = logging.WARNING) -> None:
        """Log a refusal, what was asked for, and how it was answered.

        Args:
            refused: the refusal.
            what: a request or command, without secrets.
            level: of :mod:`logging`.
        """
        self.log(level, refused.kind, "%s [%s: %d]", refused.detail.rstrip(), what, refused.status)


refusals = RefusalLog()
# What is not refused, but has no effect.
hints = RefusalLog("perhaps a mistake", False, logging.getLogger("wsloop.hints"))


def sentence(error: Exception) -> str:
    """Return the text of an error as a sentence."""
    text = str(error).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def shown(value: str) -> str:
    """Return a client's text for a log: one line, without secrets, bounded."""
    text = one_line(redact(value))
    return f"{text[:SHOWN]}…" if len(text) > SHOWN else text


__all__ = [
    "FAILURE",
    "NOT_ALLOWED",
    "RETRY_AFTER",
    "Denied",
    "RefusalLog",
    "Refused",
    "hints",
    "refusals",
    "shown",
    "try_again",
]
