"""Handles the messages that clients of facilities send: ignores, publishes, or answers them in ``wsloop.v1``.

Each class is a handler of connections (see :class:`wsloop.sockets.connection.Handler`) and passes the hub's part on to
the hub. :mod:`wsloop.runtime.runner` handles the messages of consumers' clients. This module must not know HTTP, nor
the sockets of the operating system.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence

from websockets.frames import CloseCode

from wsloop import conf
from wsloop.batch_queue import BatchQueue
from wsloop.db import close_databases
from wsloop.delivery.broker import Broker
from wsloop.facilities import subscriptions
from wsloop.protocol import dialects
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub
from wsloop.sockets.plan import Plan
from wsloop.store import RedisMessage

logger = logging.getLogger("wsloop.handlers")


class ReadOnlyHandler:
    """The handler of a socket that may not publish: its messages are ignored, as in ws4redis."""

    def __init__(self, hub: Hub) -> None:
        self.pausing, self.drained, self.closing, self.closed = hub.pausing, hub.drained, hub.closing, hub.closed

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        pass


class PublishHandler(ReadOnlyHandler):
    """The handler of a socket that publishes to the channels of its plan.

    Args:
        hub, broker: of the process.
        plan: of the socket.
    """

    def __init__(self, hub: Hub, broker: Broker, plan: Plan) -> None:
        super().__init__(hub)
        self._broker = broker
        self._channels = plan.publishes
        self._echo = plan.echo
        self._options = plan.options

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        if payload != conf.heartbeat():
            self.publish(connection, payload, lambda taken: None)

    def publish(self, connection: Connection, payload: bytes, answer: Callable[[bool], None]) -> None:
        """Publish a message, and call ``answer`` with whether Redis took it. Never blocks."""
        self._publish(connection, answer, self._channels, payload, conf.expire())

    def _publish(
        self,
        connection: Connection,
        answer: Callable[[bool], None],
        channels: Sequence[bytes],
        payload: bytes,
        expire: int,
    ) -> None:
        connection.hold()  # the socket is not read again until Redis has answered

        def done(taken: bool) -> None:
            try:
                answer(taken)
            finally:
                connection.release()

        origin = None if self._echo else connection
        self._broker.publish(channels, payload, expire, origin=origin, done=done, options=self._options)


class CustomPublishHandler(PublishHandler):
    """The handler of a socket whose messages go through the ``publish_message`` of the site's own subscriber class."""

    def __init__(self, hub: Hub, broker: Broker, plan: Plan, subscriber: subscriptions.Subscriber) -> None:
        super().__init__(hub, broker, plan)
        self._subscriber = subscriber
        self._inbox: BatchQueue[tuple[Connection, bytes, Callable[[bool], None]]] = BatchQueue(self._handle)

    def publish(self, connection: Connection, payload: bytes, answer: Callable[[bool], None]) -> None:
        connection.hold()  # the socket is not read while its message is handled
        self._inbox.put((connection, payload, answer))

    def _handle(self, items: list[tuple[Connection, bytes, Callable[[bool], None]]]) -> None:
        for connection, payload, answer in items:
            answers = AckCollector(answer)
            self._subscriber._connection.publish_hook = functools.partial(self._publish_one, connection, answers)
            try:
                self._subscriber.publish_message(RedisMessage(payload))
                answers.complete()
            except Exception:
                logger.exception("%s.publish_message failed", type(self._subscriber).__name__)
                connection.close(CloseCode.INTERNAL_ERROR, "internal error")
            finally:
                connection.release()
        close_databases()

    def _publish_one(
        self, connection: Connection, answers: AckCollector, channels: Sequence[bytes], payload: bytes, expire: int
    ) -> None:
        self._publish(connection, answers.another(), channels, payload, expire)


class AckCollector:
    """Collects the answers for all messages that a site publishes for one message: whether Redis took all of them."""

    def __init__(self, answer: Callable[[bool], None]) -> None:
        self._answer = answer
        self._open = 1
        self._taken = True

    def another(self) -> Callable[[bool], None]:
        """Expect one more answer, and return the function to call with it."""
        self._open += 1
        return self._one

    def complete(self) -> None:
        """Expect no further answers."""
        self._one(True)

    def _one(self, taken: bool) -> None:
        self._open -= 1
        self._taken = self._taken and taken
        if not self._open:
            self._answer(self._taken)


class EnvelopeHandler(ReadOnlyHandler):
    """The handler of a socket that speaks ``wsloop.v1``.

    Args:
        hub: of the process.
        publisher: publishes the messages of the client; None: it may not publish.
    """

    def __init__(self, hub: Hub, publisher: PublishHandler | None) -> None:
        super().__init__(hub)
        self._hub = hub
        self._publisher = publisher

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        try:
            published = dialects.parse(payload, text)
        except dialects.InvalidFrame as exc:
            connection.reply(dialects.error("frame", str(exc), exc.id), True)
            return
        if self._publisher is None:
            connection.reply(dialects.error("refused", "This socket may not publish.", published.id), True)
        else:
            self._publisher.publish(
                connection, published.payload, functools.partial(self._answer, connection, published.id)
            )

    def _answer(self, connection: Connection, id: int | float | str | None, taken: bool) -> None:
        if not taken:
            self._hub.send(connection, [dialects.error("unavailable", "Redis did not take the message.", id)])
        elif id is not None:
            self._hub.send(connection, [dialects.ack(id)])


__all__ = ["CustomPublishHandler", "EnvelopeHandler", "PublishHandler", "ReadOnlyHandler"]
