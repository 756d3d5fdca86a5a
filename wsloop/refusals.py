"""How a handshake ends that opens no socket: a status of HTTP, and words that a person can act on.

This module must not know anything else of wsloop.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

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


__all__ = ["RETRY_AFTER", "Refused", "try_again"]
