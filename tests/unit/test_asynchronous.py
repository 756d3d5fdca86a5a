"""The coroutine consumers, without a socket: the same as the plain ones, see test_consumers.py, with ``await``."""

import asyncio
import inspect
import json

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory
from django.urls import path

from tests.unit.peer import WAIT
from wsloop import consumers, layers
from wsloop.aio import travel
from wsloop.consumers import (
    AsyncConsumer,
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    base,
)
from wsloop.exceptions import AcceptConnection, DenyConnection, StopConsumer
from wsloop.layers import encode
from wsloop.runtime.inbox import Published
from wsloop.testing.memory import forget, own


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
        run(callback(RequestFactory().get("/ws/"), room="lobby"))


# As an ASGI application, inside of others.


class Talk(AsyncJsonWebsocketConsumer):
    groups = ["talk"]

    def __init__(self, greeting="hello"):
        self.greeting = greeting
        self.ended = []

    async def connect(self):
        await self.accept(headers=[(b"x-name", b"value")])
        await self.send_json({"greeting": self.greeting})

    async def receive_json(self, content):
        if content == "fail":
            raise ZeroDivisionError
        await self.channel_layer.group_send("talk", {"type": "said", "text": content})

    async def said(self, event):
        await self.send_json(event["text"])

    async def disconnect(self, code):
        self.ended.append(code)


class PlainTalk(JsonWebsocketConsumer):
    groups = ["talk"]

    def __init__(self, greeting="hello"):
        self.greeting = greeting
        self.ended = []

    def connect(self):
        self.accept(headers=[(b"x-name", b"value")])
        self.send_json({"greeting": self.greeting})

    def receive_json(self, content):
        if content == "fail":
            raise ZeroDivisionError
        self.channel_layer.group_send("talk", {"type": "said", "text": content})

    def said(self, event):
        self.send_json(event["text"])

    def disconnect(self, code):
        self.ended.append(code)


class Router:
    """As a router or middleware of Channels: calls another application."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        await self.inner({**scope, "url_route": {"args": (), "kwargs": {"room": "lobby"}}}, receive, send)


@pytest.fixture
def layer():
    """The channel layer in memory, in a process where asyncio's state follows its greenlet, as in a worker."""
    travel.install()
    forget()
    with own() as memory:
        yield memory


async def opened(consumer, greeting="hello"):
    """Return the communicator of a socket, which is open."""
    socket = ApplicationCommunicator(Router(consumer), {"type": "websocket", "path": "/ws/", "subprotocols": []})
    await socket.send_input({"type": "websocket.connect"})
    answer = {"type": "websocket.accept", "subprotocol": None, "headers": [(b"x-name", b"value")]}
    assert await socket.receive_output(timeout=WAIT) == answer
    assert await text_of(socket) == {"greeting": greeting}
    return socket


async def text_of(socket):
    event = await socket.receive_output(timeout=WAIT)
    assert event["type"] == "websocket.send"
    return json.loads(event["text"])


@pytest.mark.parametrize("consumer", [Talk, PlainTalk])
def test_it_serves_sockets_inside_other_applications(layer, consumer):
    async def main():
        one, two = await opened(consumer.as_asgi()), await opened(consumer.as_asgi(greeting="hi"), "hi")
        await one.send_input({"type": "websocket.receive", "text": '"ä"'})
        assert [await text_of(one), await text_of(two)] == ["ä", "ä"]
        for socket in (one, two):
            await socket.send_input({"type": "websocket.disconnect", "code": 1001})
            await socket.wait(timeout=WAIT)

    asyncio.run(main())
    assert layer._consumers == {}
    assert not any(layer._groups.values())


@pytest.mark.parametrize("consumer", [Talk, PlainTalk])
def test_what_a_handler_raises_is_raised_to_who_has_called(layer, consumer):
    async def main():
        socket = await opened(consumer.as_asgi())
        await socket.send_input({"type": "websocket.receive", "text": '"fail"'})
        with pytest.raises(ZeroDivisionError):
            await socket.wait(timeout=WAIT)

    asyncio.run(main())
    assert layer._consumers == {}


@pytest.mark.parametrize("consumer", [Talk, PlainTalk])
def test_a_call_of_the_sites_own_may_set_the_scope_before(layer, consumer):
    served = []

    class Prepared(consumer):
        async def __call__(self, scope, receive, send):
            self.scope = {**scope, "prepared": True}
            served.append(self)
            await super().__call__(self.scope, receive, send)

    async def main():
        socket = await opened(Prepared.as_asgi())
        await socket.send_input({"type": "websocket.disconnect", "code": 1001})
        await socket.wait(timeout=WAIT)

    asyncio.run(main())
    (one,) = served
    assert one.scope["prepared"] and one.ended == [1001]


@pytest.mark.parametrize("consumer", [Talk, PlainTalk])
def test_an_instance_serves_a_socket_and_stands_for_its_class_afterwards(layer, consumer):
    instance = consumer("hi")

    async def main():
        sockets = [await opened(instance, "hi") for _ in range(2)]
        for socket in sockets:
            await socket.send_input({"type": "websocket.disconnect", "code": 1001})
            await socket.wait(timeout=WAIT)

    asyncio.run(main())
    assert instance.ended == [1001]
    assert (instance.scope["path"], instance.kwargs) == ("/ws/", {"room": "lobby"})


def test_events_that_it_cannot_handle_are_discarded_and_those_beyond_its_room_are_refused(layer, with_settings, caplog):
    with_settings(WSLOOP={"CHANNEL_CAPACITY": 2})

    async def main():
        socket = await opened(Talk.as_asgi())
        (member,) = layer._consumers.values()
        for wrong in (b"\xc1", encode({"type": "_x"}), encode({"type": ".x"})):
            assert member.put(wrong)
        payload = encode({"type": "said", "text": 1})
        assert [member.put(b"channel", payload) for _ in range(3)] == [True, True, False]
        assert [await text_of(socket), await text_of(socket)] == [1, 1]
        assert member.put(payload), "there is room again"
        assert await text_of(socket) == 1
        events = [Published(encode({"type": "said", "text": number})) for number in (3, 4, 5)]
        member.put_all(b"channel", events, sum(map(len, events)))  # as far as there is room
        assert [await text_of(socket), await text_of(socket)] == [3, 4]
        assert await socket.receive_nothing()
        await socket.send_input({"type": "websocket.disconnect", "code": 1001})
        await socket.wait(timeout=WAIT)

    asyncio.run(main())
    assert caplog.text.count("Discarded malformed event") == 3
    assert "leading underscore): '_x'" in caplog.text


def test_it_is_told_that_the_layer_has_resumed_if_it_wants_to_know(layer):
    class Told(Talk):
        async def channel_layer_resumed(self, event):
            await self.send_json(event["type"])

    async def main():
        sockets = [await opened(Told.as_asgi()), await opened(Talk.as_asgi())]
        for member in layer._consumers.values():
            member.resumed()
        assert await text_of(sockets[0]) == "channel_layer.resumed"
        assert await sockets[1].receive_nothing()
        for socket in sockets:
            await socket.send_input({"type": "websocket.disconnect", "code": 1001})
            await socket.wait(timeout=WAIT)

    asyncio.run(main())


def test_another_server_is_told_that_it_cannot_run_it():
    async def main():
        await Talk()({"type": "websocket", "path": "/ws/"}, None.__class__, None.__class__)

    forget()
    with pytest.raises(RuntimeError, match=r"only the server of wsloop, WebsocketServer in wsgi\.py, brings events"):
        asyncio.run(main())


# What consumers of Channels ask of the layer.


def test_a_channel_of_ones_own_lasts_as_long_as_its_task(layer):
    one, other = layers.RedisChannelLayer(), layers.get_channel_layer()  # Channels makes an object of its own

    async def consumer(names, got):
        names.append(await one.new_channel())
        await one.group_add("lobby", names[-1])
        while len(got) < 2:
            got.append(await one.receive(names[-1]))

    async def main():
        names, got = [], []
        task = asyncio.create_task(consumer(names, got))
        while not layer._groups:
            await asyncio.sleep(0)
        await other.group_send("lobby", {"type": "said", "number": 1})
        await other.send(names[0], {"type": "said", "number": 2})
        await task
        assert [each["number"] for each in got] == [1, 2]
        await other.send(names[0], {"type": "said"})  # nobody is there
        with pytest.raises(TypeError, match="there is no channel 'specific"):
            await one.receive(names[0])

    asyncio.run(main())
    assert layer._consumers == {}
    assert layers.PROCESS.mailboxes == {}


def test_a_process_without_consumers_has_no_channels(layer):
    async def main():
        await layers.ChannelLayer().new_channel()

    with pytest.raises(RuntimeError, match="only the server of wsloop"):
        asyncio.run(main())
