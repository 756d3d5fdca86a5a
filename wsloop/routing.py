"""From the URL of a socket to its consumer, and the scope of the socket, which describes it to the consumer.

Patterns are Django's, matched against the whole path, as Channels' ``URLRouter`` does. This module must not know
gevent, Redis or sockets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.urls import Resolver404, URLPattern, URLResolver
from django.urls.resolvers import RegexPattern

from wsloop import conf
from wsloop.consumers.base import Consumer


def facility(request: HttpRequest) -> str:
    """Return the part of the path behind ``WEBSOCKET_URL``, worked out once for each request."""
    found: str | None = getattr(request, "_wsloop_facility", None)
    if found is None:
        found = request._wsloop_facility = request.path_info.removeprefix(conf.websocket_url())  # type: ignore[attr-defined]
    return found


class Match(NamedTuple):
    """A consumer, and the values captured by the pattern of its URL."""

    consumer_class: type[Consumer]
    initkwargs: dict[str, Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # never modified
    application: Any = None

    def make(self) -> Consumer:
        """Return a new consumer."""
        return self.consumer_class(**self.initkwargs)


class Routes:
    """The patterns of a site.

    Args:
        urlpatterns: made with ``path()``, ``re_path()`` and ``include()``.

    Raises:
        ImproperlyConfigured: if a pattern does not lead to a consumer, or can never match.
    """

    def __init__(self, urlpatterns: Iterable[Any] = ()) -> None:
        patterns = list(urlpatterns)
        _check(patterns)
        self._resolver = URLResolver(RegexPattern(r"^/"), patterns) if patterns else None

    def match(self, path: str) -> Match | None:
        """Return the consumer for a path; None if the path is that of a facility."""
        if self._resolver is None:
            return None
        try:
            found = self._resolver.resolve(path)
        except Resolver404:
            return None
        consumer: Any = found.func
        return Match(consumer.consumer_class, consumer.consumer_initkwargs, found.args, found.kwargs)


def _check(patterns: Sequence[Any], before: str = "") -> None:
    for each in patterns:
        if not isinstance(each, (URLPattern, URLResolver)):
            raise ImproperlyConfigured(f"websocket_urlpatterns must be path() and re_path(), not {each!r}")
        route = before + str(each.pattern).removeprefix("^")
        if isinstance(each, URLResolver):
            _check(each.url_patterns, route)
            continue
        if not hasattr(each.callback, "consumer_class"):
            raise ImproperlyConfigured(
                f"websocket_urlpatterns: {route!r} must lead to the as_websocket() of a consumer, "
                f"not to {each.callback!r}"
            )
        root = conf.websocket_url().lstrip("/")
        literal = re.split(r"[<(\[\\.*+?{|$]", route, maxsplit=1)[0]
        if not (literal.startswith(root) or (root.startswith(literal) and literal != route)):
            raise ImproperlyConfigured(
                f"websocket_urlpatterns: {route!r} must begin with {root!r}, as WEBSOCKET_URL does, "
                "or no socket can reach it"
            )


def scope(request: HttpRequest, match: Match) -> dict[str, Any]:
    """Return the scope of a consumer's socket. It keeps no part of the request alive.

    Args:
        request: of the handshake, with its user and session, if any.
        match: the consumer and the values captured from the path.
    """
    meta = request.META
    offered = meta.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")
    user = getattr(request, "user", None) or AnonymousUser()
    session = getattr(request, "session", None)
    port = str(meta.get("REMOTE_PORT", ""))
    return {
        "type": "websocket",
        "path": request.path_info,
        "query_string": meta.get("QUERY_STRING", "").encode("latin-1", "replace"),
        "headers": [
            (name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in meta.items()
            if name.startswith("HTTP_") and name != "HTTP_COOKIE"
        ],
        "cookies": dict(request.COOKIES),
        "client": (meta.get("REMOTE_ADDR", ""), int(port) if port.isdecimal() else 0),
        "subprotocols": [each.strip() for each in offered.split(",") if each.strip()],
        # The wrapper of a lazy user would keep the request alive.
        "user": getattr(user, "_wrapped", user),
        "session": conf.session_store()() if session is None else session,
        "url_route": {"args": match.args, "kwargs": match.kwargs},
    }


__all__ = ["Match", "Routes", "scope"]
