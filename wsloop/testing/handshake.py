"""The handshake of a client under test: its request, and the consumer that would serve it.

This module must not know gevent, Redis or sockets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.test import RequestFactory

from wsloop import conf, routing
from wsloop.asgi_scope import asgi_scope

Header = tuple[str | bytes, str | bytes]


def make_request(
    path: str,
    headers: Iterable[Header] | Mapping[str, str] | None,
    subprotocols: Sequence[str],
    user: Any,
    session: Any,
) -> Any:
    """Return the request of a handshake; see :class:`wsloop.testing.WebsocketCommunicator` for the arguments."""
    path = path if path.startswith("/") else f"/{path}"
    request: Any = RequestFactory().get(path, headers=_headers(headers, subprotocols), REMOTE_PORT="50000")
    request.user, request.session = user, _session(session)
    return request


def find_consumer(application: Any, path: str, kwargs: dict[str, Any] | None) -> routing.Match:
    """Return the consumer, or the ASGI application, for a path.

    Args:
        application: ``Consumer.as_websocket()``, the class, an instance, an ASGI application, or a list of patterns.
        path: of the URL.
        kwargs: what a pattern would have captured, where ``application`` is not a list of patterns.

    Raises:
        TypeError: if ``application`` is something else, or ``kwargs`` are given with patterns.
        ValueError: if the path matches none of the patterns.
    """
    found = routing.served_by(application)
    if found is not None:
        return found._replace(kwargs=kwargs or {}, remaining=path)
    if not isinstance(application, Iterable) or isinstance(application, (str, bytes)):
        raise TypeError(
            "application must be as_websocket() of a consumer, an ASGI application, or a list of patterns, "
            f"not {application!r}"
        )
    if kwargs is not None:
        raise TypeError("kwargs are captured by the patterns; they can only be given with a consumer")
    patterns = list(application)
    found = routing.Routes(patterns).match(path)
    if found is None:
        known = ", ".join(str(each.pattern) for each in patterns)
        raise ValueError(f"no pattern matches {path!r}, so it would be a facility; the patterns are: {known}")
    return found


def make_scope(request: Any, match: routing.Match) -> dict[str, Any]:
    """Return the scope for a consumer or application.

    An application finds the user and the session itself, by its middleware, unless the test gives them.
    """
    if match.consumer_class is not None:
        return routing.scope(request, match)
    scope = asgi_scope(request) | routing.captured(match)
    given = {"user": request.user, "session": request.session}
    return scope | {key: value for key, value in given.items() if value is not None}


def _headers(given: Iterable[Header] | Mapping[str, str] | None, subprotocols: Sequence[str]) -> dict[str, str]:
    headers = {
        "host": "testserver",
        "origin": "http://testserver",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    if subprotocols:
        headers["sec-websocket-protocol"] = ", ".join(subprotocols)
    for name, value in given.items() if isinstance(given, Mapping) else given or ():
        headers[_text(name).lower()] = _text(value)
    return headers


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _session(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    session = conf.session_store()()
    session.update(given)
    return session


__all__ = ["Header", "find_consumer", "make_request", "make_scope"]
