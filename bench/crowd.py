"""The sockets of one server whose deliveries are measured, and what is published to them.

It must not know the server, but for what :class:`bench.lineup.Contender` says of it.
"""

from __future__ import annotations

import random
import time
from typing import Any

from bench.clients import Sockets, messages
from bench.deliveries import BURST, PACED, SIZE, Delivery
from bench.lineup import Contender


class Crowd:
    """The sockets of one server, and what is published to them."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._sockets = Sockets(("127.0.0.1", contender.port))
        everybody = [(None, text) for text in messages(max(BURST, PACED), SIZE)]
        publish, done = contender.publisher(everybody)
        self._everybody = Delivery(self._sockets, publish, done, contender.cpu, contender.framed)

    def listen(self, count: int) -> float:
        """Open sockets until there are ``count`` that get the messages to everybody; return the seconds it took."""
        began = time.monotonic()
        contender = self._contender
        missing = count - len(self._sockets)
        contender.prepare(missing)
        self._sockets.open([contender.handshake(None)] * missing, contender.then, contender.welcome)
        self._everybody.warm()
        return time.monotonic() - began

    def burst(self) -> dict[str, float]:
        return self._everybody.burst(self._contender.burst)

    def paced(self, count: int, seconds: float) -> dict[str, Any]:
        return self._everybody.paced(count, seconds)

    def users(self, count: int) -> float:
        """Open a socket of each of ``count`` users; return the seconds it took."""
        began = time.monotonic()
        contender = self._contender
        self._sockets.open(map(contender.handshake, range(count)), contender.then, contender.welcome)
        self._texts = messages(count, SIZE)
        publish, done = contender.publisher(list(enumerate(self._texts)))
        self._each = Delivery(self._sockets, publish, done, contender.cpu, contender.framed)
        return time.monotonic() - began

    def addressed(self) -> dict[str, float]:
        """Send a message to each user, in another order than that in which they have come."""
        order = random.Random(len(self._texts)).sample(range(len(self._texts)), len(self._texts))
        return self._each.addressed(self._texts, order)
