"""Pages of the past, over several channels; on a real Redis."""

import itertools

import pytest

from wsloop import conf
from wsloop.backend import history, pool, publishing
from wsloop.backend.publishing import OutgoingMessage
from wsloop.facilities.past import page

OPTIONS = conf.Facility(size=1000, ttl=60)


@pytest.fixture
def channels(own_redis, facility):
    return [f"unit:{audience}:{facility}".encode() for audience in ("broadcast", "user:john", "group:a")]


def publish(channels, *texts):
    for text in texts:
        publishing.publish(pool.client(), [OutgoingMessage(channels, text.encode(), 0, OPTIONS)])


def whole(channels, limit, between=lambda: None):
    """All pages, the last one first: pairs of the texts of a page, and how many pages there were."""
    pages, before = [], None
    while not pages or before is not None:
        messages, before = page(channels, before, limit)
        assert len(messages) <= limit
        pages.append([message.payload.decode() for _, message in messages])
        between()
    return list(itertools.chain.from_iterable(reversed(pages))), len(pages)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 200])
def test_the_pages_together_are_the_whole_past_in_the_order_of_time(channels, limit):
    texts = [f"{number}" for number in range(40)]
    for number, text in enumerate(texts):
        publish([channels[(number * number) % 3]], text)
    assert whole(channels, limit)[0] == texts


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_a_message_to_several_audiences_comes_once(channels, limit):
    texts = [f"{number}" for number in range(12)]
    for number, text in enumerate(texts):
        publish(channels[: 1 + number % 3], text)
    assert whole(channels, limit)[0] == texts


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_what_is_published_meanwhile_is_not_of_the_past(channels, limit):
    texts = [f"{number}" for number in range(10)]
    publish(channels[:1], *texts[:5])
    publish(channels[1:2], *texts[5:])
    assert whole(channels, limit, lambda: publish(channels, "new"))[0] == texts


@pytest.mark.parametrize("bytes_of_page", [1, 100, 1000])
def test_large_messages_make_small_pages(channels, bytes_of_page, monkeypatch):
    monkeypatch.setattr(history, "PAGE_BYTES", bytes_of_page)
    texts = [f"{number}".ljust(90) for number in range(10)]
    for number, text in enumerate(texts):
        publish([channels[number % 2]], text)
    found, pages = whole(channels, 100)
    assert found == texts
    assert pages >= 10 * 90 / (2 * max(bytes_of_page, 90)) / 2


def test_where_nothing_was_published_there_is_no_past(channels):
    assert page(channels, None, 10) == ([], None)
    assert page([], None, 10) == ([], None)


def test_a_channel_that_has_begun_a_new_history_has_no_past_before_an_old_page(channels):
    publish(channels[:1], "a", "b", "c")
    _, before = page(channels[:1], None, 2)
    pool.client().flushall()
    publish(channels[:1], "d", "e", "f")
    assert page(channels[:1], before, 2) == ([], None)


def test_a_page_of_other_channels_says_nothing_about_these(channels):
    publish(channels[:1], "a", "b", "c")
    publish(channels[1:2], "secret", "of john", "only")
    _, before = page(channels[1:2], None, 2)
    assert page(channels[:1], before, 2) == ([], None)


@pytest.mark.parametrize("before", ["", "x", "a.b.c", "aaaaaaaa.1.x~", "aaaaaaaa.1.x++", "\ud800"])
def test_what_names_no_page(channels, before):
    with pytest.raises(ValueError, match="position"):
        page(channels, before, 10)
