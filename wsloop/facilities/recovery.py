"""Recovery: a socket gets the messages that it missed before live ones, without gap or duplicate.

How it works. While live messages of its channels are already being buffered for the socket (*joining*, see ``hub``),
the histories are read from the client's positions. The two overlap, and so do the history and the messages that the
subscription has yet to deliver; offsets tell which are the same. The missed messages may be more than a socket should
hold at once; then the first page goes out with the 101, and the next pages follow as the client takes them. Live
messages are buffered again only for the last page, so a long recovery costs no memory.

This module must not know HTTP, nor the sockets of the operating system.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from redis.exceptions import RedisError
from websockets.frames import CloseCode

from wsloop import conf, metrics
from wsloop.backend import history, pool
from wsloop.delivery.broker import Broker, Unavailable
from wsloop.delivery.merge import HistoryMerge
from wsloop.protocol import dialects, resume_tokens
from wsloop.protocol.dialects import Dialect
from wsloop.protocol.messages import Message
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub
from wsloop.sockets.joining import InitialFrames, JoinBuffer

logger = logging.getLogger("wsloop.recovery")

# One of the process's two connections is left to handshakes and all else, however many long recoveries there are.
READING = BoundedSemaphore(1)


class Recovery:
    """Brings one socket from its client's positions to the present.

    Args:
        hub: of the process.
        broker: of the process; already subscribed to the channels.
        dialect: of the socket.
        channels: of the socket.
        options: of the facility.

    Attributes:
        unfinished: whether there is more to recover than fits before the 101; then call :meth:`go_on`.
    """

    def __init__(
        self, hub: Hub, broker: Broker, dialect: Dialect, channels: Sequence[bytes], options: conf.Facility
    ) -> None:
        self._hub = hub
        self._broker = broker
        self._dialect = dialect
        self._channels = tuple(channels)
        self._options = options
        self._token: str | None = None
        self._recovered: bool | None = None
        self._merge: HistoryMerge | None = None
        self._messages: list[tuple[bytes, Message]] = []  # to be sent next
        self._known: set[str] = set()
        self.unfinished = False

    def start(self, text: str | None, groups: bool = False) -> bool:
        """Determine the client's positions, from the moment that live messages are buffered for it, and read a page.

        Args:
            text: the client's ``resume`` parameter; None if it sent none.
            groups: whether the socket listens to the user's groups, including those that the user joins later.

        Returns:
            whether to send the retained messages, which is so for a client without a token.

        Raises:
            redis.exceptions.RedisError: if Redis does not answer.
            Unavailable: if this process does not catch up with the client in time.
        """
        positions = {channel: self._broker.position(channel) for channel in self._channels}
        present = {channel: position for channel, position in positions.items() if position is not None}
        if not self._options.recovers or not present:
            return text is None
        if text is None:
            self._token = resume_tokens.token(present, groups)
            return True
        since = resume_tokens.read(text, present)
        if since is not None:
            since = present | since
            self._known = {position.id for position in since.values()}
            merge = HistoryMerge(pool.client(), since)
            merge.read()
            if not merge.lost:
                self._token = resume_tokens.token(since, groups)
                self._recovered, self._merge = True, merge
                metrics.recovery(True)
                self._messages = merge.take(_page_size())
                self.unfinished = not merge.complete
                if not self.unfinished:
                    self._broker.wait_for(merge.since)
                return False
        metrics.recovery(False)
        self._recovered, self._token = False, resume_tokens.token(present, groups)
        return False

    def first_payloads(
        self,
        joining: JoinBuffer,
        retained: Iterable[tuple[bytes, Message]] = (),
        presence: dict[str, Any] | None = None,
    ) -> list[bytes]:
        """Return the payloads that the socket gets first, in order.

        Args:
            joining: has buffered live messages since :meth:`start` began.
            retained: the retained messages of its channels, with their channels.
            presence: the users of the facility, for clients that asked for them.
        """
        frames = InitialFrames(self._dialect, self._known)
        if self._dialect.has_envelopes:
            ping = conf.option("PING_INTERVAL")
            frames.add_text(dialects.welcome(self._channels, self._recovered, self._token, ping, presence))
        for channel, message in retained:
            frames.add(channel, message, retained=True)
        self._add(frames, None if self.unfinished else joining)
        return frames.texts

    def go_on(self, connection: Connection) -> None:
        """Send one page after another, as the client takes them, until it is a subscriber. Blocks."""
        entered = False
        try:
            while not entered:
                self._hub.wait_until_clear(connection)
                if not connection.open:
                    return
                entered = self._step(connection)
        except (RedisError, OSError, Unavailable) as exc:
            logger.warning("Recovery interrupted; client must reconnect: %s", exc)
            connection.close(CloseCode.TRY_AGAIN_LATER, "messages cannot be read at the moment")
        except Exception:
            logger.exception("Recovery failed because of an error of the server")
            connection.close(CloseCode.INTERNAL_ERROR, "internal error")
        finally:
            if not entered:
                self._broker.unsubscribe(self._channels)

    def _step(self, connection: Connection) -> bool:
        """Send the next page, and return whether it was the last one and the client is a subscriber now."""
        merge = self._merge
        assert merge is not None
        # Live messages are buffered only for a page that may be the last one.
        joining = self._hub.join(self._channels) if merge.complete else None
        try:
            with READING:
                merge.read(merge.since if joining else None)
            gevent.sleep(0)  # greenlets that wait for the connection get it before the next page
            frames = InitialFrames(self._dialect, self._known)
            for channel, position in merge.lost.items():  # trimmed meanwhile: the client is too slow for this history
                frames.add_text(self._dialect.lost(channel, position))
            merge.lost.clear()
            self._messages = merge.take(_page_size())
            if joining is None or not merge.complete:
                self._add(frames, None)
                self._hub.send(connection, frames.texts)
                return False
            self._broker.wait_for(merge.since)
            if not connection.open:
                return False
            if joining.lost:
                raise Unavailable("messages were lost during a recovery")
            self._add(frames, joining)
            self._hub.enter(joining, connection, frames.texts)
            return True
        finally:
            if joining is not None:
                self._hub.cancel(joining)

    def _add(self, frames: InitialFrames, joining: JoinBuffer | None) -> None:
        """Add the page, and after the last page the buffered messages; nothing may yield until it is a subscriber.

        This process has delivered all messages of the page to others (:meth:`Broker.wait_for`), so they can come again
        only from ``joining``. Later messages there were published after the socket had joined.
        """
        messages, self._messages = self._messages, []
        for channel, message in messages:
            frames.add(channel, message)
        if joining is not None:
            since = {} if self._merge is None else self._merge.since
            for channel, message in joining.messages:
                read = since.get(channel)
                if read is None or not message.offset or message.offset > read.offset:
                    frames.add(channel, message)


def _page_size() -> int:
    return min(history.PAGE_BYTES, int(conf.option("MAX_QUEUED_BYTES")) // 4)
