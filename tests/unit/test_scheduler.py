"""Handlers run in turns with the test, in virtual time."""

import contextlib
import contextvars
import gc
import threading
import time
from functools import partial

import gevent
import pytest

from wsloop.exceptions import Disconnected
from wsloop.testing.handler import Handler
from wsloop.testing.scheduler import Scheduler

VARIABLE = contextvars.ContextVar("variable", default="of nobody")


@pytest.fixture
def scheduler():
    return Scheduler()


@pytest.fixture
def start(scheduler):
    """Start a function; returns its handler, and a list that gets its exception or None at the end."""

    def start(function, **options):
        ended = []
        handler = Handler(function, ended.append, **options)
        scheduler.start(handler)
        scheduler.turn()
        return handler, ended

    return start


def never():
    return False


def test_a_handler_runs_until_it_sleeps(scheduler, start):
    done = []

    def work():
        for number in range(3):
            done.append(number)
            time.sleep(2)

    _, ended = start(work)
    assert (done, ended) == ([0], [])
    assert not scheduler.run(1.9, never)
    assert done == [0]
    assert scheduler.run(10, lambda: len(done) == 2)
    assert scheduler.now == 2
    assert not scheduler.run(10, never)
    assert (done, ended, scheduler.now) == ([0, 1, 2], [None], 12)


def test_who_wakes_up_first_goes_first(scheduler, start):
    done = []
    for name, seconds in (("c", 3), ("a", 1), ("b", 2)):
        start(lambda name=name, seconds=seconds: (time.sleep(seconds), done.append((name, scheduler.now))))
    scheduler.run(5, never)
    assert done == [("a", 1), ("b", 2), ("c", 3)]


def test_gevent_s_sleep_is_the_same(scheduler, start):
    done = []
    start(lambda: (gevent.sleep(5), done.append(5), gevent.sleep(), done.append(0)))
    assert done == []
    scheduler.run(6, never)
    assert done == [5, 0]


def test_what_another_greenlet_sleeps_is_real(scheduler, start):
    """A handler that really blocks lets other greenlets run, and their sleep is real."""
    slept = []

    def other():
        began = time.monotonic()
        time.sleep(0.02)
        slept.append(time.monotonic() - began)

    start(lambda: gevent.spawn(other).join())
    assert slept[0] >= 0.019


def test_errors_go_to_whom_the_handler_is_for(start):
    _, ended = start(lambda: 1 / 0)
    assert isinstance(ended[0], ZeroDivisionError)


def test_a_handler_is_ended_while_it_sleeps(scheduler, start):
    handler, ended = start(lambda: time.sleep(5))
    scheduler.end(handler)
    scheduler.run(0, never)
    assert isinstance(ended[0], Disconnected)


def test_a_handler_that_is_ended_goes_on_until_it_sleeps(scheduler, start):
    done = []
    handler = Handler(lambda: (done.append(1), time.sleep(5), done.append(2)), done.append)
    scheduler.start(handler)
    scheduler.end(handler)
    scheduler.turn()
    assert (done[0], type(done[1]), len(done)) == (1, Disconnected, 2)


def test_a_handler_that_may_go_on_for_a_while(scheduler, start):
    done = []
    _, ended = start(lambda: (time.sleep(2), done.append(2), time.sleep(2), done.append(4)), ends_at=3)
    scheduler.run(10, lambda: bool(ended))
    assert (done, type(ended[0]), scheduler.now) == ([2], Disconnected, 3)


def stubborn():
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(1)


def test_a_handler_that_does_not_let_itself_be_ended(scheduler, start):
    handler, ended = start(stubborn)
    scheduler.end(handler)
    scheduler.run(0, never)
    assert isinstance(ended[0], RuntimeError)
    assert f"goes on without its client, at {__file__}:{stubborn.__code__.co_firstlineno + 3}" in str(ended[0])
    del handler
    gc.collect()  # it is not run again, nor does it hang anybody


def test_a_pause_ends_when_it_is_said(scheduler, start):
    done = []
    handler, _ = start(lambda: (scheduler.pause(scheduler.current()), done.append(1)))
    assert not scheduler.run(100, never)
    assert done == []
    scheduler.wake(handler)
    scheduler.run(0, never)
    assert done == [1]


def test_no_handler_runs_inside_of_another(scheduler, start):
    done = []

    def first():
        done.append("first")
        scheduler.soon(partial(done.append, "second"))
        scheduler.turn()
        done.append("first, still")

    start(first)
    assert done == ["first", "first, still", "second"]


def test_a_circle_has_an_end(scheduler):
    def again():
        scheduler.soon(again)

    scheduler.soon(again)
    with pytest.raises(RuntimeError, match="the handlers do not end"):
        scheduler.turn()
    scheduler.turn()  # and is forgotten


def test_other_threads_leave_it_to_the_test(scheduler):
    done = []
    thread = threading.Thread(target=lambda: (scheduler.soon(partial(done.append, 1)), scheduler.turn()))
    thread.start()
    thread.join()
    assert done == []
    scheduler.turn()
    assert done == [1]


def test_a_test_is_one_thread(scheduler):
    raised = []

    def other():
        try:
            scheduler.run(1, never)
        except RuntimeError as exc:
            raised.append(str(exc))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert raised == ["the communicators of a test belong to the thread that has connected the first of them"]


def test_threads_of_handlers_are_waited_for_and_no_others(scheduler, start):
    go, done = threading.Event(), []
    other = threading.Thread(target=go.wait)
    other.start()
    assert not scheduler.run(10**6, never)  # at once
    started = threading.Event()

    def work():
        started.wait()
        done.append(1)

    start(lambda: threading.Thread(target=work).start())
    started.set()
    assert scheduler.run(20, lambda: bool(done))
    assert not scheduler.run(10**6, never)
    go.set()
    other.join()


def test_a_handler_has_a_context_of_its_own(start):
    VARIABLE.set("of the test")
    seen = []
    start(lambda: (seen.append(VARIABLE.get()), VARIABLE.set("of the handler")))
    assert (seen, VARIABLE.get()) == (["of the test"], "of the test")
