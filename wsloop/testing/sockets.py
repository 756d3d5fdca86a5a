"""The socket of one consumer under test: what :mod:`wsloop.runtime.runner` is to a real one, without a connection.

It has the same states and rules: events are handled one after the other, what the client has sent before it left is
handled, a handler that sleeps then is ended, and ``websocket.disconnect`` comes last, once. What would go to the client
gathers in ``output``. This module must not know gevent.
"""

from __future__ import annotations

import collections
import contextvars
import enum
import functools
import sys
from collections.abc import Callable
from typing import Any

from django.core.exceptions import PermissionDenied
from greenlet import GreenletExit
from redis.exceptions import RedisError

from wsloop import conf, layers
from wsloop.consumers import SyncConsumer, begin
from wsloop.exceptions import Disconnected, StopConsumer
from wsloop.protocol.close_codes import ABNORMAL, INTERNAL_ERROR, NORMAL, TOO_SLOW
from wsloop.protocol.consumer_events import Event, check_sent, encode_text
from wsloop.testing.memory import Memory
from wsloop.testing.scheduler import FOREVER, Handler

MOST_UNREAD = 1000  # messages that the test has not received, before send() waits for it


class State(enum.Enum):
    CONNECTING = enum.auto()
    OPEN = enum.auto()
    LEFT = enum.auto()


class Socket:
    """Hands events to a consumer, and takes what it does.

    Args:
        consumer: just made.
        scope: of the socket.
        memory: the channel layer.
        ended: called when nothing will happen any more.

    Attributes:
        output: events for the client, ``websocket.send`` and ``websocket.close``.
        answer: to the handshake: whether it was accepted, and the subprotocol or the close code; None before.
        ended: whether disconnect() has been called, and has returned.
        channel_name: of the consumer.
    """

    def __init__(
        self, consumer: SyncConsumer, scope: dict[str, Any], memory: Memory, ended: Callable[[], None]
    ) -> None:
        self.output: collections.deque[Event] = collections.deque()
        self.answer: tuple[bool, str | int | None] | None = None
        self.ended = False
        self._consumer = consumer
        self._memory = memory
        self._scheduler = memory.scheduler
        self._when_ended = ended
        self._state = State.CONNECTING
        self._stopped = False  # by itself: what the client has sent besides is not for it any more
        self._code = 0
        self._inbox: collections.deque[tuple[str, Any]] = collections.deque()
        self._messages = 0  # of the client, in the inbox
        self._handler: Handler | None = None
        self._kind = self._handling = ""
        self._stuck: Handler | None = None  # it waits for the test to receive
        self._modules = [
            sys.modules[each.__module__] for each in type(consumer).__mro__ if each.__module__ in sys.modules
        ]
        self.channel_name = memory.enter(self)
        try:
            begin(consumer, scope, self._do, layers.get_channel_layer(), self.channel_name)
        except BaseException:
            memory.leave(self.channel_name)
            raise

    # The client.

    @property
    def left(self) -> bool:
        """Whether the socket has ended, for the client."""
        return self._state is State.LEFT

    @property
    def idle(self) -> bool:
        """Whether no handler runs, and none is due."""
        return self._handler is None and not self._inbox

    def connect(self) -> None:
        """Ask the consumer."""
        self._put("websocket.connect", None)

    def receive(self, message: str | bytes) -> None:
        """The client has sent a message."""
        self._messages += 1
        self._put("websocket.receive", message)

    def take(self) -> Event:
        """Return the next event for the client."""
        event = self.output.popleft()
        if self._stuck is not None:
            self._scheduler.wake(self._stuck)
        return event

    def leave(self, code: int) -> None:
        """The client has closed the socket with this code."""
        self._leave(ABNORMAL if self._state is State.CONNECTING else code)

    def doing(self) -> str:
        """Return what the consumer does, for a person to read."""
        handler = self._handler
        if self.left and handler is None:
            return f"the socket has ended, with {self._code}"
        if handler is None:
            return "no handler runs"
        what = f"the handler of {self._handling}"
        if self._stuck is not None:
            return f"{what} waits for you to receive some of {len(self.output)} messages, at {handler.where()}"
        if handler.wakes_at is not None and handler.wakes_at < FOREVER:
            return f"{what} sleeps for {handler.wakes_at - self._scheduler.now:g} s more, at {handler.where()}"
        return f"{what} runs"

    # The channel layer.

    def put(self, payload: bytes) -> bool:
        """See :class:`wsloop.testing.memory.Member`."""
        if self.left:
            return True
        if len(self._inbox) - self._messages >= conf.option("CHANNEL_CAPACITY"):
            if self._stuck is not None:
                self._close(TOO_SLOW, "too slow")
            return False
        self._put("event", payload)
        return True

    # Handlers.

    def _put(self, kind: str, content: Any) -> None:
        self._inbox.append((kind, content))
        self._scheduler.soon(self._next)

    def _next(self) -> None:
        """Begin with the next event, unless the last one is still handled."""
        if self._handler is not None or not self._inbox:
            return
        kind, content = self._inbox.popleft()
        self._messages -= kind == "websocket.receive"
        if not self._wants(kind):
            self._scheduler.soon(self._next)
            return
        ends_at = FOREVER
        if self.left:
            ends_at = self._scheduler.now
            if kind == "websocket.disconnect":
                ends_at += conf.option("HANDLER_TIMEOUT")
        event = _event(kind, content)
        self._kind, self._handling = kind, event["type"]
        call = functools.partial(self._dispatch, event)
        self._handler = Handler(call, self._handled, self._modules, ends_at)
        self._scheduler.start(self._handler)

    def _wants(self, kind: str) -> bool:
        """Tell whether the consumer is to be called with what was put into its inbox."""
        if kind == "websocket.receive":
            return not self._stopped
        return kind == "websocket.disconnect" or not self.left  # others need not know yet that it has left

    def _dispatch(self, event: Event) -> None:
        contextvars.Context().run(self._consumer.dispatch, event)
        if self._kind == "websocket.connect" and self._state is State.CONNECTING:
            raise RuntimeError("connect() has called neither accept() nor close()")

    def _handled(self, error: BaseException | None) -> None:
        self._handler = None
        if isinstance(error, GreenletExit):  # Disconnected, or the site's own code has ended the greenlet
            if not self.left:  # else what the client sent before is handled yet
                self._close(NORMAL)
        elif isinstance(error, StopConsumer):
            self._close(NORMAL)
        elif error is not None:
            self._failed(error)
        if self._kind == "websocket.disconnect":
            self.ended = True
            self._memory.leave(self.channel_name)
            self._when_ended()
        else:
            self._scheduler.soon(self._next)
        if error is not None and not isinstance(error, (Exception, GreenletExit)):
            self._scheduler.errors.remove(error)
            raise error  # KeyboardInterrupt, and what else is for the whole process

    def _failed(self, error: BaseException) -> None:
        self._scheduler.errors.append(error)
        if self._state is State.CONNECTING:
            self._leave(ABNORMAL if isinstance(error, (PermissionDenied, RedisError)) else INTERNAL_ERROR)
        else:
            self._close(INTERNAL_ERROR, "internal error")

    def _leave(self, code: int) -> None:
        """Have ``disconnect`` be called behind all that the client has sent."""
        if self.left:
            return
        self._state = State.LEFT
        self._code = code
        self._put("websocket.disconnect", code)
        if self._handler is not None:
            self._scheduler.end(self._handler)

    # What the consumer does.

    def _do(self, event: Event) -> None:
        check_sent(event, self._consumer.scope["subprotocols"])
        if event["type"] == "websocket.accept":
            self._accept(event.get("subprotocol"))
        elif event["type"] == "websocket.close":
            code = event.get("code")
            self._close(NORMAL if code is None else code, event.get("reason") or "")
        elif event.get("text") is not None:
            encode_text(event["text"])  # as it would be on the wire, and not all text can
            self._send("text", event["text"])
        else:
            self._send("bytes", bytes(event["bytes"]))

    def _accept(self, subprotocol: str | None) -> None:
        if self.left:
            self._refuse()
        if self._state is not State.CONNECTING:
            raise RuntimeError("the socket was accepted before")
        self._state = State.OPEN
        self.answer = (True, subprotocol)

    def _send(self, kind: str, message: str | bytes) -> None:
        handler = self._scheduler.current()
        if self.left:
            if handler is None or handler is self._handler:
                self._refuse()
            return
        if self._state is State.CONNECTING:
            raise RuntimeError("send() comes after accept()")
        while len(self.output) >= MOST_UNREAD and handler is not None:
            self._stuck = handler
            try:
                self._scheduler.pause(handler)
            finally:
                self._stuck = None
        self.output.append({"type": "websocket.send", kind: message})

    def _close(self, code: int, reason: str = "") -> None:
        self._stopped = True
        if self._state is State.CONNECTING:
            self.answer = (False, code)
            self._leave(ABNORMAL)
        elif self._state is State.OPEN:
            self.output.append({"type": "websocket.close", "code": code, "reason": reason})
            self._leave(code)

    def _refuse(self) -> None:
        handler = self._scheduler.current()
        if handler is not None:
            self._scheduler.refuse(handler)
        raise Disconnected


def _event(kind: str, content: Any) -> Event:
    """Return the event that a consumer gets for what was put into its inbox."""
    if kind == "event":
        return layers.decode(content)
    if kind == "websocket.receive":
        return {"type": kind, "text" if isinstance(content, str) else "bytes": content}
    if kind == "websocket.disconnect":
        return {"type": kind, "code": content}
    return {"type": kind}


__all__ = ["Socket"]
