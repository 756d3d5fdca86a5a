"""The time that a handshake may take, and a subscription that is made later, wherever it waits.

This module must not know sockets or Redis.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from http import HTTPStatus

import gevent

from wsloop import conf, metrics
from wsloop.refusals import try_again


@contextlib.contextmanager
def deadline() -> Iterator[None]:
    """Refuse what takes longer than ``HANDSHAKE_TIMEOUT`` seconds.

    Raises:
        Refused: 503.
    """
    timeout = gevent.Timeout(conf.option("HANDSHAKE_TIMEOUT"))
    try:
        with timeout:
            yield
    except gevent.Timeout as exc:
        if exc is not timeout:
            raise RuntimeError("Site code leaked a gevent.Timeout") from exc  # it is no Exception
        metrics.reached("HANDSHAKE_TIMEOUT")
        detail = (
            f"the handshake took longer than {timeout.seconds:g} s; see what it waits for: the database, Redis, or the "
            "site's own code"
        )
        reason = "The WebSocket could not be set up in time."
        raise try_again(HTTPStatus.SERVICE_UNAVAILABLE, reason, "HANDSHAKE_TIMEOUT", detail) from None


__all__ = ["deadline"]
