"""Reads histories for recoveries: those that ask the same at the same time share one answer of Redis.

When a worker or a network fails, thousands of clients come back at once, and most of them have missed the same
messages. One of the process's two connections is used for this; the other is left to handshakes and all else, however
many recoveries there are. This module must not know sockets.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple, cast

from gevent.event import AsyncResult
from redis import Redis
from redis.exceptions import ConnectionError as RedisUnreachable
from redis.exceptions import TimeoutError as RedisTimeout

from wsloop.backend import history
from wsloop.backend.history import Page
from wsloop.batch_queue import BatchQueue
from wsloop.protocol.messages import Position

Questions = tuple[tuple[bytes, Position | None], ...]


class _Request(NamedTuple):
    client: Redis
    questions: Questions
    answer: AsyncResult[list[Page]]


class SharedReading:
    """The readings of one process, one after the other."""

    def __init__(self) -> None:
        self._queue: BatchQueue[_Request] = BatchQueue(self._answer)

    def read(self, client: Redis, questions: Sequence[tuple[bytes, Position | None]]) -> list[Page]:
        """Return what :func:`wsloop.backend.history.read` returns, as it was after this call. Blocks.

        The pages are shared with others: they must not be changed.

        Raises:
            redis.exceptions.RedisError: if Redis does not answer.
        """
        request = _Request(client, tuple(questions), AsyncResult())
        self._queue.put(request)
        return cast("list[Page]", request.answer.get())

    def _answer(self, requests: list[_Request]) -> None:
        same: dict[Questions, list[_Request]] = {}
        for each in requests:
            same.setdefault(each.questions, []).append(each)
        failure: Exception | None = None
        for questions, group in same.items():
            pages: list[Page] = []
            error = failure
            if error is None:
                try:
                    pages = history.read(group[0].client, questions)
                except Exception as exc:  # of any kind: nobody may wait forever
                    error = exc
                    if isinstance(exc, (RedisUnreachable, RedisTimeout)):
                        failure = exc  # the others need not wait for the same connection again
            for each in group:
                if error is None:
                    each.answer.set(pages)
                else:
                    each.answer.set_exception(copy.copy(error))  # each collects the frames that it is raised in


__all__ = ["SharedReading"]
