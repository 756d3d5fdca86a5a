"""Work that is put down anywhere and done in order by one greenlet, which lives only while there is some.

Event-loop callbacks must not block, so what needs Redis or a site's code is put here by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import gevent

from wsloop.greenlets import logged

Item = TypeVar("Item")


def batches(items: Iterable[Item], most: int, most_bytes: int, size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Yield items in order, as many at once as are handled together.

    Args:
        items: any.
        most: of them in one batch.
        most_bytes: of them in one batch, unless one alone is larger.
        size: returns the size of an item in bytes.
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
    """An ordered queue whose items a greenlet of its own hands to ``handle``, as many at once as have gathered.

    What ``handle`` raises is logged, and those items are gone. Where somebody waits for an item, ``handle`` must tell
    them, whatever happens.
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
        """Return how many items wait, without those that are being handled."""
        return len(self._items)

    def _run(self) -> None:
        try:
            while self._items:
                items, self._items = self._items, []
                logged(self._handle, items)
        finally:
            self._running = False
