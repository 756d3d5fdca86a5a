"""The hot paths in counts, never in time: no change may make one of them clearly more expensive without saying so.

What is counted is the same on every machine: calls, bytecodes, bytes, ``send()``, queries, commands of Redis. Of the
fan-out and of memory the counts are those of *one more*: the difference between two sizes, divided by the difference of
the sizes, so that what each message costs once does not hide what it costs each socket. Figures that the version of
Python changes are recorded for each, under its name, with a tolerance; the others are the same everywhere, and exact.
"""

import collections
import functools
import gc
import json
import os
import re
import sys
import tracemalloc
from pathlib import Path

import gevent
import pytest
import redis.connection
from django.db.backends.signals import connection_created
from gevent import monkey

import wsloop
from tests.unit.peer import Opcode, masked
from wsloop import engine
from wsloop.protocol.dialects import BARE, V1_DIALECT
from wsloop.protocol.messages import Message
from wsloop.publisher import RedisPublisher
from wsloop.sockets import hub as hub_module
from wsloop.sockets.handler import EndedHandler
from wsloop.sockets.hub import Hub
from wsloop.sockets.limits import Bounds
from wsloop.sockets.transport import READ, Transport
from wsloop.sockets.websocket import WebSocket

RECORDED = Path(__file__).with_name("costs.json")
RENEW = "RENEW_COSTS=1 .venv/bin/python -m tests tests/unit/test_costs.py"
PYTHON = "{}.{}".format(*sys.version_info)
# A release of websockets, or an object of Python that is a word larger, is no change of a hot path.
TOLERANCE = {"bytes": 0.1}  # what other tests have left in the process may allocate meanwhile
USUAL_TOLERANCE = 0.05

COMMAND = re.compile(rb"\*\d+\r\n\$\d+\r\n([A-Z]+)\r\n")
CHANNEL, PAYLOAD = b"ws:broadcast:costs", b"x" * 128
BURST = 10


def is_near(name, count, expected):
    return abs(count - expected) <= TOLERANCE.get(name, USUAL_TOLERANCE) * expected


def renewed(name, count, known):
    """A count by Python's version: those of other versions hold no longer if that of this one has changed."""
    if not isinstance(count, dict):
        return count
    unchanged = PYTHON not in known or is_near(name, count[PYTHON], known[PYTHON])
    return (known if unchanged else {}) | count


def compare(what, **counted):
    """Compare counts with the recorded ones, exactly; a dictionary of one count by Python's version with a tolerance.

    Whoever makes something cheaper records that too, or the next one could use it up unnoticed.
    """
    recorded = json.loads(RECORDED.read_text())
    known = recorded.get(what, {})
    if os.environ.get("RENEW_COSTS"):
        recorded[what] = {name: renewed(name, count, known.get(name, {})) for name, count in counted.items()}
        RECORDED.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n")
        return
    wrong = []
    for name in sorted({*known, *counted}):
        count, expected = counted.get(name), known.get(name)
        right = count == expected
        if isinstance(count, dict) and expected:
            # A version that nobody has recorded is watched over by the exact counts.
            count, expected = count[PYTHON], expected.get(PYTHON)
            right = expected is None or is_near(name, count, expected)
        if not right:
            wrong.append(f"{name}: {count}, recorded: {expected}")
    assert not wrong, f"{what}: {'; '.join(wrong)}. If that is meant to be so, record it with: {RENEW}"


class Counts(collections.Counter):
    """What a function does: its ``calls`` of Python and of C, ``writes`` among the latter, and ``bytecodes``."""

    def __init__(self, function):
        super().__init__()
        sys.setprofile(self._count_call)
        try:
            function()
        finally:
            sys.setprofile(None)
        for _ in range(2):  # the first time Python 3.12 does not report every bytecode
            self["bytecodes"] = 0
            sys.settrace(self._enter)
            try:
                function()
            finally:
                sys.settrace(None)

    def _count_call(self, frame, event, function):
        if event == "call":
            self["calls"] += 1
        elif event == "c_call":
            self["calls of C"] += 1
            self["writes"] += function.__name__ == "send"

    def _enter(self, frame, event, argument):
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._count_bytecode

    def _count_bytecode(self, frame, event, argument):
        self["bytecodes"] += event == "opcode"
        return self._count_bytecode


def per(counts, fewer, steps):
    """The counts of one more, of so many."""
    each = {name: (counts[name] - fewer[name]) / steps for name in ("calls", "calls of C", "writes", "bytecodes")}
    return each | {"bytecodes": {PYTHON: each["bytecodes"]}}


class Handler(EndedHandler):
    def __init__(self):
        self.messages = []

    def received(self, connection, payload, text):
        self.messages.append(payload)


@pytest.fixture
def pairs():
    """Make socket pairs: the descriptor of one end, and the other end, closed with the test."""
    clients = []

    def make(count):
        for _ in range(count):
            ours, theirs = monkey.get_original("socket", "socketpair")()
            theirs.setblocking(False)
            clients.append(theirs)
            yield ours.detach(), theirs

    yield make
    for each in clients:
        each.close()


@pytest.fixture
def listening(pairs, monkeypatch):
    """A hub with so many sockets, each of which listens to these channels. It writes in one turn of the loop."""
    monkeypatch.setattr(hub_module, "SLICE", float("inf"))
    hubs = []

    def make(count, dialect=BARE, channels=(CHANNEL,)):
        descriptors = [ours for ours, _ in pairs(count)]
        hubs.append(hub := Hub(lambda connection: None))
        for each in descriptors:
            connection = WebSocket(Transport(each), EndedHandler(), Bounds(65536, 1 << 20), (), dialect)
            hub.open(connection, hub.admission.take())
            hub.enter(hub.join(channels), connection, [])
        return hub

    yield make
    for hub in hubs:
        for connection in list(hub.connections):
            connection.abort()


def deliver(hub, count):
    """Hand messages to the hub and then their output to the kernel, as one turn of the event loop does."""
    for number in range(count):
        hub.deliver(CHANNEL, Message(PAYLOAD, f"id{number}", number, time=1))
    hub._flush()


# The fan-out.


@pytest.mark.parametrize("dialect", [BARE, V1_DIALECT], ids=["bare", "v1"])
@pytest.mark.parametrize("count", [1, BURST], ids=["single", "burst"])
def test_a_message_to_one_more_socket(listening, dialect, count):
    """In a burst as much as for one message: the frames of a turn are joined for all sockets."""
    few, many = listening(20, dialect), listening(50, dialect)
    for hub in (few, many):
        deliver(hub, count)
    counts = [Counts(functools.partial(deliver, hub, count)) for hub in (many, few)]
    compare(f"{'a message' if count == 1 else 'a burst'} to one more socket, {dialect.name}", **per(*counts, 30))


@pytest.mark.parametrize("dialect", [BARE, V1_DIALECT], ids=["bare", "v1"])
def test_one_more_message_of_a_burst(listening, dialect):
    """However many sockets there are."""
    for size in (2, 40):
        hub = listening(size, dialect)
        deliver(hub, BURST)
        counts = [Counts(functools.partial(deliver, hub, count)) for count in (BURST, 2)]
        compare(f"one more message of a burst, {dialect.name}", **per(*counts, BURST - 2))


# One socket.


@pytest.mark.parametrize(
    ("dialect", "channels"),
    [(BARE, [CHANNEL]), (V1_DIALECT, [b"%s:%d" % (CHANNEL, number) for number in range(4)])],
    ids=["bare", "v1, four channels"],
)
def test_memory_of_one_more_idle_socket(listening, dialect, channels):
    """Of the engine: neither the kernel's, nor what a visitor has."""
    listening(10, dialect, channels)
    held = []
    for count in (100, 300):
        gc.collect()
        tracemalloc.start()
        try:
            listening(count, dialect, channels)
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    each = (held[1] - held[0]) / 200
    compare(f"an idle socket, {dialect.name}, channels: {len(channels)}", bytes={PYTHON: each})


def test_a_message_of_a_client(pairs):
    ((ours, client),) = pairs(1)
    handler = Handler()
    connection = WebSocket(Transport(ours), handler, Bounds(65536, 1 << 20))
    connection.start()
    frame = masked(Opcode.TEXT, PAYLOAD)

    def read(count):
        client.send(frame * count)
        connection.ready(READ)

    read(1)
    counts = [Counts(functools.partial(read, count)) for count in (6, 2)]
    assert handler.messages == [PAYLOAD] * (1 + 3 * (6 + 2))
    connection.abort()
    compare("one more message of a client", **per(*counts, 4))


def test_a_message_from_redis(front, shared_redis, facility):
    """From the answer of Redis to the hub, on a channel with one socket."""
    front.connect(f"{facility}?subscribe-broadcast")
    broker = engine.engine().broker
    response = [b"message", f"unit:broadcast:{facility}".encode(), PAYLOAD]

    def handle(count):
        for _ in range(count):
            broker._handle(response)

    handle(1)
    counts = [Counts(functools.partial(handle, count)) for count in (6, 2)]
    compare("a message from Redis", **per(*counts, 4))


# Handshakes.


class Asked:
    """What this process asks the database and Redis while a ``with`` block runs; not what scripts do in Redis."""

    def __init__(self, monkeypatch):
        self.counts = collections.Counter()
        self._patch = monkeypatch

    def __enter__(self):
        send = redis.connection.AbstractConnection.send_packed_command

        def count(connection, command, check_health=True):
            names = COMMAND.findall(b"".join([command] if isinstance(command, bytes) else command))
            if names != [b"PING"]:  # the probe of the subscription, every 5 s
                self.counts["requests to Redis"] += 1
                self.counts.update(f"Redis: {name.decode()}" for name in names)
            return send(connection, command, check_health)

        self._patch.setattr(redis.connection.AbstractConnection, "send_packed_command", count)
        connection_created.connect(self._connected)
        return self

    def __exit__(self, *_):
        connection_created.disconnect(self._connected)

    def _connected(self, connection, **kwargs):
        self.counts["connections to the database"] += 1
        connection.execute_wrappers.append(self._query)

    def _query(self, execute, *arguments):
        self.counts["queries"] += 1
        return execute(*arguments)


HANDSHAKES = 4
WSLOOP = f"{Path(wsloop.__file__).parent}/"
ALL = "subscribe-broadcast&subscribe-user&subscribe-group&subscribe-session"


@pytest.fixture
def handshakes(front, shared_redis, facility, database):
    """Compare what each of some handshakes takes, behind one that connects to Redis."""
    server, calls = front.app(), collections.Counter()

    def app(environ, start_response):
        handshake = gevent.getcurrent()

        def count(frame, event, argument):
            # Other greenlets, which run while this one waits, are not switched off.
            if event == "call" and frame.f_code.co_filename.startswith(WSLOOP) and gevent.getcurrent() is handshake:
                calls["calls in wsloop"] += 1

        sys.setprofile(count)
        try:
            return server(environ, start_response)
        finally:
            sys.setprofile(None)

    def compare_handshakes(who, query, facilities=(facility,) * HANDSHAKES, but_for=(), **headers):
        front.connect(f"{facility}?subscribe-broadcast", app=app)
        calls.clear()
        with pytest.MonkeyPatch.context() as patch, Asked(patch) as asked:
            for each in facilities:
                front.connect(f"{each}?{query}", app=app, **headers)
        counts = {name: number / HANDSHAKES for name, number in asked.counts.items() if number}
        counts["calls in wsloop"] = {PYTHON: calls["calls in wsloop"] / HANDSHAKES}
        compare(f"a handshake of {who}", **{name: count for name, count in counts.items() if name not in but_for})

    return compare_handshakes


@pytest.fixture
def history(with_settings):
    """A facility has one."""
    with_settings(WSLOOP={"FACILITIES": {"*": {"size": 100}}})


def test_a_handshake_of_a_stranger(handshakes):
    handshakes("a stranger", "subscribe-broadcast")


V1 = {"HTTP_SEC_WEBSOCKET_PROTOCOL": "wsloop.v1"}


def new(facility):
    """Facilities to which nobody has subscribed yet, as to the channels of a user who comes."""
    return [f"{facility}-{number}" for number in range(HANDSHAKES)]


def test_a_handshake_of_a_user(handshakes, signed_in, facility):
    handshakes("a user, four audiences", ALL, new(facility), HTTP_COOKIE=signed_in.cookie)


def test_a_handshake_of_a_user_with_a_history(handshakes, history, signed_in, facility):
    who = "a user, four audiences, wsloop.v1 with a history"
    # How many questions for positions go to Redis together depends on when it acknowledges the subscriptions.
    timing = ["requests to Redis", "Redis: EVALSHA", "calls in wsloop"]
    handshakes(who, ALL, new(facility), but_for=timing, HTTP_COOKIE=signed_in.cookie, **V1)


def test_a_handshake_of_a_user_who_comes_back(front, handshakes, history, signed_in, facility):
    """With a token, and behind by some messages."""
    peer = front.connect(f"{facility}?{ALL}", HTTP_COOKIE=signed_in.cookie, **V1)
    token = json.loads(peer.message())["token"]
    for number in range(3):
        RedisPublisher(facility=facility, broadcast=True).publish_message(str(number))
    # Redis has the script from now on.
    front.connect(f"{facility}?{ALL}&resume={token}", HTTP_COOKIE=signed_in.cookie, **V1).message()
    handshakes("a user who comes back", f"{ALL}&resume={token}", HTTP_COOKIE=signed_in.cookie, **V1)
