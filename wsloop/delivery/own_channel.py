"""The Redis channel to which only this process subscribes, for messages to itself.

They pass through Redis in order with all other messages, which provides two things that plain publish and subscribe
lack:

- :meth:`OwnChannel.sync` returns when everything that Redis published before the call has been delivered here, with
  the retained messages of that moment.
- The origin of a message. A note on this channel, published in the same transaction immediately before a socket's
  message, names the socket. So the echo of exactly that message can be suppressed, never an equal message of another
  sender, while the payload stays bare for all other readers of the channel, ws4redis included.

This module must not know other channels or sockets.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from typing import Any

from gevent.event import AsyncResult
from redis.exceptions import RedisError

from wsloop import conf
from wsloop.backend import pool, publishing
from wsloop.batch_queue import BatchQueue, batches
from wsloop.delivery import answers
from wsloop.delivery.answers import Unavailable
from wsloop.greenlets import log

Note = tuple[bytes, bytes]  # channel and payload
NO_NOTE: Note = (b"", b"")
MOST = 50  # handshakes whose retained messages are read at once


class Marker:
    """One that waits for a marker.

    Attributes:
        number: of the marker.
        channels: whose retained messages are read before it is sent.
        retained: these messages.
    """

    __slots__ = ("channels", "number", "retained")

    def __init__(self, number: bytes, channels: Sequence[bytes]) -> None:
        self.number = number
        self.channels = channels
        self.retained: list[bytes | None] = []


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
        self._syncs: dict[bytes, list[AsyncResult[None]]] = {}  # by number; one item for all still to arrive
        self._numbers = itertools.count(1)
        self._markers: BatchQueue[Marker] = BatchQueue(self._send_markers)

    def sync(self, channels: Sequence[bytes] = ()) -> list[bytes | None]:
        """Return when all that Redis published before the call has been delivered in this process.

        Args:
            channels: whose retained messages to read, not before the call.

        Returns:
            the retained message of each channel, or None. What was published after them has not been waited for.

        Raises:
            Unavailable: if that takes longer than ``REDIS_TIMEOUT`` seconds.
        """
        marker = Marker(b"%d" % next(self._numbers), channels)
        waiter: AsyncResult[None] = AsyncResult()
        # Messages of different nodes of a cluster have no common order: each node sends a marker behind its own. The
        # answer about the retained messages comes on another connection.
        self._syncs[marker.number] = [waiter] * (publishing.masters(pool.client()) + 1)
        try:
            self._markers.put(marker)
            answers.wait(waiter)
        finally:
            self._syncs.pop(marker.number, None)
        return marker.retained

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
                self._arrived(number)
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

    def _arrived(self, number: bytes) -> None:
        waiters = self._syncs.get(number)
        if waiters and len(waiters) > 1:
            waiters.pop()
        elif waiters:
            waiters[0].set()

    def _send_markers(self, markers: list[Marker]) -> None:
        """Read for all that wait, and send one marker behind it."""
        # Not through the queue of messages: a socket that opens need not wait for the messages of others.
        for batch in batches(markers, MOST):
            channels = list(dict.fromkeys(channel for each in batch for channel in each.channels))
            payload = b"sync " + b" ".join(each.number for each in batch)
            try:
                retained = publishing.last_messages_and_tell_all(pool.client(), channels, self.name, payload)
            except Exception as exc:
                for each in batch:
                    answers.fail(self._syncs.get(each.number, ())[:1], Unavailable("Redis cannot be reached"))
                if not isinstance(exc, (RedisError, OSError)):
                    log(self._send_markers, exc)
                continue
            found = dict(zip(channels, retained, strict=True))
            for each in batch:
                each.retained = [found[channel] for channel in each.channels]
                self._arrived(each.number)
