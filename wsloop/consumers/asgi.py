"""A consumer as an ASGI application: inside ``URLRouter`` and middleware of Channels, which call it themselves.

How it works. As in Channels, the events of the socket and those of the channel layer call the consumer, one after the
other. What a socket may do in which state is checked by the server that has called the application around it. Consumers
in the patterns of a site do not need this: the server runs them without an application. This module must not know
gevent, Redis or sockets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction

from wsloop import conf, metrics
from wsloop.db import database_sync_to_async
from wsloop.exceptions import StopConsumer
from wsloop.layers import ChannelLayer, decode, get_channel_layer
from wsloop.protocol.consumer_events import Event, handler_name

logger = logging.getLogger("wsloop.runner")

RESUMED = "channel_layer.resumed"


class Mailbox:
    """The events of the channel layer for one consumer; in the event loop that has made it.

    Args:
        consumer: whose events they are.

    Attributes:
        channel_name: of the consumer.
        subscriptions: the Redis channels of its groups.
    """

    def __init__(self, consumer: Any) -> None:
        self.channel_name = ""
        self.subscriptions: set[bytes] = set()
        self._consumer = consumer
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._waiting = self._size = 0

    def put(self, *arguments: bytes) -> bool:
        """Put an event in, and return whether there was room. In any greenlet of the loop's thread; never blocks.

        Args:
            arguments: the Redis channel, if it came through one, and the payload.
        """
        payload = arguments[-1]
        full = self._waiting >= conf.option("CHANNEL_CAPACITY")
        if full or (self._size and self._size + len(payload) > conf.option("MAX_QUEUED_BYTES")):
            metrics.lost("channel")
            return False
        try:
            event = decode(payload)
            handler_name(event)
        except Exception as exc:  # the decoder raises many types, and anybody can publish to a Redis channel
            name = type(self._consumer).__name__
            logger.warning("Discarded malformed event (%d bytes) for %s: %s", len(payload), name, exc)
        else:
            self._put(event, len(payload))
        return True

    def resumed(self) -> None:
        """Events may have been lost, but none that is published from now on will be. Never blocks."""
        if hasattr(self._consumer, handler_name({"type": RESUMED})):
            self._put({"type": RESUMED}, 0)

    def _put(self, event: Event, size: int) -> None:
        self._waiting += 1
        self._size += size
        self._loop.call_soon_threadsafe(self._events.put_nowait, {"size": size, "event": event})

    async def get(self) -> Event:
        """Return the next event."""
        entry = await self._events.get()
        self._waiting -= 1
        self._size -= entry["size"]
        event: Event = entry["event"]
        return event


async def serve(
    consumer: Any,
    begin: Callable[[Any, dict[str, Any], Any, ChannelLayer, str], None],
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[Event]],
    send: Callable[[Event], Awaitable[None]],
) -> None:
    """Run a consumer until its socket has ended.

    Args:
        consumer: new.
        begin: connects it with the socket.
        scope, receive, send: of ASGI 3.0.

    Raises:
        RuntimeError: if this process is not one in which consumers can get events.
        Exception: what the handlers raise.
    """
    layer = get_channel_layer(consumer.channel_layer_alias)
    local = layer.local
    if local is None:
        raise RuntimeError(
            f"{type(consumer).__name__} is a consumer of wsloop, and runs on its server: "
            "WebsocketServer(asgi=application) in wsgi.py. Tests run it with wsloop.testing."
        )
    plain = not iscoroutinefunction(consumer.dispatch)
    dispatch = database_sync_to_async(consumer.dispatch) if plain else consumer.dispatch
    mailbox = Mailbox(consumer)
    mailbox.channel_name = local.enter(mailbox)
    try:
        begin(consumer, scope, async_to_sync(send) if plain else send, layer, mailbox.channel_name)
        await _listen(receive, mailbox.get, dispatch)
    except StopConsumer:
        pass
    finally:
        local.leave(mailbox.channel_name)


async def _listen(receive: Callable[[], Awaitable[Event]], get: Callable[[], Awaitable[Event]], dispatch: Any) -> None:
    waiting = {asyncio.ensure_future(source()): source for source in (receive, get)}
    try:
        while True:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: waiting[task] is get):  # messages of the client first
                source = waiting.pop(task)
                event = task.result()
                await dispatch(event)
                if source is receive and event["type"] == "websocket.disconnect":
                    return
                waiting[asyncio.ensure_future(source())] = source
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


__all__ = ["serve"]
