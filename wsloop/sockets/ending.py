"""What a server in Python calls when its process ends: the sockets' goodbye, then what must outlive them."""

from __future__ import annotations

import atexit
import functools
import os
import signal
from collections.abc import Callable
from typing import Any

from wsloop.greenlets import spawn

Callback = Callable[[], object]


class Ending:
    """The callbacks of one process. Python runs them when it exits; who knows earlier calls :meth:`begin`."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._first: list[Callback] = []
        self._last: list[Callback] = []
        self._begun: Any = None
        atexit.register(self.run)

    def add(self, callback: Callback, last: bool) -> None:
        """Add a callback: before those that are there, or behind them, when the requests have ended, too."""
        if last:
            self._last.append(callback)
        else:
            self._first.insert(0, callback)

    def begin(self) -> None:
        """Start the callbacks that need not wait for the requests. Never blocks. May be called again."""
        if self._begun is None:
            self._begun = spawn(self._call, self._first)

    def run(self) -> None:
        """Run all callbacks, and return when they have ended. Blocks.

        Those that have begun earlier run once more: a request may have opened a socket since.
        """
        if os.getpid() != self._process:
            return  # forked by it
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            signal.signal(each, signal.SIG_IGN)  # it ends already; who cannot wait has SIGKILL
        if self._begun is not None:
            self._begun.join()
        self._call(self._first)
        self._call(self._last)

    @staticmethod
    def _call(callbacks: list[Callback]) -> None:
        for each in callbacks:
            each()


@functools.lru_cache(maxsize=1)
def _ending(process: int) -> Ending:
    return Ending()


def ending() -> Ending:
    """Return the object of this process."""
    return _ending(os.getpid())
