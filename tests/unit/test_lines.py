"""Executors of greenlets: side by side in a pool, one after the other in a line; connections are given back."""

import time

import gevent
import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.backends.signals import connection_created
from gevent.event import Event
from greenlet import GreenletExit

from tests.unit.peer import WAIT
from wsloop.aio import lines
from wsloop.aio.lines import Line, Pool

KINDS = pytest.mark.parametrize("kind", [Line, Pool])


@pytest.fixture
def soon_idle(monkeypatch):
    monkeypatch.setattr(lines, "IDLE", 0.02)


@pytest.fixture
def opened(database):
    """The database connections that were opened since the test began: ``opened()`` counts those that are open."""
    database.close()
    seen = []

    def keep(connection, **more):
        seen.append(connection)

    connection_created.connect(keep)
    yield lambda: sum(each.connection is not None for each in seen)
    connection_created.disconnect(keep)
    assert seen, "none was opened: this test shows nothing"


def until(condition):
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        gevent.sleep(0.001)


@KINDS
def test_result_and_arguments(kind):
    assert kind().submit(divmod, 7, 2).result() == (3, 1)
    assert kind().submit(dict, one=1).result() == {"one": 1}
    assert list(kind().map(abs, [-1, -2])) == [1, 2]


@KINDS
@pytest.mark.parametrize("error", [ZeroDivisionError, GreenletExit, gevent.Timeout, SystemExit, KeyboardInterrupt])
def test_what_a_call_raises_reaches_who_waits_and_the_next_call_runs(kind, error):
    def fail():
        raise error

    executor = kind()
    failed, done = executor.submit(fail), executor.submit(len, "abc")
    assert type(failed.exception()) is error
    assert done.result() == 3


@KINDS
def test_a_call_that_was_cancelled_before_its_turn_is_not_made(kind, monkeypatch):
    monkeypatch.setattr(lines, "SIDE_BY_SIDE", 1)
    executor, gate, called = kind(), Event(), []
    running, waiting = executor.submit(gate.wait), executor.submit(called.append, 1)
    gevent.sleep(0)
    assert waiting.cancel() and not running.cancel()
    gate.set()
    executor.submit(len, "").result()
    assert called == []


def test_a_line_runs_one_call_after_the_other_in_one_greenlet():
    line, running, most, greenlets = Line(), [], [], set()

    def work():
        running.append(1)
        gevent.sleep(0.001)
        most.append(len(running))
        running.pop()
        greenlets.add(gevent.getcurrent())

    for future in [line.submit(work) for _ in range(10)]:
        future.result()
    assert max(most) == 1
    assert len(greenlets) == 1


def test_a_pool_runs_calls_side_by_side_and_no_more_than_its_bound(monkeypatch):
    monkeypatch.setattr(lines, "SIDE_BY_SIDE", 5)
    pool, running, most = Pool(), [], []

    def work():
        running.append(1)
        most.append(len(running))
        gevent.sleep(0.001)
        running.pop()

    futures = [pool.submit(work) for _ in range(23)]
    for future in futures:
        future.result()
    assert max(most) == 5
    until(lambda: pool._running == 0)


def test_a_pool_has_as_many_greenlets_as_a_worker_has_requests():
    assert lines.SIDE_BY_SIDE == 100


def test_an_idle_line_has_no_greenlet_and_gets_another_one(soon_idle):
    line = Line()
    first = line.submit(gevent.getcurrent).result()
    until(lambda: first.dead)
    second = line.submit(gevent.getcurrent).result()
    assert second is not first


def test_a_line_keeps_its_greenlet_for_the_next_call():
    line = Line()
    first = line.submit(gevent.getcurrent).result()
    gevent.sleep(0.01)
    assert line.submit(gevent.getcurrent).result() is first
    line.close()
    until(lambda: first.dead)


@pytest.mark.parametrize("before", ["it has begun", "it works"])
def test_a_line_that_is_closed_runs_what_waits_and_ends_at_once(before):
    line, gate = Line(), Event()
    futures = [line.submit(gate.wait), line.submit(gevent.getcurrent)]
    if before == "it works":
        gevent.sleep(0)
    line.close()
    gate.set()
    greenlet = futures[1].result(WAIT)
    began = time.monotonic()
    greenlet.join()
    assert time.monotonic() - began < lines.IDLE / 2
    assert line.submit(len, "again").result() == 5


def test_closing_a_line_that_never_worked_does_nothing():
    line = Line()
    line.close()
    assert line.submit(len, "abc").result() == 3


def test_calls_of_a_line_share_a_connection(opened):
    line = Line()
    first = line.submit(lambda: User.objects.count() or connection.connection).result()
    assert line.submit(lambda: User.objects.count() or connection.connection).result() is first is not None
    line.close()
    until(lambda: opened() == 0)


def test_a_line_gives_its_connection_back_when_it_is_idle(opened, soon_idle):
    line = Line()
    line.submit(User.objects.count).result()
    until(lambda: opened() == 0)


def test_a_pool_gives_connections_back_after_each_call(opened):
    pool = Pool()
    for _ in range(3):
        for future in [pool.submit(User.objects.count) for _ in range(20)]:
            assert future.result() == 0
    until(lambda: opened() == 0)


def test_connections_are_given_back_after_calls_that_fail(opened):
    def fail():
        User.objects.count()
        raise ZeroDivisionError

    pool, line = Pool(), Line()
    for executor in (pool, line):
        assert executor.submit(fail).exception()
    line.close()
    until(lambda: opened() == 0)


def test_a_transaction_of_a_call_ends_with_it(opened):
    def work():
        with transaction.atomic():
            User.objects.create(username="ann")
            transaction.set_rollback(True)
        return User.objects.count()

    assert Pool().submit(work).result() == 0
    until(lambda: opened() == 0)


def test_a_call_does_not_keep_its_arguments_alive_through_its_future():
    class Large:
        pass

    import weakref

    large = Large()
    dead = weakref.ref(large)
    future = Pool().submit(id, large)
    future.result()
    del large
    gevent.sleep(0)
    assert dead() is None


def test_calls_that_come_while_connections_are_given_back_are_not_forgotten(monkeypatch):
    line, futures = Line(), []

    def give_back():
        if len(futures) < 3:
            futures.append(line.submit(len, "abc"))
            gevent.sleep(0.001)

    monkeypatch.setattr(lines, "give_back", give_back)
    monkeypatch.setattr(lines, "IDLE", 0.001)
    line.submit(len, "").result()
    until(lambda: len(futures) == 3)
    assert [future.result(WAIT) for future in futures] == [3, 3, 3]
