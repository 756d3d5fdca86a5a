"""``make bench-events``: its tables, and a part of it in little."""

import docutils.core

from bench import events, report
from bench.events import ASYNC, BACK, HISTORY, NEW, OPEN, PLAIN, SYNC, Cost, Latency, Plan, Results
from bench.servers import MeasuredRedis, signed_in
from tests.requires import need


def test_the_tables():
    echoes = {
        (SYNC, 1000, SYNC): Latency(0.5, 9.9, 20.0, cpu=1.0, seconds=2.0),
        (SYNC, 2000, "facility"): Latency(1.5, 30.1, 80.0, cpu=2.5, seconds=2.0),
        (ASYNC, 40, ASYNC): Latency(0.5, 3.0, 4.0, cpu=0.0, seconds=2.0),
    }
    histories = {PLAIN: Cost(0.2, 0.0), HISTORY: Cost(0.3, 0.1)}
    section = report.events_section(Results(echoes, histories, {NEW: Cost(1.0, 0.5), BACK: Cost(2.0, 0.75)}), Plan())
    docutils.core.publish_doctree(section, settings_overrides={"report_level": 2, "halt_level": 2})
    lines = [line.split() for line in section.splitlines()]
    assert ["1,000", SYNC, SYNC, "0.5", "9.9", "20.0", "10", "yes", "10.0"] in lines
    assert ["2,000", SYNC, "facility", "1.5", "30.1", "80.0", "30", "no", "12.5"] in lines
    assert [HISTORY, "0.30", "1.50", "0.10"] in lines
    assert [*BACK.split(), "2.00", "2.00", "0.75", "1.50"] in lines


def test_coming_back_in_little(tmp_path):
    need("redis-server")
    plan = Plan(rounds=1, clients=4, missed=3)
    with MeasuredRedis() as redis:
        signed_in(tmp_path, redis.port, 1)
        results = events.measure_all(redis, tmp_path, plan, lambda line: None, "recoveries")
    assert set(results.recoveries) == {NEW, BACK, OPEN}
    assert not results.echoes
