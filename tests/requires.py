"""What a test needs from the machine: skip where it is missing, fail where it must be there (``CI=true``)."""

from __future__ import annotations

import os
import shutil

import pytest

from testbed.postgres import postgres_programs


def must_have_everything() -> bool:
    """Tell whether a missing part is a failure: it is with ``CI=true`` in the environment; ``.ci/run`` installs all."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def missing(reason: str) -> None:
    """End the running test, fixture or module: skipped with ``reason`` on a developer's machine, failed in CI."""
    if must_have_everything():
        pytest.fail(f"{reason} (CI=true: nothing may be missing)", pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def need(*programs: str) -> str:
    """Return the path of the first of ``programs`` that is installed; without any, skip or (in CI) fail.

    Several names are alternatives: ``need("chromium", "google-chrome")``.
    """
    for program in programs:
        # nginx lives in /usr/sbin, which is not on every user's PATH.
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
        if path:
            return path
    missing(f"{' or '.join(programs)} is not installed")
    raise AssertionError("missing() does not return")


def need_postgres() -> None:
    """Skip or (in CI) fail where there is no PostgreSQL server; Debian keeps its programs off PATH."""
    if postgres_programs() is None:
        missing("postgresql is not installed")
