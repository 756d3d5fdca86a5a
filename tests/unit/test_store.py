"""Names of channels, what a message may be, and how it is published."""

import datetime
import decimal
import types
import uuid

import pytest
import redis.exceptions
from django.contrib.auth.models import AnonymousUser, Group, User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy
from ws4redis.redis_store import RedisStore

from tests.unit.peer import WAIT
from wsloop import pool, store
from wsloop.messages import unwrap
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
    assert store.encode(message) == payload
    assert type(store.encode(message)) is bytes


@pytest.mark.parametrize("message", [object(), {1, 2}, {"user": object()}])
def test_what_cannot_be_written_as_json_is_refused(message):
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.encode(message)


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
    with pytest.raises(ValueError, match=f"`{audience}` must be a name, SELF, or a list of them, not 7"):
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
def publishing(shared_redis, redis_client, facility):
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
        publishing = Publishing()
        publishing.listener = listener
        publishing.store._publishers = Publishing.names
        yield publishing


def test_a_message_goes_to_all_channels_and_is_kept_there(publishing, redis_client):
    publishing.store.publish_message({"n": 1}, expire=50)
    assert [publishing.next(), publishing.next()] == [("one", '{"n": 1}'), ("two", '{"n": 1}')]
    for name in publishing.names:
        assert redis_client.get(name) == '{"n": 1}'
        assert 0 < redis_client.ttl(name) <= 50


def test_it_is_kept_as_long_as_the_setting_says(publishing, redis_client, with_settings):
    publishing.store.publish_message("hello")
    assert 3500 < redis_client.ttl(publishing.names[0]) <= 3600
    with_settings(WS4REDIS_EXPIRE=10)
    publishing.store.publish_message("hello")
    assert 0 < redis_client.ttl(publishing.names[0]) <= 10


@pytest.mark.parametrize("how", ["setting", "argument"])
def test_zero_keeps_nothing_and_leaves_what_is_kept(publishing, redis_client, with_settings, how):
    publishing.store.publish_message("kept")
    with_settings(WS4REDIS_EXPIRE=0 if how == "setting" else 3600)
    publishing.store.publish_message("passing", **({"expire": 0} if how == "argument" else {}))
    assert [publishing.next()[1] for _ in range(4)] == ["kept", "kept", "passing", "passing"]
    assert [redis_client.get(name) for name in publishing.names] == ["kept", "kept"]


def test_kept_and_published_change_together(publishing, redis_client):
    """Whoever reads what is kept when a message arrives finds that message, on every channel."""
    for number in range(50):
        publishing.store.publish_message(str(number))
        publishing.next()
        assert redis_client.mget(publishing.names) == [str(number)] * 2
        publishing.next()


def test_an_error_of_redis_is_raised(own_redis):
    mended = Store(pool.client())
    mended._publishers = ["unit:channel"]
    own_redis.kill()
    with pytest.raises(redis.exceptions.ConnectionError):
        mended.publish_message("hello")
