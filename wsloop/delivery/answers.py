"""Waiting for Redis: an answer that a greenlet awaits, and the error raised when it does not arrive in time.

This module must not know commands.
"""

from __future__ import annotations

from collections.abc import Iterable

from gevent.event import AsyncResult

from wsloop import conf


class Unavailable(Exception):
    """Redis is unreachable or did not answer in time. Nothing has been promised to the client yet."""


def wait(answer: AsyncResult[None]) -> None:
    """Return when the answer has arrived.

    Raises:
        Unavailable: if it does not arrive within ``REDIS_TIMEOUT`` seconds, or the subscription ends first.
    """
    answer.wait(timeout=conf.option("REDIS_TIMEOUT"))  # get(timeout) would raise gevent.Timeout, as a caller's own does
    if not answer.ready():
        raise Unavailable("Redis did not answer in time")
    answer.get()


def fail(answers: Iterable[AsyncResult[None]], reason: Unavailable) -> None:
    """Raise a copy of ``reason`` in all greenlets that wait for these answers.

    A copy each, because an exception keeps the frames that it was raised in alive, and with them their requests.
    """
    for answer in answers:
        answer.set_exception(Unavailable(*reason.args))
