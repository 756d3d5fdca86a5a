"""Real servers for the integration tests: Redis, uWSGI with the sample site, nginx in front of it, and their clients.

Every server has ports and a directory of its own, is waited for by asking it, proves that it is the one that was
started, and is ended by its process group. Nothing here patches or imports gevent: the tests are clients, as a browser
or a script is.
"""

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import redis
import websocket

from bench.servers import as_in_uwsgi_ini

ROOT = Path(__file__).resolve().parents[2]
HEARTBEAT = "--heartbeat--"
DEMO_ACCOUNTS = {"john": "secret", "mary": "secret", "admin": "admin"}
# Below those that the kernel gives to connections. Processes that run tests side by side have a part of them each: a
# port stays its test's own before its server listens on it, and while that is killed.
FIRST_PORT, LAST_PORT = map(int, os.environ.get("TEST_PORTS", "10000-32767").split("-"))


def free_port():
    """A TCP port of the loopback that nobody listens on, and that the kernel gives to no connection meanwhile."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT + 1)))
            return probe.getsockname()[1]


def wait_until(condition, timeout=15.0, what="the condition"):
    """Ask until ``condition()`` is true and return what it returned; ``timeout`` in seconds, then fail."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {timeout:g} s; last seen: {result!r}")
        time.sleep(0.02)


def make_certificate(certificate, key):
    """Write a self-signed certificate of the loopback and its key, as PEM files."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)


def uwsgi_binaries():
    """The uWSGI executables to test, from ``UWSGI_BINARIES`` (separated by colons) or the one of this environment."""
    named = os.environ.get("UWSGI_BINARIES")
    return named.split(":") if named else [str(Path(sys.executable).parent / "uwsgi")]


def environment_of(binary):
    """The name of the virtual environment that has this executable: the ids of tests have it, and no path."""
    return Path(binary).absolute().parent.parent.name


def has_ssl(binary):
    """Whether this uWSGI was built with OpenSSL (the pyuwsgi wheel is not)."""
    answer = subprocess.run([binary, "--help"], capture_output=True, text=True, timeout=30, check=False)
    return "--https-socket" in answer.stdout


class Process:
    """One server process and its children: a log file, a process group, an orderly end."""

    started = Counter()  # how many of each program there have been: most of the time that tests take

    def __init__(self, command, log, env=None):
        self.started[Path(command[0]).name] += 1
        self.log_path = Path(log)
        with self.log_path.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def returncode(self):
        return self._popen.poll()

    def send_signal(self, number):
        self._popen.send_signal(number)

    def wait(self, timeout=20.0):
        return self._popen.wait(timeout)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def stop(self, number=signal.SIGTERM, timeout=20.0):
        """End the process and return whether it obeyed; what is left of its group after ``timeout`` s is killed."""
        clean = True
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


class Victim:
    """A server of one process, ``_process``, to which things may happen."""

    def kill(self):
        """End it at once, as a crash of its machine would."""
        self._process.stop(signal.SIGKILL)

    def pause(self):
        """Stop it without ending it: connections stay, nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)


class RedisServer(Victim):
    """A Redis on a port and a unix socket of its own, without persistence. ``kill`` and ``start`` may alternate."""

    def __init__(self, password=None, tls=False):
        self.directory = Path(tempfile.mkdtemp(prefix="redis-"))
        self.port = free_port()
        self.socket_path = str(self.directory / "redis.sock")
        self.password = password
        self.certificate = self.directory / "certificate.pem" if tls else None
        self._process = None
        if tls:
            make_certificate(self.certificate, self.directory / "key.pem")

    @property
    def url(self):
        scheme = "rediss" if self.certificate else "redis"
        auth = f":{quote(self.password, safe='')}@" if self.password else ""
        query = f"?ssl_ca_certs={self.certificate}" if self.certificate else ""
        return f"{scheme}://{auth}127.0.0.1:{self.port}/0{query}"

    def connection(self, **more):
        """The ``WS4REDIS_CONNECTION`` dictionary for this server."""
        options = {"host": "127.0.0.1", "port": self.port, "db": 0}
        if self.password:
            options["password"] = self.password
        if self.certificate:
            options.update(ssl=True, ssl_ca_certs=str(self.certificate))
        return {**options, **more}

    def start(self):
        command = [shutil.which("redis-server"), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--dir", str(self.directory), "--unixsocket", self.socket_path, "--unixsocketperm", "700"]
        if self.certificate:
            key = str(self.directory / "key.pem")
            command += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            command += ["--tls-cert-file", str(self.certificate), "--tls-key-file", key]
            command += ["--tls-ca-cert-file", str(self.certificate)]
        else:
            command += ["--port", str(self.port)]
        if self.password:
            command += ["--requirepass", self.password]
        self._process = Process(command, self.directory / "log")
        wait_until(self._is_ours, what="Redis answering")
        return self

    def _is_ours(self):
        if self._process.returncode is not None:
            raise AssertionError(f"redis-server ended while starting:\n{self._process.log()}")
        try:
            with self.client() as client:
                return client.info("server")["process_id"] == self._process.pid
        except redis.exceptions.ConnectionError:
            return False

    def client(self, **options):
        return redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=10, **options)

    def close(self):
        if self._process:
            self._process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


class RedisProxy:
    """A slow line to a Redis: ``question`` and ``answer`` get bytes before they are passed on, and may wait."""

    def __init__(self, port, question=lambda data: None, answer=lambda data: None):
        self._port = port
        self._question, self._answer = question, answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [client, server]
                for ends in ((client, server, self._question), (server, client, self._answer)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    @staticmethod
    def _pass_on(source, target, wait):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                wait(data)
                target.sendall(data)
        with contextlib.suppress(OSError):  # after a reset too, or the other side would wait for an end for ever
            target.shutdown(socket.SHUT_WR)

    def close(self):
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@dataclass(frozen=True)
class Response:
    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def text(self):
        return self.content.decode()

    def json(self):
        return json.loads(self.content)


class Client(websocket.WebSocket):
    """A websocket-client connection with the words the tests need. Every wait is bounded, in seconds."""

    def next(self, timeout=10.0):
        """The next message that is not the heartbeat: ``str`` from a text frame, ``bytes`` from a binary one."""
        deadline = time.monotonic() + timeout
        while True:
            self.settimeout(max(deadline - time.monotonic(), 0.001))
            opcode, data = self.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                raise AssertionError(f"closed by the server: {close_code(data)}")
            message = data.decode() if opcode == websocket.ABNF.OPCODE_TEXT else data
            if message != HEARTBEAT:
                return message

    def take(self, count, timeout=30.0):
        """The next ``count`` messages."""
        deadline = time.monotonic() + timeout
        return [self.next(max(deadline - time.monotonic(), 0.001)) for _ in range(count)]

    def until(self, last, timeout=10.0):
        """The messages that come before ``last``; publishing ``last`` afterwards shows that nothing else arrives."""
        deadline = time.monotonic() + timeout
        return list(iter(lambda: self.next(max(deadline - time.monotonic(), 0.001)), last))

    def round_trip(self, payload=b"round trip", timeout=10.0):
        """Ping, and return the payload of the pong: by then the server has read every frame that was sent before."""
        self.ping(payload)
        self.settimeout(timeout)
        while True:
            opcode, data = self.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_PONG:
                return data
            if opcode != websocket.ABNF.OPCODE_PING:  # the server's own pings come at any time
                assert data == HEARTBEAT.encode(), f"{data!r} came before the pong"

    def closing(self, timeout=15.0):
        """Read on until the server ends the connection: the code of its close frame, or None if there was none."""
        deadline = time.monotonic() + timeout
        while True:
            self.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                opcode, data = self.recv_data()
            except (websocket.WebSocketConnectionClosedException, ConnectionResetError, BrokenPipeError):
                return None
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return close_code(data)


def close_code(payload):
    return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005


NGINX = """
daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx.log; worker_processes 1; {user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; uwsgi_temp_path {directory}/uwsgi;
    fastcgi_temp_path {directory}/fastcgi; scgi_temp_path {directory}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ {location} }}
    }}
}}
"""
NGINX_PROXY = """
proxy_pass http://unix:{directory}/uwsgi.sock; proxy_http_version 1.1; proxy_set_header Host $http_host;
proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
"""
NGINX_UWSGI = """
uwsgi_pass unix:{directory}/uwsgi.sock;
uwsgi_param QUERY_STRING $query_string; uwsgi_param REQUEST_METHOD $request_method;
uwsgi_param CONTENT_TYPE $content_type; uwsgi_param CONTENT_LENGTH $content_length;
uwsgi_param REQUEST_URI $request_uri; uwsgi_param PATH_INFO $document_uri; uwsgi_param DOCUMENT_ROOT $document_root;
uwsgi_param SERVER_PROTOCOL $server_protocol; uwsgi_param REQUEST_SCHEME $scheme;
uwsgi_param REMOTE_ADDR $remote_addr; uwsgi_param REMOTE_PORT $remote_port;
uwsgi_param SERVER_PORT $server_port; uwsgi_param SERVER_NAME $server_name;
"""
FRONTS = ("http", "http-keepalive", "http-socket", "nginx-http", "nginx-uwsgi")


class Site:
    """The sample site on a uWSGI of its own.

    Args:
        binary: the uWSGI executable.
        front: one of ``FRONTS``, ``http11-socket`` or ``https-socket``; the last needs ``certificate`` and ``key``.
        processes: workers.
        gevent: async cores of each worker.
        options: further command line options of uWSGI.
        settings: Django settings that differ, if JSON can hold them; ``settings_module`` is for those it cannot.
        env: further environment.
        master: whether uWSGI has a master process; the command that ws4redis documents does without.

    Attributes:
        clients: the connections that ``connect`` made; closed with the site.
    """

    def __init__(
        self,
        redis_url,
        site_files,
        binary=None,
        front="http",
        processes=1,
        gevent=100,
        options=(),
        settings=None,
        settings_module="tests.integration.sites.settings",
        env=None,
        master=True,
        certificate=None,
        key=None,
    ):
        self.binary = binary or uwsgi_binaries()[0]
        self.front = front
        self.directory = Path(tempfile.mkdtemp(prefix="site-"))
        shutil.copy(site_files / "db.sqlite3", self.directory / "db.sqlite3")
        self.token = secrets.token_hex(8)
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.scheme = "https" if front == "https-socket" else "http"
        self.url = f"{self.scheme}://{self.host}"
        self.session_keys = set()
        self._master = master
        self._certificate, self._key = certificate, key
        self._stats = str(self.directory / "stats.sock")
        self.clients = []
        self._nginx = None
        self._log_mark = 0
        options = [*self._sockets(), *options]
        self.command = self._command(processes, gevent, options)
        self.env = site_environment(self.directory, site_files, redis_url)
        self.env |= {"DJANGO_SETTINGS_MODULE": settings_module, "SITE_TOKEN": self.token}
        self.env |= {"SITE_SETTINGS": json.dumps(settings or {}), **(env or {})}
        self._process = None

    def _sockets(self):
        address, unix = self.host, str(self.directory / "uwsgi.sock")
        return {
            "http": ["--http", address, "--http-websockets"],
            "http-keepalive": ["--http", address, "--http-websockets", "--http-keepalive"],
            "http-socket": ["--http-socket", address],
            "http11-socket": ["--http11-socket", address],
            "https-socket": ["--https-socket", f"{address},{self._certificate},{self._key}"],
            "nginx-http": ["--http-socket", unix],
            "nginx-uwsgi": ["--socket", unix],
        }[self.front]

    def _command(self, processes, gevent, options):
        command = [self.binary, "--need-app", "--gevent", str(gevent), "--module", "wsgi", *map(str, options)]
        if self._master:
            command += ["--master", "--die-on-term", "--processes", str(processes), "--stats", self._stats]
            # No signal is lost on workers that load, or between a crash and the next worker.
            command += as_in_uwsgi_ini("hook-post-fork", "forkbomb-delay")
        if Path(self.binary).parent != Path(sys.executable).parent and is_elf(self.binary):
            command += ["--home", sys.prefix]  # a compiled uWSGI from elsewhere: with the packages of this environment
        return command

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self):
        self._process = Process(self.command, self.directory / "uwsgi.log", self.env)
        if self.front.startswith("nginx"):
            self._start_nginx()
        wait_until(self._is_ours, timeout=60.0, what=f"{self} answering")
        return self

    def _start_nginx(self):
        location = NGINX_PROXY if self.front == "nginx-http" else NGINX_UWSGI
        config = self.directory / "nginx.conf"
        config.write_text(
            NGINX.format(
                directory=self.directory,
                port=self.port,
                user="user root;" if os.geteuid() == 0 else "",
                location=location.format(directory=self.directory),
            )
        )
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        command = [nginx, "-c", str(config), "-e", str(self.directory / "nginx.log")]
        self._nginx = Process(command, self.directory / "nginx.out")

    def _is_ours(self):
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
    def pid(self):
        """The process that was started: the master, or the only worker of a site without one."""
        return self._process.pid

    def send_signal(self, number):
        self._process.send_signal(number)

    def wait(self, timeout=20.0):
        """Wait for the server to end by itself and return its exit status."""
        return self._process.wait(timeout)

    def stop(self):
        """End it, and insist: it ends in time, and the keys of its sessions are in no log."""
        log = ""
        try:
            for client in self.clients:
                with contextlib.suppress(OSError, websocket.WebSocketException):
                    client.shutdown()
            clean = self._process.stop() if self._process else True
            if self._nginx:
                self._nginx.stop()
            log = self.log() if self._process else ""
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
        assert clean, f"{self} did not end within 20 s of SIGTERM:\n{log[-4000:]}"
        leaked = [key for key in self.session_keys if key in log]
        assert not leaked, f"session keys in the log of {self}"

    def __str__(self):
        return f"{self.front} of {self.binary}"

    # --- looking inside -----------------------------------------------------------------------------------------------

    def log(self):
        """Everything that uWSGI and the site wrote so far."""
        return self._process.log()

    def mark_log(self):
        self._log_mark = self._process.log_path.stat().st_size

    def log_since_mark(self):
        with self._process.log_path.open("rb") as file:
            file.seek(self._log_mark)
            return file.read().decode(errors="replace")

    def workers(self):
        """Process ids of the workers that are up, by asking uWSGI's master."""
        if not self._master:
            return [self.pid]
        with socket.socket(socket.AF_UNIX) as stats:
            stats.settimeout(10)
            stats.connect(self._stats)
            text = b"".join(iter(lambda: stats.recv(65536), b""))
        return [worker["pid"] for worker in json.loads(text)["workers"] if worker["pid"] and worker["status"] != "dead"]

    def descriptors(self):
        """How many descriptors each worker has open, by process id."""
        return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in self.workers()}

    @contextlib.contextmanager
    def only(self, pid):
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

    def ws_url(self, path):
        """``path`` is what follows WEBSOCKET_URL (``/ws/`` unless it starts with a slash): facility and query."""
        return f"ws{self.scheme[4:]}://{self.host}{path if path.startswith('/') else '/ws/' + path}"

    def request(self, method, path, headers=None, body=None, cookies=None, timeout=20.0):
        """One HTTP request on a connection of its own."""
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

    def login(self, username="john", password=None):
        """Sign in through the site's own form; returns the value of the Cookie header of a signed-in browser."""
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

    def connect(self, path, cookies=None, origin=None, timeout=10.0, **options):
        """Open a WebSocket with websocket-client. Without ``origin`` no Origin header is sent, as from a script."""
        options.setdefault("class_", Client)
        if origin is None:
            options["suppress_origin"] = True
        client = websocket.create_connection(
            self.ws_url(path), timeout=timeout, cookie=cookies, origin=origin, **options
        )
        self.clients.append(client)
        return client

    def manage(self, *arguments):
        """Run ``manage.py`` as the administrator of this site would, and return what it prints."""
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def publish(self, facility, *messages, cookies=None, publisher="wsloop", how="plain", **more):
        """Publish from inside the server, through a view (``tests/integration/sites/views.py`` explains the values)."""
        options = {name: more.pop(name) for name in ("expire", "key") if name in more}
        order = {"facility": facility, "messages": messages, "publisher": publisher, "how": how, "audience": more}
        order |= options
        answer = self.request("POST", "/test/publish/", cookies=cookies, body=json.dumps(order))
        assert answer.status == 200, f"publishing: {answer.status}\n{answer.text}\n{self.log()[-4000:]}"


class Sites:
    """Starts sites with what they have in common, and ends all of them at the end of its ``with`` block."""

    running = []  # of all instances: their logs belong into the report of a test that fails

    def __init__(self, redis_server, site_files):
        self._redis_server = redis_server
        self._site_files = site_files
        self._started = []

    def __call__(self, redis=None, **options):
        """Start a site, on the given ``RedisServer`` or the shared one; see ``Site`` for the ``options``."""
        site = Site((redis or self._redis_server).url, self._site_files, **options)
        self._started.append(site)
        self.running.append(site)
        return site.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        problems = []
        for site in reversed(self._started):
            self.running.remove(site)
            try:
                site.stop()
            except AssertionError as problem:
                problems.append(str(problem))
        assert not problems, "\n".join(problems)


def is_elf(binary):
    with open(binary, "rb") as file:
        return file.read(4) == b"\x7fELF"


def cookies_of(response):
    """Names and values of the cookies that a response sets."""
    found = (re.match(r"([^=]+)=([^;]*)", line) for line in response.headers.get_all("Set-Cookie", []))
    return {match[1]: match[2] for match in found}


def site_environment(directory, site_files, redis_url):
    """The environment of the site: nothing of the caller's that could change it; it writes to ``directory`` only."""
    theirs = ("DJANGO_", "REDIS_", "DATABASE_", "DEMO", "UWSGI_", "SITE_", "HTTP")
    return {name: value for name, value in os.environ.items() if not name.startswith(theirs)} | {
        "DJANGO_SETTINGS_MODULE": "tests.integration.sites.settings",
        "DJANGO_SECRET_KEY": "only-for-the-integration-tests-" + "x" * 32,
        "DEMO": "1",
        "DATABASE_URL": f"sqlite:///{directory}/db.sqlite3",
        "REDIS_URL": redis_url,
        "SITE_VAR": str(directory),
        "SITE_STATIC": str(site_files / "static"),
        "PYTHONUNBUFFERED": "1",
    }


def make_site_files(directory):
    """A migrated database with the demo accounts and the collected static files, for sites to start from."""
    env = site_environment(directory, directory, "redis://127.0.0.1:1/0")
    for command in (["migrate", "-v0"], ["demo_data"], ["collectstatic", "-v0", "--no-input"]):
        quiet = {"stdout": subprocess.DEVNULL}  # what it says of accounts it has made; errors go on being seen
        subprocess.run([sys.executable, "manage.py", *command], cwd=ROOT, env=env, check=True, timeout=120, **quiet)
    return directory


class StockPublisher:
    """ws4redis's own publisher in a process of its own, where wsloop cannot be imported."""

    def __init__(self, connection, prefix="ws", **settings):
        settings = {"WS4REDIS_CONNECTION": connection, "WS4REDIS_PREFIX": prefix, **settings}
        script = Path(__file__).parent / "sites" / "stock_publisher.py"
        self._lock = threading.Lock()
        self._popen = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script), json.dumps(settings)],
            cwd=script.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._popen.stdout.readline() == "ready\n"

    def publish(self, facility, *messages, expire=None, **audience):
        """Returns when Redis has all ``messages``."""
        options = {} if expire is None else {"expire": expire}
        order = {"facility": facility, "messages": messages, "audience": audience, "options": options}
        with self._lock:
            self._popen.stdin.write(json.dumps(order) + "\n")
            self._popen.stdin.flush()
            assert self._popen.stdout.readline() == "published\n"

    def close(self):
        self._popen.stdin.close()
        self._popen.wait(10)
        self._popen.stdout.close()
