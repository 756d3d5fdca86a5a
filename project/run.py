"""``make run``: starts the site from a built virtual environment, and reports each step in a short line.

Responsible for checking settings, address, Redis and database first, with one clear line for each problem, and for
staying in the foreground until Ctrl-C, which stops the server and the embedded Redis.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import django
import redis
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db.utils import Error as DatabaseError

from chat import demo
from project import embedded_redis, startup, static_files

# Seconds until the site must answer: a cold start takes two to three on a small machine.
START_TIMEOUT = 60.0
# Seconds after which a server that was asked to stop is killed: more than uWSGI gives its workers.
END_TIMEOUT = 25.0
# Exit code of an interrupted start, as in shells.
INTERRUPTED = 130
# What uWSGI says of its own end: some lines begin with the day. Not what the site and its requests log meanwhile.
FAREWELL = re.compile(
    rb"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4} - |Gracefully killing worker |gateway |goodbye to |worker \d+ buried "
)


def say(line: str) -> None:
    print(line, flush=True)


def split_address(address: str) -> tuple[str, int]:
    """Return host (empty: all) and port of ``HTTP``, such as ``127.0.0.1:8000``, ``[::1]:8000`` or ``:8000``."""
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdigit() and 0 < int(port) < 65536):
        sys.exit(f"HTTP must be an address and a port, such as 127.0.0.1:8000, not {address!r}.")
    return host.strip("[]"), int(port)


def check_address(address: str) -> None:
    """Exit with one line if no server can listen on ``address``."""
    host, port = split_address(address)
    try:
        family, kind, _, _, sockaddr = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uWSGI: closed connections do not block it
            probe.bind(sockaddr)
    except OSError as exc:
        sys.exit(f"Cannot listen on {address} ({exc.strerror}). To use another address: make run HTTP=127.0.0.1:9000")


def check_processes(processes: str) -> None:
    """Exit with one line if ``PROCESSES`` is not a valid number of workers."""
    if not (processes.isascii() and processes.isdigit() and int(processes)):
        sys.exit(f"PROCESSES must be a number of workers, 1 or more, not {processes!r}.")


def check_redis(url: str) -> None:
    """Exit with one line if the Redis of ``REDIS_URL`` does not answer. The line does not contain its password."""
    try:
        with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as client:
            client.ping()
    except (redis.RedisError, OSError) as exc:
        parts = urllib.parse.urlsplit(url)  # a password may be before the host or in the query string
        place = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
        sys.exit(f"Cannot use the Redis of REDIS_URL ({place}): {exc}")


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[bool]:
    """Prevent other starts of the site of ``directory`` inside the ``with`` block; yield whether it had to wait.

    Two processes that migrate a new database at once break it. The kernel releases the lock when its holder dies.
    """
    try:
        lock = (directory / "run.lock").open("w")
    except OSError as exc:
        sys.exit(f"{exc.filename} cannot be written: {exc.strerror}")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            waited = False
        except BlockingIOError:
            say("Waiting for another start of this site")
            fcntl.flock(lock, fcntl.LOCK_EX)
            waited = True
        yield waited


def prepare_site(collects: bool = True) -> None:
    """Migrate, create the demo accounts, collect the static files unless told not to; exit with one line on failure."""
    try:
        django.setup()
        # There are no workers yet to notify of these accounts, and no embedded Redis to send the notice through.
        logging.getLogger("wsloop.signals").setLevel(logging.ERROR)
        say("Migrating the database")
        call_command("migrate", interactive=False, verbosity=0)
        say("Creating the demo accounts")
        call_command("demo_data", verbosity=0)
        if collects:
            say("Collecting static files")
            static_files.collect()
    except (DatabaseError, CommandError, ImproperlyConfigured) as exc:
        sys.exit(f"{type(exc).__name__}: {' '.join(str(exc).split())}")


class Interruption:
    """A signal handler that remembers that it was called (the lock of an Event could block a handler for ever)."""

    requested = False

    def __call__(self, *_: object) -> None:
        self.requested = True


class Server:
    """uWSGI as a child process; its output during the start is held back, and shown only if the site does not start.

    It runs in a session of its own, so that Ctrl-C does not reach it directly; this program sends it one signal.

    Args:
        address: ``HTTP``.
        ending: reports that the server must stop.
    """

    def __init__(self, address: str, ending: Interruption) -> None:
        self.host, self.port = split_address(address)
        self._ending = ending
        self._held_back: list[bytes] | None = []
        self._process = subprocess.Popen(
            [str(Path(sys.executable).with_name("uwsgi")), "uwsgi.ini"],
            env={**os.environ, "HTTP": address},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=embedded_redis.die_with_parent,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None  # it is a pipe
        for line in self._process.stdout:
            if self._held_back is not None:
                self._held_back.append(line)
            elif not self._ending.requested or not FAREWELL.match(line):
                sys.stderr.buffer.write(line)
                sys.stderr.flush()

    def url(self) -> str:
        host = "127.0.0.1" if self.host in {"", "0.0.0.0"} else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def answers(self) -> bool:
        """Wait until a page is served; False if uWSGI ended, had to stop, or took longer than ``START_TIMEOUT``."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ending.requested and self._process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(self.url(), timeout=2).close()
                return True
            except urllib.error.HTTPError as exc:
                if exc.code < 500:  # such as a Host that is not allowed: the site is up, and its log says so
                    return True
            except OSError:
                pass  # not yet
            time.sleep(0.1)
        return False

    def show_output(self) -> None:
        """Show the output of uWSGI from now on."""
        self._held_back = None

    def wait(self) -> int:
        """Wait until uWSGI has ended by itself, or stop it on request; return its exit code."""
        while not self._ending.requested:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(0.5)
        return self.end()

    def end(self) -> int:
        """Stop uWSGI, and kill it if it takes longer than ``END_TIMEOUT``; return its exit code.

        This sends SIGTERM more than once, because uWSGI ignores it until its master is up.
        """
        deadline = time.monotonic() + END_TIMEOUT
        while time.monotonic() < deadline:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(0.5)
        say(f"uWSGI has not ended in {END_TIMEOUT:g} s, and is killed")
        self._process.kill()
        return self._process.wait()

    def kill(self) -> None:
        """End uWSGI and all of its children at once: before it serves, it ignores signals for seconds."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def fail(self) -> NoReturn:
        """Stop uWSGI and exit with its output."""
        self.end()
        self._reader.join(timeout=5)
        sys.stderr.buffer.writelines(self._held_back or [])
        sys.exit("uWSGI does not serve the site; its output is above.")


def announce(server: Server) -> None:
    accounts = ", ".join(f"{account.username} / {account.password}" for account in demo.ACCOUNTS)
    say(f"\n    {server.url()}\n    Accounts (name / password): {accounts}\n    Ctrl-C stops the site.\n")


def check_environment() -> None:
    """Exit with an explanation if the site must not start with its settings, or its Redis cannot be used."""
    try:
        startup.check()
    except startup.RefusedError as exc:
        sys.exit(str(exc))
    if os.environ.get("REDIS_URL"):
        check_redis(os.environ["REDIS_URL"])


def main() -> None:
    address = os.environ.get("HTTP") or "127.0.0.1:8000"
    os.chdir(Path(__file__).resolve().parent.parent)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    check_address(address)
    check_processes(os.environ.get("PROCESSES", "1"))
    check_environment()
    with alone(getattr(settings, "VAR_DIR", Path("var"))) as waited:
        if waited:
            check_address(address)  # the other start may use it by now
        prepare_site()
        say("Starting uWSGI" + (" and an embedded Redis" if startup.uses_embedded_redis() else ""))
        ending = Interruption()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, ending)
        server = Server(address, ending)
        up = server.answers()
    if up:
        announce(server)
        server.show_output()  # afterwards: the log has a line of the request that has found out
        code = server.wait()
    elif ending.requested:
        server.kill()  # no client waits for an answer yet
        code = INTERRUPTED
    else:
        server.fail()
    if startup.uses_embedded_redis():
        embedded_redis.stop_if_unused(settings.VAR_DIR)
    say("Stopped")
    sys.exit(code)
