"""Decides about a subscription: asks the site's code what a request may subscribe and publish to.

This module must not know HTTP beyond that request, nor connections.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from django.http import HttpRequest

from wsloop import conf, identity
from wsloop.facilities import policy, subscriptions
from wsloop.facilities.hints import hint
from wsloop.facilities.hooks import Hooks
from wsloop.facilities.recording import as_bytes
from wsloop.presence import presence_channel
from wsloop.protocol import dialects, resume_tokens
from wsloop.protocol.dialects import Dialect
from wsloop.protocol.events import EVENT_DIALECTS
from wsloop.protocol.messages import shared
from wsloop.refusals import Refused
from wsloop.sockets.plan import SubscriptionPlan


class Planned(NamedTuple):
    """A subscription that is allowed.

    Attributes:
        plan: what it is.
        subscriber: sends the retained messages, and publishes if the site's class overrides that.
        id: of the client's frame; None: it came with the handshake, or has none.
    """

    plan: SubscriptionPlan
    subscriber: subscriptions.Subscriber
    id: dialects.Id | None = None


def decide(hooks: Hooks, request: HttpRequest, facility: str, dialect: Dialect) -> Planned:
    """Ask the site what a request for a facility may subscribe and publish to.

    Args:
        hooks: of the site.
        request: of the handshake, or like one, with its user and session.
        facility: its name.
        dialect: of the socket.

    Raises:
        Refused: 404, if no facility can have this name.
        Exception: what the site's code raises if the request is not allowed, or fails.
    """
    if facility.startswith("/"):
        reason = "The name of a facility begins with no slash: the URL has one too many."
        raise Refused(HTTPStatus.NOT_FOUND, reason, kind="URL", told=reason)
    options = conf.facility(facility)
    asked, echo = hooks.process_subscriptions(request)
    if conf.debug() and (facility or not dialect.has_envelopes):  # the socket of a page subscribes later
        hint(request, hooks.routes, asked)
    wanted = policy.ask(hooks.policy, request, asked)
    subscriber = subscriptions.work_out(hooks.subscriber_class, request, facility, wanted)
    has_envelopes = dialect.has_envelopes
    plan = SubscriptionPlan(
        facility=facility,
        options=options,
        channels=tuple(map(shared, subscriber._subscription.channels)),
        watches_presence=subscriptions.PRESENCE in wanted and has_envelopes,
        publishes=as_bytes(subscriber._publishers),
        echo=echo and not has_envelopes,  # with envelopes the client tells its own messages from others
        resume=_resume(request, dialect),
        recovers_groups="subscribe-group" in wanted,
        presence_scope=identity.presence_scope(request, facility) if options.presence and wanted else None,
    )
    return Planned(plan, subscriber)


def channels_of(plan: SubscriptionPlan) -> tuple[bytes, ...]:
    """Return all channels of a subscription."""
    presence = (shared(presence_channel(plan.facility).encode()),) if plan.watches_presence else ()
    return (*plan.channels, *presence)


def _resume(request: HttpRequest, dialect: Dialect) -> str | None:
    """Return the positions that a client has sent, if it can tell them: a browser does by the last id of a stream."""
    in_query = request.GET.get(resume_tokens.PARAMETER)
    if dialect.name in EVENT_DIALECTS:
        return request.META.get("HTTP_LAST_EVENT_ID") or in_query
    return in_query if dialect.has_envelopes else None


__all__ = ["Planned", "channels_of", "decide"]
