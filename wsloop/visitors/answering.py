"""Carries out requests of the site to all workers: disconnecting sockets, and counting them.

How it works. :mod:`wsloop.backend.asking` publishes a request, and each worker finds out which of its own sockets are
meant, publishes an answer, and acts. Requests are handled one after the other in a greenlet. Sockets are closed in
small batches, because their clients may come back, each with a handshake. This module must not know the protocol of
WebSockets.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gevent
from django.contrib.auth import get_user_model
from redis.exceptions import RedisError

from wsloop import conf
from wsloop.backend import asking, keys, pool
from wsloop.batch_queue import BatchQueue, batches
from wsloop.protocol.close_codes import MOST_REASON
from wsloop.protocol.messages import audience
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub
from wsloop.visitors.inspection import describe_all

logger = logging.getLogger("wsloop.answering")

WAITING = 100  # requests of which a worker remembers that they wait; more are ignored
BATCH = 50  # sockets closed without a pause, or looked at a hundredfold: about a millisecond of work
PAUSE = 0.01  # seconds between two batches that are closed
ID = re.compile(r"[A-Za-z0-9_-]{1,32}")

Request = dict[str, Any]
Outcome = tuple[dict[str, Any], list[Connection]]  # the answer, and connections that are to be closed


class Answering:
    """Answers requests with the sockets of this process.

    Args:
        hub: whose connections they are.
        snapshot: returns the numbers of the process.
    """

    def __init__(self, hub: Hub, snapshot: Callable[[], dict[str, Any]] = dict) -> None:
        self._hub = hub
        self._requests: BatchQueue[Request] = BatchQueue(self._handle)
        self._carry_out: dict[str, Callable[[Request], Outcome]] = {
            "disconnect": self._disconnect,
            "count": self._count,
            "listeners": self._listeners,
            "snapshot": lambda request: (snapshot(), []),
            "sockets": lambda request: (describe_all(self._find(request)), []),
        }

    def on_request(self, payload: bytes) -> None:
        """Take a request. Never blocks."""
        try:
            if len(payload) > asking.MOST:
                raise ValueError
            request = json.loads(payload)
            if not ID.fullmatch(request["id"]) or request["do"] not in self._carry_out:
                raise ValueError
        except Exception:  # of any kind: the reader of the subscription must go on
            logger.warning("Ignored malformed request to all workers")
            return
        if len(self._requests) >= WAITING:
            logger.warning("Ignored a request to all workers, because %d others wait", WAITING)
            return
        self._requests.put(request)

    def _handle(self, requests: Sequence[Request]) -> None:
        for request in requests:
            try:
                answer, closing = self._carry_out[request["do"]](request)
            except Exception as exc:  # arguments that wsloop itself does not send
                logger.warning("Ignored malformed request to all workers: %s", type(exc).__name__)
                continue
            try:
                pool.client().publish(keys.answers_channel(request["id"]), json.dumps(answer))
            except (RedisError, OSError) as exc:
                logger.warning("Could not answer a request to all workers: %s", exc)
            for batch in batches(closing, BATCH):
                for connection in batch:
                    connection.close(request["code"], request["reason"])
                gevent.sleep(PAUSE)

    def _disconnect(self, request: Request) -> Outcome:
        code, reason = request["code"], request["reason"]
        if type(code) is not int or not 4000 <= code <= 4999 or len(reason.encode()) > MOST_REASON:
            raise ValueError
        found = self._find(request)
        return {"sockets": len(found)}, found

    def _count(self, request: Request) -> Outcome:
        found = self._find(request)
        return {"sockets": len(found), "signed_in": sum(each.visitor.user is not None for each in found)}, []

    def _listeners(self, request: Request) -> Outcome:
        return {"sockets": self._hub.count_subscribers(name.encode() for name in request["channels"])}, []

    def _find(self, request: Request) -> list[Connection]:
        """Return the open connections that a request means: of a user, a session and a facility, if it names them."""
        user, session, facility = (request.get(name) for name in ("user", "session", "facility"))
        found: Iterable[Connection] = self._hub.connections
        if user is not None:
            found = list(self._hub.admission.users[_primary_key(user)])
        if session is not None:
            found = self._of_session(found, session)
        if facility is not None:
            found = _on_facility(found, facility)
        return [each for each in found if each.open]

    def _of_session(self, connections: Iterable[Connection], session: str) -> Iterable[Connection]:
        # Visitors who have not signed in are known by their session's channel only.
        known = set(self._hub.admission.sessions[session])
        start = f"{conf.prefix()}session:{session}:".encode()
        return _filter(connections, lambda each: each in known or any(name.startswith(start) for name in each.channels))


def _on_facility(connections: Iterable[Connection], facility: str) -> Iterable[Connection]:
    end = f":{facility}".encode()

    def listens(connection: Connection) -> bool:
        # The end first: it is what most of them differ in, and asking for the audience costs ten times as much.
        return any(name.endswith(end) and audience(name).facility == facility for name in connection.channels) or any(
            scope[0] == facility for scope in connection.presence_scopes
        )

    return _filter(connections, listens)


def _filter(connections: Iterable[Connection], wanted: Callable[[Connection], bool]) -> Iterable[Connection]:
    for batch in batches(connections, 100 * BATCH):
        yield from filter(wanted, batch)
        gevent.sleep(0)


def _primary_key(text: Any) -> Any:
    try:
        return get_user_model()._meta.pk.to_python(text)
    except Exception:  # of a user that is not in the database: its key is what the site's code has made it
        return text


__all__ = ["Answering"]
