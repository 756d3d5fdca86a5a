"""``WebsocketCommunicator``: a test acts as the client of a consumer. Names are those of ``channels.testing``, all in
one class, so this module is a little longer than others.

The consumer runs in the thread and transaction of the test, without a server or Redis, and its sleeps take no time: see
:mod:`wsloop.testing.scheduler`. This module must not know gevent, Redis or sockets.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from wsloop import conf, layers, routing
from wsloop.consumers.base import Consumer
from wsloop.exceptions import ChannelFull
from wsloop.protocol.consumer_events import Event
from wsloop.testing.handler import uncommitted
from wsloop.testing.handshake import Header, find_consumer, make_request
from wsloop.testing.memory import use
from wsloop.testing.sockets import Socket


class WebsocketCommunicator:
    """One client and the consumer that serves it: a long class, for Channels' has the same methods.

    ::

        with WebsocketCommunicator(websocket_urlpatterns, "/ws/echo/", user=john) as socket:
            accepted, subprotocol = socket.connect()
            socket.send_to(text_data="hello")
            assert socket.receive_from() == "hello"

    At the end of the block the client disconnects. A method of this class raises the exceptions that handlers raise
    while it runs, or have raised since the last call. Times are virtual seconds.

    Args:
        application: ``Consumer.as_websocket()``, the class, an instance, or a list of patterns. An instance itself
            serves the socket.
        path: of the URL, with the query if there is one.
        headers: of the handshake, pairs or a dictionary; ``cookie`` among them gives the cookies.
        subprotocols: that the client offers.
        user: the signed-in user; None: an anonymous one.
        session: a session, or a dictionary with its content; None: a new one.
        kwargs: what a pattern would have captured, where ``application`` is not a list of patterns.

    Attributes:
        scope: of the consumer; may be changed before :meth:`connect`.
        response_headers: that the consumer has added to the 101, pairs of bytes; None before it has answered.
        consumer: None before :meth:`connect`.

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
        *,
        user: Any = None,
        session: Any = None,
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        request = make_request(path, headers, subprotocols or (), user, session)
        self._match = find_consumer(application, request.path_info, kwargs)
        self.scope: dict[str, Any] = routing.scope(request, self._match)
        self.consumer: Consumer | None = None
        self.response_headers: list[tuple[bytes, bytes]] | None = None
        self._instance = application if isinstance(application, Consumer) else None
        self._answer_waits = False  # for receive_output()
        self._end = contextlib.ExitStack()

    def connect(self, timeout: float = 1) -> tuple[bool, str | int | None]:
        """Open the socket. A handler that sleeps after ``accept()`` goes on in later calls.

        Returns:
            True and the subprotocol or None if the consumer accepts; False and the code of its ``close()`` (1000 by
            default) if it rejects the socket.

        Raises:
            TimeoutError: if the consumer sleeps for longer before it decides.
            RuntimeError: if this has been called before.
        """
        self._begin()
        return self._answer(timeout, "connect() has neither accepted nor rejected the socket")

    def send_input(self, message: Event) -> None:
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
        kind = message.get("type")
        if kind == "websocket.connect":
            self._begin()
            self._answer_waits = True
        elif kind == "websocket.receive":
            self.send_to(message.get("text"), message.get("bytes"))
        else:
            self._check_connected()
            if kind == "websocket.disconnect":
                self._socket.leave(message.get("code", 1005))
            elif not self._socket.put(layers.encode(message)):
                raise ChannelFull(f"{self._name()} has {conf.option('CHANNEL_CAPACITY')} events waiting")
        self._turn()

    def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send a message to the consumer, which handles it immediately unless an earlier handler still runs.

        Raises:
            RuntimeError: if the socket is not open.
            ValueError: if both or neither are given, or the text has half of a surrogate pair.
            TypeError: if they are not str and bytes.
        """
        if (text_data is None) == (bytes_data is None):
            raise ValueError("send_to() needs either text_data or bytes_data")
        if text_data is not None and not isinstance(text_data, str):
            raise TypeError(f"text_data must be str, not {text_data!r}")
        if bytes_data is not None and not isinstance(bytes_data, bytes):
            raise TypeError(f"bytes_data must be bytes, not {bytes_data!r}")
        self._check_connected()
        if self._socket.left or self._socket.answer is None:
            raise RuntimeError(f"cannot send to {self._name()}: {self._socket.doing()}")
        self._socket.receive(text_data if text_data is not None else bytes_data or b"")
        self._turn()

    def send_json_to(self, data: Any) -> None:
        """Encode ``data`` as JSON and send it; otherwise like :meth:`send_to`."""
        self.send_to(text_data=json.dumps(data))

    def receive_from(self, timeout: float = 1) -> str | bytes:
        """Return the next message of the consumer. Sleeping handlers go on for up to ``timeout`` seconds meanwhile.

        Raises:
            TimeoutError: if no message arrives.
            AssertionError: if the socket has been closed instead.
        """
        event = self._next(timeout, "no message arrived")
        if event is None or event["type"] != "websocket.send":
            raise AssertionError(f"no message arrived from {self._name()}: {self._socket.doing()}")
        self._socket.take()
        message: str | bytes = event["text"] if "text" in event else event["bytes"]
        return message

    def receive_json_from(self, timeout: float = 1) -> Any:
        """Return the value of the next message, which must be JSON; otherwise like :meth:`receive_from`."""
        message = self.receive_from(timeout)
        if not isinstance(message, str):
            raise AssertionError(f"{self._name()} sent a binary message instead of JSON: {message!r}")
        return json.loads(message)

    def receive_output(self, timeout: float = 1) -> Event:
        """Return the next event for the client: ``websocket.send``, or ``websocket.close`` with code and reason.

        Raises:
            TimeoutError: if none arrives.
        """
        if self._answer_waits:
            accepted, answer = self._answer(timeout, "no output arrived")
            self._answer_waits = False
            if not accepted:
                return {"type": "websocket.close", "code": answer}
            return {"type": "websocket.accept", "subprotocol": answer, "headers": self.response_headers}
        event = self._next(timeout, "no output arrived")
        if event is None:
            raise TimeoutError(f"no more output from {self._name()}: {self._socket.doing()}")
        return self._socket.take()

    def receive_nothing(self, timeout: float = 0.1) -> bool:
        """Return whether the consumer sends nothing for ``timeout`` seconds."""
        self._check_connected()
        received = self._scheduler.run(timeout, self._has_output)
        self._scheduler.raise_error()
        return not received

    def wait(self, timeout: float = 1) -> None:
        """Let handlers go on until all have ended.

        Raises:
            TimeoutError: if one sleeps for longer.
        """
        self._check_connected()
        self._run(timeout, lambda: self._socket.idle, "its handlers have not ended")

    def disconnect(self, code: int = 1000) -> None:
        """Close the socket if it is open, and return when ``disconnect()`` of the consumer has returned.

        As on the server, a sleeping handler is ended, and messages sent before are handled.

        Args:
            code: of the close frame; 1006 stands for a broken connection.

        Raises:
            TimeoutError: if ``disconnect()`` of the consumer does not return.
        """
        if self.consumer is None:
            return
        self._socket.leave(code)
        try:
            # Longer than any handler may sleep.
            in_time = self._scheduler.run(2 * conf.option("HANDLER_TIMEOUT"), lambda: self._socket.ended)
        finally:
            self._end.close()
        self._scheduler.raise_error()
        if not in_time:
            raise TimeoutError(f"{self._name()}: disconnect() has not returned; {self._socket.doing()}")

    def __enter__(self) -> WebsocketCommunicator:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if exc is None:
            self.disconnect()
        else:
            with contextlib.suppress(Exception):  # the exception of the test says more
                self.disconnect()

    def _begin(self) -> None:
        if self.consumer is not None:
            raise RuntimeError("connect() was called before; a communicator is for one socket")
        consumer = self._instance or self._match.make()
        memory = self._end.enter_context(use())
        try:
            self._socket = Socket(consumer, self.scope, memory, self._end.close)
        except BaseException:
            self._end.close()
            raise
        self.consumer, self._scheduler = consumer, memory.scheduler
        self._socket.connect()

    def _answer(self, timeout: float, what: str) -> tuple[bool, str | int | None]:
        """Return the answer to the handshake as soon as there is one."""
        self._run(timeout, lambda: self._socket.answer is not None, what)
        answer = self._socket.answer
        assert answer is not None
        headers = self._socket.headers
        self.response_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        return answer

    def _check_connected(self) -> None:
        if self.consumer is None:
            raise RuntimeError("call connect() first")

    def _has_output(self) -> bool:
        return bool(self._socket.output) or (self._answer_waits and self._socket.answer is not None)

    def _next(self, timeout: float, what: str) -> Event | None:
        """Return the next event for the client without taking it; None if the socket has ended and there is none."""
        self._check_connected()
        self._run(timeout, lambda: bool(self._socket.output) or self._socket.left, what)
        return self._socket.output[0] if self._socket.output else None

    def _run(self, timeout: float, done: Any, what: str) -> None:
        in_time = self._scheduler.run(timeout, lambda: bool(self._scheduler.errors) or done())
        self._scheduler.raise_error()
        if not in_time:
            text = f"{self._name()}: {what} within {timeout:g} s; {self._socket.doing()}"
            raise TimeoutError(f"{text} {uncommitted()}".rstrip())

    def _turn(self) -> None:
        self._scheduler.turn()
        self._scheduler.raise_error()

    def _name(self) -> str:
        assert self._match.consumer_class is not None
        return f"{self._match.consumer_class.__name__} at {self.scope['path']!r}"


__all__ = ["WebsocketCommunicator"]
