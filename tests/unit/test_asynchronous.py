"""The coroutine consumers, without a socket: the same as the plain ones, see test_consumers.py, with ``await``."""

import inspect
import json

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.urls import path

from wsloop import consumers
from wsloop.consumers import AsyncConsumer, AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, base
from wsloop.exceptions import AcceptConnection, DenyConnection, StopConsumer


def run(coroutine):
    """Return the result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


class Layer:
    """Records the requests."""

    def __init__(self):
        self.asked = []

    async def group_add(self, group, channel):
        self.asked.append(("add", group, channel))

    async def group_discard(self, group, channel):
        self.asked.append(("discard", group, channel))


def begin(consumer):
    """Begin a consumer; the events that it sends are collected in ``sent``."""
    consumer.sent = []

    async def send(event):
        consumer.sent.append(event)

    scope = {
        "query_string": b"a=1",
        "user": "john",
        "session": {},
        "url_route": {"args": (), "kwargs": {"room": "lobby"}},
    }
    base.begin(consumer, scope, send, Layer(), "specific.1!1")
    return consumer


def dispatch(consumer, kind, **content):
    run(consumer.dispatch({"type": kind, **content}))


ACCEPT = {"type": "websocket.accept", "subprotocol": None}
CLOSE = {"type": "websocket.close", "code": None, "reason": None}


class Json(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        self.content = content


# Both families have the same methods with the same parameters.


@pytest.mark.parametrize("name", ["Consumer", "WebsocketConsumer", "JsonWebsocketConsumer"])
def test_a_coroutine_for_each_method_of_the_plain_ones(name):
    plain = getattr(consumers, "SyncConsumer" if name == "Consumer" else name)
    coroutine = getattr(consumers, f"Async{name}")
    methods = {each for each in vars(plain) if inspect.isroutine(getattr(plain, each)) and not each.startswith("_")}
    assert methods
    for each in methods:
        assert inspect.iscoroutinefunction(getattr(coroutine, each)), each
        assert inspect.signature(getattr(coroutine, each)) == inspect.signature(getattr(plain, each)), each


# Which method.


def test_dispatch_awaits_the_method():
    class Consumer(AsyncConsumer):
        async def chat_message(self, event):
            self.seen = event

    consumer = begin(Consumer())
    dispatch(consumer, "chat.message", text="hello")
    assert consumer.seen == {"type": "chat.message", "text": "hello"}


@pytest.mark.parametrize("kind", ["no.such", "scope", "groups", "dispatch", "user", "x" * 10**6])
def test_dispatch_names_the_method_that_is_missing(kind):
    with pytest.raises(ValueError, match=r"AsyncWebsocketConsumer has no method \w+\(\) for events") as raised:
        dispatch(begin(AsyncWebsocketConsumer()), kind)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("name", ["begin", "query", "user", "session", "kwargs", "asked", "runner"])
def test_a_handler_may_have_any_name(name):
    seen = []

    async def handler(self, event):
        seen.append(event)

    consumer = begin(type("Made", (AsyncWebsocketConsumer,), {name: handler})())
    dispatch(consumer, "websocket.connect")
    dispatch(consumer, name)
    assert consumer.sent == [ACCEPT]
    assert seen == [{"type": name}]


@pytest.mark.parametrize("kind", ["send.json", "send_json"])
def test_an_event_may_be_named_like_a_method_as_in_channels(kind):
    consumer = begin(Json())
    dispatch(consumer, kind, n=1)
    dispatch(consumer, "websocket.receive", text='{"n": 2}')
    assert [json.loads(each["text"]) for each in consumer.sent] == [{"type": kind, "n": 1}]
    assert consumer.content == {"n": 2}


def test_what_a_consumer_knows_from_the_beginning():
    consumer = begin(AsyncConsumer())
    assert (consumer.user, consumer.session, consumer.kwargs) == ("john", {}, {"room": "lobby"})
    assert (consumer.query["a"], consumer.channel_name) == ("1", "specific.1!1")


# A socket.


class Spoken(AsyncWebsocketConsumer):
    groups = ["one", "two"]

    def __init__(self, raises=None):
        self.raises = raises
        self.received = []

    async def connect(self):
        if self.raises is not None:
            raise self.raises
        await super().connect()

    async def receive(self, text_data=None, bytes_data=None):
        self.received.append((text_data, bytes_data))

    async def disconnect(self, code):
        self.received.append(code)
        self.groups_then = list(self.channel_layer.asked)


@pytest.mark.parametrize(("raises", "sent"), [(AcceptConnection(), ACCEPT), (DenyConnection(), CLOSE), (None, ACCEPT)])
def test_connect_may_decide_by_raising(raises, sent):
    consumer = begin(Spoken(raises))
    dispatch(consumer, "websocket.connect")
    assert consumer.sent == [sent]


def test_groups_are_joined_before_connect_and_left_before_disconnect():
    consumer = begin(Spoken())
    dispatch(consumer, "websocket.connect")
    assert consumer.channel_layer.asked == [("add", "one", "specific.1!1"), ("add", "two", "specific.1!1")]
    for code in (4000, 1006):
        with pytest.raises(StopConsumer):
            dispatch(consumer, "websocket.disconnect", code=code)
    assert consumer.received == [4000], "once, even if somebody sends that event"
    assert consumer.groups_then[2:] == [("discard", "one", "specific.1!1"), ("discard", "two", "specific.1!1")]


def test_disconnect_is_not_called_where_a_group_could_not_be_joined():
    consumer = begin(Spoken())
    consumer.channel_layer.group_add = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        dispatch(consumer, "websocket.connect")
    with pytest.raises(StopConsumer):
        dispatch(consumer, "websocket.disconnect", code=1006)
    assert consumer.received == []


def test_each_socket_has_groups_of_its_own():
    one, other = Spoken.__mro__[1](), AsyncWebsocketConsumer()
    one.groups.append("x")
    assert (other.groups, AsyncWebsocketConsumer.groups) == ([], None)


@pytest.mark.parametrize(
    ("event", "received"),
    [
        ({"text": "hello"}, ("hello", None)),
        ({"text": ""}, ("", None)),
        ({"bytes": b""}, (None, b"")),
        ({"text": None, "bytes": b"x"}, (None, b"x")),
        ({"text": "x", "bytes": None}, ("x", None)),
    ],
)
def test_receive_gets_text_or_bytes_and_the_other_is_none(event, received):
    consumer = begin(Spoken())
    dispatch(consumer, "websocket.receive", **event)
    assert consumer.received == [received]


@pytest.mark.parametrize(
    ("call", "sent"),
    [
        (lambda consumer: consumer.accept("chat"), [{"type": "websocket.accept", "subprotocol": "chat"}]),
        (lambda consumer: consumer.accept(headers=[("a", "b")]), [{**ACCEPT, "headers": [("a", "b")]}]),
        (lambda consumer: consumer.send("hello"), [{"type": "websocket.send", "text": "hello"}]),
        (lambda consumer: consumer.send(bytes_data=b""), [{"type": "websocket.send", "bytes": b""}]),
        (lambda consumer: consumer.send("x", close=True), [{"type": "websocket.send", "text": "x"}, CLOSE]),
        (lambda consumer: consumer.close(4000, "why"), [{"type": "websocket.close", "code": 4000, "reason": "why"}]),
        (
            lambda consumer: consumer.send_json(1, close=4000),
            [{"type": "websocket.send", "text": "1"}, CLOSE | {"code": 4000}],
        ),
    ],
)
def test_what_its_methods_send(call, sent):
    consumer = begin(AsyncJsonWebsocketConsumer())
    run(call(consumer))
    assert consumer.sent == sent


def test_sending_nothing_is_an_error():
    with pytest.raises(ValueError, match="needs text_data or bytes_data"):
        run(begin(AsyncWebsocketConsumer()).send())


# JSON.


@pytest.mark.parametrize(
    ("event", "words"),
    [({"text": "no JSON"}, "unexpected end or character at position 0"), ({"bytes": b"{}"}, "at position 0")],
)
def test_what_is_no_json_closes_with_1007_and_is_no_error_of_the_consumer(event, words):
    consumer = begin(Json())
    dispatch(consumer, "websocket.receive", **event)
    (sent,) = consumer.sent
    assert (sent["code"], sent["reason"]) == (1007, f"JSON is expected: {sent['reason'].partition(': ')[2]}")
    assert sent["reason"].endswith(words)
    assert not hasattr(consumer, "content")


def test_what_a_decoder_of_the_site_says_is_not_told():
    class Secret(Json):
        @classmethod
        async def decode_json(cls, text_data):
            raise ValueError("the key is 1234")

    consumer = begin(Secret())
    dispatch(consumer, "websocket.receive", text="{}")
    assert consumer.sent == [CLOSE | {"code": 1007, "reason": "JSON is expected"}]


def test_what_json_cannot_carry_raises_and_is_not_sent():
    consumer = begin(Json())
    with pytest.raises(ValueError):
        run(consumer.send_json([float("nan")]))
    assert consumer.sent == []


# In a routing file.


@pytest.mark.parametrize("name", ["as_websocket", "as_asgi"])
def test_as_asgi_keeps_class_and_arguments(name):
    callback = getattr(Json, name)(room="lobby")
    assert (callback.consumer_class, callback.consumer_initkwargs) == (Json, {"room": "lobby"})
    assert inspect.iscoroutinefunction(callback)
    assert path("ws/", callback).lookup_str.endswith("Json")
    with pytest.raises(ImproperlyConfigured, match="its pattern belongs in the websocket_urlpatterns"):
        run(AsyncConsumer.as_asgi()({"type": "websocket"}, None, None))
