"""The socket of a whole page: its client subscribes to facilities, and leaves them, while the socket is open.

How it works. Commands of the client are carried out in order, by a greenlet that exists only while there are some.
:mod:`wsloop.facilities.page_subscriptions` makes and ends the subscriptions. This module must not know HTTP, nor the
sockets of the operating system.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from gevent.lock import BoundedSemaphore

from wsloop.batch_queue import BatchQueue
from wsloop.db import give_back
from wsloop.delivery.broker import Unavailable
from wsloop.facilities import calls
from wsloop.facilities.decision import Planned
from wsloop.facilities.enveloped import Pace
from wsloop.facilities.failures import failure, log_refusal
from wsloop.facilities.hooks import Hooks
from wsloop.facilities.inbound import ReadOnlyHandler
from wsloop.facilities.page_subscriptions import Subscription, Subscriptions
from wsloop.facilities.setup import Facilities
from wsloop.protocol import dialects
from wsloop.protocol.commands import Call, Command, History, Invalid, Publish, Subscribe, Unsubscribe, parse
from wsloop.refusals import shown
from wsloop.sockets.admission import Seat
from wsloop.sockets.connection import Connection
from wsloop.visit import Visit

logger = logging.getLogger("wsloop.facilities")

MOST_WAITING = 100  # commands that wait before the socket is not read any more
# The site's code runs for so many commands at once, as requests do with uWSGI's --gevent: each may need a connection to
# the database, and thousands of pages come back together. Views have places of their own, because they may take long.
AT_ONCE: Mapping[type[Command], BoundedSemaphore] = {Subscribe: BoundedSemaphore(50), Call: BoundedSemaphore(50)}


class PageHandler(ReadOnlyHandler):
    """The handler of the socket of a whole page.

    Args:
        facilities: of the process.
        hooks: of the site.
        visit: of the client.
        first: the subscription that the handshake has asked for, to the facility without a name.

    Attributes:
        subscriptions: of the client.
    """

    __slots__ = (
        *("_answers", "_broker", "_holds", "_pace", "_queue", "_seat", "_visit", "_waiting"),
        "subscriptions",
    )

    def __init__(self, facilities: Facilities, hooks: Hooks, visit: Visit, first: Planned) -> None:
        super().__init__(facilities.hub)
        self._broker = facilities.broker
        self._visit = visit
        self._answers = facilities.answers
        self._queue: BatchQueue[tuple[Connection, Command]] = BatchQueue(self._carry_out)
        self._waiting = 0
        self._holds = False
        self._pace = Pace()
        self._seat: Seat | None = None
        self.subscriptions = Subscriptions(facilities, hooks, visit, first)

    def catching_up(self, channels: Collection[bytes]) -> Callable[[], None]:
        return self.subscriptions.catching_up(channels)

    # Commands, in order.

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        commands = parse(payload, text)
        connection.meter.charge(len(commands) - 1, connection.bounds)
        for command in commands:
            if isinstance(command, Publish) and not self._waiting:
                self._publish(connection, command)
            else:
                self._waiting += 1
                self._queue.put((connection, command))
        if self._waiting > MOST_WAITING:
            self._hold(connection)

    def ending(self, connection: Connection) -> None:
        if self._waiting:
            self._hold(connection)

    def _hold(self, connection: Connection) -> None:
        if not self._holds:
            self._holds = True
            connection.hold()

    def _carry_out(self, items: list[tuple[Connection, Command]]) -> None:
        connection = items[0][0]
        for kind, group in itertools.groupby((command for _, command in items), key=type):
            # Subscriptions that were asked for together are made together; all others one by one.
            together = list(group)
            for part in [together] if kind is Subscribe else [[each] for each in together]:
                self._wait_for_turn(connection, len(part), kind)
                with AT_ONCE.get(kind, contextlib.nullcontext()):
                    if connection.taking:
                        self._try(connection, part)
                self._waiting -= len(part)
        if self._holds and connection.taking:
            self._holds = False
            connection.release()
        if self._seat is not None:
            self._seat.give_back()

    def _try(self, connection: Connection, part: Sequence[Command]) -> None:
        try:
            self._carry_out_part(connection, part)
        except BaseException as exc:  # the site's code may let a gevent.Timeout out, or call sys.exit()
            error = failure(exc, type(part[0]).__name__.lower(), getattr(part[0], "facility", None))
            self.hub.send(connection, [dialects.error(*error, each.id) for each in part])
        finally:
            give_back()

    def _wait_for_turn(self, connection: Connection, count: int, kind: type[Command]) -> None:
        """Wait as :class:`Pace` says, but not to publish; with what is large until the client has read the rest."""
        if kind is not Publish and kind is not Invalid:
            self._pace.wait(connection, count)
        if kind is History or kind is Call:
            self.hub.wait_until_clear(connection)

    def closed(self, connection: Connection) -> None:
        if self._waiting:  # a view runs on: it counts for the visitor, who could start any number of them otherwise
            self._seat = self.hub.admission.keep(connection.visitor)
        self._pace.end()
        super().closed(connection)

    def _carry_out_part(self, connection: Connection, part: Sequence[Command]) -> None:
        command = part[0]
        if isinstance(command, Subscribe):
            self.subscriptions.subscribe(connection, [each for each in part if isinstance(each, Subscribe)])
        elif isinstance(command, Unsubscribe):
            self.subscriptions.unsubscribe(connection, command)
        elif isinstance(command, Publish):
            self._publish(connection, command)
        elif isinstance(command, History):
            self._history(connection, command)
        elif isinstance(command, Call):
            self._call(connection, command)
        else:
            self._send(connection, dialects.error("frame", command.reason, command.id))

    def _send(self, connection: Connection, payload: bytes) -> None:
        self.hub.send(connection, [payload])

    def _find(self, connection: Connection, command: Publish | History) -> Subscription | None:
        """Return the subscription that a command is for; without one, tell the client."""
        facility = command.facility or ""
        found = self.subscriptions.find(facility)
        if found is None:
            reason = "This socket is not subscribed to this facility." if facility else "The facility is missing."
            log_refusal("refused", reason, f"{type(command).__name__.lower()} {shown(facility)!r}")
            self._send(connection, dialects.error("refused", reason, command.id, facility=facility))
        return found

    def _publish(self, connection: Connection, command: Publish) -> None:
        found = self._find(connection, command)
        if found is not None:
            self._answers.publish(connection, found.publisher, command)

    def _history(self, connection: Connection, command: History) -> None:
        found = self._find(connection, command)
        if found is not None:
            catching_up = found.caught_up is not None
            self._answers.history(connection, found.channels, found.options, command, catching_up)

    def _call(self, connection: Connection, command: Call) -> None:
        content = calls.call(self._visit, command)
        answer = dialects.answer(content.pop("status"), command.id, **content)
        try:
            self._broker.sync()  # the messages that it has caused come first
        except Unavailable as exc:
            logger.warning("The answer to a call may be ahead of messages that the call has caused: %s", exc)
        self._send(connection, answer)


__all__ = ["PageHandler"]
