"""``make dev``: the site and Vite's development server together, until Ctrl-C or until one of them ends.

Django runs as ``manage.py runserver`` and reloads changed Python code; Vite reloads what is in ``frontend/``. Without
Node the site starts alone, with the built files. It must not know uWSGI.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import django
from django.conf import settings

from project import embedded_redis, startup
from project.run import Interruption, alone, check_address, check_environment, prepare_site, say, split_address

ROOT = Path(__file__).resolve().parent.parent
VITE = ROOT / "node_modules/.bin/vite"
PAUSE = 0.2  # seconds between two looks at the processes
END_TIMEOUT = 10.0  # seconds after which a process that was asked to end is killed


def commands(address: str) -> list[list[str]]:
    """Return what runs: the site, and Vite where there are Node and the packages."""
    site = [[sys.executable, "manage.py", "runserver", address]]
    if not (VITE.exists() and shutil.which("node")):
        say("Without Vite: Node, or the packages of package.json, are missing. /react/ uses the built files")
        return site
    return [*site, [str(VITE), "frontend", "--clearScreen=false"]]


def target(address: str) -> str:
    """Return where Vite's proxy finds the site."""
    host, port = split_address(address)
    if host in {"", "0.0.0.0"}:
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def start(command: list[str], address: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env={**os.environ, "DJANGO": target(address)},
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches this program alone, which ends them in order
        preexec_fn=embedded_redis.die_with_parent,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process with its children: the reloader of Django has one that serves."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def main() -> None:
    address = os.environ.get("HTTP") or "127.0.0.1:8000"
    os.chdir(ROOT)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    os.environ.setdefault("DJANGO_DEBUG", "1")
    os.environ.setdefault("DEMO", "1")
    check_address(address)
    check_environment()
    ending = Interruption()
    with alone(settings.VAR_DIR):
        django.setup()
        prepare_site(collects=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, ending)
        running = [start(command, address) for command in commands(address)]
    try:
        while not ending.requested and all(process.poll() is None for process in running):
            time.sleep(PAUSE)
    finally:
        for process in reversed(running):
            end(process)
        if startup.uses_embedded_redis():
            embedded_redis.stop_if_unused(settings.VAR_DIR)
    say("Stopped")
    if not ending.requested:
        sys.exit(1)


if __name__ == "__main__":
    main()
