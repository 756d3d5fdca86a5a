"""``python -m tests``: all tests, or those that the arguments name to pytest; what ``make test`` runs.

``tests/unit`` and ``tests/property`` need a process that gevent has patched from its first line on, everything else one
that it has not: pytest runs twice, and the closing line adds both up.
"""

import re
import subprocess
import sys
import time
from collections import Counter

IN_PATCHED = ("tests/unit", "tests/property")
PATCHED = [sys.executable, "-m", "gevent.monkey", "--module", "pytest"]
PLAIN = [sys.executable, "-m", "pytest"]
CLOSING_LINE = re.compile(r"(?:=+ )?(\d+ [a-z].*) in [\d.]+s\b")
NO_TESTS_COLLECTED = 5  # pytest's exit code, which is no failure where the other run had some


def run(command):
    """Run pytest, passing its output on, and return its exit code and what its closing line counts."""
    if sys.stdout.isatty():
        command = [*command, "--color=yes"]
    counts = Counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as pytest:
        for line in pytest.stdout:
            print(line, end="", flush=True)
            if closing := CLOSING_LINE.match(re.sub(r"\x1b\[[\d;]*m", "", line)):
                counts = Counter({word: int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", closing[1])})
    return pytest.returncode, counts


def commands(arguments):
    """Split what pytest is to run between the two kinds of process; options go to both."""
    paths = [argument for argument in arguments if argument.startswith("tests")]
    options = [argument for argument in arguments if argument not in paths]
    patched = [path for path in paths if path.startswith(IN_PATCHED)]
    other = [path for path in paths if path not in patched]
    if not paths or "tests" in other:
        patched, other = list(IN_PATCHED), ["tests", *(f"--ignore={path}" for path in IN_PATCHED)]
    if patched:
        yield [*PATCHED, *patched, *options]
    if other:
        yield [*PLAIN, *other, *options]


def main(arguments):
    began, total, codes = time.monotonic(), Counter(), []
    for command in commands(arguments):
        code, counts = run(command)
        codes.append(code)
        total += counts
    if len(codes) > 1:
        summary = ", ".join(f"{number} {word}" for word, number in total.items()) or "no tests ran"
        print(f" {summary} in {time.monotonic() - began:.2f}s ".center(80, "="), flush=True)
    failed = [code for code in codes if code not in (0, NO_TESTS_COLLECTED)]
    return failed[0] if failed else min(codes)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
