"""A consumer's socket: asking the consumer about it, and letting it go on behind the 101.

This module must not know facilities, nor how a request is matched.
"""

from __future__ import annotations

import contextlib
from typing import Any

from wsloop.consumers.asynchronous import AsyncConsumer
from wsloop.consumers.base import Consumer
from wsloop.db import close_databases
from wsloop.delivery.broker import Broker, Unavailable
from wsloop.presence import presence_channel
from wsloop.runtime.applications import Hosted
from wsloop.runtime.asgi import AsgiRunner
from wsloop.runtime.handlers import GreenletRunner
from wsloop.runtime.runner import ConsumerRuntime, Runner
from wsloop.runtime.tasks import TaskRunner
from wsloop.sockets.connection import Connection
from wsloop.sockets.plan import Plan


class ConsumerService:
    """Implements :class:`wsloop.opening.Service` for one socket of a consumer.

    Args:
        runtime, broker: of the process.
        plan: of the socket, all but the subprotocol.
        consumer: just made.
        scope: of the socket.

    Raises:
        Exception: what the consumer's own code raises while it is prepared.
    """

    def __init__(
        self, runtime: ConsumerRuntime, broker: Broker, plan: Plan, consumer: Consumer, scope: dict[str, Any]
    ) -> None:
        self._broker = broker
        presence = presence_channel(plan.presence_scope[0]).encode() if plan.presence_scope else None
        self.handler: Runner = _runner(consumer)(runtime, consumer, scope, presence, plan.visitor)

    def prepare(self, plan: Plan) -> Plan:
        """Ask the consumer, and return the plan with the subprotocol and headers that it accepts with.

        Raises:
            Refused: if it rejects the socket, or fails.
        """
        self._broker.listen()  # may need no Redis, but must end with its session
        with contextlib.suppress(Unavailable):  # else an event for its channel would be lost
            self._broker.ready()
        close_databases()  # not kept while the consumer decides, which has its own
        return plan.answering(*self.handler.connect())

    def opened(self, connection: Connection) -> None:
        """Let the consumer go on."""
        self.handler.opened(connection)

    def cancel(self) -> None:
        """End the consumer: there will be no socket. May be called again."""
        self.handler.failed()


def _runner(consumer: Consumer) -> type[Runner]:
    if isinstance(consumer, Hosted):
        return AsgiRunner
    return TaskRunner if isinstance(consumer, AsyncConsumer) else GreenletRunner


__all__ = ["ConsumerService"]
