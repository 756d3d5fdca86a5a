"""Who is on a facility, as several workers tell a real Redis; a worker is a Presence of its own."""

import json
import time

import gevent
import pytest
from django.contrib.auth.models import User
from redis.exceptions import RedisError

from testbed.processes import wait_until
from testbed.topologies import ClusterSetup
from tests.requires import need
from tests.unit.peer import turn
from wsloop import signals
from wsloop.backend import pool
from wsloop.batch_queue import BatchQueue
from wsloop.presence import Who, online, presence_channel, who
from wsloop.visitors import attendance
from wsloop.visitors.attendance import Presence

ROOM = "rooms/1"
NAMES = ["john", "john smith", "a|b:c", "{braces}", "}{", "nul\0byte", 'quote"s\\', "<&/>", "Ærøskøbing 🌍", "", ":"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Everything within a second."""
    monkeypatch.setattr(attendance, "LIFE", 1.0)
    monkeypatch.setattr(attendance, "REFRESH", 0.3)
    monkeypatch.setattr(attendance, "RETRY", 0.05)
    monkeypatch.setattr(attendance, "LINGER", 0.1)
    monkeypatch.setattr(attendance, "TICK", 0.02)


class Worker(Presence):
    """A worker that can be killed, and counts what it asks Redis for."""

    def kill(self):
        self._timer.stop()
        self._changes = BatchQueue(lambda items: None)

    @property
    def idle(self):
        return not (self._timer.active or self._places or self._lingering or self._count_dirty)


@pytest.fixture
def make_worker(own_redis):
    workers = []

    def make(**options):
        workers.append(Worker(**options))
        return workers[-1]

    yield make
    for worker in workers:
        worker.kill()


class Events:
    """What is published about a facility."""

    def __init__(self, redis, facility=ROOM):
        self._pubsub = redis.pubsub(ignore_subscribe_messages=True)
        self._pubsub.subscribe(presence_channel(facility))
        self._pubsub.get_message(timeout=5)
        self.all = []

    def read(self):
        """Return all events from the beginning."""
        while (message := self._pubsub.get_message(timeout=0.001)) is not None:
            self.all.append(json.loads(message["data"]))
        return self.all

    def users(self):
        return [(each["event"], each["user"]) for each in self.read() if "user" in each]

    def counts(self):
        return [each["count"] for each in self.read() if each["event"] == "anonymous"]

    def close(self):
        self._pubsub.close()


@pytest.fixture
def redis(own_redis):
    """A client of the test's own; the Redis is this test's alone."""
    with own_redis.client() as client:
        yield client


@pytest.fixture
def events(redis):
    events = Events(redis)
    yield events
    events.close()


@pytest.fixture
def signalled():
    """Signals that were sent: pairs of what has happened and the user's name."""
    sent = []

    def came(user, **kwargs):
        sent.append(("online", user))

    def went(user, **kwargs):
        sent.append(("offline", user))

    signals.user_online.connect(came)
    signals.user_offline.connect(went)
    yield sent
    signals.user_online.disconnect(came)
    signals.user_offline.disconnect(went)


def wait_for(events, *expected):
    """Wait until these events about users, in this order and no others, have been published."""
    wait_until(lambda: len(events.users()) >= len(expected), what=f"{expected}")
    assert events.users() == list(expected)


def later(seconds):
    """Let the time pass in which something must not happen."""
    gevent.sleep(seconds)


def test_who_comes_and_goes_is_published_and_can_be_asked_for(make_worker, events):
    worker = make_worker()
    assert who(ROOM) == Who([], 0)
    worker.entered(ROOM, "john")
    wait_for(events, ("join", "john"))
    worker.entered(ROOM, "mary")
    wait_for(events, ("join", "john"), ("join", "mary"))
    assert who(ROOM) == Who(["john", "mary"], 0)
    assert who("rooms/2") == Who([], 0)
    worker.left(ROOM, "john")
    wait_for(events, ("join", "john"), ("join", "mary"), ("leave", "john"))
    assert who(ROOM) == Who(["mary"], 0)


def test_events_are_as_documented(make_worker, redis, own_redis):
    pubsub = redis.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe("unit:presence:rooms/1")
    worker = make_worker()
    worker.entered(ROOM, "john")
    worker.entered(ROOM, None)
    worker.left(ROOM, "john")
    published = []

    def read():
        message = pubsub.get_message(timeout=0.001)
        published.extend([message["data"]] if message else [])
        return len(published) == 3

    wait_until(read, what="three events")
    assert published == [
        '{"event": "join", "user": "john"}',
        '{"event": "anonymous", "count": 1}',
        '{"event": "leave", "user": "john"}',
    ]
    pubsub.close()


def test_opening_and_closing_sockets_never_waits_for_redis(make_worker, own_redis):
    worker = make_worker()
    own_redis.pause()
    try:
        before = time.monotonic()
        for number in range(1000):
            worker.entered(ROOM, f"user{number}")
            worker.entered(ROOM, None)
            worker.left(ROOM, f"user{number}")
            worker.left(ROOM, None)
        assert time.monotonic() - before < 1
    finally:
        worker.kill()
        own_redis.resume()


# Several sockets of one user.


def test_several_tabs_are_one_presence(make_worker, events):
    worker = make_worker()
    for _ in range(3):
        worker.entered(ROOM, "john")
    wait_for(events, ("join", "john"))
    worker.left(ROOM, "john")
    worker.left(ROOM, "john")
    later(0.3)
    assert events.users() == [("join", "john")]
    worker.left(ROOM, "john")
    wait_for(events, ("join", "john"), ("leave", "john"))


def test_several_workers_are_one_presence(make_worker, events):
    first, second = make_worker(), make_worker()
    first.entered(ROOM, "john")
    wait_for(events, ("join", "john"))
    second.entered(ROOM, "john")
    wait_until(lambda: not second._changes._running, what="the second worker's call")
    assert who(ROOM) == Who(["john"], 0)
    first.left(ROOM, "john")
    wait_until(lambda: first.idle, what="the first worker's leave")
    assert events.users() == [("join", "john")]
    assert who(ROOM) == Who(["john"], 0)
    second.left(ROOM, "john")
    wait_for(events, ("join", "john"), ("leave", "john"))


def test_a_page_that_loads_anew_does_not_leave(make_worker, events, monkeypatch):
    monkeypatch.setattr(attendance, "LINGER", 1.0)
    worker = make_worker()
    for _ in range(5):
        worker.entered(ROOM, "john")
        turn()
        worker.left(ROOM, "john")
        later(0.05)
    worker.entered(ROOM, "john")
    later(1.2)
    assert events.users() == [("join", "john")]


def test_the_next_page_in_another_worker_does_not_leave(make_worker, events, monkeypatch):
    monkeypatch.setattr(attendance, "LINGER", 1.0)
    first, second = make_worker(), make_worker()
    first.entered(ROOM, "john")
    wait_for(events, ("join", "john"))
    first.left(ROOM, "john")
    later(0.05)
    second.entered(ROOM, "john")
    wait_until(lambda: first.idle, what="the end of the first worker's work")
    assert events.users() == [("join", "john")]
    assert who(ROOM) == Who(["john"], 0)


# Workers and Redis that end.


def test_members_of_a_killed_worker_leave_in_time_and_those_of_others_stay(make_worker, events):
    killed, alive = make_worker(), make_worker()
    killed.entered(ROOM, "john")
    killed.entered(ROOM, "mary")
    killed.entered(ROOM, None)
    alive.entered(ROOM, "mary")
    alive.entered(ROOM, "admin")
    wait_until(lambda: who(ROOM) == Who(["admin", "john", "mary"], 1), what="everybody")
    killed.kill()
    since = time.monotonic()
    wait_until(lambda: ("leave", "john") in events.users(), what="the end of john")
    assert time.monotonic() - since < attendance.LIFE + attendance.REFRESH + 0.5
    wait_until(lambda: events.counts()[-1] == 0, what="the end of the anonymous socket")
    assert [each for each in events.users() if each[0] == "leave"] == [("leave", "john")]
    assert who(ROOM) == Who(["admin", "mary"], 0)


def test_who_does_not_count_those_whose_worker_has_died_although_nobody_has_removed_them(make_worker, redis):
    killed = make_worker()
    killed.entered(ROOM, "john")
    killed.entered(ROOM, None)
    wait_until(lambda: who(ROOM) == Who(["john"], 1), what="both")
    killed.kill()
    # Of the room and of the site they are refreshed one after the other, and expire so.
    wait_until(lambda: who(ROOM) == Who([], 0) and online() == [], what="their end")
    assert redis.zcard("unit:wsloop:presence:{facility:rooms/1}:expiries") == 2


def test_a_user_who_comes_back_from_a_killed_worker_does_not_leave(make_worker, events):
    killed, alive = make_worker(), make_worker()
    killed.entered(ROOM, "john")
    alive.entered(ROOM, "mary")
    wait_until(lambda: len(events.users()) == 2, what="both")
    killed.kill()
    alive.entered(ROOM, "john")
    later(attendance.LIFE + 2 * attendance.REFRESH)
    assert sorted(events.users()) == [("join", "john"), ("join", "mary")]
    assert who(ROOM) == Who(["john", "mary"], 0)


def test_who_stays_is_refreshed(make_worker, events):
    worker, other = make_worker(), make_worker()
    worker.entered(ROOM, "john")
    worker.entered(ROOM, None)
    other.entered(ROOM, "mary")
    later(attendance.LIFE + 3 * attendance.REFRESH)
    assert who(ROOM) == Who(["john", "mary"], 1)
    assert online() == ["john", "mary"]
    assert sorted(events.users()) == [("join", "john"), ("join", "mary")]
    assert events.counts() == [1]


def test_a_redis_that_comes_back_empty_is_filled_again(make_worker, own_redis, caplog):
    first, second = make_worker(), make_worker()
    first.entered(ROOM, "john")
    first.entered(ROOM, None)
    second.entered(ROOM, "mary")
    wait_until(lambda: who(ROOM) == Who(["john", "mary"], 1), what="everybody")
    own_redis.kill()
    wait_until(lambda: first._failing and second._failing, what="failures")
    with pytest.raises(RedisError):
        who(ROOM)
    later(0.3)
    assert caplog.text.count("Could not update presence") == 2, "one for each worker"
    own_redis.start()
    wait_until(lambda: not (first._failing or second._failing), what="the next refresh")
    assert who(ROOM) == Who(["john", "mary"], 1)
    assert online() == ["john", "mary"]


def test_whom_redis_has_forgotten_is_told_of_again(make_worker, redis, events):
    worker = make_worker()
    worker.entered(ROOM, "john")
    worker.entered(ROOM, None)
    wait_until(lambda: who(ROOM) == Who(["john"], 1), what="both")
    redis.flushall()
    redis.script_flush()
    wait_for(events, ("join", "john"), ("join", "john"))
    wait_until(lambda: events.counts() == [1, 1], what="the number")
    assert who(ROOM) == Who(["john"], 1)


def test_who_leaves_while_redis_is_down_has_left_when_it_is_back(make_worker, own_redis, events, redis):
    worker, other = make_worker(), make_worker()
    worker.entered(ROOM, "john")
    worker.entered(ROOM, None)
    other.entered(ROOM, "mary")
    wait_until(lambda: who(ROOM) == Who(["john", "mary"], 1), what="everybody")
    redis.replicaof("127.0.0.1", own_redis.port)  # of itself, in vain: it keeps its data and refuses all changes
    worker.left(ROOM, "john")
    worker.left(ROOM, None)
    wait_until(lambda: worker._failing, what="the failure")
    assert not worker.idle
    redis.replicaof("NO", "ONE")
    wait_until(lambda: worker.idle, what="the end of its work")
    assert ("leave", "john") in events.users()
    assert who(ROOM) == Who(["mary"], 0)


def test_after_an_outage_workers_do_not_take_each_other_for_dead(make_worker, own_redis, redis, events, monkeypatch):
    """All have expired while nobody could refresh: the first that comes back must not remove the others."""
    monkeypatch.setattr(attendance, "LIFE", 2.0)
    monkeypatch.setattr(attendance, "REFRESH", 1.0)
    workers = [make_worker() for _ in range(3)]
    for number, worker in enumerate(workers):
        worker.entered(ROOM, f"user{number}")
    wait_until(lambda: len(who(ROOM).users) == 3, what="everybody")
    redis.replicaof("127.0.0.1", own_redis.port)
    wait_until(lambda: who(ROOM).users == [], what="the end of all")
    redis.replicaof("NO", "ONE")
    wait_until(lambda: len(who(ROOM).users) == 3, what="everybody again")
    later(2 * attendance.REFRESH)
    assert sorted(events.users()) == [("join", f"user{number}") for number in range(3)]


def test_keys_expire_when_all_workers_have_died(make_worker, redis, monkeypatch):
    monkeypatch.setattr(attendance, "KEEP", 0.5)
    worker = make_worker()
    worker.entered(ROOM, "john")
    worker.entered(ROOM, None)
    wait_until(lambda: who(ROOM) == Who(["john"], 1), what="both")
    assert len(redis.keys("unit:wsloop:presence:*")) == 4, "two of the facility, two of the site"
    worker.kill()
    wait_until(lambda: redis.keys("*") == [], what="the end of the keys")


def test_nothing_is_left_behind_when_all_have_left(make_worker, redis):
    worker = make_worker()
    for number in range(20):
        worker.entered(f"rooms/{number}", "john")
        worker.entered(f"rooms/{number}", None)
    wait_until(lambda: len(redis.keys("*")) == 42, what="the keys")
    for number in range(20):
        worker.left(f"rooms/{number}", "john")
        worker.left(f"rooms/{number}", None)
    wait_until(lambda: worker.idle, what="the end of its work")
    assert redis.keys("*") == []


def test_a_place_of_which_redis_has_lost_one_key_is_filled_again(make_worker, redis, events):
    worker = make_worker()
    worker.entered(ROOM, "john")
    worker.entered(ROOM, None)
    wait_until(lambda: who(ROOM) == Who(["john"], 1), what="both")
    for key in redis.keys("*rooms*"):
        redis.delete(key)
        wait_until(lambda: len(redis.keys("*rooms*")) == 2 and who(ROOM) == Who(["john"], 1), what=f"both, after {key}")
    worker.left(ROOM, "john")
    wait_until(lambda: ("leave", "john") in events.users(), what="the end of john")


# Many.


def test_more_users_than_one_call_takes(make_worker, redis, events, monkeypatch):
    monkeypatch.setattr(attendance, "CHUNK", 7)
    monkeypatch.setattr(attendance, "BATCH", 3)
    worker = make_worker()
    names = sorted(f"user{number}" for number in range(100))
    for name in names:
        worker.entered(ROOM, name)
    wait_until(lambda: who(ROOM).users == names, what="all")
    later(attendance.LIFE + attendance.REFRESH)
    assert sorted(events.users()) == [("join", name) for name in names]
    assert who(ROOM).users == online() == names
    for name in names:
        worker.left(ROOM, name)
    wait_until(lambda: worker.idle, what="the end of all")
    assert sorted(events.users()[100:]) == [("leave", name) for name in names]
    assert redis.keys("*") == []


def test_a_worker_that_was_stalled_does_not_remove_its_own(make_worker, events, monkeypatch):
    monkeypatch.setattr(attendance, "CHUNK", 3)
    worker = make_worker()
    names = sorted(f"user{number}" for number in range(10))
    for name in names:
        worker.entered(ROOM, name)
    later(2 * attendance.REFRESH)
    assert who(ROOM).users == names
    worker._timer.stop()
    wait_until(lambda: who(ROOM).users == [], what="the end of all")
    worker._timer.start(worker._tick)
    wait_until(lambda: who(ROOM).users == names, what="all again")
    later(2 * attendance.REFRESH)
    assert sorted(events.users()) == [("join", name) for name in names]


def test_anonymous_sockets_are_counted_over_all_workers_and_told_now_and_then(make_worker, events, monkeypatch):
    monkeypatch.setattr(attendance, "REFRESH", 0.5)
    first, second = make_worker(), make_worker()
    first.entered(ROOM, None)
    wait_until(lambda: events.counts() == [1], timeout=1, what="the first")
    for _ in range(200):
        first.entered(ROOM, None)
        second.entered(ROOM, None)
        gevent.sleep(0.001)
    wait_until(lambda: events.counts()[-1] == 401, what="all")
    assert who(ROOM) == Who([], 401)
    assert len(events.counts()) <= 6
    for _ in range(201):
        first.left(ROOM, None)
    wait_until(lambda: events.counts()[-1] == 200, what="those of the second")
    for _ in range(200):
        second.left(ROOM, None)
    wait_until(lambda: first.idle and second.idle, what="the end of all")
    assert len(events.counts()) <= 10
    assert who(ROOM) == Who([], 0)


def test_a_number_that_has_not_changed_is_not_told_again(make_worker, events):
    first, second = make_worker(), make_worker()
    first.entered(ROOM, None)
    second.entered(ROOM, "john")
    wait_until(lambda: events.counts() == [1], what="the first")
    later(3 * attendance.REFRESH)
    assert events.counts() == [1]


def test_a_number_that_is_as_before_again_is_told_to_those_who_have_asked_in_between(make_worker, events):
    worker = make_worker()
    worker.entered(ROOM, None)
    wait_until(lambda: events.counts() == [1], what="the first")
    worker.entered(ROOM, None)
    worker.entered(ROOM, "john")  # told at once, and with it the number, which is not published yet
    wait_until(lambda: who(ROOM) == Who(["john"], 2), what="the second")
    assert events.counts() == [1]
    worker.left(ROOM, None)
    wait_until(lambda: events.counts() == [1, 1], what="the number")


# Names.


@pytest.mark.parametrize("facility", ["rooms/1", "a b", "{x}", "}{", "ü|🌍", "site", "*"])
def test_names_may_have_any_characters(make_worker, redis, facility):
    events = Events(redis, facility)
    worker, other = make_worker(), make_worker()
    for name in NAMES:
        worker.entered(facility, name)
        other.entered(facility, name)
    wait_until(lambda: not (worker._changes._running or other._changes._running), what="all")
    assert who(facility) == Who(sorted(NAMES), 0)
    assert online() == sorted(NAMES)
    assert sorted(events.users()) == sorted(("join", name) for name in NAMES)
    worker.kill()
    other.kill()
    reaper = make_worker()
    reaper.entered(facility, "reaper")
    wait_until(lambda: len(events.users()) == 2 * len(NAMES) + 1, what="the end of all")
    assert {user for event, user in events.users() if event == "leave"} == set(NAMES)
    assert who(facility) == Who(["reaper"], 0)
    events.close()


def test_a_redis_cluster(make_worker, use_redis, with_settings, signalled):
    need("redis-server")
    cluster = ClusterSetup()
    try:
        cluster.start()
        with_settings(WS4REDIS_CONNECTION=cluster.connection())
        pool.forget()
        first, second = make_worker(), make_worker()
        for name in NAMES:  # of facilities, too
            first.entered(name, name)
            second.entered(name, "john")
            second.entered(name, None)
        everybody = {name: Who(sorted({name, "john"}), 1) for name in NAMES}
        wait_until(lambda: {name: who(name) for name in NAMES} == everybody, what="everybody")
        assert online() == sorted(NAMES)
        for name in NAMES:
            first.left(name, name)
        wait_until(lambda: online() == ["john"] and first.idle, what="the end of all but one")
        second.kill()
        first.entered(ROOM, "mary")
        wait_until(lambda: ("offline", "john") in signalled, what="the end of that one")
    finally:
        cluster.close()


# The whole site, and signals.


def test_online_is_who_is_on_any_facility(make_worker, redis, signalled):
    pubsub = redis.pubsub(ignore_subscribe_messages=True)
    pubsub.psubscribe("*")
    pubsub.subscribe("")  # which no pattern matches
    for _ in range(2):
        pubsub.get_message(timeout=5)
    first, second = make_worker(), make_worker()
    first.entered(ROOM, "john")
    first.entered("rooms/2", "john")
    second.entered("rooms/3", "john")
    second.entered(ROOM, "mary")
    second.entered(ROOM, None)
    wait_until(lambda: len(signalled) == 2, what="signals")
    assert online() == ["john", "mary"]
    first.left(ROOM, "john")
    second.left("rooms/3", "john")
    wait_until(lambda: who(ROOM) == Who(["mary"], 1), what="john elsewhere")
    assert online() == ["john", "mary"]
    first.left("rooms/2", "john")
    second.left(ROOM, "mary")
    wait_until(lambda: len(signalled) == 4, what="signals")
    assert online() == []
    assert sorted(signalled) == [("offline", "john"), ("offline", "mary"), ("online", "john"), ("online", "mary")]
    published = []
    while (message := pubsub.get_message(timeout=0.1)) is not None:
        published.append(message["channel"])
    assert set(published) == {f"unit:presence:rooms/{number}" for number in (1, 2, 3)}, "nothing about the whole site"
    pubsub.close()


def test_a_signal_is_sent_for_users_of_a_killed_worker(make_worker, redis, signalled):
    killed, alive = make_worker(), make_worker()
    killed.entered(ROOM, "john")
    wait_until(lambda: signalled == [("online", "john")], what="the signal")
    killed.kill()
    alive.entered("rooms/2", None)
    alive.entered("rooms/2", "mary")
    wait_until(lambda: ("offline", "john") in signalled, what="the signal")
    later(attendance.REFRESH)
    assert signalled.count(("offline", "john")) == 1


def test_who_was_in_the_last_worker_that_was_killed_goes_offline_when_another_one_comes(make_worker, redis, signalled):
    killed = make_worker()
    killed.entered(ROOM, "john")
    wait_until(lambda: signalled == [("online", "john")], what="the signal")
    killed.kill()
    wait_until(lambda: online() == [], what="the end of john")
    make_worker().entered("rooms/2", "mary")
    wait_until(lambda: ("offline", "john") in signalled, what="the signal")


def test_receivers_may_use_the_database_and_are_cleaned_up_after(make_worker, own_redis, database):
    cleaned, found = [], []

    def receiver(sender, user, **kwargs):
        assert sender is Presence
        found.append(User.objects.filter(username=user).exists())

    User.objects.create(username="john")
    signals.user_online.connect(receiver)
    try:
        make_worker(clean_up=lambda: cleaned.append(len(found))).entered(ROOM, "john")
        wait_until(lambda: cleaned, what="the clean-up")
    finally:
        signals.user_online.disconnect(receiver)
    assert found == [True]
    assert cleaned == [1]


def test_a_receiver_that_fails_or_waits_holds_nothing_up(make_worker, events, signalled, caplog):
    may_go_on = gevent.event.Event()

    def failing(user, **kwargs):
        raise ValueError(f"not for {user}")

    def waiting(**kwargs):
        may_go_on.wait()

    signals.user_online.connect(failing)
    signals.user_online.connect(waiting)
    try:
        worker = make_worker()
        worker.entered(ROOM, "john")
        worker.entered(ROOM, "mary")
        later(attendance.LIFE + attendance.REFRESH)
        assert who(ROOM) == Who(["john", "mary"], 0), "refreshed, while a receiver waits"
        may_go_on.set()
        wait_until(lambda: len(signalled) == 2, what="the other receiver")
    finally:
        signals.user_online.disconnect(failing)
        signals.user_online.disconnect(waiting)
    errors = [record for record in caplog.records if record.exc_info]
    assert [str(record.exc_info[1]) for record in errors] == ["not for john", "not for mary"]


def test_a_worker_without_members_does_nothing(make_worker, redis):
    worker = make_worker()
    worker.entered(ROOM, "john")
    worker.left(ROOM, "john")
    wait_until(lambda: worker.idle, what="the end of its work")
    before = redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    later(3 * attendance.REFRESH)
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] == before
    worker.entered(ROOM, "john")
    wait_until(lambda: who(ROOM) == Who(["john"], 0), what="john again")
