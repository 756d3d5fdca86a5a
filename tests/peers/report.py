"""What became of the tests of the peers: for who has run them, and for a page of the documentation."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import platform
import subprocess
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.processes import ROOT
from tests.peers.expected import DIFFERENT, KINDS, MISSING, NOT_APPLICABLE, Entry, Expected
from tests.peers.suites import Suite

PAGE = ROOT / "docs/reference/channels-tests.rst"
PAGES = {"ws4redis": ROOT / "docs/reference/ws4redis-tests.rst"}  # of other peers
OUTCOMES = ("passed", *KINDS)
HEADINGS = {DIFFERENT: "Different on purpose:", MISSING: "Missing:", NOT_APPLICABLE: "Not applicable:"}
PACKAGES = ("channels", "channels_redis", "asgiref", "Django", "gevent", "pyuwsgi")
OF_CHANNELS = {"channels", "channels_redis", "asgiref"}
BEGIN, END = ".. results: begin", ".. results: end"


@dataclasses.dataclass
class Result:
    """What became of the tests of one suite."""

    suite: Suite
    expected: Expected
    outcomes: Mapping[str, str]

    @property
    def problems(self) -> list[str]:
        """What is not as the list says."""
        return self.expected.problems(self.outcomes)

    def kind(self, test: str) -> str:
        """Return what became of a test, in a word or two."""
        entry = self.expected.of(test)
        return entry.kind if entry is not None else "passed" if self.outcomes[test] == "passed" else "failed"

    def summary(self) -> str:
        """Return the numbers, and the problems."""
        counts = Counter(map(self.kind, self.outcomes))
        numbers = ", ".join(f"{counts[kind]} {kind}" for kind in (*OUTCOMES, "failed") if counts[kind])
        return "\n".join([f"{self.suite.title}: {numbers or 'no tests'}", *(f"  {each}" for each in self.problems)])

    def section(self) -> str:
        """Return the part of the page for this suite."""
        modules: dict[str, Counter[str]] = {}
        for test in self.outcomes:
            modules.setdefault(_short(test).partition("::")[0], Counter())[self.kind(test)] += 1
        rows = [[f"``{name}``", *(counts[kind] for kind in OUTCOMES)] for name, counts in sorted(modules.items())]
        rows.append(["all", *(sum(counts[kind] for counts in modules.values()) for kind in OUTCOMES)])
        parts = [f"{self.suite.title}\n{'-' * len(self.suite.title)}", _table(["tests", *OUTCOMES], rows)]
        for kind, heading in HEADINGS.items():
            entries = [entry for entry in self.expected.entries if entry.kind == kind]
            parts += [heading, "\n".join(map(_reason, entries))] if entries else []
        return "\n\n".join(parts)


def _short(test: str) -> str:
    return test.removeprefix("tests/")


def _reason(entry: Entry) -> str:
    names = ", ".join(f"``{_short(test)}``" for test in entry.tests)
    return _filled(f"- {' '.join(entry.reason.split())} Tests: {names}.", indent="  ")


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    rule = "  ".join("=" * width for width in widths)
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()  # numbers are flush right
        for row in cells
    ]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def _circumstances(checkouts: Mapping[str, Path]) -> str:
    """Return when, and with what, the tests were run."""
    tests = [
        f"{name} {_git(checkout, 'describe', '--tags', '--always')}"
        for name, checkout in checkouts.items()
        if checkout is not None
    ]
    packages = [each for each in PACKAGES if "channels" in checkouts or each not in OF_CHANNELS]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return _filled(
        f"Run on {datetime.date.today()} on Python {platform.python_version()} with {versions}; tests of "
        f"{' and '.join(tests)}."
    )


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "of unknown version"


def page_of(suite: Suite) -> Path:
    """Return the page of the documentation for a suite."""
    return PAGES.get(suite.peer, PAGE)


def write(results: Sequence[Result], checkouts: Mapping[str, Path], page: Path | None = None) -> None:
    """Put the results into a page, by default that of the documentation, between its markers."""
    page = page or page_of(results[0].suite)
    peers = {result.suite.peer for result in results}
    checkouts = {name: checkout for name, checkout in checkouts.items() if name in peers}
    before, found, rest = page.read_text().partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise RuntimeError(f"{page} has no lines {BEGIN!r} and {END!r}")
    text = "\n\n".join([_circumstances(checkouts), *(result.section() for result in results)])
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
