"""The subscriptions of the socket of a whole page: made, restored and ended while it is open. A little longer than
other modules, because the way of a subscription is best read together.

How it works. For each facility the site's code is asked anew, with a request like that of the handshake; subscriptions
that the client asks for together are made together (:class:`wsloop.facilities.setup.SubscriptionSetup`). One that is
refused, or fails, ends no other. This module must not know HTTP beyond such requests, nor the sockets of the operating
system.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Sequence

import gevent
from django.http import HttpRequest
from gevent.event import Event
from redis.exceptions import RedisError

from wsloop import conf, identity, metrics, tokens
from wsloop.db import give_back
from wsloop.deadline import deadline
from wsloop.delivery.broker import Unavailable
from wsloop.facilities.decision import Planned, channels_of, decide
from wsloop.facilities.failures import NOT_ALLOWED, Refusal, failure
from wsloop.facilities.hooks import Hooks
from wsloop.facilities.inbound import PublishHandler
from wsloop.facilities.setup import Disturbed, Facilities, SubscriptionSetup
from wsloop.greenlets import spawn
from wsloop.protocol import dialects, resume_tokens
from wsloop.protocol.close_codes import RIGHTS_CHANGED, SIGNED_OUT
from wsloop.protocol.commands import Subscribe, Unsubscribe
from wsloop.refusals import Refused
from wsloop.sockets.connection import Connection
from wsloop.visit import Visit


class Subscription:
    """One subscription of an open socket.

    Attributes:
        options: of the facility.
        publisher: publishes the messages of the client; None: it may not publish.
        channels: of which the connection is a subscriber for it.
        facility: its name.
        presence_scope: where it is counted for presence; None: nowhere.
        caught_up: set at the end of its recovery; None: it is up to date.
    """

    __slots__ = ("caught_up", "channels", "facility", "options", "presence_scope", "publisher")

    def __init__(self, planned: Planned, channels: tuple[bytes, ...], publisher: PublishHandler | None) -> None:
        self.facility = planned.plan.facility
        self.options = planned.plan.options
        self.publisher = publisher
        self.channels = channels
        self.presence_scope = planned.plan.presence_scope
        self.caught_up: Event | None = None


class Subscriptions:
    """The subscriptions of one socket.

    Args:
        facilities: of the process.
        hooks: of the site.
        visit: of the client.
        first: the subscription that the handshake has asked for, to the facility without a name.
    """

    __slots__ = ("_by_facility", "_facilities", "_hooks", "_visit")

    def __init__(self, facilities: Facilities, hooks: Hooks, visit: Visit, first: Planned) -> None:
        self._facilities = facilities
        self._hooks = hooks
        self._visit = visit
        self._by_facility: dict[str, Subscription] = {}
        if first.plan.channels or first.plan.publishes:
            self._add(first, channels_of(first.plan))

    def find(self, facility: str) -> Subscription | None:
        """Return the subscription to a facility; None: there is none."""
        return self._by_facility.get(facility)

    def _add(self, planned: Planned, channels: tuple[bytes, ...]) -> Subscription:
        added = Subscription(planned, channels, self._facilities.publisher(planned))
        self._by_facility[planned.plan.facility] = added
        return added

    def _send(self, connection: Connection, payload: bytes) -> None:
        self._facilities.hub.send(connection, [payload])

    def catching_up(self, channels: Collection[bytes]) -> Callable[[], None]:
        """Take the channels that the first subscription has yet to recover; see :class:`ReadOnlyHandler`."""
        first = self._by_facility[""]
        whole, first.channels = first.channels, tuple(each for each in first.channels if each not in channels)
        first.caught_up = done = Event()

        def end() -> None:
            first.channels, first.caught_up = whole, None
            done.set()

        return end

    def subscribe(self, connection: Connection, commands: Sequence[Subscribe]) -> None:
        """Make subscriptions that the client has asked for together, and answer each. Blocks.

        Args:
            connection: of the client.
            commands: the client's.

        Raises:
            Exception: if nobody can say who the client is: then none of them is answered.
        """
        planned: list[Planned] = []
        generation = self._facilities.session_watch.generation()  # before the database is asked
        with deadline():
            visitor = self._ask_who(connection)
        if visitor is None:
            return
        for command in commands:
            try:
                with deadline():
                    planned.append(self._decide(visitor, command, {each.plan.facility for each in planned}))
            except BaseException as exc:  # see PageHandler
                error = dialects.error(
                    *failure(exc, "subscribe", command.facility), command.id, facility=command.facility
                )
                self._send(connection, error)
            gevent.sleep(0)  # others get their turn: a page may have a hundred
        give_back()  # not kept while Redis is waited for
        if planned:
            self._make(connection, planned)
        if self._facilities.session_watch.generation() != generation:
            self._facilities.session_watch.recheck(connection)

    def _ask_who(self, connection: Connection) -> HttpRequest | None:
        """Return a request with the present user and session; None if the client is not who it was at the handshake."""
        request = self._visit.handshake(conf.websocket_url(), {})
        self._hooks.authenticate(request)
        before, now = connection.visitor, identity.visitor(request)
        if before.user is not None and (now.user, now.auth_hash) != (before.user, before.auth_hash):
            connection.close(SIGNED_OUT, "signed out")
        elif (now.user, now.permissions_hash) != (before.user, before.permissions_hash):
            connection.close(RIGHTS_CHANGED, "your rights have changed")
        return request if connection.taking else None

    def _decide(self, visitor: HttpRequest, command: Subscribe, others: set[str]) -> Planned:
        """Ask the site about one subscription.

        Raises:
            Refusal, Exception: if it is not allowed, or the site's code fails.
        """
        facility = command.facility
        wanted = [f"subscribe-{each}" for each in command.audiences] + [f"publish-{each}" for each in command.publish]
        if command.presence:
            wanted.append("subscribe-presence")
        if facility in self._by_facility or facility in others:
            raise Refusal("frame", "This socket is subscribed to this facility already.")
        if len(self._by_facility) + len(others) >= conf.option("MAX_SUBSCRIPTIONS"):
            metrics.reached("MAX_SUBSCRIPTIONS")
            raise Refusal("limit", "This socket has as many subscriptions as it may have.")
        if len(facility.encode()) > conf.option("MAX_FACILITY_SIZE"):
            metrics.reached("MAX_FACILITY_SIZE")
            raise Refusal("frame", "The name of the facility is too long.")
        if not wanted:
            raise Refusal("frame", "There must be audiences, publish or presence.")
        facility = _shared(facility)
        parameters = dict.fromkeys(wanted, "")
        if command.resume is not None:
            parameters[resume_tokens.PARAMETER] = command.resume
        path = conf.websocket_url() + facility
        if self._hooks.is_coded(path):
            raise Refusal("refused", "A consumer serves this address, and not a facility.")
        request = self._visit.handshake(path, parameters)
        self._sign_in(visitor, request, facility)
        planned = decide(self._hooks, request, facility, dialects.V1_DIALECT)
        if not planned.plan.channels and not planned.plan.publishes and not planned.plan.watches_presence:
            raise Refusal("refused", NOT_ALLOWED)
        return planned._replace(id=command.id)

    def _sign_in(self, visitor: HttpRequest, request: HttpRequest, facility: str) -> None:
        """Find the user of a request for a facility, who must be that of the socket.

        The database was asked for ``visitor`` already; it is asked again only if the answer may depend on the URL.
        """
        if self._hooks.authenticates_by_url:
            self._hooks.authenticate(request)
            first, now = identity.visitor(visitor), identity.visitor(request)
            if (now.user, now.auth_hash) != (first.user, first.auth_hash):
                raise Refusal("refused", "At this address you are another user than on this socket.")
            return
        if getattr(visitor, "token_facility", None) not in (None, facility):
            raise Refusal("refused", "The token is not for this facility.")
        _sign_in_as(visitor, request)

    def _make(self, connection: Connection, planned: Sequence[Planned]) -> None:
        """Make subscriptions that are allowed: together, or one by one if one of them disturbs the others."""
        setup = SubscriptionSetup(self._facilities, connection.dialect, planned)
        try:
            with deadline():
                setup.prepare()
        except BaseException as exc:  # see PageHandler: the site's subscriber sends the retained messages
            setup.cancel()
            if len(planned) > 1 and not isinstance(exc, (RedisError, OSError, Refused)) and _is_of_one(exc):
                for each in planned:
                    self._make(connection, [each])
                return
            facility = planned[0].plan.facility if len(planned) == 1 else None
            code, reason = failure(exc, "subscribe", facility, of_redis=True)
            for each in planned:
                self._send(connection, dialects.error(code, reason, each.id, facility=each.plan.facility))
            return
        if not connection.taking:
            setup.cancel()
            return
        setup.enter(connection)
        catching_up = []
        for each in planned:
            channels = channels_of(each.plan)
            added = self._add(each, tuple(channel for channel in channels if channel not in setup.unfinished))
            if len(added.channels) < len(channels):
                catching_up.append((each, added))
            if added.presence_scope is not None and connection.open:  # it may have failed to take its welcome
                connection.presence_scopes += (added.presence_scope,)
                self._facilities.presence.entered(*added.presence_scope)
        if setup.unfinished:
            done = Event()
            for _, added in catching_up:
                added.caught_up = done
            spawn(self._go_on, connection, setup, catching_up, done)

    def _go_on(
        self,
        connection: Connection,
        setup: SubscriptionSetup,
        catching_up: Iterable[tuple[Planned, Subscription]],
        done: Event,
    ) -> None:
        """Send the rest of a long recovery."""
        try:
            setup.go_on(connection)
            for each, added in catching_up:
                added.channels = channels_of(each.plan)
        except Exception as exc:
            code, reason = failure(exc, "subscribe", None, of_redis=True)
            for each, added in catching_up:
                facility = each.plan.facility
                if self._by_facility.get(facility) is added:  # otherwise the client is leaving it
                    del self._by_facility[facility]
                    self._end(connection, added)
                    self._send(connection, dialects.unsubscribed(facility, code=code, reason=reason))
        finally:
            for _, added in catching_up:
                added.caught_up = None
            done.set()

    def unsubscribe(self, connection: Connection, command: Unsubscribe) -> None:
        """End a subscription, and answer. Blocks while it is being recovered."""
        found = self._by_facility.pop(command.facility, None)
        if found is not None:
            if found.caught_up is not None:
                found.caught_up.wait()
            self._end(connection, found)
        self._send(connection, dialects.unsubscribed(command.facility, command.id))

    def _end(self, connection: Connection, ended: Subscription) -> None:
        if not connection.taking:
            return  # all of its subscriptions have ended
        self._facilities.hub.exit(connection, ended.channels)
        self._facilities.broker.unsubscribe(ended.channels)
        self._facilities.releases.left(connection, ended.facility)
        if ended.presence_scope is not None:
            scopes = list(connection.presence_scopes)
            scopes.remove(ended.presence_scope)
            connection.presence_scopes = tuple(scopes)
            self._facilities.presence.left(*ended.presence_scope)


@functools.lru_cache(maxsize=1024)
def _shared(facility: str) -> str:
    """Return one object for equal names of a facility: each page that subscribes to it keeps it.

    Not ``sys.intern()``, for which a client would choose the text: Python 3.12 up to 3.12.6 keeps that for ever.
    """
    return facility


def _sign_in_as(visitor: HttpRequest, request: HttpRequest) -> None:
    """Give a request what authentication has found out with another one of the same client."""
    for name, value in vars(visitor).items():
        # Not what Django and wsloop keep there of the request itself.
        if name not in vars(request) and not hasattr(type(request), name) and not name.startswith("_wsloop"):
            setattr(request, name, value)
    if hasattr(visitor, "token_expires"):
        tokens.remove(request)


def _is_of_one(error: BaseException) -> bool:
    """Return whether one of several subscriptions may be the reason, and not Redis."""
    return isinstance(error, Disturbed) or not isinstance(error, Unavailable)


__all__ = ["Subscription", "Subscriptions"]
