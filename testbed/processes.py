"""Processes of a run: each has a log file and a process group, and its end is orderly. Ports, and waiting for events.

Nothing in this package patches or imports gevent: its clients behave as a browser or a script does.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from testbed.warm_python import Script, warm_python

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")
WATCHED = re.compile(r"^(tfd:\s+(\d+) .*\bino:([0-9a-f]+).*)$", re.MULTILINE)  # in the fdinfo of an epoll (proc(5))


def candidates(ports: str) -> Iterator[int]:
    """Return the ports from one to another, ``10000-32767``, again and again; where it begins is chance.

    Other processes may have the same, where they have no part of their own.
    """
    first, last = map(int, ports.split("-"))
    beginning = first + secrets.randbelow(last - first + 1)
    return itertools.cycle([*range(beginning, last + 1), *range(first, beginning)])


# Below those that the kernel gives to connections. Processes that run tests side by side have a part of them each: a
# port stays its test's own before its server listens on it, and while that is killed.
_candidates = candidates(os.environ.get("TEST_PORTS", "10000-32767"))


def use_ports(ports: str) -> None:
    """From now on use these ports only, here and in what is started: ``10000-32767``."""
    global _candidates
    os.environ["TEST_PORTS"] = ports
    _candidates = candidates(ports)


def free_port() -> int:
    """Return a TCP port of the loopback that nobody listens on, and that the kernel gives to no connection.

    One after the other, so that none is returned twice before the first server of the two listens.
    """
    while True:
        port = next(_candidates)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], T], timeout: float = 15.0, what: str = "the condition") -> T:
    """Call ``condition`` until it returns something true, and return that.

    Args:
        timeout: seconds.
        what: the event, for the error.

    Raises:
        AssertionError: after ``timeout``.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {timeout:g} s; last seen: {result!r}")
        time.sleep(0.02)


def stale_watches(pid: int) -> list[str]:
    """Return what a process watches with epoll through descriptors that are closed, or something else's by now."""
    process = Path(f"/proc/{pid}")
    stale = []
    for about in process.glob("fdinfo/*"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            for line, watched, inode in WATCHED.findall(about.read_text()):
                if not _is_inode(process / "fd" / watched, int(inode, 16)):
                    stale.append(line)
    return stale


def _is_inode(descriptor: Path, inode: int) -> bool:
    try:
        return descriptor.stat().st_ino == inode
    except FileNotFoundError:
        return False


class Process:
    """One server process with its children; in a ``with`` block it is ended at the end of the block.

    Args:
        command: program and arguments.
        log: the file that gets its output.
        env: its environment; None: that of this process.
        stdin: as for ``subprocess.Popen``.
        warm: whether a Python that has imported what sites import runs the program, which is a script without input.
    """

    started: Counter[str] = Counter()  # how many of each program: most of the time that tests take

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        warm: bool = False,
    ) -> None:
        self.started[Path(command[0]).name] += 1
        self.log_path = Path(log)
        self._popen: subprocess.Popen[bytes] | Script
        with self.log_path.open("ab") as output:
            if warm:
                self._popen = warm_python(patched=True).start(command, env or os.environ, stdout=output, stderr=output)
                self.pid = self._popen.pid
                return
            self._popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env=env,
                stdin=stdin,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the run, which then ends its processes in order
            )
        self.pid = self._popen.pid

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def returncode(self) -> int | None:
        return self._popen.poll()

    def send_signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for the process to end by itself, for at most ``timeout`` seconds, and return its exit status."""
        return self._popen.wait(timeout)

    def listens(self, port: int) -> bool:
        """Return whether somebody listens on a port of the loopback.

        Raises:
            AssertionError: if the process has ended, with what it has written.
        """
        assert self.returncode is None, self.log()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    def log(self) -> str:
        """Return all that the process has written."""
        return self.log_path.read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM, timeout: float = 20.0) -> bool:
        """End the process; what is left of its group after ``timeout`` seconds is killed.

        Returns:
            whether the process has obeyed.
        """
        clean = True
        if self._popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.close()
        if self._popen.poll() is None:
            self._popen.send_signal(number)
            try:
                self._popen.wait(timeout)
            except subprocess.TimeoutExpired:
                clean = False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        return clean
