"""What is counted, as an exporter of the site would see it."""

import pytest
from prometheus_client import REGISTRY, generate_latest

from wsloop import metrics
from wsloop.protocol.close_codes import CLOSE_CODES


def count(name, **labels):
    return REGISTRY.get_sample_value(f"wsloop_{name}", labels) or 0


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
    total, seconds = (count(f"blocked_{name}total", loop="asyncio") for name in ("", "seconds_"))
    metrics.blocked("asyncio", 0.25)
    metrics.blocked("asyncio", 0.5)
    assert count("blocked_total", loop="asyncio") == total + 2
    assert count("blocked_seconds_total", loop="asyncio") == pytest.approx(seconds + 0.75)


def test_recoveries_are_counted_by_what_became_of_them():
    complete, not_recovered = (count("recoveries_total", outcome=name) for name in ("complete", "not recovered"))
    metrics.recovery(True)
    metrics.recovery(True)
    metrics.recovery(False)
    assert count("recoveries_total", outcome="complete") == complete + 2
    assert count("recoveries_total", outcome="not recovered") == not_recovered + 1


def test_close_codes_that_a_client_has_made_up_are_counted_together():
    before = count("closes_total", code="4008"), count("closes_total", code="other")
    metrics.closed(4008)
    for code in range(3000, 3100):
        metrics.closed(code)
    assert (count("closes_total", code="4008"), count("closes_total", code="other")) == (before[0] + 1, before[1] + 100)
    assert count("closes_total", code="3000") == 0


def test_all_codes_of_this_server_are_counted_by_themselves():
    assert set(CLOSE_CODES) <= metrics.CODES


def test_handshakes_are_counted_by_outcome_and_duration():
    def handshakes(le):
        return count("handshake_seconds_bucket", outcome="418", le=le)

    total = count("handshake_seconds_sum", outcome="418")
    metrics.handshake("418", 0.001)  # a bound belongs to what is below it
    metrics.handshake("418", 0.0011)
    metrics.handshake("418", 30)
    assert [handshakes(le) for le in ("0.001", "0.0025", "10.0", "+Inf")] == [1, 2, 2, 3]
    assert count("handshake_seconds_count", outcome="418") == 3
    assert count("handshake_seconds_sum", outcome="418") == pytest.approx(total + 30.0021)
