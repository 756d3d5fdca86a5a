"""The views of the server API: who may ask what, and the answer as JSON.

A program shows one of ``WSLOOP["API_KEYS"]`` in the header ``Authorization``. Cookies are not looked at, so no page can
ask for its visitor, and no CSRF token is needed. Session keys and messages are in bodies, which no server logs.
"""

from __future__ import annotations

import base64
import functools
import hmac
import logging
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from redis.exceptions import RedisError

from wsloop import api, conf, streams
from wsloop.http_api import schema
from wsloop.protocol import strict_json
from wsloop.protocol.messages import as_json
from wsloop.refusals import RETRY_AFTER, Refused, refusals, sentence
from wsloop.sockets.limits import SHARED, Bucket

logger = logging.getLogger("wsloop.http_api")

SCHEME = "bearer "
# Of a request, beside what may wait for a socket: a message that is larger could not be delivered. Base64 and escapes
# need more than the message itself.
MOST_BODY = 2  # times MAX_QUEUED_BYTES

# Of bodies that are not read.
CODES = {
    HTTPStatus.BAD_REQUEST: "incomplete",
    HTTPStatus.LENGTH_REQUIRED: "length",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too_large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "content_type",
}

_buckets: dict[str, Bucket] = {}  # by the name of the key


class Problem(Exception):
    """The answer is an error.

    Args:
        status: of the response.
        code: for programs.
        message: for people: what is wrong, and what to do.
        headers: further ones.
    """

    def __init__(self, status: HTTPStatus, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.response = JsonResponse({"error": {"code": code, "message": message}}, status=status)
        for name, value in headers.items():
            self.response[name.replace("_", "-")] = value


def _publish(body: dict[str, Any]) -> dict[str, Any]:
    message = body.pop("data", None)
    if "base64" in body:
        try:
            message = base64.b64decode(body.pop("base64"), validate=True)
        except ValueError:
            raise ValueError("base64 must be Base64 (RFC 4648, section 4)") from None
    api.publish(message, **body)
    return {}


def _history(body: dict[str, Any]) -> dict[str, Any]:
    entries = api.history(**body)
    return {
        "messages": [
            {"offset": each.message.offset, "time": each.time, **as_json(each.message.payload)} for each in entries
        ]
    }


def _presence(body: dict[str, Any]) -> dict[str, Any]:
    return api.presence(**body)._asdict()


def _counts(body: dict[str, Any]) -> dict[str, Any]:
    return api.counts(**body)._asdict()


def _listeners(body: dict[str, Any]) -> dict[str, Any]:
    return {"listeners": api.listeners(**body)}


def _disconnect(body: dict[str, Any]) -> dict[str, Any]:
    return {"sockets": api.disconnect(**body)}


# By name: what a key must be allowed, and what does it.
OPERATIONS: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "publish": ("publish", _publish),
    "history": ("read", _history),
    "presence": ("read", _presence),
    "counts": ("read", _counts),
    "listeners": ("read", _listeners),
    "disconnect": ("disconnect", _disconnect),
}


def _complete(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Keep the body of an answer to HEAD, which uWSGI would send, and Django's own line about each refusal, from it.

    What is worth a line of the log, wsloop writes within its bounds.
    """

    @functools.wraps(view)
    def complete(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = view(request, *args, **kwargs)
        if request.method == "HEAD":
            response.content = b""
        response._has_been_logged = True  # type: ignore[attr-defined]
        return response

    return complete


@csrf_exempt
@never_cache
@_complete
def operation(request: HttpRequest, name: str) -> HttpResponse:
    """Carry out an operation of the server API. Its description, ``openapi.json``, has requests and answers."""
    try:
        key = _authenticate(request)
        if request.method != "POST":
            raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, "method", "Use POST, with a body in JSON.", Allow="POST")
        needed, carry_out = OPERATIONS[name]
        if needed not in conf.option("API_KEYS")[key].may:
            raise Problem(HTTPStatus.FORBIDDEN, "forbidden", f"This key may not do that; it lacks {needed!r}.")
        body = _body(request)
        schema.check(name, body)
        answer = carry_out(body)
    except Problem as exc:
        return exc.response
    except ObjectDoesNotExist as exc:
        return Problem(HTTPStatus.NOT_FOUND, "unknown_user", sentence(exc)).response
    except (TypeError, ValueError) as exc:
        return Problem(HTTPStatus.BAD_REQUEST, "invalid", sentence(exc)).response
    except (RedisError, OSError) as exc:
        logger.warning("Could not carry out %s: %s", name, exc)
        text = "Redis cannot be reached at the moment. Try again in a few seconds, a message with the same key."
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", text, Retry_After=str(RETRY_AFTER)).response
    if name == "disconnect":
        logger.info("The key %s has disconnected %d sockets", key, answer["sockets"])
    return JsonResponse(answer)


@csrf_exempt
@never_cache
@_complete
def description(request: HttpRequest) -> HttpResponse:
    """Return the description of the server API (OpenAPI 3.1)."""
    try:
        _authenticate(request)
        if request.method not in ("GET", "HEAD"):
            raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, "method", "Use GET.", Allow="GET, HEAD")
    except Problem as exc:
        return exc.response
    return HttpResponse(schema.text(), content_type=streams.JSON)


def _authenticate(request: HttpRequest) -> str:
    """Return the name of the key that a request shows.

    Raises:
        Http404: if the site has no keys.
        Problem: 401 or 429.
    """
    keys = conf.option("API_KEYS")
    if not keys:
        raise Http404("The server API is off; see API_KEYS in WSLOOP.")
    given = request.headers.get("Authorization", "")
    token = given[len(SCHEME) :].strip().encode(errors="replace") if given.lower().startswith(SCHEME) else b""
    # All are compared, so that the time tells nothing of the place of one.
    found = [name for name, key in keys.items() if hmac.compare_digest(key.token.encode(), token)]
    if not found:
        why = "no token of a key" if given else "no header Authorization"
        refusals.log(logging.WARNING, "server API", "%s; see API_KEYS in WSLOOP", why)
        text = "Send the token of one of the site's keys: Authorization: Bearer TOKEN."
        raise Problem(HTTPStatus.UNAUTHORIZED, "unauthorized", text, WWW_Authenticate='Bearer realm="wsloop"')
    if _too_fast(found[0]):
        text = "This key has sent too many requests. Try again in a few seconds."
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "rate", text, Retry_After=str(RETRY_AFTER))
    return str(found[0])


def _too_fast(name: str) -> bool:
    limit = conf.option("RATE_LIMIT")
    if limit is None:
        return False
    rate, burst = (SHARED * each for each in limit)
    bucket, now = _buckets.setdefault(name, Bucket()), monotonic()
    if bucket.full(rate, burst, now):
        return True
    bucket.add(1, rate, now)
    return False


def _body(request: HttpRequest) -> Any:
    """Return the body of a request, decoded.

    Raises:
        Problem: see :func:`wsloop.streams.body`.
        ValueError: if it is not JSON.
    """
    try:
        return strict_json.decode(streams.body(request, "MAX_QUEUED_BYTES", MOST_BODY))
    except Refused as exc:
        raise Problem(exc.status, CODES[exc.status], exc.reason) from None
    except strict_json.NotJson as exc:
        raise ValueError(f"the body must be JSON: {exc}") from None


__all__ = ["OPERATIONS", "description", "operation"]
