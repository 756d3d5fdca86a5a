"""What is read from gunicorn: its own objects, in a process that it has not started."""

import logging
import os
import signal
import socket
import types
from datetime import timedelta

import gevent
import pytest
from gevent.event import Event
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.wsgi import Response
from gunicorn.workers.ggevent import GeventPyWSGIWorker, GeventWorker
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

from tests.unit.peer import WAIT
from wsloop.redaction import RedactTokens
from wsloop.sockets import gunicorn as module
from wsloop.sockets import servers
from wsloop.sockets.takeover import Unsupported

REFUSED = "run gunicorn with -k gevent"


@pytest.fixture
def worker(monkeypatch):
    """Make this process look like a worker of gunicorn: ``worker(GeventWorker, certfile="…")``."""
    before = signal.getsignal(signal.SIGTERM)
    workers = []
    endings = types.SimpleNamespace(added=[], begun=Event())
    fake = types.SimpleNamespace(add=lambda *each: endings.added.append(each), begin=endings.begun.set)
    monkeypatch.setattr(module, "ending", lambda: fake)
    monkeypatch.setattr(module, "LOOK", 0.01)
    module._watch.cache_clear()

    def make(kind=GeventWorker, **settings):
        config = Config()
        config.set("worker_class", kind.__module__ + "." + kind.__name__)
        for name, value in settings.items():
            config.settings[name].value = value
        made = kind(1, os.getppid(), [], None, 30, config, Logger(config))
        workers.append(made)
        signal.signal(signal.SIGTERM, made.handle_exit)
        made.endings = endings
        return made

    yield make
    signal.signal(signal.SIGTERM, before)
    module._watch.cache_clear()
    for each in workers:
        each.alive = False
        each.tmp.close()
    for name in ("gunicorn.access", "gunicorn.error"):
        logging.getLogger(name).filters.clear()
        logging.getLogger(name).propagate = True
        logging.getLogger(name).handlers.clear()


@pytest.fixture
def request_of():
    """The environ of a request, the response that gunicorn would write, and the client's end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(WAIT)
    with ours, theirs:
        yield {"gunicorn.socket": ours, "SERVER_PROTOCOL": "HTTP/1.1"}, theirs


def test_a_gevent_worker_can_be_taken_over(worker, request_of):
    worker()
    environ, client = request_of
    asked = types.SimpleNamespace(version=(1, 1), method="GET", headers=[], should_close=lambda: False)
    response = Response(asked, environ["gunicorn.socket"], Config())
    transport = servers.claim(environ).accept(response.start_response, [("Upgrade", "websocket")])
    assert client.recv(200) == b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    with pytest.raises(BrokenPipeError):  # which its workers ignore
        response.close()
    assert response.status == "101 Switching Protocols", "for its log"
    environ["gunicorn.socket"].close()
    transport.send(b"frame")
    assert client.recv(100) == b"frame"
    transport.close()


@pytest.mark.parametrize("kind", [SyncWorker, ThreadWorker, GeventPyWSGIWorker])
def test_other_workers_are_refused_with_advice(worker, request_of, kind):
    worker(kind)
    environ, _ = request_of
    if kind is GeventPyWSGIWorker:
        del environ["gunicorn.socket"]
    with pytest.raises(Unsupported, match=REFUSED) as refusal:
        servers.claim(environ)
    assert kind.__name__ in str(refusal.value)


def test_a_socket_that_is_not_gevents_is_refused(worker):
    """As that of an eventlet worker, and of a process that nobody has patched."""
    worker()
    with pytest.raises(Unsupported, match=REFUSED):
        servers.claim({"gunicorn.socket": object(), "SERVER_PROTOCOL": "HTTP/1.1"})


def test_its_own_tls_and_http2_are_refused_with_advice(worker, request_of):
    environ, _ = request_of
    worker(certfile="cert.pem")
    with pytest.raises(Unsupported, match=r"--certfile .* a proxy such as nginx"):
        servers.claim(environ)
    worker()
    with pytest.raises(Unsupported, match="leave h2 out of --http-protocols"):
        servers.claim({**environ, "SERVER_PROTOCOL": "HTTP/2.0"})


def test_a_worker_of_another_class_that_gevent_has_patched_does_not_start(worker):
    worker(ThreadWorker)
    with pytest.raises(Unsupported, match=REFUSED):
        servers.prepare()
    module.prepare(patched=False)  # only sockets are refused


def test_a_site_that_is_loaded_before_the_workers_must_patch_itself(worker):
    class Preloading(Arbiter):
        def __init__(self):
            pass  # what it is told is not needed here

        def setup(self, patched):
            module.prepare(patched)

    module.prepare(patched=False)  # as for gunicorn --check-config, which loads the site as well
    Preloading().setup(patched=True)
    with pytest.raises(Unsupported, match=r"preload_app .* wsgi\.py must begin with"):
        Preloading().setup(patched=False)
    worker()
    Preloading().setup(patched=False)  # a worker is forked in there, too; nobody asks it before it has patched


def test_its_logs_have_no_tokens(worker):
    made = worker(accesslog="-")
    module.prepare(patched=True)
    module.prepare(patched=True)
    lines = []
    for name in ("access", "error"):
        log = logging.getLogger(f"gunicorn.{name}")
        assert [type(each) for each in log.filters] == [RedactTokens]
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())
        log.addHandler(handler)
    environ = {"REQUEST_METHOD": "GET", "RAW_URI": "/ws/a?token=geheim&subscribe-user", "SERVER_PROTOCOL": "HTTP/1.1"}
    environ["QUERY_STRING"] = "token=geheim&subscribe-user"
    made.cfg.settings["access_log_format"].value = "%(r)s %(q)s %(s)s %({query_string}e)s"
    response = types.SimpleNamespace(status="101 Switching Protocols", sent=0, headers=[])
    made.log.access(response, types.SimpleNamespace(headers=[]), environ, timedelta())
    made.log.error("Error handling request %s", environ["RAW_URI"])
    assert len(lines) == 2
    assert "subscribe-user" in lines[0]
    assert " 101 " in lines[0]
    assert not [line for line in lines if "geheim" in line]


def test_a_token_that_is_written_in_another_way_is_kept_out_too(worker):
    worker()
    environ = {"REQUEST_METHOD": "GET", "RAW_URI": "/ws/a?subscribe-user&t%6Fken=geheim"}
    servers.keep_out_of_log(environ)
    assert environ["RAW_URI"] == "/ws/a?subscribe-user&t%6Fken=[redacted]"
    assert environ["QUERY_STRING"] == "subscribe-user&t%6Fken=[redacted]"


def test_goodbyes_begin_as_soon_as_the_worker_is_to_end_for_whatever_reason(worker):
    made = worker(graceful_timeout=0.1)
    halfway = Event()
    servers.at_exit(pytest.fail)
    servers.at_exit(pytest.fail, last=True)
    assert servers.before_reload(halfway.set) is None
    assert made.endings.added == [(pytest.fail, False), (pytest.fail, True)]
    gevent.sleep(0.03)
    assert not made.endings.begun.is_set()
    assert not halfway.is_set()
    made.alive = False  # as with SIGTERM, a reload, max_requests
    assert made.endings.begun.wait(WAIT)
    assert halfway.wait(WAIT)


def test_in_the_process_that_forks_the_workers_nothing_is_watched(worker, monkeypatch):
    made = worker()
    monkeypatch.setattr(module, "_worker", lambda: None)
    servers.at_exit(pytest.fail)
    servers.before_reload(pytest.fail)
    assert made.endings.added == [(pytest.fail, False)]
    assert not module._watch.cache_info().currsize


def test_a_process_of_something_else_is_none_of_gunicorns():
    assert not module.is_running()
