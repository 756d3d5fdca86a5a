"""The page, what it asks for, and its actions, which are for staff and logged with the name of who did it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect, ensure_csrf_cookie
from django.views.decorators.http import require_POST, require_safe
from redis.exceptions import RedisError

from wsloop import api, conf
from wsloop.backend import asking
from wsloop.ops.access import is_staff
from wsloop.ops.consumer import PATH
from wsloop.ops.feed import names
from wsloop.protocol.close_codes import CLOSE_CODES
from wsloop.refusals import sentence

logger = logging.getLogger("wsloop.ops")

SHOWN = 50  # messages of a history
LONGEST = 2000  # characters of a message that are shown
MOST_MESSAGE = 64 * 1024  # characters of a message to a user

View = Callable[[HttpRequest], HttpResponseBase]


class _Wrong(Exception):
    """The request cannot be met; the text says why."""


def _for_staff(view: Callable[[HttpRequest], dict[str, Any]]) -> View:
    """Make a view of a function that returns the answer, as JSON."""

    @never_cache
    @functools.wraps(view)
    def for_staff(request: HttpRequest) -> HttpResponseBase:
        if not is_staff(getattr(request, "user", None)):
            return JsonResponse({"error": "Only staff may do this. Sign in again."}, status=HTTPStatus.FORBIDDEN)
        try:
            return JsonResponse(view(request))
        except get_user_model().DoesNotExist as exc:
            return JsonResponse({"error": sentence(exc)}, status=HTTPStatus.NOT_FOUND)
        except (_Wrong, TypeError, ValueError) as exc:
            return JsonResponse({"error": sentence(exc)}, status=HTTPStatus.BAD_REQUEST)
        except (RedisError, OSError) as exc:
            logger.warning("Could not answer the page of staff: %s", exc)
            return JsonResponse({"error": "Redis does not answer."}, status=HTTPStatus.SERVICE_UNAVAILABLE)

    return for_staff


@require_safe
@never_cache
@ensure_csrf_cookie
def page(request: HttpRequest) -> HttpResponse:
    """Show the page.

    Raises:
        PermissionDenied: if a user who is not of the staff has signed in.
    """
    user = getattr(request, "user", None)
    if not is_staff(user):
        if getattr(user, "is_authenticated", False):
            raise PermissionDenied
        return redirect_to_login(request.get_full_path())
    codes = {code: row.meaning for code, row in CLOSE_CODES.items()}
    return render(request, "wsloop/ops.html", {"socket": f"{conf.websocket_url()}{PATH}", "codes": codes})


@require_safe
@_for_staff
def user(request: HttpRequest) -> dict[str, Any]:
    """Return the sockets of the user with the ``name`` in the query."""
    return _sockets({"user": str(_user(request.GET.get("name", "")).pk)})


@require_safe
@_for_staff
def facility(request: HttpRequest) -> dict[str, Any]:
    """Return who listens to the facility with the ``name`` in the query, and its newest messages to everybody."""
    name = request.GET.get("name", "").strip()
    answer = _sockets({"facility": name})  # with what is not the name of a facility the next line says so
    history = api.history(facility=name, broadcast=True, limit=SHOWN) if conf.facility(name).size else []
    answer["size"] = conf.facility(name).size
    answer["history"] = [{"time": entry.time / 1e6, **_shown(entry.message.payload)} for entry in reversed(history)]
    return answer


@require_POST
@csrf_protect
@_for_staff
def message(request: HttpRequest) -> dict[str, Any]:
    """Publish a ``text`` to the user ``name``, on a ``facility``."""
    found, text = _user(request.POST.get("name", "")), request.POST.get("text", "")
    name = request.POST.get("facility", "").strip()
    if not name:
        raise _Wrong("a facility is needed")
    if not text.strip():
        raise _Wrong("the message is empty")
    if len(text) > MOST_MESSAGE:
        raise _Wrong(f"the message is longer than {MOST_MESSAGE} characters")
    api.publish(text, facility=name, users=found, expire=0)
    logger.warning("%r sent a message of %d characters to %r on %r", _who(request), len(text), _name(found), name)
    return {"sockets": api.listeners(facility=name, users=found)}


@require_POST
@csrf_protect
@_for_staff
def disconnect(request: HttpRequest) -> dict[str, Any]:
    """Close the sockets of the user ``name``, on all workers; their clients do not come back by themselves."""
    found = _user(request.POST.get("name", ""))
    sockets = api.disconnect(user=found, reason="disconnected by the site's staff")
    logger.warning("%r disconnected %r: %d sockets", _who(request), _name(found), sockets)
    return {"sockets": sockets}


def _sockets(whose: dict[str, str]) -> dict[str, Any]:
    given, missing = asking.ask("sockets", whose)
    shown = [socket for answer in given for socket in answer["shown"]]
    known = names({socket["user"] for socket in shown})
    for socket in shown:
        socket["name"] = known.get(socket.pop("user"))
    return {"sockets": sum(answer["sockets"] for answer in given), "shown": shown, "missing": missing}


def _user(name: str) -> Any:
    model: Any = get_user_model()
    if not name.strip():
        raise _Wrong("a name is needed")
    try:
        return model._default_manager.get_by_natural_key(name.strip())
    except model.DoesNotExist:
        raise model.DoesNotExist("there is no user with this name") from None


def _name(found: Any) -> str:
    return str(found.get_username())


def _who(request: HttpRequest) -> str:
    return _name(request.user)


def _shown(payload: bytes) -> dict[str, Any]:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return {"text": None, "size": len(payload)}
    return {"text": text[:LONGEST], "size": len(payload)}
