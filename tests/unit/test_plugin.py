"""The fixtures for pytest, as a site's tests use them."""

import pytest

from wsloop.consumers import WebsocketConsumer
from wsloop.layers import RedisDelivery, get_channel_layer
from wsloop.publisher import RedisPublisher
from wsloop.testing import WebsocketCommunicator
from wsloop.testing.memory import Memory
from wsloop.testing.plugin import (  # noqa: F401
    _wsloop_clean,
    _wsloop_recorder,
    assertNotified,
    assertNotNotified,
    notifications,
)


def publish(message, **options):
    RedisPublisher(facility="orders", **options).publish_message(message)


def test_all_fixtures_see_the_same(notifications, assertNotified, assertNotNotified):  # noqa: F811
    assertNotNotified()
    publish("paid", users="john")
    assertNotified(user="john", facility="orders", message="paid", count=1)
    assert [each.message for each in notifications] == ["paid"]
    with pytest.raises(AssertionError, match="1 message was published to user john"):
        assertNotNotified(user="john")
    get_channel_layer().group_send("lobby", {"type": "said"})


def test_each_test_begins_with_nothing(notifications):  # noqa: F811
    assert notifications == []


class Listening(WebsocketConsumer):
    groups = ["lobby"]


def test_a_consumer_is_left_behind():
    WebsocketCommunicator(Listening, "/").connect()
    assert isinstance(get_channel_layer().remote, Memory)


def test_the_next_test_does_not_know_it():
    assert isinstance(get_channel_layer().remote, RedisDelivery)
