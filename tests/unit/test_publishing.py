"""Names of channels, what a message may be, and how it is published."""

import datetime
import decimal
import itertools
import time
import types
import uuid

import gevent
import pytest
import redis.exceptions as redis_exceptions
from django.contrib.auth.models import AnonymousUser, Group, User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy
from redis.crc import key_slot
from ws4redis.redis_store import RedisStore

from tests.unit.peer import WAIT
from wsloop import conf
from wsloop.backend import keys, pool, publishing, scripts
from wsloop.backend.publishing import OutgoingMessage
from wsloop.protocol.messages import HEAD, unwrap
from wsloop.store import SELF, RedisMessage, Store


def session(key="visitors-key", **content):
    """A visitor's session; its key is only a name here."""
    made = SessionStore()
    made._session_key = key
    made.update(content)
    return made


def request(user=None, session=None):
    return types.SimpleNamespace(user=user, session=session)


JOHN = User(username="john")
SIGNED_IN = request(JOHN, session("johns-key", **{"ws4redis:memberof": ["chatters", "team:a"]}))


def channels(**audience):
    return Store(None)._get_message_channels(facility="news", **audience)


# What a message may be.


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        ("grün", "grün".encode()),
        ("", b""),
        (b"\xff\x00", b"\xff\x00"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (RedisMessage("grün"), "grün".encode()),
        (gettext_lazy("Yes"), b"Yes"),
        ({"name": "grün", "n": 1}, '{"name": "grün", "n": 1}'.encode()),
        ([1, None, True], b"[1, null, true]"),
        (None, b"null"),
        (7, b"7"),
        (1.5, b"1.5"),
        ({"at": datetime.date(2026, 1, 2)}, b'{"at": "2026-01-02"}'),
        ({"price": decimal.Decimal("1.10")}, b'{"price": "1.10"}'),
        ({"id": uuid.UUID(int=1)}, b'{"id": "00000000-0000-0000-0000-000000000001"}'),
        ({"label": gettext_lazy("Yes")}, b'{"label": "Yes"}'),
    ],
)
def test_payloads(message, payload):
    assert publishing.encode(message) == payload
    assert type(publishing.encode(message)) is bytes


@pytest.mark.parametrize("message", [{"x": float("nan")}, [float("-inf")], "\ud800", {"text": "\ud800"}])
def test_what_no_browser_could_read_is_refused(message):
    with pytest.raises(ValueError, match=r"JSON|UTF-8"):
        publishing.encode(message)


@pytest.mark.parametrize("message", [object(), {1, 2}, {"user": object()}])
def test_what_cannot_be_written_as_json_is_refused(message):
    with pytest.raises(TypeError, match="not JSON serializable"):
        publishing.encode(message)


# Names of channels.


@pytest.mark.parametrize(
    ("audience", "names"),
    [
        ({}, []),
        ({"broadcast": True}, ["broadcast:news"]),
        ({"broadcast": False, "users": (), "groups": [], "sessions": None}, []),
        ({"users": "john"}, ["user:john:news"]),
        ({"users": ["john", "mary"]}, ["user:john:news", "user:mary:news"]),
        ({"users": ("john", "john")}, ["user:john:news"]),
        ({"users": JOHN}, ["user:john:news"]),
        ({"users": [JOHN, "mary"]}, ["user:john:news", "user:mary:news"]),
        ({"users": SimpleLazyObject(lambda: JOHN)}, ["user:john:news"]),
        ({"users": (name for name in ("john", "mary"))}, ["user:john:news", "user:mary:news"]),
        ({"users": {"john"}}, ["user:john:news"]),
        ({"groups": "chatters"}, ["group:chatters:news"]),
        ({"groups": [Group(name="chatters"), "staff"]}, ["group:chatters:news", "group:staff:news"]),
        ({"groups": Group(name="chatters")}, ["group:chatters:news"]),
        ({"sessions": "key"}, ["session:key:news"]),
        ({"sessions": ["one", "two"]}, ["session:one:news", "session:two:news"]),
        ({"users": True, "groups": True, "sessions": True}, []),
        ({"users": SELF, "groups": SELF, "sessions": SELF}, []),
        ({"users": False, "groups": False, "sessions": False}, []),
        (
            {"broadcast": True, "groups": "g", "users": "u", "sessions": "s"},
            ["broadcast:news", "group:g:news", "user:u:news", "session:s:news"],
        ),
    ],
)
def test_channels_of_an_audience(audience, names):
    assert channels(**audience) == [f"unit:{name}" for name in names]


@pytest.mark.parametrize("own", [SELF, [SELF], (SELF, SELF), True])
def test_self_is_who_made_the_request(own):
    assert channels(users=own, request=SIGNED_IN) == ["unit:user:john:news"]
    assert channels(sessions=own, request=SIGNED_IN) == ["unit:session:johns-key:news"]
    assert channels(groups=own, request=SIGNED_IN) == ["unit:group:chatters:news", "unit:group:team:a:news"]


def test_self_beside_others():
    assert channels(users=["mary", SELF, "john"], request=SIGNED_IN) == ["unit:user:mary:news", "unit:user:john:news"]


@pytest.mark.parametrize(
    "visitor",
    [
        None,
        types.SimpleNamespace(),
        request(),
        request(AnonymousUser(), session(None)),
        request(SimpleLazyObject(AnonymousUser), session(None)),
    ],
)
def test_self_of_a_visitor_without_user_and_session_is_nobody(visitor):
    assert channels(users=SELF, groups=SELF, sessions=SELF, request=visitor) == []


def test_an_anonymous_visitor_has_a_session_and_no_groups():
    visitor = request(AnonymousUser(), session(**{"ws4redis:memberof": ["left over"]}))
    assert channels(users=SELF, groups=SELF, sessions=SELF, request=visitor) == ["unit:session:visitors-key:news"]


def test_a_user_whose_login_noted_no_groups():
    assert channels(groups=SELF, request=request(JOHN, session())) == []
    assert channels(groups=SELF, request=request(JOHN, None)) == []


def test_groups_of_a_user_are_those_of_the_database_asked_for_once(database):
    john = User.objects.create_user("john")
    john.groups.set([Group.objects.create(name=name) for name in ("chatters", "staff")])
    visitor = request(SimpleLazyObject(lambda: User.objects.get()), session(**{"ws4redis:memberof": ["former"]}))
    with CaptureQueriesContext(database) as queries:
        assert visitor.user.is_active
        for _ in range(2):
            assert channels(groups=SELF, request=visitor) == ["unit:group:chatters:news", "unit:group:staff:news"]
    assert len(queries) == 2  # the user, and the groups
    visitor.user.groups.clear()
    assert channels(groups=SELF, request=visitor) == []


@pytest.mark.parametrize("audience", ["users", "groups", "sessions"])
def test_an_audience_of_another_type_is_refused(audience):
    with pytest.raises(TypeError, match=f"{audience} must be a name, an object, SELF, or a list of them, not 7"):
        channels(**{audience: 7})


def test_without_a_prefix(with_settings):
    with_settings(WS4REDIS_PREFIX=None)
    assert channels(users="john", broadcast=True) == ["broadcast:news", "user:john:news"]


@pytest.mark.parametrize(
    "audience",
    [{"broadcast": True}, {"users": ["john"]}, {"groups": ["g"]}, {"sessions": ["s"]}, {"users": [SELF]}],
)
def test_where_ws4redis_works_the_names_are_its_own(audience):
    stock = RedisStore(None)._get_message_channels(facility="a/b", request=SIGNED_IN, **audience)
    ours = Store(None)._get_message_channels(facility="a/b", request=SIGNED_IN, **audience)
    assert ours == stock


# Publishing.


@pytest.fixture
def two_channels(shared_redis, redis_client, facility):
    """A store that publishes on two channels, and who listens to them."""

    class Publishing:
        names = [f"unit:{facility}:one", f"unit:{facility}:two"]
        store = Store(pool.client())

        def next(self):
            message = self.listener.get_message(timeout=WAIT)
            return message["channel"].rpartition(":")[2], unwrap(message["data"].encode()).payload.decode()

    with redis_client.pubsub() as listener:
        listener.subscribe(*Publishing.names)
        for _ in range(2):
            assert listener.get_message(timeout=WAIT)["type"] == "subscribe"
        two_channels = Publishing()
        two_channels.listener = listener
        two_channels.store._publishers = Publishing.names
        yield two_channels


def test_a_message_goes_to_all_channels_and_is_kept_there(two_channels, redis_client):
    two_channels.store.publish_message({"n": 1}, expire=50)
    assert [two_channels.next(), two_channels.next()] == [("one", '{"n": 1}'), ("two", '{"n": 1}')]
    for name in two_channels.names:
        assert redis_client.get(name) == '{"n": 1}'
        assert 0 < redis_client.ttl(name) <= 50


def test_it_is_kept_as_long_as_the_setting_says(two_channels, redis_client, with_settings):
    two_channels.store.publish_message("hello")
    assert 3500 < redis_client.ttl(two_channels.names[0]) <= 3600
    with_settings(WS4REDIS_EXPIRE=10)
    two_channels.store.publish_message("hello")
    assert 0 < redis_client.ttl(two_channels.names[0]) <= 10


@pytest.mark.parametrize("how", ["setting", "argument"])
def test_zero_keeps_nothing_and_leaves_what_is_kept(two_channels, redis_client, with_settings, how):
    two_channels.store.publish_message("kept")
    with_settings(WS4REDIS_EXPIRE=0 if how == "setting" else 3600)
    two_channels.store.publish_message("passing", **({"expire": 0} if how == "argument" else {}))
    assert [two_channels.next()[1] for _ in range(4)] == ["kept", "kept", "passing", "passing"]
    assert [redis_client.get(name) for name in two_channels.names] == ["kept", "kept"]


def test_kept_and_published_change_together(two_channels, redis_client):
    """Whoever reads what is kept when a message arrives finds that message, on every channel."""
    for number in range(50):
        two_channels.store.publish_message(str(number))
        two_channels.next()
        assert redis_client.mget(two_channels.names) == [str(number)] * 2
        two_channels.next()


def test_an_error_of_redis_is_raised(own_redis):
    mended = Store(pool.client())
    mended._publishers = ["unit:channel"]
    own_redis.kill()
    with pytest.raises(redis_exceptions.ConnectionError):
        mended.publish_message("hello")


# Histories, several channels, idempotency keys.

PLAIN = conf.Facility()
KEPT = conf.Facility(size=3, ttl=60)


@pytest.fixture
def redis(own_redis):
    """A client of the test's own, of a Redis that no other test uses; answers are bytes."""
    with own_redis.client() as client:
        client.connection_pool.connection_kwargs["decode_responses"] = False
        yield client


@pytest.fixture
def published(redis):
    """Everything that was published so far, as pairs of channel and payload as it travels."""
    with redis.pubsub() as listener:
        listener.psubscribe("*")
        assert listener.get_message(timeout=WAIT)["type"] == "psubscribe"

        def take():
            redis.publish("end", "end")
            messages = []
            while (message := listener.get_message(timeout=WAIT))["channel"] != b"end":
                messages.append((message["channel"], message["data"]))
            return messages

        yield take


def publish(*messages):
    publishing.publish(pool.client(), messages)


def entries(redis, channel):
    """What the history of a channel keeps: offset and payload of each message."""
    found = redis.xrange(keys.history_keys(channel)[1])
    return [(int(number.partition(b"-")[0]), fields[b"d"]) for number, fields in found]


def test_a_message_to_one_channel_without_a_history_travels_bare(redis, published):
    publish(OutgoingMessage([b"one"], b"hello", 60))
    assert published() == [(b"one", b"hello")]
    assert redis.keys() == [b"one"]


def test_a_message_to_several_channels_says_that_it_is_one_and_is_kept_bare(redis, published):
    publish(OutgoingMessage([b"one", "two"], b"hello", 60), OutgoingMessage([b"one", b"two"], b"hello", 0))
    (one, first), (two, second), *others = published()
    assert (one, two) == (b"one", b"two")
    message = unwrap(first)
    assert unwrap(second) == message
    assert message == (b"hello", message.id, 0, "-", True, message.time)
    assert message.time == pytest.approx(time.time() * 1e6, abs=60e6)  # by the clock of Redis
    assert unwrap(others[0][1]).id == unwrap(others[1][1]).id != message.id
    assert redis.mget("one", "two") == [b"hello"] * 2


@pytest.mark.parametrize("payload", [HEAD, HEAD + b"1 a b -\nfaked", HEAD + b"9999999999999999 a b s\n"])
def test_a_payload_that_looks_like_a_header_arrives_as_it_is(published, payload):
    publish(OutgoingMessage([b"one"], payload, 0))
    message = unwrap(published()[0][1])
    assert message == (payload, message.id, 0, "-", False, message.time)


def test_each_message_of_a_history_has_a_number_and_names_the_one_before(redis, published):
    for text in (b"a", b"b", b"c"):
        publish(OutgoingMessage([b"one"], text, 0, KEPT))
    messages = [unwrap(data) for _, data in published()]
    assert [(each.payload, each.offset, each.multi_audience) for each in messages] == [
        (b"a", 1, False),
        (b"b", 2, False),
        (b"c", 3, False),
    ]
    assert messages[0].previous == "-"
    assert all(later.follows(earlier.position) for earlier, later in itertools.pairwise(messages))
    assert len({each.id for each in messages}) == 3
    meta, _ = keys.history_keys(b"one")
    assert redis.hgetall(meta) == {b"offset": b"3", b"id": messages[-1].id.encode()}


def test_a_history_is_cut_at_its_size_and_only_there(redis):
    for number in range(1, 251):
        publish(OutgoingMessage([b"one"], b"%d" % number, 0, KEPT))
    assert entries(redis, b"one") == [(248, b"248"), (249, b"249"), (250, b"250")]
    publish(OutgoingMessage([b"one"], b"251", 0, KEPT._replace(size=5)))
    assert [number for number, _ in entries(redis, b"one")] == [248, 249, 250, 251]


def test_each_channel_of_a_message_has_its_own_history(redis, published):
    publish(OutgoingMessage([b"one"], b"first", 0, KEPT))
    publish(OutgoingMessage([b"one", b"two"], b"both", 0, KEPT))
    assert entries(redis, b"one") == [(1, b"first"), (2, b"both")]
    assert entries(redis, b"two") == [(1, b"both")]
    assert [(unwrap(data).offset, unwrap(data).multi_audience) for _, data in published()] == [
        (1, False),
        (2, True),
        (1, True),
    ]


def test_a_history_expires_and_its_top_later(redis):
    publish(OutgoingMessage([b"one"], b"hello", 0, KEPT))
    meta, history = keys.history_keys(b"one")
    assert 50 < redis.ttl(history) <= 60
    assert publishing.META_TTL - 10 < redis.ttl(meta) <= publishing.META_TTL
    longer = KEPT._replace(ttl=2 * publishing.META_TTL)
    publish(OutgoingMessage([b"one"], b"hello", 0, longer))
    assert redis.ttl(meta) >= redis.ttl(history) > publishing.META_TTL, "the top must outlive what it tells about"


def test_numbers_go_on_when_the_history_has_expired_and_not_when_its_top_is_lost(redis, published):
    publish(OutgoingMessage([b"one"], b"a", 0, KEPT))
    meta, history = keys.history_keys(b"one")
    redis.delete(history)
    publish(OutgoingMessage([b"one"], b"b", 0, KEPT))
    assert entries(redis, b"one") == [(2, b"b")]
    redis.delete(meta)
    publish(OutgoingMessage([b"one"], b"c", 0, KEPT))
    assert entries(redis, b"one") == [(1, b"c")], "nobody knows any more where the others stood"
    first, second, third = (unwrap(data) for _, data in published())
    assert second.follows(first.position)
    assert not third.follows(second.position)


def test_names_of_channels_give_keys_of_their_own_in_the_slot_of_the_channel(redis):
    names = [b"unit:user:john:news", b"unit:user:{john}:news", b"unit:user:{jo}{hn}:news", b"unit:user:{john:news"]
    names += ["unit:user:grün:a:b/c".encode(), b"unit:user:{:}:{", b"unit:wsloop:meta:{unit:user:john:news}"]
    found = [key for name in names for key in keys.history_keys(name)]
    assert len(set(found)) == len(found)
    assert all(key.startswith(b"unit:wsloop:") for key in found)
    for name in names:
        for key in keys.history_keys(name):
            assert key_slot(key) == key_slot(name)
        publish(OutgoingMessage([name], b"hello", 60, KEPT, key="k"))
        assert entries(redis, name) == [(1, b"hello")]


@pytest.mark.parametrize("name", [b"unit:group:a}b:news", b"unit:group:}{:news", b"unit:group:{}:news", b"unit:{}{x}"])
def test_names_with_braces_that_are_no_tag_are_in_one_slot_too(name, with_settings):
    """Or a Redis Cluster refuses to publish to them."""
    with_settings(WS4REDIS_CONNECTION={"cluster": True, "host": "localhost", "port": 7000})
    keys._tagged.cache_clear()
    assert {key_slot(key) for key in keys.history_keys(name)} == {key_slot(name)}


def test_a_message_with_a_key_is_published_once_on_each_channel(redis, published):
    publish(OutgoingMessage([b"one"], b"paid", 60, KEPT, key="order 7"))
    publish(OutgoingMessage([b"one", b"two"], b"paid again", 60, KEPT, key="order 7"))
    publish(OutgoingMessage([b"one", b"two"], b"and again", 60, KEPT, key="order 7"))
    assert [(channel, unwrap(data).payload) for channel, data in published()] == [
        (b"one", b"paid"),
        (b"two", b"paid again"),
    ]
    assert entries(redis, b"one") == [(1, b"paid")]
    assert redis.mget("one", "two") == [b"paid", b"paid again"]
    another = OutgoingMessage([b"one"], b"another", 0, KEPT, key="order 8")
    publish(another, OutgoingMessage([b"one"], b"no key", 0, KEPT))
    assert entries(redis, b"one") == [(1, b"paid"), (2, b"another"), (3, b"no key")]


def test_a_key_holds_for_a_day(redis):
    publish(OutgoingMessage([b"one"], b"paid", 0, key="7"))
    (key,) = redis.keys()
    assert publishing.ONCE - 10 < redis.ttl(key) <= publishing.ONCE
    redis.delete(key)
    publish(OutgoingMessage([b"one"], b"paid", 60, key="7"))
    assert redis.get("one") == b"paid"


def test_a_key_is_not_noted_where_a_write_fails(redis, published):
    _, history = keys.history_keys(b"two")
    publish(OutgoingMessage([b"two"], b"first", 0, KEPT))
    redis.delete(history)
    redis.set(history, "no stream")
    message = OutgoingMessage([b"one", b"two"], b"paid", 0, KEPT, key="7")
    with pytest.raises(redis_exceptions.ResponseError, match=r"^WRONGTYPE Operation against a key"):
        publish(message)
    redis.delete(history)
    published()
    publish(message)
    assert [channel for channel, _ in published()] == [b"two"], "the other one has it already"
    assert entries(redis, b"two") == [(2, b"paid")]


def test_a_redis_that_has_forgotten_the_scripts_gets_all_messages_in_order(redis, published):
    publish(OutgoingMessage([b"one"], b"before", 0))
    redis.script_flush()
    publish(*[OutgoingMessage([(b"one", b"two")[number % 2]], b"%d" % number, 0, KEPT) for number in range(10)])
    assert [unwrap(data).payload for _, data in published()] == [b"before"] + [b"%d" % number for number in range(10)]
    calls = redis.info("commandstats")["cmdstat_eval"]["calls"]
    publish(OutgoingMessage([b"one"], b"known again", 0))
    assert redis.info("commandstats")["cmdstat_eval"]["calls"] == calls


def test_with_forgotten_scripts_it_is_all_or_nothing_too(gate):
    publish(OutgoingMessage([b"one"], b"known", 0))
    with pool.client() as client:
        client.script_flush()
    gate.hold("EXEC")
    publication = gevent.spawn(publish, *[OutgoingMessage([b"one"], b"%d" % number, 60, KEPT) for number in range(3)])
    gate.wait_for(1)
    gate.let_through()  # none is known
    gate.wait_for(1)
    assert not pool.client().exists("one"), "nothing has happened before EXEC"
    gate.let_through()
    publication.get(timeout=WAIT)
    assert pool.client().get("one") == b"2"


# Errors: the words of Redis, and no secret.

SECRET = "session:the-key-of-a-session"


def failure(*messages):
    with pytest.raises(redis_exceptions.RedisError) as caught:
        publish(*messages)
    text = f"{caught.value} {caught.value.args!r} {caught.value.__context__} {caught.value.__cause__}"
    assert "payload" not in text
    assert SECRET not in text
    assert "user_script" not in text
    return str(caught.value)


BEFORE_7 = "Error running script (call to f_a1): @user_script:53: @user_script: 53: "


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("-OOM command not allowed.", redis_exceptions.OutOfMemoryError, "command not allowed."),
        ("-READONLY You can't write.", redis_exceptions.ReadOnlyError, "You can't write."),
        ("The user can't run this.", redis_exceptions.ResponseError, "The user can't run this."),
    ],
)
def test_errors_of_redis_before_version_7_are_those_of_later_ones(text, kind, words):
    exc = scripts._plain(redis_exceptions.ResponseError(BEFORE_7 + text))
    assert (type(exc), str(exc)) == (kind, words)


@pytest.mark.parametrize("known", [True, False])
def test_a_full_redis(redis, published, known):
    secret = f"unit:{SECRET}:news"
    publish(OutgoingMessage([secret, b"one"], b"payload", 0, KEPT))
    if not known:
        redis.script_flush()
    published()
    redis.config_set("maxmemory", 1)
    for message in (
        OutgoingMessage([secret], b"payload", 60),
        OutgoingMessage([secret], b"payload", 0, KEPT),
        OutgoingMessage([secret, b"one"], b"payload", 60, KEPT, key="k"),
    ):
        assert failure(message) == "command not allowed when used memory > 'maxmemory'."
        assert published() == []
    publish(OutgoingMessage([secret], b"payload", 0))
    assert published() == [(secret.encode(), b"payload")], "this needs no memory"
    redis.config_set("maxmemory", 0)
    assert not redis.exists(secret)
    assert len(entries(redis, secret)) == 1


def test_a_replica_that_may_not_be_written_to(redis, start_redis):
    publish(OutgoingMessage([b"one"], b"payload", 60))
    master = start_redis()
    redis.replicaof("127.0.0.1", master.port)
    text = failure(OutgoingMessage([f"unit:{SECRET}:news"], b"payload", 60))
    assert text.lower().startswith("you can't write against a read only replica"), text


def test_a_key_of_another_type(redis):
    redis.set(keys.history_keys(f"unit:{SECRET}:news")[0], "no hash")
    text = failure(OutgoingMessage([f"unit:{SECRET}:news"], b"payload", 60, KEPT))
    assert text == "WRONGTYPE Operation against a key holding the wrong kind of value"


def test_a_command_that_the_operator_has_taken_away(redis):
    redis.execute_command("ACL", "SETUSER", "default", "-xadd")
    text = failure(OutgoingMessage([f"unit:{SECRET}:news"], b"payload", 60, KEPT))
    assert "no permissions" in text or "can't run" in text, text


def test_it_is_all_or_none_where_redis_is_full(redis, published):
    """The first message needs no memory, the second does: who is told of an error publishes both again."""
    redis.config_set("maxmemory", 1)
    failure(OutgoingMessage([b"one"], b"payload", 0), OutgoingMessage([b"one"], b"payload", 60))
    assert published() == []


def test_a_message_with_a_key_is_not_published_before_the_key_can_be_noted(redis, published):
    """Or who tries again and again, like the outbox, publishes it again and again."""
    redis.config_set("maxmemory", 1)
    for _ in range(3):
        failure(OutgoingMessage([b"one"], b"payload", 0, key="order 7"))
    assert published() == []


@pytest.mark.parametrize("expire", [True, 1.5, "60", publishing.LONGEST + 1])
def test_a_time_that_redis_would_not_take_is_refused_before_anything_is_sent(two_channels, redis_client, expire):
    with pytest.raises(ValueError, match="expire must be a whole number of seconds, up to"):
        two_channels.store.publish_message("hello", expire=expire)
    assert not redis_client.exists(*two_channels.names)


def test_the_longest_time_is_taken(redis):
    publish(OutgoingMessage([b"one"], b"hello", publishing.LONGEST))
    assert redis.ttl("one") > publishing.LONGEST - 10
