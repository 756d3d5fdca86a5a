"""Greenlets that share a slice of each round of the event loop."""

import time

import gevent
import pytest

from testbed.processes import wait_until
from wsloop import fair_scheduler as module
from wsloop.fair_scheduler import FairScheduler, Flows


@pytest.fixture
def turns():
    turns = FairScheduler()
    yield turns
    wait_until(lambda: not turns._flows and not turns._timer.active, what="the end of all turns")


@pytest.fixture
def long(monkeypatch):
    """A slice that is not over, however slow the machine is."""
    monkeypatch.setattr(module, "SLICE", 3600)


def work(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_who_has_time_goes_on_at_once(turns, long):
    seen = []
    gevent.get_hub().loop.run_callback(seen.append, "another round")
    for _ in range(10):
        turns.yield_turn()
    assert seen == []


def test_when_the_slice_is_over_others_have_their_turn(turns):
    """Timers, sockets and greenlets that are not in the queue."""
    rounds, done = [], []

    def busy():
        for _ in range(40):
            work(module.SLICE / 4)
            turns.yield_turn()
        done.append(True)

    timer = gevent.get_hub().loop.timer(0, 1e-6)
    timer.start(lambda: rounds.append(len(done)))
    greenlets = [gevent.spawn(busy) for _ in range(3)]
    gevent.joinall(greenlets, timeout=20, raise_error=True)
    timer.stop()
    assert done == [True] * 3
    assert len(rounds) >= 15, "120 quarters of a slice are 30 rounds"


def test_those_that_wait_go_on_in_the_order_in_which_they_came(turns):
    seen = []

    def busy(name):
        turns.yield_turn()
        seen.append(name)
        work(module.SLICE)

    turns.enqueue(lambda: work(module.SLICE))
    gevent.joinall([gevent.spawn(busy, name) for name in "abc"], timeout=20, raise_error=True)
    assert seen == list("abc")


def test_nobody_passes_those_that_stand_in_line(turns):
    seen = []
    turns.enqueue(lambda: seen.append("first"))
    turns.enqueue(lambda: seen.append("second"))
    turns.yield_turn()
    assert seen == ["first", "second"]


def test_much_that_is_short_is_done_in_one_go(turns, long):
    seen = []
    for number in range(50):
        turns.enqueue(lambda number=number: seen.append(number))
    gevent.get_hub().loop.timer(0).start(seen.append, "the next round")
    wait_until(lambda: len(seen) == 51, what="all of them")
    assert seen.index("the next round") in (0, 50)
    assert [each for each in seen if each != "the next round"] == list(range(50))


def test_one_that_is_killed_in_the_line_disturbs_nobody(turns):
    seen = []

    def wait(name):
        turns.yield_turn()
        seen.append(name)

    turns.enqueue(lambda: work(module.SLICE))
    turns.enqueue(lambda: work(module.SLICE))
    greenlets = [gevent.spawn(wait, name) for name in "abc"]
    gevent.sleep(0)
    greenlets[1].kill()
    gevent.joinall(greenlets, timeout=20, raise_error=True)
    assert seen == ["a", "c"]


# Flows.


def test_flows_take_turns_and_each_keeps_its_order():
    flows = Flows()
    for number in range(4):
        flows.put(f"group {number}", b"group")
    flows.put("client", None)
    flows.put("other 0", b"other")
    flows.put("other 1", b"other")
    assert flows
    taken = [flows.take() for _ in range(7)]
    assert taken == ["group 0", "client", "other 0", "group 1", "other 1", "group 2", "group 3"]
    assert not flows
    with pytest.raises(StopIteration):
        flows.take()


def test_nobody_waits_for_all_of_another_flow(turns):
    """A group of a thousand, each with two turns, and one client."""
    seen = []

    def member(number):
        seen.append(number)
        turns.yield_turn("group")
        seen.append(number)

    for number in range(1000):
        turns.enqueue(gevent.Greenlet(member, number).switch, "group")
    turns.enqueue(lambda: seen.append("client"))
    wait_until(lambda: len(seen) == 2001, what="all of them")
    assert seen.index("client") == 1
    seen.remove("client")
    assert seen == [*range(1000)] * 2
