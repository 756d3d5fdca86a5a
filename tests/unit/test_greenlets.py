"""Exceptions of the engine's own work are logged with their traces, and not too often."""

import gevent
import pytest
from greenlet import GreenletExit

from tests.unit.peer import WAIT
from wsloop import greenlets


def fail(error):
    raise error


@pytest.fixture(autouse=True)
def nothing_logged_before(monkeypatch):
    monkeypatch.setattr(greenlets, "_failures", {})


def test_what_goes_well_is_not_logged(caplog):
    done = []
    assert greenlets.logged(done.append, 1)
    greenlets.spawn(done.append, 2).get(timeout=WAIT)
    greenlets.spawn_later(0.001, done.append, 3).get(timeout=WAIT)
    assert done == [1, 2, 3]
    assert caplog.records == []


@pytest.mark.parametrize("start", [greenlets.logged, greenlets.spawn, lambda *more: greenlets.spawn_later(0, *more)])
def test_what_is_raised_is_logged_with_its_trace(caplog, capfd, start):
    started = start(fail, ZeroDivisionError("by zero"))
    if isinstance(started, gevent.Greenlet):
        assert started.get(timeout=WAIT) is False
    (record,) = caplog.records
    assert record.name == "wsloop.greenlets"
    assert record.levelname == "ERROR"
    assert "test_greenlets.fail failed: an error of the server, not of the site" in record.getMessage()
    assert "ZeroDivisionError: by zero" in caplog.text
    assert capfd.readouterr().err == "", "gevent has nothing to say"


def test_the_same_failure_is_logged_once_a_minute_and_counted(caplog, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(greenlets, "monotonic", lambda: now)
    for _ in range(5):
        greenlets.logged(fail, ValueError())
    greenlets.logged(fail, TypeError())  # another one
    now += greenlets.QUIET
    greenlets.logged(fail, ValueError())
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    assert messages[-1].endswith("(4 more times since this was last logged)")


@pytest.mark.parametrize("error", [GreenletExit(), KeyboardInterrupt()])
def test_what_ends_a_greenlet_or_the_process_is_no_failure(caplog, error):
    with pytest.raises(type(error)):
        greenlets.logged(fail, error)
    assert caplog.records == []
