"""``manage.py wsstats``, with the numbers that two workers tell over a real Redis."""

import io
import json
import re

import pytest
from django.core.management import CommandError, call_command

from tests.unit.test_api import second_worker  # noqa: F401 - a fixture
from wsloop.management.commands import wsstats
from wsloop.snapshots import Snapshots, here, snapshots


def run(*arguments):
    out = io.StringIO()
    call_command("wsstats", *arguments, stdout=out, no_color=True)
    return out.getvalue()


def worker(number, **more):
    """What one worker tells, as of wsloop.visitors.inspection."""
    return {
        "machine": "web1",
        "worker": number,
        "pid": 100 + number,
        "time": 1000.0,
        "sockets": [["wsloop.v1", "orders", "user", 20], ["bare", "news", "broadcast", 3]],
        "subscriptions": [["wsloop.v1", "orders", "user", 40]],
        "messages_in": 7,
        "messages_out": 1000,
        "queued_bytes": 3 * 1024 * 1024,
        "slow_sockets": 2,
        "closes": {"1001": 4, "4008": 1},
        "redis_up": 1,
        "redis_seconds": 0.0004,
        "memory": 85_000_000,
        "busiest": [["orders", 50, 900], ["news", 10, 100]],
        **more,
    }


@pytest.fixture
def tell(monkeypatch):
    """Let workers tell these numbers, one look after the other: ``tell([worker(1)], [worker(1, …)])``."""

    def let(*looks, missing=0):
        given = iter(looks)
        monkeypatch.setattr(wsstats, "snapshots", lambda machine: Snapshots(next(given), missing))

    return let


def test_once(tell):
    tell([worker(1), worker(2, redis_up=0, busiest=[["orders", 50, 100]])])
    lines = [re.split(r"\s{2,}", line.strip()) for line in run().splitlines()]
    assert lines[:4] == [
        list(wsstats.HEAD),
        ["web1", "1", "23", "40", "7", "1000", "3 MiB", "2", "5", "0.4 ms", "81 MiB"],
        ["web1", "2", "23", "40", "7", "1000", "3 MiB", "2", "5", "down", "81 MiB"],
        ["all", "2", "46", "80", "14", "2000", "6 MiB", "4", "10", "0.4 ms", "162 MiB"],
    ]
    assert lines[4:] == [["orders: 50 messages, 1000 deliveries"], ["news: 10 messages, 100 deliveries"]]


def test_again_and_again_messages_are_those_of_a_second(tell):
    tell(
        [worker(1, busiest=[])],
        [worker(1, busiest=[], time=1002.0, messages_out=1500, messages_in=8), worker(2, busiest=[])],
    )
    first, second = run("--watch", "0.2", "--count", "2").split("\n\n")[0].split("MACHINE")[1:]
    assert "  1000  " in first
    rows = [re.split(r"\s{2,}", line.strip()) for line in second.splitlines()[1:]]
    assert rows[0][4:6] == ["0", "250"], "of this one there was an earlier look"
    assert rows[1][4:6] == ["7", "1000"]


def test_as_json(tell):
    tell([worker(1)], [worker(1)], missing=1)
    lines = run("--json", "--watch", "0.2", "--count", "2").splitlines()
    assert [json.loads(each) for each in lines] == [{"workers": [worker(1)], "missing": 1}] * 2


def test_what_is_missing_is_said(tell):
    tell([], missing=2)
    assert run().splitlines() == [
        "No worker has answered: none runs, or none has had a socket yet.",
        "Workers that did not answer: 2",
    ]


def test_names_are_no_commands_for_the_terminal(tell):
    tell([worker(1, busiest=[["\x1b[2Jorders\n", 1, 1]])])
    assert "\\x1b[2Jorders\\n: 1 messages, 1 deliveries" in run()


def test_workers_are_asked_over_redis(shared_redis, second_worker):  # noqa: F811
    second_worker.answers += [worker(2), worker(1, machine="web0"), worker(3)]
    assert snapshots() == Snapshots([worker(2)], 0)
    assert snapshots("web1") == Snapshots([], 0)
    assert here() == Snapshots([], 0)
    assert [each["do"] for each in second_worker.requests] == ["snapshot"] * 3
    second_worker.answers.append(worker(4, machine="web2"))
    assert "web2" in run("--machine", "web2")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--watch", "0"], "--watch must be 0.2 seconds or more, not 0"),
        (["--watch", "nan"], "--watch must be"),
        (["--count", "2"], "--count must be a positive number, beside --watch"),
        (["--watch", "--count", "0"], "--count must be a positive number"),
    ],
)
def test_wrong_options(arguments, text):
    with pytest.raises(CommandError, match=text):
        run(*arguments)
