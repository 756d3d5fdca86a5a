"""What is read from uWSGI: its module exists only inside of it, where the integration tests have it."""

import contextlib
import os
import signal
import socket
import types

import gevent
import pytest
from gevent.event import Event

from testbed.processes import wait_until
from tests.unit.peer import turn
from wsloop.sockets import uwsgi as module
from wsloop.sockets.takeover import Unsupported


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
    assert module.is_running()
    transport = takeover.accept(lambda status, headers: lambda data: None, [])
    assert transport.send(b"frame") == 5
    assert uwsgi.client.recv(100) == b"frame"
    transport.close()


def test_it_says_how_many_requests_it_answers_at_a_time(uwsgi):
    uwsgi.cores = 100
    assert module.cores() == 100.0


@pytest.fixture
def accepted():
    """What uWSGI's own watcher has accepted: a connection in a turn, as long as it is active."""
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        def uwsgi_gevent_main(number):
            with contextlib.suppress(BlockingIOError):
                accepted.append((number, listener.accept()[0]))

        own = gevent.get_hub().loop.io(listener.fileno(), 1)
        accepted.append((own, listener))
        clients = [socket.create_connection(listener.getsockname()) for _ in range(20)]
        own.start(uwsgi_gevent_main, 7)
        yield accepted
        own.stop()
        own.close()
        for _, each in accepted[1:]:
            each.close()
        for each in clients:
            each.close()


def test_it_accepts_several_connections_in_a_turn_while_handshakes_wait(accepted):
    turn(1)
    assert len(accepted) - 1 <= 2
    acceptance = module.Acceptance()
    acceptance.switch(True)
    acceptance.switch(True)
    turn(2)
    assert len(accepted) - 1 > 6
    acceptance.switch(False)
    before = len(accepted)
    turn(1)
    assert len(accepted) - before <= 2
    acceptance.switch(True)
    wait_until(lambda: len(accepted) - 1 == 20 or turn(1), what="all connections")
    assert {number for number, _ in accepted[1:]} == {7}
    acceptance.switch(False)


def test_it_accepts_none_when_uwsgi_has_stopped_to(accepted):
    acceptance = module.Acceptance()
    acceptance.switch(True)
    accepted[0][0].stop()
    turn(3)
    assert len(accepted) - 1 == 0
    acceptance.switch(False)


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


def test_a_worker_that_has_not_ended_in_time_is_killed_as_by_a_reload(uwsgi, monkeypatch, caplog):
    uwsgi.opt["worker-reload-mercy"] = b"0.02"
    killed = Event()
    monkeypatch.setattr(module.os, "kill", lambda pid, number: killed.set())
    watcher = module.end_in_time()
    try:
        assert not killed.wait(0.05)
        signal.raise_signal(signal.SIGHUP)
        assert killed.wait(15)
    finally:
        watcher.stop()
        watcher.close()
    assert "has not ended in 0.02 s (worker-reload-mercy)" in caplog.text
