"""Tools that are not in the environment of all tests: Autobahn|Testsuite, Node's ``ws`` and schemathesis.

Each is installed when it is first asked for, into a directory of the checkout that git ignores, and again when what is
wanted has changed. Where it cannot be had the test says why (``missing`` of ``tests.requires``).
"""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.requires import missing, need

ROOT = Path(__file__).resolve().parents[2]
AUTOBAHN = ROOT / ".venv-autobahn"
AUTOBAHN_REQUIREMENTS = Path(__file__).parent / "requirements-autobahn.txt"
VIRTUALENV = "virtualenv==20.15.1"  # the last one that runs on Python 2.7, and brings a pip for it
NODE = ROOT / ".venv-node"
WS = "ws@8.23.0"  # has no dependencies of its own
# With some thirty packages, among them a plugin of pytest that would be loaded with each test.
SCHEMATHESIS = "schemathesis==4.32.5"
SCHEMATHESIS_PACKAGES = ROOT / "var" / "schemathesis"


@functools.cache
def python_of_autobahn():
    """Return the path of a Python that has Autobahn; install it first if need be, which takes half a minute."""
    python = python27()
    wanted = hashlib.sha256(AUTOBAHN_REQUIREMENTS.read_bytes() + python.encode()).hexdigest()
    stamp = AUTOBAHN / "installed"
    (ROOT / "var").mkdir(exist_ok=True)
    with (ROOT / "var/autobahn.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may want it at the same time
        if not (stamp.exists() and stamp.read_text() == wanted):
            with tempfile.TemporaryDirectory() as bootstrap:
                run([python, "-m", "pip", "install", "--target", bootstrap, VIRTUALENV])
                virtualenv = [python, "-m", "virtualenv", "--clear", "--no-periodic-update", str(AUTOBAHN)]
                run(virtualenv, PYTHONPATH=bootstrap)
            install = [str(AUTOBAHN / "bin/python"), "-m", "pip", "install", "--no-compile"]
            run([*install, "-r", str(AUTOBAHN_REQUIREMENTS)])
            stamp.write_text(wanted)
    return str(AUTOBAHN / "bin/python")


def python27():
    """Return the path of a Python 2.7 with pip: ``python2.7`` on the PATH, or the one that pyenv keeps."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [shutil.which("python2.7"), *sorted(map(str, pyenv.glob("versions/2.7*/bin/python2.7")))]
    for python in filter(None, found):
        # pyenv puts a script of this name on the PATH, which fails unless this version is switched on.
        if subprocess.run([python, "-c", "import pip"], capture_output=True, check=False).returncode == 0:
            return python
    missing("there is no Python 2.7 with pip, which Autobahn|Testsuite needs")
    raise AssertionError("missing() does not return")


def node_modules():
    """Return the directory of packages for Node that has ``ws``; install it first if need be."""
    need("node")
    stamp = NODE / "installed"
    if not (stamp.exists() and stamp.read_text() == WS):
        NODE.mkdir(exist_ok=True)
        options = ["--no-save", "--no-package-lock", "--no-audit", "--fetch-retries=1"]
        run([need("npm"), "install", "--prefix", str(NODE), *options, WS])
        stamp.write_text(WS)
    return NODE / "node_modules"


def schemathesis():
    """Return the directory of packages for this Python that has schemathesis; install it first if need be."""
    wanted = f"{SCHEMATHESIS} {sys.version}"
    stamp = SCHEMATHESIS_PACKAGES / "installed"
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(SCHEMATHESIS_PACKAGES, ignore_errors=True)
        run([sys.executable, "-m", "pip", "install", "--no-compile", "--target", SCHEMATHESIS_PACKAGES, SCHEMATHESIS])
        stamp.write_text(wanted)
    return SCHEMATHESIS_PACKAGES


def run(command, **environment):
    """Run one step of an installation; where it fails the tests that need it are missing something."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=600,
        check=False,
    )
    if done.returncode != 0:
        print(done.stdout)  # shown where it is a failure
        errors = [line for line in done.stdout.splitlines() if "error" in line.lower()]
        missing(f"{' '.join(map(str, command))} failed: {errors[0] if errors else f'exit code {done.returncode}'}")
