"""What all consumers have: the description of their socket, and their place in the patterns of a site.

This module must not know gevent, asyncio, Redis or sockets.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.http import QueryDict

from wsloop.consumers.asgi import serve
from wsloop.protocol.consumer_events import Event

Made = TypeVar("Made", bound="Consumer")


def begin(
    consumer: Consumer, scope: dict[str, Any], send: Callable[[Event], Any], layer: Any, channel_name: str
) -> None:
    """Connect a consumer with its socket, before its first event. (Not a method: a site may have one of any name.)"""
    consumer.scope = scope
    consumer.channel_layer = layer
    consumer.channel_name = channel_name
    consumer.base_send = send


class Consumer:
    """What consumers of both kinds have.

    Attributes:
        channel_layer_alias: of the channel layer, a key of the setting ``CHANNEL_LAYERS``; None: it has none.
        scope: description of the socket, see ``docs/reference/consumers.rst``.
        channel_layer: sends events to other consumers and to groups.
        channel_name: the name of this consumer in the channel layer.
        base_send: carries out the events of this consumer.
    """

    channel_layer_alias: str | None = "default"
    scope: dict[str, Any]
    channel_layer: Any
    channel_name: str
    base_send: Callable[[Event], Any]
    _wsloop_arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})  # of __init__

    def __new__(cls: type[Made], *args: Any, **kwargs: Any) -> Made:
        consumer = super().__new__(cls)
        if args or kwargs:
            consumer._wsloop_arguments = (args, kwargs)
        return consumer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def dispatch(self, message: Event) -> Any:
        """Call the method for an event; see the subclasses."""
        raise NotImplementedError

    # Not properties: consumers that were written for Channels assign to these names.

    @functools.cached_property
    def user(self) -> Any:
        """The user who has opened the socket."""
        return self.scope["user"]

    @functools.cached_property
    def session(self) -> Any:
        """The session of that user."""
        return self.scope["session"]

    @functools.cached_property
    def kwargs(self) -> dict[str, Any]:
        """The named parts of the URL that its pattern has captured."""
        captured: dict[str, Any] = self.scope["url_route"]["kwargs"]
        return captured

    @functools.cached_property
    def query(self) -> QueryDict:
        """The query string of the socket's URL."""
        return QueryDict(self.scope["query_string"])

    @classmethod
    def as_websocket(cls, **initkwargs: Any) -> Callable[..., Any]:
        """Return what a pattern of ``websocket_urlpatterns`` leads to; every socket gets a consumer of its own.

        Args:
            initkwargs: arguments of ``__init__``.
        """

        async def consumer(*args: Any, **kwargs: Any) -> Any:
            await cls(**initkwargs)(*args, **kwargs)

        consumer.consumer_class = cls  # type: ignore[attr-defined]
        consumer.consumer_initkwargs = initkwargs  # type: ignore[attr-defined]
        consumer.__name__ = consumer.__qualname__ = cls.__name__
        consumer.__module__, consumer.__doc__ = cls.__module__, cls.__doc__
        return consumer

    as_asgi = as_websocket  # as routing files for Channels name it

    async def __call__(self, scope: Any, receive: Any = None, send: Any = None, **captured: Any) -> None:
        """Run the consumer as an ASGI application, where the server does not run it itself.

        An instance that has served a socket stands for its class and arguments, so that sockets share nothing.

        Raises:
            ImproperlyConfigured: if it is called as a view.
        """
        if receive is None or not isinstance(scope, dict):
            raise ImproperlyConfigured(
                f"{type(self).__name__} serves WebSockets: its pattern belongs in the websocket_urlpatterns that "
                "WebsocketServer gets, not in ROOT_URLCONF."
            )
        consumer = self
        if "base_send" in vars(self):  # not "scope": a __call__() of the site's own may have set that
            args, kwargs = self._wsloop_arguments
            consumer = type(self)(*args, **kwargs)
        await serve(consumer, begin, scope, receive, send)


__all__ = ["Consumer", "begin"]
