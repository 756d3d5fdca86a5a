"""A finding of ``manage.py check --deploy``, before it becomes a message of Django's."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple

from django.conf import settings

logger = logging.getLogger("wsloop.checks")


class Problem(NamedTuple):
    """One finding: what can happen, what to do, and the number of its check."""

    message: str
    hint: str
    number: str


def warn(server: str, problems: Iterable[Problem]) -> None:
    """Log problems of the running server, but for those that ``SILENCED_SYSTEM_CHECKS`` names."""
    for message, hint, number in problems:
        if f"wsloop.{number}" not in settings.SILENCED_SYSTEM_CHECKS:
            logger.warning("%s: %s %s (wsloop.%s)", server, message, hint, number)
