"""Finds out who makes a request, and which facts to keep while the socket is open. Queries the database.

A visitor is the user, the end of the session, and two hashes: of the user's credentials, and of the user's permissions.
:mod:`wsloop.visitors.session_watch` compares them later. This module must not know gevent or WebSockets.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.db import router
from django.db.models import Prefetch
from django.http import HttpRequest
from django.utils import timezone

from wsloop import addressees, conf
from wsloop.sockets.visitor import NOBODY, Visitor

ASK_AGAIN = 600.0  # seconds after which a session is queried again: some end without a signal, by SQL for example


def visitor(request: HttpRequest, address: str | None = None) -> Visitor:
    """Return the visitor who makes a request. Queries the database.

    Args:
        request: with ``user`` and ``session``, either of which may be missing or None; with ``token_expires`` if
            :func:`wsloop.tokens.authenticate` has signed the user in.
        address: for which the socket counts, see ``MAX_CONNECTIONS_PER_ADDRESS``.
    """
    user = getattr(request, "user", None)
    if not getattr(user, "is_authenticated", False):  # the session of an anonymous visitor signs nobody in
        return NOBODY if address is None else NOBODY._replace(address=address)
    user, session = request.user, getattr(request, "session", None)  # the user is no lazy one any more
    # A session of another kind (from PROCESS_REQUEST) cannot be looked up here later.
    key = session.session_key or None if isinstance(session, conf.session_store()) else None
    expires = getattr(request, "token_expires", None)
    if key is not None:
        read, end = getattr(session, "wsloop_end", (None, 0.0))  # see visitors.lookup
        expires = next_look(end if read == key else session_ends([key]).get(key, 0))
    return Visitor(getattr(user, "pk", None), key, address, expires, auth_hash(user), permissions_hash(user))


def presence_scope(request: HttpRequest, facility: str) -> tuple[str, str | None]:
    """Return where a socket is counted for presence: the facility, and the name of the user; None for nobody."""
    user = getattr(request, "user", None)
    return facility, user.get_username() if user and user.is_authenticated else None


def auth_hash(user: Any) -> int:
    """Return a hash of a user's credentials: it changes with the password and with ``is_active``.

    Returns:
        0 for users of another class than ``AUTH_USER_MODEL``, which the database does not know.
    """
    if not isinstance(user, get_user_model()) or user.pk is None:
        return 0
    # That with which the user has just been signed in, or a new one; working it out takes as long as a small query.
    password = vars(user).pop("wsloop_auth_hash", None) or getattr(user, "get_session_auth_hash", lambda: "")()
    return hash((password, getattr(user, "is_active", True))) or 1


def permissions_hash(user: Any) -> int:
    """Return a hash of what decides about a user's channels: groups with their names, staff and superuser status."""
    groups = sorted((str(group.pk), getattr(group, "name", "")) for group in addressees.user_groups(user) or ())
    return hash((tuple(groups), getattr(user, "is_staff", None), getattr(user, "is_superuser", None)))


def session_ends(keys: Iterable[str]) -> dict[str, float]:
    """Return the ends of sessions, in seconds since the epoch, by key; ended sessions are missing.

    Sessions in the database are queried together. Other stores only know how long a session lives after a change: for
    them it is the latest time at which the session can end.
    """
    stores = conf.session_store()
    if not hasattr(stores, "get_model_class"):
        return {key: end for key in keys if (end := _session_end(stores(key))) is not None}
    model = stores.get_model_class()
    found = model._default_manager.using(router.db_for_write(model)).filter(
        session_key__in=list(keys), expire_date__gt=timezone.now()
    )
    return {key: end.timestamp() for key, end in found.values_list("session_key", "expire_date")}


def next_look(end: float) -> float:
    """Return when to query a session again that should end at ``end``, in seconds since the epoch."""
    return min(end, time.time() + ASK_AGAIN)


def _session_end(session: Any) -> float | None:
    key = session.session_key
    content = session.load()
    if session.session_key != key or not (content or session.exists(key)):
        return None
    return float(session.get_expiry_date(expiry=content.get("_session_expiry")).timestamp())


def find_users(pks: Collection[Any]) -> dict[Any, tuple[int, int]]:
    """Return both hashes of users by primary key, from the database for writes."""
    if not pks:
        return {}
    model = get_user_model()
    users = model._default_manager.using(router.db_for_write(model))
    field = addressees.groups_field(model)
    if field is not None:
        groups = field.related_model._default_manager
        users = users.prefetch_related(Prefetch("groups", groups.using(router.db_for_write(groups.model))))
    return {pk: (auth_hash(user), permissions_hash(user)) for pk, user in users.in_bulk(list(pks)).items()}
