"""Who may see the page and use it: staff, if the site has included it."""

from __future__ import annotations

from typing import Any

from django.urls import NoReverseMatch, reverse


def is_staff(user: Any) -> bool:
    """Return whether this is an active user of the staff."""
    return bool(getattr(user, "is_active", False) and getattr(user, "is_staff", False))


def is_still_staff(user: Any) -> bool:
    """Return the same of a user of the database as it is now, however it was changed. Blocks."""
    return is_staff(type(user)._default_manager.filter(pk=user.pk).first())


def is_included() -> bool:
    """Return whether the site has the page."""
    try:
        reverse("wsloop-ops:page")
    except NoReverseMatch:
        return False
    return True
