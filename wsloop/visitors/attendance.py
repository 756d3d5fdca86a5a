"""Writes to Redis which users are connected to this worker; :mod:`wsloop.presence` reads the entries of all workers.

How it works. :class:`Presence` counts the sockets of this worker by *place*, a facility or the whole site, and by user.
When the first socket of a user opens here, or the last one has been closed for ``LINGER`` seconds, a script in Redis
writes an entry, and checks whether the user came online or went offline across all workers; if so, the same script
publishes the event, so that there is one event, however many workers there are. An entry expires after ``LIFE`` seconds
unless its worker renews it, which each worker does every ``REFRESH`` seconds. While renewing, a worker also removes
expired entries, left by workers that were killed. A Redis that comes back empty is filled in the same way.

A worker that could not reach Redis for a while may find the entries of all other workers expired too, for the same
reason. It removes none of them for one interval, so that the others can renew theirs first.

Anonymous sockets are counted, not named, and the number is published only now and then: otherwise each of a thousand
visitors would get a message about each of the others. This module must not know sockets or WebSockets.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gevent
from django.dispatch import Signal
from redis.exceptions import RedisError

from wsloop import signals
from wsloop.backend import pool, scripts
from wsloop.batch_queue import BatchQueue
from wsloop.greenlets import log, logged
from wsloop.presence import Place, presence_channel, presence_keys

logger = logging.getLogger("wsloop.presence")

# All in seconds. If a worker is killed, its users go offline after LIFE + REFRESH + TICK at most: less than the 30 that
# the documentation promises. One refresh may fail in between.
LIFE = 18.0
REFRESH = 10.0
RETRY = 2.0  # until the next refresh, after one that failed
LINGER = 5.0  # for a page to reload, or the next page of the site to load
TICK = 0.5  # between two looks at what is due; the number of anonymous sockets gathers for as long
KEEP = 3600.0  # until Redis forgets a place whose workers have all ended; a worker that comes before reports who left
CHUNK = 500  # users in one call of the script, during which Redis does nothing else
BATCH = 50  # calls in one pipeline


class _Members:
    """The users and anonymous sockets of this worker in one place.

    Attributes:
        users: number of sockets by user; 0: the last one was closed, and the user may come back.
        anonymous: number of anonymous sockets.
        come, gone: users whose arrival or departure is not in Redis yet.
        told_at: when this worker last published the number of anonymous sockets.
    """

    __slots__ = ("anonymous", "come", "gone", "told_at", "users")

    def __init__(self) -> None:
        self.users: dict[str, int] = {}
        self.anonymous = 0
        self.come: dict[str, None] = {}  # sets with an order
        self.gone: dict[str, None] = {}
        self.told_at = float("-inf")


class _Call(NamedTuple):
    """One call of the script ``presence_update``, and the users whose departure it writes."""

    place: Place
    gone: list[str]
    arguments: list[Any]


class Presence:
    """The users connected to this worker, kept in Redis. Made once in each worker, not before the fork.

    Args:
        clean_up: called after receivers of the signals ``user_online`` and ``user_offline``, in their greenlet, to give
            back their resources, such as database connections.
    """

    def __init__(self, clean_up: Callable[[], None] = lambda: None) -> None:
        self._worker = secrets.token_hex(8)
        self._clean_up = clean_up
        self._places: dict[Place, _Members] = {}
        self._lingering: dict[tuple[Place, str], float] = {}  # in the order of their ends
        self._count_dirty: set[Place] = set()  # the number of anonymous sockets there is not published yet
        self._refresh_at = 0.0
        self._steady_since = 0.0
        self._failing = False
        self._changes: BatchQueue[tuple[Place, bool]] = BatchQueue(self._tell)
        self._signals: BatchQueue[tuple[Signal, str]] = BatchQueue(self._send_signals)
        self._timer: Any = gevent.get_hub().loop.timer(TICK, TICK)

    def entered(self, facility: str, user: str | None) -> None:
        """Count an opened socket. Never blocks.

        Args:
            facility: has the option ``presence``.
            user: name of the user; None for an anonymous socket.
        """
        if not self._timer.active:
            now = time.monotonic()
            self._refresh_at, self._steady_since = now + REFRESH, now
            self._timer.start(logged, self._tick)
        if user is None:
            self._members(facility).anonymous += 1
            self._count_dirty.add(facility)
            return
        for place in (facility, None):
            members = self._members(place)
            if user not in members.users:
                members.come[user] = None
                members.gone.pop(user, None)
                self._changes.put((place, False))
            members.users[user] = members.users.get(user, 0) + 1
            self._lingering.pop((place, user), None)

    def left(self, facility: str, user: str | None) -> None:
        """Reverse one :meth:`entered`, because the socket has ended. Never blocks."""
        if user is None:
            self._places[facility].anonymous -= 1
            self._count_dirty.add(facility)
            return
        for place in (facility, None):
            users = self._places[place].users
            users[user] -= 1
            if not users[user]:
                self._lingering[place, user] = time.monotonic() + LINGER

    def _members(self, place: Place) -> _Members:
        members = self._places.get(place)
        if members is None:
            members = self._places[place] = _Members()
        return members

    def _tick(self) -> None:
        now = time.monotonic()
        while self._lingering:
            (place, user), end = next(iter(self._lingering.items()))
            if end > now:
                break
            del self._lingering[place, user]
            members = self._places[place]
            del members.users[user]
            members.come.pop(user, None)
            members.gone[user] = None
            self._changes.put((place, False))
        due = {place for place in self._count_dirty if self._places[place].told_at + REFRESH <= now}
        self._count_dirty -= due
        for place in due:
            self._changes.put((place, False))
        if self._refresh_at <= now:
            self._refresh_at = now + REFRESH
            for place in self._places:
                self._changes.put((place, True))
        if not self._places:
            self._timer.stop()

    # In the greenlet of the BatchQueue.

    def _tell(self, items: list[tuple[Place, bool]]) -> None:
        """Write places to Redis: all of their users, or only the changes."""
        refresh: dict[Place, bool] = {}
        for place, everything in items:
            refresh[place] = refresh.get(place, False) or everything
        calls = (call for place, everything in refresh.items() for call in self._calls(place, everything))
        while batch := list(itertools.islice(calls, BATCH)):
            try:
                answers = scripts.call(
                    pool.client(),
                    [("presence_update", presence_keys(call.place), call.arguments) for call in batch],
                    False,
                )
            except Exception as exc:
                self._failed(batch, exc)
                if not isinstance(exc, (RedisError, OSError)):
                    log(self._tell, exc)
            else:
                self._failing = False
                for call, answer in zip(batch, answers, strict=True):
                    self._succeeded(call.place, *answer)

    def _calls(self, place: Place, everything: bool) -> Iterator[_Call]:
        members = self._places.get(place)
        if members is None:
            return
        come, gone = list(members.users if everything else members.come), list(members.gone)
        members.come, members.gone = {}, {}
        now = time.monotonic()
        channel = "" if place is None else presence_channel(place)
        parts = range(0, max(len(come), len(gone), 1), CHUNK)
        for start in parts:
            some, others = come[start : start + CHUNK], gone[start : start + CHUNK]
            tell = start == 0 and members.told_at + REFRESH <= now
            # In the last part: the worker's own entries are renewed by then.
            reap = start == parts[-1] and self._steady_since + REFRESH <= now
            times = [int(LIFE * 1000), int(KEEP * 1000)]
            arguments = [self._worker, *times, channel, members.anonymous, int(tell), int(reap), len(some)]
            yield _Call(place, others, [*arguments, *some, *others])

    def _succeeded(self, place: Place, came: list[bytes], went: list[bytes], told: int) -> None:
        if place is None:
            for signal, users in ((signals.user_online, came), (signals.user_offline, went)):
                for user in users:
                    self._signals.put((signal, user.decode()))
        members = self._places.get(place)  # None after an earlier part of the same call
        if members is None:
            return
        if told:
            members.told_at = time.monotonic()
        if not (members.users or members.anonymous or members.gone or place in self._count_dirty):
            del self._places[place]

    def _failed(self, calls: list[_Call], error: Exception) -> None:
        """Leave it to the next refresh, which writes all present users, and the departures of these calls."""
        if not self._failing:
            logger.warning("Could not update presence: %s", error)
        self._failing = True
        self._steady_since = time.monotonic()
        self._refresh_at = min(self._refresh_at, self._steady_since + RETRY)
        for call in calls:
            members = self._members(call.place)
            members.gone.update((user, None) for user in call.gone if user not in members.users)

    def _send_signals(self, items: list[tuple[Signal, str]]) -> None:
        """Send signals to the site in another greenlet: its code may take longer than a refresh can wait."""
        for signal, user in items:
            signal.send_robust(sender=Presence, user=user)  # Django logs what receivers raise
        self._clean_up()


__all__ = ["Presence"]
