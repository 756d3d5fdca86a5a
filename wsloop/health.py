"""``healthz`` and ``readyz``: views that tell a supervisor or a load balancer how this process is.

They need no session, no user and no Host, take GET and HEAD, and are never cached. No question that they ask holds them
up for longer than 2 s. A stranger learns which parts fail; why they do is in the log. This module must not know gevent
or sockets.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic

from django.contrib.auth.decorators import login_not_required
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from wsloop import conf
from wsloop.backend import pool
from wsloop.redaction import redact

logger = logging.getLogger("wsloop.health")

TIMEOUT = 2.0  # seconds for all answers together: probes have little patience
FRESH = 1.0  # seconds that an answer counts, so that a flood of probes does not become one of questions
ABANDONED = 30.0  # seconds after which a question without an answer is asked again: a lost connection may never end


class Check:
    """Asks whether one part of the site works, in a thread (under gevent: a greenlet) of its own.

    Args:
        name: of the part, which strangers may read.
        ask: returns if the part works, and raises otherwise. May block for any time.
    """

    def __init__(self, name: str, ask: Callable[[], object]) -> None:
        self.name = name
        self._ask = ask
        self._began = self._ended = float("-inf")
        self._answered = threading.Event()
        self._answered.set()
        self._problem = ""
        self._reported = ""

    def begin(self) -> None:
        """Ask, unless an answer is fresh or awaited."""
        now = monotonic()
        since, enough = (self._ended, FRESH) if self._answered.is_set() else (self._began, ABANDONED)
        if now - since < enough:
            return
        self._began, self._answered = now, threading.Event()
        threading.Thread(target=self._run, args=(self._answered,), daemon=True).start()

    def _run(self, answered: threading.Event) -> None:
        try:
            self._ask()
            problem = ""
        except Exception as exc:
            problem = redact(f"{type(exc).__name__}: {exc}")
        if self._answered is answered:  # nobody has asked again meanwhile
            self._problem, self._ended = problem, monotonic()
            answered.set()

    def passes(self) -> bool:
        """Return whether the part works; waits for the answer until ``TIMEOUT`` after the question."""
        answered = self._answered.wait(max(0.0, self._began + TIMEOUT - monotonic()))
        problem = self._problem if answered else f"no answer for {TIMEOUT:g} s"
        if problem != self._reported:  # once, and not with each probe
            self._reported = problem
            if problem:
                logger.warning("not ready: %s: %s", self.name, problem)
            else:
                logger.warning("ready again: %s", self.name)
        return not problem


def _ask_redis() -> None:
    # A connection of its own: those of the pool may be busy with what does not answer.
    connection = pool.subscription_connection(socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
    try:
        connection.send_command("PING")
        connection.read_response()
    finally:
        connection.disconnect()


def _ask_database() -> None:
    database = connections[DEFAULT_DB_ALIAS]  # of this thread, so it is a new connection
    if database.settings_dict["ENGINE"] == "django.db.backends.dummy":
        return  # the site has none
    try:
        with database.cursor() as cursor:
            cursor.execute(f"SELECT 1{database.features.bare_select_suffix}")
    finally:
        database.close()


_checks = (Check("redis", _ask_redis), Check("database", _ask_database))
_leaving = False


def leave() -> None:
    """From now on this process is not ready: it says goodbye to its sockets."""
    global _leaving
    _leaving = True


def _is_leaving() -> bool:
    path = conf.option("LEAVING_FILE")
    return _leaving or (path is not None and os.path.exists(path))


@require_safe
@never_cache
@login_not_required
@non_atomic_requests  # a transaction would ask the database, without a timeout
def healthz(request: HttpRequest) -> JsonResponse:
    """Tell that this process answers requests: 200. For a liveness probe, whose failure ends the process.

    It asks nothing else: a process that is started again does not mend Redis.
    """
    return _answer(request, HTTPStatus.OK, {"alive": True})


@require_safe
@never_cache
@login_not_required
@non_atomic_requests
def readyz(request: HttpRequest) -> JsonResponse:
    """Tell whether this process should get requests: 200, or 503 with the names of what fails.

    For a readiness probe or a load balancer. The names are "redis", "database" (the default one) and "leaving": the
    process says goodbye to its sockets, or there is the file ``LEAVING_FILE``. Redis and the database are asked at the
    same time, at most once a second for all probes of a process, and waited for 2 s at most.
    """
    for each in _checks:
        each.begin()
    failing = [each.name for each in _checks if not each.passes()]
    if _is_leaving():
        failing.append("leaving")
    status = HTTPStatus.SERVICE_UNAVAILABLE if failing else HTTPStatus.OK
    return _answer(request, status, {"ready": not failing, "failing": failing})


def _answer(request: HttpRequest, status: HTTPStatus, content: dict[str, object]) -> JsonResponse:
    response = JsonResponse(content, status=status)
    if request.method == "HEAD":
        response.content = b""  # uWSGI would send it
    response._has_been_logged = True  # type: ignore[attr-defined]  # Django would log each probe's 503, and mail it
    return response


__all__ = ["healthz", "readyz"]
