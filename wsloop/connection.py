"""One WebSocket: protocol state, bounded output, closing. The only writer to its socket.

How it works. The object has no greenlet. The event loop calls :meth:`Connection.ready`; what arrived goes through the
parser of the ``websockets`` library, and complete messages go to the handler. Frames to send are encoded elsewhere,
once for all connections, and put down here with :meth:`Connection.enqueue`; :meth:`Connection.flush` joins what has
gathered and gives it to the kernel. What the kernel does not take waits, up to a number of bytes.

::

    OPEN ---- close(), a fault of the peer, or a close frame ----> CLOSING ---- end of stream or deadline ----> CLOSED

While CLOSING the close frame goes out, then the end of the stream, and input is thrown away until the peer hangs up.
The hub ends connections that stay in this state for too long. This module must not know Redis, nor how the hub works.
"""

from __future__ import annotations

import codecs
import logging
from typing import Any, Protocol

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import SEND_EOF, Side, State
from websockets.protocol import Protocol as WebSocketProtocol

from wsloop.transport import READ, WRITE, Transport

TOO_SLOW = 4008  # private close code, after HTTP's 408: the client did not read; it may come back and resume
JOIN = 256 * 1024  # bytes joined into one write; more than the kernel takes at once would only be copied in vain

logger = logging.getLogger("wsloop.connection")
logger.setLevel(logging.INFO)  # below it the parser would format every frame, for each connection


class Handler(Protocol):
    """What a connection tells; each is called from the event loop and must not block."""

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        """A complete message has arrived; ``text`` tells whether as text (then it is valid UTF-8) or binary."""

    def closing(self, connection: Connection) -> None:
        """The connection takes no more messages and waits for the peer to hang up."""

    def closed(self, connection: Connection) -> None:
        """The connection has ended."""


def encode(payload: bytes, text: bool) -> bytes:
    """Return the frame of a server that carries ``payload``, as text or binary (RFC 6455, section 5.2)."""
    return Frame(Opcode.TEXT if text else Opcode.BINARY, payload).serialize(mask=False)


PING = Frame(Opcode.PING, b"").serialize(mask=False)


class Connection:
    """An open WebSocket on a taken-over socket.

    Args:
        transport: its socket, from which reading starts with :meth:`start`.
        handler: told about messages and the end.
        max_message_size: bytes of the largest message taken, over all its fragments; a larger one closes with 1009.
        max_queued_bytes: output that may wait; over it the connection is closed with TOO_SLOW.

    Attributes:
        channels: for the hub: what this connection is subscribed to.
        heard: for the hub: whether the client has said something by itself since the hub last looked.
    """

    __slots__ = (
        "_accepting",
        "_deaf",
        "_fragments",
        "_handler",
        "_held",
        "_max_queued_bytes",
        "_protocol",
        "_queue",
        "_queued_bytes",
        "_sent",
        "_transport",
        "_writing",
        "channels",
        "heard",
    )

    def __init__(self, transport: Transport, handler: Handler, max_message_size: int, max_queued_bytes: int) -> None:
        self._transport = transport
        self._handler = handler
        self._protocol = WebSocketProtocol(Side.SERVER, state=State.OPEN, max_size=max_message_size, logger=logger)
        self._max_queued_bytes = max_queued_bytes
        self._queue: list[bytes] | None = None  # frames that wait; None as long as an idle connection has none
        self._queued_bytes = 0
        self._sent = 0  # bytes of the first frame that the kernel has taken already
        self._writing = False  # the kernel is full: the event loop tells when it takes more
        self._held = 0
        self._accepting = True  # messages to send; no more once closing, or overflowed and about to close
        self._deaf = False  # closing has begun: what the peer still says is not handled
        self._fragments: tuple[bytearray, Any] | None = None
        self.channels: tuple[bytes, ...] = ()
        self.heard = True

    def start(self) -> None:
        """Begin to read."""
        self._transport.start(self.ready)

    @property
    def open(self) -> bool:
        """Whether messages can be sent."""
        return self._protocol.state is State.OPEN

    # Output.

    def enqueue(self, frame: bytes) -> bool:
        """Put down an encoded frame, and tell whether the caller has to see to a :meth:`flush`.

        If something waits already and it would be more than ``max_queued_bytes``, what waits is thrown away, and the
        flush closes the connection with TOO_SLOW.
        """
        if not self._accepting:
            return False
        if self._queue is None:
            # Whatever its size: a client that has taken all before is not slow.
            self._queue = [frame]
            self._queued_bytes = len(frame)
            return True
        self._queued_bytes += len(frame)
        if self._queued_bytes > self._max_queued_bytes:
            self._overflow()
            return True
        self._queue.append(frame)
        return False

    def flush(self) -> None:
        """Give to the kernel what waits, as much as it takes."""
        if not self._accepting and self.open:
            self.close(TOO_SLOW, "too slow")
        while self._queue and not self._writing:
            data = self._head()
            try:
                taken = self._transport.send(data)
            except OSError:
                self.abort()
                return
            if taken == self._queued_bytes:
                self._queue = None
                self._queued_bytes = self._sent = 0
            else:
                self._forget(taken)
                if taken < len(data):
                    self._writing = True
                    self._watch()
        if not self._queue and self._protocol.eof_sent:
            self._transport.send_eof()

    def _head(self) -> bytes:
        """Return the first bytes that wait, joined."""
        queue = self._queue or []
        if len(queue) == 1 and not self._sent:
            return queue[0]
        if self._queued_bytes > JOIN:
            size = count = 0
            while size < JOIN and count < len(queue):
                size += len(queue[count])
                count += 1
            queue = queue[:count]
        data = b"".join(queue)
        return data[self._sent :] if self._sent else data

    def _forget(self, taken: int) -> None:
        """Drop the frames of which the kernel has taken the last byte; at least one is left."""
        queue = self._queue or []
        self._queued_bytes -= taken
        taken += self._sent
        count = 0
        while taken >= len(queue[count]):
            taken -= len(queue[count])
            count += 1
        del queue[:count]
        self._sent = taken

    def _overflow(self) -> None:
        # A frame of which a part is out must be completed, or the peer could not read the close frame behind it.
        rest = self._queue[:1] if self._queue and self._sent else []
        self._queue = rest or None
        self._queued_bytes = sum(map(len, rest)) - self._sent
        self._accepting = False
        logger.warning("a client does not read: closed after %d bytes had gathered", self._max_queued_bytes)

    def _watch(self) -> None:
        reading = 0 if self._held else READ
        self._transport.watch(reading + (WRITE if self._writing else 0))

    # Input.

    def ready(self, events: int) -> None:
        """Read, write or both; called by the event loop."""
        try:
            if events & WRITE:
                self._writing = False
                self.flush()
                self._watch()
            if events & READ and self._handler is not NOBODY:
                data = self._transport.receive()
                if data:
                    self._feed(data)
                elif data is not None:
                    self.abort()
        except Exception:
            # The loop would only print it, and call again at once because the socket is still readable.
            logger.exception("a connection ends because of an error of the server")
            self.abort()

    def _feed(self, data: bytes) -> None:
        protocol = self._protocol
        if protocol.eof_sent:
            return  # closing: whatever comes is thrown away
        was_open = self.open
        protocol.receive_data(data)
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)  # a protocol that starts OPEN has no other events
            if frame.opcode is not Opcode.PONG:
                self.heard = True
            if not self._deaf:
                self._frame(frame)
        if was_open and not self.open and not self._deaf:
            self._leave_open()
        self._send_answers()

    def _frame(self, frame: Frame) -> None:
        """Gather the fragments of a message (RFC 6455, section 5.4) and check that text is UTF-8 (section 8.1)."""
        if frame.opcode is Opcode.TEXT:
            self._fragments = (bytearray(), codecs.getincrementaldecoder("utf-8")())
        elif frame.opcode is Opcode.BINARY:
            self._fragments = (bytearray(), None)
        elif frame.opcode is not Opcode.CONT:
            return  # control frames: the protocol has answered them
        assert self._fragments is not None  # the parser refuses a continuation of nothing
        payload, decoder = self._fragments
        payload += frame.data
        if decoder is not None:
            try:
                decoder.decode(frame.data, final=frame.fin)
            except UnicodeDecodeError:
                self._protocol.fail(CloseCode.INVALID_DATA, "text that is not UTF-8")
                self._leave_open()
                return
        if frame.fin:
            self._fragments = None
            self._handler.received(self, bytes(payload), decoder is not None)

    def _send_answers(self) -> None:
        """Send what the protocol has to say: pongs and close frames."""
        for data in self._protocol.data_to_send():
            if data is SEND_EOF:
                continue  # flush() sends it behind the last frame
            self._queued_bytes += len(data)
            if self._queue is None:
                self._queue = []
            self._queue.append(data)
        if self._queued_bytes > self._max_queued_bytes and self._accepting:
            self._overflow()  # pings without end, and the pongs are not read
        self.flush()

    def hold(self) -> None:
        """Stop reading until :meth:`release` has been called as often: a message is being worked on."""
        self._held += 1
        if self._held == 1:
            self._watch()

    def release(self) -> None:
        """Take back one :meth:`hold`."""
        self._held -= 1
        if not self._held:
            self._watch()

    # The end.

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake (RFC 6455, section 7.1.2). Output that waits goes first."""
        if self.open:
            self._protocol.send_close(code, reason)
            self._leave_open()
            self._send_answers()

    def _leave_open(self) -> None:
        self._deaf = True
        self._accepting = False
        self._fragments = None
        self._handler.closing(self)

    def abort(self) -> None:
        """End the connection at once. May be called again."""
        handler, self._handler = self._handler, NOBODY
        self._protocol.state = State.CLOSED
        self._protocol.parser = None  # type: ignore[assignment]  # the parser holds the protocol: a cycle less to collect
        self._queue = self._fragments = None
        self._deaf = True
        self._accepting = False
        self._transport.close()
        handler.closed(self)


class Nobody:
    """The handler of a connection that has ended."""

    def received(self, connection: Connection, payload: bytes, text: bool) -> None: ...

    def closing(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...


NOBODY = Nobody()
