"""A finding of ``manage.py check --deploy``, before it becomes a message of Django's."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """One finding: what can happen, what to do, and the number of its check."""

    message: str
    hint: str
    number: str
