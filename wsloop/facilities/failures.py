"""What a client is told when one of its commands cannot be carried out. This module must not know commands."""

from __future__ import annotations

import logging
from http import HTTPStatus

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from redis.exceptions import RedisError

from wsloop.delivery.broker import Unavailable
from wsloop.refusals import Refused, refusals, shown

logger = logging.getLogger("wsloop.facilities")


class Refusal(Exception):
    """A command is refused: with this code of the protocol, and a text for the client."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def failure(error: BaseException, of_redis: bool = False) -> tuple[str, str]:
    """Return code and reason for the client. They contain no secret.

    Args:
        error: what was raised.
        of_redis: whether an ``OSError`` is Redis's, and not of the site's code.

    Raises:
        KeyboardInterrupt: if it is one.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, Refusal):
        return error.code, str(error)
    if isinstance(error, Refused):
        return "unavailable" if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "refused", error.reason
    if isinstance(error, PermissionDenied):
        return "refused", "This site does not allow this subscription. Sign in, perhaps."
    if isinstance(error, SuspiciousOperation):
        refusals.log(logging.WARNING, type(error).__name__, "%s", shown(str(error)))
        return "refused", "The request is not acceptable."
    if isinstance(error, (Unavailable, RedisError)) or (of_redis and isinstance(error, OSError)):
        refusals.log(logging.WARNING, "Redis", "%s", error)
        return "unavailable", "Messages cannot be delivered at the moment. Try again in a few seconds."
    logger.error("A command of a client has failed", exc_info=error)
    return "internal", "The site's code has failed; its log says why."


__all__ = ["Refusal", "failure"]
