"""One WebSocket: protocol state, input and closing. The only writer to its socket. Longer than other modules, because
states and both directions of one socket are best read together.

How it works. The object has no greenlet. The event loop calls :meth:`Connection.ready`; what arrived goes through the
parser of the ``websockets`` library, and complete messages go to the handler. Frames to send are encoded elsewhere,
once for all connections, and queued here with :meth:`Connection.enqueue`; :meth:`Connection.flush` joins what has
gathered and gives it to the kernel. What the kernel does not take waits, up to a number of bytes: see
:class:`wsloop.sockets.output.Output`, which also has the table of a connection's states.

The cost that a client can cause is bounded: input is parsed in small slices, and after each the frames are counted; a
client that trickles bytes is read again only after a pause, when more has gathered in the kernel. This module must not
know Redis, nor how the hub works.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from websockets.exceptions import PayloadTooBig
from websockets.extensions import Extension
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import SEND_EOF, Side
from websockets.protocol import Protocol as WebSocketProtocol
from websockets.protocol import State as ParserState

from wsloop import metrics
from wsloop.protocol import deflate, fragments
from wsloop.protocol.close_codes import TOO_MANY, TOO_SLOW
from wsloop.protocol.deflate import Deflate
from wsloop.protocol.dialects import BARE, Dialect
from wsloop.protocol.fragments import Fragments
from wsloop.protocol.frames import PONG_BYTE, encode
from wsloop.sockets.limits import Bounds, Meter, weight
from wsloop.sockets.output import (
    CLOSED,
    CLOSING,
    ENDING,
    ENDING_OVERFLOWED,
    FINISHING,
    OPEN,
    OVERFLOWED,
    Output,
)
from wsloop.sockets.transport import READ, WRITE, Transport

SLICE = 2048  # bytes parsed before the frames in them are counted: not more than 341, about a millisecond of work
COMPRESSED_SLICE = 256  # likewise where they may be compressed: not more than four messages of 64 KiB each
TRICKLE = 1024  # bytes; a read that brings less, and completes no frame, is fruitless
PATIENCE = 4  # fruitless reads in a row without a pause: many clients send header and payload of a frame apart

logger = logging.getLogger("wsloop.connection")
logger.setLevel(logging.INFO)  # below it the parser would format every frame, for each connection


class Handler(Protocol):
    """Gets the events of a connection; each method is called from the event loop and must not block."""

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        """A complete message has arrived; ``text`` is whether it is text, then valid UTF-8, or binary."""

    def pausing(self, connection: Connection) -> None:
        """The connection is held, because its client sends too fast or trickles; release it in some milliseconds."""

    def drained(self, connection: Connection) -> None:
        """The kernel was full, and has now taken all output that waited."""

    def closing(self, connection: Connection) -> None:
        """The connection takes no more messages and waits for the peer to hang up."""

    def closed(self, connection: Connection) -> None:
        """The connection has ended."""


class _Protocol(WebSocketProtocol):
    """Accepts a close frame between the fragments of a message, which the library takes for an error."""

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None  # control frames may come there (RFC 6455, section 5.4); the message is dropped
        super().recv_frame(frame)


class Connection(Output):
    """An open WebSocket on a taken-over socket. A long class: see the module.

    Args:
        transport: its socket, from which reading starts with :meth:`start`.
        handler: gets its messages and its end.
        bounds: what the client may do.
        extensions: those that the handshake has negotiated; see ``handshake``.
        dialect: of the frames.

    Attributes:
        dialect: of the frames.
        presence_scopes: where it is counted for presence: facilities, each with the name of the user.
        channels: for the hub: those that this connection is subscribed to; once for each subscription with the channel.
        visitor: for the hub: the person behind it.
        meter: counts what the client sends.
        alive: for the heartbeat: whether there was a sign of life since it last looked.
    """

    __slots__ = (
        "_fragments",
        "_fruitless",
        "_handler",
        "_held",
        "_protocol",
        "_rest",
        "_transport",
        "alive",
        "channels",
        "dialect",
        "meter",
        "presence_scopes",
        "visitor",
    )

    def __init__(
        self,
        transport: Transport,
        handler: Handler,
        bounds: Bounds,
        extensions: Sequence[Extension] = (),
        dialect: Dialect = BARE,
    ) -> None:
        super().__init__(
            bounds, next((deflate.window_bits(each) for each in extensions if isinstance(each, Deflate)), 0)
        )
        self._transport = transport
        self._handler = handler
        most = bounds.max_message_size
        if extensions:
            # The parser limits the size on the wire too, where incompressible data grows; _frame() is exact.
            most += most // 8 + 64
        self._protocol = _Protocol(Side.SERVER, state=ParserState.OPEN, max_size=most, logger=logger)
        if extensions:
            self._protocol.extensions = list(extensions)
        self._held = 0
        self._fruitless = 0  # reads in a row that brought little and completed no frame
        self._rest = b""  # of a read: the data after the frame because of which the connection is held
        self._fragments: Fragments | None = None
        self.meter = Meter()
        self.channels: tuple[bytes, ...] = ()
        self.dialect = dialect
        self.presence_scopes: tuple[Any, ...] = ()
        self.visitor: Any = None
        self.alive = True

    def start(self) -> None:
        """Begin to read."""
        self._transport.start(self.ready)

    @property
    def held(self) -> bool:
        """Whether reading is stopped at the moment."""
        return self._held > 0

    @property
    def open(self) -> bool:
        """Whether neither side has begun to close it."""
        return self._state is OPEN or self._state is OVERFLOWED

    @property
    def close_code(self) -> int:
        """The code that a closing connection ends with: 1006 without a close frame (RFC 6455, 7.1.5)."""
        close = self._protocol.close_rcvd or self._protocol.close_sent
        return CloseCode.ABNORMAL_CLOSURE if close is None else close.code

    @property
    def close_reason(self) -> str:
        """The reason beside that code; empty without one."""
        close = self._protocol.close_rcvd or self._protocol.close_sent
        return "" if close is None else close.reason

    @property
    def hung_up(self) -> bool:
        """Whether the client has ended the stream; for a connection that is not read, and would not notice."""
        return self._transport.hung_up

    # Output; see Output.

    def charge(self, count: float) -> bool:
        """Count work that a message causes as frames of the client; return False if the client has exceeded its rate.

        The connection is closed then.
        """
        if not self.meter.exceeded(count, self.bounds):
            return True
        metrics.reached("RATE_LIMIT")
        self._fail(TOO_MANY, "too many frames")
        return False

    def reply(self, payload: bytes, text: bool) -> None:
        """Send a message from within the handler's ``received``; all replies to one read leave together."""
        self.enqueue(self.frame(payload, text))

    def flush(self) -> None:
        """Hand the waiting frames to the kernel, as much as it takes."""
        if self._state is OVERFLOWED:
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
                if self._latest:
                    self._queue_latest()
            else:
                self._taken(taken)
                if taken < len(data):
                    self._writing = True
                    self._watch()
        if self._state is FINISHING and not self._queue:
            self._transport.send_eof()

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
            # The loop would only print it, and call again at once, because the socket is still readable.
            logger.exception("Closed a connection because of an error of the server")
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
        if events & READ and self._state is not CLOSED:
            data = self._transport.receive()
            if data:
                self._feed(data)
            elif data is not None:
                self.abort()

    def _feed(self, data: bytes) -> None:
        if self._state >= FINISHING:
            self._pause()  # input is thrown away, but not at any speed
            return
        self.alive = True
        count = 0
        step = COMPRESSED_SLICE if self._protocol.extensions else SLICE
        for start in range(0, len(data), step):
            if self.meter.exceeded_together(self.bounds):
                self._rest = data[start:]
                self._pause()
                break
            count += self._parse(data[start : start + step])
            if self._state >= FINISHING:
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
        if protocol.state is not ParserState.OPEN and self.open:
            self._state = ENDING if self._state is OPEN else ENDING_OVERFLOWED
        # The bytes of large messages count, too: the work grows with them, and compressed they come cheap.
        worth = self.bounds.worth
        if self.meter.exceeded(sum([weight(frame, worth) for frame in frames]), self.bounds):
            if self._state < CLOSING:
                metrics.reached("RATE_LIMIT")
            if not protocol.eof_sent:
                self._fail(TOO_MANY, "too many frames")
                return len(frames)
            # The client's close frame is among them; it is answered, and the others are not handled.
            frames, answers = [], iter([answer for answer in answers if answer[:1] != PONG_BYTE])
        if self._state < CLOSING:
            for frame in frames:
                if frame.opcode is Opcode.PING:
                    self._answer(next(answers))  # where it belongs among the replies
                else:
                    self._frame(frame)
                if self._state >= CLOSING:
                    return len(frames)
            if not self.open:
                if isinstance(protocol.parser_exc, PayloadTooBig):
                    metrics.reached("MAX_MESSAGE_SIZE")
                self._leave_open()
                for answer in answers:
                    self._answer(answer)
        if self._finished():
            self.flush()
        return len(frames)

    def _pause(self) -> None:
        self.hold()
        self._handler.pausing(self)

    def _frame(self, frame: Frame) -> None:
        """Hand a message to the handler when its last frame is here; the parser has answered control frames."""
        most = self.bounds.max_message_size
        try:
            if frame.opcode is Opcode.CONT:
                assert self._fragments is not None  # the parser refuses a continuation of nothing
                text = self._fragments.text
                message = self._fragments.add(frame.data, frame.fin, most)
            elif frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
                text = frame.opcode is Opcode.TEXT
                if frame.fin:
                    message = fragments.whole(frame.data, text, most)
                else:
                    self._fragments = Fragments(text)
                    message = self._fragments.add(frame.data, False, most)
            else:
                return
        except fragments.TooBig:
            metrics.reached("MAX_MESSAGE_SIZE")
            self._fail(CloseCode.MESSAGE_TOO_BIG, f"message of more than {most} bytes")
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA, "text that is not UTF-8")
        else:
            if message is not None:
                self._fragments = None
                self._handler.received(self, message, text)

    def _fail(self, code: int, reason: str) -> None:
        """Fail the connection (RFC 6455, section 7.1.7): a close frame, and the end of the stream."""
        if self.open:
            self._protocol.fail(code, reason)
        elif self._state < CLOSING:
            # The parser is ahead: it has met the client's close frame too, and its answer will not be sent.
            self._answer(Frame(Opcode.CLOSE, Close(code, reason).serialize()).serialize(mask=False))
        else:
            self._protocol.fail(code)  # after a close frame of ours: no second one
        if self._state < CLOSING:
            self._leave_open()
        self._send_answers()

    def _answer(self, data: bytes) -> None:
        """Queue an answer of the parser: a pong or a close frame."""
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
        self._finished()
        self.flush()

    def hold(self) -> None:
        """Stop reading until :meth:`release` has been called as often."""
        self._held += 1
        if self._held == 1:
            self._watch()

    def release(self) -> None:
        """Reverse one :meth:`hold`."""
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
            goodbye = self.dialect.goodbye(code, reason) if self.accepting else None
            if goodbye is not None:
                frame = encode(goodbye, True)
                # If it does not fit, the waiting frames would be dropped for it.
                if self._queued_bytes + len(frame) <= self.bounds.max_queued_bytes:
                    self.enqueue(frame)
            self._protocol.send_close(code, reason)
            self._leave_open()
            self._send_answers()

    def _leave_open(self) -> None:
        self._state = CLOSING
        self._latest = None
        self._fragments = None
        self._handler.closing(self)

    def _finished(self) -> bool:
        """Follow the parser, and return whether the last frame is queued: the end of the stream follows the output."""
        if self._state is CLOSING and self._protocol.eof_sent:
            self._state = FINISHING
        return self._state is FINISHING

    def abort(self) -> None:
        """End the connection at once. May be called again."""
        if self._state is CLOSED:
            return
        self._state = CLOSED
        handler, self._handler = self._handler, ENDED
        self._protocol.state = ParserState.CLOSED
        self._protocol.parser = None  # type: ignore[assignment]  # the parser holds the protocol: a cycle less to collect
        self._queue = self._latest = self._fragments = None
        self._rest = b""
        self._transport.close()
        handler.closed(self)


class EndedHandler:
    """The handler of a connection that has ended, so that it keeps no other object alive."""

    def received(self, connection: Connection, payload: bytes, text: bool) -> None: ...

    def pausing(self, connection: Connection) -> None: ...

    def drained(self, connection: Connection) -> None: ...

    def closing(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...


ENDED = EndedHandler()
