"""Redis as the site reaches it: version, latency, clock, memory, persistence and buffers, and the workers there."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator
from typing import Any

from redis.exceptions import RedisError

from wsloop import conf
from wsloop.backend import keys, pool
from wsloop.backend.publishing import listeners
from wsloop.backend.scripts import is_cluster
from wsloop.diagnosis.finding import NOTE, OK, WRONG, Finding

LEAST_VERSION = (5, 0)  # streams, and scripts that ask for the time before they write
PINGS = 20
SLOW = 0.01  # seconds of a round trip, in the middle: a handshake needs some
SKEW = 2.0  # seconds between the clocks
LEAST_BUFFER = 8 * 1024 * 1024  # bytes; a worker reads all messages of its sockets on one connection


def findings() -> Iterator[Finding]:
    """Look at Redis. Blocks for some round trips, or ``REDIS_TIMEOUT``."""
    client: Any = pool.client()
    try:
        servers = [("Redis", client)]
        if is_cluster(client):
            servers = [(f"Redis {each.name}", client.get_redis_connection(each)) for each in client.get_primaries()]
        for about, server in servers:
            yield from _server(about, server)
        yield _workers(client)
    except (RedisError, OSError) as exc:
        yield Finding(
            WRONG,
            "Redis",
            f"cannot be reached: {exc}",
            "Start it, or correct the address and password of the site's Redis in the settings.",
        )


def _server(about: str, server: Any) -> Iterator[Finding]:
    took = []
    for _ in range(PINGS):
        began = time.perf_counter()
        server.ping()
        took.append(time.perf_counter() - began)
    yield _version(about, server.info("server"))
    middle, worst = statistics.median(took), max(took)
    text = f"a round trip takes {1000 * middle:.1f} ms, the slowest of {PINGS} {1000 * worst:.1f} ms"
    if middle > SLOW:
        yield Finding(WRONG, about, text, "Run Redis near the workers: a handshake and each message wait for it.")
    else:
        yield Finding(OK, about, text)
    yield _clock(about, server, middle)
    yield from _configuration(about, server)


def _version(about: str, info: dict[str, Any]) -> Finding:
    name = info.get("server_name", "redis")
    shown = str(info.get(f"{name}_version", info.get("redis_version", "")))
    version = tuple(map(int, re.findall(r"\d+", str(info.get("redis_version", "")))[:2]))
    if version < LEAST_VERSION:
        return Finding(WRONG, about, f"is {name} {shown}", "wsloop needs Redis 5 or newer, or Valkey.")
    return Finding(OK, about, f"is {name} {shown}")


def _clock(about: str, server: Any, round_trip: float) -> Finding:
    seconds, microseconds = server.time()
    skew = time.time() - round_trip / 2 - (seconds + microseconds / 1e6)
    if abs(skew) > SKEW:
        text = f"its clock and that of this machine are {abs(skew):.1f} s apart"
        return Finding(WRONG, about, text, "Let both follow NTP: timedatectl set-ntp true.")
    return Finding(OK, about, "has the same time as this machine")


def _configuration(about: str, server: Any) -> Iterator[Finding]:
    try:
        options = {name: str(value) for name, value in server.config_get("*").items()}
    except RedisError as exc:
        yield Finding(NOTE, about, f"does not tell its configuration: {exc}")
        return
    policy, most = options.get("maxmemory-policy", "noeviction"), options.get("maxmemory", "0")
    if most not in ("", "0") and policy != "noeviction":
        yield Finding(
            WRONG,
            about,
            f"deletes keys when it is full (maxmemory-policy {policy}): histories, idempotency keys, presence",
            "Set maxmemory-policy noeviction, and give caches another Redis.",
        )
    else:
        yield Finding(OK, about, "deletes no keys that are in use")
    keeps = options.get("appendonly") == "yes" or options.get("save", "") != ""
    if not keeps and any(each.size for each in conf.option("FACILITIES").values()):
        yield Finding(
            NOTE,
            about,
            "keeps nothing over a restart, while there are facilities with a history",
            "Set appendonly yes, if messages must be recovered after a restart of Redis, too.",
        )
    yield from _buffer(about, options.get("client-output-buffer-limit", ""))


def _buffer(about: str, limits: str) -> Iterator[Finding]:
    """Yield the finding about the output that may wait for a subscriber: hard limit, soft limit, seconds."""
    found = re.search(r"\bpubsub (\d+) (\d+) (\d+)", limits)
    if found is None:
        return
    hard, soft, _ = map(int, found.groups())
    least = max(LEAST_BUFFER, 2 * conf.option("MAX_QUEUED_BYTES"))
    if 0 < hard < least or 0 < soft < least // 4:
        yield Finding(
            WRONG,
            about,
            f"cuts a worker for which {min(each for each in (hard, soft) if each)} bytes wait: all of its sockets miss "
            "messages then",
            "Set client-output-buffer-limit pubsub 32mb 8mb 60, or more.",
        )
    else:
        yield Finding(OK, about, "lets enough wait for a busy worker")


def _workers(client: Any) -> Finding:
    count = listeners(client, keys.requests_channel())
    if count:
        return Finding(OK, "Workers", f"{count} listen to this Redis")
    return Finding(
        NOTE,
        "Workers",
        "none listens to this Redis",
        "A worker does with its first socket. If sockets are open, the workers have another Redis, or another prefix.",
    )


__all__ = ["findings"]
