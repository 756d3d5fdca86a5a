"""Whoever waits for a connection gets one in turn, and none gets lost."""

import queue

import gevent
import pytest

from tests.unit.peer import WAIT, turn
from wsloop.backend import pool
from wsloop.backend.fair_stack import FairStack


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
    with pytest.raises(queue.Empty):
        stack.get(timeout=0.01)
    with pytest.raises(queue.Empty):
        stack.get(block=False)
    stack.put_nowait("item")
    assert stack.get(timeout=0) == "item"


def test_who_waits_is_served_in_turn_before_whoever_comes_later():
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


def test_a_waiter_that_is_ended_loses_nothing():
    stack = FairStack(1)
    ended = gevent.spawn(stack.get, timeout=WAIT)
    turn()
    ended.kill()
    late = gevent.spawn(stack.get, timeout=WAIT)
    turn()
    stack.put_nowait("item")
    late.kill(block=False)  # it has been given the item, and not run yet
    turn()
    assert late.value != "item" or not stack.queue
    if late.value != "item":
        assert stack.get(timeout=WAIT) == "item"


def test_views_that_publish_in_a_loop_keep_nobody_waiting(own_redis):
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
    assert int(pool.client().get("greedy")) < 1000, "each has its turn"
