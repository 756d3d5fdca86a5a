"""For the tests of sites: consumers and notifications without a server, without Redis, and without waiting.

``docs/how-to/test.rst`` describes it. This module must not import others of wsloop when it is loaded: pytest loads the
plugin in this package before Django is set up.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsloop.testing.communicator import WebsocketCommunicator
    from wsloop.testing.notifications import NotificationsMixin

MODULES = {"NotificationsMixin": "notifications", "WebsocketCommunicator": "communicator"}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)


__all__ = ["NotificationsMixin", "WebsocketCommunicator"]
