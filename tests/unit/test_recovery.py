"""The way of one socket to the present: a real history, hub and sockets; the subscription is moved along by hand."""

import collections
import json
import types

import gevent
import pytest
from gevent.event import Event
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeout
from websockets.frames import Close

from testbed.processes import wait_until
from tests.unit.peer import WAIT, close_frame, turn
from wsloop import conf
from wsloop.backend import history, keys, pool, publishing
from wsloop.backend.publishing import OutgoingMessage
from wsloop.delivery.broker import Unavailable
from wsloop.facilities import setup
from wsloop.facilities.inbound import ReadOnlyHandler
from wsloop.facilities.recovery import Part, Recovery
from wsloop.facilities.shared_reading import MOST, SharedReading
from wsloop.protocol import dialects, resume_tokens
from wsloop.protocol.dialects import BARE, V1_DIALECT
from wsloop.protocol.messages import Message, Position
from wsloop.sockets import heartbeat
from wsloop.sockets.hub import Hub
from wsloop.sockets.limits import Bounds
from wsloop.sockets.websocket import WebSocket

A, B, OTHER = b"unit:broadcast:room", b"unit:user:john:room", b"unit:broadcast:elsewhere"
OPTIONS = conf.Facility(size=1000, ttl=60)


class Process:
    """Hub, and instead of the broker a subscription on which messages arrive when the test says so."""

    def __init__(self):
        self.hub = Hub(lambda connection: self.unsubscribe(connection.channels))
        self.counts = collections.Counter()
        self.positions = {}
        self.under_way = []

    # What Recovery needs of the broker.

    def position(self, channel):
        return self.positions.get(channel)

    def unsubscribe(self, channels):
        self.counts.subtract(channels)
        self.counts += collections.Counter()

    def wait_for(self, positions):
        """What is under way arrives while it waits."""
        while any(self.positions[channel].offset < position.offset for channel, position in positions.items()):
            if not self.under_way:
                raise Unavailable("this process is behind")
            self.arrive(1)

    # What tests need.

    def watch(self, *channels):
        for channel in channels:
            (self.positions[channel],) = history.tops(pool.client(), [channel])

    def publish(self, *texts, channels=(A,), options=OPTIONS):
        """Publish; it is :meth:`arrive` that lets the messages arrive."""
        for text in texts:
            publishing.publish(pool.client(), [OutgoingMessage(channels, text.encode(), 0, options)])
            for channel in channels:
                (entry,) = history.latest(pool.client(), channel, 1)
                self.under_way.append((channel, entry.message))

    def arrive(self, count=None):
        """Let what was published arrive, or the first ``count`` messages of it."""
        count = len(self.under_way) if count is None else count
        arriving, self.under_way = self.under_way[:count], self.under_way[count:]
        for channel, message in arriving:
            self.positions[channel] = message.position
            self.hub.deliver(channel, message)

    def send(self, *texts, **options):
        self.publish(*texts, **options)
        self.arrive()

    def token(self, *channels):
        return resume_tokens.token({channel: self.positions[channel] for channel in channels or (A,)})


class Client:
    """A client of wsloop.v1; ``frames`` are those that have come so far but for pings."""

    def __init__(self, connection, peer, recovery):
        self.connection, self.peer, self.recovery = connection, peer, recovery

    def frame(self):
        frame = json.loads(self.peer.message())
        return self.frame() if frame["type"] == "ping" else frame

    def texts(self, last):
        """The data of messages up to ``last``; of other frames their kind."""
        found = []
        while not found or found[-1] != last:
            frame = self.frame()
            kind = frame["type"]
            found.append(frame["data"] if kind == "message" else frame["code"] if kind == "error" else kind)
        return found


@pytest.fixture
def process(own_redis, monkeypatch):
    monkeypatch.setattr(heartbeat, "TICK", 3600)
    process = Process()
    process.watch(A, B)
    yield process
    for connection in [*process.hub.connections, *process.hub.heartbeat._closing]:
        connection.abort()


@pytest.fixture
def come(process, pair):
    """A client comes, as the server lets it in: ``client = come(token)``."""

    def make(
        text=None, channels=(A,), options=OPTIONS, dialect=V1_DIALECT, meanwhile=lambda: None, bound=10**6, **sockets
    ):
        transport, peer = pair(**sockets)
        process.counts.update(channels)
        start = {channel: process.positions[channel] for channel in channels}
        joining = process.hub.join(channels)
        part = Part(channels, options, text)
        recovery = Recovery(process.hub, process, dialect, [part])
        recovery.start()
        recovery.kept_wanted = part.wants_retained
        meanwhile()
        connection = WebSocket(transport, ReadOnlyHandler(process.hub), Bounds(1000, bound), dialect=dialect)
        process.hub.open(connection, process.hub.admission.take())
        welcome = dialects.welcome("room", channels, part.recovered, token=part.token, ping=30)
        first = recovery.first_payloads(joining, [welcome] if dialect.has_envelopes else [])
        process.hub.enter(joining, connection, first)
        if recovery.unfinished:
            recovery.greenlet = gevent.spawn(setup._go_on, recovery, connection)
        client = Client(connection, peer, recovery)
        client.start = start
        return client

    return make


def nothing_is_left(process):
    hub = process.hub
    return (
        not process.counts
        and not hub._joining
        and not hub._draining
        and not len(hub)
        and not any(map(len, hub._subscribers.values()))
    )


# Who comes for the first time, and who cannot be helped.


def test_who_comes_for_the_first_time_gets_a_token_and_what_comes(process, come):
    process.send("before")
    client = come()
    welcome = client.frame()
    assert welcome == {
        "type": "welcome",
        "facility": "room",
        "subscribed": ["broadcast"],
        "recovered": None,
        "token": process.token(),
        "ping": conf.option("PING_INTERVAL"),
    }
    process.send("after")
    assert client.texts("after") == ["after"]


@pytest.mark.parametrize("options", [conf.PLAIN, OPTIONS._replace(recover=False)])
def test_facilities_that_offer_no_recovery_give_no_token(process, come, options):
    for text in (None, process.token()):
        client = come(text, options=options)
        welcome = client.frame()
        assert welcome["recovered"] is None
        assert "token" not in welcome
        assert client.recovery.kept_wanted is (text is None)


def test_the_bare_dialect_has_no_welcome(process, come):
    client = come(dialect=BARE)
    process.send("hello")
    assert client.peer.message() == "hello"


@pytest.mark.parametrize(
    "text", ["", "damaged", "eyJhIjoxfQ:abc", f"{resume_tokens.token({OTHER: Position(1, 'x')})}", "~~~", "\ud800"]
)
def test_who_comes_with_what_is_no_token_is_told_so_and_gets_what_comes(process, come, text):
    process.send("missed")
    client = come(text)
    welcome = client.frame()
    assert welcome["recovered"] is False
    assert welcome["token"] == process.token()
    assert not client.recovery.kept_wanted
    process.send("next")
    assert client.texts("next") == ["next"]


# Who comes back.


def test_who_comes_back_gets_what_was_missed_and_then_what_comes(process, come):
    process.send("1")
    token = process.token()
    process.send("2", "3")
    client = come(token)
    welcome = client.frame()
    assert welcome["recovered"] is True
    assert welcome["token"] == token
    process.send("4")
    frames = [client.frame() for _ in range(3)]
    assert [frame["data"] for frame in frames] == ["2", "3", "4"]
    assert frames[2]["position"] == resume_tokens.position(A, process.positions[A])


def test_nothing_was_missed(process, come):
    process.send("1")
    client = come(process.token())
    assert client.frame()["recovered"] is True
    process.send("2")
    assert client.texts("2") == ["2"]


@pytest.fixture
def asked(monkeypatch):
    """The questions about histories that Redis was asked."""
    asked, read = [], history.read
    monkeypatch.setattr(history, "read", lambda client, each: asked.append([*each]) or read(client, each))
    return asked


def test_of_a_client_that_is_as_far_as_this_process_no_history_is_read(process, come, asked):
    process.send("1", channels=(A, B))
    client = come(process.token(A, B), channels=(A, B), meanwhile=lambda: process.send("2", channels=(B,)))
    welcome = client.frame()
    assert (welcome["recovered"], welcome["token"]) == (True, resume_tokens.token(client.start))
    process.send("3")
    assert client.texts("3") == ["2", "3"]
    assert asked == []


def test_only_histories_of_which_it_has_missed_something_are_read(process, come, asked):
    process.send("1", channels=(A,))
    token, before = process.token(A, B), process.positions[B]
    process.send("2", "3", channels=(B,))
    client = come(token, channels=(A, B), meanwhile=lambda: process.send("4"))
    process.send("5", channels=(B,))
    assert client.texts("5") == ["welcome", "2", "3", "4", "5"]
    assert asked == [[(B, before)]]


def test_the_order_of_time_holds_if_another_channel_goes_on_while_a_history_is_read(process, come, monkeypatch):
    token, read = process.token(A, B), history.read
    process.send("1", channels=(B,))

    def slow(client, questions):
        monkeypatch.setattr(history, "read", read)
        process.publish("2", channels=(A,))
        process.publish("3", channels=(B,))
        return read(client, questions)

    monkeypatch.setattr(history, "read", slow)
    client = come(token, channels=(A, B))
    process.send("4")
    assert client.texts("4") == ["welcome", "1", "2", "3", "4"]


def test_positions_go_on_from_the_token(process, come):
    token = process.token()
    process.send("1", "2")
    behind = resume_tokens.position(A, process.positions[A])
    process.send("3")
    client = come(f"{token}~{behind}")
    assert client.frame()["recovered"] is True
    assert client.texts("3") == ["3"]


def test_what_is_published_while_it_comes_is_sent_once_and_in_order(process, come):
    token = process.token()
    process.send("1")
    process.publish("2", "3", "4")

    def meanwhile():
        process.arrive(1)
        process.publish("5", "6")
        process.arrive(3)

    client = come(token, meanwhile=meanwhile)
    process.arrive()
    assert client.texts("6") == ["welcome", "1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize("arrived", range(5))
def test_what_the_history_has_and_the_subscription_is_still_to_bring_comes_once(process, come, arrived):
    token = process.token()
    process.publish("1", "2", "3", "4")
    process.arrive(arrived)
    client = come(token)
    process.arrive()
    process.send("end")
    assert client.texts("end") == ["welcome", "1", "2", "3", "4", "end"]


@pytest.mark.parametrize("meanwhile", [0, 1, 2])
def test_who_is_ahead_of_this_process_gets_nothing_twice(process, come, meanwhile):
    """It comes from another worker, which was faster."""
    process.publish("1", "2")
    ahead = resume_tokens.token({A: process.under_way[-1][1].position})
    process.arrive(meanwhile)
    client = come(ahead)
    process.arrive()
    process.send("3")
    assert client.texts("3") == ["welcome", "3"]


def test_who_is_ahead_of_a_process_that_does_not_catch_up_is_refused(process, come):
    process.publish("1", "2")
    ahead = resume_tokens.token({A: process.under_way.pop()[1].position})
    with pytest.raises(Unavailable):
        come(ahead)


def test_several_channels_come_in_the_order_of_time(process, come):
    token = process.token(A, B)
    for number in range(10):
        process.send(str(number), channels=[(A, B)[number % 3 % 2]])
    client = come(token, channels=(A, B))
    assert client.texts("9") == ["welcome", *map(str, range(10))]


def test_a_message_to_several_audiences_comes_once_with_the_positions_of_all(process, come):
    token = process.token(A, B)
    process.send("1", "2", channels=(A, B))
    client = come(token, channels=(A, B))
    process.send("3", channels=(A, B))
    frames = [client.frame() for _ in range(7)]
    assert [frame["data"] for frame in frames if frame["type"] == "message"] == ["1", "2", "3"]
    positions = [frame["position"] for frame in frames if frame["type"] in ("message", "position")]
    assert positions[-2:] == [resume_tokens.position(channel, process.positions[channel]) for channel in (A, B)]
    assert len(set(positions)) == 6


def test_what_it_has_by_way_of_one_channel_it_is_not_sent_by_way_of_another(process, come):
    token = process.token(A, B)
    process.send("both", channels=(A, B))
    had = resume_tokens.position(A, process.positions[A])
    process.send("next", channels=(B,))
    client = come(f"{token}~{had}", channels=(A, B))
    assert client.texts("next") == ["welcome", "position", "next"]


def test_what_was_trimmed_is_not_recovered(process, come):
    small = OPTIONS._replace(size=3)
    process.send("0", options=small)
    token = process.token()
    process.send("1", "2", "3", "4", options=small)
    client = come(token, options=small)
    welcome = client.frame()
    assert welcome["recovered"] is False
    assert welcome["token"] == process.token()
    process.send("5", options=small)
    assert client.texts("5") == ["5"], "nothing is replayed"


def test_one_channel_that_cannot_be_recovered_is_enough(process, come):
    token = process.token(A, B)
    process.send("1", channels=(A,))
    process.send("2", channels=(B,))
    pool.client().delete(*keys.history_keys(B))
    process.watch(B)
    client = come(token, channels=(A, B))
    assert client.frame()["recovered"] is False
    process.send("3")
    assert client.texts("3") == ["3"]


# More than a page.


@pytest.fixture
def paged(process, monkeypatch):
    """Pages of ten messages, and a hundred that were missed."""
    monkeypatch.setattr(history, "PAGE", 10)
    token = process.token(A, B)
    process.send(*[str(number) for number in range(100)])
    return token


def test_pages_put_together_are_the_whole_and_then_it_is_a_member(process, come, paged):
    client = come(paged, channels=(A, B))
    assert client.recovery.unfinished
    assert client.texts("99") == ["welcome", *map(str, range(100))]
    client.recovery.greenlet.get(timeout=10)
    process.send("live")
    assert client.texts("live") == ["live"]
    assert not process.hub._joining
    client.peer.close()
    turn()
    assert nothing_is_left(process)


def test_messages_while_pages_are_sent_come_once_and_in_order(process, come, paged):
    client = come(paged, channels=(A, B), send_buffer=1)
    found = [client.frame()["type"]]
    for number in range(100, 160):
        process.publish(str(number))
        if number % 7 == 0:
            process.arrive()
        if number % 3 == 0:
            found.append(client.frame()["data"])
        gevent.sleep(0)
    process.arrive()
    found += client.texts("159")
    assert found == ["welcome", *map(str, range(160))]


def test_several_channels_come_in_the_order_of_time_over_pages_too(process, come, paged):
    process.send(*[str(number) for number in range(100, 105)], channels=(B,))
    client = come(paged, channels=(A, B))
    frames = [client.frame() for _ in range(106)]
    assert [frame["data"] for frame in frames[1:]] == [str(number) for number in range(105)]


def test_a_page_waits_until_the_client_has_taken_the_one_before(process, come, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 2)
    token = process.token()
    process.send(*[str(number) + "x" * 3000 for number in range(100)])
    client = come(token, send_buffer=1, bound=20_000)
    for _ in range(50):
        turn()
        gevent.sleep(0)
    assert client.connection._queued_bytes <= 3 * 3100, "no more than a page waits"
    assert client.connection.open
    process.send("live" + "x" * 3000)
    found = client.texts("live" + "x" * 3000)
    assert [each.rstrip("x") for each in found] == ["welcome", *map(str, range(100)), "live"]


def test_live_messages_are_not_kept_while_pages_are_sent(process, come, paged):
    come(paged, channels=(A, B), send_buffer=1)
    turn()
    process.send(*["x" * 1000] * 50)
    assert all(len(joining.messages) == 0 for joining in process.hub._joining)


def test_messages_to_several_audiences_come_once_over_pages(process, come, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 10)
    token = process.token(A, B)
    for number in range(60):
        process.send(str(number), channels=(A, B) if number % 3 else (B,))
    client = come(token, channels=(A, B))
    client.recovery.greenlet.get(timeout=10)
    process.send("end")
    found = client.texts("end")
    assert sorted(int(each) for each in found if each.isdigit()) == list(range(60))
    assert found.count("position") == 40


def test_messages_to_several_audiences_come_once_if_it_had_missed_those_of_one(process, come, paged, monkeypatch):
    client = come(paged, channels=(A, B))
    assert client.recovery.unfinished
    published, read = Event(), history.read
    monkeypatch.setattr(history, "read", lambda *arguments: published.wait(WAIT) and read(*arguments))
    process.send(*[str(number) for number in range(100, 150)], channels=(B, A))
    published.set()
    client.recovery.greenlet.get(timeout=10)
    process.send("end")
    found = client.texts("end")
    assert [each for each in found if each != "position"] == ["welcome", *map(str, range(150)), "end"]
    assert found.count("position") == 50


def test_what_is_trimmed_while_pages_are_sent_is_told(process, come, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 2)
    token = process.token()
    process.send(*[str(number) + "x" * 3000 for number in range(50)])
    client = come(token, send_buffer=1)
    for _ in range(20):
        turn()
    pool.client().xtrim(keys.history_keys(A)[1], maxlen=3, approximate=False)
    found = [each.rstrip("x") for each in client.texts("lost")]
    count = len(found) - 2
    assert found == ["welcome", *map(str, range(count)), "lost"]
    assert count < 47
    process.send("live")
    assert client.texts("live") == ["live"], "behind a loss it is complete again, and nothing is replayed"


def test_a_client_that_goes_while_pages_are_sent_leaves_nothing(process, come, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 2)
    token = process.token()
    process.send(*[str(number) + "x" * 3000 for number in range(50)])
    client = come(token, send_buffer=1)
    for _ in range(20):
        turn()
    assert client.recovery.greenlet and not client.recovery.greenlet.ready()
    client.peer.close()
    client.recovery.greenlet.get(timeout=10)
    wait_until(lambda: nothing_is_left(process), what="the end of the connection")


@pytest.mark.parametrize("how", ["close", "abort", "closing by the client"])
def test_a_connection_that_ends_while_a_page_is_read_leaves_nothing(process, come, paged, monkeypatch, how):
    reading, go_on = Event(), Event()
    original = history.read

    def read(*arguments):
        reading.set()
        go_on.wait(10)
        return original(*arguments)

    client = come(paged, channels=(A, B))
    monkeypatch.setattr(history, "read", read)
    assert reading.wait(10)
    if how == "close":
        client.connection.close(1012, "server restarting")
    elif how == "abort":
        client.connection.abort()
    else:
        client.peer.send(close_frame())
        turn()
    go_on.set()
    client.recovery.greenlet.get(timeout=10)
    client.peer.close()
    wait_until(lambda: nothing_is_left(process), what="the end of the connection")


def test_redis_fails_while_pages_are_sent(own_redis, process, come, monkeypatch, caplog):
    monkeypatch.setattr(history, "PAGE", 2)
    token = process.token()
    process.send(*[str(number) + "x" * 3000 for number in range(50)])
    client = come(token, send_buffer=1)
    for _ in range(20):
        turn()
    own_redis.kill()
    assert client.texts("goodbye")[-1] == "goodbye"
    assert Close.parse(client.peer.frame().data).code == 1013
    client.peer.close()
    assert "Recovery interrupted; client must reconnect" in caplog.text
    wait_until(lambda: nothing_is_left(process), what="the end of the connection")


def test_a_loss_while_the_last_page_is_read_sends_the_client_back(process, come, paged, monkeypatch):
    original = history.read

    def read(*arguments):
        process.hub.lost(A, Position(1, "x"))
        return original(*arguments)

    client = come(paged, channels=(A, B))
    monkeypatch.setattr(history, "read", read)
    assert client.texts("goodbye")[-1] == "goodbye"
    assert Close.parse(client.peer.frame().data).code == 1013
    client.peer.close()
    wait_until(lambda: nothing_is_left(process), what="the end of the connection")


def test_what_is_not_in_a_history_comes_as_it_arrives(process, come):
    token = process.token()
    process.send("1")
    client = come(token, meanwhile=lambda: process.hub.deliver(A, Message(b"of another program")))
    assert client.texts("of another program") == ["welcome", "1", "of another program"]


# Many at once.


@pytest.fixture
def readings(monkeypatch):
    """The questions that Redis is asked; ``readings.gate`` lets it answer, and ``readings.error`` is raised instead."""
    readings = types.SimpleNamespace(asked=[], gate=Event(), error=None)

    def read(client, questions):
        readings.asked.append(questions)
        readings.gate.wait()
        if readings.error is not None:
            raise readings.error
        return list(questions)

    monkeypatch.setattr(history, "read", read)
    return readings


ONE, TWO = [(A, Position(1, "a"))], [(A, Position(2, "b"))]


def test_those_that_ask_the_same_at_the_same_time_share_the_answer(readings):
    shared = SharedReading()
    first = [gevent.spawn(shared.read, None, ONE) for _ in range(20)]
    other = gevent.spawn(shared.read, None, TWO)
    turn()
    assert readings.asked == [ONE + TWO], "one reading after the other"
    late = [gevent.spawn(shared.read, None, ONE) for _ in range(5)]  # need what was published meanwhile, too
    turn()
    readings.gate.set()
    gevent.joinall([*first, other, *late], timeout=WAIT, raise_error=True)
    assert readings.asked == [ONE + TWO, ONE]
    assert {id(each.value) for each in first} != {id(each.value) for each in late}
    assert other.value == TWO


def test_different_questions_are_asked_together_as_many_as_one_round_trip_may_have(readings):
    shared = SharedReading()
    readings.gate.set()
    clients = [[(A, Position(each, "a")), (B, Position(1, "b"))] for each in range(MOST)]
    asking = [gevent.spawn(shared.read, None, questions) for questions in clients]
    gevent.joinall(asking, timeout=WAIT, raise_error=True)
    assert [each.value for each in asking] == clients
    half = MOST // 2
    assert readings.asked == [
        [clients[start][0], (B, Position(1, "b")), *(each[0] for each in clients[start + 1 : start + half])]
        for start in (0, half)
    ]


@pytest.mark.parametrize(("error", "asked"), [(RedisTimeout("too late"), 1), (ResponseError("of one question"), 3)])
def test_an_error_reaches_all_who_have_asked(readings, error, asked):
    """If Redis cannot be reached, nobody waits for that a second time."""
    shared, readings.error = SharedReading(), error
    readings.gate.set()
    asking = [gevent.spawn(shared.read, None, questions) for questions in (ONE, ONE, TWO)]
    gevent.joinall(asking, timeout=WAIT)
    assert [str(each.exception) for each in asking] == [str(error)] * 3
    assert len({id(each.exception) for each in asking}) == 3
    assert len(readings.asked) == asked
    readings.error = None
    assert shared.read(None, ONE) == ONE


def test_many_clients_that_come_back_at_once_read_and_encode_the_history_once(process, come, asked, monkeypatch):
    token = process.token(A, B)
    process.send("1", "2", "3")
    encoded, encode = collections.Counter(), V1_DIALECT.encode
    monkeypatch.setattr(
        type(V1_DIALECT),
        "encode",
        lambda self, payload, bits=0: encoded.update([payload]) or encode(payload, bits),
    )
    coming = [gevent.spawn(come, token, channels=(A, B)) for _ in range(20)]
    gevent.joinall(coming, timeout=WAIT, raise_error=True)
    assert sorted(encoded.values()) == [1, 1, 1, 20], "a welcome for each, and the messages for all"
    process.send("4")
    for each in coming:
        assert each.value.texts("4") == ["welcome", "1", "2", "3", "4"]
    assert len(asked) == 1
