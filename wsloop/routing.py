"""From the URL of a socket to its consumer or application, and the scope, which describes the socket to it.

Patterns are Django's, matched against the whole path, as Channels' ``URLRouter`` does. This module must not know
gevent, Redis or sockets.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from asgiref.sync import iscoroutinefunction
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.urls import Resolver404, URLPattern, URLResolver
from django.urls.resolvers import RegexPattern, RoutePattern

from wsloop import asgi_scope, conf
from wsloop.consumers.base import Consumer
from wsloop.exceptions import InvalidChannelLayerError
from wsloop.layers import get_channel_layer

SIMILAR = 0.75  # of each part of a path: a letter too many, or two in the wrong order


def facility(request: HttpRequest) -> str:
    """Return the part of the path behind ``WSLOOP["URL"]``, worked out once for each request."""
    found: str | None = getattr(request, "_wsloop_facility", None)
    if found is None:
        found = request._wsloop_facility = request.path_info.removeprefix(conf.websocket_url())  # type: ignore[attr-defined]
    return found


def is_coded(request: HttpRequest) -> bool:
    """Return whether code of the site, a consumer or an application, serves the socket of this request."""
    return getattr(request, "_wsloop_coded", False)


class Match(NamedTuple):
    """What serves a socket, a consumer or another ASGI application, and the values captured by the pattern of its URL.

    Attributes:
        consumer_class: of the consumer; None if an application serves the socket.
        initkwargs: arguments of its ``__init__``.
        args, kwargs: what the pattern has captured.
        application: an ASGI application, ``await application(scope, receive, send)``; None if a consumer serves it.
        remaining: the part of the path behind the pattern, for an application that routes by it, as ``URLRouter`` does.
        initargs: positional arguments of ``__init__``.
        route: the pattern as the site has written it.
    """

    consumer_class: type[Consumer] | None
    initkwargs: dict[str, Any] = {}  # never modified
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # never modified
    application: Callable[[dict[str, Any], Any, Any], Awaitable[Any]] | None = None
    remaining: str = ""
    initargs: tuple[Any, ...] = ()
    route: str = ""

    def make(self) -> Consumer:
        """Return a new consumer."""
        assert self.consumer_class is not None
        return self.consumer_class(*self.initargs, **self.initkwargs)


def served_by(target: Any) -> Match | None:
    """Return what a pattern leads to, with nothing captured; None if it serves no WebSockets.

    Args:
        target: ``as_websocket()`` or ``as_asgi()`` of a consumer, its class, or an instance, which stands for its class
            and the arguments that it was made with; or an ASGI application (version 3).
    """
    initargs: tuple[Any, ...] = ()
    consumer_class, initkwargs = target, getattr(target, "consumer_initkwargs", {})
    if isinstance(target, Consumer):
        consumer_class, (initargs, initkwargs) = type(target), target._wsloop_arguments
    elif not isinstance(target, type):
        consumer_class = getattr(target, "consumer_class", None)
    if not isinstance(consumer_class, type) or not issubclass(consumer_class, Consumer):
        return Match(None, application=target) if _is_application(target) else None
    match = Match(consumer_class, initkwargs, initargs=initargs)
    if consumer_class.__call__ is Consumer.__call__:
        return match
    return Match(None, application=_application(match))  # with something of the site's around it


def _application(match: Match) -> Callable[..., Awaitable[Any]]:
    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await match.make()(scope, receive, send)

    return application


def _is_application(target: Any) -> bool:
    """Return whether this can be called as ``await target(scope, receive, send)``."""
    if isinstance(target, type) or not callable(target):
        return False
    call: Any = target.__call__  # not that of its type: some middleware sets it for each object
    if not iscoroutinefunction(target) and not iscoroutinefunction(call):
        return False
    try:
        inspect.signature(target).bind({}, None, None)
    except TypeError:  # an asynchronous view, for example
        return False
    except ValueError:  # it has no signature
        pass
    return True


class Routes:
    """The patterns of a site.

    Args:
        urlpatterns: made with ``path()``, ``re_path()`` and ``include()``.

    Raises:
        ImproperlyConfigured: if a pattern leads to nothing that serves WebSockets, or can never match, or if the
            channel layer of a consumer does not exist.
    """

    def __init__(self, urlpatterns: Iterable[Any] = ()) -> None:
        self._patterns = list(urlpatterns)
        _check(self._patterns)
        self._resolver = URLResolver(RegexPattern(r"^/"), self._patterns) if self._patterns else None

    def match(self, path: str) -> Match | None:
        """Return what serves a path; None if the path is that of a facility."""
        if self._resolver is None:
            return None
        try:
            found = self._resolver.resolve(path)
        except Resolver404:
            return None
        match = served_by(found.func)
        assert match is not None
        if match.application is not None:
            match = match._replace(remaining=_remaining(self._patterns, path.removeprefix("/")) or "")
        return match._replace(args=found.args, kwargs=found.kwargs, route=found.route)

    def similar(self, path: str) -> str | None:
        """Return the pattern that a path resembles which matches none: without its last slash, for example."""
        best, found = SIMILAR, None
        for route in _routes(self._patterns):
            score = _similarity(route.strip("/$").split("/"), path.strip("/").split("/"))
            if score >= best:
                best, found = score, route
        return found


def _routes(patterns: Iterable[Any], before: str = "") -> Iterator[str]:
    """Yield the patterns as text, with those before them."""
    for each in patterns:
        route = before + str(each.pattern).removeprefix("^")
        if isinstance(each, URLResolver):
            yield from _routes(each.url_patterns, route)
        else:
            yield route


def _similarity(route: list[str], path: list[str]) -> float:
    """Return how much a path resembles a pattern, up to 1: both in parts. What the pattern captures may be anything."""
    if len(route) != len(path):
        return 0
    scores = [
        1.0 if re.search(r"[<(\[\\*+?{|]", each) else difflib.SequenceMatcher(None, each, part.lower()).ratio()
        for each, part in zip(route, path, strict=True)
    ]
    return min(scores)


def _remaining(patterns: Iterable[Any], path: str) -> str | None:
    """Return the part of a path behind the first pattern that matches it, or None if none does."""
    for each in patterns:
        matched = each.pattern.match(path)
        if matched:
            rest: str = matched[0]
            found = _remaining(each.url_patterns, rest) if isinstance(each, URLResolver) else rest
            if found is not None:
                return found
    return None


def _check(patterns: Sequence[Any], before: str = "") -> None:
    for each in patterns:
        if not isinstance(each, (URLPattern, URLResolver)):
            raise ImproperlyConfigured(f"websocket_urlpatterns must be path() and re_path(), not {each!r}")
        route = before + str(each.pattern).removeprefix("^")
        if isinstance(each, URLResolver):
            _check(each.url_patterns, route)
            continue
        match = served_by(each.callback)
        if match is None:
            raise ImproperlyConfigured(
                f"websocket_urlpatterns: {route!r} must lead to a consumer, MyConsumer.as_websocket(), or to an ASGI "
                f"application, `async def application(scope, receive, send)`, not to {each.callback!r}"
            )
        if match.consumer_class is not None:
            _check_layer(match.consumer_class)
        pattern: Any = each.pattern
        if isinstance(pattern, RoutePattern) and getattr(each.callback, "_path_routing", False):
            # A URLRouter of Channels continues behind the pattern, which path() would end there. Channels' own does so.
            each.pattern = pattern = RoutePattern(str(pattern), pattern.name, is_endpoint=False)
        ends = isinstance(pattern, RoutePattern) and getattr(pattern, "_is_endpoint", True)
        root = conf.websocket_url().lstrip("/")
        literal = re.split(r"[<(\[\\.*+?{|$]", route, maxsplit=1)[0]
        if not (literal.startswith(root) or (root.startswith(literal) and not (ends and literal == route))):
            raise ImproperlyConfigured(
                f"websocket_urlpatterns: {route!r} must begin with {root!r}, as {conf.name_of('URL')} does, "
                "or no socket can reach it"
            )


def _check_layer(consumer_class: type[Consumer]) -> None:
    try:
        if consumer_class.channel_layer_alias is not None:
            get_channel_layer(consumer_class.channel_layer_alias)
    except InvalidChannelLayerError as exc:
        raise ImproperlyConfigured(f"{consumer_class.__name__}.channel_layer_alias: {exc}") from None


def scope(request: HttpRequest, match: Match) -> dict[str, Any]:
    """Return the scope of a consumer's socket. It keeps no part of the request alive.

    Args:
        request: of the handshake, with its user and session, if any.
        match: the consumer and the values captured from the path.
    """
    meta = request.META
    user = getattr(request, "user", None) or AnonymousUser()
    session = getattr(request, "session", None)
    return {
        "type": "websocket",
        "path": request.path_info,
        "query_string": meta.get("QUERY_STRING", "").encode("latin-1", "replace"),
        "headers": [each for each in asgi_scope.header_pairs(meta) if each[0] != b"cookie"],
        "cookies": dict(request.COOKIES),
        "client": asgi_scope.address(meta, "REMOTE_ADDR", "REMOTE_PORT"),
        "subprotocols": asgi_scope.offered(meta),
        # The wrapper of a lazy user would keep the request alive.
        "user": getattr(user, "_wrapped", user),
        "session": conf.session_store()() if session is None else session,
        "url_route": {"args": match.args, "kwargs": match.kwargs},
    }


def captured(match: Match) -> dict[str, Any]:
    """Return what the pattern adds to the scope of an application: that of Channels' ``URLRouter``."""
    return {"url_route": {"args": match.args, "kwargs": match.kwargs}, "path_remaining": match.remaining}


__all__ = ["Match", "Routes", "captured", "scope", "served_by"]
