"""Sockets taken over from the server in front: real socket pairs, and TCP where it differs."""

import os
import signal
import socket
import types

import gevent
import pytest
from gevent.event import Event
from gevent.queue import Queue

from testbed.processes import wait_until
from tests.unit.peer import WAIT, turn
from wsloop.sockets import transport as module
from wsloop.sockets.transport import READ, WRITE, Gone, SocketTakeover, Takeover, Unsupported


def test_receives_what_has_arrived_and_nothing_else(pair):
    transport, peer = pair()
    assert transport.receive() is None
    peer.send(b"hello")
    assert transport.receive() == b"hello"
    assert transport.receive() is None


def test_the_end_of_the_stream_is_empty(pair):
    transport, peer = pair()
    peer.close()
    assert transport.receive() == b""


def test_a_broken_line_reads_as_the_end_of_the_stream(tcp_pair):
    transport, peer = tcp_pair()
    ready = Event()
    transport.start(lambda events: ready.set())
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # close() sends a reset
    peer.close()
    assert ready.wait(WAIT)
    assert transport.receive() == b""


@pytest.mark.parametrize("how", ["close", "shutdown"])
@pytest.mark.parametrize("unread", [b"", b"x" * 100_000])
@pytest.mark.parametrize("make", ["pair", "tcp_pair"])
def test_that_the_peer_has_hung_up_is_seen_without_reading(request, make, how, unread):
    transport, peer = request.getfixturevalue(make)()
    transport.start(lambda events: None)
    transport.watch(0)
    assert not transport.hung_up
    peer.send(unread)
    turn()
    assert not transport.hung_up, "what can be read is no end"
    peer.close() if how == "close" else peer.socket.shutdown(socket.SHUT_WR)
    wait_until(lambda: transport.hung_up, what="the end")
    received = b""
    while len(received) < len(unread):
        received += transport.receive()
    assert received == unread
    assert transport.receive() == b""
    assert transport.hung_up


def test_a_reset_is_seen_without_reading(tcp_pair):
    transport, peer = tcp_pair()
    transport.start(lambda events: None)
    transport.watch(0)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    peer.close()
    wait_until(lambda: transport.hung_up, what="the end")


def test_a_connection_that_has_ended_or_not_begun_counts_as_hung_up(pair):
    transport, _ = pair()
    assert transport.hung_up
    transport.start(lambda events: None)
    assert not transport.hung_up
    transport.close()
    assert transport.hung_up


def test_looking_for_the_end_blocks_nobody(pair):
    transport, _ = pair()
    transport.start(lambda events: None)
    others = gevent.spawn(lambda: "ran")
    assert not transport.hung_up
    assert not others.ready(), "it must not yield: it is asked in callbacks of the loop"
    others.join()


def test_sends_as_much_as_the_kernel_takes(pair):
    transport, peer = pair(send_buffer=4096)
    data = bytes(range(256)) * 4096
    taken = transport.send(data)
    assert 0 < taken < len(data)
    while more := transport.send(data[taken:]):
        taken += more
    received = b""
    while len(received) < taken:
        received += peer.socket.recv(65536)
    assert received == data[:taken]


def test_sending_on_a_broken_line_raises(pair):
    transport, peer = pair()
    peer.close()
    with pytest.raises(OSError):
        transport.send(b"hello")


def test_a_tcp_connection_does_not_hold_small_frames_back(tcp_pair):
    transport, _ = tcp_pair()
    assert transport._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_reports_reading_then_what_is_watched(pair):
    transport, peer = pair()
    calls = Queue()
    transport.start(calls.put)
    turn()
    assert calls.empty(), "there is nothing to read, and nobody asked about writing"
    peer.send(b"x")
    assert calls.get(timeout=WAIT) == READ
    transport.watch(WRITE)
    assert transport._events == WRITE
    turn()
    seen = {calls.get(timeout=WAIT) for _ in range(calls.qsize())} - {READ}
    assert seen == {WRITE}
    transport.watch(READ + WRITE)
    assert calls.get(timeout=WAIT) in (READ + WRITE, WRITE)
    transport.watch(0)
    turn()
    while not calls.empty():
        calls.get()
    turn()
    assert calls.empty()


def test_watching_before_the_start_and_after_the_end_does_nothing(pair):
    transport, _ = pair()
    transport.watch(WRITE)
    assert transport._events == 0
    transport.start(lambda events: None)
    transport.close()
    transport.watch(READ)


def test_closing_ends_the_connection_although_a_duplicate_is_held_elsewhere(pair):
    transport, peer = pair()
    duplicate = os.dup(transport._socket.fileno())
    try:
        transport.close()
        assert peer.socket.recv(1) == b""
    finally:
        os.close(duplicate)


def test_closing_twice_tells_once_and_leaves_no_descriptor(descriptors, pair):
    before = descriptors()
    transport, peer = pair()
    calls = []
    transport.on_close(lambda: calls.append("closed"))
    transport.start(lambda events: None)
    transport.close()
    transport.close()
    peer.close()
    assert calls == ["closed"]
    assert descriptors() == before


def test_the_end_of_the_outgoing_half_leaves_the_other_one(pair):
    transport, peer = pair()
    transport.send_eof()
    assert peer.socket.recv(1) == b""
    peer.send(b"still there")
    assert transport.receive() == b"still there"
    peer.close()
    transport.close()
    transport.send_eof()  # the peer was faster: no error


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
        takeover = module.claim({"wsloop.socket": server})
        assert isinstance(takeover, SocketTakeover)
        transport = takeover.accept(lambda status, headers: server.sendall, [])
        request = gevent.spawn(takeover.finish, transport)
        turn()
        assert not request.ready()
        transport.close()
        assert request.get(timeout=WAIT) == []


def test_another_server_is_refused_with_what_to_do():
    with pytest.raises(Unsupported, match=r"run the site with uWSGI, or `manage\.py runserver`"):
        module.claim({})
    assert not module.inside_uwsgi()


# The module `uwsgi` exists only inside uWSGI, where the integration tests have it; here only what is read from it.


@pytest.fixture
def uwsgi(monkeypatch):
    """What uWSGI would offer for a request that came in on the listener."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as request,
    ):
        fake = types.SimpleNamespace(opt={"gevent": b"100"}, connection_fd=request.fileno)
        fake.port = listener.getsockname()[1]
        fake.client = client
        monkeypatch.setattr(module, "uwsgi", fake)
        yield fake


def test_uwsgi_with_gevent_can_be_taken_over(uwsgi):
    uwsgi.opt["http-socket"] = [f"127.0.0.1:{uwsgi.port}".encode()]
    takeover = module.claim({})
    assert module.inside_uwsgi()
    transport = takeover.accept(lambda status, headers: lambda data: None, [])
    assert transport.send(b"frame") == 5
    assert uwsgi.client.recv(100) == b"frame"
    transport.close()


def test_uwsgi_with_the_loop_option_can_be_taken_over(uwsgi):
    uwsgi.opt = {b"loop": b"gevent"}
    module.claim({})


def test_uwsgi_without_gevent_is_refused(uwsgi):
    uwsgi.opt = {"processes": b"2"}
    with pytest.raises(Unsupported, match="add the option --gevent 100"):
        module.claim({})


@pytest.mark.parametrize(
    ("option", "advice"),
    [("https-socket", "use --https, or a proxy such as nginx"), ("http11-socket", "use --http-socket or --http")],
)
@pytest.mark.parametrize("address", ["127.0.0.1:{}", ":{}", "0.0.0.0:{},cert.pem,key.pem"])
@pytest.mark.parametrize("as_list", [True, False])
def test_a_socket_that_cannot_be_taken_over_is_refused(uwsgi, option, advice, address, as_list):
    value = address.format(uwsgi.port).encode()
    uwsgi.opt[option] = [b"127.0.0.1:1", value] if as_list else value
    with pytest.raises(Unsupported, match=advice):
        module.claim({})


@pytest.mark.parametrize("option", ["https-socket", "http11-socket"])
def test_another_socket_beside_such_a_one_is_not_refused(uwsgi, option):
    uwsgi.opt[option] = f"127.0.0.1:{uwsgi.port + 1}".encode()
    module.claim({})


def test_unix_sockets_are_compared_by_path(monkeypatch, tmp_path):
    path = str(tmp_path / "uwsgi.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        client.connect(path)
        request, _ = listener.accept()
        with request:
            fake = types.SimpleNamespace(opt={"gevent": b"1", "http11-socket": path.encode()})
            fake.connection_fd = request.fileno
            monkeypatch.setattr(module, "uwsgi", fake)
            with pytest.raises(Unsupported):
                module.claim({})
            fake.opt["http11-socket"] = b"/elsewhere.sock"
            module.claim({})


def test_at_the_exit_of_a_worker_ours_comes_before_the_sites_own(uwsgi):
    calls = []
    uwsgi.atexit = lambda: calls.append("site")
    module.at_exit(lambda: calls.append("wsloop"))
    uwsgi.atexit()
    assert calls == ["wsloop", "site"]


def test_at_the_exit_of_a_worker_without_a_handler_of_the_site(uwsgi):
    calls = []
    module.at_exit(lambda: calls.append("wsloop"))
    uwsgi.atexit()
    assert calls == ["wsloop"]


def test_outside_uwsgi_nothing_is_called_at_exit():
    module.at_exit(pytest.fail)


@pytest.mark.parametrize("mercy", [b"0.02", [b"60", b"0.02"]])
def test_a_worker_that_is_told_to_reload_ends_in_time_what_it_would_wait_for(uwsgi, mercy):
    uwsgi.opt["worker-reload-mercy"] = mercy
    called = Event()
    watcher = module.before_reload(called.set)
    try:
        assert not called.wait(0.05)
        os.kill(os.getpid(), signal.SIGHUP)
        assert called.wait(15)
    finally:
        watcher.stop()
        watcher.close()


def test_outside_uwsgi_nothing_is_told_to_reload():
    assert module.before_reload(pytest.fail) is None
