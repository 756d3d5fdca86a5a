"""The WSGI server that this process belongs to: what the engine asks of it, whichever it is.

Each module of a server has these functions. This module must not know more of a server than how it is recognised.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from gevent import monkey

from wsloop.sockets import gunicorn, pywsgi, uwsgi
from wsloop.sockets.takeover import Takeover, Unsupported


def _server() -> ModuleType | None:
    # gunicorn's worker has a server of gevent inside, so gevent's own comes last.
    return next((each for each in (uwsgi, gunicorn, pywsgi) if each.is_running()), None)


def prepare() -> None:
    """Get the process ready for sockets. May be called again.

    Raises:
        Unsupported: if the site was loaded before gevent has patched the process.
    """
    server = _server() or (gunicorn if gunicorn.is_loaded() else None)
    if server is not None:
        server.prepare(monkey.is_module_patched("socket"))


def loaded() -> None:
    """Have Python look for no garbage among the objects that are there, when a worker has loaded the site.

    Its code and its models are a hundred thousand objects, through which Python would look again and again while
    sockets come: a tenth of the CPU of a storm. Does nothing if that was done already, by the site for example.
    """
    if _server() is not None and not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


def claim(environ: dict[str, Any]) -> Takeover:
    """Return the object that takes the connection of this request over.

    Raises:
        Unsupported: if the WSGI server, or its options, do not allow it.
    """
    server = pywsgi if pywsgi.SOCKET in environ else _server()
    if server is None:
        raise Unsupported(
            "This server cannot serve WebSockets; run the site with uWSGI, with gunicorn -k gevent, "
            "or with `manage.py runserver`."
        )
    takeover: Takeover = server.claim(environ)
    return takeover


def worker_number() -> int:
    """Return a number of this worker: the server's, which its successor gets, too, or its process id."""
    return uwsgi.worker_number() if uwsgi.is_running() else os.getpid()


def cores() -> float:
    """Return how many requests this worker answers at a time; infinite if the server does not say."""
    server = _server()
    return float("inf") if server is None else float(server.cores())


def acceptance() -> Callable[[bool], object]:
    """Return what has the server accept more connections at a time, if it is called with True, until with False."""
    return uwsgi.Acceptance().switch if uwsgi.is_running() else bool


def at_exit(callback: Callable[[], object], last: bool = False) -> None:
    """Call ``callback`` when the server ends or reloads this worker.

    Args:
        callback: may block.
        last: whether it comes after the handlers that are set already, of the site or by this function, and after the
            requests have ended; or before them.
    """
    server = _server()
    if server is not None:
        server.at_exit(callback, last)


def before_reload(callback: Callable[[], object]) -> Any:
    """Call ``callback`` from the event loop when half of the time is over that the server gives a worker to reload.

    Returns:
        what must be kept; None with a server that does not reload.
    """
    server = _server()
    return None if server is None else server.before_reload(callback)


def watch_hang_up(callback: Callable[[], object]) -> Any:
    """Call ``callback`` from the event loop when the client of the current request has hung up.

    Returns:
        a watcher of gevent's, to be stopped and closed before the request ends; None where it cannot be told.
    """
    server = _server()
    return None if server is None else server.watch_hang_up(callback)


def keep_out_of_log(environ: dict[str, Any]) -> None:
    """Keep the secret in the query of the current request out of the server's log.

    Args:
        environ: the server's, which loses the secret if the server logs what is in there.

    Raises:
        Unsupported: if the server would still log it.
    """
    server = _server()
    if server is not None:
        server.keep_out_of_log(environ)
