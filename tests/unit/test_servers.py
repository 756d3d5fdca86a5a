"""What the engine asks of its server where there is none that it knows."""

import gc

import pytest

from wsloop.sockets import servers, uwsgi
from wsloop.sockets.takeover import Unsupported


def test_another_server_is_refused_with_what_to_do():
    with pytest.raises(Unsupported, match=r"with uWSGI, with gunicorn -k gevent, or with `manage\.py runserver`"):
        servers.claim({})
    assert not uwsgi.is_running()


def test_it_does_not_say_how_many_requests_it_answers_at_a_time():
    assert servers.cores() == float("inf")


def test_it_cannot_be_told_to_accept_more():
    servers.acceptance()(True)


def test_nothing_is_called_at_exit():
    servers.at_exit(pytest.fail)


def test_nothing_is_told_to_reload():
    assert servers.before_reload(pytest.fail) is None


def test_objects_of_another_process_stay_where_python_looks_for_garbage():
    before = gc.get_freeze_count()  # of the process that has forked this one
    servers.loaded()
    assert gc.get_freeze_count() == before


def test_those_of_a_worker_do_not(monkeypatch):
    monkeypatch.setattr(servers.uwsgi, "is_running", lambda: True)
    gc.unfreeze()  # those of the process that has forked this one
    try:
        servers.loaded()
        frozen = gc.get_freeze_count()
        assert frozen > 10_000
        kept = [[] for _ in range(1000)]
        servers.loaded()
        assert gc.get_freeze_count() < frozen + len(kept), "once is enough"
    finally:
        gc.freeze()
