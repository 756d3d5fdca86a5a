"""Limits the number of connections: each gets a seat once, before the database is queried.

How it works. A handshake takes a seat before it costs anything, and assigns it to the visitor as soon as that is known;
the seat passes to the connection, and counts until the connection has ended. Handlers of a consumer that run on after
that keep a seat of their own, so that reconnecting cannot exceed the limits. This module must not know where a visitor
comes from.
"""

from __future__ import annotations

import collections
import resource
from time import monotonic
from typing import Any

from wsloop import conf
from wsloop.sockets.connection import Connection
from wsloop.sockets.index import Index
from wsloop.sockets.limits import SHARED, Bounds, Bucket
from wsloop.sockets.visitor import NOBODY, Visitor

POSTING = 10_000  # visitors without a connection whose posts are counted: some hundred bytes each


class Full(Exception):
    """There is no room for one more connection.

    Args:
        setting: the option whose limit is reached.
        visitor: who wanted to connect, if known.
    """

    def __init__(self, setting: str, visitor: Visitor = NOBODY) -> None:
        super().__init__(setting)
        self.setting = setting
        self.visitor = visitor


class Seat:
    """Counts one socket that is not a connection: not yet, or no longer.

    Attributes:
        visitor: for whom it counts; NOBODY as long as that is not known.
    """

    __slots__ = ("_admission", "visitor")

    def __init__(self, admission: Admission, visitor: Visitor) -> None:
        self._admission = admission
        self.visitor = visitor

    def assign(self, visitor: Visitor) -> None:
        """Count against a visitor from now on.

        Raises:
            Full: if the visitor has too many sockets already.
        """
        setting = self._admission.exceeded_limit(visitor)
        if setting is not None:
            raise Full(setting, visitor)
        self.visitor = visitor

    def give_back(self) -> None:
        """Stop counting. May be called again."""
        self._admission.seats.discard(self)


class Admission:
    """The connections and seats of this process.

    Attributes:
        users, sessions: connections by the primary key of their user and by the key of their session, closing ones
            included.
        seats: of sockets that are not connections.
    """

    def __init__(self) -> None:
        self.users: Index[Any] = Index()
        self.sessions: Index[str] = Index()
        self.seats: set[Seat] = set()
        self._addresses: Index[str] = Index()
        self._connections = 0
        # Of visitors that have posted lately, with or without a connection.
        self._posting: collections.OrderedDict[tuple[str, Any], Bucket] = collections.OrderedDict()

    def __len__(self) -> int:
        """Return the number of connections and seats."""
        return self._connections + len(self.seats)

    @property
    def room(self) -> float:
        """The number of seats that are left; infinite if the process has no limit."""
        return _most_connections() - len(self)

    def take(self) -> Seat:
        """Return a seat for one more socket.

        Raises:
            Full: if there are as many as the process may have.
        """
        if self.room <= 0:
            raise Full("MAX_CONNECTIONS")
        return self.keep(NOBODY)

    def keep(self, visitor: Visitor) -> Seat:
        """Return a seat for handlers that run on after their connection has ended, whatever the limits say."""
        seat = Seat(self, visitor)
        self.seats.add(seat)
        return seat

    def exceeded_limit(self, visitor: Visitor) -> str | None:
        """Return the option whose limit leaves no room for one more connection of a visitor; None if there is room."""
        for setting, index, attribute in (
            ("MAX_CONNECTIONS_PER_USER", self.users, "user"),
            ("MAX_CONNECTIONS_PER_ADDRESS", self._addresses, "address"),
        ):
            most, value = conf.option(setting), getattr(visitor, attribute)
            if most is not None and value is not None:
                others = sum(getattr(seat.visitor, attribute) == value for seat in self.seats)
                if len(index[value]) + others >= most:
                    return setting
        return None

    def occupy(self, seat: Seat, connection: Connection) -> None:
        """Pass a seat to its connection, which keeps it until :meth:`vacate`."""
        seat.give_back()
        connection.visitor = seat.visitor
        connection.meter.shared = self._shared_bucket(seat.visitor)
        self._connections += 1
        for index, key in self._keys(connection):
            index.add(key, connection)

    def vacate(self, connection: Connection) -> None:
        """Stop counting a connection, which has ended."""
        self._connections -= 1
        for index, key in self._keys(connection):
            index.remove(key, connection)

    def exceeded_rate(self, visitor: Visitor, bounds: Bounds) -> bool:
        """Count a request of a visitor as a frame, and return whether all of the visitor's together are too many."""
        bucket = self._shared_bucket(visitor)
        if bucket is None or bounds.rate is None:
            return False
        self._posting[_together(visitor)] = bucket
        self._posting.move_to_end(_together(visitor))
        if len(self._posting) > POSTING:
            self._posting.popitem(last=False)
        now = monotonic()
        bucket.add(1, SHARED * bounds.rate, now)
        return bucket.full(SHARED * bounds.rate, SHARED * bounds.burst, now)

    def _keys(self, connection: Connection) -> list[tuple[Index[Any], Any]]:
        user, session, address = connection.visitor[:3]
        pairs = ((self.users, user), (self.sessions, session), (self._addresses, address))
        return [(index, key) for index, key in pairs if key is not None]

    def _shared_bucket(self, visitor: Visitor) -> Bucket | None:
        """Return the bucket of all connections of the same user; if there is no user, of the same address."""
        index, key = (self.users, visitor.user) if visitor.user is not None else (self._addresses, visitor.address)
        if key is None:
            return None
        others = (each.meter.shared for each in index[key] if each.visitor.user == visitor.user)
        found = next((bucket for bucket in others if bucket is not None), None)
        return found or self._posting.get(_together(visitor)) or Bucket()


def _together(visitor: Visitor) -> tuple[str, Any]:
    """Return the key by which visitors share a bucket."""
    return ("user", visitor.user) if visitor.user is not None else ("address", visitor.address)


def _most_connections() -> float:
    """Return the limit of this process: a quarter of its file descriptors is left to the site."""
    most = conf.option("MAX_CONNECTIONS")
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    bound = float("inf") if descriptors == resource.RLIM_INFINITY else descriptors * 3 // 4
    return bound if most is None else min(most, bound)
