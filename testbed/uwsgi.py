"""The uWSGI programs that servers run on, and what the sample site's ``uwsgi.ini`` says about them."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed.processes import ROOT


def uwsgi_binaries() -> list[str]:
    """Return the uWSGI programs to test: ``UWSGI_BINARIES`` (separated by colons), or that of this environment."""
    named = os.environ.get("UWSGI_BINARIES")
    return named.split(":") if named else [str(Path(sys.executable).parent / "uwsgi")]


def each_with_one(choices: Sequence[Any]) -> list[tuple[str, Any]]:
    """Return each of these programs with one of the choices: every pair would be a server more for nothing new."""
    binaries = uwsgi_binaries()
    number = max(len(binaries), len(choices))
    return list(itertools.islice(zip(itertools.cycle(binaries), itertools.cycle(choices), strict=False), number))


def in_short(value: Any) -> str | None:
    """Return the id of a test for this value, if pytest must not make one: of a program, which is a path."""
    return environment_of(value) if value in uwsgi_binaries() else None


def environment_of(binary: str) -> str:
    """Return the name of the virtual environment that has this executable: the ids of tests have it, and no path."""
    return Path(binary).absolute().parent.parent.name


def has_ssl(binary: str) -> bool:
    """Return whether this uWSGI was built with OpenSSL (the pyuwsgi wheel is not)."""
    answer = subprocess.run([binary, "--help"], capture_output=True, text=True, timeout=30, check=False)
    return "--https-socket" in answer.stdout


def is_elf(binary: str) -> bool:
    """Return whether the program is machine code, and not the script of a wheel."""
    with open(binary, "rb") as file:
        return file.read(4) == b"\x7fELF"


def as_in_uwsgi_ini(*names: str) -> list[str]:
    """Return options of ``uwsgi.ini`` as the command line has them, those that are there."""
    found = re.findall(r"^([\w-]+) *= *(.+)$", (ROOT / "uwsgi.ini").read_text(), re.MULTILINE)
    return [part for name, value in found if name in names for part in (f"--{name}", value)]
