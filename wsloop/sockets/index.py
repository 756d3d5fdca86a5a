"""An index of connections by key: by channel, user, session or address."""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, TypeVar

from wsloop.sockets.connection import Connection

Key = TypeVar("Key")


class Index(Generic[Key]):
    """Connections by key. A single one is stored without a set around it, because most users have one socket."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[Key, Connection | set[Connection]] = {}

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self._of)

    def __getitem__(self, key: Key) -> Collection[Connection]:
        present = self._of.get(key, ())
        return present if isinstance(present, (set, tuple)) else (present,)

    def add(self, key: Key, connection: Connection) -> None:
        present = self._of.setdefault(key, connection)
        if isinstance(present, set):
            present.add(connection)
        elif present is not connection:
            self._of[key] = {present, connection}

    def remove(self, key: Key, connection: Connection) -> None:
        """Remove a connection that has this key."""
        present = self._of[key]
        if isinstance(present, set):
            present.discard(connection)
            if len(present) == 1:
                self._of[key] = present.pop()
        else:
            del self._of[key]
