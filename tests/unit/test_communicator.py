"""A test acts as the client of a consumer, and sees the same as a client of the server, without waiting."""

import asyncio
import threading
import time
from time import sleep as doze

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.urls import path, re_path
from django.utils import translation

from wsloop.consumers import JsonWebsocketConsumer, SyncConsumer, WebsocketConsumer
from wsloop.exceptions import AcceptConnection, ChannelFull, DenyConnection, Disconnected, StopConsumer
from wsloop.layers import RedisDelivery, get_channel_layer
from wsloop.testing import WebsocketCommunicator


class Echo(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data, bytes_data)


class Json(JsonWebsocketConsumer):
    def receive_json(self, content):
        self.send_json({"was": content})


class Ticker(WebsocketConsumer):
    def connect(self):
        self.accept()
        for number in range(10**9):
            self.send(str(number))
            time.sleep(1)


class Traced(WebsocketConsumer):
    """Records its calls, and carries out the commands in messages."""

    def __init__(self):
        self.calls = []

    def connect(self):
        self.calls.append("connect")
        self.accept()

    def receive(self, text_data=None, bytes_data=None):
        self.calls.append(text_data)
        command, _, argument = text_data.partition(" ")
        getattr(self, f"do_{command}", len)(argument)
        self.calls.append(f"{command} is done")

    def do_sleep(self, seconds):
        time.sleep(float(seconds))

    def do_close(self, code):
        self.close(int(code), "because")

    def do_fail(self, argument):
        raise ZeroDivisionError(argument)

    def do_stop(self, argument):
        raise StopConsumer

    def do_send(self, argument):
        self.send(argument)

    def note(self, event):
        self.calls.append(event["text"])

    def disconnect(self, close_code):
        self.calls.append(f"disconnect {close_code}")


def open_socket(consumer, path="/ws/test/", **options):
    socket = WebsocketCommunicator(consumer, path, **options)
    assert socket.connect() == (True, None)
    return socket


@pytest.fixture
def opened():
    """Open a socket that is closed after the test: ``opened(Echo)``."""
    sockets = []

    def make(*args, **options):
        sockets.append(open_socket(*args, **options))
        return sockets[-1]

    yield make
    for socket in sockets:
        socket.disconnect()


# Messages.


def test_text_and_bytes_there_and_back(opened):
    socket = opened(Echo)
    socket.send_to(text_data="hello")
    socket.send_to(bytes_data=b"\0\xff")
    assert [socket.receive_from(), socket.receive_from()] == ["hello", b"\0\xff"]
    assert socket.receive_nothing()


def test_json(opened):
    socket = opened(Json)
    socket.send_json_to({"a": [1, "ä"]})
    assert socket.receive_json_from() == {"was": {"a": [1, "ä"]}}


def test_json_that_is_none(opened):
    socket = opened(Echo)
    socket.send_to(bytes_data=b"{}")
    with pytest.raises(AssertionError, match=r"sent a binary message instead of JSON: b'\{\}'"):
        socket.receive_json_from()


def test_an_empty_message_is_one(opened):
    socket = opened(Echo)
    socket.send_to(text_data="")
    assert socket.receive_from() == ""
    socket.send_to(bytes_data=b"")
    assert socket.receive_from() == b""


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, ValueError),
        ({"text_data": "a", "bytes_data": b"a"}, ValueError),
        ({"text_data": b"a"}, TypeError),
        ({"bytes_data": "a"}, TypeError),
    ],
)
def test_what_cannot_be_sent(opened, given, error):
    socket = opened(Echo)
    with pytest.raises(error):
        socket.send_to(**given)


def test_the_lower_consumer(opened):
    class Low(SyncConsumer):
        def websocket_connect(self, event):
            self.send({"type": "websocket.accept"})

        def websocket_receive(self, event):
            self.send({"type": "websocket.send", "text": event["text"].upper()})
            self.send({"type": "websocket.close", "code": 4000})

        def websocket_disconnect(self, event):
            raise StopConsumer

    socket = opened(Low)
    socket.send_to("text")
    assert socket.receive_output() == {"type": "websocket.send", "text": "TEXT"}
    assert socket.receive_output() == {"type": "websocket.close", "code": 4000, "reason": ""}


@pytest.mark.parametrize(
    ("event", "error", "words"),
    [
        ({"type": "websocket.send", "text": 7}, TypeError, "must be text"),
        ({"type": "websocket.send", "bytes": "text"}, TypeError, "must be text"),
        ({"type": "websocket.send", "text": "\ud800"}, ValueError, "half of a surrogate pair"),
        ({"type": "websocket.close", "code": 1006}, ValueError, "a close code must be"),
        ({"type": "websocket.close", "code": 4000, "reason": "ä" * 62}, ValueError, "123 bytes"),
        ({"type": "websocket.accept"}, RuntimeError, "accepted before"),
        ({"type": "websocket.wink"}, ValueError, "websocket.wink"),
    ],
)
def test_what_a_consumer_cannot_do(opened, event, error, words):
    class Wrong(Echo):
        def receive(self, text_data):
            self.base_send(event)

    socket = opened(Wrong)
    with pytest.raises(error, match=words):
        socket.send_to("now")
    assert socket.receive_output() == {"type": "websocket.close", "code": 1011, "reason": "internal error"}


# The handshake.


@pytest.mark.parametrize(
    ("connect", "answer"),
    [
        (lambda self: self.accept(), (True, None)),
        (lambda self: self.accept("b"), (True, "b")),
        (lambda self: self.close(), (False, 1000)),
        (lambda self: self.close(4003), (False, 4003)),
        (lambda self: (_ for _ in ()).throw(AcceptConnection), (True, None)),
        (lambda self: (_ for _ in ()).throw(DenyConnection), (False, 1000)),
        (lambda self: (_ for _ in ()).throw(Disconnected), (False, 1012)),
    ],
)
def test_answers(connect, answer):
    calls = []
    members = {"connect": connect, "disconnect": lambda self, code: calls.append(code)}
    with WebsocketCommunicator(type("Made", (WebsocketConsumer,), members), "/", subprotocols=["a", "b"]) as socket:
        assert socket.connect() == answer
        code = 1012 if answer[1] == 1012 else 1006
        assert calls == ([] if answer[0] else [code])
    assert calls == [1000 if answer[0] else code]


@pytest.mark.parametrize(
    ("connect", "error", "code"),
    [
        (lambda self: None, RuntimeError, 1011),
        (lambda self: 1 / 0, ZeroDivisionError, 1011),
        (lambda self: self.send("early"), RuntimeError, 1011),
        (lambda self: self.accept("c"), ValueError, 1011),
        (lambda self: (_ for _ in ()).throw(PermissionDenied), PermissionDenied, 1006),
    ],
)
def test_errors_of_connect_are_the_test_s(connect, error, code):
    calls = []
    members = {"connect": connect, "disconnect": lambda self, code: calls.append(code)}
    socket = WebsocketCommunicator(type("Made", (WebsocketConsumer,), members), "/", subprotocols=["a", "b"])
    with pytest.raises(error):
        socket.connect()
    assert calls == [code]
    socket.disconnect()
    assert calls == [code]


def test_an_answer_that_comes_late():
    class Late(WebsocketConsumer):
        def connect(self):
            time.sleep(3)
            self.accept()

    with WebsocketCommunicator(Late, "/") as socket:
        assert socket.connect(timeout=3) == (True, None)
    with WebsocketCommunicator(Late, "/") as socket:
        with pytest.raises(TimeoutError, match=r"neither accepted nor rejected .* within 1 s; .* sleeps for 2 s more"):
            socket.connect()
        with pytest.raises(RuntimeError, match="was called before"):
            socket.connect()


def fail(self, *args):
    raise ZeroDivisionError


@pytest.mark.parametrize("broken", [{"__init__": fail}, {"base_send": property(None, fail)}])
def test_a_consumer_that_cannot_be_made_leaves_nothing(broken):
    with (
        pytest.raises(ZeroDivisionError),
        WebsocketCommunicator(type("Made", (WebsocketConsumer,), broken), "/") as socket,
    ):
        socket.connect()
    assert isinstance(get_channel_layer().remote, RedisDelivery)


def test_what_needs_a_socket():
    socket = WebsocketCommunicator(Echo, "/")
    for call in (socket.receive_from, socket.receive_nothing, socket.receive_output, socket.wait):
        with pytest.raises(RuntimeError, match=r"call connect\(\) first"):
            call()
    with pytest.raises(RuntimeError, match=r"call connect\(\) first"):
        socket.send_to("hello")
    socket.disconnect()  # as the end of a block does, whatever was raised in it


@pytest.mark.parametrize(
    ("connect", "answer"),
    [
        (lambda self: self.accept(), {"type": "websocket.accept", "subprotocol": None, "headers": []}),
        (
            lambda self: self.accept("b", headers=[("X-Name", "value")]),
            {"type": "websocket.accept", "subprotocol": "b", "headers": [[b"X-Name", b"value"]]},
        ),
        (lambda self: self.close(4003), {"type": "websocket.close", "code": 4003}),
        (lambda self: self.close(), {"type": "websocket.close", "code": 1000}),
    ],
)
def test_raw_events_as_in_channels(connect, answer):
    made = type("Made", (Traced,), {"connect": connect})
    with WebsocketCommunicator(made, "/", subprotocols=["b"]) as socket:
        socket.send_input({"type": "websocket.connect"})
        assert not socket.receive_nothing()
        assert socket.receive_output() == answer
        assert socket.receive_nothing()
        if answer["type"] == "websocket.close":
            return
        assert socket.response_headers == answer["headers"]
        socket.send_input({"type": "websocket.receive", "text": "send hello", "bytes": None})
        assert socket.receive_output() == {"type": "websocket.send", "text": "hello"}
        socket.send_input({"type": "note", "text": "noted"})
        assert socket.consumer.calls[-1] == "noted"
        socket.send_input({"type": "websocket.disconnect", "code": 1001})
        assert socket.consumer.calls[-1] == "disconnect 1001"


def test_raw_events_need_a_socket_and_room(opened, with_settings):
    with_settings(WSLOOP={"CHANNEL_CAPACITY": 1})
    socket = WebsocketCommunicator(Traced, "/")
    for kind in ("websocket.receive", "websocket.disconnect", "note"):
        with pytest.raises(RuntimeError, match=r"call connect\(\) first"):
            socket.send_input({"type": kind, "text": "x"})
    socket = opened(Traced)
    with pytest.raises(RuntimeError, match="was called before"):
        socket.send_input({"type": "websocket.connect"})
    socket.send_to("sleep 5")
    socket.send_input({"type": "note", "text": "a"})
    with pytest.raises(ChannelFull, match="has 1 events waiting"):
        socket.send_input({"type": "note", "text": "b"})


def test_the_headers_of_the_answer(opened):
    made = type("Made", (Echo,), {"connect": lambda self: self.accept(headers=[("X-Name", b"\xff")])})
    socket = WebsocketCommunicator(made, "/")
    assert socket.response_headers is None
    with socket:
        socket.connect()
        assert socket.response_headers == [[b"X-Name", b"\xff"]]
    assert opened(Echo).response_headers == []


# The scope.


def test_the_scope_of_nobody(opened):
    scope = opened(Echo, "/ws/echo/?a=1&a=2").scope
    assert scope["type"] == "websocket"
    assert scope["path"] == "/ws/echo/"
    assert scope["query_string"] == b"a=1&a=2"
    assert (b"host", b"testserver") in scope["headers"]
    assert scope["cookies"] == {}
    assert scope["client"] == ("127.0.0.1", 50000)
    assert scope["subprotocols"] == []
    assert scope["user"] == AnonymousUser()
    assert scope["session"].session_key is None
    assert scope["url_route"] == {"args": (), "kwargs": {}}


@pytest.mark.parametrize("pairs", [dict, lambda pairs: [(a.encode(), b.encode()) for a, b in pairs.items()]])
def test_what_the_scope_is_given(opened, pairs):
    headers = pairs({"User-Agent": "a test", "cookie": "a=1; b=2"})
    john = User(username="john")
    given = {"user": john, "session": {"cart": 7}, "kwargs": {"room": "lobby"}, "subprotocols": ["a", "b"]}
    consumer = opened(Echo, "ws/caf%C3%A9/?x=%20", headers=headers, **given).consumer
    assert consumer.scope["path"] == "/ws/café/"
    assert consumer.query["x"] == " "
    names = dict(consumer.scope["headers"])
    assert names[b"user-agent"] == b"a test"
    assert b"cookie" not in names
    assert consumer.scope["cookies"] == {"a": "1", "b": "2"}
    assert consumer.scope["subprotocols"] == ["a", "b"]
    assert consumer.user is john
    assert consumer.session["cart"] == 7
    assert consumer.kwargs == {"room": "lobby"}


def test_the_scope_may_be_changed_before():
    socket = WebsocketCommunicator(Echo.as_websocket(), "/")
    socket.scope["user"] = User(username="mary")
    with socket:
        socket.connect()
        assert socket.consumer.user.username == "mary"


def test_patterns_lead_to_the_consumer(opened):
    class Named(Echo):
        def __init__(self, name):
            self.name = name

    patterns = [path("ws/echo/", Echo.as_websocket()), re_path(r"^ws/(?P<room>\w+)/$", Named.as_websocket(name="n"))]
    consumer = opened(patterns, "/ws/lobby/").consumer
    assert (type(consumer), consumer.name, consumer.kwargs) == (Named, "n", {"room": "lobby"})
    assert type(opened(patterns, "/ws/echo/").consumer) is Echo
    with pytest.raises(ValueError, match=r"no pattern matches '/ws/ech/o/'.*: ws/echo/, \^ws/"):
        WebsocketCommunicator(patterns, "/ws/ech/o/")
    with pytest.raises(TypeError, match="captured by the patterns"):
        WebsocketCommunicator(patterns, "/ws/lobby/", kwargs={"room": "x"})


@pytest.mark.parametrize("consumer", [Echo, Echo.as_websocket(), Echo.as_asgi(), Echo()])
def test_a_consumer_in_each_of_its_forms(opened, consumer):
    socket = opened(consumer, kwargs={"room": "lobby"})
    socket.send_to("hello")
    assert socket.receive_from() == "hello"
    assert socket.consumer.kwargs == {"room": "lobby"}
    assert not isinstance(consumer, Echo) or socket.consumer is consumer, (
        "an instance itself, which the test may look at"
    )


@pytest.mark.parametrize("application", ["chat.consumers.Echo", None, 7, dict])
def test_what_is_no_application(application):
    with pytest.raises(TypeError, match="application must be"):
        WebsocketCommunicator(application, "/")


# Time.


def test_a_ticker_takes_no_time(opened):
    began = time.monotonic()
    socket = opened(Ticker)
    assert [socket.receive_from() for _ in range(3000)] == [str(number) for number in range(3000)]
    assert time.monotonic() - began < 1000  # three thousand seconds have passed for the consumer


def test_time_passes_only_as_far_as_it_is_waited_for(opened):
    socket = opened(Ticker)
    assert socket.receive_from() == "0"
    assert socket.receive_nothing(timeout=0.9)
    with pytest.raises(TimeoutError, match=r"Ticker at '/ws/test/': no message arrived within 0.05 s; ") as raised:
        socket.receive_from(timeout=0.05)
    assert "the handler of websocket.connect sleeps for 0.05 s more" in str(raised.value)
    assert f"{__file__}:" in str(raised.value)
    assert not socket.receive_nothing(timeout=0.06)
    assert socket.receive_from(timeout=0) == "1"


def test_a_sleep_that_was_imported_by_name(opened):
    class Dozing(Echo):
        def receive(self, text_data):
            doze(3600)
            self.send(text_data)

    socket = opened(Dozing)
    socket.send_to("later")
    assert socket.receive_nothing(3599)
    assert socket.receive_from() == "later"


def test_the_test_s_own_sleep_is_real(opened):
    socket = opened(Ticker)
    began = time.monotonic()
    time.sleep(0.01)
    assert time.monotonic() - began >= 0.009
    assert socket.receive_from() == "0"
    assert socket.receive_nothing()


def test_a_sleep_that_a_test_has_replaced_stays_so(opened, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    socket = opened(Traced)
    socket.send_to("sleep 5")
    assert slept == [5]
    assert socket.consumer.calls[-1] == "sleep is done"


@pytest.mark.parametrize("seconds", ["-1", "nan"])
def test_sleeps_that_cannot_be(opened, seconds):
    socket = opened(Traced)
    with pytest.raises(ValueError, match="sleep"):
        socket.send_to(f"sleep {seconds}")


def test_a_loop_that_does_not_really_sleep(opened):
    class Restless(Echo):
        def receive(self, text_data):
            while True:
                time.sleep(0)

    socket = opened(Restless)
    socket.send_to("go")
    assert socket.receive_nothing(0.5)


def test_events_wait_for_the_handler_that_runs(opened):
    socket = opened(Traced)
    socket.send_to("sleep 5")
    socket.send_to("send a")
    assert socket.consumer.calls == ["connect", "sleep 5"]
    socket.wait(timeout=5)
    assert socket.consumer.calls[2:] == ["sleep is done", "send a", "send is done"]
    assert socket.receive_from(timeout=0) == "a"


def test_waiting_for_what_does_not_end(opened):
    socket = opened(Traced)
    socket.send_to("sleep 5")
    with pytest.raises(
        TimeoutError, match=r"its handlers have not ended within 4 s; .* sleeps for 1 s more, at .+:\d+$"
    ):
        socket.wait(timeout=4)


def test_a_loop_that_sends_for_ever_waits_for_its_client(opened):
    class Flood(Echo):
        def receive(self, text_data):
            self.sent = 0
            while True:
                self.send(str(self.sent))
                self.sent += 1

    socket = opened(Flood)
    socket.send_to("go")
    assert socket.consumer.sent == 1000
    with pytest.raises(TimeoutError, match=r"waits until the test receives some of 1000 messages, at .+:\d+$"):
        socket.wait()
    assert [socket.receive_from() for _ in range(2500)] == [str(number) for number in range(2500)]


# The end.


def test_disconnecting(opened):
    socket = opened(Traced)
    socket.disconnect(code=4321)
    socket.disconnect(code=1000)
    assert socket.consumer.calls == ["connect", "disconnect 4321"]
    with pytest.raises(RuntimeError, match=r"cannot send to Traced .*: the socket has ended, with close code 4321"):
        socket.send_to("more")
    with pytest.raises(AssertionError, match=r"no message arrived from Traced .* has ended, with close code 4321"):
        socket.receive_from()
    with pytest.raises(TimeoutError, match="no more output from Traced"):
        socket.receive_output()


def test_the_consumer_closes(opened):
    socket = opened(Traced)
    socket.send_to("send before")
    socket.send_to("close 4000")
    assert socket.consumer.calls[-2:] == ["close is done", "disconnect 4000"]
    assert socket.receive_from() == "before"
    with pytest.raises(AssertionError, match="no message arrived"):
        socket.receive_from()
    assert socket.receive_output() == {"type": "websocket.close", "code": 4000, "reason": "because"}
    socket.disconnect()
    assert socket.consumer.calls[-1] == "disconnect 4000"


def test_a_consumer_that_stops(opened):
    socket = opened(Traced)
    socket.send_to("stop")
    assert socket.receive_output()["code"] == 1000
    assert socket.consumer.calls == ["connect", "stop", "disconnect 1000"]


def test_the_client_leaves_a_handler_that_sleeps(opened):
    socket = opened(Traced)
    socket.send_to("sleep 5")
    socket.send_to("a")
    socket.send_to("send b")
    socket.send_to("sleep 5")
    socket.send_to("c")
    socket.disconnect(1006)
    # Messages from before are handled, but no handler can sleep or send any more.
    assert socket.consumer.calls == [
        "connect", "sleep 5", "a", "a is done", "send b", "sleep 5", "c", "c is done", "disconnect 1006",
    ]  # fmt: skip
    assert socket.receive_nothing()


def test_what_the_client_has_sent_is_not_for_a_consumer_that_has_closed(opened):
    socket = opened(Traced)
    socket.send_to("sleep 1")
    socket.send_to("close 4000")
    socket.send_to("a")
    socket.wait(timeout=1)
    assert socket.consumer.calls[-2:] == ["close is done", "disconnect 4000"]


def test_after_closing_nothing_sleeps_or_is_sent(opened):
    class Closing(Traced):
        def do_both(self, argument):
            self.close()
            try:
                self.send("too late")
            except BaseException as exc:
                self.calls.append(type(exc).__name__)
            time.sleep(1)

    socket = opened(Closing)
    socket.send_to("both")
    assert socket.consumer.calls == ["connect", "both", "Disconnected", "disconnect 1000"]


def test_disconnect_may_sleep_but_not_for_ever(opened):
    class Slow(Traced):
        def disconnect(self, close_code):
            super().disconnect(close_code)
            time.sleep(9)
            self.calls.append("still")
            time.sleep(2)
            self.calls.append("never")

    socket = opened(Slow)
    socket.disconnect()
    assert socket.consumer.calls == ["connect", "disconnect 1000", "still"]


def test_a_handler_that_is_not_to_be_told(opened):
    class Deaf(Echo):
        def receive(self, text_data):
            while True:
                try:
                    time.sleep(1)
                    self.send("still there")
                except BaseException:
                    pass

    socket = opened(Deaf)
    socket.send_to("go")
    with pytest.raises(RuntimeError, match=r"must not catch wsloop.exceptions.Disconnected"):
        socket.disconnect()


def test_a_client_that_leaves_before_the_answer():
    class Late(Traced):
        def connect(self):
            self.calls.append("connect")
            time.sleep(3)
            self.accept()

    socket = WebsocketCommunicator(Late, "/")
    with pytest.raises(TimeoutError):
        socket.connect()
    socket.disconnect(1000)
    assert socket.consumer.calls == ["connect", "disconnect 1006"]


def test_the_end_of_a_block_disconnects():
    with WebsocketCommunicator(Traced, "/") as socket:
        socket.connect()
    assert socket.consumer.calls == ["connect", "disconnect 1000"]


def test_what_a_block_raises_is_not_hidden_by_what_comes_of_it():
    class Broken(Traced):
        def disconnect(self, close_code):
            self.calls.append("disconnect")
            raise ZeroDivisionError

    with pytest.raises(KeyError), WebsocketCommunicator(Broken, "/") as socket:
        socket.connect()
        raise KeyError
    assert socket.consumer.calls == ["connect", "disconnect"]


# Errors.


def test_errors_are_raised_where_they_happen(opened):
    socket = opened(Traced)
    with pytest.raises(ZeroDivisionError, match="now") as raised:
        socket.send_to("fail now")
    assert any(entry.name == "do_fail" for entry in raised.traceback)
    assert socket.receive_output() == {"type": "websocket.close", "code": 1011, "reason": "internal error"}
    assert socket.consumer.calls == ["connect", "fail now", "disconnect 1011"]


def test_errors_behind_a_sleep_are_raised_by_who_lets_it_pass(opened):
    socket = opened(Traced)
    socket.send_to("sleep 2")
    socket.send_to("fail then")
    assert socket.receive_nothing(timeout=1)
    with pytest.raises(ZeroDivisionError, match="then"):
        socket.receive_from()


def test_errors_that_events_lead_to_are_not_those_of_their_sender(opened):
    class Broken(Traced):
        def note(self, event):
            raise ZeroDivisionError

    socket = opened(Broken)
    get_channel_layer().send(socket.consumer.channel_name, {"type": "note"})
    assert socket.consumer.calls[-1] == "disconnect 1011"
    with pytest.raises(ZeroDivisionError):
        socket.receive_from()


def test_a_test_may_be_interrupted_in_a_handler(opened):
    class Interrupted(Traced):
        def do_stop(self, argument):
            raise KeyboardInterrupt

    socket = opened(Interrupted)
    with pytest.raises(KeyboardInterrupt):
        socket.send_to("stop")


def test_handlers_do_not_speak_the_language_of_the_test(opened):
    class Speaking(Traced):
        def do_tell(self, argument):
            self.send(translation.get_language())
            translation.activate("fr")

    socket = opened(Speaking)
    with translation.override("de"):
        for _ in range(2):
            socket.send_to("tell")
            assert socket.receive_from() == "en-us"
        assert translation.get_language() == "de"


# Several, and the channel layer.


def test_sending_to_another_one_that_has_left_is_no_end_of_ones_own(opened):
    class Player(Traced):
        def do_tell(self, argument):
            gone.consumer.send(argument)
            self.send(argument)

    gone, player = opened(Traced), opened(Player)
    gone.disconnect()
    player.send_to("tell hello")
    assert player.receive_from() == "hello"


class Chat(WebsocketConsumer):
    groups = ["lobby"]

    def receive(self, text_data):
        self.channel_layer.group_send("lobby", {"type": "said", "text": text_data})

    def said(self, event):
        self.send(event["text"])


def test_a_room(opened):
    john, mary = opened(Chat), opened(Chat)
    john.send_to("hello")
    mary.send_to("hi")
    for socket in (john, mary):
        assert [socket.receive_from(), socket.receive_from()] == ["hello", "hi"]
    john.disconnect()
    mary.send_to("gone?")
    assert mary.receive_from() == "gone?"
    assert john.receive_nothing()


def test_rooms_of_another_layer_are_other_rooms(opened, with_settings):
    with_settings(CHANNEL_LAYERS={"other": {"BACKEND": "wsloop.layers.RedisChannelLayer"}})
    here, there = opened(Chat), opened(type("There", (Chat,), {"channel_layer_alias": "other"}))
    here.send_to("here")
    there.send_to("there")
    get_channel_layer("other").group_send("lobby", {"type": "said", "text": "from a view"})
    assert [here.receive_from(), there.receive_from(), there.receive_from()] == ["here", "there", "from a view"]
    assert here.receive_nothing() and there.receive_nothing()


def test_coroutines_reach_the_consumers_of_the_test(opened):
    socket = opened(Traced)
    name, layer = socket.consumer.channel_name, get_channel_layer()

    async def view():
        await layer.group_add("lobby", name)
        await layer.group_send("lobby", {"type": "note", "text": "one"})
        await layer.send(name, {"type": "note", "text": "two"})
        await layer.group_discard("lobby", name)
        await layer.group_send("lobby", {"type": "note", "text": "three"})

    asyncio.run(view())
    async_to_sync(layer.send)(name, {"type": "note", "text": "four"})
    assert socket.consumer.calls == ["connect", "one", "two", "four"]


def test_handlers_are_plain_code_in_a_test_that_is_a_coroutine_too(opened, database):
    class Member(Chat):
        def said(self, event):
            if event["text"] == "count":
                time.sleep(1)
                self.channel_layer.group_send("lobby", {"type": "said", "text": f"{User.objects.count()} users"})
            else:
                self.send(event["text"])

    socket = opened(Member)

    async def test():
        await get_channel_layer().group_send("lobby", {"type": "said", "text": "count"})
        message = await socket.receive_from()
        assert asyncio.get_running_loop()
        return message

    assert asyncio.run(test()) == "0 users"


@pytest.mark.parametrize("kind", ["_x", ".x", "__init__"])
def test_events_that_must_not_name_a_method_are_discarded_and_the_test_is_told(opened, kind):
    socket = opened(Traced)
    with pytest.raises(ValueError, match="leading underscore"):
        get_channel_layer().send(socket.consumer.channel_name, {"type": kind})
        socket.receive_from()
    socket.send_to("send hello")
    assert socket.receive_from() == "hello"


@pytest.mark.parametrize(
    ("event", "output"),
    [
        ({"type": "send.json", "a": 1}, '{"type":"send.json","a":1}'),
        ({"type": "send_json", "a": 1}, '{"type":"send_json","a":1}'),
        ({"type": "websocket.receive", "text": '"hello"'}, '{"was":"hello"}'),
    ],
)
def test_events_with_the_name_of_a_method_of_ours(opened, event, output):
    socket = opened(Json)
    get_channel_layer().group_add("lobby", socket.consumer.channel_name)
    get_channel_layer().group_send("lobby", event)
    assert socket.receive_from().replace(" ", "") == output
    assert socket.receive_nothing()


def test_what_another_thread_sends(opened):
    """Like the view of a LiveServerTestCase: the event is handled in the next turn of the test."""
    socket = opened(Chat)
    event = {"type": "said", "text": "hello"}
    thread = threading.Thread(target=get_channel_layer().group_send, args=["lobby", event])
    thread.start()
    thread.join()
    assert socket.receive_from(timeout=0) == "hello"


def test_all_share_the_time(opened):
    first = opened(Ticker)
    assert first.receive_nothing(timeout=0) is False
    second = opened(Ticker)
    for number in range(3):
        assert first.receive_from() == str(number)
    assert not second.receive_nothing(timeout=0)
    assert [second.receive_from(timeout=0) for _ in range(3)] == ["0", "1", "2"]


def test_a_consumer_has_room_for_so_many_events(opened, with_settings):
    with_settings(WSLOOP={"CHANNEL_CAPACITY": 3})
    socket = opened(Traced)
    socket.send_to("sleep 5")
    layer, name = get_channel_layer(), socket.consumer.channel_name
    for text in "abc":
        layer.send(name, {"type": "note", "text": text})
    socket.send_to("messages of the client do not count")
    with pytest.raises(ChannelFull, match="has 3 events waiting"):
        layer.send(name, {"type": "note", "text": "d"})
    socket.wait(timeout=5)
    assert socket.consumer.calls[3:6] == ["a", "b", "c"]
    layer.send(name, {"type": "note", "text": "e"})
    assert socket.consumer.calls[-1] == "e"


def test_a_client_that_does_not_read_is_closed_when_events_come(opened, with_settings):
    with_settings(WSLOOP={"CHANNEL_CAPACITY": 3})
    socket = opened(Chat)
    for _ in range(1004):
        get_channel_layer().group_send("lobby", {"type": "said", "text": "x"})
    assert socket.receive_nothing() is False
    get_channel_layer().group_send("lobby", {"type": "said", "text": "x"})
    assert [socket.receive_from() for _ in range(1000)] == ["x"] * 1000
    assert socket.receive_output() == {"type": "websocket.close", "code": 4008, "reason": "too slow"}


def test_what_a_slow_client_sent_before_is_handled(opened, with_settings):
    with_settings(WSLOOP={"CHANNEL_CAPACITY": 3})

    class Noted(Chat):
        def receive(self, text_data):
            self.noted = text_data

    socket = opened(Noted)
    for _ in range(1004):
        get_channel_layer().group_send("lobby", {"type": "said", "text": "x"})
    socket.send_to("before")
    get_channel_layer().group_send("lobby", {"type": "said", "text": "x"})
    socket.wait()
    assert socket.consumer.noted == "before"


def test_text_that_no_client_could_send(opened):
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        opened(Echo).send_to("\ud800")


def test_presence_is_told_by_events(opened):
    class Present(Echo):
        def presence_changed(self, event):
            self.send(f"{event['event']} {event['user']}")

    socket = opened(Present)
    event = {"type": "presence.changed", "event": "join", "user": "john"}
    get_channel_layer().send(socket.consumer.channel_name, event)
    assert socket.receive_from() == "join john"


# What a handler shares with its test.


def test_handlers_are_in_the_test_s_transaction(opened, database):
    class Saving(Echo):
        def receive(self, text_data):
            User.objects.create(username=text_data)
            time.sleep(1)
            self.send(str(User.objects.count()))

    with transaction.atomic():
        User.objects.create(username="john")
        socket = opened(Saving)
        socket.send_to("mary")
        assert User.objects.count() == 2
        assert socket.receive_from() == "2"
        transaction.set_rollback(True)
    assert User.objects.count() == 0
    assert connection.connection is not None


def test_what_waits_for_a_commit_is_named(opened, database):
    class Committing(Echo):
        def receive(self, text_data):
            transaction.on_commit(lambda: self.send(text_data))

    socket = opened(Committing)
    with transaction.atomic():
        socket.send_to("hello")
        with pytest.raises(TimeoutError, match=r"no handler runs \(Functions wait .*captureOnCommitCallbacks"):
            socket.receive_from()
    assert socket.receive_from() == "hello"


def test_threads_that_handlers_have_started(opened):
    class Threaded(Echo):
        def receive(self, text_data):
            threading.Thread(target=self.work, args=[text_data]).start()

        def work(self, text):
            time.sleep(0.01)  # really
            self.send(text)
            self.close(4000)

    socket = opened(Threaded)
    socket.send_to("hello")
    assert socket.receive_from(timeout=20) == "hello"
    assert socket.receive_output(timeout=20)["code"] == 4000
