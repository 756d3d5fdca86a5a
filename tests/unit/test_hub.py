"""Who listens to which channel, and the fan-out: real connections on real socket pairs."""

import collections
import functools
import gc
import json
import socket
import types
import weakref

import gevent
import pytest
from websockets.frames import Close, Frame, Opcode

from testbed.processes import wait_until
from tests.unit.peer import close_frame, masked, turn
from wsloop import greenlets
from wsloop.facilities.inbound import ReadOnlyHandler
from wsloop.protocol import frames as protocol_frames
from wsloop.protocol.deflate import Deflate
from wsloop.protocol.dialects import BARE, V1_DIALECT
from wsloop.protocol.frames import encode, is_text
from wsloop.protocol.messages import Message, Position
from wsloop.sockets import admission, heartbeat
from wsloop.sockets import hub as module
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub
from wsloop.sockets.index import Index
from wsloop.sockets.joining import InitialFrames, JoinBuffer, SharedPayloads
from wsloop.sockets.limits import Bounds
from wsloop.sockets.output import settle
from wsloop.sockets.visitor import NOBODY, Visitor
from wsloop.sockets.websocket import WebSocket

NEWS, SPORT = b"broadcast:news", b"broadcast:sport"


@pytest.fixture
def left():
    """The channels of the connections of which the hub has told that they left."""
    return []


@pytest.fixture
def hub(left, monkeypatch):
    """A hub whose timer the test turns by hand, with ``hub.heartbeat._tick()``."""
    monkeypatch.setattr(heartbeat, "TICK", 3600)
    hub = Hub(lambda connection: left.append(connection.channels))
    yield hub
    for connection in [*hub.connections, *hub.heartbeat._closing]:
        connection.abort()


def opened(hub, connection, joining=None, first=(), visitor=NOBODY):
    """Have the hub look after a connection, and make it a subscriber."""
    seat = hub.admission.take()
    seat.assign(visitor)
    hub.open(connection, seat)
    if joining is not None:
        hub.enter(joining, connection, first)


@pytest.fixture
def member(hub, pair):
    """Make a member of channels: ``connection, peer = member(NEWS, SPORT)``."""

    def make(*channels, first=(), joining=None, bound=1024 * 1024, dialect=BARE, latest_only=False, **options):
        visitor = options.pop("visitor", NOBODY)
        joining = joining or hub.join(channels, channels if latest_only else ())
        transport, peer = pair(**options)
        bounds = Bounds(1000, bound)
        connection = WebSocket(transport, ReadOnlyHandler(hub), bounds, dialect=dialect)
        opened(hub, connection, joining, first, visitor)
        return connection, peer

    return make


def told(joining, persisted=(), count=0):
    """What a socket of the bare dialect is sent first."""
    frames = InitialFrames(BARE, set())
    for channel, message in [*joining.retained(persisted, count), *joining.messages]:
        frames.add(channel, message)
    return frames.payloads


# Who gets what.


def test_members_of_a_channel_get_its_messages_in_order(hub, member):
    _, one = member(NEWS)
    _, both = member(NEWS, SPORT)
    _, other = member(SPORT)
    for number in range(50):
        hub.deliver(NEWS, Message(b"news %d" % number))
        hub.deliver(SPORT, Message(b"sport %d" % number))
    assert one.messages(50) == [f"news {number}" for number in range(50)]
    assert other.messages(50) == [f"sport {number}" for number in range(50)]
    assert both.messages(100) == [f"{channel} {number}" for number in range(50) for channel in ("news", "sport")]


def test_a_message_on_a_channel_that_nobody_listens_to_is_nothing(hub, member):
    _, peer = member(NEWS)
    hub.deliver(b"unknown", Message(b"lost"))
    hub.deliver(NEWS, Message(b"next"))
    assert peer.message() == "next"


def test_a_message_goes_to_all_but_its_origin(hub, member):
    (sender, at_sender), (_, at_other) = member(NEWS), member(NEWS)
    hub.deliver(NEWS, Message(b"own"), sender)
    hub.deliver(NEWS, Message(b"own"))  # an equal one of somebody else
    hub.deliver(NEWS, Message(b"end"))
    assert at_sender.messages(2) == ["own", "end"]
    assert at_other.messages(3) == ["own", "own", "end"]


def test_what_is_utf8_leaves_as_text_and_all_else_as_binary(hub, member):
    _, peer = member(NEWS)
    for payload in ("grün".encode(), b"", b"\xff\x00", b"\xed\xa0\x80"):
        hub.deliver(NEWS, Message(payload))
    assert peer.messages(4) == ["grün", "", b"\xff\x00", b"\xed\xa0\x80"]
    assert is_text("€".encode())
    assert not is_text("€".encode()[:2])


def test_everything_of_one_turn_leaves_in_one_write(hub, member):
    _, peer = member(NEWS, SPORT, kind=socket.SOCK_SEQPACKET)  # which keeps writes apart
    for number in range(100):
        hub.deliver(NEWS if number % 2 else SPORT, Message(b"%d" % number))
    peer.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.socket.recv(65536)  # nothing is written before the turn ends
    peer.socket.settimeout(10)
    assert peer.socket.recv(65536) == b"".join(encode(b"%d" % number, True) for number in range(100))
    hub.deliver(NEWS, Message(b"next turn"))
    assert peer.socket.recv(65536) == encode(b"next turn", True)


# Consecutive messages of a channel are held back until the turn ends, or something else comes.


@pytest.fixture
def flushed(hub, monkeypatch):
    """The connections that are flushed, each as if its write took all the time that flushing has of a turn."""
    monkeypatch.setattr(module, "SLICE", 0)
    flushed, flush = [], WebSocket.flush
    monkeypatch.setattr(WebSocket, "flush", lambda connection: flush(connection) or flushed.append(connection))
    return flushed


def test_a_fan_out_to_many_lets_others_have_their_turn(hub, member, flushed):
    members = [member(NEWS) for _ in range(5)]
    seen = []
    timer = gevent.get_hub().loop.timer(0, 1e-9)
    timer.start(lambda: seen.append(len(flushed)))
    hub.deliver(NEWS, Message(b"one"))
    hub._flush()
    assert len(flushed) == 1
    hub.deliver(NEWS, Message(b"two"))
    wait_until(lambda: not hub._rest_timer.active or turn(1), what="the other writes")
    timer.stop()
    timer.close()
    assert len(set(seen)) > 3
    assert [[peer.message(), peer.message()] for _, peer in members] == [["one", "two"]] * 5


def test_what_comes_while_others_have_their_turn_goes_behind_the_message(hub, member, flushed):
    """The message is queued for each connection when its turn comes, or before anything else is."""
    members = [member(NEWS, SPORT) for _ in range(4)]
    hub.deliver(NEWS, Message(b"one"))
    hub._flush()
    assert len(flushed) == 1
    assert members[2][0].clear, "it is queued already: this test shows nothing"
    members[2][0].reply(b"a reply", True)
    members[2][0].flush()
    members[3][0].close(4000, "enough")
    hub.deliver(SPORT, Message(b"two"))
    assert members[2][1].messages(3) == ["one", "a reply", "two"]
    assert members[3][1].message() == "one"
    assert members[3][1].frame().opcode is Opcode.CLOSE
    assert [peer.messages(2) for _, peer in members[:2]] == [["one", "two"]] * 2


def test_how_long_a_message_takes_is_measured_to_its_last_write(hub, member, flushed, monkeypatch):
    seen = []
    delivery = types.SimpleNamespace(observe=lambda seconds: seen.append(len(flushed)))
    monkeypatch.setattr(module.metrics, "DELIVERY", delivery)
    for _ in range(3):
        member(NEWS)
    hub.deliver(NEWS, Message(b"one", time=1))
    wait_until(lambda: seen or turn(1), what="the measurement")
    assert seen == [3]
    hub.deliver(NEWS, Message(b"two", time=1))
    hub._flush()
    hub.deliver(SPORT, Message(b"of nobody"))  # what follows makes the rest be queued at once
    wait_until(lambda: len(seen) > 1 or turn(1), what="the measurement")
    assert seen == [3, 6]


def test_messages_of_a_channel_are_one_piece_of_output_shared_by_all(hub, member):
    (one, at_one), (other, at_other) = member(NEWS), member(NEWS)
    for number in range(5):
        hub.deliver(NEWS, Message(b"%d" % number))
    assert one.clear  # nothing is queued yet
    settle()
    assert one._queue == b"".join(encode(b"%d" % number, True) for number in range(5))
    assert one._queue is other._queue
    assert at_one.messages(5) == at_other.messages(5) == list("01234")


def test_a_message_that_waits_makes_no_work_for_the_garbage_collector(hub, member):
    """One object for each of 10,000 sockets would have all objects of the process looked at, every few messages."""
    for _ in range(50):
        member(NEWS)
    gc.collect()
    gc.disable()
    try:
        before = gc.get_count()[0]
        hub.deliver(NEWS, Message(b"one"))
        settle()
        assert len(hub._dirty) == 50
        assert gc.get_count()[0] - before < 25
    finally:
        gc.enable()


def test_only_so_much_is_held_back(hub, member):
    connection, peer = member(NEWS)
    for _ in range(3):
        hub.deliver(NEWS, Message(b"x" * 50_000))
    assert not connection.clear
    assert [len(message) for message in peer.messages(3)] == [50_000] * 3


def test_what_is_sent_to_one_of_them_meanwhile_keeps_its_place(hub, member):
    connection, peer = member(NEWS)
    hub.deliver(NEWS, Message(b"first"))
    hub.enqueue(connection, encode(b"put down", True))
    hub.deliver(NEWS, Message(b"second"))
    connection.reply(b"a reply", True)
    hub.deliver(NEWS, Message(b"third"))
    hub.send(connection, [b"sent"])
    hub.deliver(NEWS, Message(b"fourth"))
    hub.deliver(NEWS, Message(b"own"), connection)
    hub.deliver(NEWS, Message(b"fifth"))
    expected = ["first", "put down", "second", "a reply", "third", "sent", "fourth", "fifth"]
    assert peer.messages(len(expected)) == expected


def test_a_pong_keeps_its_place(hub, member):
    connection, peer = member(NEWS)
    peer.send(masked(Opcode.PING, b"?"))
    hub.deliver(NEWS, Message(b"before"))
    connection.ready(1)
    hub.deliver(NEWS, Message(b"after"))
    assert [(frame.opcode, frame.data) for frame in (peer.frame(), peer.frame(), peer.frame())] == [
        (Opcode.TEXT, b"before"),
        (Opcode.PONG, b"?"),
        (Opcode.TEXT, b"after"),
    ]


def test_who_waits_for_a_client_to_be_clear_waits_for_it(hub, member):
    connection, peer = member(NEWS)
    hub.deliver(NEWS, Message(b"x" * 100_000))
    hub.deliver(NEWS, Message(b"x" * 900_000))  # more than the kernel takes
    assert not hub.clearing(connection).is_set()
    assert [len(message) for message in peer.messages(2)] == [100_000, 900_000]
    assert connection.queued_bytes == 0


def test_who_comes_meanwhile_gets_only_what_follows(hub, member):
    _, early = member(NEWS)
    hub.deliver(NEWS, Message(b"before"))
    _, late = member(NEWS)
    hub.deliver(NEWS, Message(b"after"))
    assert early.messages(2) == ["before", "after"]
    assert late.message() == "after"


def test_the_first_subscriber_may_come_after_messages_for_nobody(hub, member):
    hub.deliver(NEWS, Message(b"for nobody"))
    _, peer = member(NEWS)
    hub.deliver(NEWS, Message(b"for one"))
    assert peer.message() == "for one"


@pytest.mark.parametrize("end", ["close", "fail"])
def test_who_is_closed_meanwhile_gets_what_came_before(hub, member, end):
    (connection, peer), (_, other) = member(NEWS), member(NEWS)
    hub.deliver(NEWS, Message(b"before"))
    getattr(connection, end)(4000, "enough")
    hub.deliver(NEWS, Message(b"after"))
    assert peer.message() == "before"
    assert peer.frame().opcode is Opcode.CLOSE
    assert other.messages(2) == ["before", "after"]


def test_who_leaves_the_channel_or_breaks_meanwhile_does_not_disturb_the_others(hub, member):
    (leaving, at_leaving), (broken, _), (_, other) = member(NEWS), member(NEWS), member(NEWS)
    hub.deliver(NEWS, Message(b"before"))
    hub.exit(leaving, [NEWS])
    hub.deliver(NEWS, Message(b"between"))
    broken.abort()
    hub.deliver(NEWS, Message(b"after"))
    hub.deliver(SPORT, Message(b"for nobody"))
    hub.lost(NEWS, Position(1, "x"))
    assert at_leaving.message() == "before"
    assert other.messages(3) == ["before", "between", "after"]
    turn()
    at_leaving.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        at_leaving.socket.recv(100)


def test_a_frame_is_encoded_once_for_all_members(hub, member, monkeypatch):
    encoded = []
    monkeypatch.setattr(
        protocol_frames, "encode", lambda payload, text, bits=0: encoded.append(payload) or encode(payload, text, bits)
    )
    peers = [member(NEWS)[1] for _ in range(10)]
    hub.deliver(NEWS, Message(b"hello"))
    assert [peer.message() for peer in peers] == ["hello"] * 10
    assert encoded.count(b"hello") == 1  # a ping may come between


def test_members_that_overflow_do_not_disturb_the_others(hub, member, left):
    slow = [member(NEWS, bound=20_000, send_buffer=1) for _ in range(3)]
    _, quick = member(NEWS)
    for number in range(200):
        hub.deliver(NEWS, Message(b"%d" % number + b"x" * 500))
        assert quick.message().startswith(str(number))
    assert len(hub.connections) == 1
    assert len(hub) == 4
    assert left == [(NEWS,)] * 3
    for _, peer in slow:
        while (frame := peer.frame()).opcode is Opcode.TEXT:
            pass
        assert Close.parse(frame.data).code == 4008
    hub.deliver(NEWS, Message(b"still there"))
    assert quick.message() == "still there"


def test_members_that_break_while_they_are_written_to_do_not_disturb_the_others(hub, member, left):
    members = [member(NEWS) for _ in range(6)]
    for connection, peer in members[::2]:
        connection.hold()  # so that the broken line is not found by reading
        peer.close()
    hub.deliver(NEWS, Message(b"hello"))
    for _, peer in members[1::2]:
        assert peer.message() == "hello"
    assert len(hub) == 3
    assert left == [(NEWS,)] * 3


# JoinBuffer.


def test_what_arrives_between_join_and_complete_is_the_first_that_the_client_gets(hub, member):
    joining = hub.join([NEWS])
    for number in range(3):
        hub.deliver(NEWS, Message(b"%d" % number))
    hub.deliver(SPORT, Message(b"not asked for"))
    _, peer = member(joining=joining, first=told(joining))
    hub.deliver(NEWS, Message(b"live"))
    assert peer.messages(4) == ["0", "1", "2", "live"]


def test_nothing_is_kept_after_cancel_or_complete(hub, member):
    cancelled, completed = hub.join([NEWS]), hub.join([NEWS])
    hub.cancel(cancelled)
    hub.cancel(cancelled)
    member(joining=completed)
    hub.deliver(NEWS, Message(b"hello"))
    assert cancelled.messages == completed.messages == []


def test_more_than_a_connection_may_hold_is_too_much(hub, with_settings):
    with_settings(WSLOOP={"MAX_QUEUED_BYTES": 10})
    joining = hub.join([NEWS])
    hub.deliver(NEWS, Message(b"x" * 10))
    assert not joining.too_much
    hub.deliver(NEWS, Message(b"x"))
    assert joining.too_much
    hub.deliver(NEWS, Message(b""))
    assert joining.messages == [(NEWS, Message(b"x" * 10))], "what comes behind a gap is not kept"


def test_a_connection_for_which_it_was_too_much_is_closed_with_4008(hub, member, with_settings, left):
    with_settings(WSLOOP={"MAX_QUEUED_BYTES": 10})
    joining = hub.join([NEWS])
    hub.deliver(NEWS, Message(b"x" * 10))
    hub.deliver(NEWS, Message(b"lost"))
    _, peer = member(joining=joining, first=[b"kept"])
    assert peer.message() == "kept"
    assert Close.parse(peer.frame().data).code == 4008
    assert left == [(NEWS,)]
    assert not hub.connections


def test_several_kept_messages_over_the_bound_are_no_sign_of_a_slow_client(member):
    connection, peer = member(NEWS, first=[b"x" * 900, b"y" * 900, b"z" * 900], bound=1000)
    assert peer.messages(3) == ["x" * 900, "y" * 900, "z" * 900]
    assert connection.open


def test_news_that_fail_leave_a_connection_that_can_be_aborted(hub, pair, left):
    transport, peer = pair()
    connection = WebSocket(transport, hub, Bounds(1000, 1000))
    with pytest.raises(ZeroDivisionError):
        opened(hub, connection, hub.join([NEWS]), (1 / 0 for _ in "x"))
    connection.abort()
    assert left == [(NEWS,)]
    assert len(hub) == 0
    assert peer.frame() is None


@pytest.mark.parametrize(
    ("messages", "persisted", "count", "news"),
    [
        ([], [], 0, []),
        # Kept before anything came: first the kept one, whatever comes.
        ([(NEWS, b"b")], [(NEWS, b"a")], 1, [b"a", b"b"]),
        # Published after the subscription and before the kept messages were read: it is the kept one.
        ([(NEWS, b"a")], [(NEWS, b"a")], 1, [b"a"]),
        # Equal, but published after the kept one was read: another message.
        ([(NEWS, b"a")], [(NEWS, b"a")], 0, [b"a", b"a"]),
        ([(NEWS, b"a"), (NEWS, b"a")], [(NEWS, b"a")], 1, [b"a", b"a"]),
        ([(NEWS, b"b"), (NEWS, b"a")], [(NEWS, b"a")], 1, [b"a", b"b", b"a"]),
        # Equal messages that had been published twice by then are two, of which the last is the kept one.
        ([(NEWS, b"a"), (NEWS, b"a")], [(NEWS, b"a")], 2, [b"a", b"a"]),
        # An equal message of another channel is another message.
        ([(SPORT, b"a")], [(NEWS, b"a")], 1, [b"a", b"a"]),
        ([(SPORT, b"a"), (NEWS, b"a")], [(NEWS, b"a"), (SPORT, b"a")], 2, [b"a", b"a"]),
        ([(NEWS, b"a")], [(NEWS, b"a"), (SPORT, b"a")], 1, [b"a", b"a"]),
        # A subscriber of the site does not say which channel: one delivered message stands for one kept message.
        ([(NEWS, b"a")], [(None, b"a")], 1, [b"a"]),
        ([(NEWS, b"a")], [(None, b"a"), (None, b"a")], 1, [b"a", b"a"]),
        ([(NEWS, b"a")], [(None, b"b")], 1, [b"b", b"a"]),
        ([(NEWS, b"a")], [(None, b"a")], 0, [b"a", b"a"]),
    ],
)
def test_news_hold_nothing_twice_and_miss_nothing(messages, persisted, count, news):
    joining = JoinBuffer([NEWS, SPORT], bound=1000)
    for channel, payload in messages:
        joining.add(channel, Message(payload))
    assert told(joining, persisted, count) == news
    assert joining.messages == [(channel, Message(payload)) for channel, payload in messages]


# Leaving.


def test_all_are_closed_with_the_code(hub, member):
    peers = [member(NEWS)[1] for _ in range(3)]
    hub.deliver(NEWS, Message(b"before"))
    hub.close_all(1012, "server restarting")
    for peer in peers:
        assert peer.message() == "before"
        assert peer.frame() == Frame(Opcode.CLOSE, Close(1012, "server restarting").serialize())
    assert not hub.connections
    assert len(hub) == 3
    for peer in peers:
        peer.send(close_frame(1012))
        peer.frame()
        peer.close()
    turn()
    assert len(hub) == 0


def test_who_is_closing_gets_no_messages_and_leaves_once(hub, member, left):
    connection, peer = member(NEWS, SPORT)
    connection.close(1000)
    hub.deliver(NEWS, Message(b"late"))
    peer.send(close_frame())
    assert peer.closing() == 1000
    peer.close()
    turn()
    assert left == [(NEWS, SPORT)]
    assert len(hub) == 0


def test_who_hangs_up_leaves(hub, member, left):
    _, peer = member(NEWS)
    peer.close()
    turn()
    assert left == [(NEWS,)]
    assert len(hub) == 0
    hub.deliver(NEWS, Message(b"nobody is there"))


def test_who_left_leaves_nothing_behind(hub, pair, left):
    class Watched(WebSocket):
        pass  # unlike its base it can be watched with a weak reference

    gc.collect()
    gc.disable()
    try:
        transport, peer = pair()
        connection = Watched(transport, ReadOnlyHandler(hub), Bounds(1000, 1000))
        reference = weakref.ref(connection)
        opened(hub, connection, hub.join([NEWS, SPORT]), [b"kept"])
        hub.deliver(NEWS, Message(b"live"))
        assert peer.messages(2) == ["kept", "live"]
        peer.send(close_frame())
        assert peer.closing() == 1000
        del connection
        peer.close()
        turn()
        assert reference() is None, "it waits for the garbage collector"
    finally:
        gc.enable()
    assert not any(map(len, hub._subscribers.values()))
    assert not hub._draining
    assert not hub._joining
    assert not hub.heartbeat._closing
    assert not hub._dirty
    assert not hub.heartbeat._timer.active
    assert left == [(NEWS, SPORT)]


# The timer.


def test_the_timer_runs_as_long_as_there_is_a_connection(hub, member):
    assert not hub.heartbeat._timer.active
    (one, _), (two, peer) = member(NEWS), member(NEWS)
    assert hub.heartbeat._timer.active
    one.abort()
    assert hub.heartbeat._timer.active
    two.close(1000)
    assert hub.heartbeat._timer.active, "somebody has to see to the deadline"
    peer.send(close_frame())
    peer.close()
    turn()
    assert not hub.heartbeat._timer.active
    member(NEWS)
    assert hub.heartbeat._timer.active


def test_the_timer_turns_by_itself(left, pair, monkeypatch, with_settings):
    monkeypatch.setattr(heartbeat, "TICK", 0.005)
    with_settings(WS4REDIS_HEARTBEAT="beat", WSLOOP={"PING_INTERVAL": 3600})
    hub = Hub(lambda connection: left.append(connection.channels))
    transport, peer = pair()
    connection = WebSocket(transport, ReadOnlyHandler(hub), Bounds(1000, 1000))
    opened(hub, connection)
    assert peer.messages(3) == ["beat"] * 3
    connection.abort()


def test_the_heartbeat_goes_to_every_connection_every_four_ticks_and_not_to_all_at_once(hub, member, with_settings):
    with_settings(WS4REDIS_HEARTBEAT="--heartbeat--")
    peers = [member(NEWS)[1] for _ in range(100)]
    heard = {peer: [] for peer in peers}
    for tick in range(12):
        hub.heartbeat._tick()
        send_the_rest(hub)
        hub.deliver(NEWS, Message(b"end of tick"))
        turn()
        for peer in peers:
            while (frame := peer.frame()).data != b"end of tick":
                if frame.opcode is Opcode.TEXT:
                    assert frame.data == b"--heartbeat--"
                    heard[peer].append(tick)
    assert all(ticks == [ticks[0], ticks[0] + 4, ticks[0] + 8] for ticks in heard.values())
    assert len({ticks[0] for ticks in heard.values()}) > 1


def test_without_the_setting_there_is_no_heartbeat(hub, member, with_settings):
    with_settings(WS4REDIS_HEARTBEAT=None)
    _, peer = member(NEWS)
    for _ in range(8):
        hub.heartbeat._tick()
    hub.deliver(NEWS, Message(b"end"))
    assert peer.message() == "end"


@pytest.fixture
def quick(with_settings):
    with_settings(WSLOOP={"PING_INTERVAL": 3, "PING_TIMEOUT": 2}, WS4REDIS_HEARTBEAT=None)


@pytest.fixture
def quick_hub(quick, hub):
    """A hub whose timer the test turns, with three ticks between two pings and two for the answer."""
    return hub


@pytest.fixture
def quick_member(quick_hub, member):
    return functools.partial(member, NEWS)


def ticks_until_pinged(hub, peer):
    """Turn the timer until the peer has a ping, which must be the only thing that it has."""
    count = 0
    while True:
        count += 1
        hub.heartbeat._tick()
        hub.deliver(NEWS, Message(b"end of tick"))
        turn()
        frame = peer.frame()
        if frame.opcode is Opcode.PING:
            assert peer.message() == "end of tick"
            return count
        assert frame.data == b"end of tick"


def test_each_connection_is_pinged_once_in_each_interval(quick_hub, quick_member):
    _, peer = quick_member()
    assert ticks_until_pinged(quick_hub, peer) <= 3
    for _ in range(4):
        peer.send(masked(Opcode.PONG))
        assert ticks_until_pinged(quick_hub, peer) == 3


def test_the_pings_of_many_connections_are_spread_over_the_interval(quick_hub, quick_member):
    peers = [quick_member()[1] for _ in range(60)]
    first = collections.Counter()
    waiting = set(peers)
    for tick in range(3):
        quick_hub.heartbeat._tick()
        quick_hub.deliver(NEWS, Message(b"end of tick"))
        turn()
        for peer in list(waiting):
            if peer.frame().opcode is Opcode.PING:
                waiting.remove(peer)
                first[tick] += 1
                peer.send(masked(Opcode.PONG))
    assert not waiting
    assert all(first[tick] >= 5 for tick in range(3)), first


def send_the_rest(hub):
    """Send what the tick has left, and return in how many pieces."""
    count = 0
    while hub.heartbeat._unpinged or hub.heartbeat._unsent:
        assert hub.heartbeat._piece_timer.active
        hub.heartbeat._send_piece()
        count += 1
    assert not hub.heartbeat._piece_timer.active
    return count


def test_the_pings_of_a_tick_are_sent_in_pieces_before_the_next_one(
    quick_hub, quick_member, with_settings, monkeypatch
):
    """The answers to all of them would come together, and keep the loop from everything else."""
    with_settings(WSLOOP={"PING_INTERVAL": 3, "PING_TIMEOUT": 60}, WS4REDIS_HEARTBEAT=None)
    monkeypatch.setattr(heartbeat, "PIECE", 4)
    connections = [quick_member() for _ in range(90)]
    for _ in range(3):
        quick_hub.heartbeat._tick()
        left = len(quick_hub.heartbeat._unpinged)
        assert left > 4
        assert send_the_rest(quick_hub) == -(-left // quick_hub.heartbeat._piece) < heartbeat.PIECES
    quick_hub.deliver(NEWS, Message(b"end"))
    assert all(peer.frame().opcode is Opcode.PING and peer.message() == "end" for _, peer in connections)


def test_the_timer_sends_the_other_pieces(quick_hub, quick_member, monkeypatch):
    monkeypatch.setattr(heartbeat, "PIECE", 1)
    quick_hub.heartbeat._piece_timer = quick_hub.heartbeat._loop.timer(0.001, 0.001)
    peers = [quick_member()[1] for _ in range(20)]
    for _ in range(3):
        quick_hub.heartbeat._tick()
        wait_until(lambda: not quick_hub.heartbeat._unpinged or gevent.sleep(0.001), what="the last piece")
    assert all(peer.frame().opcode is Opcode.PING for peer in peers)
    assert not quick_hub.heartbeat._piece_timer.active


def test_who_has_ended_is_not_pinged_any_more(quick_hub, quick_member, monkeypatch):
    monkeypatch.setattr(heartbeat, "PIECE", 1)
    connections = [quick_member() for _ in range(20)]
    for _ in range(3):
        quick_hub.heartbeat._tick()
    for connection, _ in connections:
        connection.abort()
    assert not quick_hub.heartbeat._unpinged
    assert not quick_hub.heartbeat._piece_timer.active


def test_the_last_one_may_end_while_it_is_pinged(quick_hub, quick_member, with_settings, caplog):
    with_settings(WSLOOP={"PING_INTERVAL": 4, "PING_TIMEOUT": 2}, WS4REDIS_HEARTBEAT="--heartbeat--")
    quick_hub.heartbeat._portions = [set() for _ in range(4)]  # a ping and a heartbeat in the same piece
    _, peer = quick_member()
    peer.close()
    for _ in range(4):
        quick_hub.heartbeat._tick()
    assert len(quick_hub) == 0
    assert "failed" not in caplog.text


@pytest.mark.parametrize("timeout", [1, 2, 3, 60])
@pytest.mark.parametrize("beats", [None, "--heartbeat--"])
def test_nobody_has_less_time_to_answer_than_the_setting_says(hub, member, with_settings, monkeypatch, timeout, beats):
    """However late in its tick the ping was sent; but the next ping must not find the last one unanswered."""
    with_settings(WSLOOP={"PING_INTERVAL": 3, "PING_TIMEOUT": timeout}, WS4REDIS_HEARTBEAT=beats)
    hub.heartbeat._portions = [set() for _ in range(3)]
    monkeypatch.setattr(heartbeat, "PIECE", 1)
    connections = [member(NEWS)[0] for _ in range(60)]
    pinged, ended = {}, {}

    def look(now):
        for each in connections:
            if each.open and not each.alive:
                pinged.setdefault(each, now)
            elif not each.open:
                ended.setdefault(each, now)

    for tick in range(8):
        hub.heartbeat._tick()
        look(tick)
        pieces = 0
        while hub.heartbeat._unpinged or hub.heartbeat._unsent:
            pieces += 1
            hub.heartbeat._send_piece()
            look(tick + 0.12 * pieces)
        assert pieces <= 8
    assert len(ended) == len(connections)
    # A tick more at the most; of two pings in a row one may be the first of its tick, and the other one the last.
    times = [ended[each] - pinged[each] for each in connections]
    assert min(times) >= min(timeout, 2)
    assert max(times) <= min(timeout + 1, 4)
    if timeout < 3:
        assert min(times) >= timeout


@pytest.mark.parametrize("sign", [masked(Opcode.PONG), masked(Opcode.TEXT, b"hello"), masked(Opcode.TEXT, b"x")[:1]])
def test_any_sign_of_life_answers_a_ping(quick_hub, quick_member, sign):
    connection, peer = quick_member()
    ticks_until_pinged(quick_hub, peer)
    peer.send(sign)
    turn()
    quick_hub.heartbeat._tick()
    quick_hub.heartbeat._tick()
    assert connection.open


def test_who_does_not_answer_a_ping_is_ended_at_the_deadline(quick_hub, quick_member, left, reached):
    connection, peer = quick_member()
    ticks_until_pinged(quick_hub, peer)
    quick_hub.heartbeat._tick()
    assert connection.open
    quick_hub.heartbeat._tick()
    assert not connection.open
    assert len(quick_hub) == 0, "it is not waited for once more"
    assert left == [(NEWS,)]
    assert Close.parse(peer.frame().data).code == 4008
    assert peer.frame() is None
    assert reached("PING_TIMEOUT") == 1


def test_who_reads_slowly_is_alive_and_who_never_reads_is_not(quick_hub, quick_member):
    for reads in (True, False):
        connection, peer = quick_member(send_buffer=1)
        connection.enqueue(encode(b"x" * 900_000, False))
        connection.flush()
        assert connection._writing
        for _ in range(12):
            quick_hub.heartbeat._tick()
            if reads:
                peer.socket.recv(20_000)
            turn()
        assert connection.open is reads
        connection.abort()


def test_who_does_not_answer_the_close_frame_is_cut_off_at_the_deadline(hub, member, with_settings, monkeypatch):
    with_settings(WSLOOP={"CLOSE_TIMEOUT": 10})
    now = 1000.0
    hub.heartbeat._loop = types.SimpleNamespace(now=lambda: now)
    (slow, peer), _ = member(NEWS), member(NEWS)
    slow.close(1000)
    now += 9.9
    hub.heartbeat._tick()
    assert len(hub) == 2
    now += 0.1
    hub.heartbeat._tick()
    assert len(hub) == 1
    assert peer.frame().opcode is Opcode.CLOSE
    assert peer.frame() is None
    assert len(hub.connections) == 1


# Who is behind them, and how many there may be.


def test_an_index_keeps_what_it_is_given_and_nothing_else():
    index = Index()
    one, two, three = object(), object(), object()
    assert not index["key"]
    for connection in (one, one, two, three, two):
        index.add("key", connection)
    index.add("other", one)
    assert set(index["key"]) == {one, two, three}
    assert set(index["other"]) == {one}
    index.remove("key", two)
    index.remove("key", two)
    assert set(index["key"]) == {one, three}
    index.remove("key", one)
    assert set(index["key"]) == {three}
    index.remove("key", three)
    assert not index["key"]
    assert len(index) == 1
    index.remove("other", one)
    assert len(index) == 0


@pytest.fixture
def visit(hub, pair):
    """Open a connection of a visitor."""

    def make(visitor):
        transport, _ = pair()
        connection = WebSocket(transport, ReadOnlyHandler(hub), Bounds(1000, 10**6))
        opened(hub, connection, visitor=visitor)
        return connection

    return make


def test_connections_are_found_by_user_and_session_as_long_as_they_are_open(hub, visit):
    john, again, mary = visit(Visitor(1, "a")), visit(Visitor(1, "b")), visit(Visitor(2, "c"))
    visit(Visitor())
    assert set(hub.admission.users[1]) == {john, again}
    assert set(hub.admission.users[2]) == {mary}
    assert set(hub.admission.sessions["a"]) == {john}
    john.close(1000)
    assert set(hub.admission.users[1]) == {john, again}, "it counts until its peer has hung up"
    john.abort()
    assert set(hub.admission.users[1]) == {again}
    assert not hub.admission.sessions["a"]
    again.abort()
    assert not hub.admission.users[1]


@pytest.mark.parametrize(
    ("setting", "same", "other"),
    [
        ("MAX_CONNECTIONS_PER_USER", Visitor(user=1), Visitor(user=2)),
        ("MAX_CONNECTIONS_PER_ADDRESS", Visitor(address="8.8.8.8"), Visitor(address="9.9.9.9")),
    ],
)
def test_there_is_room_for_so_many_of_a_kind_and_for_others(hub, visit, with_settings, setting, same, other):
    with_settings(WSLOOP={setting: 3})
    exceeded_limit = hub.admission.exceeded_limit
    first = visit(same)
    visit(same)
    seat = hub.admission.take()
    assert exceeded_limit(same) is None, "it is not known yet for whom that seat is"
    seat.assign(same)
    assert exceeded_limit(same) == setting, "those that are being set up count"
    with pytest.raises(admission.Full) as caught:
        hub.admission.take().assign(same)
    assert (caught.value.setting, caught.value.visitor) == (setting, same)
    assert exceeded_limit(other) is None
    assert exceeded_limit(Visitor()) is None
    seat.give_back()
    seat.give_back()  # again does nothing
    assert exceeded_limit(same) is None
    visit(same)
    assert exceeded_limit(same) == setting
    first.close(1000)
    assert exceeded_limit(same) == setting, "closing and not hanging up makes no room"
    first.abort()
    assert exceeded_limit(same) is None
    kept = [hub.admission.keep(same) for _ in range(2)]
    kept.pop().give_back()
    assert exceeded_limit(same) == setting, "nor does ending, while the site's code goes on"
    assert exceeded_limit(other) is None
    kept.pop().give_back()
    assert exceeded_limit(same) is None
    with_settings(WSLOOP={setting: None})
    for _ in range(3):
        visit(same)
    assert exceeded_limit(same) is None


def is_full(hub):
    try:
        hub.admission.take().give_back()
    except admission.Full as exc:
        assert exc.setting == "MAX_CONNECTIONS"
        return True
    return False


def test_there_is_room_for_so_many_in_all_closing_ones_included(hub, visit, with_settings):
    with_settings(WSLOOP={"MAX_CONNECTIONS": 2})
    one = visit(Visitor())
    seat = hub.admission.take()
    assert is_full(hub)
    seat.give_back()
    assert not is_full(hub)
    visit(Visitor())
    assert is_full(hub)
    one.close(1000)
    assert is_full(hub), "its peer has not hung up"
    one.abort()
    assert not is_full(hub)
    assert len(hub.admission) == 1


def test_a_quarter_of_the_descriptors_is_left_to_the_site(hub, visit, with_settings, monkeypatch):
    with_settings(WSLOOP={"MAX_CONNECTIONS": None})
    monkeypatch.setattr(admission.resource, "getrlimit", lambda which: (8, 8))
    for _ in range(6):
        assert not is_full(hub)
        visit(Visitor())
    assert is_full(hub)
    monkeypatch.setattr(admission.resource, "getrlimit", lambda which: (admission.resource.RLIM_INFINITY,) * 2)
    assert not is_full(hub)


# Sessions that end.


@pytest.fixture
def wall(monkeypatch):
    """The time of day; ``wall.now += 1`` lets a second pass."""
    wall = types.SimpleNamespace(now=1_000_000.0)
    monkeypatch.setattr(heartbeat.time, "time", lambda: wall.now)
    return wall


def test_the_end_of_a_session_is_reported_within_a_tick(left, pair, wall, monkeypatch, with_settings):
    monkeypatch.setattr(heartbeat, "TICK", 3600)
    with_settings(WSLOOP={"PING_INTERVAL": 5}, WS4REDIS_HEARTBEAT=None)
    expired = []
    hub = Hub(lambda connection: left.append(connection.channels), expired.extend)
    monkeypatch.setattr(heartbeat, "TICK", 1)
    ends = {}
    for seconds in (0.5, 3, 5.5, 17, 40, None):
        transport, _ = pair()
        connection = WebSocket(transport, ReadOnlyHandler(hub), Bounds(1000, 10**6))
        expires = None if seconds is None else wall.now + seconds
        opened(hub, connection, visitor=Visitor(1, "a", None, expires))
        ends[connection] = seconds
    for second in range(1, 31):
        wall.now += 1
        hub.heartbeat._tick()
        for connection in hub.connections:
            connection.alive = True
        due = {connection for connection, seconds in ends.items() if seconds is not None and seconds <= second}
        assert set(expired) == due
    for connection in hub.connections:
        connection.abort()


def test_a_session_that_was_prolonged_is_reported_at_its_new_end(left, pair, wall, monkeypatch, with_settings):
    monkeypatch.setattr(heartbeat, "TICK", 3600)
    with_settings(WSLOOP={"PING_INTERVAL": 5})
    expired = []
    hub = Hub(lambda connection: left.append(connection.channels), expired.extend)
    monkeypatch.setattr(heartbeat, "TICK", 1)
    transport, _ = pair()
    connection = WebSocket(transport, ReadOnlyHandler(hub), Bounds(1000, 10**6))
    opened(hub, connection, visitor=Visitor(1, "a", None, wall.now + 1))
    wall.now += 1
    hub.heartbeat._tick()
    assert expired.pop() is connection
    connection.visitor = connection.visitor._replace(expires=wall.now + 2)
    hub.heartbeat.watch_expiry(connection)
    wall.now += 1
    hub.heartbeat._tick()
    assert not expired
    wall.now += 1
    hub.heartbeat._tick()
    assert expired == [connection]
    connection.abort()


# Compression.


def test_a_message_is_compressed_once_for_all_with_the_same_window(hub, pair, monkeypatch):
    encoded = []

    def noted(payload, text, bits=0):
        if payload[:1] in b"xy":  # a hub of another test may have a heartbeat meanwhile
            encoded.append(bits)
        return encode(payload, text, bits)

    monkeypatch.setattr(protocol_frames, "encode", noted)
    peers = {}
    for bits in (None, 15, 15, 12, 12, 11, 9):
        transport, peer = pair()
        extensions = [] if bits is None else [Deflate(15, bits)]
        connection = WebSocket(transport, ReadOnlyHandler(hub), Bounds(1000, 10**6), extensions)
        opened(hub, connection, hub.join([NEWS]))
        peers[peer] = bits
    hub.deliver(NEWS, Message(b"x" * 1023))
    hub.deliver(NEWS, Message(b"y" * 1024))
    for peer, bits in peers.items():
        turn()
        window = 12 if bits and bits >= 12 else 0  # who asks for less is sent messages as they are
        assert peer.socket.recv(65536) == encode(b"x" * 1023, True) + encode(b"y" * 1024, True, window)
    assert encoded == [0, 0, 12]


def test_payloads_that_many_get_in_a_row_are_encoded_once_for_those_with_the_same_window(hub, pair, monkeypatch):
    encoded = []
    dialect_encode = type(BARE).encode
    monkeypatch.setattr(
        type(BARE), "encode", lambda self, *arguments: encoded.append(arguments[1:]) or dialect_encode(self, *arguments)
    )
    first, second = b"x" * 10, b"y" * 2000
    shared = SharedPayloads([first, second])
    for extensions in ([], [Deflate(15, 15)], [], [Deflate(15, 15)]):
        transport, peer = pair()
        bounds = Bounds(1000, 10**6, compress_from=1024)
        connection = WebSocket(transport, ReadOnlyHandler(hub), bounds, extensions)
        opened(hub, connection, hub.join([NEWS]), [b"welcome", shared])
        window = 12 if extensions else 0
        frames = encode(b"welcome", True) + encode(first, True) + encode(second, True, window)
        assert peer.socket.recv(65536) == frames
    assert sorted(encoded) == [(0,)] * 7 + [(12,)], "the welcome four times, the others once for each window"


def test_without_the_setting_nothing_is_compressed(left, pair, with_settings):
    with_settings(WSLOOP={"COMPRESS_FROM": None})
    hub = Hub(lambda connection: left.append(connection.channels))
    transport, peer = pair()
    connection = WebSocket(transport, ReadOnlyHandler(hub), Bounds(1000, 10**6), [Deflate(15, 15)])
    opened(hub, connection, hub.join([NEWS]))
    hub.deliver(NEWS, Message(b"x" * 10_000))
    turn()
    assert peer.socket.recv(65536) == encode(b"x" * 10_000, True)
    connection.abort()


# Pauses.


def test_connections_that_trickle_are_read_again_a_few_at_a_time(hub, member):
    hub.heartbeat._resume_timer.close()
    hub.heartbeat._resume_timer = gevent.get_hub().loop.timer(60, 60)  # the test resumes, not the clock
    members = [member() for _ in range(50)]
    for byte in masked(Opcode.TEXT, b"hello")[:5]:
        for _, peer in members:
            peer.send(bytes([byte]))
        turn()
    assert len(hub.heartbeat._paused) == 50
    assert hub.heartbeat._resume_timer.active
    hub.heartbeat._resume()
    assert len(hub.heartbeat._paused) == 50 - heartbeat.RESUMED
    hub.heartbeat._resume()
    hub.heartbeat._resume()
    assert not hub.heartbeat._paused
    assert not hub.heartbeat._resume_timer.active


def test_a_connection_that_ends_while_it_is_paused_does_no_harm(hub, member):
    connection, peer = member()
    for byte in masked(Opcode.TEXT, b"hello")[:5]:
        peer.send(bytes([byte]))
        turn()
    assert hub.heartbeat._paused
    connection.abort()
    hub.heartbeat._resume()
    assert len(hub) == 0


# What all connections of a user, or of an address, send together.


def test_connections_of_a_user_or_an_address_share_a_bucket(hub, visit):
    john, again, mary = (visit(Visitor(user)) for user in (1, 1, 2))
    assert john.meter.shared is again.meter.shared
    assert mary.meter.shared is not john.meter.shared
    here, too, there = (visit(Visitor(address=address)) for address in ("8.8.8.8", "8.8.8.8", "9.9.9.9"))
    assert here.meter.shared is too.meter.shared
    assert there.meter.shared is not here.meter.shared
    assert visit(Visitor(1, address="8.8.8.8")).meter.shared is john.meter.shared, "who has signed in counts as a user"
    assert visit(Visitor()).meter.shared is None
    john.abort()
    assert visit(Visitor(1)).meter.shared is again.meter.shared


def test_who_is_held_is_not_expected_to_answer_a_ping(quick_hub, quick_member):
    connection, peer = quick_member()
    connection.hold()
    ticks_until_pinged(quick_hub, peer)
    for _ in range(6):
        quick_hub.heartbeat._tick()
    assert connection.open
    connection.release()
    for _ in range(6):
        quick_hub.heartbeat._tick()
    assert not connection.open


# Dialects, and messages to several channels.


def frames(peer, count):
    return [json.loads(text) for text in peer.messages(count)]


def test_each_dialect_gets_a_message_in_its_own_words(hub, member):
    (_, bare), (_, telling) = member(NEWS), member(NEWS, dialect=V1_DIALECT)
    hub.deliver(NEWS, Message(b"hello"))
    assert bare.message() == "hello"
    (frame,) = frames(telling, 1)
    assert (frame["type"], frame["data"]) == ("message", "hello")


def several(payload, offsets=(0, 0), id="id"):
    """A message to news and sport, as it arrives on each."""
    return [
        (channel, Message(payload, id, offset, "-", True))
        for channel, offset in zip((NEWS, SPORT), offsets, strict=True)
    ]


def test_a_message_to_several_channels_reaches_each_member_once(hub, member):
    (_, news), (_, sport), (_, both) = member(NEWS), member(SPORT), member(SPORT, NEWS)
    for number in range(3):
        for channel, message in several(b"%d" % number, id=f"id{number}"):
            hub.deliver(channel, message)
    hub.deliver(NEWS, Message(b"end"))
    hub.deliver(SPORT, Message(b"end"))
    assert news.messages(4) == sport.messages(4) == ["0", "1", "2", "end"]
    assert both.messages(5) == ["0", "1", "2", "end", "end"]


def test_of_the_other_channels_a_member_is_told_the_position(hub, member):
    _, both = member(SPORT, NEWS, dialect=V1_DIALECT)
    for channel, message in several(b"hello", (3, 7)):
        hub.deliver(channel, message)
    for channel, message in several(b"no history", id="other"):
        hub.deliver(channel, message)
    first, second, third = frames(both, 3)
    assert (first["data"], first["position"].split(".")[1]) == ("hello", "3")
    assert second == {"type": "position", "facility": "sport", "position": second["position"]}
    assert second["position"].split(".")[1] == "7"
    assert third["data"] == "no history"
    hub.deliver(NEWS, Message(b"end"))
    assert frames(both, 1)[0]["data"] == "end", "without a history there is no position to tell"


def test_equal_messages_are_others(hub, member):
    _, both = member(SPORT, NEWS)
    for id in ("one", "two"):
        for channel, message in several(b"same", id=id):
            hub.deliver(channel, message)
    hub.deliver(NEWS, Message(b"same"))
    hub.deliver(SPORT, Message(b"same"))
    hub.deliver(NEWS, Message(b"end"))
    assert both.messages(5) == ["same"] * 4 + ["end"]


@pytest.mark.parametrize("subscribed", [(NEWS, SPORT), (SPORT,), (NEWS,)])
def test_ones_own_message_to_several_channels_comes_once(hub, member, subscribed):
    sender, at_sender = member(*subscribed, dialect=V1_DIALECT)
    bare, at_bare = member(*subscribed)
    for origin in (sender, bare):
        for channel, message in several(b"from " + origin.dialect.name.encode(), (1, 1), id=origin.dialect.name):
            hub.deliver(channel, message, origin)
    hub.deliver(subscribed[0], Message(b"end"))
    found = [frame for frame in frames(at_sender, 3 + 2 * (len(subscribed) - 1)) if frame["type"] == "message"]
    assert [(each["data"], each.get("own")) for each in found] == [
        ("from wsloop.v1", True),
        ("from ws4redis", None),
        ("end", None),
    ]
    assert at_bare.messages(2) == ["from wsloop.v1", "end"]


def test_only_so_many_messages_to_several_channels_are_remembered(hub, monkeypatch):
    monkeypatch.setattr(module, "MOST_MULTI_AUDIENCE", 10)
    for number in range(100):
        for channel, message in several(b"x", id=str(number)):
            hub.deliver(channel, message)
    assert len(hub._multi_audience) <= 10


def test_what_is_lost_is_told_to_the_members_whose_dialect_has_a_word_for_it(hub, member):
    (_, bare), (_, telling), (_, other) = (
        member(NEWS),
        member(NEWS, dialect=V1_DIALECT),
        member(SPORT, dialect=V1_DIALECT),
    )
    joining, elsewhere = hub.join([NEWS]), hub.join([SPORT])
    hub.lost(NEWS, Position(7, "x"))
    assert joining.lost
    assert not elsewhere.lost
    for channel in (NEWS, SPORT):
        hub.deliver(channel, Message(b"next"))
    assert bare.message() == "next"
    lost, following = frames(telling, 2)
    assert (lost["type"], lost["code"], lost["audience"]) == ("error", "lost", "broadcast")
    assert following["data"] == "next"
    assert frames(other, 1)[0]["data"] == "next"


def test_clients_of_wsloop_v1_get_its_pings_and_no_heartbeat(hub, member, with_settings):
    with_settings(WS4REDIS_HEARTBEAT="--heartbeat--", WSLOOP={"PING_INTERVAL": 30, "PING_TIMEOUT": 30})
    _, peer = member(NEWS, dialect=V1_DIALECT)
    for _ in range(30):
        hub.heartbeat._tick()
    hub.deliver(NEWS, Message(b"end"))
    assert peer.frame().opcode is Opcode.PING
    assert [frame["type"] for frame in frames(peer, 2)] == ["ping", "message"]


# InitialFrames.


def test_news_hold_a_message_to_several_channels_once_and_its_other_position():
    known = {"had"}
    frames = InitialFrames(V1_DIALECT, known)
    for channel, message in [*several(b"new", (1, 1), "new"), *several(b"had", (2, 2), "had")]:
        frames.add(channel, message)
    frames.add(NEWS, Message(b"no id"))
    frames.add(NEWS, Message(b"no id"), retained=True)
    frames.add_text(None)
    frames.add_text(b'{"type": "x"}')
    told = [json.loads(text) for text in frames.payloads]
    assert [each.get("data", each["type"]) for each in told] == ["new", *["position"] * 3, "no id", "no id", "x"]
    assert [each.get("kept", False) for each in told[4:6]] == [False, True]
    assert known == {"had", "new"}


def test_news_of_the_bare_dialect_hold_empty_messages():
    frames = InitialFrames(BARE, set())
    frames.add(NEWS, Message(b""))
    frames.add(NEWS, Message(b"", "id", 1, "-", True))
    frames.add(SPORT, Message(b"", "id", 1, "-", True))
    assert frames.payloads == [b"", b""]


# Of what is not read, the newest of each channel.


def test_latest_only_members_beside_others(hub, member):
    (slow, at_slow), (_, quick) = member(NEWS, SPORT, latest_only=True, send_buffer=1), member(NEWS, SPORT)
    for number in range(500):
        hub.deliver(NEWS, Message(b"news %d" % number + b"x" * 2000))
        hub.deliver(SPORT, Message(b"sport %d" % number + b"x" * 2000))
        assert quick.message().startswith("news")
        assert quick.message().startswith("sport")
    assert slow.open
    assert slow._queued_bytes < 100_000
    found = [at_slow.message().rstrip("x")]
    while found[-1] != "sport 499":
        found.append(at_slow.message().rstrip("x"))
    assert len(found) < 500
    assert found[-2] == "news 499"
    for kind in ("news", "sport"):
        numbers = [int(each.split()[1]) for each in found if each.startswith(kind)]
        assert numbers == sorted(numbers)


def test_only_the_latest_of_one_channel_and_all_of_another(hub, member):
    """On the socket of a whole page."""
    slow, peer = member(b"rates", latest_only=True, send_buffer=1)
    joining = hub.join([NEWS])
    hub.enter(joining, slow, [])
    for number in range(50):
        hub.deliver(b"rates", Message(b"rate %d" % number + b"x" * 2000))
        hub.deliver(NEWS, Message(b"news %d" % number))
        turn(1)
    found = [peer.message().rstrip("x")]
    while found[-1] != "rate 49":
        found.append(peer.message().rstrip("x"))
    assert [each for each in found if each.startswith("news")] == [f"news {number}" for number in range(50)]
    assert len(found) < 100
    hub.exit(slow, [b"rates"])
    assert not hub._latest_only
    hub.deliver(b"rates", Message(b"not for it"))
    hub.deliver(NEWS, Message(b"end"))
    assert peer.message() == "end"


def test_a_channel_of_two_subscriptions_stays_until_both_have_ended(hub, member):
    connection, peer = member(NEWS, SPORT)
    hub.enter(hub.join([NEWS]), connection, [])
    assert connection.channels == (NEWS, SPORT, NEWS)
    hub.exit(connection, [NEWS, SPORT])
    for channel in (NEWS, SPORT):
        hub.deliver(channel, Message(channel))
    assert peer.message() == NEWS.decode()
    hub.exit(connection, [NEWS])
    hub.deliver(NEWS, Message(b"not for it"))
    hub.send(connection, [b"end"])
    assert peer.message() == "end"


def test_of_a_message_to_several_channels_who_is_behind_gets_it_for_each(hub, member):
    """On one of them a newer one may take its place; on the other it is still the newest."""
    slow, peer = member(NEWS, SPORT, latest_only=True, send_buffer=1, dialect=V1_DIALECT)
    for number in range(50):
        hub.deliver(NEWS, Message(b"filling %d" % number + b"x" * 2000))
    turn()
    assert slow.lagging
    hub.deliver(SPORT, Message(b"sport", "a", 1, "-"))
    for channel, message in several(b"both", (1, 2), "b"):
        hub.deliver(channel, message)
    hub.deliver(NEWS, Message(b"newer", "c", 2, "b"))
    found = [json.loads(peer.message())]
    while found[-1].get("data") != "newer":
        found.append(json.loads(peer.message()))
    assert (found[-2]["data"], found[-2]["position"].split(".")[1]) == ("both", "2")
    assert "sport" not in [each["data"] for each in found]


def test_settling_waits_for_members_that_read_and_not_long_for_others(hub, member):
    slow, peer = member(NEWS, send_buffer=1)
    stuck, _ = member(SPORT, send_buffer=1)
    latest, _ = member(b"rates", send_buffer=1, latest_only=True)
    for connection in (slow, stuck, latest):
        hub.send(connection, [b"x" * 300_000])
    half = slow.bounds.max_queued_bytes / 2
    hub.wait_for_room([NEWS, b"rates"], 10)  # there is room for more
    for connection in (slow, stuck, latest):
        connection.bounds = connection.bounds._replace(max_queued_bytes=1000)
    assert 500 < slow.queued_bytes < half
    settling = gevent.spawn(hub.wait_for_room, [NEWS, b"rates"], 10)
    turn()
    assert not settling.ready()
    assert peer.message() == "x" * 300_000
    settling.get(timeout=10)
    assert not stuck.clear
    assert not latest.clear
    hub.wait_for_room([SPORT], 0.05)
    assert not stuck.clear
    assert stuck.open


def test_a_client_that_waits_to_be_cleared(hub, member):
    slow, peer = member(NEWS, send_buffer=1)
    hub.wait_until_clear(slow)
    hub.send(slow, [b"x" * 300_000])
    waiting = gevent.spawn(hub.wait_until_clear, slow)
    turn()
    assert not waiting.ready()
    assert peer.message() == "x" * 300_000
    waiting.get(timeout=10)
    assert not hub._draining
    hub.send(slow, [b"x" * 300_000])
    waiting = gevent.spawn(hub.wait_until_clear, slow)
    turn()
    slow.abort()
    waiting.get(timeout=10)
    hub.wait_until_clear(slow)
    assert not hub._draining


# For one connection.


def test_what_is_put_down_for_one_leaves_in_one_write_with_what_else_the_turn_brings(hub, member):
    connection, peer = member(NEWS, kind=socket.SOCK_SEQPACKET)  # which keeps writes apart
    _, other = member(NEWS)
    hub.enqueue(connection, encode(b"one", True))
    hub.deliver(NEWS, Message(b"two"))
    hub.enqueue(connection, encode(b"three", True))
    peer.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.socket.recv(65536)  # nothing is written before the turn ends
    peer.socket.settimeout(10)
    assert peer.socket.recv(65536) == b"".join(encode(each, True) for each in (b"one", b"two", b"three"))
    assert other.message() == "two"
    hub.enqueue(connection, encode(b"next turn", True))
    assert peer.socket.recv(65536) == encode(b"next turn", True)


def test_what_is_put_down_for_many_in_one_turn_is_written_for_all(hub, member):
    members = [member() for _ in range(10)]
    for number, (connection, _) in enumerate(members):
        hub.enqueue(connection, encode(b"%d" % number, True))
        hub.enqueue(connection, encode(b"again", True))
    assert [peer.messages(2) for _, peer in members] == [[str(number), "again"] for number in range(10)]


def test_what_is_put_down_for_one_that_has_ended_or_closes_is_nothing(hub, member):
    (ended, _), (closing, peer) = member(NEWS), member(NEWS)
    ended.abort()
    closing.close(4000)
    for connection in (ended, closing):
        hub.enqueue(connection, encode(b"nobody", True))
    assert hub._dirty == []
    assert Close.parse(peer.frame().data).code == 4000


def test_who_does_not_read_what_is_put_down_is_closed_as_too_slow(hub, member):
    connection, peer = member(bound=20_000, send_buffer=1)
    for _ in range(100):
        hub.enqueue(connection, encode(bytes(5000), False))
    turn()
    assert not connection.open
    assert connection.close_code == 4008
    while (frame := peer.frame()).opcode is Opcode.BINARY:
        pass
    assert Close.parse(frame.data).code == 4008


# What fails stops nothing else.


@pytest.mark.parametrize("part", ["_beat", "_end_silent", "_expire", "_end_closing"])
def test_a_part_of_the_timer_that_fails_is_logged_and_the_others_go_on(
    hub, member, monkeypatch, with_settings, caplog, part
):
    def fail():
        raise ZeroDivisionError("by zero")

    fail.__qualname__ = part
    with_settings(WS4REDIS_HEARTBEAT=None)
    monkeypatch.setattr(greenlets, "_failures", {})
    monkeypatch.setattr(hub.heartbeat, part, fail)
    _, peer = member(NEWS)
    for _ in range(len(hub.heartbeat._portions)):
        hub.heartbeat._tick()
    assert peer.frame().opcode is Opcode.PING
    assert f"{part} failed" in caplog.text
    assert "ZeroDivisionError: by zero" in caplog.text
    assert len(caplog.records) == 1, "not each second"


def test_a_ping_that_fails_keeps_no_session_from_ending(hub, member, monkeypatch, caplog):
    expired = []
    monkeypatch.setattr(hub.heartbeat, "_ping", lambda: 1 / 0)
    monkeypatch.setattr(hub.heartbeat, "_expired", expired.extend)
    connection, _ = member(NEWS, visitor=Visitor(user=1, expires=1.0))
    hub.heartbeat._tick()
    assert expired == [connection]
    assert "ZeroDivisionError" in caplog.text


def test_a_connection_that_fails_is_ended_and_others_get_their_messages(hub, member, monkeypatch, caplog):
    monkeypatch.setattr(greenlets, "_failures", {})
    broken, _ = member(NEWS)
    _, one = member(NEWS)
    _, another = member(NEWS)

    def flush(self):
        if self is broken:
            raise ZeroDivisionError("by zero")
        return original(self)

    original = Connection.flush
    monkeypatch.setattr(Connection, "flush", flush)
    hub.deliver(NEWS, Message(b"hello"))
    assert [one.messages(1), another.messages(1)] == [["hello"], ["hello"]]
    assert not broken.open
    assert broken not in hub.connections
    assert "ZeroDivisionError: by zero" in caplog.text


def test_a_connection_that_cannot_even_be_ended_keeps_nothing_from_the_others(hub, member, monkeypatch, caplog):
    monkeypatch.setattr(greenlets, "_failures", {})
    broken, _ = member(NEWS)
    _, one = member(NEWS)
    failing = [broken]

    def flush(self):
        if self in failing:
            raise ZeroDivisionError("by zero")
        return original(self)

    def left(connection):
        raise LookupError("it has never been here")

    original = Connection.flush
    monkeypatch.setattr(Connection, "flush", flush)
    with monkeypatch.context() as patch:
        patch.setattr(hub, "_left", left)
        hub.deliver(NEWS, Message(b"hello"))
        turn()
    hub.deliver(NEWS, Message(b"again"))
    assert one.messages(2) == ["hello", "again"]
    assert "LookupError: it has never been here" in caplog.text
