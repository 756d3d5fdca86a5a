"""Redis for the whole process: one subscription for all sockets, and what sockets publish.

How it works. A reader greenlet holds the one subscribed connection. Channels are counted: the first socket of a channel
makes the broker send SUBSCRIBE and waits for Redis to acknowledge it, the last one that leaves makes it send
UNSUBSCRIBE. Redis answers these commands in order, so a channel is subscribed when the answer to the last command about
it says so. When the line breaks the reader connects again, with growing pauses, and subscribes to everything anew.

Besides the sites' channels each process listens to a channel of its own. A message to oneself passes through Redis in
line with everybody's messages, which gives two things that plain publish and subscribe lack:

- :meth:`Broker.sync` returns when everything that Redis published before it was called has been delivered here.
- The origin of a message. Around what a socket publishes the broker tells its own channel, in the same transaction,
  which socket it was. So the echo of that very message can be held back, and never an equal one of somebody else,
  while the payload stays bare for every other reader of the channel, ws4redis included.

And all processes listen to one more channel, on which they are told about users whose rights have changed.

Channels of facilities with a history go through :mod:`wsloop.delivery.gapless`, so that nothing is missed when the
line breaks.

This module must not know WebSockets: what it tells is :class:`wsloop.delivery.events.BrokerEvents`.
"""

from __future__ import annotations

import collections
import itertools
import logging
import random
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple

import gevent
from gevent.event import AsyncResult
from redis.connection import ConnectionInterface
from redis.exceptions import RedisError

from wsloop import conf, metrics
from wsloop.backend import keys, pool, publishing, scripts
from wsloop.batch_queue import BatchQueue, batches
from wsloop.delivery.events import BrokerEvents
from wsloop.delivery.gapless import GaplessDelivery
from wsloop.fair_scheduler import BREATH, SLICE
from wsloop.greenlets import log, logged
from wsloop.protocol.messages import Position, unwrap

logger = logging.getLogger("wsloop.broker")

PROBE_INTERVAL = 5.0  # seconds between PINGs on the subscription; three unanswered ones make it a broken line
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts to connect, doubled each time, with jitter
CATCHING_UP = 0.05  # seconds between two looks at whether what is missing has been delivered
BATCH = 500  # messages handled, or commands sent, before other greenlets and sockets get their turn
BATCH_BYTES = 256 * 1024  # likewise: a quarter of what may wait for one socket


class Unavailable(Exception):
    """Redis cannot be reached or does not answer in time; nothing was promised to the client yet."""


class PublishRequest(NamedTuple):
    """What a socket publishes; see :meth:`Broker.publish`."""

    channels: Sequence[bytes]
    payload: bytes
    expire: int
    options: conf.Facility
    origin: Any
    done: Callable[[bool], None]


Command = tuple[ConnectionInterface, str, tuple[bytes, ...]]


class Broker:
    """The process's access to Redis.

    Args:
        events: is told what happens.
    """

    def __init__(self, events: BrokerEvents) -> None:
        self._gapless = GaplessDelivery(events)
        self._events = events
        self._control_channel = keys.control_channel()
        self._own_channel = f"{conf.prefix()}wsloop:{uuid.uuid4().hex}".encode()
        self._counts: dict[bytes, int] = {self._control_channel: 1, self._own_channel: 1}
        self._attached: dict[bytes, Callable[[bytes], None]] = {}  # what is called with the payloads of a channel
        self._acknowledged: set[bytes] = set()
        self._unanswered: collections.Counter[bytes] = collections.Counter()
        self._waiting: dict[bytes, list[AsyncResult[None]]] = {}
        self._commands: BatchQueue[Command] = BatchQueue(self._send_commands)
        self._outbox: BatchQueue[PublishRequest] = BatchQueue(self._send_messages)
        self._markers: BatchQueue[bytes] = BatchQueue(self._send_markers)
        self._connection: ConnectionInterface | None = None
        self._reader: gevent.Greenlet[[], None] | None = None
        self._down: Unavailable | None = None
        self._origin: Any = None
        self._origins: dict[bytes, list[Any]] = {}  # as often as they will be told of
        self._syncs: dict[bytes, list[AsyncResult[None]]] = {}
        self._numbers = itertools.count(1)

    def attach(self, channel: bytes, on_payload: Callable[[bytes], None]) -> None:
        """Listen to one more channel for as long as this process lives. Called before anything else.

        Args:
            channel: which.
            on_payload: called with each payload; must not block.
        """
        self._counts[channel] = 1
        self._attached[channel] = on_payload

    # What sockets need.

    def subscribe(self, channels: Iterable[bytes], options: conf.Facility = conf.PLAIN) -> None:
        """Count a subscriber of each channel, and return when Redis has acknowledged all of them.

        Every call needs an :meth:`unsubscribe` with the same channels, unless it raises.

        Args:
            channels: which.
            options: of their facility. If it has a history, :meth:`position` is known as soon as this returns.

        Raises:
            Unavailable: if the line to Redis is known to be broken, or Redis does not acknowledge within
                ``REDIS_TIMEOUT`` seconds.
        """
        channels = tuple(channels)
        new = []
        for channel in channels:
            count = self._counts.get(channel, 0)
            self._counts[channel] = count + 1
            if not count:
                new.append(channel)
        watched = [each for each in channels if options.size and self._gapless.watch(each)]
        try:
            self._start()
            self._command("SUBSCRIBE", tuple(new))
            self._wait_for_acknowledgement(channels)
            for channel in set(watched).difference(new):  # had been subscribed to without its history
                self._gapless.subscribed(channel)
            if not self._gapless.wait(channels, conf.option("REDIS_TIMEOUT")):
                raise Unavailable("Redis did not tell in time where the history stands")
        except BaseException:
            self.unsubscribe(channels)
            raise

    def position(self, channel: bytes) -> Position | None:
        """Return where a channel with a history stands: at the last message that was delivered in this process."""
        return self._gapless.position(channel)

    def wait_for(self, positions: Mapping[bytes, Position]) -> None:
        """Return when this process has delivered all up to these positions, which another one may have done already.

        Raises:
            Unavailable: if that takes longer than ``REDIS_TIMEOUT`` seconds.
        """

        def behind() -> bool:
            present = ((self.position(channel), wanted) for channel, wanted in positions.items())
            return any(here is not None and here.offset < wanted.offset for here, wanted in present)

        with gevent.Timeout(conf.option("REDIS_TIMEOUT"), Unavailable("this worker is behind")):
            while behind():
                self.sync()
                if behind():  # what is missing is being read
                    gevent.sleep(CATCHING_UP)

    def listen(self) -> None:
        """Have ``control`` be called, as soon as Redis can be reached. Never blocks."""
        if self._reader is None or self._reader.dead:
            self._reader = gevent.spawn(self._run)

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        """Take back a :meth:`subscribe`. Never blocks."""
        gone = []
        for channel in channels:
            self._counts[channel] -= 1
            if not self._counts[channel]:
                del self._counts[channel]
                self._acknowledged.discard(channel)
                self._waiting.pop(channel, None)
                self._gapless.forget(channel)
                gone.append(channel)
        self._command("UNSUBSCRIBE", tuple(gone))

    def ready(self) -> None:
        """Return when Redis has acknowledged that this process listens to its own channels.

        Raises:
            Unavailable: see :meth:`subscribe`.
        """
        self._start()
        self._wait_for_acknowledgement((self._own_channel, *self._attached))

    def sync(self) -> None:
        """Return when all that Redis published before the call has been delivered in this process.

        Raises:
            Unavailable: if that takes longer than ``REDIS_TIMEOUT`` seconds.
        """
        self.ready()  # the first socket of a worker may have no channel, and have waited for nothing yet
        number = b"%d" % next(self._numbers)
        waiter: AsyncResult[None] = AsyncResult()
        # Messages of different nodes of a cluster are in no order: each node has to send the marker behind its own.
        self._syncs[number] = [waiter] * publishing.masters(pool.client())
        try:
            self._markers.put(number)
            self._wait(waiter)
        finally:
            self._syncs.pop(number, None)

    def publish(
        self,
        channels: Sequence[bytes],
        payload: bytes,
        expire: int,
        origin: Any = None,
        done: Callable[[bool], None] = lambda taken: None,
        options: conf.Facility = conf.PLAIN,
    ) -> None:
        """Publish what a socket sent, in the order of the calls. Never blocks; what Redis does not take is counted.

        Args:
            channels: where to.
            payload: the message.
            expire: seconds for which it is kept as the last message of each channel; 0 keeps nothing.
            origin: handed to ``deliver`` with exactly this message when it comes back to this process; or None.
            done: called with whether Redis has taken the message, once that is known.
            options: of the facility.
        """
        self._outbox.put(PublishRequest(channels, payload, expire, options, origin, done))

    def stop(self) -> None:
        """End the reader, close its connection, and look at no channel any more. May be called again."""
        self._gapless.stop()
        if self._reader is not None:
            self._reader.kill()
            self._reader = None

    # The subscription.

    def _start(self) -> None:
        if self._down is not None:
            # A new one: it would gather the frames, and with them the requests, of all whom it is raised to.
            raise Unavailable(*self._down.args)
        self.listen()

    def _wait_for_acknowledgement(self, channels: Iterable[bytes]) -> None:
        for channel in channels:
            if channel not in self._acknowledged:
                waiter: AsyncResult[None] = AsyncResult()
                self._waiting.setdefault(channel, []).append(waiter)
                self._wait(waiter)

    def _wait(self, waiter: AsyncResult[None]) -> None:
        waiter.wait(timeout=conf.option("REDIS_TIMEOUT"))  # get() would raise what the caller's own timeout raises too
        if not waiter.ready():
            raise Unavailable("Redis did not answer in time")
        waiter.get()

    def _command(self, name: str, channels: tuple[bytes, ...]) -> None:
        # While there is no connection nothing is sent: connecting subscribes to all that is counted by then.
        if self._connection is not None and (channels or name == "PING"):
            self._unanswered.update(channels)
            self._commands.put((self._connection, name, channels))

    def _send_commands(self, commands: list[Command]) -> None:
        current = self._connection
        if current is None:
            return
        packed: list[bytes] = []
        valid = (command for command in commands if command[0] is current)
        for name, group in itertools.groupby(valid, key=lambda command: command[1]):
            packed += current.pack_command(name, *(channel for command in group for channel in command[2]))
        try:
            current.send_packed_command(packed, check_health=False)
        except (RedisError, OSError) as exc:
            logger.debug("subscription: cannot send: %s", exc)  # the reader sees the broken line and reports it
        except Exception:
            current.disconnect()  # so that the reader subscribes to everything anew
            raise

    def _run(self) -> None:
        """Hold the subscription: connect, read, and after a failure do so again."""
        pause = FIRST_PAUSE
        reported = False
        while True:
            try:
                connection = self._connect()
                if reported:
                    logger.warning("Redis is back: subscribed to %d channels again", len(self._counts))
                pause, reported = FIRST_PAUSE, False
                self._read(connection)
            except (RedisError, OSError) as exc:
                if not reported:
                    logger.error("Redis cannot be reached, trying again until it can: %s", exc)
                    reported = True
                self._disconnected(Unavailable("Redis cannot be reached"))
            except Exception as exc:
                # A fault of this program: what has come is not delivered, and whoever listens must find that out.
                log(self._run, exc)
                self._disconnected(Unavailable("the subscription has failed"))
                self._down = None  # the line may be whole: whoever subscribes waits for the next attempt
                logged(self._events.failed)
            except BaseException:
                self._disconnected(Unavailable("the subscription ended"))
                self._down = None  # it was told to end: the next socket starts a new reader
                raise
            gevent.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _connect(self) -> ConnectionInterface:
        # RESP2, where answers and messages of a subscribed connection come in one order and one form.
        connection = pool.subscription_connection(protocol=2, socket_timeout=3 * PROBE_INTERVAL, client_name="wsloop")
        self._connection, self._down = connection, None
        channels = list(self._counts)
        for start in range(0, len(channels), BATCH):
            self._command("SUBSCRIBE", tuple(channels[start : start + BATCH]))
        return connection

    def _read(self, connection: ConnectionInterface) -> None:
        probe = gevent.get_hub().loop.timer(PROBE_INTERVAL, PROBE_INTERVAL)
        probe.start(self._command, "PING", ())
        try:
            while True:
                # While there is always something to read gevent's socket would never let others run; and sockets
                # must be written to before more has gathered for them than they may hold.
                size = count = 0
                end = monotonic() + SLICE
                while count < BATCH and size < BATCH_BYTES and monotonic() < end:
                    size += self._handle(connection.read_response(disable_decoding=True))
                    count += 1
                gevent.sleep(BREATH)
        finally:
            probe.stop()
            probe.close()

    def _handle(self, response: list[Any]) -> int:
        """Act on what Redis sent, and return the size of a message in bytes."""
        kind = response[0]
        if kind == b"message":
            _, channel, payload = response
            if channel == self._own_channel:
                self._handle_own(payload)
            elif channel in self._attached:
                self._attached[channel](payload)
            else:
                self._gapless.arrived(channel, unwrap(payload), self._origin)
                return len(payload)
        elif kind in (b"subscribe", b"unsubscribe"):
            channel = response[1]
            self._unanswered[channel] -= 1
            if not self._unanswered[channel]:
                del self._unanswered[channel]
                if channel in self._counts:
                    self._acknowledged.add(channel)
                    if channel == self._control_channel:
                        self._events.connected()
                    self._gapless.subscribed(channel)
                    for waiter in self._waiting.pop(channel, ()):
                        waiter.set()
        return 0

    def _handle_own(self, payload: bytes) -> None:
        word, *numbers = payload.split() or [b""]
        if word == b"sync":
            for number in numbers:
                waiters = self._syncs.get(number)
                if waiters and len(waiters) > 1:
                    waiters.pop()
                elif waiters:
                    waiters[0].set()
        elif word == b"origin":
            origins = self._origins.get(numbers[0], []) if numbers else []
            self._origin = origins.pop() if origins else None
            if numbers and not origins:
                self._origins.pop(numbers[0], None)

    def _disconnected(self, reason: Unavailable) -> None:
        connection, self._connection, self._down = self._connection, None, reason
        if connection is not None:
            metrics.lost("interruption")
            connection.disconnect()
        self._unanswered.clear()
        self._acknowledged.clear()
        self._origin = None
        self._origins.clear()
        waiting = [waiter for waiters in self._waiting.values() for waiter in waiters]
        self._waiting.clear()
        for waiter in (*waiting, *itertools.chain.from_iterable(self._syncs.values())):
            waiter.set_exception(Unavailable(*reason.args))
        self._syncs.clear()

    # Publishing.

    def _send_markers(self, numbers: list[bytes]) -> None:
        # Apart from the outbox: a socket that opens need not wait for what others are about to publish.
        try:
            publishing.tell_all(pool.client(), self._own_channel, b"sync " + b" ".join(numbers))
        except Exception as exc:
            for number in numbers:
                for waiter in self._syncs.get(number, ())[:1]:
                    waiter.set_exception(Unavailable("Redis cannot be reached"))
            if not isinstance(exc, (RedisError, OSError)):
                raise

    def _send_messages(self, items: list[PublishRequest]) -> None:
        # In a Redis Cluster what goes to one master must not fail with what goes to another.
        alone = scripts.is_cluster(pool.client())
        groups = batches(items, BATCH, BATCH_BYTES, _size)
        for messages in ([item] for item in items) if alone else groups:
            numbers: list[bytes] = []
            taken = False
            try:
                publishing.publish(pool.client(), [self._outgoing(message, numbers) for message in messages])
                taken = True
            except Exception as exc:
                metrics.lost("publication", len(messages))
                for number in numbers:
                    self._origins.pop(number, None)
                logger.error("%d messages of sockets are lost, Redis did not take them: %s", len(messages), exc)
                if not isinstance(exc, (RedisError, OSError)):
                    log(self._send_messages, exc)
            for message in messages:
                logged(message.done, taken)
            # The reader must keep up: Redis ends a subscription for which 8 MB wait for a minute, or 32 MB at once.
            gevent.sleep(0)

    def _outgoing(self, message: PublishRequest, numbers: list[bytes]) -> publishing.OutgoingMessage:
        own = (b"", b"")
        if message.origin is not None and self._own_channel in self._acknowledged:
            numbers.append(b"%d" % next(self._numbers))
            calls = len(message.channels) if scripts.is_cluster(pool.client()) else 1
            self._origins[numbers[-1]] = [message.origin] * calls
            own = (self._own_channel, b"origin " + numbers[-1])
        return publishing.OutgoingMessage(message.channels, message.payload, message.expire, message.options, own=own)


def _size(message: PublishRequest) -> int:
    """Return how many bytes a message has, over all its channels."""
    return len(message.payload) * len(message.channels)
