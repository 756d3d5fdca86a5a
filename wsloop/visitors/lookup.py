"""Looks up sessions, users and groups for all handshakes that wait at the same time, with one query of each.

A query costs Django more to make than the database to answer, and a handshake needs three: thousands of clients that
come back at once would keep the worker from all else. So a greenlet asks for all that wait, and keeps its connection to
the database for the next ones. It does only what Django's own classes do. Where a class is another one, where anything
is not as it should be, and inside a transaction, Django asks for the one request, and reports its own errors. This
module must not know WebSockets.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Collection, Sequence
from typing import Any, cast

from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user,
    get_user_model,
    load_backend,
)
from django.contrib.auth.backends import ModelBackend
from django.contrib.sessions.backends.db import SessionStore
from django.db import connections as databases
from django.db import router
from django.db.models import F, QuerySet
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.functional import SimpleLazyObject
from gevent.event import AsyncResult, Event

from wsloop import addressees, conf
from wsloop.batch_queue import batches
from wsloop.db import give_back
from wsloop.deadline import deadline
from wsloop.greenlets import spawn
from wsloop.visitors.rows import is_plain, read

logger = logging.getLogger("wsloop.handshake")

MOST = 100  # sessions in one query
LINGER = 1.0  # seconds for which the connection to the database is kept for the next handshakes


class Waiting:
    """A handshake that waits.

    Attributes:
        session: whose key the client has sent; filled with the row of the database.
        user: whom the session names, with the groups; None: nobody, or Django has to find out.
    """

    __slots__ = ("answer", "session", "user")

    def __init__(self, session: Any) -> None:
        self.session = session
        self.user: Any = None
        self.answer: AsyncResult[None] = AsyncResult()


class Lookup:
    """Signs in the visitors of handshakes, in one process."""

    def __init__(self) -> None:
        self._waiting: list[Waiting] = []
        self._more = Event()
        self._running = False

    def sign_in(self, request: Any, key: str) -> None:
        """Set ``request.session`` and ``request.user`` as Django's middleware does: lazily. To read the user may block.

        A session that was signed with one of ``SECRET_KEY_FALLBACKS`` keeps its key: Django would give it another, and
        there is no response here that could tell the browser, which would then be signed out.

        Args:
            request: of the handshake.
            key: of the session, from its cookie.
        """
        request.session = session = conf.session_store()(key)
        session.cycle_key = _keep_key

        def find() -> Any:
            user = self._user(request)
            if vars(request).get("user") is lazy:
                request.user = user  # each look at a lazy one is a call, and a handshake has dozens of them
            return user

        request.user = lazy = SimpleLazyObject(find)

    def _user(self, request: Any) -> Any:
        session = request.session
        user = self._look_up(session) if _is_looked_up(session) and not _in_transaction() else None
        return user if _has_signed_in(user, session) else get_user(request)

    def _look_up(self, session: SessionStore) -> Any:
        waiting = Waiting(session)
        self._waiting.append(waiting)
        self._more.set()
        if not self._running:
            self._running = True
            spawn(self._run)
        waiting.answer.get()
        return waiting.user

    def _run(self) -> None:
        try:
            # Looked at once more, for the wait may end without success just when one has come.
            while self._waiting or self._more.wait(LINGER) or self._waiting:
                self._more.clear()
                together, self._waiting = self._waiting, []
                for batch in batches(together, MOST):
                    self._answer(batch)
        finally:
            self._running = False
            give_back()

    def _answer(self, batch: Sequence[Waiting]) -> None:
        try:
            with deadline():
                fill(batch)
        except Exception as exc:  # each of them asks by itself, and reports what is wrong
            logger.debug("Could not look up %d sessions together: %s", len(batch), type(exc).__name__)
            give_back()
        finally:
            for each in batch:
                each.answer.set()


def fill(batch: Sequence[Waiting]) -> None:
    """Look up the sessions of a batch, and their users. Queries the database."""
    named: dict[Any, list[Waiting]] = {}
    present = _sessions(type(batch[0].session).get_model_class(), {each.session.session_key for each in batch})
    for each in batch:
        row = present.get(each.session.session_key)
        if row is None:
            each.session._session_key = None  # as Django does; nothing is loaded then
            continue
        each.session._get_session_from_db = functools.partial(_same, row)
        each.session.wsloop_end = row.session_key, row.expire_date.timestamp()
        if (pk := _user_key(each.session)) is not None:
            named.setdefault(pk, []).append(each)
        del each.session._get_session_from_db  # it is loaded; a consumer would keep the row as long as its session
    users = _users(get_user_model(), list(named))
    for pk, sockets in named.items():
        for number, each in enumerate(sockets):
            user = users.get(pk)
            each.user = copy.copy(user) if number else user  # the site may change what is its request's own


def _sessions(model: Any, keys: Collection[str]) -> dict[str, Any]:
    """Return the rows of sessions that have not ended, by key."""
    if not is_plain(model.objects):
        raise TypeError(f"{model.__name__} has a manager of its own")
    found = read(model.objects, "session_key", model._meta.get_field("session_key"), keys, router.db_for_read(model))
    now = timezone.now()
    return {row.session_key: row for row in found if row.expire_date > now}


def _users(model: Any, keys: Collection[Any]) -> dict[Any, Any]:
    """Return users by primary key, with their groups."""
    manager = model._default_manager
    if not is_plain(manager):
        return {}
    users = {user.pk: user for user in read(manager, "pk", model._meta.pk, keys, router.db_for_read(model))}
    field = addressees.groups_field(model)
    if users and field is not None and is_plain(field.related_model._default_manager):
        _add_groups(field, users)
    return users


def _add_groups(field: Any, users: dict[Any, Any]) -> None:
    """Have users know their groups, as ``prefetch_related()`` does."""
    model, name = field.related_model, field.related_query_name()
    using = router.db_for_read(model, instance=next(iter(users.values())))
    of: dict[Any, list[Any]] = {pk: [] for pk in users}
    for group in read(model._default_manager, name, field.model._meta.pk, of, using, wsloop_user=F(f"{name}__pk")):
        of[group.wsloop_user].append(group)
    for pk, user in users.items():
        known: Any = QuerySet(model, using=using)
        known._result_cache, known._prefetch_done = of[pk], True
        user._prefetched_objects_cache = {field.name: known}


def _same(row: Any) -> Any:
    return row


def _keep_key() -> None:
    pass


def _user_key(session: SessionStore) -> Any:
    """Return the primary key of the user whom a session names, if it is Django's own backend that finds users."""
    try:
        path = session.get(BACKEND_SESSION_KEY)
        if path in conf.authentication_backends() and type(load_backend(path)).get_user is ModelBackend.get_user:
            return get_user_model()._meta.pk.to_python(session.get(SESSION_KEY))
    except Exception as exc:  # of a session that cannot be read: it concerns nobody else
        logger.debug("Could not read a session: %s", type(exc).__name__)
    return None


def _has_signed_in(user: Any, session: SessionStore) -> bool:
    """Return whether Django's ``get_user()`` would return this user for a session; if not, it has to say who it is."""
    if not hasattr(user, "get_session_auth_hash"):
        return False
    backend, proof = load_backend(session[BACKEND_SESSION_KEY]), session.get(HASH_SESSION_KEY)
    user.wsloop_auth_hash = user.get_session_auth_hash()  # see identity.auth_hash()
    return (
        backend.user_can_authenticate(user)  # type: ignore[attr-defined] # one of Django's, see fill()
        and bool(proof)
        and constant_time_compare(str(proof), user.wsloop_auth_hash)
    )


def _is_looked_up(session: Any) -> bool:
    """Return whether a session is still to be loaded, from the database, as Django does it."""
    store, of_django = type(session), cast("Any", SessionStore)
    return (
        issubclass(store, of_django)
        and store.load is of_django.load
        and store._get_session_from_db is of_django._get_session_from_db
        and "_session_cache" not in vars(session)
        and (session.session_key or "").isprintable()  # else a database may refuse the query of all
    )


def _in_transaction() -> bool:
    """Return whether this greenlet has changes that others do not see: inside a test."""
    return any(database.in_atomic_block for database in databases.all(initialized_only=True))


__all__ = ["Lookup", "fill"]
