"""ASGI applications on real connections: what receive() and send() do, and every way an application can end.

The rules that hold for consumers, too, are tested with these (``test_runner``, ``test_tasks``).
"""

import asyncio
import gc
import inspect
import sys
import threading
import time
import warnings
import weakref

import gevent
import pytest
from django.core.exceptions import PermissionDenied
from redis.exceptions import RedisError
from websockets.frames import Close, Opcode

from testbed.processes import wait_until
from tests.unit.peer import WAIT, close_frame, masked, turn
from tests.unit.test_runner import LONG, WAYS, World, closing, text
from tests.unit.test_tasks import Gate
from wsloop import layers
from wsloop.aio import worker
from wsloop.aio.worker import worker_loop
from wsloop.protocol.dialects import CONSUMER
from wsloop.refusals import Denied, Refused
from wsloop.runtime.applications import MAX_DENIAL, ClientDisconnected, Hosted
from wsloop.runtime.asgi import AsgiRunner
from wsloop.runtime.inbox import MAX_MESSAGES
from wsloop.runtime.state import State
from wsloop.sockets.admission import NOBODY
from wsloop.sockets.limits import Bounds
from wsloop.sockets.websocket import WebSocket

ACCEPT, CLOSE = {"type": "websocket.accept"}, {"type": "websocket.close"}
START, BODY = "websocket.http.response.start", "websocket.http.response.body"


class Application:
    """An application that does what a test gives it, and keeps what it received and how it ended.

    Args:
        play: a coroutine function of the application.
        accepting: whether to accept before that.

    Attributes:
        error: what ``play`` has raised; False while it runs, None if it has returned.
    """

    def __init__(self, play, accepting=True):
        self.play, self.accepting = play, accepting
        self.received = []
        self.error = False

    async def __call__(self, scope, receive, send):
        self.scope, self._receive, self.send = scope, receive, send
        try:
            if self.accepting:
                assert await self.receive() == {"type": "websocket.connect"}
                await self.send(ACCEPT)
            result = self.play(self)
            if inspect.isawaitable(result):
                await result
        except BaseException as exc:
            self.error = exc
            raise
        self.error = None

    async def receive(self):
        event = await self._receive()
        self.received.append(event)
        return event

    async def text(self, text):
        await self.send({"type": "websocket.send", "text": text})

    async def listen(self):
        """Receive until the client has left, and return the code."""
        while (event := await self.receive())["type"] == "websocket.receive":
            pass
        return event["code"]

    def texts(self):
        return [event["text"] for event in self.received if event.get("text") is not None]

    def ended(self):
        """Wait for its end, and return what it has raised."""
        wait_until(lambda: self.error is not False, what="the end of the application")
        turn(5)
        return self.error


async def listen(application):
    await application.listen()


async def echo(application):
    while (event := await application.receive())["type"] == "websocket.receive":
        if event.get("text") is not None:
            await application.text(event["text"])
        else:
            await application.send({"type": "websocket.send", "bytes": event["bytes"]})


async def waiting(application):
    await asyncio.Event().wait()


def raising(error):
    def play(application):
        raise error

    return play


class AsgiWorld(World):
    def runner(self, application, presence=None, visitor=NOBODY, **scope):
        known = {"type": "websocket", "path": "/ws/Room/", "query_string": b"", "subprotocols": []}
        return AsgiRunner(self.consumers, Hosted(application), known | scope, None, visitor)

    def left(self, opened):
        wait_until(lambda: opened.runner._state is State.LEFT, what="the end of the connection")


@pytest.fixture
def world(pair):
    worker.install()
    layers.LAYER.local = None
    world = AsgiWorld(pair)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # of coroutines that nobody has awaited
        yield world
        gc.collect()
    for connection in [*world.hub.connections, *world.hub.heartbeat._closing]:
        connection.abort()
    try:
        wait_until(world.nothing_is_left, what="the end of all applications")
        wait_until(lambda: not asyncio.all_tasks(worker_loop()), what="the end of their tasks")
        assert not world.failures
    finally:
        world.broker.stop()
        layers.LAYER.local = None


@pytest.fixture
def short(with_settings):
    """An application may go on for a moment only."""
    with_settings(WSLOOP={"HANDLER_TIMEOUT": 1})


# receive()


def test_the_scope_is_passed_on(world):
    application = Application(listen)
    opened = world.open(application, runner=world.runner(application, query_string=b"a=1"))
    assert (application.scope["query_string"], application.scope["path"]) == (b"a=1", "/ws/Room/")
    opened.peer.close()


def test_messages_arrive_in_order_as_what_they_are(world):
    application = Application(listen)
    opened = world.open(application)
    opened.peer.send(text("grün", ""), masked(Opcode.BINARY, b"\xff"), masked(Opcode.BINARY), close_frame(4321))
    assert application.ended() is None
    assert [event["type"] for event in application.received] == [
        "websocket.connect",
        *["websocket.receive"] * 4,
        "websocket.disconnect",
    ]
    assert [event.get("text") for event in application.received[1:5]] == ["grün", "", None, None]
    assert [event.get("bytes") for event in application.received[1:5]] == [None, None, b"\xff", b""]


@pytest.mark.parametrize("way", WAYS)
def test_disconnect_has_the_code(world, way):
    end, code = WAYS[way]
    application = Application(listen)
    end(world.open(application))
    assert application.ended() is None
    assert application.received[-1]["type"] == "websocket.disconnect"
    assert (application.received[-1]["code"], type(application.received[-1]["code"])) == (code, int)


@pytest.mark.parametrize(("frame", "reason"), [(close_frame(4321, "Grüße"), "Grüße"), (close_frame(4321), "")])
def test_disconnect_has_the_reason(world, frame, reason):
    """As in version 2.3 of the specification and later."""
    application = Application(listen)
    world.open(application).peer.send(frame)
    assert application.ended() is None
    assert (application.received[-1].get("reason") or "") == reason


def test_a_cancelled_receive_takes_nothing_with_it(world):
    """Also if the message has come, and the task not run yet."""
    go_on = Gate()

    async def play(application):
        for number in range(50):
            receiving = asyncio.create_task(application.receive())
            await asyncio.sleep(0.001 * (number % 3))
            receiving.cancel()
            await asyncio.wait([receiving])
        await go_on.wait()
        await application.listen()

    application = Application(play)
    opened = world.open(application)
    for number in range(50):
        opened.peer.text(str(number))
        gevent.sleep(0.001 * (number % 4))
    go_on.open()
    opened.peer.send(close_frame(1000))
    assert application.ended() is None
    assert application.texts() == [str(number) for number in range(50)]


def test_receive_may_be_called_right_behind_a_cancellation(world):
    """The cancelled task has not run yet, and so is still within its receive()."""

    async def play(application):
        receiving = asyncio.create_task(application.receive())
        await asyncio.sleep(0)
        receiving.cancel()
        await application.text((await application.receive())["text"])
        await application.listen()

    application = Application(play)
    opened = world.open(application)
    turn(5)
    opened.peer.text("hello")
    assert opened.peer.message() == "hello"
    opened.peer.close()
    assert application.ended() is None


def test_receive_may_time_out(world):
    async def play(application):
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(application.receive(), 0.01)
        await application.text("nothing yet")
        await echo(application)

    application = Application(play)
    opened = world.open(application)
    assert opened.peer.message() == "nothing yet"
    opened.peer.text("hello")
    assert opened.peer.message() == "hello"
    opened.peer.close()
    assert application.ended() is None


def test_what_the_client_sent_before_it_left_can_be_received_and_then_the_disconnect(world):
    gate = Gate()

    async def play(application):
        await gate.wait()
        await application.listen()

    application = Application(play)
    opened = world.open(application)
    opened.peer.send(text("one", "two", "three"), close_frame(1000))
    opened.peer.close()
    world.left(opened)
    gate.open()
    assert application.ended() is None
    assert application.texts() == ["one", "two", "three"]
    assert application.received[-1]["code"] == 1000


def test_an_application_that_waits_delays_nobody_else(world, short):
    slow, quick = Application(waiting), Application(echo)
    world.open(slow)
    at_quick = world.open(quick)
    at_quick.peer.text("hello")
    assert at_quick.peer.message() == "hello"


# send()


def test_sending_and_receiving_side_by_side(world):
    async def play(application):
        async def tick():
            while True:
                await application.text("tick")
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        await echo(application)
        ticking.cancel()

    application = Application(play)
    opened = world.open(application)
    for number in range(10):
        opened.peer.text(str(number))
        while (message := opened.peer.message()) == "tick":
            pass
        assert message == str(number)
    opened.peer.send(close_frame(1000))
    assert application.ended() is None


@pytest.mark.parametrize("kind", ["send", "accept", "close"])
def test_after_the_client_has_left_send_raises_an_oserror_and_close_nothing(world, kind):
    event = {"send": {"type": "websocket.send", "text": "x"}, "accept": ACCEPT, "close": CLOSE}[kind]

    async def play(application):
        while not runner._client_gone:
            await asyncio.sleep(0.01)
        await application.send(event)

    application = Application(play)
    runner = world.runner(application)
    world.open(application, runner=runner).peer.close()
    error = application.ended()
    assert isinstance(error, ClientDisconnected if kind == "send" else OSError) if kind != "close" else error is None


def test_once_it_has_been_told_it_cleans_up_to_the_end_although_it_sends(world, caplog):
    async def play(application):
        await application.listen()
        for _ in range(3):
            await application.text("goodbye")
        await application.send(CLOSE)

    application = Application(play)
    world.open(application).peer.close()
    assert application.ended() is None
    assert not caplog.records


def test_a_handshake_that_is_called_off_raises_an_oserror_in_accept(world):
    async def play(application):
        await application.receive()
        await application.send(ACCEPT)

    application = Application(play, accepting=False)
    runner = world.runner(application)
    runner.connect()
    runner.failed()
    assert isinstance(application.ended(), OSError)


def test_accepting_a_handshake_that_was_called_off_before_raises_an_oserror(world):
    gate = Gate()

    async def play(application):
        await application.receive()
        await gate.wait()
        await application.send(ACCEPT)

    application = Application(play, accepting=False)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        world.open(application)
    gate.open()
    assert isinstance(application.ended(), OSError)


def test_an_oserror_of_sending_to_nobody_is_no_fault_of_the_application(world, caplog):
    async def play(application):
        while True:
            await application.text("anybody there?")

    application = Application(play)
    world.open(application).peer.close()
    assert isinstance(application.ended(), ClientDisconnected)
    assert not caplog.records


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"type": "websocket.send"}, TypeError),
        ({"type": "websocket.send", "text": b"bytes"}, TypeError),
        ({"type": "websocket.send", "text": "\ud800"}, ValueError),
        ({"type": "websocket.close", "code": 1005}, ValueError),
        ({"type": "websocket.close", "reason": "x" * 124}, ValueError),
        ({"type": "http.response.start"}, ValueError),
        ({}, ValueError),
        (ACCEPT, RuntimeError),
        ({"type": START, "status": 403}, RuntimeError),
        ({"type": BODY}, RuntimeError),
    ],
)
def test_what_cannot_be_sent_is_the_applications_fault_and_may_be_handled(world, event, error):
    async def play(application):
        with pytest.raises(error):
            await application.send(event)
        await echo(application)

    application = Application(play)
    opened = world.open(application)
    opened.peer.text("goes on")
    assert opened.peer.message() == "goes on"
    opened.peer.close()
    assert application.ended() is None


def test_none_stands_for_what_is_not_there(world):
    async def play(application):
        await application.send({"type": "websocket.send", "text": None, "bytes": b"one"})
        await application.send({"type": "websocket.send", "text": "two", "bytes": None})
        await application.send({"type": "websocket.close", "code": 4000, "reason": None})

    opened = world.open(Application(play))
    assert opened.peer.messages(2) == [b"one", "two"]
    assert closing(opened) == 4000


@pytest.mark.parametrize("subprotocol", ["chat", None])
def test_the_subprotocol(world, pair, subprotocol):
    async def play(application):
        await application.receive()
        await application.send({**ACCEPT, "subprotocol": subprotocol})
        await application.listen()

    runner = world.runner(Application(play, accepting=False), subprotocols=["soap", "chat"])
    decided = runner.connect()
    assert subprotocol in (decided if isinstance(decided, tuple) else (decided,))
    runner.failed()


# Refusals.


@pytest.mark.parametrize(
    ("play", "status", "words"),
    [
        (lambda application: application.send(CLOSE), 403, "Sign in, perhaps"),
        (lambda application: application.send({**CLOSE, "code": 4000, "reason": "Grüße"}), 403, "Grüße"),
        (lambda application: None, 500, "the site's log says why"),
        (raising(ZeroDivisionError("a secret")), 500, "the site's log says why"),
        (raising(ValueError("No route found")), 500, "the site's log says why"),
        (lambda application: sys.exit("a secret"), 500, "the site's log says why"),
        (lambda application: application.text("early"), 500, "the site's log says why"),
        (
            lambda application: application.send({**ACCEPT, "subprotocol": "not offered"}),
            500,
            "the site's log says why",
        ),
        (lambda application: application.send({"type": BODY}), 500, "the site's log says why"),
        (lambda application: application.send({"type": START, "status": 402}), 500, "the site's log says why"),
    ],
)
def test_an_application_that_does_not_accept_refuses_the_handshake(world, play, status, words):
    application = Application(play, accepting=False)
    with pytest.raises(Refused) as refused:
        world.open(application)
    assert refused.value.status == status
    assert words in refused.value.reason
    assert "secret" not in refused.value.reason
    application.ended()


@pytest.mark.parametrize("error", [PermissionDenied("a secret"), RedisError("a secret")])
def test_errors_that_have_a_response_of_their_own_get_it(world, error):
    with pytest.raises(type(error)) as raised:
        world.open(Application(raising(error), accepting=False))
    assert raised.value is error


def test_after_a_refusal_the_disconnect_can_be_received(world):
    async def play(application):
        await application.receive()
        await application.send(CLOSE)
        assert await application.listen() == 1006

    application = Application(play, accepting=False)
    with pytest.raises(Refused):
        world.open(application)
    assert application.ended() is None


def denial(*events):
    async def play(application):
        await application.receive()
        for event in events:
            await application.send(event)

    return Application(play, accepting=False)


def test_a_response_of_its_own_goes_out_when_it_is_complete(world):
    headers = [(b"content-type", b"text/html"), (b"Content-Length", b"9"), (b"set-cookie", b"a=b")]
    application = denial(
        {"type": START, "status": 402, "headers": headers},
        {"type": BODY, "body": b"first, ", "more_body": True},
        {"type": BODY, "more_body": True},
        {"type": BODY, "body": b"pay"},
    )
    with pytest.raises(Denied) as denied:
        world.open(application)
    assert (denied.value.status, denied.value.body) == (402, b"first, pay")
    assert denied.value.headers == [("content-type", "text/html"), ("set-cookie", "a=b")]
    assert application.ended() is None


@pytest.mark.parametrize(
    "events",
    [
        [{"type": START, "status": 402}, {"type": START, "status": 402}],
        [{"type": START, "status": 4711}, {"type": BODY}],
        [{"type": START, "status": 402, "headers": [(b"x y", b"z")]}, {"type": BODY}],
        [{"type": START, "status": 402, "headers": [(b"x", b"a\r\nset-cookie: b")]}, {"type": BODY}],
        [{"type": START, "status": 402}, {"type": BODY, "body": bytes(MAX_DENIAL + 1)}],
    ],
)
def test_a_response_that_is_not_valid_is_a_500(world, events):
    application = denial(*events)
    with pytest.raises(Refused) as refused:
        world.open(application)
    assert refused.value.status == 500
    assert isinstance(application.ended(), (RuntimeError, ValueError))


@pytest.mark.parametrize("status", [101, 200, 204, 304])
def test_a_response_that_is_no_refusal_is_not_sent(world, status):
    """A 101 of an application would open a socket that nobody serves."""
    application = denial({"type": START, "status": status}, {"type": BODY})
    with pytest.raises(Refused) as refused:
        world.open(application)
    assert refused.value.status in (200, 500)


# The end of an application.


@pytest.mark.parametrize(
    ("play", "code"),
    [
        (lambda application: None, 1000),
        (lambda application: application.send(CLOSE), 1000),
        (lambda application: application.send({**CLOSE, "code": 4000}), 4000),
        (raising(ZeroDivisionError()), 1011),
        (raising(OSError()), 1011),
        (raising(TimeoutError()), 1011),
        (raising(SystemExit()), 1011),
        (raising(gevent.Timeout(1)), 1011),
        (raising(asyncio.CancelledError()), 1000),
    ],
)
def test_an_application_that_ends_closes_its_socket_and_no_other(world, play, code):
    opened, other = world.open(Application(play)), world.open(Application(echo))
    assert closing(opened) == code
    other.peer.text("hello")
    assert other.peer.message() == "hello"


def test_what_it_has_sent_goes_out_before(world):
    async def play(application):
        for number in range(30):
            await application.text(str(number))

    opened = world.open(Application(play))
    assert opened.peer.messages(30) == [str(number) for number in range(30)]
    assert closing(opened) == 1000


def test_its_own_close_is_followed_by_a_disconnect(world):
    async def play(application):
        await application.send({**CLOSE, "code": 4000, "reason": "Grüße"})
        assert await application.listen() == 4000

    application = Application(play)
    opened = world.open(application)
    opened.peer.send(text("not for it any more"))
    assert Close.parse(opened.peer.frame().data) == Close(4000, "Grüße")
    opened.peer.close()
    assert application.ended() is None
    assert application.texts() == []


@pytest.mark.parametrize("then", ["return", "raise"])
def test_an_application_that_ends_before_the_101_is_out_leaves_no_socket_without_one(world, pair, then):
    """A task of it accepts; it does not wait for that."""

    async def play(application):
        await application.receive()
        accepting = asyncio.create_task(application.send(ACCEPT))
        await asyncio.sleep(0)
        application.accepting = accepting  # referenced
        if then == "raise":
            raise ZeroDivisionError

    application = Application(play, accepting=False)
    runner = world.runner(application)
    runner.connect()
    application.ended()
    transport, peer = pair()
    connection = WebSocket(transport, runner, Bounds(1000, 1000), dialect=CONSUMER)
    world.hub.open(connection, world.hub.admission.take())
    runner.opened(connection)
    assert Close.parse(peer.frame().data).code == (1011 if then == "raise" else 1000)


def test_the_log_says_which_application_has_failed_and_why(world, caplog):
    closing(world.open(Application(raising(ZeroDivisionError("a bug of the site")))))
    assert "The application at '/ws/Room/' has failed" in caplog.text
    assert "ZeroDivisionError: a bug of the site" in caplog.text


def test_an_error_after_the_client_has_left_is_logged_too(world, caplog):
    async def play(application):
        await application.listen()
        raise ZeroDivisionError("a bug of the site")

    application = Application(play)
    world.open(application).peer.close()
    application.ended()
    assert caplog.text.count("ZeroDivisionError: a bug of the site") == 1


def test_one_that_listens_is_not_cancelled_when_its_client_leaves(world):
    """It may have more to do than to sleep."""

    async def play(application):
        await application.listen()
        await asyncio.sleep(0.3)
        return "done"

    application = Application(play)
    world.open(application).peer.close()
    assert application.ended() is None


@pytest.mark.parametrize("way", ["in a sleep", "in receive() again"])
def test_one_that_goes_on_is_cancelled_after_the_timeout(world, short, caplog, way):
    async def play(application):
        await application.listen()
        await (asyncio.sleep(LONG) if way == "in a sleep" else application.receive())

    application = Application(play)
    opened = world.open(application)
    began = time.monotonic()
    opened.peer.close()
    assert isinstance(application.ended(), asyncio.CancelledError)
    assert time.monotonic() - began >= 1
    assert "Ended a handler of the application at '/ws/Room/' that went on for too long" in caplog.text


def test_one_that_never_listens_is_cancelled_too_and_again_if_it_swallows_that(world, short):
    cancelled = []

    async def play(application):
        while len(cancelled) < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(1)

    application = Application(play)
    world.open(application).peer.close()
    assert application.ended() is None
    assert len(cancelled) == 3


def test_an_application_that_was_never_asked_ends_nevertheless(world):
    """The client has left before it was called."""
    application = Application(listen)
    world.runner(application).failed()
    turn(10)
    assert world.nothing_is_left()


def test_nothing_of_an_application_is_kept_after_its_end(world):
    application = Application(echo)
    opened = world.open(application)
    opened.peer.text("hello")
    assert opened.peer.message() == "hello"
    opened.peer.close()
    application.ended()
    runner, reference = opened.runner, weakref.ref(application)
    wait_until(lambda: runner._consumer is None, what="its release")
    del application, opened
    gc.collect()
    wait_until(lambda: reference() is None, what="nothing holding it")


# The end of the worker.


def test_when_the_worker_ends_applications_have_time_and_are_cancelled_then(world):
    async def clean_up(application):
        await application.listen()
        await asyncio.sleep(0.1)

    tidy, deaf = Application(clean_up), Application(waiting)
    for each in (tidy, deaf):
        world.open(each).connection.close(1012, "server restarting")
    world.consumers.wait(2)
    assert tidy.ended() is None
    assert tidy.received[-1]["code"] == 1012
    assert isinstance(deaf.ended(), asyncio.CancelledError)
    assert not world.consumers.running


def test_a_handshake_that_the_end_of_the_worker_interrupts_may_be_tried_again(world):
    application = Application(waiting, accepting=False)
    opening = gevent.spawn(world.open, application)
    wait_until(lambda: hasattr(application, "scope"), what="the call")
    world.consumers.wait(0.2)
    with pytest.raises(Refused) as refused:
        opening.get(timeout=WAIT)
    assert refused.value.status == 503
    assert isinstance(application.ended(), asyncio.CancelledError)


# Bounds.


def test_a_client_that_sends_faster_than_the_application_receives_is_not_read(world):
    gate = Gate()

    async def play(application):
        await gate.wait()
        await application.listen()

    application = Application(play)
    opened = world.open(application)
    for number in range(100):
        opened.peer.text(str(number))
        turn()
        assert opened.connection.held == (number >= MAX_MESSAGES - 1), number
    assert opened.runner._inbox.messages == MAX_MESSAGES
    gate.open()
    wait_until(lambda: len(application.texts()) == 100, what="all messages")
    assert application.texts() == [str(number) for number in range(100)]
    turn()
    assert not opened.connection.held
    assert not world.consumers.full
    opened.peer.close()


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_client_that_has_filled_the_inbox_and_leaves_is_noticed(world, monkeypatch, how):
    monkeypatch.setattr(world.consumers, "_timer", gevent.get_hub().loop.timer(0.02, 0.02))

    async def play(application):
        while not runner._client_gone:
            await asyncio.sleep(0.01)
        with pytest.raises(ClientDisconnected):
            await application.text("nobody")
        await application.listen()

    application = Application(play)
    runner = world.runner(application)
    opened = world.open(application, runner=runner)
    opened.peer.send(text(*map(str, range(50))))
    wait_until(lambda: opened.connection.held, what="the full inbox")
    if how == "close":
        opened.peer.send(close_frame(4321))
    opened.peer.close()
    assert application.ended() is None
    assert application.texts() == [str(number) for number in range(50)]
    assert application.received[-1]["code"] == (4321 if how == "close" else 1006)


def test_send_waits_for_a_client_that_does_not_read(world, reached):
    sent = []

    async def play(application):
        for number in range(200):
            await application.send({"type": "websocket.send", "bytes": b"%03d" % number + bytes(9_997)})
            sent.append(number)
        await application.listen()

    opened = world.open(Application(play), max_queued_bytes=100_000, send_buffer=4096)
    wait_until(lambda: opened.runner._blocked_sends, what="a full send buffer")
    turn(20)
    assert len(sent) < 30
    assert opened.connection.queued_bytes <= 50_000
    for number in range(200):
        assert opened.peer.message()[:3] == b"%03d" % number
    assert reached("MAX_QUEUED_BYTES") == 0
    opened.peer.close()


@pytest.mark.parametrize("end", ["it leaves", "it never reads"])
def test_one_that_waits_for_a_client_that_does_not_read_is_told_of_its_end(world, with_settings, end):
    with_settings(WSLOOP={"PING_TIMEOUT": 1})

    async def play(application):
        with pytest.raises(ClientDisconnected):
            while True:
                await application.send({"type": "websocket.send", "bytes": bytes(10_000)})
        await application.listen()

    application = Application(play)
    opened = world.open(application, max_queued_bytes=100_000, send_buffer=4096)
    wait_until(lambda: opened.runner._blocked_sends, what="a full send buffer")
    if end == "it leaves":
        opened.peer.close()
    assert application.ended() is None
    assert application.received[-1]["code"] == (1006 if end == "it leaves" else 4008)


def test_send_from_another_thread_of_gevent(world):
    """As ``async_to_sync(send)`` in a plain consumer of Channels."""
    done = []

    async def play(application):
        loop = asyncio.get_running_loop()

        def work():
            asyncio.run_coroutine_threadsafe(application.text("from a thread"), loop).result(WAIT)
            done.append("done")

        threading.Thread(target=work).start()
        await application.listen()

    opened = world.open(Application(play))
    assert opened.peer.message() == "from a thread"
    wait_until(lambda: done, what="the end of the thread")
    opened.peer.close()
