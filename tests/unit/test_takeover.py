"""How connections are taken over from the server in front: real socket pairs."""

import contextlib
import errno
import os
import socket
import types

import gevent
import pytest

from testbed.processes import stale_watches
from wsloop.sockets import transport as transport_module
from wsloop.sockets.takeover import Gone, SocketTakeover, Takeover


class PairTakeover(Takeover):
    def __init__(self, sock):
        self._socket = sock

    def descriptor(self):
        return self._socket.fileno()


def test_takeover_sends_the_101_first_and_duplicates_the_descriptor():
    server, client = socket.socketpair()
    steps = []

    def start_response(status, headers):
        steps.append((status, headers))
        return lambda data: server.sendall(b"101 " + data)

    transport = PairTakeover(server).accept(start_response, [("Upgrade", "websocket")])
    assert steps == [("101 Switching Protocols", [("Upgrade", "websocket")])]
    server.close()  # as uWSGI does when the request ends
    with client:
        assert client.recv(100) == b"101 "
        assert transport.send(b"frame") == 5
        assert client.recv(100) == b"frame"
        transport.close()
        assert client.recv(100) == b""


def test_a_client_that_hung_up_before_the_101_is_gone(descriptors):
    server, client = socket.socketpair()
    client.close()
    with server:
        before = descriptors()
        with pytest.raises(Gone):
            PairTakeover(server).accept(lambda status, headers: lambda data: server.sendall(b"101" + data), [])
        assert descriptors() == before


def test_a_server_with_a_socket_finds_the_end_of_the_line_where_the_client_was(descriptors):
    """Whatever it does at the end of a request, the connection does not notice."""
    before = descriptors()
    server, client = socket.socketpair()
    steps = []

    def start_response(status, headers):
        steps.append((status, headers))
        return lambda data: server.sendall(b"HTTP/1.1 of the server's own")

    transport = SocketTakeover(server).accept(start_response, [("Upgrade", "websocket")])
    with client:
        assert client.recv(100) == b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
        assert steps == [("101 Switching Protocols", [("Upgrade", "websocket")])]
        client.sendall(b"of the client")
        assert server.recv(100) == b""
        with pytest.raises(BrokenPipeError):
            server.sendall(b"0\r\n\r\n")
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        assert transport.receive() == b"of the client"
        transport.send(b"frame")
        assert client.recv(100) == b"frame"
        transport.close()
        assert client.recv(100) == b""
    assert descriptors() <= before + 1, "one end of a line serves all"


def test_a_stream_of_events_has_the_head_that_was_asked_for():
    server, client = socket.socketpair()
    headers = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")]
    with server, client:
        transport = SocketTakeover(server).accept(lambda status, headers: None, headers, "200 OK")
        expected = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n"
        assert client.recv(200) == expected
        transport.close()


def test_a_client_of_such_a_server_that_hung_up_before_the_101_is_gone(descriptors):
    server, client = socket.socketpair()
    client.close()
    with server:
        before = descriptors()
        with pytest.raises(Gone):
            SocketTakeover(server).accept(lambda status, headers: None, [])
        assert descriptors() == before


def test_a_header_that_the_server_refuses_leaves_the_connection_to_its_response():
    server, client = socket.socketpair()
    with server, client:

        def start_response(status, headers):
            raise ValueError("carriage return or newline in header value")

        with pytest.raises(ValueError):
            SocketTakeover(server).accept(start_response, [("X-Forged", "a\r\nb")])
        server.sendall(b"HTTP/1.1 500 Internal Server Error")
        assert client.recv(100) == b"HTTP/1.1 500 Internal Server Error"


@pytest.mark.parametrize("kind", [PairTakeover, SocketTakeover])
def test_the_event_loop_does_not_go_on_watching_the_descriptor_of_the_request(kind):
    """Else each byte that arrives would be reported twice, and libev would register all descriptors anew."""
    server, client = socket.socketpair()
    watcher = gevent.get_hub().loop.io(server.fileno(), 1)  # as the server has read the request
    watcher.start(lambda: None)
    gevent.sleep(0.01)
    watcher.stop()
    transport = kind(server).accept(lambda status, headers: lambda data: None, [])
    with client:
        server.close()
        transport.start(lambda events: None)
        gevent.sleep(0.01)
        assert stale_watches(os.getpid()) == []
        transport.close()


@pytest.mark.parametrize("kind", [PairTakeover, SocketTakeover])
def test_the_last_descriptor_is_enough(kind, monkeypatch):
    """The head of the response is out: nothing may fail any more."""

    def none_left(descriptor):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(transport_module, "original_epoll", types.SimpleNamespace(fromfd=none_left))
    server, client = socket.socketpair()
    with client, server:
        transport = kind(server).accept(lambda status, headers: lambda data: None, [])
        transport.send(b"frame")
        assert client.recv(1000).endswith(b"frame")
        transport.close()
