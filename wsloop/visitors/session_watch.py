"""Closes sockets whose users may no longer have them: a socket ends with the session that opened it.

How it works. :mod:`wsloop.identity` records at the handshake who opens a socket. :mod:`wsloop.signals` publishes a
notice when a user or a session changes, and each worker adds the affected sockets to one list. One greenlet checks
them: it queries the database for many users at once, compares the hashes, and closes the sockets whose hashes differ.
A site that saves its users often costs one query every ``ROUND`` seconds, however many notices there are.

Notices can be missed while Redis cannot be reached, and by a socket that is just being opened. So all sockets are
checked when the subscription is restored, and a new socket is checked if there was a notice since its handshake began
(:meth:`SessionWatch.generation`). Some changes cause no notice at all, such as sessions deleted by SQL: each session is
queried again after ``ASK_AGAIN`` seconds, and its user with it.

This module must not know Redis, nor the protocol of WebSockets.
"""

from __future__ import annotations

import itertools
import json
import logging
import random
from collections.abc import Iterable

import gevent
from django.contrib.auth import get_user_model

from wsloop import conf, greenlets
from wsloop.batch_queue import BatchQueue, batches
from wsloop.db import give_back
from wsloop.identity import find_users, next_look, session_ends
from wsloop.protocol.close_codes import RIGHTS_CHANGED, SIGNED_OUT
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub

logger = logging.getLogger("wsloop.access")


ROUND = 0.2  # seconds between two checks; notices that arrive in between are handled together
BATCH = 50  # sockets checked without a pause: some milliseconds of work
PAUSE = 0.01  # seconds between two batches
SPREAD = 1.0  # seconds within which the workers begin to check all of their sockets, to spare the database
RETRY = 5.0  # seconds until a failed check is repeated


class SessionWatch:
    """Closes the sockets of this process whose users may no longer have them.

    Args:
        hub: whose connections they are.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._generation = 0
        self._due: dict[Connection, bool] = {}  # with whether to check the session, too
        self._looking: BatchQueue[None] = BatchQueue(self._look)

    def on_notice(self, payload: bytes) -> None:
        """Act on a notice of :mod:`wsloop.signals`. Never blocks."""
        self._generation += 1
        try:
            notice = json.loads(payload)
            users, session = notice.get("users", ()), notice.get("session")
            pks = [get_user_model()._meta.pk.to_python(text) for text in users]
            if not (session is None or isinstance(session, str)):
                raise TypeError
        except Exception:  # of any kind: the reader of the subscription must go on
            logger.warning("Ignored malformed control message")
            return
        self._put(itertools.chain.from_iterable(self._hub.admission.users[pk] for pk in pks), session=False)
        if session is not None:
            self._end(session)
            # The notice comes just before the session ends. A handshake may have used the session once more; it is
            # open by the end of HANDSHAKE_TIMEOUT.
            for delay in (1, 1 + conf.option("HANDSHAKE_TIMEOUT")):
                greenlets.spawn_later(delay, self._end, session)

    def connected(self) -> None:
        """Check all sockets soon, because notices may have been missed. Never blocks."""
        self._generation += 1
        connections = self._hub.connections  # those that are being opened are checked because of the generation
        if connections:
            greenlets.spawn_later(random.uniform(0, SPREAD), self._put, connections)

    def expired(self, connections: Iterable[Connection]) -> None:
        """Close connections whose session or token has ended, unless it was prolonged. Never blocks."""
        for connection in connections:
            if connection.visitor.session is None:
                connection.close(SIGNED_OUT, "the token has expired")
            else:
                self._put([connection])

    def generation(self) -> int:
        """Return a number that changes with each notice: compare it to find out whether there was one in between."""
        return self._generation

    def recheck(self, connection: Connection) -> None:
        """Check a connection whose handshake began before the last notice. Never blocks."""
        self._put([connection])

    def _put(self, connections: Iterable[Connection], session: bool = True) -> None:
        for connection in connections:
            somebody = connection.visitor.user is not None or connection.visitor.session is not None
            if somebody and connection.open:
                self._due[connection] = session or self._due.get(connection, False)
        if self._due and not len(self._looking):
            self._looking.put(None)

    def _end(self, session: str) -> None:
        for connection in list(self._hub.admission.sessions[session]):
            connection.close(SIGNED_OUT, "signed out")

    def _look(self, _: list[None]) -> None:
        """Check all connections that are due."""
        due, self._due = self._due, {}
        failed: dict[Connection, bool] = {}
        for batch in map(dict, batches(due.items(), BATCH)):
            try:
                self._check(batch)
            except Exception:
                if not failed:
                    logger.exception("Could not look up users and sessions; retrying in %g s", RETRY)
                failed |= batch
                give_back()
            gevent.sleep(PAUSE)
        give_back()
        if failed:
            greenlets.spawn_later(RETRY, self._again, failed)
        gevent.sleep(ROUND)

    def _again(self, failed: dict[Connection, bool]) -> None:
        for connection, session in failed.items():
            self._put([connection], session)

    def _check(self, batch: dict[Connection, bool]) -> None:
        users = find_users({each.visitor.user for each in batch if each.visitor.auth_hash})
        for connection in batch:
            present = users.get(connection.visitor.user)
            if not connection.visitor.auth_hash:
                continue
            if present is None or present[0] != connection.visitor.auth_hash:
                connection.close(SIGNED_OUT, "signed out")
            elif present[1] != connection.visitor.permissions_hash:
                connection.close(RIGHTS_CHANGED, "your rights have changed")
        with_session = [each for each, session in batch.items() if session and each.visitor.session and each.open]
        ends = session_ends({each.visitor.session for each in with_session}) if with_session else {}
        for connection in with_session:
            end = ends.get(connection.visitor.session)
            if end is None:
                connection.close(SIGNED_OUT, "the session has ended")
            elif connection.open:
                connection.visitor = connection.visitor._replace(expires=next_look(end))
                self._hub.heartbeat.watch_expiry(connection)


__all__ = ["SessionWatch"]
