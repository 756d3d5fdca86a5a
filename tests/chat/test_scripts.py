"""The tests of the scripts, ``tests/js``, run by Node's own test runner.

By hand: ``node --import ./tests/js/static-files.js --test tests/js/*.test.js``.
"""

import subprocess
from pathlib import Path

from tests.requires import need

ROOT = Path(__file__).resolve().parents[2]


def test_scripts():
    tests = sorted(map(str, (ROOT / "tests/js").glob("*.test.js")))
    assert tests
    command = [need("node"), "--import", "./tests/js/static-files.js", "--test", *tests]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
