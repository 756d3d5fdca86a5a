"""An index of connections by key: by channel, user, session or address."""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, TypeVar

from wsloop.sockets.connection import Connection

Key = TypeVar("Key")


class Index(Generic[Key]):
    """Connections by key, in the order in which they came: that of their memory, here and in the kernel, as far as
    possible. A single one is stored without a dictionary around it, because most users have one socket.

    Attributes:
        of: by key, a connection or several.
    """

    __slots__ = ("of",)

    def __init__(self) -> None:
        self.of: dict[Key, Connection | dict[Connection, None]] = {}

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self.of)

    def __getitem__(self, key: Key) -> Collection[Connection]:
        present = self.of.get(key, ())
        return present if isinstance(present, (dict, tuple)) else (present,)

    def add(self, key: Key, connection: Connection) -> None:
        present = self.of.setdefault(key, connection)
        if isinstance(present, dict):
            present[connection] = None
        elif present is not connection:
            self.of[key] = {present: None, connection: None}

    def remove(self, key: Key, connection: Connection) -> None:
        """Remove a connection that has this key."""
        present = self.of[key]
        if isinstance(present, dict):
            present.pop(connection, None)
            if len(present) == 1:
                self.of[key] = next(iter(present))
        else:
            del self.of[key]
