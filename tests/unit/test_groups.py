"""Groups on a real Redis: several workers in one process, each with a broker of its own."""

import gc
import weakref

import gevent
import msgpack
import pytest
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from testbed.processes import wait_until
from testbed.topologies import ClusterSetup
from tests.requires import need
from tests.unit.peer import WAIT, events, turn
from wsloop.backend import layer_events, pool, publishing
from wsloop.delivery.broker import Broker
from wsloop.exceptions import ChannelFull
from wsloop.layers import ChannelLayer, decode, encode, full_key, group_channel
from wsloop.runtime import groups as module
from wsloop.runtime.batching import MAX_EVENTS, BatchingDelivery
from wsloop.runtime.groups import LocalConsumers


class Inbox:
    """A consumer that records its events; ``room`` is the number that it takes."""

    def __init__(self, room=1000):
        self.events = []
        self.resumes = 0
        self.room = room
        self.subscriptions = set()
        self.channel_name = None

    def put(self, channel, payload):
        if len(self.events) >= self.room:
            return False
        self.events.append((channel, payload))
        return True

    def put_all(self, channel, events, size):
        assert size == sum(map(len, events))
        for each in events:
            self.put(channel, each.payload)

    def resumed(self):
        self.resumes += 1

    def numbers(self):
        return [decode(payload)["number"] for _, payload in self.events]


class Worker:
    """A worker with its broker and its layer."""

    def __init__(self):
        self.failures = []
        self.broker = Broker(
            events(
                message=lambda channel, message, origin: self.members.deliver(channel, message.payload),
                failed=lambda: self.failures.append("failed"),
                connected=lambda: self.members.resumed(),
            )
        )
        self.members = LocalConsumers(self.broker)
        self.broker.attach(self.members.channel, self.members.on_request)
        self.layer = ChannelLayer()
        self.layer.local = self.members

    def consumer(self, *groups, **options):
        inbox = Inbox(**options)
        inbox.channel_name = self.members.enter(inbox)
        for group in groups:
            self.layer.group_add(group, inbox.channel_name)
        return inbox

    @property
    def counts(self):
        """The number of subscriptions of each channel, without those of the worker itself."""
        own = {self.broker._own_channel.name, self.broker._control_channel, self.members.channel}
        return {channel: count for channel, count in self.broker._table.counts.items() if channel not in own}


@pytest.fixture
def worker(monkeypatch):
    """Create a worker: ``worker()``. At the end of the test its subscriptions must be those of its consumers."""
    monkeypatch.setattr("wsloop.delivery.broker.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("wsloop.delivery.broker.LONGEST_PAUSE", 0.05)
    workers = []

    def make():
        workers.append(Worker())
        return workers[-1]

    yield make
    for each in workers:
        each.broker.stop()
    for each in workers:
        assert not each.failures
        assert each.counts == {channel: len(members) for channel, members in each.members._subscribed.items()}


@pytest.fixture
def shell():
    """The layer of a process without consumers."""
    return ChannelLayer()


def event(number):
    return {"type": "happened", "number": number}


def subscribers(redis_client, group):
    return redis_client.pubsub_numsub(group_channel(group))[0][1]


# Aliases.


def test_groups_of_two_aliases_have_nothing_in_common(worker, shared_redis, facility):
    here, there = worker(), worker()
    for each in (here, there):
        each.broker.ready()
    layers_of = {each: [each.layer, ChannelLayer("other", each.layer._process)] for each in (here, there)}
    members = []
    for alias in (0, 1):
        for process in (here, there):
            members.append(process.consumer())
            # By the other process, which asks for it.
            asking = layers_of[there if process is here else here][alias]
            asking.group_add(facility, members[-1].channel_name)
    for alias in (0, 1):
        layers_of[here][alias].group_send(facility, event(alias))
    wait_until(lambda: all(each.events for each in members), what="the events")
    turn(5)
    assert [each.numbers() for each in members] == [[0], [0], [1], [1]]
    layers_of[there][0].group_discard(facility, members[2].channel_name)
    assert group_channel(facility, "other") in members[2].subscriptions, "it is in a group of the other alias only"
    layers_of[there][1].group_discard(facility, members[2].channel_name)
    assert not members[2].subscriptions


# Names.


def test_each_consumer_has_a_name_of_its_own_that_names_its_worker(worker):
    one, other = worker(), worker()
    names = [each.consumer().channel_name for each in (one, one, other)]
    assert len(set(names)) == 3
    for name, its in zip(names, (one, one, other), strict=True):
        match = layer_events.CHANNEL.fullmatch(name)
        assert match[1] == its.members.worker
        assert its.members.has(name)
    assert not other.members.has(names[0])
    assert (len(one.members), len(other.members)) == (2, 1)


def test_a_name_cannot_be_guessed_from_another_one(worker):
    one, other = worker(), worker()
    first, second = one.consumer().channel_name, one.consumer().channel_name
    assert one.members.worker != other.members.worker
    assert first[:-1] != second[:-1]


# Groups.


def test_a_member_gets_what_is_sent_to_its_group_and_nothing_else(worker, shell, shared_redis, facility, redis_client):
    here, there = worker(), worker()
    members = [here.consumer(facility), here.consumer(facility), there.consumer(facility)]
    stranger = here.consumer(f"{facility}-other")
    assert subscribers(redis_client, facility) == 2, "one a worker, acknowledged when group_add returns"
    for number in range(20):
        (here.layer, there.layer, shell)[number % 3].group_send(facility, event(number))
    wait_until(lambda: all(len(each.events) == 20 for each in members), what="all events")
    assert [each.numbers() for each in members] == [list(range(20))] * 3
    assert stranger.events == []


def test_a_group_is_left_by_who_is_taken_out_and_by_who_ends(worker, shell, shared_redis, facility, redis_client):
    here = worker()
    one, two = here.consumer(facility), here.consumer(facility)
    here.layer.group_discard(facility, one.channel_name)
    shell.group_send(facility, event(1))
    wait_until(lambda: two.events, what="the event")
    assert one.events == []
    here.members.leave(two.channel_name)
    wait_until(lambda: subscribers(redis_client, facility) == 0, what="UNSUBSCRIBE")
    assert here.counts == {}
    shell.group_send(facility, event(2))
    here.broker.sync()
    assert two.numbers() == [1]


def test_leaving_ends_all_memberships(worker, shared_redis, facility):
    here = worker()
    groups = [f"{facility}-{number}" for number in range(5)]
    member = here.consumer(*groups)
    assert here.counts == {group_channel(group): 1 for group in groups}
    here.members.leave(member.channel_name)
    assert here.counts == {}
    assert not member.subscriptions
    here.members.leave(member.channel_name)  # again does nothing
    assert len(here.members) == 0


def test_a_consumer_is_in_a_group_once_however_often_it_is_added(worker, shell, shared_redis, facility):
    here = worker()
    member = here.consumer(facility, facility)
    shell.group_add(facility, member.channel_name)
    assert here.counts == {group_channel(facility): 1}
    shell.group_send(facility, event(1))
    shell.group_send(facility, event(2))
    wait_until(lambda: len(member.events) == 2, what="the events")
    assert member.numbers() == [1, 2]
    here.layer.group_discard(facility, member.channel_name)
    here.layer.group_discard(facility, member.channel_name)
    assert here.counts == {}


def test_adding_at_once_is_adding_once(worker, gate, facility):
    here = worker()
    member = here.consumer()
    here.broker.ready()
    gate.hold("SUBSCRIBE")
    adding = [gevent.spawn(here.layer.group_add, facility, member.channel_name) for _ in range(5)]
    gate.wait_for(1)
    turn(5)
    assert not any(each.ready() for each in adding)
    gate.hold()
    gate.let_through(len(gate.held))
    gevent.joinall(adding, timeout=WAIT, raise_error=True)
    assert here.counts == {group_channel(facility): 1}
    here.members.leave(member.channel_name)
    assert here.counts == {}


def test_one_that_ends_while_it_is_added_is_in_nothing(worker, gate, facility):
    here = worker()
    member = here.consumer()
    here.broker.ready()
    gate.hold("SUBSCRIBE")
    adding = [gevent.spawn(here.layer.group_add, facility, member.channel_name) for _ in range(2)]
    gate.wait_for(1)
    here.members.leave(member.channel_name)
    gate.hold()
    gate.let_through(len(gate.held))
    gevent.joinall(adding, timeout=WAIT, raise_error=True)
    assert here.counts == {}
    assert not member.subscriptions


def test_a_discard_while_it_is_added_leaves_it_in_one_of_both_states(worker, gate, facility):
    here = worker()
    member = here.consumer()
    here.broker.ready()
    gate.hold("SUBSCRIBE")
    adding = gevent.spawn(here.layer.group_add, facility, member.channel_name)
    gate.wait_for(1)
    here.layer.group_discard(facility, member.channel_name)
    gate.hold()
    gate.let_through(len(gate.held))
    adding.get(timeout=WAIT)
    here.layer.group_discard(facility, member.channel_name)
    assert here.counts == {}


def test_without_redis_adding_is_an_error_and_leaves_nothing(worker, own_redis, facility):
    here = worker()
    member = here.consumer()
    own_redis.kill()
    for _ in range(3):
        with pytest.raises(RedisError):
            here.layer.group_add(facility, member.channel_name)
    assert here.counts == {}
    assert not member.subscriptions
    own_redis.start()
    wait_until(lambda: here.broker._connection, what="the subscription")
    here.layer.group_add(facility, member.channel_name)
    here.layer.group_send(facility, event(1))
    wait_until(lambda: member.events, what="the event")


def test_one_member_that_ends_while_an_event_is_handed_out_does_not_disturb_the_others(worker, shared_redis, facility):
    here = worker()
    one, two, three = (here.consumer(facility) for _ in range(3))

    def put(channel, payload):
        for each in (one, two):
            here.members.leave(each.channel_name)
        return True

    one.put = put
    here.layer.group_send(facility, event(1))
    wait_until(lambda: three.events, what="the event")


def test_what_is_said_on_a_channel_without_members_is_nothing(worker):
    worker().members.deliver(b"unit:wsloop:group:nobody", b"x")


def held_back(worker, facility, count=3):
    """Deliver events of a group of two, as within one turn of the loop, and return the members."""
    members = [worker.consumer(facility), worker.consumer(facility)]
    for each in members:
        each.batches = []
        each.put_all = lambda channel, events, size, own=each.batches: own.append([decode(e.payload) for e in events])
    for number in range(count):
        worker.members.deliver(group_channel(facility), encode(event(number)))
    assert [each.batches for each in members] == [[], []]
    return members


def test_consecutive_events_of_a_group_are_put_in_together_at_the_end_of_the_turn(worker, shared_redis, facility):
    members = held_back(worker(), facility)
    turn()
    assert [each.batches for each in members] == [[[event(0), event(1), event(2)]]] * 2


def test_events_of_two_groups_are_put_in_in_the_order_in_which_they_came(worker, shared_redis, facility):
    here = worker()
    member = here.consumer(facility, f"{facility}-other")
    for number, group in enumerate("aabba"):
        here.members.deliver(group_channel(facility + "-other" * (group == "b")), encode(event(number)))
    turn()
    assert member.numbers() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("what", ["send", "request", "leave", "discard", "add"])
def test_whatever_else_happens_comes_behind_them(worker, shared_redis, facility, what):
    here = worker()
    one, two = held_back(here, facility)
    if what == "send":
        here.layer.send(two.channel_name, event(3))
    elif what == "request":
        here.members.on_request(msgpack.packb(["send", two.channel_name, encode(event(3))]))
    elif what == "leave":
        here.members.leave(two.channel_name)
    elif what == "discard":
        here.layer.group_discard(facility, two.channel_name)
    else:
        newer = here.consumer(facility)
        turn()
        assert newer.events == []
    assert [each.batches for each in (one, two)] == [[[event(0), event(1), event(2)]]] * 2
    assert [decode(payload) for _, payload in two.events] == ([event(3)] if what in ("send", "request") else [])
    turn()
    assert len(one.batches) == 1


def test_members_are_told_of_a_loss_behind_the_events_before_it(worker, shared_redis, facility):
    here = worker()
    one, _ = held_back(here, facility)
    one.resumed = lambda: one.batches.append("resumed")
    here.members._resume()
    assert one.batches == [[event(0), event(1), event(2)], "resumed"]


def test_one_that_fails_to_take_events_does_not_disturb_the_others(worker, shared_redis, facility, caplog):
    here = worker()
    one, two = held_back(here, facility)

    def fail(*_):
        raise ZeroDivisionError

    one.put_all = fail
    turn()
    assert two.batches
    assert "failed: an error of the server" in caplog.text


# One consumer.


def test_an_event_for_one_consumer_comes_from_wherever_it_is_sent(worker, shell, shared_redis):
    here, there = worker(), worker()
    one, two = here.consumer(), here.consumer()
    here.broker.ready()
    here.layer.send(one.channel_name, event(1))
    assert one.numbers() == [1], "of the same worker at once"
    for number, layer in enumerate((there.layer, shell), 2):
        layer.send(one.channel_name, event(number))
    wait_until(lambda: len(one.events) == 3, what="the events")
    assert one.numbers() == [1, 2, 3]
    assert {channel for channel, _ in one.events} == {here.members.channel}
    assert two.events == []


def test_one_that_has_ended_gets_nothing_and_nobody_is_told(worker, shell, shared_redis):
    here = worker()
    one = here.consumer()
    here.broker.ready()
    here.members.leave(one.channel_name)
    for layer in (here.layer, shell):
        layer.send(one.channel_name, event(1))
    here.broker.sync()
    assert one.events == []
    assert here.members.put(one.channel_name, b"x")


def test_who_sends_to_one_without_room_is_told_in_the_same_process(worker):
    here = worker()
    full = here.consumer(room=1)
    here.layer.send(full.channel_name, event(1))
    with pytest.raises(ChannelFull):
        here.layer.send(full.channel_name, event(2))
    full.events.clear()
    here.layer.send(full.channel_name, event(3))
    assert full.numbers() == [3]


def test_and_in_another_one_from_then_on_until_there_is_room(worker, shell, shared_redis, redis_client):
    here = worker()
    full = here.consumer(room=1)
    key = full_key(full.channel_name)
    here.broker.ready()
    shell.send(full.channel_name, event(1))
    shell.send(full.channel_name, event(2))  # is dropped, and noted
    wait_until(lambda: redis_client.exists(key), what="the note")
    assert 0 < redis_client.ttl(key) <= module.FULL_TTL
    with pytest.raises(ChannelFull):
        shell.send(full.channel_name, event(3))
    full.events.clear()
    here.members.has_room(full.channel_name)
    wait_until(lambda: not redis_client.exists(key), what="the end of the note")
    shell.send(full.channel_name, event(4))
    wait_until(lambda: full.events, what="the event")
    assert full.numbers() == [4]


def test_a_note_ends_with_its_consumer(worker, shell, shared_redis, redis_client):
    here = worker()
    full = here.consumer(room=0)
    here.broker.ready()
    shell.send(full.channel_name, event(1))
    wait_until(lambda: redis_client.exists(full_key(full.channel_name)), what="the note")
    here.members.leave(full.channel_name)
    wait_until(lambda: not redis_client.exists(full_key(full.channel_name)), what="the end of the note")
    assert not here.members._full


def test_room_that_comes_at_once_leaves_no_note(worker, shared_redis, redis_client):
    here = worker()
    full = here.consumer(room=0)
    for _ in range(10):
        here.members.on_request(msgpack.packb(["send", full.channel_name, encode(event(1))]))
        here.members.has_room(full.channel_name)
    wait_until(lambda: not here.members._notes._running, what="the notes")
    assert not redis_client.exists(full_key(full.channel_name))


def test_that_there_is_room_costs_nothing_where_nobody_was_told_otherwise(worker):
    here = worker()
    one = here.consumer()
    here.members.has_room(one.channel_name)
    assert not here.members._notes._running


def test_a_note_that_redis_does_not_take_is_logged_and_no_more(worker, own_redis, caplog):
    here = worker()
    full = here.consumer(room=0)
    own_redis.kill()
    here.members.on_request(msgpack.packb(["send", full.channel_name, encode(event(1))]))
    wait_until(lambda: "Could not update consumer backpressure flags" in caplog.text, what="the log entry")


# Other processes.


def test_a_consumer_is_added_and_taken_out_from_elsewhere(worker, shell, shared_redis, facility, redis_client):
    here, there = worker(), worker()
    one = here.consumer()
    here.broker.ready()
    shell.group_add(facility, one.channel_name)
    assert subscribers(redis_client, facility) == 1, "acknowledged when it returns"
    there.layer.group_send(facility, event(1))
    wait_until(lambda: one.events, what="the event")
    there.layer.group_discard(facility, one.channel_name)
    assert here.counts == {}
    shell.group_add(facility, one.channel_name)
    here.members.leave(one.channel_name)
    shell.group_add(facility, one.channel_name)  # has ended, and is a member of nothing
    assert here.counts == {}
    assert not redis_client.keys("unit:wsloop:reply:*")


def test_a_worker_that_has_gone_need_not_answer(worker, shell, shared_redis, redis_client, facility, with_settings):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 30})
    pool.forget()
    here = worker()
    one = here.consumer()
    here.broker.ready()
    here.broker.stop()
    channel = here.members.channel
    wait_until(lambda: redis_client.pubsub_numsub(channel)[0][1] == 0, what="the end of the worker")
    shell.group_add(facility, one.channel_name)
    shell.group_discard(facility, one.channel_name)
    shell.send(one.channel_name, event(1))


def test_a_worker_that_is_slow_is_an_error_of_redis_and_leaves_nothing(worker, shell, gate, facility, with_settings):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 2})
    pool.forget()
    here = worker()
    one = here.consumer()
    here.broker.ready()
    gate.hold("SUBSCRIBE")
    with pytest.raises(RedisTimeout, match="timed out waiting for the worker"):
        shell.group_add(facility, one.channel_name)
    wait_until(lambda: not here.counts, what="the end of the attempt")
    gate.hold()
    gate.let_through(len(gate.held))
    shell.group_add(facility, one.channel_name)
    assert here.counts == {group_channel(facility): 1}


def test_two_workers_that_ask_each_other_at_once_both_get_their_answers(worker, shared_redis, facility):
    here, there = worker(), worker()
    for each in (here, there):
        each.broker.ready()
    asking = []
    for number in range(10):
        for one, other in ((here, there), (there, here)):
            consumer = other.consumer()
            asking.append(gevent.spawn(one.layer.group_add, f"{facility}-{number}", consumer.channel_name))
    gevent.joinall(asking, timeout=WAIT, raise_error=True)
    assert all(each.ready() for each in asking)
    assert len(here.counts) == len(there.counts) == 10


NAME = "specific.0123456789abcdef!89abcdef1"
GARBAGE = [
    *(b"", b"\xc1", b"hello", b"\x93", b"\xff" * 1000),
    *map(msgpack.packb, (None, 5, "send", [], {}, ["send"], ["send", NAME], ["send", NAME, b"x", 1], ["add", NAME])),
    *map(msgpack.packb, (["send", [NAME], b"x"], ["send", {}, b"x"], ["send", None, b"x"], ["send", NAME, "text"])),
    *map(
        msgpack.packb,
        (["add", [NAME], "g", "a", "r"], ["add", NAME, 5, "a", "r"], ["add", NAME, "g", "a", None], ["add", NAME, "g"]),
    ),
    *map(
        msgpack.packb,
        ([["add"], NAME, "g", "a", "r"], ["leave", NAME, "g", "a", "r"], ["__class__", NAME], {"a": 1, "b": 2}),
    ),
    b"\x91" * 5000 + b"\x90",
]


@pytest.mark.parametrize("payload", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_on_the_channel_of_a_worker_ends_nothing(worker, shared_redis, redis_client, payload, caplog):
    here = worker()
    one = here.consumer()
    here.broker.ready()
    reader = here.broker._reader
    with shared_redis.client() as client:
        client.publish(here.members.channel, payload)
        client.publish(here.members.channel, msgpack.packb(["send", one.channel_name, encode(event(1))]))
    wait_until(lambda: one.events, what="the next event")
    assert one.numbers() == [1]
    assert here.broker._reader is reader
    assert f"Discarded malformed message ({len(payload)} bytes) on the channel of this worker" in caplog.text


@pytest.mark.parametrize("group", ["", "x" * 101])
def test_a_group_that_is_none_is_logged(worker, shared_redis, group, caplog, capfd):
    here = worker()
    one = here.consumer()
    here.members.on_request(msgpack.packb(["add", one.channel_name, group, "default", "unit:wsloop:reply:x"]))
    wait_until(lambda: "Could not add a consumer to a group" in caplog.text, what="the log entry")
    assert capfd.readouterr().err == ""


# What the consumers of one worker publish.


@pytest.fixture
def line():
    return BatchingDelivery()


@pytest.fixture
def round_trips(monkeypatch):
    """The number of messages in each round trip to Redis."""
    sizes = []
    original = publishing.publish_bare
    monkeypatch.setattr(
        publishing, "publish_bare", lambda client, messages: sizes.append(len(messages)) or original(client, messages)
    )
    return sizes


def published(line, messages):
    """Publish at the same time, and return each result or exception."""
    greenlets = [gevent.spawn(line.publish, *message) for message in messages]
    gevent.joinall(greenlets, timeout=WAIT)
    assert all(each.ready() for each in greenlets)
    return [each.exception or each.value for each in greenlets]


def test_what_is_published_at_the_same_time_goes_out_together_and_in_order(
    line, worker, shared_redis, facility, round_trips
):
    here = worker()
    member = here.consumer(facility)
    messages = [(group_channel(facility), encode(event(number))) for number in range(250)]
    assert published(line, messages) == [1] * 250
    wait_until(lambda: len(member.events) == 250, what="all events")
    assert member.numbers() == list(range(250))
    assert sum(round_trips) == 250
    assert len(round_trips) <= 5


def test_large_events_do_not_go_out_all_together(line, worker, shared_redis, facility, round_trips):
    here = worker()
    member = here.consumer(facility)
    payload = encode({"type": "happened", "number": 1, "ballast": bytes(100_000)})
    assert published(line, [(group_channel(facility), payload)] * 10) == [1] * 10
    wait_until(lambda: len(member.events) == 10, what="all events")
    assert sum(round_trips) == 10
    assert max(round_trips) <= 2
    large = encode({"type": "happened", "number": 2, "ballast": bytes(1_000_000)})
    assert published(line, [(group_channel(facility), large)] * 2) == [1] * 2
    assert round_trips[-2:] == [1, 1]


def test_nobody_waits_for_the_answers_to_others_but_for_ones_own(line, shared_redis, facility):
    assert line.publish(group_channel(facility), b"x") == 0


def test_without_redis_each_gets_an_error_of_its_own_and_later_ones_go_through(line, own_redis, facility, monkeypatch):
    own_redis.kill()
    errors = published(line, [(group_channel(facility), b"x")] * 5)
    assert all(isinstance(each, RedisError) for each in errors)
    assert len(set(map(id, errors))) == 5
    own_redis.start()
    assert published(line, [(group_channel(facility), b"x")] * 5) == [0] * 5


def test_what_redis_refuses_is_an_error_for_its_publisher_only(line, own_redis):
    with own_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "resetchannels", "&unit:allowed")
    good, bad, again = published(line, [(b"unit:allowed", b"x"), (b"unit:forbidden", b"x"), (b"unit:allowed", b"x")])
    assert (good, again) == (0, 0)
    assert isinstance(bad, RedisError)


def test_one_that_is_ended_while_it_waits_does_not_disturb_the_others(line, own_redis, facility):
    own_redis.pause()
    try:
        greenlets = [gevent.spawn(line.publish, group_channel(facility), b"x") for _ in range(3)]
        turn(5)
        greenlets[1].kill()
    finally:
        own_redis.resume()
    gevent.joinall(greenlets, timeout=WAIT)
    assert [greenlets[0].value, greenlets[2].value] == [0, 0]


def test_while_redis_does_not_answer_it_is_waited_for_once(line, own_redis, facility, round_trips):
    own_redis.pause()
    try:
        errors = published(line, [(group_channel(facility), b"x")] * (2 * MAX_EVENTS + 1))
    finally:
        own_redis.resume()
    assert all(isinstance(each, RedisError) for each in errors)
    assert round_trips == [MAX_EVENTS], "the others fail with it, instead of one batch after the other"


# A broken connection to Redis.


def test_members_are_told_once_when_the_line_stands_again(worker, own_redis, facility):
    here = worker()
    here.broker.ready()
    one, two = here.consumer(facility, f"{facility}-2"), here.consumer()
    gone = here.consumer(facility)
    here.broker.sync()
    turn(10)
    assert [each.resumes for each in (one, two, gone)] == [0, 0, 0]
    here.members.leave(gone.channel_name)
    for times in (1, 2):
        own_redis.kill()
        wait_until(lambda: here.broker._down, what="the broken connection")
        own_redis.start()
        wait_until(lambda times=times: two.resumes == times, what="resumed()")
        assert one.resumes == times
    assert gone.resumes == 0
    here.layer.group_send(facility, event(1))
    wait_until(lambda: one.events, what="the event")


def test_when_they_are_told_nothing_is_missed_from_then_on(worker, own_redis, facility):
    here = worker()
    here.broker.ready()
    groups = [f"{facility}-{number}" for number in range(20)]
    one = here.consumer(*groups)
    listening = []

    def resumed():
        with own_redis.client() as client:
            listening.extend(client.pubsub_numsub(*map(group_channel, groups)))

    one.resumed = resumed
    own_redis.kill()
    wait_until(lambda: here.broker._down, what="the broken connection")
    own_redis.start()
    wait_until(lambda: listening, what="resumed()")
    assert [count for _, count in listening] == [1] * 20


def test_a_redis_cluster(worker, shell, use_redis, with_settings):
    need("redis-server")
    cluster = ClusterSetup()
    try:
        cluster.start()
        with_settings(WS4REDIS_CONNECTION=cluster.connection())
        pool.forget()
        here, there = worker(), worker()
        for each in (here, there):
            each.broker.ready()
        members = [each.consumer(*map(str, range(10))) for each in (here, there)]
        lone = there.consumer(room=1)
        for group in map(str, range(10)):
            here.layer.group_add(group, lone.channel_name)
            here.layer.group_discard(group, lone.channel_name)
            for layer in (shell, here.layer, there.layer):
                layer.group_send(group, event(int(group)))
        wait_until(lambda: all(len(each.events) == 30 for each in members), what="all events")
        assert [sorted(each.numbers()) for each in members] == [sorted([*range(10)] * 3)] * 2
        here.layer.send(lone.channel_name, event(1))
        wait_until(lambda: lone.numbers(), what="the event")
        assert lone.numbers() == [1]
        here.layer.send(lone.channel_name, event(2))  # is dropped, and noted
        wait_until(lambda: pool.client().exists(full_key(lone.channel_name)), what="the note")
        with pytest.raises(ChannelFull):
            shell.send(lone.channel_name, event(3))
        there.members.leave(lone.channel_name)
        wait_until(lambda: not pool.client().exists(full_key(lone.channel_name)), what="the end of the note")
        there.broker.stop()
        wait_until(lambda: not dict(pool.client().pubsub_numsub(there.members.channel))[there.members.channel])
        shell.group_add("1", members[1].channel_name)  # of a worker that has ended
        here.broker.stop()  # before the nodes end, or it would be in the middle of connecting to them
    finally:
        cluster.close()


# Memory.


def test_nothing_is_kept_of_who_has_left(worker, shell, shared_redis, facility):
    here = worker()
    member = here.consumer(facility, room=1)
    name = member.channel_name
    for number in range(3):
        shell.send(name, event(number))
    wait_until(lambda: name in here.members._full, what="the note")
    here.members.leave(name)
    reference = weakref.ref(member)
    del member
    wait_until(lambda: not here.members._notes._running, what="the notes")
    gc.collect()
    assert reference() is None
    assert not here.members._consumers
    assert not here.members._subscribed
