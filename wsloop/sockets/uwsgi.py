"""Facts on uWSGI, and the take-over of its connections: the only module that knows uWSGI."""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
from collections.abc import Callable
from typing import Any

import gevent

from wsloop.sockets.takeover import UNPATCHED, Takeover, Unsupported
from wsloop.sockets.transport import READ, original_poll, socket, when_hung_up

try:
    import uwsgi
except ImportError:  # not inside uWSGI
    uwsgi = None

logger = logging.getLogger("wsloop.sockets.uwsgi")

ACCEPTED = 64  # connections in a turn of the event loop, in a storm: pages among them must not wait in the kernel
RELOAD_MERCY = "60"  # seconds; uWSGI's default


def is_running() -> bool:
    """Return whether this process belongs to uWSGI."""
    return uwsgi is not None


def prepare(patched: bool) -> None:
    """Refuse a process that gevent has not patched.

    Raises:
        Unsupported: for that reason.
    """
    if not patched:
        raise Unsupported(UNPATCHED)


def cores() -> float:
    """Return how many requests this worker answers at a time."""
    return float(uwsgi.cores)


class Acceptance:
    """Has uWSGI accept :data:`ACCEPTED` connections in a turn of the event loop, not one, while it is switched on.

    With one a turn, and turns of some milliseconds, thousands of clients that come back would wait in the kernel, which
    has room for ``listen`` connections, with pages among them. Not always, because a worker would take those that
    others are free for. uWSGI's own watchers are looked for among all objects, because it does not hand them out.
    """

    def __init__(self) -> None:
        self._watchers: list[tuple[Any, Any]] | None = None

    def switch(self, on: bool) -> None:
        """Switch it on or off."""
        if self._watchers is None:
            loop: Any = gevent.get_hub().loop
            self._watchers = [(loop.io(each.fd, READ), each) for each in _listening()]
        for watcher, own in self._watchers:
            if on and not watcher.active:
                watcher.start(_accept, own)
            elif not on:
                watcher.stop()


def _listening() -> list[Any]:
    """Return uWSGI's watchers of its listening sockets."""
    loop: Any = gevent.get_hub().loop
    kind = type(loop.io(0, READ))

    def found() -> list[Any]:
        watchers = [each for each in gc.get_objects() if type(each) is kind]
        return [each for each in watchers if getattr(each.callback, "__name__", "") == "uwsgi_gevent_main"]

    watchers = found()
    if not watchers and gc.get_freeze_count():  # frozen after the loop had begun
        gc.unfreeze()
        watchers = found()
        gc.freeze()
    return watchers


def _accept(own: Any) -> None:
    """Have uWSGI accept what waits, unless it has stopped to."""
    poll = original_poll()
    poll.register(own.fd, select.POLLIN)
    for _ in range(ACCEPTED - 1):
        if not own.active or not poll.poll(0):
            return
        own.callback(*own.args)


def worker_number() -> int:
    """Return the number of this worker, from 1 on, which its successor gets, too."""
    return int(uwsgi.worker_id())


class UwsgiTakeover(Takeover):
    """Behind its http router, on an http-socket, or behind nginx."""

    def descriptor(self) -> int:
        return uwsgi.connection_fd()  # type: ignore[no-any-return]


def claim(environ: dict[str, Any]) -> Takeover:
    """Return the object that takes the connection of this request over.

    Raises:
        Unsupported: if the options of uWSGI do not allow it.
    """
    if not _runs_gevent():
        raise Unsupported("uWSGI must run its gevent loop for WebSockets: add the option --gevent 100.")
    takeover = UwsgiTakeover()
    for option, reason in (
        ("https-socket", "keeps the encryption to itself; use --https, or a proxy such as nginx in front"),
        ("http11-socket", "goes on reading the connection for a next request; use --http-socket or --http"),
    ):
        if _listens(option, takeover.descriptor()):
            raise Unsupported(f"uWSGI's --{option} cannot serve WebSockets, because it {reason}.")
    return takeover


def at_exit(callback: Callable[[], object], last: bool = False) -> None:
    """Call ``callback`` when uWSGI ends or reloads this worker.

    Args:
        callback: may block.
        last: whether it comes after the handlers that are set already, of the site or by this function, or before them.
    """
    previous = getattr(uwsgi, "atexit", None)
    callbacks = [each for each in (callback, previous) if callable(each)]
    if last:
        callbacks.reverse()

    def run() -> None:
        for each in callbacks:
            each()

    uwsgi.atexit = run


def before_reload(callback: Callable[[], object]) -> Any:
    """Call ``callback`` from the event loop when half of the time is over that uWSGI gives this worker to reload.

    uWSGI waits for running requests before it calls what :func:`at_exit` has set; and when the time is over it kills
    the worker, with all of its sockets.

    Returns:
        the watcher of the signal.
    """
    return _when_told_to_end(_mercy() / 2, callback)


def end_in_time() -> Any:
    """End this worker when the time is over that uWSGI gives it to reload.

    uWSGI's master does so when it reloads workers, but not in ``gracefully_kill_them_all``, which ends the server (see
    ``uwsgi.ini``): without this a request that never ends would keep the server alive.

    Returns:
        the watcher of the signal.
    """
    mercy = _mercy()

    def end() -> None:
        logger.error("The worker has not ended in %g s (worker-reload-mercy), and is killed: requests still run", mercy)
        os.kill(os.getpid(), signal.SIGKILL)

    return _when_told_to_end(mercy, end)


def _mercy() -> float:
    """Return the seconds after which uWSGI kills a worker that it has told to end."""
    return float((uwsgi_option("worker-reload-mercy") or [RELOAD_MERCY])[-1])


def _when_told_to_end(seconds: float, callback: Callable[[], object]) -> Any:
    loop = gevent.get_hub().loop
    timer = loop.timer(seconds)
    watcher = loop.signal(signal.SIGHUP)
    watcher.start(lambda: timer.start(callback))
    return watcher


def watch_hang_up(callback: Callable[[], object]) -> Any:
    """Call ``callback`` from the event loop when the client of the current request of uWSGI has hung up.

    Returns:
        the watcher, to be stopped and closed before the request ends; None without a request.
    """
    try:
        descriptor = uwsgi.connection_fd()
    except SystemError:  # a view that runs outside of a request of uWSGI: the client of a socket has called it
        return None
    return when_hung_up(descriptor, callback)


def keep_out_of_log(environ: dict[str, Any]) -> None:
    """Keep uWSGI from logging the current request, because its query contains a secret.

    No other action of uWSGI's internal routing may be called from Python: an action with a text crashes the worker,
    because there is no regular expression that the text could refer to. (Seen with ``seturi`` in 2.0.30.)

    Raises:
        Unsupported: if this uWSGI would still log the query.
    """
    if hasattr(uwsgi, "route"):  # not without PCRE
        uwsgi.route("donotlog", "")
        return
    formats = uwsgi_option("log-format") + uwsgi_option("logformat")
    if not formats or any(name in each for each in formats for name in ("%(uri)", "REQUEST_URI", "QUERY_STRING")):
        raise Unsupported(
            "This uWSGI was built without PCRE and would log the token in the URL. Send the token as a subprotocol, "
            "use the package pyuwsgi, or set log-format without %(uri), as uwsgi.ini of wsloop's sample site does."
        )


def uwsgi_option(name: str) -> list[str]:
    """Return the values of an option of the running uWSGI, as text; an empty list if it is not set."""
    value = uwsgi.opt.get(name, uwsgi.opt.get(name.encode()))
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [each.decode() if isinstance(each, bytes) else str(each) for each in values]


def _runs_gevent() -> bool:
    return bool(uwsgi_option("gevent")) or uwsgi_option("loop") == ["gevent"]


def _listens(option: str, descriptor: int) -> bool:
    """Return whether a connection came in through a socket that the uWSGI option ``option`` opened."""
    addresses = [value.split(",")[0] for value in uwsgi_option(option)]
    if not addresses:
        return False
    with socket(fileno=os.dup(descriptor)) as connection:
        local = connection.getsockname()
    if isinstance(local, tuple):
        return any(address.rpartition(":")[2] == str(local[1]) for address in addresses)
    return local in addresses
