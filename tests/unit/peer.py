"""The client's side of a WebSocket: a real socket and the ``websockets`` library's parser, one step at a time."""

import gevent
from gevent.event import Event
from gevent.queue import Queue
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, Protocol

from wsloop.delivery.events import BrokerEvents

WAIT = 10  # seconds
HEARTBEAT = b"--heartbeat--"


def turn(count=3):
    """Let the event loop look at its sockets and do what is due, ``count`` times, without waiting for anything."""
    hub = gevent.get_hub()
    for _ in range(count):
        hub.wait(hub.loop.timer(0))


def masked(opcode, payload=b"", fin=True):
    """A frame as a client sends it."""
    return Frame(opcode, payload, fin).serialize(mask=True)


def close_frame(code=1000, reason=""):
    return masked(Opcode.CLOSE, Close(code, reason).serialize())


class Peer:
    """The other end of a connection. Every wait is bounded, in seconds."""

    def __init__(self, sock):
        self.socket = sock
        self.socket.settimeout(WAIT)
        self._protocol = Protocol(CLIENT, max_size=None)
        self._frames = []
        self.ended = False

    def send(self, *frames):
        """Send frames, or any bytes, in one write."""
        self.socket.sendall(b"".join(frames))

    def text(self, text):
        self.send(masked(Opcode.TEXT, text.encode()))

    def frame(self):
        """The next frame; None at the end of the stream."""
        while not self._frames and not self.ended:
            data = self.socket.recv(65536)
            if data:
                self._protocol.receive_data(data)
            else:
                self.ended = True
            self._frames += self._protocol.events_received()
            if self._protocol.parser_exc is not None and not isinstance(self._protocol.parser_exc, EOFError):
                raise self._protocol.parser_exc  # what the server sent is not WebSocket
        return self._frames.pop(0) if self._frames else None

    def message(self):
        """The next message, ``str`` or ``bytes``, as its frame says; pings are answered and heartbeats skipped."""
        frame = self.frame()
        while frame is not None and (frame.opcode is Opcode.PING or frame.data == HEARTBEAT):
            if frame.opcode is Opcode.PING:
                self.send(masked(Opcode.PONG, frame.data))
            frame = self.frame()
        assert frame is not None, "the stream has ended"
        assert frame.fin and frame.opcode in (Opcode.TEXT, Opcode.BINARY), frame
        return frame.data.decode() if frame.opcode is Opcode.TEXT else bytes(frame.data)

    def messages(self, count):
        return [self.message() for _ in range(count)]

    def closing(self):
        """The code of the close frame, which must be next, and behind it nothing but the end of the stream."""
        frame = self.frame()
        assert frame is not None, "the stream has ended without a close frame"
        assert frame.opcode is Opcode.CLOSE, frame
        code = Close.parse(frame.data).code
        assert self.frame() is None
        return code

    def close(self):
        self.socket.close()


class Recorder:
    """A connection's handler that keeps what it is told."""

    def __init__(self):
        self.messages = Queue()
        self.events = []
        self.drains = 0
        self.has_closed = Event()

    def received(self, connection, payload, text):
        self.messages.put(payload.decode() if text else payload)

    def pausing(self, connection):
        connection.release()

    def drained(self, connection):
        self.drains += 1

    def ending(self, connection):
        pass

    def closing(self, connection):
        self.events.append("closing")

    def closed(self, connection):
        self.events.append("closed")
        self.has_closed.set()

    def next(self):
        return self.messages.get(timeout=WAIT)

    def wait_closed(self):
        assert self.has_closed.wait(WAIT), "the connection has not ended"


def events(**told):
    """What a broker tells, to functions: ``events(message=…, lost=…, failed=…, connected=…, wait_for_room=…)``."""
    made = BrokerEvents()
    for name, function in told.items():
        assert hasattr(made, name), name
        setattr(made, name, function)
    return made
