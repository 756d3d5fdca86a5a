"""The states of a consumer's socket.

========== =============================================== ========== ==================================================
State      Event                                           Next state Effect
========== =============================================== ========== ==================================================
CONNECTING accept()                                        OPENING    the handshake is answered
CONNECTING close(), an exception, or connect() returns     LEFT       the handshake is refused
           without a decision
CONNECTING the client leaves, or the handshake times out   LEFT
CONNECTING send()                                          unchanged  raises RuntimeError
OPENING    the 101 is out                                  OPEN       the connection is closed if close() came before
OPENING    close(), or an exception in a handler           unchanged  remembered until the 101 is out
OPENING    the client leaves                               LEFT       accept() raises Disconnected
OPENING    send()                                          unchanged  raises RuntimeError
OPEN       close(), or an exception in a handler           LEFT       the connection is closed
OPEN       the client leaves                               LEFT
OPEN       the client has hung up, but the inbox is full,  HUNG_UP    a running handler is ended as in LEFT
           so that what it has sent is not all read
HUNG_UP    all of it has been read, or close()             LEFT
HUNG_UP,   send()                                          unchanged  raises Disconnected
LEFT
not        accept()                                        unchanged  raises RuntimeError, in LEFT Disconnected
CONNECTING
========== =============================================== ========== ==================================================

In LEFT nothing but ``websocket.disconnect`` and the messages before it reach the consumer. :mod:`wsloop.runtime.core`
carries the transitions out. This module must not know anything else of wsloop.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    CONNECTING = enum.auto()
    OPENING = enum.auto()
    OPEN = enum.auto()
    HUNG_UP = enum.auto()
    LEFT = enum.auto()


CONNECTING, OPENING, OPEN, HUNG_UP, LEFT = State  # globals are found much faster than members of a class

__all__ = ["CONNECTING", "HUNG_UP", "LEFT", "OPEN", "OPENING", "State"]
