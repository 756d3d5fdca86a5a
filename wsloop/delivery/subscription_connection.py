"""One connection to Redis that is subscribed: sends commands, many at once, and hands on responses in fair portions.

It lives until it breaks; :class:`wsloop.delivery.broker.Broker` then makes another one. This module must not know the
meaning of the responses.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
from redis.connection import ConnectionInterface
from redis.exceptions import RedisError

from wsloop import conf
from wsloop.backend import pool
from wsloop.batch_queue import BatchQueue
from wsloop.delivery.channel_table import ChannelTable
from wsloop.fair_scheduler import BREATH

logger = logging.getLogger("wsloop.broker")

PROBE_INTERVAL = 5.0  # seconds between two PINGs
SLICE = 0.005  # seconds for which responses are read before other greenlets and sockets get their turn
UNANSWERED = 3  # PINGs without any response after which the connection counts as broken
BATCH = 500  # responses read before other greenlets and sockets get their turn
BATCH_BYTES = 256 * 1024  # likewise, at most: a quarter of the output that may wait for one socket

Command = tuple[str, tuple[bytes, ...]]


class SubscriptionConnection:
    """A connection for SUBSCRIBE and UNSUBSCRIBE.

    Args:
        connection: of redis-py, connected.
        table: notes the commands whose answers are still to come.
    """

    def __init__(self, connection: ConnectionInterface, table: ChannelTable) -> None:
        self._connection = connection
        self._table = table
        self._commands: BatchQueue[Command] = BatchQueue(self._send)
        self._closed = False

    @classmethod
    def connect(cls, table: ChannelTable) -> SubscriptionConnection:
        """Connect to Redis. Blocks.

        Raises:
            redis.exceptions.RedisError, OSError: if Redis cannot be reached.
        """
        silence = UNANSWERED * PROBE_INTERVAL
        # RESP2, in which answers and messages of a subscribed connection have one order and one form.
        return cls(pool.subscription_connection(protocol=2, socket_timeout=silence, client_name="wsloop"), table)

    def subscribe(self, channels: tuple[bytes, ...]) -> None:
        """Send SUBSCRIBE. Never blocks."""
        if channels:
            self._put("SUBSCRIBE", channels)

    def unsubscribe(self, channels: tuple[bytes, ...]) -> None:
        """Send UNSUBSCRIBE. Never blocks."""
        if channels:  # without arguments it would leave all
            self._put("UNSUBSCRIBE", channels)

    def read(self, handle: Callable[[list[Any]], int]) -> None:
        """Read until the connection breaks.

        Args:
            handle: called with each response; returns its size in bytes.

        Raises:
            redis.exceptions.RedisError, OSError: when the connection is broken, or was silent for too long.
        """
        probe = gevent.get_hub().loop.timer(PROBE_INTERVAL, PROBE_INTERVAL)
        probe.start(self._put, "PING", ())
        read_response = self._connection.read_response
        most = min(BATCH_BYTES, conf.option("MAX_QUEUED_BYTES") // 4)
        try:
            while True:
                # While data is always available gevent's socket would never let other greenlets run; and sockets must
                # be written to before more than their limit waits for them.
                size = count = 0
                end = monotonic() + SLICE
                # hiredis itself is asked first: with what redis-py does around it, that takes as long as the way from
                # here to the hub.
                reader = getattr(getattr(self._connection, "_parser", None), "_reader", None)
                while count < BATCH and size < most and monotonic() < end:
                    response = reader and reader.gets(False)
                    if not isinstance(response, list):
                        if isinstance(response, RedisError):
                            raise response
                        response = read_response(disable_decoding=True)
                    size += handle(response)
                    count += 1
                gevent.sleep(BREATH)
        finally:
            probe.stop()
            probe.close()

    def close(self) -> None:
        """Close the connection; commands that wait are not sent any more."""
        self._closed = True
        self._connection.disconnect()

    def _put(self, name: str, channels: tuple[bytes, ...]) -> None:
        self._table.sent(channels)
        self._commands.put((name, channels))

    def _send(self, commands: list[Command]) -> None:
        if self._closed:  # redis-py would connect again
            return
        packed: list[bytes] = []
        for name, group in itertools.groupby(commands, key=lambda command: command[0]):
            packed += self._connection.pack_command(name, *(channel for command in group for channel in command[1]))
        try:
            self._connection.send_packed_command(packed, check_health=False)
        except (RedisError, OSError) as exc:
            logger.debug("Could not send on the subscription: %s", exc)  # the reader notices the break and reports it
        except Exception:
            self._connection.disconnect()  # so that the reader subscribes to everything anew
            raise
