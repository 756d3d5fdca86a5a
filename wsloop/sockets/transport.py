"""Reads and writes of a connection that was taken over from the WSGI server, without blocking.

This module must not know the WebSocket protocol, nor the server that the connection came from.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket as patched_socket
from collections.abc import Callable
from typing import Any

import gevent
from gevent import monkey

# The standard library's class: smaller than gevent's, and it must not yield in callbacks of the event loop.
socket = monkey.get_original("socket", "socket")

original_poll = monkey.get_original("select", "poll")
original_epoll = monkey.get_original("select", "epoll") if hasattr(select, "EPOLLIN") else None  # Linux's
BROKEN = select.POLLHUP | select.POLLERR
HUNG_UP = BROKEN | getattr(select, "POLLRDHUP", 0)  # the last is Linux's

READ, WRITE = 1, 2  # the events of gevent's loop
RECEIVE_SIZE = 65536  # bytes read at once; one full TCP window would be no more


def has_hung_up(descriptor: int) -> bool:
    """Return whether the peer of a socket has ended its half of the connection, even if there is data to read."""
    return _happened(descriptor, HUNG_UP)


def is_broken(descriptor: int) -> bool:
    """Return whether nothing can be sent on a socket any more: it was reset, or both halves have ended."""
    return _happened(descriptor, BROKEN)


def _happened(descriptor: int, events: int) -> bool:
    poll = original_poll()
    poll.register(descriptor, events)
    return bool(poll.poll(0))


def when_hung_up(descriptor: int, callback: Callable[[], object]) -> Any:
    """Call ``callback`` from the event loop when the peer of a socket, which nobody reads meanwhile, has hung up.

    Returns:
        the watcher, to be stopped and closed before the descriptor is.
    """
    watcher = gevent.get_hub().loop.io(descriptor, READ)

    def check() -> None:
        hung_up = has_hung_up(descriptor)
        watcher.stop()  # otherwise the peer has sent something, which nobody reads: it would fire again and again
        if hung_up:
            callback()

    watcher.start(check)
    return watcher


def unwatch(descriptor: int) -> None:
    """Have the event loop forget a descriptor before it is closed, if the connection lives on in a duplicate of it.

    libev leaves it to the kernel to forget closed descriptors. The kernel forgets connections, of which a duplicate is
    one, too: what arrives is reported for the closed descriptor as well. libev then takes its kernel state for broken,
    and registers all descriptors anew (``epoll_poll`` in its ``ev_epoll.c``): 40 ms with 15,000 sockets, and that for
    each socket that was taken over. Does nothing if the loop uses something else than epoll.
    """
    loop = gevent.get_hub().loop
    number = loop.fileno()  # of epoll
    if original_epoll is None or loop.backend != "epoll" or number is None:
        return
    # A duplicate, because the object closes its descriptor; a new one, because libev may have made another epoll. An
    # error: it was never registered; or no descriptor is left, and the next event takes longer.
    with contextlib.suppress(OSError), contextlib.closing(original_epoll.fromfd(os.dup(number))) as epoll:
        epoll.unregister(descriptor)


class Transport:
    """A taken-over connection: reads, writes and waits without blocking.

    Args:
        descriptor: of an open socket; this object owns it from now on.
    """

    __slots__ = ("_events", "_ready", "_socket", "_watcher")

    def __init__(self, descriptor: int) -> None:
        self._socket: Any = socket(fileno=descriptor)
        self._socket.setblocking(False)
        if self._socket.family in (patched_socket.AF_INET, patched_socket.AF_INET6):
            # Output is joined here already; Nagle's algorithm would only delay it.
            self._socket.setsockopt(patched_socket.IPPROTO_TCP, patched_socket.TCP_NODELAY, 1)
        self._watcher: Any = None
        self._events = 0
        self._ready: Callable[[int], None] | None = None

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
        return has_hung_up(self._socket.fileno())

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
            # A duplicate held elsewhere (a process that the site has forked) must not keep the connection open.
            self._socket.shutdown(patched_socket.SHUT_RDWR)
        self._socket.close()
