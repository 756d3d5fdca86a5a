"""The objects of one process that all of its sockets share, and the end of a worker.

They are made for the first socket, in a worker and not in the process that forks it.
"""

from __future__ import annotations

import functools
import math
import os
import random
import time
from collections.abc import Collection
from typing import Any

import gevent
from websockets.frames import CloseCode

from wsloop import blocked, checks, health, layers
from wsloop.backend.keys import control_channel, requests_channel
from wsloop.db import close_databases
from wsloop.delivery.broker import Broker
from wsloop.delivery.events import BrokerEvents
from wsloop.facilities.setup import Facilities
from wsloop.greenlets import logged, spawn
from wsloop.protocol.dialects import SPREAD
from wsloop.protocol.messages import Message, Position
from wsloop.runtime.batching import BatchingDelivery
from wsloop.runtime.groups import LocalConsumers
from wsloop.runtime.runner import ConsumerRuntime
from wsloop.sockets import gunicorn, servers, uwsgi
from wsloop.sockets.connection import Connection
from wsloop.sockets.farewell import Farewells
from wsloop.sockets.handshakes import Handshakes
from wsloop.sockets.hub import Hub
from wsloop.visitors.answering import Answering
from wsloop.visitors.attendance import Presence
from wsloop.visitors.inspection import Inspection
from wsloop.visitors.session_watch import SessionWatch

LEAVING_RATE = 200  # sockets closed per second when a worker ends: a worker does more handshakes than that
LEAVING_TIME = 4.0  # seconds that it may take, however many there are: half of the time of uWSGI and init systems
LEAVING_STEP = 0.05  # seconds
# Seconds before the first one: workers that are told at the same time to end have all stopped accepting by then, so
# that a client which comes back at once waits for a worker that stays.
LEAVING_PAUSE = 0.25
LONGEST_LOADING = 10.0  # seconds; a process may have had another life before it loads the site
LONGEST_SPREAD = 60.0  # seconds: handshakes may be few because they wait for something else than this process
LEAVING_BATCH = 100  # sockets closed without a pause, some milliseconds
LAST_WORDS = 2.0  # seconds for handlers of consumers, and release() of subscribers, after the sockets have been closed


def _loading() -> float:
    """Return how long this process has taken to load the site, in seconds, roughly; its successor takes as long."""
    with open("/proc/self/stat") as file:
        began = int(file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return min(LONGEST_LOADING, time.clock_gettime(time.CLOCK_BOOTTIME) - began)


LOADING = _loading()  # loaded with the site


class Engine(BrokerEvents):
    """Puts the parts of one process together, and connects their events."""

    def __init__(self) -> None:
        self.hub = Hub(
            left=self._left,
            expired=lambda connections: self.session_watch.expired(connections),
        )
        self.farewells = Farewells(self.hub.admission)
        self.handshakes = Handshakes(servers.cores(), servers.acceptance())
        self.session_watch = SessionWatch(self.hub)
        self.broker = Broker(self)
        self.broker.attach(control_channel(), self.session_watch.on_notice)
        self.inspection = Inspection(self.hub, lambda: self.broker.connected)
        self.broker.attach(requests_channel(), Answering(self.hub, self.inspection.snapshot).on_request)
        self.local_consumers = LocalConsumers(self.broker)
        self.broker.attach(self.local_consumers.channel, self.local_consumers.on_request)
        self.consumer_runtime = ConsumerRuntime(self.hub, self.local_consumers)
        layers.LAYER.local, layers.LAYER.remote = self.local_consumers, BatchingDelivery()
        self.presence = Presence(close_databases)
        self.facilities = Facilities(self.hub, self.broker, self.presence, self.session_watch)
        if uwsgi.is_running():
            checks.warn_about_uwsgi(uwsgi.uwsgi_option)
            uwsgi.end_in_time()
        elif gunicorn.is_running():
            checks.warn_about_gunicorn(gunicorn.setting)
        blocked.watch()
        self.inspection.start()
        servers.at_exit(lambda: logged(self._take_leave))
        servers.before_reload(lambda: spawn(self._take_leave))  # requests that still run would keep it from that

    # Events of the broker.

    def message(self, channel: bytes, message: Message, origin: Any = None) -> None:
        self.hub.deliver(channel, message, origin)
        self.local_consumers.deliver(channel, message.payload)

    def lost(self, channel: bytes, position: Position) -> None:
        self.hub.lost(channel, position)

    def failed(self) -> None:
        self.hub.close_all(CloseCode.INTERNAL_ERROR, "internal error")

    def connected(self) -> None:
        self.session_watch.connected()
        self.local_consumers.resumed()

    def wait_for_room(self, channels: Collection[bytes], timeout: float) -> None:
        self.hub.wait_for_room(channels, timeout)

    # Events of the hub and of the server.

    def _left(self, connection: Connection) -> None:
        self.broker.unsubscribe(connection.channels)
        for scope in connection.presence_scopes:
            self.presence.left(*scope)
        self.facilities.releases.left(connection)

    def _take_leave(self) -> None:
        """Close all sockets. Their clients come back, each with a handshake and its recovery, but not all at once: some
        are told when to, and the others' sockets are closed one after the other.
        """
        health.leave()
        if self.hub.connections:
            gevent.sleep(LEAVING_PAUSE)
        told = [each for each in self.hub.connections if each.dialect.has_envelopes]
        connections = [each for each in self.hub.connections if not each.dialect.has_envelopes]
        if told:
            self._send_away(told)
        steps = math.ceil(min(len(connections) / LEAVING_RATE, LEAVING_TIME) / LEAVING_STEP) or 1
        for number in range(steps):
            for connection in connections[number::steps]:
                connection.close(CloseCode.SERVICE_RESTART, "server restarting")
            if number + 1 < steps:
                gevent.sleep(LEAVING_STEP)
        self.hub.close_all(CloseCode.SERVICE_RESTART, "server restarting")  # those whose handshake was under way
        self.consumer_runtime.wait(LAST_WORDS)
        self.facilities.releases.wait(LAST_WORDS)

    def _send_away(self, connections: list[Connection]) -> None:
        """Close sockets whose clients are told when to come back: as fast as the other workers can take them."""
        random.shuffle(connections)
        spread, first = SPREAD / 1000, 0.0
        if len(connections) > spread * self.handshakes.rate:
            # Others end at the same time, so that each successor gets as many. Until they run, connections wait with
            # those of pages, where there is room for few.
            spread, first = min(LONGEST_SPREAD, len(connections) / self.handshakes.rate), LOADING
        for number, connection in enumerate(connections):
            after = first + spread * (number + random.random()) / len(connections)
            connection.close(CloseCode.SERVICE_RESTART, "server restarting", round(1000 * after))
            if number % LEAVING_BATCH == LEAVING_BATCH - 1:
                gevent.sleep(0.001)


@functools.cache
def engine() -> Engine:
    """Return the engine of this process. The first call must come from a worker, not from the process that forks it."""
    return Engine()
