"""Asks all workers of the site something, on all machines, and collects their answers.

How it works. The asker subscribes to a channel for the answers, on a connection of its own, and publishes the request
on a channel to which every worker subscribes; Redis says how many do. Each worker publishes one answer
(:mod:`wsloop.visitors.answering`). A worker that does not answer in time has the request all the same. This module
must not know the meaning of requests.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from redis.connection import ConnectionInterface

from wsloop import conf
from wsloop.backend import keys, pool
from wsloop.backend.publishing import listeners
from wsloop.protocol.messages import new_id

logger = logging.getLogger("wsloop.asking")

MOST = 256 * 1024  # bytes of a request: some thousand names


class Answers(NamedTuple):
    """The answers of the workers.

    Attributes:
        given: one for each worker that has answered, in the order of their arrival.
        missing: number of workers that have not answered in time.
    """

    given: list[dict[str, Any]]
    missing: int


def ask(do: str, arguments: Mapping[str, Any]) -> Answers:
    """Ask all workers, and return their answers when all have come, or after ``REDIS_TIMEOUT`` seconds. Blocks.

    Args:
        do: what to do; see :mod:`wsloop.visitors.answering`.
        arguments: its arguments, which can be encoded as JSON.

    Raises:
        ValueError: if the request is longer than :data:`MOST` bytes.
        redis.exceptions.RedisError, OSError: if Redis cannot be reached.
    """
    request = new_id()
    payload = json.dumps({"id": request, "do": do, **arguments}).encode()
    if len(payload) > MOST:
        raise ValueError(f"the request is longer than {MOST} bytes: name fewer users, groups or sessions at once")
    timeout = conf.option("REDIS_TIMEOUT")
    client = pool.client()
    # Not a connection of the process's pool: it has two, and workers that ask each other would wait for them.
    connection = pool.subscription_connection(protocol=2, client_name="wsloop-asking")
    try:
        connection.send_command("SUBSCRIBE", keys.answers_channel(request))
        connection.read_response()
        expected = listeners(client, keys.requests_channel())
        if expected:
            client.publish(keys.requests_channel(), payload)
        given = _collect(connection, expected, time.monotonic() + timeout)
    finally:
        connection.disconnect()
    missing = expected - len(given)
    if missing:
        logger.warning("%d of %d workers did not answer a request within %g s", missing, expected, timeout)
    return Answers(given, missing)


def _collect(connection: ConnectionInterface, expected: int, end: float) -> list[dict[str, Any]]:
    given: list[dict[str, Any]] = []
    while len(given) < expected and (left := end - time.monotonic()) > 0 and connection.can_read(timeout=left):
        kind, _, payload = connection.read_response(disable_decoding=True)
        if kind == b"message":
            given.append(json.loads(payload))
    return given


__all__ = ["Answers", "ask"]
