"""Fixtures of every suite: real servers, started once or for one test, whose logs are shown when a test fails."""

import contextlib
import fcntl
import functools
import gc
import os
import random
import shutil
import sys
import tempfile
import uuid
from pathlib import Path

import pytest
import redis.utils

from testbed.postgres import PostgresServer
from testbed.processes import ROOT
from testbed.redis_servers import RedisServer
from testbed.site_files import make_site_files
from testbed.sites import Sites
from tests import clock
from tests.integration.harness import PublishingSite, StockPublisher
from tests.requires import missing, need, need_postgres
from tools import lint_javascript

# redis-py looks its own version up among the files of all packages for each connection: a tenth of what a Redis costs.
redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)

clock.travel()  # here, before modules of tests are imported: they may look at it as well


def pytest_configure(config):
    config.addinivalue_line("markers", "real_clock(reason): this test cannot be run with a TEST_CLOCK, and why not")


def pytest_report_header():
    return f"clock: {clock.shown()}"


# What needs a process that gevent has patched from its first line on.
PATCHED = [Path(__file__).with_name(name) for name in ("unit", "property")]


def is_patched():
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey) and monkey.is_module_patched("socket")


def wants_patched(config, name):
    path = Path(config.invocation_params.dir, name.partition("::")[0]).resolve()
    return any(path.is_relative_to(each) for each in PATCHED)


def pytest_plugin_registered(plugin, plugin_name, manager):
    """Begin anew in a patched process where all that is asked for needs one: ``pytest tests/unit``.

    pytest calls this as soon as it has loaded this file, before those of the suites.
    """
    if plugin_name != "capturemanager" or is_patched():
        return
    config = manager.getplugin("pytestconfig")
    paths = config.known_args_namespace.file_or_dir
    if paths and all(wants_patched(config, path) for path in paths):
        plugin.stop_global_capturing()
        command = [sys.executable, "-m", "gevent.monkey", "--module", "pytest", *config.invocation_params.args]
        os.execv(sys.executable, command)


@pytest.hookimpl(tryfirst=True)  # pytest itself puts together what shares a fixture, behind this
def pytest_collection_modifyitems(items):
    """``TEST_ORDER=7`` shuffles modules, and the tests of each: none needs another one to have run before."""
    if seed := os.environ.get("TEST_ORDER"):
        modules = {}
        for item in items:
            modules.setdefault(item.nodeid.partition("::")[0], []).append(item)
        dice = random.Random(seed)
        order = dice.sample(list(modules), len(modules))
        items[:] = [item for module in order for item in dice.sample(modules[module], len(modules[module]))]


def pytest_collection_finish():
    """What is there before the first test stays: tests that collect garbage need not look at it each time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    gc.unfreeze()  # hypothesis may be imported now, and asks the collector who refers to an object


class Unpatched(pytest.File):
    """A suite that has to be left out of this process; as a ``Directory`` its conftest.py would be loaded."""

    def collect(self):
        suite = self.path.relative_to(self.config.rootpath)
        pytest.skip(f"{suite} needs a process of its own: pytest {suite}, or make test", allow_module_level=True)


def pytest_collect_directory(path, parent):
    if path in PATCHED and not is_patched():
        return Unpatched.from_parent(parent, path=path)
    return None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for site in Sites.running:
            log = site.log_since_mark().splitlines()[-150:]
            if log:
                report.sections.append((f"log of {site} during this test", "\n".join(log)))


@pytest.hookimpl
def pytest_runtest_setup(item):
    for site in Sites.running:
        site.mark_log()


@pytest.fixture(scope="session", autouse=True)
def _time_zone():
    with clock.time_zone():
        yield


@pytest.fixture(autouse=True)
def _real_clock(request):
    """A test may need the real clock, because something compares it with that of another process or of the kernel."""
    with clock.real() if request.node.get_closest_marker("real_clock") else contextlib.nullcontext():
        yield


@pytest.fixture(autouse=True)
def _own_sockets():
    """A socket ends with its test: those of a shared site would be seen by all later tests that ask who listens."""
    before = {site: len(site.clients) for site in Sites.running}
    yield
    for site in Sites.running:
        site.leave(before.get(site, 0))


@pytest.fixture(scope="session")
def redis_server():
    """The Redis that tests share; they keep apart by their facilities."""
    need("redis-server")
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_client(redis_server):
    """A connection of the tests' own to the shared Redis; answers are ``str``."""
    with redis_server.client() as client:
        yield client


@pytest.fixture
def private_redis():
    """A Redis for this test alone, which it may kill, start again or count the connections of."""
    need("redis-server")
    with RedisServer() as server:
        yield server


@pytest.fixture
def start_redis():
    """Start a Redis with a password or TLS: ``start_redis(password="…", tls=True)``."""
    need("redis-server")
    servers = []

    def start(**options):
        servers.append(RedisServer(**options))
        return servers[-1].start()

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def postgres():
    """The PostgreSQL server that tests share; they keep apart by the names of their databases."""
    need_postgres()
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def node_modules():
    """Folder of the development packages."""
    if reason := lint_javascript.missing():
        missing(reason)
    lint_javascript.install()
    return ROOT / "node_modules"


@pytest.fixture(scope="session")
def site_files():
    """Directory with a migrated database, demo accounts included, and the collected static files."""
    if shared := os.environ.get("TEST_SHARED"):  # of processes that run tests side by side: the first makes them
        directory = Path(shared, "site-files")
        with Path(shared, "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not directory.exists():
                make_site_files(Path(tempfile.mkdtemp(dir=shared)), PublishingSite.settings_module).rename(directory)
        yield directory
        return
    directory = Path(tempfile.mkdtemp(prefix="site-files-"))
    try:
        yield make_site_files(directory, PublishingSite.settings_module)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_serve(redis_server, site_files):
    """Start a site that lives until the end of the session: ``shared_serve(front="http-socket", processes=2)``."""
    with Sites(redis_server, site_files, PublishingSite) as serve:
        yield serve


@pytest.fixture
def serve(redis_server, site_files):
    """Start a site for this test: ``serve(front="http", settings={…}, redis=private_redis)``; the rest: ``Site``."""
    with Sites(redis_server, site_files, PublishingSite) as serve:
        yield serve


@pytest.fixture(scope="session")
def site(shared_serve):
    """The site that tests share: two workers behind uWSGI's http router, the command that ws4redis documents."""
    return shared_serve(front="http", processes=2)


@pytest.fixture(scope="session")
def direct(shared_serve):
    """One worker that clients reach without a router in between: for what a router would hide."""
    return shared_serve(front="http-socket", processes=1)


@pytest.fixture(scope="session")
def john(site):
    """Cookie header of a browser in which john, of the group chatters, has signed in."""
    return site.login("john")


@pytest.fixture(scope="session")
def mary(site):
    return site.login("mary")


@pytest.fixture(scope="session")
def stock(redis_server):
    """ws4redis's own publisher in another process, which has never heard of wsloop."""
    publisher = StockPublisher(redis_server.connection())
    yield publisher
    publisher.close()


@pytest.fixture
def facility():
    """A facility that only this test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"
