"""What Redis keeps of a channel, read in pages, and whether anything is missing; on a real Redis."""

import time

import gevent
import pytest
import redis.exceptions as redis_exceptions

from tests.unit.peer import WAIT
from wsloop import conf
from wsloop.backend import history as module
from wsloop.backend import keys, pool, publishing
from wsloop.backend.publishing import OutgoingMessage
from wsloop.protocol.messages import Position, unwrap

OPTIONS = conf.Facility(size=1000, ttl=60)


@pytest.fixture
def redis(own_redis):
    with own_redis.client() as client:
        yield client


@pytest.fixture
def channel(redis, facility):
    return f"unit:broadcast:{facility}".encode()


def publish(channel, *texts, options=OPTIONS):
    publishing.publish(pool.client(), [OutgoingMessage([channel], text.encode(), 0, options) for text in texts])


def read(channel, since):
    (page,) = module.read(pool.client(), [(channel, since)])
    return page


def texts(page):
    return [entry.message.payload.decode() for entry in page.entries]


def top(channel):
    (found,) = module.tops(pool.client(), [channel])
    return found


# Pages.


def test_what_came_behind_a_position(channel):
    publish(channel, "1", "2")
    since = top(channel)
    publish(channel, "3", "4", "5")
    page = read(channel, since)
    assert texts(page) == ["3", "4", "5"]
    assert page.continuous
    assert page.complete
    assert page.top == page.entries[-1].message.position == top(channel)
    assert [entry.message.offset for entry in page.entries] == [3, 4, 5]
    assert page.entries[0].message.follows(since)
    assert page.entries[1].message.follows(page.entries[0].message.position)


def test_nothing_new(channel):
    publish(channel, "1", "2")
    since = top(channel)
    assert read(channel, since)[:3] == ([], since, True)
    assert read(channel, since).complete


def test_messages_are_what_arrives_live(channel):
    with pool.client().pubsub() as listener:
        listener.subscribe(channel)
        listener.get_message(timeout=WAIT)
        since = top(channel)
        message = OutgoingMessage([channel, channel + b"2"], b"\xff\x00\r\n", 0, OPTIONS)
        publishing.publish(pool.client(), [message, OutgoingMessage([channel], b"", 0, OPTIONS)])
        live = [unwrap(listener.get_message(timeout=WAIT)["data"]) for _ in range(2)]
    assert [entry.message for entry in read(channel, since).entries] == [message._replace(time=0) for message in live]
    assert [message.multi_audience for message in live] == [True, False]


def test_the_tops_of_many_histories_take_one_script(channel, gate):
    channels = [channel, *(b"unit:%d" % number for number in range(30))]
    publish(channel, "1", "2")
    gate.hold("EVALSHA")
    reading = gevent.spawn(module.tops, pool.client(), channels)
    gate.wait_for(1)
    gate.hold()
    gate.let_through(1)
    first, *empty = reading.get(timeout=WAIT)
    assert first == read(channel, first).top
    assert first.offset == 2
    assert {each.offset for each in empty} == {0}
    assert len({each.id for each in empty}) == 30, "each has an id of its own"
    assert module.tops(pool.client(), channels) == [first, *empty]


@pytest.mark.real_clock("Redis says when, by its own clock")
def test_entries_know_when_they_were_published(channel):
    since = top(channel)
    before = time.time()
    publish(channel, "1", "2")
    first, second = read(channel, since).entries
    assert before - 1 < first.time / 1e6 <= second.time / 1e6 < time.time() + 1


@pytest.mark.parametrize("count", [9, 10, 11, 12, 25, 33])
def test_pages_put_together_are_the_whole(channel, count, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 10)
    since = top(channel)
    publish(channel, *[str(number) for number in range(count)])
    found, pages = [], 0
    while True:
        page = read(channel, since)
        pages += 1
        assert page.continuous
        assert page.top.offset == count
        assert 0 < len(page.entries) <= 11
        found += texts(page)
        since = page.entries[-1].message.position
        if page.complete:
            break
    assert found == [str(number) for number in range(count)]
    assert pages <= 1 + count // 10


def test_a_page_holds_so_many_bytes_but_one_message_at_least(channel, monkeypatch):
    monkeypatch.setattr(module, "PAGE_BYTES", 1000)
    monkeypatch.setattr(module, "LEAST_BYTES", 1)
    publish(channel, "first")
    since = top(channel)
    publish(channel, *["x" * 300] * 7, "y" * 5000, "z" * 5000, "end")
    sizes = []
    while True:
        page = read(channel, since)
        assert page.continuous
        sizes.append([len(text) for text in texts(page)])
        since = page.entries[-1].message.position
        if page.complete:
            break
    assert [size for each in sizes for size in each] == [300] * 7 + [5000, 5000, 3]
    assert all(len(each) == 1 or sum(each) <= 1000 for each in sizes), sizes
    assert len(sizes) <= 7


def test_several_channels_in_one_round_trip(gate):
    channels = [b"unit:%d" % number for number in range(20)]
    for number, channel in enumerate(channels):
        publish(channel, *[str(each) for each in range(number)])
    gate.hold("EVALSHA")
    start = Position(0, "-")
    reading = gevent.spawn(module.read, pool.client(), [(channel, start) for channel in channels])
    gate.wait_for(20)
    gate.hold()
    gate.let_through(20)
    pages = reading.get(timeout=WAIT)
    assert [page.top.offset for page in pages] == list(range(20))


# Whether anything is missing.


def test_a_channel_without_messages_has_a_position_that_later_ones_follow(channel, redis):
    genesis = top(channel)
    assert genesis.offset == 0
    assert top(channel) == genesis, "it stays"
    meta, _ = keys.history_keys(channel)
    assert module.EMPTY_META - 10 < redis.ttl(meta) <= module.EMPTY_META
    assert read(channel, genesis)[:3] == ([], genesis, True)
    publish(channel, "1", "2")
    page = read(channel, genesis)
    assert texts(page) == ["1", "2"]
    assert page.continuous


def test_as_long_as_somebody_asks_the_position_of_an_empty_channel_stays(channel, redis):
    meta, _ = keys.history_keys(channel)
    top(channel)
    redis.expire(meta, 10)
    top(channel)
    assert redis.ttl(meta) > module.EMPTY_META - 10
    publish(channel, "1")
    top(channel)
    assert redis.ttl(meta) > publishing.META_TTL - 10, "it is never shortened"


def test_a_history_trimmed_behind_the_position_is_a_gap(channel):
    small = OPTIONS._replace(size=3)
    publish(channel, "1", options=small)
    first = top(channel)
    publish(channel, "2", "3", "4", options=small)
    assert texts(read(channel, first)) == ["2", "3", "4"], "the first is gone, but none behind it"
    publish(channel, "5", options=small)
    assert read(channel, first)[:3] == ([], top(channel), False)


def test_an_expired_history_is_a_gap_for_those_who_have_missed_something_alone(channel, redis):
    publish(channel, "1")
    first = top(channel)
    publish(channel, "2")
    second = top(channel)
    redis.delete(keys.history_keys(channel)[1])  # as it expires
    assert read(channel, first)[:3] == ([], second, False)
    assert read(channel, second)[:3] == ([], second, True)
    publish(channel, "3")
    assert texts(read(channel, second)) == ["3"]
    assert not read(channel, first).continuous


def test_where_the_top_is_lost_all_is(channel, redis):
    publish(channel, "1", "2")
    since = top(channel)
    meta, stream = keys.history_keys(channel)
    redis.delete(meta)
    page = read(channel, since)
    assert page[:3] == ([], page.top, False)
    assert page.top.offset == 0
    assert page.top.id != since.id
    assert not redis.exists(stream)
    publish(channel, "new")
    assert texts(read(channel, page.top)) == ["new"]


def test_a_redis_that_has_lost_its_data(channel, redis):
    publish(channel, "1", "2")
    first = Position(1, module.latest(pool.client(), channel, 2)[0].message.id)
    second = top(channel)
    redis.flushall()
    for since in (first, second):
        assert not read(channel, since).continuous
    publish(channel, "other 1")
    for since in (first, second):
        assert not read(channel, since).continuous, "the same numbers, but other ids"
    publish(channel, "other 2", "other 3")
    for since in (first, second):
        assert read(channel, since)[:3] == ([], top(channel), False)


def test_a_genesis_before_the_data_was_lost_is_none_after(channel, redis):
    genesis = top(channel)
    redis.flushall()
    assert not read(channel, genesis).continuous
    redis.flushall()
    publish(channel, "1")
    assert not read(channel, genesis).continuous, "the message names no other before it"


def test_positions_that_never_were(channel):
    publish(channel, "1", "2")
    real = top(channel)
    for since in (
        Position(2, "made-up"),
        Position(1, real.id),
        Position(3, real.id),
        Position(0, real.id),
        Position(10**15, real.id),
        Position(0, ""),
    ):
        assert read(channel, since)[:3] == ([], real, False), since


def test_where_nothing_can_be_written_the_first_message_follows_all_the_same(channel, redis):
    redis.config_set("maxmemory", 1)
    before = top(channel)
    redis.config_set("maxmemory", 0)
    assert before == (0, "-")
    assert not redis.exists(keys.history_keys(channel)[0])
    publish(channel, "1", "2")
    assert texts(read(channel, before)) == ["1", "2"]


@pytest.mark.parametrize(
    "name",
    ["unit:user:{john}:news", "unit:group:team:a:rooms/1", "unit:user:a}b:n", "unit:user:{}:n", "unit:user:grün:n"],
)
def test_names_with_braces_and_colons(redis, name):
    channel = name.encode()
    since = top(channel)
    publish(channel, "1", "2")
    assert texts(read(channel, since)) == ["1", "2"]
    assert [entry.message.payload for entry in module.latest(pool.client(), name, 10)] == [b"1", b"2"]


# The newest messages.


def test_the_latest_messages_the_oldest_first(channel):
    assert module.latest(pool.client(), channel, 3) == []
    publish(channel, "1", "2", "3", "4", "5")
    found = module.latest(pool.client(), channel, 3)
    assert [entry.message.payload for entry in found] == [b"3", b"4", b"5"]
    _, second, *others = module.latest(pool.client(), channel.decode(), 10)
    assert others == found == read(channel, second.message.position).entries


def test_an_error_of_redis_is_raised(own_redis):
    own_redis.kill()
    with pytest.raises(redis_exceptions.ConnectionError):
        read(b"unit:news", Position(0, "-"))
    with pytest.raises(redis_exceptions.ConnectionError):
        module.tops(pool.client(), [b"unit:news"])
    with pytest.raises(redis_exceptions.ConnectionError):
        module.latest(pool.client(), b"unit:news", 1)


# Several channels.


def test_the_bytes_of_a_page_are_shared_among_the_channels(redis, monkeypatch):
    monkeypatch.setattr(module, "PAGE_BYTES", 40_000)
    monkeypatch.setattr(module, "LEAST_BYTES", 1)
    channels = [b"unit:shared:%d" % number for number in range(8)]
    for channel in channels:
        publish(channel, *["x" * 1000] * 50)
    questions = [(channel, Position(0, "-")) for channel in channels]
    sizes = [len(page.entries) for page in module.read(pool.client(), questions)]
    assert all(3 <= size <= 6 for size in sizes), sizes
    (page,) = module.read(pool.client(), questions[:1])
    assert 38 <= len(page.entries) <= 40
    monkeypatch.setattr(module, "LEAST_BYTES", 10_000)
    assert all(9 <= len(page.entries) <= 10 for page in module.read(pool.client(), questions))
