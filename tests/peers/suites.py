"""The ways in which the tests of a peer run, each in a process of its own and in a copy of the peer's tests."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from testbed.processes import ROOT, Process, free_port
from testbed.redis_servers import RedisServer
from testbed.topologies import SentinelSetup

INSIDE = Path(__file__).with_name("inside")  # modules that are imported by their names: see there
CONFIGURATION = ("setup.cfg", "tox.ini", "pytest.ini", "pyproject.toml")
LONGEST_RUN = 900  # seconds
PYTEST = ["-q", "--rootdir=.", "--timeout=60", "--continue-on-collection-errors"]
PYTEST += ["-p", "no:cacheprovider", "-p", "outcomes"]


@dataclasses.dataclass(frozen=True)
class Suite:
    """One way.

    Attributes:
        name: in the list and on the command line.
        peer: whose tests they are.
        title: for people.
        start: runs pytest with these options in this directory and environment, and returns what it prints.
        plugins: of pytest; those of ours in ``inside/``.
        folders: of the checkout that are copied.
        tests: the folder that pytest gets.
        paths: of these folders, those from which modules are imported, too.
        hosting: the module of ``inside/`` with the application of the server, in :func:`uwsgi_worker`.
    """

    name: str
    peer: str
    title: str
    start: Callable[[Path, Sequence[str], Mapping[str, str]], str]
    plugins: tuple[str, ...]
    folders: tuple[str, ...] = ("tests",)
    tests: str = "tests"
    paths: tuple[str, ...] = ()
    hosting: str = "hosting"

    def run(self, checkout: Path, not_run: Sequence[str], verbose: bool = False) -> dict[str, str]:
        """Run the tests, and return what became of each: "passed", "not run", or how it failed.

        Raises:
            RuntimeError: if pytest has not come to its end.
        """
        with tempfile.TemporaryDirectory(prefix="peer-tests-") as name:
            directory, outcomes = Path(name, "checkout"), Path(name, "outcomes")
            # A copy, because tests write files, and without Channels itself: it is the installed one that is imported.
            for each in self.folders:
                shutil.copytree(checkout / each, directory / each)
            for each in CONFIGURATION:
                if (checkout / each).exists():
                    shutil.copy(checkout / each, directory)
            env = {key: value for key, value in os.environ.items() if not key.startswith(("DJANGO_", "PYTEST_"))}
            env |= {"PEER_OUTCOMES": str(outcomes), "PEER_NOT_RUN": json.dumps(not_run)}
            paths = [INSIDE, ROOT, *(directory / each for each in self.paths)]
            env |= {
                "PYTHONPATH": ":".join(map(str, paths)),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PEER_HOSTING": self.hosting,
            }
            options = [*PYTEST, *(part for plugin in self.plugins for part in ("-p", plugin)), self.tests]
            printed = self.start(directory, options, env)
            if verbose:
                print(printed)
            if not outcomes.exists():
                raise RuntimeError(f"pytest has not come to its end:\n{printed[-4000:]}")
            found: dict[str, str] = json.loads(outcomes.read_text())
            return found


def plain_process(directory: Path, options: Sequence[str], env: Mapping[str, str]) -> str:
    """Run pytest as anybody does."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=directory,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST_RUN,
        check=False,
    )
    return str(done.stdout)


def uwsgi_worker(directory: Path, options: Sequence[str], env: Mapping[str, str]) -> str:
    """Run pytest in the worker of a uWSGI, with a Redis: see ``inside/worker.py``."""
    with RedisServer() as redis:
        address = f"127.0.0.1:{free_port()}"
        # Standard output is uWSGI's log.
        arguments = json.dumps(["-s", *options])
        extra = {"PEER_ARGUMENTS": arguments, "PEER_ADDRESS": address, "PEER_REDIS": redis.url.removesuffix("/0")}
        command = [str(Path(sys.executable).parent / "uwsgi"), "--http-socket", address, "--gevent", "100"]
        command += ["--chdir", str(directory), "--module", "worker", "--need-app", "--die-on-term"]
        process = Process(command, directory / "uwsgi.log", {**env, **extra})
        with process:
            try:
                process.wait(LONGEST_RUN)
            except subprocess.TimeoutExpired as exc:
                raise RuntimeError(f"the tests have not ended:\n{process.log()[-4000:]}") from exc
            return process.log()


def uwsgi_worker_with_sentinels(directory: Path, options: Sequence[str], env: Mapping[str, str]) -> str:
    """The same, with Sentinels too."""
    setup = SentinelSetup().start()
    try:
        sentinel = {"sentinels": [each.address for each in setup.sentinels], "master_name": setup.service_name}
        return uwsgi_worker(directory, options, {**env, "PEER_SENTINEL": json.dumps(sentinel)})
    finally:
        setup.close()


_SUITES = (
    Suite(
        "names",
        "channels",
        "Channels' tests with the classes of wsloop",
        plain_process,
        ("redirection", "wsloop.testing.plugin"),
    ),
    Suite(
        "hosted",
        "channels",
        "Channels' tests through this server's sockets",
        uwsgi_worker,
        ("hub_loop", "hosting", "live"),
    ),
    Suite(
        "layers",
        "channels_redis",
        "The tests of channels_redis on this server",
        uwsgi_worker_with_sentinels,
        ("hub_loop", "redis_hosts"),
    ),
    Suite(
        "ws4redis",
        "ws4redis",
        "The tests of ws4redis on this server",
        uwsgi_worker,
        ("ws4redis_hosting",),
        folders=("ws4redis", "examples"),
        tests="examples/chatserver/tests",
        paths=("", "examples"),
        hosting="ws4redis_hosting",
    ),
)
SUITES = {suite.name: suite for suite in _SUITES}
