"""Who is behind a socket, and whether that is still so: sockets end with the session that opened them.

How it works. :func:`visitor` notes at the handshake who opens a socket, when that session ends, and a hash each of what
signed the user in and of what the user may do. :mod:`wsloop.signals` publishes a notice when a user or a session has
changed, and each worker puts the sockets concerned into one list. One greenlet looks at those: it asks the database for
many users at once, compares the hashes, and closes what is not as it was. A site that saves its users often costs one
question each ``ROUND`` seconds, however many notices there are.

Notices can be missed: while Redis cannot be reached, and by a socket that is just being opened. So all sockets are
looked at when the subscription stands again, and a new one if there was a notice since its handshake began
(:meth:`Access.mark`). Some changes give no notice at all, such as sessions deleted by SQL: each session is asked for
again after ``ASK_AGAIN`` seconds, and its user with it.

This module must not know Redis, nor the protocol of WebSockets.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import random
import time
from collections.abc import Collection, Iterable
from typing import Any

import gevent
from django.contrib.auth import get_user_model
from django.db import Error, router
from django.db import connections as databases
from django.db.models import Prefetch
from django.http import HttpRequest
from django.utils import timezone

from wsloop import addressees, conf, greenlets
from wsloop.connection import Connection
from wsloop.drain import Drain
from wsloop.hub import NOBODY, Hub, Visitor

logger = logging.getLogger("wsloop.access")

# Private close codes, see docs/reference/websockets.rst.
SIGNED_OUT = 4001  # do not come back
RIGHTS_CHANGED = 4003  # come back: what you may listen to is decided anew

ROUND = 0.2  # seconds between two looks; notices that come meanwhile are looked at together
BATCH = 50  # sockets looked at without a pause: some milliseconds of work
PAUSE = 0.01  # seconds between two batches
ASK_AGAIN = 600.0  # seconds after which a session is asked for again: some end without a signal, by SQL for example
SPREAD = 1.0  # seconds within which workers begin to look at all of their sockets, for the sake of the database
RETRY = 5.0  # seconds until those are looked at again that could not be


# Who it is.


def visitor(request: HttpRequest, address: str | None = None) -> Visitor:
    """Return who makes a request, as far as it is kept while the socket is open. Asks the database.

    Args:
        request: with ``user`` and ``session``, either of which may be missing or None; ``token_expires`` if
            :func:`wsloop.tokens.authenticate` has found out who it is.
        address: what the socket counts for, see ``MAX_CONNECTIONS_PER_ADDRESS``.
    """
    user = getattr(request, "user", None)
    if not getattr(user, "is_authenticated", False):  # the session of an anonymous visitor signs nobody in
        return NOBODY if address is None else NOBODY._replace(address=address)
    session = getattr(request, "session", None)
    # Of a session from elsewhere (WS4REDIS_PROCESS_REQUEST) it is not known here whether it still is.
    key = session.session_key or None if isinstance(session, conf.session_store()) else None
    expires = getattr(request, "token_expires", None)
    if key is not None:
        expires = _next_look(session_ends([key]).get(key, 0))
    return Visitor(getattr(user, "pk", None), key, address, expires, proof(user), rights(user))


def proof(user: Any) -> int:
    """Return a hash of what signs a user in: it differs after a change of the password, or of ``is_active``.

    Returns:
        0 for users of another kind than ``AUTH_USER_MODEL``: the database cannot tell about them.
    """
    if not isinstance(user, get_user_model()) or user.pk is None:
        return 0
    password = getattr(user, "get_session_auth_hash", lambda: "")()
    return hash((password, getattr(user, "is_active", True))) or 1


def rights(user: Any) -> int:
    """Return a hash of what decides about the channels of a user: groups, by their names too, staff and superuser."""
    groups = sorted((str(group.pk), getattr(group, "name", "")) for group in addressees.user_groups(user) or ())
    return hash((tuple(groups), getattr(user, "is_staff", None), getattr(user, "is_superuser", None)))


def session_ends(keys: Iterable[str]) -> dict[str, float]:
    """Return when sessions end, in seconds since the epoch, by key; sessions that have ended are missing.

    Sessions in the database are asked for together. Other stores do not tell when a session ends, only how long it
    lives after a change: there it is the latest time at which it can end.
    """
    stores = conf.session_store()
    if not hasattr(stores, "get_model_class"):
        return {key: end for key in keys if (end := _session_end(stores(key))) is not None}
    model = stores.get_model_class()
    found = model._default_manager.using(router.db_for_write(model)).filter(
        session_key__in=list(keys), expire_date__gt=timezone.now()
    )
    return {key: end.timestamp() for key, end in found.values_list("session_key", "expire_date")}


def _next_look(end: float) -> float:
    """Return when a session is to be asked for that should end at ``end``, in seconds since the epoch."""
    return min(end, time.time() + ASK_AGAIN)


def _session_end(session: Any) -> float | None:
    key = session.session_key
    content = session.load()
    if session.session_key != key or not (content or session.exists(key)):
        return None
    return float(session.get_expiry_date(expiry=content.get("_session_expiry")).timestamp())


def close_databases() -> None:
    """Give back the database connections of this greenlet: no Django view ends, which would do it."""
    for database in databases.all(initialized_only=True):
        if not database.in_atomic_block:  # but inside a test's transaction
            database.close()


# Whether it is still so.


class Access:
    """Closes the sockets of this process whose users may no longer have them.

    Args:
        hub: whose connections they are.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._mark = 0
        self._due: dict[Connection, bool] = {}  # with whether the session is to be looked at too
        self._looking: Drain[None] = Drain(self._look)

    def heard(self, payload: bytes) -> None:
        """Act on a notice of :mod:`wsloop.signals`. Never blocks."""
        self._mark += 1
        try:
            notice = json.loads(payload)
            users, session = notice.get("users", ()), notice.get("session")
            pks = [get_user_model()._meta.pk.to_python(text) for text in users]
            if not (session is None or isinstance(session, str)):
                raise TypeError
        except Exception:  # whatever it is, the reader of the subscription must go on
            logger.warning("a notice on the control channel is none of wsloop's")
            return
        self._put(itertools.chain.from_iterable(self._hub.users[pk] for pk in pks), session=False)
        if session is not None:
            self._end(session)
            # The notice comes just before the session ends: somebody may have used it once more, in a handshake that
            # is open by the end of HANDSHAKE_TIMEOUT.
            for delay in (1, 1 + conf.option("HANDSHAKE_TIMEOUT")):
                greenlets.spawn_later(delay, self._end, session)

    def connected(self) -> None:
        """Look at all sockets soon: notices may have been missed. Never blocks."""
        self._mark += 1
        connections = self._hub.connections  # others that are being opened are looked at because of the mark
        if connections:
            greenlets.spawn_later(random.uniform(0, SPREAD), self._put, connections)

    def expired(self, connections: Iterable[Connection]) -> None:
        """Close connections whose session or token has ended, unless it has been prolonged. Never blocks."""
        for connection in connections:
            if connection.visitor.session is None:
                connection.close(SIGNED_OUT, "the token has expired")
            else:
                self._put([connection])

    def mark(self) -> int:
        """Return a number to be compared: if it is another one later, there have been notices in between."""
        return self._mark

    def recheck(self, connection: Connection) -> None:
        """Look at a connection whose handshake began before the last notice. Never blocks."""
        self._put([connection])

    def _put(self, connections: Iterable[Connection], session: bool = True) -> None:
        for connection in connections:
            somebody = connection.visitor.user is not None or connection.visitor.session is not None
            if somebody and connection.open:
                self._due[connection] = session or self._due.get(connection, False)
        if self._due and not len(self._looking):
            self._looking.put(None)

    def _end(self, session: str) -> None:
        for connection in list(self._hub.sessions[session]):
            connection.close(SIGNED_OUT, "signed out")

    def _look(self, _: list[None]) -> None:
        """Look at all that are due."""
        due, self._due = self._due, {}
        failed: dict[Connection, bool] = {}
        for start in range(0, len(due), BATCH):
            batch = dict(itertools.islice(due.items(), start, start + BATCH))
            try:
                self._check(batch)
            except Exception:
                if not failed:
                    logger.exception("users and sessions cannot be looked up, trying again in %g s", RETRY)
                failed |= batch
                _give_databases_back()
            gevent.sleep(PAUSE)
        _give_databases_back()
        if failed:
            greenlets.spawn_later(RETRY, self._again, failed)
        gevent.sleep(ROUND)

    def _again(self, failed: dict[Connection, bool]) -> None:
        for connection, session in failed.items():
            self._put([connection], session)

    def _check(self, batch: dict[Connection, bool]) -> None:
        users = _users({each.visitor.user for each in batch if each.visitor.proof})
        for connection in batch:
            present = users.get(connection.visitor.user)
            if not connection.visitor.proof:
                continue
            if present is None or present[0] != connection.visitor.proof:
                connection.close(SIGNED_OUT, "signed out")
            elif present[1] != connection.visitor.rights:
                connection.close(RIGHTS_CHANGED, "your rights have changed")
        with_session = [each for each, session in batch.items() if session and each.visitor.session and each.open]
        ends = session_ends({each.visitor.session for each in with_session}) if with_session else {}
        for connection in with_session:
            end = ends.get(connection.visitor.session)
            if end is None:
                connection.close(SIGNED_OUT, "the session has ended")
            elif connection.open:
                connection.visitor = connection.visitor._replace(expires=_next_look(end))
                self._hub.watch_expiry(connection)


def _give_databases_back() -> None:
    with contextlib.suppress(Error):  # one that is broken has been reported
        close_databases()


def _users(pks: Collection[Any]) -> dict[Any, tuple[int, int]]:
    """Return proof and rights of users by primary key, from the database that is written to."""
    if not pks:
        return {}
    model = get_user_model()
    users = model._default_manager.using(router.db_for_write(model))
    field = addressees.groups_field(model)
    if field is not None:
        groups = field.related_model._default_manager
        users = users.prefetch_related(Prefetch("groups", groups.using(router.db_for_write(groups.model))))
    return {pk: (proof(user), rights(user)) for pk, user in users.in_bulk(list(pks)).items()}


__all__ = ["RIGHTS_CHANGED", "SIGNED_OUT", "Access", "close_databases", "visitor"]
