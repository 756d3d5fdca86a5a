"""Runs an ASGI application on a connection: one task, which lives as long as its socket.

How it works. The rules are those for a consumer (:mod:`wsloop.runtime.core`); only the way in differs. ``receive()`` of
the application takes the next event out of the inbox, or waits for one, and ``send()`` carries out what a consumer
could send as well. So what holds for consumers holds for applications: bounds, refusals, close codes, signing out. When
the client has left, the application gets ``websocket.disconnect``, and is cancelled HANDLER_TIMEOUT seconds later.

Sources: ASGI 3.0, and its WebSocket specification, version 2.4.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from wsloop import conf
from wsloop.aio import context
from wsloop.aio.lines import Line
from wsloop.aio.worker import worker_loop
from wsloop.consumers.base import Consumer
from wsloop.protocol.close_codes import ABNORMAL, NORMAL
from wsloop.protocol.consumer_events import Event
from wsloop.refusals import Denied
from wsloop.runtime.core import CONNECTING, LEFT, NEVER
from wsloop.runtime.inbox import CONNECT
from wsloop.runtime.tasks import TaskRunner

Application = Callable[[dict[str, Any], Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Any]

logger = logging.getLogger("wsloop.runner")

MAX_DENIAL = 1024 * 1024  # bytes of the response with which an application refuses a handshake
START, BODY = "websocket.http.response.start", "websocket.http.response.body"


class ClientDisconnected(OSError):
    """Raised by ``send()`` of an application whose client has left, as the specification asks for."""


class Hosted(Consumer):
    """Stands for an application where a consumer is expected.

    Args:
        application: ASGI 3.0.
    """

    channel_layer_alias = None  # it may have any layer of its own

    def __init__(self, application: Application) -> None:
        self.application = application


class AsgiRunner(TaskRunner):
    """One application and its connection. Arguments are those of :class:`Runner`, with :class:`Hosted` as consumer."""

    __slots__ = ("_denial", "_receiver")

    def __init__(self, *arguments: Any) -> None:
        self._receiver: asyncio.Future[None] | None = None  # receive(), which waits
        self._denial: tuple[int, Any, bytes] | None = None  # status, headers and body of a response, begun
        super().__init__(*arguments)

    def _wake(self) -> None:
        if self._receiver is not None:
            worker_loop().call_soon_threadsafe(self._deliver)
        else:
            super()._wake()

    def _start(self) -> None:
        contextvars.Context().run(self._call_soon)

    def _call_soon(self) -> None:
        self._starting = False
        line = Line()
        context.enter(line)
        self.task = asyncio.get_running_loop().create_task(self._call(line))

    async def _call(self, line: Line) -> None:
        """Call the application, and act on its end."""
        consumer = self._consumer
        error: BaseException | None = None
        self._handling = CONNECT
        try:
            if isinstance(consumer, Hosted):
                await consumer.application(consumer.scope, self._receive, self._perform)
        except BaseException as exc:
            error = exc
            if isinstance(exc, KeyboardInterrupt):
                raise
        finally:
            self._stop_checking()
            line.close()
            self._returned(error)
            self.task = None
            self._runtime.running.discard(self)

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
        self._end()

    def _end(self) -> None:
        super()._end()
        self._interrupt()  # it may not have been told: its client has left before its handshake began

    def _end_soon(self) -> None:
        if self._ends_at == NEVER:
            self._ends_at = self._now() + conf.option("HANDLER_TIMEOUT")
        self._end_handler()

    def _handler_sleeps(self) -> bool:
        return False  # it has been told, and may have more to do

    def give_up(self) -> None:
        super().give_up()
        self._interrupt()

    def _report(self, event: Event, error: BaseException) -> None:
        logger.error("%s has failed", self._name().capitalize(), exc_info=error)

    def _name(self) -> str:
        consumer = self._consumer
        return "an application" if consumer is None else f"the application at {consumer.scope['path']!r}"

    # What the application calls.

    async def _receive(self) -> Event:
        while True:
            while self._inbox.entries:
                event = self._take()
                self._after_event()
                if event is not None:
                    return event
            if self._receiver is not None:
                raise RuntimeError("two tasks have called receive() of this socket at the same time")
            self._receiver = asyncio.get_running_loop().create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None

    def _deliver(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    def _do(self, event: Event) -> Any:
        if event.get("type") in (START, BODY):
            return self._deny(event)
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
        if self._state is not CONNECTING or (self._denial is None) == (event["type"] == BODY):
            raise RuntimeError(f"{event['type']} is not expected here")
        if event["type"] == START:
            self._denial = event["status"], event.get("headers", ()), b""
            return
        assert self._denial is not None
        status, headers, body = self._denial
        body += event.get("body", b"")
        if len(body) > MAX_DENIAL:
            raise ValueError(f"the response to a handshake may have {MAX_DENIAL} bytes")
        self._denial = status, headers, body
        if not event.get("more_body", False):
            self._reject(Denied(HTTPStatus(status), headers, body), ABNORMAL)


__all__ = ["Application", "AsgiRunner", "ClientDisconnected", "Hosted"]
