"""Many clients that come back (``returning_client``), and the verdict on what all of them were sent.

The verdict is whether each client has every message, was told what it has lost, or neither. All clients live on one
asyncio loop in a thread of its own, so a test goes on as if it were alone.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from testbed.ledger import Verdict
from testbed.processes import wait_until
from testbed.returning_client import Client, history

WATCH = 0.25  # seconds between two looks for dead lines

T = TypeVar("T")


class Swarm:
    """The clients and their thread; to be used in a ``with`` block, at whose end all of them are closed.

    Args:
        high: returns the last number of each stream that is known to be published; called in the loop's thread.
        received: called in the loop's thread with stream, number and frame of each message, for all clients.
    """

    def __init__(
        self,
        high: Callable[[], Mapping[str, int]] = dict,
        received: Callable[[str, int, dict[str, Any]], object] = lambda name, number, frame: None,
    ) -> None:
        self.high, self.received = high, received
        self.loop = asyncio.new_event_loop()
        self.errors: list[dict[str, Any]] = []  # of the clients themselves: the protocol was broken, or they are
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.clients: list[Client] = []
        self.closing = False
        self._thread = threading.Thread(target=self._run, name="swarm", daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self._watch)
        self.loop.run_forever()

    def _watch(self) -> None:
        now = self.loop.time()
        for client in self.clients:
            line = client.line
            if line is not None and line.transport is not None and line.silent(now):
                client.dead_lines += 1
                line.transport.abort()
        self.loop.call_later(WATCH, self._watch)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.closing = True
        with contextlib.suppress(concurrent.futures.TimeoutError):
            self.call(self._close_lines, timeout=20)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and any(client.line for client in self.clients):
                time.sleep(0.02)
            self.call(self._abort, timeout=20)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(20)
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        if kind is None:
            assert not self.errors, self.errors[:3]

    def _close_lines(self) -> None:
        for client in self.clients:
            if client.line:
                client.line.close()

    def _abort(self) -> None:
        for client in self.clients:
            if client.line and client.line.transport:
                client.line.transport.abort()

    def call(self, function: Callable[[], T], timeout: float = 60.0) -> T:
        """Call ``function`` in the loop's thread and return what it returns."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as exc:
                future.set_exception(exc)

        self.loop.call_soon_threadsafe(run)
        return future.result(timeout)

    def add(
        self,
        count: int,
        url: str,
        streams: Sequence[str],
        cookies: str | None = None,
        page: Mapping[str, Sequence[str]] | None = None,
        token: str | None = None,
        has: Mapping[str, int] | None = None,
        within: float = 5.0,
        timeout: float = 60.0,
    ) -> list[Client]:
        """Open ``count`` clients of ``url`` (with a query), begun over ``within`` seconds, and wait until all are open.

        With a ``page`` the URL is that of the socket of a page, which subscribes to these audiences by facility.

        They must be open before the first message of their ``streams`` is published, or begin with the ``token`` of a
        page: then ``has`` says up to which number of each stream they have the messages.
        """
        headers = {"Cookie": cookies} if cookies else {}
        clients = [Client(self, url, streams, headers, page) for _ in range(count)]
        for client in clients:
            client.tokens[client.facility] = token
            for name, number in (has or {}).items():
                if name in streams:
                    client.ledger.streams[name].last = number

        def begin() -> None:
            self.clients += clients
            for number, client in enumerate(clients):
                self.loop.call_later(min(within, count / 200) * number / count, client.connect)

        self.call(begin)
        self.wait_open(timeout, clients)
        return clients

    def wait_open(self, timeout: float = 60.0, clients: Sequence[Client] | None = None) -> None:
        """Wait until all clients, or those given, have been welcomed."""
        wanted = self.clients if clients is None else clients
        wait_until(lambda: self._all_open(wanted), timeout, what=f"{len(wanted)} open sockets")

    def _all_open(self, clients: Sequence[Client]) -> bool:
        self._check()
        return all(client.open for client in clients)

    def _check(self) -> None:
        assert not self.errors, self.errors[:3]
        ended = collections.Counter(client.ended for client in self.clients if client.ended is not None)
        assert not ended, f"clients do not come back: {ended}"

    def wait_for(self, published: Mapping[str, int], timeout: float = 60.0) -> None:
        """Wait until every client has the last message of each of its streams; ``published``: their last numbers.

        What was lost before, and told, is no reason not to get what comes next.
        """

        def behind() -> list[str]:
            self._check()
            return [
                f"{name} {client.ledger.streams[name].last}; {history(client)}"
                for client in self.clients
                for name in client.streams
                if client.ledger.streams[name].last < published[name]
            ]

        deadline = time.monotonic() + timeout
        while late := self.call(behind):
            assert time.monotonic() < deadline, f"{len(late)} do not have the last of {published}: {late[:5]}"
            time.sleep(0.05)

    def verdict(self, published: Mapping[str, int]) -> Verdict:
        """Close the accounts, with the last number of each stream that was published, and add them up."""
        return self.call(lambda: self._verdict(published))

    def _verdict(self, published: Mapping[str, int]) -> Verdict:
        total = Verdict(clients=len(self.clients))
        for number, client in enumerate(self.clients):
            ledger = client.ledger
            flawed = False
            unexpected = set(ledger.streams) - set(client.streams)
            if unexpected:
                total.disorder += 1
                total.faults.append(f"client {number}: messages of {unexpected}, which are not for it")
            for name in client.streams:
                stream = ledger.streams[name]
                stream.end(published[name])
                for kind in ("told_lost", "unexplained"):
                    ranges = getattr(stream, kind)
                    setattr(total, kind, getattr(total, kind) + sum(last - first + 1 for first, last in ranges))
                for kind in ("duplicates", "disorder", "repeated"):
                    setattr(total, kind, getattr(total, kind) + len(getattr(stream, kind)))
                wrong = {
                    kind: getattr(stream, kind)[:5]
                    for kind in ("unexplained", "duplicates", "disorder")
                    if getattr(stream, kind)
                }
                if wrong:
                    total.faults.append(f"client {number}, stream {name}: {wrong}; {history(client)}")
                flawed = flawed or bool(wrong or stream.told_lost)
            total.complete += not flawed
            total.delivered += ledger.delivered
            total.recovered += client.recovered
        return total
