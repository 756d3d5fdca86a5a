"""A PostgreSQL server of the tests' own, started from the programs of Debian's package, on a unix socket only."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from testbed.processes import Process, wait_until

PROGRAMS = Path("/usr/lib/postgresql")  # where Debian has them, by version
USERS = "postgres", "nobody"  # who runs it, for root: the server refuses to be root
# It keeps nothing beyond its end, so it need not wait for a disk.
OPTIONS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}


def postgres_programs() -> Path | None:
    """Return the directory of the newest server programs that this machine has, None without any."""
    found = [path.parent for path in PROGRAMS.glob("*/bin/postgres") if (path.parent / "initdb").exists()]
    return max(found, key=lambda path: float(path.parent.name), default=None)


class PostgresServer:
    """A server with one user, ``postgres``, who needs no password. In a ``with`` block it runs until its end.

    Attributes:
        directory: its unix socket is here; for root's tests it belongs to the user who runs the server.

    Raises:
        RuntimeError: if the programs are not there.
    """

    def __init__(self) -> None:
        programs = postgres_programs()
        if programs is None:
            raise RuntimeError("There is no PostgreSQL server on this machine: apt install postgresql")
        self.directory = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._programs = programs
        self._process: Process | None = None
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            user = next(each for each in pwd.getpwall() if each.pw_name in USERS)
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            self._as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def start(self):
        """Start the server, wait until it answers, and return this object."""
        data = self.directory / "data"
        subprocess.run(
            [
                *self._as_user,
                *(str(self._programs / "initdb"), "--pgdata", str(data), "--username=postgres"),
                *("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"),
            ],
            cwd=self.directory,
            check=True,
            timeout=60,
            stdout=subprocess.DEVNULL,
        )
        options = [f"--{name}={value}" for name, value in OPTIONS.items()]
        command = [str(self._programs / "postgres"), "-D", str(data), "-k", str(self.directory), "-h", "", *options]
        self._process = Process([*self._as_user, *command], self.directory / "log")
        wait_until(self._answers, what="PostgreSQL answering")
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            raise AssertionError(f"PostgreSQL ended while starting:\n{self._process.log()}")
        ready = [str(self._programs / "pg_isready"), "--quiet", "--host", str(self.directory)]
        return subprocess.run(ready, timeout=20, check=False).returncode == 0

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return an entry of Django's ``DATABASES``."""
        engine = "django.db.backends.postgresql"
        return {"ENGINE": engine, "NAME": "postgres", "USER": "postgres", "HOST": str(self.directory), **more}

    def close(self) -> None:
        """End the server, if it runs, and remove its directory."""
        if self._process is not None:
            self._process.stop(signal.SIGINT)  # without waiting for clients
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()
