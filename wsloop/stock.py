"""ws4redis's own names, where that package is installed, and stand-ins where it is not.

A site that has moved over from ws4redis imports them from there: SELF must be the same object, and what the site has
derived from these classes must be one of wsloop's. Nothing else of ws4redis is used but the base classes of
:mod:`wsloop.publisher` and :mod:`wsloop.server`. This module must not know Redis.
"""

from __future__ import annotations

from typing import Any

from wsloop import conf

try:
    from ws4redis.redis_store import SELF, RedisMessage, RedisStore
    from ws4redis.subscriber import RedisSubscriber
except ImportError:  # not installed, or it needs what later versions of Django or redis-py no longer have
    SELF = type("SELF_TYPE", (), {})()

    class RedisMessage(bytes):  # type: ignore[no-redef]
        """A message; None instead, if it is the heartbeat (as in ws4redis)."""

        def __new__(cls, value: Any) -> RedisMessage | None:  # type: ignore[misc]
            payload = value.encode() if isinstance(value, str) else bytes(value)
            return None if payload == conf.heartbeat() else super().__new__(cls, payload)

    class RedisStore:  # type: ignore[no-redef]
        """What publishers and subscribers have in common."""

        def __init__(self, connection: Any) -> None:
            self._connection = connection
            self._publishers: set[str] = set()

        @staticmethod
        def get_prefix() -> str:
            """Return the prefix of channels and keys."""
            return conf.prefix()

    class RedisSubscriber(RedisStore):  # type: ignore[no-redef, misc]
        """The names of what a client may ask for."""

        subscription_channels = [f"subscribe-{each}" for each in ("session", "group", "user", "broadcast")]
        publish_channels = [f"publish-{each}" for each in ("session", "group", "user", "broadcast")]

        def __init__(self, connection: Any) -> None:
            self._subscription = None
            super().__init__(connection)

        def release(self) -> None:
            """The socket has ended."""


__all__ = ["SELF", "RedisMessage", "RedisStore", "RedisSubscriber"]
