"""Carries out the plan of one socket: prepares it, sends the 101, and hands the connection to the hub; or cancels it.

This module must not know HTTP, nor where a plan comes from.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from wsloop.engine import Engine
from wsloop.protocol.deflate import Deflate
from wsloop.protocol.dialects import CONSUMER, DIALECTS
from wsloop.protocol.events import EVENT_DIALECTS
from wsloop.sockets.admission import Seat
from wsloop.sockets.census import shared_labels
from wsloop.sockets.connection import Connection
from wsloop.sockets.event_stream import EventStream
from wsloop.sockets.handler import Handler
from wsloop.sockets.plan import Plan
from wsloop.sockets.takeover import Takeover
from wsloop.sockets.transport import Transport
from wsloop.sockets.websocket import WebSocket

logger = logging.getLogger("wsloop.server")


class Service(Protocol):
    """Serves one socket: that of a facility, or of a consumer."""

    @property
    def handler(self) -> Handler:
        """The handler of the connection."""

    def prepare(self, plan: Plan) -> Plan:
        """Do the work before the 101, and return the plan to carry out. May block, and raise any exception."""

    def opened(self, connection: Connection) -> None:
        """The 101 is out, and the hub has the connection. Never blocks."""

    def cancel(self) -> None:
        """There will be no connection, or it has failed. May be called again, and at any time."""


class Opening:
    """A socket between the end of its handshake and its place in the hub.

    Args:
        process: the engine.
        takeover: takes the request's connection over.
        seat: of the socket; given back if there will be no connection.
        plan: how it is served.
        service: serves it.
    """

    def __init__(self, process: Engine, takeover: Takeover, seat: Seat, plan: Plan, service: Service) -> None:
        self.takeover = takeover
        self._process = process
        self._seat = seat
        self._plan = plan
        self._service = service

    def prepare(self) -> None:
        """Do the work before the 101; raises what the service raises."""
        try:
            self._plan = self._service.prepare(self._plan)
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Cancel it. May be called again."""
        self._seat.give_back()
        self._service.cancel()

    def open(self, start_response: Callable[..., Any]) -> None:
        """Send the 101 and hand the connection to the hub.

        Raises:
            Gone: if the client has hung up meanwhile.
        """
        plan, process = self._plan, self._process
        try:
            taken = self.takeover.accept(start_response, list(plan.answer), plan.status)
        except BaseException:
            self.cancel()
            raise
        connection = None
        try:
            connection = self._connection(taken)
            connection.labels = shared_labels(connection.dialect.name, *plan.place)
            process.hub.open(connection, self._seat)
            self._service.opened(connection)
            if plan.presence_scope is not None and connection.open:
                connection.presence_scopes = (plan.presence_scope,)
                process.presence.entered(*plan.presence_scope)
        except Exception:
            # The 101 is out, so there is no response to report it in.
            logger.exception("Could not open a WebSocket")
            if connection is None:
                taken.close()
            else:
                connection.abort()
            self.cancel()
            return
        if process.session_watch.generation() != plan.generation:
            process.session_watch.recheck(connection)  # the visitor may be another one since

    def _connection(self, taken: Transport) -> Connection:
        plan, handler = self._plan, self._service.handler
        if plan.dialect in EVENT_DIALECTS:
            dialect = EVENT_DIALECTS[plan.dialect]
            return EventStream(taken, handler, plan.bounds, dialect, self._process.broker.positions)
        extensions = [] if plan.deflate is None else [Deflate(*plan.deflate)]
        return WebSocket(taken, handler, plan.bounds, extensions, DIALECTS.get(plan.dialect, CONSUMER))


__all__ = ["Opening", "Service"]
