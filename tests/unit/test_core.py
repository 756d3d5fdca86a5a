"""The rules for one consumer, without greenlets and without a connection: what follows from what, in each state."""

import logging

import msgpack
import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from greenlet import GreenletExit
from redis.exceptions import RedisError

from tests.unit.recorded import Recorded
from wsloop import layers
from wsloop.consumers import WebsocketConsumer
from wsloop.exceptions import Disconnected, StopConsumer
from wsloop.runtime.core import BYTES, CONNECT, EVENT, NEVER, OVER, TEXT, ConsumerCore
from wsloop.runtime.state import State

TIMEOUT = 10  # HANDLER_TIMEOUT


class Consumers:
    """The registry."""

    def __init__(self):
        self.names = set()

    def enter(self, consumer):
        self.names.add("specific.1!1")
        return "specific.1!1"

    def leave(self, channel):
        self.names.remove(channel)

    def check_thread(self):
        pass


class Consumer(Recorded):
    """Accepts its socket, unless the test has it do otherwise."""

    def __init__(self, **handlers):
        super().__init__(**{"connect": lambda self: self.accept()} | handlers)


class Plain(ConsumerCore):
    """Calls handlers where the test says so, :meth:`run`, and writes down what it is asked for."""

    ended_by = GreenletExit

    def __init__(self, consumer):
        self.asked = []
        self.time = 0.0
        self.foreign = False
        self.registry = Consumers()
        user = AnonymousUser()
        scope = {"path": "/ws/", "subprotocols": ["chat"], "user": user, "url_route": {"kwargs": {}}}
        super().__init__(consumer, scope, self.registry)
        self.calls = consumer.calls

    def run(self):
        """Handle all that waits."""
        while self._inbox.entries:
            event = self._take()
            if event is not None:
                if self._client_gone:
                    self._end_soon()
                try:
                    self._consumer.dispatch(event)
                except BaseException as exc:
                    self._handled(event, exc)
                else:
                    self._handled(event)
        return self

    def bring(self, state):
        """Bring it into a state."""
        self._put(CONNECT)
        if state is not State.CONNECTING:
            self.run()
        if state is State.OPENING:
            return self
        self._opened()
        if state is State.HUNG_UP:
            self._hung_up()
        elif state is State.LEFT:
            self._leave(1001)
            self.run()
        self.asked.clear()
        return self

    def message(self, text):
        self._put(TEXT, text.encode())

    def event(self, number, capacity=10, max_bytes=1000):
        return self._put_published(EVENT, msgpack.packb({"type": "happened", "number": number}), capacity, max_bytes)

    def _wake(self):
        pass

    def _now(self):
        return self.time

    def _open(self, subprotocol, headers):
        self.asked.append(("open", subprotocol, *headers))
        return "opening"

    def _refuse(self, error, code):
        self.asked.append(("refuse", getattr(error, "status", type(error)), code))

    def _transmit(self, payload, text):
        self.asked.append(("send", payload, text))
        return "sending"

    def _stop_caller(self):
        if not self.foreign:
            raise Disconnected

    def _close_connection(self, code, reason):
        self.asked.append(("close", code, reason))
        self._leave(code)

    def _end_handler(self):
        self.asked.append(("end handler", self._ends_at))

    def _report(self, event, error):
        self.asked.append(("report", event["type"], type(error)))

    def _release(self):
        assert self.registry.names == set()


def raising(error):
    def handler(*_):
        raise error

    return handler


# The table of the states.


@pytest.mark.parametrize(
    ("connect", "asked", "left_with"),
    [
        (lambda self: self.close(), ("refuse", 403, 1000), 1006),
        (lambda self: self.close(4000), ("refuse", 403, 4000), 1006),
        (raising(StopConsumer()), ("refuse", 403, 1000), 1006),
        (raising(Disconnected()), ("refuse", 503, 1012), 1012),
        (raising(PermissionDenied()), ("refuse", PermissionDenied, 1006), 1006),
        (raising(RedisError()), ("refuse", RedisError, 1006), 1006),
        (raising(ZeroDivisionError()), ("refuse", 500, 1011), 1011),
        (lambda self: None, ("refuse", 500, 1011), 1011),
        (lambda self: self.send("early"), ("refuse", 500, 1011), 1011),
    ],
)
def test_connecting_ends_with_a_refusal(connect, asked, left_with):
    core = Plain(Consumer(connect=connect)).bring(State.CONNECTING).run()
    assert core.asked[0] == asked
    assert core.calls == [("connect",), ("disconnect", left_with)]
    assert core._state is State.LEFT
    own = asked[1] == 500
    assert [each[0] for each in core.asked if each[0] == "report"] == (["report"] if own else [])


def test_connecting_opening_open():
    core = Plain(Consumer(connect=lambda self: self.accept("chat")))
    core._put(CONNECT)
    assert core._state is State.CONNECTING
    core.run()
    assert (core._state, core.asked) == (State.OPENING, [("open", "chat")])
    core._opened()
    assert core._state is State.OPEN


def test_accepting_with_headers():
    headers = [(b"X-Name", b"Gr\xfc\xdfe "), ("Set-Cookie", "a=b; Path=/"), ["x-empty", b""]]
    core = Plain(Consumer(connect=lambda self: self.accept(headers=headers)))
    core.bring(State.CONNECTING).run()
    added = (("X-Name", "Gr\xfc\xdfe"), ("Set-Cookie", "a=b; Path=/"), ("x-empty", ""))
    assert core.asked == [("open", None, *added)]


def test_headers_that_are_refused_leave_the_socket_as_it_was():
    core = Plain(Consumer()).bring(State.CONNECTING)
    with pytest.raises(ValueError, match="the handshake does"):
        core._consumer.accept(headers=[("Upgrade", "h2c")])
    core._consumer.accept()
    assert core.asked == [("open", None)]


def test_leaving_before_connect_calls_nothing():
    core = Plain(Consumer())
    core._put(CONNECT)
    core._leave(1006)
    assert core.run().calls == []
    assert core.registry.names == set()


@pytest.mark.parametrize("state", [State.CONNECTING, State.OPENING])
def test_send_comes_after_accept(state):
    core = Plain(Consumer()).bring(state)
    with pytest.raises(RuntimeError, match=r"send\(\) comes after accept\(\)"):
        core._consumer.send("early")


@pytest.mark.parametrize("state", [State.OPENING, State.OPEN, State.HUNG_UP])
def test_accepting_twice(state):
    core = Plain(Consumer()).bring(state)
    with pytest.raises(RuntimeError, match="accepted before"):
        core._consumer.accept()


def test_accepting_when_the_client_has_left():
    core = Plain(Consumer()).bring(State.CONNECTING)
    core._leave(1006)
    for core.foreign in (False, True):
        with pytest.raises(Disconnected):
            core._consumer.accept()


def test_what_closes_while_it_is_opening_is_carried_out_when_it_is_open():
    core = Plain(Consumer()).bring(State.OPENING)
    core._consumer.close(4000, "first")
    core._consumer.close(4001, "second")
    assert core._state is State.OPENING
    core._opened()
    assert core.asked[-1] == ("close", 4000, "first")
    assert core.run().calls[-1] == ("disconnect", 4000)


def test_leaving_while_it_is_opening():
    core = Plain(Consumer()).bring(State.OPENING)
    core._leave(1006)
    core._opened()
    assert core._state is State.LEFT
    assert core.run().calls[-1] == ("disconnect", 1006)


@pytest.mark.parametrize("state", [State.OPEN, State.HUNG_UP])
@pytest.mark.parametrize(
    ("receive", "closed"),
    [
        (lambda self, _: self.close(4000, "x"), (4000, "x")),
        (lambda self, _: self.close(), (1000, "")),
        (raising(StopConsumer()), (1000, "")),
        (raising(ZeroDivisionError()), (1011, "internal error")),
        (raising(SystemExit()), (1011, "internal error")),
    ],
)
def test_what_ends_an_open_socket(state, receive, closed):
    core = Plain(Consumer(receive=receive)).bring(state)
    core.message("go")
    core.message("more")
    core.run()
    assert ("close", *closed) in core.asked
    assert core.calls[1:] == [("receive", "go"), ("disconnect", closed[0])], "without the message behind it"


@pytest.mark.parametrize(("state", "closed"), [(State.OPEN, [("close", 1000, "")]), (State.HUNG_UP, [])])
def test_a_handler_that_is_ended_closes_a_socket_whose_client_is_there(state, closed):
    core = Plain(Consumer(receive=raising(GreenletExit()))).bring(state)
    core.message("go")
    assert [each for each in core.run().asked if each[0] == "close"] == closed


def test_sending():
    core = Plain(Consumer()).bring(State.OPEN)
    results = [core._do({"type": "websocket.send", **each}) for each in ({"text": "ä"}, {"bytes": memoryview(b"\xff")})]
    assert core.asked == [("send", "ä".encode(), True), ("send", b"\xff", False)]
    assert results == ["sending"] * 2, "may be something to wait for"
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        core._consumer.send("\ud800")


@pytest.mark.parametrize("state", [State.HUNG_UP, State.LEFT])
def test_sending_when_the_client_is_gone(state):
    core = Plain(Consumer()).bring(state)
    consumer = core._consumer or WebsocketConsumer()
    consumer.base_send = core._do
    with pytest.raises(Disconnected):
        consumer.send("nobody")
    core.foreign = True
    consumer.send("nobody")
    assert core.asked == []


def test_hanging_up_is_nothing_new_when_the_client_has_left():
    core = Plain(Consumer()).bring(State.LEFT)
    core._hung_up()
    assert core._state is State.LEFT


def test_the_interrupt_of_a_person_is_no_error_of_the_handler():
    core = Plain(Consumer(receive=raising(KeyboardInterrupt()))).bring(State.OPEN)
    core.message("go")
    core.run()
    assert (core._state, core.asked) == (State.OPEN, [])


# The end.


def test_disconnect_is_last_and_behind_the_messages_of_the_client():
    core = Plain(Consumer()).bring(State.OPEN)
    core.message("one")
    core.event(1)
    core._put(BYTES, b"two")
    core._leave(4321)
    core._leave(1000)
    assert core.event(2), "a publisher is not told"
    assert core.run().calls[1:] == [("receive", "one"), ("receive", b"two"), ("disconnect", 4321)]
    assert core.registry.names == set()
    assert core._consumer is None


def test_messages_have_their_time_in_all_and_disconnect_has_its_own():
    def receive(self, _):
        core.time += 4

    core = Plain(Consumer(receive=receive)).bring(State.OPEN)
    for number in range(5):
        core.message(str(number))
    assert core._ends_at == NEVER
    core._leave(1006)
    core.run()
    assert core.calls[1:] == [*[("receive", str(number)) for number in range(3)], ("disconnect", 1006)]
    assert core.asked == [("end handler", TIMEOUT)] * 3 + [("end handler", 12 + TIMEOUT)]


def test_when_time_is_over_only_disconnect_is_called():
    core = Plain(Consumer()).bring(State.OPEN)
    core.message("late")
    core._ends_at = OVER
    core._leave(1012)
    assert core.run().calls[1:] == [("disconnect", 1012)]
    assert core._ends_at == TIMEOUT


@pytest.mark.parametrize(("ends_at", "logged"), [(TIMEOUT, 1), (OVER, 0)])
def test_a_disconnect_that_has_sent_is_logged_but_not_one_that_was_ended(caplog, ends_at, logged):
    def disconnect(self, _):
        core._ends_at = ends_at
        raise Disconnected

    core = Plain(Consumer(disconnect=disconnect))
    core.bring(State.LEFT)
    assert caplog.text.count("disconnect() of Consumer at '/ws/' for AnonymousUser None ended early") == logged


# What the channel layer brings.


def test_events_have_room_of_their_own():
    core = Plain(Consumer()).bring(State.OPEN)
    for number in range(5):
        core.message(str(number))
    assert [core.event(number, capacity=2) for number in range(3)] == [True, True, False]
    assert core.asked == []


def test_a_full_consumer_that_waits_for_its_client_is_closed_but_its_messages_are_handled():
    core = Plain(Consumer()).bring(State.OPEN)
    core._blocked_sends = 1
    core.message("before")
    assert [core.event(number, capacity=1) for number in range(2)] == [True, False]
    assert core.asked == [("close", 4008, "too slow")]
    assert core.run().calls[1:] == [("receive", "before"), ("disconnect", 4008)]


def test_a_malformed_event_is_discarded(caplog):
    caplog.set_level(logging.WARNING, "wsloop.runner")
    core = Plain(Consumer()).bring(State.OPEN)
    core._put(EVENT, b"\xc1")
    core.event(1)
    assert core.run().calls[1:] == [("happened", 1)]
    assert "Discarded malformed event (1 bytes) for Consumer at '/ws/' for AnonymousUser None\n" in caplog.text


@pytest.mark.parametrize("kind", ["_consumer", "__class__", ".x", "_" * 1000])
def test_an_event_that_must_not_name_a_method_is_discarded_and_logged(caplog, kind):
    caplog.set_level(logging.WARNING, "wsloop.runner")
    core = Plain(Consumer()).bring(State.OPEN)
    core._put(EVENT, msgpack.packb({"type": kind}))
    core.event(1, max_bytes=10_000)
    assert core.run().calls[1:] == [("happened", 1)]
    text = f"None: Malformed type in message (leading underscore): {kind[:100]!r}"
    assert text in caplog.text
    assert core.asked == []


def test_the_layer_of_a_consumer_is_that_of_its_alias(with_settings):
    with_settings(CHANNEL_LAYERS={"other": {"BACKEND": "wsloop.layers.RedisChannelLayer"}})

    class Other(Consumer):
        channel_layer_alias = "other"

    class Alone(Consumer):
        channel_layer_alias = None

    assert Plain(Alone())._consumer.channel_layer is None
    assert Plain(Other())._consumer.channel_layer is layers.get_channel_layer("other")
    assert Plain(Consumer())._consumer.channel_layer is layers.get_channel_layer()


def test_a_consumer_that_does_not_begin_is_not_registered():
    class Broken(Consumer):
        base_send = property(None, raising(ZeroDivisionError()))

    registry = Consumers()
    core = Plain.__new__(Plain)
    with pytest.raises(ZeroDivisionError):
        ConsumerCore.__init__(core, Broken(), {}, registry)
    assert registry.names == set()
