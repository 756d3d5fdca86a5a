"""Handles the messages that clients of facilities send: ignores or publishes them.

Each class is a handler of connections (see :class:`wsloop.sockets.handler.Handler`) and passes the hub's part on to
the hub. :mod:`wsloop.runtime.runner` handles the messages of consumers' clients. This module must not know HTTP, nor
the sockets of the operating system.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Sequence

from websockets.frames import CloseCode

from wsloop import conf
from wsloop.batch_queue import BatchQueue
from wsloop.db import close_databases
from wsloop.delivery.broker import Broker
from wsloop.facilities import subscriptions
from wsloop.greenlets import logged
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub
from wsloop.sockets.plan import SubscriptionPlan
from wsloop.sockets.visitor import Visitor
from wsloop.store import RedisMessage

logger = logging.getLogger("wsloop.handlers")

CLIENT_KEY = "client:"  # before a client's idempotency keys, which must not be those of the site


class ReadOnlyHandler:
    """The handler of a socket that may not publish: its messages are ignored, as in ws4redis."""

    __slots__ = ("hub",)

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        pass

    def ending(self, connection: Connection) -> None:
        pass

    def pausing(self, connection: Connection) -> None:
        self.hub.pausing(connection)

    def drained(self, connection: Connection) -> None:
        self.hub.drained(connection)

    def closing(self, connection: Connection) -> None:
        self.hub.closing(connection)

    def closed(self, connection: Connection) -> None:
        self.hub.closed(connection)

    def catching_up(self, channels: Collection[bytes]) -> Callable[[], None]:
        """Take the channels that the subscription of the handshake has yet to recover.

        Returns:
            what to call when that has ended.
        """
        return lambda: None


class PublishHandler(ReadOnlyHandler):
    """The handler of a socket that publishes to the channels of its plan.

    Args:
        hub, broker: of the process.
        plan: of the subscription.

    Attributes:
        facility: of the subscription.
    """

    __slots__ = ("_broker", "_channels", "_echo", "_options", "facility")

    def __init__(self, hub: Hub, broker: Broker, plan: SubscriptionPlan) -> None:
        super().__init__(hub)
        self._broker = broker
        self.facility = plan.facility
        self._channels = plan.publishes
        self._echo = plan.echo
        self._options = plan.options

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        if payload != conf.heartbeat():
            self.publish(connection, payload, lambda taken: None)

    def publish(self, connection: Connection, payload: bytes, answer: Callable[[bool], None], key: str = "") -> None:
        """Publish a message. Never blocks.

        Args:
            connection: of the client.
            payload: the message.
            answer: called with whether Redis took it.
            key: the client's idempotency key; empty: none.
        """
        self._publish(
            connection, answer, next(client_keys(key, connection.visitor)), self._channels, payload, conf.expire()
        )

    def _publish(
        self,
        connection: Connection,
        answer: Callable[[bool], None],
        key: str,
        channels: Sequence[bytes],
        payload: bytes,
        expire: int,
        own: bool = True,
    ) -> None:
        connection.hold()  # the socket is not read again until Redis has answered

        def done(taken: bool) -> None:
            try:
                answer(taken)
            finally:
                connection.release()

        origin = connection if own and not self._echo else None
        self._broker.publish(channels, payload, expire, origin=origin, done=done, options=self._options, key=key)


class CustomPublishHandler(PublishHandler):
    """The handler of a socket whose messages go through the ``publish_message`` of the site's own subscriber class."""

    __slots__ = ("_calls", "_subscriber")

    def __init__(self, hub: Hub, broker: Broker, plan: SubscriptionPlan, subscriber: subscriptions.Subscriber) -> None:
        super().__init__(hub, broker, plan)
        self._subscriber = subscriber
        self._calls = subscriber.site_calls = BatchQueue(call_all)

    def publish(self, connection: Connection, payload: bytes, answer: Callable[[bool], None], key: str = "") -> None:
        connection.hold()  # the socket is not read while its message is handled
        self._calls.put(functools.partial(self._handle, connection, payload, answer, key))

    def _handle(self, connection: Connection, payload: bytes, answer: Callable[[bool], None], key: str) -> None:
        answers = AckCollector(answer)
        keys = client_keys(key, connection.visitor)
        publish = functools.partial(self._publish_one, connection, answers, keys, payload)
        self._subscriber._connection.publish_hook = publish
        try:
            self._subscriber.publish_message(RedisMessage(payload))
            answers.complete()
        except BaseException as exc:  # or the socket would not be read any more
            if isinstance(exc, KeyboardInterrupt):
                raise
            logger.exception("%s.publish_message failed", type(self._subscriber).__name__)
            connection.close(CloseCode.INTERNAL_ERROR, "internal error")
        finally:
            connection.release()

    def _publish_one(
        self,
        connection: Connection,
        answers: AckCollector,
        keys: Iterator[str],
        sent: bytes,
        channels: Sequence[bytes],
        payload: bytes,
        expire: int,
    ) -> None:
        # As in ws4redis, what the site has made of a message comes back to its sender: it does not have it.
        own = payload == sent
        self._publish(connection, answers.another(), next(keys), channels, payload, expire, own)


def call_all(calls: list[Callable[[], None]]) -> None:
    """Make calls of the site's code, and give back its database connections."""
    for call in calls:
        logged(call)
    close_databases()


def client_keys(key: str, visitor: Visitor) -> Iterator[str]:
    """Yield the idempotency keys of the messages that a site publishes for one of a client: each has its own.

    Args:
        key: the client's; empty: there is none.
        visitor: the client; users who have signed in share no keys.
    """
    user = "" if visitor.user is None else visitor.user
    return (f"{CLIENT_KEY}{user}:{key}:{number}" if key else "" for number in itertools.count())


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


__all__ = ["CustomPublishHandler", "PublishHandler", "ReadOnlyHandler", "call_all", "client_keys"]
