"""Insecure settings of rights, origins and sessions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import PermissionDenied

from wsloop import conf, kinds
from wsloop.checks.problem import Problem

PUBLISHING = ("publish-broadcast", "publish-group", "publish-user", "publish-session")


def problems() -> Iterator[Problem]:
    """Yield the findings about origins and sessions."""
    yield from _origin_problems()
    yield from _session_problems()


def policy_problems() -> Iterator[Problem]:
    """Yield the findings about who may publish, and about a policy that fails."""
    policy = conf.option("POLICY")
    if policy is None:
        if conf.option("CLIENTS_MAY_PUBLISH"):
            yield Problem(
                "CLIENTS_MAY_PUBLISH without POLICY: every visitor may publish to all subscribers of a facility.",
                "Set WSLOOP['POLICY'] to a function (request, channels) that returns the channels allowed, or to its "
                "dotted path.",
                "W001",
            )
        return
    from django.test import RequestFactory  # lazy import: expensive, and no server needs it

    visitors: list[Any] = [None]  # without a session
    if apps.is_installed("django.contrib.auth"):
        from django.contrib.auth.models import AnonymousUser

        visitors.append(AnonymousUser())  # with a session in which nobody has signed in
    published, failed = [], []
    for name in PUBLISHING:
        for user in visitors:
            request = RequestFactory().get(conf.websocket_url(), [(name, "")])
            request.session, request.user = None, user  # type: ignore[assignment]
            try:
                if name in list(policy(request, [name])):
                    published.append(name)
            except PermissionDenied:
                pass
            except Exception as exc:
                failed.append(f"{type(exc).__name__}: {exc}")
    if published:
        yield Problem(
            f"{conf.name_of('POLICY')} lets visitors publish who have not signed in: "
            f"{', '.join(dict.fromkeys(published))}. Anybody can send anything to the subscribers.",
            'Return only names that begin with "subscribe-" unless request.user is signed in. Views may publish.',
            "W002",
        )
    if failed:
        yield Problem(
            f"{conf.name_of('POLICY')} fails for visitors who have not signed in ({failed[0]}): they get an error 500 "
            "instead of a socket.",
            "Let it expect request.user to be None (there is no session) or anonymous; refuse with PermissionDenied.",
            "W003",
        )


def _origin_problems() -> Iterator[Problem]:
    allowed = conf.option("ALLOWED_ORIGINS")
    nameless = [each for each in kinds.NAMELESS_ORIGINS if each in allowed]
    if nameless:
        yield Problem(
            f"ALLOWED_ORIGINS has {' and '.join(map(repr, nameless))}, the Origin of pages without an origin of their "
            "own: not only an app's, but any sandboxed frame, data: URL or local file can then open sockets here in "
            "the name of a visitor, wherever the browser sends the visitor's cookies.",
            "Let the app's pages have an origin of their own and name that, or open its sockets outside of the page; "
            "sign them in with tokens, not with cookies.",
            "W013",
        )
    if "*" in allowed:
        yield Problem(
            'ALLOWED_ORIGINS has "*": the page of any other site can open sockets here in the name of its visitors, '
            "with their cookies, and read the messages for them.",
            'Name the sites in WSLOOP["ALLOWED_ORIGINS"], such as "https://*.example.com"; without it, only pages of '
            "this host are admitted.",
            "W004",
        )


def _session_problems() -> Iterator[Problem]:
    if settings.SESSION_ENGINE.endswith(".signed_cookies"):
        yield Problem(
            "SESSION_ENGINE keeps sessions in signed cookies: a logout ends nothing on the server, so sockets that "
            "were opened with another cookie of the session stay open until it expires.",
            "Keep sessions in the database or the cache: django.contrib.sessions.backends.db or cached_db.",
            "W012",
        )
