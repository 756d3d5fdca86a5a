"""The numbers of all workers, for :mod:`wsloop.views`, the pages of staff and commands.

It works in any process that can reach Redis. This module must not know gevent or sockets.
"""

from __future__ import annotations

import platform
from typing import Any, NamedTuple

from wsloop.backend import asking


class Snapshots(NamedTuple):
    """The numbers of all workers that have answered.

    Attributes:
        workers: of each the numbers of :func:`wsloop.metrics.snapshot`, with ``machine``, its host name; ``worker``,
            its number there, by uWSGI, or its process id; ``pid``; ``time``, in seconds since the epoch; ``busiest``,
            lists of a facility, its messages and its deliveries; ``slowest``, the sockets for which most bytes wait.
        missing: number of workers that did not answer in ``REDIS_TIMEOUT``.
    """

    workers: list[dict[str, Any]]
    missing: int


def snapshots(machine: str | None = None) -> Snapshots:
    """Ask all workers for their numbers. A worker has some from its first socket on.

    Args:
        machine: a host name; None: all machines.

    Raises:
        redis.exceptions.RedisError, OSError: if Redis cannot be reached.
    """
    given, missing = asking.ask("snapshot", {})
    workers = [each for each in given if machine in (None, each["machine"])]
    return Snapshots(sorted(workers, key=lambda each: (each["machine"], each["worker"])), missing)


def here() -> Snapshots:
    """Return those of this machine; see :func:`snapshots`."""
    return snapshots(platform.node())


__all__ = ["Snapshots", "here", "snapshots"]
