"""The messages that arrive for a socket while it is being set up, and the frames that it gets first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from wsloop.protocol.dialects import Dialect, missed
from wsloop.protocol.messages import Message

if TYPE_CHECKING:
    from wsloop.sockets.connection import Connection

SHARED = 2048  # bytes of a message that is encoded once for all who have missed it: a thousand of them are remembered


class JoinBuffer:
    """Buffers the messages on ``channels`` for a socket that is not open yet.

    Attributes:
        channels: to which the socket will be subscribed.
        latest_only: those of which a slow client gets the latest message only.
        messages: pairs of channel and message, in order.
        too_much: more has arrived than one connection may hold; the socket must be refused.
        lost: messages of a channel were lost meanwhile; the socket must be refused.
    """

    __slots__ = ("_bound", "_size", "channels", "latest_only", "lost", "messages", "too_much")

    def __init__(self, channels: Iterable[bytes], bound: int, latest_only: Collection[bytes] = ()) -> None:
        self.channels = tuple(channels)
        self.latest_only = latest_only
        self.messages: list[tuple[bytes, Message]] = []
        self.too_much = False
        self.lost = False
        self._bound = bound
        self._size = 0

    def add(self, channel: bytes, message: Message) -> None:
        self._size += len(message.payload)
        self.too_much = self.too_much or self._size > self._bound
        if not self.too_much:
            self.messages.append((channel, message))

    def keep(self, channels: Collection[bytes]) -> None:
        """Drop all channels but these, with their messages."""
        self.channels = tuple(channels)
        self.messages = [each for each in self.messages if each[0] in channels]
        self.too_much = self.too_much and bool(channels)

    def drop(self, channels: Collection[bytes]) -> None:
        """Drop the messages of these channels."""
        self.messages = [each for each in self.messages if each[0] not in channels]

    def retained(self, persisted: Sequence[tuple[bytes | None, bytes]], count: int) -> list[tuple[bytes, Message]]:
        """Return the retained messages without those that are in this buffer as well.

        Args:
            persisted: pairs of channel (None if unknown) and retained message, read while joining.
            count: number of ``messages`` that had been delivered when ``persisted`` was read, at least. A retained
                message that equals one of them is the same message; equal ones after them are different messages.
        """
        known = self.messages[:count]
        retained = []
        for channel, payload in persisted:
            twin = next((one for one in known if one[1].payload == payload and channel in (one[0], None)), None)
            if twin is None:
                retained.append((channel or b"", Message(payload)))
            elif channel is None:
                known.remove(twin)
        return retained


class SharedPayloads:
    """Payloads of one dialect that many connections get in a row: encoded and joined once for all of a kind."""

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self._payloads = payloads
        self._frames: dict[tuple[int, float], bytes] = {}

    def __len__(self) -> int:
        return len(self._payloads)

    def frames(self, connection: Connection) -> bytes:
        """Return them as they are sent to a connection."""
        kind = connection.window_bits, connection.bounds.compress_from
        found = self._frames.get(kind)
        if found is None:
            found = self._frames[kind] = b"".join([connection.frame(each) for each in self._payloads])
        return found


Payload = bytes | SharedPayloads


class InitialFrames:
    """The frames that a socket gets before it is a subscriber, in its dialect and without duplicates.

    Args:
        dialect: of the socket.
        known: ids of messages that the client has already; ids of added messages are put into it.
    """

    def __init__(self, dialect: Dialect, known: set[str]) -> None:
        self.dialect = dialect
        self.known = known
        self.payloads: list[Payload] = []

    def add_text(self, text: bytes | None) -> None:
        """Add a frame that is not a message; None adds nothing."""
        if text is not None:
            self.payloads.append(text)

    def add(self, channel: bytes, message: Message, retained: bool = False) -> None:
        """Add a message, or only its position if the client has the message from another channel already."""
        if message.id and message.id in self.known:
            self.add_text(self.dialect.position(channel, message))
            return
        if message.id:
            self.known.add(message.id)
        if retained or len(message.payload) > SHARED:
            self.add_text(self.dialect.message(channel, message, kept=retained))
        else:
            self.add_text(missed(self.dialect, channel, message))
