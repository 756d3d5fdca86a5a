"""Hints at mistakes that pass in silence, because what was asked for is allowed, and means nothing. With DEBUG only.

This module must not know the policy, nor connections.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection
from urllib.parse import urlsplit

from django.http import HttpRequest

from wsloop import addressees, routing
from wsloop.protocol.commands import AUDIENCES
from wsloop.refusals import hints, shown

NAMES = (*(f"{verb}-{each}" for verb in ("subscribe", "publish") for each in AUDIENCES), "subscribe-presence")


def hint(request: HttpRequest, routes: routing.Routes, asked: Collection[str]) -> None:
    """Log what of a request for a facility means nothing, once of each kind in a while.

    Args:
        request: of the handshake, or like one, with its user and session.
        routes: the paths of the site's consumers.
        asked: the channels that it asks for.
    """
    facility = shown(routing.facility(request))
    unknown = [each for each in map(str.lower, request.GET) if each not in asked and _is_meant(each)]
    if unknown:
        hints.log(logging.WARNING, "parameter", "%s of %r has no effect%s", *_about(unknown[0], facility))
    if not asked:
        similar = routes.similar(request.path_info)
        advice = f"the consumer at {similar!r} was meant" if similar else "?subscribe-broadcast is missing"
        text = "the URL of %r names no audience, so its socket gets no message: perhaps %s"
        hints.log(logging.WARNING, "URL", text, facility, advice)
        return
    for audience, own in (
        ("user", addressees.own_user),
        ("group", addressees.own_user),
        ("session", addressees.own_session),
    ):
        names = [name for name in asked if name.endswith(f"-{audience}")]
        if names and not own(request):
            text = "%s of %r is for nobody, because %s. Its socket gets no such message%s"
            why = "there is no session" if audience == "session" else "nobody has signed in"
            hints.log(logging.WARNING, audience, text, names[0], facility, why, _cookies(request))


def _is_meant(name: str) -> bool:
    return name.startswith(("subscribe", "publish"))


def _about(name: str, facility: str) -> tuple[str, str, str]:
    close = difflib.get_close_matches(name, NAMES, 1)
    if name == "subscribe-presence":
        advice = ": the facility does not have the option presence"
    else:
        advice = f": {close[0]!r} was meant, perhaps" if close and close[0] != name else ""
    return repr(shown(name)), facility, advice


def _cookies(request: HttpRequest) -> str:
    """Return what may be wrong with cookies: those of localhost are not sent to 127.0.0.1."""
    page = urlsplit(request.META.get("HTTP_ORIGIN", "")).netloc
    host = request.get_host()
    if not page or page.lower() == host.lower():
        return ""
    return f"; the page is of {shown(page)!r}, and a browser has other cookies for {shown(host)!r}"


__all__ = ["hint"]
