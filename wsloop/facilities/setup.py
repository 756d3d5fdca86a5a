"""Sockets of facilities: completes their plan, and carries it out up to the first live message.

This module must not know HTTP beyond the request that a site's subscriber class is given.
"""

from __future__ import annotations

from collections.abc import Collection

from django.http import HttpRequest

from wsloop import metrics
from wsloop.delivery.broker import Broker, Unavailable
from wsloop.facilities import subscriptions
from wsloop.facilities.inbound import CustomPublishHandler, EnvelopeHandler, PublishHandler, ReadOnlyHandler
from wsloop.facilities.recovery import Recovery
from wsloop.greenlets import spawn
from wsloop.presence import presence_channel, who
from wsloop.protocol import resume_tokens
from wsloop.protocol.dialects import DIALECTS
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub
from wsloop.sockets.joining import JoinBuffer
from wsloop.sockets.plan import Plan


def complete(
    plan: Plan, request: HttpRequest, allowed: Collection[str], echo: bool, subscriber: subscriptions.Subscriber
) -> Plan:
    """Return the plan with the channels of the socket, and what its client asked for.

    Args:
        plan: of the stages before.
        request: of the handshake.
        allowed: channels that the client asked for and the policy allows, such as ``subscribe-user``.
        echo: whether the client wants its own messages back.
        subscriber: has worked these channels out.
    """
    has_envelopes = DIALECTS[plan.dialect].has_envelopes
    return plan._replace(
        channels=tuple(subscriber._subscription.channels),
        watches_presence=subscriptions.PRESENCE in allowed and has_envelopes,
        publishes=subscriptions.as_bytes(subscriber._publishers),
        echo=echo and not has_envelopes,  # with envelopes the client tells its own messages from others
        resume=request.GET.get(resume_tokens.PARAMETER) if has_envelopes else None,
        recovers_groups="subscribe-group" in allowed,
    )


class Facilities:
    """Shared by the sockets of all facilities of one process.

    Args:
        hub, broker: of the process.
    """

    def __init__(self, hub: Hub, broker: Broker) -> None:
        self.hub = hub
        self.broker = broker
        self._read_only = {
            dialect.name: EnvelopeHandler(hub, None) if dialect.has_envelopes else ReadOnlyHandler(hub)
            for dialect in DIALECTS.values()
        }

    def handler(self, plan: Plan, subscriber: subscriptions.Subscriber) -> ReadOnlyHandler:
        """Return the handler of a socket; sockets that may not publish share one."""
        publisher: PublishHandler
        if type(subscriber).publish_message is not subscriptions.Subscriber.publish_message:
            publisher = CustomPublishHandler(self.hub, self.broker, plan, subscriber)
        elif plan.publishes:
            publisher = PublishHandler(self.hub, self.broker, plan)
        else:
            return self._read_only[plan.dialect]
        return EnvelopeHandler(self.hub, publisher) if DIALECTS[plan.dialect].has_envelopes else publisher


class FacilityService:
    """Implements :class:`wsloop.opening.Service` for one socket of a facility.

    Args:
        facilities: of the process.
        plan: of the socket.
        subscriber: sends the retained messages, and publishes if the site's class overrides that.
    """

    def __init__(self, facilities: Facilities, plan: Plan, subscriber: subscriptions.Subscriber) -> None:
        self.handler = facilities.handler(plan, subscriber)
        self._hub, self._broker = facilities.hub, facilities.broker
        self._subscriber = subscriber
        self._channels: tuple[bytes, ...] = ()  # subscribed to, and not the connection's yet
        self._joining: JoinBuffer | None = None

    def prepare(self, plan: Plan) -> Plan:
        """Subscribe, and read the first messages. After it returns, the socket misses no message.

        Raises:
            redis.exceptions.RedisError, Unavailable: if Redis does not answer, or messages were lost meanwhile.
        """
        self._broker.subscribe(plan.channels, plan.options)
        self._channels = plan.channels
        if plan.watches_presence:
            channel = presence_channel(plan.facility).encode()
            self._broker.subscribe([channel])
            self._channels += (channel,)
        # Not earlier: a message before the acknowledgement may be from before a gap, and older than a retained one.
        joining = self._joining = self._hub.join(self._channels)
        self._recovery = Recovery(self._hub, self._broker, DIALECTS[plan.dialect], self._channels, plan.options)
        recorder = subscriptions.RetainedRecorder()
        if self._recovery.start(plan.resume, plan.recovers_groups):
            self._subscriber.send_persisted_messages(recorder)
            self._broker.sync()
        self._retained = joining.retained(recorder.sent, len(joining.messages))
        self._present = who(plan.facility)._asdict() if plan.watches_presence else None
        if joining.too_much and not self._recovery.unfinished:
            metrics.reached("MAX_QUEUED_BYTES")
            raise Unavailable("more was published than a new connection can hold")
        if joining.lost:
            raise Unavailable("messages were lost during the handshake")
        return plan

    def opened(self, connection: Connection) -> None:
        """Write the first messages, and make the connection a subscriber: at once, or when it has caught up."""
        assert self._joining is not None
        first = self._recovery.first_payloads(self._joining, self._retained, self._present)
        if self._recovery.unfinished:
            self._hub.cancel(self._joining)
            self._hub.send(connection, first)
            spawn(self._recovery.go_on, connection)  # which gives the channels back in the end
            self._channels = ()
        else:
            self._channels = ()  # before anything can fail: from here on they are given back when the connection leaves
            self._hub.enter(self._joining, connection, first)

    def cancel(self) -> None:
        """Give back what no connection has taken over. May be called again."""
        if self._joining is not None:
            self._hub.cancel(self._joining)
        channels, self._channels = self._channels, ()
        self._broker.unsubscribe(channels)


__all__ = ["Facilities", "FacilityService", "complete"]
