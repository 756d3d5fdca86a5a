"""gevent's own WSGI server, as it is and with the handler of wsloop: real servers in this process."""

import io
import socket
import ssl

import gevent
import pytest
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from testbed.certificates import make_certificate
from testbed.processes import wait_until
from tests.unit.peer import WAIT
from wsloop.pywsgi import Handler
from wsloop.sockets import pywsgi as module
from wsloop.sockets import servers
from wsloop.sockets.takeover import Unsupported

TAKEN = b"GET /ws/orders?token=geheim HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def serve():
    """Start a server with an application, and return a connection to it and what it logs."""
    started, clients = [], []

    def start(application, **options):
        log = io.StringIO()
        server = WSGIServer(("127.0.0.1", 0), application, log=log, error_log=log, **options)
        server.start()
        started.append(server)
        client = socket.create_connection(("127.0.0.1", server.server_port), timeout=WAIT)
        clients.append(client)
        return client, log

    yield start
    for each in clients:
        each.close()
    for each in started:
        each.stop(timeout=1)


@pytest.mark.parametrize("handler", [{}, {"handler_class": Handler}], ids=["plain", "handler"])
def test_the_request_ends_and_the_connection_lives_on(serve, handler):
    taken, requests = [], []

    def application(environ, start_response):
        requests.append(gevent.getcurrent())
        taken.append(servers.claim(environ).accept(start_response, [("Upgrade", "websocket")]))
        return []

    client, log = serve(application, **handler)
    client.sendall(TAKEN)
    assert client.recv(200) == b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    requests[0].join(WAIT)
    assert requests[0].ready(), "no greenlet waits for the socket to end"
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")  # a frame, for the socket
    ready = Event()
    taken[0].start(lambda events: ready.set())
    assert ready.wait(WAIT)
    assert taken[0].receive() == b"GET / HTTP/1.1\r\n\r\n"
    taken[0].send(b"frame")
    assert client.recv(100) == b"frame"
    taken[0].close()
    assert client.recv(100) == b""
    (line,) = log.getvalue().splitlines()
    assert " 101 " in line
    assert ("geheim" in line) == (not handler)


def test_the_handler_logs_no_secret_and_the_plain_server_says_what_to_do(serve):
    said = []

    def application(environ, start_response):
        try:
            servers.keep_out_of_log(environ)
        except Unsupported as exc:
            said.append(str(exc))
        start_response("204 No Content", [])
        return []

    client, log = serve(application, handler_class=Handler)
    client.sendall(TAKEN)
    assert client.recv(100).startswith(b"HTTP/1.1 204")
    client.close()
    wait_until(log.getvalue, what="the line of the log")
    assert "geheim" not in log.getvalue()
    assert not said
    client, _ = serve(application)
    client.sendall(TAKEN)
    assert client.recv(100).startswith(b"HTTP/1.1 204")
    assert "handler_class=wsloop.pywsgi.Handler" in said[0]


def test_with_tls_it_is_refused_with_advice(serve, tmp_path):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    said = []

    def application(environ, start_response):
        with pytest.raises(Unsupported, match="a proxy such as nginx") as refusal:
            servers.claim(environ)
        said.append(refusal.value)
        start_response("501 Not Implemented", [("Content-Length", "0")])
        return []

    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate, key)
    client, _ = serve(application, ssl_context=ours)
    context = ssl.create_default_context(cafile=certificate)
    with context.wrap_socket(client, server_hostname="127.0.0.1") as encrypted:
        encrypted.sendall(TAKEN)
        assert encrypted.recv(100).startswith(b"HTTP/1.1 501")
    assert said


def test_that_the_client_of_a_request_hangs_up_is_seen(serve):
    gone = Event()

    def application(environ, start_response):
        watcher = servers.watch_hang_up(gone.set)
        assert gone.wait(WAIT)
        watcher.stop()
        watcher.close()
        start_response("200 OK", [])
        return []

    client, _ = serve(application)
    client.sendall(TAKEN)
    client.close()
    assert gone.wait(WAIT)


def test_outside_of_a_request_there_is_none():
    assert not module.is_running()
    assert module.watch_hang_up(pytest.fail) is None
    assert gevent.spawn(module.is_running).get() is False
    assert gevent.spawn(lambda *arguments: module.is_running(), 1, 2, 3).get() is False
