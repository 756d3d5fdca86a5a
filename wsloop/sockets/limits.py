"""The limits of a client: sizes, frames per second, and output that may wait."""

from __future__ import annotations

from time import monotonic
from typing import NamedTuple

from websockets.frames import Frame, Opcode

SHARED = 20  # times the rate of one connection is taken from all connections of a user, or of an address, together
WORTH = 4096  # bytes of a message, decompressed, that count as another frame, at the least


class Bounds(NamedTuple):
    """The limits of a client; one object for all connections with the same ones.

    Attributes:
        max_message_size: bytes of the largest accepted message, over all its fragments; a larger one closes with 1009.
        max_queued_bytes: output that may wait; over it the connection is closed with TOO_SLOW.
        rate: frames per second accepted in the long run; None: any number. A faster client is closed with TOO_MANY.
        burst: frames accepted at once.
        compress_from: bytes of the smallest message that is compressed, if compression was negotiated.
    """

    max_message_size: int
    max_queued_bytes: int
    rate: float | None = None
    burst: float = 0
    compress_from: float = 0

    @property
    def worth(self) -> float:
        """Bytes that count as another frame: as many that the largest message counts as half of ``burst`` at most."""
        return max(WORTH, 2 * self.max_message_size / self.burst if self.burst else 0)


def weight(frame: Frame, worth: float) -> float:
    """Return the number of frames that a frame counts as, because its bytes take work as well.

    Continuation frames of :data:`WORTH` bytes and more count by their bytes alone: a large message counts the same,
    however it is cut into frames, unless these are small.
    """
    size = len(frame.data)
    if frame.opcode is Opcode.CONT and size >= WORTH:
        return size / worth
    return 1 + size // worth


class Bucket:
    """Counts frames of a connection, or of all connections of a user or an address: a leaky bucket (ATM's GCRA)."""

    __slots__ = ("_used_until",)

    def __init__(self) -> None:
        self._used_until = 0.0

    def add(self, count: float, rate: float, now: float) -> None:
        """Count frames, of which ``rate`` per second may come."""
        self._used_until = max(self._used_until, now) + count / rate

    def full(self, rate: float, burst: float, now: float) -> bool:
        """Return whether more than ``burst`` frames have come beyond the rate."""
        return self._used_until > now + burst / rate


class Meter(Bucket):
    """Counts what one client sends, by itself and together with all connections of its user or address.

    Attributes:
        shared: counts the frames of all connections of the same user or address; None: they do not count together.
    """

    __slots__ = ("shared",)

    def __init__(self) -> None:
        super().__init__()
        self.shared: Bucket | None = None

    def exceeded(self, count: float, bounds: Bounds) -> bool:
        """Count frames, and return whether the client has sent more than it may."""
        if bounds.rate is None:
            return False
        now = monotonic()
        if self.shared is not None:
            self.shared.add(count, SHARED * bounds.rate, now)
        self.add(count, bounds.rate, now)
        return self.full(bounds.rate, bounds.burst, now)

    def exceeded_together(self, bounds: Bounds) -> bool:
        """Return whether all connections of the user or address have sent too much: each waits, none is closed."""
        if bounds.rate is None or self.shared is None:
            return False
        return self.shared.full(SHARED * bounds.rate, SHARED * bounds.burst, monotonic())
