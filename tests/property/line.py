"""A connection on a socket pair that is watched for all that a client must not be able to bring about.

Sockets and event loop are real; the handler is an echo, so that the order of replies and pongs can be seen outside.
"""

import gc
import io
import logging
import socket
import weakref

import gevent
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Opcode

from tests.property.rfc6455 import may_be_sent
from tests.unit.peer import Peer, Recorder, turn
from wsloop.sockets.limits import Bounds
from wsloop.sockets.transport import READ, RECEIVE_SIZE, Transport
from wsloop.sockets.websocket import WebSocket

MAX_SIZE = 65536


class Watched(WebSocket):
    """Unlike its base it can be watched with a weak reference."""

    __slots__ = ("__weakref__",)


class Counting(Transport):
    """Counts how often the event loop calls for input, and for room for output."""

    __slots__ = ("reads", "watcher", "writes")

    def __init__(self, descriptor):
        super().__init__(descriptor)
        self.reads = self.writes = 0

    def start(self, ready):
        def counted(events):
            self.reads += bool(events & READ)
            self.writes += events != READ
            ready(events)

        super().start(counted)
        self.watcher = self._watcher


class Echo(Recorder):
    """Replies, and tells ``/ws/echo/``-like what arrived."""

    def __init__(self, holding=False):
        super().__init__()
        self.largest = 0
        self._holding = holding

    def received(self, connection, payload, text):
        self.largest = max(self.largest, len(payload))
        connection.reply(payload, text)
        if self._holding:
            connection.hold()
            gevent.get_hub().loop.run_callback(connection.release)


class Errors(logging.Handler):
    """Keeps what is logged as an error, and what gevent's hub prints about callbacks that raise."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self._kept = []
        self._printed = io.StringIO()

    def emit(self, record):
        self._kept.append(logging.Formatter().format(record))

    def __enter__(self):
        logging.getLogger("wsloop").addHandler(self)
        hub = gevent.get_hub()
        self._before = hub.exception_stream
        hub.exception_stream = self._printed
        return self

    def __exit__(self, *exc_info):
        logging.getLogger("wsloop").removeHandler(self)
        gevent.get_hub().exception_stream = self._before

    def text(self):
        return "\n".join([*self._kept, self._printed.getvalue()]).strip()


class Line:
    """A started connection and its peer: ``with Line() as line: line.write(…); frames, code = line.finish()``.

    Args:
        max_size, rate, burst, max_queued: the connection's bounds.
        compression: whether permessage-deflate has been negotiated, as ``handshake`` does it; all replies use it then.
        holding: each message is worked on for a turn of the loop, in which the connection must not be read.
        buffer: bytes that the kernel takes from the server before the client reads.
    """

    def __init__(
        self,
        max_size=MAX_SIZE,
        compression=False,
        rate=None,
        burst=0,
        max_queued=1024 * 1024,
        buffer=None,
        holding=False,
    ):
        ours, theirs = socket.socketpair()
        if buffer is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self.max_size = max_size
        self.transport = Counting(ours.detach())
        self.handler = Echo(holding)
        bounds = Bounds(max_size, max_queued, rate, burst)
        extensions = [PerMessageDeflate(True, True, 15, 12, {})] if compression else []
        self.connection = Watched(self.transport, self.handler, bounds, extensions)
        self.reference = weakref.ref(self.connection)
        self.peer = Peer(theirs)
        if compression:
            self.peer._protocol.extensions = [PerMessageDeflate(True, True, 12, 15, {})]
        self._chunks = 0
        self._errors = Errors()

    def __enter__(self):
        self._errors.__enter__()
        self.connection.start()
        assert self.transport.watcher.active
        return self

    def __exit__(self, *exc_info):
        self._errors.__exit__()
        self.transport.close()
        self.peer.close()

    def write(self, data):
        """Send bytes of the client in one write, and let the connection read them."""
        if data:
            self._chunks += len(data) // RECEIVE_SIZE + 2
            self.peer.send(data)
            turn(2)  # one for the loop to see it, one to be behind what it does about it

    def hang_up(self):
        """End the client's side without a word, and check that nothing is left."""
        self.peer.close()
        self.handler.wait_closed()
        self.check()

    def finish(self):
        """End the client's half, and return what the server has sent: pairs of opcode and payload, and a close code.

        The code is None for a close frame without one, and False without a close frame.

        Raises:
            AssertionError: if the connection has not ended as it must, whatever it was sent.
        """
        self.peer.socket.shutdown(socket.SHUT_WR)
        frames, code = [], False
        size = 0
        while (frame := self.peer.frame()) is not None:
            size += len(frame.data)
            assert code is False, f"{frame} behind the close frame"
            if frame.opcode is Opcode.CLOSE:
                code = Close.parse(frame.data).code if frame.data else None
                assert code is None or may_be_sent(code), f"close code {code}"
            else:
                frames.append((int(frame.opcode), bytes(frame.data)))
        self.handler.wait_closed()
        self.check(len(frames) + size // 1024)
        return frames, code

    def check(self, reads=0):
        """Check what must be so at the end, whatever the client has sent, if it has read about ``reads`` times."""
        errors = self._errors.text()
        assert not errors, f"an error of the server:\n{errors}"
        assert self.handler.events in (["closing", "closed"], ["closed"]), self.handler.events
        assert self.handler.largest <= self.max_size, f"a message of {self.handler.largest} bytes"
        assert self.transport.reads <= self._chunks + 1, f"{self.transport.reads} calls for {self._chunks} chunks"
        assert self.transport.writes <= reads + 1
        assert not self.transport.watcher.active, "the descriptor is still watched"
        assert self.transport._socket.fileno() == -1
        self.connection = None
        if self.reference() is not None:
            gc.collect()
        assert self.reference() is None, "the connection is not freed"


def conversation(chunks, max_size=MAX_SIZE, compression=False):
    """Send ``chunks`` over a line of its own; what :meth:`Line.finish` returns."""
    with Line(max_size, compression) as line:
        for chunk in chunks:
            line.write(chunk)
        return line.finish()


def split(stream, sizes):
    """Cut ``stream`` into chunks of these sizes, and what is left."""
    at = 0
    for size in sizes:
        if at < len(stream):
            yield stream[at : at + size]
        at += size
    yield stream[at:]


def agrees(answers, frames, code):
    """Check what a server has sent against the oracle's :class:`Answers`."""
    assert frames == answers.frames
    if code is False:
        assert answers.silent or not answers.codes, f"no close frame, but one with {set(answers.codes)} was due"
    else:
        assert code in answers.codes, f"closed with {code}, not with {set(answers.codes)}"
