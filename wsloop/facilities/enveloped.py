"""Carries out and answers what clients ask for in ``wsloop.v1``, on the socket of one facility and on any other.

This module must not know HTTP, nor the sockets of the operating system.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

from redis.exceptions import RedisError

from wsloop import conf, metrics
from wsloop.batch_queue import BatchQueue
from wsloop.delivery.broker import Unavailable
from wsloop.facilities import past
from wsloop.facilities.failures import Refusal
from wsloop.facilities.inbound import PublishHandler, ReadOnlyHandler
from wsloop.protocol import dialects
from wsloop.protocol.commands import History, Invalid, Publish, parse
from wsloop.protocol.messages import audience
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub

logger = logging.getLogger("wsloop.handlers")

ONE_FACILITY = "This socket is for one facility; subscriptions are added to the socket of the whole page."


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
                self._answers.history(connection, connection.channels, self._options, command, catching_up=True)
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
        most = connection.bounds.max_message_size
        if publisher is None:
            self._hub.send(connection, [dialects.error("refused", "This socket may not publish.", command.id)])
        elif len(command.payload) > most:  # came with the request for a stream
            metrics.reached("MAX_MESSAGE_SIZE")
            reason = f"The message has more than {most} bytes."
            self._hub.send(connection, [dialects.error("frame", reason, command.id)])
        else:
            answer = functools.partial(self._published, connection, command.id)
            publisher.publish(connection, command.payload, answer, command.key)

    def _published(self, connection: Connection, id: dialects.Id | None, taken: bool) -> None:
        if not taken:
            self._hub.send(connection, [dialects.error("unavailable", "Redis did not take the message.", id)])
        elif id is not None:
            self._hub.send(connection, [dialects.ack(id)])

    def history(
        self,
        connection: Connection,
        channels: Sequence[bytes],
        options: conf.Facility,
        command: History,
        catching_up: bool,
    ) -> None:
        """Read a page of the past, and send it, or an error. Blocks.

        Args:
            connection: of the client.
            channels: of the subscription.
            options: of its facility.
            command: the client's.
            catching_up: whether there may be more channels soon.
        """
        try:
            frame = past_frame(channels, options, command, catching_up)
        except Refusal as exc:
            frame = dialects.error(exc.code, str(exc), command.id)
        self._hub.send(connection, [frame])


def past_frame(channels: Sequence[bytes], options: conf.Facility, command: History, catching_up: bool = False) -> bytes:
    """Return the frame with a page of the past. Blocks.

    Args:
        channels: of the subscription.
        options: of its facility.
        command: the client's.
        catching_up: whether there may be more channels soon.

    Raises:
        Refusal: if there is none, or it cannot be read.
    """
    if not options.recovers:
        raise Refusal("refused", "This facility has no past that clients may read.")
    audiences = {channel: audience(channel) for channel in channels}
    kept = [channel for channel, whom in audiences.items() if whom.kind != "presence"]
    facility = command.facility or next((each.facility for each in audiences.values()), "")
    if not kept and not catching_up:
        raise Refusal("refused", "Nothing is subscribed to that has a past.")
    try:
        if not kept:
            raise Unavailable("the socket is still catching up")
        messages, before = past.page(kept, command.before, command.limit)
        return dialects.history(facility, messages, before, command.id)
    except ValueError:
        raise Refusal("frame", "before must be that of an earlier page.") from None
    except (RedisError, OSError, Unavailable) as exc:
        logger.warning("Could not read a page of the past: %s", exc)
        raise Refusal("unavailable", "Messages cannot be read at the moment.") from None


__all__ = ["Answers", "EnvelopeHandler", "past_frame"]
