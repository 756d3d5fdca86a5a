"""A consumer gets the same calls under test as on a real connection: each script runs on both, and is compared."""

import time

import pytest
from django.contrib.auth.models import AnonymousUser
from websockets.frames import Close, Opcode

from testbed.processes import wait_until
from tests.unit.peer import close_frame, masked
from wsloop.consumers import WebsocketConsumer
from wsloop.exceptions import DenyConnection, Disconnected, StopConsumer
from wsloop.protocol.dialects import CONSUMER
from wsloop.refusals import Refused
from wsloop.runtime.groups import LocalConsumers
from wsloop.runtime.handlers import GreenletRunner as Runner
from wsloop.runtime.worker import ConsumerRuntime
from wsloop.sockets.hub import Hub
from wsloop.sockets.limits import Bounds
from wsloop.sockets.websocket import WebSocket
from wsloop.testing.greenlet_sockets import GreenletSocket as Socket
from wsloop.testing.memory import own

LONG = 3600  # seconds that a handler would sleep if nothing ended it
BEGIN = "sleep 0.05"  # so that the messages behind it wait, on both sides


class Actor(WebsocketConsumer):
    """Carries out the commands in messages, and records its calls and the exceptions."""

    def __init__(self, connect=None):
        self.calls = []
        self.how = connect

    def act(self, command):
        self.calls.append(command)
        verb, _, argument = command.partition(" ")
        try:
            {
                "send": self.send,
                "sleep": lambda seconds: time.sleep(float(seconds)),
                "close": lambda code: self.close(int(code), "because"),
                "accept": self.accept,
                "fail": lambda _: 1 / 0,
                "deny": lambda _: self._raise(DenyConnection),
                "stop": lambda _: self._raise(StopConsumer),
                "end": lambda _: self._raise(Disconnected),
            }[verb](*[argument] if argument or verb not in ("accept", "close") else [])
        except BaseException as exc:
            self.calls.append(type(exc).__name__)
            raise

    def _raise(self, error):
        raise error

    def connect(self):
        self.calls.append("connect")
        for command in self.how or ["accept"]:
            self.act(command)

    def receive(self, text_data=None, bytes_data=None):
        for command in text_data.split(", "):
            self.act(command)

    def happened(self, event):
        self.act(event["command"])

    def disconnect(self, close_code):
        self.calls.append(f"disconnect {close_code}")


def scope():
    return {
        "path": "/",
        "query_string": b"",
        "subprotocols": ["a"],
        "user": AnonymousUser(),
        "session": None,
        "url_route": {"args": (), "kwargs": {}},
    }


def play_for_real(consumer, messages, leave, pair):
    """Return whether the socket was accepted, the texts that the client got, and the server's close frame."""
    hub, members = Hub(left=lambda connection: None), LocalConsumers(None)
    runner = Runner(ConsumerRuntime(hub, members), consumer, scope())
    seat = hub.admission.take()
    try:
        runner.connect()
    except (Refused, ZeroDivisionError, ValueError, RuntimeError):
        seat.give_back()
        runner.failed()
        wait_until(lambda: not len(members), what="the end")
        return False, [], None
    transport, peer = pair()
    connection = WebSocket(transport, runner, Bounds(65536, 1024 * 1024), dialect=CONSUMER)
    hub.open(connection, seat)
    runner.opened(connection)
    peer.send(*[masked(Opcode.TEXT, each.encode()) for each in messages])
    if leave == "now":
        peer.send(close_frame(4321))
    texts, closed = [], None
    while (frame := peer.frame()) is not None:
        if frame.opcode is Opcode.TEXT:
            texts.append(frame.data.decode())
        elif frame.opcode is Opcode.CLOSE:
            closed = Close.parse(frame.data)
            peer.send(masked(Opcode.CLOSE, frame.data))
            break
    wait_until(lambda: not len(members), what="the end")
    connection.abort()
    return True, texts, None if leave == "now" else (closed.code, closed.reason)


def play_under_test(consumer, messages, leave):
    with own() as memory:
        socket = Socket(consumer, scope(), memory, lambda: None)
        socket.connect()
        memory.scheduler.turn()
        accepted = socket.answer is not None and socket.answer[0]
        for each in messages if accepted else ():
            socket.receive(each)
        if leave == "now":
            memory.scheduler.turn()
            socket.leave(4321)
        assert memory.scheduler.run(60, lambda: socket.ended)
        texts = [event["text"] for event in socket.output if event["type"] == "websocket.send"]
        closed = [(event["code"], event["reason"]) for event in socket.output if event["type"] == "websocket.close"]
        return accepted, texts, closed[0] if closed and leave != "now" else None


@pytest.mark.parametrize(
    ("messages", "leave"),
    [
        # The consumer ends it.
        ([BEGIN, "send a", "send b", "close 4000"], "never"),
        ([BEGIN, "close 4000", "send a"], "never"),
        ([BEGIN, "close 4000, close 4001"], "never"),
        ([BEGIN, f"close 4000, sleep {LONG}", "send a"], "never"),
        ([BEGIN, "close 4000, send a, send b"], "never"),
        ([BEGIN, "send a", "fail", "send b"], "never"),
        ([BEGIN, "close 4000, fail"], "never"),
        ([BEGIN, "stop", "send b"], "never"),
        ([BEGIN, "end", "send b"], "never"),
        ([BEGIN, "accept"], "never"),
        ([BEGIN, "close 1006"], "never"),
        ([BEGIN, "close 1005", "send a"], "never"),
        ([BEGIN, "send a, close"], "never"),
        # The client leaves, in the middle of a handler that sleeps.
        ([f"sleep {LONG}"], "now"),
        ([f"sleep {LONG}", "send a", f"sleep {LONG}", "stop", "send b"], "now"),
        ([f"sleep {LONG}", "close 4000", "send a"], "now"),
        ([f"sleep {LONG}", "fail", "send a"], "now"),
    ],
)
def test_messages(messages, leave, pair):
    real, tested = Actor(), Actor()
    assert play_for_real(real, messages, leave, pair) == play_under_test(tested, messages, leave)
    assert real.calls == tested.calls
    assert real.calls[-1].startswith("disconnect")


@pytest.mark.parametrize(
    "connect",
    [
        ["deny"],
        ["close"],
        ["close 4000"],
        ["stop"],
        ["end"],
        ["fail"],
        ["send early"],
        ["accept b"],
        ["sleep 0"],
        ["close 4000", "send late"],
        ["close 4000", "accept"],
        ["accept", "send a", "close 4000"],
        ["accept", "accept"],
        ["accept a", "send a", "fail"],
        ["accept", "stop"],
    ],
)
def test_answers(connect, pair):
    real, tested = Actor(connect), Actor(connect)
    assert play_for_real(real, [], "never", pair) == play_under_test(tested, [], "never")
    assert real.calls == tested.calls
    assert real.calls[-1].startswith("disconnect")
