"""``make bench-drops``: its scenario, its account, its networks; and wsloop and its contrast in little."""

import contextlib
import itertools
import socket

import pytest

from bench.contenders import TOLD, Servers
from bench.drops import (
    CALM,
    EVERY,
    KINDS,
    LEFT,
    OUTAGE,
    RESET,
    RESET_LATE,
    STALLED,
    Drop,
    Network,
    Plan,
    account,
    drops,
    measure,
)
from testbed.processes import ROOT, wait_until
from testbed.redis_servers import RedisServer
from tests.requires import need


def test_the_scenario_is_the_same_for_every_server():
    plan = Plan()
    script = drops(plan)
    assert script == drops(Plan())
    assert script != drops(Plan(seed=2))
    assert {drop.kind for drop in script} == set(KINDS)
    for network in range(plan.networks):
        times = [drop.at for drop in script if drop.network == network]
        assert all(EVERY[0] <= later - earlier <= EVERY[1] for earlier, later in itertools.pairwise(times))
        assert times[-1] + OUTAGE + CALM <= plan.seconds < times[-1] + OUTAGE + CALM + EVERY[1]


def test_the_account():
    began = [100.0 + number for number in range(10)]  # 1 at 100, 10 at 109

    def arrived(*numbers):
        return [(began[number - 1] + 0.25 if number else 0.0, number) for number in numbers]

    quiet = arrived(*range(1, 11))
    dropped = [Drop(1.0, 0, STALLED), Drop(4.0, 0, RESET)]
    # 3 is lost while stalled, 6 is late, 5 comes twice, 7 is lost and told; 10 is lost silently in the end.
    flawed = arrived(1, 2, 4, 5, 5, TOLD, 8, 6, 9)
    total = account(began, [(quiet, []), (flawed, dropped)], start=100.0)
    assert (total.published, total.due, total.delivered) == (10, 20, 17)
    assert (total.told_lost, total.silent, total.told) == (1, 2, 1)
    assert (total.duplicates, total.disorder) == (1, 1)
    assert total.lost_in == {STALLED: 1, RESET: 2, RESET_LATE: 0, LEFT: 0}
    assert total.delays == [0.25] * 17  # the second 5 does not count
    assert total.delay(0.5) == total.delay(0.99) == 0.25


def test_what_was_on_its_way_is_lost_in_the_drop_that_follows():
    dropped = [Drop(0.05, 0, LEFT)]
    total = account([100.0, 101.0], [([(101.0, 2)], dropped)], start=100.0)
    assert total.lost_in[LEFT] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_drops(kind):
    """What the client, and the server, notice of each kind of drop, and when."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        network = stack.enter_context(Network(listener.getsockname()[1]))

        def line():
            client = stack.enter_context(socket.create_connection(("127.0.0.1", network.port), 10))
            client.sendall(b"hello")
            server = stack.enter_context(listener.accept()[0])
            server.settimeout(10)
            return client, server

        def ended(end):
            """Whether it has been reset; what it has been sent does not matter."""
            end.setblocking(False)
            try:
                while end.recv(100):
                    pass
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True
            raise AssertionError("closed, not reset")

        client, server = line()
        assert server.recv(5) == b"hello"
        network.begin(kind)
        if kind in (RESET, LEFT):
            wait_until(lambda: ended(client), what="the reset of the client")
        if kind == RESET:
            wait_until(lambda: ended(server), what="the reset of the server")
        else:
            server.sendall(b"meanwhile")
        newer, other = line()
        assert not ended(other)
        network.end(kind)
        if kind == RESET_LATE:
            wait_until(lambda: ended(client) and ended(server) and ended(newer), what="the resets")
        else:
            other.settimeout(10)
            assert other.recv(5) == b"hello"
        if kind == STALLED:
            assert client.recv(9) == b"meanwhile"
        if kind == LEFT:
            assert not ended(server)


@pytest.fixture
def servers(tmp_path):
    need("redis-server")
    with RedisServer() as redis:
        yield Servers(redis, tmp_path, count=1000)


PLAN = Plan(clients=8, networks=4, seconds=5.0)
EACH = [Drop(0.5, network, kind) for network, kind in enumerate(KINDS)]


def test_wsloop_delivers_everything_whatever_the_drop(servers):
    with servers.names()["wsloop, wsloop.v1"]() as server:
        total = measure(server, PLAN, EACH)
    assert total.published >= 50
    assert total.delivered == total.due == 8 * total.published, total
    assert not (total.duplicates or total.disorder or total.told), total


def test_without_recovery_the_same_is_lost(servers):
    with servers.names()["wsloop, as ws4redis"]() as server:
        total = measure(server, PLAN, EACH)
    assert total.silent > 0
    assert total.lost_in[STALLED] == 0
    assert all(total.lost_in[kind] > 0 for kind in (RESET, RESET_LATE, LEFT)), total


def test_the_page_has_a_row_for_every_server(servers):
    """Otherwise it was not measured after a server was added: make bench-drops BENCH=--write."""
    page = (ROOT / "docs/reference/drops.rst").read_text()
    assert [name for name in servers.names() if page.count(f"\n{name}  ") != 2] == []
