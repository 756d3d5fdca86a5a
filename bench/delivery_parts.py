"""The parts of ``make bench`` about messages on their way out, each with a record of its own.

Responsible for who takes part and how much is measured. Servers run from the beginning of a part to its end, and a
round measures each of them once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench import doors, lineup
from bench.apart import Apart
from bench.clients import Stalled
from bench.crowd import Crowd
from bench.deliveries import PACED, SIZE
from bench.lineup import Contender, Ground
from bench.record import Record, interleaved

NAMES = "burst", "listeners", "users", "doors"


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: of each part.
        listeners: sockets of messages one at a time; the first number is that of bursts and doors, too.
        users: number of users.
        seconds: after which no further message is sent one at a time.
        paced: most messages that are.
    """

    rounds: int = 5
    listeners: tuple[int, ...] = (1000, 10_000)
    users: int = 10_000
    seconds: float = 2.0
    paced: int = PACED


QUICK = Plan(rounds=1, listeners=(20, 50), users=20, seconds=0.1, paced=5)


class Field:
    """The contenders of one part, with the sockets of each in a process of its own.

    Args:
        kinds: who takes part.
        ground: what they share.
        record: of the rounds, and of what is missing, and why.
        say: told about progress.
    """

    def __init__(
        self, kinds: Sequence[type[Contender]], ground: Ground, record: Record, say: Callable[[str], object]
    ) -> None:
        self._kinds, self._ground, self._record, self._say = kinds, ground, record, say
        self._stack = contextlib.ExitStack()
        self._crowds: dict[str, Apart] = {}

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            for kind in self._kinds:
                with self._noting(kind.name):
                    contender = kind(self._ground)
                    stack.callback(contender.stop)
                    self._crowds[kind.name] = stack.enter_context(Apart(functools.partial(Crowd, contender)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        """Note the error that ends the block."""
        try:
            yield
        except (RuntimeError, OSError, Stalled, AssertionError) as exc:
            self._record.missing[name] = f"not measured, {(str(exc).strip() or repr(exc)).splitlines()[-1]}"
            self._say(f"  {name}: {self._record.missing[name]}")

    def all(self, method: str, *arguments: object) -> None:
        """Have all crowds do the same, one after the other."""
        for name in self._left():
            with self._noting(name):
                self._say(f"  {name}: {method} {arguments[0]}, {self._crowds[name](method, *arguments):.1f} s")

    def rounds(self, count: int, method: str, *arguments: object, **of: Any) -> None:
        """Have the crowds do something in turn, round after round, and record what they return as rows with ``of``."""
        for number, name in interleaved(count, self._left()):
            if name in self._record.missing:
                continue
            with self._noting(name):
                figures = self._crowds[name](method, *arguments)
                self._record.rows.append({"server": name, **of, "round": number, **figures})
                self._say(f"  {name}: {figures['rate']:,} a second, {figures['cpu']:.2f} µs")

    def _left(self) -> list[str]:
        return [name for name in self._crowds if name not in self._record.missing]


class Parts:
    """The parts. Args: see :class:`Field`."""

    def __init__(self, ground: Ground, plan: Plan, say: Callable[[str], object]) -> None:
        self._ground, self._plan, self._say = ground, plan, say

    def measure(self, name: str) -> Record:
        """Measure one of ``NAMES``."""
        self._say(f"deliveries: {name}")
        return {"burst": self.burst, "listeners": self.listeners, "users": self.users, "doors": self.doors}[name]()

    def burst(self) -> Record:
        """Measure messages that are published at once, to all sockets."""
        record = self._record("burst", listeners=self._plan.listeners[0])
        with self.field([*lineup.OWN, lineup.Loop, lineup.JoinedLoop, *lineup.PEERS], record) as field:
            field.all("listen", self._plan.listeners[0])
            field.rounds(self._plan.rounds, "burst")
        return record

    def listeners(self) -> Record:
        """Measure messages that are published one at a time, to all sockets, of which there are more and more."""
        record = self._record("listeners", seconds=self._plan.seconds)
        with self.field([*lineup.OWN, lineup.Loop, *lineup.PEERS], record) as field:
            for sockets in self._plan.listeners:
                field.all("listen", sockets)
                field.rounds(self._plan.rounds, "paced", self._plan.paced, self._plan.seconds, sockets=sockets)
        return record

    def users(self) -> Record:
        """Measure messages to one user each, all at once."""
        record = self._record("users", users=self._plan.users)
        with self.field([lineup.Wsloop, *lineup.PEERS], record) as field:
            field.all("users", self._plan.users)
            field.rounds(self._plan.rounds + 1, "addressed")
        record.rows = [row for row in record.rows if row["round"]]  # the first round warms them up
        return record

    def doors(self) -> Record:
        """Measure wsloop behind proxies and under gunicorn, beside the same worker alone."""
        record = self._record("doors", listeners=self._plan.listeners[0], seconds=self._plan.seconds)
        with self.field(doors.DOORS, record) as field:
            field.all("listen", self._plan.listeners[0])
            field.rounds(self._plan.rounds, "burst", kind="burst")
            field.rounds(self._plan.rounds, "paced", self._plan.paced, self._plan.seconds, kind="paced")
        return record

    def field(self, kinds: Sequence[type[Contender]], record: Record) -> Field:
        """Return a field of those of ``kinds`` whose packages are there, and note why those of others are not."""
        present = []
        for kind in kinds:
            packages = self._ground.packages(kind)
            if packages and packages.missing:
                record.missing[kind.name] = f"could not be installed, {packages.missing}"
            elif packages or not kind.needs:
                present.append(kind)
        used = [each for each in (self._ground.peers, self._ground.node) if each in map(self._ground.packages, present)]
        record.peers = ", ".join(each.versions() for each in used if each)
        return Field(present, self._ground, record, self._say)

    def _record(self, part: str, **plan: object) -> Record:
        about = {"rounds": self._plan.rounds, "size": SIZE, **plan}
        return Record(part, f"make bench-deliveries PART={part}", about)
