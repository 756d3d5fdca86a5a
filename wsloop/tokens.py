"""Signing in without a cookie, for scripts and mobile applications: a signed token that expires.

A view, or a command, makes the token for a user; the client sends it in the query, ``?token=…``, as a subprotocol,
``wsloop.token.…``, or in the header ``Authorization: Bearer wsloop.token.…`` (RFC 6750). It expires, and becomes
invalid with a change of the password or of ``is_active``. A token is a secret: it is removed from the request, so that
no log line or error of the site shows it.

This module must not know gevent, Redis or sockets.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.signing import BadSignature, Signer
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare

from wsloop import routing
from wsloop.addressees import facility_name
from wsloop.refusals import Refused

PARAMETER = "token"
SUBPROTOCOL = "wsloop.token."
SALT = "wsloop.tokens"
LONGEST_LIFE = 10**9  # seconds, 30 years
LONGEST = 2048  # bytes; one with the longest facility and a UUID as primary key has less than 1,400


def make(user: Any, max_age: float = 3600, facility: str | None = None) -> str:
    """Return a token that opens WebSockets in the name of ``user``.

    It consists of letters, digits, ``-``, ``_`` and ``.`` only, so it needs no quoting in a URL and is a legal
    subprotocol (RFC 6455, section 4.1).

    Args:
        user: of the site's user model, saved.
        max_age: seconds for which the token is valid; sockets opened with it are closed when it expires.
        facility: the only facility for which it is valid; None: all of them.

    Raises:
        ValueError: if the user is of another kind, or the age is not positive.
        TypeError, ValueError: if ``facility`` is not a valid name.
    """
    if not isinstance(user, get_user_model()) or user.pk is None:
        raise ValueError("a token is made for a saved user of the model AUTH_USER_MODEL")
    if type(max_age) not in (int, float) or not 0 < max_age <= LONGEST_LIFE:
        raise ValueError(f"max_age must be a positive number of seconds, up to {LONGEST_LIFE}, not {max_age!r}")
    if facility is not None:
        facility = facility_name(facility)
    current, *_ = _proofs(user)
    return _signer().sign_object([str(user.pk), current, round(time.time() + max_age, 3), facility])


def given(request: HttpRequest) -> str | None:
    """Return the token of a request, valid or not; None if the request has no token.

    Where code of the site serves the socket, a parameter of the same name that is no token of this site is that code's:
    many sites have a token of their own there. The same holds for a header without the prefix.
    """
    for name in (*_offered(request.META), _bearer(request.META)):
        if name.startswith(SUBPROTOCOL):
            return name.removeprefix(SUBPROTOCOL)
    token = request.GET.get(PARAMETER)
    return None if token is not None and routing.is_coded(request) and not _is_signed(token) else token


def authenticate(request: HttpRequest) -> bool:
    """Sign in the user whom the token of a request names, and return whether there was a token.

    Sets ``request.user``, ``request.session`` to None (a token takes precedence over a cookie),
    ``request.token_expires``, and ``request.token_facility``, the only one that it is for, or None. Removes the token
    from the request.

    Raises:
        Refused: 403, if there is a token and it is not valid.
    """
    token = given(request)
    if token is None:
        return False
    remove(request)
    found = _read(token, routing.facility(request))
    if found is None:
        reason = "The token is not valid, has expired, or is not for this address. Get a new one."
        raise Refused(HTTPStatus.FORBIDDEN, reason, kind="token", told=reason, signed_out=True)
    request.user, request.token_expires, request.token_facility = found  # type: ignore[attr-defined]
    request.session = None  # type: ignore[assignment]
    return True


def _is_signed(token: str) -> bool:
    """Return whether this site has made a token, which may have expired since."""
    try:
        return len(token) <= LONGEST and bool(_signer().unsign(token))
    except BadSignature:
        return False


def _read(token: str, facility: str) -> tuple[Any, float, str | None] | None:
    """Return the user that a token names, its expiry, in seconds since the epoch, and its facility; None if it is not
    valid.
    """
    if len(token) > LONGEST:
        return None
    try:
        pk, proof, expires, only = _signer().unsign_object(token)
        if expires <= time.time() or only not in (None, facility):
            return None
        model = get_user_model()
        user = model._default_manager.get(pk=pk)
    except (BadSignature, ValueError, TypeError, ValidationError, get_user_model().DoesNotExist):
        return None
    if not getattr(user, "is_active", True) or not any(constant_time_compare(proof, each) for each in _proofs(user)):
        return None
    return user, expires, only


def _proofs(user: Any) -> list[str]:
    """Return the valid hashes of this user's password, under the present and former secret keys of the site."""
    present = getattr(user, "get_session_auth_hash", lambda: "")()
    former = getattr(user, "get_session_auth_fallback_hash", lambda: ())()
    return [hashlib.sha256(f"{SALT}:{each}".encode()).hexdigest()[:32] for each in (present, *former)]


def _signer() -> Signer:
    return Signer(salt=SALT, sep=".")


def _offered(environ: Mapping[str, Any]) -> list[str]:
    return [each.strip() for each in environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(",")]


def _bearer(environ: Mapping[str, Any]) -> str:
    words = environ.get("HTTP_AUTHORIZATION", "").split(None, 1)
    return words[1].strip() if len(words) > 1 and words[0].lower() == "bearer" else ""


def remove(request: HttpRequest) -> None:
    """Remove the token from a request, so that no log line or error of the site shows it."""
    others = request.GET.copy()
    others.pop(PARAMETER, None)
    request.GET = others  # type: ignore[assignment]
    query = request.META["QUERY_STRING"] = others.urlencode()
    for name in ("REQUEST_URI", "RAW_URI"):  # uWSGI's and gunicorn's
        if name in request.META:
            request.META[name] = request.META[name].partition("?")[0] + (query and f"?{query}")
    remove_from_headers(request.META)
    request.__dict__.pop("headers", None)  # Django works them out once


def remove_from_headers(environ: dict[str, Any]) -> None:
    """Remove the token from the headers of a request alone: a ``token`` in its query may be another one.

    Args:
        environ: of the request, which is changed (PEP 3333).
    """
    if "HTTP_SEC_WEBSOCKET_PROTOCOL" in environ:
        names = [name for name in _offered(environ) if not name.startswith(SUBPROTOCOL)]
        environ["HTTP_SEC_WEBSOCKET_PROTOCOL"] = ", ".join(names)
    if _bearer(environ).startswith(SUBPROTOCOL):
        del environ["HTTP_AUTHORIZATION"]


__all__ = ["authenticate", "given", "make", "remove", "remove_from_headers"]
