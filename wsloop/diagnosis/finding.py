"""One finding of ``manage.py wsdoctor``."""

from __future__ import annotations

from typing import NamedTuple

OK, NOTE, WRONG = "ok", "note", "wrong"


class Finding(NamedTuple):
    """One finding.

    Attributes:
        level: OK; NOTE, worth knowing; or WRONG, to be changed.
        about: what was looked at, in one or two words.
        text: what was found.
        advice: what to change; empty if nothing.
    """

    level: str
    about: str
    text: str
    advice: str = ""


__all__ = ["NOTE", "OK", "WRONG", "Finding"]
