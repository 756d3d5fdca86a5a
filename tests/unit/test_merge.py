"""What several channels have kept, in the order of time: on a real Redis, but for the times."""

import random

import pytest

from wsloop import conf
from wsloop.backend import history, pool, publishing
from wsloop.backend.publishing import OutgoingMessage
from wsloop.delivery.merge import HistoryMerge
from wsloop.protocol.messages import Message, Position

OPTIONS = conf.Facility(size=5000, ttl=60)
CHANNELS = [b"unit:merge:%d" % number for number in range(6)]
START = Position(0, "-")


@pytest.fixture
def redis(own_redis):
    with own_redis.client() as client:
        yield client


def publish(text, *channels, options=OPTIONS):
    publishing.publish(pool.client(), [OutgoingMessage(channels, text.encode(), 0, options)])


def everything(merge, most=1000, rounds=10_000):
    """Texts with their channels, in the order in which they are handed out."""
    found = []
    for _ in range(rounds):
        if merge.complete:
            return found
        merge.read()
        found += [(channel, message.payload.decode()) for channel, message in merge.take(most)]
    raise AssertionError(f"not complete after {rounds} rounds")


def test_messages_of_many_channels_come_once_in_the_order_of_time(redis, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 7)
    rng = random.Random(4)
    published = []
    for number in range(300):
        chosen = rng.sample(CHANNELS, rng.choice([1, 1, 1, 2, 3]))
        publish(str(number), *chosen)
        published += [(channel, str(number)) for channel in chosen]
    found = everything(HistoryMerge(pool.client(), dict.fromkeys(CHANNELS, START)), most=20)
    assert sorted(found) == sorted(published)
    numbers = [int(text) for _, text in found]
    assert numbers == sorted(numbers), "copies of one message come one right after the other"


def test_nothing_is_read_twice_however_uneven_the_channels(redis, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 10)
    for number in range(200):
        publish(str(number), CHANNELS[0])
    for channel in CHANNELS[1:]:
        publish("one", channel)
    read = []
    original = history.read
    monkeypatch.setattr(
        history, "read", lambda client, questions: read.extend(questions) or original(client, questions)
    )
    assert len(everything(HistoryMerge(pool.client(), dict.fromkeys(CHANNELS, START)))) == 205
    assert len(read) <= 205 / 10 + len(CHANNELS) + 1


def test_what_is_missing_is_told_and_the_others_go_on(redis):
    publish("1", CHANNELS[0], options=OPTIONS._replace(size=1))
    publish("2", CHANNELS[0], options=OPTIONS._replace(size=1))
    publish("other", CHANNELS[1])
    merge = HistoryMerge(pool.client(), {CHANNELS[0]: START, CHANNELS[1]: START})
    assert everything(merge) == [(CHANNELS[1], "other")]
    assert merge.lost == {CHANNELS[0]: merge.tops[CHANNELS[0]]}
    assert merge.since[CHANNELS[0]].offset == 2


def test_it_may_go_on_after_the_top(redis):
    publish("1", CHANNELS[0])
    merge = HistoryMerge(pool.client(), {CHANNELS[0]: START, CHANNELS[1]: START})
    assert everything(merge) == [(CHANNELS[0], "1")]
    publish("2", *CHANNELS[:2])
    assert merge.complete
    merge.read(merge.since)
    assert not merge.complete
    assert everything(merge) == [(CHANNELS[0], "2"), (CHANNELS[1], "2")]


def test_a_page_that_was_trimmed_meanwhile_is_told(redis, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 2)
    for number in range(6):
        publish(str(number), CHANNELS[0])
    merge = HistoryMerge(pool.client(), {CHANNELS[0]: START})
    merge.read()
    assert [message.payload for _, message in merge.take(1000)] == [b"0", b"1", b"2"]
    publish("6", CHANNELS[0], options=OPTIONS._replace(size=1))
    merge.read()
    assert merge.lost == {CHANNELS[0]: merge.tops[CHANNELS[0]]}
    assert merge.complete


def test_a_clock_that_was_set_back_does_not_change_the_order_of_a_channel(monkeypatch):
    times = {b"a": [100, 50, 60], b"b": [70, 110]}

    def read(client, questions):
        pages = []
        for channel, since in questions:
            entries = [
                history.Entry(Message(b"", str(number), number), time)
                for number, time in enumerate(times[channel], 1)
                if number > since.offset
            ]
            pages.append(history.Page(entries, Position(len(times[channel]), "top"), True, 1000))
        return pages

    monkeypatch.setattr(history, "read", read)
    merge = HistoryMerge(None, {b"a": START, b"b": START})
    merge.read()
    found = [(channel, message.offset) for channel, message in merge.take(1000) + merge.take(1000)]
    # of none bytes each: as many as there are
    assert found == [(b"b", 1), (b"a", 1), (b"a", 2), (b"a", 3), (b"b", 2)]
