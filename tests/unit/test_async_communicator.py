"""Consumers of coroutines under test, and tests that are coroutines, in each combination, in any process."""

import asyncio
import functools
import inspect
import threading
import time
import unittest

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import TransactionTestCase
from django.urls import path
from django.utils import translation

from wsloop.consumers import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, SyncConsumer, WebsocketConsumer
from wsloop.exceptions import ChannelFull, DenyConnection, Disconnected, StopConsumer
from wsloop.layers import RedisDelivery, get_channel_layer
from wsloop.testing import WebsocketCommunicator
from wsloop.testing.memory import Memory, forget


async def finish(coroutine):
    await coroutine


RUNS = {"asyncio.run": asyncio.run, "Django": async_to_sync(finish)}


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    left = isinstance(get_channel_layer().remote, Memory)
    forget()
    assert not left


def as_coroutine(test):
    """Run a coroutine as a test, as pytest-asyncio and Django do."""

    def call(how, **fixtures):
        RUNS[how](test(**fixtures))

    names = ["how", *inspect.signature(test).parameters]
    call.__signature__ = inspect.Signature([inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names])
    functools.update_wrapper(call, test, updated=())
    del call.__wrapped__
    return pytest.mark.parametrize("how", RUNS)(call)


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data, bytes_data)


class SyncEcho(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data, bytes_data)


class Traced(AsyncWebsocketConsumer):
    """Records its calls, and carries out the commands in messages."""

    def __init__(self):
        super().__init__()
        self.calls = []

    async def connect(self):
        self.calls.append("connect")
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        self.calls.append(text_data)
        command, _, argument = text_data.partition(" ")
        await getattr(self, f"do_{command}")(argument)
        self.calls.append(f"{command} is done")

    async def do_sleep(self, seconds):
        await asyncio.sleep(float(seconds))

    async def do_hang(self, argument):
        await asyncio.get_running_loop().create_future()

    async def do_close(self, code):
        await self.close(int(code), "because")

    async def do_fail(self, argument):
        raise ZeroDivisionError(argument)

    async def do_stop(self, argument):
        raise StopConsumer

    async def do_send(self, argument):
        await self.send(argument)

    async def do_nothing(self, argument):
        pass

    async def note(self, event):
        self.calls.append(event["text"])

    async def disconnect(self, close_code):
        self.calls.append(f"disconnect {close_code}")


class Users(AsyncWebsocketConsumer):
    """Counts users before and after it creates one, by the asynchronous ORM and in a function of plain code."""

    async def receive(self, text_data):
        await User.objects.acreate(username=text_data)
        await self.send(f"{await User.objects.acount()} {await sync_to_async(User.objects.count)()}")


class SyncUsers(WebsocketConsumer):
    def receive(self, text_data):
        User.objects.create(username=text_data)
        time.sleep(3600)
        self.send(str(User.objects.count()))


# A test and a consumer that are coroutines.


@as_coroutine
async def test_text_and_bytes_there_and_back():
    async with WebsocketCommunicator(Echo, "/ws/test/", subprotocols=["a"]) as socket:
        assert await socket.connect() == (True, None)
        await socket.send_to(text_data="hello")
        await socket.send_to(bytes_data=b"\0\xff")
        assert [await socket.receive_from(), await socket.receive_from()] == ["hello", b"\0\xff"]
        assert await socket.receive_nothing()
        await socket.send_json_to({"a": 1})
        assert not await socket.receive_nothing()
        assert await socket.receive_json_from() == {"a": 1}
        await socket.send_to("more")
        assert await socket.receive_output() == {"type": "websocket.send", "text": "more"}


@as_coroutine
async def test_json_is_decoded_and_encoded_by_the_consumer():
    class Json(AsyncJsonWebsocketConsumer):
        async def receive_json(self, content):
            await self.send_json({"was": content})

    async with WebsocketCommunicator(Json.as_websocket(), "/") as socket:
        await socket.connect()
        await socket.send_json_to(["ä"])
        assert await socket.receive_json_from() == {"was": ["ä"]}


@as_coroutine
async def test_what_cannot_be_sent():
    async with WebsocketCommunicator(Echo, "/") as socket:
        await socket.connect()
        for given, error in [({}, ValueError), ({"text_data": b"a"}, TypeError), ({"bytes_data": "a"}, TypeError)]:
            with pytest.raises(error):
                await socket.send_to(**given)


@pytest.mark.parametrize("how", RUNS)
@pytest.mark.parametrize(
    ("commands", "answer"),
    [
        ([("accept", "b")], (True, "b")),
        ([("close", None)], (False, 1000)),
        ([("close", 4003)], (False, 4003)),
        ([("raise", DenyConnection)], (False, 1000)),
        ([("raise", asyncio.CancelledError)], (False, 1012)),
    ],
)
def test_answers(how, commands, answer):
    class Made(AsyncWebsocketConsumer):
        codes = []

        async def connect(self):
            for verb, argument in commands:
                if verb == "raise":
                    raise argument
                await getattr(self, verb)(argument)

        async def disconnect(self, close_code):
            self.codes.append(close_code)

    async def test():
        socket = WebsocketCommunicator(Made, "/", subprotocols=["a", "b"])
        assert await socket.connect() == answer
        await socket.disconnect()

    RUNS[how](test())
    assert Made.codes == [1000 if answer[0] else answer[1] if answer[1] == 1012 else 1006]


@as_coroutine
async def test_errors_are_raised_once_where_they_are_waited_for():
    socket = WebsocketCommunicator(Traced, "/")
    await socket.connect()
    await socket.send_to("fail now")
    with pytest.raises(ZeroDivisionError, match="now") as raised:
        await socket.receive_from()
    assert any(entry.name == "do_fail" for entry in raised.traceback)
    assert await socket.receive_output() == {"type": "websocket.close", "code": 1011, "reason": "internal error"}
    await socket.disconnect()
    assert socket.consumer.calls == ["connect", "fail now", "disconnect 1011"]


@as_coroutine
async def test_errors_of_connect_and_disconnect():
    class Broken(Traced):
        async def connect(self):
            raise KeyError

        async def disconnect(self, close_code):
            raise ZeroDivisionError

    socket = WebsocketCommunicator(Broken, "/")
    with pytest.raises(KeyError):
        await socket.connect()
    with pytest.raises(ZeroDivisionError):
        await socket.disconnect()
    await socket.disconnect()

    with pytest.raises(IndexError):  # it says more than what comes of it
        async with WebsocketCommunicator(Broken, "/"):
            raise IndexError


@as_coroutine
async def test_a_consumer_that_cannot_be_made_leaves_nothing():
    class Broken(Echo):
        def __init__(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await WebsocketCommunicator(Broken, "/").connect()
    assert isinstance(get_channel_layer().remote, RedisDelivery)


@as_coroutine
async def test_timeouts_say_what_the_consumer_does():
    socket = WebsocketCommunicator(Traced, "/ws/x/")
    with pytest.raises(RuntimeError, match=r"call connect\(\) first"):
        await socket.receive_from()
    await socket.connect()
    with pytest.raises(TimeoutError, match=r"Traced at '/ws/x/': no message arrived within 0.01 s; no handler runs"):
        await socket.receive_from(timeout=0.01)
    await socket.send_to("sleep 600")
    with pytest.raises(TimeoutError, match=rf"the handler of websocket.receive sleeps at {__file__}:\d+"):
        await socket.receive_from(timeout=0.01)
    await socket.disconnect(4321)
    with pytest.raises(AssertionError, match=r"no message arrived .* the socket has ended, with close code 4321"):
        await socket.receive_from()
    with pytest.raises(RuntimeError, match=r"cannot send to Traced"):
        await socket.send_to("more")
    assert socket.consumer.calls == ["connect", "sleep 600", "disconnect 4321"]

    socket = WebsocketCommunicator(Traced, "/")
    await socket.connect()
    await socket.send_to("hang")
    with pytest.raises(TimeoutError, match=rf"have not ended within 0.01 s; .* waits at {__file__}:\d+"):
        await socket.wait(timeout=0.01)
    with pytest.raises(TimeoutError, match=r"disconnect\(\) has not returned; the handler of websocket.receive waits"):
        await socket.disconnect(timeout=0.01)
    await asyncio.sleep(0.01)
    assert socket.consumer.calls == ["connect", "hang", "disconnect 1000"]


@as_coroutine
async def test_an_answer_that_comes_late():
    class Late(Echo):
        async def connect(self):
            await asyncio.sleep(10)  # ended with the test
            await self.accept()

    async with WebsocketCommunicator(Late, "/") as socket:
        with pytest.raises(TimeoutError, match=r"neither accepted nor rejected .* within 0.01 s; .* sleeps at"):
            await socket.connect(timeout=0.01)
        with pytest.raises(RuntimeError, match="was called before"):
            await socket.connect()


@as_coroutine
async def test_a_handler_that_hangs_is_cancelled_when_its_time_is_over(with_settings):
    with_settings(WSLOOP={"HANDLER_TIMEOUT": 1})
    socket = WebsocketCommunicator(Traced, "/")
    await socket.connect()
    await socket.send_to("hang")
    await socket.send_to("nothing")
    await socket.disconnect()
    assert socket.consumer.calls == ["connect", "hang", "disconnect 1000"]


@as_coroutine
async def test_the_client_leaves_a_handler_that_sleeps():
    socket = WebsocketCommunicator(Traced, "/")
    await socket.connect()
    for text in ("sleep 600", "nothing", "send b", "sleep 600", "nothing"):
        await socket.send_to(text)
    await socket.disconnect(1006)
    # Messages from before are handled, but no handler can sleep or send any more.
    assert socket.consumer.calls == [
        "connect", "sleep 600", "nothing", "nothing is done", "send b", "sleep 600", "nothing", "nothing is done",
        "disconnect 1006",
    ]  # fmt: skip


@as_coroutine
async def test_the_consumer_closes():
    socket = WebsocketCommunicator(Traced, "/")
    await socket.connect()
    for text in ("send before", "close 4000", "nothing"):
        await socket.send_to(text)
    await socket.wait()
    assert socket.consumer.calls[-2:] == ["close is done", "disconnect 4000"]
    assert await socket.receive_from() == "before"
    assert await socket.receive_output() == {"type": "websocket.close", "code": 4000, "reason": "because"}
    await socket.disconnect()
    assert socket.consumer.calls[-1] == "disconnect 4000"


@as_coroutine
async def test_sending_behind_the_end():
    class Late(Traced):
        async def do_both(self, argument):
            await self.close()
            try:
                await self.send("too late")
            except BaseException as exc:
                self.calls.append(type(exc).__name__)
                raise

    socket = WebsocketCommunicator(Late, "/")
    await socket.connect()
    await socket.send_to("both")
    await socket.wait()
    assert socket.consumer.calls == ["connect", "both", "Disconnected", "disconnect 1000"]


@as_coroutine
async def test_a_loop_that_sends_for_ever_waits_for_its_client():
    class Flood(Echo):
        async def receive(self, text_data):
            self.sent = 0
            while True:
                await self.send(str(self.sent))
                self.sent += 1

    async with WebsocketCommunicator(Flood, "/") as socket:
        await socket.connect()
        await socket.send_to("go")
        with pytest.raises(TimeoutError, match=r"waits until the test receives some of 1000 messages, at .+:\d+"):
            await socket.wait(0.01)
        assert socket.consumer.sent == 1000
        assert [await socket.receive_from() for _ in range(2500)] == [str(number) for number in range(2500)]


@as_coroutine
async def test_a_client_that_does_not_read_is_closed_when_events_come(with_settings):
    class Chat(Echo):
        async def said(self, event):
            await self.send("x")

    with_settings(WSLOOP={"CHANNEL_CAPACITY": 3})
    async with WebsocketCommunicator(Chat, "/") as socket:
        await socket.connect()
        layer, name = get_channel_layer(), socket.consumer.channel_name
        for _ in range(1001):
            await layer.send(name, {"type": "said"})
            await asyncio.sleep(0.0001)
        for _ in range(3):
            await layer.send(name, {"type": "said"})
        with pytest.raises(ChannelFull):
            await layer.send(name, {"type": "said"})
        assert [await socket.receive_from() for _ in range(1000)] == ["x"] * 1000
        assert await socket.receive_output() == {"type": "websocket.close", "code": 4008, "reason": "too slow"}


@as_coroutine
async def test_handlers_do_not_speak_the_language_of_the_test():
    class Speaking(Echo):
        async def receive(self, text_data):
            await self.send(translation.get_language())
            translation.activate("fr")

    async with WebsocketCommunicator(Speaking, "/") as socket:
        await socket.connect()
        with translation.override("de"):
            for _ in range(2):
                await socket.send_to("tell")
                assert await socket.receive_from() == "en-us"


@as_coroutine
async def test_tasks_of_a_handler_send_until_the_socket_ends():
    raised = []

    class Ticking(Echo):
        async def receive(self, text_data):
            self.task = asyncio.create_task(self.tick())

        async def tick(self):
            try:
                while True:
                    await self.send("tick")
                    await asyncio.sleep(0)
            except Disconnected:
                raised.append(True)

    async with WebsocketCommunicator(Ticking, "/") as socket:
        await socket.connect()
        await socket.send_to("go")
        assert [await socket.receive_from() for _ in range(3)] == ["tick"] * 3
    await socket.consumer.task
    assert raised


@as_coroutine
async def test_several_at_once():
    sockets = [WebsocketCommunicator(each, "/") for each in (Echo, SyncEcho) * 3]
    await asyncio.gather(*[each.connect() for each in sockets])
    await asyncio.gather(*[each.send_to(str(number)) for number, each in enumerate(sockets)])
    assert await asyncio.gather(*[each.receive_from() for each in sockets]) == list("012345")
    await asyncio.gather(*[each.disconnect() for each in sockets])


# A test that is a coroutine, and a consumer of plain code.


@as_coroutine
async def test_sleeps_of_plain_code_take_no_time():
    class Ticker(WebsocketConsumer):
        def connect(self):
            self.accept()
            while True:
                time.sleep(3600)
                self.send("tick")

    async with WebsocketCommunicator(Ticker, "/") as socket:
        assert await socket.connect() == (True, None)
        assert await socket.receive_nothing(timeout=3599)
        assert [await socket.receive_from(timeout=3600) for _ in range(100)] == ["tick"] * 100
        with pytest.raises(TimeoutError, match="sleeps for 3599 s more"):
            await socket.receive_from()


@as_coroutine
async def test_errors_of_plain_code():
    class Broken(SyncEcho):
        def receive(self, text_data):
            raise ZeroDivisionError(text_data)

    async with WebsocketCommunicator(Broken, "/") as socket:
        await socket.connect()
        with pytest.raises(ZeroDivisionError, match="now"):
            await socket.send_to("now")
        assert (await socket.receive_output())["code"] == 1011


@as_coroutine
async def test_plain_code_may_call_coroutines():
    class Calling(SyncEcho):
        def receive(self, text_data):
            async_to_sync(asyncio.sleep)(0)
            self.send(async_to_sync(sync_to_async(text_data.upper))())

    async with WebsocketCommunicator(Calling, "/") as socket:
        await socket.connect()
        await socket.send_to("a")
        assert await socket.receive_from() == "A"


def test_a_communicator_of_a_fixture_of_plain_code(database):
    """It was connected in the thread in which the event loop runs now."""

    class Member(SyncEcho):
        def said(self, event):
            time.sleep(3600)
            self.send(f"{User.objects.count()} users")

    async def test():
        await get_channel_layer().send(socket.consumer.channel_name, {"type": "said"})
        assert await socket.receive_from(timeout=3600) == "1 users"
        async with WebsocketCommunicator(Member, "/") as other:
            await other.connect()
        assert asyncio.get_running_loop()

    with transaction.atomic(), WebsocketCommunicator(Member, "/") as socket:
        User.objects.create(username="john")
        socket.connect()
        asyncio.run(test())
        transaction.set_rollback(True)


# The database.


@pytest.mark.parametrize(("consumer", "answers"), [(Users, ["2 2", "3 3"]), (SyncUsers, ["2", "3"])])
def test_handlers_are_in_the_transaction_of_a_test_of_django(consumer, answers, database):
    async def test():
        async with WebsocketCommunicator(consumer, "/") as socket:
            await socket.connect()
            await socket.send_to("mary")
            assert await socket.receive_from(timeout=3600) == answers[0]
            assert await User.objects.acount() == 2
            await socket.send_to("bob")
            assert await socket.receive_from(timeout=3600) == answers[1]

    with transaction.atomic():
        User.objects.create(username="john")
        async_to_sync(test)()
        transaction.set_rollback(True)
    assert User.objects.count() == 0


def test_handlers_are_in_the_transaction_of_a_test_of_plain_code(database):
    with transaction.atomic():
        User.objects.create(username="john")
        with WebsocketCommunicator(Users, "/") as socket:
            socket.connect()
            for number, name in enumerate(["mary", "bob"], 2):
                socket.send_to(name)
                assert socket.receive_from() == f"{number} {number}"
                assert User.objects.count() == number
        transaction.set_rollback(True)
    assert User.objects.count() == 0
    assert connection.connection is not None


def test_what_waits_for_a_commit_is_named(database):
    class Committing(Echo):
        async def receive(self, text_data):
            await sync_to_async(transaction.on_commit)(self.done)

        def done(self):
            async_to_sync(self.send)("done")

    with transaction.atomic(), WebsocketCommunicator(Committing, "/") as socket:
        socket.connect()
        socket.send_to("hello")
        with pytest.raises(TimeoutError, match=r"no handler runs \(Functions wait .*captureOnCommitCallbacks"):
            socket.receive_from(timeout=0.01)
        transaction.set_rollback(True)


# A test of plain code, and consumers of coroutines.


def test_plain_code_calls_and_need_not_await():
    with WebsocketCommunicator(Traced, "/") as socket:
        assert socket.connect() == (True, None)
        socket.send_to("send a")
        assert socket.receive_from() == "a"
        assert socket.receive_nothing(0.01)
        socket.send_to("sleep 0.01")
        socket.wait()
        assert socket.consumer.calls[-1] == "sleep is done"
        socket.send_to("fail now")
        with pytest.raises(ZeroDivisionError):
            socket.wait()
    assert socket.consumer.calls[-1] == "disconnect 1011"
    assert socket.receive_output()["code"] == 1011


def test_nothing_runs_beside_a_test_of_plain_code():
    with WebsocketCommunicator(Traced, "/") as socket:
        socket.connect()
        get_channel_layer().send(socket.consumer.channel_name, {"type": "note", "text": "noted"})
        time.sleep(0.05)
        assert socket.consumer.calls == ["connect"]
        socket.wait()
        assert socket.consumer.calls == ["connect", "noted"]


def test_plain_code_that_a_coroutine_calls_runs_in_the_thread_of_the_test():
    class Threads(Echo):
        async def receive(self, text_data):
            self.threads = [threading.get_ident(), await sync_to_async(threading.get_ident)()]
            self.threads.append(await sync_to_async(self.nested)())

        def nested(self):
            return async_to_sync(sync_to_async(threading.get_ident))()

    with WebsocketCommunicator(Threads, "/") as socket:
        socket.connect()
        socket.send_to("go")
        socket.wait()
        loop, *others = socket.consumer.threads
        assert loop != threading.get_ident()
        assert others == [threading.get_ident()] * 2
        # The loop stands still now, and asgiref must not want to use it.
        assert async_to_sync(sync_to_async(threading.get_ident))() == threading.get_ident()


def test_a_test_of_plain_code_leaves_no_loop_behind():
    threads = threading.active_count()
    for _ in range(2):
        with WebsocketCommunicator(Traced, "/") as socket:
            socket.connect()
    assert threading.active_count() == threads
    socket = WebsocketCommunicator(Traced, "/")
    socket.connect()
    socket.send_to("hang")
    forget()
    assert threading.active_count() == threads


class Asking(Echo):
    """Asks the consumer whose channel is in the message."""

    async def receive(self, text_data):
        await self.channel_layer.send(text_data, {"type": "asked", "by": self.channel_name})

    async def answered(self, event):
        await self.send("answer")


class Answering(SyncEcho):
    def asked(self, event):
        self.channel_layer.send(event["by"], {"type": "answered"})
        self.send("was asked")


@as_coroutine
async def test_coroutines_and_plain_code_in_one_room():
    async with WebsocketCommunicator(Asking, "/") as asking, WebsocketCommunicator(Answering, "/") as answering:
        await asking.connect()
        await answering.connect()
        await asking.send_to(answering.consumer.channel_name)
        assert await asking.receive_from() == "answer"
        assert await answering.receive_from() == "was asked"
        await asking.send_to(answering.consumer.channel_name)
        assert await answering.receive_from() == "was asked"
        assert await asking.receive_from() == "answer"


def test_coroutines_and_plain_code_in_one_room_of_plain_code():
    with WebsocketCommunicator(Asking, "/") as asking, WebsocketCommunicator(Answering, "/") as answering:
        asking.connect()
        answering.connect()
        asking.send_to(answering.consumer.channel_name)
        assert asking.receive_from() == "answer"
        assert answering.receive_from() == "was asked"
        asking.send_to(answering.consumer.channel_name)
        assert answering.receive_from() == "was asked"
        assert asking.receive_from() == "answer"


# Other ASGI applications.


async def application(scope, receive, send):
    """Carries out the commands in messages, as a consumer of Channels would."""
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-a", b"1")]})
    while (event := await receive())["type"] == "websocket.receive":
        command, _, argument = event["text"].partition(" ")
        if command == "scope":
            await send({"type": "websocket.send", "text": str(scope[argument])})
        elif command == "close":
            await send({"type": "websocket.close", "code": int(argument)})
        elif command == "count":
            await send({"type": "websocket.send", "text": f"{await sync_to_async(User.objects.count)()}"})
        elif command == "hang":
            await asyncio.sleep(600)
        else:
            raise ZeroDivisionError(event["text"])


@as_coroutine
async def test_an_application():
    options = {"headers": {"cookie": "a=1"}, "subprotocols": ["a", "b"]}
    async with WebsocketCommunicator(application, "/ws/caf%C3%A9/?x=1", **options) as socket:
        socket.scope["user"] = "john"
        assert await socket.connect() == (True, "b")
        assert socket.response_headers == [[b"x-a", b"1"]]
        assert socket.consumer is None
        for name, value in [("user", "john"), ("path", "/ws/café/"), ("query_string", "b'x=1'")]:
            await socket.send_to(f"scope {name}")
            assert await socket.receive_from() == value
        assert (b"cookie", b"a=1") in socket.scope["headers"]
        assert "session" not in socket.scope
        await socket.wait()
        with pytest.raises(TimeoutError, match=r"^application at '/ws/café/': no .*; the application waits in receive"):
            await socket.receive_from(timeout=0.01)
        await socket.send_to("fail")
        with pytest.raises(ZeroDivisionError, match="fail"):
            await socket.receive_from()
        assert (await socket.receive_output())["code"] == 1011


@as_coroutine
async def test_an_application_is_given_what_the_test_gives():
    patterns = [path("ws/<slug:room>/", application)]
    async with WebsocketCommunicator(patterns, "/ws/lobby/", session={"a": 1}, user=User(username="john")) as socket:
        assert socket.scope["url_route"]["kwargs"] == {"room": "lobby"}
        assert (socket.scope["session"]["a"], socket.scope["user"].username) == (1, "john")


@as_coroutine
async def test_the_end_of_an_application(with_settings):
    with_settings(WSLOOP={"HANDLER_TIMEOUT": 1})
    async with WebsocketCommunicator(application, "/", subprotocols=["b"]) as socket:
        await socket.connect()
        await socket.send_to("close 4000")
        assert await socket.receive_output() == {"type": "websocket.close", "code": 4000, "reason": ""}
    async with WebsocketCommunicator(application, "/", subprotocols=["b"]) as socket:
        await socket.connect()
        await socket.send_to("hang")
        with pytest.raises(TimeoutError, match=rf"the application waits at {__file__}:\d+"):
            await socket.wait(timeout=0.01)
        with pytest.raises(TimeoutError, match=rf"has not returned; the application waits at {__file__}:\d+"):
            await socket.disconnect(timeout=0.01)
    async with WebsocketCommunicator(application, "/", subprotocols=["b"]) as socket:
        await socket.connect()
        await socket.send_to("hang")


@as_coroutine
async def test_an_application_that_refuses():
    async def refusing(scope, receive, send):
        await send({"type": "websocket.close", "code": 4003})

    async def denying(scope, receive, send):
        await send({"type": "websocket.http.response.start", "status": 404})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    async def failing(scope, receive, send):
        raise ValueError("No route found")

    for each, answer in [(refusing, (False, 4003)), (denying, (False, 404))]:
        async with WebsocketCommunicator(each, "/") as socket:
            assert await socket.connect() == answer
    async with WebsocketCommunicator(failing, "/") as socket:
        with pytest.raises(ValueError, match="No route found"):
            await socket.connect()


def test_an_application_and_a_test_of_plain_code(database):
    with transaction.atomic(), WebsocketCommunicator(application, "/", subprotocols=["b"]) as socket:
        assert socket.connect() == (True, "b")
        User.objects.create(username="john")
        socket.send_to("count")
        assert socket.receive_from() == "1"
        transaction.set_rollback(True)


@as_coroutine
async def test_consumers_inside_an_application():
    """As in a router or middleware of Channels, which calls them itself."""

    class Chat(AsyncWebsocketConsumer):
        groups = ["lobby"]

        async def said(self, event):
            await self.send(event["text"])

    class SyncChat(WebsocketConsumer):
        groups = ["lobby"]

        def said(self, event):
            self.send(event["text"])

    for consumer in (Chat, SyncChat):

        async def middleware(scope, receive, send, consumer=consumer):
            await consumer.as_asgi()({**scope, "user": "john"}, receive, send)

        async with WebsocketCommunicator(middleware, "/") as socket:
            assert await socket.connect() == (True, None)
            await get_channel_layer().group_send("lobby", {"type": "said", "text": "hello"})
            assert await socket.receive_from() == "hello"


# Groups and raw events.


@as_coroutine
async def test_groups_of_both_kinds():
    class Chat(AsyncWebsocketConsumer):
        groups = ["lobby"]

        async def receive(self, text_data):
            await self.channel_layer.group_send("lobby", {"type": "said", "text": text_data})

        async def said(self, event):
            await self.send(event["text"])

    class SyncChat(WebsocketConsumer):
        groups = ["lobby"]

        def receive(self, text_data):
            async_to_sync(self.channel_layer.group_send)("lobby", {"type": "said", "text": text_data})

        def said(self, event):
            self.send(event["text"])

    async with WebsocketCommunicator(Chat, "/") as first, WebsocketCommunicator(SyncChat, "/") as second:
        await first.connect()
        await second.connect()
        for sender in (first, second):
            await sender.send_to("hello")
            assert await asyncio.gather(first.receive_from(), second.receive_from()) == ["hello", "hello"]
        await get_channel_layer().group_send("lobby", {"type": "said", "text": "from the test"})
        assert [await second.receive_from(), await first.receive_from()] == ["from the test"] * 2


@as_coroutine
async def test_raw_events():
    socket = WebsocketCommunicator(Traced, "/")
    await socket.send_input({"type": "websocket.connect"})
    assert (await socket.receive_output())["type"] == "websocket.accept"
    await socket.send_input({"type": "websocket.receive", "text": "send a"})
    assert await socket.receive_output() == {"type": "websocket.send", "text": "a"}
    await socket.send_input({"type": "note", "text": "noted"})
    await socket.send_input({"type": "websocket.disconnect", "code": 4321})
    await socket.wait()
    assert socket.consumer.calls == ["connect", "send a", "send is done", "noted", "disconnect 4321"]


# Who calls from where.


def test_the_clean_up_of_a_test_behind_its_loop():
    """As ``addCleanup(communicator.disconnect)`` in a test of Django, whose loop has been closed before."""
    calls = []
    for command in ("nothing", "sleep 600", "hang"):
        socket = WebsocketCommunicator(Traced, "/")

        async def test(socket=socket, command=command):
            await socket.connect()
            await socket.send_to(command)
            await asyncio.sleep(0.01)

        asyncio.run(test())
        socket.disconnect()
        calls.append(socket.consumer.calls)
    assert calls == [
        ["connect", "nothing", "nothing is done", "disconnect 1000"],
        ["connect", "sleep 600", "disconnect 1000"],
        ["connect", "hang", "disconnect 1000"],
    ]


@pytest.mark.parametrize("consumer", [Traced, SyncEcho])
@pytest.mark.parametrize("name", ["addCleanup", "addAsyncCleanup"])
def test_the_clean_up_of_unittest_s_own_tests(consumer, name):
    class Test(unittest.IsolatedAsyncioTestCase):
        async def test(self):
            socket = WebsocketCommunicator(consumer, "/")
            getattr(self, name)(socket.disconnect)
            await socket.connect()

    result = unittest.TestResult()
    Test("test").run(result)
    assert result.wasSuccessful(), result.errors


@as_coroutine
async def test_blocks_of_the_wrong_kind():
    with pytest.raises(RuntimeError, match="write `async with"), WebsocketCommunicator(Echo, "/"):
        pass


@as_coroutine
async def test_plain_code_that_the_test_calls():
    def call(socket):
        socket.send_to("a")
        return socket.receive_from()

    async with WebsocketCommunicator(Echo, "/") as coroutines, WebsocketCommunicator(SyncEcho, "/") as plain:
        for socket in (coroutines, plain):
            await socket.connect()
            assert await sync_to_async(call)(socket) == "a"


def test_another_thread_beside_the_loop_of_the_test():
    async def test():
        async with WebsocketCommunicator(Echo, "/") as socket:
            await socket.connect()
            with pytest.raises(RuntimeError, match=r"Echo at '/' was connected in the event loop .* with await"):
                await asyncio.get_running_loop().run_in_executor(None, socket.send_to, "a")

    asyncio.run(test())


def test_the_clean_up_of_a_test_of_django(database):
    class Test(TransactionTestCase):
        databases = []

        async def test(self):
            socket = WebsocketCommunicator(Traced, "/")
            self.addCleanup(socket.disconnect)
            await socket.connect()
            await socket.send_to("sleep 600")

    result = unittest.TestResult()
    Test("test")(result)  # not run(), for Django wraps the test here
    assert result.testsRun == 1
    assert result.wasSuccessful(), result.errors


def test_a_communicator_that_is_interrupted():
    class Interrupted(Traced):
        async def do_stop(self, argument):
            raise KeyboardInterrupt

    socket = WebsocketCommunicator(Interrupted, "/")
    socket.connect()
    with pytest.raises(KeyboardInterrupt):
        socket.send_to("stop")
        socket.wait()
    socket.disconnect()


def test_methods_of_plain_code_are_not_coroutines():
    class Low(SyncConsumer):
        def websocket_connect(self, event):
            self.send({"type": "websocket.accept"})

        def websocket_disconnect(self, event):
            raise StopConsumer

    socket = WebsocketCommunicator(Low, "/")
    assert socket.connect() == (True, None)
    assert socket.disconnect() is None
