"""``RedisPublisher``: for views, tasks and shells."""

import contextlib
import re
import subprocess
import sys
import types

import gevent
import pytest
import redis.exceptions
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.db import transaction
from gevent.threadpool import ThreadPool
from ws4redis.publisher import RedisPublisher as StockPublisher
from ws4redis.redis_store import RedisStore

from testbed.processes import ROOT
from tests.unit.peer import WAIT
from wsloop.backend import pool
from wsloop.backend.keys import history_keys
from wsloop.protocol import resume_tokens
from wsloop.protocol.messages import unwrap
from wsloop.publisher import SELF, RedisMessage, RedisPublisher


@pytest.fixture
def listener(shared_redis, redis_client):
    """Everything that is published under the prefix of these tests, as pairs of channel and text."""
    with redis_client.pubsub() as subscription:
        subscription.psubscribe("unit:*")
        assert subscription.get_message(timeout=WAIT)["type"] == "psubscribe"

        def take(count):
            messages = [subscription.get_message(timeout=WAIT) for _ in range(count)]
            return [(each["channel"], unwrap(each["data"].encode()).payload.decode()) for each in messages]

        yield types.SimpleNamespace(take=take, silent=lambda: silent(redis_client, take))


def silent(redis_client, take):
    """Tell whether nothing was published so far: what is published now would come after it."""
    redis_client.publish("unit:end", "end")
    return take(1) == [("unit:end", "end")]


@pytest.fixture
def visitor():
    """A request of john, of the group chatters."""
    session = SessionStore()
    session._session_key = "johns-key"
    session["ws4redis:memberof"] = ["chatters"]
    return types.SimpleNamespace(user=User(username="john"), session=session)


def test_every_audience(listener, visitor, facility):
    publisher = RedisPublisher(
        facility=facility, broadcast=True, users=["mary", SELF], groups="chatters", sessions=SELF, request=visitor
    )
    publisher.publish_message("hello")
    names = ["broadcast", "group:chatters", "user:mary", "user:john", "session:johns-key"]
    assert listener.take(5) == [(f"unit:{name}:{facility}", "hello") for name in names]


def test_what_ws4redis_takes_is_taken(listener, facility):
    publisher = RedisPublisher(facility=facility, broadcast=True)
    publisher.publish_message(RedisMessage("hello"))
    publisher.pipeline_publish_message({"n": 1}, 10)
    publisher.pipeline_publish_message("one by one", transaction=False)
    assert [text for _, text in listener.take(3)] == ["hello", '{"n": 1}', "one by one"]
    assert isinstance(publisher, StockPublisher)


def test_without_a_transaction_a_channel_that_redis_does_not_accept_keeps_it_from_no_other(
    listener, redis_client, with_settings, facility
):
    """ws4redis: "If you prefer that some messages instead of none are delivered [...] set transaction=False"."""
    with_settings(WSLOOP={"FACILITIES": {facility: {"size": 10}}})
    redis_client.set(history_keys(f"unit:user:john:{facility}")[0], "no history", ex=60)
    publisher = RedisPublisher(facility=facility, users=["john", "mary", "sue"])
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        publisher.pipeline_publish_message("hello", 10, transaction=False)
    assert [channel for channel, _ in listener.take(2)] == [f"unit:user:{name}:{facility}" for name in ("mary", "sue")]
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        publisher.pipeline_publish_message("hello", 10)
    assert listener.silent()


def test_without_a_transaction_a_batch_is_published_in_order(listener, facility):
    with RedisPublisher(facility=facility, users=["john", "mary"]) as publisher:
        publisher.publish_message("one")
        publisher.pipeline_publish_message("two", transaction=False)
        assert listener.silent()
    assert [text for _, text in listener.take(4)] == ["one", "one", "two", "two"]


class SharedStore(RedisStore):
    """Adds an audience to a site's publisher and subscriber, as a public site does."""

    def _get_message_channels(
        self, request=None, facility="{facility}", broadcast=False, groups=(), users=(), sessions=(), server=False
    ):
        channels = super()._get_message_channels(
            request, facility, broadcast=broadcast, groups=groups, users=users, sessions=sessions
        )
        return [*channels, f"{self.get_prefix()}server:{facility}"] if server else channels


def test_a_base_class_that_publisher_and_subscriber_share(listener, facility):
    class SitePublisher(SharedStore, RedisPublisher):
        pass

    SitePublisher(facility=facility, server=True, users="john").publish_message("hello")
    assert [channel for channel, _ in listener.take(2)] == [f"unit:user:john:{facility}", f"unit:server:{facility}"]


def test_an_audience_of_nobody_is_no_error(listener, facility):
    RedisPublisher(facility=facility, users=[SELF], request=None).publish_message("lost")
    with RedisPublisher(facility=facility) as publisher:
        publisher.publish_message("lost")
    assert listener.silent()


def test_a_message_that_is_no_json_is_refused_before_anything_is_sent(listener, facility):
    with pytest.raises(TypeError):
        RedisPublisher(facility=facility, broadcast=True).publish_message(object())
    assert listener.silent()


def test_a_wrong_audience_is_refused(shared_redis):
    with pytest.raises(TypeError, match="users must be a name"):
        RedisPublisher(facility="news", users=7)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("user", "has no argument 'user'; 'users' was meant, perhaps"),
        ("group", "'groups' was meant"),
        ("brodcast", "'broadcast' was meant"),
        ("channel", "has no argument 'channel', but broadcast, facility, groups, request, sessions, users"),
    ],
)
def test_a_mistyped_argument_is_named(name, words):
    with pytest.raises(TypeError, match=re.escape(words)):
        RedisPublisher(facility="news", **{name: "john"})


def test_arguments_are_named():
    with pytest.raises(TypeError, match="positional"):
        RedisPublisher("news", True)
    with pytest.raises(TypeError, match="'facility'"):
        RedisPublisher(broadcast=True)


def test_a_sites_own_publisher_may_take_more(listener, facility):
    class Tenants(RedisPublisher):
        def _get_message_channels(self, tenant=None, **audiences):
            return super()._get_message_channels(**audiences | {"facility": f"{tenant}/{audiences['facility']}"})

    assert Tenants(facility="news", tenant="a", broadcast=True)._publishers == ["unit:broadcast:a/news"]


def test_an_error_of_redis_is_raised(own_redis):
    own_redis.kill()
    with pytest.raises(redis.exceptions.ConnectionError):
        RedisPublisher(facility="news", broadcast=True).publish_message("hello")


# One round trip.


@pytest.mark.parametrize("how", ["message", "pipeline", "context"])
def test_one_round_trip_however_many_channels_and_messages(gate, how):
    """The line holds all of the commands back: who sends the last without an answer to the first needs one trip."""
    publisher = RedisPublisher(facility="news", users=[f"user{number}" for number in range(50)])
    publisher.publish_message("connects, and teaches Redis the script")

    def publish():
        if how == "message":
            publisher.publish_message("hello")
        elif how == "pipeline":
            publisher.pipeline_publish_message("hello")
        else:
            with publisher:
                for _ in range(3):
                    publisher.publish_message("hello")

    gate.hold("MULTI", "EVALSHA", "EXEC")
    greenlet = gevent.spawn(publish)
    expected = [b"MULTI", *[b"EVALSHA"] * 3, b"EXEC"] if how == "context" else [b"EVALSHA"]
    gate.wait_for(len(expected))
    assert [command[0] for command in gate.commands()] == expected
    gate.hold()
    gate.let_through(len(expected))
    greenlet.get(timeout=WAIT)


# on_commit, and the context manager.


def test_on_commit_waits_for_the_transaction(listener, database, facility):
    publisher = RedisPublisher(facility=facility, broadcast=True)
    with transaction.atomic():
        publisher.publish_message("late", on_commit=True, expire=0)
        publisher.publish_message("early", expire=0)
        assert [text for _, text in listener.take(1)] == ["early"]
        assert listener.silent()
    assert [text for _, text in listener.take(1)] == ["late"]


def test_on_commit_forgets_what_is_rolled_back(listener, database, facility):
    publisher = RedisPublisher(facility=facility, broadcast=True)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        publisher.publish_message("never", on_commit=True)
        raise ZeroDivisionError
    assert listener.silent()


def test_on_commit_without_a_transaction_publishes_at_once(listener, database, facility):
    RedisPublisher(facility=facility, broadcast=True).publish_message("now", on_commit=True)
    assert [text for _, text in listener.take(1)] == ["now"]


def test_on_commit_takes_the_message_as_it_is_now(listener, database, facility):
    message = {"state": "ordered"}
    with transaction.atomic():
        RedisPublisher(facility=facility, broadcast=True).publish_message(message, on_commit=True)
        message["state"] = "changed later"
    assert [text for _, text in listener.take(1)] == ['{"state": "ordered"}']


def test_a_context_publishes_at_its_end(listener, facility, redis_client):
    with RedisPublisher(facility=facility, broadcast=True) as publisher:
        publisher.publish_message("one")
        publisher.publish_message("two", expire=0)
        assert listener.silent()
    assert [text for _, text in listener.take(2)] == ["one", "two"]
    assert redis_client.get(f"unit:broadcast:{facility}") == "one"


def test_a_context_that_raises_publishes_nothing(listener, facility):
    publisher = RedisPublisher(facility=facility, broadcast=True)
    with pytest.raises(ZeroDivisionError), publisher:
        publisher.publish_message("never")
        raise ZeroDivisionError
    assert listener.silent()
    publisher.publish_message("outside again")
    assert [text for _, text in listener.take(1)] == ["outside again"]


def test_a_context_may_be_entered_again(listener, facility):
    publisher = RedisPublisher(facility=facility, broadcast=True)
    for text in ("one", "two"):
        with publisher:
            publisher.publish_message(text)
    assert [text for _, text in listener.take(2)] == ["one", "two"]


def test_on_commit_inside_a_context_waits_for_the_transaction_all_the_same(listener, database, facility):
    with transaction.atomic():
        with RedisPublisher(facility=facility, broadcast=True) as publisher:
            publisher.publish_message("committed", on_commit=True)
            publisher.publish_message("at the end of the context")
        assert [text for _, text in listener.take(1)] == ["at the end of the context"]
        assert listener.silent()
    assert [text for _, text in listener.take(1)] == ["committed"]


# fetch_message.


@pytest.fixture
def kept(shared_redis, facility, visitor):
    """Keep a message for each of some audiences: ``kept("user", "broadcast")``."""
    audiences = {
        "session": {"sessions": "johns-key"},
        "user": {"users": "john"},
        "group": {"groups": "chatters"},
        "broadcast": {"broadcast": True},
    }

    def keep(*names):
        for name in names:
            RedisPublisher(facility=facility, **audiences[name]).publish_message(f"for {name}")

    return keep


def test_any_looks_for_session_user_group_and_everybody_in_this_order(kept, visitor, facility, redis_client):
    publisher = RedisPublisher(facility=facility)
    assert publisher.fetch_message(visitor, facility) is None
    for name in ("broadcast", "group", "user", "session"):
        kept(name)
        assert publisher.fetch_message(visitor, facility) == f"for {name}".encode()
        assert publisher.fetch_message(visitor, facility, audience="any") == f"for {name}".encode()


@pytest.mark.parametrize("audience", ["session", "user", "group", "broadcast"])
def test_one_audience(kept, visitor, facility, audience):
    kept(*({"session", "user", "group", "broadcast"} - {audience}))
    publisher = RedisPublisher(facility=facility)
    assert publisher.fetch_message(visitor, facility, audience) is None
    kept(audience)
    assert publisher.fetch_message(visitor, facility, audience) == f"for {audience}".encode()


@pytest.mark.parametrize(
    "request_", [None, types.SimpleNamespace(user=AnonymousUser(), session=SessionStore()), types.SimpleNamespace()]
)
def test_without_user_and_session_there_is_only_what_is_for_everybody(kept, facility, request_):
    kept("session", "user", "group")
    publisher = RedisPublisher(facility=facility)
    assert publisher.fetch_message(request_, facility) is None
    assert publisher.fetch_message(request_, facility, "user") is None
    kept("broadcast")
    assert publisher.fetch_message(request_, facility) == b"for broadcast"


def test_an_audience_that_does_not_exist_is_refused(shared_redis):
    with pytest.raises(ValueError, match="audience must be session, user, group, broadcast or any, not 'users'"):
        RedisPublisher(facility="news").fetch_message(None, "news", "users")


# History, and the token of a page.


@pytest.fixture
def keeping(shared_redis, with_settings):
    """Facilities of tests keep a history, but for those that say no."""
    with_settings(WSLOOP={"FACILITIES": {"*-no": {}, "*-views": {"size": 3, "recover": False}, "*": {"size": 3}}})


def texts(entries):
    return [entry.message.payload.decode() for entry in entries]


def test_the_newest_messages_the_oldest_first(keeping, facility):
    publisher = RedisPublisher(facility=facility, broadcast=True)
    assert publisher.history() == []
    for number in range(5):
        publisher.publish_message(str(number))
    assert texts(publisher.history()) == ["2", "3", "4"]
    assert texts(publisher.history(limit=2)) == ["3", "4"]
    assert [entry.message.offset for entry in publisher.history(1)] == [5]


def test_messages_to_several_audiences_are_in_it_once_and_in_order(keeping, facility, visitor):
    everybody = RedisPublisher(facility=facility, broadcast=True)
    john = RedisPublisher(facility=facility, users="john")
    both = RedisPublisher(facility=facility, broadcast=True, users=[SELF], request=visitor)
    everybody.publish_message("1")
    both.publish_message("2")
    john.publish_message("3")
    assert texts(both.history()) == ["1", "2", "3"]
    assert texts(both.history(limit=2)) == ["2", "3"]
    assert texts(john.history()) == ["2", "3"]


def test_there_is_none_where_none_is_kept_and_one_for_views_alone(keeping, facility):
    none = RedisPublisher(facility=f"{facility}-no", broadcast=True)
    views = RedisPublisher(facility=f"{facility}-views", broadcast=True)
    for publisher in (none, views):
        publisher.publish_message("hello")
    assert none.history() == []
    assert texts(views.history()) == ["hello"]
    assert none.token() == views.token() == ""


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_must_be_positive(keeping, facility, limit):
    with pytest.raises(ValueError, match=f"limit must be a positive whole number, not {limit}"):
        RedisPublisher(facility=facility, broadcast=True).history(limit)


def test_a_token_stands_for_all_that_was_published_before(keeping, facility, visitor):
    publisher = RedisPublisher(facility=facility, broadcast=True, users=SELF, request=visitor)
    publisher.publish_message("before")
    channels = [f"unit:{name}:{facility}".encode() for name in ("broadcast", "user:john")]
    since = resume_tokens.read(publisher.token(), channels)
    assert [position.offset for position in since.values()] == [1, 1]
    assert {position.id for position in since.values()} == {publisher.history()[0].message.id}
    assert RedisPublisher(facility=facility, users=[SELF], request=None).token() == "", "an audience of nobody"


def test_a_key_in_a_context_and_by_itself(listener, facility):
    publisher = RedisPublisher(facility=facility, broadcast=True)
    with publisher:
        publisher.publish_message("paid", key="order 7")
        publisher.publish_message("paid again", key="order 7")
    publisher.publish_message("and again", key="order 7")
    assert listener.take(1) == [(f"unit:broadcast:{facility}", "paid")]
    assert listener.silent()


# Any process.


def test_it_brings_no_gevent_into_the_process():
    code = """
import sys
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["wsloop", "ws4redis", "django.contrib.auth", "django.contrib.contenttypes"])
django.setup()
import wsloop.publisher
assert "gevent" not in sys.modules, "gevent"
assert "websockets" not in sys.modules, "websockets"
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)


# Threads, and batches with messages that wait.


def test_a_publisher_may_be_made_in_another_thread_than_it_is_used_in(own_redis, receive, facility):
    received = receive(own_redis)
    publisher = RedisPublisher(facility=facility, broadcast=True)

    def use():
        try:
            publisher.publish_message("from a thread")
        finally:
            pool.forget()

    threads = ThreadPool(2)
    try:
        jobs = [threads.spawn(use) for _ in range(4)]
        greenlets = [gevent.spawn(publisher.publish_message, "from a greenlet") for _ in range(4)]
        gevent.joinall(greenlets, timeout=WAIT, raise_error=True)
        for job in jobs:
            job.get(timeout=WAIT)
    finally:
        threads.kill()
    assert sorted(received()) == ["from a greenlet"] * 4 + ["from a thread"] * 4


@pytest.mark.parametrize("how", [{}, {"on_commit": True}, {"outbox": True}])
def test_nothing_of_a_batch_that_raises_is_published(received, database, facility, how):
    with pytest.raises(ZeroDivisionError), RedisPublisher(facility=facility, broadcast=True) as publisher:
        publisher.publish_message("never", **how)
        raise ZeroDivisionError
    with RedisPublisher(facility=facility, broadcast=True) as publisher:
        publisher.publish_message("first", **how)
        publisher.publish_message("second", **how)
        assert received() == []
    assert received() == ["first", "second"]


@pytest.mark.parametrize("argument", ["on_commit", "outbox"])
@pytest.mark.parametrize("value", ["", [], None, 0, 1])
def test_what_is_neither_true_nor_a_database_is_refused(received, database, facility, argument, value):
    with pytest.raises((TypeError, ValueError), match=argument):
        RedisPublisher(facility=facility, broadcast=True).publish_message("never", **{argument: value})
    assert received() == []


@pytest.mark.parametrize("options", [{"key": "\ud800"}, {"key": 7}, {"expire": -(2**70)}, {"expire": 2**70}])
def test_options_are_checked_at_the_call(received, database, facility, options):
    with transaction.atomic(), pytest.raises(ValueError):
        RedisPublisher(facility=facility, broadcast=True).publish_message("never", on_commit=True, **options)
    assert received() == []


def test_the_last_message_of_a_facility_with_a_colon(shared_redis, visitor, facility):
    RedisPublisher(facility=f"{facility}:a", broadcast=True).publish_message("hello")
    publisher = RedisPublisher(facility=f"{facility}:a")
    assert publisher.fetch_message(visitor, f"{facility}:a") == b"hello"
    with pytest.raises(ValueError, match="has a colon"):
        publisher.fetch_message(visitor, f"{facility}:a", "user")


# What it returns.


@pytest.fixture
def workers(redis_client, facility, shared_redis):
    """Subscribe so many connections to a channel of the facility, each as a worker does."""
    with contextlib.ExitStack() as stack:

        def subscribe(count, audience="broadcast"):
            for _ in range(count):
                subscription = stack.enter_context(redis_client.pubsub())
                subscription.subscribe(f"unit:{audience}:{facility}")
                assert subscription.get_message(timeout=WAIT)["type"] == "subscribe"

        yield subscribe


def test_it_returns_how_many_connections_have_got_the_message(workers, facility):
    publisher = RedisPublisher(facility=facility, broadcast=True)
    assert publisher.publish_message("to nobody") == 0
    workers(2)
    assert publisher.publish_message("to two") == 2
    workers(1, "user:john")
    several = RedisPublisher(facility=facility, broadcast=True, users=["john", "mary"])
    assert several.publish_message("to both") == 3
    assert several.pipeline_publish_message("to both") == 3
    assert RedisPublisher(facility=facility, users=[SELF]).publish_message("to nobody at all") == 0


@pytest.mark.parametrize("size", [0, 10])
def test_it_returns_none_where_redis_does_not_tell(workers, facility, with_settings, size):
    with_settings(WSLOOP={"FACILITIES": {"*": {"size": size}}})
    workers(1)
    publisher = RedisPublisher(facility=facility, broadcast=True)
    assert publisher.publish_message("first", key="key") == 1
    assert publisher.publish_message("again", key="key") is None
    both = RedisPublisher(facility=facility, broadcast=True, users="john")
    assert both.publish_message("again, and for john", key="key") == 0
    with publisher:
        assert publisher.publish_message("later") is None


def test_with_a_transaction_it_returns_none(workers, facility, database):
    publisher = RedisPublisher(facility=facility, broadcast=True)
    with transaction.atomic():
        assert publisher.publish_message("after the commit", on_commit=True) is None
    assert publisher.publish_message("in the outbox", outbox=True) is None
