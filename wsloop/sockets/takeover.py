"""How a connection is taken over from the WSGI server that has accepted it.

The 101 goes out through the server's own ``start_response``. Then the connection's descriptor is duplicated and the
request ends: uWSGI closes its descriptor and frees its core, while the TCP connection lives on through the duplicate,
which gevent's event loop watches. gevent's own WSGI server (``manage.py runserver``) would continue to read the same
connection for the next request, so there the request waits until the socket has ended.

This module must not know the WebSocket protocol.
"""

from __future__ import annotations

import os
import socket as patched_socket
from collections.abc import Callable, Iterable
from typing import Any

from gevent.event import Event

from wsloop.sockets.transport import Transport, socket

SWITCHING = "101 Switching Protocols"

Headers = list[tuple[str, str]]


class Unsupported(Exception):
    """The WSGI server cannot hand its connections over; the text says what to do about it."""


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
