"""Asks the site's policy which of the channels that a client wants it may have, and logs what it may not.

This module must not know who asks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from wsloop import addressees, conf, routing
from wsloop.refusals import NOT_ALLOWED, Refused, refusals, shown


def allowed(answer: Any) -> list[str]:
    """Return the answer of the site's policy.

    Raises:
        TypeError: if it is not a list of names.
    """
    found = list(answer) if isinstance(answer, Iterable) and not isinstance(answer, (str, bytes)) else None
    if found is None or not all(isinstance(each, str) for each in found):
        raise TypeError(
            f"{conf.name_of('POLICY')} must return a list of those names that it allows, such as ['subscribe-user'], "
            f"not {answer!r}"
        )
    return found


def ask(policy: Callable[[HttpRequest, list[str]], Any] | None, request: HttpRequest, wanted: list[str]) -> list[str]:
    """Return those of the wanted channels that the site's policy allows.

    Without a policy a client may listen, and publish only with ``CLIENTS_MAY_PUBLISH`` (in ws4redis it may).

    Raises:
        TypeError, Exception: see :func:`allowed`; and what the policy raises.
        Refused: 403, if the policy raises PermissionDenied; or if there is none, and the client wants to publish, and
            nothing else.
    """
    if policy is None:
        return _without_policy(request, wanted)
    try:
        found = allowed(policy(request, wanted))
    except PermissionDenied as exc:
        text = f"({shown(str(exc))!r})" if str(exc) else ""
        detail = f"{_asked(request, wanted)}; {conf.name_of('POLICY')} has raised PermissionDenied{text}"
        raise Refused(HTTPStatus.FORBIDDEN, NOT_ALLOWED, kind="policy", detail=detail, told=NOT_ALLOWED) from exc
    missing = [name for name in wanted if name not in found]
    if missing:
        # One that returns a part, for visitors who have not signed in for example, is none to be warned of.
        level = logging.WARNING if len(missing) == len(wanted) or conf.debug() else logging.INFO
        kind = "policy" if len(missing) == len(wanted) else "policy, in part"
        text = "%s; %s has returned %s. The client gets nothing else."
        refusals.log(level, kind, text, _asked(request, wanted), conf.name_of("POLICY"), found or "nothing")
    return found


def _asked(request: HttpRequest, wanted: list[str]) -> str:
    """Return who asks for what, for the log."""
    who = ", ".join(map(repr, addressees.own_user(request))) or "a visitor who has not signed in"
    return f"{who} asks for {', '.join(wanted) or 'no audience'} of {shown(routing.facility(request))!r}"


def _without_policy(request: HttpRequest, wanted: list[str]) -> list[str]:
    if conf.option("CLIENTS_MAY_PUBLISH"):
        return wanted
    listening = [name for name in wanted if not name.startswith("publish-")]
    if len(listening) == len(wanted):
        return wanted
    detail = (
        f"a client wants to publish to {shown(routing.facility(request))}, and no policy allows it. Views may publish. "
        "To let clients publish, set WSLOOP['POLICY'] to a function that allows it (docs/how-to/policy.rst)."
    )
    if not listening:
        reason = "This site lets no client publish over a socket."
        raise Refused(HTTPStatus.FORBIDDEN, reason, kind="publish", detail=detail, told=reason)
    refusals.log(logging.WARNING, "publish", "%s The client listens only.", detail)
    return listening


__all__ = ["allowed", "ask"]
