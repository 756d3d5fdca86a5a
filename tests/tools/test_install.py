"""``make install`` where something is missing: one line that says what, in the words of the package manager."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "requirements.txt").write_text("pyuwsgi~=2.0.30  # a reason\n")
    return tmp_path


@pytest.fixture
def venv(directory):
    """An environment that works, but whose pip says what is in the file ``pip-says`` and fails."""
    path = directory / "venv"
    (path / "bin").mkdir(parents=True)
    (path / "bin/pip").touch()
    python = path / "bin/python"
    python.write_text(
        f'#!/bin/sh\nif [ "$1" = -m ]; then cat {directory}/pip-says; exit 1; fi\nexec {sys._base_executable} "$@"\n'
    )
    python.chmod(0o755)
    return path


def install(directory, *arguments, path=None, first="pass"):
    code = f"import runpy, sys; {first}; runpy.run_path({str(ROOT / 'tools/install.py')!r}, run_name='__main__')"
    return subprocess.run(
        [sys._base_executable, "-c", code, *arguments],
        cwd=directory,
        env={**os.environ, **({"PATH": path} if path else {})},
        capture_output=True,
        text=True,
        check=False,
    )


def without_compilers(directory):
    """A ``PATH`` on which there is a shell, and no C compiler."""
    bare = directory / "bare"
    bare.mkdir()
    for name in ("sh", "cat"):
        (bare / name).symlink_to(shutil.which(name))
    return str(bare)


def test_no_compiler(directory, venv):
    (directory / "pip-says").write_text(
        "a story\n  Exception: you need a C compiler to build uWSGI\nERROR: it failed\n"
    )
    answer = install(directory, "venv", "requirements.txt", path=without_compilers(directory))
    assert answer.returncode == 1
    assert answer.stderr == (
        "A package has no wheel for this Python on this machine, and there is no C compiler to build it: "
        "apt install build-essential python3-dev (which package: venv/install.log)\n"
    )
    assert "a story" in (venv / "install.log").read_text()


def test_pip_fails_otherwise(directory, venv):
    (directory / "pip-says").write_text("a story\nERROR: No matching distribution found for pyuwsgi~=2.0.30\n")
    answer = install(directory, "venv", "requirements.txt")
    assert answer.returncode == 1
    assert answer.stderr == (
        "ERROR: No matching distribution found for pyuwsgi~=2.0.30 (full output: venv/install.log)\n"
    )


def test_no_ensurepip(directory):
    answer = install(directory, "venv", "requirements.txt", first="sys.modules['ensurepip'] = None")
    assert answer.returncode == 1
    assert answer.stderr == "Python's venv is missing: apt install python3-venv\n"


def test_the_other_uwsgi_is_left_out_without_a_compiler_but_not_in_ci(directory):
    path = without_compilers(directory)
    reason = "uWSGI is not built from source: this needs a C compiler and Python.h (build-essential python3-dev)"
    answer = install(directory, "--other-uwsgi=optional", "other", "requirements.txt", path=path)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, reason + "\n", "")
    answer = install(directory, "--other-uwsgi=required", "other", "requirements.txt", path=path)
    assert answer.returncode == 1
    assert answer.stderr == f"{reason} (CI=true: nothing may be missing)\n"


@pytest.mark.parametrize("forbidden", ["", "1"])
def test_modules_are_compiled_at_once_where_python_may_not_do_it_later(directory, venv, monkeypatch, forbidden):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", forbidden)
    python = venv / "bin/python"
    python.write_text(python.read_text().replace("cat ", f'echo "$@" > {directory}/asked; cat '))
    (directory / "pip-says").write_text("ERROR: it failed\n")
    assert install(directory, "venv", "requirements.txt").returncode == 1
    assert ("--no-compile" in (directory / "asked").read_text().split()) is not bool(forbidden)
