"""How events of this worker's consumers go out to groups: those that are published at the same time share a round trip.

One after the other they would wait for each other's replies, because the process publishes on two connections. This
module must not know consumers.
"""

from __future__ import annotations

import copy
from typing import Any, cast

from gevent.event import AsyncResult
from redis.exceptions import ConnectionError as RedisUnreachable
from redis.exceptions import TimeoutError as RedisTimeout

from wsloop import layers
from wsloop.backend import pool, publishing
from wsloop.batch_queue import BatchQueue, batches

MAX_EVENTS, MAX_BYTES = 100, 256 * 1024  # events published in one round trip, and bytes of them

GroupEvent = tuple[bytes, bytes, Any]  # channel, payload, and the AsyncResult for the number of subscribers reached


class BatchingDelivery(layers.RedisDelivery):
    """Implements :class:`wsloop.layers.RemoteDelivery` for a worker."""

    def __init__(self) -> None:
        self._outbox: BatchQueue[GroupEvent] = BatchQueue(self._send_all)

    def publish(self, channel: bytes, payload: bytes) -> int:
        reached: AsyncResult[int] = AsyncResult()
        self._outbox.put((channel, payload, reached))
        return cast(int, reached.get())

    def _send_all(self, events: list[GroupEvent]) -> None:
        failure: Exception | None = None
        for batch in batches(events, MAX_EVENTS, MAX_BYTES, lambda each: len(each[1])):
            replies: list[Any] = [failure] * len(batch)
            if failure is None:
                try:
                    replies = publishing.publish_bare(pool.client(), [event[:2] for event in batch])
                except Exception as exc:  # of any kind: no publisher may wait forever
                    replies = [exc] * len(batch)
                # The other batches have waited for the same connection, and need not wait for it again.
                failure = next((each for each in replies if isinstance(each, (RedisUnreachable, RedisTimeout))), None)
            for (_, _, reached), reply in zip(batch, replies, strict=True):
                if isinstance(reply, Exception):
                    reached.set_exception(_copy(reply))
                else:
                    reached.set(reply)


def _copy(error: Exception) -> Exception:
    """Return a copy of an error: one that is raised in many greenlets would collect the frames of all of them."""
    try:
        return copy.copy(error)
    except Exception:  # its constructor needs more than ``args``
        return error


__all__ = ["BatchingDelivery"]
