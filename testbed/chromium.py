"""The Chromium without windows, which has the same engine as the one with them, and takes half of the time."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path


def headless_shell(directory: Path) -> str | None:
    """Return the program to start; None if this machine has none.

    Args:
        directory: where a script may be put: without an address Debian's shell opens no window, and chromedriver waits
            for one.
    """
    shell = shutil.which("chromium-headless-shell")
    if shell is None:
        return None
    script = directory / "chromium"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(shell)} "$@" about:blank\n')
    script.chmod(0o755)
    return str(script)
