"""``make bench-pages``: its clients, its table, and all of it in little."""

import json

import docutils.core
import pytest

from bench import pages, report
from bench.clients import Stalled, client_frame
from bench.pages import PAGE, SINGLE, STREAM, Client, Cost, Plan, Results
from bench.servers import MeasuredRedis, signed_in
from tests.requires import need

NAMES = ["page-00", "page-01"]
TOKENS = {"page-00": "a.1.b:c", "page-01": "d.2.e:f"}


def test_the_connections_of_a_page():
    singles = list(pages.clients(SINGLE, "key", NAMES, TOKENS, missed=3))
    assert [(each.then, each.welcomes, each.missed) for each in singles] == [(b"", 1, 3)] * 2
    assert b"GET /ws/page-01?subscribe-broadcast&subscribe-user&resume=d.2.e%3Af HTTP/1.1" in singles[1].handshake
    (page,) = pages.clients(PAGE, "key", NAMES, TOKENS, missed=3)
    (stream,) = pages.clients(STREAM, "key", NAMES, TOKENS, missed=3)
    assert (page.welcomes, page.missed) == (stream.welcomes, stream.missed) == (3, 6)
    body = stream.handshake.partition(b"\r\n\r\n")[2]
    assert [each["resume"] for each in json.loads(body)] == list(TOKENS.values())
    assert page.then == client_frame(body)
    assert all(b"sessionid=key" in each.handshake for each in (*singles, page, stream))


def test_a_client_is_complete_with_its_last_message():
    client = Client(b"", b"", welcomes=1, missed=2)
    frames = [b'{"type": "welcome"}', b'{"type": "message"}', b'{"type": "message"}']
    assert [client.complete(b"".join(frames[:count])) for count in range(4)] == [False, False, False, True]
    with pytest.raises(Stalled, match="refused"):
        client.complete(b'{"type": "error", "code": "refused"}')


def test_no_more_sockets_than_descriptors():
    assert Plan().fitting(20_000).pages == 742  # the worker admits 15,000 sockets
    assert Plan().fitting(100_000) == Plan()


def test_the_table():
    results = Results(
        {1: {PAGE: 10.0, SINGLE: 5.0, STREAM: 8.0}, 20: {PAGE: 29.0, SINGLE: 100.0, STREAM: 27.0}},
        {PAGE: Cost(2.0, 1.0, 3000.0, 2500.0), SINGLE: Cost(8.0, 5.0, 6000.0, 5000.0)},
        {PAGE: {"burst": 990.0, "paced": 100.0}, SINGLE: {"burst": 1000.0, "paced": 100.0}},
    )
    section = report.pages_section(results, Plan())
    docutils.core.publish_doctree(section, settings_overrides={"report_level": 2, "halt_level": 2})
    rows = [line.split("  ") for line in section.splitlines()]
    found = {row[0].strip(): [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}
    assert found["KiB, subscriptions: 20"] == ["29.0", "100.0", "0.29"]
    assert found["KiB of one more subscription, a stream"] == ["1.00", "5.00", "0.20"]
    assert found["coming back: time"] == ["0.25"]
    assert found["coming back: requests to Redis"] == ["2.5", "5.0", "0.50"]
    assert found["broadcast, burst: deliveries"] == ["0.99"]


def test_all_of_it_in_little(tmp_path):
    need("redis-server")
    plan = Plan(pages=5, sizes=(2,), missed=2, rounds=1)
    with MeasuredRedis() as redis:
        keys = signed_in(tmp_path, redis.port, plan.pages)
        results = pages.measure_all(redis, tmp_path, keys, plan, lambda line: None)
    assert set(results.memory[2]) == {PAGE, SINGLE, STREAM}
    # Single sockets that come back at the same time share their round trips, too: which are fewer depends on how many.
    assert all(results.resumed[each].reads > 0 for each in (PAGE, SINGLE))
    assert results.resumed[PAGE].commands < results.resumed[SINGLE].commands
    assert all(speed > 0 for each in results.deliveries.values() for speed in each.values())
