"""Handles the messages that clients of facilities send: ignores, publishes, or answers them in ``wsloop.v1``.

Each class is a handler of connections (see :class:`wsloop.sockets.connection.Handler`) and passes the hub's part on to
the hub. :mod:`wsloop.runtime.runner` handles the messages of consumers' clients. This module must not know HTTP, nor
the sockets of the operating system.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence

from redis.exceptions import RedisError
from websockets.frames import CloseCode

from wsloop import conf
from wsloop.batch_queue import BatchQueue
from wsloop.db import close_databases
from wsloop.delivery.broker import Broker, Unavailable
from wsloop.facilities import past, subscriptions
from wsloop.protocol import dialects
from wsloop.protocol.commands import History, Invalid, Publish, parse
from wsloop.protocol.messages import audience
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub
from wsloop.sockets.plan import SubscriptionPlan
from wsloop.store import RedisMessage

logger = logging.getLogger("wsloop.handlers")

ONE_FACILITY = "This socket is for one facility; subscriptions are added to the socket of the whole page."
CLIENT_KEY = "client:"  # before a client's idempotency keys, which must not be those of the site


class ReadOnlyHandler:
    """The handler of a socket that may not publish: its messages are ignored, as in ws4redis."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.pausing, self.drained, self.closing, self.closed = hub.pausing, hub.drained, hub.closing, hub.closed

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        pass


class PublishHandler(ReadOnlyHandler):
    """The handler of a socket that publishes to the channels of its plan.

    Args:
        hub, broker: of the process.
        plan: of the subscription.
    """

    def __init__(self, hub: Hub, broker: Broker, plan: SubscriptionPlan) -> None:
        super().__init__(hub)
        self._broker = broker
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
        self._publish(connection, answer, next(client_keys(key)), self._channels, payload, conf.expire())

    def _publish(
        self,
        connection: Connection,
        answer: Callable[[bool], None],
        key: str,
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
        self._broker.publish(channels, payload, expire, origin=origin, done=done, options=self._options, key=key)


class CustomPublishHandler(PublishHandler):
    """The handler of a socket whose messages go through the ``publish_message`` of the site's own subscriber class."""

    def __init__(self, hub: Hub, broker: Broker, plan: SubscriptionPlan, subscriber: subscriptions.Subscriber) -> None:
        super().__init__(hub, broker, plan)
        self._subscriber = subscriber
        self._inbox: BatchQueue[tuple[Connection, bytes, Callable[[bool], None], str]] = BatchQueue(self._handle)

    def publish(self, connection: Connection, payload: bytes, answer: Callable[[bool], None], key: str = "") -> None:
        connection.hold()  # the socket is not read while its message is handled
        self._inbox.put((connection, payload, answer, key))

    def _handle(self, items: list[tuple[Connection, bytes, Callable[[bool], None], str]]) -> None:
        for connection, payload, answer, key in items:
            answers = AckCollector(answer)
            keys = client_keys(key)
            self._subscriber._connection.publish_hook = functools.partial(self._publish_one, connection, answers, keys)
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
        self,
        connection: Connection,
        answers: AckCollector,
        keys: Iterator[str],
        channels: Sequence[bytes],
        payload: bytes,
        expire: int,
    ) -> None:
        self._publish(connection, answers.another(), next(keys), channels, payload, expire)


def client_keys(key: str) -> Iterator[str]:
    """Yield the idempotency keys of the messages that a site publishes for one of a client: each has its own.

    Args:
        key: the client's; empty: there is none.
    """
    return (f"{CLIENT_KEY}{key}:{number}" if key else "" for number in itertools.count())


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
    """The handler of a socket that speaks ``wsloop.v1``, with one subscription.

    Args:
        hub: of the process.
        publisher: publishes the messages of the client; None: it may not publish.
        options: of the facility.
    """

    def __init__(self, hub: Hub, publisher: PublishHandler | None, options: conf.Facility) -> None:
        super().__init__(hub)
        self._publisher = publisher
        self._answers = Answers(hub)
        self._options = options
        self._asked: BatchQueue[tuple[Connection, History]] = BatchQueue(self._read_past)

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        commands = parse(payload, text)
        if len(commands) > 1 and not connection.charge(len(commands) - 1):
            return
        for command in commands:
            if isinstance(command, Invalid):
                connection.reply(dialects.error("frame", command.reason, command.id), True)
            elif isinstance(command, Publish):
                self._answers.publish(connection, self._publisher, command)
            elif isinstance(command, History):
                connection.hold()  # one at a time
                self._asked.put((connection, command))
            else:
                connection.reply(dialects.error("refused", ONE_FACILITY, command.id), True)

    def _read_past(self, items: list[tuple[Connection, History]]) -> None:
        for connection, command in items:
            try:
                self._answers.history(connection, connection.channels, self._options, command)
            finally:
                connection.release()


class Answers:
    """Carries out the commands that any socket of ``wsloop.v1`` may send, and answers them.

    Args:
        hub: of the process.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def publish(self, connection: Connection, publisher: PublishHandler | None, command: Publish) -> None:
        """Publish a message of the client. Never blocks.

        Args:
            connection: of the client.
            publisher: publishes it; None: the client may not publish.
            command: the client's.
        """
        if publisher is None:
            self._hub.send(connection, [dialects.error("refused", "This socket may not publish.", command.id)])
        else:
            answer = functools.partial(self._published, connection, command.id)
            publisher.publish(connection, command.payload, answer, command.key)

    def _published(self, connection: Connection, id: dialects.Id | None, taken: bool) -> None:
        if not taken:
            self._hub.send(connection, [dialects.error("unavailable", "Redis did not take the message.", id)])
        elif id is not None:
            self._hub.send(connection, [dialects.ack(id)])

    def history(
        self, connection: Connection, channels: Sequence[bytes], options: conf.Facility, command: History
    ) -> None:
        """Read a page of the past, and send it. Blocks.

        Args:
            connection: of the client.
            channels: of the subscription.
            options: of its facility.
            command: the client's.
        """
        self._hub.send(connection, [past_frame(channels, options, command)])


def past_frame(channels: Sequence[bytes], options: conf.Facility, command: History) -> bytes:
    """Return the answer to a request for a page of the past. Blocks.

    Args:
        channels: of the subscription.
        options: of its facility.
        command: the client's.
    """
    if not options.recovers:
        return dialects.error("refused", "This facility has no past that clients may read.", command.id)
    audiences = {channel: audience(channel) for channel in channels}
    kept = [channel for channel, whom in audiences.items() if whom.kind != "presence"]
    facility = command.facility or next((each.facility for each in audiences.values()), "")
    try:
        if not kept:
            raise Unavailable("the socket is still catching up")
        messages, before = past.page(kept, command.before, command.limit)
        return dialects.history(facility, messages, before, command.id)
    except ValueError:
        return dialects.error("frame", "before must be that of an earlier page.", command.id)
    except (RedisError, OSError, Unavailable) as exc:
        logger.warning("Could not read a page of the past: %s", exc)
        return dialects.error("unavailable", "Messages cannot be read at the moment.", command.id)


__all__ = ["Answers", "CustomPublishHandler", "EnvelopeHandler", "PublishHandler", "ReadOnlyHandler"]
