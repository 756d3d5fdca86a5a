"""The output of a connection that waits for the kernel, bounded, and the states of a connection.

:class:`Output` is a base of :class:`wsloop.sockets.connection.Connection`, not a part of it: an object of its own would
cost each idle connection a hundred bytes, and each message a call. This module must not know sockets.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable

from wsloop import metrics
from wsloop.sockets.limits import Bounds

JOIN = 256 * 1024  # bytes joined into one write; copying more than the kernel takes at once would be in vain

logger = logging.getLogger("wsloop.connection")


# Of hubs that hold messages back, to queue consecutive ones as one: they are older than whatever is queued meanwhile.
UNSETTLED: list[Callable[[], None]] = []


def settle() -> None:
    """Have all messages queued that hubs hold back; before anything else that touches the output of a connection."""
    while UNSETTLED:
        UNSETTLED.pop()()


class State(enum.IntEnum):
    """The states of a connection, which only goes on to later ones.

    ==================  ================  ===============  ========================================
    state               messages sent     messages taken   left by
    ==================  ================  ===============  ========================================
    OPEN                yes               yes              ``close()``, the client, too much output
    ENDING              yes               those that came  the last of these messages
                                          before the end
    OVERFLOWED          dropped           yes              the next ``flush()``, which closes; the client
    ENDING_OVERFLOWED   dropped           as ENDING        as ENDING
    CLOSING             no                no               the client's close frame, or a deadline
    FINISHING           no                thrown away      the end of the stream, or a deadline
    CLOSED              no                no
    ==================  ================  ===============  ========================================

    ENDING: the parser, which is ahead, has met a close frame or a fault of the client behind messages that are not
    handled yet. FINISHING: the last frame is queued, and the end of the outgoing stream follows it.
    """

    OPEN = 0
    ENDING = 1
    OVERFLOWED = 2
    ENDING_OVERFLOWED = 3
    CLOSING = 4
    FINISHING = 5
    CLOSED = 6


OPEN, ENDING, OVERFLOWED, ENDING_OVERFLOWED, CLOSING, FINISHING, CLOSED = State  # globals are found much faster


class Output:
    """Frames that wait, in order, at most ``bounds.max_queued_bytes`` of them.

    Attributes:
        bounds: what the client may do.
        window_bits: how messages to this client may be compressed, see :func:`encode`; 0: not at all.
    """

    __slots__ = ("_latest", "_queue", "_queued_bytes", "_sent", "_state", "_writing", "bounds", "window_bits")

    def __init__(self, bounds: Bounds, window_bits: int) -> None:
        self.bounds = bounds
        self.window_bits = window_bits
        self._state: State = OPEN
        # Frames that wait; None: there are none. A single one, as of most connections that are written to, has no list
        # around it: a list for each of 10,000 would have Python collect garbage, again and again, for 0.1 s.
        self._queue: bytes | list[bytes] | None = None
        self._latest: dict[bytes, bytes] | None = None  # by channel, the frames that follow the queue; see enqueue()
        self._queued_bytes = 0
        self._sent = 0  # bytes of the first frame that the kernel has taken already
        self._writing = False  # the kernel is full, and the event loop waits until it takes more

    @property
    def accepting(self) -> bool:
        """Whether queued frames are sent; true also while messages are handled that came before a fault or a close."""
        return self._state <= ENDING

    @property
    def taking(self) -> bool:
        """Whether messages of the client are handled: it is open, or they came before the client's close frame."""
        return self._state < CLOSING

    @property
    def lagging(self) -> bool:
        """Whether the client reads too slowly, so that newer messages replace older ones where only these count."""
        return self._latest is not None or self._writing

    @property
    def queued_bytes(self) -> int:
        """The number of bytes that wait to be sent."""
        return self._queued_bytes

    @property
    def clear(self) -> bool:
        """Whether the kernel has taken all output."""
        return self._queue is None

    def enqueue(self, frame: bytes, channel: bytes | None = None) -> bool:
        """Queue an encoded frame, and return whether the caller has to call ``flush()``.

        If output waits already, and would be more than ``max_queued_bytes`` with the frame, the waiting frames are
        dropped, and the flush closes the connection with TOO_SLOW. A frame with a channel replaces an earlier one
        instead: while the kernel is full, or more than ``max_queued_bytes`` wait, only the latest frame of each such
        channel is kept.

        Args:
            frame: for the client.
            channel: on which the message came, if only the latest of its messages counts; None: the frame is never
                replaced.
        """
        if UNSETTLED:
            settle()
        return self.append(frame, channel)

    def append(self, frame: bytes, channel: bytes | None = None) -> bool:
        """Do what :meth:`enqueue` does, where all messages that are older than the frame are queued."""
        if self._state > ENDING:
            return False
        if self._queue is None:
            # Of any size: a client that has taken all earlier output is not slow.
            self._queue = frame
            self._queued_bytes = len(frame)
            return True
        size = self._queued_bytes + len(frame)
        if size > self.bounds.max_queued_bytes or channel is not None:
            return self._squeeze(frame, size, channel)
        self._queued_bytes = size
        self._frames().append(frame)
        return False

    def _frames(self) -> list[bytes]:
        """Return the frames that wait, as the list to which others may be appended."""
        queue = self._queue
        if not isinstance(queue, list):
            queue = self._queue = [] if queue is None else [queue]
        return queue

    def _squeeze(self, frame: bytes, size: int, channel: bytes | None) -> bool:
        """Queue a frame that may exceed the limit, or may have to replace an earlier one."""
        fits = size <= self.bounds.max_queued_bytes
        if channel is not None and not (fits and not self._writing and not self._latest):
            if self._latest is None:
                self._latest = {}
            if self._latest.pop(channel, None) is not None:  # the new one goes to the end, in the order of the newest
                metrics.lost("replaced")
            self._latest[channel] = frame
            return False
        self._queued_bytes = size
        if fits:
            self._frames().append(frame)
        else:
            self._overflow()
        return not fits

    def _queue_latest(self) -> None:
        """Append the latest messages to the queue."""
        if self._latest:
            frames, latest, self._latest = self._frames(), self._latest.values(), None
            frames += latest
            self._queued_bytes += sum(map(len, latest))

    def _head(self) -> bytes:
        """Return the first waiting bytes, joined."""
        queue = self._frames()
        if self._queued_bytes > JOIN:
            size = count = 0
            while size < JOIN and count < len(queue):
                size += len(queue[count])
                count += 1
            queue = queue[:count]
        data = b"".join(queue)
        return data[self._sent :] if self._sent else data

    def _taken(self, count: int) -> None:
        """Drop the frames of which the kernel has taken the last byte; at least one is left."""
        queue = self._frames()
        self._queued_bytes -= count
        count += self._sent
        done = 0
        while count >= len(queue[done]):
            count -= len(queue[done])
            done += 1
        del queue[:done]
        self._sent = count

    def _overflow(self) -> None:
        # A frame that is partly sent must be completed, or the client could not read the close frame after it.
        rest = self._frames()[:1] if self._sent else []
        self._queue = rest or None
        self._queued_bytes = sum(map(len, rest)) - self._sent
        self._state = OVERFLOWED if self._state is OPEN else ENDING_OVERFLOWED
        metrics.reached("MAX_QUEUED_BYTES")
        logger.info("Closed a slow client: %d bytes waited to be sent", self.bounds.max_queued_bytes)


__all__ = [
    *("CLOSED", "CLOSING", "ENDING", "ENDING_OVERFLOWED", "FINISHING", "OPEN", "OVERFLOWED"),
    *("UNSETTLED", "Output", "State", "settle"),
]
