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
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    failed = "\n".join(line.strip() for line in run.stdout.splitlines() if line.lstrip().startswith("not ok"))
    assert run.returncode == 0, f"{failed}\n{run.stdout}{run.stderr}"
