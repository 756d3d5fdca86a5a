"""The decisions of a site, as the stages of a handshake and later subscriptions ask for them.

This module must not know who asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from django.http import HttpRequest

from wsloop import routing
from wsloop.facilities import subscriptions


class Hooks(NamedTuple):
    """The decisions of a site, made by :class:`wsloop.server.WebsocketServer` and its subclasses.

    Attributes:
        subprotocols: names that a client may be answered with, the preferred one first.
        routes: the paths that consumers and applications serve.
        application: the ASGI application that serves all other paths; None: they are facilities.
        policy: returns those of the requested channels that are allowed; None: see
            :func:`wsloop.facilities.policy.ask`.
        authenticate: finds the user of a request.
        authenticates_by_url: whether that may depend on the URL, because it is the site's own code.
        subscriber_class: works out channels.
        process_subscriptions: returns the channels that the query asks for, and whether it asks for the echo.
    """

    subprotocols: tuple[str, ...]
    routes: routing.Routes
    application: Any
    policy: Callable[[HttpRequest, list[str]], Any] | None
    authenticate: Callable[[HttpRequest], None]
    authenticates_by_url: bool
    subscriber_class: type[subscriptions.Subscriber]
    process_subscriptions: Callable[[HttpRequest], tuple[list[str], bool]]

    def is_coded(self, path: str) -> bool:
        """Return whether code of the site, a consumer or an application, serves a path, and no facility."""
        return self.application is not None or self.routes.match(path) is not None


__all__ = ["Hooks"]
