"""The events of the channel layer that wait for a consumer inside an ASGI application, in an event loop.

Consumers that the server runs itself have :mod:`wsloop.runtime.inbox`. This module must not know gevent, Redis or
sockets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from typing import Any

from wsloop import conf, metrics
from wsloop.backend.layer_events import decode
from wsloop.protocol.consumer_events import Event, handler_name

logger = logging.getLogger("wsloop.runner")

RESUMED = "channel_layer.resumed"


class Mailbox:
    """The events of the channel layer for one consumer, which takes them in the event loop that has made this.

    Args:
        consumer: whose events they are; None: it is not known.

    Attributes:
        channel_name: of the consumer.
        subscriptions: the Redis channels of its groups.
    """

    def __init__(self, consumer: Any = None) -> None:
        self.channel_name = ""
        self.subscriptions: Collection[bytes] = ()
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
            name = "a consumer" if self._consumer is None else type(self._consumer).__name__
            logger.warning("Discarded malformed event (%d bytes) for %s: %s", len(payload), name, exc)
        else:
            self._put(event, len(payload))
        return True

    def put_all(self, channel: bytes, events: Iterable[Any], size: int) -> None:
        """Put several events in, as far as there is room; see :meth:`put`.

        Args:
            channel: through which they came.
            events: each with its ``payload``.
            size: bytes of all of them.
        """
        for event in events:
            self.put(channel, event.payload)

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


__all__ = ["Mailbox"]
