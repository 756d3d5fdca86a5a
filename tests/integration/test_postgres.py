"""PostgreSQL with psycopg 3 and its pool, as the page about production has it: the core of what uses a database."""

import ast
import contextlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from testbed.processes import ROOT, wait_until
from testbed.site_files import site_environment
from tests.docs.test_docs import code_blocks
from tests.integration import test_outbox, test_rooms, test_signing_out
from tests.integration.harness import PublishingSite

PAGE = ROOT / "docs/how-to/run-in-production.rst"
WORKERS = 2

pytestmark = pytest.mark.timeout(300)  # the first one waits for two databases


@pytest.fixture(scope="module")
def databases(postgres, site_files, redis_server, tmp_path_factory):
    """The setting DATABASES of the page, for a database of this module's own with the demo accounts."""
    psycopg = pytest.importorskip("psycopg")
    (code,) = [each for each in code_blocks(PAGE, "python") if "DATABASES" in each]
    (assignment,) = ast.parse(code).body
    found = ast.literal_eval(assignment.value)
    found["default"] |= postgres.settings(NAME="site")
    with psycopg.connect(host=str(postgres.directory), user="postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE site")
    env = site_environment(
        tmp_path_factory.mktemp("site"), site_files, redis_server.url, PublishingSite.settings_module
    )
    env["SITE_SETTINGS"] = json.dumps({"DATABASES": found})
    for command in (["migrate", "-v0"], ["demo_data"]):
        command = [sys.executable, "manage.py", *command]
        subprocess.run(command, cwd=ROOT, env=env, check=True, timeout=120, stdout=subprocess.DEVNULL)
    return found


@pytest.fixture(scope="module")
def site(shared_serve, databases):
    return shared_serve(processes=WORKERS, settings={"DATABASES": databases})


@pytest.fixture(scope="module")
def john(site):
    return site.login("john")


@pytest.fixture(scope="module")
def mary(site):
    return site.login("mary")


@pytest.fixture
def connect(postgres, site):
    """Connect to the database of the site, as the tests themselves."""
    import psycopg

    with contextlib.ExitStack() as stack:
        options = {"host": str(postgres.directory), "user": "postgres", "dbname": "site", "autocommit": True}
        yield lambda: stack.enter_context(psycopg.connect(**options))


def test_the_pages_of_the_site(site, john):
    for path in ("/", "/rooms/", "/rooms/lobby/", "/tasks/", "/inbox/"):
        answer = site.request("GET", path, cookies=john)
        assert answer.status == 200, path


# Rooms, signing out and the outbox: as on SQLite.

room = test_rooms.room
test_messages_of_rooms = test_rooms.test_all_see_all_messages_once_and_in_one_order_whoever_writes_wherever
test_rooms_that_are_opened_together = test_rooms.test_who_opens_a_room_together_and_sends_twice


@pytest.fixture(scope="module")
def machines(site):
    return [site, site]


accounts, user = test_signing_out.accounts, test_signing_out.user
test_logout = test_signing_out.test_logout_closes_the_sockets_of_that_session_within_a_second
test_groups = test_signing_out.test_who_joins_a_group_gets_its_messages_without_signing_in_again


@pytest.fixture
def outbox(tmp_path, site_files, redis_server, databases):
    outbox = test_outbox.Outbox(tmp_path, site_files, redis_server.url, {"DATABASES": databases})
    yield outbox
    for process in outbox.running:
        process.stop()


arrived = test_outbox.arrived
test_publishing_beside_the_command = test_outbox.test_sites_that_publish_beside_the_command


# The pool.


def test_requests_that_wait_for_the_database_share_the_pool_and_hold_up_nothing_else(
    site, john, databases, connect, facility
):
    """Sixty at once, where each worker has a pool of ten."""
    most = databases["default"]["OPTIONS"]["pool"]["max_size"]
    client = site.connect(f"{facility}?subscribe-broadcast&publish-broadcast&echo")
    locking, looking = connect(), connect()

    def clients(condition="true"):
        question = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'site' AND backend_type = 'client backend'"
        return looking.execute(f"{question} AND {condition}").fetchone()[0]  # not an autovacuum worker, say

    with ThreadPoolExecutor(60) as executor:
        with locking.transaction():
            locking.execute("LOCK TABLE django_session IN ACCESS EXCLUSIVE MODE")
            jobs = [executor.submit(site.request, "GET", "/test/whoami/", cookies=john, timeout=60) for _ in range(60)]
            wait_until(lambda: clients("wait_event_type = 'Lock'") >= most, what="requests that wait for the database")
            client.send("while they wait")
            assert client.next() == "while they wait"
            assert site.request("GET", "/test/whoami/").status == 200
            assert not any(job.done() for job in jobs)
        assert {job.result().json()["user"] for job in jobs} == {"john"}
    assert clients() - 2 <= WORKERS * most
