"""Consumers of coroutines on real connections: their handlers are tasks of the worker's event loop.

What they have in common with those of plain code is tested with these (``test_runner``); here is what tasks make
different, and that the rules hold for them, too.
"""

import asyncio
import contextvars
import gc
import inspect
import sys
import time
import weakref

import gevent
import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied
from django.utils import translation
from gevent.event import AsyncResult, Event
from redis.exceptions import RedisError
from websockets.frames import Close, Opcode

from testbed.processes import wait_until
from tests.unit.peer import WAIT, close_frame, masked, turn
from tests.unit.test_runner import LONG, WAYS, World, closing, members_and_neighbour, raising, text
from wsloop import layers
from wsloop.aio import worker
from wsloop.aio.worker import worker_loop
from wsloop.consumers import AsyncConsumer, AsyncWebsocketConsumer
from wsloop.exceptions import DenyConnection, Disconnected, StopConsumer
from wsloop.protocol.dialects import CONSUMER
from wsloop.refusals import Refused
from wsloop.runtime import runner as runner_module
from wsloop.runtime.inbox import MAX_MESSAGES
from wsloop.runtime.state import State
from wsloop.runtime.tasks import TURN, TaskRunner, until
from wsloop.sockets.admission import NOBODY
from wsloop.sockets.limits import Bounds
from wsloop.sockets.websocket import WebSocket


class Recorded(AsyncWebsocketConsumer):
    """Calls a function or coroutine of the test for each handler, and records the calls: never two at once."""

    def __init__(self, **handlers):
        self.handlers = handlers
        self.calls = []
        self.at_once = 0

    async def call(self, name, *arguments):
        self.at_once += 1
        assert self.at_once == 1, "two handlers at once"
        self.calls.append((name, *arguments))
        try:
            result = self.handlers.get(name, lambda *_: None)(self, *arguments)
            return await result if inspect.isawaitable(result) else result
        finally:
            self.at_once -= 1

    async def connect(self):
        if "connect" not in self.handlers:
            await self.accept()
        await self.call("connect")

    async def receive(self, text_data=None, bytes_data=None):
        await self.call("receive", text_data if bytes_data is None else bytes_data)

    async def happened(self, event):
        await self.call("happened", event["number"])

    async def disconnect(self, code):
        await self.call("disconnect", code)

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


class TaskWorld(World):
    def runner(self, consumer, presence=None, visitor=NOBODY, **scope):
        made = super().runner(consumer, presence, visitor, **scope)
        consumer, scope = made._consumer, made._consumer.scope
        made.failed()
        return TaskRunner(self.consumers, consumer, scope, presence, visitor)


@pytest.fixture
def world(pair):
    worker.install()
    layers.LAYER.local = None
    world = TaskWorld(pair)
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
def short(with_settings):
    """A handler may go on for a moment only."""
    with_settings(WSLOOP={"HANDLER_TIMEOUT": 1})


class Gate:
    """An event of asyncio that the test sets, which runs beside the loop."""

    def __init__(self):
        self._event = asyncio.Event()

    async def wait(self, *_):
        await self._event.wait()

    def open(self):
        worker_loop().call_soon_threadsafe(self._event.set)


async def echo(consumer, message):
    await consumer.send(message)


async def sleeping(consumer, *_):
    await asyncio.sleep(LONG)


async def waiting(consumer, *_):
    await asyncio.Event().wait()


def in_handler(consumer):
    wait_until(lambda: consumer.got("receive"), what="the handler")


def on_loop(coroutine):
    """Run a coroutine in the loop of the worker, and return its result."""
    return asyncio.run_coroutine_threadsafe(coroutine, worker_loop()).result(WAIT)


# One after the other.


def test_handlers_of_one_socket_run_one_after_the_other_in_the_order_of_what_came(world):
    gate = Gate()

    async def work(consumer, *_):
        await gate.wait()
        await asyncio.sleep(0)

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
    gate.open()
    wait_until(lambda: len(consumer.calls) == 9, what="all handlers")
    assert consumer.calls == [("connect",), *expected]


def test_what_one_handler_sets_in_its_context_is_not_there_for_the_next_one(world):
    variable = contextvars.ContextVar("variable", default="fresh")
    seen = []

    def happened(consumer, number):
        seen.append((translation.get_language(), variable.get()))
        translation.activate("de")
        variable.set("used")

    opened = world.open(Recorded(happened=happened))
    for number in range(3):
        world.send(opened.name, number)
    wait_until(lambda: len(seen) == 3, what="the handlers")
    assert [value for _, value in seen] == ["fresh"] * 3
    assert [language for language, _ in seen] == ["en-us"] * 3


def test_a_socket_has_a_task_only_while_a_handler_runs(world):
    opened = world.open(Recorded(receive=echo))
    opened.peer.text("hello")
    assert opened.peer.message() == "hello"
    turn()
    assert opened.runner.task is None
    assert not world.consumers.running
    assert not asyncio.all_tasks(worker_loop())


def test_a_handler_that_waits_delays_its_own_socket_only(world):
    slow = Recorded(receive=sleeping)
    at_slow, at_quick = world.open(slow), world.open(Recorded(receive=echo))
    at_slow.peer.text("one")
    in_handler(slow)
    at_quick.peer.text("two")
    assert at_quick.peer.message() == "two"


def test_connect_comes_first_and_what_the_client_sends_meanwhile_waits(world):
    gate = Gate()

    async def connect(consumer):
        await consumer.accept()
        await gate.wait()

    consumer = Recorded(connect=connect)
    opened = world.open(consumer)
    opened.peer.text("early")
    turn(5)
    assert consumer.calls == [("connect",)]
    gate.open()
    wait_until(lambda: consumer.calls == [("connect",), ("receive", "early")], what="the message")


def test_text_and_bytes_arrive_as_what_they_are(world):
    consumer = Recorded()
    opened = world.open(consumer)
    opened.peer.send(text("grün", ""), masked(Opcode.BINARY, b"\xff"), masked(Opcode.BINARY))
    wait_until(lambda: consumer.got("receive") == ["grün", "", b"\xff", b""], what="the messages")


def test_blocking_code_runs_beside_the_loop(world):
    async def receive(consumer, message):
        await sync_to_async(time.sleep)(0.05)
        await consumer.send(f"after {message}")

    at_slow, at_quick = world.open(Recorded(receive=receive)), world.open(Recorded(receive=echo))
    at_slow.peer.text("sleep")
    at_quick.peer.text("at once")
    assert at_quick.peer.message() == "at once"
    assert at_slow.peer.message() == "after sleep"


def test_the_lower_consumer_gets_the_events_themselves(world):
    class Low(AsyncConsumer):
        async def websocket_connect(self, event):
            await self.send({"type": "websocket.accept"})

        async def websocket_receive(self, event):
            await self.send({"type": "websocket.send", "text": event["text"].upper()})

        async def websocket_disconnect(self, event):
            raise StopConsumer

    opened = world.open(Low())
    opened.peer.text("text")
    assert opened.peer.message() == "TEXT"


# The handshake.


def test_accept_returns_when_the_101_is_out(world, pair):
    seen = []

    async def connect(consumer):
        await consumer.accept("chat")
        seen.append("accepted")
        await consumer.send("welcome")

    runner = world.runner(Recorded(connect=connect), subprotocols=["soap", "chat"])
    runner.connect()
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
        (lambda consumer: None, 500, "the site's log says why", 1011),
        (raising(ZeroDivisionError("a secret")), 500, "the site's log says why", 1011),
        (raising(gevent.Timeout(1)), 500, "the site's log says why", 1011),
        (raising(TimeoutError()), 500, "the site's log says why", 1011),
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


def test_a_client_that_is_gone_before_the_101_ends_accept(world):
    raised = []

    async def connect(consumer):
        try:
            await consumer.accept()
        except BaseException as exc:
            raised.append(type(exc))
            raise

    consumer = Recorded(connect=connect)
    runner = world.runner(consumer)
    runner.connect()
    runner.failed()
    assert consumer.ended() == 1006
    assert raised == [Disconnected]


def test_a_handshake_that_takes_too_long_ends_connect_in_its_sleep(world):
    consumer = Recorded(connect=sleeping)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        world.open(consumer)
    assert consumer.ended() == 1006


def test_accepting_twice_is_an_error(world):
    async def connect(consumer):
        await consumer.accept()
        await consumer.accept()

    consumer = Recorded(connect=connect)
    assert closing(world.open(consumer)) == 1011
    assert consumer.ended() == 1011


def test_disconnect_is_not_called_where_connect_was_not(world):
    consumer = Recorded()
    world.runner(consumer).failed()
    turn(5)
    assert consumer.calls == []


# Every way in which a socket can end: disconnect() is called once, last, with its code.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("busy", ["idle", "in a handler", "in accept"])
def test_disconnect_is_called_once_with_the_code(world, way, busy):
    end, code = WAYS[way]

    async def connect(consumer):
        await consumer.accept()
        if busy == "in accept":
            await asyncio.sleep(LONG)

    consumer = Recorded(receive=sleeping, connect=connect)
    opened = world.open(consumer)
    if busy == "in a handler":
        opened.peer.text("go")
        in_handler(consumer)
    end(opened)
    assert consumer.ended() == code
    assert opened.runner.task is None


async def last_words(consumer, *_):
    await consumer.send("last", close=4001)


async def killed(*_):
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("handler", "sent", "code"),
    [
        (lambda consumer, *_: consumer.close(), 1000, 1000),
        (lambda consumer, *_: consumer.close(4000, "x"), 4000, 4000),
        (last_words, 4001, 4001),
        (raising(StopConsumer()), 1000, 1000),
        (raising(ZeroDivisionError("a secret")), 1011, 1011),
        (raising(gevent.Timeout(1)), 1011, 1011),
        (lambda *_: sys.exit(1), 1011, 1011),
        (raising(asyncio.CancelledError()), 1000, 1000),
        (killed, 1000, 1000),
        (lambda consumer, *_: consumer.close(1005), 1011, 1011),
        (lambda consumer, *_: consumer.send(), 1011, 1011),
        (lambda consumer, *_: consumer.send({"no": "text"}), 1011, 1011),
    ],
)
@pytest.mark.parametrize("where", ["connect", "receive", "happened"])
def test_what_a_handler_does_ends_its_socket_and_no_other(world, handler, sent, code, where):
    async def connect(consumer):
        await consumer.accept()
        if where == "connect":
            result = handler(consumer)
            if inspect.isawaitable(result):
                await result

    consumer = Recorded(receive=handler, happened=handler, connect=connect)
    opened, other = world.open(consumer), world.open(Recorded(receive=echo))
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


def test_a_disconnect_that_sends_goes_on(world, caplog):
    left = []

    async def disconnect(consumer, code):
        await consumer.close(4000)
        for room in ("red", "blue"):
            await consumer.send(f"you have left {room}")
            left.append(room)

    consumer = Recorded(disconnect=disconnect)
    world.open(consumer).peer.send(close_frame(1001))
    assert consumer.ended() == 1001
    wait_until(lambda: left == ["red", "blue"], what="the end of disconnect()")
    assert not caplog.text


def test_what_the_client_sent_before_it_left_is_handled_before(world):
    gate = Gate()
    consumer = Recorded(receive=gate.wait)
    opened = world.open(consumer)
    opened.peer.send(text("one", "two", "three"), close_frame(1000))
    opened.peer.close()
    wait_until(lambda: opened.runner._state is State.LEFT, what="the end of the connection")
    gate.open()
    assert consumer.ended() == 1000
    assert consumer.got("receive") == ["one", "two", "three"]


def test_a_handler_that_is_ended_takes_nothing_from_the_messages_behind_it(world):
    consumer = Recorded(receive=sleeping)
    opened = world.open(consumer)
    opened.peer.send(text("one", "two", "three"), close_frame(1000))
    assert consumer.ended() == 1000
    assert consumer.got("receive") == ["one", "two", "three"]


def test_events_of_others_are_not_handled_when_the_client_has_left(world):
    gate = Gate()
    consumer = Recorded(receive=gate.wait)
    opened = world.open(consumer)
    opened.peer.text("one")
    in_handler(consumer)
    world.send(opened.name, 1)
    opened.peer.close()
    wait_until(lambda: opened.runner._state is State.LEFT, what="the end of the connection")
    world.send(opened.name, 2)
    gate.open()
    assert consumer.ended() == 1006
    assert consumer.got("happened") == []


@pytest.mark.parametrize("error", [StopConsumer(), ZeroDivisionError()])
def test_a_consumer_that_has_stopped_or_failed_is_asked_nothing_more(world, error):
    consumer = Recorded(receive=raising(error))
    opened = world.open(consumer)
    opened.peer.send(text("one", "two", "three"))
    assert consumer.ended() in (1000, 1011)
    assert consumer.got("receive") == ["one"]


# Handlers that go on without their client.


def test_a_handler_that_sleeps_is_ended_at_once(world):
    """Long before HANDLER_TIMEOUT, also where it calls what sleeps; ``except Exception`` does not catch it."""
    swallowed = []

    async def deep():
        await asyncio.sleep(LONG)

    async def loop(consumer, message):
        while True:
            try:
                await deep()
            except Exception as exc:
                swallowed.append(exc)

    consumer = Recorded(receive=loop)
    opened = world.open(consumer)
    opened.peer.text("go")
    in_handler(consumer)
    began = time.monotonic()
    opened.peer.close()
    assert consumer.ended() == 1006
    assert time.monotonic() - began < 5
    assert swallowed == []


@pytest.mark.parametrize("by", ["the client", "itself"])
def test_send_raises_disconnected_when_the_socket_has_ended(world, by):
    gate, raised = Gate(), []

    async def receive(consumer, message):
        if by == "itself":
            await consumer.close(4000)
        else:
            await gate.wait()
        try:
            await consumer.send("nobody")
        except Disconnected:
            raised.append("Disconnected")
            raise

    consumer = Recorded(receive=receive)
    opened = world.open(consumer)
    opened.peer.text("go")
    in_handler(consumer)
    if by == "the client":
        opened.peer.close()
        wait_until(lambda: opened.runner._state is State.LEFT, what="the end of the connection")
        gate.open()
    assert consumer.ended() == (1006 if by == "the client" else 4000)
    assert raised == ["Disconnected"]


def test_a_loop_that_ignores_that_the_client_has_left_lets_others_go_on(world):
    tries = []

    async def receive(consumer, message):
        while len(tries) < 100_000:
            try:
                await consumer.send("tick")
            except Disconnected:
                tries.append("nobody")

    opened, other = world.open(Recorded(receive=receive)), world.open(Recorded(receive=echo))
    opened.peer.text("go")
    opened.peer.close()
    wait_until(lambda: tries, what="the loop going on")
    other.peer.text("hello")
    assert other.peer.message() == "hello"
    assert len(tries) < 100_000
    tries += ["enough"] * 100_000


def test_a_handler_of_another_consumer_is_not_ended_by_sending_to_one_that_has_left(world):
    gate = Gate()
    gone = Recorded(receive=gate.wait)
    at_gone = world.open(gone)
    at_gone.peer.text("work")
    in_handler(gone)
    at_gone.peer.close()
    wait_until(lambda: at_gone.runner._state is State.LEFT, what="the end of the connection")

    async def receive(consumer, message):
        await gone.send(message)
        await consumer.send(message)

    other = world.open(Recorded(receive=receive))
    other.peer.text("hello")
    assert other.peer.message() == "hello"
    assert other.connection.open
    gate.open()
    assert gone.ended() == 1006


def test_a_task_that_a_handler_has_started_may_send_and_is_told_of_the_end(world):
    told, gate, tasks = [], Gate(), []

    async def work(consumer):
        await consumer.send("from a task")
        await gate.wait()
        try:
            await consumer.send("nobody")
        except Disconnected:
            told.append("Disconnected")

    consumer = Recorded(receive=lambda consumer, message: tasks.append(asyncio.create_task(work(consumer))))
    opened = world.open(consumer)
    opened.peer.text("go")
    assert opened.peer.message() == "from a task"
    opened.peer.close()
    assert consumer.ended() == 1006
    gate.open()
    wait_until(lambda: told, what="the end")


def test_a_handler_that_goes_on_is_cancelled_after_the_timeout_wherever_it_waits(world, short, caplog):
    raised = []

    async def receive(consumer, message):
        try:
            await waiting(consumer)
        except BaseException as exc:
            raised.append(type(exc))
            raise

    consumer = Recorded(receive=receive)
    opened = world.open(consumer)
    opened.peer.text("go")
    in_handler(consumer)
    began = time.monotonic()
    opened.peer.close()
    assert consumer.ended() == 1006
    assert time.monotonic() - began >= 1
    assert raised == [asyncio.CancelledError]
    assert "Ended a handler of Recorded at '/ws/room/' for AnonymousUser None that went on for too long" in caplog.text


def test_one_that_swallows_it_is_told_again_but_not_logged_again(world, short, monkeypatch, caplog):
    monkeypatch.setattr(runner_module, "HANDLER_CHECK_INTERVAL", 0.02)
    swallowed = []

    async def receive(consumer, message):
        while len(swallowed) < 5:
            try:
                await waiting(consumer)
            except BaseException as exc:
                swallowed.append(type(exc))

    consumer = Recorded(receive=receive)
    opened = world.open(consumer)
    opened.peer.text("go")
    in_handler(consumer)
    opened.peer.close()
    assert consumer.ended() == 1006
    assert swallowed == [asyncio.CancelledError] * 5
    assert caplog.text.count("that went on for too long") == 1


def test_so_is_disconnect_itself_and_it_may_sleep_until_then(world, short):
    slept = []

    async def disconnect(consumer, code):
        await asyncio.sleep(0.05)
        slept.append("slept")
        await waiting(consumer)

    consumer = Recorded(disconnect=disconnect)
    opened = world.open(consumer)
    opened.peer.close()
    assert consumer.ended() == 1006
    wait_until(world.nothing_is_left, what="the end of disconnect()")
    assert slept == ["slept"]


def test_the_rest_has_its_time_in_all_and_no_more(world, short):
    consumer = Recorded(receive=lambda *_: sync_to_async(time.sleep)(0.1))
    opened = world.open(consumer)
    opened.peer.send(text(*map(str, range(100))))
    began = time.monotonic()
    opened.peer.close()
    assert consumer.ended() == 1006
    assert 0 < len(consumer.got("receive")) < 50
    assert time.monotonic() - began < 8, "not 10 seconds"


# The end of the worker.


def test_when_the_worker_ends_a_handler_is_cancelled_in_time_for_its_disconnect(world):
    raised, slept = [], []

    async def receive(consumer, message):
        try:
            await waiting(consumer)
        except BaseException as exc:
            raised.append(type(exc))
            raise

    async def disconnect(consumer, code):
        await asyncio.sleep(0.05)
        slept.append(code)

    consumer = Recorded(receive=receive, disconnect=disconnect)
    opened = world.open(consumer)
    opened.peer.send(text("one", "two"))
    in_handler(consumer)
    opened.connection.close(1012, "server restarting")
    world.consumers.wait(2)
    assert not world.consumers.running
    assert raised == [asyncio.CancelledError]
    assert slept == [1012]
    assert consumer.ended() == 1012
    assert consumer.got("receive") == ["one"]


def test_those_that_are_cut_off_are_told_of(world, caplog):
    gate = Gate()
    consumer = Recorded(disconnect=gate.wait)
    opened = world.open(consumer)
    opened.connection.close(1012)
    wait_until(lambda: consumer.got("disconnect"), what="disconnect()")
    world.consumers.wait(0.05)
    assert "The worker stops before 1 consumers have finished: they are cut off" in caplog.text
    gate.open()


def test_a_handshake_that_the_end_of_the_worker_interrupts_may_be_tried_again(world):
    consumer = Recorded(connect=waiting)
    opening = gevent.spawn(world.open, consumer)
    wait_until(lambda: consumer.calls, what="connect()")
    world.consumers.wait(0.2)
    with pytest.raises(Refused) as refused:
        opening.get(timeout=WAIT)
    assert refused.value.status == 503
    assert consumer.ended() == 1012


# The inbox and the output.


def test_a_client_that_sends_faster_than_it_is_handled_is_not_read(world):
    gate = Gate()
    consumer = Recorded(receive=gate.wait)
    opened = world.open(consumer)
    opened.peer.text("0")
    in_handler(consumer)
    for number in range(1, MAX_MESSAGES + 1):
        opened.peer.text(str(number))
        turn()
        assert opened.connection.held == (number == MAX_MESSAGES), number
    for number in range(MAX_MESSAGES + 1, 100):
        opened.peer.text(str(number))
        turn(1)
    assert opened.runner._inbox.messages == MAX_MESSAGES
    gate.open()
    wait_until(lambda: len(consumer.got("receive")) == 100, what="all messages")
    assert consumer.got("receive") == [str(number) for number in range(100)]
    turn()
    assert not opened.connection.held
    assert not world.consumers.full


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_client_that_has_filled_the_inbox_and_leaves_is_noticed(world, monkeypatch, how):
    monkeypatch.setattr(world.consumers, "_timer", gevent.get_hub().loop.timer(0.02, 0.02))
    consumer = Recorded(receive=sleeping)
    opened = world.open(consumer)
    opened.peer.send(text(*map(str, range(50))))
    wait_until(lambda: opened.connection.held, what="the full inbox")
    if how == "close":
        opened.peer.send(close_frame(4321))
    opened.peer.close()
    assert consumer.ended() == (4321 if how == "close" else 1006)
    assert consumer.got("receive") == [str(number) for number in range(50)]


def test_a_loop_that_sends_waits_for_a_client_that_does_not_read(world, reached):
    sent = []

    async def flood(consumer, message):
        for number in range(200):
            await consumer.send(bytes_data=b"%03d" % number + bytes(9_997))
            sent.append(number)

    opened = world.open(Recorded(receive=flood), max_queued_bytes=100_000, send_buffer=4096)
    opened.peer.text("go")
    wait_until(lambda: opened.runner._blocked_sends, what="a full send buffer")
    turn(20)
    assert len(sent) < 30
    assert opened.connection.queued_bytes <= 50_000
    for number in range(200):
        assert opened.peer.message()[:3] == b"%03d" % number
    assert reached("MAX_QUEUED_BYTES") == 0
    assert opened.connection.open


def test_tasks_that_send_together_wait_for_each_other(world, reached):
    async def flood(consumer, message):
        await asyncio.gather(*(consumer.send(bytes_data=bytes(40_000)) for _ in range(20)))
        await consumer.send("end")

    opened = world.open(Recorded(receive=flood), max_queued_bytes=100_000, send_buffer=4096)
    opened.peer.text("go")
    wait_until(lambda: opened.runner._blocked_sends, what="a full send buffer")
    turn(20)
    assert opened.peer.messages(21) == [bytes(40_000)] * 20 + ["end"]
    assert reached("MAX_QUEUED_BYTES") == 0


@pytest.mark.parametrize("end", ["it leaves", "it never reads"])
def test_a_consumer_that_waits_for_a_client_that_does_not_read_is_not_kept_waiting(world, with_settings, end, reached):
    if end == "it never reads":
        with_settings(WSLOOP={"PING_TIMEOUT": 1})
    raised = []

    async def flood(consumer, message):
        try:
            while True:
                await consumer.send(bytes_data=bytes(10_000))
        except BaseException as exc:
            raised.append(type(exc))
            raise

    consumer = Recorded(receive=flood)
    opened = world.open(consumer, max_queued_bytes=100_000, send_buffer=4096)
    opened.peer.text("go")
    wait_until(lambda: opened.runner._blocked_sends, what="a full send buffer")
    if end == "it leaves":
        opened.peer.close()
    assert consumer.ended() == (1006 if end == "it leaves" else 4008)
    assert raised == [Disconnected]
    assert reached("PING_TIMEOUT") == (end == "it never reads")
    assert opened.runner._blocked_sends == 0


def test_nothing_of_a_consumer_is_kept_after_its_end(world):
    consumer = Recorded(receive=echo)
    opened = world.open(consumer)
    opened.peer.text("hello")
    assert opened.peer.message() == "hello"
    opened.peer.close()
    consumer.ended()
    runner, reference = opened.runner, weakref.ref(consumer)
    wait_until(lambda: runner._consumer is None, what="its release")
    del consumer, opened
    gc.collect()
    wait_until(lambda: reference() is None, what="nothing holding it")


# Waiting for gevent in a coroutine.


def test_until_returns_what_the_event_or_result_has():
    result, event = AsyncResult(), Event()
    gevent.spawn_later(0.01, result.set, "late")
    gevent.spawn_later(0.01, event.set)
    assert on_loop(until(result)) == "late"
    assert on_loop(until(result)) == "late"
    on_loop(until(event))
    failed = AsyncResult()
    failed.set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        on_loop(until(failed))


def test_until_can_be_cancelled_and_leaves_nothing_behind():
    class Counted(Event):
        links = 0

        def rawlink(self, callback):
            self.links += 1
            super().rawlink(callback)

        def unlink(self, callback):
            self.links -= 1
            super().unlink(callback)

    event = Counted()

    async def play():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(until(event), 0.01)

    on_loop(play())
    assert event.links == 0


@pytest.mark.parametrize("size", [10, 10_000], ids=["small", "large"])
def test_a_loop_that_sends_to_a_client_that_reads_fast_gives_others_their_turn(world, size):
    """``await`` alone does not: sending does not wait while the kernel takes everything."""
    number, at_once, most = 200, 0, 0

    async def flood(consumer, message):
        nonlocal at_once, most
        other = asyncio.create_task(others())
        for _ in range(number):
            await consumer.send("x" * size)
            at_once += 1
            most = max(most, at_once)
        other.cancel()

    async def others():
        nonlocal at_once
        while True:
            await asyncio.sleep(0)
            at_once = 0

    opened = world.open(Recorded(receive=flood))
    reader = gevent.spawn(opened.peer.messages, number)
    opened.peer.text("go")
    assert len(reader.get(timeout=WAIT)) == number
    assert most <= 2 * TURN


# The turns of many.


def test_a_neighbour_does_not_wait_for_a_group(world, shared_redis):
    seen = members_and_neighbour(world, Recorded, 100)
    assert seen.index("first") < seen.index("second") < 2000 / 4
