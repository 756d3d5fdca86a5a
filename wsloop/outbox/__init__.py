"""An outbox: messages that must not be lost between database and Redis are rows first, in the caller's transaction.

An application of its own, ``"wsloop.outbox"`` in ``INSTALLED_APPS``, because it has a table.
:mod:`wsloop.outbox.delivery` explains the guarantees. This module must not import anything while it is loaded: Django
loads it before models and settings are available.
"""

from __future__ import annotations

from collections.abc import Sequence


def put(
    channels: Sequence[str], payload: bytes, expire: int, facility: str, key: str = "", using: str | None = None
) -> None:
    """Write a message into the outbox; it is published after the commit of the caller's transaction.

    See :func:`wsloop.outbox.delivery.put`.
    """
    from wsloop.outbox import delivery

    delivery.put(channels, payload, expire, facility, key, using)
