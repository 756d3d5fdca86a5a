"""The queue whose items one greenlet handles in order."""

import gc
import weakref

import gevent
from gevent.event import Event

from tests.unit.peer import WAIT, turn
from wsloop.batch_queue import BatchQueue


def test_items_are_handled_in_order_as_many_at_once_as_have_gathered():
    batches = []
    drain = BatchQueue(batches.append)
    for number in range(5):
        drain.put(number)
    assert len(drain) == 5
    assert not batches, "putting never handles: the caller may be a callback of the event loop"
    turn()
    assert batches == [[0, 1, 2, 3, 4]]
    assert len(drain) == 0


def test_what_is_put_while_items_are_handled_comes_after_them():
    batches, may_go_on, done = [], Event(), Event()

    def handle(items):
        batches.append(items)
        if items == ["first"]:
            drain.put("from within")
            may_go_on.wait(WAIT)
        elif "last" in items:
            done.set()

    drain = BatchQueue(handle)
    drain.put("first")
    turn()
    drain.put("last")
    turn()
    assert batches == [["first"]], "one greenlet: what comes next waits for it"
    assert len(drain) == 2
    may_go_on.set()
    assert done.wait(WAIT)
    assert batches == [["first"], ["from within", "last"]]


def test_it_works_again_after_it_has_run_empty():
    handled = []
    drain = BatchQueue(handled.extend)
    for number in range(3):
        drain.put(number)
        turn()
    assert handled == [0, 1, 2]


def test_it_works_again_after_its_greenlet_was_killed():
    started, handled = Event(), []
    greenlets = []

    def handle(items):
        if items == ["stuck"]:
            greenlets.append(gevent.getcurrent())
            started.set()
            Event().wait()
        handled.extend(items)

    drain = BatchQueue(handle)
    drain.put("stuck")
    assert started.wait(WAIT)
    greenlets.pop().kill()
    drain.put("next")
    turn()
    assert handled == ["next"]


def test_callbacks_of_the_event_loop_may_put():
    handled = Event()
    drain = BatchQueue(lambda items: handled.set())
    gevent.get_hub().loop.run_callback(drain.put, "item")
    assert handled.wait(WAIT)


def test_no_greenlet_and_no_item_is_kept_without_work():
    class Item:
        pass

    drain = BatchQueue(lambda items: items.clear())
    item = Item()
    reference = weakref.ref(item)
    gc.disable()
    try:
        drain.put(item)
        del item
        turn()
        assert reference() is None
    finally:
        gc.enable()


def test_what_fails_is_logged_and_what_comes_next_is_handled(caplog):
    handled = []

    def handle(items):
        handled.extend(items)
        if "bad" in items:
            raise ZeroDivisionError("by zero")

    drain = BatchQueue(handle)
    drain.put("bad")
    turn()
    drain.put("good")
    turn()
    assert handled == ["bad", "good"]
    assert "ZeroDivisionError: by zero" in caplog.text
