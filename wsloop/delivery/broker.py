"""The process's one subscription to Redis, for all of its sockets.

How it works. A reader greenlet holds the one subscribed connection. Channels are counted: the first subscriber of a
channel makes the broker send SUBSCRIBE and waits for Redis to acknowledge it, the last one that leaves makes it send
UNSUBSCRIBE (:mod:`wsloop.delivery.channel_table`). When the connection breaks the reader connects again, with growing
pauses, and subscribes to everything anew.

Each process also subscribes to a channel of its own (:mod:`wsloop.delivery.own_channel`), by which messages are put in
order and senders are recognised, and to the control channel, on which all processes learn of users whose rights have
changed. Channels of facilities with a history go through :mod:`wsloop.delivery.gapless`, so that nothing is missed
when the connection breaks. Messages of sockets go through :mod:`wsloop.delivery.publish_queue`.

This module must not know WebSockets: it reports to :class:`wsloop.delivery.events.BrokerEvents`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import gevent
from redis.exceptions import RedisError

from wsloop import conf, metrics
from wsloop.backend import keys
from wsloop.delivery.answers import Unavailable
from wsloop.delivery.channel_table import ChannelTable
from wsloop.delivery.events import BrokerEvents
from wsloop.delivery.gapless import GaplessDelivery
from wsloop.delivery.own_channel import OwnChannel
from wsloop.delivery.publish_queue import PublishQueue, PublishRequest
from wsloop.delivery.subscription_connection import SubscriptionConnection
from wsloop.greenlets import log, logged
from wsloop.protocol.messages import Position, unwrap

logger = logging.getLogger("wsloop.broker")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts to connect, doubled each time, with jitter
CATCHING_UP = 0.05  # seconds between two checks whether missing messages have been delivered


class Broker:
    """The process's subscription to Redis.

    Args:
        events: receives messages and losses.
    """

    def __init__(self, events: BrokerEvents) -> None:
        self._gapless = GaplessDelivery(events)
        self._events = events
        self._control_channel = keys.control_channel()
        self._own_channel = OwnChannel()
        self._publish_queue = PublishQueue(self._own_channel)
        self._table = ChannelTable(self._control_channel, self._own_channel.name)
        # Called with the payloads of a channel of the process itself.
        self._attached: dict[bytes, Callable[[bytes], None]] = {self._own_channel.name: self._own_channel.on_payload}
        self._connection: SubscriptionConnection | None = None
        self._reader: gevent.Greenlet[[], None] | None = None
        self._down: Unavailable | None = None

    def attach(self, channel: bytes, on_payload: Callable[[bytes], None]) -> None:
        """Subscribe to one more channel for as long as this process lives. Called before anything else.

        Args:
            channel: which.
            on_payload: called with each payload; must not block.
        """
        self._table.add([channel])
        self._attached[channel] = on_payload

    def subscribe(self, channels: Iterable[bytes], kept: Collection[bytes] = ()) -> None:
        """Count a subscriber of each channel, and return when Redis has acknowledged all of them.

        Every call needs an :meth:`unsubscribe` with the same channels, unless it raises.

        Args:
            channels: which; one that is named twice counts twice.
            kept: those of them that have a history: their :meth:`position` is known as soon as this returns.

        Raises:
            Unavailable: if the connection to Redis is known to be broken, or Redis does not acknowledge within
                ``REDIS_TIMEOUT`` seconds.
        """
        channels = tuple(channels)
        new = self._table.add(channels)
        watched = [each for each in kept if self._gapless.watch(each)]
        try:
            self._start()
            if self._connection is not None:  # else connecting subscribes to all channels counted by then
                self._connection.subscribe(new)
            self._table.wait(channels)
            for channel in set(watched).difference(new):  # had been subscribed to without its history
                self._gapless.subscribed(channel)
            if not self._gapless.wait(channels, conf.option("REDIS_TIMEOUT")):
                raise Unavailable("Timed out reading the history position")
        except BaseException:
            self.unsubscribe(channels)
            raise

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        """Take back a :meth:`subscribe`. Never blocks."""
        left = self._table.remove(channels)
        for channel in left:
            self._gapless.forget(channel)
        if self._connection is not None:
            self._connection.unsubscribe(left)

    def position(self, channel: bytes) -> Position | None:
        """Return the position of a channel with a history: that of the last message delivered in this process."""
        return self._gapless.position(channel)

    def positions(self, channels: Iterable[bytes]) -> dict[bytes, Position]:
        """Return those positions of channels that are known, see :meth:`position`."""
        found = ((channel, self._gapless.position(channel)) for channel in channels)
        return {channel: at for channel, at in found if at is not None}

    def wait_for(self, positions: Mapping[bytes, Position]) -> None:
        """Return when this process has delivered everything up to these positions, as another may have done already.

        Raises:
            Unavailable: if that takes longer than ``REDIS_TIMEOUT`` seconds.
        """
        with gevent.Timeout(conf.option("REDIS_TIMEOUT"), Unavailable("this worker is behind")):
            while self._gapless.behind(positions):
                self.sync()
                if self._gapless.behind(positions):  # the missing messages are being read
                    gevent.sleep(CATCHING_UP)

    @property
    def connected(self) -> bool:
        """Whether the subscription is established."""
        return self._connection is not None

    def listen(self) -> None:
        """Start the subscription, which is established as soon as Redis can be reached. Never blocks."""
        if self._reader is None or self._reader.dead:
            self._reader = gevent.spawn(self._run)

    def ready(self) -> None:
        """Return when Redis has acknowledged the channels of the process itself.

        Raises:
            Unavailable: see :meth:`subscribe`.
        """
        self._start()
        self._table.wait(tuple(self._attached))

    def sync(self, channels: Sequence[bytes] = ()) -> list[bytes | None]:
        """Return when all that Redis published before the call has been delivered in this process.

        Args:
            channels: whose retained messages to read; see :meth:`wsloop.delivery.own_channel.OwnChannel.sync`.

        Raises:
            Unavailable: if that takes longer than ``REDIS_TIMEOUT`` seconds.
        """
        self.ready()  # the first socket of a worker may have no channel, and have waited for nothing yet
        return self._own_channel.sync(channels)

    def publish(
        self,
        channels: Sequence[bytes],
        payload: bytes,
        expire: int,
        origin: Any = None,
        done: Callable[[bool], None] = lambda taken: None,
        options: conf.Facility = conf.PLAIN,
        key: str = "",
    ) -> None:
        """Publish a message of a socket, in the order of the calls. Never blocks; see :class:`PublishRequest`."""
        self._publish_queue.put(PublishRequest(channels, payload, expire, options, origin, done, key))

    def stop(self) -> None:
        """End the reader, close its connection, and stop checking histories. May be called again."""
        self._gapless.stop()
        if self._reader is not None:
            self._reader.kill()
            self._reader = None

    def _start(self) -> None:
        if self._down is not None:
            # A copy: an exception keeps alive the frames that it is raised in, and with them their requests.
            raise Unavailable(*self._down.args)
        self.listen()

    def _run(self) -> None:
        """Hold the subscription: connect, read, and after a failure do so again."""
        pause = FIRST_PAUSE
        reported = False
        while True:
            try:
                connection = self._connect()
                if reported:
                    logger.warning("Redis is back: subscribed to %d channels again", len(self._table.counts))
                pause, reported = FIRST_PAUSE, False
                connection.read(self._handle)
            except (RedisError, OSError) as exc:
                if not reported:
                    logger.error("Redis cannot be reached, retrying until it can: %s", exc)
                    reported = True
                self._disconnected(Unavailable("Redis cannot be reached"))
            except Exception as exc:
                # A fault of this program: a message was not delivered, and its receivers must learn of the loss.
                log(self._run, exc)
                self._disconnected(Unavailable("the subscription has failed"))
                self._down = None  # Redis may be up: subscribers wait for the next attempt
                logged(self._events.failed)
            except BaseException:
                self._disconnected(Unavailable("the subscription ended"))
                self._down = None  # it was stopped: the next socket starts a new reader
                raise
            gevent.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _connect(self) -> SubscriptionConnection:
        connection = SubscriptionConnection.connect(self._table)
        self._connection, self._down = connection, None
        connection.subscribe(tuple(self._table.counts))
        return connection

    def _handle(self, response: list[Any]) -> int:
        """Act on a response of Redis, and return the size of a message in bytes."""
        kind = response[0]
        if kind == b"message":
            _, channel, payload = response
            on_payload = self._attached.get(channel)
            if on_payload is None:
                self._gapless.arrived(channel, unwrap(payload), self._own_channel.origin)
                return len(payload)
            on_payload(payload)
        elif kind in (b"subscribe", b"unsubscribe"):
            channel = response[1]
            if self._table.answered(channel):
                if channel == self._own_channel.name:
                    self._own_channel.subscribed = True
                elif channel == self._control_channel:
                    self._events.connected()
                self._gapless.subscribed(channel)
                self._table.wake(channel)
        return 0

    def _disconnected(self, reason: Unavailable) -> None:
        connection, self._connection, self._down = self._connection, None, reason
        if connection is not None:
            metrics.lost("interruption")
            connection.close()
        self._table.disconnected(reason)
        self._own_channel.disconnected(reason)


__all__ = ["Broker", "Unavailable"]
