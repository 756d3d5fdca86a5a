"""``make run``: everything between a built virtual environment and a site that answers, said in short lines.

Responsible for checking what can go wrong first (settings, address, Redis, database), each with one clear line, and for
staying in the foreground until Ctrl-C, which ends the server and the embedded Redis.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
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
from project import embedded_redis, startup

# Seconds until the site must answer: a cold start takes two to three on a small machine.
START_TIMEOUT = 60.0
# Seconds until a server that was asked to end is killed: more than the mercy that uWSGI gives its workers.
END_TIMEOUT = 20.0
# Exit code of a start that was interrupted, as a shell has it.
INTERRUPTED = 130


def say(line: str) -> None:
    print(line, flush=True)


def split_address(address: str) -> tuple[str, int]:
    """Return host (empty: all) and port of ``HTTP``, such as ``127.0.0.1:8000``, ``[::1]:8000`` or ``:8000``."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        sys.exit(f"HTTP must be an address and a port, such as 127.0.0.1:8000, not {address!r}.")
    return host.strip("[]"), int(port)


def check_address(address: str) -> None:
    """Exit with one line if nobody can listen on ``address``."""
    host, port = split_address(address)
    try:
        family, kind, _, _, sockaddr = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uWSGI: not stopped by closed connections
            probe.bind(sockaddr)
    except OSError as exc:
        sys.exit(f"{address} cannot be listened on ({exc.strerror}). Another one: make run HTTP=127.0.0.1:9000")


def check_processes(processes: str) -> None:
    """Exit with one line if uWSGI cannot start as many workers as ``PROCESSES`` says."""
    if not (processes.isascii() and processes.isdigit() and int(processes)):
        sys.exit(f"PROCESSES must be a number of workers, 1 or more, not {processes!r}.")


def check_redis(url: str) -> None:
    """Exit with one line if the Redis of ``REDIS_URL`` does not answer. Its password is not shown."""
    try:
        with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as client:
            client.ping()
    except (redis.RedisError, OSError) as exc:
        parts = urllib.parse.urlsplit(url)  # a password may be in front of the host as well as in the query string
        place = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
        sys.exit(f"The Redis of REDIS_URL ({place}) cannot be used: {exc}")


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[bool]:
    """Let nobody else start the site of ``directory`` inside the ``with`` block; yield whether there was a wait for it.

    Two that migrate a new database at once break it. The kernel lets go of the lock when its holder dies.
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


def prepare_site() -> None:
    """Migrate, create the demo accounts, collect the static files; exit with one line where that fails."""
    try:
        django.setup()
        # No worker is there that could be told of these accounts, nor an embedded Redis to tell it through.
        logging.getLogger("wsloop.signals").setLevel(logging.ERROR)
        say("Migrating the database")
        call_command("migrate", interactive=False, verbosity=0)
        say("Creating the demo accounts")
        call_command("demo_data", verbosity=0)
        say("Collecting static files")
        call_command("collectstatic", interactive=False, verbosity=0)
    except (DatabaseError, CommandError, ImproperlyConfigured) as exc:
        sys.exit(f"{type(exc).__name__}: {' '.join(str(exc).split())}")


class Interruption:
    """A signal handler that keeps in mind that it was called (an Event's lock could stop a handler for ever)."""

    requested = False

    def __call__(self, *_: object) -> None:
        self.requested = True


class Server:
    """uWSGI as a child; what it prints while it starts is held back, and shown only if the site does not come up.

    It runs in a session of its own, so that Ctrl-C reaches it once, as the signal that ends it in an orderly way.

    Args:
        address: ``HTTP``.
        ending: says when the server shall end.
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
            if self._held_back is None:
                sys.stderr.buffer.write(line)
                sys.stderr.flush()
            else:
                self._held_back.append(line)

    def url(self) -> str:
        host = "127.0.0.1" if self.host in {"", "0.0.0.0"} else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def answers(self) -> bool:
        """Wait until a page comes back; False if uWSGI ended, was told to, or took longer than ``START_TIMEOUT``."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ending.requested and self._process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(self.url(), timeout=2).close()
                return True
            except urllib.error.HTTPError as exc:
                if exc.code < 500:  # a Host that is not allowed, say: the site is up, and its log tells
                    return True
            except OSError:
                pass  # not yet
            time.sleep(0.1)
        return False

    def show_output(self) -> None:
        """Let through what uWSGI prints from now on."""
        self._held_back = None

    def wait(self) -> int:
        """Wait until uWSGI has ended by itself, or was told to; return its exit code."""
        while not self._ending.requested:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(0.5)
        return self.end()

    def end(self) -> int:
        """End uWSGI, killed if it takes longer than ``END_TIMEOUT``; return its exit code.

        It is asked more than once: until its master is up, uWSGI ignores SIGTERM.
        """
        deadline = time.monotonic() + END_TIMEOUT
        while time.monotonic() < deadline:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(0.5)
        self._process.kill()
        return self._process.wait()

    def kill(self) -> None:
        """End uWSGI at once, with all that it has started: before it serves, it listens to no signal for seconds."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def fail(self) -> NoReturn:
        """End uWSGI and this program, with what uWSGI said."""
        self.end()
        self._reader.join(timeout=5)
        sys.stderr.buffer.writelines(self._held_back or [])
        sys.exit("uWSGI does not serve the site; above is what it said.")


def announce(server: Server) -> None:
    accounts = ", ".join(f"{account.username} / {account.password}" for account in demo.ACCOUNTS)
    say(f"\n    {server.url()}\n    Accounts (name / password): {accounts}\n    Ctrl-C stops the site.\n")


def main() -> None:
    address = os.environ.get("HTTP") or "127.0.0.1:8000"
    os.chdir(Path(__file__).resolve().parent.parent)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    check_address(address)
    check_processes(os.environ.get("PROCESSES", "1"))
    try:
        startup.check()
    except startup.RefusedError as exc:
        sys.exit(str(exc))
    if os.environ.get("REDIS_URL"):
        check_redis(os.environ["REDIS_URL"])
    with alone(getattr(settings, "VAR_DIR", Path("var"))) as waited:
        if waited:
            check_address(address)  # the other one may listen on it by now
        prepare_site()
        say("Starting uWSGI" + (" and an embedded Redis" if startup.uses_embedded_redis() else ""))
        ending = Interruption()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, ending)
        server = Server(address, ending)
        up = server.answers()
    if up:
        server.show_output()
        announce(server)
        code = server.wait()
    elif ending.requested:
        server.kill()  # nobody waits for an answer yet
        code = INTERRUPTED
    else:
        server.fail()
    if startup.uses_embedded_redis():
        embedded_redis.stop_if_unused(settings.VAR_DIR)
    say("Stopped")
    sys.exit(code)
