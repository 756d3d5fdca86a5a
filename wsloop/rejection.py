"""The end of a handshake that fails: one line in the log, and a response, or a socket that opens only to say why.

A browser does not show a page the response to a refused handshake: the page sees a close with 1006, like that of a
broken network, and comes back for ever. So where a refusal is final and its reason no secret, a client that offers
``wsloop.v1`` gets a 101, a goodbye with the reason, and a close frame. Temporary refusals stay
responses: after a failed handshake clients come back in pauses that grow (RFC 6455, section 7.2.3), which a goodbye
that names the time would spoil; and a server that is full has no room for a farewell. This module must not know the
stages of a handshake.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any

from django.core.exceptions import DisallowedHost, PermissionDenied, SuspiciousOperation
from redis.exceptions import RedisError

from wsloop import handshake, metrics, redaction
from wsloop.delivery.broker import Unavailable
from wsloop.engine import engine
from wsloop.protocol.close_codes import REFUSED, SIGNED_OUT
from wsloop.protocol.dialects import V1_DIALECT
from wsloop.refusals import FAILURE, NOT_ALLOWED, RETRY_AFTER, Denied, Refused, refusals, shown, try_again
from wsloop.sockets import servers
from wsloop.sockets.admission import Full
from wsloop.sockets.handshakes import Busy
from wsloop.sockets.takeover import Gone, Unsupported

logger = logging.getLogger("wsloop.server")

READABLE = "wsloop.readable"  # in the environ: headers with which a page of another site may read a refusal
LONGEST_LINE = 300  # characters of method and URL in a log
NOT_ACCEPTABLE = "The request is not acceptable; perhaps it has too many parameters."


def reject(
    refused: Refused, subprotocols: Sequence[str], environ: dict[str, Any], start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """Answer a request whose handshake has failed, and log why.

    Args:
        refused: see :func:`refusal`.
        subprotocols: those that the server accepts, the preferred one first.
        environ, start_response: as of WSGI (PEP 3333).

    Returns:
        the body of the response.
    """
    if refused.kind != FAILURE:
        refusals.refused(refused, request_line(environ))
    body = _say_farewell(refused, subprotocols, environ, start_response) if refused.told else None
    return _respond(refused, environ, start_response) if body is None else body


def request_line(environ: dict[str, Any]) -> str:
    """Return method and URL of a request for a log, without its secrets."""
    uri = environ.get("REQUEST_URI")  # as sent, with uWSGI
    if not uri:
        query = environ.get("QUERY_STRING", "")
        uri = environ.get("PATH_INFO", "") + (query and f"?{query}")
    line = redaction.request_line(environ.get("REQUEST_METHOD", ""), uri)
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"


def refusal(error: Exception) -> Refused:
    """Return the answer to an error during a handshake. It contains no secret but in its detail, for the log."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, Full):
        return _full(error)
    if isinstance(error, Busy):
        detail = "more handshakes are under way than this worker can do at the moment; start more workers"
        # Any of so many seconds: they are not to come back together.
        retry_after = random.randint(1, 2 * RETRY_AFTER)
        reason = "This server opens as many WebSockets as it can at the moment."
        return try_again(HTTPStatus.SERVICE_UNAVAILABLE, reason, "busy", detail, retry_after)
    if isinstance(error, PermissionDenied):
        detail = f"the site's code has raised PermissionDenied({shown(str(error))!r})"
        return Refused(HTTPStatus.FORBIDDEN, NOT_ALLOWED, kind="policy", detail=detail, told=NOT_ALLOWED)
    if isinstance(error, DisallowedHost):  # of the site's own code
        reason = "The Host of the request is not one of the site's; see ALLOWED_HOSTS."
        return Refused(HTTPStatus.BAD_REQUEST, reason, kind="Host", detail=shown(str(error)), told=reason)
    if isinstance(error, SuspiciousOperation):
        detail = f"{type(error).__name__}: {shown(str(error))}"
        return Refused(HTTPStatus.BAD_REQUEST, NOT_ACCEPTABLE, kind="request", detail=detail, told=NOT_ACCEPTABLE)
    if isinstance(error, Unsupported):
        return Refused(HTTPStatus.NOT_IMPLEMENTED, str(error), kind="server")
    if isinstance(error, (Unavailable, RedisError)):
        detail = f"{error}; see the setting for Redis, and whether it runs"
        reason = "Messages cannot be delivered at the moment."
        return try_again(HTTPStatus.SERVICE_UNAVAILABLE, reason, "Redis", detail)
    logger.error("Could not set up a WebSocket", exc_info=error)
    reason = "The WebSocket could not be set up; the site's log says why."
    return Refused(HTTPStatus.INTERNAL_SERVER_ERROR, reason, kind=FAILURE)


def _full(error: Full) -> Refused:
    metrics.reached(error.setting)
    setting, visitor = error.setting, error.visitor
    if setting == "MAX_CONNECTIONS":
        reason = "This server has as many WebSockets as it can hold."
        detail = (
            f"this worker has {len(engine().hub.admission)} WebSockets; raise MAX_CONNECTIONS, or the number of open "
            "files (ulimit -n), of which it takes three quarters, or start more workers"
        )
        return try_again(HTTPStatus.SERVICE_UNAVAILABLE, reason, setting, detail)
    if setting == "MAX_CONNECTIONS_PER_ADDRESS":
        detail = f"{visitor.address} has too many WebSockets; if it is a proxy, see TRUSTED_PROXIES"
    else:
        detail = f"the user with the primary key {visitor.user} has too many WebSockets; see {setting}"
    reason = "You have too many WebSockets open. Close some of them, perhaps in other windows."
    return try_again(HTTPStatus.TOO_MANY_REQUESTS, reason, setting, detail)


def _say_farewell(
    refused: Refused, subprotocols: Sequence[str], environ: dict[str, Any], start_response: Callable[..., Any]
) -> Iterable[bytes] | None:
    """Open the socket and close it, with the reason.

    Returns:
        the body of the response, which is empty; None if the client must get a response instead.
    """
    try:
        answer, _ = handshake.negotiate(environ, subprotocols)
        if ("Sec-WebSocket-Protocol", V1_DIALECT.name) not in answer:
            return None
        takeover = servers.claim(environ)
    except (Refused, Unsupported):
        return None
    farewells = engine().farewells
    seat = farewells.take(handshake.client_address(environ))
    if seat is None:
        return None
    try:
        taken = takeover.accept(start_response, answer)
        farewells.begin(taken, seat, SIGNED_OUT if refused.signed_out else REFUSED, refused.told)
    except Gone:
        farewells.give_back(seat)
        return []
    except BaseException:
        farewells.give_back(seat)
        raise
    return []


def _respond(refused: Refused, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if isinstance(refused, Denied):
        body, headers = refused.body, [*refused.headers]
    else:
        body, headers = f"{refused.reason}\n".encode(), [("Content-Type", "text/plain; charset=utf-8")]
        headers += [("Cache-Control", "no-store"), *refused.headers]
    headers += [("Content-Length", str(len(body))), *environ.get(READABLE, ())]
    start_response(f"{refused.status.value} {refused.status.phrase}", headers)
    # Servers send what they get: behind the answer to a HEAD it would be read as the next answer (RFC 9110, 9.3.2).
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]


__all__ = ["READABLE", "refusal", "reject", "request_line"]
