"""What a client is told when one of its commands cannot be carried out, and what the log is told.

This module must not know commands.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from redis.exceptions import RedisError

from wsloop.delivery.broker import Unavailable
from wsloop.refusals import Refused, refusals, shown

logger = logging.getLogger("wsloop.facilities")

NOT_ALLOWED = "This site does not allow this subscription. Sign in, perhaps."


class Refusal(Exception):
    """A command is refused: with this code of the protocol, and a text for the client."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def failure(error: BaseException, what: str, facility: str | None, of_redis: bool = False) -> tuple[str, str]:
    """Return code and reason for the client, which contain no secret, and log why it is refused.

    Args:
        error: what was raised.
        what: the type of the command.
        facility: that the command is for; None if it names none.
        of_redis: whether an ``OSError`` is Redis's, and not of the site's code.

    Raises:
        KeyboardInterrupt: if it is one.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    asked = what if facility is None else f"{what} {shown(facility)!r}"
    if isinstance(error, PermissionDenied):
        detail = f"the site's code has raised PermissionDenied({shown(str(error))!r})"
        error = Refused(HTTPStatus.FORBIDDEN, NOT_ALLOWED, kind="policy", detail=detail)
    if isinstance(error, Refusal):
        log_refusal(error.code, str(error), asked)
        return error.code, str(error)
    if isinstance(error, Refused):
        refusals.refused(error, asked)
        reason = NOT_ALLOWED if error.kind == "policy" else error.reason
        return "unavailable" if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "refused", reason
    if isinstance(error, SuspiciousOperation):
        refusals.log(logging.WARNING, "request", "%s: %s [%s]", type(error).__name__, shown(str(error)), asked)
        return "refused", "The request is not acceptable."
    if isinstance(error, (Unavailable, RedisError)) or (of_redis and isinstance(error, OSError)):
        refusals.log(logging.WARNING, "Redis", "%s [%s]", error, asked)
        return "unavailable", "Messages cannot be delivered at the moment. Try again in a few seconds."
    logger.error("A command of a client has failed", exc_info=error)
    return "internal", "The site's code has failed; its log says why."


def log_refusal(code: str, reason: str, asked: str) -> None:
    """Log a command that is refused.

    Args:
        code, reason: for the client.
        asked: the command, without secrets.
    """
    refusals.log(logging.WARNING, "command", "%s [%s: %s]", reason, asked, code)


__all__ = ["NOT_ALLOWED", "Refusal", "failure", "log_refusal"]
