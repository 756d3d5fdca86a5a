"""The queue of messages from sockets to Redis: in order, many in one round trip, and without blocking a socket.

This module must not know the subscription on which the messages arrive again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gevent
from redis.exceptions import RedisError

from wsloop import conf, metrics
from wsloop.backend import pool, publishing, scripts
from wsloop.batch_queue import BatchQueue, batches
from wsloop.delivery.own_channel import Note, OwnChannel
from wsloop.greenlets import log, logged

logger = logging.getLogger("wsloop.broker")

BATCH = 500  # messages in one transaction, before other greenlets and sockets get their turn
BATCH_BYTES = 256 * 1024  # likewise: a quarter of the output that may wait for one socket


class PublishRequest(NamedTuple):
    """A message that a socket publishes.

    Attributes:
        channels: of the message.
        payload: the message.
        expire: seconds for which it is retained as the last message of each channel; 0 retains nothing.
        options: of the facility.
        origin: passed to :meth:`~wsloop.delivery.events.BrokerEvents.message` with exactly this message when it
            arrives in this process; or None.
        done: called with whether Redis has taken the message, once that is known.
        key: idempotency key of the message; empty: none.
    """

    channels: Sequence[bytes]
    payload: bytes
    expire: int
    options: conf.Facility
    origin: Any
    done: Callable[[bool], None]
    key: str = ""


class PublishQueue:
    """The process's queue of messages to Redis.

    Args:
        own_channel: of the process; provides the notes that name origins.
    """

    def __init__(self, own_channel: OwnChannel) -> None:
        self._own_channel = own_channel
        self._queue: BatchQueue[PublishRequest] = BatchQueue(self._send)

    def put(self, request: PublishRequest) -> None:
        """Publish a message, in the order of the calls. Never blocks; messages that Redis does not take are counted."""
        self._queue.put(request)

    def _send(self, requests: list[PublishRequest]) -> None:
        # In a Redis Cluster a message to one master must not fail with a message to another.
        alone = scripts.is_cluster(pool.client())
        for batch in batches(requests, 1 if alone else BATCH, BATCH_BYTES, _size):
            notes = [self._own_channel.note(each.origin, len(each.channels) if alone else 1) for each in batch]
            taken = False
            try:
                publishing.publish(pool.client(), map(_outgoing, batch, notes))
                taken = True
            except Exception as exc:
                metrics.lost("publication", len(batch))
                for note in notes:
                    self._own_channel.withdraw(note)
                logger.error("Lost %d messages of sockets, which Redis did not accept: %s", len(batch), exc)
                if not isinstance(exc, (RedisError, OSError)):
                    log(self._send, exc)
            for request in batch:
                logged(request.done, taken)
            # The reader must keep up: Redis ends a subscription for which 8 MB wait for a minute, or 32 MB at once.
            gevent.sleep(0)


def _outgoing(request: PublishRequest, note: Note) -> publishing.OutgoingMessage:
    return publishing.OutgoingMessage(*request[:4], request.key, note)


def _size(request: PublishRequest) -> int:
    """Return how many bytes a message has, over all its channels."""
    return len(request.payload) * len(request.channels)
