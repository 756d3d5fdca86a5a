"""What a socket gets before live messages: where it stands, what it has missed, and what was published meanwhile.

How it works. While live messages of its channels are already being kept for the socket (*joining*, see ``hub``), the
histories are read from where the client stands. The two overlap, and so do the history and what the subscription has
yet to bring; they are put together by their offsets. What was missed may be more than a socket should hold at once;
then the first page goes out with the 101, and the following ones as the client takes them. Only for the last page live
messages are kept again, so a long recovery costs no memory.

This module must not know HTTP or sockets.
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

# Of the process's two connections one is left to handshakes and all else, however many long recoveries there are.
READING = BoundedSemaphore(1)


class Recovery:
    """The way of one socket to the present.

    Args:
        hub: of the process.
        broker: of the process; it has subscribed to the channels for this socket.
        dialect: what the socket speaks.
        channels: those of the socket.
        options: of the facility.

    Attributes:
        unfinished: there is more to recover than fits before the 101: see :meth:`go_on`.
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
        """Find out where the client stands, at the moment from which live messages are kept for it, and read a page.

        Args:
            text: what the client has sent as ``resume``; None if it has sent nothing.
            groups: whether it listens to the user's groups, those that the user may join later too.

        Returns:
            whether the last messages that channels keep are to be sent: to a client that has not been here before.

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

    def news(
        self, joining: JoinBuffer, kept: Iterable[tuple[bytes, Message]] = (), presence: dict[str, Any] | None = None
    ) -> list[bytes]:
        """Return what the socket is sent first, in order.

        Args:
            joining: what has been kept for it since :meth:`start` began.
            kept: the last messages of its channels, with their channels.
            presence: who is there, for clients that have asked for it.
        """
        news = InitialFrames(self._dialect, self._known)
        if self._dialect.has_envelopes:
            ping = conf.option("PING_INTERVAL")
            news.tell(dialects.welcome(self._channels, self._recovered, self._token, ping, presence))
        for channel, message in kept:
            news.add(channel, message, kept=True)
        self._tell(news, None if self.unfinished else joining)
        return news.texts

    def go_on(self, connection: Connection) -> None:
        """Send one page after another, as the client takes them, until it is a member of its channels. Blocks."""
        entered = False
        try:
            while not entered:
                self._hub.wait_until_clear(connection)
                if not connection.open:
                    return
                entered = self._step(connection)
        except (RedisError, OSError, Unavailable) as exc:
            logger.warning("a recovery cannot go on, the client has to come back: %s", exc)
            connection.close(CloseCode.TRY_AGAIN_LATER, "messages cannot be read at the moment")
        except Exception:
            logger.exception("a recovery ends because of an error of the server")
            connection.close(CloseCode.INTERNAL_ERROR, "internal error")
        finally:
            if not entered:
                self._broker.unsubscribe(self._channels)

    def _step(self, connection: Connection) -> bool:
        """Send the next page, and tell whether it was the last one and the client is a member now."""
        merge = self._merge
        assert merge is not None
        # Live messages are kept only for what may be the last page.
        joining = self._hub.join(self._channels) if merge.complete else None
        try:
            with READING:
                merge.read(merge.since if joining else None)
            gevent.sleep(0)  # whoever waits for the connection gets it before the next page
            news = InitialFrames(self._dialect, self._known)
            for channel, position in merge.lost.items():  # trimmed meanwhile: the client is too slow for this history
                news.tell(self._dialect.lost(channel, position))
            merge.lost.clear()
            self._messages = merge.take(_page_size())
            if joining is None or not merge.complete:
                self._tell(news, None)
                self._hub.send(connection, news.texts)
                return False
            self._broker.wait_for(merge.since)
            if not connection.open:
                return False
            if joining.lost:
                raise Unavailable("messages were lost meanwhile")
            self._tell(news, joining)
            self._hub.enter(joining, connection, news.texts)
            return True
        finally:
            if joining is not None:
                self._hub.cancel(joining)

    def _tell(self, news: InitialFrames, joining: JoinBuffer | None) -> None:
        """Add what was read, and after the last page what has come meanwhile; nothing may yield before it is a member.

        This process has delivered to others all that was read (:meth:`Broker.wait_for`), so none of it comes again but
        by way of ``joining``. What is behind it there was published after the socket had joined.
        """
        messages, self._messages = self._messages, []
        for channel, message in messages:
            news.add(channel, message)
        if joining is not None:
            since = {} if self._merge is None else self._merge.since
            for channel, message in joining.messages:
                read = since.get(channel)
                if read is None or not message.offset or message.offset > read.offset:
                    news.add(channel, message)


def _page_size() -> int:
    return min(history.PAGE_BYTES, int(conf.option("MAX_QUEUED_BYTES")) // 4)
