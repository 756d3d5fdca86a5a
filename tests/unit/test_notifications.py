"""Notifications are recorded, whichever way they are published, and without Redis."""

import contextlib
import inspect
import unittest

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User
from django.db import connection, transaction
from django.template import Context, Engine
from django.test import RequestFactory, TestCase, TransactionTestCase

from wsloop import publisher
from wsloop.backend import pool, publishing
from wsloop.consumers import WebsocketConsumer
from wsloop.layers import get_channel_layer
from wsloop.outbox.models import Message
from wsloop.publisher import SELF, RedisPublisher
from wsloop.testing import NotificationsMixin, WebsocketCommunicator
from wsloop.testing.memory import Memory
from wsloop.testing.recorder import Recorder, record


@pytest.fixture(autouse=True)
def no_redis(with_settings):
    """Redis cannot be reached."""
    pool.forget()
    with_settings(WS4REDIS_CONNECTION={"unix_socket_path": "/nowhere/redis.sock"})
    yield
    pool.forget()


@pytest.fixture
def recorder():
    with record() as recorder:
        yield recorder


class Session(dict):
    session_key = "secret-key"


@pytest.fixture
def request_of_john():
    request = RequestFactory().get("/")
    request.user = User(username="john")
    request.session = Session(cart=7)
    return request


def publish(message, facility="orders", **options):
    more = {name: options.pop(name) for name in ("expire", "key", "on_commit", "outbox") if name in options}
    RedisPublisher(facility=facility, **options).publish_message(message, **more)


def seen(recorder):
    return [(each.facility, each.audience, each.name, each.message) for each in recorder.notifications]


# What is recorded.


def test_audiences(recorder, request_of_john):
    publish("a", broadcast=True)
    publish("b", users=["mary", User(username="john")], groups=Group(name="staff"))
    publish("c", users=SELF, sessions=SELF, request=request_of_john)
    assert seen(recorder) == [
        ("orders", "broadcast", "", "a"),
        ("orders", "group", "staff", "b"),
        ("orders", "user", "mary", "b"),
        ("orders", "user", "john", "b"),
        ("orders", "user", "john", "c"),
        ("orders", "session", "secret-key", "c"),
    ]


def test_names_with_colons_and_facilities_with_slashes(recorder):
    publish("a", "rooms/lobby", users="urn:john")
    publish("b", "a:b", broadcast=True)
    assert seen(recorder) == [("rooms/lobby", "user", "urn:john", "a"), ("a:b", "broadcast", "", "b")]


@pytest.mark.parametrize(
    ("message", "payload", "decoded"),
    [
        ("text", b"text", "text"),
        ({"a": (1, 2)}, b'{"a": [1, 2]}', {"a": [1, 2]}),
        (None, b"null", None),
        (b"\xff\x00", b"\xff\x00", b"\xff\x00"),
        ("7", b"7", 7),
    ],
)
def test_messages(recorder, message, payload, decoded):
    publish(message, broadcast=True)
    (notification,) = recorder.notifications
    assert (notification.payload, notification.message) == (payload, decoded)


def test_what_cannot_be_published_raises(recorder):
    with pytest.raises(TypeError):
        publish(object(), broadcast=True)
    with pytest.raises(ValueError, match="expire"):
        publish("a", broadcast=True, expire="7")
    assert recorder.notifications == []


def test_a_batch(recorder):
    with RedisPublisher(facility="import", users="john") as batch:
        batch.publish_message("a")
        batch.publish_message("b")
        assert recorder.notifications == []
    with contextlib.suppress(KeyError), batch:
        batch.publish_message("never")
        raise KeyError
    assert seen(recorder) == [("import", "user", "john", "a"), ("import", "user", "john", "b")]
    recorder.assert_notified(user="john", count=2)


def test_a_key_is_for_one_message(recorder):
    publish("a", users="john", key="1")
    publish("b", users=["john", "mary"], key="1")
    publish("c", users="john", key="2")
    publish("d", users="john")
    publish("d", users="john")
    assert [(each.name, each.message) for each in recorder.notifications] == [
        ("john", "a"), ("mary", "b"), ("john", "c"), ("john", "d"), ("john", "d"),
    ]  # fmt: skip


def test_with_the_commit(recorder, database):
    with transaction.atomic():
        publish("paid", users="john", on_commit=True)
        recorder.assert_not_notified()
    recorder.assert_notified(message="paid")
    with contextlib.suppress(KeyError), transaction.atomic():
        publish("rolled back", users="john", on_commit=True)
        raise KeyError
    recorder.assert_not_notified(message="rolled back")


def test_through_the_outbox(recorder, database):
    with transaction.atomic():
        publish("paid", users="john", outbox=True)
        assert recorder.notifications == []
    recorder.assert_notified(user="john", facility="orders", message="paid", count=1)
    assert not Message.objects.exists()


def test_users_who_change_are_told_to_nobody(recorder, database, caplog):
    john = User.objects.create(username="john")
    john.set_password("another")
    john.save()
    assert caplog.records == []
    assert recorder.notifications == []


def test_afterwards_all_is_as_before():
    before = (publishing.publish, publisher.publish, publisher.tops, get_channel_layer().remote)
    with pytest.raises(KeyError), record():
        raise KeyError
    assert before == (publishing.publish, publisher.publish, publisher.tops, get_channel_layer().remote)


def test_a_record_within_a_record(recorder):
    publish("outside", broadcast=True)
    with record() as inner:
        publish("inside", broadcast=True)
    assert [each.message for each in inner.notifications] == ["inside"]
    assert [each.message for each in recorder.notifications] == ["outside"]


# What is read back.


def test_the_last_message(recorder, request_of_john):
    publish("to all", broadcast=True)
    publish("to john", users="john")
    publish("not kept", users="john", expire=0)
    reader = RedisPublisher(facility="orders")
    assert reader.fetch_message(request_of_john, "orders", "user") == b"to john"
    assert reader.fetch_message(request_of_john, "orders", "broadcast") == b"to all"
    assert reader.fetch_message(request_of_john, "orders") == b"to john"
    assert reader.fetch_message(request_of_john, "orders", "session") is None
    assert reader.fetch_message(None, "news", "broadcast") is None


def test_the_history(recorder, with_settings):
    with_settings(WSLOOP={"FACILITIES": {"orders": {"size": 2}}})
    for number in range(3):
        publish(str(number), users="john", broadcast=True)
    publish("elsewhere", "news", users="john")
    history = RedisPublisher(facility="orders", users="john", broadcast=True).history()
    assert [entry.message.payload for entry in history] == [b"1", b"2"]
    assert [entry.message.offset for entry in history] == [2, 3]
    assert RedisPublisher(facility="news", users="john").history() == []


def test_tokens(recorder, with_settings, request_of_john):
    with_settings(WSLOOP={"FACILITIES": {"orders": {"size": 2}}})
    engine = Engine(libraries={"wsloop": "wsloop.templatetags.wsloop"})
    template = engine.from_string("{% load wsloop %}{% websocket_token 'orders' 'broadcast' 'user' %}")
    before = template.render(Context({"request": request_of_john}))
    publish("a", broadcast=True)
    after = template.render(Context({"request": request_of_john}))
    assert before and after and before != after


# What is asserted.


@pytest.fixture
def some(recorder):
    publish("hello", "news", broadcast=True)
    publish({"order": 7, "state": "paid"}, users="john", groups="staff")
    publish(b"\xff", users="john")
    publish("private", sessions="secret-key")
    return recorder


@pytest.mark.parametrize(
    "expected",
    [
        {},
        {"count": 4},
        {"user": "john", "count": 2},
        {"user": User(username="john"), "count": 2},
        {"user": "mary", "count": 0},
        {"group": "staff"},
        {"group": Group(name="staff"), "user": "john", "count": 1},
        {"session": "secret-key"},
        {"session": Session()},
        {"broadcast": True, "facility": "news", "message": "hello", "count": 1},
        {"broadcast": True, "message": b"hello"},
        {"message": {"state": "paid", "order": 7}, "count": 1},
        {"message": b"\xff"},
        {"facility": "orders", "count": 3},
    ],
)
def test_notified(some, expected):
    some.assert_notified(**expected)


@pytest.mark.parametrize(
    "expected",
    [
        {"user": "mary"},
        {"user": "john", "facility": "news"},
        {"user": "john", "broadcast": True},
        {"group": "john"},
        {"broadcast": True, "message": "hell"},
        {"message": {"order": 7}},
        {"message": ["hello"]},
        {"count": 3},
        {"user": "john", "count": 1},
    ],
)
def test_not_as_expected(some, expected):
    with pytest.raises(AssertionError):
        some.assert_notified(**expected)


@pytest.mark.parametrize(
    "unexpected",
    [{}, {"user": "john"}, {"user": "john", "broadcast": True}, {"facility": "news"}, {"message": b"hello"}],
)
def test_notified_against_expectation(some, unexpected):
    with pytest.raises(AssertionError):
        some.assert_not_notified(**unexpected)


@pytest.mark.parametrize(
    "unexpected",
    [{"user": "mary"}, {"group": "john"}, {"facility": "new"}, {"user": "john", "facility": "news"}, {"message": ""}],
)
def test_not_notified(some, unexpected):
    some.assert_not_notified(**unexpected)


def test_a_mistyped_name_is_an_error(recorder):
    with pytest.raises(TypeError, match="users"):
        recorder.assert_not_notified(users="john")


def test_words_of_a_failure(some):
    with pytest.raises(AssertionError) as raised:
        some.assert_notified(user="mary", group="staff", session="another-key", facility="orders", message={"a": 1})
    assert str(raised.value) == (
        'No message was published to group staff and session … and user mary on orders with the content {"a": 1}.'
        " Published messages:\n"
        "  news, broadcast: hello\n"
        '  orders, group staff: {"order": 7, "state": "paid"}\n'
        '  orders, user john: {"order": 7, "state": "paid"}\n'
        "  orders, user john: b'\\xff'\n"
        "  orders, session …: private"
    )
    with pytest.raises(
        AssertionError, match=r"^2 messages were published to user john instead of 1\. Published messages:"
    ):
        some.assert_notified(user="john", count=1)
    with pytest.raises(AssertionError, match=r"^No message was published to everybody on orders\. Published messages:"):
        some.assert_notified(broadcast=True, facility="orders", count=1)
    with pytest.raises(AssertionError, match=r"^1 message was published to everybody or user mary\."):
        some.assert_not_notified(broadcast=True, user="mary")
    with pytest.raises(AssertionError, match=r"^4 messages were published at all\."):
        some.assert_not_notified()


def test_session_keys_are_not_shown(some):
    assert "secret" not in repr(some.notifications)


def test_few_words_about_many_and_long_messages(recorder):
    with pytest.raises(AssertionError, match=r"^No message was published at all\. Nothing was published\.$"):
        recorder.assert_notified()
    for number in range(30):
        publish(f"{number} " + "x" * 1000, broadcast=True)
    with pytest.raises(AssertionError) as raised:
        recorder.assert_notified(user="john")
    lines = str(raised.value).splitlines()
    assert lines[0].endswith("30 messages were published, the last of them:")
    assert lines[1] == f"  orders, broadcast: 10 {'x' * 197}…"
    assert len(lines) == 21


def test_a_failure_tells_of_what_waits_for_a_commit(recorder, database):
    with transaction.atomic(), pytest.raises(AssertionError, match="captureOnCommitCallbacks"):
        publish("paid", users="john", on_commit=True)
        recorder.assert_notified()


# Test cases.


def run(case):
    """Run a test case and return the failures: pairs of test and text."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun
    return [(test.id().rpartition(".")[2], words) for test, words in result.failures + result.errors]


def test_a_test_case(database):
    class Case(NotificationsMixin, TestCase):
        @classmethod
        def setUpTestData(cls):
            publish("from the data", broadcast=True)

        def setUp(self):  # without super()
            publish("from the set-up", broadcast=True)

        def test_a(self):
            publish("a", users="john")
            self.assertNotified(user="john", message="a", count=1)
            self.assertNotified(count=2)
            self.assertNotNotified(message="from the data")
            assert [each.message for each in self.notifications] == ["from the set-up", "a"]

        def test_b(self):
            self.assertNotNotified(user="john")

        def test_commit(self):
            publish("a", users="john", on_commit=True)
            self.assertNotNotified(user="john")
            with self.captureOnCommitCallbacks(execute=True):
                publish("b", users="john", on_commit=True)
                publish("c", users="john", outbox=True)
            self.assertNotified(user="john", count=2)

        def test_failure(self):
            self.assertNotified(user="mary")

        def test_of_the_channel_layer(self):
            get_channel_layer().group_send("lobby", {"type": "said"})

    ((name, words),) = run(Case)
    assert name == "test_failure"
    assert "AssertionError: No message was published to user mary." in words
    assert "wsloop/testing" not in words  # the traceback begins with the test
    assert not isinstance(get_channel_layer().remote, Memory)
    connection.close()


def test_the_mixin_comes_first():
    with pytest.raises(TypeError, match=r"class Case\(NotificationsMixin, TestCase\)"):

        class Case(TestCase, NotificationsMixin):
            pass


def test_consumers_that_a_test_has_left(database):
    class Case(NotificationsMixin, TransactionTestCase):
        available_apps = None

        def test_a(self):
            WebsocketCommunicator(Greedy, "/").connect()

        def test_b(self):
            get_channel_layer().group_send("lobby", {"type": "said"})
            self.assertNotNotified()

        test_c = test_a

    class Greedy(WebsocketConsumer):
        groups = ["lobby"]

        def said(self, event):
            publish("said", broadcast=True)

    assert run(Case) == []


def test_consumers_publish_too(recorder):
    class Telling(WebsocketConsumer):
        def receive(self, text_data):
            publish(text_data, users=self.user.get_username() or "nobody")

    with WebsocketCommunicator(Telling, "/", user=AnonymousUser()) as socket:
        socket.connect()
        socket.send_to("hello")
        recorder.assert_notified(user="nobody", message="hello")


def test_the_recorder_takes_the_place_of_what_there_is():
    """The functions that the recorder replaces exist under these names, with these arguments."""
    for name in ("publish", "last_messages", "latest", "tops"):
        theirs = inspect.signature(getattr(publisher, name)).parameters
        ours = inspect.signature(getattr(Recorder(), name)).parameters
        assert list(theirs) == list(ours)
