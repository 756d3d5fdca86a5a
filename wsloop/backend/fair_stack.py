"""Those who wait for a connection to Redis get one in turn.

This module must not know Redis.
"""

from __future__ import annotations

import collections
import threading
from queue import Empty, Full
from typing import Any


class FairStack:
    """The free connections of a pool, the last one first; those who wait for one get it in turn.

    (Of the queues of Python and gevent whoever gives one back may take it again before a waiter has run: two views that
    publish in a loop would keep all others waiting.)
    """

    def __init__(self, size: int) -> None:
        self.queue: list[Any] = []
        self._size = size
        self._waiters: collections.deque[_Waiter] = collections.deque()
        self._lock = threading.Lock()

    def put_nowait(self, item: Any) -> None:
        """Hand an item to whoever waits longest, or keep it.

        Raises:
            queue.Full: if there are as many as there can be.
        """
        with self._lock:
            if self._waiters:
                self._waiters.popleft().take(item)
            elif len(self.queue) < self._size:
                self.queue.append(item)
            else:
                raise Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return an item; waits for one for ``timeout`` seconds.

        Raises:
            queue.Empty: if there was none in time.
        """
        with self._lock:
            if self.queue:
                return self.queue.pop()
            waiter = _Waiter()
            self._waiters.append(waiter)
        try:
            if not waiter.ready.wait(timeout if block else 0):
                raise Empty
        except BaseException:  # a greenlet may be ended while it waits, too
            with self._lock:
                waits = waiter in self._waiters
                if waits:
                    self._waiters.remove(waiter)
            if not waits:  # it was given one at the last moment
                self.put_nowait(waiter.item)
            raise
        return waiter.item


class _Waiter:
    """Somebody who waits for a connection."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.item: Any = None

    def take(self, item: Any) -> None:
        self.item = item
        self.ready.set()
