"""Carries out and answers what clients ask for in ``wsloop.v1``, on the socket of one facility and on any other.

This module must not know HTTP, nor the sockets of the operating system.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from time import monotonic

from gevent.event import Event
from redis.exceptions import RedisError

from wsloop import conf, metrics
from wsloop.batch_queue import BatchQueue
from wsloop.delivery.broker import Unavailable
from wsloop.facilities import past
from wsloop.facilities.failures import Refusal, failure, log_refusal
from wsloop.facilities.inbound import PublishHandler, ReadOnlyHandler
from wsloop.protocol import dialects
from wsloop.protocol.commands import History, Invalid, Publish, parse
from wsloop.protocol.messages import audience
from wsloop.refusals import shown
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub
from wsloop.sockets.limits import Bucket

logger = logging.getLogger("wsloop.handlers")

OTHER_FACILITY = "The URL names another facility than this frame."
MAY_NOT_PUBLISH = "This socket may not publish."
ONE_FACILITY = "This socket is for one facility; subscriptions are added to the socket of the whole page."


_NOW = Event()  # of a client that waits for nothing


class EnvelopeHandler(ReadOnlyHandler):
    """The handler of a socket that speaks ``wsloop.v1``, with one subscription.

    Args:
        hub: of the process.
        publisher: publishes the messages of the client; None: it may not publish.
        options: of the facility.
    """

    __slots__ = ("_answers", "_asking", "_options", "_publisher")

    def __init__(self, hub: Hub, publisher: PublishHandler | None, options: conf.Facility) -> None:
        super().__init__(hub)
        self._publisher = publisher
        self._answers = Answers(hub)
        self._options = options
        self._asking: dict[Connection, Past] = {}  # of clients that have asked for the past

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        commands = parse(payload, text)
        connection.meter.charge(len(commands) - 1, connection.bounds)
        for command in commands:
            if isinstance(command, Invalid):
                connection.reply(dialects.error("frame", command.reason, command.id), True)
            elif isinstance(command, Publish) and self._is_of_another(command):
                connection.reply(dialects.error("frame", OTHER_FACILITY, command.id), True)
            elif isinstance(command, Publish):
                self._answers.publish(connection, self._publisher, command)
            elif isinstance(command, History):
                if connection not in self._asking:
                    self._asking[connection] = Past(self.hub, self._answers, self._options, connection)
                self._asking[connection].put(command)
            else:
                connection.reply(dialects.error("refused", ONE_FACILITY, command.id), True)

    def _is_of_another(self, command: Publish) -> bool:
        return self._publisher is not None and command.facility not in (None, self._publisher.facility)

    def closed(self, connection: Connection) -> None:
        past = self._asking.pop(connection, None)
        if past is not None:
            past.pace.end()
        super().closed(connection)


class Pace:
    """Limits how fast the commands of one client are carried out: ``COMMAND_RATE``, in the long run and at once."""

    __slots__ = ("_rate", "_turn")

    def __init__(self) -> None:
        self._rate = Bucket()
        self._turn = _NOW

    def wait(self, connection: Connection, count: int = 1) -> None:
        """Return when it is the turn of so many commands, or the client has left. Blocks."""
        limit = conf.option("COMMAND_RATE")
        if limit is None:
            return
        rate, burst = limit
        while connection.open and self._rate.full(rate, burst, monotonic()):
            metrics.reached("COMMAND_RATE")
            self._turn = Event()
            self._turn.wait(count / rate)
        self._rate.add(count, rate, monotonic())

    def end(self) -> None:
        """The client has left. Never blocks."""
        self._turn.set()


class Past:
    """Reads pages of the past for one client, one after the other; meanwhile its socket is not read.

    Args:
        hub: of the process.
        answers: sends them.
        options: of the facility.
        connection: of the client.
    """

    def __init__(self, hub: Hub, answers: Answers, options: conf.Facility, connection: Connection) -> None:
        self.pace = Pace()
        self._hub = hub
        self._answers = answers
        self._options = options
        self._connection = connection
        self._queue: BatchQueue[History] = BatchQueue(self._read)

    def put(self, command: History) -> None:
        """Take a request. Never blocks."""
        self._connection.hold()
        self._queue.put(command)

    def _read(self, commands: list[History]) -> None:
        connection = self._connection
        for command in commands:
            self.pace.wait(connection)
            self._hub.wait_until_clear(connection)
            if connection.open:
                self._answers.history(connection, connection.channels, self._options, command, catching_up=True)
            connection.release()


class Answers:
    """Carries out the commands that any socket of ``wsloop.v1`` may send, and answers them.

    Args:
        hub: of the process.
    """

    __slots__ = ("_hub",)

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
            asked = "publish" if command.facility is None else f"publish {shown(command.facility)!r}"
            log_refusal("refused", MAY_NOT_PUBLISH, asked)
            self._hub.send(connection, [dialects.error("refused", MAY_NOT_PUBLISH, command.id)])
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
        except Exception as exc:
            frame = dialects.error(*failure(exc, "history", command.facility), command.id)
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
    facilities = {each.facility: None for each in audiences.values() if each.facility}  # of a site's own: none
    if command.facility is not None and facilities and command.facility not in facilities:
        raise Refusal("frame", OTHER_FACILITY)
    facility = command.facility or next(iter(facilities), "")
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


__all__ = ["OTHER_FACILITY", "Answers", "EnvelopeHandler", "Pace", "past_frame"]
