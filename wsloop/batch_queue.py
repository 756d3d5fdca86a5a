"""A queue whose items are handled in order by one greenlet, which exists only while there are some.

Callbacks of the event loop must not block, so they queue what needs Redis or code of a site. This module must not know
what is queued.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import gevent

from wsloop.greenlets import logged

Item = TypeVar("Item")


def batches(
    items: Iterable[Item],
    most: int,
    most_bytes: float = float("inf"),
    size: Callable[[Item], int] = lambda item: 0,
) -> Iterator[list[Item]]:
    """Yield items in order, in batches.

    Args:
        items: of any type.
        most: number of items in one batch.
        most_bytes: bytes of the items in one batch, unless a single one is larger.
        size: returns the size of an item in bytes; by default only the number counts.
    """
    batch: list[Item] = []
    total = 0
    for item in items:
        more = size(item)
        if batch and (len(batch) == most or total + more > most_bytes):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += more
    if batch:
        yield batch


class BatchQueue(Generic[Item]):
    """An ordered queue.

    Args:
        handle: called in a greenlet of the queue with all items that wait. Its exceptions are logged, and its items are
            not handled again; if a caller waits for an item, ``handle`` must wake it up in any case.
    """

    __slots__ = ("_handle", "_items", "_running")

    def __init__(self, handle: Callable[[list[Item]], None]) -> None:
        self._handle = handle
        self._items: list[Item] = []
        self._running = False

    def put(self, item: Item) -> None:
        """Add an item. Never blocks; may be called from an event-loop callback."""
        self._items.append(item)
        if not self._running:
            self._running = True
            gevent.spawn(self._run)

    def __len__(self) -> int:
        """Return the number of items that wait, without those that are being handled."""
        return len(self._items)

    def _run(self) -> None:
        try:
            while self._items:
                items, self._items = self._items, []
                logged(self._handle, items)
        finally:
            self._running = False
