"""Facts on gunicorn, and the take-over of its connections. Imports nothing of gunicorn, which may not be installed."""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import gevent
from gevent.socket import socket as GeventSocket

from wsloop.greenlets import spawn
from wsloop.redaction import RedactTokens, request_line
from wsloop.sockets import pywsgi
from wsloop.sockets.ending import ending
from wsloop.sockets.takeover import UNPATCHED, SocketTakeover, Takeover, Unsupported

LOOK = 1.0  # seconds between two looks whether the worker is to end; the worker itself looks as often


def is_loaded() -> bool:
    """Return whether this process runs the program gunicorn, which may load the site before there is a worker."""
    return "gunicorn.arbiter" in sys.modules


def _preloads() -> bool:
    """Return whether gunicorn loads the site in the process that forks the workers (``preload_app``)."""
    frame: Any = sys._getframe()
    while frame is not None and _worker() is None:
        if _is_a("arbiter", "Arbiter", frame.f_locals.get("self")):
            return True
        frame = frame.f_back
    return False


def _worker() -> Any:
    """Return gunicorn's worker; None in other processes."""
    owner = _owner()
    return owner if _is_a("workers.base", "Worker", owner) else None


def _owner() -> Any:
    """Return gunicorn's worker, or its arbiter in the process that forks them; None in others. Both handle SIGTERM."""
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return owner if type(owner).__module__.startswith("gunicorn.") or _is_a("workers.base", "Worker", owner) else None


def _is_a(module: str, name: str, instance: object) -> bool:
    loaded = sys.modules.get(f"gunicorn.{module}")
    return loaded is not None and isinstance(instance, getattr(loaded, name))


def is_running() -> bool:
    """Return whether this process belongs to gunicorn."""
    return _owner() is not None


def setting(name: str) -> Any:
    """Return the value of a setting of the running gunicorn."""
    return _owner().cfg.worker_class_str if name == "worker_class" else getattr(_owner().cfg, name)


def cores() -> float:
    """Return how many requests this worker answers at a time."""
    return float(setting("worker_connections"))


def prepare(patched: bool) -> None:
    """Get a process of gunicorn ready for sockets: a worker, or with ``preload_app`` the process that forks them.

    Raises:
        Unsupported: if gevent patches the process after the site was loaded; or if it has patched a worker of another
            class, whose threads might hang in every request.
    """
    if not patched and _preloads():
        raise Unsupported(f"gunicorn's preload_app loads the site before its worker patches the process: {UNPATCHED}")
    if patched and _worker() is not None and not _runs_gevent():
        raise Unsupported(_other_class())
    for name in ("gunicorn.access", "gunicorn.error"):  # lines of whole requests
        log = logging.getLogger(name)
        if not any(isinstance(each, RedactTokens) for each in log.filters):
            log.addFilter(RedactTokens())


def _runs_gevent() -> bool:
    return _is_a("workers.ggevent", "GeventWorker", _worker())


def _other_class() -> str:
    name = setting("worker_class")
    return f"gunicorn's worker class {name} cannot serve WebSockets: run gunicorn with -k gevent."


def claim(environ: dict[str, Any]) -> Takeover:
    """Return the object that takes the connection of this request over.

    Raises:
        Unsupported: if the options of gunicorn do not allow it.
    """
    connection = environ.get("gunicorn.socket")
    if not _runs_gevent() or not isinstance(connection, GeventSocket):
        raise Unsupported(_other_class())
    if setting("is_ssl"):
        raise Unsupported(
            "gunicorn's --certfile cannot serve WebSockets, because it keeps the encryption to itself; use a proxy "
            "such as nginx in front."
        )
    if environ.get("SERVER_PROTOCOL", "").startswith("HTTP/2"):
        raise Unsupported("Over HTTP/2 gunicorn cannot hand a connection over; leave h2 out of --http-protocols.")
    return SocketTakeover(connection)


def at_exit(callback: Callable[[], object], last: bool = False) -> None:
    """Call ``callback`` as soon as the worker is to end; with ``last`` when its requests have ended, too."""
    ending().add(callback, last)
    if _worker() is not None:
        _watch(os.getpid())


def before_reload(callback: Callable[[], object]) -> Any:
    """Call ``callback`` when half of the time is over that a worker has to end its requests (``graceful_timeout``)."""
    if _worker() is not None:
        _watch(os.getpid()).append(callback)
    return None


@functools.lru_cache(maxsize=1)
def _watch(process: int) -> list[Callable[[], object]]:
    """Watch the worker, which may end for many reasons: SIGTERM, a reload, ``max_requests``.

    Returns:
        what is called in half of the time for the end of the requests.
    """
    worker = _worker()
    loop = gevent.get_hub().loop
    timer = loop.timer(LOOK, LOOK, ref=False)
    halfway = loop.timer(worker.cfg.graceful_timeout / 2, ref=False)
    callbacks: list[Callable[[], object]] = []

    def call() -> None:
        for each in callbacks:
            spawn(each)

    def look() -> None:
        if not worker.alive:
            timer.stop()
            ending().begin()
            halfway.start(call)

    timer.start(look)
    return callbacks


def watch_hang_up(callback: Callable[[], object]) -> Any:
    """Call ``callback`` from the event loop when the client of the current request has hung up."""
    return pywsgi.watch_hang_up(callback)  # the worker has a server of gevent


def keep_out_of_log(environ: dict[str, Any]) -> None:
    """Keep the token of this request out of the access log, however the client has written it: out of its environ."""
    line = request_line(environ.get("REQUEST_METHOD", ""), environ.get("RAW_URI", ""))
    environ["RAW_URI"] = line.partition(" ")[2]
    environ["QUERY_STRING"] = line.partition("?")[2]
