"""The WSGI server that this process belongs to: what the engine asks of it, whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wsloop.sockets import uwsgi
from wsloop.sockets.takeover import SocketTakeover, Takeover, Unsupported


def claim(environ: dict[str, Any]) -> Takeover:
    """Return the object that takes the connection of this request over.

    Raises:
        Unsupported: if the WSGI server, or its options, do not allow it.
    """
    if "wsloop.socket" in environ:
        return SocketTakeover(environ)
    if uwsgi.is_running():
        return uwsgi.UwsgiTakeover()
    raise Unsupported("This server cannot serve WebSockets; run the site with uWSGI, or `manage.py runserver`.")


def at_exit(callback: Callable[[], object], last: bool = False) -> None:
    """Call ``callback`` when the server ends or reloads this worker.

    Args:
        callback: may block.
        last: whether it comes after the handlers that are set already, of the site or by this function, or before them.
    """
    if uwsgi.is_running():
        uwsgi.at_exit(callback, last)


def before_reload(callback: Callable[[], object]) -> Any:
    """Call ``callback`` from the event loop when half of the time is over that the server gives a worker to reload.

    Returns:
        what must be kept; None with a server that does not reload.
    """
    return uwsgi.before_reload(callback) if uwsgi.is_running() else None


def watch_hang_up(callback: Callable[[], object]) -> Any:
    """Call ``callback`` from the event loop when the client of the current request has hung up.

    Returns:
        a watcher of gevent's, to be stopped and closed before the request ends; None where it cannot be told.
    """
    return uwsgi.watch_hang_up(callback) if uwsgi.is_running() else None


def keep_out_of_log() -> None:
    """Keep the server from logging the current request, because its query contains a secret.

    Raises:
        Unsupported: if it would still log the query.
    """
    if uwsgi.is_running():  # the handler of the command runserver leaves secrets out
        uwsgi.keep_out_of_log()
