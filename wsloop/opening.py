"""A WebSocket between the end of its handshake and its place in the hub: opened once the 101 is out, or called off.

This module must not know where its subscriptions come from.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any

from websockets.extensions import Extension

from wsloop import conf, metrics
from wsloop.engine import engine
from wsloop.facilities.inbound import ReadOnlyHandler
from wsloop.facilities.recovery import Recovery
from wsloop.greenlets import spawn
from wsloop.protocol.dialects import BARE
from wsloop.refusals import Refused, try_again
from wsloop.runtime.runner import Runner
from wsloop.sockets.admission import Visitor
from wsloop.sockets.connection import Connection
from wsloop.sockets.joining import JoinBuffer
from wsloop.sockets.limits import Bounds
from wsloop.sockets.transport import Headers, Takeover, Transport

logger = logging.getLogger("wsloop.server")


class Opening:
    """A WebSocket that is being set up: what is needed to open it once the 101 is out, or to call it off.

    Args:
        takeover: takes the request's connection over.
        answer: headers of the 101.
        extensions: those that it agrees to.
        generation: of ``session_watch``, from before the visitor was looked up.

    Attributes:
        channels: those that the broker has subscribed to for it.
        dialect: what it will speak.
        presence_scope: for presence: the facility and the user's name; None where it is not counted.
        news: returns what it gets first.
        recovery: what has still to be sent to it once it is open; None: nothing.
        runner: of the consumer that serves it; None: it is a facility's.
    """

    def __init__(self, takeover: Takeover, answer: Headers, extensions: Sequence[Extension], generation: int) -> None:
        self.takeover = takeover
        self.channels: tuple[bytes, ...] = ()
        self.dialect = BARE
        self.presence_scope: tuple[str, str | None] | None = None
        self.news: Callable[[], Iterable[bytes]] = tuple
        self.recovery: Recovery | None = None
        self.runner: Runner | None = None
        self.options = conf.PLAIN
        self._joining: JoinBuffer | None = None
        self._answer = answer
        self._extensions = extensions
        self._generation = generation

    def answer_with(self, subprotocol: str) -> None:
        """Name the subprotocol in the 101."""
        self._answer = [each for each in self._answer if each[0] != "Sec-WebSocket-Protocol"]
        self._answer.append(("Sec-WebSocket-Protocol", subprotocol))

    def join(self, channels: Iterable[bytes], visitor: Visitor, handler: ReadOnlyHandler | Runner) -> JoinBuffer:
        """Have the hub keep what arrives for it from now on."""
        self._handler = handler
        self._joining = engine().hub.join(channels, visitor)
        try:
            make_room(visitor, joined=1)  # others may have come meanwhile
        except Refused:
            self.cancel()
            raise
        return self._joining

    def cancel(self) -> None:
        """Call it off. May be called again."""
        if self._joining is not None:
            engine().hub.cancel(self._joining)
        channels, self.channels = self.channels, ()
        engine().broker.unsubscribe(channels)
        if self.runner is not None:
            self.runner.failed()

    def open(self, start_response: Callable[..., Any]) -> Transport | None:
        """Send the 101 and hand the connection to the hub.

        Returns:
            its transport, or None if it could not be opened after the 101.

        Raises:
            transport.Gone: if the client has hung up meanwhile.
        """
        joining = self._joining
        if joining is None:
            raise RuntimeError("open() comes after join()")
        try:
            bounds = _bounds(self.options.latest_only)
            taken = self.takeover.accept(start_response, self._answer)
        except BaseException:
            self.cancel()
            raise
        connection = Connection(taken, self._handler, bounds, self._extensions, self.dialect)
        try:
            if self.recovery is not None:
                # It becomes a member of its channels when it has caught up with them.
                engine().hub.cancel(joining)
                joining = engine().hub.join((), joining.visitor)
            engine().hub.complete(joining, connection, self.news)
            if self.presence_scope is not None and connection.open:
                connection.presence_scope = self.presence_scope
                engine().presence.entered(*self.presence_scope)
            if self.runner is not None:
                self.runner.opened(connection)
            if self.recovery is not None:
                spawn(self.recovery.go_on, connection)  # which gives the channels back in the end
        except Exception:
            # The 101 is out, so there is no response to tell it with.
            logger.exception("a WebSocket could not be opened")
            engine().hub.cancel(joining)
            connection.abort()
            if self.recovery is not None:
                self.cancel()
            return None
        if engine().session_watch.generation() != self._generation:
            engine().session_watch.recheck(connection)  # the visitor may be another one since
        return taken


def _bounds(latest_only: bool) -> Bounds:
    rate, burst = conf.option("RATE_LIMIT") or (None, 0)
    sizes = conf.option("MAX_MESSAGE_SIZE"), conf.option("MAX_QUEUED_BYTES")
    return _shared(Bounds(*sizes, rate, burst, conf.compress_from(), latest_only))


@functools.lru_cache(maxsize=4)
def _shared(bounds: Bounds) -> Bounds:
    """Return one object for equal ones: each connection keeps it."""
    return bounds


def make_room(visitor: Visitor | None = None, joined: int = 0) -> None:
    """Refuse one more connection if there are too many.

    Raises:
        Refused: 503 or 429.
    """
    setting = engine().hub.exceeded_limit(visitor, joined)
    if setting is None:
        return
    metrics.reached(setting)
    if setting == "MAX_CONNECTIONS":
        raise try_again(HTTPStatus.SERVICE_UNAVAILABLE, "This server has as many WebSockets as it can hold.")
    if setting == "MAX_CONNECTIONS_PER_ADDRESS" and visitor is not None:
        logger.warning("refused: %s has too many WebSockets; if it is a proxy, see TRUSTED_PROXIES", visitor.address)
    raise try_again(
        HTTPStatus.TOO_MANY_REQUESTS, "You have too many WebSockets open. Close some of them, perhaps in other windows."
    )
