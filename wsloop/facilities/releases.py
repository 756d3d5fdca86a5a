"""Calls ``release()`` of the site's own subscriber class when a socket or a subscription has ended, as ws4redis does.

The method may block, so it is called in a greenlet, behind what waits for ``publish_message()`` of the same subscriber;
for others one after the other. This module must not know HTTP, nor what a subscription is.
"""

from __future__ import annotations

import functools

import gevent

from wsloop.batch_queue import BatchQueue
from wsloop.facilities import subscriptions
from wsloop.facilities.inbound import call_all
from wsloop.facilities.subscriptions import Subscriber
from wsloop.sockets.connection import Connection


class Releases:
    """The subscribers of open sockets whose class wants to know when these end."""

    def __init__(self) -> None:
        self._kept: dict[Connection, list[tuple[str, Subscriber]]] = {}  # with the facility of the subscription
        self._queue = BatchQueue(call_all)
        self._waiting = 0

    def keep(self, connection: Connection, facility: str, subscriber: Subscriber) -> None:
        """Release a subscriber when :meth:`left` says so. Never blocks."""
        if subscriber.releases_itself:
            self._kept.setdefault(connection, []).append((facility, subscriber))

    def left(self, connection: Connection, facility: str | None = None) -> None:
        """Release the subscribers of a connection; with a facility that of this subscription alone. Never blocks."""
        kept = self._kept.pop(connection, [])
        remaining = [each for each in kept if facility not in (None, each[0])]
        if remaining:
            self._kept[connection] = remaining
        for each in kept:
            if each not in remaining:
                self.release(each[1])

    def release(self, subscriber: Subscriber) -> None:
        """Release a subscriber, of a socket that has not been opened. Never blocks."""
        if subscriber.releases_itself:
            self._waiting += 1
            (subscriber.site_calls or self._queue).put(functools.partial(self._release, subscriber))

    def _release(self, subscriber: Subscriber) -> None:
        try:
            subscriptions.release(subscriber)
        finally:
            self._waiting -= 1

    def wait(self, seconds: float) -> None:
        """Return when nothing waits to be released, or after ``seconds``. Blocks."""
        with gevent.Timeout(seconds, False):  # type: ignore[arg-type]
            while self._waiting:
                gevent.sleep(0.01)


__all__ = ["Releases"]
