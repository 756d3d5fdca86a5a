"""Takes sockets over from the WSGI server: the only module that knows uWSGI and gevent's WSGI server. Longer than other
modules, because all facts about these servers are in one place.

How it works. The 101 goes out through the server's own ``start_response``. Then the connection's descriptor is
duplicated and the request ends: uWSGI closes its descriptor and frees its core, while the TCP connection lives on
through the duplicate, which gevent's event loop watches. gevent's own WSGI server (``manage.py runserver``) would
continue to read the same connection for the next request, so there the request waits until the socket has ended.

This module must not know the WebSocket protocol.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket as patched_socket
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent import monkey
from gevent.event import Event

try:
    import uwsgi
except ImportError:  # not inside uWSGI
    uwsgi = None

# The standard library's class: smaller than gevent's, and it must not yield in callbacks of the event loop.
socket = monkey.get_original("socket", "socket")

original_poll = monkey.get_original("select", "poll")
HUNG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)  # the last is Linux's

READ, WRITE = 1, 2  # the events of gevent's loop
RELOAD_MERCY = "60"  # seconds; uWSGI's default
SWITCHING = "101 Switching Protocols"
RECEIVE_SIZE = 65536  # bytes read at once; one full TCP window would be no more

Headers = list[tuple[str, str]]


class Unsupported(Exception):
    """The WSGI server cannot hand its connections over; the text says what to do about it."""


class Gone(Exception):
    """The client hung up before the 101."""


class Transport:
    """A taken-over connection: reads, writes and waits without blocking.

    Args:
        descriptor: of an open socket; this object owns it from now on.
    """

    __slots__ = ("_events", "_on_close", "_ready", "_socket", "_watcher")

    def __init__(self, descriptor: int) -> None:
        self._socket: Any = socket(fileno=descriptor)
        self._socket.setblocking(False)
        if self._socket.family in (patched_socket.AF_INET, patched_socket.AF_INET6):
            # Output is joined here already; Nagle's algorithm would only delay it.
            self._socket.setsockopt(patched_socket.IPPROTO_TCP, patched_socket.TCP_NODELAY, 1)
        self._watcher: Any = None
        self._events = 0
        self._ready: Callable[[int], None] | None = None
        self._on_close: Callable[[], None] | None = None

    def start(self, ready: Callable[[int], None]) -> None:
        """Have the event loop call ``ready`` with READ, WRITE or both; for READ until :meth:`watch` says otherwise."""
        self._ready = ready
        self._watcher = gevent.get_hub().loop.io(self._socket.fileno(), READ)
        self.watch(READ)

    def watch(self, events: int) -> None:
        """Wait for READ, WRITE, both (their sum) or nothing (0)."""
        if events == self._events or self._watcher is None:
            return
        self._watcher.stop()
        self._events = events
        if events:
            self._watcher.events = events
            self._watcher.start(self._ready, pass_events=True)

    def receive(self) -> bytes | None:
        """Return the data that has arrived, None if there is none; ``b""`` at the end of the stream or on an error."""
        try:
            return self._socket.recv(RECEIVE_SIZE)  # type: ignore[no-any-return]
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    def send(self, data: bytes) -> int:
        """Hand ``data`` to the kernel and return how many bytes it took.

        Raises:
            OSError: if the connection is broken.
        """
        try:
            return self._socket.send(data)  # type: ignore[no-any-return]
        except (BlockingIOError, InterruptedError):
            return 0

    @property
    def hung_up(self) -> bool:
        """Whether the client has ended its half of the connection, even if there is data to read before the end."""
        if self._watcher is None:
            return True
        poll = original_poll()
        poll.register(self._socket.fileno(), HUNG_UP)
        return bool(poll.poll(0))

    def end_when_unread(self, seconds: int) -> None:
        """Have the kernel end the connection when what is sent is not acknowledged for so long (RFC 5482)."""
        option = getattr(patched_socket, "TCP_USER_TIMEOUT", None)  # Linux's
        if option is not None and self._socket.family in (patched_socket.AF_INET, patched_socket.AF_INET6):
            self._socket.setsockopt(patched_socket.IPPROTO_TCP, option, 1000 * seconds)

    def send_eof(self) -> None:
        """End the outgoing half of the connection."""
        with contextlib.suppress(OSError):  # the client may be faster
            self._socket.shutdown(patched_socket.SHUT_WR)

    def close(self) -> None:
        """End the connection. May be called again."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        self._ready = None
        with contextlib.suppress(OSError):
            # A duplicate held elsewhere (gevent's WSGI server) must not keep the connection open.
            self._socket.shutdown(patched_socket.SHUT_RDWR)
        self._socket.close()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the connection has ended."""
        self._on_close = callback


class Takeover:
    """Takes the connection of one request over. Made before the client gets a promise."""

    def descriptor(self) -> int:
        """Return the descriptor of the request's connection."""
        raise NotImplementedError

    def accept(self, start_response: Callable[..., Any], headers: Headers, status: str = SWITCHING) -> Transport:
        """Send the head of the response and return the connection.

        Args:
            start_response: of WSGI.
            headers: of the response.
            status: of the response.

        Raises:
            Gone: if the client has hung up.
        """
        try:
            with socket(fileno=os.dup(self.descriptor())) as connection:
                broken = connection.getsockopt(patched_socket.SOL_SOCKET, patched_socket.SO_ERROR)
            if broken:  # uWSGI would log an answer that it cannot send, with the token in its URL
                raise OSError(broken, os.strerror(broken))
            write = start_response(status, headers)
            write(b"")  # makes the server send the headers
            return Transport(os.dup(self.descriptor()))
        except OSError as exc:
            raise Gone from exc

    def finish(self, transport: Transport) -> Iterable[bytes]:
        """Return the value that the WSGI callable returns, as soon as it may return."""
        return []


class UwsgiTakeover(Takeover):
    """uWSGI: behind its http router, on an http-socket, or behind nginx."""

    def __init__(self) -> None:
        if not _runs_gevent():
            raise Unsupported("uWSGI must run its gevent loop for WebSockets: add the option --gevent 100.")
        for option, reason in (
            ("https-socket", "keeps the encryption to itself; use --https, or a proxy such as nginx in front"),
            ("http11-socket", "goes on reading the connection for a next request; use --http-socket or --http"),
        ):
            if _listens(option, self.descriptor()):
                raise Unsupported(f"uWSGI's --{option} cannot serve WebSockets, because it {reason}.")

    def descriptor(self) -> int:
        return uwsgi.connection_fd()  # type: ignore[no-any-return]


class SocketTakeover(Takeover):
    """gevent's WSGI server, whose handler puts the socket into the environ (see the command runserver)."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._socket = environ["wsloop.socket"]
        environ["wsloop.taken"] = True  # for the handler: what follows its head is not its own

    def descriptor(self) -> int:
        return self._socket.fileno()  # type: ignore[no-any-return]

    def finish(self, transport: Transport) -> Iterable[bytes]:
        ended = Event()
        transport.on_close(ended.set)
        ended.wait()
        return []


def inside_uwsgi() -> bool:
    """Return whether this process belongs to uWSGI."""
    return uwsgi is not None


def claim(environ: dict[str, Any]) -> Takeover:
    """Return the object that takes the connection of this request over.

    Raises:
        Unsupported: if the WSGI server, or its options, do not allow it.
    """
    if "wsloop.socket" in environ:
        return SocketTakeover(environ)
    if uwsgi is not None:
        return UwsgiTakeover()
    raise Unsupported("This server cannot serve WebSockets; run the site with uWSGI, or `manage.py runserver`.")


def at_exit(callback: Callable[[], object], last: bool = False) -> None:
    """Call ``callback`` when uWSGI ends or reloads this worker.

    Args:
        callback: may block.
        last: whether it comes after the handlers that are set already, of the site or by this function, or before them.
    """
    if uwsgi is None:
        return
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
        the watcher of the signal; None with another server.
    """
    if uwsgi is None:
        return None
    mercy = float((uwsgi_option("worker-reload-mercy") or [RELOAD_MERCY])[-1])
    loop = gevent.get_hub().loop
    timer = loop.timer(mercy / 2)
    watcher = loop.signal(signal.SIGHUP)
    watcher.start(lambda: timer.start(callback))
    return watcher


def watch_hang_up(callback: Callable[[], object]) -> Any:
    """Call ``callback`` from the event loop when the client of the current request of uWSGI has hung up.

    Returns:
        the watcher, to be stopped and closed before the request ends; None with another server, or without a request.
    """
    if uwsgi is None:
        return None
    try:
        descriptor = uwsgi.connection_fd()
    except SystemError:  # a view that runs outside of a request of uWSGI: the client of a socket has called it
        return None
    watcher = gevent.get_hub().loop.io(descriptor, READ)

    def check() -> None:
        poll = original_poll()
        poll.register(descriptor, HUNG_UP)
        hung_up = bool(poll.poll(0))
        watcher.stop()  # otherwise the client has sent something, which nobody reads: it would fire again and again
        if hung_up:
            callback()

    watcher.start(check)
    return watcher


def keep_out_of_log() -> None:
    """Keep uWSGI from logging the current request, because its query contains a secret.

    No other action of uWSGI's internal routing may be called from Python: an action with a text crashes the worker,
    because there is no regular expression that the text could refer to. (Seen with ``seturi`` in 2.0.30.)

    Raises:
        Unsupported: if this uWSGI would still log the query.
    """
    if uwsgi is None:
        return  # the handler of the command runserver leaves secrets out
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
