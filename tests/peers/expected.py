"""The list of what does not pass in the tests of a peer, and why: ``expected.toml``.

An entry of the list names tests by their ids, or all tests of a module or a function by its id.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found]  # which pytest brings

DIFFERENT, MISSING, NOT_APPLICABLE = "different", "missing", "not applicable"
KINDS = (DIFFERENT, MISSING, NOT_APPLICABLE)


@dataclasses.dataclass(frozen=True)
class Entry:
    """Some tests and what is true of all of them.

    Attributes:
        kind: ``DIFFERENT``: they are run, and fail on purpose; ``MISSING``: they are run, and fail, but should pass;
            ``NOT_APPLICABLE``: they are not run.
        reason: for the documentation, in reStructuredText.
        tests: their ids.
    """

    kind: str
    reason: str
    tests: tuple[str, ...]


class Expected:
    """The list of one suite."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = list(entries)

    @classmethod
    def read(cls, path: Path, suite: str) -> Expected:
        """Return the list of a suite.

        Raises:
            ValueError: if an entry is incomplete.
        """
        with path.open("rb") as file:
            found = tomllib.load(file).get(suite, [])
        entries = [Entry(each.get("kind", ""), each.get("reason", "").strip(), tuple(each["tests"])) for each in found]
        for entry in entries:
            if entry.kind not in KINDS or not entry.reason or not entry.tests:
                raise ValueError(f"{path}: an entry needs tests, a reason, and a kind, one of {', '.join(KINDS)}")
        return cls(entries)

    @property
    def not_applicable(self) -> list[str]:
        """The tests that are not run."""
        return [test for entry in self.entries if entry.kind == NOT_APPLICABLE for test in entry.tests]

    def of(self, test: str) -> Entry | None:
        """Return the entry for a test."""
        return next((entry for entry in self.entries if any(covers(each, test) for each in entry.tests)), None)

    def problems(self, outcomes: Mapping[str, str]) -> list[str]:
        """Return what is not as the list says, a line each.

        Args:
            outcomes: by the id of a test, "passed", "not run", or how it failed.
        """
        found = [] if outcomes else ["no test was found"]
        for test, outcome in outcomes.items():
            entry = self.of(test)
            if entry is None and outcome != "passed":
                found.append(f"failed: {test}: {outcome}")
            elif entry is not None and entry.kind != NOT_APPLICABLE and outcome == "passed":
                found.append(f"the list is stale, this passes: {test}")
        named = [each for entry in self.entries for each in entry.tests]
        gone = [each for each in named if not any(covers(each, test) for test in outcomes)]
        return found + [f"the list is stale, there is no such test: {each}" for each in gone]


def covers(name: str, test: str) -> bool:
    """Return whether a name in the list is that of this test, or of its function, class, module or folder."""
    return test == name or test.startswith((f"{name}/", f"{name}::", f"{name}["))
