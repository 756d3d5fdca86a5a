"""A consumer as an ASGI application: inside ``URLRouter`` and middleware of Channels, which call it themselves.

How it works. As in Channels, the events of the socket and those of the channel layer call the consumer, one after the
other. What a socket may do in which state is checked by the server that has called the application around it. Consumers
in the patterns of a site do not need this: the server runs them without an application. This module must not know
gevent, Redis or sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction

from wsloop.db import database_sync_to_async
from wsloop.exceptions import StopConsumer
from wsloop.layers import DEFAULT_CHANNEL_LAYER, ChannelLayer, get_channel_layer
from wsloop.mailbox import Mailbox
from wsloop.protocol.consumer_events import Event


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
        RuntimeError: if this process has no consumers, because another server runs it.
        Exception: what the handlers raise.
    """
    layer = get_channel_layer(consumer.channel_layer_alias or DEFAULT_CHANNEL_LAYER)
    local = layer.consumers_here()
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
