"""The account of numbered messages: what each client was sent, and whether anything is missing without a word.

It must not know where the messages come from.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection

Audience = tuple[str, "str | None"]  # broadcast, user and so on, and the name of the user


class Stream:
    """What one client has of one stream of numbered messages: 1, 2, 3, …"""

    __slots__ = ("audience", "disorder", "duplicates", "last", "repeated", "told", "told_lost", "unexplained")

    def __init__(self) -> None:
        self.last = 0
        self.audience: Audience | None = None
        self.told = False  # a loss was told after ``last``
        self.told_lost: list[tuple[int, int]] = []  # first and last number
        self.unexplained: list[tuple[int, int]] = []
        self.duplicates: list[int] = []
        self.disorder: list[int] = []
        self.repeated: list[
            int
        ] = []  # came again after a loss had been told: a new Redis does not know what the old one took

    def message(self, number: int) -> None:
        if number > self.last:
            self._missing(number - 1)
            self.last, self.told = number, False
        elif any(first <= number <= last for first, last in self.told_lost + self.unexplained):
            self.disorder.append(number)
        elif self.told:
            self.repeated.append(number)
        else:
            self.duplicates.append(number)

    def _missing(self, until: int) -> None:
        if until > self.last:
            (self.told_lost if self.told else self.unexplained).append((self.last + 1, until))

    def end(self, last: int) -> None:
        """Close the account: no message after ``last`` was published."""
        self._missing(last)
        self.last = max(self.last, last)


class Ledger:
    """What one client was sent: ``delivered`` counts messages, ``told`` how often it was told of a loss."""

    def __init__(self) -> None:
        self.streams: collections.defaultdict[str, Stream] = collections.defaultdict(Stream)
        self.delivered = self.told = 0

    def message(self, name: str, number: int, audience: Audience | None) -> None:
        stream = self.streams[name]
        stream.audience = audience
        stream.message(number)
        self.delivered += 1

    def lost(self, audience: Audience | None = None, streams: Collection[str] | None = None) -> None:
        """Note that a loss was told, for one audience or for all, of some streams or of all."""
        self.told += 1
        for name, stream in self.streams.items():
            # Of a stream that has brought nothing yet the audience is not known.
            if audience in (None, stream.audience) or stream.audience is None:
                stream.told = stream.told or streams is None or name in streams


@dataclasses.dataclass
class Verdict:
    """The accounts of all clients, added up. Ranges are counted by their messages."""

    clients: int = 0
    complete: int = 0
    delivered: int = 0
    recovered: int = 0
    told_lost: int = 0
    unexplained: int = 0
    duplicates: int = 0
    disorder: int = 0
    repeated: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)  # in words, for the report of a failure

    def __str__(self) -> str:
        counts = {name: value for name, value in dataclasses.asdict(self).items() if name != "faults"}
        return "\n".join([str(counts), *self.faults[:20]])

    @property
    def honest(self) -> bool:
        """Whether each client has everything, once and in order, or was told that it has not."""
        return not (self.unexplained or self.duplicates or self.disorder)

    @property
    def whole(self) -> bool:
        """Whether each client has everything, once and in order."""
        return self.honest and self.complete == self.clients
