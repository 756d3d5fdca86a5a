"""``token``: what a single-page application needs for its first socket and its first form, as JSON; ``metrics``: what a
Prometheus server reads.

The first asks the site's policy as the handshake of a socket does. This module must not know gevent or sockets.
"""

from __future__ import annotations

import hmac
import logging
import re
from http import HTTPStatus

from django.core.exceptions import PermissionDenied
from django.core.handlers.wsgi import WSGIRequest
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe
from redis.exceptions import RedisError

from wsloop import addressees, conf, exposition, publisher, snapshots
from wsloop.facilities import policy, subscriptions
from wsloop.origin import check_origin
from wsloop.refusals import NOT_ALLOWED, Refused, refusals, shown
from wsloop.visit import Visit

logger = logging.getLogger("wsloop.views")

AUDIENCES = ("broadcast", "user", "group", "session")


class _Wrong(Exception):
    """The query is wrong; the text says how."""


@require_safe
@never_cache
@ensure_csrf_cookie
def token(request: HttpRequest) -> JsonResponse:
    """Give a page that no template has rendered the token of its socket, and the CSRF token of its forms.

    The query has ``facility`` and, once for each, ``audience``: "broadcast", "user", "group" or "session". Without a
    facility the answer has the CSRF token alone. The other token is for the channels that a socket of this visitor
    would get, and for no others: the same Origins are allowed, the user is that of the session or whom
    ``PROCESS_REQUEST`` finds, ``POLICY`` decides, and ``SUBSCRIBER`` works the channels out.

    Returns:
        ``csrf_token``; with a facility also ``token``, which is empty if the facility has no recovery or Redis does not
        answer, and ``audiences``, those that are allowed. Or ``error``, a sentence, with 400 if the query is wrong, and
        403 if the Origin or all audiences are refused. Never cached.
    """
    answer: dict[str, object] = {"csrf_token": get_token(request)}
    if request.GET:
        try:
            answer |= _positions(request)
        except _Wrong as exc:
            return JsonResponse({"error": str(exc)}, status=HTTPStatus.BAD_REQUEST)
        except Refused as exc:
            refusals.refused(exc, f"GET {shown(request.path)}")
            return JsonResponse({"error": exc.reason}, status=exc.status)
        except PermissionDenied:
            return JsonResponse({"error": NOT_ALLOWED}, status=HTTPStatus.FORBIDDEN)
    return JsonResponse(answer)


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """Show the metrics of all workers of this machine to Prometheus, in the format that it asks for.

    For staff who have signed in, and with the header ``Authorization: Bearer …`` for whoever knows
    ``WSLOOP["METRICS_TOKEN"]``.

    Returns:
        the metrics, see ``docs/reference/metrics.rst``; 503 if Redis does not answer.

    Raises:
        Http404: for everybody else: nobody learns that there is something.
    """
    user = getattr(request, "user", None)
    if not (_has_token(request) or (getattr(user, "is_active", False) and getattr(user, "is_staff", False))):
        raise Http404
    try:
        workers, missing = snapshots.here()
    except (RedisError, OSError) as exc:
        logger.warning("Answered without metrics: %s", exc)
        return HttpResponse("Redis does not answer.\n", "text/plain", HTTPStatus.SERVICE_UNAVAILABLE)
    body, content_type = exposition.text(workers, missing, request.headers.get("Accept", ""))
    return HttpResponse(body, content_type)


def _has_token(request: HttpRequest) -> bool:
    token = conf.option("METRICS_TOKEN")
    given = re.fullmatch("bearer +([!-~]+) *", request.headers.get("Authorization", ""), re.IGNORECASE)
    return token is not None and given is not None and hmac.compare_digest(given[1], token)


def _positions(request: HttpRequest) -> dict[str, object]:
    facility, wanted = _asked(request)
    handshake = _handshake(request, facility, wanted)
    check_origin(handshake)
    wanted = policy.ask(conf.option("POLICY"), handshake, wanted)
    audiences = [each for each in AUDIENCES if f"subscribe-{each}" in wanted]
    if not audiences:
        raise PermissionDenied
    given = subscriptions.subscriber_class(conf.subscriber_path())
    subscriber = subscriptions.work_out(given, handshake, facility, wanted)
    channels = list(subscriber._subscription.channels)
    subscriptions.release(subscriber)
    try:
        positions = publisher.token(facility, channels, "group" in audiences)
    except RedisError as exc:
        logger.warning("Answered without the token of a WebSocket: %s", exc)
        positions = ""
    return {"token": positions, "audiences": audiences}


def _asked(request: HttpRequest) -> tuple[str, list[str]]:
    """Return the facility and the channels, such as ``subscribe-user``, that the query asks for."""
    names, audiences = request.GET.getlist("facility"), request.GET.getlist("audience")
    if len(names) != 1 or not audiences or not set(audiences) <= set(AUDIENCES):
        raise _Wrong(
            f"The query must have one facility, and one or several audiences of {', '.join(AUDIENCES)}: "
            "?facility=orders&audience=user&audience=broadcast"
        )
    try:
        return addressees.facility_name(names[0]), [f"subscribe-{each}" for each in dict.fromkeys(audiences)]
    except ValueError as exc:
        raise _Wrong(str(exc)) from None


def _handshake(request: HttpRequest, facility: str, wanted: list[str]) -> WSGIRequest:
    """Return the request with which a socket of this visitor would be opened, as the site's own code expects it."""
    environ = {**request.META, "QUERY_STRING": "", "wsgi.url_scheme": request.scheme}
    handshake = Visit(environ).handshake(f"{conf.websocket_url()}{facility}", dict.fromkeys(wanted, ""))
    process_request = conf.option("PROCESS_REQUEST")
    if process_request is not None:
        process_request(handshake)
    else:
        handshake.user = getattr(request, "user", None)  # type: ignore[assignment]
        handshake.session = getattr(request, "session", None)  # type: ignore[assignment]
    return handshake
