"""How connections are taken over from the server in front: real socket pairs."""

import socket

import gevent
import pytest

from tests.unit.peer import WAIT, turn
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

    takeover = PairTakeover(server)
    transport = takeover.accept(start_response, [("Upgrade", "websocket")])
    assert steps == [("101 Switching Protocols", [("Upgrade", "websocket")])]
    assert takeover.finish(transport) == []
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


def test_the_request_of_gevents_server_lasts_as_long_as_the_connection():
    server, client = socket.socketpair()
    with server, client:
        takeover = SocketTakeover({"wsloop.socket": server})
        transport = takeover.accept(lambda status, headers: server.sendall, [])
        request = gevent.spawn(takeover.finish, transport)
        turn()
        assert not request.ready()
        transport.close()
        assert request.get(timeout=WAIT) == []
