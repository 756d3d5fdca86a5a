"""``manage.py runserver``: a real process with a tiny site, its WebSockets and its auto-reload."""

import contextlib
import http.client
import importlib
import importlib.machinery
import os
import signal
import socket
import sys
import types
from pathlib import Path

import pytest
import websocket
from django.core.management.base import CommandError

from testbed.clients import Client
from testbed.processes import ROOT, Process, free_port, wait_until

MANAGE = """#!{python}
import os, sys
{patch}
os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
SETTINGS = """
import os
SECRET_KEY = "only-for-this-test"
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "[::1]"]
INSTALLED_APPS = {applications}
ROOT_URLCONF = "site_urls"
WSGI_APPLICATION = "site_wsgi.application"
STATIC_URL = "static/"
STATICFILES_DIRS = [os.path.dirname(os.path.abspath(__file__)) + "/files"]
WS4REDIS_CONNECTION = os.environ["SITE_REDIS"]
DATABASES = {{}}
WSLOOP = {{"CLIENTS_MAY_PUBLISH": True}}
"""
URLS = """
from django.http import HttpResponse
from django.urls import path

def page(request):
    import sys
    from gevent import monkey
    flags = sorted(sys._xoptions), sys.warnoptions, sys.flags.quiet, sys.flags.no_user_site
    return HttpResponse(f"version 1, {flags}, patched {monkey.is_module_patched('socket')}")

def publish(request):
    from wsloop.publisher import RedisPublisher
    RedisPublisher(facility="news", broadcast=True).publish_message("from a view")
    return HttpResponse("published")

urlpatterns = [path("", page), path("publish/", publish)]
"""
WSGI = """
from gevent import monkey; monkey.patch_all()
from django.core.wsgi import get_wsgi_application
from wsloop.server import WebsocketServer

django_application, websocket_application = get_wsgi_application(), WebsocketServer()

def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/ws/"):
        return websocket_application(environ, start_response)
    return django_application(environ, start_response)
"""


class Site:
    """A site in a directory of its own, served by ``manage.py runserver``."""

    def __init__(self, directory, redis_url, address="127.0.0.1"):
        self.directory = directory
        self.port = free_port()
        self.address = address
        self.host = f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
        self.env |= {"SITE_REDIS": redis_url, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.clients = []

    def write(self, patch="", applications=("wsloop", "ws4redis", "django.contrib.staticfiles"), urls=URLS):
        applications = [*applications, "django.contrib.auth", "django.contrib.contenttypes"]
        (self.directory / "manage.py").write_text(MANAGE.format(python=sys.executable, patch=patch))
        (self.directory / "manage.py").chmod(0o755)
        (self.directory / "site_settings.py").write_text(SETTINGS.format(applications=applications))
        (self.directory / "site_urls.py").write_text(urls)
        (self.directory / "site_wsgi.py").write_text(WSGI)
        (self.directory / "files").mkdir(exist_ok=True)
        (self.directory / "files" / "hello.txt").write_text("a static file")

    def start(self, *options, python=()):
        self.begin([sys.executable, *python, self.directory / "manage.py"], *options)
        wait_until(self.answers, timeout=30, what="runserver answering")

    def begin(self, program, *options, directory=ROOT):
        """Run ``program``, which is some way to start Django's commands, in ``directory``; it is not waited for."""
        command = ["env", "-C", directory, *program, "runserver", self.host, *options]
        self.process = Process([str(each) for each in command], self.directory / f"log-{self.port}", self.env)

    def answers(self):
        assert self.process.returncode is None, self.process.log()
        with contextlib.suppress(OSError):
            return self.get("/")

    def get(self, path):
        connection = http.client.HTTPConnection(self.address, self.port, timeout=10)
        try:
            connection.request("GET", path, headers={"Host": self.host})
            answer = connection.getresponse()
            return answer.read().decode()
        except http.client.HTTPException as broken:  # it has just been restarted
            raise ConnectionError from broken
        finally:
            connection.close()

    def connect(self, path):
        client = websocket.create_connection(
            f"ws://{self.host}/ws/{path}", timeout=10, class_=Client, origin=f"http://{self.host}"
        )
        self.clients.append(client)
        return client

    def stop(self):
        for client in self.clients:
            client.shutdown()
        if hasattr(self, "process"):
            self.process.stop(signal.SIGINT, timeout=5)
            assert "KeyboardInterrupt" not in self.process.log(), "Ctrl-C is quiet"


@pytest.fixture
def site(tmp_path, private_redis):
    site = Site(tmp_path, private_redis.url)
    yield site
    site.stop()


def test_in_each_way_to_start_it_serves_site_sockets_and_static_files_and_reloads(tmp_path, private_redis):
    """All of them at once, in one directory, so that one change of a file is enough."""
    directory, elsewhere = tmp_path / "my site", tmp_path / "elsewhere"
    for each in (directory, elsewhere):
        each.mkdir()
    (elsewhere / "random.py").write_text(
        "raise RuntimeError('no module of a directory that has nothing to do with it')"
    )
    options = ["-Xutf8=1", "-X", "faulthandler", "-W", "ignore:a text"]
    module = {"DJANGO_SETTINGS_MODULE": "site_settings"}
    path = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(directory)]), **module}
    ways = [
        (
            [sys.executable, *options, directory / "manage.py"],
            elsewhere,
            {},
            ["faulthandler", "utf8"],
            ["ignore:a text"],
        ),
        (["./manage.py"], directory, {}, [], []),
        ([sys.executable, "-m", "django"], directory, module, [], []),
        ([Path(sys.executable).with_name("django-admin")], elsewhere, path, [], []),
    ]
    with contextlib.ExitStack() as stack:
        sites = []
        for program, where, environment, *flags in ways:
            site = Site(directory, private_redis.url)
            site.env |= environment
            if not sites:
                site.write()
            site.begin(program, directory=where)
            stack.callback(site.stop)
            sites.append((site, f"({flags[0]}, {flags[1]}, 0, 0)"))
        clients = []
        for site, flags in sites:
            wait_until(site.answers, timeout=60, what="runserver answering")
            assert site.get("/") == f"version 1, {flags}, patched True", "it has started itself again, patched"
            assert site.get("/static/hello.txt") == "a static file"
            clients.append(site.connect("news?subscribe-broadcast"))
        other = site.connect("news?publish-broadcast")
        assert site.get("/publish/") == "published"
        other.send("from a socket")
        assert [client.take(2) for client in clients] == [["from a view", "from a socket"]] * len(ways)

        urls = directory / "site_urls.py"
        urls.write_text(URLS.replace("version 1", "version 2"))
        # Auto-reload compares times of files, which may be too coarse for two changes in a row.
        os.utime(urls, (urls.stat().st_atime, urls.stat().st_mtime + 10))
        for (site, flags), client in zip(sites, clients, strict=True):
            wait_until(lambda site=site: _reloaded(site), timeout=60, what="the reload")
            assert site.get("/") == f"version 2, {flags}, patched True"
            assert client.closing() == 1012, "the process that held it has said goodbye"
            client = site.connect("news?subscribe-broadcast")
            assert client.next() == "from a socket", "the last message, kept"
            assert client.round_trip() == b"round trip"


def _reloaded(site):
    with contextlib.suppress(OSError):
        return site.get("/").startswith("version 2")


@pytest.fixture
def main(monkeypatch):
    """Let this process be started in another way: ``main(["manage.py", "runserver"], module="django.__main__")``."""
    runserver = importlib.import_module("wsloop.management.commands.runserver")

    def start(arguments, module=None):
        main = types.ModuleType("__main__")
        main.__spec__ = module and importlib.machinery.ModuleSpec(module, None)
        monkeypatch.setitem(sys.modules, "__main__", main)
        monkeypatch.setattr(sys, "argv", arguments)
        return runserver.patched_command()

    return start


@pytest.mark.parametrize(
    ("module", "name"),
    [("django.__main__", "django"), ("mysite.manage", "mysite.manage"), ("mysite.__main__", "mysite")],
)
def test_a_module_is_started_again_as_a_module(main, monkeypatch, tmp_path, module, name):
    monkeypatch.chdir(tmp_path)
    assert main(["/somewhere/__main__.py", "runserver", "--noreload"], module)[-6:] == [
        runserver_code(),
        str(tmp_path),
        "module",
        name,
        "runserver",
        "--noreload",
    ]


@pytest.mark.parametrize("module", [None, "__main__"])  # the second one is a directory's, or a zip file's
def test_a_script_is_started_again_with_its_own_directory_first(main, monkeypatch, tmp_path, module):
    (tmp_path / "manage.py").touch()
    (tmp_path / "linked").symlink_to(tmp_path / "manage.py")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for name in ("../manage.py", "../linked"):
        assert main([name, "runserver"], module)[-5:] == [
            runserver_code(),
            str(tmp_path),
            "script",
            name,
            "runserver",
        ]


def test_what_cannot_be_started_again_says_so(main):
    with pytest.raises(CommandError, match=r"Begin it with `from gevent import monkey` and `monkey.patch_all\(\)`"):
        main(["-c"])


def runserver_code():
    return importlib.import_module("wsloop.management.commands.runserver").PATCHED


def test_a_connection_is_not_read_for_a_next_request_and_is_closed_as_usual(site):
    site.write()
    site.start("--noreload", python=["-q", "-s"])
    assert site.get("/") == "version 1, ([], [], 1, 1), patched True", "and the options of Python are kept"
    client = site.connect("news?subscribe-broadcast")
    assert client.round_trip(b"one") == b"one"
    assert client.round_trip(b"two") == b"two"
    client.send_close(1000)
    assert client.closing() == 1000
    with socket.create_connection((site.address, site.port), timeout=10) as raw:
        raw.sendall(f"HEAD /ws/news HTTP/1.1\r\nHost: {site.host}\r\nConnection: close\r\n\r\n".encode())
        answer = raw.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert answer.endswith(b"\r\n\r\n"), "a refusal of HEAD has no body"
    log = site.process.log()
    assert "Traceback" not in log, log


def test_its_log_has_no_tokens_and_no_forged_lines(site):
    site.write()
    site.start("--noreload")
    with pytest.raises(websocket.WebSocketBadStatusException):
        site.connect("news?subscribe-broadcast&token=SECRET")
    lines = [b"GET /page?token=SECRET&page=2 HTTP/1.1", b"GE\x1bT /\x1b[31m%0aforged HTTP/1.1", b"GET /?token=SECRET"]
    for line in [*lines, *(line.replace(b"HTTP/1.1", b"nonsense") for line in lines)]:
        with socket.create_connection((site.address, site.port), timeout=10) as raw:
            raw.sendall(line + f"\r\nHost: {site.host}\r\nConnection: close\r\n\r\n".encode())
            assert raw.makefile("rb").read()
    wait_until(lambda: "/ws/news" in site.process.log(), what="the line of the socket")
    log = site.process.log()
    assert '"GET /ws/news?subscribe-broadcast&token=[redacted] HTTP/1.1" 403' in log
    assert '"GET /page?token=[redacted]&page=2 HTTP/1.1" 404' in log
    assert '"GE%1BT /%1B[31m%0aforged HTTP/1.1"' in log
    assert "Invalid http version: 'GET /page?token=[redacted]&page=2 nonsense" in log
    assert "SECRET" not in log
    assert "\x1b" not in log
    assert "Traceback" not in log


def test_without_the_application_for_static_files_and_where_manage_py_patches(site):
    site.write(patch="from gevent import monkey; monkey.patch_all()", applications=["wsloop", "ws4redis"])
    site.start("--noreload")
    assert site.get("/").startswith("version 1")
    assert site.connect("news?subscribe-broadcast").round_trip() == b"round trip"


def test_ipv6(tmp_path, private_redis):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    site = Site(tmp_path, private_redis.url, address="::1")
    site.write()
    try:
        site.start("--noreload")
        assert site.connect("news?subscribe-broadcast").round_trip() == b"round trip"
    finally:
        site.stop()


def test_behind_staticfiles_it_is_not_the_command_and_the_start_says_what_to_write(site):
    site.write(applications=["django.contrib.staticfiles", "wsloop", "ws4redis"])
    site.begin([sys.executable, site.directory / "manage.py"], "--noreload")
    assert site.process.wait(30) == 1
    log = site.process.log()
    assert "(wsloop.E002) runserver is the command of django.contrib.staticfiles" in log
    assert 'HINT: Put "wsloop" before "django.contrib.staticfiles" in INSTALLED_APPS.' in log
    assert "un-acquired lock" not in log.replace("may end in `cannot release un-acquired lock`", "")


def test_a_port_in_use_is_one_line(site):
    site.write()
    with socket.create_server(("127.0.0.1", site.port)):
        site.begin([sys.executable, site.directory / "manage.py"], "--noreload")
        assert site.process.wait(30) != 0
    assert "Error: That port is already in use." in site.process.log()
    assert "Traceback" not in site.process.log()


def _is_idle(pid):
    """Whether the process waits for events: a signal that comes while it works interrupts just that, with a trace."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_interrupting_ends_it(site):
    site.write()
    site.start("--noreload")
    site.connect("news?subscribe-broadcast").round_trip()
    wait_until(lambda: _is_idle(site.process.pid), what="the server having nothing to do")
    site.process.send_signal(signal.SIGINT)
    assert site.process.wait(10) == 0
    log = site.process.log()
    assert "Traceback" not in log, log
