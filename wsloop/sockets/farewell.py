"""Sockets that open only to say why they are refused, and end at once.

How it works. Each is sent a goodbye and a close frame, in one write, and has :data:`SECONDS` to answer them; what it
sends otherwise is thrown away. It never gets to the hub, and no code of the site runs for it. It counts as any other
socket of its address and of the process does. Of all of them there are at most :data:`MOST`, and a quarter of the seats
that others leave, for who is refused must not take the place of who is not. Beyond any of these bounds a refusal is a
plain response. This module must not know HTTP, nor why a socket is refused.
"""

from __future__ import annotations

from typing import Any

import gevent

from wsloop import conf
from wsloop.protocol.dialects import V1_DIALECT
from wsloop.sockets.admission import Admission, Full, Seat
from wsloop.sockets.connection import Connection
from wsloop.sockets.handler import EndedHandler
from wsloop.sockets.limits import Bounds
from wsloop.sockets.transport import Transport
from wsloop.sockets.visitor import NOBODY
from wsloop.sockets.websocket import WebSocket

MOST = 100  # at once in a process: each has a descriptor
SECONDS = 2.0  # to answer the close frame: two round trips of a slow network
OUTPUT = 4096  # bytes: more than a goodbye and a close frame have
RATE, BURST = 10, 200  # frames: a page may send all of its subscriptions when its socket opens


class Farewells(EndedHandler):
    """The handler of these sockets.

    Args:
        admission: of the process.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._seats: set[Seat] = set()
        self._ending: dict[Connection, tuple[Seat, Any]] = {}  # with the timer that ends it

    def take(self, address: str | None) -> Seat | None:
        """Return a seat for one more; None if there are too many.

        Args:
            address: for which it counts, or None.
        """
        if len(self._seats) >= min(MOST, (self._admission.room + len(self._seats)) / 4):
            return None
        seat = None
        try:
            seat = self._admission.take()
            seat.assign(NOBODY._replace(address=address))
        except Full:
            if seat is not None:
                seat.give_back()
            return None
        self._seats.add(seat)
        return seat

    def give_back(self, seat: Seat) -> None:
        """Stop counting one that was not opened, or has ended."""
        self._seats.discard(seat)
        seat.give_back()

    def begin(self, transport: Transport, seat: Seat, code: int, reason: str) -> None:
        """Say farewell on an open socket whose client speaks ``wsloop.v1``. Never blocks.

        Args:
            transport: its socket.
            seat: of :meth:`take`; given back when the socket has ended.
            code: close code (RFC 6455, section 7.4).
            reason: for the client, up to 123 bytes.
        """
        bounds = Bounds(conf.option("MAX_MESSAGE_SIZE"), OUTPUT, RATE, BURST)
        connection = WebSocket(transport, self, bounds, (), V1_DIALECT)
        timer: Any = gevent.get_hub().loop.timer(SECONDS)
        self._ending[connection] = seat, timer
        timer.start(connection.abort)
        connection.start()
        connection.close(code, reason)

    def pausing(self, connection: Connection) -> None:
        connection.abort()  # it floods

    def closed(self, connection: Connection) -> None:
        seat, timer = self._ending.pop(connection)
        timer.stop()
        timer.close()
        self.give_back(seat)


__all__ = ["Farewells"]
