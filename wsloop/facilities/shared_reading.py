"""Reads histories for recoveries, for those that ask at the same time together; equal questions share an answer.

When a worker or a network fails, thousands of clients come back at once, and most of them have missed the same
messages: these are read, merged and encoded once. One of the process's two connections is used for this; the other is
left to handshakes and all else, however many recoveries there are.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from gevent.event import AsyncResult
from redis import Redis
from redis.exceptions import ConnectionError as RedisUnreachable
from redis.exceptions import TimeoutError as RedisTimeout

from wsloop import conf
from wsloop.backend import history
from wsloop.backend.history import LEAST_BYTES, PAGE_BYTES, Page
from wsloop.batch_queue import BatchQueue, batches
from wsloop.delivery.merge import HistoryMerge
from wsloop.protocol.dialects import Dialect
from wsloop.protocol.messages import Message, Position
from wsloop.sockets.joining import InitialFrames, SharedPayloads

MOST = PAGE_BYTES // LEAST_BYTES  # questions of several clients in one round trip: memory is bounded by their pages

Questions = tuple[tuple[bytes, Position], ...]


def page_size() -> int:
    """Return the bytes of messages that are sent to a client at once."""
    return min(PAGE_BYTES, int(conf.option("MAX_QUEUED_BYTES")) // 4)


class _Merged(NamedTuple):
    """See the attributes of :class:`Answer`."""

    messages: list[tuple[bytes, Message]]
    end: dict[bytes, Position]
    lost: dict[bytes, Position]
    complete: bool


class Answer:
    """What clients with the same positions have missed, up to :func:`page_size`. It is shared: nobody may change it.

    Args:
        client: of Redis.
        questions: pairs of channel and position.
        pages: which Redis has answered.

    Attributes:
        pages: the same.
        end: the positions behind the messages, by channel.
        lost: the channels of which messages are missing.
        complete: whether these are all messages.
    """

    def __init__(self, client: Redis, questions: Questions, pages: list[Page]) -> None:
        self.pages = pages
        self._client = client
        self._questions = questions
        self._payloads: dict[Dialect, tuple[SharedPayloads, set[str]]] = {}

    @functools.cached_property
    def _merged(self) -> _Merged:
        merge = HistoryMerge(self._client, dict(self._questions), lambda client, questions: self.pages)
        merge.read()
        return _Merged(merge.take(page_size()), merge.since, merge.lost, merge.complete)

    @property
    def end(self) -> Mapping[bytes, Position]:
        return self._merged.end

    @property
    def lost(self) -> Mapping[bytes, Position]:
        return self._merged.lost

    @property
    def complete(self) -> bool:
        return self._merged.complete

    def add_to(self, frames: InitialFrames) -> None:
        """Add the messages to what a client gets first."""
        if frames.dialect not in self._payloads:
            had = {at.id for _, at in self._questions}
            self._fill(own := InitialFrames(frames.dialect, set(had)))
            shared = SharedPayloads(cast("list[bytes]", own.payloads))
            self._payloads[frames.dialect] = shared, own.known - had
        shared, ids = self._payloads[frames.dialect]
        if ids.isdisjoint(frames.known):
            frames.payloads.append(shared)
            frames.known |= ids
        else:  # it has some of them by way of another channel
            self._fill(frames)

    def _fill(self, frames: InitialFrames) -> None:
        for channel, message in self._merged.messages:
            frames.add(channel, message)


class _Request(NamedTuple):
    client: Redis
    questions: Questions
    answer: AsyncResult[Answer]


class SharedReading:
    """The readings of one process, one after the other."""

    def __init__(self) -> None:
        self._queue: BatchQueue[_Request] = BatchQueue(self._answer)

    def ask(self, client: Redis, since: Mapping[bytes, Position]) -> Answer:
        """Return what a client with these positions, by channel, has missed after this call. Blocks.

        Raises:
            redis.exceptions.RedisError: if Redis does not answer.
        """
        return self._ask(client, tuple(sorted(since.items())))

    def read(self, client: Redis, questions: Sequence[tuple[bytes, Position]]) -> list[Page]:
        """Return what :func:`wsloop.backend.history.read` returns, as it was after this call. Blocks.

        The pages are shared with others: they must not be changed.

        Raises:
            redis.exceptions.RedisError: if Redis does not answer.
        """
        return self._ask(client, tuple(questions)).pages

    def _ask(self, client: Redis, questions: Questions) -> Answer:
        request = _Request(client, questions, AsyncResult())
        self._queue.put(request)
        return cast("Answer", request.answer.get())

    def _answer(self, requests: list[_Request]) -> None:
        same: dict[Questions, list[_Request]] = {}
        for each in requests:
            same.setdefault(each.questions, []).append(each)
        todo = [*batches(same, len(same), MOST, len)]
        failure: Exception | None = None
        while todo:
            together = todo.pop(0)
            client, questions = same[together[0]][0].client, [*dict.fromkeys(itertools.chain(*together))]
            pages: dict[tuple[bytes, Position], Page] = {}
            error = failure
            if error is None:
                try:
                    pages = dict(zip(questions, history.read(client, questions), strict=True))
                except (RedisUnreachable, RedisTimeout) as exc:
                    error = failure = exc  # the others need not wait for the same connection again
                except Exception as exc:  # of any kind: nobody may wait forever
                    if len(together) > 1:  # and it concerns one of them, perhaps
                        todo[:0] = [[each] for each in together]
                        continue
                    error = exc
            for asked in together:
                answer = Answer(client, asked, [pages[each] for each in asked]) if error is None else None
                for request in same[asked]:
                    if error is None:
                        request.answer.set(answer)
                    else:
                        request.answer.set_exception(copy.copy(error))  # each collects the frames that it is raised in


__all__ = ["Answer", "SharedReading", "page_size"]
