"""What a WebSocket has of the ``websockets`` library: the state of the protocol, and the parser of what arrives.

It takes a kilobyte, and to make it takes as long as to parse a message. Between two messages of an open socket there is
nothing in it, so connections share a few, and have one only while a message arrives or they close. This module must not
know connections.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from websockets.extensions import Extension
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.streams import StreamReader

BETWEEN_FRAMES = StreamReader.at_eof.__code__  # where the library waits for the next frame
MOST_RESTING = 16  # parsers that wait for a connection; one read needs one of them

logger = logging.getLogger("wsloop.connection")
logger.setLevel(logging.INFO)  # below it the library would format every frame


class Parser(Protocol):
    """The protocol of an open WebSocket. The library takes a close frame between fragments for an error.

    Args:
        max_message_size: bytes of the largest message.
    """

    def __init__(self, max_message_size: int) -> None:
        super().__init__(Side.SERVER, state=State.OPEN, max_size=max_message_size, logger=logger)
        self._others = _resting.setdefault(max_message_size, [])

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None  # control frames may come there (RFC 6455, section 5.4); the message is dropped
        super().recv_frame(frame)

    def rest(self) -> bool:
        """Let the next connection have this one, if there is nothing in it, and return whether that is so."""
        parser: Any = self.parser
        # Not whether the buffer is empty, which it is within a frame, too.
        waits_in = getattr(parser.gi_yieldfrom, "gi_code", None)
        if waits_in is not BETWEEN_FRAMES or self.current_size is not None or self.state is not State.OPEN:
            return False
        if len(self._others) < MOST_RESTING:
            self._others.append(self)
        else:
            self.end()
        return True

    def end(self) -> None:
        """Parse nothing any more."""
        self.state = State.CLOSED
        self.parser = None  # type: ignore[assignment]  # it holds this object: a cycle less to collect


_resting: dict[int, list[Parser]] = {}  # by size; all sockets of a site have the same


def take(max_message_size: int, extensions: Sequence[Extension]) -> Parser:
    """Return a parser for one connection.

    Args:
        max_message_size: bytes of the largest message.
        extensions: those that the handshake has negotiated.
    """
    if extensions:
        # The parser limits the size on the wire, where incompressible data grows; the connection is exact.
        max_message_size += max_message_size // 8 + 64
    resting = _resting.get(max_message_size)
    parser = resting.pop() if resting else Parser(max_message_size)
    parser.extensions = list(extensions)
    return parser


__all__ = ["Parser", "take"]
