"""``WebsocketCommunicator``: a test acts as the client of a consumer. Names are those of ``channels.testing``, all in
one class, so this module is a little longer than others.

The consumer runs in the thread and transaction of the test, without a server or Redis. What is plain code runs in
virtual time, so that its sleeps take none (:mod:`wsloop.testing.scheduler`); coroutines run in an event loop, that of
the test if it has one. This module must not know gevent, Redis or sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec

from asgiref.sync import SyncToAsync, async_to_sync

from wsloop import conf, layers
from wsloop.consumers.asynchronous import AsyncConsumer
from wsloop.consumers.base import Consumer
from wsloop.exceptions import ChannelFull
from wsloop.protocol.consumer_events import Event
from wsloop.runtime.applications import Hosted
from wsloop.testing.application_sockets import ApplicationSocket
from wsloop.testing.greenlet_sockets import GreenletSocket
from wsloop.testing.handler import uncommitted
from wsloop.testing.handshake import Header, find_consumer, make_request, make_scope
from wsloop.testing.memory import Memory, use
from wsloop.testing.sockets import Socket
from wsloop.testing.task_sockets import TaskSocket
from wsloop.testing.waiting import in_thread, run_now, until

Parameters = ParamSpec("Parameters")


def both(
    method: Callable[Concatenate[WebsocketCommunicator, Parameters], Coroutine[Any, Any, Any]],
) -> Callable[Concatenate[WebsocketCommunicator, Parameters], Any]:
    """Let a method be awaited in tests that are coroutines, and do its work at once in others."""

    @functools.wraps(method)
    def call(self: WebsocketCommunicator, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Any:
        return self._call(method(self, *args, **kwargs))

    return call


class WebsocketCommunicator:
    """One client and the consumer that serves it: a long class, for Channels' has the same methods.

    ::

        with WebsocketCommunicator(websocket_urlpatterns, "/ws/echo/", user=john) as socket:
            accepted, subprotocol = socket.connect()
            socket.send_to(text_data="hello")
            assert socket.receive_from() == "hello"

    At the end of the block the client disconnects. In a test that is a coroutine write ``async with``, and await each
    method. A method of this class raises the exceptions that handlers raise while it runs, or have raised since the
    last call. Times are virtual seconds for consumers of plain code, and real ones for those of coroutines.

    Args:
        application: ``Consumer.as_websocket()``, the class, an instance, a list of patterns, or any other ASGI
            application. An instance itself serves the socket.
        path: of the URL, with the query if there is one.
        headers: of the handshake, pairs or a dictionary; ``cookie`` among them gives the cookies.
        subprotocols: that the client offers.
        spec_version: goes into ``scope``, as in Channels.
        user: the signed-in user; None: an anonymous one.
        session: a session, or a dictionary with its content; None: a new one.
        kwargs: what a pattern would have captured, where ``application`` is not a list of patterns.

    Attributes:
        scope: of the consumer; may be changed before :meth:`connect`.
        response_headers: that the consumer has added to the 101, lists of two bytes; None before it has answered.
        consumer: None before :meth:`connect`, and if another ASGI application serves the socket.

    Raises:
        ValueError: if the path matches none of the patterns.
        ImproperlyConfigured: if a pattern does not lead to a consumer.
    """

    def __init__(
        self,
        application: Any,
        path: str,
        headers: Iterable[Header] | Mapping[str, str] | None = None,
        subprotocols: Sequence[str] | None = None,
        spec_version: str | None = None,
        *,
        user: Any = None,
        session: Any = None,
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        request = make_request(path, headers, subprotocols or (), user, session)
        self._match = find_consumer(application, request.path_info, kwargs)
        self.scope: dict[str, Any] = make_scope(request, self._match)
        if spec_version is not None:
            self.scope["spec_version"] = spec_version
        self.consumer: Consumer | None = None
        self.response_headers: list[list[bytes]] | None = None
        self._instance = application if isinstance(application, Consumer) else None
        self._socket_class = _socket_class(self._match.consumer_class)
        self._socket: Socket
        self._memory: Memory | None = None  # None before the handshake
        self._answer_waits = False  # for receive_output()
        self._loop: asyncio.AbstractEventLoop | None = None  # of the test, as of the last call; None: it has none
        self._end = contextlib.ExitStack()

    def connect(self, timeout: float = 1) -> Any:
        """Open the socket. A handler that sleeps after ``accept()`` goes on in later calls.

        Returns:
            True and the subprotocol or None if the consumer accepts; False and the code of its ``close()`` (1000 by
            default) if it rejects the socket.

        Raises:
            TimeoutError: if the consumer sleeps for longer before it decides.
            RuntimeError: if this has been called before.
        """
        self._enter()
        return self._call(self._connect(timeout))

    def send_input(self, message: Event) -> Any:
        """Give an event to the consumer, as Channels' ``ApplicationCommunicator`` does.

        After ``{"type": "websocket.connect"}``, instead of :meth:`connect`, the answer is the first event that
        :meth:`receive_output` returns: ``websocket.accept``, or ``websocket.close`` with a code.

        Args:
            message: ``websocket.connect``, ``websocket.receive`` or ``websocket.disconnect``, or an event for another
                method, which the channel layer must be able to encode.

        Raises:
            RuntimeError: if the socket is in another state.
            ChannelFull: if the consumer has no room for another event.
        """
        if message.get("type") == "websocket.connect":
            self._enter()
            self._answer_waits = True
        return self._call(self._send_input(message))

    @both
    async def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send a message to the consumer.

        If the consumer is plain code, it handles the message immediately unless an earlier handler still runs.

        Raises:
            RuntimeError: if the socket is not open.
            ValueError: if both or neither are given, or the text has half of a surrogate pair.
            TypeError: if they are not str and bytes.
        """
        await self._send(text_data, bytes_data)

    def send_json_to(self, data: Any) -> Any:
        """Encode ``data`` as JSON and send it; otherwise like :meth:`send_to`."""
        return self.send_to(text_data=json.dumps(data))

    @both
    async def receive_from(self, timeout: float = 1) -> str | bytes:
        """Return the next message of the consumer. Sleeping handlers go on for up to ``timeout`` seconds meanwhile.

        Raises:
            TimeoutError: if no message arrives.
            AssertionError: if the socket has been closed instead.
        """
        return await self._receive(timeout)

    @both
    async def receive_json_from(self, timeout: float = 1) -> Any:
        """Return the value of the next message, which must be JSON; otherwise like :meth:`receive_from`."""
        message = await self._receive(timeout)
        if not isinstance(message, str):
            raise AssertionError(f"{self._name()} sent a binary message instead of JSON: {message!r}")
        return json.loads(message)

    @both
    async def receive_output(self, timeout: float = 1) -> Event:
        """Return the next event for the client: ``websocket.send``, or ``websocket.close`` with code and reason.

        Raises:
            TimeoutError: if none arrives.
        """
        if self._answer_waits:
            accepted, answer = await self._answer(timeout, "no output arrived")
            self._answer_waits = False
            if not accepted:
                return {"type": "websocket.close", "code": answer}
            return {"type": "websocket.accept", "subprotocol": answer, "headers": self.response_headers}
        event = await self._next(timeout, "no output arrived")
        if event is None:
            raise TimeoutError(f"no more output from {self._name()}: {self._socket.doing()}")
        return self._socket.take()

    @both
    async def receive_nothing(self, timeout: float = 0.1) -> bool:
        """Return whether the consumer sends nothing for ``timeout`` seconds."""
        memory = self._attend()
        received = await until(memory, timeout, self._has_output, self._socket.virtual_time)
        memory.scheduler.raise_error()
        return not received

    @both
    async def wait(self, timeout: float = 1) -> None:
        """Let handlers go on until all have ended.

        Raises:
            TimeoutError: if one sleeps for longer.
        """
        self._attend()
        await self._run(timeout, lambda: self._socket.idle, "its handlers have not ended")

    @both
    async def disconnect(self, code: int = 1000, timeout: float | None = None) -> None:
        """Close the socket if it is open, and return when ``disconnect()`` of the consumer has returned.

        As on the server, a sleeping handler is ended, and messages sent before are handled.

        Args:
            code: of the close frame; 1006 stands for a broken connection.
            timeout: None: longer than any handler may go on.

        Raises:
            TimeoutError: if ``disconnect()`` of the consumer does not return.
        """
        if self._memory is None:
            return
        memory = self._attend()
        self._socket.leave(code)
        seconds = 2 * conf.option("HANDLER_TIMEOUT") if timeout is None else timeout
        try:
            in_time = await until(memory, seconds, lambda: self._socket.ended, self._socket.virtual_time)
            text = f"{self._name()}: disconnect() has not returned; {self._socket.doing()}"
            if not in_time:
                self._socket.cancel()
        finally:
            self._end.close()
        memory.scheduler.raise_error()
        if not in_time:
            raise TimeoutError(text)

    def __enter__(self) -> WebsocketCommunicator:
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("write `async with WebsocketCommunicator(…)` in a coroutine")
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        with _hidden_behind(exc):
            self.disconnect()

    async def __aenter__(self) -> WebsocketCommunicator:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        with _hidden_behind(exc):
            await self.disconnect()

    # In the event loop, or in the thread of the test's plain code.

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Return the coroutine where an event loop runs, otherwise its result."""
        if asyncio._get_running_loop() is not None:
            return coroutine
        if self._loop is not None and not self._loop.is_closed():
            if not self._loop.is_running():
                return self._loop.run_until_complete(coroutine)  # the clean-up of a test
            if getattr(SyncToAsync.threadlocal, "main_event_loop", None) is self._loop:
                return async_to_sync(_result)(coroutine)  # plain code that the test has called
            coroutine.close()
            raise RuntimeError(
                f"{self._name()} was connected in the event loop of the test: call its communicator there, with await"
            )
        memory = self._memory
        if memory is None or not (memory.in_loop or not self._socket_class.virtual_time):
            return run_now(coroutine)
        try:
            return memory.own_loop().run(coroutine)
        finally:
            if not memory.users:
                memory.close()

    def _enter(self) -> None:
        if self._memory is not None:
            raise RuntimeError("connect() was called before; a communicator is for one socket")
        self._memory = self._end.enter_context(use())

    async def _connect(self, timeout: float) -> tuple[bool, str | int | None]:
        await self._open()
        return await self._answer(timeout, "connect() has neither accepted nor rejected the socket")

    async def _open(self) -> None:
        """Make the consumer and its socket, and begin the handshake."""
        memory = self._memory
        assert memory is not None
        try:
            if self._socket_class.virtual_time:
                await in_thread(memory, self._make)
            else:
                self._make()
        except BaseException:
            self._end.close()
            raise
        self._attend()
        self._socket.connect()

    def _make(self) -> None:
        memory = self._memory
        assert memory is not None
        application = self._match.application
        consumer = Hosted(application) if application is not None else self._instance or self._match.make()
        self._socket = socket = self._socket_class(consumer, self.scope, memory, self._end.close)
        self.consumer = consumer if application is None else None
        if not socket.virtual_time:
            memory.in_loop.add(socket)
            self._end.callback(memory.in_loop.discard, socket)

    async def _answer(self, timeout: float, what: str) -> tuple[bool, str | int | None]:
        """Return the answer to the handshake as soon as there is one."""
        self._attend()
        await self._run(timeout, lambda: self._socket.answer is not None, what)
        answer = self._socket.answer
        assert answer is not None
        headers = self._socket.headers
        self.response_headers = [[name.encode("latin-1"), value.encode("latin-1")] for name, value in headers]
        return answer

    async def _send_input(self, message: Event) -> None:
        kind = message.get("type")
        if kind == "websocket.connect":
            await self._open()
        elif kind == "websocket.receive":
            await self._send(message.get("text"), message.get("bytes"))
        else:
            self._attend()
            if kind == "websocket.disconnect":
                self._socket.leave(message.get("code", 1005))
            elif not self._socket.put(layers.encode(message)):
                raise ChannelFull(f"{self._name()} has {conf.option('CHANNEL_CAPACITY')} events waiting")
        await self._turn()

    async def _send(self, text_data: str | None, bytes_data: bytes | None) -> None:
        if (text_data is None) == (bytes_data is None):
            raise ValueError("send_to() needs either text_data or bytes_data")
        if text_data is not None and not isinstance(text_data, str):
            raise TypeError(f"text_data must be str, not {text_data!r}")
        if bytes_data is not None and not isinstance(bytes_data, bytes):
            raise TypeError(f"bytes_data must be bytes, not {bytes_data!r}")
        self._attend()
        if self._socket.left or self._socket.answer is None:
            raise RuntimeError(f"cannot send to {self._name()}: {self._socket.doing()}")
        self._socket.receive(text_data if text_data is not None else bytes_data or b"")
        await self._turn()

    def _attend(self) -> Memory:
        """A call begins.

        Raises:
            RuntimeError: if there is no socket.
        """
        memory = self._memory
        if memory is None:
            raise RuntimeError("call connect() first")
        loop = asyncio._get_running_loop()
        if loop is not None and not memory.owns(loop):
            self._loop = loop
        self._socket.attend()
        return memory

    def _has_output(self) -> bool:
        return bool(self._socket.output) or (self._answer_waits and self._socket.answer is not None)

    async def _receive(self, timeout: float) -> str | bytes:
        event = await self._next(timeout, "no message arrived")
        if event is None or event["type"] != "websocket.send":
            raise AssertionError(f"no message arrived from {self._name()}: {self._socket.doing()}")
        self._socket.take()
        message: str | bytes = event["text"] if "text" in event else event["bytes"]
        return message

    async def _next(self, timeout: float, what: str) -> Event | None:
        """Return the next event for the client without taking it; None if the socket has ended and there is none."""
        self._attend()
        await self._run(timeout, lambda: bool(self._socket.output) or self._socket.left, what)
        return self._socket.output[0] if self._socket.output else None

    async def _run(self, timeout: float, done: Callable[[], bool], what: str) -> None:
        memory = self._memory
        assert memory is not None
        errors = memory.scheduler.errors
        in_time = await until(memory, timeout, lambda: bool(errors) or done(), self._socket.virtual_time)
        memory.scheduler.raise_error()
        if not in_time:
            text = f"{self._name()}: {what} within {timeout:g} s; {self._socket.doing()}"
            raise TimeoutError(f"{text} {await in_thread(memory, uncommitted)}".rstrip())

    async def _turn(self) -> None:
        memory = self._memory
        assert memory is not None
        if self._socket.virtual_time:
            await in_thread(memory, memory.scheduler.turn)
        else:
            await asyncio.sleep(0)
        memory.scheduler.raise_error()

    def _name(self) -> str:
        served_by: Any = self._match.consumer_class or self._match.application
        return f"{getattr(served_by, '__name__', type(served_by).__name__)} at {self.scope['path']!r}"


async def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await coroutine


def _socket_class(consumer_class: type[Consumer] | None) -> type[Socket]:
    if consumer_class is None:
        return ApplicationSocket
    return TaskSocket if issubclass(consumer_class, AsyncConsumer) else GreenletSocket


@contextlib.contextmanager
def _hidden_behind(exc: BaseException | None) -> Any:
    """Raise no exception of the block if the test has raised one, which says more."""
    with contextlib.suppress(Exception) if exc is not None else contextlib.nullcontext():
        yield


__all__ = ["WebsocketCommunicator"]
