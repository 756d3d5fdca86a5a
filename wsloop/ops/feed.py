"""What the page shows: the numbers of all workers and of Redis, the names of slow clients' users among them."""

from __future__ import annotations

import threading
import time
from typing import Any

from django.contrib.auth import get_user_model
from redis.exceptions import RedisError

from wsloop.backend import pool, scripts
from wsloop.snapshots import snapshots

FRESH = 1.0  # seconds in which all pages of a worker show the same numbers
OF_REDIS = (
    *("redis_version", "role", "uptime_in_seconds", "used_memory", "maxmemory", "evicted_keys"),
    *("connected_clients", "rejected_connections", "instantaneous_ops_per_sec", "pubsub_channels"),
)


class Feed:
    """The numbers, asked for once for all pages of this worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._content: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        """Return what the page shows. Blocks.

        Returns:
            ``time``, ``workers`` (see :mod:`wsloop.snapshots`), ``missing`` and ``redis``; with ``error``, a sentence,
            instead, if Redis does not answer.
        """
        with self._lock:
            if time.monotonic() >= self._read_at + FRESH:
                self._content = self._ask()
                self._read_at = time.monotonic()
            return self._content

    def _ask(self) -> dict[str, Any]:
        try:
            workers, missing = snapshots()
            redis = _redis()
        except (RedisError, OSError):
            return {"time": time.time(), "error": "Redis does not answer."}
        known = names({each["user"] for worker in workers for each in worker["slowest"]})
        for worker in workers:
            for each in worker["slowest"]:
                each["name"] = known.get(each.pop("user"))
        return {"time": time.time(), "workers": workers, "missing": missing, "redis": redis}


def _redis() -> dict[str, Any]:
    client: Any = pool.client()
    if scripts.is_cluster(client):
        return {"nodes": len(client.get_nodes())}
    found = client.info()
    return {name: found[name] for name in OF_REDIS if name in found}


def names(keys: set[str | None]) -> dict[str | None, str]:
    """Return the names of users by their primary keys, as texts."""
    model = get_user_model()
    wanted = [each for each in keys if each is not None]
    if not wanted:
        return {}
    try:
        found = model._default_manager.in_bulk(wanted)
    except (TypeError, ValueError):  # keys that the site's own code has made up
        return {}
    return {str(key): user.get_username() for key, user in found.items()}


FEED = Feed()
