"""Commands of ``wsloop.v1`` that were posted, by clients without a WebSocket: publishing, pages of the past, calls.

This module must not know HTTP beyond the request, nor connections.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from http import HTTPStatus

from django.http import HttpRequest

from wsloop import conf, metrics, routing
from wsloop.backend import pool, publishing
from wsloop.backend.publishing import OutgoingMessage
from wsloop.deadline import deadline
from wsloop.facilities import calls
from wsloop.facilities.decision import Planned, channels_of, decide
from wsloop.facilities.enveloped import OTHER_FACILITY, past_frame
from wsloop.facilities.failures import Refusal, failure
from wsloop.facilities.hooks import Hooks
from wsloop.facilities.inbound import client_keys
from wsloop.facilities.subscriptions import release
from wsloop.protocol import dialects
from wsloop.protocol.commands import Call, Command, History, Invalid, Publish
from wsloop.refusals import Refused
from wsloop.sockets.visitor import Visitor
from wsloop.store import RedisMessage
from wsloop.visit import Visit

STATUS = {
    "frame": HTTPStatus.BAD_REQUEST,
    "refused": HTTPStatus.FORBIDDEN,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "internal": HTTPStatus.INTERNAL_SERVER_ERROR,
}


def carry_out(
    hooks: Hooks, request: HttpRequest, visitor: Visitor, visit: Visit, commands: Sequence[Command]
) -> tuple[HTTPStatus, bytes]:
    """Carry out a command, and return the status and the frame that answer it. Blocks.

    Args:
        hooks: of the site.
        request: with its user and session; its URL says for which subscription the command is.
        visitor, visit: the client.
        commands: the client's; there must be one.

    Raises:
        Refused: 413.
    """
    command = commands[0] if len(commands) == 1 else Invalid(None, "There must be one command.")
    most = conf.option("MAX_MESSAGE_SIZE")
    if isinstance(command, Publish) and len(command.payload) > most:
        metrics.reached("MAX_MESSAGE_SIZE")
        reason = f"The message has more than {most} bytes."
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason, kind="MAX_MESSAGE_SIZE")
    try:
        if isinstance(command, Publish):
            with _decided(hooks, request) as planned:
                return HTTPStatus.OK, _publish(planned, visitor, command)
        if isinstance(command, History):
            with _decided(hooks, request) as planned:
                return HTTPStatus.OK, past_frame(channels_of(planned.plan), planned.plan.options, command)
        if isinstance(command, Call):
            content = calls.call(visit, command)
            return HTTPStatus.OK, dialects.answer(content.pop("status"), command.id, **content)
        reason = command.reason if isinstance(command, Invalid) else "Subscriptions need a stream: ask for one."
        code = "frame"
    except Exception as exc:
        code, reason = failure(exc, type(command).__name__.lower(), routing.facility(request))
    return STATUS.get(code, HTTPStatus.BAD_REQUEST), dialects.error(code, reason, command.id)


@contextlib.contextmanager
def _decided(hooks: Hooks, request: HttpRequest) -> Iterator[Planned]:
    with deadline():
        planned = decide(hooks, request, routing.facility(request), dialects.V1_DIALECT)
    try:
        yield planned
    finally:
        release(planned.subscriber)


def _publish(planned: Planned, visitor: Visitor, command: Publish) -> bytes:
    plan, subscriber, _ = planned
    if command.facility not in (None, plan.facility):
        raise Refusal("frame", OTHER_FACILITY)
    if not plan.publishes and not subscriber.publishes_itself:
        raise Refusal("refused", "This client may not publish.")
    keys = client_keys(command.key, visitor)

    def publish(channels: Sequence[bytes], payload: bytes, expire: int) -> None:
        message = OutgoingMessage(channels, payload, expire, plan.options, next(keys))
        publishing.publish(pool.client(), [message])

    subscriber._connection.publish_hook = publish
    subscriber.publish_message(RedisMessage(command.payload))
    return dialects.ack(command.id if command.id is not None else "")


__all__ = ["carry_out"]
