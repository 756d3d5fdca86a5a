"""The servers that are measured and the Redis between them, each on ports of its own, ended with the run.

Responsible for starting them, for knowing when they answer, and for the kernel's figures on a process.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import msgpack

from testbed.processes import ROOT, Process, free_port
from testbed.redis_servers import RedisServer
from testbed.uwsgi import has_ssl

START_TIMEOUT = 30.0  # seconds
REST_TIMEOUT = 20.0  # seconds
RESTING = 0.01  # seconds of CPU in 0.2 s: what a server uses that waits


class Server(Process):
    """A server that is measured.

    Args:
        command: program and arguments.
        log: file for what it writes.
        env: its environment; None: that of this process.
        port: where it will listen; the constructor returns when it does.

    Raises:
        RuntimeError: if the server does not start.
    """

    def __init__(self, command: Sequence[str], log: Path, env: dict[str, str] | None = None, port: int = 0) -> None:
        super().__init__(command, log, env, stdin=subprocess.PIPE)
        self.port = port
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(self.address, 1):
                return
            if not self.alive() or time.monotonic() > deadline:
                end = "\n".join(self.log().splitlines()[-30:])
                raise RuntimeError(f"{self.log_path.name}: the server does not start:\n{end}")
            time.sleep(0.02)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def alive(self) -> bool:
        """Return whether it has not ended."""
        return self.returncode is None

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._popen.stdin
        self._popen.stdin.write(f"{line}\n".encode())
        self._popen.stdin.flush()

    # What the kernel knows about the process.

    def memory(self) -> dict[str, int]:
        """Return its resident set as ``Rss``, and its share of it as ``Pss``, in KiB."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        return {key[:-1]: int(value) for key, value, *_ in map(str.split, lines) if key in ("Rss:", "Pss:")}

    def settled(self) -> dict[str, int]:
        """Have it collect garbage, by its page ``/bench/collect``; return its ``memory``, and what the page counts."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        connection.request("GET", "/bench/collect")
        answer = connection.getresponse()
        held = answer.read()
        connection.close()
        if answer.status not in (200, 204):
            raise RuntimeError("the server has not collected its garbage")
        return {**self.memory(), **(json.loads(held) if held else {})}

    def rest(self) -> None:
        """Return when it, with its children, has nothing left to do, so that the next measurement has the machine."""
        deadline, before = time.monotonic() + REST_TIMEOUT, -1.0
        while (now := self.cpu_of_all()) - before > RESTING and time.monotonic() < deadline:
            before = now
            time.sleep(0.2)

    def forget_peak(self) -> None:
        """Have ``peak`` begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Return the largest resident set since ``forget_peak``, in KiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))

    def descriptors(self) -> int:
        """Return how many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_time(self) -> float:
        """Return the seconds of CPU that it has used itself."""
        return cpu_time(self.pid)

    def cpu_of_all(self) -> float:
        """Return the seconds of CPU that it and its children have used, as long as these live."""
        return sum(map(cpu_time, family(self.pid)))


def family(pid: int) -> Iterator[int]:
    """Return a process and its children, and theirs."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield from family(int(child))


def cpu_time(pid: int) -> float:
    """Return the seconds of CPU that a process has used, by its clock (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


class MeasuredRedis(RedisServer):
    """The Redis of a measurement, which counts what others have of it."""

    def __init__(self) -> None:
        # Channels' subscriber is slower than the burst; Redis must not hang up on it.
        super().__init__(["client-output-buffer-limit pubsub 0 0 0"])

    def connections(self) -> int:
        """Return how many connections Redis has besides this one."""
        with self.client() as client:
            return len(client.client_list()) - 1

    def channels(self) -> int:
        """Return to how many channels anybody is subscribed."""
        with self.client() as client:
            return len(client.pubsub_channels())

    def subscribers(self, channel: str) -> int:
        """Return how many connections are subscribed to ``channel``."""
        with self.client() as client:
            return int(client.pubsub_numsub(channel)[0][1])


def site_environment(directory: Path, redis_port: int, heartbeat: bool) -> dict[str, str]:
    """Return the environment of the sample site with a database in ``directory``."""
    return os.environ | {
        "BENCH_DIR": str(directory),
        "BENCH_HEARTBEAT": "--heartbeat--" if heartbeat else "",
        "DATABASE_URL": f"sqlite:///{directory / 'db.sqlite3'}",
        "DJANGO_SECRET_KEY": "of a benchmark that only listens on the loopback and ends with it",
        "DJANGO_SETTINGS_MODULE": "bench.settings",
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
    }


def bench_message(text: bytes) -> bytes:
    """Return the message that tells consumers to send a text, as wsloop and Channels publish it to a group."""
    return cast(bytes, msgpack.packb({"type": "bench.message", "text": text.decode()}))


class Worker(Server):
    """The sample site on uWSGI: one process, which is the worker itself.

    Args:
        options: of uWSGI, instead of the one that keeps requests out of its log.
        python: of the environment that it runs in.
        env: further variables of ``bench.settings`` and ``bench.wsgi``.
    """

    def __init__(
        self,
        directory: Path,
        redis_port: int,
        heartbeat: bool = False,
        options: Sequence[str] = ("--disable-logging",),
        python: Path = Path(sys.executable),
        env: Mapping[str, str] | None = None,
    ) -> None:
        port = free_port()
        command = [str(python.parent / "uwsgi"), "--module", "bench.wsgi", "--need-app", "--die-on-term"]
        command += ["--http-socket", f"127.0.0.1:{port}", "--gevent", "100", *options]
        env = site_environment(directory, redis_port, heartbeat) | dict(env or {})
        super().__init__(command, directory / f"uwsgi-{port}.log", env, port)


class BareWorker(Server):
    """An echo on uWSGI's own WebSocket API: one process, which is the worker itself.

    Args:
        program: a uWSGI with OpenSSL.
        options: further ones of uWSGI.
    """

    def __init__(self, directory: Path, program: Path, options: Sequence[str] = ()) -> None:
        port = free_port()
        command = [str(program), "--wsgi-file", "bench/peers/bare_uwsgi.py", "--die-on-term"]
        command += ["--http-socket", f"127.0.0.1:{port}", "--gevent", "100", *options]
        super().__init__(command, directory / f"bare-{port}.log", port=port)


def bare_uwsgi() -> Path | None:
    """Return the uWSGI that ``make test`` builds from source, if there is one with OpenSSL."""
    program = ROOT / ".venv-uwsgi/bin/uwsgi"
    return program if program.exists() and has_ssl(str(program)) else None


def signed_in(directory: Path, redis_port: int, count: int) -> list[str]:
    """Make ``count`` users in the database of the site and return a session key of each."""
    command = [sys.executable, "-m", "bench.accounts", str(count)]
    env = site_environment(directory, redis_port, heartbeat=False)
    made = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if made.returncode:
        raise RuntimeError(f"the users could not be made:\n{made.stderr}")
    return made.stdout.split()


class Peers:
    """The virtual environment of the peers, ``var/bench``: their packages are no part of the site's."""

    def __init__(self) -> None:
        self.python = ROOT / "var/bench/bin/python"
        self.missing: str | None = None
        requirements, included = ROOT / "bench/peers/requirements.txt", ROOT / "requirements.txt"
        wanted = requirements.read_text() + included.read_text()
        stamp = ROOT / "var/bench/installed"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        if not self.python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(ROOT / "var/bench")], check=True)
        command = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*command, "-r", str(requirements)], capture_output=True, text=True, check=False)
        if done.returncode:
            self.missing = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        else:
            stamp.write_text(wanted)

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Run Python in the environment and return what it prints."""
        command = [str(self.python), *arguments]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout

    def versions(self, *names: str) -> str:
        """Return names and versions of these packages, or of all that are compared."""
        names = names or tuple(line.split(">")[0].split("~")[0].split("[")[0].strip() for line in self._requirements())
        code = "import importlib.metadata as m, sys; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
        return self.run("-c", code, *names).strip()

    @staticmethod
    def _requirements() -> list[str]:
        lines = (ROOT / "bench/peers/requirements.txt").read_text().splitlines()
        return [line for line in lines if line and line[0] not in "#-"]


class NodePeers:
    """The packages for Node of the peers, in ``var/bench-node``.

    Attributes:
        missing: why they could not be installed, if so.
        env: what a process needs that uses them.
    """

    def __init__(self) -> None:
        self.missing: str | None = None
        self._directory = ROOT / "var/bench-node"
        self.env = os.environ | {"NODE_PATH": str(self._directory / "node_modules")}
        wanted, found = ROOT / "bench/peers/package.json", self._directory / "package.json"
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            self.missing = "there is no Node with npm on this machine"
            return
        stamp = self._directory / "installed"
        if stamp.exists() and stamp.read_text() == wanted.read_text():
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(wanted, found)
        command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--fetch-retries=1"]
        done = subprocess.run(
            command, cwd=self._directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            self.missing = next((line for line in done.stderr.splitlines() if "error" in line), "npm failed")
        else:
            stamp.write_text(wanted.read_text())

    def versions(self) -> str:
        """Return names and versions of Node and of the packages that are compared."""
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        packages = json.loads((ROOT / "bench/peers/package.json").read_text())["dependencies"]
        return ", ".join([f"Node {node[1:]}", *(f"{name} {packages[name]}" for name in packages)])
