"""Tests and measurements stand side by side on the testbed: what each part of the checkout may import."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("part", "others", "but_for"),
    [
        ("wsloop", "testbed|bench|tests", None),
        ("chat", "testbed|bench|tests", None),
        ("project", "testbed|bench|tests|tools", None),
        ("tools", "testbed|bench|tests|project|chat|wsloop", None),
        ("testbed", "bench|tests", None),
        ("bench", "tests", None),
        ("tests", "bench", "tests/bench"),  # the tests of the measurements themselves
    ],
)
def test_a_part_does_not_know_what_stands_above_or_beside_it(part, others, but_for):
    imported = re.compile(rf"""^\s*(?:from|import) (?:{others})\b|["'](?:{others})\.\w+["'.]""", re.MULTILINE)
    files = [path for path in (ROOT / part).rglob("*.py") if but_for is None or ROOT / but_for not in path.parents]
    assert files
    assert {path.name: found for path in files if (found := imported.findall(path.read_text()))} == {}
