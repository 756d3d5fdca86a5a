"""The WSGI callable, on a real Redis and real sockets; the server in front hands them over as uWSGI does."""

import contextlib
import gc
import itertools
import json
import logging
import pickle
import select
import sys
import time
import weakref

import gevent
import pytest
import redis.exceptions
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import DisallowedHost, ImproperlyConfigured, PermissionDenied, TooManyFieldsSent
from django.db import connections, transaction
from django.test import RequestFactory
from django.urls import path, re_path
from gevent import monkey
from gevent.event import Event
from websockets.frames import Close, Opcode
from ws4redis.subscriber import RedisSubscriber

from testbed.processes import wait_until
from tests.unit.front import PairTakeover, nothing_is_left
from tests.unit.peer import WAIT, close_frame, masked, turn
from wsloop import db, engine, layers, opening, presence, stages, tokens
from wsloop.backend import history, pool
from wsloop.consumers import AsyncWebsocketConsumer, WebsocketConsumer
from wsloop.delivery import broker
from wsloop.delivery.broker import Broker, Unavailable
from wsloop.exceptions import Disconnected
from wsloop.facilities import subscriptions
from wsloop.facilities.recovery import Recovery
from wsloop.layers import get_channel_layer
from wsloop.opening import Opening
from wsloop.publisher import RedisPublisher
from wsloop.refusals import Refused
from wsloop.rejection import refusal
from wsloop.runtime.handlers import GreenletRunner as Runner
from wsloop.server import WebsocketServer
from wsloop.sockets import servers, takeover, uwsgi, websocket
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub
from wsloop.store import RedisMessage

OLD_KEY = settings.SECRET_KEY


@pytest.fixture
def publish(shared_redis, facility):
    """Publish to everybody who listens to the facility of this test."""
    return RedisPublisher(facility=facility, broadcast=True).publish_message


@pytest.fixture
def channel(facility):
    return f"unit:broadcast:{facility}"


# Open means subscribed.


def test_the_101_goes_out_when_redis_has_subscribed(front, publish, redis_client, facility, channel):
    subscribed = []
    front.on_101 = lambda: subscribed.append(redis_client.execute_command("PUBSUB", "NUMSUB", channel)[1])
    answer = front.call(f"{facility}?subscribe-broadcast")
    assert answer.status == 101
    assert answer.headers == {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    }
    assert answer.body == b""
    assert subscribed == [1]
    publish("hello")
    assert answer.peer.message() == "hello"


def test_what_is_published_at_the_101_arrives(front, publish, facility):
    front.on_101 = lambda: publish("at the 101", expire=0)
    assert front.connect(f"{facility}?subscribe-broadcast").message() == "at the 101"


def test_the_kept_message_comes_first_and_once(front, publish, facility):
    publish("kept")
    peer = front.connect(f"{facility}?subscribe-broadcast")
    publish("live")
    assert peer.messages(2) == ["kept", "live"]


class Meanwhile(RedisSubscriber):
    """Things that happen while the kept messages are read."""

    before = after = staticmethod(lambda: None)

    def send_persisted_messages(self, websocket):
        self.before()
        super().send_persisted_messages(websocket)
        self.after()


@pytest.fixture
def meanwhile(with_settings, monkeypatch):
    with_settings(WS4REDIS_SUBSCRIBER=f"{__name__}.Meanwhile")

    def set_(**hooks):
        for name, hook in hooks.items():
            monkeypatch.setattr(Meanwhile, name, staticmethod(hook))

    return set_


def test_what_is_published_while_the_socket_opens_arrives_once_and_in_order(front, publish, facility, meanwhile):
    publish("before")
    meanwhile(before=lambda: publish("same"), after=lambda: (publish("same"), publish("after", expire=0)))
    peer = front.connect(f"{facility}?subscribe-broadcast")
    publish("live")
    assert peer.messages(4) == ["same", "same", "after", "live"]


def test_an_equal_message_that_is_published_at_the_101_is_another_one(front, publish, facility):
    publish("same")
    front.on_101 = lambda: (publish("same"), engine.engine().broker.sync())
    peer = front.connect(f"{facility}?subscribe-broadcast")
    publish("live")
    assert peer.messages(3) == ["same", "same", "live"]


def test_with_nothing_kept_what_is_published_meanwhile_arrives(front, publish, facility, meanwhile):
    meanwhile(before=lambda: publish("one", expire=0), after=lambda: publish("two"))
    peer = front.connect(f"{facility}?subscribe-broadcast")
    publish("live")
    assert peer.messages(3) == ["one", "two", "live"]


def test_more_than_a_new_connection_can_hold_is_503(front, publish, facility, meanwhile, with_settings):
    with_settings(WSLOOP={"MAX_QUEUED_BYTES": 1000})
    front.connect(facility)
    meanwhile(after=lambda: [publish("x" * 300) for _ in range(4)])
    answer = front.call(f"{facility}?subscribe-broadcast")
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "5"
    assert len(engine.engine().hub) == 1
    assert not engine.engine().hub._joining


def test_a_socket_that_listens_to_nothing_opens_too(front, shared_redis, facility):
    peer = front.connect(facility)
    peer.send(masked(Opcode.PING, b"there?"))
    assert peer.frame().data == b"there?"


def test_sockets_cost_no_redis_connections(front, own_redis, facility):
    app = WebsocketServer()
    with own_redis.client() as redis:
        before = len(redis.client_list())
        greenlets = [front.spawn(f"{facility}{n}?subscribe-broadcast", app=app) for n in range(60)]
        gevent.joinall(greenlets, timeout=WAIT, raise_error=True)
        assert [greenlet.value.status for greenlet in greenlets] == [101] * 60
        assert len(app.websockets) == 60
        assert len(redis.client_list()) - before <= 3


def test_who_leaves_leaves_nothing(front, publish, redis_client, facility, channel):
    peers = [front.connect(f"{facility}?subscribe-broadcast&publish-broadcast") for _ in range(3)]
    peers[0].send(close_frame())
    assert peers[0].closing() == 1000
    for peer in peers:
        peer.close()
    wait_until(nothing_is_left, what="the end of the connections")
    wait_until(lambda: not redis_client.execute_command("PUBSUB", "NUMSUB", channel)[1], what="UNSUBSCRIBE")


# What a handshake keeps.


def test_nothing_keeps_the_request_alive_after_the_101(front, publish, facility, with_settings):
    references = []

    def policy(request, channels):
        references.append(weakref.ref(request))
        return channels

    with_settings(WS4REDIS_ALLOWED_CHANNELS=policy)
    front.connect(facility)  # with what is made once for all sockets
    gc.collect()
    gc.disable()
    try:
        peer = front.connect(f"{facility}?subscribe-broadcast&publish-broadcast")
        assert references[-1]() is None
        if sys.version_info < (3, 11):
            gc.collect()  # what asks Django for its connections is in a cycle there, by way of contextlib and asgiref
        assert front.environ() is None
    finally:
        gc.enable()
    publish("hello")
    assert peer.message() == "hello"


@pytest.fixture
def databases_seen(with_settings, database):
    """A policy that asks the database; the connections that it used."""
    seen = []

    def policy(request, channels):
        assert User.objects.count() >= 0
        seen.append(connections["default"])
        assert seen[-1].connection is not None
        if request.path_info.endswith("forbidden"):
            raise PermissionDenied
        return channels

    with_settings(WS4REDIS_ALLOWED_CHANNELS=policy)
    return seen


@pytest.mark.parametrize(("path", "status"), [("news?subscribe-broadcast", 101), ("forbidden", 403)])
def test_database_connections_are_closed(front, shared_redis, databases_seen, path, status):
    assert front.call(path).status == status
    assert [connection.connection for connection in databases_seen] == [None]


def test_but_not_inside_a_transaction_of_a_test(database):
    with transaction.atomic():
        db.close_databases()
        assert User.objects.count() == 0
    db.close_databases()
    assert connections["default"].connection is None


# Who may do what.


def test_every_audience_of_a_user(front, shared_redis, facility, signed_in):
    query = "subscribe-broadcast&subscribe-user&subscribe-group&subscribe-session"
    peer = front.connect(f"{facility}?{query}", HTTP_COOKIE=signed_in.cookie)
    visitor = front.connect(f"{facility}?{query}")
    for audience in ({"users": "john"}, {"groups": "chatters"}, {"sessions": signed_in.session_key}):
        RedisPublisher(facility=facility, **audience).publish_message(next(iter(audience)))
    RedisPublisher(facility=facility, users="mary", groups="staff", sessions="another").publish_message("for others")
    RedisPublisher(facility=facility, broadcast=True).publish_message("everybody")
    assert peer.messages(4) == ["users", "groups", "sessions", "everybody"]
    assert visitor.message() == "everybody"


def test_a_socket_signs_nobody_out_while_the_secret_key_is_changed(signed_in, with_settings):
    with_settings(SECRET_KEY="another, longer than fifty characters in all, no less", SECRET_KEY_FALLBACKS=[OLD_KEY])
    request = RequestFactory(HTTP_COOKIE=signed_in.cookie).get("/ws/news")
    WebsocketServer().process_request(request)
    assert request.user.get_username() == "john"
    assert request.session.session_key == signed_in.session_key
    assert SessionStore().exists(signed_in.session_key), "the browser's cookie still names a session"


def test_the_policy_decides(front, publish, facility, with_settings):
    asked = []

    def policy(request, channels):
        asked.append(channels)
        return (channel for channel in channels if not channel.startswith("publish-"))

    with_settings(WS4REDIS_ALLOWED_CHANNELS=policy)
    peer = front.connect(f"{facility}?subscribe-broadcast&publish-broadcast&echo")
    peer.text("not allowed")
    turn()
    publish("end")
    assert peer.message() == "end"
    assert asked == [["subscribe-broadcast", "publish-broadcast"]]


def authenticate(request):
    request.user = User(username=request.GET["token"])
    request.session = None


def test_the_site_may_authenticate_by_itself(front, shared_redis, facility, with_settings):
    with_settings(WS4REDIS_PROCESS_REQUEST=f"{__name__}.authenticate")
    peer = front.connect(f"{facility}?subscribe-user&token=mary")
    RedisPublisher(facility=facility, users="mary").publish_message("hello, mary")
    assert peer.message() == "hello, mary"


def test_a_subprotocol_is_answered(front, shared_redis, facility):
    class Site(WebsocketServer):
        subprotocols = ("v2", "v1")

    for offered, chosen in (("v1, v2", "v2"), ("v1", "v1"), ("other", None), (None, None)):
        headers = {} if offered is None else {"HTTP_SEC_WEBSOCKET_PROTOCOL": offered}
        assert front.call(facility, app=Site(), **headers).headers.get("Sec-WebSocket-Protocol") == chosen


# Refusals.


def raising(error):
    def policy(request, channels):
        raise error

    return policy


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"method": "PUT"}, 405, "opened with a GET request"),
        ({"method": "POST"}, 415, "must be application/json"),
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, 505, "needs HTTP/1.1"),
        ({"HTTP_UPGRADE": ""}, 426, "This address is a WebSocket"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, 426, "version 13"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "short"}, 400, "Sec-WebSocket-Key"),
        ({"HTTP_ORIGIN": "http://elsewhere.example"}, 403, "Pages of another site"),
        ({"HTTP_HOST": "elsewhere.example"}, 400, "ALLOWED_HOSTS"),
        ({"path": "a:b?subscribe-user"}, 400, "facility with a colon"),
    ],
)
def test_refusals_before_the_101(front, shared_redis, request_, status, words):
    answer = front.call(request_.pop("path", "news?subscribe-broadcast"), **request_)
    assert answer.status == status
    assert words in answer.body.decode()
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert answer.headers["Cache-Control"] == "no-store"
    assert engine.engine().broker._reader is None, "no Redis is needed to refuse it"


def test_the_answer_to_head_has_the_headers_of_a_refusal_and_no_body(front, shared_redis):
    refusals = [front.call("news", method=method) for method in ("HEAD", "PUT")]
    assert [each.status for each in refusals] == [405, 405]
    assert refusals[0].headers == refusals[1].headers
    assert [len(each.body) for each in refusals] == [0, int(refusals[0].headers["Content-Length"])]


def test_a_refusal_for_the_protocol_keeps_its_headers(front, shared_redis):
    assert front.call("news", HTTP_UPGRADE="").headers["Sec-WebSocket-Version"] == "13"
    assert front.call("news", method="PUT").headers["Allow"] == "GET"


def test_permission_denied_is_403_without_its_text(front, shared_redis, with_settings):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=raising(PermissionDenied("a secret")))
    answer = front.call("news")
    assert answer.status == 403
    assert answer.body == b"This site does not allow you to open this WebSocket. Sign in, perhaps.\n"


def test_a_crash_of_the_policy_is_500_without_its_text_and_a_log_entry(front, shared_redis, with_settings, caplog):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=raising(RuntimeError("a secret")))
    answer = front.call("news")
    assert answer.status == 500
    assert answer.body == b"The WebSocket could not be set up; the site's log says why.\n"
    assert "RuntimeError: a secret" in caplog.text
    assert "raise error" in caplog.text, "the traceback"


class Patterns(RedisSubscriber):
    def set_pubsub_channels(self, request, channels):
        super().set_pubsub_channels(request, channels)
        self._subscription.psubscribe("everything:*")


def test_a_subscriber_that_wants_the_impossible_is_500_and_a_log_entry(front, shared_redis, with_settings, caplog):
    with_settings(WS4REDIS_SUBSCRIBER=f"{__name__}.Patterns")
    assert front.call("news").status == 500
    assert "patterns are not supported" in caplog.text


def test_a_server_that_cannot_hand_over_is_501_with_what_to_do(front, shared_redis, monkeypatch, caplog):
    monkeypatch.undo()
    answer = front.call("news")
    assert answer.status == 501
    assert b"run the site with uWSGI, with gunicorn -k gevent, or with `manage.py runserver`" in answer.body
    assert "refused" in caplog.text


def test_without_redis_it_is_503_and_works_again_when_redis_is_back(front, own_redis, facility, monkeypatch):
    monkeypatch.setattr(broker, "LONGEST_PAUSE", 0.1)
    peer = front.connect(f"{facility}?subscribe-broadcast")
    own_redis.kill()
    answer = front.call(f"{facility}?subscribe-broadcast")
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.body == b"Messages cannot be delivered at the moment. Try again in a few seconds.\n"
    own_redis.start()
    wait_until(lambda: engine.engine().broker._connection, what="the subscription")
    other = front.connect(f"{facility}?subscribe-broadcast")
    RedisPublisher(facility=facility, broadcast=True).publish_message("again")
    assert [peer.message(), other.message()] == ["again", "again"]


class NoHistory(RedisSubscriber):
    def send_persisted_messages(self, websocket):
        raise redis.exceptions.ConnectionError("password: a secret")


def test_an_error_of_redis_in_the_sites_subscriber_is_503(front, shared_redis, facility, with_settings):
    with_settings(WS4REDIS_SUBSCRIBER=f"{__name__}.NoHistory")
    answer = front.call(f"{facility}?subscribe-broadcast")
    assert answer.status == 503
    assert b"secret" not in answer.body
    wait_until(nothing_is_left, what="the handshake leaving")


def test_a_client_that_hung_up_before_the_101_leaves_nothing(front, shared_redis, facility):
    answer = front.call(f"{facility}?subscribe-broadcast&publish-broadcast", hang_up=True)
    assert answer.body == b""
    assert nothing_is_left()


def test_an_error_after_the_101_ends_the_connection(front, shared_redis, facility, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("an error that should not be")

    monkeypatch.setattr(Recovery, "first_payloads", broken)
    answer = front.call(f"{facility}?subscribe-broadcast")
    assert answer.status == 101
    assert answer.peer.frame() is None
    assert "Could not open a WebSocket" in caplog.text
    assert nothing_is_left()


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (Refused(400, "a reason"), 400, "a reason"),
        (PermissionDenied("a secret"), 403, "Sign in, perhaps"),
        (DisallowedHost("a secret"), 400, "ALLOWED_HOSTS"),
        (TooManyFieldsSent("a secret"), 400, "too many parameters"),
        (takeover.Unsupported("use another option"), 501, "use another option"),
        (Unavailable("a secret"), 503, "Try again"),
        (redis.exceptions.TimeoutError("a secret"), 503, "Try again"),
        (redis.exceptions.AuthenticationError("a secret"), 503, "Try again"),
        (ImproperlyConfigured("a secret"), 500, "the site's log says why"),
        (KeyError("a secret"), 500, "the site's log says why"),
    ],
)
def test_what_the_client_is_told_of_each_error(error, status, words):
    told = refusal(error)
    assert told.status == status
    assert words in told.reason
    assert "secret" not in told.reason
    assert ("Retry-After" in dict(told.headers)) == (status == 503)


# What sockets send.


QUERY = "subscribe-broadcast&publish-broadcast"


def test_a_message_goes_to_all_others_and_with_echo_to_the_sender(front, publish, facility):
    sender = front.connect(f"{facility}?{QUERY}")
    echoing = front.connect(f"{facility}?{QUERY}&echo")
    listener = front.connect(f"{facility}?subscribe-broadcast")
    sender.text("one")
    assert echoing.message() == listener.message() == "one"
    echoing.text("two")
    assert [peer.message() for peer in (sender, echoing, listener)] == ["two"] * 3


def test_only_the_own_message_is_held_back_never_an_equal_one(front, publish, facility):
    peers = [front.connect(f"{facility}?{QUERY}") for _ in range(2)]
    for _ in range(20):
        for peer in peers:
            peer.text("same")
        publish("same")
    for peer in peers:
        assert peer.messages(40) == ["same"] * 40, "20 of the other one and 20 of the publisher"
    publish("end")
    for peer in peers:
        assert peer.message() == "end"


def test_a_message_is_kept_as_the_last_one(front, publish, redis_client, facility, channel, with_settings):
    with_settings(WS4REDIS_EXPIRE=50)
    sender, other = (front.connect(f"{facility}?{QUERY}") for _ in range(2))
    sender.text("kept")
    assert other.message() == "kept"
    assert redis_client.get(channel) == "kept"
    assert 0 < redis_client.ttl(channel) <= 50
    assert front.connect(f"{facility}?subscribe-broadcast").message() == "kept"


def test_text_and_binary(front, publish, facility):
    sender, other = (front.connect(f"{facility}?{QUERY}") for _ in range(2))
    sender.send(masked(Opcode.BINARY, b"\xff\x00"), masked(Opcode.TEXT, "grün".encode()))
    assert other.messages(2) == [b"\xff\x00", "grün"]


def test_the_heartbeat_of_a_client_is_swallowed(front, publish, facility):
    sender, other = (front.connect(f"{facility}?{QUERY}") for _ in range(2))
    sender.text("--heartbeat--")
    sender.text("end")
    assert other.message() == "end"


def test_what_a_listener_sends_is_ignored(front, publish, facility):
    listener, other = (front.connect(f"{facility}?subscribe-broadcast") for _ in range(2))
    listener.text("ignored")
    turn()
    publish("end")
    assert listener.message() == other.message() == "end"


def test_messages_of_one_socket_keep_their_order(front, publish, facility, with_settings):
    with_settings(WSLOOP={"RATE_LIMIT": None})
    sender, other = (front.connect(f"{facility}?{QUERY}") for _ in range(2))
    for start in range(0, 1000, 10):
        sender.send(*(masked(Opcode.TEXT, b"%d" % number) for number in range(start, start + 10)))
    assert other.messages(1000) == [str(number) for number in range(1000)]


@pytest.mark.parametrize("subscriber", ["ws4redis.subscriber.RedisSubscriber", f"{__name__}.Shouting"])
def test_a_socket_is_not_read_while_redis_does_not_take_what_it_sent(
    front, own_redis, facility, with_settings, subscriber
):
    with_settings(WS4REDIS_SUBSCRIBER=subscriber)
    sender = front.connect(f"{facility}?{QUERY}&echo")
    own_redis.pause()
    try:
        sender.text("one")
        turn()
        sender.socket.settimeout(0.2)
        with contextlib.suppress(TimeoutError):  # until nobody takes more
            while True:
                sender.text("x" * 1000)
        (connection,) = engine.engine().hub.connections
        assert connection._held
    finally:
        own_redis.resume()
    sender.socket.settimeout(WAIT)
    assert sender.message().lower() == "one"
    wait_until(lambda: not connection._held, what="reading again")


def next_of(peer, kind):
    while (frame := json.loads(peer.message()))["type"] != kind:
        pass
    return frame


def has_input(peer):
    return bool(select.select([peer.socket], [], [], 0)[0])


@pytest.mark.parametrize("subscriber", ["ws4redis.subscriber.RedisSubscriber", f"{__name__}.Shouting"])
def test_the_last_message_is_in_redis_when_the_close_frame_is_answered(
    front, gate, private_redis, facility, with_settings, monkeypatch, subscriber
):
    """For 200 clients that end with a message and a close frame in one write, as scripts do."""
    with_settings(WS4REDIS_SUBSCRIBER=subscriber, WS4REDIS_HEARTBEAT=None)
    monkeypatch.setattr(websocket, "LAST_MESSAGES", 60)
    peers = {name: front.connect(f"{name}?publish-broadcast") for name in (f"{facility}-{i}" for i in range(200))}
    gate.hold("MULTI", "EVALSHA", "EXEC")
    for name, peer in peers.items():
        peer.send(masked(Opcode.TEXT, name.encode()), close_frame())
    gate.wait_for(1)
    early = [each.frame() for each in peers.values() if has_input(each)]
    assert [frame for frame in early if frame.opcode is not Opcode.PING] == []
    gate.hold()
    gate.let_through(len(gate.held))
    with private_redis.client() as client:
        for name, peer in peers.items():
            while (frame := peer.frame()).opcode is Opcode.PING:
                pass
            assert Close.parse(frame.data).code == 1000
            assert client.get(f"unit:broadcast:{name}").lower() == name


def test_a_redis_that_does_not_answer_delays_the_answer_to_a_close_frame_for_some_seconds_only(
    front, own_redis, facility, monkeypatch, with_settings
):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 60})
    monkeypatch.setattr(websocket, "LAST_MESSAGES", 0.01)
    peer = front.connect(f"{facility}?{QUERY}")
    own_redis.pause()
    try:
        peer.send(masked(Opcode.TEXT, b"last"), close_frame())
        assert peer.closing() == 1000
    finally:
        own_redis.resume()


@pytest.mark.parametrize("has_timed_out", [False, True])
def test_a_pages_commands_before_its_close_frame_are_carried_out(
    front, gate, private_redis, facility, monkeypatch, has_timed_out
):
    """The page subscribes, publishes and ends in one write; the subscription takes its time."""
    if has_timed_out:
        monkeypatch.setattr(websocket, "LAST_MESSAGES", 0.01)
    peer = front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL="wsloop.v1")
    assert json.loads(peer.message())["type"] == "welcome"
    asked = {"type": "subscribe", "id": 1, "facility": facility, "audiences": ["broadcast"], "publish": ["broadcast"]}
    said = {"type": "publish", "id": 2, "facility": facility, "data": "last"}
    gate.hold("SUBSCRIBE")
    peer.send(*(masked(Opcode.TEXT, json.dumps(each).encode()) for each in (asked, said)), close_frame())
    gate.wait_for(1)
    if has_timed_out:
        assert peer.closing() == 1000
    gate.hold()
    gate.let_through()
    with private_redis.client() as client:
        if has_timed_out:
            wait_until(nothing_is_left, what="the end of the socket")
            assert client.get(f"unit:broadcast:{facility}") is None
            return
        next_of(peer, "welcome")
        next_of(peer, "ack")
        while peer.frame().opcode is not Opcode.CLOSE:
            pass  # its own message may be on its way still
        assert client.get(f"unit:broadcast:{facility}") == "last"


class Shouting(RedisSubscriber):
    """The site's own way with what sockets send."""

    def publish_message(self, message, expire=None):
        assert isinstance(message, RedisMessage)
        if message == b"bad":
            raise ValueError("a secret")
        if message == b"database":
            User.objects.count()
            Shouting.databases.append(connections["default"])
        super().publish_message(RedisMessage(message.upper()), expire)

    databases = []


@pytest.fixture
def shouting(with_settings):
    with_settings(WS4REDIS_SUBSCRIBER=f"{__name__}.Shouting")


def test_messages_go_through_the_sites_own_publish_message(front, publish, facility, shouting, redis_client, channel):
    sender = front.connect(f"{facility}?{QUERY}")
    echoing = front.connect(f"{facility}?{QUERY}&echo")
    sender.send(masked(Opcode.TEXT, b"one"), masked(Opcode.TEXT, b"--heartbeat--"), masked(Opcode.TEXT, b"two"))
    assert echoing.messages(2) == ["ONE", "TWO"]
    echoing.text("three")
    assert echoing.message() == "THREE"
    # As in ws4redis: what the site has made of a message comes back to its sender, and an equal one does not.
    sender.text("FOUR")
    sender.text("five")
    assert sender.messages(4) == ["ONE", "TWO", "THREE", "FIVE"]
    assert redis_client.get(channel) == "FIVE"


def test_an_error_of_the_sites_publish_message_closes_with_1011(front, publish, facility, shouting, caplog):
    sender, other = (front.connect(f"{facility}?{QUERY}") for _ in range(2))
    sender.text("bad")
    frame = sender.frame()
    assert frame.opcode is Opcode.CLOSE
    assert Close.parse(frame.data) == Close(1011, "internal error")
    assert "Shouting.publish_message failed" in caplog.text
    publish("still there")
    assert other.message() == "still there"


def test_database_connections_of_the_sites_publish_message_are_closed(front, publish, facility, shouting, database):
    sender, other = (front.connect(f"{facility}?{QUERY}") for _ in range(2))
    Shouting.databases.clear()
    sender.text("database")
    assert other.message() == "DATABASE"
    (used,) = Shouting.databases
    wait_until(lambda: used.connection is None, what="the end of the database connection")


# The process.


def test_when_uwsgi_ends_the_worker_everybody_gets_1012(front, shared_redis, facility, monkeypatch):
    exits = []
    monkeypatch.setattr(servers, "at_exit", exits.append)
    peers = [front.connect(f"{facility}?subscribe-broadcast") for _ in range(3)]
    assert len(exits) == 1
    exits[0]()
    for peer in peers:
        frame = peer.frame()
        assert frame.opcode is Opcode.CLOSE
        assert Close.parse(frame.data) == Close(1012, "server restarting")


def test_after_an_error_of_the_engine_everybody_gets_1011_and_the_next_socket_works(
    front, publish, facility, monkeypatch
):
    peer = front.connect(f"{facility}?subscribe-broadcast")
    with monkeypatch.context() as patched:
        patched.setattr(engine.engine(), "message", lambda *_: 1 / 0)
        publish("bad", expire=0)
        frame = peer.frame()
        assert Close.parse(frame.data) == Close(1011, "internal error")
    peer = front.connect(f"{facility}?subscribe-broadcast")
    publish("hello")
    assert peer.message() == "hello"


def test_there_is_one_engine_and_it_is_made_when_the_first_socket_comes(front, shared_redis, facility):
    WebsocketServer()
    assert not engine.engine.cache_info().currsize, "the process that forks the workers must not have one"
    front.connect(facility)
    assert engine.engine() is engine.engine()


def test_a_wrong_setting_is_refused_at_the_start(with_settings):
    with_settings(WS4REDIS_ALLOWED_CHANNELS="nowhere.policy")
    with pytest.raises(ImproperlyConfigured, match="WS4REDIS_ALLOWED_CHANNELS"):
        WebsocketServer()
    with_settings(WS4REDIS_ALLOWED_CHANNELS=None, WS4REDIS_SUBSCRIBER="nowhere.Subscriber")
    with pytest.raises(ImproperlyConfigured, match="WS4REDIS_SUBSCRIBER"):
        WebsocketServer()
    with_settings(WSLOOP={"PING": 1})
    with pytest.raises(ImproperlyConfigured, match=r"no option \['PING'\]"):
        WebsocketServer()


def test_inside_uwsgi_a_process_that_is_not_patched_is_refused(monkeypatch):
    monkeypatch.setattr(uwsgi, "is_running", lambda: True)
    WebsocketServer()
    monkeypatch.setattr(monkey, "is_module_patched", lambda name: False)
    with pytest.raises(ImproperlyConfigured, match=r"wsgi\.py must begin with `from gevent import monkey"):
        WebsocketServer()


def test_making_it_needs_no_redis(use_redis):
    pool.forget()
    WebsocketServer()


def test_subscribers_of_ws4redis_are_its_base():
    assert WebsocketServer().Subscriber is subscriptions.Subscriber
    assert WebsocketServer().possible_channels == (
        RedisSubscriber.subscription_channels + RedisSubscriber.publish_channels
    )


def greenlets():
    gc.collect()
    return sum(issubclass(type(each), gevent.Greenlet) and not each.dead for each in gc.get_objects())


def test_sockets_have_no_greenlets(front, publish, facility):
    front.connect(f"{facility}?subscribe-broadcast")  # with the reader of the subscription
    before = greenlets()
    peers = [front.connect(f"{facility}?subscribe-broadcast&publish-broadcast") for _ in range(20)]
    publish("hello")
    assert [peer.message() for peer in peers] == ["hello"] * 20
    peers[0].text("hello, all")
    assert peers[1].message() == "hello, all"
    wait_until(lambda: greenlets() <= before, what="the end of the greenlets of requests and messages")


# Bounds of the handshake.


def test_a_handshake_that_takes_too_long_is_503_and_leaves_nothing(front, shared_redis, with_settings, reached, caplog):
    started = Event()

    def policy(request, channels):
        started.set()
        gevent.sleep(WAIT)
        return channels

    with_settings(WSLOOP={"HANDSHAKE_TIMEOUT": 0.05}, WS4REDIS_ALLOWED_CHANNELS=policy)
    answer = front.call("news?subscribe-broadcast")
    assert started.is_set()
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "5"
    assert b"could not be set up in time" in answer.body
    assert reached("HANDSHAKE_TIMEOUT") == 1
    assert not engine.engine().hub._joining
    assert "longer than 0.05 s" in caplog.text


def test_a_handshake_that_waits_for_redis_is_cut_off_too(front, gate, with_settings, reached):
    with_settings(WSLOOP={"HANDSHAKE_TIMEOUT": 0.05})
    gate.hold("SUBSCRIBE")
    assert front.call("news?subscribe-broadcast").status == 503
    assert reached("HANDSHAKE_TIMEOUT") == 1
    assert nothing_is_left()


def test_a_timeout_of_the_sites_own_code_is_not_taken_for_ours(front, shared_redis, with_settings, reached):
    def policy(request, channels):
        with gevent.Timeout(0.01, False):
            gevent.sleep(WAIT)
        return channels

    with_settings(WS4REDIS_ALLOWED_CHANNELS=policy)
    assert front.call("news?subscribe-broadcast").status == 101
    assert reached("HANDSHAKE_TIMEOUT") == 0


def test_a_timeout_that_the_sites_own_code_lets_out_is_not_ours_either(front, shared_redis, with_settings, reached):
    def policy(request, channels):
        with gevent.Timeout(0.01):
            gevent.sleep(WAIT)

    with_settings(WS4REDIS_ALLOWED_CHANNELS=policy)
    assert front.call("news?subscribe-broadcast").status == 500
    assert reached("HANDSHAKE_TIMEOUT") == 0


def test_the_worker_is_full(front, shared_redis, with_settings, reached):
    with_settings(WSLOOP={"MAX_CONNECTIONS": 2})
    first = front.connect("news?subscribe-broadcast")
    front.connect("other?subscribe-broadcast")
    answer = front.call("news?subscribe-broadcast")
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "5"
    assert b"as many WebSockets as it can hold" in answer.body
    assert reached("MAX_CONNECTIONS") == 1
    first.close()
    wait_until(lambda: len(engine.engine().hub) == 1, what="the first one leaving")
    assert front.call("news?subscribe-broadcast").status == 101


def test_a_user_has_too_many(front, shared_redis, with_settings, signed_in, reached):
    with_settings(WSLOOP={"MAX_CONNECTIONS_PER_USER": 2})
    for _ in range(2):
        front.connect("news?subscribe-user", HTTP_COOKIE=signed_in.cookie)
    answer = front.call("news?subscribe-user", HTTP_COOKIE=signed_in.cookie)
    assert answer.status == 429
    assert answer.headers["Retry-After"] == "5"
    assert b"too many WebSockets" in answer.body
    assert reached("MAX_CONNECTIONS_PER_USER") == 1
    assert front.call("news?subscribe-broadcast").status == 101, "others are not concerned"


def test_an_address_has_too_many(front, shared_redis, with_settings, reached, caplog):
    with_settings(WSLOOP={"MAX_CONNECTIONS_PER_ADDRESS": 2})
    for _ in range(2):
        front.connect("news?subscribe-broadcast", REMOTE_ADDR="8.8.8.8")
    assert front.call("news?subscribe-broadcast", REMOTE_ADDR="8.8.8.8").status == 429
    assert reached("MAX_CONNECTIONS_PER_ADDRESS") == 1
    assert "8.8.8.8 has too many WebSockets; if it is a proxy, see TRUSTED_PROXIES" in caplog.text
    assert front.call("news?subscribe-broadcast", REMOTE_ADDR="9.9.9.9").status == 101


def test_a_seat_is_taken_before_the_visitor_is_looked_up(front, shared_redis, with_settings, reached):
    with_settings(WSLOOP={"MAX_CONNECTIONS": 1})
    asked, go_on = [], Event()

    class Slow(WebsocketServer):
        def process_request(self, request):
            asked.append(request)
            go_on.wait(WAIT)
            request.user = request.session = None

    app = Slow()
    first = front.spawn("news?subscribe-broadcast", app=app)
    wait_until(lambda: asked, what="the question")
    assert front.call("news?subscribe-broadcast", app=app).status == 503
    assert (len(asked), reached("MAX_CONNECTIONS")) == (1, 1)
    go_on.set()
    assert first.get(timeout=WAIT).status == 101
    assert len(engine.engine().hub.admission) == 1


@pytest.mark.parametrize(("where", "what"), [(Connection, "flush"), (Hub, "send"), (opening, "WebSocket")])
def test_an_error_behind_the_101_takes_no_channel_from_others(front, publish, facility, monkeypatch, where, what):
    other = front.connect(f"{facility}?subscribe-broadcast")
    publish("retained, so that there is something to send first")
    assert other.message() == "retained, so that there is something to send first"

    def broken(*_):
        raise RuntimeError("an error that should not be")

    with monkeypatch.context() as patched:
        patched.setattr(where, what, broken)
        answer = front.call(f"{facility}?subscribe-broadcast")
    assert answer.status == 101
    assert answer.peer.frame() is None
    assert len(engine.engine().hub.admission) == 1
    publish("still there")
    assert other.message() == "still there"
    other.close()
    wait_until(nothing_is_left, what="the end of the connections")


@pytest.mark.parametrize(
    ("where", "what"),
    [
        (stages, "check_origin"),
        (WebsocketServer, "process_request"),
        (stages.identity, "visitor"),
        (WebsocketServer, "process_subscriptions"),
        (subscriptions.Subscriber, "set_pubsub_channels"),
        (Broker, "sync"),
        (PairTakeover, "accept"),
    ],
)
def test_a_stage_that_fails_gives_the_seat_back(front, shared_redis, facility, monkeypatch, where, what):
    def broken(*_):
        raise RuntimeError("an error that should not be")

    with monkeypatch.context() as patched:
        patched.setattr(where, what, broken)
        assert front.call(f"{facility}?subscribe-broadcast").status == 500
    wait_until(nothing_is_left, what="the end of the handshake")
    front.connect(f"{facility}?subscribe-broadcast")


def plain(value):
    """Whether another process could be given a value: no object of this one is in it."""
    if isinstance(value, tuple):
        return all(map(plain, value))
    return isinstance(value, (str, bytes, int, float, bool, type(None)))


def test_a_plan_is_plain_data_that_another_process_could_carry_out(front, keeping, facility, signed_in, monkeypatch):
    plans, planned = [], []
    original = Opening.open
    monkeypatch.setattr(Opening, "open", lambda self, *args: plans.append(self._plan) or original(self, *args))
    decide = stages.decide
    monkeypatch.setattr(stages, "decide", lambda *args: planned.append(decide(*args)) or planned[-1])
    with_deflate = {"HTTP_SEC_WEBSOCKET_EXTENSIONS": "permessage-deflate"}
    peer = front.connect(f"{facility}?subscribe-broadcast&subscribe-user", HTTP_COOKIE=signed_in.cookie, **V1)
    token = frame(peer)["token"]
    front.connect(f"{facility}?subscribe-broadcast&publish-broadcast&resume={token}", **V1, **with_deflate)
    front.connect(f"{facility}?subscribe-broadcast&publish-user&echo", HTTP_COOKIE=signed_in.cookie)
    front.connect("shout/a/", app=Site().app, HTTP_COOKIE=signed_in.cookie)
    assert [plan.dialect for plan in plans] == ["wsloop.v1", "wsloop.v1", "ws4redis", "consumer"]
    of_facilities = [each.plan for each in planned]
    assert all(plain(tuple(plan)) for plan in (*plans, *of_facilities))
    assert [pickle.loads(pickle.dumps(plan)) for plan in plans + of_facilities] == plans + of_facilities
    first, second, third = of_facilities
    assert (first.facility, first.resume, first.publishes) == (facility, None, ())
    assert set(first.channels) == {f"unit:user:john:{facility}".encode(), f"unit:broadcast:{facility}".encode()}
    assert plans[0].visitor.user == User.objects.get(username="john").pk
    assert (second.resume, second.publishes, second.echo) == (token, (f"unit:broadcast:{facility}".encode(),), False)
    assert (plans[0].deflate, plans[1].deflate) == (None, (15, 15))
    assert (third.echo, third.publishes) == (True, (f"unit:user:john:{facility}".encode(),))
    assert len(of_facilities) == 3, "a consumer is asked itself"


def test_many_at_once_do_not_slip_through_while_each_waits(front, gate, with_settings):
    with_settings(WSLOOP={"MAX_CONNECTIONS_PER_ADDRESS": 3})
    front.connect("warm?subscribe-broadcast")
    gate.hold("MGET", "PUBLISH")
    calls = [front.spawn("news?subscribe-broadcast", REMOTE_ADDR="8.8.8.8") for _ in range(10)]
    gate.wait_for(2)  # of the first one: what others wait for is asked together
    turn(20)
    gate.hold()
    gate.let_through(len(gate.held))
    statuses = sorted(call.get(timeout=WAIT).status for call in calls)
    assert statuses == [101] * 3 + [429] * 7


@pytest.mark.parametrize(
    ("path", "headers", "status", "setting"),
    [
        ("x" * 256 + "?subscribe-broadcast", {}, 414, "MAX_FACILITY_SIZE"),
        ("news?" + "x" * 4097, {}, 431, "MAX_HEADER_SIZE"),
        ("news", {"HTTP_SEC_WEBSOCKET_PROTOCOL": "x, " * 2000}, 431, "MAX_HEADER_SIZE"),
    ],
)
def test_what_is_too_long_is_refused(front, reached, path, headers, status, setting):
    assert front.call(path, **headers).status == status
    assert reached(setting) == 1


# Compression, subprotocol, handlers.

DEFLATE = {"HTTP_SEC_WEBSOCKET_EXTENSIONS": "permessage-deflate; client_max_window_bits"}


def test_compression_is_agreed_on_and_used(front, publish, facility):
    answer = front.call(f"{facility}?subscribe-broadcast", **DEFLATE)
    assert answer.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
    publish("x" * 5000)
    data = answer.peer.socket.recv(65536)
    assert data[0] == 0xC1
    assert len(data) < 100


@pytest.mark.parametrize("option", [{"COMPRESS_FROM": None}, {"FACILITIES": {"test-*": {"compression": False}}}])
def test_compression_can_be_switched_off(front, publish, facility, with_settings, option):
    with_settings(WSLOOP=option)
    answer = front.call(f"{facility}?subscribe-broadcast", **DEFLATE)
    assert "Sec-WebSocket-Extensions" not in answer.headers
    publish("x" * 5000)
    assert answer.peer.message() == "x" * 5000


def test_a_client_that_must_have_a_subprotocol_gets_one(front, shared_redis):
    offered = {"HTTP_SEC_WEBSOCKET_PROTOCOL": "ws4redis, another"}
    assert front.call("news?subscribe-broadcast", **offered).headers["Sec-WebSocket-Protocol"] == "ws4redis"


# Consumers. More in test_runner, test_members and test_routing.


class Seen(WebsocketConsumer):
    """Sends back what it gets in capitals, and keeps what it is called with."""

    def __init__(self, calls, connecting=lambda consumer: consumer.accept()):
        self.calls, self.connecting = calls, connecting

    def connect(self):
        self.calls.append(("connect", self.scope))
        self.connecting(self)

    def receive(self, text_data=None, bytes_data=None):
        self.calls.append(("receive", text_data))
        self.send(text_data.upper())

    def disconnect(self, close_code):
        self.calls.append(("disconnect", close_code))

    def told(self, event):
        self.send(event["text"])


class Watching(Seen):
    def presence_changed(self, event):
        self.send(json.dumps(event))


class Site:
    """A site with a consumer at /ws/shout/<name>/."""

    def __init__(self, consumer=Seen, **initkwargs):
        self.calls = []
        route = path("ws/shout/<str:name>/", consumer.as_websocket(calls=self.calls, **initkwargs))
        self.app = WebsocketServer(urlpatterns=[route])

    def names(self):
        return [name for name, _ in self.calls]

    def code(self):
        """The code that disconnect() was called with, once."""
        wait_until(lambda: "disconnect" in self.names(), what="disconnect()")
        (code,) = (argument for name, argument in self.calls if name == "disconnect")
        return code


class Room(WebsocketConsumer):
    """A room named after the path's ``name``: everybody gets what anybody says."""

    def connect(self):
        self.room = self.kwargs["name"]
        self.channel_layer.group_add(self.room, self.channel_name)
        self.accept(headers=[("X-Room", self.room)])

    def receive(self, text_data=None, bytes_data=None):
        self.channel_layer.group_send(self.room, {"type": "said", "text": text_data})

    def said(self, event):
        self.send(event["text"])


class AsyncRoom(AsyncWebsocketConsumer):
    async def connect(self):
        self.room = self.kwargs["name"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept(headers=[("X-Room", self.room)])

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send(self.room, {"type": "said", "text": text_data})

    async def said(self, event):
        await self.send(event["text"])


class Inside:
    """Another ASGI application, as a router or middleware of Channels, around a consumer."""

    def __init__(self, consumer):
        self.consumer = consumer

    async def __call__(self, scope, receive, send):
        await self.consumer({**scope, "user": None}, receive, send)


def test_plain_code_and_coroutines_in_patterns_and_inside_applications_share_a_room(front, shared_redis, facility):
    forms = {
        "plain": Room,
        "coroutines": AsyncRoom.as_asgi(),
        "plain-inside": Inside(Room.as_asgi()),
        "coroutines-inside": Inside(AsyncRoom()),
        "instance": Room(),
    }
    app = WebsocketServer(urlpatterns=[path(f"ws/{name}/<str:name>/", each) for name, each in forms.items()])
    peers = {}
    for name in (*forms, *forms):
        answer = front.call(f"{name}/{facility}/", app=app)
        assert answer.status == 101, name
        assert answer.headers["X-Room"] == facility
        peers.setdefault(name, []).append(answer.peer)
    everybody = [peer for each in peers.values() for peer in each]
    for name in forms:
        peers[name][0].text(f"from {name}")
        assert {peer.message() for peer in everybody} == {f"from {name}"}
    async_to_sync(get_channel_layer().group_send)(facility, {"type": "said", "text": "from a view"})
    assert {peer.message() for peer in everybody} == {"from a view"}
    for peer in everybody:
        peer.send(close_frame(1000))
        assert peer.closing() == 1000
        peer.close()
    wait_until(nothing_is_left, what="all leaving")


def test_an_application_may_have_any_channel_layer_of_its_own(front, shared_redis, with_settings):
    with_settings(CHANNEL_LAYERS={"default": {"BACKEND": "another.Layer", "CONFIG": {"hosts": []}}})

    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"x-path", scope["path_remaining"].encode())]})
        await send({"type": "websocket.send", "text": scope["url_route"]["kwargs"]["name"]})
        await send({"type": "websocket.close"})

    app = WebsocketServer(urlpatterns=[re_path(r"^ws/shout/(?P<name>\w)/", application)])
    answer = front.call("shout/a/b/", app=app)
    assert (answer.status, answer.headers["x-path"]) == (101, "b/")
    assert answer.peer.message() == "a"


def test_a_consumer_gets_the_messages_of_its_sockets_without_redis(front, with_settings):
    with_settings(WS4REDIS_CONNECTION={"unix_socket_path": "/nowhere"})
    site = Site()
    peers = [front.connect(f"shout/{number}/", app=site.app) for number in range(2)]
    for peer in peers:
        peer.text("hello")
        assert peer.message() == "HELLO"
    for peer in peers:
        peer.send(close_frame(4321))
        assert peer.closing() == 4321
        peer.close()
    wait_until(nothing_is_left, what="both leaving")
    assert sorted(site.names()) == ["connect", "connect", "disconnect", "disconnect", "receive", "receive"]


def test_while_a_consumer_decides_its_handshake_keeps_no_database_connection(
    front, shared_redis, signed_in, monkeypatch
):
    asked, kept = [], []
    process_request = WebsocketServer.process_request

    def remembering(server, request):
        process_request(server, request)
        assert request.user.user_permissions.count() == 0  # a query of the site's own
        asked.append(connections["default"])
        assert asked[-1].connection is not None

    class Slow(Seen):
        def connect(self):
            kept.append(asked[-1].connection)
            super().connect()

    monkeypatch.setattr(WebsocketServer, "process_request", remembering)
    assert front.connect("shout/a/", app=Site(Slow).app, HTTP_COOKIE=signed_in.cookie)
    assert kept == [None]


def test_a_path_that_no_pattern_matches_is_a_facility(front, publish, facility):
    site = Site()
    peer = front.connect(f"{facility}?subscribe-broadcast", app=site.app)
    publish("hello")
    assert peer.message() == "hello"
    assert site.calls == []


def test_a_route_that_no_socket_would_get_to_is_refused_at_the_start():
    with pytest.raises(ImproperlyConfigured, match="must begin with 'ws/'"):
        WebsocketServer(urlpatterns=[path("shout/", Seen.as_websocket(calls=[]))])


def test_consumers_sockets_are_checked_and_counted_like_others(front, shared_redis, with_settings):
    with_settings(WSLOOP={"MAX_CONNECTIONS": 1})
    site = Site()
    assert front.call("shout/a/", app=site.app, HTTP_ORIGIN="http://elsewhere.example").status == 403
    assert front.call("shout/a/", app=site.app, HTTP_UPGRADE="").status == 426
    assert site.calls == []
    front.connect("shout/a/", app=site.app)
    assert front.call("shout/a/", app=site.app).status == 503
    assert site.names() == ["connect"]


def test_what_a_consumer_is_told_of_its_socket(front, shared_redis, signed_in):
    site = Site()
    headers = {"HTTP_COOKIE": signed_in.cookie, "HTTP_SEC_WEBSOCKET_PROTOCOL": "soap, chat"}
    front.connect("shout/lobby/?a=1", app=site.app, **headers)
    ((_, scope),) = site.calls
    assert (scope["path"], scope["query_string"]) == ("/ws/shout/lobby/", b"a=1")
    assert scope["user"] == User.objects.get(username="john")
    assert scope["session"].session_key == signed_in.session_key
    assert scope["url_route"] == {"args": (), "kwargs": {"name": "lobby"}}
    assert scope["subprotocols"] == ["soap", "chat"]


@pytest.mark.parametrize("how", ["query", "subprotocol"])
def test_a_token_signs_in_and_is_nowhere_in_the_scope(front, shared_redis, database, how, caplog):
    john = User.objects.create_user("john", password="secret")
    token = tokens.make(john)
    site = Site()
    query, headers = f"?a=1&token={token}", {}
    if how == "subprotocol":
        query, headers = "?a=1", {"HTTP_SEC_WEBSOCKET_PROTOCOL": f"ws4redis, wsloop.token.{token}"}
    with caplog.at_level(logging.DEBUG):
        answer = front.call(f"shout/a/{query}", app=site.app, **headers)
    assert answer.status == 101
    assert answer.headers.get("Sec-WebSocket-Protocol") == ("ws4redis" if headers else None)
    ((_, scope),) = site.calls
    assert scope["user"] == john
    assert scope["query_string"] == b"a=1"
    assert token not in str(scope)
    assert token not in caplog.text


@pytest.mark.parametrize(
    ("offered", "chosen", "answered"),
    [
        ("soap, chat", "chat", "chat"),
        ("ws4redis, chat", "chat", "chat"),
        ("soap, chat", None, None),
        ("wsloop.v1", None, None),
        (None, None, None),
    ],
)
def test_the_subprotocol_is_the_consumers_choice(front, shared_redis, offered, chosen, answered):
    site = Site(connecting=lambda consumer: consumer.accept(chosen))
    headers = {} if offered is None else {"HTTP_SEC_WEBSOCKET_PROTOCOL": offered}
    answer = front.call("shout/a/", app=site.app, **headers)
    assert answer.status == 101
    assert answer.headers.get("Sec-WebSocket-Protocol") == answered
    answer.peer.text("hello")
    assert answer.peer.message() == "HELLO", "bare messages, whatever was offered"


def test_a_consumer_may_add_headers_to_the_101(front, shared_redis):
    headers = [(b"X-Name", "Gr\xfc\xdfe"), ("Set-Cookie", b"a=b; Path=/")]
    site = Site(connecting=lambda consumer: consumer.accept("chat", headers=headers))
    answer = front.call("shout/a/", app=site.app, HTTP_SEC_WEBSOCKET_PROTOCOL="chat")
    assert answer.status == 101
    added = {name: answer.headers.get(name) for name in ("X-Name", "Set-Cookie", "Sec-WebSocket-Protocol", "Upgrade")}
    assert added == {
        "X-Name": "Gr\xfc\xdfe",
        "Set-Cookie": "a=b; Path=/",
        "Sec-WebSocket-Protocol": "chat",
        "Upgrade": "websocket",
    }
    answer.peer.text("hello")
    assert answer.peer.message() == "HELLO"


def test_headers_that_would_split_the_response_are_an_error_of_the_consumer(front, shared_redis):
    site = Site(connecting=lambda consumer: consumer.accept(headers=[("X-Name", "a\r\nSet-Cookie: stolen=1")]))
    answer = front.call("shout/a/", app=site.app)
    assert answer.status == 500
    assert answer.headers.get("Set-Cookie") is None


def asking_redis(consumer):
    raise redis.exceptions.ConnectionError("a secret")


def forbidding(consumer):
    raise PermissionDenied("a secret")


def failing(consumer):
    raise ZeroDivisionError("a secret")


@pytest.mark.parametrize(
    ("connecting", "status", "words", "code"),
    [
        (lambda consumer: consumer.close(reason="members only"), 403, "members only", 1006),
        (lambda consumer: consumer.close(), 403, "Sign in, perhaps", 1006),
        (forbidding, 403, "Sign in, perhaps", 1006),
        (asking_redis, 503, "Try again", 1006),
        (failing, 500, "the site's log says why", 1011),
        (lambda consumer: consumer.accept("chat"), 500, "the site's log says why", 1011),
        (lambda consumer: None, 500, "the site's log says why", 1011),
    ],
)
def test_a_consumer_that_does_not_accept_is_a_response(front, shared_redis, connecting, status, words, code):
    site = Site(connecting=connecting)
    answer = front.call("shout/a/", app=site.app)
    assert answer.status == status
    assert words in answer.body.decode()
    assert "secret" not in answer.body.decode()
    assert site.code() == code
    wait_until(nothing_is_left, what="the handshake leaving")


class Broken(Seen):
    def __init__(self, calls):
        raise ZeroDivisionError("a secret")


class Late(Seen):
    @property
    def base_send(self):
        return None

    @base_send.setter
    def base_send(self, value):
        raise ZeroDivisionError("a secret")


@pytest.mark.parametrize("consumer", [Broken, Late])
def test_a_consumer_that_cannot_be_made_is_500_and_a_log_entry(front, shared_redis, consumer, caplog):
    site = Site(consumer)
    answer = front.call("shout/a/", app=site.app)
    assert (answer.status, answer.body.count(b"secret")) == (500, 0)
    assert "ZeroDivisionError: a secret" in caplog.text
    assert site.calls == []
    wait_until(nothing_is_left, what="the handshake leaving")


def test_a_consumer_that_does_not_decide_in_time_is_503(front, shared_redis, with_settings, reached):
    with_settings(WSLOOP={"HANDSHAKE_TIMEOUT": 2})
    site = Site(connecting=lambda consumer: time.sleep(3600))
    assert front.call("shout/a/", app=site.app).status == 503
    assert site.code() == 1006
    assert reached("HANDSHAKE_TIMEOUT") == 1
    wait_until(nothing_is_left, what="the handshake leaving")


def test_a_consumer_whose_client_hung_up_before_the_101_is_told(front, shared_redis):
    raised = []

    def connecting(consumer):
        try:
            consumer.accept()
        except Disconnected:
            raised.append("Disconnected")
            raise

    site = Site(connecting=connecting)
    assert front.call("shout/a/", app=site.app, hang_up=True).body == b""
    assert site.code() == 1006
    assert raised == ["Disconnected"]
    wait_until(nothing_is_left, what="the handshake leaving")


@pytest.mark.parametrize(("where", "what"), [(Runner, "opened"), (Connection, "start"), (Hub, "open")])
def test_a_consumer_whose_socket_fails_behind_the_101_is_told(front, shared_redis, monkeypatch, caplog, where, what):
    def broken(*_):
        raise RuntimeError("an error that should not be")

    monkeypatch.setattr(where, what, broken)
    site = Site()
    answer = front.call("shout/a/", app=site.app)
    assert answer.status == 101
    assert answer.peer.frame() is None
    assert site.code() == 1006
    assert "Could not open a WebSocket" in caplog.text
    wait_until(nothing_is_left, what="the connection leaving")


def test_what_the_channel_layer_brings_reaches_consumers_of_the_engine(front, shared_redis, facility):
    def connecting(consumer):
        consumer.channel_layer.group_add(facility, consumer.channel_name)
        consumer.accept()
        consumer.send(consumer.channel_name)

    site = Site(connecting=connecting)
    peer = front.connect("shout/a/", app=site.app)
    name = peer.message()
    layers.ChannelLayer().group_send(facility, {"type": "told", "text": "all"})
    assert peer.message() == "all"
    layers.ChannelLayer().send(name, {"type": "told", "text": "one"})
    assert peer.message() == "one"
    peer.close()
    wait_until(nothing_is_left, what="the connection leaving")


def test_what_is_sent_to_a_consumer_as_soon_as_its_name_is_known_arrives(front, shared_redis):
    """The worker listens before the first consumer is asked."""

    def connecting(consumer):
        layers.ChannelLayer().send(consumer.channel_name, {"type": "told", "text": "early"})
        consumer.accept()

    assert front.connect("shout/a/", app=Site(connecting=connecting).app).message() == "early"


def test_nothing_keeps_the_request_of_a_consumer_alive(front, shared_redis, with_settings):
    site = Site()
    front.connect("shout/warm/", app=site.app)
    peer = front.connect("shout/a/", app=site.app, HTTP_COOKIE="sessionid=none")
    turn(5)
    gc.collect()
    assert front.environ() is None
    peer.text("hello")
    assert peer.message() == "HELLO"


def test_consumers_get_no_heartbeat(front, shared_redis, facility, monkeypatch):
    site = Site()
    consumer, listener = front.connect("shout/a/", app=site.app), front.connect(facility, app=site.app)
    hub = engine.engine().hub
    for _ in range(4):
        hub.heartbeat._ticks += 1
        hub.heartbeat._beat()
        hub.heartbeat._begin_sending()
    assert listener.frame().data == b"--heartbeat--"
    consumer.text("hello")
    assert consumer.frame().data == b"HELLO"


def test_presence_counts_the_sockets_of_consumers_and_tells_those_that_want_to_know(
    front, shared_redis, with_settings, signed_in, facility
):
    with_settings(WSLOOP={"FACILITIES": {"shout/*": {"presence": True}}})
    watching, other = Site(Watching), Site()
    peer = front.connect(f"shout/{facility}/", app=watching.app)
    deaf = front.connect(f"shout/{facility}/", app=other.app)
    john = front.connect(f"shout/{facility}/", app=other.app, HTTP_COOKIE=signed_in.cookie)
    told = {"event": "join", "user": "john", "type": "presence.changed"}
    while json.loads(peer.message()) != told:
        pass
    wait_until(lambda: presence.who(f"shout/{facility}/").users == ["john"], what="john")
    for each in (peer, deaf, john):
        each.close()
    wait_until(nothing_is_left, what="all leaving")
    assert other.names() == ["connect", "connect", "disconnect", "disconnect"]


@pytest.mark.parametrize("option", [True, False])
def test_compression_is_an_option_of_consumers_too(front, shared_redis, with_settings, option):
    with_settings(WSLOOP={"FACILITIES": {"shout/*": {"compression": option}}})
    answer = front.call("shout/a/", app=Site().app, **DEFLATE)
    assert ("Sec-WebSocket-Extensions" in answer.headers) == option
    answer.peer.text("x" * 5000)
    assert (answer.peer.socket.recv(65536)[0] == 0xC1) == option


def test_who_is_signed_out_loses_the_sockets_of_consumers(front, shared_redis, signed_in):
    site = Site()
    peer = front.connect("shout/a/", app=site.app, HTTP_COOKIE=signed_in.cookie)
    john = User.objects.get(username="john")
    User.objects.filter(pk=john.pk).update(is_active=False)
    engine.engine().session_watch.on_notice(json.dumps({"users": [str(john.pk)]}).encode())
    assert Close.parse(peer.frame().data).code == 4001
    assert site.code() == 4001


def test_when_uwsgi_ends_the_worker_consumers_are_told_and_waited_for(front, shared_redis, monkeypatch):
    exits, done = [], []
    monkeypatch.setattr(servers, "at_exit", exits.append)

    class Slow(Seen):
        def disconnect(self, close_code):
            super().disconnect(close_code)
            time.sleep(0.1)
            done.append(close_code)

    site = Site(Slow)
    peer = front.connect("shout/a/", app=site.app)
    exits[0]()
    assert done == [1012]
    assert Close.parse(peer.frame().data) == Close(1012, "server restarting")
    assert site.code() == 1012


def test_nobody_waits_for_ever_for_a_consumer_when_the_worker_ends(front, shared_redis, monkeypatch):
    exits, go_on = [], Event()
    monkeypatch.setattr(servers, "at_exit", exits.append)
    monkeypatch.setattr(engine, "LAST_WORDS", 0.05)

    class Slow(Seen):
        def disconnect(self, close_code):
            super().disconnect(close_code)
            go_on.wait()

    site = Site(Slow)
    front.connect("shout/a/", app=site.app)
    exits[0]()
    assert site.code() == 1012
    go_on.set()


def test_database_connections_of_consumers_are_closed(front, shared_redis, database):
    used = []

    def connecting(consumer):
        assert User.objects.count() == 0
        used.append(connections["default"])
        consumer.accept()

    peer = front.connect("shout/a/", app=Site(connecting=connecting).app)
    peer.text("hello")
    assert peer.message() == "HELLO"
    wait_until(lambda: [each.connection for each in used] == [None], what="the end of the database connection")


# Sessions that end, and tokens. More in test_access and test_tokens.


def test_a_change_during_the_handshake_is_not_missed(front, shared_redis, with_settings, signed_in, facility):
    """The notice comes between the look at the user and the moment from which the hub knows the socket."""
    john = User.objects.get(username="john")

    def policy(request, channels):
        assert request.user == john
        User.objects.filter(pk=john.pk).update(is_active=False)
        engine.engine().session_watch.on_notice(json.dumps({"users": [str(john.pk)]}).encode())
        return channels

    front.connect("warm?subscribe-broadcast")
    with_settings(WS4REDIS_ALLOWED_CHANNELS=policy)
    peer = front.connect(f"{facility}?subscribe-user", HTTP_COOKIE=signed_in.cookie)
    assert Close.parse(peer.frame().data).code == 4001


def test_a_token_signs_in_and_is_in_no_log(front, shared_redis, database, facility, caplog):
    john = User.objects.create_user("john", password="secret")
    token = tokens.make(john)
    for target, headers in (
        (f"{facility}?subscribe-user&token={token}", {}),
        (f"{facility}?subscribe-user", {"HTTP_SEC_WEBSOCKET_PROTOCOL": f"ws4redis, wsloop.token.{token}"}),
    ):
        with caplog.at_level(logging.DEBUG):
            answer = front.call(target, **headers)
        assert answer.status == 101
        RedisPublisher(facility=facility, users="john").publish_message("for john")
        while answer.peer.message() != "for john":
            pass
        assert answer.headers.get("Sec-WebSocket-Protocol") == ("ws4redis" if headers else None)
        assert token not in str(answer.headers)
    refused = front.call(f"{facility}?subscribe-user&token={token}x")
    assert refused.status == 403
    assert token.encode() not in refused.body
    assert token not in caplog.text
    assert "token=[redacted]" in caplog.text


# Taking leave.


@pytest.mark.parametrize(("rate", "time"), [(100, 4.0), (1, 0.06)])
def test_sockets_are_not_all_closed_at_once(front, shared_redis, facility, monkeypatch, rate, time):
    """Not faster than the rate, unless it would take too long."""
    monkeypatch.setattr(engine, "LEAVING_RATE", rate)
    monkeypatch.setattr(engine, "LEAVING_TIME", time)
    monkeypatch.setattr(engine, "LEAVING_STEP", 0.01)
    left = []
    exits = []
    monkeypatch.setattr(servers, "at_exit", exits.append)
    for _ in range(12):
        front.connect(f"{facility}?subscribe-broadcast")
    hub = engine.engine().hub
    monkeypatch.setattr(engine.gevent, "sleep", lambda seconds: left.append((seconds, len(hub.connections))))
    exits[0]()
    steps = round(min(12 / rate, time) / 0.01)
    assert not hub.connections
    assert [seconds for seconds, _ in left] == [engine.LEAVING_PAUSE] + [0.01] * (steps - 1)
    assert left.pop(0)[1] == 12
    open_ = [12, *(count for _, count in left), 0]
    assert {before - after for before, after in itertools.pairwise(open_)} <= {12 // steps, -(-12 // steps)}


@pytest.mark.parametrize(("rate", "spread", "first"), [(1000, 3.0, 0), (2, 6.0, 7)])
def test_clients_of_v1_are_told_to_come_back_as_fast_as_others_can_take_them(
    front, shared_redis, facility, monkeypatch, rate, spread, first
):
    """Within three seconds, or later and over a longer time; then not before there is a successor."""
    exits = []
    monkeypatch.setattr(servers, "at_exit", exits.append)
    monkeypatch.setattr(engine, "LOADING", 7)
    peers = [front.call(f"{facility}?subscribe-broadcast", **V1).peer for _ in range(12)]
    process = engine.engine()
    process.handshakes.rate = rate
    sleeps = []
    monkeypatch.setattr(engine.gevent, "sleep", sleeps.append)
    exits[0]()
    assert sleeps == [engine.LEAVING_PAUSE]
    told = sorted(frame_of("goodbye", peer)["after"] / 1000 for peer in peers)
    each = spread / 12
    assert all(first + number * each <= after <= first + (number + 1) * each for number, after in enumerate(told))


def frame_of(kind, peer):
    while (made := json.loads(peer.message()))["type"] != kind:
        pass
    return made


def test_a_socket_that_opens_meanwhile_is_told_too(front, shared_redis, facility, monkeypatch):
    exits = []
    monkeypatch.setattr(servers, "at_exit", exits.append)
    monkeypatch.setattr(engine, "LEAVING_RATE", 10)
    monkeypatch.setattr(engine, "LEAVING_PAUSE", 0)
    for _ in range(3):
        front.connect(f"{facility}?subscribe-broadcast")
    leaving = gevent.spawn(exits[0])
    turn()
    assert len(engine.engine().hub.connections) < 3
    peer = front.connect(f"{facility}?subscribe-broadcast")
    leaving.get(timeout=WAIT)
    assert not engine.engine().hub.connections
    assert Close.parse(peer.frame().data).code == 1012


# Storms.


class Slow(WebsocketServer):
    """A site that takes its time to say who somebody is."""

    def __init__(self):
        super().__init__()
        self.asked, self.go_on = [], Event()

    def process_request(self, request):
        self.asked.append(request)
        self.go_on.wait(WAIT)
        request.user = request.session = None


def test_handshakes_for_which_there_is_no_turn_are_refused_at_once(front, shared_redis, monkeypatch, caplog):
    app = Slow()
    monkeypatch.setattr(engine.engine().handshakes, "_most", 2)
    first = [front.spawn("news?subscribe-broadcast", app=app) for _ in range(2)]
    wait_until(lambda: len(app.asked) == 2, what="the questions")
    refused = [front.call("news?subscribe-broadcast", app=app) for _ in range(20)]
    assert {answer.status for answer in refused} == {503}
    assert len({answer.headers["Retry-After"] for answer in refused}) > 1, "they are not to come back together"
    assert all(1 <= int(answer.headers["Retry-After"]) <= 10 for answer in refused)
    assert b"as many WebSockets as it can" in refused[0].body
    assert "refused: busy: more handshakes are under way" in caplog.text
    assert len(app.asked) == 2
    app.go_on.set()
    assert [each.get(timeout=WAIT).status for each in first] == [101, 101]
    assert front.call("news?subscribe-broadcast", app=app).status == 101


def test_who_has_gone_while_waiting_for_its_turn_is_not_looked_up(front, shared_redis):
    app = Slow()
    app.go_on.set()
    handshakes = [front.spawn("news?subscribe-broadcast", app=app, hang_up=number > 0) for number in range(5)]
    gevent.joinall(handshakes, timeout=WAIT, raise_error=True)
    assert len(app.asked) == 1


# wsloop.v1.

V1 = {"HTTP_SEC_WEBSOCKET_PROTOCOL": "wsloop.v1"}


@pytest.fixture
def keeping(shared_redis, with_settings):
    with_settings(WSLOOP={"FACILITIES": {"*": {"size": 1000}}})


def frame(peer):
    made = json.loads(peer.message())
    return frame(peer) if made["type"] == "ping" else made


def test_a_client_that_names_the_subprotocol_is_answered_with_it_and_welcomed(front, keeping, publish, facility):
    answer = front.call(f"{facility}?subscribe-broadcast", **V1)
    assert answer.headers["Sec-WebSocket-Protocol"] == "wsloop.v1"
    welcome = frame(answer.peer)
    assert welcome["type"] == "welcome"
    assert welcome["subscribed"] == ["broadcast"]
    assert welcome["recovered"] is None
    publish("hello")
    assert frame(answer.peer)["data"] == "hello"


def test_the_last_message_is_marked_and_comes_only_to_those_who_have_not_been_here(front, keeping, publish, facility):
    publish("kept")
    peer = front.connect(f"{facility}?subscribe-broadcast", **V1)
    token = frame(peer)["token"]
    kept = frame(peer)
    assert (kept["data"], kept["kept"]) == ("kept", True)
    peer.close()
    publish("missed")
    again = front.connect(f"{facility}?subscribe-broadcast&resume={token}", **V1)
    assert frame(again)["recovered"] is True
    message = frame(again)
    assert message["data"] == "missed"
    assert "kept" not in message


def test_bare_clients_of_the_same_facility_are_sent_the_last_message_and_no_frames(front, keeping, publish, facility):
    publish("kept")
    peer = front.connect(f"{facility}?subscribe-broadcast&resume=anything")
    publish("live")
    assert peer.messages(2) == ["kept", "live"]


def test_a_recovery_of_many_pages_leaves_nothing(front, keeping, facility, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 10)
    peer = front.connect(f"{facility}?subscribe-broadcast", **V1)
    token = frame(peer)["token"]
    with RedisPublisher(facility=facility, broadcast=True) as publisher:
        for number in range(100):
            publisher.publish_message(str(number))
    again = front.connect(f"{facility}?subscribe-broadcast&resume={token}", **V1)
    assert frame(again)["recovered"] is True
    assert [frame(again)["data"] for _ in range(100)] == [str(number) for number in range(100)]
    for each in (peer, again):
        each.close()
    wait_until(nothing_is_left, what="the end of the connections")


def test_a_recovery_of_many_pages_that_cannot_begin_leaves_nothing(front, keeping, facility, monkeypatch, caplog):
    monkeypatch.setattr(history, "PAGE", 10)
    peer = front.connect(f"{facility}?subscribe-broadcast", **V1)
    token = frame(peer)["token"]
    peer.close()
    with RedisPublisher(facility=facility, broadcast=True) as publisher:
        for number in range(100):
            publisher.publish_message(str(number))

    def broken(*_):
        raise RuntimeError("an error that should not be")

    monkeypatch.setattr(Recovery, "first_payloads", broken)
    answer = front.call(f"{facility}?subscribe-broadcast&resume={token}", **V1)
    assert answer.peer.frame() is None
    assert "Could not open a WebSocket" in caplog.text
    wait_until(nothing_is_left, what="the end of the connections")


def test_a_client_that_hangs_up_before_the_101_of_its_recovery_leaves_nothing(front, keeping, facility, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 10)
    peer = front.connect(f"{facility}?subscribe-broadcast", **V1)
    token = frame(peer)["token"]
    peer.close()
    with RedisPublisher(facility=facility, broadcast=True) as publisher:
        for number in range(100):
            publisher.publish_message(str(number))
    front.call(f"{facility}?subscribe-broadcast&resume={token}", hang_up=True, **V1)
    wait_until(nothing_is_left, what="the end of the connections")


def publication(**content):
    return masked(Opcode.TEXT, json.dumps({"type": "publish", **content}).encode())


def test_what_is_published_is_acknowledged_and_comes_back_as_ones_own(front, keeping, facility):
    sender = front.connect(f"{facility}?subscribe-broadcast&publish-broadcast", **V1)
    other = front.connect(f"{facility}?subscribe-broadcast", **V1)
    assert {frame(sender)["type"], frame(other)["type"]} == {"welcome"}
    sender.send(publication(data="hello", id=7))
    answers = {each["type"]: each for each in (frame(sender), frame(sender))}
    assert answers["ack"] == {"type": "ack", "id": 7}
    assert (answers["message"]["data"], answers["message"]["own"]) == ("hello", True)
    message = frame(other)
    assert message["data"] == "hello"
    assert "own" not in message
    sender.send(publication(base64="AAEC/w=="), masked(Opcode.BINARY, b"\xff"))
    assert [frame(other)["base64"] for _ in range(2)] == ["AAEC/w==", "/w=="]


def test_what_one_sends_to_several_audiences_comes_back_once(front, keeping, facility, database):
    query = "subscribe-broadcast&subscribe-session&publish-broadcast&publish-session"
    session = SessionStore()
    session.create()
    peer = front.connect(f"{facility}?{query}", HTTP_COOKIE=f"sessionid={session.session_key}", **V1)
    assert frame(peer)["subscribed"] == ["broadcast", "session"]
    peer.send(publication(data="hello", id=1), publication(data="end"))
    frames = [frame(peer) for _ in range(5)]
    messages = [each for each in frames if each["type"] == "message"]
    assert [(each["data"], each["own"]) for each in messages] == [("hello", True), ("end", True)]
    assert sorted(each["type"] for each in frames) == ["ack", "message", "message", "position", "position"]


def test_what_is_not_understood_or_allowed_is_told_and_the_socket_stays(front, keeping, facility):
    peer = front.connect(f"{facility}?subscribe-broadcast", **V1)
    frame(peer)
    peer.send(masked(Opcode.TEXT, b"hello"), masked(Opcode.TEXT, b'{"type": "publish", "id": "\\ud800"}'))
    assert [frame(peer)["code"] for _ in range(2)] == ["frame", "frame"]
    peer.send(publication(data="hello", id=7), masked(Opcode.BINARY, b"x"))
    refused, without = frame(peer), frame(peer)
    assert (refused["code"], refused["id"]) == ("refused", 7)
    assert without["code"] == "refused"
    assert "id" not in without
    peer.send(masked(Opcode.PING, b"there?"))
    assert peer.frame().data == b"there?"


def test_what_redis_does_not_take_is_told(front, own_redis, with_settings, facility):
    with_settings(WSLOOP={"FACILITIES": {"*": {"size": 1000}}})
    peer = front.connect(f"{facility}?publish-broadcast", **V1)
    frame(peer)
    own_redis.kill()
    peer.send(publication(data="hello", id="seven"))
    answer = frame(peer)
    assert (answer["code"], answer["id"]) == ("unavailable", "seven")
    own_redis.start()
    peer.send(publication(data="hello", id="eight"))
    assert frame(peer) == {"type": "ack", "id": "eight"}
