"""The rules for one consumer: with which event it is called next, and what follows from what it does and raises. All of
them are in this module, which is a little longer than others for that reason.

How it works. What happens to the socket, and events of the channel layer, go into the inbox. A subclass takes out one
event after the other, calls the consumer with it, and reports how that ended. :mod:`wsloop.runtime.state` has the table
of the states and their transitions.

The first event is ``websocket.connect``, and no other follows if the client has left before it. The last one is
``websocket.disconnect``, once, behind all that the client sent before it left; those messages have HANDLER_TIMEOUT
seconds in all, and ``disconnect`` has as many for itself. A consumer that has closed its socket gets no more messages.
Events of the channel layer are dropped when the client has left.

This module must not know how handlers are run (it assumes neither greenlets nor threads), connections, gevent, or
Redis but for the class of its errors.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from redis.exceptions import RedisError

from wsloop import conf, layers
from wsloop.consumers.base import Consumer, begin
from wsloop.exceptions import Disconnected, StopConsumer
from wsloop.protocol.close_codes import ABNORMAL, INTERNAL_ERROR, NORMAL, SERVICE_RESTART, TOO_SLOW
from wsloop.protocol.consumer_events import Event, Headers, check_sent, encode_text, response_headers
from wsloop.refusals import FAILURE, NOT_ALLOWED, Refused, shown, try_again
from wsloop.runtime.driver import Driver, Registry
from wsloop.runtime.inbox import BYTES, CONNECT, DISCONNECT, EVENT, MESSAGES, TEXT, Inbox, MalformedEvent, event_of
from wsloop.runtime.state import CONNECTING, HUNG_UP, LEFT, OPEN, OPENING, State

logger = logging.getLogger("wsloop.runner")

NEVER, OVER = float("inf"), float("-inf")  # deadlines that have not passed, and have passed, at any time


class ConsumerCore(Driver):
    """One consumer. A subclass runs its handlers, and implements :class:`Driver`.

    Args:
        consumer: new.
        scope: of the socket.
        registry: that the consumer enters.

    Attributes:
        channel_name: of the consumer.
    """

    __slots__ = (
        "_blocked_sends",
        "_close_on_open",
        "_connect_called",
        "_consumer",
        "_ends_at",
        "_handling",
        "_inbox",
        "_registry",
        "_state",
        "_stopped",
        "channel_name",
    )

    def __init__(self, consumer: Consumer, scope: dict[str, Any], registry: Registry) -> None:
        self._consumer: Consumer | None = consumer
        self._state: State = CONNECTING
        self._inbox = Inbox()
        self._handling: str | None = None  # the kind of the entry whose handler runs
        self._connect_called = False
        self._stopped = False  # the consumer has closed its socket: further messages of the client are not for it
        self._close_on_open: tuple[int, str] | None = None  # code and reason of a close() before the 101 is out
        self._blocked_sends = 0  # calls of send() that wait for the client to read
        # When handlers that go on without their client must end, see _now(). NEVER: the client is there. OVER: they
        # have been ended once already, or must end immediately.
        self._ends_at = NEVER
        self._registry = registry
        self.channel_name = registry.enter(self)
        try:
            alias = consumer.channel_layer_alias
            layer = None if alias is None else layers.get_channel_layer(alias)
            begin(consumer, scope, self._perform, layer, self.channel_name)
        except BaseException:
            registry.leave(self.channel_name)
            raise

    @property
    def _client_gone(self) -> bool:
        return self._state is LEFT or self._state is HUNG_UP

    # What happens to the socket.

    def _put(self, kind: str, content: Any = None) -> None:
        self._inbox.put(kind, content)
        self._wake()

    def _put_published(self, kind: str, payload: bytes, capacity: int, max_bytes: float) -> bool:
        """Put a published event into the inbox, and return False if there was no room for it.

        A socket whose consumer cannot empty its inbox because the client does not read is closed.
        """
        if self._state is LEFT:
            return True
        if not self._inbox.has_room(len(payload), capacity, max_bytes):
            if self._blocked_sends:
                self._close_connection(TOO_SLOW, "too slow")
            return False
        self._put(kind, payload)
        return True

    def _opened(self) -> None:
        """The 101 is out: the consumer may send."""
        if self._state is OPENING:
            self._state = OPEN
            if self._close_on_open is not None:
                self._close_connection(*self._close_on_open)

    def _hung_up(self) -> None:
        """The client has hung up, although not all that it has sent has been read."""
        if self._state is OPEN:
            self._state = HUNG_UP
            self._end_soon()

    def _leave(self, code: int) -> None:
        """The socket has ended: call ``disconnect`` behind all that the client has sent.

        Args:
            code: close code.
        """
        if self._state is not LEFT:
            self._state = LEFT
            self._put(DISCONNECT, int(code))  # str() of the library's codes has a name in it, with Python 3.10
            self._end_soon()

    # Handlers.

    def _take(self) -> Event | None:
        """Take an entry out of the inbox, and return the event to call the consumer with; None: it is not called."""
        kind, content = self._inbox.take()
        if self._wants(kind):
            try:
                event = event_of(kind, content)
            except MalformedEvent as exc:
                self._discard(len(content), exc)
            else:
                self._handling = kind
                return event
        elif kind == DISCONNECT:
            self._end()
        return None

    def _discard(self, size: int, error: MalformedEvent) -> None:
        """Report a published event that is none, or that no method may handle.

        Args:
            size: bytes of its payload.
        """
        logger.warning("Discarded malformed event (%d bytes) for %s%s", size, self._name(), error)

    def _wants(self, kind: str) -> bool:
        """Return whether the consumer is called for an entry."""
        if kind in MESSAGES:
            return not self._stopped and (self._ends_at == NEVER or self._now() < self._ends_at)
        if kind == CONNECT:
            self._connect_called = self._state is not LEFT
        if kind in (CONNECT, DISCONNECT):
            return self._connect_called
        return self._state is not LEFT  # the publisher need not know yet that the client has left

    def _handled(self, event: Event, error: BaseException | None = None) -> None:
        """Act on the end of a handler.

        Args:
            event: that it was called with.
            error: that it has raised. KeyboardInterrupt, which it did not cause, is left to the caller.
        """
        kind, self._handling = self._handling, None
        if error is None and kind in MESSAGES:
            return  # nothing follows; most handlers end here
        try:
            if error is None:
                if kind == CONNECT and self._state is CONNECTING:
                    self._failed(event, RuntimeError("connect() has called neither accept() nor close()"))
            elif isinstance(error, StopConsumer):
                self._close(NORMAL)
            elif isinstance(error, self.ended_by):
                self._ended(kind)
            elif not isinstance(error, KeyboardInterrupt):
                self._failed(event, error)
        finally:
            if kind == DISCONNECT:
                self._end()

    def _ended(self, kind: str | None) -> None:
        """Act on a handler that was ended: by Disconnected, because the worker stops, or by code of the site."""
        if self._state is CONNECTING:
            refused = try_again(HTTPStatus.SERVICE_UNAVAILABLE, "The server is restarting.", "restart")
            self._reject(refused, SERVICE_RESTART)
        elif not self._client_gone:  # otherwise what the client sent before is still handled
            self._close(NORMAL)
        elif kind == DISCONNECT and self._ends_at > OVER:
            logger.warning("disconnect() of %s ended early: it was cancelled, or awaited a task that was", self._name())

    def _failed(self, event: Event, error: BaseException) -> None:
        if self._state is not CONNECTING:
            self._close(INTERNAL_ERROR, "internal error")
        elif isinstance(error, (PermissionDenied, RedisError)):  # which have responses of their own
            self._reject(error, ABNORMAL)
            return
        else:
            reason = "The site's code for this WebSocket has failed; the site's log says why."
            self._reject(Refused(HTTPStatus.INTERNAL_SERVER_ERROR, reason, kind=FAILURE), INTERNAL_ERROR)
        self._report(event, error)

    def _reject(self, error: BaseException, code: int) -> None:
        self._refuse(error, code)
        self._leave(code)

    def _end_soon(self) -> None:
        """End a handler that runs without its client: when it sleeps or sends, or its time is over."""
        if self._handling is not None:
            if self._ends_at == NEVER or self._handling == DISCONNECT:
                self._ends_at = self._now() + conf.option("HANDLER_TIMEOUT")
            self._end_handler()

    def _end(self) -> None:
        """Release everything: the consumer is not called again."""
        self._state = LEFT
        self._inbox.clear()
        self._registry.leave(self.channel_name)
        self._release()
        self._consumer = None

    def _name(self) -> str:
        """Return a description for the log: nothing secret, and nothing that would query the database."""
        consumer = self._consumer
        if consumer is None:
            return "a consumer"
        path, user = consumer.scope["path"], consumer.scope.get("user")
        return f"{type(consumer).__name__} at {path!r} for {type(user).__name__} {getattr(user, 'pk', None)!r}"

    # What the consumer does.

    def _perform(self, event: Event) -> Any:
        """Carry out an event of the consumer; its ``base_send``. Raises, returns and awaits what :meth:`_do` does."""
        return self._do(event)

    def _do(self, event: Event) -> Any:
        """Carry out an event of the consumer, and return what :meth:`_open` or :meth:`_transmit` returns.

        Raises:
            TypeError, ValueError: if the event is not valid, see :func:`check_sent`.
            RuntimeError: if it is not allowed in this state, or in this thread.
            Disconnected: if the client has left.
        """
        self._registry.check_thread()
        consumer = self._consumer
        check_sent(event, () if consumer is None else consumer.scope["subprotocols"])
        kind = event["type"]
        if kind == "websocket.accept":
            return self._accept(event.get("subprotocol"), response_headers(event.get("headers")))
        if kind == "websocket.close":
            code = event.get("code")
            return self._close(NORMAL if code is None else code, event.get("reason") or "")
        if event.get("text") is not None:
            return self._send(encode_text(event["text"]), True)
        return self._send(bytes(event["bytes"]), False)

    def _accept(self, subprotocol: str | None, headers: Headers) -> Any:
        if self._state is LEFT:
            stopping = self._stop_caller()
            if stopping is not None:
                return stopping
            raise Disconnected
        if self._state is not CONNECTING:
            raise RuntimeError("the socket was accepted before")
        self._state = OPENING
        return self._open(subprotocol, headers)

    def _send(self, payload: bytes, text: bool) -> Any:
        if self._state is OPEN:
            return self._transmit(payload, text)
        if self._client_gone:
            return self._stop_caller()
        raise RuntimeError("send() comes after accept()")

    def _close(self, code: int, reason: str = "") -> None:
        self._stopped = True
        if self._state is CONNECTING:
            detail = f"{self._name()} has not accepted the socket, but closed it: {shown(reason)!r}"
            self._refuse(Refused(HTTPStatus.FORBIDDEN, reason or NOT_ALLOWED, kind="consumer", detail=detail), code)
            self._leave(ABNORMAL)
        elif self._state is OPENING:
            self._close_on_open = self._close_on_open or (code, reason)
        elif self._state is not LEFT:
            self._close_connection(code, reason)


__all__ = [
    "BYTES",
    "CONNECT",
    "CONNECTING",
    "DISCONNECT",
    "EVENT",
    "LEFT",
    "NEVER",
    "OVER",
    "TEXT",
    "ConsumerCore",
    "State",
]
