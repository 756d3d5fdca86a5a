"""The rules that hold only for ASGI applications: the events that they take and send themselves, and their end.

How it works. They are rules for a consumer (:mod:`wsloop.runtime.core`); only the way in differs. ``receive()`` of the
application takes the next event out of the inbox, or waits for one, and ``send()`` carries out what a consumer could
send as well. So what holds for consumers holds for applications: bounds, refusals, close codes, signing out. When the
client has left, the application gets ``websocket.disconnect``, and is cancelled HANDLER_TIMEOUT seconds later.

Sources: ASGI 3.0, and its WebSocket specification, version 2.4. This module must not know gevent, connections, nor who
runs the event loop.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from wsloop import conf
from wsloop.consumers.base import Consumer
from wsloop.exceptions import Disconnected
from wsloop.protocol.close_codes import ABNORMAL, NORMAL
from wsloop.protocol.consumer_events import Event
from wsloop.refusals import Denied
from wsloop.runtime.core import CONNECTING, DISCONNECT, LEFT, NEVER
from wsloop.runtime.coroutines import CoroutineCore
from wsloop.runtime.state import OPENING

Application = Callable[[dict[str, Any], Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Any]

MAX_DENIAL = 1024 * 1024  # bytes of the response with which an application refuses a handshake
START, BODY = "websocket.http.response.start", "websocket.http.response.body"


class ClientDisconnected(OSError):
    """Raised by ``send()`` of an application whose client has left, as the specification asks for.

    Not once the application has received ``websocket.disconnect``: what was written for daphne, which raises nothing,
    would not clean up to the end.
    """


class Hosted(Consumer):
    """Stands for an application where a consumer is expected.

    Args:
        application: ASGI 3.0.
    """

    channel_layer_alias = None  # it may have any layer of its own

    def __init__(self, application: Application) -> None:
        self.application = application


class Begun:
    """What an application has begun.

    Attributes:
        receivers: its calls of ``receive()`` that wait.
        denial: status, headers and body of its response to the handshake.
        over: whether it has ended, although the 101 to its handshake is not out yet.
    """

    __slots__ = ("denial", "over", "receivers")

    def __init__(self) -> None:
        self.receivers: list[asyncio.Future[None]] = []
        self.over = False
        self.denial: tuple[int, Any, bytes] | None = None


class ApplicationCore(CoroutineCore):
    """One application: a single task, which lives as long as its socket. A subclass starts it."""

    __slots__ = ()

    _begun: Begun

    @abc.abstractmethod
    def _taken(self) -> None:
        """The application has taken an entry out of the inbox."""

    def _returned(self, error: BaseException | None) -> None:
        """Act on the end of the application."""
        event, self._handling = {"type": "websocket"}, None
        if self._client_gone:
            if error is not None and not isinstance(error, (ClientDisconnected, *self.ended_by)):
                self._report(event, error)
        elif isinstance(error, self.ended_by):
            self._ended(None)
        elif error is not None:
            self._failed(event, error)
        elif self._state is CONNECTING:
            self._failed(event, RuntimeError("the application has returned without accepting or closing the socket"))
        else:
            self._close(NORMAL)
        if self._state is OPENING:
            self._begun.over = True  # the socket is closed as soon as it is open, and that is the end
        else:
            self._end()

    def _end_soon(self) -> None:
        if self._ends_at == NEVER:
            self._ends_at = self._now() + conf.option("HANDLER_TIMEOUT")
        self._end_handler()

    # What the application calls.

    async def _receive(self) -> Event:
        while True:
            while self._inbox.entries:
                event = self._take()
                self._taken()
                if event is not None:
                    if self._handling == DISCONNECT:
                        event["reason"] = self._close_reason()
                    return event
            waiting = asyncio.get_running_loop().create_future()
            self._begun.receivers.append(waiting)
            try:
                await waiting
            except asyncio.CancelledError:
                if waiting.done() and not waiting.cancelled():  # another call gets what this one was woken for
                    self._deliver()
                raise
            finally:
                self._begun.receivers.remove(waiting)

    def _deliver(self) -> None:
        for waiting in self._begun.receivers:
            if not waiting.done():
                waiting.set_result(None)
                break

    async def _perform(self, event: Event) -> None:
        try:
            await super()._perform(event)
        except Disconnected:
            raise ClientDisconnected("the client has left") from None

    def _close_reason(self) -> str:
        return ""

    def _do(self, event: Event) -> Any:
        if event.get("type") in (START, BODY):
            return self._deny(event)
        if self._handling == DISCONNECT and event.get("type") == "websocket.send":
            return asyncio.sleep(0)  # nothing: it has been told, and cleans up; daphne ignores this, too
        return super()._do(event)

    async def _stop_caller(self) -> None:
        raise ClientDisconnected("the client has left")

    def _deny(self, event: Event) -> None:
        """Collect a response of the application's own, and refuse the handshake with it.

        Raises:
            RuntimeError: if it is not allowed in this state.
            ValueError: if the response is not valid, or too large.
        """
        if self._state is LEFT:
            return
        if self._state is not CONNECTING or (self._begun.denial is None) == (event["type"] == BODY):
            raise RuntimeError(f"{event['type']} is not expected here")
        if event["type"] == START:
            # An interim response, or one whose body the client would take for the next response (RFC 9110, section 15).
            if event["status"] < 200 or event["status"] in (204, 304):
                raise ValueError(f"the response to a refused handshake cannot have the status {event['status']}")
            self._begun.denial = event["status"], event.get("headers", ()), b""
            return
        assert self._begun.denial is not None
        status, headers, body = self._begun.denial
        body += event.get("body", b"")
        if len(body) > MAX_DENIAL:
            raise ValueError(f"the response to a handshake may have {MAX_DENIAL} bytes")
        self._begun.denial = status, headers, body
        if not event.get("more_body", False):
            self._reject(Denied(HTTPStatus(status), headers, body), ABNORMAL)


__all__ = ["Application", "ApplicationCore", "Begun", "ClientDisconnected", "Hosted"]
