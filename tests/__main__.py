"""``python -m tests``: all tests, or those that the arguments name to pytest; what ``make test`` runs.

``tests/unit`` and ``tests/property`` need a process that gevent has patched from its first line on, everything else one
that it has not. Several processes of both kinds run side by side (``side_by_side.py``). With options for which one
process must see everything, ``-x`` and ``-s`` among them, or with ``TEST_JOBS=1``, there is one of each kind, one after
the other. The closing line adds all up.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.requires import must_have_everything
from tests.side_by_side import NO_TESTS_COLLECTED, Run, in_words

IN_PATCHED = ("tests/unit", "tests/property")
PYTHON = [sys.executable, "-X", "faulthandler"]  # pytest's own does not see what hangs when it has ended
PATCHED = [*PYTHON, "-m", "gevent.monkey", "--module", "pytest"]
PLAIN = [*PYTHON, "-m", "pytest"]
AS_WORKER = ["-p", "tests.worker", "-p", "no:cacheprovider"]
CLOSING_LINE = re.compile(r"(?:=+ )?(\d+ [a-z].*) in [\d.]+s\b")
PATCHED_JOBS, PLAIN_JOBS = 2, 5  # on two cores, for tests wait more than half of their time
LIMIT = 45 * 60  # seconds that a run of CI may take, on a slow day of its machine


def parse(arguments):
    """What is to run (``paths``), options that several processes can heed (``kept``) and those that one must see."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-k")
    parser.add_argument("-m")
    parser.add_argument("--durations", type=int, metavar="N", help="name the N slowest parts of tests, or all: 0")
    parser.add_argument("--write-durations", action="store_true", help="keep how long each module takes")
    options, rest = parser.parse_known_args(arguments)
    options.paths = [argument for argument in rest if argument.startswith("tests")]
    options.kept = [part for name in "km" if (value := getattr(options, name)) for part in (f"-{name}", value)]
    options.other = [argument for argument in rest if argument not in options.paths]
    return options


def kinds(paths):
    """Split what is to run between the two kinds of process: command and paths of each."""
    patched = [path for path in paths if path.startswith(IN_PATCHED)]
    other = [path for path in paths if path not in patched]
    if not paths or any(path.rstrip("/") == "tests" for path in other):
        patched, other = list(IN_PATCHED), ["tests", *(f"--ignore={path}" for path in IN_PATCHED)]
    return [(command, paths) for command, paths in ((PATCHED, patched), (PLAIN, other)) if paths]


def modules(paths):
    """How many modules are below ``paths``."""
    places = {path.partition("::")[0] for path in paths if not path.startswith("-")}
    return sum(1 if place.endswith(".py") else len(list(Path(place).rglob("test_*.py"))) for place in places)


# --- one after the other --------------------------------------------------------------------------------------------


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


def one_after_the_other(commands):
    began, total, codes = time.monotonic(), Counter(), []
    for command in commands:
        code, counts = run(command)
        codes.append(code)
        total += counts
    if len(codes) > 1:
        print(f" {in_words(total)} in {time.monotonic() - began:.2f}s ".center(80, "="), flush=True)
    failed = [code for code in codes if code not in (0, NO_TESTS_COLLECTED)]
    return failed[0] if failed else min(codes)


# --- side by side ---------------------------------------------------------------------------------------------------


def side_by_side(commands, jobs, options):
    """Run as many processes of each command as ``jobs`` says, and return the exit code."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tests-") as shared:
        each = [[*command, *AS_WORKER, *options.kept] for command in commands]
        # Tests in patched processes are through in half of the time.
        followers = [0, jobs[0]] if len(each) > 1 else [0]
        tests = Run(each, jobs, followers, {"TEST_SHARED": shared}, LIMIT if must_have_everything() else None)
        try:
            tests.run()
        finally:
            tests.print_report(options.durations)
            print(f" {in_words(tests.counts)} in {time.monotonic() - began:.2f}s ".center(80, "="), flush=True)
    if options.write_durations:
        tests.write_durations()
    if tests.problems or tests.failures:
        return 1
    return 0 if tests.units else NO_TESTS_COLLECTED


def main(arguments):
    options = parse(arguments)
    parts = kinds(options.paths)
    commands = [[*command, *paths] for command, paths in parts]
    most = int(os.environ.get("TEST_JOBS") or PLAIN_JOBS)
    jobs = [min(most, modules(paths)) for _, paths in parts]
    if len(jobs) > 1:
        jobs[0] = min(jobs[0], PATCHED_JOBS)
    if most > 1 and sum(jobs) > 1 and not options.other:
        return side_by_side(commands, jobs, options)
    passed_on = [argument for argument in arguments if argument not in (*options.paths, "--write-durations")]
    return one_after_the_other([[*command, *passed_on] for command in commands])


def interrupt(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of servers would compile all of wsloop and the site anew
    signal.signal(signal.SIGTERM, interrupt)  # the servers of the tests are to end in this case, too
    # A shell that is no terminal's has what it starts in the background ignore SIGINT, and servers would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
