"""The model of large sites: its arithmetic, its queues against theory, and its page against its program."""

import json
import statistics
import subprocess
import sys

import pytest

from bench import simulation
from bench.costs import RECORDED, Costs, solve
from bench.simulation import BUSY, PER_WORKER, SHAPES, SIZES, Shape, Site, delays, fitted
from testbed.processes import ROOT

USERS = Shape("", users=0.01)


def test_costs_are_those_that_the_measurements_were_made_of():
    rows = [[1, 100, 0], [1, 2000, 0], [50, 500, 24_500], [50, 2000, 98_000]]
    costs = [60e-6, 6e-6, 0.2e-6]
    values = [sum(a * b for a, b in zip(row, costs, strict=True)) for row in rows]
    assert solve(rows, values) == pytest.approx(costs)


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_a_message_waits_at_redis_as_long_as_theory_says(busy):
    """Pollaczek and Khinchine, for services that all take the same time: busy * time / 2 / (1 - busy)."""
    time = 100e-6
    site = Site(Costs(publish=time), Shape("", users=busy / time / 100_000), 100_000, workers=2)
    assert site.redis == pytest.approx(busy)
    found = statistics.mean(each for seed in range(6) for each in delays(site, seed))
    assert found - time - simulation.HOP == pytest.approx(busy * time / 2 / (1 - busy), rel=0.1)


def test_the_last_socket_of_a_broadcast_gets_it_after_all_other_writes():
    site = Site(Costs(message=1.0, write=0.01, publish=0.5), Shape("", broadcasts=0.0001), 100)
    found = delays(site)
    first, last = 0.5 + simulation.HOP + 1.0 + 0.01 * 10, 0.5 + simulation.HOP + 1.0 + 0.01 * 90
    assert found[len(found) // 10] == pytest.approx(first)
    assert found[-len(found) // 10] == pytest.approx(last)


def test_what_comes_while_a_worker_writes_is_joined():
    """So a worker that would be busy for ever with single messages is not."""
    site = Site(Costs(write=0.001), Shape("", broadcasts=20.0), 100)
    assert site.worker == pytest.approx(2.0)
    assert max(delays(site)) < 0.4


def test_a_room_is_work_for_those_workers_only_that_have_a_member():
    room = Shape("", rooms=0.01)
    assert Site(Costs(), room, 10**6, workers=1).share == 1
    assert Site(Costs(), room, 10**6, workers=100).share == pytest.approx(1 - 0.99**50)
    site = Site(Costs(message=1.0), room, 100, workers=100)
    assert site.worker == pytest.approx(site.published * site.share)


def test_each_node_of_a_cluster_takes_every_message():
    one, many = (Site(Costs(publish=10e-6, passed=5e-6), USERS, 10**6, 100, nodes) for nodes in (1, 10))
    assert one.redis == pytest.approx(10_000 * 10e-6)
    assert many.redis == pytest.approx(1000 * 10e-6 + 9000 * 5e-6)


def test_a_site_gets_as_few_processes_as_do():
    costs = Costs(message=50e-6, write=5e-6, publish=40e-6, passed=5e-6)
    assert fitted(costs, USERS, 10_000).workers == 1
    large = fitted(costs, USERS, 10**6)
    assert (large.workers, large.nodes) == (10**6 // PER_WORKER, 1)
    assert fitted(costs, USERS._replace(users=0.02), 10**6).nodes == 3
    broadcasts = fitted(costs, Shape("", broadcasts=40.0), 10_000)
    assert broadcasts.workers > 1
    assert broadcasts.worker <= BUSY < Site(costs, broadcasts.shape, 10_000, broadcasts.workers - 1).worker
    assert fitted(costs, USERS._replace(users=1.0), 10**6).redis > BUSY


def test_the_page_is_what_the_program_computes():
    recorded = json.loads(RECORDED.read_text())
    costs = Costs(**recorded["costs"])
    page = simulation.PAGE.read_text()
    assert simulation.costs_section(costs, recorded["circumstances"]) in page
    assert simulation.checked_section(recorded["checked"]) in page
    assert simulation.carried_section(costs) in page
    assert simulation.processes_section([fitted(costs, shape, size) for size in SIZES for shape in SHAPES]) in page


def test_an_unknown_part_is_refused():
    command = [sys.executable, "-m", "bench.costs", "all"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "There is no part 'all', but redis, workers, check\n")
