"""Prometheus's metrics of several workers, in the formats that a Prometheus server asks for."""

import json

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from wsloop import exposition, metrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
SOCKETS = [["ws4redis", "other", "broadcast", 3], ["wsloop.v1", "rooms/*", "none", 1]]


def worker(number, **numbers):
    """The snapshot of a worker, as it comes from Redis."""
    return json.loads(json.dumps(metrics.snapshot() | {"worker": number} | numbers))


def samples(text, read=parse):
    found = {}
    for family in read(text):
        for name, labels, value, *_ in family.samples:
            found[(name, *sorted(labels.items()))] = value
    return found


def test_each_worker_has_its_numbers():
    made, content_type = exposition.text([worker(1, bytes_in=5, sockets=SOCKETS), worker(2, bytes_in=7)], 1, "")
    assert content_type.startswith("text/plain")
    found = samples(made.decode())
    assert found["wsloop_bytes_in_total", ("worker", "1")] == 5
    assert found["wsloop_bytes_in_total", ("worker", "2")] == 7
    labels = ("audience", "broadcast"), ("dialect", "ws4redis"), ("facility", "other")
    assert found[("wsloop_sockets", *labels, ("worker", "1"))] == 3
    assert not any(name == "wsloop_sockets" and ("worker", "2") in labels for name, *labels in found)
    assert found["wsloop_workers",] == 2
    assert found["wsloop_workers_silent",] == 1


def test_a_server_that_wants_openmetrics_gets_it():
    made, content_type = exposition.text([worker(1, bytes_in=5)], 0, f"{OPENMETRICS};q=0.6,text/plain;q=0.5")
    assert content_type.startswith(OPENMETRICS)
    assert samples(made.decode(), parse_openmetrics)["wsloop_bytes_in_total", ("worker", "1")] == 5


def test_a_histogram_counts_what_is_below_each_bound():
    counts = [1, 0, 2, *[0] * 11, 4]
    made, _ = exposition.text([worker(3, delivery=[*counts, 21.5])], 0, "")
    found = samples(made.decode())
    below = [
        found["wsloop_delivery_seconds_bucket", ("le", le), ("worker", "3")] for le in ("0.0005", "0.0025", "+Inf")
    ]
    assert below == [1, 3, 7]
    assert found["wsloop_delivery_seconds_sum", ("worker", "3")] == 21.5


def test_a_worker_of_another_version_may_lack_numbers_and_have_others():
    old = worker(1, new=[1, 2])
    del old["closes"]
    found = samples(exposition.text([old, worker(2, closes={"1000": 2})], 0, "")[0].decode())
    assert [each for each in found if each[0] == "wsloop_closes_total"] == [
        ("wsloop_closes_total", ("code", "1000"), ("worker", "2"))
    ]


def test_labels_with_signs_are_quoted():
    place = [["wsloop.v1", 'a"b\\c\n*', "broadcast", 2]]
    found = samples(exposition.text([worker(1, sockets=place)], 0, "")[0].decode())
    assert [dict(labels)["facility"] for name, *labels in found if name == "wsloop_sockets"] == ['a"b\\c\n*']
