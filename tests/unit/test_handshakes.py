"""Whose turn it is, of the handshakes that are under way."""

import contextlib
import itertools
import time

import gevent
import pytest
from gevent.event import Event

from testbed.processes import wait_until
from wsloop.sockets import handshakes as module
from wsloop.sockets.handshakes import FIRST_RATE, Busy, Handshakes

WAIT = 20


@pytest.fixture
def handshakes():
    handshakes = Handshakes(float("inf"))
    yield handshakes
    wait_until(lambda: not handshakes._waiting and not handshakes._idle.active, what="the end of all turns")


class Crowd:
    """Handshakes that begin together, and go on until they are told to end."""

    def __init__(self, handshakes, count):
        self.begun, self.refused, self.end = [], [], Event()
        self.greenlets = [gevent.spawn(self._run, handshakes, number) for number in range(count)]

    def _run(self, handshakes, number):
        try:
            with handshakes.turn() as waited:
                self.begun.append((number, waited))
                self.end.wait()
        except Busy:
            self.refused.append(number)

    def finish(self):
        self.end.set()
        gevent.joinall(self.greenlets, timeout=WAIT, raise_error=True)


def test_a_single_one_goes_on_at_once(handshakes):
    seen = []
    gevent.get_hub().loop.run_callback(seen.append, "another round")
    with handshakes.turn() as waited:
        assert not waited
    assert seen == []


def test_those_that_come_together_begin_one_after_the_other_in_their_order(handshakes):
    crowd = Crowd(handshakes, 10)
    wait_until(lambda: len(crowd.begun) == 10 or gevent.sleep(0.001), WAIT)
    assert [number for number, _ in crowd.begun] == list(range(10))
    assert [waited for _, waited in crowd.begun][:2] == [False, True]
    crowd.finish()


def test_some_begin_together_and_then_others_have_their_turn(handshakes, monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", 4)
    turns, begin = [], handshakes._next
    monkeypatch.setattr(handshakes, "_next", lambda: turns.append(len(crowd.begun)) or begin())
    crowd = Crowd(handshakes, 13)
    wait_until(lambda: len(crowd.begun) == 13 or gevent.sleep(0.001), WAIT)
    assert len({*turns, 13}) >= 4, turns  # the first one alone, and at most four more in a turn
    assert max(after - before for before, after in itertools.pairwise([*turns, 13])) <= 4
    crowd.finish()


def test_one_that_waits_for_something_else_keeps_nobody_from_beginning(handshakes):
    """Redis, say, or a slow service that knows the users: the loop is idle meanwhile."""
    crowd = Crowd(handshakes, module.MOST_WAITING)
    wait_until(lambda: len(crowd.begun) == module.MOST_WAITING or gevent.sleep(0.001), WAIT)
    crowd.finish()
    assert crowd.refused == []


def work():
    end = time.monotonic() + 0.001
    while time.monotonic() < end:
        pass


def by_timer():
    watcher = gevent.get_hub().loop.timer(0, 1e-9)
    watcher.start(work)
    return watcher.close


def by_greenlet():
    greenlet = gevent.spawn(lambda: [(work(), gevent.sleep(0)) for _ in itertools.count()])
    return greenlet.kill


@pytest.fixture(params=[by_timer, by_greenlet])
def busy(request):
    """The loop always has something else to do, which takes a while."""
    stop = request.param()
    yield
    stop()


def test_few_are_under_way_where_the_cpu_is_what_they_need(handshakes, busy):
    crowd = Crowd(handshakes, module.MOST_BEGUN + 20)
    wait_until(lambda: len(crowd.begun) >= module.MOST_BEGUN or gevent.sleep(0.001), WAIT)
    wait_until(lambda: not handshakes._idle.active or gevent.sleep(0.001), WAIT, "that the loop may wait for events")
    gevent.sleep(3 * module.LOOK)
    assert len(crowd.begun) == module.MOST_BEGUN
    assert not handshakes._idle.active
    crowd.finish()
    assert len(crowd.begun) == module.MOST_BEGUN + 20, "as soon as others have ended"
    wait_until(lambda: not handshakes._pauses._before.active or gevent.sleep(0.001), what="the last look")


def test_that_nobody_waits_does_not_let_more_begin(handshakes, busy):
    """They come one by one, each after a turn in which none had to wait."""
    crowds = []
    for _ in range(module.MOST_BEGUN + 10):
        crowds.append(Crowd(handshakes, 1))
        gevent.sleep(1.3 * module.LONGEST)
    assert sum(len(crowd.begun) for crowd in crowds) == module.MOST_BEGUN
    for crowd in crowds:
        crowd.end.set()
    for crowd in crowds:
        crowd.finish()


def test_a_loop_that_works_most_of_the_time_lets_no_more_begin_in_its_pauses(handshakes):
    stopped = []

    def alternate():
        while not stopped:
            for _ in range(40):  # in ms: a machine that does something else, too, makes the pause longer
                work()
            gevent.sleep(0.005)

    worker = gevent.spawn(alternate)
    crowd = Crowd(handshakes, module.MOST_BEGUN + 20)
    gevent.sleep(5 * module.LOOK)
    assert len(crowd.begun) == module.MOST_BEGUN
    stopped.append(True)
    crowd.finish()
    worker.join()


def test_where_one_has_ended_the_next_begins_at_once(handshakes, monkeypatch):
    monkeypatch.setattr(module, "SLACK", 1.1)
    monkeypatch.setattr(module, "LONGEST", 3600)
    handshakes._timer = gevent.get_hub().loop.timer(3600, 3600)
    crowd = Crowd(handshakes, module.MOST_BEGUN + 20)
    wait_until(lambda: len(crowd.begun) == module.MOST_BEGUN or gevent.sleep(0.001), WAIT)
    gevent.sleep(0.01)
    assert len(crowd.begun) == module.MOST_BEGUN
    crowd.finish()
    assert [number for number, _ in crowd.begun] == list(range(module.MOST_BEGUN + 20))


def test_those_for_whom_there_is_no_room_are_refused_at_once(handshakes, monkeypatch):
    monkeypatch.setattr(module, "MOST_WAITING", 30)  # so few that all come in one round of the loop
    crowd = Crowd(handshakes, module.MOST_WAITING + 11)
    gevent.sleep(0)
    refused = list(crowd.refused)
    assert refused
    assert min(refused) > module.MOST_WAITING
    wait_until(lambda: len(crowd.begun) == module.MOST_WAITING + 11 - len(refused) or gevent.sleep(0.001), WAIT)
    with handshakes.turn():
        pass  # those that have begun take no place of those that wait
    crowd.finish()


def test_a_tenth_of_the_cores_is_left_to_pages():
    handshakes = Handshakes(20)
    crowd = Crowd(handshakes, 20)
    wait_until(lambda: len(crowd.begun) == 18 or gevent.sleep(0.001), WAIT)
    assert len(crowd.refused) == 2
    crowd.finish()
    with handshakes.turn():
        pass  # they have ended


def test_a_server_with_a_single_core_opens_sockets():
    with Handshakes(1).turn():
        pass


def test_pages_go_first_but_do_not_keep_handshakes_from_beginning(handshakes):
    """A loop that always has something else to do gives one a turn each LONGEST seconds."""
    rounds = []
    busy = gevent.get_hub().loop.timer(0, 1e-9)
    busy.start(lambda: rounds.append(len(crowd.begun)))
    crowd = Crowd(handshakes, 5)
    wait_until(lambda: len(crowd.begun) == 5 or gevent.sleep(0.001), WAIT)
    busy.stop()
    busy.close()
    crowd.finish()
    assert [number for number, _ in crowd.begun] == list(range(5))
    assert rounds


def test_the_server_is_told_as_long_as_handshakes_wait():
    told = []
    handshakes = Handshakes(float("inf"), told.append)
    crowd = Crowd(handshakes, 5)
    gevent.sleep(0)
    assert told == [True]
    wait_until(lambda: len(crowd.begun) == 5 or gevent.sleep(0.001), WAIT)
    wait_until(lambda: told[-1] is False or gevent.sleep(0.001), WAIT)
    crowd.finish()


def test_who_gives_up_is_forgotten(handshakes, monkeypatch):
    turns, begin = [], handshakes._next
    monkeypatch.setattr(handshakes, "_next", lambda: turns and begin())
    crowd = Crowd(handshakes, 3)
    gevent.sleep(0)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.001), handshakes.turn():
        raise AssertionError("it has a turn")
    assert handshakes._under_way == 3
    turns.append(True)
    wait_until(lambda: len(crowd.begun) == 3 or gevent.sleep(0.001), WAIT)
    crowd.finish()
    assert handshakes._under_way == 0


def test_how_many_a_second_is_measured_while_there_are_many(handshakes, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])

    def run():
        with handshakes.turn():
            now[0] += 0.05

    def together(count):
        gevent.joinall([gevent.spawn(run) for _ in range(count)], timeout=WAIT, raise_error=True)

    assert handshakes.rate == FIRST_RATE
    for _ in range(40):
        together(1)
    assert handshakes.rate == FIRST_RATE, "there were few clients"
    with contextlib.ExitStack() as stack:
        for _ in range(module.MANY):
            stack.enter_context(handshakes.turn())
        for _ in range(3):
            together(15)
        assert handshakes.rate == pytest.approx(20, rel=0.1)
    now[0] += 1000
    together(1)
    assert handshakes.rate == pytest.approx(20, rel=0.1)
