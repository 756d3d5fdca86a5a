"""A plugin of pytest for the processes that run the peers' tests: keeps some out, and writes what became of the others.

It is loaded by its name alone, because the tests of a peer are a package named ``tests``, too. The environment says:
``PEER_OUTCOMES``, the file to write; ``PEER_NOT_RUN``, a JSON list of the tests that are not run.
"""

import json
import os
from pathlib import Path

import pytest

outcomes = {}  # by the id of a test: "passed", "not run", or what it says when it fails


def covers(entry, test):  # as in expected.py, which is not at hand here
    """Return whether an entry of a list names this test, or the folder, module, class or function that it is in."""
    return test == entry or test.startswith((f"{entry}/", f"{entry}::", f"{entry}["))


def pytest_collection_modifyitems(items):
    not_run = json.loads(os.environ["PEER_NOT_RUN"])
    for item in items:
        if any(covers(entry, item.nodeid) for entry in not_run):
            outcomes[item.nodeid] = "not run"
    items[:] = [item for item in items if item.nodeid not in outcomes]


def pytest_collectreport(report):
    if report.failed:
        outcomes[report.nodeid] = f"cannot be imported: {str(report.longrepr).splitlines()[-1]}"


def pytest_runtest_logreport(report):
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = str(report.longrepr) if crash is None else f"{crash.message} ({Path(crash.path).name}:{crash.lineno})"
        outcomes[report.nodeid] = "; ".join(text.split("\n")[:3])
    elif hasattr(report, "wasxfail"):
        outcomes[report.nodeid] = "passed"  # it fails for the peer, too
    elif report.skipped:
        outcomes[report.nodeid] = f"skipped: {report.longrepr[-1]}"
    elif report.when == "call":
        outcomes[report.nodeid] = "passed"  # until its fixtures fail at the end


def pytest_sessionfinish(exitstatus):
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        Path(os.environ["PEER_OUTCOMES"]).write_text(json.dumps(outcomes))
