"""Whoever waits for a connection gets one in the end, and none gets lost."""

import queue
import random

import gevent
import pytest

from tests.unit.peer import WAIT, turn
from wsloop.backend import fair_stack, pool
from wsloop.backend.fair_stack import FairStack


@pytest.fixture
def impatient(monkeypatch):
    """Whoever waits is handed the next item."""
    monkeypatch.setattr(fair_stack, "PATIENCE", 0)


def test_the_last_one_is_the_first():
    stack = FairStack(3)
    for item in "abc":
        stack.put_nowait(item)
    with pytest.raises(queue.Full):
        stack.put_nowait("d")
    assert stack.queue == ["a", "b", "c"]
    assert [stack.get() for _ in range(3)] == ["c", "b", "a"]


def test_waiting_is_bounded():
    stack = FairStack(1)
    for options in ({"timeout": 0.01}, {"timeout": 0}, {"block": False}):
        with pytest.raises(queue.Empty):
            stack.get(**options)
    stack.put_nowait("item")
    assert stack.get(timeout=0) == "item"


def test_who_has_waited_for_too_long_is_served_in_turn_before_whoever_comes_later(impatient):
    stack = FairStack(1)
    order = []

    def wait(name):
        stack.get(timeout=WAIT)
        order.append(name)

    waiting = []
    for name in "abc":
        waiting.append(gevent.spawn(wait, name))
        turn()
    for _ in range(3):
        stack.put_nowait("item")
        with pytest.raises(queue.Empty):
            stack.get(block=False)  # as who gives it back would do
        turn()
    gevent.joinall(waiting, timeout=WAIT, raise_error=True)
    assert order == ["a", "b", "c"]


def test_before_that_whoever_runs_may_be_quicker_and_the_others_wait_on():
    stack = FairStack(1)
    waiting = gevent.spawn(stack.get, timeout=WAIT)
    turn()
    for _ in range(3):
        stack.put_nowait("item")
        assert stack.get(block=False) == "item"
        turn()
        assert not waiting.ready()
    stack.put_nowait("item")
    assert waiting.get(timeout=WAIT) == "item"


def test_several_items_reach_several_waiters():
    stack = FairStack(3)
    waiting = [gevent.spawn(stack.get, timeout=WAIT) for _ in range(3)]
    turn()
    for item in "abc":
        stack.put_nowait(item)
    gevent.joinall(waiting, timeout=WAIT, raise_error=True)
    assert sorted(each.value for each in waiting) == ["a", "b", "c"]


@pytest.mark.parametrize("patience", [0, 60])
def test_a_waiter_that_is_ended_loses_nothing_and_nobody_waits_because_of_it(monkeypatch, patience):
    monkeypatch.setattr(fair_stack, "PATIENCE", patience)
    stack = FairStack(1)
    ended, late, last = (gevent.spawn(stack.get, timeout=WAIT) for _ in range(3))
    turn()
    ended.kill()
    stack.put_nowait("item")
    late.kill(block=False)  # it has been given the item, or been told to try, and has not run yet
    turn()
    if late.value == "item":  # it was quicker than its end, and uses it
        stack.put_nowait("item")
    assert last.get(timeout=WAIT) == "item"
    assert stack.queue == []


@pytest.mark.parametrize("patience", [0, 0.001, 60])
def test_nothing_is_lost_or_doubled_whatever_happens(monkeypatch, patience):
    monkeypatch.setattr(fair_stack, "PATIENCE", patience)
    stack, dice, taken = FairStack(2), random.Random(7), []
    for item in "ab":
        stack.put_nowait(item)

    def use():
        for _ in range(50):
            try:
                item = stack.get(timeout=dice.choice([0, 0.0005, 5]))
            except queue.Empty:
                continue
            assert item not in taken
            taken.append(item)
            try:
                gevent.sleep(dice.choice([0, 0, 0.0002]))
            finally:
                taken.remove(item)
                stack.put_nowait(item)

    users = [gevent.spawn(use) for _ in range(20)]
    for each in users[:5]:
        gevent.sleep(0.001)
        each.kill()
    gevent.joinall(users, timeout=WAIT, raise_error=True)
    assert sorted(stack.queue) == ["a", "b"]


def test_views_that_publish_in_a_loop_keep_nobody_waiting_for_ever(own_redis, monkeypatch):
    monkeypatch.setattr(fair_stack, "PATIENCE", 0.01)
    done = []

    def greedy():
        while not done:
            pool.client().incr("greedy")

    loops = [gevent.spawn(greedy) for _ in range(4)]
    with gevent.Timeout(WAIT):
        for _ in range(20):
            pool.client().incr("patient")
    done.append(True)
    gevent.joinall(loops, timeout=WAIT, raise_error=True)
    assert pool.client().get("patient") == b"20"
