"""Asynchronous streaming responses under WSGI: each part as it comes, and the end with the client."""

import asyncio
import gc
import time
import weakref

import gevent
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.http import StreamingHttpResponse
from django.utils import timezone, translation

from tests.unit.peer import WAIT
from tests.unit.watcher import Watcher
from wsloop.aio import streaming, worker
from wsloop.sockets import servers


@pytest.fixture(autouse=True)
def installed():
    worker.install()
    with Watcher():
        yield


@pytest.fixture
def leave(monkeypatch):
    """The client hangs up: ``leave()``."""
    callbacks = []

    class Watched:
        def stop(self):
            callbacks.clear()

        close = stop

    def watch(callback):
        callbacks.append(callback)
        return Watched()

    monkeypatch.setattr(servers, "watch_hang_up", watch)
    return lambda: gevent.get_hub().loop.run_callback(*callbacks)


class Client:
    """Takes the parts of a response in a greenlet, as a WSGI server does, and notes when they come."""

    def __init__(self, parts, take=None):
        self.parts, self.error = [], None
        self._take = take
        self.response = StreamingHttpResponse(parts)
        self.greenlet = gevent.spawn(self._serve)

    def _serve(self):
        try:
            for part in self.response:
                self.parts.append(part)
                if self._take is not None and len(self.parts) == self._take:
                    raise ConnectionResetError
        except BaseException as exc:
            self.error = exc
        finally:
            self.response.close()

    def wait(self):
        self.greenlet.join(WAIT)
        assert self.greenlet.dead
        return self.parts


def until(condition):
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        gevent.sleep(0.001)


def test_each_part_goes_out_as_it_comes():
    go_on = asyncio.Event()

    async def parts():
        yield "one"
        yield b"two"
        await go_on.wait()
        yield "three"

    client = Client(parts())
    until(lambda: len(client.parts) == 2)
    worker.worker_loop().call_soon_threadsafe(go_on.set)
    assert client.wait() == [b"one", b"two", b"three"]
    assert client.error is None


def test_no_more_than_one_part_is_made_ahead():
    made = []

    async def parts():
        for number in range(10):
            made.append(number)
            yield str(number)

    response = StreamingHttpResponse(parts())
    taking = iter(response)
    for number in range(3):
        assert next(taking) == str(number).encode()
        gevent.sleep(0.01)
        assert made == list(range(number + 2))
    taking.close()
    response.close()


def test_an_iterator_that_is_no_generator():
    class Parts:
        def __init__(self):
            self.left = 3

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return b"x"

    assert Client(Parts()).wait() == [b"x"] * 3


def test_many_at_once():
    async def parts(number):
        for count in range(5):
            await asyncio.sleep(0.001)
            yield f"{number}.{count} "

    clients = [Client(parts(number)) for number in range(50)]
    for number, client in enumerate(clients):
        assert b"".join(client.wait()).decode() == "".join(f"{number}.{count} " for count in range(5))


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError, SystemExit, gevent.Timeout])
def test_an_error_in_the_middle_reaches_the_server_of_the_request(error):
    async def parts():
        yield "one"
        raise error

    client = Client(parts())
    assert client.wait() == [b"one"]
    assert type(client.error) is error, "it is not mistaken for the end"


def test_synchronous_responses_are_as_before():
    assert Client(iter(["one", b"two"])).wait() == [b"one", b"two"]


# The end.


async def nothing():
    pass


@pytest.mark.parametrize("where", ["asleep", "in blocking code", "at a part"])
def test_the_iterator_ends_soon_after_its_client_has_left(leave, where):
    ended = []

    async def parts():
        try:
            yield "one"
            if where == "asleep":
                await asyncio.sleep(60)
            elif where == "in blocking code":
                await sync_to_async(gevent.sleep)(0.05)
            while True:
                yield "more"
                if where != "at a part":
                    await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)  # it may take its time
            await sync_to_async(ended.append)("finally")

    client = Client(parts(), take=3 if where == "at a part" else None)
    if where != "at a part":
        until(lambda: client.parts)
        gevent.sleep(0.005)
        began = time.monotonic()
        leave()
        client.wait()
        assert time.monotonic() - began < 30, "not the minute for which it sleeps"
        assert client.error is None
    else:
        client.wait()
        assert type(client.error) is ConnectionResetError
    until(lambda: ended == ["finally"])


def test_an_iterator_inside_of_others_ends_as_well(leave):
    """As with a middleware that compresses."""
    ended = []

    async def inner():
        try:
            while True:
                yield b"part"
        finally:
            ended.append(True)

    response = StreamingHttpResponse(inner())

    async def compressed(parts):
        async for part in parts:
            yield part.upper()

    response.streaming_content = compressed(response.streaming_content)
    taking = iter(response)
    assert next(taking) == b"PART"
    taking.close()
    response.close()
    until(lambda: ended)


def test_an_iterator_that_does_not_end_is_cancelled_again_and_its_request_ends(leave, monkeypatch):
    monkeypatch.setattr(streaming, "CLOSE_TIMEOUT", 0.03)
    told = []

    async def parts():
        try:
            yield "one"
            await asyncio.sleep(60)
        finally:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                told.append("again")
                raise

    client = Client(parts())
    until(lambda: client.parts)
    leave()
    client.wait()
    until(lambda: told == ["again"])


def test_an_error_at_the_end_is_told(leave):
    async def parts():
        try:
            yield "one"
            await asyncio.sleep(60)
        finally:
            raise ZeroDivisionError("while it ends")

    client = Client(parts())
    until(lambda: client.parts)
    leave()
    client.wait()
    assert type(client.error) is ZeroDivisionError


def test_a_response_that_is_not_served_never_begins():
    begun = []

    async def parts():
        begun.append(True)
        yield "one"

    response = StreamingHttpResponse(parts())
    response.close()
    iter(response)
    response.close()
    gevent.sleep(0.01)
    assert begun == []


def test_nothing_is_left_of_streams(leave):
    streams = weakref.WeakSet()

    class Value:
        pass

    async def parts():
        value = Value()
        streams.add(value)
        yield "one"
        await asyncio.sleep(60)

    for _ in range(10):
        client = Client(parts())
        until(lambda client=client: client.parts)
        leave()
        client.wait()
    del client
    gevent.sleep(0.01)
    gc.collect()
    assert len(streams) == 0


# What it sees.


def test_language_and_time_zone_of_the_request():
    async def parts():
        for _ in range(2):
            await asyncio.sleep(0.001)
            yield f"{translation.get_language()} {timezone.get_current_timezone()} "
            yield await sync_to_async(translation.get_language)() + " "

    def serve(language, zone):
        with translation.override(language), timezone.override(zone):
            response = StreamingHttpResponse(parts())
            return b"".join(response).decode()

    german, french = gevent.spawn(serve, "de", "Europe/Berlin"), gevent.spawn(serve, "fr", "Asia/Tokyo")
    assert german.get() == "de Europe/Berlin de " * 2
    assert french.get() == "fr Asia/Tokyo fr " * 2


def test_orm_of_a_stream(database):
    User.objects.bulk_create(User(username=f"user {number}") for number in range(5))

    async def parts():
        yield str(await User.objects.acount())
        async for user in User.objects.order_by("pk"):
            yield f" {user.username}"

    for client in [Client(parts()) for _ in range(10)]:
        assert b"".join(client.wait()) == b"5 user 0 user 1 user 2 user 3 user 4"


def test_installing_again_wraps_nothing_twice():
    before = StreamingHttpResponse.__iter__
    streaming.install()
    assert StreamingHttpResponse.__iter__ is before


def test_a_worker_that_reloads_does_not_wait_for_streams_without_an_end(monkeypatch, caplog):
    """uWSGI would kill it, with all of its WebSockets."""
    ends, ended = [], []
    monkeypatch.setattr(servers, "before_reload", ends.append)
    streaming._running.cache_clear()

    async def parts():
        try:
            while True:
                yield "more"
                await asyncio.sleep(60)
        finally:
            ended.append(True)

    clients = [Client(parts()), Client(parts())]
    until(lambda: all(client.parts for client in clients))
    (end,) = ends
    end()
    assert [client.wait() for client in clients] == [[b"more"], [b"more"]]
    assert ended == [True, True]
    assert "2 streaming responses end" in caplog.text
    caplog.clear()
    end()
    assert caplog.text == ""
    streaming._running.cache_clear()
