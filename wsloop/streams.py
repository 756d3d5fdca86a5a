"""Requests of clients without a WebSocket: for a stream of events, and with one command of ``wsloop.v1``.

The URL is that of the WebSocket. A stream is asked for with ``Accept: text/event-stream``; a command is posted. This
module must not know Redis or sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest

from wsloop import conf, metrics, origin
from wsloop.protocol.dialects import V1_DIALECT, Dialect
from wsloop.protocol.events import BARE_EVENTS, CONTENT_TYPE, V1_EVENTS
from wsloop.refusals import Refused

PARAMETER = "protocol"
JSON = "application/json"
MOST_BODY = 4  # times MAX_MESSAGE_SIZE: base64 and JSON make a message larger, and a list of subscriptions is long


def wants_events(environ: dict[str, Any]) -> bool:
    """Return whether a request asks for a stream of events, and not for a WebSocket."""
    accepted = [each.partition(";")[0].strip() for each in environ.get("HTTP_ACCEPT", "").split(",")]
    return CONTENT_TYPE in accepted and not environ.get("HTTP_UPGRADE")


def is_command(environ: dict[str, Any]) -> bool:
    """Return whether a request carries a command, and not a wish for a stream; or asks whether it may."""
    return environ.get("REQUEST_METHOD") in ("POST", "OPTIONS") and not wants_events(environ)


def negotiate(request: HttpRequest, subprotocols: Sequence[str]) -> Dialect:
    """Return the dialect of the stream that a request asks for.

    Args:
        request: of the stream.
        subprotocols: those that the server accepts.

    Raises:
        Refused: 400 or 405.
    """
    if request.method not in ("GET", "POST"):
        allow = [("Allow", "GET, POST")]
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "A stream is asked for with GET, or with POST.", allow)
    wanted = request.GET.get(PARAMETER)
    if request.method == "POST" or wanted == V1_DIALECT.name:
        if V1_DIALECT.name in subprotocols:
            return V1_EVENTS
    elif wanted in (None, "", "ws4redis"):
        return BARE_EVENTS
    raise Refused(HTTPStatus.BAD_REQUEST, f"{PARAMETER} must be one of {', '.join(subprotocols)}.")


def head(request: HttpRequest) -> tuple[tuple[str, str], ...]:
    """Return the headers of the response that begins a stream."""
    return (
        ("Content-Type", CONTENT_TYPE),
        ("Cache-Control", "no-store, no-transform"),  # nor may a proxy compress it: its buffer would hold events back
        ("Connection", "close"),
        ("X-Accel-Buffering", "no"),  # nginx
        *origin.cors(request),
    )


def body(request: HttpRequest, setting: str = "MAX_MESSAGE_SIZE", times: int = MOST_BODY) -> bytes:
    """Return the body of a posted request, which must be JSON. Blocks until it is here.

    Args:
        request: with the body.
        setting: the option, in bytes, that bounds it.
        times: how often.

    Raises:
        Refused: 400 if it is not complete, 411, 413 or 415.
    """
    if request.content_type != JSON:  # no page of another site can post that without asking first (CORS)
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"The Content-Type must be {JSON}.")
    if "HTTP_TRANSFER_ENCODING" in request.META:  # servers hand such a body on in different ways, or not at all
        raise Refused(HTTPStatus.LENGTH_REQUIRED, "Send the body with a Content-Length, not in chunks.")
    most = times * conf.option(setting)
    try:
        size = int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        size = 0
    if size > most:
        metrics.reached(setting)
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is longer than {most} bytes.", kind=setting)
    try:
        data = request.read(size)
    except OSError:
        data = b""
    if len(data) < size:
        raise Refused(HTTPStatus.BAD_REQUEST, f"The body has ended before its {size} bytes were here.")
    return data


__all__ = ["body", "head", "is_command", "negotiate", "wants_events"]
