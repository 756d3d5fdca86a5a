"""``make bench-deliveries``: its records, its collector, its tables and plots; and in little what needs no peers."""

import json
import re
import socket
import threading
import xml.etree.ElementTree as ElementTree

import docutils.core
import pytest

from bench import delivery_parts, full, growth, lineup, record_tables, report
from bench.apart import Apart
from bench.clients import PING, PONG, Sockets, Stalled, frame, request
from bench.deliveries import Delivery, weighted
from bench.lineup import Ground
from bench.record import KEPT, Record, Spread, interleaved
from bench.servers import MeasuredRedis, signed_in
from tests.requires import need

MACHINE = {"date": "2026-01-02", "processor": "2 cores of X", "system": "Linux 6", "versions": "Python 3"}


@pytest.fixture
def line():
    """Two sockets, open, and the other ends of them."""
    ends = []

    def accept():
        for _ in range(2):
            end = listener.accept()[0]
            while not end.recv(65536).endswith(b"\r\n\r\n"):
                pass
            ends.append(end)
            end.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener, Sockets(listener.getsockname()) as sockets:
        thread = threading.Thread(target=accept)
        thread.start()
        sockets.open([request("/")] * 2)
        thread.join(10)
        yield sockets, ends
        for end in ends:
            end.close()


def test_rounds_are_interleaved():
    assert list(interleaved(2, ["a", "b"])) == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_a_record_is_kept_with_each_round_in_a_line(tmp_path):
    record = Record("burst", "make x", {"rounds": 2}, machine=MACHINE, missing={"c": "why"})
    record.rows = [{"server": name, "round": each, "rate": each + 1.5} for each in range(3) for name in "ab"]
    record.rows.append({"server": "a", "round": 3})
    record.keep(tmp_path)
    assert Record.kept("burst", tmp_path) == record
    assert Record.kept("users", tmp_path) is None
    assert (
        '{"server": "b", "round": 1, "rate": 2.5}'
        in (tmp_path / "burst.json").read_text().replace(",\n", "\n").splitlines()
    )
    assert record.spread("rate", server="a") == Spread(2.5, 1.5, 3.5)
    assert record.spread("rate", server="c") is None
    assert (record.names(), record.names("round", server="b")) == (["a", "b"], [0, 1, 2])


def test_bytes_are_counted_and_compared(line):
    sockets, ends = line
    texts = [b"0" * 128, b"1" * 128]

    def publish(numbers):
        for number in numbers:
            for end in ends:
                end.sendall(frame(texts[number].replace(b"0" * 128, b"00000000".ljust(128, b"."))))

    delivery = Delivery(sockets, publish)
    delivery.warm()
    assert delivery.burst(1)["messages"] == 1
    with pytest.raises(Stalled, match="2 of 2 sockets have got other bytes"):
        delivery.burst(2)  # the second message should be 00000001.....
    ends[1].close()
    with pytest.raises((Stalled, OSError)):
        delivery.burst(1)


def test_each_socket_has_a_message_of_its_own(line):
    sockets, ends = line
    texts = [b"for a", b"for b"]
    delivery = Delivery(sockets, lambda order: [ends[number].sendall(frame(texts[number])) for number in order])
    assert delivery.addressed(texts, [1, 0])["messages"] == 2
    with pytest.raises(Stalled, match="2 of 2"):
        delivery.addressed(texts[::-1], [0, 1])


def test_pings_between_messages_are_answered_and_not_compared(line):
    sockets, ends = line

    def publish(numbers):
        for end, ping in zip(ends, (b"", PING), strict=True):
            end.sendall(ping + b"".join(frame(f"{number:08}".encode().ljust(128, b".")) for number in numbers))

    assert Delivery(sockets, publish).burst(3)["messages"] == 3
    assert ends[1].recv(100) == PONG


def test_the_times_of_messages_one_at_a_time(line):
    sockets, ends = line

    def publish(numbers):
        for end in ends:
            end.sendall(frame(f"{numbers[0]:08}".encode().ljust(128, b".")))

    figures = Delivery(sockets, publish, cpu=iter([1.0, 3.0]).__next__).paced(4, 0.0)
    assert figures["messages"] == len(figures["last"]) == 3  # no fewer, however long it takes
    assert 0 < figures["p50"] <= figures["p99"] <= max(figures["last"])
    assert figures["cpu"] == round(2e6 / 6, 4)
    assert figures["busy"] >= 0
    assert weighted([(3.0, 1), (1.0, 98), (2.0, 1)], 0.99) == 2.0


class Failing:
    def fail(self):
        raise Stalled("no more")

    def end(self):
        raise SystemExit

    def add(self, *numbers):
        return sum(numbers)


def test_errors_come_back_from_a_process_apart():
    with Apart(Failing) as apart:
        assert apart("add", 1, 2) == 3
        with pytest.raises(Stalled, match="no more"):
            apart("fail")
        with pytest.raises(RuntimeError, match="has ended"):
            apart("end")


def shown(record):
    """Check that the section of a record is reStructuredText, and its plot XML; return the rows of its tables."""
    section = record_tables.section(record)
    docutils.core.publish_doctree(section, settings_overrides={"report_level": 2, "halt_level": 2})
    if plot := record_tables.plot(record):
        ElementTree.fromstring(plot)
    return [re.split(r"  +", line) for line in section.splitlines()]


def test_the_tables():
    rows = [
        {"server": name, "round": number, "messages": 200, "rate": rate + number, "cpu": 0.5, "busy": 0.25}
        for number in range(3)
        for name, rate in (("plain loop", 1000), ("wsloop", 3000), ("Channels, uvicorn", 10))
    ]
    plan = {"rounds": 3, "size": 128, "listeners": 1000, "users": 10_000}
    burst = Record(
        "burst", "make x", plan, rows, {"picows, uvloop": "could not be installed, no wheel"}, "ws 8", MACHINE
    )
    found = shown(burst)
    assert found[[row[0] for row in found].index("wsloop")] == (
        ["wsloop", "3,001", "3,000 to 3,002", "3.00", "0.500", "0.500 to 0.500", "25"]
    )
    assert ["picows, uvloop: could not be installed, no wheel."] in found
    users = shown(Record("users", "make x", plan, rows, machine=MACHINE))
    assert [row[3] for row in users if row[0] == "wsloop"] == ["272.82"]  # to Channels
    paced = [{**row, "sockets": 10_000, "p50": 1.0, "p99": 2.0, "last": [3.0, 5.0]} for row in rows]
    listeners = shown(Record("listeners", "make x", plan, paced, machine=MACHINE))
    assert [row[-4:] for row in listeners if row[0] == "wsloop"] == [["1.0", "2.0", "3.0", "5.0"]]


def test_the_table_of_idle_sockets():
    rows = [{"kind": "signed in", "sockets": 0, "Rss": 65536, "Pss": 62464, "redis": 3}]
    rows.append({**rows[0], "sockets": 1000, "Rss": 67584, "per_socket": 2.0, "cpu": 1.0})
    found = shown(Record("idle", "make x", {}, rows, machine=MACHINE))
    assert ["signed in", "1,000", "66.0", "61.0", "2.0", "3", "1.0"] in found


def test_what_is_on_the_page_is_what_is_kept():
    page = report.PAGE.read_text()
    kept = [record for name in record_tables.SHOWN if (record := Record.kept(name))]
    for record in kept:
        assert record_tables.section(record) in page, f"{record.part}: make bench-tables"
        if plot := record_tables.plot(record):
            assert (KEPT / f"{record.part}.svg").read_text() == plot, f"{record.part}: make bench-tables"
        assert all(json.dumps(row) for row in record.rows)


def test_what_cannot_be_installed_is_named(tmp_path):
    class Nothing:
        missing = "no wheel"

    record = Record("burst", "make x", {}, machine=MACHINE)
    ground = Ground(None, tmp_path, peers=Nothing())  # there is nothing to start
    with delivery_parts.Parts(ground, delivery_parts.QUICK, print).field(lineup.PEERS, record) as field:
        field.all("listen", 1)
    assert record.missing[lineup.Picows.name] == "could not be installed, no wheel"
    assert lineup.Ws.name not in record.missing  # left out, as by --quick
    assert record.peers == ""


def test_wsloop_in_little(tmp_path):
    need("redis-server")
    plan = delivery_parts.Plan(rounds=2, listeners=(3,), users=3, seconds=0.1, paced=3)
    with MeasuredRedis() as redis:
        ground = Ground(redis, tmp_path, signed_in(tmp_path, redis.port, plan.users))
        parts = delivery_parts.Parts(ground, plan, lambda line: None)
        records = {name: parts.measure(name) for name in ("burst", "users")}
        few = growth.Plan(1, sockets=(), both=(), channels=(0, 4), listeners=2, seconds=0.1, paced=2)
        records["growth"] = growth.measure(ground, few, lambda line: None)
        little = full.Plan(1, sockets=3, seconds=0.3, beside=0.5)
        records["full"] = full.measure(ground, little, lambda line: None)
    assert all(record.missing == {} for record in records.values()), records
    own = [lineup.WSLOOP, lineup.CONSUMERS, lineup.EACH]
    assert records["burst"].names() == [*own, lineup.JOINED]
    assert len(records["burst"].rows) == 8
    assert records["users"].names() == [lineup.WSLOOP]
    assert [row["kind"] for row in records["full"].rows] == [full.EMPTY, full.IDLE, full.FANOUT]
    assert all(0 < row["p50"] <= row["p99"] and 0 < row["turn"] < 300 for row in records["full"].rows)
    for record in records.values():
        assert all(row["cpu"] > 0 and row.get("rate", 1) > 0 for row in record.rows)
        shown(record)
