"""Stand-ins for what ws4redis gives a site's subscriber class: a Redis client and a WebSocket of its own.

They record what the class subscribes to, for the shared subscription, and what it sends before the socket is open. This
module must not know sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from wsloop import conf
from wsloop.backend import pool, publishing


class RetainedRecorder:
    """Stands in for the WebSocket until it is open: records the messages that a subscriber sends."""

    closed = False

    def __init__(self) -> None:
        self.sent: list[tuple[bytes | None, bytes]] = []

    def send(self, message: bytes | str, binary: bool | None = None, *, channel: bytes | None = None) -> None:
        """Record a message; ``channel`` is the one that retained it, if known."""
        self.sent.append((channel, message.encode() if isinstance(message, str) else bytes(message)))


class RecordingPubSub:
    """Stands in for redis-py's ``PubSub``: records the channels that a subscriber subscribes to.

    Attributes:
        channels: as in redis-py, a dictionary whose keys are the channels, as bytes.
    """

    connection = None
    subscribed = False  # nothing to release: the subscription belongs to the process

    def __init__(self) -> None:
        self.channels: dict[bytes, None] = {}

    def subscribe(self, *channels: Any, **handlers: Any) -> None:
        """Record channels, given one by one or in lists."""
        if handlers:
            name = conf.name_of("SUBSCRIBER")
            raise ImproperlyConfigured(f"{name}: handlers for single channels are not supported")
        for channel in channels:
            self.channels.update(
                dict.fromkeys(as_bytes(channel if isinstance(channel, (list, tuple, set)) else [channel]))
            )

    def unsubscribe(self, *channels: Any) -> None:
        """Remove channels, or all of them."""
        for channel in as_bytes(channels) or list(self.channels):
            self.channels.pop(channel, None)

    def psubscribe(self, *patterns: Any, **handlers: Any) -> None:
        name = conf.name_of("SUBSCRIBER")
        raise ImproperlyConfigured(f"{name}: subscribe to channels; patterns are not supported")

    def reset(self) -> None:
        self.channels.clear()


class RecordingClient:
    """Stands in for the Redis client of one socket's subscriber: the process's client, except for pub/sub.

    Attributes:
        publish_hook: called with the channels, payload and expiry (seconds) of a message that the subscriber publishes
            for an open socket; None: the message goes straight to Redis.
    """

    def __init__(self) -> None:
        self.publish_hook: Callable[[Sequence[bytes], bytes, int], None] | None = None

    def pubsub(self, **options: Any) -> RecordingPubSub:
        return RecordingPubSub()

    def publish(self, channel: bytes | str, message: bytes | str) -> None:
        self.publish_all([channel], publishing.encode(message), expire=0)

    def publish_all(self, channels: Iterable[bytes | str], payload: bytes, expire: int) -> None:
        """Publish to several channels in one round trip."""
        publishing.check(expire)
        if self.publish_hook is None:
            publishing.publish(pool.client(), [publishing.OutgoingMessage(as_bytes(channels), payload, expire)])
        else:
            self.publish_hook(as_bytes(channels), payload, expire)

    def __getattr__(self, name: str) -> Any:
        return getattr(pool.client(), name)


def as_bytes(names: Iterable[bytes | str]) -> tuple[bytes, ...]:
    """Return names of channels as Redis reports them."""
    return tuple(name if isinstance(name, bytes) else str(name).encode() for name in names)


__all__ = ["RecordingClient", "RecordingPubSub", "RetainedRecorder", "as_bytes"]
