"""The sending side of the channel layer, on a real Redis: valid messages and names, and errors."""

import asyncio
import collections
import contextvars
import datetime
import decimal
import enum
import inspect
import itertools
import math
import threading
import types
import warnings

import gevent
import msgpack
import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from gevent.queue import Queue
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from tests.unit.peer import WAIT
from wsloop import exceptions, layers
from wsloop.backend import pool as redis_pool
from wsloop.backend import scripts
from wsloop.layers import MAX_SIZE, ChannelLayer, decode, encode, full_key, group_channel, worker_channel

NAME = "specific.0123456789abcdef!89abcdef1"


@pytest.fixture
def shell():
    """The layer of a process that has no consumers."""
    return ChannelLayer()


@pytest.fixture
def nowhere(use_redis, tmp_path):
    """There is no Redis."""
    use_redis(types.SimpleNamespace(socket_path=str(tmp_path / "nowhere")))


@pytest.fixture
def listen(shared_redis):
    """Listen to a channel of Redis; returns a function that waits for the next payload."""
    subscriptions = []

    def make(channel):
        client = shared_redis.client()
        client.connection_pool.connection_kwargs["decode_responses"] = False
        subscription = client.pubsub()
        subscriptions.append((client, subscription))
        subscription.subscribe(channel)
        assert subscription.get_message(timeout=WAIT)["type"] == "subscribe"
        return lambda: subscription.get_message(timeout=WAIT)["data"]

    yield make
    for client, subscription in subscriptions:
        subscription.close()
        client.close()


class Local:
    """The consumers of this process, as the layer sees them."""

    worker = "0123456789abcdef"

    def __init__(self, *names, room=True):
        self.names, self.room, self.asked = names, room, []

    def check_thread(self):
        pass

    def has(self, channel):
        return channel in self.names

    def put(self, channel, payload):
        self.asked.append(("put", channel, decode(payload)))
        return self.room

    def add(self, group, channel, alias):
        self.asked.append(("add", group, channel, alias))

    def discard(self, group, channel, alias):
        self.asked.append(("discard", group, channel, alias))

    def deliver(self, channel, payload):
        self.asked.append(("deliver", channel, decode(payload)))


# What may be sent.


def message(**content):
    return {"type": "chat.message", **content}


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            True,
            False,
            0,
            -1,
            2**63 - 1,
            2**64 - 1,
            -(2**63),
            1.5,
            -0.0,
            math.inf,
            "",
            "grün 😀",
            "\0",
            b"",
            b"\xff",
        ),
        *([], [[], {}, None], {}, {"a": {"b": [1]}}, {1: "one", None: 2, b"x": 3, 1.5: 5}),
    ],
)
def test_what_messagepack_can_carry_arrives_as_it_was(value):
    again = decode(encode(message(value=value)))["value"]
    assert again == value
    assert type(again) is type(value)


def test_a_number_that_is_none_arrives_as_such():
    assert math.isnan(decode(encode(message(value=math.nan)))["value"])


def test_tuples_arrive_as_lists():
    assert decode(encode(message(value=(1, (2, ())))))["value"] == [1, [2, []]]


class Color(enum.IntEnum):
    RED = 1


def test_kinds_of_these_types_arrive_as_the_types():
    value = [Color.RED, collections.OrderedDict(a=1), bytearray(b"x"), memoryview(b"y")]
    assert decode(encode(message(value=value)))["value"] == [1, {"a": 1}, b"x", b"y"]


@pytest.mark.parametrize(
    "value",
    [
        *(object(), {1, 2}, decimal.Decimal(1), datetime.date(2026, 1, 1), 1j, Ellipsis, len, iter(())),
        *(2**64, -(2**63) - 1, "\ud800", {"\ud800": 1}),
    ],
)
def test_what_it_cannot_carry_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        encode(message(value=value))


@pytest.mark.parametrize("key", [(1, 2), (), frozenset({1})])
def test_keys_that_could_not_be_read_again_are_refused(key):
    with pytest.raises(TypeError):
        encode({"type": "x", key: 1})
    with pytest.raises(TypeError):
        encode({"type": "x", "deep": [{key: 1}]})


def test_what_contains_itself_or_is_nested_too_deeply_is_refused():
    circle = []
    circle.append(circle)
    deep = []
    for _ in range(5000):
        deep = [deep]
    for value in (circle, deep):
        with pytest.raises((TypeError, ValueError)):
            encode(message(value=value))


@pytest.mark.parametrize("depth", [100, 500, 505, 509, 510, 511, 512, 600, 1023, 1025])
def test_whatever_can_be_sent_can_be_read(depth):
    value = []
    for _ in range(depth):
        value = [value]
    try:
        payload = encode(message(value=value))
    except (TypeError, ValueError):
        assert depth > 500
    else:
        assert decode(payload) == message(value=value)


@pytest.mark.parametrize("wrong", [None, "text", b"bytes", 5, [], [("type", "x")], ()])
def test_a_message_is_a_dictionary(wrong):
    with pytest.raises(TypeError, match="must be a dictionary, not"):
        encode(wrong)


@pytest.mark.parametrize("event", [{}, {"type": ""}, {"type": None}, {"type": 5}, {"type": b"x"}])
def test_it_has_a_type(event):
    with pytest.raises(ValueError):
        encode(event)


@pytest.mark.parametrize(
    "kind",
    [
        "chat.message",
        "presence.changed",
        "channel_layer.resumed",
        "websocket.receive",
        "send.json",
        "send_json",
        "scope",
        "_x",
        ".x",
        "websocket.disconnect",
        "dispatch",
    ],
)
def test_any_other_type_is_carried(kind):
    assert decode(encode({"type": kind})) == {"type": kind}


def test_it_may_have_a_mebibyte():
    room = MAX_SIZE - len(encode(message(value=b"x" * 70_000))) + 70_000
    assert MAX_SIZE == 1024 * 1024
    assert len(encode(message(value=bytes(room)))) == MAX_SIZE
    with pytest.raises(exceptions.MessageTooLarge, match="may have 1048576 bytes, this one has 1048577"):
        encode(message(value=bytes(room + 1)))
    for large in ("x" * MAX_SIZE, ["x" * 1000] * 2000, {str(number): 0 for number in range(200_000)}):
        with pytest.raises(exceptions.MessageTooLarge):
            encode(message(value=large))


# Names.


@pytest.mark.parametrize("group", ["a", "x" * 100, "chat_lobby", "ä b:c/{d}\n\0", "😀" * 100])
def test_names_of_groups(group):
    assert group_channel(group) == f"unit:wsloop:group:{group}".encode()


@pytest.mark.parametrize("group", ["", "x" * 101, None, 5, b"bytes", ["a"], "\ud800"])
def test_what_is_no_name_of_a_group(shell, group):
    for call in (
        lambda: group_channel(group),
        lambda: shell.group_send(group, message()),
        lambda: shell.group_add(group, NAME),
        lambda: shell.group_discard(group, NAME),
    ):
        with pytest.raises(TypeError, match="the name of a group must be text"):
            call()


@pytest.mark.parametrize(
    "channel",
    [
        "",
        "specific.",
        "lobby",
        "specific.0123",
        f"x{NAME}",
        f"{NAME} ",
        f"{NAME}\n",
        NAME.upper(),
        None,
        5,
        b"x",
        ["a"],
    ],
)
def test_what_is_no_channel(shell, channel):
    for call in (
        lambda: shell.send(channel, message()),
        lambda: shell.group_add("group", channel),
        lambda: shell.group_discard("group", channel),
    ):
        with pytest.raises(TypeError, match="a channel must be the channel_name of a consumer"):
            call()


def test_no_two_names_share_a_channel_of_redis():
    names = [group_channel("a"), worker_channel("a"), full_key("a").encode()]
    assert len(set(names)) == 3
    assert not any(one.startswith(other) for one, other in itertools.permutations(names, 2))


# Sending.


def test_a_message_for_a_group_is_one_publish(shell, shared_redis, listen, facility, redis_client):
    heard = listen(group_channel(facility))
    before = redis_client.info("commandstats").get("cmdstat_publish", {"calls": 0})["calls"]
    shell.group_send(facility, message(text="hello"))
    assert decode(heard()) == message(text="hello")
    assert redis_client.info("commandstats")["cmdstat_publish"]["calls"] == before + 1


def test_a_group_without_members_is_no_error(shell, shared_redis, facility):
    shell.group_send(facility, message())


def test_a_message_for_a_consumer_of_another_process_goes_to_its_worker(shell, listen):
    heard = listen(worker_channel("0123456789abcdef"))
    shell.send(NAME, message(number=1))
    verb, channel, payload = msgpack.unpackb(heard())
    assert (verb, channel, decode(payload)) == ("send", NAME, message(number=1))


def test_one_of_a_worker_that_has_ended_is_no_error(shell, shared_redis):
    shell.send(NAME, message())


def test_one_that_is_known_to_be_full_is_told_and_nothing_is_published(shell, listen, redis_client):
    heard = listen(worker_channel("0123456789abcdef"))
    redis_client.set(full_key(NAME), 1)
    try:
        with pytest.raises(exceptions.ChannelFull, match=f"the consumer {NAME} has 1000 events waiting"):
            shell.send(NAME, message(number=1))
    finally:
        redis_client.delete(full_key(NAME))
    shell.send(NAME, message(number=2))
    assert decode(msgpack.unpackb(heard())[2]) == message(number=2), "the first one that was published"


def test_the_script_says_how_many_got_it(listen, redis_client):
    def call():
        keys, arguments = [full_key(NAME)], [worker_channel("0123456789abcdef"), b"payload"]
        return scripts.call(redis_pool.client(), [("channel_send", keys, arguments)], transaction=False)

    assert call() == [0]
    heard = listen(worker_channel("0123456789abcdef"))
    assert call() == [1]
    assert heard() == b"payload"
    redis_client.set(full_key(NAME), 1)
    try:
        assert call() == [-1]
    finally:
        redis_client.delete(full_key(NAME))


def test_consumers_of_this_process_are_reached_without_redis(shell, nowhere):
    local = shell.local = Local(NAME)
    shell.send(NAME, message(number=1))
    shell.group_add("group", NAME)
    shell.group_discard("group", NAME)
    changes = [("add", "group", NAME, "default"), ("discard", "group", NAME, "default")]
    assert local.asked == [("put", NAME, message(number=1)), *changes]


def test_and_one_of_them_that_has_no_room_is_told(shell, nowhere):
    shell.local = Local(NAME, room=False)
    with pytest.raises(exceptions.ChannelFull):
        shell.send(NAME, message())
    with pytest.raises(shell.ChannelFull):  # as code for Channels has it
        shell.send(NAME, message())


def test_what_is_wrong_is_refused_for_them_too(shell):
    local = shell.local = Local(NAME)
    for wrong in ({}, {"type": None}, [], message(value=object())):
        with pytest.raises((TypeError, ValueError)):
            shell.send(NAME, wrong)
    with pytest.raises(shell.MessageTooLarge):
        shell.send(NAME, message(value=bytes(MAX_SIZE)))
    assert local.asked == []


def test_one_of_this_process_that_has_ended_is_a_member_of_nothing(shell, nowhere):
    """Redis is not needed for it."""
    shell.local = Local()
    shell.group_add("group", NAME)
    shell.group_discard("group", NAME)


def test_without_redis_it_is_an_error_of_redis(shell, nowhere):
    for call in (
        lambda: shell.group_send("group", message()),
        lambda: shell.send(NAME, message()),
        lambda: shell.group_add("group", NAME),
        lambda: shell.group_discard("group", NAME),
    ):
        with pytest.raises(RedisError):
            call()


# Asking another worker.


class Worker:
    """A worker that replies to requests, or does not."""

    def __init__(self, heard):
        self.heard, self.requests = heard, Queue()

    def answer(self):
        request = msgpack.unpackb(self.heard())
        layers.acknowledge(request[-1])
        self.requests.put(request)


def test_who_asks_waits_for_the_answer(shell, listen, redis_client):
    worker = Worker(listen(worker_channel("0123456789abcdef")))
    asking = gevent.spawn(shell.group_add, "group", NAME)
    gevent.spawn(worker.answer).get(timeout=WAIT)
    asking.get(timeout=WAIT)
    verb, channel, group, alias, reply = worker.requests.get()
    assert (verb, channel, group, alias) == ("add", NAME, "group", "default")
    assert not redis_client.exists(reply), "nothing is left of it"


def test_an_answer_that_nobody_waits_for_expires(shared_redis, redis_client):
    layers.acknowledge("unit:wsloop:reply:test")
    assert 0 < redis_client.ttl("unit:wsloop:reply:test") <= layers.REPLY_TTL
    redis_client.delete("unit:wsloop:reply:test")


def test_a_worker_that_has_ended_need_not_answer(shell, shared_redis, with_settings):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 30})
    shell.group_add("group", NAME)
    shell.group_discard("group", NAME)


def test_a_worker_that_does_not_answer_in_time_is_an_error(shell, listen, with_settings):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 1})
    redis_pool.forget()
    listen(worker_channel("0123456789abcdef"))
    with pytest.raises(RedisTimeout, match="timed out waiting for the worker"):
        shell.group_add("group", NAME)


def test_many_may_wait_at_once_and_others_are_not_kept_from_redis(shell, listen, with_settings, facility):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 30})
    redis_pool.forget()
    heard = listen(worker_channel("0123456789abcdef"))
    asking = [gevent.spawn(shell.group_add, "group", NAME) for _ in range(10)]
    requests = [msgpack.unpackb(heard()) for _ in asking]
    gevent.spawn(shell.group_send, facility, message()).get(timeout=WAIT)
    for request in requests:
        layers.acknowledge(request[-1])
    gevent.joinall(asking, timeout=WAIT, raise_error=True)
    assert all(each.ready() for each in asking)


# Aliases.


def backends(**paths):
    return {"CHANNEL_LAYERS": {alias: {"BACKEND": f"wsloop.layers.{name}"} for alias, name in paths.items()}}


@pytest.fixture
def other(with_settings):
    with_settings(**backends(other="RedisChannelLayer"))
    return layers.get_channel_layer("other")


def test_a_process_has_one_layer_for_an_alias(other):
    assert layers.get_channel_layer() is layers.get_channel_layer("default") is layers.LAYER
    assert layers.get_channel_layer("other") is other is not layers.LAYER
    assert (other.alias, layers.LAYER.alias) == ("other", "default")
    assert layers.DEFAULT_CHANNEL_LAYER == "default"


@pytest.mark.parametrize("alias", ["other", "", "Default", None])
def test_an_alias_that_does_not_exist(alias):
    with pytest.raises(exceptions.InvalidChannelLayerError) as raised:
        layers.get_channel_layer(alias)
    assert str(raised.value) == f"CHANNEL_LAYERS has no channel layer with the alias {alias!r}"
    assert isinstance(raised.value, ValueError), "as in Channels"


@pytest.mark.parametrize(
    "name", ["channels_redis.core.RedisChannelLayer", "channels_redis.pubsub.RedisPubSubChannelLayer"]
)
def test_the_settings_of_a_project_that_moves_over_may_stay(with_settings, name):
    config = {"hosts": [("127.0.0.1", 6379)], "capacity": 5}
    with_settings(CHANNEL_LAYERS={each: {"BACKEND": name, "CONFIG": config} for each in ("default", "other")})
    assert layers.get_channel_layer() is layers.LAYER
    assert type(layers.get_channel_layer("other")) is layers.RedisChannelLayer


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            {"default": {"BACKEND": "channels_rabbitmq.core.Layer"}},
            "has the BACKEND 'channels_rabbitmq.core.Layer', but",
        ),
        ({"default": {"BACKEND": "wsloop.layers.Nothing"}}, "has the BACKEND 'wsloop.layers.Nothing', but"),
        ({"default": {}}, r"CHANNEL_LAYERS\['default'\]\['BACKEND'\] must be the dotted path of a class, not None"),
        ({"default": {"BACKEND": 5}}, "must be the dotted path of a class, not 5"),
        ({"default": "wsloop.layers.RedisChannelLayer"}, "must be a dictionary such as"),
        (["default"], "must be a dictionary such as"),
        ({"a:b": {"BACKEND": "wsloop.layers.RedisChannelLayer"}}, "an alias must be text of letters"),
        (
            {"default": {"BACKEND": "wsloop.layers.RedisChannelLayer", "CONFIG": {"hosts": ["x"]}}},
            r"must have no CONFIG: all layers use the Redis of WSLOOP\['REDIS'\], with WS4REDIS_PREFIX",
        ),
    ],
)
def test_settings_that_cannot_be_used(with_settings, setting, words):
    with_settings(CHANNEL_LAYERS=setting)
    with pytest.raises(exceptions.InvalidChannelLayerError, match=words):
        layers.get_channel_layer()


def test_groups_of_another_alias_are_other_groups(other, shared_redis, listen, facility):
    heard = listen(group_channel(facility, "other"))
    layers.LAYER.group_send(facility, message(number=1))
    other.group_send(facility, message(number=2))
    assert decode(heard()) == message(number=2)
    names = [
        group_channel("a"),
        group_channel("a", "b"),
        group_channel("b:a"),
        group_channel("/b:a"),
        group_channel("a", "c"),
    ]
    assert len(set(names)) == 5


def test_another_alias_shares_the_consumers_of_the_process(other, nowhere, shell):
    local = Local(NAME)
    layer = ChannelLayer("other", shell._process)
    shell.local = local
    layer.group_add("group", NAME)
    layer.send(NAME, message())
    assert local.asked == [("add", "group", NAME, "other"), ("put", NAME, message())]


@pytest.mark.parametrize("name", ["wsloop.layers.InMemoryChannelLayer", "channels.layers.InMemoryChannelLayer"])
def test_a_layer_in_memory_needs_no_redis_and_stays_in_the_process(with_settings, nowhere, name):
    with_settings(CHANNEL_LAYERS={"default": {"BACKEND": name}})
    layer = layers.get_channel_layer()
    layer.group_send("group", message())
    layer.send(NAME, message())
    layer.group_add("group", NAME)
    local = layer.local = Local()
    try:
        layer.group_send("group", message(number=1))
    finally:
        layer.local = None
    assert local.asked == [("deliver", group_channel("group"), message(number=1))]
    with_settings(CHANNEL_LAYERS={})
    assert layers.get_channel_layer() is layers.LAYER
    with pytest.raises(RedisError):
        layers.LAYER.group_send("group", message())


# From coroutines.


CALLS = [
    lambda layer: layer.send(NAME, message()),
    lambda layer: layer.group_send("group", message()),
    lambda layer: layer.group_add("group", NAME),
    lambda layer: layer.group_discard("group", NAME),
]


class Remote:
    """Records the threads in which it is used."""

    def __init__(self, blocks):
        self.blocks, self.threads = blocks, []

    def publish(self, channel, payload):
        self.threads.append((threading.current_thread(), VARIABLE.get()))
        return 0

    def send(self, worker, channel, payload):
        return bool(self.publish(channel, payload)) or True

    def ask(self, worker, request):
        self.publish(b"", b"")


VARIABLE = contextvars.ContextVar("VARIABLE", default=None)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("blocks", [True, False])
def test_where_a_loop_runs_the_methods_are_awaited_and_block_nobody(shell, call, blocks):
    shell.remote = remote = Remote(blocks)

    async def main():
        VARIABLE.set("mine")
        waiting = call(shell)
        assert remote.threads == [], "nothing happens before it is awaited, as in Channels"
        assert await waiting is None
        return threading.current_thread()

    here = asyncio.run(main())
    ((there, variable),) = remote.threads
    assert (there is not here) == blocks
    assert variable == "mine"


@pytest.mark.parametrize("call", CALLS)
def test_elsewhere_they_have_done_their_work_when_they_return(shell, call):
    shell.remote = remote = Remote(True)
    call(shell)
    assert len(remote.threads) == 1


@pytest.mark.parametrize("call", CALLS)
def test_async_to_sync_as_views_for_channels_have_it(shell, call):
    shell.remote = remote = Remote(True)
    wrapped = types.SimpleNamespace(
        **{name: async_to_sync(getattr(shell, name)) for name in ("send", "group_send", "group_add", "group_discard")}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(wrapped)
    assert len(remote.threads) == 1


def test_errors_reach_who_awaits(shell, nowhere):
    async def main():
        with pytest.raises(TypeError, match="the name of a group must be text"):
            await shell.group_send("", message())
        with pytest.raises(RedisError):
            await shell.group_send("group", message())

    asyncio.run(main())


def test_the_methods_keep_their_names_and_parameters(shell):
    assert list(inspect.signature(shell.group_send).parameters) == ["group", "message"]
    assert shell.group_add.__name__ == "group_add"
    for each in (shell.send, shell.group_send, shell.group_add, shell.group_discard):
        assert iscoroutinefunction(each)
