"""Presence for views: the users of a facility, and the users online, as noted in Redis by all workers.

Workers note it in :mod:`wsloop.visitors.attendance`. This module must not know gevent or sockets.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote

from wsloop import conf
from wsloop.addressees import facility_name
from wsloop.backend import pool, scripts

Place = str | None  # a facility, or None: the whole site


class Who(NamedTuple):
    """The presence of a facility.

    Attributes:
        users: names of the users who have signed in, in order, each once.
        anonymous: the number of sockets of visitors who have not signed in.
    """

    users: list[str]
    anonymous: int


def who(facility: str) -> Who:
    """Return the presence of a facility that has the option ``presence``.

    Raises:
        TypeError, ValueError: if the name of the facility is invalid.
        redis.exceptions.RedisError: if Redis did not answer.
    """
    return _read(facility_name(facility))


def online() -> list[str]:
    """Return the names of the users who have a socket on any facility with the option ``presence``, in order.

    Raises:
        redis.exceptions.RedisError: if Redis did not answer.
    """
    return _read(None).users


def presence_channel(facility: str) -> str:
    """Return the Redis channel of a facility's presence events."""
    return f"{conf.prefix()}presence:{facility}"


def _read(place: Place) -> Who:
    ((anonymous, *users),) = scripts.call(
        pool.client(), [("presence_who", presence_keys(place), [])], transaction=False
    )
    return Who(sorted(user.decode() for user in users), anonymous)


def presence_keys(place: Place) -> list[Any]:
    """Return the keys of a place. The tag in braces places both on one node of a Redis Cluster."""
    tag = "site" if place is None else f"facility:{quote(place)}"
    return [f"{conf.prefix()}wsloop:presence:{{{tag}}}:{key}" for key in ("expiries", "counts")]


__all__ = ["Who", "online", "presence_channel", "who"]
