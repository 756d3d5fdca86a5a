"""One WebSocket: protocol state, bounded output, closing. The only writer to its socket.

How it works. The object has no greenlet. The event loop calls :meth:`Connection.ready`; what arrived goes through the
parser of the ``websockets`` library, and complete messages go to the handler. Frames to send are encoded elsewhere,
once for all connections, and put down here with :meth:`Connection.enqueue`; :meth:`Connection.flush` joins what has
gathered and gives it to the kernel. What the kernel does not take waits, up to a number of bytes.

::

    OPEN ---- close(), a fault of the peer, or a close frame ----> CLOSING ---- end of stream or deadline ----> CLOSED

While CLOSING the close frame goes out, then the end of the stream, and input is thrown away until the peer hangs up.
The hub ends connections that stay in this state for too long.

What a peer can cost is bounded: input is parsed in small slices, and after each the frames are counted; a peer that
trickles bytes is read again only after a pause, when more has gathered in the kernel. This module must not know Redis,
nor how the hub works.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol, cast

from websockets.exceptions import PayloadTooBig
from websockets.extensions import Extension
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import SEND_EOF, Side, State
from websockets.protocol import Protocol as WebSocketProtocol

from wsloop import metrics
from wsloop.protocol import deflate
from wsloop.protocol.close_codes import TOO_MANY, TOO_SLOW
from wsloop.protocol.deflate import Deflate
from wsloop.protocol.dialects import BARE, Dialect
from wsloop.protocol.frames import PONG_BYTE, encode
from wsloop.sockets.limits import Bounds, Bucket, weight
from wsloop.sockets.transport import READ, WRITE, Transport

JOIN = 256 * 1024  # bytes joined into one write; more than the kernel takes at once would only be copied in vain
SLICE = 2048  # bytes parsed before the frames in them are counted: not more than 341, about a millisecond of work
COMPRESSED_SLICE = 256  # likewise where they may be compressed: not more than four messages of 64 KiB each
SHARED = 20  # times the rate of one connection is taken from all connections of a user, or of an address, together
TRICKLE = 1024  # bytes; a read that brings less, and completes no frame, is fruitless
PATIENCE = 4  # fruitless reads in a row without a pause: many clients send header and payload of a frame apart

logger = logging.getLogger("wsloop.connection")
logger.setLevel(logging.INFO)  # below it the parser would format every frame, for each connection


class Handler(Protocol):
    """What a connection tells; each is called from the event loop and must not block."""

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        """A complete message has arrived; ``text`` tells whether as text (then it is valid UTF-8) or binary."""

    def pausing(self, connection: Connection) -> None:
        """The connection is held, because of how its peer sends; release it in some milliseconds."""

    def drained(self, connection: Connection) -> None:
        """The kernel was full, and has taken now all that waited."""

    def closing(self, connection: Connection) -> None:
        """The connection takes no more messages and waits for the peer to hang up."""

    def closed(self, connection: Connection) -> None:
        """The connection has ended."""


class _Protocol(WebSocketProtocol):
    """The library's protocol, which takes a close frame between the fragments of a message for an error of the peer."""

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None  # control frames may come there (RFC 6455, section 5.4); the message is given up
        super().recv_frame(frame)


class Connection:
    """An open WebSocket on a taken-over socket.

    Args:
        transport: its socket, from which reading starts with :meth:`start`.
        handler: told about messages and the end.
        bounds: what the client may do.
        extensions: those that the handshake has negotiated; see ``handshake``.
        dialect: what is spoken.

    Attributes:
        dialect: what is spoken.
        presence_scope: for presence: the facility, and the name of the user; None where it is not counted.
        bounds: what the client may do.
        window_bits: how messages to this client may be compressed, see :func:`encode`; 0: not at all.
        channels: for the hub: what this connection is subscribed to.
        visitor: for the hub: who is behind it.
        shared: counts the frames of all connections of the same user or address; None: they do not count together.
        alive: for the hub: whether there was a sign of life since the hub last looked.
    """

    __slots__ = (
        "_accepting",
        "_bucket",
        "_deaf",
        "_fragments",
        "_fruitless",
        "_handler",
        "_held",
        "_latest",
        "_protocol",
        "_queue",
        "_queued_bytes",
        "_rest",
        "_sent",
        "_transport",
        "_writing",
        "alive",
        "bounds",
        "channels",
        "dialect",
        "presence_scope",
        "shared",
        "visitor",
        "window_bits",
    )

    def __init__(
        self,
        transport: Transport,
        handler: Handler,
        bounds: Bounds,
        extensions: Sequence[Extension] = (),
        dialect: Dialect = BARE,
    ) -> None:
        self._transport = transport
        self._handler = handler
        most = bounds.max_message_size
        if extensions:
            # The parser compares the size on the wire too, and what does not compress grows; _frame() is exact.
            most += most // 8 + 64
        self._protocol = _Protocol(Side.SERVER, state=State.OPEN, max_size=most, logger=logger)
        if extensions:
            self._protocol.extensions = list(extensions)
        self.bounds = bounds
        self.window_bits = next((deflate.window_bits(each) for each in extensions if isinstance(each, Deflate)), 0)
        self._queue: list[bytes] | None = None  # frames that wait; None as long as an idle connection has none
        self._latest: dict[bytes, bytes] | None = None  # by channel, what comes after the queue; see replace()
        self._queued_bytes = 0
        self._sent = 0  # bytes of the first frame that the kernel has taken already
        self._writing = False  # the kernel is full: the event loop tells when it takes more
        self._held = 0
        self._fruitless = 0  # reads in a row that brought little and completed no frame
        self._rest = b""  # of a read: what came behind the frame on account of which the connection is held
        self._accepting = True  # messages to send; no more once closing, or overflowed and about to close
        self._deaf = False  # closing has begun: what the peer still says is not handled
        self._fragments: tuple[bytearray, Any] | None = None
        self._bucket = Bucket()
        self.shared: Bucket | None = None
        self.channels: tuple[bytes, ...] = ()
        self.dialect = dialect
        self.presence_scope: Any = None
        self.visitor: Any = None
        self.alive = True

    def start(self) -> None:
        """Begin to read."""
        self._transport.start(self.ready)

    @property
    def held(self) -> bool:
        """Whether it is not read at the moment."""
        return self._held > 0

    @property
    def open(self) -> bool:
        """Whether messages can be sent."""
        return self._protocol.state is State.OPEN

    @property
    def accepting(self) -> bool:
        """Whether what is put down is sent; also while frames are handled that came before a fault, or the close."""
        return self._accepting

    @property
    def close_code(self) -> int:
        """The code that a connection which is closing ends with: 1006 without a close frame (RFC 6455, 7.1.5)."""
        close = self._protocol.close_rcvd or self._protocol.close_sent
        return CloseCode.ABNORMAL_CLOSURE if close is None else close.code

    @property
    def hung_up(self) -> bool:
        """Whether the peer will send no more, and may be gone; to be asked of a connection that is not read."""
        return self._transport.hung_up

    @property
    def latest_only(self) -> bool:
        """Whether of messages that it does not read the newest of each channel is kept, and it is not closed."""
        return self.bounds.latest_only

    @property
    def lagging(self) -> bool:
        """Whether it is not read fast enough for all messages, and older ones have to give way."""
        return self._latest is not None or (self._writing and self.latest_only)

    @property
    def queued_bytes(self) -> int:
        """How much waits to be sent."""
        return self._queued_bytes

    @property
    def clear(self) -> bool:
        """Whether the kernel has taken all that was to be sent."""
        return self._queue is None

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
        if self._queued_bytes > self.bounds.max_queued_bytes:
            self._overflow()
            return True
        self._queue.append(frame)
        return False

    def replace(self, channel: bytes, frame: bytes) -> bool:
        """Put down a frame as :meth:`enqueue` does, but while the client does not read, instead of an earlier one.

        Of what comes on a channel while the kernel is full, or more than ``max_queued_bytes`` wait, the newest frame
        alone is kept.
        """
        fits = self._queue is None or self._queued_bytes + len(frame) <= self.bounds.max_queued_bytes
        if not self._accepting or (fits and not self._writing and not self._latest):
            return self.enqueue(frame)
        if self._latest is None:
            self._latest = {}
        if self._latest.pop(channel, None) is not None:  # the new one goes to the end: the order is that of the newest
            metrics.lost("replaced")
        self._latest[channel] = frame
        return False

    def reply(self, payload: bytes, text: bool) -> None:
        """Send a message from within the handler's ``received``; all replies to one read leave together."""
        self.enqueue(self.frame(payload, text))

    def frame(self, payload: bytes, text: bool) -> bytes:
        """Return the frame of a message for this client alone, compressed where that was negotiated and may pay."""
        small = len(payload) < self.bounds.compress_from
        return encode(payload, text, 0 if small else self.window_bits)

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
                self._queue_latest()
            else:
                self._forget(taken)
                if taken < len(data):
                    self._writing = True
                    self._watch()
        if not self._queue and self._protocol.eof_sent:
            self._transport.send_eof()

    def _queue_latest(self) -> None:
        """Put what :meth:`replace` has kept behind all that waits."""
        if self._latest:
            self._queue, self._latest = [*(self._queue or ()), *self._latest.values()], None
            self._queued_bytes = sum(map(len, self._queue)) - self._sent

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
        metrics.reached("MAX_QUEUED_BYTES")
        logger.info("a client does not read: closed after %d bytes had gathered", self.bounds.max_queued_bytes)

    def _watch(self) -> None:
        reading = 0 if self._held else READ
        self._transport.watch(reading + (WRITE if self._writing else 0))

    # Input.

    def ready(self, events: int) -> None:
        """Read, write or both; called by the event loop."""
        self._guarded(self._ready, events)

    def _guarded(self, work: Callable[[Any], None], argument: Any) -> None:
        try:
            work(argument)
        except Exception:
            # The loop would only print it, and call again at once because the socket is still readable.
            logger.exception("a connection ends because of an error of the server")
            self.abort()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            waiting = self._queued_bytes
            self._writing = False
            self.flush()
            self.alive = self.alive or self._queued_bytes < waiting  # it reads, if slowly
            self._watch()
            if self._queue is None:
                self._handler.drained(self)
        if events & READ and self._handler is not NOBODY:
            data = self._transport.receive()
            if data:
                self._feed(data)
            elif data is not None:
                self.abort()

    def _feed(self, data: bytes) -> None:
        if self._protocol.eof_sent:
            self._pause()  # closing: whatever comes is thrown away, but not at any speed
            return
        self.alive = True
        count = 0
        step = COMPRESSED_SLICE if self._protocol.extensions else SLICE
        for start in range(0, len(data), step):
            if self._too_many_together():
                self._rest = data[start:]
                self._pause()
                break
            count += self._parse(data[start : start + step])
            if self._protocol.eof_sent or self._handler is NOBODY:
                return
            if self._held:
                self._rest = data[start + step :]
                break
        self.flush()
        self._fruitless = self._fruitless + 1 if not count and len(data) < TRICKLE else 0
        if self._fruitless > PATIENCE and not self._held:
            self._pause()

    def _parse(self, data: bytes) -> int:
        """Act on the frames that ``data`` completes, and return how many they are."""
        protocol = self._protocol
        protocol.receive_data(data)
        frames = cast("list[Frame]", protocol.events_received())  # one that starts OPEN has no other events
        answers = iter(protocol.data_to_send())
        # The bytes of large messages count, too: the work grows with them, and compressed they come cheap.
        worth = self.bounds.worth
        if self._too_many(sum([weight(frame, worth) for frame in frames])):
            if not self._deaf:
                metrics.reached("RATE_LIMIT")
            if not protocol.eof_sent:
                self._fail(TOO_MANY, "too many frames")
                return len(frames)
            # The client's close frame is among them; it is answered, and the others are not handled.
            frames, answers = [], iter([answer for answer in answers if answer[:1] != PONG_BYTE])
        if not self._deaf:
            for frame in frames:
                if frame.opcode is Opcode.PING:
                    self._answer(next(answers))  # where it belongs among the replies
                else:
                    self._frame(frame)
                if self._deaf:
                    return len(frames)
            if not self.open:
                if isinstance(protocol.parser_exc, PayloadTooBig):
                    metrics.reached("MAX_MESSAGE_SIZE")
                self._leave_open()
                for answer in answers:
                    self._answer(answer)
        if protocol.eof_sent:
            self.flush()
        return len(frames)

    def _too_many(self, count: float) -> bool:
        """Count frames, and tell whether they are more than the bound."""
        rate = self.bounds.rate
        if rate is None:
            return False
        now = monotonic()
        if self.shared is not None:
            self.shared.add(count, SHARED * rate, now)
        self._bucket.add(count, rate, now)
        return self._bucket.full(rate, self.bounds.burst, now)

    def _too_many_together(self) -> bool:
        """Tell whether all connections of the user or address have sent too much: each has to wait, none is closed."""
        rate = self.bounds.rate
        if rate is None or self.shared is None:
            return False
        return self.shared.full(SHARED * rate, SHARED * self.bounds.burst, monotonic())

    def _pause(self) -> None:
        self.hold()
        self._handler.pausing(self)

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
        if len(payload) > self.bounds.max_message_size:
            metrics.reached("MAX_MESSAGE_SIZE")
            self._fail(CloseCode.MESSAGE_TOO_BIG, f"message of more than {self.bounds.max_message_size} bytes")
            return
        if decoder is not None:
            try:
                decoder.decode(frame.data, final=frame.fin)
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_DATA, "text that is not UTF-8")
                return
        if frame.fin:
            self._fragments = None
            self._handler.received(self, bytes(payload), decoder is not None)

    def _fail(self, code: int, reason: str) -> None:
        """Fail the connection (RFC 6455, section 7.1.7): a close frame, and the end of the stream."""
        if self.open:
            self._protocol.fail(code, reason)
        elif not self._deaf:
            # The parser is ahead: it has met the client's close frame too, and its answer will not be sent.
            self._answer(Frame(Opcode.CLOSE, Close(code, reason).serialize()).serialize(mask=False))
        else:
            self._protocol.fail(code)  # after a close frame of ours: no second one
        if not self._deaf:
            self._leave_open()
        self._send_answers()

    def _answer(self, data: bytes) -> None:
        """Put down what the protocol has to say: a pong or a close frame."""
        if data is SEND_EOF:
            return  # flush() sends it behind the last frame
        if self._queue is None:
            self._queue = []
        elif self._writing and len(self._queue) > 1 and self._queue[-1][:1] == data[:1] == PONG_BYTE:
            # Only the latest ping need be answered (RFC 6455, section 5.5.3): unread pongs do not pile up.
            self._queued_bytes -= len(self._queue.pop())
        self._queued_bytes += len(data)
        self._queue.append(data)

    def _send_answers(self) -> None:
        for data in self._protocol.data_to_send():
            self._answer(data)
        self.flush()

    def hold(self) -> None:
        """Stop reading until :meth:`release` has been called as often: a message is being worked on."""
        self._held += 1
        if self._held == 1:
            self._watch()

    def release(self) -> None:
        """Take back one :meth:`hold`."""
        self._held -= 1
        if self._held:
            return
        rest, self._rest = self._rest, b""
        if rest:
            self._guarded(self._feed, rest)
        if not self._held:
            self._watch()

    # The end.

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake (RFC 6455, section 7.1.2). Output that waits goes first."""
        if self.open:
            self._queue_latest()
            goodbye = self.dialect.goodbye(code, reason) if self._accepting else None
            if goodbye is not None:
                frame = encode(goodbye, True)
                # Where it does not fit, what waits would be thrown away for it.
                if self._queued_bytes + len(frame) <= self.bounds.max_queued_bytes:
                    self.enqueue(frame)
            self._protocol.send_close(code, reason)
            self._leave_open()
            self._send_answers()

    def _leave_open(self) -> None:
        self._deaf = True
        self._accepting = False
        self._latest = None
        self._fragments = None
        self._handler.closing(self)

    def abort(self) -> None:
        """End the connection at once. May be called again."""
        handler, self._handler = self._handler, NOBODY
        self._protocol.state = State.CLOSED
        self._protocol.parser = None  # type: ignore[assignment]  # the parser holds the protocol: a cycle less to collect
        self._queue = self._latest = self._fragments = None
        self._rest = b""
        self._deaf = True
        self._accepting = False
        self._transport.close()
        handler.closed(self)


class Nobody:
    """The handler of a connection that has ended."""

    def received(self, connection: Connection, payload: bytes, text: bool) -> None: ...

    def pausing(self, connection: Connection) -> None: ...

    def drained(self, connection: Connection) -> None: ...

    def closing(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...


NOBODY = Nobody()
