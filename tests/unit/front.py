"""A server in front of the WSGI callable: it hands sockets over as uWSGI does."""

import socket
import weakref

import gevent
from django.test import RequestFactory

from tests.unit.peer import WAIT, Peer
from wsloop import engine
from wsloop.backend.keys import requests_channel
from wsloop.server import WebsocketServer
from wsloop.sockets.takeover import Takeover

HANDSHAKE = {
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_UPGRADE": "websocket",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}


class Environ(dict):
    """A dictionary that can be watched with a weak reference."""


class PairTakeover(Takeover):
    def __init__(self, sock):
        self._socket = sock

    def descriptor(self):
        return self._socket.fileno()


class Answer:
    """How the server answered: an open socket, or a response."""

    def __init__(self):
        self.status, self.headers, self.body, self.peer = None, {}, b"", None


class Reader:
    """Reads a stream of events, as the HTML standard has it (section 9.2.6). Every wait is bounded, in seconds."""

    def __init__(self, sock):
        self.socket = sock
        self.socket.settimeout(WAIT)
        self._data = b""
        self.last_id = ""
        self.retry = None
        self.comments = 0

    def event(self):
        """The next event: type and data; None at the end."""
        return self._read(lambda: False)

    def read_id(self, offset):
        """Read until the last id has this offset in its last channel."""
        self._read(lambda: self.last_id.rpartition("~")[2].split(".")[1:2] == [str(offset)])

    def _read(self, enough):
        while not enough():
            block, found, rest = self._data.partition(b"\n\n")
            if not found:
                data = self.socket.recv(65536)
                if not data:
                    return None
                self._data += data
                continue
            self._data = rest
            kind, lines = "message", []
            for line in block.decode().split("\n"):
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if not name:
                    self.comments += 1
                elif name == "data":
                    lines.append(value)
                elif name == "event":
                    kind = value
                elif name == "id":
                    self.last_id = value
            if lines:
                return kind, "\n".join(lines)
        return None

    def data(self, count):
        return [self.event()[1] for _ in range(count)]

    def close(self):
        self.socket.close()


class Front:
    """The server in front: ``front.call("news?subscribe-broadcast")`` is a request in a greenlet of its own."""

    def __init__(self):
        self.peers = []
        self.on_101 = lambda: None
        self.options = {}

    def app(self):
        return WebsocketServer()

    def spawn(self, path, app=None, method="GET", hang_up=False, **headers):
        app = app or self.app()
        return gevent.spawn(self._serve, app, path, method, hang_up, headers)

    def call(self, path, **options):
        return self.spawn(path, **options).get(timeout=WAIT)

    def connect(self, path, **options):
        answer = self.call(path, **options)
        assert answer.status == 101, (answer.status, answer.body)
        return answer.peer

    def _serve(self, app, path, method, hang_up, headers):
        ours, theirs = socket.socketpair()
        answer = Answer()

        def start_response(status, headers):
            answer.status, answer.headers = int(status.split()[0]), dict(headers)
            if answer.status == 101:
                self.on_101()
            return lambda data: ours.sendall(data or hang_up * b"101")

        with ours:  # closed when the request ends, as uWSGI does
            body, content_type = headers.pop("body", b""), headers.pop("content_type", "application/octet-stream")
            handshake = {} if "HTTP_ACCEPT" in headers else HANDSHAKE
            request = RequestFactory().generic(method, f"/ws/{path}", body, content_type, **handshake | headers)
            environ = Environ(request.environ)
            environ["test.socket"] = ours
            self.environ = weakref.ref(environ)
            if hang_up:
                theirs.close()
            answer.body = b"".join(app(environ, start_response))
        if answer.headers.get("Content-Type") == "text/event-stream" and not hang_up:
            answer.peer = Reader(theirs)
            self.peers.append(answer.peer)
        elif answer.status == 101 and not hang_up:
            answer.peer = Peer(theirs)
            self.peers.append(answer.peer)
        else:
            theirs.close()
        return answer


def nothing_is_left():
    made = engine.engine()
    return (
        set(made.broker._table.counts)
        == {
            made.broker._own_channel.name,
            made.broker._control_channel,
            requests_channel(),
            made.local_consumers.channel,
        }
        and not len(made.local_consumers)
        and not made.local_consumers._subscribed
        and not made.consumer_runtime.running
        and not made.consumer_runtime.full
        and not made.hub._joining
        and not any(map(len, made.hub._subscribers.values()))
        and not made.hub._draining
        and not len(made.hub)
        and not made.hub.census.sockets
        and not made.hub.census.subscriptions
        and not len(made.hub.admission)
        and not made.broker._own_channel._origins
        and not made.broker._table._waiting
        and not made.broker._gapless._channels
    )
