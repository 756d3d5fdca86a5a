"""The Redis channel to which only this process subscribes, for messages to itself.

They pass through Redis in order with all other messages, which provides two things that plain publish and subscribe
lack:

- :meth:`OwnChannel.sync` returns when everything that Redis published before the call has been delivered here.
- The origin of a message. A note on this channel, published in the same transaction immediately before a socket's
  message, names the socket. So the echo of exactly that message can be suppressed, never an equal message of another
  sender, while the payload stays bare for all other readers of the channel, ws4redis included.

This module must not know other channels or sockets.
"""

from __future__ import annotations

import itertools
import uuid
from typing import Any

from gevent.event import AsyncResult
from redis.exceptions import RedisError

from wsloop import conf
from wsloop.backend import pool, publishing
from wsloop.batch_queue import BatchQueue
from wsloop.delivery import answers
from wsloop.delivery.answers import Unavailable

Note = tuple[bytes, bytes]  # channel and payload
NO_NOTE: Note = (b"", b"")


class OwnChannel:
    """The process's own channel.

    Attributes:
        name: of the channel in Redis.
        origin: of the next message that the subscription delivers; None if another process published it.
        subscribed: whether Redis has acknowledged the channel on the present connection.
    """

    def __init__(self) -> None:
        self.name = f"{conf.prefix()}wsloop:{uuid.uuid4().hex}".encode()
        self.origin: Any = None
        self.subscribed = False
        self._origins: dict[bytes, list[Any]] = {}  # by number of the note; one item for each note still to arrive
        self._syncs: dict[bytes, list[AsyncResult[None]]] = {}  # by number; one item for each marker still to arrive
        self._numbers = itertools.count(1)
        self._markers: BatchQueue[bytes] = BatchQueue(self._send_markers)

    def sync(self) -> None:
        """Return when all that Redis published before the call has been delivered in this process.

        Raises:
            Unavailable: if that takes longer than ``REDIS_TIMEOUT`` seconds.
        """
        number = b"%d" % next(self._numbers)
        waiter: AsyncResult[None] = AsyncResult()
        # Messages of different nodes of a cluster have no common order: each node sends a marker behind its own.
        self._syncs[number] = [waiter] * publishing.masters(pool.client())
        try:
            self._markers.put(number)
            answers.wait(waiter)
        finally:
            self._syncs.pop(number, None)

    def note(self, origin: Any, copies: int) -> Note:
        """Return the note that names the origin of a message, to be published immediately before it.

        Args:
            origin: set as :attr:`origin` when the note arrives; None needs no note.
            copies: how many times the note will be published.
        """
        if origin is None or not self.subscribed:
            return NO_NOTE
        number = b"%d" % next(self._numbers)
        self._origins[number] = [origin] * copies
        return self.name, b"origin " + number

    def withdraw(self, note: Note) -> None:
        """Forget a note that was not published."""
        self._origins.pop(note[1].removeprefix(b"origin "), None)

    def on_payload(self, payload: bytes) -> None:
        """Act on a payload of this channel. Unknown payloads are ignored: any client of Redis may publish here."""
        word, *numbers = payload.split() or [b""]
        if word == b"sync":
            for number in numbers:
                waiters = self._syncs.get(number)
                if waiters and len(waiters) > 1:
                    waiters.pop()
                elif waiters:
                    waiters[0].set()
        elif word == b"origin":
            origins = self._origins.get(numbers[0], []) if numbers else []
            self.origin = origins.pop() if origins else None
            if numbers and not origins:
                self._origins.pop(numbers[0], None)

    def disconnected(self, reason: Unavailable) -> None:
        """Forget all notes and markers: the connection has ended, and those still to arrive are lost."""
        self.subscribed = False
        self.origin = None
        self._origins.clear()
        syncs, self._syncs = self._syncs, {}
        answers.fail(itertools.chain.from_iterable(syncs.values()), reason)

    def _send_markers(self, numbers: list[bytes]) -> None:
        # Not through the queue of messages: a socket that opens need not wait for the messages of others.
        try:
            publishing.tell_all(pool.client(), self.name, b"sync " + b" ".join(numbers))
        except Exception as exc:
            for number in numbers:
                answers.fail(self._syncs.get(number, ())[:1], Unavailable("Redis cannot be reached"))
            if not isinstance(exc, (RedisError, OSError)):
                raise
