"""The way of a handshake, from the request of the WSGI server to an open socket or a response that says why not.

How it works. The stages run in the request's greenlet, where blocking is allowed, cheap ones first: sizes, negotiation,
the server's connection, its turn, a seat, the Origin, the visitor, the policy. Each adds to a plan
(:class:`wsloop.sockets.plan.Plan`), which :class:`wsloop.opening.Opening` carries out. Only when Redis has acknowledged
the subscriptions does the 101 go out: open means subscribed. Then the connection belongs to the hub and the request
ends. What a stage raises is answered by :mod:`wsloop.rejection`. This module must not know the sockets of the
operating system.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from http import HTTPStatus
from time import monotonic
from typing import Any
from urllib.parse import unquote

from django.core.handlers.wsgi import WSGIRequest
from websockets.extensions import Extension

from wsloop import conf, handshake, identity, metrics, routing, streams, tokens
from wsloop.asgi_scope import asgi_scope
from wsloop.db import close_databases
from wsloop.deadline import deadline
from wsloop.engine import engine
from wsloop.facilities import posted
from wsloop.facilities.decision import decide
from wsloop.facilities.hooks import Hooks
from wsloop.facilities.page_socket import PageHandler
from wsloop.facilities.setup import FacilityService
from wsloop.opening import Opening, Service
from wsloop.origin import check_origin, cors, preflight
from wsloop.protocol import deflate
from wsloop.protocol.commands import parse
from wsloop.protocol.dialects import BARE, CONSUMER, DIALECTS, Dialect
from wsloop.refusals import try_again
from wsloop.rejection import READABLE, refusal, reject, request_line
from wsloop.runtime.applications import Hosted
from wsloop.runtime.setup import ConsumerService
from wsloop.sockets import census, servers
from wsloop.sockets.limits import Bounds
from wsloop.sockets.plan import Plan
from wsloop.sockets.takeover import SWITCHING, Gone, Headers
from wsloop.sockets.transport import has_hung_up
from wsloop.visit import Visit

logger = logging.getLogger("wsloop.server")

APPLICATION = "(asgi)"  # stands for the facility of a socket that the site's one application serves


def serve(hooks: Hooks, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Open the socket that a request asks for, or answer with a refusal. Blocks; the socket needs it no longer.

    Args:
        hooks: of the site.
        environ, start_response: as of WSGI (PEP 3333).

    Returns:
        the body of the response; of an open socket nothing.
    """
    began = monotonic()
    try:
        if tokens.PARAMETER in unquote(environ.get("QUERY_STRING", "")).lower():
            server_environ, environ = environ, dict(environ)
            servers.keep_out_of_log(server_environ)
            start_response = _log_without_token(environ, start_response)
        if streams.is_command(environ):
            return _command(hooks, environ, start_response)
        with deadline(), ExitStack() as stack:
            opening = _set_up(hooks, environ, stack)
        opening.open(start_response)
        metrics.handshake("opened", monotonic() - began)
        return []
    except Gone as exc:
        metrics.handshake("left", monotonic() - began)
        logger.debug("The client hung up before the 101: %s", exc.__cause__)
        return []
    except Exception as exc:
        refused = refusal(exc)
        metrics.handshake(str(refused.status.value), monotonic() - began)
        return reject(refused, hooks.subprotocols, environ, start_response)
    finally:
        close_databases()


def _set_up(hooks: Hooks, environ: dict[str, Any], stack: ExitStack) -> Opening:
    """Run all stages before the 101, and return the prepared opening; ``stack`` ends when that is done."""
    request = WSGIRequest(environ)
    facility = routing.facility(request)
    handshake.check_sizes(environ, facility)
    options = conf.facility(facility)
    match = hooks.routes.match(request.path_info)
    application = hooks.application if match is None else match.application
    coded = match is not None or application is not None  # otherwise it is a facility
    request._wsloop_coded = coded  # type: ignore[attr-defined]
    spoken = (BARE.name,) if coded else hooks.subprotocols
    status, first = SWITCHING, b""
    answer: Iterable[tuple[str, str]]
    extensions: list[Extension] = []
    dialect: Dialect
    if streams.wants_events(environ) and not coded:
        dialect = streams.negotiate(request, spoken)
        status, answer = "200 OK", streams.head(request)
        first = streams.body(request) if request.method == "POST" else b""
    else:
        answer, extensions = handshake.negotiate(environ, spoken, _compresses(facility, options))
        subprotocol = dict(answer).get("Sec-WebSocket-Protocol", "")  # the site may have names of its own
        dialect = CONSUMER if coded else DIALECTS.get(subprotocol, BARE)
    # Before authentication takes a token out of the request.
    visit = Visit(environ) if dialect.has_envelopes and not facility else None
    takeover = servers.claim(environ)
    process = engine()
    if stack.enter_context(process.handshakes.turn()) and has_hung_up(takeover.descriptor()):
        raise Gone("it has not waited")
    seat = process.hub.admission.take()
    try:
        check_origin(request)
        if status != SWITCHING:
            environ[READABLE] = cors(request)
        generation = process.session_watch.generation()  # before the database is asked
        hooks.authenticate(request)
        seat.assign(identity.visitor(request, handshake.client_address(environ)))
        plan = Plan(
            status=status,
            answer=tuple(answer),
            deflate=deflate.parameters(extensions),
            dialect=dialect.name,
            bounds=_bounds(),
            visitor=seat.visitor,
            generation=generation,
            presence_scope=identity.presence_scope(request, facility) if coded and options.presence else None,
            place=(match.route if match is not None else APPLICATION, "none"),
        )
        service: Service
        if application is not None:
            consumer, scope = Hosted(application), asgi_scope(request)
            if match is not None:
                scope |= routing.captured(match)
            service = ConsumerService(process.consumer_runtime, process.broker, plan, consumer, scope)
        elif match is not None:
            scope = routing.scope(request, match)
            service = ConsumerService(process.consumer_runtime, process.broker, plan, match.make(), scope)
        else:
            planned = decide(hooks, request, facility, dialect)
            place = census.place(facility, planned.plan.channels)
            plan = plan._replace(presence_scope=planned.plan.presence_scope, place=place)
            handler = None if visit is None else PageHandler(process.facilities, hooks, visit, planned)
            service = FacilityService(process.facilities, dialect, planned, handler, first)
        opening = Opening(process, takeover, seat, plan, service)
    except BaseException:
        seat.give_back()
        raise
    opening.prepare()
    return opening


def _command(hooks: Hooks, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Carry out a command that was posted. Blocks as long as the site's code does."""
    request = WSGIRequest(environ)
    facility = routing.facility(request)
    handshake.check_sizes(environ, facility)
    if hooks.is_coded(request.path_info):
        handshake.negotiate(environ, ())  # a consumer has a WebSocket only
    check_origin(request)
    environ[READABLE] = cors(request)
    if request.method == "OPTIONS":
        start_response("204 No Content", preflight(request))
        return []
    visit = Visit(environ)  # before authentication takes a token out of the request
    body = streams.body(request)
    with deadline():
        hooks.authenticate(request)
        visitor = identity.visitor(request, handshake.client_address(environ))
    if engine().hub.admission.exceeded_rate(visitor, _bounds()):
        metrics.reached("RATE_LIMIT")
        detail = f"{visitor.address or 'a client'} has posted more than twenty times RATE_LIMIT"
        raise try_again(HTTPStatus.TOO_MANY_REQUESTS, "You have sent too many messages.", "RATE_LIMIT", detail)
    status, frame = posted.carry_out(hooks, request, visitor, visit, parse(body, True))
    headers = [("Content-Type", streams.JSON), ("Cache-Control", "no-store"), ("Content-Length", str(len(frame)))]
    start_response(f"{status.value} {status.phrase}", [*headers, *cors(request)])
    return [frame]


def _compresses(facility: str, options: conf.Facility) -> bool:
    """Return whether a socket may negotiate compression; that of a whole page may carry messages of any facility."""
    if conf.option("COMPRESS_FROM") is None:
        return False
    others = () if facility else conf.option("FACILITIES").values()
    return all(each.compression for each in (options, *others))


def _bounds() -> Bounds:
    rate, burst = conf.option("RATE_LIMIT") or (None, 0)
    sizes = conf.option("MAX_MESSAGE_SIZE"), conf.option("MAX_QUEUED_BYTES")
    return _shared(Bounds(*sizes, rate, burst, conf.compress_from()))


@functools.lru_cache(maxsize=4)
def _shared(bounds: Bounds) -> Bounds:
    """Return one object for equal ones: each connection keeps it."""
    return bounds


def _log_without_token(environ: dict[str, Any], start_response: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``start_response`` that logs the request without its secret."""
    line = request_line(environ)

    def logged(status: str, headers: Headers) -> Any:
        logger.info("%s %s", line, status)
        return start_response(status, headers)

    return logged


__all__ = ["Hooks", "serve"]
