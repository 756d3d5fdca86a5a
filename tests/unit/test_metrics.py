"""What is counted, as an exporter would see it."""

import pytest
from prometheus_client import REGISTRY, generate_latest

from wsloop import metrics


def test_a_bound_that_was_reached_is_counted_by_its_setting(reached):
    metrics.reached("RATE_LIMIT")
    metrics.reached("RATE_LIMIT")
    assert reached("RATE_LIMIT") == 2
    assert reached("MAX_MESSAGE_SIZE") == 0
    assert b'wsloop_bounds_reached_total{setting="RATE_LIMIT"}' in generate_latest(REGISTRY)


def test_losses_are_counted_by_their_kind(lost):
    metrics.lost("publication", 3)
    metrics.lost("replaced")
    assert lost("publication") == 3
    assert lost("replaced") == 1
    assert lost("history") == 0
    assert b'wsloop_lost_total{kind="publication"}' in generate_latest(REGISTRY)


def test_loops_that_were_held_up_are_counted_with_their_seconds():
    def count(name):
        return REGISTRY.get_sample_value(f"wsloop_blocked_{name}", {"loop": "asyncio"}) or 0

    total, seconds = count("total"), count("seconds_total")
    metrics.blocked("asyncio", 0.25)
    metrics.blocked("asyncio", 0.5)
    assert count("total") == total + 2
    assert count("seconds_total") == pytest.approx(seconds + 0.75)


def test_recoveries_are_counted_by_what_became_of_them():
    def count(outcome):
        return REGISTRY.get_sample_value("wsloop_recoveries_total", {"outcome": outcome}) or 0

    complete, not_recovered = count("complete"), count("not recovered")
    metrics.recovery(True)
    metrics.recovery(True)
    metrics.recovery(False)
    assert count("complete") == complete + 2
    assert count("not recovered") == not_recovered + 1
