"""The fan-out holds messages back to join them: nobody may notice, whatever happens between them."""

import contextlib
import re

import pytest
from gevent import monkey
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.peer import turn
from wsloop.protocol.dialects import BARE, V1_DIALECT
from wsloop.protocol.frames import encode
from wsloop.protocol.messages import Message, Position
from wsloop.sockets import hub
from wsloop.sockets.handler import EndedHandler
from wsloop.sockets.hub import Hub
from wsloop.sockets.limits import Bounds
from wsloop.sockets.transport import Transport
from wsloop.sockets.websocket import WebSocket

CHANNELS = b"ws:broadcast:a", b"ws:broadcast:b"
COUNT = 3

number, channel = st.integers(0, COUNT - 1), st.sampled_from(CHANNELS)
STEPS = st.one_of(
    st.tuples(st.just("deliver"), channel, st.sampled_from([1, 5, 3000])),
    st.tuples(st.just("deliver"), st.just(CHANNELS[0]), st.just(5)),  # runs are what it is about
    st.tuples(st.just("own"), channel, number),
    st.tuples(st.just("to several"), channel),
    st.tuples(st.just("enter"), channel, number),
    st.tuples(st.just("exit"), channel, number),
    st.tuples(st.sampled_from(["enqueue", "reply", "send", "flush", "close", "fail", "abort"]), number),
    st.tuples(st.just("lost"), channel),
    st.tuples(st.just("turn"), st.sampled_from([1, 3])),
)


class Handler(EndedHandler):
    def __init__(self, hub):
        self.closing, self.closed = hub.closing, hub.closed


class World:
    """A hub with some connections: what happens to them, and what their clients get."""

    def __init__(self, held_back):
        self.hub = Hub(lambda connection: None)
        self.hub.heartbeat._timer.stop()  # a slow run would have heartbeats in one of two worlds
        if not held_back:
            self.hub._compress_from = 0  # as if all were to be compressed, which no client here understands
        self.members, self.clients = [], []
        for dialect in (BARE, BARE, V1_DIALECT):
            server, client = monkey.get_original("socket", "socketpair")()
            client.setblocking(False)
            connection = WebSocket(Transport(server.detach()), Handler(self.hub), Bounds(1000, 1 << 20), (), dialect)
            self.hub.open(connection, self.hub.admission.take())
            self.members.append(connection)
            self.clients.append(client)

    def step(self, index, what, *arguments):
        payload = b"%d " % index
        if what == "deliver":
            where, size = arguments
            self.hub.deliver(where, Message(payload * size, f"id{index}", index))
        elif what == "own":
            where, member = arguments
            self.hub.deliver(where, Message(payload, f"id{index}", index), self.members[member])
        elif what == "to several":
            self.hub.deliver(arguments[0], Message(payload, f"id{index % 3}", index, multi_audience=True))
        elif what == "lost":
            self.hub.lost(arguments[0], Position(index, "x"))
        elif what == "turn":
            turn(arguments[0])
        elif what in ("enter", "exit"):
            where, connection = arguments[0], self.members[arguments[1]]
            if connection.open and (where in connection.channels) == (what == "exit"):
                if what == "exit":
                    self.hub.exit(connection, [where])
                else:
                    self.hub.enter(self.hub.join([where]), connection, [payload])
        else:
            self.one(what, self.members[arguments[0]], payload)

    def one(self, what, connection, payload):
        if what == "enqueue":
            self.hub.enqueue(connection, encode(payload, True))
        elif what == "send":
            self.hub.send(connection, [payload])
        elif what == "reply":
            connection.reply(payload, True)
        elif what == "flush":
            connection.flush()
        elif what == "abort":
            connection.abort()
        else:
            getattr(connection, what)(4000, "enough")

    def received(self):
        turn()
        while self.hub._rest_timer.active:
            turn()
        found = []
        for client in self.clients:
            data = b""
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while piece := client.recv(1 << 20):
                    data += piece
            found.append(re.sub(rb'"after": \d+', b"", data))  # which is random
            client.close()
        for connection in self.members:
            connection.abort()
        return found


@given(st.lists(STEPS, max_size=40), st.sampled_from([float("inf"), 0]))
def test_all_get_what_they_would_get_if_each_message_were_queued_at_once(steps, share):
    """Whether a turn of the loop is long enough for all connections, or for one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "SLICE", share)
        compare(steps)


def compare(steps):
    joined, single = World(held_back=True), World(held_back=False)
    for world in (joined, single):
        for where in CHANNELS:
            for connection in world.members:
                world.hub.enter(world.hub.join([where]), connection, [])
        for index, step in enumerate(steps):
            world.step(index, *step)
    assert joined.received() == single.received()
