"""The person behind a connection, in plain data. This module must not know how a visitor is found out."""

from __future__ import annotations

from typing import Any, NamedTuple


class Visitor(NamedTuple):
    """The person behind a connection, as far as that is kept while the connection is open.

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
