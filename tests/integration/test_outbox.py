"""The outbox on a real site: beside uWSGI, killed at any moment, twice at the same time."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.processes import ROOT, Process, wait_until
from testbed.site_files import site_environment
from tests.integration.harness import PublishingSite
from tests.requires import need

# As docs/how-to/outbox.rst has it, but for the interpreter.
DAEMON = f'exec setpriv --pdeathsig TERM "{sys.executable}" manage.py wsloop_outbox --interval 0.1'
FIRST, LAST = "Publishing the outbox", "Stopped publishing the outbox"
WRITE = """
import json, sys
from django.db import connection, transaction
from wsloop.outbox import put
facility, texts = json.loads(sys.argv[1])
with transaction.atomic():
    for text in texts:
        put([f"ws:broadcast:{facility}"], text.encode(), 0, facility)
    connection.run_on_commit.clear()  # as if the process had ended right after the commit
"""


class Outbox:
    """A database with the outbox, and the commands that publish it; no server."""

    def __init__(self, directory, site_files, redis_url, settings=None):
        shutil.copy(site_files / "db.sqlite3", directory / "db.sqlite3")
        self._directory = directory
        self._env = site_environment(directory, site_files, redis_url, PublishingSite.settings_module)
        self._env["SITE_SETTINGS"] = json.dumps(settings or {})
        self.running = []

    def write(self, facility, texts):
        script = f"import django; django.setup(){WRITE}"
        self._run("-c", script, json.dumps([facility, texts]))

    def publish_once(self):
        """Publish all that waits; fails if anything remains."""
        self._run("manage.py", "wsloop_outbox", "--once")

    def _run(self, *arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self):
        command = [sys.executable, "manage.py", "wsloop_outbox", "--interval", "0.1"]
        self.running.append(Process(command, self._directory / f"log-{len(self.running)}", self._env))
        return self.running[-1]


@pytest.fixture
def outbox(tmp_path, site_files, redis_server):
    outbox = Outbox(tmp_path, site_files, redis_server.url)
    yield outbox
    for process in outbox.running:
        process.stop()


@pytest.fixture
def arrived(redis_client, facility):
    """The messages that were published to everybody who listens to the test's facility, so far."""
    with redis_client.pubsub(ignore_subscribe_messages=True) as subscription:
        subscription.subscribe(f"ws:broadcast:{facility}")
        assert subscription.get_message(timeout=10) is None  # the acknowledgement
        texts = []

        def arrived():
            while message := subscription.get_message(timeout=0.05):
                texts.append(message["data"])
            return texts

        yield arrived


def daemons_of(pid):
    """Process ids of the command among the children of a process."""
    daemons = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
            if b"wsloop_outbox" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                daemons.append(int(child))
    return daemons


def alive(pid):
    with contextlib.suppress(OSError):
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


# Beside uWSGI.


@pytest.fixture
def attached(serve, private_redis):
    """A site with the command as its daemon, on a Redis that may be killed."""
    need("setpriv")
    site = serve(redis=private_redis, options=["--attach-daemon", DAEMON])
    wait_until(lambda: FIRST in site.log(), what="the command's first line")
    return site


def test_what_was_committed_while_redis_was_away_arrives_without_another_request(attached, private_redis, facility):
    private_redis.kill()
    attached.publish(facility, "one", "two", how="outbox", broadcast=True, expire=60)
    lost = re.compile(r":\d\d Could not publish the outbox; its messages wait: ConnectionError")  # not that of the view
    wait_until(lambda: lost.search(attached.log()), what="the command's second line")
    private_redis.start()
    wait_until(lambda: "Publishing the outbox again" in attached.log(), timeout=40)
    assert attached.connect(f"{facility}?subscribe-broadcast").next() == "two"  # the last one is kept
    attached.publish(facility, "three", how="outbox", broadcast=True)


def test_the_daemon_ends_with_the_server(attached):
    (daemon,) = daemons_of(attached.pid)
    attached.send_signal(signal.SIGTERM)
    attached.wait()
    wait_until(lambda: not alive(daemon), what="the end of the daemon")
    assert LAST in attached.log()


def test_the_daemon_ends_with_a_server_that_is_killed(attached):
    (daemon,) = daemons_of(attached.pid)
    attached.send_signal(signal.SIGKILL)
    attached.wait()
    wait_until(lambda: not alive(daemon), what="the end of the daemon")


def test_a_daemon_that_ends_is_started_again(attached):
    (daemon,) = daemons_of(attached.pid)
    os.kill(daemon, signal.SIGTERM)
    wait_until(lambda: daemons_of(attached.pid) not in ([], [daemon]), what="another daemon")


# The command.


def test_sigterm_ends_the_command_with_status_0(outbox):
    command = outbox.start()
    wait_until(lambda: FIRST in command.log(), what="the command's first line")
    command.send_signal(signal.SIGTERM)
    assert command.wait() == 0
    assert [line[20:] for line in command.log().splitlines()] == [FIRST, LAST]


def test_commands_that_are_killed_and_run_twice_publish_each_message_once_and_in_order(outbox, arrived, facility):
    texts = [f"message {number}" for number in range(3000)]
    outbox.write(facility, texts)
    for _ in range(3):
        before = len(arrived())
        commands = [outbox.start(), outbox.start()]
        wait_until(lambda before=before: len(arrived()) >= min(before + 150, len(texts)), what="some messages")
        for command in commands:
            command.send_signal(signal.SIGKILL)
            command.wait()
    outbox.publish_once()
    assert arrived() == texts


def test_sites_that_publish_beside_the_command(outbox, arrived, facility):
    """Writers, one after the other, while two commands publish what the earlier ones wrote."""
    outbox.start()
    outbox.start()
    texts = [f"message {number}" for number in range(300)]
    for start in range(0, 300, 100):
        outbox.write(facility, texts[start : start + 100])
    wait_until(lambda: len(arrived()) >= len(texts), what="all messages")
    outbox.publish_once()
    assert arrived() == texts
