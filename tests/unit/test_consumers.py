"""The classes that a site derives from, without a socket: which method an event calls, and what it sends."""

import abc
import functools
import json

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory
from django.urls import path

from wsloop.consumers import JsonWebsocketConsumer, SyncConsumer, WebsocketConsumer, base, get_handler_name
from wsloop.exceptions import AcceptConnection, DenyConnection, StopConsumer


class Layer:
    """Records the requests."""

    def __init__(self):
        self.asked = []

    def group_add(self, group, channel):
        self.asked.append(("add", group, channel))

    def group_discard(self, group, channel):
        self.asked.append(("discard", group, channel))


def begin(consumer, **scope):
    """Begin a consumer; the events that it sends are collected in ``sent``."""
    consumer.sent = []
    known = {"query_string": b"", "user": "john", "session": {}, "url_route": {"args": (), "kwargs": {"room": "lobby"}}}
    base.begin(consumer, known | scope, consumer.sent.append, Layer(), "specific.1!1")
    return consumer


ACCEPT = {"type": "websocket.accept", "subprotocol": None}
CLOSE = {"type": "websocket.close", "code": None, "reason": None}


# Which method.


def test_dispatch_calls_the_method_with_the_event():
    class Consumer(SyncConsumer):
        def chat_message(self, event):
            self.seen = event

    consumer = begin(Consumer())
    event = {"type": "chat.message", "text": "hello"}
    consumer.dispatch(event)
    assert consumer.seen is event


@pytest.mark.parametrize("kind", ["no.such", "scope", "user"])
def test_dispatch_names_the_method_that_is_missing(kind):
    with pytest.raises(ValueError, match=rf"SyncConsumer has no method \w+\(\) for events of type '{kind}'"):
        begin(SyncConsumer()).dispatch({"type": kind})


def test_what_a_consumer_knows_from_the_beginning():
    consumer = begin(SyncConsumer(), query_string=b"a=1&a=2&b=%C3%A4", user="mary", session={"key": "value"})
    assert (consumer.user, consumer.session, consumer.kwargs) == ("mary", {"key": "value"}, {"room": "lobby"})
    assert (consumer.query.getlist("a"), consumer.query["b"]) == (["1", "2"], "ä")
    assert consumer.query is consumer.query
    assert consumer.channel_name == "specific.1!1"
    consumer.user, consumer.session, consumer.kwargs = "john", {}, {}
    assert consumer.scope["user"] == "mary"


# async def.


def test_async_handlers_are_refused_when_the_class_is_defined():
    with pytest.raises(TypeError) as refused:

        class Chat(WebsocketConsumer):
            async def receive(self, text_data=None, bytes_data=None):
                pass

    assert str(refused.value) == (
        "Chat.receive is `async def`, and Chat is a consumer of plain code. Derive it from AsyncWebsocketConsumer, or "
        "write `def receive(…)` and omit `await`."
    )


class AsyncMixin:
    async def chat_message(self, event):
        pass


class PlainMixin:
    def chat_message(self, event):
        pass


async def coroutine(*args):
    pass


async def generator(*args):
    yield


@pytest.mark.parametrize(
    "content",
    [
        {"connect": coroutine},
        {"connect": generator},
        {"decode_json": classmethod(coroutine)},
        {"helper": staticmethod(coroutine)},
        {"helper": staticmethod(generator)},
        {"helper": functools.partial(coroutine, 1)},
    ],
)
def test_in_whatever_way_they_are_written(content):
    with pytest.raises(TypeError, match="is `async def`"):
        type("Chat", (JsonWebsocketConsumer,), content)


def test_those_of_a_mixin_are_refused_unless_they_are_overridden():
    with pytest.raises(TypeError, match=r"Chat\.chat_message is `async def`"):
        type("Chat", (AsyncMixin, WebsocketConsumer), {})
    type("Chat", (PlainMixin, AsyncMixin, WebsocketConsumer), {})


class Raises:
    """A descriptor for instances only."""

    def __get__(self, instance, owner):
        if instance is None:
            raise AttributeError("only for instances")
        return 1


def test_all_else_may_be_in_the_class():
    class Base(WebsocketConsumer, abc.ABC):
        only_for_instances = Raises()
        number = 5

        @abc.abstractmethod
        def chat_message(self, event): ...

        @property
        def name(self):
            raise RuntimeError("not when the class is defined")

        @async_to_sync
        async def receive(self, text_data=None, bytes_data=None):
            self.received = text_data

        class Meta:
            pass

    class Chat(Base):
        def chat_message(self, event): ...

    chat = begin(Chat())
    chat.dispatch({"type": "websocket.receive", "text": "hello"})
    assert chat.received == "hello"


# WebsocketConsumer.


class Spoken(WebsocketConsumer):
    groups = ["one", "two"]

    def __init__(self, raises=None):
        self.raises = raises
        self.received = []

    def connect(self):
        if self.raises is not None:
            raise self.raises
        super().connect()

    def receive(self, text_data=None, bytes_data=None):
        self.received.append((text_data, bytes_data))

    def disconnect(self, close_code):
        self.received.append(close_code)
        self.groups_then = list(self.channel_layer.asked)


def test_by_default_a_socket_is_accepted_and_what_comes_is_nothing():
    consumer = begin(WebsocketConsumer())
    consumer.dispatch({"type": "websocket.connect"})
    consumer.dispatch({"type": "websocket.receive", "text": "hello"})
    assert consumer.sent == [ACCEPT]
    assert consumer.channel_layer.asked == []


@pytest.mark.parametrize(("raises", "sent"), [(AcceptConnection(), ACCEPT), (DenyConnection(), CLOSE), (None, ACCEPT)])
def test_connect_may_decide_by_raising(raises, sent):
    consumer = begin(Spoken(raises))
    consumer.dispatch({"type": "websocket.connect"})
    assert consumer.sent == [sent]


def test_groups_are_joined_before_connect_and_left_before_disconnect():
    consumer = begin(Spoken(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        consumer.dispatch({"type": "websocket.connect"})
    assert consumer.channel_layer.asked == [("add", "one", "specific.1!1"), ("add", "two", "specific.1!1")]
    with pytest.raises(StopConsumer):
        consumer.dispatch({"type": "websocket.disconnect", "code": 4000})
    assert consumer.received == [4000]
    assert consumer.groups_then[2:] == [("discard", "one", "specific.1!1"), ("discard", "two", "specific.1!1")]


def test_connect_may_append_to_the_groups_of_its_own_socket_and_disconnect_leaves_those_too():
    class Chat(WebsocketConsumer):
        groups = ["all"]

        def connect(self):
            self.groups.append("lobby")
            self.channel_layer.group_add("lobby", self.channel_name)

    one, other = begin(Chat()), begin(Chat())
    one.dispatch({"type": "websocket.connect"})
    assert (one.groups, other.groups, Chat.groups) == (["all", "lobby"], ["all"], ["all"])
    with pytest.raises(StopConsumer):
        one.dispatch({"type": "websocket.disconnect", "code": 1000})
    assert [asked[:2] for asked in one.channel_layer.asked] == [
        *(("add", "all"), ("add", "lobby"), ("discard", "all"), ("discard", "lobby"))
    ]


def test_groups_are_joined_without_super_init_too():
    class Chat(WebsocketConsumer):
        groups = ("one",)

        def __init__(self):
            pass

    consumer = begin(Chat())
    consumer.dispatch({"type": "websocket.connect"})
    assert consumer.channel_layer.asked == [("add", "one", "specific.1!1")]


def test_disconnect_is_not_called_where_a_group_could_not_be_joined():
    consumer = begin(Spoken())
    consumer.channel_layer.group_add = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        consumer.dispatch({"type": "websocket.connect"})
    with pytest.raises(StopConsumer):
        consumer.dispatch({"type": "websocket.disconnect", "code": 1006})
    assert consumer.received == []


@pytest.mark.parametrize(
    ("event", "received"),
    [
        ({"text": "hello"}, ("hello", None)),
        ({"text": ""}, ("", None)),
        ({"bytes": b"\xff"}, (None, b"\xff")),
        ({"bytes": b""}, (None, b"")),
        ({"text": None, "bytes": b"x"}, (None, b"x")),  # as ASGI servers put it
        ({"text": "x", "bytes": None}, ("x", None)),
    ],
)
def test_receive_gets_text_or_bytes_and_the_other_is_none(event, received):
    consumer = begin(Spoken())
    consumer.dispatch({"type": "websocket.receive", **event})
    assert consumer.received == [received]


@pytest.mark.parametrize(
    ("call", "sent"),
    [
        (lambda consumer: consumer.accept("chat"), [{"type": "websocket.accept", "subprotocol": "chat"}]),
        (
            lambda consumer: consumer.accept("chat", headers=[(b"x-a", b"1")]),
            [{"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-a", b"1")]}],
        ),
        (lambda consumer: consumer.accept(headers=iter(())), [{**ACCEPT, "headers": []}]),
        (lambda consumer: consumer.accept(headers=()), [ACCEPT]),
        (lambda consumer: consumer.send("hello"), [{"type": "websocket.send", "text": "hello"}]),
        (lambda consumer: consumer.send(""), [{"type": "websocket.send", "text": ""}]),
        (lambda consumer: consumer.send(bytes_data=b""), [{"type": "websocket.send", "bytes": b""}]),
        (lambda consumer: consumer.send("x", close=True), [{"type": "websocket.send", "text": "x"}, CLOSE]),
        (
            lambda consumer: consumer.send("x", close=4000),
            [{"type": "websocket.send", "text": "x"}, CLOSE | {"code": 4000}],
        ),
        (lambda consumer: consumer.close(True), [CLOSE]),
        (lambda consumer: consumer.close(4000, "why"), [{"type": "websocket.close", "code": 4000, "reason": "why"}]),
    ],
)
def test_what_its_methods_send(call, sent):
    consumer = begin(WebsocketConsumer())
    call(consumer)
    assert consumer.sent == sent


def test_sending_nothing_is_an_error():
    consumer = begin(WebsocketConsumer())
    with pytest.raises(ValueError, match="needs text_data or bytes_data"):
        consumer.send()
    assert consumer.sent == []


# JsonWebsocketConsumer.


class Json(JsonWebsocketConsumer):
    def receive_json(self, content):
        self.content = content


@pytest.mark.parametrize("content", [{"a": [1, "ä"]}, [], None, 0, "text", False])
def test_json_is_decoded_and_encoded(content):
    consumer = begin(Json())
    consumer.dispatch({"type": "websocket.receive", "text": json.dumps(content)})
    assert consumer.content == content
    consumer.send_json(content)
    assert [json.loads(each["text"]) for each in consumer.sent] == [content]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"text": "no JSON"}, "unexpected end or character at position 0"),
        ({"text": ""}, "at position 0"),
        ({"text": "{"}, "at position 1"),
        ({"bytes": b"{}"}, "at position 0"),
        ({"bytes": b""}, "at position 0"),
        ({"bytes": b"\xff"}, "at position 0"),
        ({"text": '{"text": NaN}'}, "NaN is not a JSON number"),
        ({"text": '{"text": 1e999}'}, "a number that is too large"),
        ({"text": '{"text": "\\ud800"}'}, "half of a surrogate pair is not a character"),
        ({"text": str(2**64)}, "a number of more than 64 bits"),
    ],
)
def test_what_is_no_json_closes_with_1007_and_is_no_error_of_the_consumer(event, words):
    consumer = begin(Json())
    consumer.dispatch({"type": "websocket.receive", **event})
    (sent,) = consumer.sent
    assert sent == CLOSE | {"code": 1007, "reason": sent["reason"]}
    assert sent["reason"].startswith("JSON is expected: ")
    assert sent["reason"].endswith(words)
    assert not hasattr(consumer, "content")


def test_what_a_decoder_of_the_site_says_is_not_told():
    class Secret(Json):
        @classmethod
        def decode_json(cls, text_data):
            raise ValueError("the key is 1234")

    consumer = begin(Secret())
    consumer.dispatch({"type": "websocket.receive", "text": "{}"})
    assert consumer.sent == [CLOSE | {"code": 1007, "reason": "JSON is expected"}]


def test_json_that_is_nested_too_deeply_closes_with_1007():
    consumer = begin(Json())
    consumer.dispatch({"type": "websocket.receive", "text": "[" * 100_000})
    assert [each["code"] for each in consumer.sent] == [1007]


def test_an_error_while_json_is_handled_is_one_of_the_consumer():
    class Broken(Json):
        def receive_json(self, content):
            raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        begin(Broken()).dispatch({"type": "websocket.receive", "text": "1"})


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"a": object()}, TypeError),
        ({"a": float("nan")}, ValueError),
        ([float("inf")], ValueError),
        ("\ud800", ValueError),
    ],
)
def test_what_json_cannot_carry_raises_and_is_not_sent(content, error):
    consumer = begin(Json())
    with pytest.raises(error):
        consumer.send_json(content)
    assert consumer.sent == []


# Names of methods that a site may have, and types of events that it may send.


@pytest.mark.parametrize("name", ["begin", "query", "user", "session", "kwargs", "asked", "worked", "runner"])
def test_a_handler_may_have_any_name(name):
    seen = []
    made = type("Made", (WebsocketConsumer,), {name: lambda self, event: seen.append(event)})
    consumer = begin(made())
    consumer.dispatch({"type": "websocket.connect"})
    consumer.dispatch({"type": name})
    assert consumer.sent == [ACCEPT]
    assert seen == [{"type": name}]


def test_an_event_may_be_named_like_a_method_as_in_channels():
    consumer = begin(Json())
    consumer.dispatch({"type": "send.json", "n": 1})
    consumer.dispatch({"type": "websocket.receive", "text": '{"n": 2}'})
    assert [json.loads(each["text"]) for each in consumer.sent] == [{"type": "send.json", "n": 1}]
    assert consumer.content == {"n": 2}


@pytest.mark.parametrize("kind", ["scope", "groups", "channel.name", "dispatch", "nothing"])
def test_an_event_that_names_no_method(kind):
    consumer = begin(Json())
    with pytest.raises(ValueError, match=rf"Json has no method {kind.replace('.', '_')}\(\) for events"):
        consumer.dispatch({"type": kind})


def test_disconnect_is_called_once_even_if_somebody_sends_that_event():
    codes = []

    class Leaving(WebsocketConsumer):
        def disconnect(self, close_code):
            codes.append(close_code)

    consumer = begin(Leaving())
    consumer.dispatch({"type": "websocket.connect"})
    for code in (4000, 1006):
        with pytest.raises(StopConsumer):
            consumer.dispatch({"type": "websocket.disconnect", "code": code})
    assert codes == [4000]


def test_send_json_may_close():
    consumer = begin(Json())
    consumer.send_json(1, close=4000)
    assert consumer.sent == [{"type": "websocket.send", "text": "1"}, CLOSE | {"code": 4000}]


def test_a_site_may_have_its_own_json():
    class Other(Json):
        @classmethod
        def decode_json(cls, text_data):
            return text_data[::-1]

        @classmethod
        def encode_json(cls, content):
            return content[::-1]

    consumer = begin(Other())
    consumer.dispatch({"type": "websocket.receive", "text": "abc"})
    assert consumer.content == "cba"
    consumer.send_json("def")
    assert consumer.sent == [{"type": "websocket.send", "text": "fed"}]


# In a routing file.


@pytest.mark.parametrize("name", ["as_websocket", "as_asgi"])
def test_as_websocket_keeps_class_and_arguments(name):
    class Chat(WebsocketConsumer):
        """Talks."""

    callback = getattr(Chat, name)(room="lobby")
    assert callback.consumer_class is Chat
    assert callback.consumer_initkwargs == {"room": "lobby"}
    assert (callback.__name__, callback.__doc__) == ("Chat", "Talks.")
    assert path("ws/", callback).lookup_str.endswith("Chat")


@pytest.mark.parametrize("captured", [{}, {"room": "lobby"}])
def test_in_root_urlconf_it_says_where_it_belongs(captured):
    for each in (WebsocketConsumer.as_websocket(), WebsocketConsumer.as_asgi(), WebsocketConsumer()):
        with pytest.raises(ImproperlyConfigured, match="its pattern belongs in the websocket_urlpatterns"):
            async_to_sync(each)(RequestFactory().get("/ws/"), **captured)


def test_any_arguments_are_taken_by_the_classes_themselves():
    for each in (SyncConsumer, WebsocketConsumer, JsonWebsocketConsumer):
        each(1, name="value")


def test_an_instance_knows_what_it_was_made_with():
    class Chat(WebsocketConsumer):
        def __init__(self, room, *, color="red"):
            self.made = room, color

    assert Chat("lobby", color="blue")._wsloop_arguments == (("lobby",), {"color": "blue"})
    assert "_wsloop_arguments" not in vars(WebsocketConsumer())


@pytest.mark.parametrize(("kind", "name"), [("chat.message", "chat_message"), ("send.json", "send_json"), ("a", "a")])
def test_the_name_of_a_handler(kind, name):
    assert get_handler_name({"type": kind}) == name


@pytest.mark.parametrize("event", [{}, {"type": None}, {"type": ""}, {"type": "_x"}, {"type": ".x"}, {"type": 5}])
def test_what_names_no_handler(event):
    with pytest.raises(ValueError):
        get_handler_name(event)


def test_errors_that_name_a_type_are_bounded():
    for kind in ("x" * 10**6, "_" * 10**6):
        with pytest.raises(ValueError) as raised:
            begin(SyncConsumer()).dispatch({"type": kind})
        assert len(str(raised.value)) < 500
