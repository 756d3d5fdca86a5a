"""The channel layer in memory keeps the rules of the one in Redis, and leaves nothing behind."""

import gc

import pytest
from redis.exceptions import RedisError

from wsloop import layers
from wsloop.exceptions import ChannelFull, MessageTooLarge
from wsloop.testing.memory import forget, own, use


class Consumer:
    """A consumer that has room for two events, and keeps them."""

    def __init__(self, memory):
        self.events = []
        self.channel_name = memory.enter(self)

    def put(self, payload):
        if len(self.events) == 2:
            return False
        self.events.append(layers.decode(payload))
        return True


@pytest.fixture
def layer(request):
    if "memory" in request.fixturenames:
        request.getfixturevalue("memory")
    else:
        forget()  # a test of another module may have left consumers behind
    return layers.get_channel_layer()


@pytest.fixture
def memory():
    forget()  # a test of another module may have left consumers behind
    with own() as memory:
        yield memory


def test_groups(memory, layer):
    first, second = Consumer(memory), Consumer(memory)
    for member in (first, second, first):
        layer.group_add("lobby", member.channel_name)
    layer.group_send("lobby", {"type": "said", "text": ("a", b"b", 1)})
    assert first.events == second.events == [{"type": "said", "text": ["a", b"b", 1]}]
    layer.group_discard("lobby", first.channel_name)
    layer.group_discard("lobby", first.channel_name)
    layer.group_send("lobby", {"type": "said"})
    layer.group_send("elsewhere", {"type": "said"})
    assert (len(first.events), len(second.events)) == (1, 2)


def test_one_consumer(memory, layer):
    member, other = Consumer(memory), Consumer(memory)
    layer.send(member.channel_name, {"type": "a"})
    layer.send(member.channel_name, {"type": "b"})
    with pytest.raises(ChannelFull):
        layer.send(member.channel_name, {"type": "c"})
    assert (member.events, other.events) == ([{"type": "a"}, {"type": "b"}], [])


def test_a_group_does_not_mind_who_has_no_room(memory, layer):
    full, member = Consumer(memory), Consumer(memory)
    for each in (full, member):
        layer.group_add("lobby", each.channel_name)
    full.events = [None, None]
    layer.group_send("lobby", {"type": "said"})
    assert member.events == [{"type": "said"}]


def test_who_has_left_is_in_nothing(memory, layer):
    member = Consumer(memory)
    layer.group_add("lobby", member.channel_name)
    memory.leave(member.channel_name)
    layer.group_send("lobby", {"type": "said"})
    layer.send(member.channel_name, {"type": "said"})
    layer.group_add("lobby", member.channel_name)
    layer.group_discard("lobby", member.channel_name)
    layer.send("specific.0123!4567", {"type": "said"})  # of another worker: there is none
    layer.group_add("lobby", "specific.0123!4567")
    assert member.events == []


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda layer, channel: layer.group_send("", {"type": "a"}), TypeError),
        (lambda layer, channel: layer.group_send("x" * 101, {"type": "a"}), TypeError),
        (lambda layer, channel: layer.group_send("lobby", "text"), TypeError),
        (lambda layer, channel: layer.group_send("lobby", {"type": "a", "b": object()}), TypeError),
        (lambda layer, channel: layer.group_send("lobby", {"b": 1}), ValueError),
        (lambda layer, channel: layer.group_send("lobby", {"type": "a", "b": "x" * 1024 * 1024}), MessageTooLarge),
        (lambda layer, channel: layer.send("john", {"type": "a"}), TypeError),
        (lambda layer, channel: layer.send(channel, {"type": ""}), ValueError),
        (lambda layer, channel: layer.group_add(None, channel), TypeError),
        (lambda layer, channel: layer.group_add("lobby", "john"), TypeError),
    ],
)
def test_the_same_is_refused(memory, layer, call, error):
    with pytest.raises(error):
        call(layer, Consumer(memory).channel_name)


def test_whoever_uses_it_shares_it(layer):
    before = layer.remote
    with use() as first, use() as second:
        assert first is second is layer.remote is layer.local
    assert (layer.remote, layer.local) == (before, None)


def test_a_test_s_own_ends_with_it(layer):
    before = layer.remote
    with use() as outer:
        with own() as memory:
            assert layer.remote is memory is not outer
            left = use()
            assert left.__enter__() is memory
        assert layer.remote is outer
        left.__exit__(None, None, None)
        assert layer.remote is outer
    assert layer.remote is before


def test_forgetting_what_was_left(layer):
    before = layer.remote
    left = [use(), own()]
    for each in left:
        each.__enter__()
    forget()
    assert (layer.remote, layer.local) == (before, None)
    forget()
    del left, each
    gc.collect()  # the blocks end now
    assert (layer.remote, layer.local) == (before, None)


def test_redis_is_there_again_afterwards(private_redis, use_redis, layer):
    use_redis(private_redis)
    with use():
        layer.group_send("lobby", {"type": "said"})
    layer.group_send("lobby", {"type": "said"})
    private_redis.kill()
    with pytest.raises(RedisError):
        layer.group_send("lobby", {"type": "said"})
    with use():
        layer.group_send("lobby", {"type": "said"})
