"""Redis for the whole process, on a real Redis that is killed, stopped and started again."""

import gc
import itertools
import os
import types
import weakref

import gevent
import hiredis
import pytest
from gevent.event import Event
from gevent.queue import Queue
from redis import connection as redis_connection
from redis.exceptions import ResponseError

from testbed.processes import wait_until
from tests.unit.peer import WAIT, events, turn
from wsloop import conf, greenlets
from wsloop.backend import history, pool, publishing
from wsloop.batch_queue import batches
from wsloop.delivery import broker as module
from wsloop.delivery import own_channel, subscription_connection
from wsloop.delivery.broker import Broker, Unavailable
from wsloop.delivery.channel_table import ChannelTable
from wsloop.delivery.publish_queue import BATCH, BATCH_BYTES, PublishRequest, _size
from wsloop.delivery.subscription_connection import SubscriptionConnection
from wsloop.protocol.messages import Position

A, B, C = b"unit:broadcast:a", b"unit:broadcast:b", b"unit:broadcast:c"


class Deliveries:
    """What a broker delivers."""

    def __init__(self):
        self.queue = Queue()

    def __call__(self, channel, message, origin):
        self.queue.put((channel, message.payload, origin))

    def next(self):
        return self.queue.get(timeout=WAIT)

    def take(self, count):
        return [self.next() for _ in range(count)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Short pauses; the probe only where a test asks for it."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.05)


@pytest.fixture
def patient(with_settings):
    """No answer within this is no answer: what is noticed earlier was noticed by other means."""
    with_settings(WSLOOP={"REDIS_TIMEOUT": 40})


@pytest.fixture
def make_broker():
    """Make a broker, with ``delivered`` and ``failures`` on it."""
    brokers = []

    def make(deliver=None):
        delivered, failures = Deliveries(), Queue()
        broker = Broker(events(message=deliver or delivered, failed=lambda: failures.put("failed")))
        broker.delivered, broker.failures = delivered, failures
        brokers.append(broker)
        return broker

    yield make
    for broker in brokers:
        broker.stop()


@pytest.fixture
def broker(own_redis, make_broker):
    """The broker under test, alone with its Redis."""
    return make_broker()


@pytest.fixture
def redis(own_redis):
    """A client of the test's own."""
    with own_redis.client() as client:
        yield client


def subscribers(redis, channel):
    return redis.execute_command("PUBSUB", "NUMSUB", channel)[1]


def subscription(redis):
    """What Redis knows of the process's subscription; None where there is none."""
    return next((client for client in redis.client_list(_type="pubsub") if client["name"] == "wsloop"), None)


# Retained messages, read together for all that wait.


def test_retained_messages_are_those_of_the_moment(broker, redis):
    redis.mset({A: b"first", B: b""})
    assert broker.sync([A, B, C, A]) == [b"first", b"", None, b"first"]
    redis.set(A, b"second")
    assert broker.sync([A]) == [b"second"]
    assert broker.sync() == []


def test_what_was_published_before_they_were_read_is_delivered(broker, redis):
    broker.subscribe([A])
    for number in range(50):
        redis.publish(A, b"%d" % number)
        assert broker.sync([B]) == [None]
        assert broker.delivered.queue.get_nowait()[1] == b"%d" % number


def test_those_who_wait_at_the_same_time_share_one_command(broker, redis):
    broker.sync()
    redis.config_resetstat()
    redis.mset({A: b"for all", **{f"unit:user:{number}:a": f"for {number}" for number in range(20)}})
    jobs = [gevent.spawn(broker.sync, [A, f"unit:user:{number}:a".encode()]) for number in range(20)]
    gevent.joinall(jobs, timeout=WAIT, raise_error=True)
    assert [job.value for job in jobs] == [[b"for all", b"for %d" % number] for number in range(20)]
    calls = redis.info("commandstats")
    assert calls["cmdstat_mget"]["calls"] == calls["cmdstat_publish"]["calls"] == 1


def test_an_error_of_the_server_is_told_to_all_who_wait_at_once(broker, monkeypatch, caplog, patient):
    """Also to those whom the next command would have served."""
    broker.sync()

    def broken(*_):
        raise TypeError("an error of the server")

    monkeypatch.setattr(publishing, "last_messages_and_tell_all", broken)
    jobs = [gevent.spawn(broker.sync, [A]) for _ in range(2 * own_channel.MOST + 1)]
    gevent.joinall(jobs, timeout=WAIT)
    assert {type(job.exception) for job in jobs} == {Unavailable}
    assert "OwnChannel._send_markers failed" in caplog.text


@pytest.mark.parametrize("later", ["the marker", "the retained messages"])
def test_both_are_waited_for(broker, redis, monkeypatch, later):
    """They come on two connections, in either order."""
    broker.sync()
    redis.set(A, b"retained")
    read, go_on, waits = publishing.last_messages_and_tell_all, Event(), Event()

    def held(client, channels, channel, payload):
        found = read(client, channels, channel, b"sync" if later == "the marker" else payload)
        waits.set()
        go_on.wait(WAIT)
        if later == "the marker":
            broker._own_channel.on_payload(payload)
        return found

    monkeypatch.setattr(publishing, "last_messages_and_tell_all", held)
    job = gevent.spawn(broker.sync, [A])
    assert waits.wait(WAIT)
    turn(20)
    assert not job.ready()
    go_on.set()
    assert job.get(timeout=WAIT) == [b"retained"]


# Subscribing.


def test_subscribe_returns_when_redis_has_acknowledged(broker, redis):
    broker.subscribe([A, B])
    assert subscribers(redis, A) == subscribers(redis, B) == 1
    redis.publish(A, "first")
    redis.publish(B, "second")
    assert broker.delivered.take(2) == [(A, b"first", None), (B, b"second", None)]


def test_a_later_subscriber_waits_for_the_acknowledgement_too(gate, make_broker):
    broker = make_broker()
    broker.sync()
    gate.hold("SUBSCRIBE")
    first, second = gevent.spawn(broker.subscribe, [A]), gevent.spawn(broker.subscribe, [A, B])
    gate.wait_for(1)
    broker.sync()
    assert not first.ready()
    assert not second.ready()
    gate.hold()
    gate.let_through()
    first.get(timeout=WAIT)
    second.get(timeout=WAIT)


def test_channels_subscribed_already_cost_no_command(broker, redis):
    broker.subscribe([A])
    commands = redis.info("commandstats")["cmdstat_subscribe"]["calls"]
    for _ in range(100):
        broker.subscribe([A])
    broker.sync()
    assert redis.info("commandstats")["cmdstat_subscribe"]["calls"] == commands


def test_a_channel_is_left_when_its_last_subscriber_leaves(broker, redis):
    broker.subscribe([A])
    broker.subscribe([A, B])
    broker.unsubscribe([A])
    broker.sync()
    assert subscribers(redis, A) == 1
    broker.unsubscribe([A, B])
    wait_until(lambda: subscribers(redis, A) == subscribers(redis, B) == 0, what="UNSUBSCRIBE")
    broker.subscribe([A])
    redis.publish(A, "again")
    assert broker.delivered.next() == (A, b"again", None)


def test_a_channel_named_twice_is_counted_twice(broker, redis):
    broker.subscribe([A, A])
    broker.unsubscribe([A])
    broker.sync()
    assert subscribers(redis, A) == 1
    broker.unsubscribe([A])
    wait_until(lambda: subscribers(redis, A) == 0, what="UNSUBSCRIBE")


def test_one_connection_however_many_channels_and_subscribers(broker, redis):
    greenlets = [gevent.spawn(broker.subscribe, [b"unit:%d" % (number % 50)]) for number in range(500)]
    gevent.joinall(greenlets, timeout=WAIT, raise_error=True)
    assert all(greenlet.ready() for greenlet in greenlets)
    assert len([client for client in redis.client_list() if client["name"] == "wsloop"]) == 1
    assert all(subscribers(redis, b"unit:%d" % number) == 1 for number in range(50))


def test_commands_of_one_turn_leave_together(broker, redis):
    broker.sync()
    before = redis.info("commandstats")["cmdstat_subscribe"]["calls"]
    gevent.joinall([gevent.spawn(broker.subscribe, [b"unit:%d" % number]) for number in range(100)], timeout=WAIT)
    assert redis.info("commandstats")["cmdstat_subscribe"]["calls"] - before <= 2


def test_subscribe_waits_for_the_answer_to_its_own_command_not_to_an_earlier_one(gate, make_broker):
    broker = make_broker()
    broker.sync()
    gate.hold("SUBSCRIBE", "UNSUBSCRIBE")
    impatient = gevent.spawn(broker.subscribe, [A])
    gate.wait_for(1)
    impatient.kill()  # its client has hung up
    gate.wait_for(2)
    last = gevent.spawn(broker.subscribe, [A])
    gate.wait_for(3)
    assert gate.commands() == [[b"SUBSCRIBE", A], [b"UNSUBSCRIBE", A], [b"SUBSCRIBE", A]]
    for _ in range(2):
        gate.let_through()
        broker.sync()  # comes back behind the answer to what was let through
        assert not last.ready(), "Redis has not yet subscribed, or has left again"
    gate.let_through()
    last.get(timeout=WAIT)


def test_after_any_churn_whoever_is_subscribed_receives(broker, redis):
    def churn(seed):
        for number in range(40):
            channel = (A, B)[(seed + number) % 2]
            broker.subscribe([channel])
            assert redis.publish(channel, "x") == 1, "subscribe returned, and Redis knows of no subscriber"
            broker.unsubscribe([channel])

    greenlets = [gevent.spawn(churn, seed) for seed in range(6)]
    gevent.joinall(greenlets, raise_error=True)
    wait_until(lambda: subscribers(redis, A) == subscribers(redis, B) == 0, what="UNSUBSCRIBE")
    assert not broker._table._waiting
    assert not broker._table._unanswered
    assert not broker._table.pending
    assert set(broker._table.counts) == {broker._own_channel.name, broker._control_channel}


def test_a_subscriber_that_gives_up_leaves_no_trace(gate, make_broker, with_settings):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 0.2})
    broker = make_broker()
    broker.sync()
    gate.hold("SUBSCRIBE")
    with pytest.raises(Unavailable, match="did not answer in time"):
        broker.subscribe([A, B])
    gate.hold()
    gate.let_through(len(gate.held))
    broker.sync()
    assert set(broker._table.counts) == {broker._own_channel.name, broker._control_channel}
    assert not broker._table._waiting


# Synchronizing.


def test_sync_returns_when_all_that_was_published_before_is_delivered(broker, redis):
    broker.subscribe([A])
    for count in (1, 500, 3000):
        redis.eval("for i = 1, ARGV[1] do redis.call('PUBLISH', KEYS[1], i) end", 1, A, count)
        broker.sync()
        assert broker.delivered.queue.qsize() == count
        broker.delivered.take(count)


def test_many_may_synchronize_at_the_same_time(broker):
    greenlets = [gevent.spawn(broker.sync) for _ in range(100)]
    gevent.joinall(greenlets, timeout=WAIT, raise_error=True)
    assert all(greenlet.successful() for greenlet in greenlets)
    assert not broker._own_channel._syncs


def test_sync_waits_for_the_subscription_that_it_needs(gate, make_broker):
    """The first socket of a worker may listen to no channel: then nobody has waited for the subscription before."""
    gate.hold("SUBSCRIBE")
    broker = make_broker()
    broker.subscribe([])
    waiting = gevent.spawn(broker.sync)
    gate.wait_for(1)
    pool.client().ping()  # by now a message to oneself would have been published, and lost
    turn()
    gate.let_through()
    waiting.get(timeout=2)


def test_sync_gives_up_in_time(gate, make_broker, with_settings):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 0.2})
    broker = make_broker()
    broker.sync()
    gate.hold("MULTI", "PUBLISH", "EXEC")
    with pytest.raises(Unavailable, match="did not answer in time"):
        broker.sync()
    assert not broker._own_channel._syncs


# Publishing, and whose message it was.


def test_messages_arrive_complete_and_in_the_order_of_publishing(broker, redis, lost):
    broker.subscribe([A, B, C])
    for number in range(5000):
        broker.publish([(A, B, C)[number % 3]], b"%d" % number, 0, origin="me" if number % 5 else None)
    delivered = broker.delivered.take(5000)
    assert [payload for _, payload, _ in delivered] == [b"%d" % number for number in range(5000)]
    assert [channel for channel, _, _ in delivered] == [(A, B, C)[number % 3] for number in range(5000)]
    assert [origin for _, _, origin in delivered] == ["me" if number % 5 else None for number in range(5000)]
    assert lost("publication") == 0
    assert not broker._own_channel._origins


def test_what_is_published_together_travels_in_few_transactions(broker, redis):
    broker.subscribe([A])
    broker.publish([A], b"teaches Redis the script", 0)
    broker.delivered.next()
    before = redis.info("commandstats").get("cmdstat_exec", {"calls": 0})["calls"]
    for _ in range(BATCH * 3):
        broker.publish([A], b"x", 0)
    broker.delivered.take(BATCH * 3)
    assert redis.info("commandstats")["cmdstat_exec"]["calls"] - before == 3


def test_sync_does_not_wait_for_what_sockets_publish(broker, monkeypatch):
    """A socket that opens must not queue behind others that flood."""
    broker.subscribe([A])
    gate = Event()
    monkeypatch.setattr(publishing, "publish", lambda client, messages: gate.wait(WAIT))
    done = Event()
    broker.publish([A], b"stuck", 0, done=lambda taken: done.set())
    broker.sync()
    assert not done.is_set()
    gate.set()
    assert done.wait(WAIT)


@pytest.mark.parametrize("limit", [1024 * 1024, 128 * 1024])
def test_sockets_get_their_turn_before_too_much_has_gathered(make_broker, monkeypatch, with_settings, limit):
    """What one read of the line brings must not exceed what may wait for one socket: healthy ones would be closed."""
    with_settings(WSLOOP={"MAX_QUEUED_BYTES": limit, "MAX_MESSAGE_SIZE": 10_000})
    turns, sizes = [], []
    monkeypatch.setattr(gevent, "sleep", lambda seconds: (turns.append(sum(sizes)), sizes.clear()))
    broker = make_broker(lambda channel, message, origin: sizes.append(len(message.payload)))
    message = [b"message", A, b"x" * 10_000]
    line = iter([message] * 1000)

    class Line:
        def read_response(self, disable_decoding):
            try:
                return next(line)
            except StopIteration:
                raise ConnectionError from None

    with pytest.raises(ConnectionError):
        SubscriptionConnection(Line(), ChannelTable()).read(broker._handle)
    assert len(turns) > 30
    assert max(turns) < limit // 4 + 10_000


def test_responses_that_come_together_are_taken_from_hiredis_itself(broker, redis, monkeypatch):
    asked = []
    read = redis_connection.AbstractConnection.read_response
    monkeypatch.setattr(
        redis_connection.AbstractConnection,
        "read_response",
        lambda connection, *args, **options: asked.append(connection) or read(connection, *args, **options),
    )
    broker.subscribe([A])
    with redis.pipeline(transaction=False) as pipeline:
        for number in range(200):
            pipeline.publish(A, b"%d" % number)
        pipeline.execute()
    assert broker.delivered.take(200) == [(A, b"%d" % number, None) for number in range(200)]
    subscription = broker._connection._connection
    assert asked.count(subscription) < 100, "redis-py has its reader elsewhere by now"


def test_an_error_that_comes_behind_a_message_ends_the_connection():
    class Line:
        read_response = None
        _parser = types.SimpleNamespace(_reader=hiredis.Reader(replyError=ResponseError, notEnoughData=object()))

    Line._parser._reader.feed(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n-NOPERM no\r\n")
    handled = []
    with pytest.raises(ResponseError, match="NOPERM no"):
        SubscriptionConnection(Line(), ChannelTable()).read(lambda response: handled.append(response) or 1)
    assert handled == [[b"message", b"a", b"x"]]


def test_the_message_is_kept_as_the_last_one_of_its_channels(broker, redis):
    done = Queue()
    broker.publish([A, B], b"kept", 60, done=done.put)
    assert done.get(timeout=WAIT) is True
    assert redis.get(A) == redis.get(B) == "kept"
    assert 0 < redis.ttl(A) <= 60
    broker.publish([A], b"not kept", 0, done=done.put)
    assert done.get(timeout=WAIT) is True
    assert redis.get(A) == "kept"


def test_done_is_called_when_redis_has_the_message(broker, redis):
    with redis.pubsub() as listener:
        listener.subscribe(A)
        listener.get_message(timeout=WAIT)
        seen = []
        finished = Event()

        def done(taken):
            seen.append(taken)
            finished.set()

        broker.publish([A], b"hello", 0, done=done)
        assert not seen
        assert finished.wait(WAIT)
        assert listener.get_message(timeout=WAIT)["data"] == "hello"
    assert seen == [True]


def test_an_origin_belongs_to_its_own_message_and_to_no_equal_one(broker, own_redis, make_broker):
    """Equal messages of five kinds at the same time, each counted by whose it is."""
    broker.subscribe([A])
    other = make_broker()
    other.subscribe([A])
    rounds = 200

    def outside():
        with own_redis.client() as client:
            for _ in range(rounds):
                client.publish(A, "same")

    def ours(origin):
        for _ in range(rounds):
            broker.publish([A], b"same", 0, origin=origin)
            gevent.sleep(0)

    def theirs():
        for _ in range(rounds):
            other.publish([A], b"same", 0, origin="theirs")
            gevent.sleep(0)

    jobs = [gevent.spawn(outside), gevent.spawn(theirs), *(gevent.spawn(ours, each) for each in ("one", "two", None))]
    gevent.joinall(jobs, raise_error=True)
    for instance, expected in (
        (broker, {"one": rounds, "two": rounds, None: 3 * rounds}),
        (other, {"theirs": rounds, None: 4 * rounds}),
    ):
        origins = [origin for _, _, origin in instance.delivered.take(5 * rounds)]
        assert {origin: origins.count(origin) for origin in set(origins)} == expected
        instance.sync()
        assert instance.delivered.queue.empty()
        assert not instance._own_channel._origins


@pytest.mark.parametrize(
    "origins",
    [["one"], ["one", None], [None, "one"], ["one", None, "two", "two", None, None, "one"], ["one", "two"]],
)
def test_origins_in_one_transaction(broker, redis, origins):
    broker.subscribe([A, B])
    for number, origin in enumerate(origins):
        broker.publish([A, B], b"%d" % number, 0, origin=origin)
    delivered = broker.delivered.take(2 * len(origins))
    assert [origin for _, _, origin in delivered] == [origin for origin in origins for _ in range(2)]
    redis.publish(A, "afterwards")
    assert broker.delivered.next() == (A, b"afterwards", None)


def test_the_payload_is_bare_for_every_other_reader(broker, redis):
    with redis.pubsub() as listener:
        listener.psubscribe("unit:broadcast:*")
        listener.get_message(timeout=WAIT)
        broker.publish([A], b"bare", 0, origin="me")
        broker.publish([B], b"end", 0)
        assert [listener.get_message(timeout=WAIT)["data"] for _ in range(2)] == ["bare", "end"]


# Redis goes away and comes back.


def test_without_redis_from_the_start_subscribe_says_so_soon(own_redis, make_broker, patient):
    own_redis.kill()
    broker = make_broker()
    with pytest.raises(Unavailable, match="cannot be reached"), gevent.Timeout(WAIT):
        broker.subscribe([A])
    assert set(broker._table.counts) == {broker._own_channel.name, broker._control_channel}
    own_redis.start()
    with own_redis.client() as redis:
        wait_until(lambda: subscription(redis), what="the broker connecting")
    broker.subscribe([A])


def test_when_redis_dies_those_who_wait_are_told(own_redis, broker, patient):
    broker.sync()
    own_redis.pause()
    waiting = [gevent.spawn(broker.subscribe, [A]), gevent.spawn(broker.subscribe, [A, B]), gevent.spawn(broker.sync)]
    turn()
    assert not any(greenlet.ready() for greenlet in waiting)
    own_redis.kill()
    for greenlet in waiting:
        with pytest.raises(Unavailable, match="cannot be reached"):
            greenlet.get(timeout=WAIT)
    assert set(broker._table.counts) == {broker._own_channel.name, broker._control_channel}
    assert not broker._table._waiting
    assert not broker._own_channel._syncs


def test_while_redis_is_down_everybody_is_told_at_once(own_redis, broker, patient):
    broker.sync()
    own_redis.kill()
    wait_until(lambda: broker._down, what="the broker noticing")
    others = []
    gevent.spawn(others.append, "had their turn")
    with pytest.raises(Unavailable):
        broker.subscribe([A])
    with pytest.raises(Unavailable):
        broker.sync()
    assert not others, "nobody waits for a Redis that is known to be down"


def test_being_told_while_redis_is_down_keeps_nothing_alive(own_redis, broker, patient):
    """One exception, raised again and again, would gather the frames of all who were told, and their requests."""

    class Request:
        pass

    broker.sync()
    own_redis.pause()
    references = []

    def handshake():
        request = Request()
        references.append(weakref.ref(request))
        with pytest.raises(Unavailable):
            broker.subscribe([A])
        return request and None

    waiting = [gevent.spawn(handshake) for _ in range(3)]
    turn()
    own_redis.kill()
    gevent.joinall(waiting, timeout=WAIT, raise_error=True)
    del waiting
    wait_until(lambda: broker._down, what="the broker noticing")
    for _ in range(3):
        handshake()
    gc.collect()
    assert len(references) == 6
    assert [reference() for reference in references] == [None] * 6


def test_when_redis_is_back_everything_is_subscribed_again(own_redis, broker, caplog):
    channels = [b"unit:many:%d" % number for number in range(2 * subscription_connection.BATCH + 1)]
    broker.subscribe([A, B])
    broker.subscribe(channels)
    own_redis.kill()
    wait_until(lambda: broker._down, what="the broker noticing")
    broker.unsubscribe([B])
    own_redis.start()
    with own_redis.client() as redis:
        wait_until(lambda: subscribers(redis, channels[-1]), what="subscriptions")
        broker.subscribe([C])
        broker.sync()
        assert all(subscribers(redis, channel) for channel in (A, C, *channels))
        assert subscribers(redis, B) == 0
        redis.publish(A, "again")
        assert broker.delivered.next() == (A, b"again", None)
    messages = [record.getMessage() for record in caplog.records if record.name == "wsloop.broker"]
    assert len([each for each in messages if "cannot be reached" in each]) == 1, "told once, not at every attempt"
    assert [each for each in messages if "is back" in each] == [
        f"Redis is back: subscribed to {len(channels) + 3} channels again"
    ]
    assert broker.failures.empty()


def test_origins_and_synchronizing_work_after_a_break(own_redis, broker):
    broker.subscribe([A])
    broker.publish([A], b"before", 0, origin="me")
    assert broker.delivered.next() == (A, b"before", "me")
    own_redis.kill()
    wait_until(lambda: broker._down, what="the broker noticing")
    own_redis.start()
    with own_redis.client() as redis:
        wait_until(lambda: subscribers(redis, A), what="subscriptions")
    broker.publish([A], b"after", 0, origin="me")
    assert broker.delivered.next() == (A, b"after", "me")
    broker.sync()


def test_what_is_published_without_a_subscription_leaves_no_origin_behind(own_redis, gate, make_broker):
    broker = make_broker()
    broker.subscribe([A])
    gate.hold("SUBSCRIBE")
    with own_redis.client() as redis:
        redis.client_kill_filter(_id=subscription(redis)["id"])
        gate.wait_for(1)
        done = Queue()
        broker.publish([A], b"lost to ourselves", 0, origin="me", done=done.put)
        assert done.get(timeout=WAIT) is True
        gate.let_through()
        broker.sync()
        broker.publish([A], b"next", 0, origin="me")
        assert broker.delivered.next() == (A, b"next", "me")
        broker.sync()
    assert not broker._own_channel._origins


def test_a_subscription_that_an_operator_kills_comes_back(broker, redis):
    broker.subscribe([A])
    first = subscription(redis)
    redis.client_kill_filter(_id=first["id"])
    wait_until(lambda: subscription(redis) and subscribers(redis, A), what="a new subscription")
    assert subscription(redis)["id"] != first["id"]
    redis.publish(A, "again")
    assert broker.delivered.next() == (A, b"again", None)


def test_a_redis_that_has_stopped_answering_is_noticed(own_redis, make_broker, patient, monkeypatch):
    monkeypatch.setattr(subscription_connection, "PROBE_INTERVAL", 0.1)
    broker = make_broker()
    broker.subscribe([A])
    own_redis.pause()
    try:
        with pytest.raises(Unavailable, match="cannot be reached"):
            gevent.spawn(broker.subscribe, [B]).get(timeout=WAIT)
    finally:
        own_redis.resume()
    with own_redis.client() as redis:
        wait_until(lambda: broker._down is None and subscribers(redis, A), what="the subscription")
        redis.publish(A, "again")
    assert broker.delivered.next() == (A, b"again", None)


def test_a_quiet_line_is_probed_and_kept(own_redis, make_broker, redis, monkeypatch):
    monkeypatch.setattr(subscription_connection, "PROBE_INTERVAL", 0.2)
    broker = make_broker()
    broker.subscribe([A])
    first = subscription(redis)["id"]
    # Without probes this takes three timeouts of the socket.
    wait_until(lambda: redis.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"] >= 10, what="PINGs")
    assert subscription(redis)["id"] == first


def test_messages_that_redis_does_not_take_are_counted_and_done(own_redis, broker, caplog, lost):
    broker.subscribe([A])
    own_redis.kill()
    done = Queue()
    for number in range(3):
        broker.publish([A], b"lost", 0, origin="me", done=lambda taken, number=number: done.put((number, taken)))
    assert [done.get(timeout=WAIT) for _ in range(3)] == [(0, False), (1, False), (2, False)]
    assert lost("publication") == 3
    assert not broker._own_channel._origins
    assert "Lost 3 messages of sockets" in caplog.text
    own_redis.start()
    broker.publish([A], b"taken", 0, done=done.put)
    assert done.get(timeout=WAIT) is True
    assert lost("publication") == 3


def test_messages_that_redis_refuses_leave_no_origin_behind(broker, redis, lost):
    """The subscription stands meanwhile: Redis is full."""
    broker.subscribe([A])
    done = Queue()
    redis.config_set("maxmemory", 1)
    broker.publish([A], b"refused", 60, origin="me", done=done.put)
    assert done.get(timeout=WAIT) is False
    redis.config_set("maxmemory", 0)
    assert lost("publication") == 1
    assert not broker._own_channel._origins
    broker.publish([A], b"taken", 60, origin="me")
    assert broker.delivered.next() == (A, b"taken", "me")


# Errors of our own.


def test_an_error_of_the_receiver_is_told_and_the_next_subscriber_starts_anew(own_redis, make_broker, redis):
    seen = Queue()

    def deliver(channel, message, origin):
        if message.payload == b"bad":
            raise RuntimeError("broken receiver")
        seen.put(message.payload)

    broker = make_broker(deliver)
    broker.subscribe([A])
    first = subscription(redis)["id"]
    redis.publish(A, "bad")
    assert broker.failures.get(timeout=WAIT) == "failed"
    wait_until(lambda: (subscription(redis) or {"id": None})["id"] != first, what="the end of the subscription")
    broker.subscribe([B])
    redis.publish(A, "good")
    redis.publish(B, "good too")
    assert [seen.get(timeout=WAIT) for _ in range(2)] == [b"good", b"good too"]
    assert broker.failures.empty()


@pytest.mark.parametrize("fails", ["connect", "deliver"])
def test_what_is_unforeseen_is_logged_with_its_trace_and_the_subscription_stands_again_by_itself(
    own_redis, make_broker, redis, monkeypatch, caplog, fails
):
    monkeypatch.setattr(greenlets, "_failures", {})
    delivered, failing = Queue(), [fails == "connect"]
    connect = pool.subscription_connection

    def unforeseen(**options):
        if failing[0]:
            raise TypeError("an option that nobody knows")
        return connect(**options)

    def deliver(channel, message, origin):
        if message.payload == b"bad":
            raise TypeError("a message that nobody knows")
        delivered.put(message.payload)

    monkeypatch.setattr(pool, "subscription_connection", unforeseen)
    broker = make_broker(deliver)
    if fails == "connect":
        with pytest.raises(Unavailable):
            broker.subscribe([A])
    broker_subscribes = gevent.spawn(broker.subscribe, [A])
    failing[0] = False
    broker_subscribes.get(timeout=WAIT)
    if fails == "deliver":
        redis.publish(A, "bad")
    assert broker.failures.get(timeout=WAIT) == "failed", "those who listen are told"
    wait_until(lambda: subscribers(redis, A) == 1, what="the subscription standing again")
    wait_until(lambda: redis.publish(A, "good") and not delivered.empty(), what="a message")
    assert delivered.get(timeout=WAIT) == b"good"
    assert "wsloop.delivery.broker.Broker._run failed" in caplog.text
    assert "that nobody knows" in caplog.text


def test_a_message_that_fails_in_an_unforeseen_way_is_answered(
    own_redis, make_broker, redis, monkeypatch, caplog, lost
):
    broker = make_broker()
    broker.subscribe([A])
    answers = Queue()
    publish = publishing.publish
    monkeypatch.setattr(publishing, "publish", lambda *arguments: 1 / 0)
    broker.publish([A], b"lost", 10, done=answers.put)
    assert answers.get(timeout=WAIT) is False
    assert lost("publication") == 1
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.setattr(publishing, "publish", publish)
    broker.publish([A], b"taken", 10, done=answers.put)
    assert answers.get(timeout=WAIT) is True


def test_a_marker_that_fails_in_an_unforeseen_way_is_answered(own_redis, make_broker, monkeypatch, caplog):
    broker = make_broker()
    broker.subscribe([A])
    monkeypatch.setattr(publishing, "tell_all", lambda *arguments: 1 / 0)
    with gevent.Timeout(WAIT), pytest.raises(Unavailable):
        broker.sync()
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("payload", [b"", b" ", b"sync", b"sync x", b"origin", b"origin 7", b"\xff\x00", b"else"])
def test_what_somebody_else_publishes_on_the_own_channel_breaks_nothing(own_redis, make_broker, redis, payload):
    broker = make_broker()
    broker.subscribe([A])
    redis.publish(broker._own_channel.name, payload)
    redis.publish(A, "hello")
    assert broker.delivered.next()[1] == b"hello"
    assert broker.failures.empty()


def test_a_burst_does_not_starve_others(own_redis, make_broker, redis):
    seen, turns = [], []
    broker = make_broker(lambda channel, message, origin: seen.append(message.payload))

    def others():
        while len(seen) < 20_000:
            turns.append(len(seen))
            gevent.sleep(0)

    broker.subscribe([A])
    greenlet = gevent.spawn(others)
    # All of it is on the line before the first message is read.
    redis.eval("for i = 1, 20000 do redis.call('PUBLISH', KEYS[1], i) end", 1, A)
    greenlet.get(timeout=WAIT)
    assert seen == [b"%d" % number for number in range(1, 20_001)]
    most = max(later - earlier for earlier, later in itertools.pairwise([*turns, 20_000]))
    assert most <= subscription_connection.BATCH


def test_stop_leaves_no_connection_and_another_start_is_possible(broker, redis):
    before = len(redis.client_list())
    broker.subscribe([A])
    assert subscription(redis)
    broker.stop()
    broker.stop()
    pool.client().connection_pool.disconnect()
    wait_until(lambda: len(redis.client_list()) == before, what="the end of the connections")
    assert not subscription(redis)
    broker.subscribe([B])
    redis.publish(A, "still counted")
    assert broker.delivered.next() == (A, b"still counted", None)


def test_stop_ends_the_looking_at_channels_with_a_history(broker, redis):
    broker.subscribe([A], [A])
    looking = broker._gapless._checking
    assert not looking.dead
    broker.stop()
    assert looking.dead
    broker.subscribe([B], [B])
    assert not broker._gapless._checking.dead


def test_stop_while_redis_is_away(own_redis, broker):
    broker.subscribe([A])
    own_redis.kill()
    wait_until(lambda: broker._down, what="the broker noticing")
    reader = broker._reader
    broker.stop()
    assert reader.dead


def test_those_who_wait_are_told_of_a_stop(own_redis, broker, patient):
    broker.sync()
    own_redis.pause()
    try:
        waiting = gevent.spawn(broker.subscribe, [A])
        turn()
        broker.stop()
        with pytest.raises(Unavailable):
            waiting.get(timeout=WAIT)
    finally:
        own_redis.resume()


def test_no_descriptor_is_left(own_redis, make_broker):
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        broker = make_broker()
        broker.subscribe([A])
        broker.stop()
    assert len(os.listdir("/proc/self/fd")) <= before  # fewer, where another test's are closed only now


def test_messages_go_to_redis_in_batches_bounded_by_number_and_bytes_over_all_channels():
    def message(size, channels=1):
        return PublishRequest([b"c"] * channels, b"x" * size, 0, conf.PLAIN, None, lambda taken: None)

    def sizes(*messages):
        return [len(batch) for batch in batches(messages, BATCH, BATCH_BYTES, _size)]

    assert sizes() == []
    assert sizes(*[message(1)] * (BATCH + 1)) == [BATCH, 1]
    quarter = BATCH_BYTES // 4
    assert sizes(*[message(quarter)] * 9) == [4, 4, 1]
    assert sizes(*[message(quarter, channels=2)] * 5) == [2, 2, 1]
    assert sizes(message(1), message(10 * BATCH_BYTES), message(1)) == [1, 1, 1], "however large it is alone"
    many = [message(number % 1000) for number in range(2000)]
    assert [each for batch in batches(many, 500, 10**6, _size) for each in batch] == many


# Channels with a history.

KEPT = conf.Facility(size=1000, ttl=60)


def keep(channels, *texts):
    """Publish to facilities with a history, as views do."""
    publishing.publish(pool.client(), [publishing.OutgoingMessage(channels, text.encode(), 0, KEPT) for text in texts])


def top(channel):
    (top,) = history.tops(pool.client(), [channel])
    return top


def test_a_position_is_known_when_subscribe_returns(broker):
    keep([A], "old")
    broker.subscribe([A, B], [A, B])
    assert broker.position(A) == top(A)
    assert broker.position(B) == top(B)
    assert broker.position(C) is None
    keep([A], "new")
    assert broker.delivered.next() == (A, b"new", None)
    assert broker.position(A) == top(A)
    broker.unsubscribe([A, B])
    assert broker.position(A) is None


def test_a_channel_that_is_subscribed_to_already_has_a_position_from_then_on(broker):
    broker.subscribe([A])
    assert broker.position(A) is None
    broker.subscribe([A], [A])
    assert broker.position(A) == top(A)
    keep([A], "new")
    assert broker.delivered.next() == (A, b"new", None)


def test_what_was_published_while_the_line_was_broken_comes_afterwards_and_once(own_redis, broker, redis):
    broker.subscribe([A, B], [A, B])
    broker.subscribe([C])
    keep([A], "1")
    assert broker.delivered.next() == (A, b"1", None)
    for round_ in range(3):
        redis.client_kill_filter(_id=subscription(redis)["id"])
        keep([A], f"missed {round_}")
        keep([B, A], f"both {round_}")
        wait_until(lambda: subscription(redis) and subscribers(redis, A), what="a new subscription")
        keep([A], f"after {round_}")
        found = broker.delivered.take(4)
        assert [payload for channel, payload, _ in found if channel == A] == [
            f"{word} {round_}".encode() for word in ("missed", "both", "after")
        ]
        assert [payload for channel, payload, _ in found if channel == B] == [f"both {round_}".encode()]
        broker.sync()
        assert broker.delivered.queue.empty()


def test_a_redis_that_comes_back_empty_is_a_loss_for_channels_with_a_history(own_redis, lost):
    forgotten = Queue()
    delivered = Deliveries()
    broker = Broker(events(message=delivered, lost=lambda *told: forgotten.put(told)))
    try:
        broker.subscribe([A], [A])
        broker.subscribe([C])
        keep([A], "1")
        delivered.next()
        own_redis.kill()
        wait_until(lambda: broker._down, what="the broker noticing")
        own_redis.start()
        channel, position = forgotten.get(timeout=WAIT)
        assert (channel, position) == (A, top(A))
        keep([A], "again")
        assert delivered.next() == (A, b"again", None)
        assert forgotten.empty()
        assert lost("history") == lost("interruption") == 1
    finally:
        broker.stop()


def test_an_error_of_the_receiver_while_it_catches_up_is_told(own_redis, make_broker, redis):
    def deliver(channel, message, origin):
        raise RuntimeError("broken receiver")

    broker = make_broker(deliver)
    broker.subscribe([A], [A])
    redis.client_kill_filter(_id=subscription(redis)["id"])
    keep([A], "missed")
    assert broker.failures.get(timeout=WAIT) == "failed"


def test_origins_in_channels_with_a_history(broker):
    broker.subscribe([A, B], [A, B])
    broker.publish([A, B], b"mine", 0, origin="me", options=KEPT)
    broker.publish([A], b"nobody's", 0, options=KEPT)
    assert broker.delivered.take(3) == [(A, b"mine", "me"), (B, b"mine", "me"), (A, b"nobody's", None)]
    assert top(A).offset == 2


def test_an_unknown_position_is_unavailable_in_time(own_redis, make_broker, with_settings, monkeypatch):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 1})
    go_on = Event()

    def tops(*arguments):
        go_on.wait(WAIT)
        raise OSError("too late")

    monkeypatch.setattr(history, "tops", tops)
    broker = make_broker()
    with pytest.raises(Unavailable, match="Timed out reading the history position"):
        broker.subscribe([A], [A])
    assert set(broker._table.counts) == {broker._own_channel.name, broker._control_channel}
    assert not broker._gapless._channels
    go_on.set()
    turn()


def test_waiting_for_what_another_process_has_delivered(own_redis, gate, make_broker):
    """The subscription lags: its messages are held up, and the position is known from elsewhere."""
    broker = make_broker()
    broker.subscribe([A], [A])
    keep([A], "1")
    assert broker.delivered.next() == (A, b"1", None)
    broker.wait_for({A: top(A), B: Position(7, "no line here")})
    with own_redis.client() as redis:
        gate.hold("SUBSCRIBE")
        redis.client_kill_filter(_id=subscription(redis)["id"])
        gate.wait_for(1)
    keep([A], "2")
    waiting = gevent.spawn(broker.wait_for, {A: top(A)})
    turn()
    assert not waiting.ready()
    gate.hold()
    gate.let_through(len(gate.held))
    waiting.get(timeout=WAIT)
    assert broker.delivered.next() == (A, b"2", None)


def test_waiting_for_what_never_comes_ends_in_time(broker, with_settings):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 0.3})
    broker.subscribe([A], [A])
    with pytest.raises(Unavailable, match="this worker is behind"):
        broker.wait_for({A: Position(7, "of another line")})


# Channels of the process itself.

OWN = b"unit:worker:1"


def test_an_attached_channel_is_listened_to_from_the_start_and_its_payloads_go_to_nobody_else(broker, redis):
    heard = Queue()
    broker.attach(OWN, heard.put)
    broker.ready()
    assert subscribers(redis, OWN) == 1
    broker.subscribe([A])
    for payload in (b"one", b"", b"\xff" * 1000):
        redis.publish(OWN, payload)
        redis.publish(A, b"between")
    assert [heard.get(timeout=WAIT) for _ in range(3)] == [b"one", b"", b"\xff" * 1000]
    assert broker.delivered.take(3) == [(A, b"between", None)] * 3
    assert broker.delivered.queue.empty()


def test_several_may_be_attached(broker, redis):
    heard = {channel: Queue() for channel in (OWN, C)}
    for channel, queue in heard.items():
        broker.attach(channel, queue.put)
    broker.ready()
    for channel, queue in heard.items():
        redis.publish(channel, channel)
        assert queue.get(timeout=WAIT) == channel


def test_ready_returns_when_redis_has_acknowledged_all_of_them(gate, make_broker):
    broker = make_broker()
    broker.attach(OWN, lambda payload: None)
    gate.hold("SUBSCRIBE")
    waiting = gevent.spawn(broker.ready)
    gate.wait_for(1)
    assert not waiting.ready()
    assert {*gate.commands()[0]} >= {b"SUBSCRIBE", OWN, broker._own_channel.name, broker._control_channel}
    gate.hold()
    gate.let_through()
    waiting.get(timeout=WAIT)
    broker.ready()  # costs nothing any more
    assert not gate.held


def test_ready_says_so_soon_where_there_is_no_redis(own_redis, make_broker, patient):
    own_redis.kill()
    broker = make_broker()
    broker.attach(OWN, lambda payload: None)
    for _ in range(2):
        with pytest.raises(Unavailable):
            broker.ready()
    assert broker._table.counts[OWN] == 1
    assert not broker._table._waiting


def test_ready_gives_up_in_time(gate, make_broker, with_settings):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 1})
    broker = make_broker()
    broker.attach(OWN, lambda payload: None)
    gate.hold("SUBSCRIBE")
    with pytest.raises(Unavailable, match="did not answer in time"):
        broker.ready()


def test_an_attached_channel_is_subscribed_again_after_a_break(own_redis, broker):
    heard = Queue()
    broker.attach(OWN, heard.put)
    broker.ready()
    own_redis.kill()
    wait_until(lambda: broker._down, what="the broken line")
    own_redis.start()
    wait_until(lambda: OWN not in broker._table.pending, what="the subscription")
    with own_redis.client() as redis:
        redis.publish(OWN, b"again")
    assert heard.get(timeout=WAIT) == b"again"


def test_an_error_of_who_listens_to_an_attached_channel_is_told(broker, redis):
    broker.attach(OWN, lambda payload: 1 / 0)
    broker.ready()
    redis.publish(OWN, b"bad")
    assert broker.failures.get(timeout=WAIT) == "failed"
