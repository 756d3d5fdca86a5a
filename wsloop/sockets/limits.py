"""The limits of a client: sizes, frames per second, and output that may wait.

Two things are counted. Frames: a client that sends more of them than it may is closed. And work beyond that, for bytes,
fragments, and the commands of a list: a client may cause any amount, but what it sends next is read when its time has
come. So no message closes a socket by its size, or by the way in which it is cut into frames.
"""

from __future__ import annotations

from collections.abc import Iterable
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
            As much work is done per second; a client that causes more waits.
        burst: frames accepted at once, and work.
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


class Load(NamedTuple):
    """What frames of a client count as.

    Attributes:
        frames: those that close a client which sends too many: messages and control frames, and fragments without a
            byte, of which one message could have any number.
        work: what their bytes count as, in frames.
        fragments: other fragments of less than :data:`WORTH` bytes.
    """

    frames: int
    work: float
    fragments: int


def load(frames: Iterable[Frame], worth: float) -> Load:
    """Return what frames count as; ``worth`` bytes, decompressed, count as one."""
    count = fragments = 0
    work = 0.0
    for frame in frames:
        size = len(frame.data)
        if frame.opcode is not Opcode.CONT:
            count += 1
            work += size // worth
        elif size:
            work += size / worth
            fragments += size < WORTH
        else:
            count += 1
    return Load(count, work, fragments)


ONE = Load(1, 0.0, 0)  # a control frame without payload


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
        shared: counts what all connections of the same user or address send; None: they do not count together.
    """

    __slots__ = ("_work", "shared")

    def __init__(self) -> None:
        super().__init__()
        self._work: Bucket | None = None  # most clients cause none
        self.shared: Bucket | None = None

    def exceeded(self, load: Load, bounds: Bounds) -> bool:
        """Count frames, and return whether the client has sent more of them than it may."""
        if bounds.rate is None:
            return False
        now = monotonic()
        if self.shared is not None:
            self.shared.add(sum(load), SHARED * bounds.rate, now)
        if load.work or load.fragments:
            # Fragments cause no message: the server takes as many of them as frames of all the client's connections.
            self._charge(load.work + load.fragments / SHARED, bounds.rate, now)
        self.add(load.frames, bounds.rate, now)
        return self.full(bounds.rate, bounds.burst, now)

    def charge(self, count: float, bounds: Bounds) -> None:
        """Count work that a message causes, as so many frames."""
        if bounds.rate is None or not count:
            return
        now = monotonic()
        if self.shared is not None:
            self.shared.add(count, SHARED * bounds.rate, now)
        self._charge(count, bounds.rate, now)

    def _charge(self, count: float, rate: float, now: float) -> None:
        if self._work is None:
            self._work = Bucket()
        self._work.add(count, rate, now)

    def must_wait(self, bounds: Bounds) -> bool:
        """Return whether the client, or all connections of its user or address, have caused too much work."""
        if bounds.rate is None:
            return False
        if self._work is not None and self._work.full(bounds.rate, bounds.burst, monotonic()):
            return True
        return self.shared is not None and self.shared.full(SHARED * bounds.rate, SHARED * bounds.burst, monotonic())
