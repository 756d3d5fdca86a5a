"""The tutorial works: its files are written and its commands typed in as it says, and its pages are looked at."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
import urllib.request
from pathlib import Path

import docutils.nodes
import pytest
import websocket

from testbed.clients import Client
from testbed.processes import ROOT, Process, free_port, wait_until
from tests.docs.test_docs import document
from tests.integration.test_browser import started_browsers  # noqa: F401
from tests.requires import need

pytestmark = pytest.mark.timeout(300)  # seconds: two servers and a browser for each part

PARTS = sorted((ROOT / "docs/tutorial").glob("[0-9]-*.rst"))
FILE = re.compile(r"(?:# |\{# )([\w/]+\.(?:py|html))(?:, (.*?))?(?: #\})?\n")
ELSEWHERE = ("python3 -m venv", ". venv/", "pip install", "sudo ")  # the tests have their own


class Reader:
    """Somebody who does what the pages say, one block after the other, in a directory of their own."""

    def __init__(self, directory, redis_server):
        self.directory = directory
        self.redis = redis_server
        self.serving = None  # the server that was started last
        self.written = []  # paths, in the order of the pages
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "UWSGI_"))}
        self.env |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
        package = directory / "package"  # as if it had been installed
        shutil.copytree(ROOT / "wsloop", package / "wsloop")  # with what is compiled already
        self.env["PYTHONPATH"] = str(package)

    @property
    def site(self):
        return self.directory / "tutorial"

    def read(self, page, look):
        """Do what a page says, and call ``look`` with each server that it says to start."""
        for block in document(page).findall(docutils.nodes.literal_block):
            if "console" in block["classes"]:
                self.type_in(block.astext(), look)
            elif found := FILE.match(block.astext()):
                self.write(found[1], found[2], block.astext())

    def write(self, path, part, text):
        file = self.site / path
        self.written.append(path)
        text = text.replace("127.0.0.1:6379/0", f"127.0.0.1:{self.redis.port}/0") + "\n"
        if part == "INSTALLED_APPS":
            listed = re.compile(r"^INSTALLED_APPS = \[.*?^\]\n", re.MULTILINE | re.DOTALL)
            before = file.read_text()
            assert len(listed.findall(before)) == 1
            assert set(re.findall(r"django\.\w+\.\w+", text)) <= set(re.findall(r"django\.\w+\.\w+", before))
            text = listed.sub(listed.search(text)[0], before)
        elif part == "at the end":
            text = file.read_text() + text
        else:
            assert part is None
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def type_in(self, console, look):
        for lines in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
            command, *rest = lines.strip("\n").split("\n")
            keys = [line.removeprefix(">>> ") for line in rest if line.startswith(">>> ")]
            shown = [line for line in rest if not line.startswith(">>> ")]
            if command.startswith(ELSEWHERE):
                continue
            if "runserver" in command or command.startswith("uwsgi "):
                self.serve(command, look)
            elif command == "mkdir tutorial":
                self.site.mkdir()
            elif command != "cd tutorial":
                self.run(command, keys, shown)

    def run(self, command, keys, shown):
        """Run a command, and find what the page shows in what it prints; ``...`` is whatever it is."""
        if command.startswith("redis-cli"):
            need("redis-cli")
            command = command.replace("redis-cli", f"redis-cli -p {self.redis.port}")
        keys = "".join(f"{line}\n" for line in keys)
        done = subprocess.run(
            ["sh", "-c", command], cwd=self.site, env=self.env, input=keys, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0 and "Error" not in done.stderr, f"{command}\n{done.stdout}{done.stderr}"
        pattern = r"\n".join("(.*\n)*.*" if line.strip() == "..." else re.escape(line) for line in shown)
        assert re.search(pattern, done.stdout), f"{command} printed\n{done.stdout}{done.stderr}"

    def serve(self, command, look):
        address = f"127.0.0.1:{free_port()}"
        if "runserver" in command:
            command += f" {address}"
        else:
            assert "127.0.0.1:8000" in command
            command = command.replace("127.0.0.1:8000", address)
        shell = f"cd {shlex.quote(str(self.site))} && exec {command}"
        server = Process(["sh", "-c", shell], self.directory / f"{address}.log", self.env)
        self.serving = types.SimpleNamespace(
            url=f"http://{address}", address=address, log=server.log, session_keys=set()
        )

        def answers():
            assert server.returncode is None, f"{command} has ended\n{server.log()}"
            try:
                with urllib.request.urlopen(f"http://{address}/echo/", timeout=30) as answer:
                    return answer.status == 200
            except OSError:
                return False

        try:
            wait_until(answers, timeout=60, what=f"{command} answering\n{server.log()}")
            look(self.serving)
        finally:
            stopped = server.stop(2)  # Ctrl-C
        log = server.log()
        assert stopped, f"{command} does not end\n{log}"
        assert "Traceback" not in log and "an error of the server" not in log, log


@pytest.fixture(scope="module")
def reader(tmp_path_factory, redis_server):
    return Reader(tmp_path_factory.mktemp("reader"), redis_server)


@pytest.fixture
def windows(started_browsers):  # noqa: F811
    """Opens a page of a site in the window of somebody: ``windows(site, 0, "/echo/")``."""

    def opened(site, number, path):
        browser = started_browsers(number)
        browser.reset(site)
        browser.open(path)
        return browser

    return opened


def said(browser):
    return browser.driver.execute_script(
        "return [...document.querySelectorAll('#log li')].map((each) => each.textContent)"
    )


def until_said(browser, *lines):
    try:
        browser.until(lambda: said(browser) == list(lines), "lines")
    except Exception:
        raise AssertionError(f"expected {lines}, the page shows {said(browser)}") from None


def say(browser, text):
    browser.find("#message").send_keys(text)
    browser.press("#form button")


def sign_in(browser, name):
    browser.write("username", name)
    browser.write("password", "secret")
    browser.press("form button")


def connect(site, path):
    """Open a WebSocket as a script does; it is closed by ``with``."""
    socket = websocket.create_connection(f"ws://{site.address}{path}", timeout=10, suppress_origin=True, class_=Client)
    return contextlib.closing(socket)


def test_part_1_echo(reader, windows):
    seen = []

    def look(site):
        browser = windows(site, 0, "/echo/")
        until_said(browser, "The line is open.")
        say(browser, "Hello, <b>server</b>")
        until_said(browser, "The line is open.", "Hello, <b>server</b>")
        assert browser.find("#message").get_property("value") == ""
        with connect(site, "/ws/echo/") as socket:
            socket.send_binary(b"\x00\xff")
            assert socket.next() == b"\x00\xff"
        seen.append(browser)

    reader.read(PARTS[0], look)
    assert len(seen) == 2  # runserver and uWSGI
    until_said(seen[-1], "The line is open.", "Hello, <b>server</b>", "The line is closed.")


def test_part_2_ticker(reader, windows):
    page = PARTS[1].read_text()

    def look(site):
        def ended():
            return len(re.findall("A ticker has ended, with code (1005|1001)\n", site.log()))

        browser = windows(site, 0, "/ticker/")
        assert browser.text("#number") == "none yet"
        browser.press("#toggle")
        browser.until(lambda: int(browser.text("#count")) >= 2, "two numbers")
        assert 0 <= int(browser.text("#number")) <= 100
        assert browser.text("#toggle") == "Stop"
        assert ended() == 0
        with connect(site, "/ws/echo/") as echo:
            echo.send("at once")
            assert echo.next() == "at once"
        browser.press("#toggle")
        wait_until(lambda: ended() == 1, what="the loop ending")
        assert "A ticker has ended, with code 1005" in site.log()
        browser.until(lambda: browser.text("#toggle") == "Start", "the button")
        count = int(browser.text("#count"))
        browser.press("#toggle")
        browser.until(lambda: int(browser.text("#count")) > count, "another number")
        browser.driver.switch_to.new_window("tab")
        browser.driver.switch_to.window(browser.driver.window_handles[0])
        browser.driver.close()
        browser.driver.switch_to.window(browser.driver.window_handles[0])
        wait_until(lambda: ended() == 2, what="the loop of the closed window ending")
        for code in (1005, 1001):
            assert str(code) in page
        browser = windows(site, 0, "/ticker/")
        browser.press("#toggle")
        browser.until(lambda: int(browser.text("#count")) >= 1, "a number")
        browser.open("/echo/")
        wait_until(lambda: ended() == 3, what="the loop of the page that was left ending")

    reader.read(PARTS[1], look)
    assert "A ticker has ended, with code 1005" in page


def test_part_3_chat_room(reader, windows):
    page = PARTS[2].read_text()
    sites = []

    def look(site):
        john = windows(site, 0, "/chat/lobby/")
        sign_in(john, "john")
        until_said(john, "You have entered the room.")
        mary = windows(site, 1, "/chat/lobby/")
        sign_in(mary, "mary")
        until_said(mary, "You have entered the room.")
        john.driver.switch_to.new_window("tab")
        john.open("/chat/garden/")
        until_said(john, "You have entered the room.")
        john.driver.switch_to.window(john.driver.window_handles[0])
        shown = ["You have entered the room.", "john: Hello, is anybody there?", "mary: I am."]
        assert all(line in page for line in shown)
        say(john, "Hello, is anybody there?")
        until_said(mary, *shown[:2])
        say(mary, "I am.")
        until_said(john, *shown)
        until_said(mary, *shown)
        if not sites:  # the page says so while the first server runs
            typed = re.findall(r"^   (>>> .*)$", page, re.MULTILINE)
            reader.type_in("\n".join(["$ python manage.py shell", *typed]), None)
            until_said(john, *shown, "the site: Tea is ready.")
            until_said(mary, *shown, "the site: Tea is ready.")
        say(john, "<b>bold</b>")
        until_said(mary, *said(mary)[: 3 + (not sites)], "john: <b>bold</b>")
        before = said(mary)
        mary.driver.execute_script("dispatchEvent(new Event('pagehide'))")
        say(mary, "not lost")  # there is no connection
        mary.driver.execute_script("dispatchEvent(new Event('pageshow'))")
        until_said(mary, *before, "You have entered the room.")
        assert mary.text("#state") == "connected"
        mary.press("#form button")
        until_said(mary, *before, "You have entered the room.", "mary: not lost")
        john.driver.switch_to.window(john.driver.window_handles[1])
        until_said(john, "You have entered the room.")
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            connect(site, "/ws/chat/lobby/")
        assert refused.value.status_code == 403
        sites.append(site)

    reader.read(PARTS[2], look)
    assert len(sites) == 2


def test_all_files_that_the_pages_name_were_written(reader):
    """Runs behind the parts: a block whose first line is not understood would be left out in silence."""
    blocks = [
        block for page in PARTS for block in document(page).findall(docutils.nodes.literal_block) if block["classes"]
    ]
    files = [block for block in blocks if not {"console", "text"} & set(block["classes"])]
    assert len(files) == len(reader.written) > 15
