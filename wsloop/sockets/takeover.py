"""How a connection is taken over from the WSGI server that has accepted it.

The 101 goes out first. Then the connection's descriptor is duplicated and the request ends: the server closes its own
descriptor and has nothing more to do with it, while the TCP connection lives on through the duplicate, which gevent's
event loop watches.

This module must not know the WebSocket protocol.
"""

from __future__ import annotations

import errno
import functools
import os
import socket as patched_socket
from collections.abc import Callable
from typing import Any

from wsloop.sockets.transport import Transport, is_broken, unwatch

SWITCHING = "101 Switching Protocols"

Headers = list[tuple[str, str]]


class Unsupported(Exception):
    """The WSGI server cannot hand its connections over; the text says what to do about it."""


UNPATCHED = "wsgi.py must begin with `from gevent import monkey; monkey.patch_all()`, before any other import"


class Gone(Exception):
    """The client hung up before the 101."""


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
            if is_broken(self.descriptor()):  # uWSGI would log an answer that it cannot send, with the token in its URL
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            write = start_response(status, headers)
            write(b"")  # makes the server send the headers
            transport = Transport(os.dup(self.descriptor()))
        except OSError as exc:
            raise Gone from exc
        unwatch(self.descriptor())
        return transport


class SocketTakeover(Takeover):
    """A Python server on gevent, whose socket of the request is at hand.

    Such a server goes on reading for the connection's next request, and at the end it may shut the connection down. So
    its socket is put on the end of a line whose other end is closed: whatever it does there, the client is gone. All
    of them take that for what happens every day. The head does not go through the server, because there is no header
    that all of them leave as it is: some would send the stream in chunks.

    Args:
        connection: of gevent.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def descriptor(self) -> int:
        return self._connection.fileno()  # type: ignore[no-any-return]

    def accept(self, start_response: Callable[..., Any], headers: Headers, status: str = SWITCHING) -> Transport:
        start_response(status, headers)  # for the server's log; it refuses what would not be a header
        head = "".join([f"HTTP/1.1 {status}\r\n", *(f"{name}: {value}\r\n" for name, value in headers), "\r\n"])
        try:
            self._connection.sendall(head.encode("latin-1"))
            transport = Transport(os.dup(self.descriptor()))
        except OSError as exc:
            raise Gone from exc
        unwatch(self.descriptor())
        os.dup2(_dead_end(os.getpid()).fileno(), self.descriptor(), inheritable=False)
        return transport


@functools.lru_cache(maxsize=1)
def _dead_end(process: int) -> Any:
    """Return a socket whose peer is gone: reading ends, and writing fails, at once."""
    ours, theirs = patched_socket.socketpair()
    theirs.close()
    ours.setblocking(False)
    return ours
