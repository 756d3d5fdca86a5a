"""From a request to channels, through ws4redis's subscriber class and those that sites derive from it."""

import json
import types

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory
from ws4redis import settings as stock_settings
from ws4redis.redis_store import SELF, RedisMessage, RedisStore
from ws4redis.subscriber import RedisSubscriber

from wsloop import routing
from wsloop.backend import pool
from wsloop.facilities import subscriptions
from wsloop.facilities.policy import allowed
from wsloop.facilities.recording import RecordingClient, RecordingPubSub, RetainedRecorder, as_bytes
from wsloop.facilities.subscriptions import (
    Subscriber,
    subscriber_class,
)
from wsloop.publisher import RedisPublisher
from wsloop.refusals import Refused

POSSIBLE = Subscriber.subscription_channels + Subscriber.publish_channels


def request(path="/ws/news", user="john", query=None):
    made = RequestFactory().get(path, query)
    made.user = User(username=user) if user else None
    made.session = SessionStore() if user else None
    if user:
        made.session._session_key = "johns-key"
        made.session["ws4redis:memberof"] = ["chatters"]
    return made


def channels_of(cls, wanted=POSSIBLE, **options):
    """What a subscriber of this class listens and publishes to."""
    subscriber = cls(RecordingClient())
    subscriber.set_pubsub_channels(request(**options), list(wanted))
    return list(subscriber._subscription.channels), sorted(as_bytes(subscriber._publishers))


ALL = [
    b"unit:broadcast:news",
    b"unit:group:chatters:news",
    b"unit:user:john:news",
    b"unit:session:johns-key:news",
]


# Classes as sites write them. They know ws4redis only.


class Extra(RedisSubscriber):
    """Adds a channel."""

    def set_pubsub_channels(self, request, channels):
        super().set_pubsub_channels(request, channels)
        self._subscription.subscribe("extra:" + request.user.get_username(), b"extra:bytes")
        self._subscription.subscribe(["extra:in", "extra:list"])


class OldStyle(RedisSubscriber):
    """Calls its base class by name."""

    def set_pubsub_channels(self, request, channels):
        RedisSubscriber.set_pubsub_channels(self, request, channels)
        self._subscription.subscribe(self.get_prefix() + "old")

    def send_persisted_messages(self, websocket):
        RedisSubscriber.send_persisted_messages(self, websocket)
        websocket.send("old style")


class OfOurs(Subscriber):
    """Knows wsloop."""


class WithMixin(types.new_class("Mixin"), Extra):
    pass


class Patterns(RedisSubscriber):
    def set_pubsub_channels(self, request, channels):
        super().set_pubsub_channels(request, channels)
        self._subscription.psubscribe("unit:*")


class Handlers(RedisSubscriber):
    def set_pubsub_channels(self, request, channels):
        super().set_pubsub_channels(request, channels)
        self._subscription.subscribe(channel=print)


class Leaves(RedisSubscriber):
    def set_pubsub_channels(self, request, channels):
        super().set_pubsub_channels(request, channels)
        self._subscription.unsubscribe("unit:broadcast:news")


class OneByName(RedisSubscriber):
    """Leaves out ws4redis's class, and so finds what is behind it."""

    def publish_message(self, message, expire=None):
        super(RedisSubscriber, self).publish_message(message + b"!", expire=expire)


class Equal(RedisSubscriber):
    def publish_message(self, message, expire=None):
        super().publish_message(message, expire)


class InAPipeline(RedisSubscriber):
    """Publishes as the newest ws4redis documents it."""

    def publish_message(self, message, expire=None):
        self.pipeline_publish_message(message + b"!", expire, transaction=False)


class ServerStore(RedisStore):
    """What a publisher and a subscriber have in common: one more audience."""

    def _get_message_channels(
        self, request=None, facility="{facility}", broadcast=False, groups=(), users=(), sessions=(), server=False
    ):
        channels = super()._get_message_channels(
            request, facility, broadcast=broadcast, groups=groups, users=users, sessions=sessions
        )
        return [*channels, f"{self.get_prefix()}server:{facility}"] if server else channels

    def publish_message(self, message, expire=None):
        super().publish_message(message + b"!", expire)


class ServerSubscriber(RedisSubscriber, ServerStore):
    """Derives from both, and works its channels out by itself."""

    subscription_channels = [*RedisSubscriber.subscription_channels, "subscribe-server"]
    publish_channels = [*RedisSubscriber.publish_channels, "publish-server"]

    def set_pubsub_channels(self, request, channels):
        facility = request.path_info.replace("/ws/", "", 1)

        def wanted(verb):
            audiences = {f"{each}s": (f"{verb}-{each}" in channels and [SELF]) or [] for each in ("user", "group")}
            audiences |= {each: f"{verb}-{each}" in channels for each in ("broadcast", "server")}
            return self._get_message_channels(request=request, facility=facility, **audiences)

        self._publishers = set()
        for key in wanted("publish"):
            self._publishers.add(key)
        self._subscription = self._connection.pubsub()
        for key in wanted("subscribe"):
            self._subscription.subscribe(key)


class FromStore(RedisStore):
    """What ws4redis's documentation proposes: "extend ``ws4redis.redis_store.RedisStore``"."""

    subscription_channels = RedisSubscriber.subscription_channels
    publish_channels = RedisSubscriber.publish_channels

    def __init__(self, connection):
        self._subscription = None
        super().__init__(connection)

    def parse_response(self):
        return self._subscription.parse_response()

    def set_pubsub_channels(self, request, channels):
        facility = request.path_info.replace("/ws/", "", 1)
        self._publishers = set(
            self._get_message_channels(request=request, facility=facility, broadcast="publish-broadcast" in channels)
        )
        self._subscription = self._connection.pubsub()
        for key in self._get_message_channels(
            request=request, facility=facility, users=("subscribe-user" in channels and [SELF]) or []
        ):
            self._subscription.subscribe(key)

    def send_persited_messages(self, websocket):
        websocket.send("never called since ws4redis 0.5")

    def get_file_descriptor(self):
        return self._subscription.connection and self._subscription.connection._sock.fileno()

    def release(self):
        if self._subscription and self._subscription.subscribed:
            self._subscription.unsubscribe()
            self._subscription.reset()


NotASubscriber = dict


def path(cls):
    return f"{__name__}.{cls.__name__}"


@pytest.fixture(autouse=True)
def stock_prefix(monkeypatch):
    monkeypatch.setattr(stock_settings, "WS4REDIS_PREFIX", "unit")


# Which class.


@pytest.mark.parametrize("name", ["ws4redis.subscriber.RedisSubscriber", "wsloop.facilities.subscriptions.Subscriber"])
def test_without_a_class_of_the_site_it_is_ours(name):
    assert subscriber_class(name) is Subscriber


def test_a_class_of_ours_is_taken_as_it_is():
    assert subscriber_class(path(OfOurs)) is OfOurs


@pytest.mark.parametrize("cls", [Extra, OldStyle, WithMixin])
def test_a_class_of_the_site_gets_the_mended_base_behind_it(cls):
    made = subscriber_class(path(cls))
    assert made is subscriber_class(path(cls))
    assert issubclass(made, cls)
    assert made.__name__ == cls.__name__
    order = made.__mro__
    assert order.index(cls) < order.index(Subscriber) < order.index(RedisSubscriber)


@pytest.mark.parametrize("name", ["nowhere.Subscriber", f"{__name__}.Nobody", "Subscriber"])
def test_a_class_that_cannot_be_imported_is_refused(name):
    with pytest.raises(ImproperlyConfigured, match=rf"WSLOOP\['SUBSCRIBER'\] = '{name}' cannot be imported: "):
        subscriber_class(name)


@pytest.mark.parametrize("name", [f"{__name__}.NotASubscriber", f"{__name__}.request", f"{__name__}.ALL"])
def test_what_is_no_subscriber_is_refused(name):
    with pytest.raises(ImproperlyConfigured, match="is not a subclass of ws4redis's RedisSubscriber"):
        subscriber_class(name)


# Which channels.


def test_what_is_asked_for_is_subscribed_and_published_to():
    assert channels_of(Subscriber) == (ALL, sorted(ALL))
    assert channels_of(Subscriber, ["subscribe-user", "publish-broadcast"]) == ([ALL[2]], [ALL[0]])
    assert channels_of(Subscriber, []) == ([], [])
    assert channels_of(Subscriber, {"subscribe-session"}) == ([ALL[3]], [])


def test_a_visitor_without_session_has_broadcast_only():
    assert channels_of(Subscriber, user=None) == ([ALL[0]], [ALL[0]])


@pytest.mark.parametrize(
    ("url", "facility"),
    [
        ("/ws/a/b/c", "a/b/c"),
        ("/ws/", ""),
        ("/ws/ws/news", "ws/news"),
        ("/ws/a/ws/b", "a/ws/b"),
        ("/ws/gr%C3%BCn", "grün"),
        ("/ws/a:b", "a:b"),
    ],
)
def test_the_facility_is_what_follows_the_websocket_url(url, facility):
    assert routing.facility(request(url)) == facility
    assert channels_of(Subscriber, ["subscribe-broadcast"], path=url)[0] == [f"unit:broadcast:{facility}".encode()]


def test_the_facility_behind_another_websocket_url(with_settings):
    with_settings(WEBSOCKET_URL="/sockets/")
    assert routing.facility(request("/sockets/news")) == "news"


@pytest.mark.parametrize("cls", [Extra, WithMixin])
def test_a_class_may_subscribe_several_times(cls):
    listens, publishes = channels_of(subscriber_class(path(cls)))
    assert listens == [*ALL, b"extra:john", b"extra:bytes", b"extra:in", b"extra:list"]
    assert publishes == sorted(ALL)


def test_a_class_that_calls_its_base_by_name():
    listens, publishes = channels_of(subscriber_class(path(OldStyle)))
    assert sorted(listens) == sorted([*ALL, b"unit:old"])
    assert publishes == sorted(ALL)


def test_a_class_may_take_channels_back():
    assert channels_of(subscriber_class(path(Leaves)))[0] == ALL[1:]


def test_a_base_class_that_publisher_and_subscriber_share():
    cls = subscriber_class(path(ServerSubscriber))
    asked = ["subscribe-server", "publish-server", "subscribe-user", "publish-broadcast"]
    listens, publishes = channels_of(cls, asked)
    assert listens == [ALL[2], b"unit:server:news"]
    assert publishes == [ALL[0], b"unit:server:news"]
    assert cls(RecordingClient()).publishes_itself
    assert not cls(RecordingClient()).releases_itself
    assert channels_of(cls, []) == ([], [])


def test_a_class_derived_from_the_store_alone():
    cls = subscriber_class(path(FromStore))
    assert channels_of(cls, ["subscribe-user", "publish-broadcast"]) == ([ALL[2]], [ALL[0]])
    subscriber = cls(RecordingClient())
    subscriber.set_pubsub_channels(request(), [])
    subscriber.send_persisted_messages(RetainedRecorder())
    assert subscriber.releases_itself
    subscriptions.release(subscriber)


@pytest.mark.parametrize(("cls", "what"), [(Patterns, "patterns"), (Handlers, "handlers for single channels")])
def test_what_the_shared_subscription_cannot_do_is_refused(cls, what):
    with pytest.raises(ImproperlyConfigured, match=rf"WSLOOP\['SUBSCRIBER'\]: .*{what} are not supported"):
        channels_of(subscriber_class(path(cls)))


def test_release_of_ws4redis_works():
    subscriber = Subscriber(RecordingClient())
    subscriber.release()
    subscriber.set_pubsub_channels(request(), POSSIBLE)
    subscriber.release()
    assert subscriber.get_file_descriptor() is None


def test_the_recorded_subscription():
    subscription = RecordingPubSub()
    subscription.subscribe("a", b"b", ["c"], ("d",), {"a"})
    assert list(subscription.channels) == [b"a", b"b", b"c", b"d"]
    subscription.unsubscribe("a", b"unknown")
    assert list(subscription.channels) == [b"b", b"c", b"d"]
    subscription.unsubscribe()
    assert not subscription.channels
    subscription.subscribe("a")
    subscription.reset()
    assert not subscription.channels


# What the query asks for.


@pytest.mark.parametrize(
    ("query", "names", "echo"),
    [
        ("", [], False),
        ("subscribe-broadcast&publish-user", ["subscribe-broadcast", "publish-user"], False),
        ("subscribe-broadcast=yes&echo=no", ["subscribe-broadcast"], True),
        (
            "Subscribe-Broadcast&SUBSCRIBE-BROADCAST&%20subscribe-user%20",
            ["subscribe-broadcast", "subscribe-user"],
            False,
        ),
        ("subscribe-everything&token=1&subscribe", [], False),
        ("ECHO", [], True),
    ],
)
def test_the_query(query, names, echo):
    asked = request(f"/ws/news?{query}")
    assert subscriptions.requested(asked, POSSIBLE) == (names, echo)


@pytest.mark.parametrize("channels", [["subscribe-group"], ["subscribe-user"], ["subscribe-broadcast", "publish-user"]])
def test_a_facility_with_a_colon_cannot_have_users_or_groups(channels):
    with pytest.raises(Refused, match="A facility with a colon cannot have the audiences user and group") as caught:
        subscriptions.check_facility("admins:news", channels)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("facility", "channels"),
    [
        ("admins:news", ["subscribe-broadcast", "publish-session", "subscribe-session"]),
        ("admins:news", []),
        ("admins/news", ["subscribe-user", "publish-group"]),
    ],
)
def test_all_else_is_not_ambiguous(facility, channels):
    subscriptions.check_facility(facility, channels)


# What is kept, and what is published.


@pytest.fixture
def news(shared_redis, redis_client, facility):
    """A facility of this test in which a message is kept for everybody and one for john."""
    redis_client.set(f"unit:user:john:{facility}", "for john", ex=60)
    redis_client.set(f"unit:broadcast:{facility}", b"\xff", ex=60)
    return facility


def test_kept_messages_are_recorded_with_their_channels(news, redis_client):
    subscriber = Subscriber(RecordingClient())
    subscriber.set_pubsub_channels(request(f"/ws/{news}"), POSSIBLE)
    recorder = RetainedRecorder()
    subscriber.send_persisted_messages(recorder)
    assert recorder.sent == [
        (f"unit:broadcast:{news}".encode(), b"\xff"),
        (f"unit:user:john:{news}".encode(), b"for john"),
    ]


def test_without_channels_redis_is_not_asked(use_redis):
    subscriber = Subscriber(RecordingClient())
    subscriber.set_pubsub_channels(request(), [])
    recorder = RetainedRecorder()
    subscriber.send_persisted_messages(recorder)
    assert recorder.sent == []
    assert not hasattr(pool._holder(), "client")


def test_kept_messages_of_a_class_that_calls_its_base_by_name(news):
    subscriber = subscriber_class(path(OldStyle))(RecordingClient())
    subscriber.set_pubsub_channels(request(f"/ws/{news}"), ["subscribe-user"])
    recorder = RetainedRecorder()
    subscriber.send_persisted_messages(recorder)
    assert [payload for _, payload in recorder.sent] == [b"for john", b"old style"]
    assert recorder.sent[-1][0] is None, "who calls send() as in ws4redis does not say which channel"


@pytest.mark.parametrize("message", ["text", b"text", bytearray(b"text"), RedisMessage("text")])
def test_the_recorder_takes_what_a_websocket_takes(message):
    recorder = RetainedRecorder()
    recorder.send(message)
    recorder.send(message, True)
    recorder.send(message, binary=False)
    assert recorder.sent == [(None, b"text")] * 3
    assert recorder.closed is False


@pytest.mark.parametrize("cls", [Subscriber, Extra, OldStyle])
def test_without_a_socket_publishing_goes_to_redis(shared_redis, redis_client, facility, cls):
    subscriber = subscriber_class(path(cls) if cls is not Subscriber else "wsloop.facilities.subscriptions.Subscriber")(
        RecordingClient()
    )
    subscriber.set_pubsub_channels(request(f"/ws/{facility}"), ["publish-broadcast"])
    subscriber.publish_message({"n": 1}, expire=10)
    assert redis_client.get(f"unit:broadcast:{facility}") == '{"n": 1}'
    assert 0 < redis_client.ttl(f"unit:broadcast:{facility}") <= 10


def test_of_an_open_socket_publishing_goes_through_the_hook(with_settings):
    with_settings(WS4REDIS_EXPIRE=7)
    published = []
    client = RecordingClient()
    client.publish_hook = lambda channels, payload, expire: published.append((set(channels), payload, expire))
    subscriber = Subscriber(client)
    subscriber._publishers = {"one", b"two"}
    subscriber.publish_message("text")
    subscriber.publish_message({"n": 1}, expire=0)
    client.publish("three", "bare")
    assert published == [
        ({b"one", b"two"}, b"text", 7),
        ({b"one", b"two"}, b'{"n": 1}', 0),
        ({b"three"}, b"bare", 0),
    ]


@pytest.mark.parametrize("cls", [OneByName, InAPipeline, ServerSubscriber])
def test_a_changed_message_comes_back_to_its_sender(shared_redis, front, facility, with_settings, cls):
    """As in ws4redis, whose loop compares what comes with what was sent last."""
    with_settings(WS4REDIS_SUBSCRIBER=path(cls), WS4REDIS_ALLOWED_CHANNELS=None, WSLOOP={"CLIENTS_MAY_PUBLISH": True})
    sender, other = (front.connect(f"{facility}?{BOTH}") for _ in range(2))
    sender.text("one")
    assert sender.message() == other.message() == "one!"


def test_an_equal_message_does_not_come_back_to_its_sender(shared_redis, front, facility, with_settings):
    with_settings(WS4REDIS_SUBSCRIBER=path(Equal), WS4REDIS_ALLOWED_CHANNELS=None, WSLOOP={"CLIENTS_MAY_PUBLISH": True})
    sender, other = (front.connect(f"{facility}?{BOTH}") for _ in range(2))
    sender.text("one")
    assert other.message() == "one"
    other.text("two")
    assert sender.message() == "two"


def test_every_other_command_of_the_client_is_that_of_the_process(shared_redis, redis_client, facility):
    client = RecordingClient()
    assert client.set(facility, "value", ex=10)
    assert client.get(facility) == b"value"
    assert redis_client.get(facility) == "value"
    assert client.pipeline().connection_pool is pool.client().connection_pool


def test_the_mended_methods_are_those_of_the_store():
    assert Subscriber._get_message_channels(Subscriber(None), None, "news", users="john") == ["unit:user:john:news"]
    assert Subscriber._get_message_channels(Subscriber(None), facility="news", users=[SELF]) == []


@pytest.mark.parametrize("answer", [None, "subscribe-user", b"subscribe-user", 7, [7], [None], {"a": 1}.items()])
def test_a_policy_that_answers_with_no_list_of_names_is_an_error(answer):
    with pytest.raises(TypeError, match="WS4REDIS_ALLOWED_CHANNELS must return a list of those names that it allows"):
        allowed(answer)


@pytest.mark.parametrize("answer", [[], ["a"], ("a",), {"a"}, {"a": 1}, (each for each in ["a"]), iter([])])
def test_a_policy_may_answer_with_any_collection_of_names(answer):
    assert set(allowed(answer)) <= {"a"}


# Nobody publishes over a socket unless the site says so: by a policy, or by CLIENTS_MAY_PUBLISH.

BOTH = "subscribe-broadcast&publish-broadcast"


@pytest.fixture
def without_policy(shared_redis, with_settings):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=None)


def next_of(peer, kind):
    while (frame := json.loads(peer.message()))["type"] != kind:
        pass
    return frame


def test_a_bare_socket_listens_and_publishes_nothing(without_policy, front, facility, caplog):
    writer, reader = (front.connect(f"{facility}?{BOTH}") for _ in range(2))
    writer.text("from a stranger")
    RedisPublisher(facility=facility, broadcast=True).publish_message("of the site")
    assert [each.message() for each in (writer, reader)] == ["of the site"] * 2
    line, _ = [each.getMessage() for each in caplog.records]
    assert f"a client wants to publish to {facility}, and no policy allows it" in line
    assert "set WSLOOP['POLICY'] to a function" in line


@pytest.mark.parametrize("query", ["publish-broadcast", "publish-user&publish-group"])
def test_who_wants_nothing_else_is_refused(without_policy, front, facility, query):
    answer = front.call(f"{facility}?{query}")
    assert answer.status == 403
    assert answer.body == b"This site lets no client publish over a socket.\n"


def test_a_socket_of_v1_is_told(without_policy, front, facility):
    peer = front.connect(f"{facility}?{BOTH}", HTTP_SEC_WEBSOCKET_PROTOCOL="wsloop.v1")
    assert next_of(peer, "welcome")["subscribed"] == ["broadcast"]
    peer.text('{"type": "publish", "data": "x", "id": 7}')
    assert next_of(peer, "error")["code"] == "refused"


def test_a_page_is_told(without_policy, front, facility):
    peer = front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL="wsloop.v1")
    asked = {"type": "subscribe", "id": 1, "facility": facility, "publish": ["broadcast"]}
    peer.text(json.dumps(asked))
    assert next_of(peer, "error")["reason"] == "This site lets no client publish over a socket."
    peer.text(json.dumps(asked | {"audiences": ["broadcast"]}))
    while next_of(peer, "welcome")["facility"] != facility:  # the first is that of the page
        pass
    peer.text(json.dumps({"type": "publish", "id": 2, "facility": facility, "data": "x"}))
    assert next_of(peer, "error")["code"] == "refused"


def test_what_is_posted_is_refused(without_policy, front, facility):
    body = b'{"type": "publish", "data": "x", "id": 1}'
    headers = {"HTTP_ACCEPT": "application/json", "content_type": "application/json"}
    answer = front.call(f"{facility}?publish-broadcast", method="POST", body=body, **headers)
    assert (answer.status, json.loads(answer.body)["code"]) == (403, "refused")


def test_one_setting_lets_everybody_publish(without_policy, front, facility, with_settings, caplog):
    with_settings(WSLOOP={"CLIENTS_MAY_PUBLISH": True})
    writer, reader = (front.connect(f"{facility}?{BOTH}") for _ in range(2))
    writer.text("from a stranger")
    assert reader.message() == "from a stranger"
    assert caplog.text == ""
