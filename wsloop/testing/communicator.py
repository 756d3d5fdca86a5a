"""``WebsocketCommunicator``: a test is the client of a consumer. Names are those of ``channels.testing``.

The consumer runs in the test's thread and transaction, without server and Redis, and what it sleeps takes no time: see
:mod:`wsloop.testing.scheduler`. This module must not know gevent, Redis or sockets.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from django.test import RequestFactory

from wsloop import conf, routing
from wsloop.consumers import SyncConsumer
from wsloop.protocol.consumer_events import Event
from wsloop.testing.memory import use
from wsloop.testing.scheduler import uncommitted
from wsloop.testing.sockets import Socket

Header = tuple[str | bytes, str | bytes]


class WebsocketCommunicator:
    """One client and the consumer that serves it.

    ::

        with WebsocketCommunicator(websocket_urlpatterns, "/ws/echo/", user=john) as socket:
            accepted, subprotocol = socket.connect()
            socket.send_to(text_data="hello")
            assert socket.receive_from() == "hello"

    At the end of the block the client disconnects. An exception of a handler is raised by the method of this class
    during which it happened, or by the next one if it happened in between. Times are virtual seconds.

    Args:
        application: ``Consumer.as_websocket()``, or the class, or a list of patterns.
        path: of the URL, with the query if there is one.
        headers: of the handshake, pairs or a dictionary; ``cookie`` among them gives the cookies.
        subprotocols: that the client offers.
        user: who has signed in; None: nobody.
        session: a session, or a dictionary with what is in it; None: a new one.
        kwargs: what a pattern would have captured, where ``application`` is no list of patterns.

    Attributes:
        scope: of the consumer; may be changed before :meth:`connect`.
        consumer: None before :meth:`connect`.

    Raises:
        ValueError: if the path matches none of the patterns.
        ImproperlyConfigured: if a pattern is no consumer's.
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
        path = path if path.startswith("/") else f"/{path}"
        request: Any = RequestFactory().get(path, headers=_headers(headers, subprotocols or ()), REMOTE_PORT="50000")
        request.user, request.session = user, _session(session)
        self._match = _match(application, request.path_info, kwargs)
        self.scope: dict[str, Any] = routing.scope(request, self._match)
        self.consumer: SyncConsumer | None = None
        self._end = contextlib.ExitStack()

    def connect(self, timeout: float = 1) -> tuple[bool, str | int | None]:
        """Open the socket. A handler that has accepted may go on: it does when this returns and it sleeps.

        Returns:
            True and the subprotocol, or None; or, of a socket that is rejected, False and the code that ``close()``
            was called with, 1000 by default.

        Raises:
            TimeoutError: if the consumer sleeps for longer before it decides.
            RuntimeError: if it has been called before.
        """
        if self.consumer is not None:
            raise RuntimeError("connect() was called before; a communicator is for one socket")
        consumer = self._match.make()
        memory = self._end.enter_context(use())
        try:
            self._socket = Socket(consumer, self.scope, memory, self._end.close)
        except BaseException:
            self._end.close()
            raise
        self.consumer, self._scheduler = consumer, memory.scheduler
        self._socket.connect()
        self._run(timeout, lambda: self._socket.answer is not None, "it has neither accepted nor rejected the socket")
        answer = self._socket.answer
        assert answer is not None
        return answer

    def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send a message to the consumer, which handles it at once, unless an earlier one is still handled.

        Raises:
            RuntimeError: if the socket is not open.
        """
        if (text_data is None) == (bytes_data is None):
            raise ValueError("send_to() needs text_data or bytes_data, and not both")
        if text_data is not None and not isinstance(text_data, str):
            raise TypeError(f"text_data must be str, not {text_data!r}")
        if bytes_data is not None and not isinstance(bytes_data, bytes):
            raise TypeError(f"bytes_data must be bytes, not {bytes_data!r}")
        self._check_connected()
        if self._socket.left or self._socket.answer is None:
            raise RuntimeError(f"nothing can be sent to {self._name()}: {self._socket.doing()}")
        self._socket.receive(text_data if text_data is not None else bytes_data or b"")
        self._turn()

    def send_json_to(self, data: Any) -> None:
        """Send what JSON can carry; otherwise as :meth:`send_to`."""
        self.send_to(text_data=json.dumps(data))

    def receive_from(self, timeout: float = 1) -> str | bytes:
        """Return the next message of the consumer; handlers that sleep go on meanwhile, for ``timeout`` seconds.

        Raises:
            TimeoutError: if there is none.
            AssertionError: if the socket has been closed instead.
        """
        event = self._next(timeout, "no message has come")
        if event is None or event["type"] != "websocket.send":
            raise AssertionError(f"no message has come from {self._name()}: {self._socket.doing()}")
        self._socket.take()
        message: str | bytes = event["text"] if "text" in event else event["bytes"]
        return message

    def receive_json_from(self, timeout: float = 1) -> Any:
        """Return what the next message says, which must be JSON; otherwise as :meth:`receive_from`."""
        message = self.receive_from(timeout)
        if not isinstance(message, str):
            raise AssertionError(f"a binary message has come from {self._name()}, and no JSON: {message!r}")
        return json.loads(message)

    def receive_output(self, timeout: float = 1) -> Event:
        """Return the next event for the client: ``websocket.send``, or ``websocket.close`` with code and reason.

        Raises:
            TimeoutError: if there is none.
        """
        event = self._next(timeout, "nothing has come")
        if event is None:
            raise TimeoutError(f"nothing more comes from {self._name()}: {self._socket.doing()}")
        return self._socket.take()

    def receive_nothing(self, timeout: float = 0.1) -> bool:
        """Tell whether nothing comes from the consumer for so long."""
        self._check_connected()
        something = self._scheduler.run(timeout, lambda: bool(self._socket.output))
        self._scheduler.raise_error()
        return not something

    def wait(self, timeout: float = 1) -> None:
        """Let handlers go on until none runs any more.

        Raises:
            TimeoutError: if one sleeps for longer.
        """
        self._check_connected()
        self._run(timeout, lambda: self._socket.idle, "its handlers have not ended")

    def disconnect(self, code: int = 1000) -> None:
        """Close the socket, if it is open, and return when the consumer's ``disconnect()`` has.

        As on the server a handler that sleeps is ended, and what has been sent to the consumer before is handled.

        Args:
            code: of the close frame; 1006 for a client whose line breaks.
        """
        if self.consumer is None:
            return
        self._socket.leave(code)
        try:
            # Longer than any handler may: one that sleeps is ended, one that is not told is in real code.
            in_time = self._scheduler.run(2 * conf.option("HANDLER_TIMEOUT"), lambda: self._socket.ended)
        finally:
            self._end.close()
        self._scheduler.raise_error()
        if not in_time:
            raise TimeoutError(f"{self._name()}: disconnect() has not ended; {self._socket.doing()}")

    def __enter__(self) -> WebsocketCommunicator:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if exc is None:
            self.disconnect()
        else:
            with contextlib.suppress(Exception):  # what the test has raised says more
                self.disconnect()

    def _check_connected(self) -> None:
        if self.consumer is None:
            raise RuntimeError("connect() comes first")

    def _next(self, timeout: float, what: str) -> Event | None:
        """Return the next event for the client, which stays there; None if the socket has ended and there is none."""
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
        return f"{self._match.consumer_class.__name__} at {self.scope['path']!r}"


def _match(application: Any, path: str, kwargs: dict[str, Any] | None) -> routing.Match:
    if isinstance(application, type) and issubclass(application, SyncConsumer):
        application = application.as_websocket()
    if hasattr(application, "consumer_class"):
        return routing.Match(application.consumer_class, application.consumer_initkwargs, (), kwargs or {})
    if not isinstance(application, Iterable) or isinstance(application, (str, bytes)):
        raise TypeError(f"application must be a consumer's as_websocket(), or a list of patterns, not {application!r}")
    if kwargs is not None:
        raise TypeError("kwargs are captured by the patterns; give them with a consumer only")
    patterns = list(application)
    match = routing.Routes(patterns).match(path)
    if match is None:
        known = ", ".join(str(each.pattern) for each in patterns)
        raise ValueError(f"no pattern matches {path!r}, so it would be a facility; there are: {known}")
    return match


def _headers(given: Iterable[Header] | Mapping[str, str] | None, subprotocols: Sequence[str]) -> dict[str, str]:
    headers = {
        "host": "testserver",
        "origin": "http://testserver",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    if subprotocols:
        headers["sec-websocket-protocol"] = ", ".join(subprotocols)
    for name, value in given.items() if isinstance(given, Mapping) else given or ():
        headers[_text(name).lower()] = _text(value)
    return headers


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _session(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    session = conf.session_store()()
    session.update(given)
    return session


__all__ = ["WebsocketCommunicator"]
