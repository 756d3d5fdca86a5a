"""What is counted, as an exporter would see it."""

from prometheus_client import REGISTRY, generate_latest

from wsloop import metrics


def test_a_bound_that_was_reached_is_counted_by_its_setting(reached):
    metrics.reached("RATE_LIMIT")
    metrics.reached("RATE_LIMIT")
    assert reached("RATE_LIMIT") == 2
    assert reached("MAX_MESSAGE_SIZE") == 0
    assert b'wsloop_bounds_reached_total{setting="RATE_LIMIT"}' in generate_latest(REGISTRY)
