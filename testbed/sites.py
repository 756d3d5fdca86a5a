"""Sites: the sample site on a uWSGI of its own, and nginx in front of it where that is asked for.

A site has ports, a directory and a database of its own, is waited for by asking it, proves that it is the one that was
started, and is ended with its process group. Long, because one object answers all that tests ask of a site.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import websocket

from testbed import python_servers
from testbed.clients import Client, Response, cookies_of
from testbed.nginx import PROXY_PASS, UWSGI_PASS, start_nginx
from testbed.processes import Process, free_port, stale_watches, wait_until
from testbed.python_servers import PYTHON_SERVERS
from testbed.redis_servers import RedisServer
from testbed.site_files import SETTINGS, site_environment
from testbed.uwsgi import as_in_uwsgi_ini, is_elf, uwsgi_binaries
from testbed.warm_python import can_be_warm, warm_python

DEMO_ACCOUNTS = {"john": "secret", "mary": "secret", "admin": "admin"}
FRONTS = ("http", "http-keepalive", "http-socket", "nginx-http", "nginx-uwsgi")


def listen(front: str, address: str, unix: Path, certificate: Path | None, key: Path | None) -> list[str]:
    """Return the options of uWSGI with which a site listens as ``front`` has it."""
    return {
        "http": ["--http", address, "--http-websockets"],
        "http-keepalive": ["--http", address, "--http-websockets", "--http-keepalive"],
        "http-socket": ["--http-socket", address],
        "http11-socket": ["--http11-socket", address],
        "https-socket": ["--https-socket", f"{address},{certificate},{key}"],
        "nginx-http": ["--http-socket", str(unix)],
        "nginx-uwsgi": ["--socket", str(unix)],
        "gunicorn": [],
        "pywsgi": [],
    }[front]


class Site:
    """The sample site on a uWSGI of its own.

    Args:
        binary: the uWSGI executable.
        front: one of ``FRONTS`` or ``PYTHON_SERVERS``, ``http11-socket`` or ``https-socket``; the last needs
            ``certificate`` and ``key``.
        processes: workers.
        gevent: async cores of each worker.
        options: further command line options of uWSGI.
        settings: Django settings that differ, if JSON can hold them.
        settings_module: another one than that of the class, for settings that JSON cannot hold.
        env: further environment.
        master: whether uWSGI has a master process; the command that ws4redis documents does without.
        warm: whether uWSGI may start in a Python that has imported what sites import, if it is a script of Python, as
            that of the wheel is (``warm_python.py``); not where the master gets SIGHUP; None: as the class has it.

    Attributes:
        clients: the connections that ``connect`` made; closed with the site.
        pid: of the process that was started: the master, or the only worker of a site without one.
    """

    settings_module = SETTINGS
    warm = False

    def __init__(
        self,
        redis_url: str,
        site_files: Path,
        binary: str | None = None,
        front: str = "http",
        processes: int = 1,
        gevent: int = 100,
        options: Sequence[object] = (),
        settings: Mapping[str, object] | None = None,
        settings_module: str | None = None,
        env: Mapping[str, str] | None = None,
        master: bool = True,
        certificate: Path | None = None,
        key: Path | None = None,
        warm: bool | None = None,
    ) -> None:
        self.binary = binary or uwsgi_binaries()[0]
        self.front = front
        self.directory = Path(tempfile.mkdtemp(prefix="site-"))
        shutil.copy(site_files / "db.sqlite3", self.directory / "db.sqlite3")
        self.token = secrets.token_hex(8)
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.scheme = "https" if front == "https-socket" else "http"
        self.url = f"{self.scheme}://{self.host}"
        self.session_keys: set[str] = set()
        self._master = master
        self._certificate = certificate
        self._stats = str(self.directory / "stats.sock")
        self.clients: list[websocket.WebSocket] = []
        self._nginx: Process | None = None
        self._log_mark = 0
        listening = listen(front, self.host, self.directory / "uwsgi.sock", certificate, key)
        self.command = self._command(processes, gevent, [*listening, *map(str, options)])
        module = settings_module or self.settings_module
        self.env = site_environment(self.directory, site_files, redis_url, module)
        self.env |= {"SITE_TOKEN": self.token, "SITE_SETTINGS": json.dumps(settings or {}), **(env or {})}
        may_be_warm = self.warm if warm is None else warm
        self._is_warm = may_be_warm and self._is_script() and can_be_warm(self.env)
        self._process: Process | None = None

    def _is_script(self) -> bool:
        return self.front not in PYTHON_SERVERS and not is_elf(self.binary)

    def _command(self, processes: int, gevent: int, options: Sequence[str]) -> list[str]:
        if self.front in PYTHON_SERVERS:
            return python_servers.command(self.front, self.host, processes, gevent, options)
        command = [self.binary, "--need-app", "--gevent", str(gevent), "--module", "wsgi", *options]
        if self._master:
            command += ["--master", "--die-on-term", "--processes", str(processes), "--stats", self._stats]
            # No signal is lost on workers that load, or between a crash and the next worker.
            command += as_in_uwsgi_ini("hook-post-fork", "forkbomb-delay")
        if Path(self.binary).parent != Path(sys.executable).parent and is_elf(self.binary):
            command += ["--home", sys.prefix]  # a compiled uWSGI from elsewhere: with the packages of this environment
        return command

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self):
        """Start the server, wait until it answers, and return this object."""
        self._process = Process(self.command, self.directory / "uwsgi.log", self.env, warm=self._is_warm)
        if self.front.startswith("nginx"):
            location = PROXY_PASS if self.front == "nginx-http" else UWSGI_PASS
            location = location.format(socket=self.directory / "uwsgi.sock")
            self._nginx = start_nginx(self.directory, self.port, location)
        wait_until(self._is_ours, timeout=60.0, what=f"{self} answering")
        return self

    def _is_ours(self) -> bool:
        for process in filter(None, (self._process, self._nginx)):
            if process.returncode is not None:
                raise AssertionError(f"{self} ended while starting ({process.returncode}):\n{self.log()}")
        try:
            response = self.request("GET", "/test/whoami/", timeout=30)
        except OSError:
            return False
        if response.status in (502, 504):  # nginx is there before uWSGI
            return False
        assert response.status == 200, f"{self} answers {response.status}:\n{response.text}\n{self.log()}"
        assert response.json()["token"] == self.token, f"somebody else answers on {self.url}"
        return True

    @property
    def _started(self) -> Process:
        assert self._process, f"{self} was never started"
        return self._process

    @property
    def pid(self) -> int:
        return self._started.pid

    def send_signal(self, number: int) -> None:
        self._started.send_signal(number)

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for the server to end by itself and return its exit status."""
        return self._started.wait(timeout)

    def stop(self) -> None:
        """End the site.

        Raises:
            AssertionError: if the site does not end in time, or has written the key of a session to its log.
        """
        log = ""
        try:
            self.leave()
            clean = self._process.stop() if self._process else True
            if self._nginx:
                self._nginx.stop()
            log = self.log() if self._process else ""
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
        assert clean, f"{self} did not end within 20 s of SIGTERM:\n{log[-4000:]}"
        leaked = [key for key in self.session_keys if key in log]
        lines = [line for line in log.splitlines() if any(key in line for key in leaked)]
        for key in leaked:
            lines = [line.replace(key, "KEY") for line in lines]
        assert not leaked, "\n".join([f"session keys in the log of {self}", *lines])

    def __str__(self) -> str:
        return f"{self.front} of {self.binary}"

    # --- looking inside -----------------------------------------------------------------------------------------------

    def log(self) -> str:
        """Return all that uWSGI and the site have written."""
        return self._started.log()

    def mark_log(self) -> None:
        self._log_mark = self._started.log_path.stat().st_size

    def log_since_mark(self) -> str:
        with self._started.log_path.open("rb") as file:
            file.seek(self._log_mark)
            return file.read().decode(errors="replace")

    def workers(self) -> list[int]:
        """Return the process ids of the workers that are up, by asking uWSGI's master."""
        if self.front == "gunicorn":
            return python_servers.children(self.pid)
        if not self._master or self.front == "pywsgi":
            return [self.pid]
        with socket.socket(socket.AF_UNIX) as stats:
            stats.settimeout(10)
            stats.connect(self._stats)
            text = b"".join(iter(lambda: stats.recv(65536), b""))
        return [worker["pid"] for worker in json.loads(text)["workers"] if worker["pid"] and worker["status"] != "dead"]

    def descriptors(self) -> dict[int, int]:
        """Return how many descriptors each worker has open, by process id."""
        return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in self.workers()}

    def stale_watches(self) -> list[str]:
        """Return what the event loops of the workers watch in epoll through descriptors that are closed, as lines."""
        return [line for pid in self.workers() for line in stale_watches(pid)]

    @contextlib.contextmanager
    def only(self, pid: int) -> Iterator[None]:
        """While inside, only this worker runs: it accepts whatever is opened now."""
        others = [other for other in self.workers() if other != pid]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            yield
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)

    # --- talking to it ------------------------------------------------------------------------------------------------

    def ws_url(self, path: str) -> str:
        """Return the URL of a WebSocket; ``path``, without a slash at its beginning, follows ``/ws/``."""
        return f"ws{self.scheme[4:]}://{self.host}{path if path.startswith('/') else '/ws/' + path}"

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        cookies: str | None = None,
        timeout: float = 20.0,
    ) -> Response:
        """Send an HTTP request on a connection of its own, and return the answer.

        Raises:
            OSError: if there is no answer.
        """
        connection: http.client.HTTPConnection
        if self._certificate:
            trust = ssl.create_default_context(cafile=self._certificate)
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=trust)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = {**({"Cookie": cookies} if cookies else {}), **(headers or {})}
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return Response(answer.status, answer.headers, answer.read())
        except http.client.HTTPException as broken:
            raise ConnectionError(f"{method} {path}: {broken!r}") from broken
        finally:
            connection.close()

    def login(self, username: str = "john", password: str | None = None) -> str:
        """Sign in through the site's own form, and return the Cookie header of a browser that has done so."""
        page = self.request("GET", "/accounts/login/")
        assert page.status == 200, f"login page: {page.status}\n{page.text}\n{self.log()}"
        token = cookies_of(page)["csrftoken"]
        form = {"username": username, "password": password or DEMO_ACCOUNTS[username]}
        answer = self.request(
            "POST",
            "/accounts/login/",
            headers={"Content-Type": "application/x-www-form-urlencoded", "Origin": self.url},
            cookies=f"csrftoken={token}",
            body=urlencode({**form, "csrfmiddlewaretoken": token}),
        )
        assert answer.status == 302, f"signing in as {username}: {answer.status}\n{answer.text}"
        jar = {"csrftoken": token, **cookies_of(answer)}
        self.session_keys.add(jar["sessionid"])
        return "; ".join(f"{name}={value}" for name, value in jar.items())

    def connect(
        self, path: str, cookies: str | None = None, origin: str | None = None, timeout: float = 10.0, **options: Any
    ) -> Any:
        """Open a WebSocket with websocket-client. Without ``origin`` no Origin header is sent, as from a script."""
        options.setdefault("class_", Client)
        if origin is None:
            options["suppress_origin"] = True
        client = websocket.create_connection(
            self.ws_url(path), timeout=timeout, cookie=cookies, origin=origin, **options
        )
        self.clients.append(client)
        return client

    def leave(self, since: int = 0) -> None:
        """Close the sockets that :meth:`connect` has opened, but the first ``since``."""
        for client in self.clients[since:]:
            with contextlib.suppress(OSError, websocket.WebSocketException):
                client.shutdown()
        del self.clients[since:]

    def manage(self, *arguments: str, code: int = 0) -> str:
        """Run ``manage.py`` as the administrator of this site would, up to an exit status; return what it prints."""
        with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
            script = warm_python(patched=False).start(["manage.py", *arguments], self.env, stdout=stdout, stderr=stderr)
            ended = script.wait(60)
            stdout.seek(0)
            stderr.seek(0)
            printed = stdout.read()
            assert ended == code, printed + stderr.read()
        return printed


class Sites:
    """Starts sites with what they have in common, and ends all of them at the end of its ``with`` block.

    Args:
        redis_server: the Redis of sites that name no other one.
        site_files: the directory that ``make_site_files`` has made.
        kind: ``Site``, or a class made from it.
    """

    running: list[Site] = []  # of all instances: their logs belong into the report of a test that fails

    def __init__(self, redis_server: RedisServer, site_files: Path, kind: type[Site] = Site) -> None:
        self._redis_server = redis_server
        self._site_files = site_files
        self._kind = kind
        self._started: list[Site] = []

    def __call__(self, redis: RedisServer | None = None, **options: Any) -> Any:
        """Start a site, on the given Redis or that of all; see ``Site`` for the ``options``."""
        site = self._kind((redis or self._redis_server).url, self._site_files, **options)
        self._started.append(site)
        self.running.append(site)
        return site.start()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        problems = []
        for site in reversed(self._started):
            self.running.remove(site)
            try:
                site.stop()
            except AssertionError as problem:
                problems.append(str(problem))
        assert not problems, "\n".join(problems)
