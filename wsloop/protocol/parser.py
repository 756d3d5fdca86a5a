"""What a WebSocket has of the ``websockets`` library: the state of the protocol, and the parser of what arrives.

It takes a kilobyte, and to make it takes as long as to parse a message. Between two messages of an open socket there is
nothing in it, so connections share a few, and have one only while a message arrives or they close. This module must not
know connections.
"""

from __future__ import annotations

import functools
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

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None  # control frames may come there (RFC 6455, section 5.4); the message is dropped
        super().recv_frame(frame)

    def end(self) -> None:
        """Parse nothing any more."""
        self.state = State.CLOSED
        self.parser = None  # type: ignore[assignment]  # it holds this object: a cycle less to collect


class Parsers:
    """The parsers of all connections with the same limit.

    Args:
        max_message_size: bytes of the largest message.
        extended: whether an extension was negotiated.
    """

    def __init__(self, max_message_size: int, extended: bool) -> None:
        # The size on the wire is limited, where incompressible data grows; the connection is exact.
        self._max_size = max_message_size + (max_message_size // 8 + 64) * extended
        self.resting: list[Parser] = []

    def take(self, extensions: Sequence[Extension]) -> Parser:
        """Return a parser for one connection, with nothing in it."""
        parser = self.resting.pop() if self.resting else Parser(self._max_size)
        if extensions:
            parser.extensions = list(extensions)
        return parser

    def give_back(self, parser: Any) -> bool:
        """Let the next connection have a parser, if there is nothing in it, and return whether that is so."""
        # Not whether its buffer is empty, which it is within a frame, too.
        waits_for = parser.parser.gi_yieldfrom
        if waits_for is None or waits_for.gi_code is not BETWEEN_FRAMES:
            return False
        if parser.current_size is not None or parser.close_sent is not None:  # it drops what comes behind a close frame
            return False
        if len(self.resting) < MOST_RESTING:
            self.resting.append(parser)
        else:
            parser.end()
        return True


parsers = functools.lru_cache(maxsize=None)(Parsers)  # the sockets of a site have the same limit


__all__ = ["Parser", "Parsers", "parsers"]
