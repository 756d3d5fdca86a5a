"""Facts on gevent's own WSGI server (``gevent.pywsgi``), and the take-over of its connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent.server import StreamServer

from wsloop.sockets.ending import ending
from wsloop.sockets.takeover import SocketTakeover, Takeover, Unsupported
from wsloop.sockets.transport import when_hung_up

SOCKET = "wsloop.socket"  # in the environ: from wsloop.pywsgi.Handler, which leaves secrets out of the log


def _served() -> tuple[StreamServer, Any] | None:
    """Return the server and the connection that the current greenlet was spawned for; None in other greenlets."""
    arguments: Any = getattr(gevent.getcurrent(), "args", None) or ()
    server = getattr(arguments[1], "__self__", None) if len(arguments) == 3 else None
    return (server, arguments[2][0]) if isinstance(server, StreamServer) else None


def is_running() -> bool:
    """Return whether a server of gevent has called what runs now."""
    return _served() is not None


def cores() -> float:
    """Return how many requests the process answers at a time: any number."""
    return float("inf")


def prepare(patched: bool) -> None:
    """Do nothing: a server that runs code of the site has been started by it."""


def claim(environ: dict[str, Any]) -> Takeover:
    """Return the object that takes the connection of this request over.

    Raises:
        Unsupported: if the server keeps the encryption to itself.
    """
    served = _served()
    if served is not None and served[0].ssl_enabled:
        raise Unsupported("gevent's WSGIServer cannot serve WebSockets with TLS; use a proxy such as nginx in front.")
    return SocketTakeover(served[1] if served is not None else environ[SOCKET])


def at_exit(callback: Callable[[], object], last: bool = False) -> None:
    """Call ``callback`` when the process ends; with ``last`` behind all others."""
    ending().add(callback, last)


def before_reload(callback: Callable[[], object]) -> None:
    """Do nothing: the server gives its requests ``stop_timeout`` to end, and then ends them itself."""


def watch_hang_up(callback: Callable[[], object]) -> Any:
    """Call ``callback`` from the event loop when the client of the current request has hung up."""
    served = _served()
    return None if served is None else when_hung_up(served[1].fileno(), callback)


def keep_out_of_log(environ: dict[str, Any]) -> None:
    """Let the handler keep the token of this request out of the log.

    Raises:
        Unsupported: if it is gevent's own handler, which would log it.
    """
    if SOCKET not in environ:
        raise Unsupported(
            "gevent's WSGIServer would log the token in the URL. Send the token as a subprotocol, or give the server "
            "handler_class=wsloop.pywsgi.Handler."
        )
