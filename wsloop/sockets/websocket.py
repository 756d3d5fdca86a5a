"""A WebSocket: protocol state, input and closing. A little longer than other modules, because both directions of one
socket are best read together.

How it works. What arrived goes through the parser of the ``websockets`` library, and complete messages go to the
handler. The cost that a client can cause is bounded: input is parsed in small slices, and after each the frames are
counted; a client that trickles bytes is read again only after a pause, when more has gathered in the kernel. A close
frame behind messages is answered when these are handled. This module must not know Redis, nor how the hub works.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from websockets.exceptions import PayloadTooBig
from websockets.extensions import Extension
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import SEND_EOF
from websockets.protocol import State as ParserState

from wsloop import metrics
from wsloop.greenlets import Greenlet, spawn_later
from wsloop.protocol import deflate, fragments
from wsloop.protocol.close_codes import TOO_MANY
from wsloop.protocol.deflate import Deflate
from wsloop.protocol.dialects import BARE, Dialect
from wsloop.protocol.fragments import Fragments
from wsloop.protocol.frames import EMPTY_PONG, PONG_BYTE
from wsloop.protocol.parser import Parser, parsers
from wsloop.sockets.connection import Connection, Handler
from wsloop.sockets.limits import ONE, Bounds, load
from wsloop.sockets.output import CLOSING, ENDING, ENDING_OVERFLOWED, FINISHING, OPEN, settle
from wsloop.sockets.transport import Transport

SLICE = 2048  # bytes parsed before the frames in them are counted: not more than 341, about a millisecond of work
COMPRESSED_SLICE = 256  # likewise where they may be compressed: not more than four messages of 64 KiB each
TRICKLE = 1024  # bytes; a read that brings less, and completes no frame, is fruitless
# Seconds until a close frame is answered though Redis, or the site's code, has not taken the messages before it:
# libraries wait 3 s for the answer, or longer.
LAST_MESSAGES = 2.0
PATIENCE = 4  # fruitless reads in a row without a pause: many clients send header and payload of a frame apart


class WebSocket(Connection):
    """An open WebSocket. A long class: see the module.

    Args:
        transport, handler, bounds, dialect: see :class:`Connection`.
        extensions: those that the handshake has negotiated; see ``handshake``.
    """

    __slots__ = ("_deadline", "_extensions", "_fragments", "_fruitless", "_goodbye", "_parser", "_parsers")

    def __init__(
        self,
        transport: Transport,
        handler: Handler,
        bounds: Bounds,
        extensions: Sequence[Extension] = (),
        dialect: Dialect = BARE,
    ) -> None:
        bits = next((deflate.window_bits(each) for each in extensions if isinstance(each, Deflate)), 0)
        super().__init__(transport, handler, bounds, dialect, bits)
        self._extensions = tuple(extensions)
        self._parsers = parsers(bounds.max_message_size, bool(extensions))
        self._parser: Parser | None = None  # see _protocol
        self._fruitless = 0  # reads in a row that brought little and completed no frame
        self._goodbye: list[bytes] | None = None  # the answer to the client's close frame, or its fault
        self._deadline: Greenlet | None = None  # at which it is sent, though messages before it are still handled
        self._fragments: Fragments | None = None

    @property
    def _protocol(self) -> Parser:
        """The parser, while a message arrives and from the beginning of the end on; see its module."""
        if self._parser is None:
            self._parser = self._parsers.take(self._extensions)
        return self._parser

    @property
    def _close_frame(self) -> Close | None:
        """The close frame with whose code the connection ends; None without one."""
        protocol = self._parser
        return None if protocol is None else protocol.close_rcvd or protocol.close_sent

    @property
    def close_code(self) -> int:  # type: ignore[override]
        """The code that a closing connection ends with: 1006 without a close frame (RFC 6455, 7.1.5)."""
        close = self._close_frame
        return CloseCode.ABNORMAL_CLOSURE if close is None else close.code

    @property
    def close_reason(self) -> str:  # type: ignore[override]
        """The reason beside that code; empty without one."""
        close = self._close_frame
        return "" if close is None else close.reason

    # Input.

    def _feed(self, data: bytes) -> None:
        if self._state >= FINISHING:
            self._pause()  # input is thrown away, but not at any speed
            return
        self.alive = True
        if len(data) == len(EMPTY_PONG) + 4 and data.startswith(EMPTY_PONG) and self._answers_ping():
            return
        count = 0
        step = COMPRESSED_SLICE if self._extensions else SLICE
        for start in range(0, len(data), step):
            if self.meter.must_wait(self.bounds):
                self._rest = data[start:]
                self._pause()
                break
            count += self._parse(data[start : start + step])
            if self._state >= FINISHING:
                return
            if self._held:
                self._rest = data[start + step :]
                break
        if self._parser is not None and self._parsers.give_back(self._parser):
            self._parser = None
        self.flush()
        self._fruitless = self._fruitless + 1 if not count and len(data) < TRICKLE else 0
        if self._fruitless > PATIENCE and not self._held:
            self._pause()

    def _answers_ping(self) -> bool:
        """Return whether a pong without payload needs no parser: most of what idle sockets receive."""
        if self._parser is not None or self.meter.must_wait(self.bounds):
            return False
        self._fruitless = 0
        if self.meter.exceeded(ONE, self.bounds):
            metrics.reached("RATE_LIMIT")
            self.fail(TOO_MANY, "too many frames")
        return True

    def _parse(self, data: bytes) -> int:
        """Act on the frames that ``data`` completes, and return how many they are."""
        protocol = self._parser or self._protocol
        protocol.receive_data(data)
        frames = cast("list[Frame]", protocol.events_received())  # one that starts OPEN has no other events
        answers = iter(protocol.data_to_send())
        if protocol.state is not ParserState.OPEN and self.open:
            self._state = ENDING if self._state is OPEN else ENDING_OVERFLOWED
        # The bytes of large messages count, too: the work grows with them, and compressed they come cheap.
        if self.meter.exceeded(load(frames, self.bounds.worth), self.bounds):
            if self._state < CLOSING:
                metrics.reached("RATE_LIMIT")
            if not protocol.eof_sent:
                self.fail(TOO_MANY, "too many frames")
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
            if not self.open and self._goodbye is None:
                if isinstance(protocol.parser_exc, PayloadTooBig):
                    metrics.reached("MAX_MESSAGE_SIZE")
                self._goodbye = list(answers)
                if protocol.parser_exc is None:
                    self._handler.ending(self)
                if self._held and protocol.parser_exc is None:
                    # Whoever reads the answer to its close frame knows that its last messages are where they belong.
                    self._deadline = spawn_later(LAST_MESSAGES, self._stop_waiting)
                else:
                    self._part()
        if self._finished():
            self.flush()
        return len(frames)

    def _resume(self) -> None:
        self._part()
        super()._resume()

    def _stop_waiting(self) -> None:
        self._deadline = None
        self._part()

    def _part(self) -> None:
        """Answer the client's close frame, or its fault."""
        if self._goodbye is not None and self._state < CLOSING:
            answers = self._goodbye
            self._leave_open()
            for answer in answers:
                self._answer(answer)
            if self._finished():
                self.flush()

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
            self.fail(CloseCode.MESSAGE_TOO_BIG, f"message of more than {most} bytes")
        except UnicodeDecodeError:
            self.fail(CloseCode.INVALID_DATA, "text that is not UTF-8")
        else:
            if message is not None:
                self._fragments = None
                metrics.TRAFFIC.messages_in += 1
                self._handler.received(self, message, text)

    def fail(self, code: int, reason: str) -> None:
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
        settle()
        frames = self._frames()
        if self._writing and len(frames) > 1 and frames[-1][:1] == data[:1] == PONG_BYTE:
            # Only the latest ping need be answered (RFC 6455, section 5.5.3): unread pongs do not pile up.
            self._queued_bytes -= len(frames.pop())
        self._queued_bytes += len(data)
        frames.append(data)

    def _send_answers(self) -> None:
        for data in self._protocol.data_to_send():
            self._answer(data)
        self._finished()
        self.flush()

    # The end.

    def close(self, code: int, reason: str = "", after: int | None = None) -> None:
        """Begin the closing handshake (RFC 6455, section 7.1.2)."""
        if self.open:
            self._say_goodbye(code, reason, after)
            self._protocol.send_close(code, reason)
            self._leave_open()
            self._send_answers()

    def _leave_open(self) -> None:
        self._fragments = None
        self._drop_deadline()
        super()._leave_open()

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.kill(block=False)
            self._deadline = None

    def _finished(self) -> bool:
        """Follow the parser, and return whether the last frame is queued: the end of the stream follows the output."""
        if self._state is CLOSING and self._protocol.eof_sent:
            self._state = FINISHING
        return self._state is FINISHING

    def _forget(self) -> None:
        if self._parser is not None:
            self._parser.end()
        self._fragments = self._goodbye = None
        self._drop_deadline()


__all__ = ["WebSocket"]
