"""The commands that publish, follow and close: ``wspublish``, ``wstail`` and ``wskick``, with real sockets."""

import io
import json
import os
import subprocess
import sys
import time
import types

import gevent
import pytest
from django.contrib.auth.models import UserManager
from django.core.management import CommandError, call_command
from django.db import OperationalError

from testbed.processes import ROOT, wait_until
from tests.unit.test_api import DISCONNECTED, closed
from wsloop import api
from wsloop.backend import pool
from wsloop.management import operation
from wsloop.management.commands import wskick


def run(*arguments, **options):
    """Run a command, and return what it prints."""
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=io.StringIO(), no_color=True, **options)
    return out.getvalue()


@pytest.fixture
def stdin(monkeypatch):
    """Let standard input have these bytes; as a terminal, or not."""

    def give(data=b"", terminal=False):
        stream = io.TextIOWrapper(io.BytesIO(data))
        stream.isatty = lambda: terminal
        monkeypatch.setattr(sys, "stdin", stream)

    return give


def test_publish(front, shared_redis, facility, stdin):
    peer = front.connect(f"{facility}?subscribe-broadcast")
    assert run("wspublish", facility, "Hello", "--broadcast") == "Published 5 bytes; sockets that listen: 1\n"
    stdin(b"\0\xff, from a pipe")
    answer = run("wspublish", facility, "--broadcast", "--user", "john", "--user", "mary", "--expire", "0", "--json")
    assert json.loads(answer) == {"listeners": 1, "bytes": 15, "repeated": False}
    once = ["wspublish", facility, "once", "--broadcast", "--key", "k"]
    assert run(*once) == "Published 4 bytes; sockets that listen: 1\n"
    assert run(*once) == "Published nothing: a message with the key k was published before\n"
    assert json.loads(run(*once, "--json"))["repeated"]
    run("wspublish", facility, "--broadcast", "behind options")
    run("wspublish", "--broadcast", "--", facility, "-7")
    assert peer.messages(5) == ["Hello", b"\0\xff, from a pipe", "once", "behind options", "-7"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["news", "text"], "Say to whom: --broadcast, --user NAME"),
        (["/news", "text", "--broadcast"], "without a slash before it"),
        (["news", "text", "--broadcast", "--expire", "-1000000000000"], "expire must be"),
        (["news", "text", "--broadcast", "--expire", "-1"], "expire must be"),
        (["news", "--broadcast"], "standard input is empty"),
        (["a:b", "text", "--user", "john"], "has a colon"),
        (["", "text", "--broadcast"], "The name of the facility is empty"),
        (["--broadcast"], "required: facility"),
        (["news", "text", "more", "--broadcast"], "unrecognized arguments: more"),
    ],
)
def test_publishing_what_cannot_be(shared_redis, monkeypatch, arguments, text):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(CommandError, match=text):
        run("wspublish", *arguments)


def test_names_that_the_database_does_not_have_are_told(signed_in, shared_redis, facility, monkeypatch):
    def notes(*names):
        told = io.StringIO()
        audience = [part for name in names for part in (f"--{name[0]}", name[1])]
        call_command("wspublish", facility, "text", *audience, stdout=io.StringIO(), stderr=told, no_color=True)
        return told.getvalue()

    assert notes(("user", "john")) == ""
    told = notes(("user", "john"), ("user", "jonh"), ("group", "chaters"))
    assert told == ("Note: there is no user with the name 'jonh'\nNote: there is no group with the name 'chaters'\n")

    def fails(*arguments, **options):
        raise OperationalError("the database is away")

    monkeypatch.setattr(UserManager, "filter", fails)
    assert notes(("user", "jonh")) == ""


def test_commands_without_redis_say_so(own_redis):
    own_redis.kill()
    for command in (["wspublish", "news", "text", "--broadcast"], ["wskick", "--all", "--yes"], ["wstail"]):
        with pytest.raises(CommandError, match="Redis cannot be reached"):
            run(*command)


# --- wskick -----------------------------------------------------------------------------------------------------------


def test_kick(front, shared_redis, facility, signed_in, stdin):
    john = front.connect(f"{facility}?subscribe-user", HTTP_COOKIE=signed_in.cookie)
    peers = [front.connect(f"{facility}?subscribe-broadcast") for _ in range(2)]
    assert run("wskick", "--user", "john") == "Disconnected sockets: 1\n"
    assert closed(john) == DISCONNECTED
    kick = ["wskick", "--facility", facility, "--code", "4400", "--reason", "closed", "--json"]
    assert json.loads(run(*kick)) == {"sockets": 2}
    assert [closed(each) for each in peers] == [(4400, "closed")] * 2


def test_before_many_are_closed_somebody_is_asked(front, shared_redis, facility, monkeypatch, stdin):
    monkeypatch.setattr(wskick, "MANY", 1)
    peers = [front.connect(f"{facility}?subscribe-broadcast") for _ in range(2)]
    stdin()
    with pytest.raises(CommandError, match="2 sockets would be closed; with --yes they are"):
        run("wskick", "--facility", facility)
    stdin(terminal=True)
    asked = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or "")
    with pytest.raises(CommandError, match="Closed none"):
        run("wskick", "--all")
    assert asked == ["Close 2 sockets? [y/N] "]
    assert api.counts().sockets == 2
    monkeypatch.setattr("builtins.input", lambda text: "Y")
    assert run("wskick", "--all") == "Disconnected sockets: 2\n"
    assert [closed(each) for each in peers] == [DISCONNECTED] * 2
    assert run("wskick", "--all", "--yes") == "Disconnected sockets: 0\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Say whose"),
        (["--all", "--user", "john"], "--all alone"),
        (["--user", "nobody"], "there is no user with the name 'nobody'"),
        (["--facility", "x", "--code", "1000"], "code must be a whole number from 4000"),
        (["--facility", "x", "--reason", "x" * 124], "up to 123 bytes"),
    ],
)
def test_kicking_nobody(shared_redis, database, arguments, text):
    with pytest.raises(CommandError, match=text):
        run("wskick", *arguments)


# --- wstail -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tail():
    """Follow messages: ``tail(facility, "--count", "2")``; ``lines()`` of what is returned waits for the end."""
    started = []

    def start(*arguments):
        out, notes = io.StringIO(), io.StringIO()
        command = gevent.spawn(call_command, "wstail", *arguments, stdout=out, stderr=notes, no_color=True)
        started.append(command)
        wait_until(lambda: command.dead or "Listening" in notes.getvalue())

        def lines():
            command.get(timeout=20)
            return out.getvalue().splitlines()

        return types.SimpleNamespace(lines=lines, notes=notes, out=out)

    yield start
    for each in started:
        each.kill()


def test_tail_shows_every_audience_and_no_session_key(shared_redis, facility, tail, with_settings):
    with_settings(WSLOOP={"FACILITIES": {facility: {"size": 5}}})
    follower = tail(facility, "--count", "6")
    api.publish("elsewhere", facility=f"{facility}-2", broadcast=True)
    api.publish("first", facility=facility, broadcast=True)
    api.publish({"order": 7}, facility=facility, users="john smith", groups="staff")
    api.publish("line\nfeed, \x1b[31m", facility=facility, sessions="secret-key")
    api.publish(b"\xff\xfe", facility=facility, broadcast=True)
    api.publish("Ærø", facility=facility, broadcast=True)
    lines = [line.split(" ", 1)[1].removeprefix(f"{facility} ") for line in follower.lines()]
    assert lines == [
        "broadcast #1 first",
        'group:staff #1 {"order": 7}',
        'user:john smith #1 {"order": 7}',
        "session #1 line\\nfeed, \\x1b[31m",
        "broadcast #2 (base64) //4=",
        "broadcast #3 Ærø",
    ]


def test_tail_of_one_audience_as_json(shared_redis, facility, tail):
    follower = tail("--user", "john", "--count", "2", "--json")
    for name in ("mary", "john", "johnny"):
        api.publish(f"for {name}", facility=f"{facility}*?[x]", users=name)
    api.publish("other", facility=facility, users="john")
    facilities = [(each["facility"], each["data"]) for each in map(json.loads, follower.lines())]
    assert facilities == [(f"{facility}*?[x]", "for john"), (facility, "other")]
    follower = tail(f"{facility}*?[x]", "--broadcast", "--count", "1", "--json")
    api.publish("no pattern", facility=f"{facility}abcx", broadcast=True)
    api.publish("exactly", facility=f"{facility}*?[x]", broadcast=True)
    (line,) = map(json.loads, follower.lines())
    assert 0 <= time.time() - line.pop("time") / 1e6 < 3600
    assert line == {
        "facility": f"{facility}*?[x]",
        "audience": "broadcast",
        "name": "",
        "offset": 0,
        "data": "exactly",
    }


def test_tail_goes_on_when_redis_returns(own_redis, facility, tail):
    follower = tail(facility, "--count", "1")
    own_redis.kill()
    wait_until(lambda: "messages are missed" in follower.notes.getvalue())
    own_redis.start()
    pool.forget()
    wait_until(lambda: "Listening again" in follower.notes.getvalue())
    api.publish("back", facility=facility, broadcast=True)
    assert [line.rpartition(" ")[2] for line in follower.lines()] == ["back"]


def test_tail_counts_from_one(shared_redis):
    with pytest.raises(CommandError, match="--count must be a positive number, not 0"):
        run("wstail", "--count", "0")


SCRIPT = """
import signal, sys, threading
from django.conf import settings
settings.configure(WS4REDIS_CONNECTION=sys.argv[1], INSTALLED_APPS=["wsloop", "django.contrib.auth",
    "django.contrib.contenttypes", "django.contrib.sessions"], WEBSOCKET_URL="/ws/")
import django
django.setup()
from django.core.management import execute_from_command_line
signal.signal(signal.SIGINT, signal.default_int_handler)
execute_from_command_line(["manage.py", "wstail", *sys.argv[2:]])
"""


@pytest.fixture
def start_tail(redis_server):
    def start(*arguments, **options):
        command = [sys.executable, "-W", "ignore", "-c", SCRIPT, redis_server.url, *arguments]
        env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=ROOT, env=env, text=True, **pipes, **options)

    return start


def test_ctrl_c_is_quiet(start_tail):
    process = start_tail()
    assert "Listening" in process.stderr.readline()
    process.send_signal(2)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == operation.INTERRUPTED


def test_no_color_is_heeded(monkeypatch, shared_redis, facility, front):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    front.connect(f"{facility}?subscribe-broadcast")
    monkeypatch.setenv("DJANGO_COLORS", "dark")
    monkeypatch.setattr("django.core.management.color.supports_color", lambda: True)
    for name, coloured in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", name)
        out = Terminal()
        follower = gevent.spawn(call_command, "wstail", facility, "--count", "1", stdout=out, stderr=Terminal())
        wait_until(lambda: pool.client().pubsub_numpat() > 0)
        api.publish("text", facility=facility, broadcast=True)
        follower.get(timeout=20)
        wait_until(lambda: pool.client().pubsub_numpat() == 0)
        assert ("\x1b[" in out.getvalue()) == coloured
