"""What a part of the measurements has measured: its figures round by round, and where, when and with what.

A record is kept as JSON beside the page that shows it, and everything in its tables and plots comes from there: they
can be made again without measuring. It must not know how anything is measured, or how it is shown.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

KEPT = Path(__file__).resolve().parent.parent / "docs/reference/measured"
PACKAGES = "Django", "gevent", "websockets", "hiredis"  # whose versions matter, beside Python, uWSGI and Redis


class Spread(NamedTuple):
    """A figure of several rounds."""

    median: float
    low: float
    high: float


def machine() -> dict[str, str]:
    """Return the date, and names of the processor, the system and the versions of what is always measured."""
    processors = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    uwsgi = [str(Path(sys.executable).parent / "uwsgi"), "--version"]
    uwsgi_version = subprocess.run(uwsgi, capture_output=True, text=True, check=True).stdout.strip()
    redis = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=False).stdout
    versions = [f"Python {platform.python_version()}", f"uWSGI {uwsgi_version}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    versions += [f"Redis {version}" for version in re.findall(r"v=(\S+)", redis)]
    return {
        "date": str(datetime.date.today()),
        "processor": f"{os.cpu_count()} cores of {processors[0] if processors else platform.machine()}",
        "system": f"Linux {platform.release().partition('-')[0]}",
        "versions": ", ".join(versions),
    }


@dataclasses.dataclass
class Record:
    """The figures of one part.

    Attributes:
        part: its name, and that of its file.
        command: that measures it.
        plan: how much was measured.
        rows: for each round and each thing that is compared: what it was (``server``, ``sockets``, …) and its figures.
        missing: why something could not be measured, by its name.
        peers: names and versions of what wsloop is compared with.
        machine: see :func:`machine`.
    """

    part: str
    command: str
    plan: dict[str, Any]
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    peers: str = ""
    machine: dict[str, str] = dataclasses.field(default_factory=machine)

    def names(self, key: str = "server", /, **of: object) -> list[Any]:
        """Return the different values that ``key`` has in the rows with the values ``of``, the first one first."""
        return list(dict.fromkeys(row[key] for row in self.select(of)))

    def select(self, of: Mapping[str, object]) -> Iterator[dict[str, Any]]:
        """Return the rows that have the values ``of``."""
        return (row for row in self.rows if all(row.get(key) == value for key, value in of.items()))

    def spread(self, figure: str, /, **of: object) -> Spread | None:
        """Return a figure of the rows with the values ``of``; None if none of them has it."""
        found = [row[figure] for row in self.select(of) if figure in row]
        return Spread(statistics.median(found), min(found), max(found)) if found else None

    def keep(self, directory: Path = KEPT) -> None:
        """Write the record to its file: each row is a line, so that two records can be compared."""
        about = {name: value for name, value in dataclasses.asdict(self).items() if name != "rows"}
        lines = ",\n".join(json.dumps(row) for row in self.rows)
        directory.mkdir(exist_ok=True)
        text = f'{json.dumps(about, indent=1)[:-2]},\n "rows": [\n{lines}\n]}}\n'
        (directory / f"{self.part}.json").write_text(text)

    @classmethod
    def kept(cls, part: str, directory: Path = KEPT) -> Record | None:
        """Return the record of a part; None if there is none yet."""
        path = directory / f"{part}.json"
        return cls(**json.loads(path.read_text())) if path.exists() else None


def interleaved(rounds: int, names: list[str]) -> Iterator[tuple[int, str]]:
    """Return rounds in which each of ``names`` has its turn, so that other load of the machine meets all of them."""
    return ((number, name) for number in range(rounds) for name in names)
