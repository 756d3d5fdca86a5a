"""What arrives for a socket while it is being set up, and what it is sent first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wsloop.protocol.dialects import Dialect
from wsloop.protocol.messages import Message


class JoinBuffer:
    """What arrives on ``channels`` for a socket that is not open yet.

    Attributes:
        channels: the channels it will be subscribed to.
        messages: pairs of channel and message, in order.
        too_much: more has arrived than one connection may hold; the socket must be refused.
        lost: messages of a channel were lost meanwhile; the socket must be refused.
    """

    __slots__ = ("_bound", "_size", "channels", "lost", "messages", "too_much")

    def __init__(self, channels: Iterable[bytes], bound: int) -> None:
        self.channels = tuple(channels)
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

    def retained(self, persisted: Sequence[tuple[bytes | None, bytes]], count: int) -> list[tuple[bytes, Message]]:
        """Return those of the kept messages that are not among those which have been published meanwhile.

        Args:
            persisted: pairs of channel (None if unknown) and kept message, read while joining.
            count: how many of ``messages`` had been delivered when ``persisted`` was read, at the least. A kept
                message that is among them is the same one; later equal ones are others.
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


class InitialFrames:
    """What a socket is sent before it is a member of its channels, in its dialect, nothing twice.

    Args:
        dialect: what it speaks.
        known: ids of messages that it has already; those of added ones are put into it.
    """

    def __init__(self, dialect: Dialect, known: set[str]) -> None:
        self._dialect = dialect
        self._known = known
        self.texts: list[bytes] = []

    def tell(self, text: bytes | None) -> None:
        """Add something that is no message; None is nothing."""
        if text is not None:
            self.texts.append(text)

    def add(self, channel: bytes, message: Message, kept: bool = False) -> None:
        """Add a message, unless it was published to several channels and the socket has it by way of another one."""
        if message.id and message.id in self._known:
            self.tell(self._dialect.position(channel, message))
            return
        if message.id:
            self._known.add(message.id)
        self.tell(self._dialect.message(channel, message, kept=kept))
