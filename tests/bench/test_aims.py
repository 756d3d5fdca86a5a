"""The table of what was aimed at, from records with figures of its own."""

import pytest

from bench import aims, full, lineup, record_tables
from bench.record import Record


def kept(*records):
    return {record.part: record for record in records}.get


def record(part, *rows):
    return Record(part, "make bench", {}, [*rows], machine={})


def burst(*rates):
    return record("burst", *({"server": name, "rate": rate} for name, rate in rates))


@pytest.mark.parametrize("rate, met", [(199, "no"), (200, "yes"), (201, "yes")])
def test_a_ratio_of_medians_is_to_be_at_least_so_large(rate, met):
    rates = [(lineup.WSLOOP, 1), (lineup.WSLOOP, rate), (lineup.WSLOOP, 9999), (lineup.UWebSockets.name, 200)]
    ((words, aim, measured, is_met),) = aims.rows(kept(burst(*rates)))
    assert "uWebSockets" in words
    assert (aim, float(measured), is_met) == ("at least 1", pytest.approx(rate / 200, rel=0.01), met)


@pytest.mark.parametrize("cpu, met", [(1.49, "yes"), (1.51, "no")])
def test_a_figure_is_to_be_at_most_so_large(cpu, met):
    rows = [{"kind": full.EMPTY, "cpu": 0.1}, {"kind": full.IDLE, "cpu": cpu}]
    ((_, aim, measured, is_met),) = aims.rows(kept(record("full", *rows)))
    assert (aim, measured, is_met) == ("at most 1.5", str(cpu), met)


def test_growth_is_from_the_cheapest_to_the_dearest_step():
    rows = [
        {"grows": "one worker", "kind": "paced", "step": step, "cpu": cpu}
        for step, cpu in ((100, 3), (1000, 2), (18_000, 5))
    ]
    ((words, aim, measured, is_met),) = aims.rows(kept(record("growth", *rows)))
    assert words.startswith("one worker, one at a time")
    assert (aim, measured, is_met) == ("at most 1.5", "2.5", "no")


def test_what_was_not_measured_is_left_out():
    assert list(aims.rows(kept())) == []
    assert list(aims.rows(kept(burst((lineup.WSLOOP, 1))))) == []  # without the peer


def test_each_aim_is_of_a_part_that_the_page_shows():
    assert {aim.part for aim in aims.AIMS} <= set(record_tables.SHOWN)
