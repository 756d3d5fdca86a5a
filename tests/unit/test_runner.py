"""Consumers on real connections: one handler at a time, every way a socket can end, and the bounds of the inbox."""

import asyncio
import contextlib
import gc
import logging
import random
import socket
import sys
import threading
import time
import types
import weakref

import gevent
import msgpack
import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db import connections
from django.utils import translation
from gevent.event import Event
from gevent.lock import Semaphore
from gevent.threadpool import ThreadPool
from prometheus_client import REGISTRY
from redis.exceptions import RedisError
from websockets.frames import Close, Frame, Opcode

from testbed.processes import wait_until
from tests.unit import recorded
from tests.unit.peer import WAIT, close_frame, events, masked, turn
from wsloop import layers
from wsloop.consumers import SyncConsumer
from wsloop.delivery.broker import Broker
from wsloop.exceptions import ChannelFull, DenyConnection, Disconnected, StopConsumer
from wsloop.protocol.dialects import CONSUMER
from wsloop.refusals import Refused
from wsloop.runtime import groups, runner
from wsloop.runtime import handlers as module
from wsloop.runtime.groups import LocalConsumers
from wsloop.runtime.handlers import GreenletRunner as Runner
from wsloop.runtime.inbox import MAX_MESSAGES
from wsloop.runtime.state import State
from wsloop.runtime.worker import ConsumerRuntime
from wsloop.sockets.admission import NOBODY, Visitor
from wsloop.sockets.hub import Hub
from wsloop.sockets.limits import Bounds
from wsloop.sockets.websocket import WebSocket

LONG = 3600  # seconds that a handler would wait if nothing ended it


class Recorded(recorded.Recorded):
    """Accepts its socket, unless the test has it do otherwise, and is never in two handlers at once."""

    def __init__(self, **handlers):
        super().__init__(**handlers)
        self.at_once = 0

    def call(self, name, *arguments):
        self.at_once += 1
        assert self.at_once == 1, "two handlers at once"
        try:
            return super().call(name, *arguments)
        finally:
            self.at_once -= 1

    def connect(self):
        if "connect" not in self.handlers:
            self.accept()
        super().connect()

    def got(self, name):
        """The arguments of the calls of one handler."""
        return [arguments[0] if arguments else None for called, *arguments in self.calls if called == name]

    def ended(self):
        """Wait for ``disconnect``, which must be the last call and the only one, and return its code."""
        wait_until(lambda: self.calls[-1:] and self.calls[-1][0] == "disconnect", what="disconnect()")
        turn(10)
        assert self.calls[-1][0] == "disconnect", f"called after disconnect(): {self.calls}"
        (code,) = self.got("disconnect")
        return code


class Told(Recorded):
    """Has the methods for the events of the engine itself."""

    def channel_layer_resumed(self, event):
        self.call("resumed", event)

    def presence_changed(self, event):
        self.call("presence", event)


class World:
    """The parts of the engine that a consumer needs."""

    def __init__(self, pair):
        self.hub = Hub(left=lambda connection: None)
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
        self.consumers = ConsumerRuntime(self.hub, self.members)
        self.layer = layers.get_channel_layer()
        self.layer.local = self.members
        self._pair = pair

    def runner(self, consumer, presence=None, visitor=NOBODY, **scope):
        known = {"path": "/ws/room/", "query_string": b"", "subprotocols": [], "user": AnonymousUser()}
        known |= {"session": None, "url_route": {"args": (), "kwargs": {}}}
        return Runner(self.consumers, consumer, known | scope, presence, visitor)

    def open(self, consumer, max_message_size=65536, max_queued_bytes=1024 * 1024, runner=None, **options):
        """Open the socket of a consumer, as ``server`` does."""
        runner = runner or self.runner(consumer)
        seat = self.hub.admission.take()
        seat.assign(runner._visitor)
        try:
            runner.connect()
        except BaseException:
            seat.give_back()
            runner.failed()
            raise
        transport, peer = self._pair(**options)
        connection = WebSocket(transport, runner, Bounds(max_message_size, max_queued_bytes), dialect=CONSUMER)
        self.hub.open(connection, seat)
        runner.opened(connection)
        turn()
        return types.SimpleNamespace(runner=runner, connection=connection, peer=peer, name=runner.channel_name)

    def send(self, name, number):
        return self.layer.send(name, {"type": "happened", "number": number})

    def nothing_is_left(self):
        own = {self.broker._own_channel.name, self.broker._control_channel, self.members.channel}
        return (
            not self.consumers.running
            and not self.consumers.full
            and not self.consumers._timer.active
            and not len(self.members)
            and not self.members._subscribed
            and not self.members._full
            and not self.members._resuming
            and not self.hub.admission.seats
            and set(self.broker._table.counts) == own
            and set(self.broker._table.counts.values()) == {1}
        )


@pytest.fixture
def world(pair):
    layers.LAYER.local = None
    world = World(pair)
    yield world
    for connection in [*world.hub.connections, *world.hub.heartbeat._closing]:
        connection.abort()
    try:
        wait_until(world.nothing_is_left, what="the end of all consumers")
        assert not world.failures
    finally:
        world.broker.stop()
        layers.LAYER.local = None


@pytest.fixture
def dropped():
    """How many events were dropped since the test began."""

    def count():
        return REGISTRY.get_sample_value("wsloop_lost_total", {"kind": "channel"}) or 0

    before = count()
    return lambda: count() - before


def text(*texts):
    return b"".join(masked(Opcode.TEXT, each.encode()) for each in texts)


def closing(opened):
    """Return the code of the server's close frame, after which only the end of the stream follows."""
    while (frame := opened.peer.frame()).opcode is not Opcode.CLOSE:
        pass
    opened.peer.send(masked(Opcode.CLOSE, frame.data))
    assert opened.peer.frame() is None
    return Close.parse(frame.data).code


def sleeping(consumer, *_):
    time.sleep(LONG)


def raising(error):
    def handler(*_):
        raise error

    return handler


# One after the other.


def test_handlers_of_one_socket_run_one_after_the_other_in_the_order_of_what_came(world):
    go_on = Event()

    def work(consumer, *_):
        go_on.wait()
        gevent.sleep(0)

    consumer = Recorded(receive=work, happened=work)
    opened = world.open(consumer)
    expected = []
    for number in range(4):
        opened.peer.send(text(f"text {number}"))
        wait_until(lambda number=number: opened.runner._inbox.messages + (number == 0) > number - 1, what="the message")
        turn(5)
        world.send(opened.name, number)
        expected += [("receive", f"text {number}"), ("happened", number)]
    assert consumer.calls == [("connect",), *expected[:1]]
    go_on.set()
    wait_until(lambda: len(consumer.calls) == 9, what="all handlers")
    assert consumer.calls == [("connect",), *expected]


def test_the_language_that_a_handler_activates_is_not_there_for_the_next_one_by_chance(world):
    languages = []

    def happened(consumer, number):
        languages.append(translation.get_language())
        translation.activate("de")
        languages.append(translation.get_language())

    opened = world.open(Recorded(happened=happened))
    for number in range(2):  # in one greenlet
        world.send(opened.name, number)
    wait_until(lambda: len(languages) == 4, what="two handlers")
    world.send(opened.name, 2)  # in another one
    wait_until(lambda: len(languages) == 6, what="a third one")
    assert languages == ["en-us", "de"] * 3


def test_a_disconnect_that_sends_goes_on(world, caplog):
    rooms = ["red", "blue"]

    def disconnect(consumer, _):
        while rooms:
            consumer.send(f"you have left {rooms.pop()}")
        consumer.close()

    consumer = Recorded(disconnect=disconnect)
    opened = world.open(consumer)
    opened.peer.send(close_frame(1000))
    assert consumer.ended() == 1000
    wait_until(lambda: not rooms, what="the end of disconnect()")
    assert not caplog.text


def test_a_disconnect_that_sends_for_ever_ends(world, with_settings, caplog):
    with_settings(WSLOOP={"HANDLER_TIMEOUT": 0.2})

    def disconnect(consumer, _):
        while True:
            consumer.send("too late")

    opened = world.open(Recorded(disconnect=disconnect))
    opened.peer.send(close_frame(1000))
    wait_until(lambda: "went on for too long without its client" in caplog.text, what="the end of disconnect()")
    wait_until(lambda: not world.consumers.running, what="its greenlet")


def test_text_and_bytes_arrive_as_what_they_are(world):
    consumer = Recorded()
    opened = world.open(consumer)
    opened.peer.send(text("grün", ""), masked(Opcode.BINARY, b"\xff"), masked(Opcode.BINARY))
    wait_until(lambda: consumer.got("receive") == ["grün", "", b"\xff", b""], what="the messages")


def test_a_socket_has_a_greenlet_only_while_a_handler_runs(world):
    consumer = Recorded(receive=lambda consumer, message: consumer.send(message))
    opened = world.open(consumer)
    assert opened.runner.greenlet is None
    assert not world.consumers.running
    opened.peer.text("hello")
    assert opened.peer.message() == "hello"
    turn()
    assert opened.runner.greenlet is None
    assert not world.consumers.running


def test_a_handler_that_blocks_delays_its_own_socket_only(world):
    slow, quick = Recorded(receive=sleeping), Recorded(receive=lambda consumer, message: consumer.send(message))
    at_slow, at_quick = world.open(slow), world.open(quick)
    at_slow.peer.text("one")
    wait_until(lambda: slow.got("receive"), what="the slow handler")
    at_quick.peer.text("two")
    assert at_quick.peer.message() == "two"


def test_connect_comes_first_and_what_the_client_sends_meanwhile_waits(world):
    go_on = Event()

    def connect(consumer):
        consumer.accept()
        go_on.wait()

    consumer = Recorded(connect=connect)
    opened = world.open(consumer)
    opened.peer.text("early")
    turn(5)
    assert consumer.calls == [("connect",)]
    go_on.set()
    wait_until(lambda: consumer.calls == [("connect",), ("receive", "early")], what="the message")


def work(seconds=0.001):
    """Compute, without giving another greenlet a turn."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_many_events_at_once_give_others_their_turn(world):
    """A message of another socket is read and handled before all of them are."""
    seen = []

    def happened(consumer, number):
        if number == 0:
            at_other.peer.text("hello")
        work()
        seen.append("busy")

    at_busy = world.open(Recorded(happened=happened))
    at_other = world.open(Recorded(receive=lambda consumer, message: seen.append("other")))
    for number in range(20 * module.TURN):
        world.send(at_busy.name, number)
    wait_until(lambda: len(seen) == 20 * module.TURN + 1, what="all handlers")
    assert seen.index("other") < 10 * module.TURN


def test_many_messages_at_once_give_others_their_turn(world):
    seen = []

    def receive(consumer, message):
        if message == "0":
            at_other.peer.text("hello")
        work()
        seen.append("busy")

    at_busy = world.open(Recorded(receive=receive))
    at_other = world.open(Recorded(receive=lambda consumer, message: seen.append("other")))
    at_busy.peer.send(text(*map(str, range(300))))
    wait_until(lambda: len(seen) == 301, what="all handlers")
    assert seen.index("other") < 200


def test_a_loop_that_sends_to_a_client_that_reads_fast_gives_others_their_turn(world):
    seen = []

    def flood(consumer, message):
        at_other.peer.text("hello")
        for number in range(20 * module.TURN):
            consumer.send(str(number))
            work()
            seen.append("flood")

    at_busy = world.open(Recorded(receive=flood))
    at_other = world.open(Recorded(receive=lambda consumer, message: seen.append("other")))
    reader = gevent.spawn(at_busy.peer.messages, 20 * module.TURN)
    at_busy.peer.text("go")
    assert reader.get(timeout=WAIT) == [str(number) for number in range(20 * module.TURN)]
    wait_until(lambda: "other" in seen, what="the other one")
    assert seen.index("other") < 10 * module.TURN


# The handshake.


def test_connect_returns_the_subprotocol_and_accept_returns_when_the_101_is_out(world, pair):
    seen = []

    def connect(consumer):
        consumer.accept("chat")
        seen.append("accepted")
        consumer.send("welcome")

    runner = world.runner(Recorded(connect=connect), subprotocols=["soap", "chat"])
    assert runner.connect() == ("chat", ())
    turn()
    assert seen == []
    transport, peer = pair()
    connection = WebSocket(transport, runner, Bounds(1000, 1000), dialect=CONSUMER)
    world.hub.open(connection, world.hub.admission.take())
    runner.opened(connection)
    assert peer.message() == "welcome"
    assert seen == ["accepted"]


@pytest.mark.parametrize(
    ("connect", "status", "words", "code"),
    [
        (lambda consumer: consumer.close(), 403, "Sign in, perhaps", 1006),
        (lambda consumer: consumer.close(4000, "Grüße"), 403, "Grüße", 1006),
        (raising(DenyConnection()), 403, "Sign in, perhaps", 1006),
        (raising(StopConsumer()), 403, "", 1006),
        (lambda consumer: None, 500, "the site's log says why", 1011),
        (raising(ZeroDivisionError("a secret")), 500, "the site's log says why", 1011),
        (raising(gevent.Timeout(1)), 500, "the site's log says why", 1011),
        (lambda consumer: sys.exit("a secret"), 500, "the site's log says why", 1011),
        (lambda consumer: consumer.accept("chat"), 500, "the site's log says why", 1011),
        (lambda consumer: consumer.send("early"), 500, "the site's log says why", 1011),
        (lambda consumer: consumer.close(1005), 500, "the site's log says why", 1011),
    ],
)
def test_a_consumer_that_does_not_accept_refuses_the_handshake(world, connect, status, words, code):
    consumer = Recorded(connect=connect)
    with pytest.raises(Refused) as refused:
        world.open(consumer)
    assert refused.value.status == status
    assert words in refused.value.reason
    assert "secret" not in refused.value.reason
    assert consumer.ended() == code


@pytest.mark.parametrize("error", [PermissionDenied("a secret"), RedisError("a secret")])
def test_errors_that_have_a_response_of_their_own_get_it(world, error):
    consumer = Recorded(connect=raising(error))
    with pytest.raises(type(error)) as raised:
        world.open(consumer)
    assert raised.value is error
    assert consumer.ended() == 1006


def test_a_site_that_forgets_to_decide_is_told_so(world, caplog):
    with pytest.raises(Refused):
        world.open(Recorded(connect=lambda consumer: None))
    assert "Recorded at '/ws/room/' for AnonymousUser None failed to handle an event websocket.connect" in caplog.text
    assert "connect() has called neither accept() nor close()" in caplog.text


def test_a_subprotocol_that_was_not_offered_is_the_consumers_fault_and_may_be_handled(world):
    errors = []

    def connect(consumer):
        try:
            consumer.accept("chat")
        except ValueError as exc:
            errors.append(str(exc))
            consumer.accept("soap")

    runner = world.runner(Recorded(connect=connect), subprotocols=["soap"])
    assert runner.connect() == ("soap", ())
    assert errors == ["the client has not offered the subprotocol 'chat'"]
    runner.failed()


def test_a_client_that_is_gone_before_the_101_ends_accept(world):
    """The request's greenlet says so: the 101 could not be sent, or the handshake took too long."""
    raised = []

    def connect(consumer):
        try:
            consumer.accept()
        except BaseException as exc:
            raised.append(type(exc))
            raise

    consumer = Recorded(connect=connect)
    runner = world.runner(consumer)
    assert runner.connect() == (None, ())
    runner.failed()
    assert consumer.ended() == 1006
    assert raised == [Disconnected]


def test_a_handshake_that_takes_too_long_ends_connect_in_its_sleep(world):
    consumer = Recorded(connect=sleeping)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        world.open(consumer)
    assert consumer.ended() == 1006


def test_accepting_after_it_has_been_called_off_is_disconnected(world):
    go_on, raised = Event(), []

    def connect(consumer):
        go_on.wait()
        try:
            consumer.accept()
        except Disconnected:
            raised.append("Disconnected")

    consumer = Recorded(connect=connect)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        world.open(consumer)
    go_on.set()
    assert consumer.ended() == 1006
    assert raised == ["Disconnected"]


def test_accepting_twice_is_an_error(world):
    consumer = Recorded(connect=lambda consumer: (consumer.accept(), consumer.accept()))
    opened = world.open(consumer)
    assert closing(opened) == 1011
    assert consumer.ended() == 1011


@pytest.mark.parametrize(
    ("then", "code"),
    [
        (lambda consumer: consumer.close(4000), 4000),
        (raising(StopConsumer()), 1000),
        (raising(ZeroDivisionError()), 1011),
        (lambda consumer: gevent.getcurrent().kill(), 1000),
    ],
)
def test_what_ends_it_while_it_is_opening_is_not_forgotten(world, pair, then, code):
    """A thread of the consumer accepts; the handler itself does not wait for the 101."""

    def connect(consumer):
        threading.Thread(target=consumer.accept).start()
        wait_until(lambda: runner._state is State.OPENING, what="accept() in the thread")
        then(consumer)

    consumer = Recorded(connect=connect)
    runner = world.runner(consumer)
    runner.connect()
    wait_until(lambda: runner.greenlet is None, what="the end of connect()")
    transport, peer = pair()
    connection = WebSocket(transport, runner, Bounds(1000, 1000), dialect=CONSUMER)
    world.hub.open(connection, world.hub.admission.take())
    runner.opened(connection)
    assert Close.parse(peer.frame().data).code == code
    assert consumer.ended() == code


def test_a_connection_that_breaks_while_it_is_opening_ends_accept(world, pair):
    raised = []

    def connect(consumer):
        try:
            consumer.accept()
        except Disconnected:
            raised.append("Disconnected")

    consumer = Recorded(connect=connect)
    runner = world.runner(consumer)
    runner.connect()
    transport, _ = pair()
    connection = WebSocket(transport, runner, Bounds(1000, 1000), dialect=CONSUMER)
    world.hub.open(connection, world.hub.admission.take())
    connection.abort()
    runner.opened(connection)
    assert consumer.ended() == 1006
    assert raised == ["Disconnected"]


def test_close_after_close_does_nothing_before_accept_either(world):
    consumer = Recorded(connect=lambda consumer: (consumer.close(reason="one"), consumer.close(reason="two")))
    with pytest.raises(Refused, match="one"):
        world.open(consumer)
    assert consumer.ended() == 1006


def test_disconnect_is_not_called_where_connect_was_not(world):
    consumer = Recorded()
    world.runner(consumer).failed()
    turn(5)
    assert consumer.calls == []


# Every way in which a socket can end: disconnect() is called once, last, with its code.


def drop(opened):
    opened.peer.close()


def reset(opened):
    opened.connection.abort()


WAYS = {
    "close 1000": (lambda opened: opened.peer.send(close_frame(1000)), 1000),
    "close 4321": (lambda opened: opened.peer.send(close_frame(4321, "bye")), 4321),
    "close without a code": (lambda opened: opened.peer.send(masked(Opcode.CLOSE)), 1005),
    "close and drop": (lambda opened: (opened.peer.send(close_frame(3000)), opened.peer.close()), 3000),
    "drop": (drop, 1006),
    "reset": (reset, 1006),
    "not masked": (lambda opened: opened.peer.send(Frame(Opcode.TEXT, b"x").serialize(mask=False)), 1002),
    "not UTF-8": (lambda opened: opened.peer.send(masked(Opcode.TEXT, b"\xff")), 1007),
    "too large": (lambda opened: opened.peer.send(masked(Opcode.TEXT, b"x" * 70_000)), 1009),
    "the server": (lambda opened: opened.connection.close(1012, "server restarting"), 1012),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("busy", ["idle", "in a handler", "in accept"])
def test_disconnect_is_called_once_with_the_code(world, way, busy):
    end, code = WAYS[way]

    def connect(consumer):
        consumer.accept()
        if busy == "in accept":
            time.sleep(LONG)

    consumer = Recorded(receive=sleeping, connect=connect)
    opened = world.open(consumer)
    if busy == "in a handler":
        opened.peer.text("go")
        wait_until(lambda: consumer.got("receive"), what="the handler")
    end(opened)
    assert consumer.ended() == code
    assert opened.runner.greenlet is None


@pytest.mark.parametrize(
    ("handler", "sent", "code"),
    [
        (lambda consumer, *_: consumer.close(), 1000, 1000),
        (lambda consumer, *_: consumer.close(4000, "x"), 4000, 4000),
        (lambda consumer, *_: consumer.send("last", close=True), 1000, 1000),
        (lambda consumer, *_: consumer.send("last", close=4001), 4001, 4001),
        (raising(StopConsumer()), 1000, 1000),
        (raising(ZeroDivisionError("a secret")), 1011, 1011),
        (raising(gevent.Timeout(1)), 1011, 1011),
        (lambda *_: sys.exit(1), 1011, 1011),
        (raising(asyncio.CancelledError()), 1011, 1011),
        (lambda consumer, *_: consumer.close(1005), 1011, 1011),
        (lambda consumer, *_: consumer.close(reason="x" * 124), 1011, 1011),
        (lambda consumer, *_: consumer.send(), 1011, 1011),
        (lambda consumer, *_: consumer.send({"no": "text"}), 1011, 1011),
        (lambda consumer, *_: gevent.getcurrent().kill(), 1000, 1000),
    ],
)
@pytest.mark.parametrize("where", ["connect", "receive", "happened"])
def test_what_a_handler_does_ends_its_socket_and_no_other(world, handler, sent, code, where):
    def connect(consumer):
        consumer.accept()
        if where == "connect":
            handler(consumer)

    consumer = Recorded(receive=handler, happened=handler, connect=connect)
    neighbour = Recorded(receive=lambda consumer, message: consumer.send(message))
    opened, other = world.open(consumer), world.open(neighbour)
    if where == "receive":
        opened.peer.text("go")
    elif where == "happened":
        world.send(opened.name, 1)
    while (frame := opened.peer.frame()).opcode is Opcode.TEXT:
        assert frame.data == b"last"
    assert Close.parse(frame.data).code == sent
    assert consumer.ended() == code
    other.peer.text("hello")
    assert other.peer.message() == "hello"


def test_a_greenlet_that_is_killed_from_outside_closes_its_socket(world):
    consumer = Recorded(receive=sleeping)
    opened = world.open(consumer)
    opened.peer.text("go")
    wait_until(lambda: consumer.got("receive"), what="the handler")
    gevent.spawn(opened.runner.greenlet.kill).join(WAIT)
    assert consumer.ended() == 1000
    assert closing(opened) == 1000


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a bug of the site"), StopConsumer(), gevent.Timeout(1), SystemExit(), Disconnected()]
)
def test_an_error_in_disconnect_is_the_end_all_the_same(world, error, caplog):
    consumer = Recorded(disconnect=raising(error))
    opened = world.open(consumer)
    opened.peer.send(close_frame(1001))
    assert consumer.ended() == 1001
    assert opened.peer.closing() == 1001
    unexpected = isinstance(error, (ZeroDivisionError, gevent.Timeout, SystemExit))
    assert ("failed to handle an event websocket.disconnect" in caplog.text) == unexpected


def test_two_ends_at_once_are_one(world):
    def receive(consumer, message):
        consumer.close(4000)
        raise ZeroDivisionError

    consumer = Recorded(receive=receive)
    opened = world.open(consumer)
    opened.peer.send(text("go"), close_frame(3000))
    code = consumer.ended()
    opened.connection.close(1012)
    opened.connection.abort()
    turn(5)
    assert consumer.got("disconnect") == [code]
    assert code in (3000, 4000)


def test_what_the_client_sent_before_it_left_is_handled_before(world):
    go_on = Event()
    consumer = Recorded(receive=lambda *_: go_on.wait())
    opened = world.open(consumer)
    opened.peer.send(text("one", "two", "three"), close_frame(1000))
    opened.peer.close()
    wait_until(lambda: opened.runner._state is State.LEFT, what="the end of the connection")
    go_on.set()
    assert consumer.ended() == 1000
    assert consumer.got("receive") == ["one", "two", "three"]


def test_a_handler_that_is_ended_takes_nothing_from_the_messages_behind_it(world):
    consumer = Recorded(receive=sleeping)
    opened = world.open(consumer)
    opened.peer.send(text("one", "two", "three"), close_frame(1000))
    assert consumer.ended() == 1000
    assert consumer.got("receive") == ["one", "two", "three"]


def test_events_of_others_are_not_handled_when_the_client_has_left(world):
    go_on = Event()
    consumer = Recorded(receive=lambda *_: go_on.wait())
    opened = world.open(consumer)
    opened.peer.send(text("one"))
    wait_until(lambda: consumer.got("receive"), what="the handler")
    world.send(opened.name, 1)
    opened.peer.close()
    wait_until(lambda: opened.runner._state is State.LEFT, what="the end of the connection")
    world.send(opened.name, 2)
    go_on.set()
    assert consumer.ended() == 1006
    assert consumer.got("happened") == []
    world.members.put(opened.name, b"nobody is there")


@pytest.mark.parametrize("error", [StopConsumer(), ZeroDivisionError()])
def test_a_consumer_that_has_stopped_or_failed_is_asked_nothing_more(world, error):
    consumer = Recorded(receive=raising(error))
    opened = world.open(consumer)
    opened.peer.send(text("one", "two", "three"))
    assert consumer.ended() in (1000, 1011)
    assert consumer.got("receive") == ["one"]


def test_when_the_worker_ends_it_waits_for_handlers_but_not_for_ever(world):
    go_on = Event()
    consumer = Recorded(disconnect=lambda *_: go_on.wait())
    opened = world.open(consumer)
    opened.connection.close(1012, "server restarting")
    world.consumers.wait(0.05)
    assert consumer.got("disconnect") == [1012]
    waiting = gevent.spawn(world.consumers.wait, LONG)
    turn(5)
    assert not waiting.ready()
    go_on.set()
    waiting.get(timeout=WAIT)
    assert not world.consumers.running


def test_when_the_worker_ends_a_handler_is_ended_in_time_for_its_disconnect(world):
    """In any place; HANDLER_TIMEOUT would be too late."""
    raised, slept = [], []

    def receive(consumer, message):
        try:
            Event().wait()
        except BaseException as exc:
            raised.append(type(exc))
            raise

    def disconnect(consumer, code):
        time.sleep(0.05)
        slept.append(code)

    consumer = Recorded(receive=receive, disconnect=disconnect)
    opened = world.open(consumer)
    opened.peer.send(text("one"))
    wait_until(lambda: consumer.got("receive"), what="the handler")
    opened.connection.close(1012, "server restarting")
    world.consumers.wait(4)
    assert not world.consumers.running
    assert raised == [Disconnected]
    assert slept == [1012]
    assert consumer.ended() == 1012


def test_a_handler_that_ends_by_itself_just_then_leaves_its_disconnect_in_peace(world):
    go_on, slept = Event(), []

    def disconnect(consumer, code):
        time.sleep(0.05)
        slept.append(code)

    consumer = Recorded(receive=lambda *_: go_on.wait(), disconnect=disconnect)
    opened = world.open(consumer)
    opened.peer.text("go")
    wait_until(lambda: consumer.got("receive"), what="the handler")
    opened.connection.close(1012)
    turn(5)
    go_on.set()  # it goes on in the next turn
    opened.runner.give_up()
    assert consumer.ended() == 1012
    wait_until(lambda: slept == [1012], what="the end of disconnect()")


def test_those_that_are_cut_off_are_told_of(world, caplog):
    go_on = Event()
    consumer = Recorded(disconnect=lambda *_: go_on.wait())
    opened = world.open(consumer)
    opened.connection.close(1012)
    wait_until(lambda: consumer.got("disconnect"), what="disconnect()")
    world.consumers.wait(0.05)
    assert "The worker stops before 1 consumers have finished: they are cut off" in caplog.text
    go_on.set()


def test_what_waits_then_gives_way_to_disconnect(world):
    consumer = Recorded(receive=lambda *_: Event().wait())
    opened = world.open(consumer)
    opened.peer.send(text("one", "two", "three"))
    wait_until(lambda: consumer.got("receive"), what="the handler")
    opened.connection.close(1012, "server restarting")
    world.consumers.wait(1)
    assert consumer.ended() == 1012
    assert consumer.got("receive") == ["one"]


def test_a_handshake_that_the_end_of_the_worker_interrupts_may_be_tried_again(world):
    consumer = Recorded(connect=lambda *_: Event().wait())
    opening = gevent.spawn(world.open, consumer)
    wait_until(lambda: consumer.calls, what="connect()")
    world.consumers.wait(0.2)
    with pytest.raises(Refused) as refused:
        opening.get(timeout=WAIT)
    assert refused.value.status == 503
    assert dict(refused.value.headers)["Retry-After"] == "5"
    assert consumer.ended() == 1012


def test_the_code_is_a_plain_number(world):
    """``str()`` of a code of the library contains its name, with Python 3.10."""
    consumer = Recorded()
    world.open(consumer).peer.close()
    assert type(consumer.ended()) is int


# Handlers that go on without their client.


@pytest.fixture
def short(with_settings):
    """A handler may go on for a moment only."""
    with_settings(WSLOOP={"HANDLER_TIMEOUT": 1})


def test_a_handler_that_sleeps_is_ended_at_once(world):
    """Long before HANDLER_TIMEOUT; ``except Exception`` does not catch it."""
    swallowed = []

    def loop(consumer, message):
        while True:
            try:
                time.sleep(LONG)
            except Exception as exc:
                swallowed.append(exc)

    consumer = Recorded(receive=loop)
    opened = world.open(consumer)
    opened.peer.text("go")
    wait_until(lambda: consumer.got("receive"), what="the handler")
    opened.peer.close()
    assert consumer.ended() == 1006
    assert swallowed == []


def test_send_raises_disconnected_when_the_client_has_left(world):
    go_on, raised = Event(), []

    def receive(consumer, message):
        go_on.wait()
        try:
            consumer.send("nobody")
        except Disconnected:
            raised.append("Disconnected")
            raise

    consumer = Recorded(receive=receive)
    opened = world.open(consumer)
    opened.peer.text("go")
    wait_until(lambda: consumer.got("receive"), what="the handler")
    opened.peer.close()
    wait_until(lambda: opened.runner._state is State.LEFT, what="the end of the connection")
    go_on.set()
    assert consumer.ended() == 1006
    assert raised == ["Disconnected"]


def test_send_raises_disconnected_after_ones_own_close(world):
    raised = []

    def receive(consumer, message):
        consumer.close(4000)
        try:
            consumer.send("nobody")
        except Disconnected:
            raised.append("Disconnected")

    consumer = Recorded(receive=receive)
    world.open(consumer).peer.text("go")
    assert consumer.ended() == 4000
    assert raised == ["Disconnected"]


def test_a_handler_of_another_consumer_is_not_ended_by_sending_to_one_that_has_left(world):
    """It has a client of its own."""
    go_on = Event()
    gone = Recorded(receive=lambda *_: go_on.wait())
    at_gone = world.open(gone)
    at_gone.peer.text("work")
    wait_until(lambda: gone.got("receive"), what="the handler")
    at_gone.peer.close()
    wait_until(lambda: at_gone.runner._state is State.LEFT, what="the end of the connection")

    def receive(consumer, message):
        gone.send(message)
        consumer.send(message)

    other = world.open(Recorded(receive=receive))
    other.peer.text("hello")
    assert other.peer.message() == "hello"
    assert other.connection.open
    go_on.set()
    assert gone.ended() == 1006


def test_a_loop_that_ignores_that_the_client_has_left_lets_others_go_on(world):
    tries = []

    def receive(consumer, message):
        while len(tries) < 100_000:
            try:
                consumer.send("tick")
            except Disconnected:
                tries.append("nobody")

    opened = world.open(Recorded(receive=receive))
    other = world.open(Recorded(receive=lambda consumer, message: consumer.send(message)))
    opened.peer.text("go")
    opened.peer.close()
    wait_until(lambda: tries, what="the loop going on")
    other.peer.text("hello")
    assert other.peer.message() == "hello"
    assert len(tries) < 100_000
    tries += ["enough"] * 100_000


@pytest.mark.parametrize(
    "use",
    [
        lambda consumer, layer: consumer.send("hello"),
        lambda consumer, layer: consumer.close(),
        lambda consumer, layer: consumer.accept(),
        lambda consumer, layer: consumer.receive("hello"),
        lambda consumer, layer: consumer.websocket_receive({"type": "websocket.receive", "text": "hello"}),
        lambda consumer, layer: consumer.disconnect(1000),
        lambda consumer, layer: layer.send(consumer.channel_name, {"type": "happened", "number": 1}),
        lambda consumer, layer: layer.group_send("group", {"type": "happened", "number": 1}),
        lambda consumer, layer: layer.group_add("group", consumer.channel_name),
        lambda consumer, layer: layer.group_discard("group", consumer.channel_name),
    ],
)
def test_a_thread_of_the_operating_system_is_told_to_leave_it_to_the_handler(world, use):
    """It would start a greenlet that never runs."""
    leaves = []

    def disconnect(consumer, code):
        leaves.append(code)
        world.layer.group_discard("group", consumer.channel_name)

    consumer = Recorded(receive=lambda consumer, message: consumer.send(message), disconnect=disconnect)
    opened = world.open(consumer)
    pool = ThreadPool(1)
    try:
        with pytest.raises(RuntimeError, match="belong to the worker's own thread"):
            pool.apply(use, [consumer, world.layer])
    finally:
        pool.kill()
    consumer.at_once = 0  # of the calls in the thread
    opened.peer.text("nothing is broken by it")
    assert opened.peer.message() == "nothing is broken by it"
    assert consumer.got("happened") == []
    opened.peer.close()
    wait_until(lambda: leaves[-1:] == [1006], what="disconnect()")


@pytest.mark.parametrize("spawn", [gevent.spawn, lambda call: threading.Thread(target=call).start()])
def test_many_greenlets_of_a_consumer_may_use_it_at_once(world, spawn):
    """They call what a handler calls, while a handler runs: no message is torn apart, and none is missing."""

    class Busy(SyncConsumer):
        def websocket_connect(self, event):
            self.send({"type": "websocket.accept"})

        def websocket_receive(self, event):
            for number in range(20):
                spawn(lambda number=number: self.answer({"text": f"{event['text']} {number} " + "x" * 5000}))
            self.answer({"text": "the handler"})

        def answer(self, event):
            self.send({"type": "websocket.send", "text": event["text"]})
            world.layer.send(self.channel_name, {"type": "happened"})
            gevent.sleep(0)
            self.send({"type": "websocket.send", "bytes": event["text"].encode()})

        def happened(self, event):
            pass

        def websocket_disconnect(self, event):
            raise StopConsumer

    opened = world.open(Busy(), max_queued_bytes=20_000)
    opened.peer.text("go")
    got = [opened.peer.message() for _ in range(42)]
    told = {each for each in got if isinstance(each, str)}
    assert told == {each.decode() for each in got if isinstance(each, bytes)}
    assert told == {"the handler", *(f"go {number} " + "x" * 5000 for number in range(20))}
    opened.peer.close()


def test_greenlets_that_outlive_their_client_end_when_they_send(world):
    ended = []

    def work(consumer):
        try:
            while True:
                consumer.send("x")
                gevent.sleep(0.001)
        except Disconnected:
            ended.append("Disconnected")

    consumer = Recorded(receive=lambda consumer, message: [gevent.spawn(work, consumer) for _ in range(3)])
    opened = world.open(consumer)
    opened.peer.text("go")
    assert opened.peer.message() == "x"
    opened.peer.close()
    assert consumer.ended() == 1006
    wait_until(lambda: len(ended) == 3, what="their end")


def test_a_thread_that_a_handler_has_started_may_send_and_is_told_of_the_end(world):
    told, go_on = [], Event()

    def work(consumer):
        consumer.send("from a thread")
        go_on.wait()
        try:
            consumer.send("nobody")
        except Disconnected:
            told.append("Disconnected")

    consumer = Recorded(receive=lambda consumer, message: threading.Thread(target=work, args=(consumer,)).start())
    opened = world.open(consumer)
    opened.peer.text("go")
    assert opened.peer.message() == "from a thread"
    opened.peer.close()
    assert consumer.ended() == 1006
    go_on.set()
    wait_until(lambda: told, what="the end")


def test_a_handler_that_goes_on_is_ended_after_the_timeout_wherever_it_waits(world, short, caplog):
    raised = []

    def receive(consumer, message):
        try:
            Event().wait()
        except BaseException as exc:
            raised.append(type(exc))
            raise

    consumer = Recorded(receive=receive)
    opened = world.open(consumer)
    opened.peer.text("go")
    wait_until(lambda: consumer.got("receive"), what="the handler")
    began = time.monotonic()
    opened.peer.close()
    assert consumer.ended() == 1006
    assert time.monotonic() - began >= 1
    assert raised == [Disconnected]
    assert "Ended a handler of Recorded at '/ws/room/' for AnonymousUser None that went on for too long" in caplog.text


def test_so_is_disconnect_itself_and_it_may_sleep_until_then(world, short):
    slept = []

    def disconnect(consumer, code):
        time.sleep(0.05)
        slept.append("slept")
        Event().wait()

    consumer = Recorded(disconnect=disconnect)
    opened = world.open(consumer)
    opened.peer.close()
    assert consumer.ended() == 1006
    wait_until(world.nothing_is_left, what="the end of disconnect()")
    assert slept == ["slept"]


def test_one_that_swallows_everything_is_told_again_but_not_logged_again(world, short, monkeypatch, caplog):
    monkeypatch.setattr(runner, "HANDLER_CHECK_INTERVAL", 0.02)
    swallowed = []

    def receive(consumer, message):
        while len(swallowed) < 10:
            try:
                Event().wait()
            except BaseException as exc:
                swallowed.append(type(exc))

    consumer = Recorded(receive=receive)
    opened = world.open(consumer)
    opened.peer.text("go")
    wait_until(lambda: consumer.got("receive"), what="the handler")
    opened.peer.close()
    assert consumer.ended() == 1006
    assert swallowed == [Disconnected] * 10
    assert caplog.text.count("that went on for too long") == 1


def test_what_the_client_sent_before_it_left_may_take_its_time_in_all(world, with_settings):
    with_settings(WSLOOP={"HANDLER_TIMEOUT": 30})
    done = []

    def receive(consumer, message):
        Event().wait(0.02)
        done.append(message)

    consumer = Recorded(receive=receive)
    opened = world.open(consumer)
    opened.peer.send(text(*map(str, range(10))))
    opened.peer.close()
    assert consumer.ended() == 1006
    assert done == [str(number) for number in range(10)]


def test_and_no_longer_however_many_they_are(world, short):
    consumer = Recorded(receive=lambda *_: Event().wait(0.1))
    opened = world.open(consumer)
    opened.peer.send(text(*map(str, range(300))))
    began = time.monotonic()
    opened.peer.close()
    assert consumer.ended() == 1006
    assert 0 < len(consumer.got("receive")) < 50
    assert time.monotonic() - began < 15, "not 30 seconds"


def test_disconnect_has_its_time_even_if_nothing_was_left_for_it(world, short):
    slept = []

    def disconnect(consumer, code):
        Event().wait(0.1)
        slept.append(code)

    consumer = Recorded(receive=lambda *_: Event().wait(), disconnect=disconnect)
    opened = world.open(consumer)
    opened.peer.send(text("one", "two"))
    wait_until(lambda: consumer.got("receive"), what="the handler")
    opened.peer.close()
    assert consumer.ended() == 1006
    wait_until(lambda: slept == [1006], what="the end of disconnect()")
    assert consumer.got("receive") == ["one"]


def test_one_that_waits_for_redis_when_its_time_is_over_leaves_nothing(world, gate, facility, with_settings):
    with_settings(WSLOOP={"HANDLER_TIMEOUT": 0.2, "REDIS_TIMEOUT": 40})
    world.broker.ready()
    gate.hold("SUBSCRIBE")
    consumer = Recorded(receive=lambda consumer, _: consumer.channel_layer.group_add(facility, consumer.channel_name))
    opened = world.open(consumer)
    opened.peer.text("go")
    gate.wait_for(1)
    opened.peer.close()
    assert consumer.ended() == 1006
    gate.hold()
    gate.let_through(len(gate.held))


def test_a_greenlet_that_is_killed_between_two_handlers_is_replaced(world, monkeypatch):
    """By a ``gevent.Timeout`` that a handler has forgotten, for example."""
    monkeypatch.setattr(world.consumers.scheduler, "yield_turn", lambda flow: Event().wait())
    monkeypatch.setattr(gevent.get_hub(), "print_exception", lambda *_: None)
    consumer = Recorded()
    opened = world.open(consumer)
    for number in range(module.TURN + 1):
        world.send(opened.name, number)
    wait_until(lambda: len(consumer.got("happened")) == module.TURN, what="the pause between two")
    monkeypatch.undo()
    opened.runner.greenlet.kill(gevent.Timeout(1))
    wait_until(lambda: consumer.got("happened") == list(range(module.TURN + 1)), what="the rest")
    opened.peer.close()
    assert consumer.ended() == 1006


# The turns of many.


def members_and_neighbour(world, consumer_class, count):
    """Open consumers that get 20 events each, and one whose client sends two messages; return who handled what."""
    seen = []
    group = b"unit:wsloop:group:many"
    events = [layers.encode({"type": "happened", "number": number}) for number in range(20)]
    members = [
        world.open(consumer_class(happened=lambda own, number, name=name: seen.append((name, number))))
        for name in range(count)
    ]
    neighbour = world.open(consumer_class(receive=lambda own, text: seen.append(text)))
    for each in members:
        world.members.subscribe(each.runner, group)
    for payload in events:
        world.members.deliver(group, payload)
    neighbour.peer.send(text("first", "second"))
    wait_until(lambda: len(seen) == 20 * count + 2, what="all events and both messages")
    for name in range(count):
        assert [each[1] for each in seen if each[0] == name] == [*range(20)], "in order"
    for each in (*members, neighbour):
        each.connection.abort()
    return seen


def test_a_neighbour_does_not_wait_for_a_group(world, shared_redis):
    seen = members_and_neighbour(world, Recorded, 300)
    assert seen.index("first") < seen.index("second") < 6000 / 4


# The inbox: messages of the client.


def test_a_client_that_sends_faster_than_it_is_handled_is_not_read(world):
    go_on = Event()
    consumer = Recorded(receive=lambda *_: go_on.wait())
    opened = world.open(consumer)
    for number in range(MAX_MESSAGES + 1):  # one is being handled
        opened.peer.text(str(number))
        turn()
        assert opened.connection.held == (number >= MAX_MESSAGES), number
    assert opened.runner._inbox.messages == MAX_MESSAGES
    for number in range(MAX_MESSAGES + 1, 100):
        opened.peer.text(str(number))
        turn(1)
    assert opened.runner._inbox.messages == MAX_MESSAGES
    go_on.set()
    wait_until(lambda: len(consumer.got("receive")) == 100, what="all messages")
    assert consumer.got("receive") == [str(number) for number in range(100)]
    turn()
    assert not opened.connection.held
    assert opened.connection._held == 0
    assert not world.consumers.full


def test_it_is_read_again_when_half_of_what_waited_is_handled(world):
    tickets = Semaphore(0)
    consumer = Recorded(receive=lambda *_: tickets.acquire())
    opened = world.open(consumer)
    for number in range(MAX_MESSAGES + 1):
        opened.peer.text(str(number))
        turn()
    for _ in range(MAX_MESSAGES):
        waiting = opened.runner._inbox.messages  # without the one whose handler runs
        assert opened.connection.held if waiting >= MAX_MESSAGES // 2 else True
        assert not opened.connection.held if waiting < MAX_MESSAGES // 2 - 1 else True
        tickets.release()
        turn(5)
    tickets.release()


def test_holding_and_letting_go_are_balanced_over_many_bursts(world):
    consumer = Recorded(receive=lambda *_: gevent.sleep(0))
    opened = world.open(consumer)
    sent = 0
    for size in (1, 15, 16, 17, 31, 32, 33, 200, 400):
        opened.peer.send(text(*(str(number) for number in range(sent, sent + size))))
        sent += size
        turn(2)
    wait_until(lambda: len(consumer.got("receive")) == sent, what="all messages")
    turn()
    assert consumer.got("receive") == [str(number) for number in range(sent)]
    assert opened.connection._held == 0
    assert not world.consumers.full
    assert not world.consumers._timer.active


def test_tiny_messages_in_one_piece_are_bounded_too(world):
    go_on = Event()
    opened = world.open(Recorded(receive=lambda *_: go_on.wait()))
    opened.peer.send(masked(Opcode.TEXT) * 5000)
    turn(10)
    assert MAX_MESSAGES <= opened.runner._inbox.messages <= 400
    go_on.set()


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_client_that_has_filled_the_inbox_and_leaves_is_noticed(world, monkeypatch, how):
    monkeypatch.setattr(world.consumers, "_timer", gevent.get_hub().loop.timer(0.02, 0.02))
    consumer = Recorded(receive=sleeping)
    opened = world.open(consumer)
    opened.peer.send(text(*map(str, range(400))))
    wait_until(lambda: opened.connection.held, what="the full inbox")
    assert len(consumer.got("receive")) == 1
    if how == "close":
        opened.peer.send(close_frame(4321))
    opened.peer.close()
    assert consumer.ended() == (4321 if how == "close" else 1006)
    assert consumer.got("receive") == [str(number) for number in range(400)]


def test_a_handler_of_a_full_inbox_that_sends_is_told_that_the_client_has_left(world, monkeypatch):
    monkeypatch.setattr(world.consumers, "_timer", gevent.get_hub().loop.timer(0.02, 0.02))
    raised = []

    def receive(consumer, message):
        while not opened.runner._client_gone:
            Event().wait(0.01)
        try:
            consumer.send("nobody")
        except Disconnected:
            raised.append(message)
            raise

    consumer = Recorded(receive=receive)
    opened = world.open(consumer)
    opened.peer.send(text(*map(str, range(30))))
    wait_until(lambda: opened.connection.held, what="the full inbox")
    opened.peer.close()
    assert consumer.ended() == 1006
    assert raised == [str(number) for number in range(30)]


def test_a_consumer_that_closes_with_a_full_inbox_leaves_nothing_held(world):
    consumer = Recorded(receive=lambda consumer, message: consumer.close(4000))
    opened = world.open(consumer)
    opened.peer.send(text(*map(str, range(200))))
    assert closing(opened) == 4000
    opened.peer.close()
    assert consumer.ended() == 4000
    wait_until(lambda: not len(world.hub), what="the end of the connection")


# Output to the client.


def test_a_loop_that_sends_waits_for_a_client_that_does_not_read(world, reached):
    sent = []

    def flood(consumer, message):
        for number in range(200):
            consumer.send(bytes_data=b"%03d" % number + bytes(9_997))
            sent.append(number)

    consumer = Recorded(receive=flood)
    opened = world.open(consumer, max_queued_bytes=100_000, send_buffer=4096)
    opened.peer.text("go")
    wait_until(lambda: opened.runner._blocked_sends, what="a full send buffer")
    turn(20)
    assert len(sent) < 30
    assert opened.connection.queued_bytes <= 50_000
    for number in range(200):
        assert opened.peer.message()[:3] == b"%03d" % number
    wait_until(lambda: opened.runner.greenlet is None, what="the end of the handler")
    assert reached("MAX_QUEUED_BYTES") == 0
    assert opened.connection.open


@pytest.mark.parametrize("size", [60_000, 99_000, 100_001, 500_000])
def test_messages_as_large_as_the_bound_and_larger_get_out_one_by_one(world, reached, size):
    consumer = Recorded(receive=lambda consumer, message: [consumer.send(bytes_data=bytes(size)) for _ in range(5)])
    opened = world.open(consumer, max_queued_bytes=100_000, send_buffer=4096)
    opened.peer.text("go")
    assert opened.peer.messages(5) == [bytes(size)] * 5
    assert reached("MAX_QUEUED_BYTES") == 0


def test_threads_that_send_together_wait_for_each_other(world, reached):
    def flood(consumer, message):
        greenlets = [gevent.spawn(consumer.send, bytes_data=bytes(40_000)) for _ in range(20)]
        gevent.joinall(greenlets, raise_error=True)
        consumer.send("end")

    opened = world.open(Recorded(receive=flood), max_queued_bytes=100_000, send_buffer=4096)
    opened.peer.text("go")
    wait_until(lambda: opened.runner._blocked_sends, what="a full send buffer")
    turn(20)
    assert opened.peer.messages(21) == [bytes(40_000)] * 20 + ["end"]
    assert reached("MAX_QUEUED_BYTES") == 0


def test_a_client_that_leaves_while_a_consumer_waits_for_it_ends_the_wait(world):
    raised = []

    def flood(consumer, message):
        try:
            while True:
                consumer.send(bytes_data=bytes(10_000))
        except BaseException as exc:
            raised.append(type(exc))
            raise

    consumer = Recorded(receive=flood)
    opened = world.open(consumer, max_queued_bytes=100_000, send_buffer=4096)
    opened.peer.text("go")
    wait_until(lambda: opened.runner._blocked_sends, what="a full send buffer")
    opened.peer.close()
    assert consumer.ended() == 1006
    assert raised == [Disconnected]
    assert not world.hub._draining


def test_close_sends_first_what_waits(world):
    def receive(consumer, message):
        for number in range(30):
            consumer.send(str(number))
        consumer.close(4000, "Grüße")

    opened = world.open(Recorded(receive=receive))
    opened.peer.text("go")
    assert opened.peer.messages(30) == [str(number) for number in range(30)]
    assert Close.parse(opened.peer.frame().data) == Close(4000, "Grüße")


def test_what_cannot_be_sent_is_refused_without_a_trace_on_the_line(world):
    errors = []

    def receive(consumer, message):
        for wrong in ({"text_data": 1}, {"bytes_data": "text"}, {"text_data": b"bytes"}, {}):
            try:
                consumer.send(**wrong)
            except (TypeError, ValueError) as exc:
                errors.append(type(exc))
        consumer.send(bytes_data=memoryview(b"one"))
        consumer.send(bytes_data=bytearray(b"two"))

    opened = world.open(Recorded(receive=receive))
    opened.peer.text("go")
    assert opened.peer.messages(2) == [b"one", b"two"]
    assert errors == [TypeError, TypeError, TypeError, ValueError]


# The inbox: events of the channel layer.


@pytest.fixture
def small(world, monkeypatch):
    monkeypatch.setattr(world.consumers, "capacity", 10)


def test_only_so_many_events_wait_and_who_sends_more_is_told(world, small, dropped):
    go_on = Event()
    consumer = Recorded(receive=lambda *_: go_on.wait())
    opened = world.open(consumer)
    opened.peer.send(text("go", "more", "more"))
    wait_until(lambda: consumer.got("receive"), what="the handler")
    for number in range(10):
        world.send(opened.name, number)
    for _ in range(5):
        with pytest.raises(ChannelFull, match=f"{opened.name} has 1000 events waiting"):
            world.send(opened.name, 99)
    assert dropped() == 5
    go_on.set()
    wait_until(lambda: len(consumer.got("happened")) == 10, what="the events")
    assert consumer.got("happened") == list(range(10))
    world.send(opened.name, 10)
    wait_until(lambda: len(consumer.got("happened")) == 11, what="one more")
    assert opened.connection.open


@pytest.fixture
def full(world, small, shared_redis, redis_client):
    """Fill a consumer from another process; returns its socket, the sending layer, and whether Redis has the note."""

    def fill(consumer):
        elsewhere = layers.ChannelLayer()
        opened = world.open(consumer)
        world.broker.ready()
        opened.peer.text("go")
        wait_until(lambda: consumer.got("receive"), what="the handler")
        for number in range(11):
            elsewhere.send(opened.name, {"type": "happened", "number": number})

        def noted():
            return redis_client.exists(layers.full_key(opened.name))

        wait_until(noted, what="the note")
        return opened, elsewhere, noted

    return fill


def test_who_sends_from_elsewhere_is_told_while_there_is_no_room(full):
    go_on = Event()
    consumer = Recorded(receive=lambda *_: go_on.wait())
    opened, elsewhere, noted = full(consumer)
    with pytest.raises(ChannelFull):
        elsewhere.send(opened.name, {"type": "happened", "number": 99})
    go_on.set()
    wait_until(lambda: not noted(), what="the end of the note")
    elsewhere.send(opened.name, {"type": "happened", "number": 11})
    wait_until(lambda: consumer.got("happened") == [*range(10), 11], what="the events")


def test_one_that_is_kept_busy_is_not_full_for_that(full, monkeypatch):
    monkeypatch.setattr(groups, "FULL_TTL", LONG)
    steps = Semaphore(0)
    consumer = Recorded(receive=lambda *_: steps.acquire(), happened=lambda *_: steps.acquire())
    opened, elsewhere, noted = full(consumer)
    for _ in range(4):
        steps.release()
    wait_until(lambda: len(consumer.got("happened")) == 4, what="less than half of them")
    turn(20)
    assert noted()
    for _ in range(4):
        steps.release()
    wait_until(lambda: not noted(), what="the end of the note")
    elsewhere.send(opened.name, {"type": "happened", "number": 11})
    for _ in range(10):
        steps.release()
    wait_until(lambda: consumer.got("happened") == [*range(10), 11], what="the events")


def test_events_that_wait_are_bounded_in_bytes_too(world, monkeypatch, dropped):
    monkeypatch.setattr(world.consumers, "max_bytes", 10_000)
    go_on = Event()
    consumer = Recorded(receive=lambda *_: go_on.wait())
    opened = world.open(consumer)
    opened.peer.text("go")
    wait_until(lambda: consumer.got("receive"), what="the handler")

    def send(number, size):
        world.layer.send(opened.name, {"type": "happened", "number": number, "ballast": bytes(size)})

    for number in range(2):
        send(number, 4000)
    with pytest.raises(ChannelFull):
        send(99, 4000)
    send(2, 10)
    assert dropped() == 1
    go_on.set()
    wait_until(lambda: consumer.got("happened") == [0, 1, 2], what="the events")
    assert opened.runner._inbox.events_size == 0
    send(3, 50_000)  # alone it may be larger
    wait_until(lambda: consumer.got("happened") == [0, 1, 2, 3], what="the large one")


def test_messages_of_the_client_take_no_room_of_events(world, monkeypatch):
    monkeypatch.setattr(world.consumers, "capacity", 1)
    go_on = Event()
    consumer = Recorded(receive=lambda *_: go_on.wait())
    opened = world.open(consumer)
    opened.peer.send(text(*map(str, range(10))))
    wait_until(lambda: opened.runner._inbox.messages == 9, what="the messages")
    world.send(opened.name, 1)
    with pytest.raises(ChannelFull):
        world.send(opened.name, 2)
    go_on.set()
    wait_until(lambda: consumer.got("happened") == [1], what="the event")


def test_one_that_waits_for_its_client_and_is_flooded_is_closed_as_too_slow(world, small, dropped):
    def flood(consumer, message):
        while True:
            consumer.send(bytes_data=bytes(10_000))

    consumer = Recorded(receive=flood)
    opened = world.open(consumer, max_queued_bytes=100_000, send_buffer=4096)
    opened.peer.text("go")
    wait_until(lambda: opened.runner._blocked_sends, what="a full send buffer")
    for number in range(10):
        world.send(opened.name, number)
    assert opened.connection.open
    with pytest.raises(ChannelFull):
        world.send(opened.name, 10)
    assert dropped() == 1
    assert consumer.ended() == 4008
    assert consumer.got("happened") == []
    while (frame := opened.peer.frame()).opcode is Opcode.BINARY:
        pass
    assert Close.parse(frame.data).code == 4008


@pytest.mark.parametrize("kind", ["no.such.method", "calls"])
def test_an_event_that_no_method_handles_closes_with_1011_and_is_logged(world, kind, caplog):
    consumer = Recorded()
    opened = world.open(consumer)
    world.layer.send(opened.name, {"type": kind})
    assert closing(opened) == 1011
    assert consumer.ended() == 1011
    assert f"Recorded at '/ws/room/' for AnonymousUser None failed to handle an event {kind}" in caplog.text


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"\xc1", b"hello", b"\x81"),
        *map(msgpack.packb, ([1], "text", 5, None, {}, {"a": 1}, {(1, 2): 3}, {b"type": b"happened"})),
        *(msgpack.packb({"type": kind}) for kind in ("_private", ".hidden", "", 5, None, b"happened", ["happened"])),
    ],
)
def test_what_somebody_else_publishes_for_a_group_ends_nothing(world, shared_redis, facility, payload, caplog):
    """The layer itself refuses all of these."""
    consumer = Recorded()
    consumer.groups = [facility]
    opened = world.open(consumer)
    with shared_redis.client() as redis:
        redis.publish(layers.group_channel(facility), payload)
    world.layer.group_send(facility, {"type": "happened", "number": 1})
    wait_until(lambda: consumer.got("happened"), what="the next event")
    assert opened.connection.open
    assert consumer.calls == [("connect",), ("happened", 1)]
    words = f"Discarded malformed event ({len(payload)} bytes) for Recorded at '/ws/room/' for AnonymousUser None"
    assert words in caplog.text


@pytest.mark.parametrize("payload", [b"", b"hello", b"[1]", b"5", b"\xff", b"[" * 100_000])
def test_garbage_about_presence_ends_nothing(world, shared_redis, facility, payload):
    consumer = Told()
    channel = f"unit:presence:{facility}".encode()
    opened = world.open(consumer, runner=world.runner(consumer, presence=channel))
    with shared_redis.client() as redis:
        redis.publish(channel, payload)
        redis.publish(channel, b'{"event": "leave"}')
    wait_until(lambda: consumer.got("presence"), what="the next event")
    assert consumer.got("presence") == [{"event": "leave", "type": "presence.changed"}]
    assert opened.connection.open


# Groups.


def test_the_groups_are_joined_before_connect_and_left_before_disconnect(world, shared_redis, redis_client, facility):
    channel = layers.group_channel(facility)
    seen = []

    def look(consumer, *_):
        seen.append(channel in world.members._subscribed)

    def connect(consumer):
        look(consumer)
        consumer.accept()

    consumer = Recorded(connect=connect, disconnect=look)
    consumer.groups = [facility]
    opened = world.open(consumer)
    assert redis_client.pubsub_numsub(channel)[0][1] == 1
    opened.peer.close()
    assert consumer.ended() == 1006
    assert seen == [True, False]
    wait_until(lambda: redis_client.pubsub_numsub(channel)[0][1] == 0, what="UNSUBSCRIBE")


def test_a_group_that_cannot_be_joined_refuses_the_handshake(world, use_redis, tmp_path):
    use_redis(types.SimpleNamespace(socket_path=str(tmp_path / "nowhere")))
    consumer = Recorded()
    consumer.groups = ["group"]
    with pytest.raises(RedisError):
        world.open(consumer)
    turn(5)
    assert consumer.calls == []


def test_an_event_for_a_group_reaches_all_of_it_the_sender_included(world, shared_redis, facility):
    def receive(consumer, message):
        consumer.channel_layer.group_send(facility, {"type": "happened", "number": int(message)})

    consumers = [Recorded(receive=receive) for _ in range(3)]
    for consumer in consumers:
        consumer.groups = [facility]
    opened = [world.open(consumer) for consumer in consumers]
    for number in range(20):
        opened[number % 3].peer.text(str(number))
        wait_until(lambda number=number: all(number in each.got("happened") for each in consumers), what="the event")
    assert [consumer.got("happened") for consumer in consumers] == [list(range(20))] * 3


def test_each_member_gets_an_event_of_its_own(world, shared_redis, facility):
    """One that changes it changes nothing for the others."""
    seen = []

    class Careless(Recorded):
        groups = [facility]

        def happened(self, event):
            seen.append(event.pop("number"))
            event["list"].append(1)
            seen.append(event["list"])

    for _ in range(3):
        world.open(Careless())
    world.layer.group_send(facility, {"type": "happened", "number": 1, "list": []})
    wait_until(lambda: len(seen) == 6, what="the events")
    assert seen == [1, [1]] * 3


def test_a_consumer_that_ends_while_it_joins_a_group_leaves_no_subscription(world, gate, facility):
    world.broker.ready()
    gate.hold("SUBSCRIBE")

    def receive(consumer, message):
        consumer.channel_layer.group_add(facility, consumer.channel_name)

    consumer = Recorded(receive=receive)
    opened = world.open(consumer)
    opened.peer.text("go")
    gate.wait_for(1)
    opened.peer.close()
    wait_until(lambda: opened.runner._state is State.LEFT, what="the end of the connection")
    gate.hold()
    gate.let_through()
    assert consumer.ended() == 1006


def test_a_thread_that_joins_a_group_for_a_consumer_that_has_ended_leaves_no_subscription(world, gate, facility):
    world.broker.ready()
    gate.hold("SUBSCRIBE")
    consumer = Recorded()
    opened = world.open(consumer)
    joining = gevent.spawn(world.layer.group_add, facility, opened.name)
    gate.wait_for(1)
    opened.peer.close()
    assert consumer.ended() == 1006
    gate.hold()
    gate.let_through()
    joining.get(timeout=WAIT)
    assert world.nothing_is_left()


def test_consumers_are_told_when_a_broken_subscription_stands_again(world, own_redis, facility, monkeypatch):
    monkeypatch.setattr("wsloop.delivery.broker.LONGEST_PAUSE", 0.05)
    world.broker.ready()
    member, deaf = Told(), Recorded()
    member.groups = deaf.groups = [facility]
    for consumer in (member, deaf):
        world.open(consumer)
    assert member.got("resumed") == []
    own_redis.kill()
    wait_until(lambda: world.broker._down, what="the broken connection")
    own_redis.start()
    wait_until(lambda: member.got("resumed"), what="resumed()")
    assert member.got("resumed") == [{"type": "channel_layer.resumed"}]
    assert deaf.calls == [("connect",)]
    world.layer.group_send(facility, {"type": "happened", "number": 1})
    wait_until(lambda: member.got("happened") == deaf.got("happened") == [1], what="the event")


def test_one_that_is_in_no_group_is_told_too_for_it_may_have_been_sent_to(world, own_redis, monkeypatch):
    monkeypatch.setattr("wsloop.delivery.broker.LONGEST_PAUSE", 0.05)
    world.broker.ready()
    consumer = Told()
    world.open(consumer)
    turn(10)
    assert consumer.calls == [("connect",)]
    own_redis.kill()
    wait_until(lambda: world.broker._down, what="the broken connection")
    own_redis.start()
    wait_until(lambda: consumer.got("resumed"), what="resumed()")


def test_nothing_is_told_before_connect(world, gate, facility):
    """The subscription is resumed while a new consumer waits for it."""
    world.broker.ready()
    consumer = Told()
    gate.hold("SUBSCRIBE")
    opening = gevent.spawn(world.open, consumer, runner=world.runner(consumer, b"unit:presence:" + facility.encode()))
    gate.wait_for(1)
    world.members.resumed()
    turn(30)
    gate.hold()
    gate.let_through()
    opening.get(timeout=WAIT)
    assert consumer.calls[0] == ("connect",)


def test_presence_is_told_to_who_has_a_method_for_it(world, shared_redis, redis_client, facility):
    watching, other = Told(), Recorded()
    channel = f"unit:presence:{facility}".encode()
    for consumer in (watching, other):
        runner = world.runner(consumer, presence=channel)
        world.open(consumer, runner=runner)
    redis_client.publish(channel, '{"event": "join", "user": "john", "type": "of somebody else"}')
    wait_until(lambda: watching.got("presence"), what="the event")
    assert watching.got("presence") == [{"event": "join", "user": "john", "type": "presence.changed"}]
    assert other.calls == [("connect",)]


def test_who_cannot_watch_presence_is_refused_and_not_asked(world, use_redis, tmp_path):
    use_redis(types.SimpleNamespace(socket_path=str(tmp_path / "nowhere")))
    consumer = Told()
    with pytest.raises(RedisError):
        world.open(consumer, runner=world.runner(consumer, presence=b"unit:presence:x"))
    turn(5)
    assert consumer.calls == []


# Everything at once.


@pytest.mark.parametrize("seed", range(6))
def test_after_any_churn_nothing_is_left_and_each_has_ended_once(world, own_redis, facility, with_settings, seed):
    with_settings(WSLOOP={"HANDLER_TIMEOUT": 0.5})
    chance = random.Random(seed)
    world.broker.ready()
    consumers, opened = [], [world.open(Recorded())]

    def act(consumer, *_):
        what = chance.choice(
            ["nothing"] * 6 + ["sleep", "wait", "send", "flood", "close", "stop", "fail", "add", "tell"]
        )
        if what == "sleep":
            time.sleep(chance.choice([0, 0.01, LONG]))
        elif what == "wait":
            Event().wait(chance.choice([0.01, LONG]))
        elif what == "send":
            consumer.send("x" * chance.choice([0, 10, 70_000]))
        elif what == "flood":
            for _ in range(200):
                consumer.send(bytes_data=bytes(chance.choice([1, 1000, 40_000])))
        elif what == "close":
            consumer.close(4000)
        elif what == "stop":
            raise chance.choice([StopConsumer(), DenyConnection(), Disconnected(), SystemExit()])
        elif what == "fail":
            raise ZeroDivisionError
        elif what == "add":
            consumer.channel_layer.group_add(f"{facility}-{chance.randrange(3)}", consumer.channel_name)
        elif what == "tell":
            consumer.channel_layer.group_send(f"{facility}-{chance.randrange(3)}", {"type": "happened", "number": 1})

    def connect(consumer):
        act(consumer) if chance.random() < 0.3 else None
        consumer.accept()
        act(consumer)

    deeds = [
        lambda one: one.peer.send(text(*["x"] * chance.choice([1, 5, 20, 300]))),
        lambda one: one.peer.send(masked(Opcode.BINARY, bytes(1000))),
        lambda one: one.peer.socket.recv(65536, socket.MSG_DONTWAIT),
        lambda one: one.peer.send(close_frame(4321)),
        lambda one: one.peer.close(),
        lambda one: one.connection.close(1012),
        lambda one: one.connection.abort(),
        lambda one: world.layer.send(one.name, {"type": "happened", "number": 1}),
    ]
    for number in range(150):
        if number < 60:
            consumer = Told(connect=connect, receive=act, happened=act, disconnect=act, resumed=act)
            consumer.groups = chance.choice([[], [f"{facility}-0"]])
            consumers.append(consumer)
            with contextlib.suppress(Refused, RedisError, gevent.Timeout), gevent.Timeout(0.2):
                opened.append(world.open(consumer, max_queued_bytes=100_000, send_buffer=4096))
        one = chance.choice(opened)
        one.peer.socket.settimeout(0.02)  # some are not read any more
        with contextlib.suppress(OSError):
            chance.choice(deeds)(one)
        if number in (50, 100):
            own_redis.kill()
            own_redis.start()
        turn(chance.randrange(4))
    for each in opened:
        each.connection.abort()
    wait_until(world.nothing_is_left, timeout=40, what="the end of all consumers")
    for consumer in consumers:
        asked = [call for call in consumer.calls if call[0] == "connect"]
        assert len(consumer.got("disconnect")) == len(asked) <= 1
        assert not asked or consumer.calls[-1][0] == "disconnect"


# Memory and database connections.


class Weak(Recorded):
    """One that can be watched."""


@pytest.mark.parametrize("end", ["close", "exception", "refused", "send"])
def test_nothing_of_a_consumer_is_kept_after_its_end(world, end, monkeypatch):
    monkeypatch.setattr(runner.logger, "disabled", True)  # pytest keeps each record, with the frames of the trace

    def connect(consumer):
        if end == "refused":
            consumer.close()
        else:
            consumer.accept()

    def make():
        consumer = Weak(connect=connect, receive=raising(ZeroDivisionError()))
        user = User(username="john")
        runner = world.runner(consumer, user=user)
        references = [weakref.ref(each) for each in (consumer, user)]
        if end == "refused":
            with pytest.raises(Refused):
                world.open(consumer, runner=runner)
            consumer.ended()
            return references
        opened = world.open(consumer, runner=runner)
        if end == "exception":
            opened.peer.text("go")
        elif end == "send":
            world.send(opened.name, 1)
            turn(5)
            opened.peer.send(close_frame())
        else:
            opened.peer.send(close_frame())
        consumer.ended()
        opened.peer.close()
        wait_until(lambda: not len(world.hub), what="the end of the connection")
        return references

    references = make()
    turn(5)
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


def test_the_runner_forgets_the_consumer_at_once_when_it_has_ended(world):
    consumer = Recorded()
    opened = world.open(consumer)
    opened.peer.close()
    consumer.ended()
    runner = opened.runner
    assert (runner._consumer, runner._connection, runner._timer, runner.greenlet) == (None, None, None, None)
    assert runner._inbox.entries is None
    assert not runner.subscriptions


def test_database_connections_are_given_back_after_each_handler(world, database):
    used = []

    def ask(consumer, *_):
        assert User.objects.count() == 0
        used.append(connections["default"])
        assert used[-1].connection is not None

    def connect(consumer):
        ask(consumer)
        consumer.accept()

    def fail(consumer, *_):
        ask(consumer)
        raise ZeroDivisionError

    consumer = Recorded(connect=connect, receive=ask, happened=fail, disconnect=ask)
    opened = world.open(consumer)
    opened.peer.text("go")
    wait_until(lambda: len(used) == 2, what="the handler")
    world.send(opened.name, 1)
    consumer.ended()
    wait_until(world.nothing_is_left, what="the end")
    assert len(used) == 4
    assert [each.connection for each in used] == [None] * 4


# Limits of the visitor.


@pytest.fixture
def two(world, with_settings):
    """A user who may have two sockets; whether there is room for another one."""
    with_settings(WSLOOP={"MAX_CONNECTIONS_PER_USER": 2})
    user = Visitor(user=1)
    return user, lambda: world.hub.admission.exceeded_limit(user) is None


def test_a_socket_that_has_ended_counts_until_its_handlers_have(world, two):
    user, room = two
    go_on = Event()
    consumers = [Recorded(receive=lambda *_: go_on.wait()) for _ in range(2)]
    for consumer in consumers:
        opened = world.open(consumer, runner=world.runner(consumer, visitor=user))
        opened.peer.text("go")
        wait_until(lambda consumer=consumer: consumer.got("receive"), what="the handler")
        opened.peer.close()
        wait_until(lambda opened=opened: not len(world.hub), what="the end of the connection")
    assert not room()
    assert world.hub.admission.exceeded_limit(Visitor(user=2)) is None
    go_on.set()
    for consumer in consumers:
        assert consumer.ended() == 1006
    wait_until(room, what="room for another one")


def test_so_does_a_handshake_that_was_called_off(world, two):
    user, room = two
    go_on = Event()
    runners = []
    for _ in range(2):
        consumer = Recorded(connect=lambda *_: go_on.wait())
        runners.append(world.runner(consumer, visitor=user))
        opening = gevent.spawn(runners[-1].connect)
        wait_until(lambda consumer=consumer: consumer.calls, what="connect()")
        opening.kill()
        runners[-1].failed()
        runners[-1].failed()
    assert not room()
    go_on.set()
    wait_until(room, what="room for another one")
    wait_until(world.nothing_is_left, what="the end")


# The log.


def test_the_log_names_consumer_path_and_user_and_shows_the_trace_once(world, caplog):
    consumer = Recorded(receive=raising(ZeroDivisionError("a bug of the site")))
    runner = world.runner(consumer, user=User(pk=7, username="john"), path="/ws/chat/lobby/")
    opened = world.open(consumer, runner=runner)
    opened.peer.text("go")
    assert consumer.ended() == 1011
    records = [record for record in caplog.records if record.name == "wsloop.runner"]
    (record,) = records
    assert record.getMessage() == "Recorded at '/ws/chat/lobby/' for User 7 failed to handle an event websocket.receive"
    assert record.levelno == logging.ERROR
    assert caplog.text.count("ZeroDivisionError: a bug of the site") == 1


def test_a_client_that_leaves_is_nothing_to_log(world, caplog):
    consumer = Recorded(receive=sleeping)
    opened = world.open(consumer)
    opened.peer.text("go")
    wait_until(lambda: consumer.got("receive"), what="the handler")
    opened.peer.close()
    consumer.ended()
    assert [record for record in caplog.records if record.name.startswith("wsloop")] == []


class Low(SyncConsumer):
    def __init__(self):
        self.events = []

    def websocket_connect(self, event):
        self.events.append(event)
        self.send({"type": "websocket.accept"})

    def websocket_receive(self, event):
        self.events.append(event)
        self.send({"type": "websocket.send", "text": str(event.get("text"))})

    def websocket_disconnect(self, event):
        self.events.append(event)


def test_the_events_of_a_sync_consumer(world):
    consumer = Low()
    opened = world.open(consumer)
    opened.peer.send(text("one"), masked(Opcode.BINARY, b"two"))
    assert opened.peer.messages(2) == ["one", "None"]
    opened.peer.send(close_frame(4000))
    assert opened.peer.closing() == 4000
    wait_until(lambda: len(consumer.events) == 4, what="the events")
    assert consumer.events == [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "one"},
        {"type": "websocket.receive", "bytes": b"two"},
        {"type": "websocket.disconnect", "code": 4000},
    ]


@pytest.mark.parametrize("kind", ["websocket.ping", None, "websocket.receive"])
def test_a_sync_consumer_can_send_three_events_only(world, kind, caplog):
    class Wrong(Low):
        def websocket_receive(self, event):
            self.send({"type": kind})

    opened = world.open(Wrong())
    opened.peer.text("go")
    assert closing(opened) == 1011
    assert f"not {kind!r}" in caplog.text
