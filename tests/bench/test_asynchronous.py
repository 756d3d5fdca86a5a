"""``make bench-async``: its client, its tables, and in little what needs no peers."""

import contextlib
import socket
import threading

import docutils.core
import pytest

from bench import asynchronous, report
from bench.asynchronous import ALONE, ASGI, ASYNC, SYNC, UVICORN, Beside, Plan, Results
from bench.clients import PING, PONG, Sockets, Stalled, client_frame, frame, request
from bench.servers import MeasuredRedis, signed_in
from tests.requires import need

TEXT = b'{"text": "0"}'


@contextlib.contextmanager
def open_socket(serve):
    """A socket of the client's, open; ``serve`` gets the other end, in a thread."""

    def accept():
        with listener.accept()[0] as connection:
            while not connection.recv(65536).endswith(b"\r\n\r\n"):
                pass
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        with Sockets(listener.getsockname()) as sockets:
            sockets.open([request("/")])
            yield sockets
        thread.join(10)


def test_the_client_counts_whole_echoes():
    got = []

    def serve(connection):
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                got.append(data)
                if len(got) > 1:
                    connection.sendall(frame(TEXT))
                    continue
                for part in (PING, frame(TEXT)[:5] + PING):  # neither of them is an echo
                    connection.sendall(part)
                    assert connection.recv(65536) == PONG
                connection.sendall(frame(TEXT)[5:])

    with open_socket(serve) as sockets:
        (count,) = sockets.echo([TEXT], 0.2)
    assert count > 1
    assert got == [client_frame(TEXT)] * (count + 1)  # the last one came back when the time was over


def test_the_client_accepts_no_other_echo():
    def serve(connection):
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(65536):
                connection.sendall(frame(TEXT.replace(b"0", b"1")))

    with open_socket(serve) as sockets, pytest.raises(Stalled, match="other bytes than it has sent"):
        sockets.echo([TEXT], 0.2)


FIGURES = {"socket": 20.0, "handshakes": 400.0, "echoes": 8000.0, "burst": 5000.0, "paced": 4500.0}


def test_the_tables():
    hosts = {
        ASGI: FIGURES | {"socket": 10.0, "echoes": 5000.0},
        UVICORN: FIGURES,
        ASYNC: FIGURES | {"burst": 6000.0, "paced": 4000.0},
        "Channels on daphne": {"socket": 35.0},
    }
    missing = {"Channels on daphne": "not measured, refused"}
    beside = {ALONE: Beside(0.0, 0.5, 1.0, 5.0, 8.0, 9000.0), SYNC: Beside(8000.0, 2.5, 5.0, 9.0, 16.0, 4500.0)}
    section = report.async_section(Results(hosts, beside, missing, "uvicorn 0.54.0"), Plan(), "make bench-async")
    docutils.core.publish_doctree(section, settings_overrides={"report_level": 2, "halt_level": 2})
    lines = section.splitlines()
    assert "Channels on daphne: not measured, refused." in lines
    aims = [line.split()[-2:] for line in lines if line.endswith((" yes", " no"))]
    assert aims == [["0.50", "yes"], ["0.62", "no"], ["1.20", "yes"], ["0.89", "no"]]


def test_wsloop_in_little(tmp_path):
    need("redis-server")
    plan = Plan(idle=20, handshakes=10, echoing=4, seconds=0.2, members=4, burst=3, paced=2, rounds=1)
    with MeasuredRedis() as redis:
        keys = signed_in(tmp_path, redis.port, plan.idle)
        results = asynchronous.measure_all(None, redis, tmp_path, keys, plan, lambda line: None)
    assert ASGI not in results.hosts  # Channels is a peer
    assert results.missing == {}
    for name in (ASYNC, SYNC):
        assert all(results.hosts[name][kind] > 0 for kind in ("handshakes", "echoes", "burst", "paced")), results
        assert results.beside[name].load > 0
    assert results.beside[ALONE].rate > 0
