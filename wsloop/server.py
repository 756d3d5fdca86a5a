"""The WSGI callable that ``wsgi.py`` gives the URLs under ``WSLOOP["URL"]``.

It has the hooks of a site. The stages of a handshake are in :mod:`wsloop.stages`, which is loaded when a server is
made: a module that only imports the class needs no gevent. This module must not know the sockets of the operating
system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import django
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.urls import path

try:
    from ws4redis.wsgi_server import WebsocketWSGIServer  # sets Django up
except ImportError:  # see wsloop.stock
    django.setup()
    WebsocketWSGIServer = object

from wsloop import checks, conf, routing, tokens
from wsloop.backend import pool, redis_options
from wsloop.facilities import subscriptions
from wsloop.protocol.dialects import DIALECTS

if TYPE_CHECKING:
    from wsloop.facilities.hooks import Hooks
    from wsloop.sockets.connection import Connection


class WebsocketServer(WebsocketWSGIServer):  # type: ignore[misc]
    """ws4redis's WebSocket server with another loop: the WSGI application for the URLs under ``WSLOOP["URL"]``.

    Args:
        redis_connection: a Redis client, for code written for ws4redis's class, which had one; wsloop's by default.
        urlpatterns: the paths of consumers, made with ``path()`` and ``re_path()`` and ``as_websocket()``; all other
            paths are facilities, unless there is an ``asgi`` application.
        asgi: an ASGI application that serves all paths without a pattern, for example one that was written for Django
            Channels. ``async def`` views work with or without it.

    Attributes:
        subprotocols: names that the server accepts as ``Sec-WebSocket-Protocol``, the preferred one first. "wsloop.v1"
            is documented in ``docs/reference/wsloop-v1.rst``. "ws4redis" stands for bare messages, the default:
            browsers that offer a token as a subprotocol need another one that the server can accept.

    Raises:
        ImproperlyConfigured: if a setting is wrong, or gevent has not patched the process in time.
    """

    subprotocols: tuple[str, ...] = tuple(DIALECTS)

    def __init__(self, redis_connection: Any = None, urlpatterns: Iterable[Any] = (), *, asgi: Any = None) -> None:
        from wsloop import engine, exposition, stages
        from wsloop.aio import worker
        from wsloop.facilities import calls
        from wsloop.ops import consumer
        from wsloop.sockets import servers, takeover
        from wsloop.visitors import lookup

        try:
            servers.prepare()
        except takeover.Unsupported as exc:
            raise ImproperlyConfigured(str(exc)) from exc
        worker.install()
        exposition.register()
        checks.validate()
        redis_options.adapt_ws4redis()
        # Not the stock initializer: it imports the subscriber class of ws4redis.
        self._redis_connection = redis_connection or pool.client()
        self.Subscriber = subscriptions.subscriber_class(conf.subscriber_path())
        self.possible_channels = [*self.Subscriber.subscription_channels, *self.Subscriber.publish_channels]
        self._policy = conf.option("POLICY")
        self._authenticate = conf.option("PROCESS_REQUEST") or self.process_request
        of_staff = path(f"{conf.websocket_url()[1:]}{consumer.PATH}", consumer.OpsConsumer.as_websocket())
        self._routes = routing.Routes([*urlpatterns, of_staff])
        self._application = asgi
        self._stages, self._engine = stages, engine.engine
        self._lookup = lookup.Lookup()
        self._hooks: Hooks | None = None
        if conf.option("CALL_PATHS") and apps.ready:
            calls.handler()  # now, and not when the first client calls: all sockets of the worker would wait
        servers.loaded()

    def process_request(self, request: HttpRequest) -> None:
        """Find the user: by a token (see ``tokens``), or session and user by the cookie, both None without one."""
        if tokens.authenticate(request):
            return
        request.session = request.user = None  # type: ignore[assignment]
        key = request.COOKIES.get(conf.session_cookie())
        if key is not None:
            self._lookup.sign_in(request, key)

    @property
    def websockets(self) -> set[Connection]:
        """The open connections of this process (as in ws4redis)."""
        return self._engine().hub.connections

    def process_subscriptions(self, request: HttpRequest) -> tuple[list[str], bool]:
        """Return the channels that the query asks for, and whether it asks for the echo; see ``subscriptions``."""
        possible = [*self.possible_channels]
        if conf.facility(routing.facility(request)).presence:
            possible.append(subscriptions.PRESENCE)
        return subscriptions.requested(request, possible)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self._hooks is None:  # one for all: the sockets of whole pages keep it
            self._hooks = self._stages.Hooks(
                self.subprotocols,
                self._routes,
                self._application,
                self._policy,
                self._authenticate,
                getattr(self._authenticate, "__func__", None) is not WebsocketServer.process_request,
                self.Subscriber,
                self.process_subscriptions,
            )
        return self._stages.serve(self._hooks, environ, start_response)
