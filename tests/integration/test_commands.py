"""The commands a person types, in a copy of the checkout: make run, make install, uwsgi in its documented forms."""

import contextlib
import fcntl
import http.client
import http.cookiejar
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import redis
import websocket

from project import embedded_redis
from testbed.clients import Client
from testbed.processes import Process, free_port, wait_until
from testbed.site_files import site_environment
from testbed.uwsgi import each_with_one, environment_of, is_elf, uwsgi_binaries
from tests.docs.test_docs import code_blocks
from tests.integration.harness import PublishingSite
from tests.requires import missing, need

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("DJANGO_", "DATABASE_URL", "REDIS_URL", "DEMO", "HTTP", "PROCESSES", "UWSGI_", "MAKE", "MFLAGS")
INI = ROOT / "uwsgi.ini"
# Of an end: what uWSGI, Python and make say. The site's own log may go on, on a slow machine with a warning.
NOISE = re.compile(r"^\w{3} \w{3} [ \d]\d |killing|gateway|goodbye|buried|Traceback|KeyboardInterrupt|make:")
NO_KEY = "The site has no secret key: set DJANGO_SECRET_KEY"
# What takes long is tried with one uWSGI only, now with the one and now with the other.
ONE, OTHER = (str(Path(uwsgi_binaries()[which]).absolute()) for which in (0, -1))


def each_with_one_of(name, choices):
    """Parametrise with each uWSGI and one of the choices."""
    pairs = each_with_one(choices)
    ids = [f"{environment_of(binary)}-{number}" for number, (binary, _) in enumerate(pairs)]
    return pytest.mark.parametrize(("binary", name), [(str(Path(b).absolute()), c) for b, c in pairs], ids=ids)


def environment(given):
    """The environment without what is for the site, for uWSGI (UWSGI_… are its options) or for a ``make`` around."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    # make builds .venv anew for another Python than the one it was built with
    return {**kept, "PYTHON": sys._base_executable, **given}


class Running:
    """A command of its own session, whose output is in a file."""

    def __init__(self, checkout, command, given):
        descriptor, path = tempfile.mkstemp(prefix="output-", dir=checkout)
        os.close(descriptor)
        self.log = Path(path)
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=checkout,
                env=environment(given),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def output(self):
        return self.log.read_text(errors="replace")

    def wait_for_output(self, text, timeout=60):
        def there():
            assert self.process.poll() is None or text in self.output(), self.output()
            return text in self.output()

        wait_until(there, timeout, f"{text!r} in the output of {self.process.args}")

    def press_ctrl_c(self):
        """Send what a terminal sends, to all of the session that is still in its first process group."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(30)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Checkout:
    """A copy of the site with a ``var/`` of its own and the virtual environment of these tests."""

    def __init__(self, prefix="site-"):
        self.path = Path(tempfile.mkdtemp(prefix=prefix))  # short: the path of the embedded Redis's socket is bounded
        shutil.copytree(ROOT / "project", self.path / "project")
        for name in ("manage.py", "wsgi.py", "uwsgi.ini", "Makefile", "requirements.txt", "requirements-dev.txt"):
            shutil.copy(ROOT / name, self.path)
        for name in ("chat", "tools", "wsloop", "templates", "static"):
            (self.path / name).symlink_to(ROOT / name)
        (self.path / ".venv").symlink_to(sys.prefix)
        self.var = self.path / "var"
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        self._running = []

    def start(self, *command, **given):
        self._running.append(Running(self.path, [str(part) for part in command], given))
        return self._running[-1]

    def run(self, *command, **given):
        return subprocess.run(
            [str(part) for part in command],
            cwd=self.path,
            env=environment(given),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def make_accounts(self):
        """Make a database as the README does."""
        for arguments in (["migrate", "-v0"], ["demo_data", "-v0"]):
            answer = self.run(sys.executable, "manage.py", *arguments, DEMO="1")
            assert answer.returncode == 0, answer.stderr

    def copy_accounts(self, site_files):
        """Have what these commands have made in another place, and static files that another start has collected."""
        self.var.mkdir()
        shutil.copy(site_files / "db.sqlite3", self.var)
        if (collected := site_files / "collected").exists():
            shutil.copytree(collected, self.var, dirs_exist_ok=True)

    def keep_static_files(self, site_files):
        """Have other checkouts find them collected."""
        if not (collected := site_files / "collected").exists():
            collected.mkdir()
            shutil.copytree(self.var / "static", collected / "static")
            shutil.copy2(self.var / "static.stamp", collected)

    def let_redis_end_at_once(self):
        """Have the embedded Redis end as soon as nobody uses it, as if the machine were very slow."""
        module = self.path / "project/embedded_redis.py"
        text = module.read_text()
        assert "\nGRACE = 10.0\n" in text
        module.write_text(text.replace("\nGRACE = 10.0\n", "\nGRACE = 0.1\n"))

    def redis_pid(self):
        """The process id of the embedded Redis, or None."""
        path = str(embedded_redis.socket_path(self.var))
        with redis.Redis(unix_socket_path=path) as client, contextlib.suppress(redis.exceptions.ConnectionError):
            return client.info("server")["process_id"]
        return None

    def answers(self):
        try:
            with urllib.request.urlopen(self.url, timeout=30) as answer:
                return answer.status == 200
        except OSError:  # an HTTPError is one too
            return False

    def close(self):
        for running in self._running:
            running.kill()
            print(running.process.args, running.output(), sep="\n")  # shown by pytest if the test failed
        if (self.var / "redis.users").exists():
            wait_until(lambda: embedded_redis.stop_if_unused(self.var), what="the end of all who use Redis")
        shutil.rmtree(self.path)


class Browser:
    """Cookies and forms, as far as signing in and connecting a WebSocket need them."""

    def __init__(self, site):
        self.site = site
        self.cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def get(self, path):
        with self._opener.open(self.site.url + path, timeout=30) as answer:
            return answer.headers, answer.read().decode()

    def sign_in(self, name, password):
        _, page = self.get("/accounts/login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[1]
        form = {"username": name, "password": password, "csrfmiddlewaretoken": token}
        with self._opener.open(self.site.url + "/accounts/login/", urllib.parse.urlencode(form).encode(), timeout=30):
            pass
        assert any(cookie.name == "sessionid" for cookie in self.cookies)
        return self

    def connect(self, path):
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.cookies)
        return contextlib.closing(
            websocket.create_connection(
                f"ws://{self.site.address}{path}", cookie=cookies, origin=self.site.url, timeout=30
            )
        )


def sends_john_a_message_over_the_socket(site):
    with Browser(site).sign_in("john", "secret").connect("/ws/user?subscribe-user&publish-user&echo") as socket:
        socket.send("hello")
        received = []
        while "hello" not in received:
            received.append(socket.recv())  # the message that Redis retains, heartbeats
            assert len(received) < 10, received
        return True


@pytest.fixture
def checkout(request):
    """A ``Checkout``; with an indirect parameter, in a directory whose name begins with that."""
    need("redis-server")
    need("make")
    if not (Path(sys.prefix) / "installed-requirements.txt").exists():
        missing("this virtual environment was not built by make install")
    checkout = Checkout(getattr(request, "param", "site-"))
    try:
        yield checkout
    finally:
        checkout.close()


# Make


def status_of_a_post_in_one_write(checkout, size):
    """Without the token of a form Django refuses it; a connection that breaks without an answer is None."""
    head = f"POST /accounts/login/ HTTP/1.1\r\nHost: {checkout.address}\r\nContent-Length: {size}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", checkout.port), timeout=30) as connection:
        try:
            connection.sendall(head.encode() + b"x" * size)
            words = connection.recv(100).split()
        except ConnectionError:
            words = []
    return int(words[1]) if words else None


def test_make_run_serves_the_site_and_ctrl_c_ends_all_of_it(checkout, site_files):
    running = checkout.start("make", "run", f"HTTP={checkout.address}")
    running.wait_for_output("Ctrl-C stops the site.")
    lines = [line.strip() for line in running.output().splitlines() if line]
    assert lines[:7] == [
        "Migrating the database",
        "Creating the demo accounts",
        "Collecting static files",
        "Starting uWSGI and an embedded Redis",
        f"{checkout.url}/",
        "Accounts (name / password): john / secret, mary / secret, admin / admin",
        "Ctrl-C stops the site.",
    ]
    assert sends_john_a_message_over_the_socket(checkout)
    _, page = Browser(checkout).get("/accounts/login/")
    stylesheet = re.search(r'href="(/static/[^"]+\.[0-9a-f]{12}\.css)"', page)[1]
    headers, _ = Browser(checkout).get(stylesheet)
    assert "immutable" in headers["Cache-Control"]
    checkout.keep_static_files(site_files)
    assert "commands?" not in running.output()  # the query strings of requests are not logged
    for size in (66_000, 500_000):  # more than uWSGI's router may read with the headers
        assert status_of_a_post_in_one_write(checkout, size) == 403

    # a second one at the same address, while the first runs
    second = checkout.run("make", "run", f"HTTP={checkout.address}")
    assert second.returncode != 0
    assert second.stderr.splitlines()[0] == (
        f"Cannot listen on {checkout.address} (Address already in use). "
        "To use another address: make run HTTP=127.0.0.1:9000"
    )
    assert second.stdout == ""

    redis_pid = checkout.redis_pid()
    before = running.output()
    client = websocket.create_connection(f"ws://{checkout.address}/ws/news", timeout=30, class_=Client)
    try:
        running.press_ctrl_c()
        assert client.closing() == 1012
    finally:
        client.shutdown()
    after = running.output()[len(before) :].splitlines()
    assert after[-1] == "Stopped"
    assert [line for line in after if NOISE.search(line)] == []
    assert running.process.returncode in (0, -signal.SIGINT)  # of make, which a shell calls 130
    assert not checkout.answers()
    assert checkout.redis_pid() is None
    assert not Path(f"/proc/{redis_pid}").exists() or sys.platform != "linux"


@pytest.mark.parametrize("checkout", ["it's my site-"], indirect=True)
def test_in_a_path_with_a_space_and_an_apostrophe_make_run_reloads_and_ends_with_make(checkout, site_files):
    checkout.copy_accounts(site_files)
    touch = checkout.var / "chain-reload"
    touch.touch()
    running = checkout.start("make", "run", f"HTTP={checkout.address}")
    running.wait_for_output("Ctrl-C stops the site.")
    later = time.time() + 60
    os.utime(touch, (later, later))
    running.wait_for_output("chain reloading complete")
    assert sends_john_a_message_over_the_socket(checkout)
    running.process.terminate()
    running.process.wait(30)
    wait_until(lambda: not checkout.answers(), 30, "the end of uWSGI")
    wait_until(lambda: checkout.redis_pid() is None, 30, "the end of Redis")


@pytest.mark.parametrize(
    ("last", "seconds"), [("", 0), ("Migrating the database", 0), ("Starting uWSGI", 0), ("Starting uWSGI", 0.5)]
)
def test_ctrl_c_while_make_run_starts(checkout, site_files, last, seconds):
    checkout.copy_accounts(site_files)
    running = checkout.start(sys.executable, "-X", "importtime", "-m", "project", HTTP=checkout.address, DEMO="1")
    running.wait_for_output(last or "django")  # the imports are told, so they can be interrupted
    time.sleep(seconds)  # uWSGI tells nothing while it starts
    running.press_ctrl_c()
    lines = [line for line in running.output().splitlines() if not line.startswith("import time:")]
    assert lines[-1] == "Stopped"
    assert len(lines) <= 5  # the steps it got to, and nothing of uWSGI's or of a traceback
    assert running.process.returncode == 130
    assert not checkout.answers()
    # A uWSGI that was ended while it tried the site out may have started Redis just then; it ends with its last user.
    wait_until(lambda: checkout.redis_pid() is None, timeout=30, what="the end of the embedded Redis")


def test_ctrl_c_while_uwsgi_tries_the_site_out_ends_that_too(checkout, site_files):
    """Until its master is up uWSGI listens to no signal, and what it tries out may never end."""
    checkout.copy_accounts(site_files)
    (checkout.path / "wsgi.py").write_text(
        "import os, time\nopen('new', 'w').write(f'{os.getpid()}')\nos.rename('new', 'tried')\ntime.sleep(600)"
    )
    running = checkout.start(sys.executable, "-m", "project", HTTP=checkout.address, DEMO="1")
    running.wait_for_output("Starting uWSGI")
    tried = checkout.path / "tried"
    wait_until(tried.exists, 30, "uWSGI trying the site out")
    running.press_ctrl_c()
    assert running.output().splitlines()[-1] == "Stopped"
    assert running.process.returncode == 130
    wait_until(lambda: not alive(int(tried.read_text())), 5, "the end of what uWSGI had started")

    # And so does SIGTERM, as a container or systemd sends it to a server that still starts.
    tried.unlink()
    running = checkout.start(ONE, "uwsgi.ini", HTTP=checkout.address, DEMO="1")
    wait_until(tried.exists, 30, "uWSGI trying the site out")
    os.killpg(running.process.pid, signal.SIGTERM)
    running.process.wait(10)
    wait_until(lambda: not alive(int(tried.read_text())), 5, "the end of what uWSGI had started")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_make_run_waits_for_another_start_and_leaves_nothing_behind_when_killed(checkout, site_files):
    checkout.copy_accounts(site_files)
    with (checkout.var / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = checkout.start(sys.executable, "-m", "project", HTTP=checkout.address, DEMO="1")
        running.wait_for_output("Waiting for another start of this site")
        interrupted = checkout.start(sys.executable, "-m", "project", HTTP=checkout.address, DEMO="1")
        interrupted.wait_for_output("Waiting for another start of this site")
        interrupted.press_ctrl_c()
        assert interrupted.output() == "Waiting for another start of this site\nStopped\n"
        assert "Migrating" not in running.output()
    running.wait_for_output("Ctrl-C stops the site.")
    assert checkout.answers()
    if sys.platform == "linux":  # whose kernel tells of a parent's death
        running.kill()
        wait_until(lambda: not checkout.answers(), 30, "the end of uWSGI")
        wait_until(lambda: checkout.redis_pid() is None, 30, "the end of Redis")


def test_make_run_twice_at_once_in_a_new_checkout(checkout):
    other = f"127.0.0.1:{free_port()}"
    addresses = [checkout.address, checkout.address, other]
    started = [
        checkout.start(sys.executable, "-m", "project", HTTP=address, DEMO="1", PYTHONUNBUFFERED="1")
        for address in addresses
    ]
    started[2].wait_for_output("Ctrl-C stops the site.", 90)
    wait_until(lambda: any(each.process.poll() for each in started[:2]), 90, "the end of one at the same address")
    ended, running = sorted(started[:2], key=lambda each: each.process.poll() is None)
    assert f"Cannot listen on {checkout.address} (Address already in use)" in ended.output()
    running.wait_for_output("Ctrl-C stops the site.", 90)
    assert sends_john_a_message_over_the_socket(checkout)
    for each in (running, started[2]):
        each.press_ctrl_c()
        assert "Error" not in each.output()
    assert "Traceback" not in "".join(each.output() for each in started)


@pytest.mark.parametrize("url", ["redis://:hunter2@127.0.0.1:{}/0", "redis://127.0.0.1:{}?password=hunter2"])
def test_make_run_without_the_redis_of_redis_url(checkout, url):
    answer = checkout.run("make", "run", f"HTTP={checkout.address}", REDIS_URL=url.format(free_port()))
    assert answer.returncode != 0
    assert re.match(r"Cannot use the Redis of REDIS_URL \(127\.0\.0\.1:\d+\): .*refused", answer.stderr)
    assert len(answer.stderr.splitlines()) == 2  # and make's own
    assert "hunter2" not in answer.stderr


def test_make_run_with_redis_url_starts_no_redis(checkout, site_files, redis_server):
    checkout.copy_accounts(site_files)
    running = checkout.start("make", "run", f"HTTP={checkout.address}", REDIS_URL=redis_server.url)
    running.wait_for_output("Ctrl-C stops the site.")
    assert "Starting uWSGI\n" in running.output()
    assert sends_john_a_message_over_the_socket(checkout)
    assert not (checkout.var / "redis.lock").exists()
    running.press_ctrl_c()


def test_make_run_without_the_database_of_database_url(checkout):
    (checkout.path / "directory").mkdir()
    answer = checkout.run(
        "make", "run", f"HTTP={checkout.address}", DATABASE_URL=f"sqlite:///{checkout.path}/directory"
    )
    assert answer.returncode != 0
    assert answer.stderr.splitlines()[0] == "OperationalError: unable to open database file"
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:", "9301", "127.0.0.1:99999"])
def test_make_run_at_no_address(checkout, address):
    answer = checkout.run("make", "run", f"HTTP={address}")
    assert (
        answer.stderr.splitlines()[0] == f"HTTP must be an address and a port, such as 127.0.0.1:8000, not {address!r}."
    )


@pytest.mark.parametrize("processes", ["0", "x", ""])
def test_make_run_with_no_number_of_processes(checkout, processes):
    answer = checkout.run("make", "run", f"HTTP={checkout.address}", PROCESSES=processes)
    assert answer.stderr.splitlines()[0] == f"PROCESSES must be a number of workers, 1 or more, not {processes!r}."


def test_make_install_says_nothing_when_nothing_changed(checkout):
    answer = checkout.run("make", "install")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


@pytest.mark.parametrize("python", ["no-such-python", "python2.7"])
def test_make_with_an_unusable_python(checkout, python):
    old = checkout.path / "python2.7"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    answer = checkout.run("make", "install", f"PYTHON={python if python.startswith('no') else old}")
    assert answer.returncode != 0
    assert re.match(r"no-such-python is not installed: |.*/python2.7 is older than Python 3.10: ", answer.stderr)


# Uwsgi


def pages_allow_content_of_this_site_only(checkout):
    browser = Browser(checkout).sign_in("admin", "admin")
    for path in ("/", "/accounts/login/", "/admin/", "/admin/auth/user/", "/admin/auth/user/add/"):
        headers, page = browser.get(path)
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy == {
            "default-src": "'self'",
            "base-uri": "'self'",
            "connect-src": "'self'",
            "form-action": "'self'",
            "frame-ancestors": "'none'",
            "object-src": "'none'",
        }
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert not re.findall(
            r"<script(?![^>]*\bsrc=)(?![^>]*application/json)[^>]*>|<style|\sstyle=|\son\w+=", page
        ), path
        assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//(?!www\.)""", page), path


# test_fronts.py has every pair.
@each_with_one_of("front", ["--http-socket", "--http"])
def test_the_documented_command(checkout, binary, front):
    checkout.make_accounts()
    routed = ["--http-websockets"] if front == "--http" else []
    running = checkout.start(binary, front, checkout.address, "--gevent", 100, *routed, "--module", "wsgi", DEMO="1")
    wait_until(checkout.answers, 30, "an answer")
    assert sends_john_a_message_over_the_socket(checkout)
    _, page = Browser(checkout).get("/")
    stylesheet = re.search(r'href="(/static/[^"]+\.css)"', page)[1]
    headers, _ = Browser(checkout).get(stylesheet)  # nothing was collected
    assert headers["Content-Type"].startswith("text/css")
    pages_allow_content_of_this_site_only(checkout)
    running.press_ctrl_c()
    assert "Traceback" not in running.output()


def test_the_documented_command_with_other_settings_and_redis_url(checkout, site_files, redis_server):
    checkout.copy_accounts(site_files)
    binary = Path(uwsgi_binaries()[-1]).absolute()
    (checkout.path / "other.py").write_text("from project.settings import *\nSECRET_KEY = 'from this module'\n")
    command = [binary, "--http", checkout.address, "--gevent", 100, "--http-websockets", "--module", "wsgi"]
    checkout.start(*command, DJANGO_SETTINGS_MODULE="other", REDIS_URL=redis_server.url)
    wait_until(checkout.answers, 30, "an answer")
    assert sends_john_a_message_over_the_socket(checkout)
    assert not (checkout.var / "redis.lock").exists()


@each_with_one_of("front", [["--http", "ADDRESS", "--gevent", "100", "--module", "wsgi"], ["uwsgi.ini"]])
def test_without_a_secret_key_uwsgi_ends_with_one_line(checkout, binary, front):
    command = [binary, *(part.replace("ADDRESS", checkout.address) for part in front)]
    answer = checkout.run(*command, HTTP=checkout.address)
    assert answer.returncode != 0
    told = answer.stdout + answer.stderr
    assert told.count(NO_KEY) == 1
    assert "Traceback" not in told


@pytest.mark.parametrize("binary", [ONE], ids=environment_of)
def test_uwsgi_ini_survives_its_reloads_from_a_virtual_environment(checkout, site_files, binary):
    """However long they take, the embedded Redis is the same one afterwards. The last one loads uWSGI itself again.

    One worker: while it is replaced, Redis has no user but the master. Two are reloaded in ``test_lifecycle.py``.
    """
    checkout.copy_accounts(site_files)
    checkout.let_redis_end_at_once()
    touched = [checkout.var / name for name in ("chain-reload", "reload", "full-reload")]
    for each in touched:
        each.touch()
    options = ["uwsgi.ini", "--touch-reload", touched[-1]]
    running = checkout.start(binary, *options, DEMO="1", HTTP=checkout.address)
    wait_until(checkout.answers, 30, "an answer")
    redis_pid = checkout.redis_pid()
    later = time.time() + 60

    def started():
        return running.output().count("Respawned uWSGI worker")

    def new_workers(before):  # one more may have been replaced on a busy machine
        wait_until(lambda: started() > before, 60, "a new worker")
        wait_until(checkout.answers, 30, "an answer")
        assert sends_john_a_message_over_the_socket(checkout)
        assert checkout.redis_pid() == redis_pid

    before = started()
    os.utime(touched[0], (later, later))
    running.wait_for_output("chain reloading complete", 60)
    new_workers(before)
    before = started()
    os.utime(touched[1], (later, later))
    new_workers(before)
    before = started()
    running.process.send_signal(signal.SIGHUP)
    new_workers(before)
    assert "buried" not in running.output(), "the router has ended"

    os.utime(touched[2], (later, later))
    wait_until(lambda: running.output().count("spawned uWSGI master process") == 2, 60, "the next server")
    wait_until(checkout.answers, 30, "an answer")
    assert sends_john_a_message_over_the_socket(checkout)
    assert checkout.redis_pid() == redis_pid

    running.process.terminate()
    running.process.wait(30)
    assert "ModuleNotFoundError" not in running.output()
    wait_until(lambda: checkout.redis_pid() is None, 30, "the end of Redis")


@each_with_one_of("number", [signal.SIGTERM, signal.SIGHUP])
def test_uwsgi_ini_does_not_wait_for_a_worker_that_loads(checkout, site_files, binary, number):
    checkout.copy_accounts(site_files)
    touch = checkout.var / "chain-reload"
    touch.touch()
    running = checkout.start(binary, "uwsgi.ini", DEMO="1", HTTP=checkout.address)
    wait_until(checkout.answers, 30, "an answer")
    later = time.time() + 60
    os.utime(touch, (later, later))

    def loads():
        _, respawned, after = running.output().partition("Respawned uWSGI worker")
        return respawned and "(post-fork)" in after.rpartition("unix_signal:2")[2]

    wait_until(loads, 30, "a worker that loads")
    running.process.send_signal(number)
    if number == signal.SIGHUP:
        wait_until(lambda: running.output().count("Respawned uWSGI worker") == 2, 60, "the next worker")
        wait_until(checkout.answers, 30, "an answer")
        running.process.terminate()
    running.process.wait(60)
    assert "NO MERCY" not in running.output()


STOPS = "\n".join(
    re.findall(r"^(?:hook-master-start|hook-as-gateway|hook-post-fork) = .*$", INI.read_text(), re.MULTILINE)
)


@pytest.mark.parametrize("binary", [OTHER], ids=environment_of)
def test_a_vassal_of_the_emperor_that_loads_changed_code(binary, tmp_path, redis_server, site_files):
    """Both as docs/how-to/run-in-production.rst has them, whose commands are the ones that run here."""
    page = ROOT / "docs/how-to/run-in-production.rst"
    (command,) = [each for each in code_blocks(page, "console") if "--emperor " in each]
    (options,) = [each for each in code_blocks(page, "ini") if "py-autoreload" in each]
    port = free_port()
    if is_elf(binary):
        options += f"\nhome = {sys.prefix}"
    (tmp_path / "vassals").mkdir()
    (tmp_path / "vassals" / "site.ini").write_text(
        f"[uwsgi]\nchdir = {tmp_path}\npythonpath = {ROOT}\nmodule = changing\nhttp = 127.0.0.1:{port}\n"
        f"http-websockets = true\ngevent = 100\nmaster = true\nlazy-apps = true\n{options}\n{STOPS}\n"
    )
    shutil.copy(site_files / "db.sqlite3", tmp_path / "db.sqlite3")
    code = "from wsgi import application as site\n\ndef application(environ, start_response):\n"
    code += "    start = lambda status, headers: start_response(status, [*headers, ('X-Version', '{}')])\n"
    code += "    return site(environ, start)\n"
    changing = tmp_path / "changing.py"
    changing.write_text(code.format(1))
    command = command.removeprefix("$ ").replace(".venv/bin/uwsgi --emperor ", f"{binary} --emperor ")
    command = command.replace("/srv/site/.venv/bin/uwsgi", binary).replace("/srv/vassals", f"{tmp_path}/vassals")
    env = site_environment(tmp_path, site_files, redis_server.url, PublishingSite.settings_module)
    process = Process(shlex.split(command), tmp_path / "log", env)

    def version():
        assert process.returncode is None, process.log()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as line:
            try:
                line.request("GET", "/accounts/login/")
                return line.getresponse().headers["X-Version"]
            except (OSError, http.client.HTTPException):  # it is not there yet, or reloads
                return None

    try:
        wait_until(lambda: version() == "1", 30, "an answer")
        client = websocket.create_connection(f"ws://127.0.0.1:{port}/ws/news", timeout=30, class_=Client)
        try:
            changing.write_text(code.format(2))

            def reloaded():
                later = time.time() + 60  # a change before uWSGI has looked for the first time is none
                os.utime(changing, (later, later))
                return version() == "2"

            wait_until(reloaded, 30, "the reload")
            assert client.closing() == 1012
        finally:
            client.shutdown()
        client = websocket.create_connection(f"ws://127.0.0.1:{port}/ws/news", timeout=30, class_=Client)
        try:
            process.send_signal(signal.SIGTERM)
            assert client.closing() == 1012
        finally:
            client.shutdown()
    finally:
        clean = process.stop(signal.SIGTERM)
        print(process.log())  # shown by pytest if the test failed
    assert clean
