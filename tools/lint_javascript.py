"""Lint and type-check the JavaScript: a part of ``make lint``. Runs on any Python, without packages.

``--install`` only installs the packages, for ``make dev``.

Responsible for the development packages of ``package.json`` in ``node_modules/``, which it installs when they are
stale, and for one clear line if Node is missing. That is an error in CI only. Must not import anything outside the
standard library.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = Path("node_modules")
FILES = (Path("package.json"), Path("package-lock.json"), Path(".npmrc"))
LOG = Path("var/npm.log")
OLDEST_NODE = (20, 19)  # that eslint runs on
NPM = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
CHECKS = (
    ("node_modules/.bin/eslint", "--max-warnings=0", "wsloop/static", "static/js", "tests/js", "eslint.config.js"),
    ("node_modules/.bin/tsc", "--project", "."),
    ("node_modules/.bin/tsc", "--project", "frontend"),
)


def say(line: str) -> None:
    print(line, flush=True)


def missing() -> str | None:
    """Return what is missing on this machine, or None."""
    if not (shutil.which("node") and shutil.which("npm")):
        return "Node with npm is not installed (apt install nodejs npm)"
    version = node_version()
    found = re.match(r"v(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_NODE:
        return f"Node {version.lstrip('v')} is older than {'.'.join(map(str, OLDEST_NODE))}"
    return None


def node_version() -> str:
    return subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()


def install() -> None:
    """Install the packages of ``package-lock.json`` into ``node_modules/``, for this version of Node."""
    digest = hashlib.sha256(node_version().encode())
    for path in FILES:
        digest.update(path.read_bytes())
    stamp, wanted = PACKAGES / "installed", digest.hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say(f"Installing package-lock.json into {PACKAGES}")
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("w") as output:
        code = subprocess.run(NPM, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        lines = LOG.read_text(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith(("npm error", "npm ERR!"))] or ["npm failed"]
        sys.exit(f"{errors[0]} (full output: {LOG})")
    stamp.write_text(wanted)


def check() -> bool:
    """Run the checks in parallel, show their output, and return whether all of them passed."""
    running = []
    for command in CHECKS:
        say(" ".join(command))
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    outputs = [process.communicate()[0] for process in running]
    for output in outputs:
        if output.strip():
            say(output.rstrip())
    return not any(process.returncode for process in running)


def main(arguments: list[str]) -> None:
    reason = missing()
    if arguments == ["--install"]:
        if reason:
            say(f"The packages of package.json are not installed: {reason}")
        else:
            install()
        return
    if reason:
        if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
            sys.exit(f"{reason} (CI=true: nothing may be missing)")
        say(f"The JavaScript is not checked: {reason}")
        return
    install()
    if not check():
        sys.exit(1)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("Interrupted: the next start continues from here")
