"""Makes subscriptions that are decided, up to the first live message.

A facility in the URL of a socket is one subscription, made during the handshake. This module must not know HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from redis.exceptions import RedisError
from websockets.frames import CloseCode

from wsloop import conf, metrics
from wsloop.delivery.broker import Broker, Unavailable
from wsloop.facilities.decision import Planned, channels_of
from wsloop.facilities.enveloped import Answers, EnvelopeHandler
from wsloop.facilities.inbound import CustomPublishHandler, PublishHandler, ReadOnlyHandler
from wsloop.facilities.recording import RetainedRecorder
from wsloop.facilities.recovery import Part, Recovery
from wsloop.facilities.releases import Releases
from wsloop.greenlets import spawn
from wsloop.presence import who
from wsloop.protocol import dialects
from wsloop.protocol.dialects import Dialect
from wsloop.protocol.messages import Message
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub
from wsloop.sockets.joining import JoinBuffer
from wsloop.sockets.plan import Plan

logger = logging.getLogger("wsloop.recovery")


class Disturbed(Unavailable):
    """A subscription cannot be made, because of what happened in one of its channels meanwhile."""


class Present(Protocol):
    """Counts who is present."""

    def entered(self, facility: str, user: str | None) -> None:
        """Count a socket. Never blocks."""

    def left(self, facility: str, user: str | None) -> None:
        """Reverse one :meth:`entered`. Never blocks."""


class Watch(Protocol):
    """Closes sockets whose users may no longer have them."""

    def generation(self) -> int:
        """Return a number that changes when users change."""

    def recheck(self, connection: Connection) -> None:
        """Check a connection. Never blocks."""


class Facilities:
    """Shared by the sockets of all facilities of one process.

    Args:
        hub, broker, presence, session_watch: of the process.
    """

    def __init__(self, hub: Hub, broker: Broker, presence: Present, session_watch: Watch) -> None:
        self.hub = hub
        self.broker = broker
        self.presence = presence
        self.session_watch = session_watch
        self._read_only = ReadOnlyHandler(hub)
        self._enveloped: dict[conf.Facility, EnvelopeHandler] = {}  # by options: there are few different ones
        self.answers = Answers(hub)
        self.releases = Releases()

    def publisher(self, planned: Planned) -> PublishHandler | None:
        """Return what publishes the messages of a client for a subscription; None if it may not publish."""
        plan, subscriber = planned.plan, planned.subscriber
        if subscriber.publishes_itself:
            return CustomPublishHandler(self.hub, self.broker, plan, subscriber)
        return PublishHandler(self.hub, self.broker, plan) if plan.publishes else None

    def handler(self, dialect: Dialect, planned: Planned) -> ReadOnlyHandler:
        """Return the handler of a socket with one subscription; sockets that may not publish share one."""
        publisher, options = self.publisher(planned), planned.plan.options
        if not dialect.has_envelopes:
            return publisher or self._read_only
        if publisher is not None:
            return EnvelopeHandler(self.hub, publisher, options)
        if options not in self._enveloped:
            self._enveloped[options] = EnvelopeHandler(self.hub, None, options)
        return self._enveloped[options]


class SubscriptionSetup:
    """Makes subscriptions of one socket together: they are restored in the order of time.

    Args:
        facilities: of the process.
        dialect: of the socket.
        planned: the subscriptions.
        ping: for their welcome: seconds between two pings; None: the client knows.

    Attributes:
        unfinished: the channels of which there is more to recover than may be sent at once; if there are any, call
            :meth:`go_on`. Known behind :meth:`enter`.
    """

    def __init__(
        self, facilities: Facilities, dialect: Dialect, planned: Sequence[Planned], ping: int | None = None
    ) -> None:
        self._hub, self._broker, self._releases = facilities.hub, facilities.broker, facilities.releases
        self._dialect = dialect
        self._planned = planned
        self._to_release = [each.subscriber for each in planned]
        self._ping = ping
        self._channels: tuple[bytes, ...] = ()  # subscribed to, and not the connection's yet
        self._joining: JoinBuffer | None = None
        self._retained: list[tuple[bytes, Message]] = []
        self._welcomes: list[bytes] = []
        self._parts = [
            Part(channels_of(each.plan), each.plan.options, each.plan.resume, each.plan.recovers_groups)
            for each in planned
        ]
        self._recovery = Recovery(self._hub, self._broker, dialect, self._parts)
        self.unfinished: frozenset[bytes] = frozenset()

    def prepare(self) -> None:
        """Subscribe, and read the first messages. After it returns, the socket misses no message. Blocks.

        Raises:
            redis.exceptions.RedisError, Unavailable: if Redis does not answer, or messages were lost meanwhile.
        """
        channels = tuple(channel for part in self._parts for channel in part.channels)
        kept = [channel for each in self._planned if each.plan.options.size for channel in each.plan.channels]
        self._broker.subscribe(channels, kept)
        self._channels = channels
        # Not earlier: a message before the acknowledgement may be from before a gap, and older than a retained one.
        joining = self._joining = self._recovery.join()
        self._recovery.start()
        self._retained = joining.retained(self._first(), len(joining.messages))
        if self._dialect.has_envelopes:
            self._welcomes = [*map(self._welcome, self._planned, self._parts)]
        elif any(part.recovered is False for part in self._parts):
            self._welcomes = [told for told in [self._dialect.not_recovered()] if told is not None]
        if joining.too_much and (not self._recovery.unfinished or self._recovery.has_others):
            metrics.reached("MAX_QUEUED_BYTES")
            raise Disturbed("more was published than a new connection can hold")
        if joining.lost:
            raise Disturbed("messages were lost during the handshake")

    def _first(self) -> list[tuple[bytes | None, bytes]]:
        """Return the retained messages of the channels, when all that was published before has been delivered here."""
        recorder = RetainedRecorder()
        channels: list[bytes] = []
        starting = [each for each, part in zip(self._planned, self._parts, strict=True) if part.wants_retained]
        for each in starting:
            if each.subscriber.starts_itself:
                each.subscriber.send_persisted_messages(recorder)
            else:  # read together with those of other handshakes
                channels += each.plan.channels
        retained = self._broker.sync(channels) if starting else []
        return recorder.sent + [(name, each) for name, each in zip(channels, retained, strict=True) if each]

    def _welcome(self, planned: Planned, part: Part) -> bytes:
        plan = planned.plan
        return dialects.welcome(
            plan.facility,
            part.channels,
            part.recovered,
            id=planned.id,
            token=part.token,
            presence=who(plan.facility)._asdict() if plan.watches_presence else None,
            ping=self._ping,
        )

    def enter(self, connection: Connection) -> None:
        """Write the first messages, and make the connection a subscriber. Nothing yields."""
        assert self._joining is not None
        if connection.channels:  # of a channel that another subscription has, too, the connection has these already
            self._joining.drop(connection.channels)
        first = self._recovery.first_payloads(self._joining, self._welcomes, self._retained)
        self._channels = ()  # before anything can fail: from here on they are given back when the connection leaves
        self._to_release = []
        for each in self._planned:
            self._releases.keep(connection, each.plan.facility, each.subscriber)
        self.unfinished = self._recovery.remaining
        if len(self._parts) == 1:
            connection.resumes_from(self._parts[0].token)
        self._recovery.tell(connection)
        self._hub.enter(self._joining, connection, first)

    def go_on(self, connection: Connection) -> None:
        """Send the rest of a long recovery, as the client takes it; see :meth:`Recovery.go_on`. Blocks."""
        self._recovery.go_on(connection)

    def cancel(self) -> None:
        """Give back what no connection has taken over. May be called again."""
        if self._joining is not None:
            self._hub.cancel(self._joining)
        channels, self._channels = self._channels, ()
        self._broker.unsubscribe(channels)
        subscribers, self._to_release = self._to_release, []
        for each in subscribers:
            self._releases.release(each)


class FacilityService:
    """Implements :class:`wsloop.opening.Service` for one socket of a facility.

    Args:
        facilities: of the process.
        dialect: of the socket.
        planned: its subscription.
        handler: of the connection; by default that of a socket with this subscription alone.
        first: commands that the client has sent with the request; empty: none.
    """

    def __init__(
        self,
        facilities: Facilities,
        dialect: Dialect,
        planned: Planned,
        handler: ReadOnlyHandler | None = None,
        first: bytes = b"",
    ) -> None:
        self.handler = handler or facilities.handler(dialect, planned)
        self._first = first
        self._setup = SubscriptionSetup(facilities, dialect, [planned], conf.option("PING_INTERVAL"))

    def prepare(self, plan: Plan) -> Plan:
        """Subscribe, and return the plan as it is; see :meth:`SubscriptionSetup.prepare`."""
        self._setup.prepare()
        return plan

    def opened(self, connection: Connection) -> None:
        """Make the connection a subscriber: at once, or when it has caught up."""
        self._setup.enter(connection)
        if self._setup.unfinished:
            spawn(_go_on, self._setup, connection, self.handler.catching_up(self._setup.unfinished))
        if self._first:
            self.handler.received(connection, self._first, True)
            connection.flush()  # what it has replied

    def cancel(self) -> None:
        """Give back what no connection has taken over. May be called again."""
        self._setup.cancel()


def _go_on(setup: SubscriptionSetup, connection: Connection, ended: Callable[[], None] = lambda: None) -> None:
    try:
        setup.go_on(connection)
    except (RedisError, OSError, Unavailable) as exc:
        logger.warning("Recovery interrupted; client must reconnect: %s", exc)
        connection.close(CloseCode.TRY_AGAIN_LATER, "messages cannot be read at the moment")
    except Exception:
        logger.exception("Recovery failed because of an error of the server")
        connection.close(CloseCode.INTERNAL_ERROR, "internal error")
    finally:
        ended()


__all__ = ["Disturbed", "Facilities", "FacilityService", "SubscriptionSetup"]
