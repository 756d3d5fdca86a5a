"""Who is behind a connection, as far as it counts: how many of them there may be.

This module must not know where a visitor comes from.
"""

from __future__ import annotations

import resource
from typing import Any, NamedTuple

from wsloop import conf


class Visitor(NamedTuple):
    """Who is behind a connection, as far as it is kept while the connection is open.

    Attributes:
        user: primary key; None: nobody has signed in.
        session: its key, a secret; None without one.
        address: where it comes from; None if that is not counted.
        expires: when session or token end, in seconds since the epoch; None: never.
        auth_hash: a hash of what signed the user in; another one, and the user has to sign in again.
        permissions_hash: a hash of the user's groups and the like; another one, and the socket may have other channels.
    """

    user: Any = None
    session: str | None = None
    address: str | None = None
    expires: float | None = None
    auth_hash: int = 0
    permissions_hash: int = 0


NOBODY = Visitor()


def most_connections() -> float:
    """Return how many connections this process may have: a quarter of its descriptors is left to the site."""
    most = conf.option("MAX_CONNECTIONS")
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    bound = float("inf") if descriptors == resource.RLIM_INFINITY else descriptors * 3 // 4
    return bound if most is None else min(most, bound)
