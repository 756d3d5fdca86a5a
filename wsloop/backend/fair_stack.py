"""The free connections of a pool, and those who wait for one: nobody waits for ever because others are quicker.

How it works. A connection that is given back may be taken again at once, by whoever runs: that is quick, for it takes a
turn of the event loop until somebody who waits runs. (Of the queues of Python and gevent that is all: two views that
publish in a loop would keep all others waiting for ever.) But who has waited for :data:`PATIENCE` seconds is handed the
next one. Go's mutexes do the same.

This module must not know Redis.
"""

from __future__ import annotations

import collections
import threading
from queue import Empty, Full
from time import monotonic
from typing import Any

PATIENCE = 1.0  # seconds; a handshake takes some connections one after the other, and has ten seconds


class FairStack:
    """What redis-py's ``BlockingConnectionPool`` takes as its ``queue_class``; the last item that came in is the first.

    Args:
        size: how many items there can be.

    Attributes:
        queue: the free items.
    """

    def __init__(self, size: int) -> None:
        self.queue: list[Any] = []
        self._size = size
        self._waiters: collections.deque[_Waiter] = collections.deque()
        self._lock = threading.Lock()

    def put_nowait(self, item: Any) -> None:
        """Keep an item, or hand it to whoever has waited for too long.

        Raises:
            queue.Full: if there are as many as there can be.
        """
        with self._lock:
            if self._waiters and self._waiters[0].since + PATIENCE <= monotonic():
                self._waiters.popleft().take(item)
            elif len(self.queue) < self._size:
                self.queue.append(item)
                self._wake()
            else:
                raise Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return an item; waits for one for ``timeout`` seconds, or as long as it takes.

        Raises:
            queue.Empty: if there was none in time.
        """
        waiter = _Waiter()
        with self._lock:
            if self.queue:
                return self.queue.pop()
            if not block:
                raise Empty
            self._waiters.append(waiter)
        try:
            while True:
                left = None if timeout is None else waiter.since + timeout - monotonic()
                if not waiter.ready.wait(left if left is None else max(left, 0)):
                    raise Empty
                with self._lock:
                    if waiter.served:
                        return waiter.item
                    if self.queue:
                        self._waiters.remove(waiter)
                        waiter.take(self.queue.pop())
                        self._wake()
                        return waiter.item
                    waiter.ready.clear()  # somebody was quicker
        except BaseException:  # a greenlet may be ended while it waits, too
            with self._lock:
                if not waiter.served:
                    self._waiters.remove(waiter)
                    self._wake()
            if waiter.served:  # at the last moment
                self.put_nowait(waiter.item)
            raise

    def _wake(self) -> None:
        """Let the one who waits longest try, if there is an item."""
        if self.queue and self._waiters:
            self._waiters[0].ready.set()


class _Waiter:
    """Somebody who waits for an item, since when, and the item that it was given."""

    def __init__(self) -> None:
        self.since = monotonic()
        self.ready = threading.Event()
        self.served = False
        self.item: Any = None

    def take(self, item: Any) -> None:
        self.item, self.served = item, True
        self.ready.set()


__all__ = ["FairStack"]
