"""``manage.py runserver``: a real process with a tiny site, its WebSockets and its auto-reload."""

import contextlib
import http.client
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import websocket

from tests.integration.harness import ROOT, Client, Process, free_port, wait_until

MANAGE = """
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
"""
URLS = """
from django.http import HttpResponse
from django.urls import path

def page(request):
    from gevent import monkey
    return HttpResponse(f"version 1, pid {__import__('os').getpid()}, patched {monkey.is_module_patched('socket')}")

def publish(request):
    from wsloop.publisher import RedisPublisher
    RedisPublisher(facility="news", broadcast=True).publish_message("from a view")
    return HttpResponse("published")

urlpatterns = [path("", page), path("publish/", publish)]
"""
WSGI = """
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
        (self.directory / "manage.py").write_text(MANAGE.format(patch=patch))
        (self.directory / "site_settings.py").write_text(SETTINGS.format(applications=applications))
        (self.directory / "site_urls.py").write_text(urls)
        (self.directory / "site_wsgi.py").write_text(WSGI)
        (self.directory / "files").mkdir(exist_ok=True)
        (self.directory / "files" / "hello.txt").write_text("a static file")

    def start(self, *options):
        command = [sys.executable, str(self.directory / "manage.py"), "runserver", self.host, *options]
        self.process = Process(command, self.directory / "log", self.env)
        wait_until(self._answers, timeout=30, what="runserver answering")

    def _answers(self):
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


@pytest.fixture
def site(tmp_path, private_redis):
    site = Site(tmp_path, private_redis.url)
    yield site
    site.stop()


def test_it_serves_site_sockets_and_static_files_and_reloads(site):
    site.write()
    site.start()
    page = site.get("/")
    assert page.startswith("version 1")
    assert page.endswith("patched True"), "it has started itself again, patched"
    assert site.get("/static/hello.txt") == "a static file"

    client, other = site.connect("news?subscribe-broadcast"), site.connect("news?publish-broadcast")
    assert site.get("/publish/") == "published"
    assert client.next() == "from a view"
    other.send("from a socket")
    assert client.next() == "from a socket"

    urls = site.directory / "site_urls.py"
    urls.write_text(URLS.replace("version 1", "version 2"))
    # Auto-reload compares times of files, which may be too coarse for two changes in a row.
    os.utime(urls, (urls.stat().st_atime, urls.stat().st_mtime + 10))
    wait_until(lambda: _reloaded(site), timeout=30, what="the reload")
    assert client.closing() is None, "the process that held it has ended"
    client = site.connect("news?subscribe-broadcast")
    assert client.next() == "from a socket", "the last message, kept"
    assert site.get("/publish/") == "published"
    assert client.next() == "from a view"


def _reloaded(site):
    with contextlib.suppress(OSError):
        return site.get("/").startswith("version 2")


def test_a_connection_is_not_read_for_a_next_request_and_is_closed_as_usual(site):
    site.write()
    site.start("--noreload")
    client = site.connect("news?subscribe-broadcast")
    assert client.round_trip(b"one") == b"one"
    assert client.round_trip(b"two") == b"two"
    client.send_close(1000)
    assert client.closing() == 1000
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


@pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()"], ids=["plain", "patched"])
def test_whether_manage_py_patches_or_not(site, patch):
    site.write(patch=patch)
    site.start("--noreload")
    assert site.get("/").endswith("patched True")
    assert site.connect("news?subscribe-broadcast").round_trip() == b"round trip"


def test_without_the_application_for_static_files(site):
    site.write(applications=["wsloop", "ws4redis"])
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


def test_it_is_the_command_although_staticfiles_has_one_too(site):
    """wsloop stands before django.contrib.staticfiles; behind it Django's own server would refuse sockets in words."""
    site.write(applications=["django.contrib.staticfiles", "wsloop", "ws4redis"])
    site.start("--noreload")
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        site.connect("news?subscribe-broadcast")
    assert refused.value.status_code == 501
    assert b"run the site with uWSGI, or `manage.py runserver`" in refused.value.resp_body


def test_a_port_in_use_is_one_line(site):
    site.write()
    with socket.create_server(("127.0.0.1", site.port)):
        command = [sys.executable, str(site.directory / "manage.py"), "runserver", site.host, "--noreload"]
        process = Process(command, site.directory / "log", site.env)
        assert process.wait(20) != 0
    assert "Error: That port is already in use." in process.log()
    assert "Traceback" not in process.log()


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
