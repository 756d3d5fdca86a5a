"""A greenlet that looks, every millisecond, whether it sees another greenlet's running event loop."""

from __future__ import annotations

import asyncio
import sys
import time

import gevent

PERIOD = 0.001  # seconds


def visible():
    """Return what this greenlet sees of asyncio's state, which must be nothing outside of a coroutine."""
    hooks = sys.get_asyncgen_hooks()
    seen = [] if asyncio._get_running_loop() is None else ["loop"]
    seen += [] if hooks == (None, None) else ["hooks"]
    return seen


class Watcher:
    """Looks from its beginning to its end: ``with Watcher() as watcher: …``, which fails if something was seen.

    Attributes:
        looks: how often it has looked.
        leaks: what it has seen, once for each look.
        longest: seconds that it had to wait for its turn, at most.
    """

    def __init__(self):
        self.looks, self.leaks, self.longest = 0, [], 0.0
        self._greenlet = None

    def look(self):
        self.looks += 1
        self.leaks += visible()

    def _watch(self):
        last = time.monotonic()
        while True:
            self.look()
            gevent.sleep(PERIOD)
            self.longest, last = max(self.longest, time.monotonic() - last), time.monotonic()

    def __enter__(self):
        self._greenlet = gevent.spawn(self._watch)
        gevent.sleep(0)
        return self

    def __exit__(self, *error):
        self._greenlet.kill()
        if error == (None, None, None):
            assert self.leaks == []
