"""The socket of a whole page, on a real Redis and real sockets: subscriptions that come and go."""

import itertools
import json
import sys
import time

import gevent
import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import clear_url_caches, path
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from websockets.frames import Close, Opcode
from ws4redis.subscriber import RedisSubscriber

from testbed.processes import wait_until
from tests.unit.front import nothing_is_left
from tests.unit.peer import WAIT, close_frame, masked, turn
from wsloop import engine, presence, tokens
from wsloop.backend import history, pool
from wsloop.facilities import calls, page_socket, page_subscriptions
from wsloop.facilities.recovery import Recovery
from wsloop.protocol import dialects, resume_tokens
from wsloop.protocol.commands import Call
from wsloop.publisher import RedisPublisher
from wsloop.server import WebsocketServer

KEPT = {
    "FACILITIES": {
        "kept-*": {"size": 1000},
        "latest-*": {"size": 5, "latest_only": True},
        "here-*": {"presence": True},
    }
}
V1 = "wsloop.v1"


class Page:
    """A client of the socket of a page; frames but for pings."""

    def __init__(self, peer):
        self.peer = peer
        assert self.frame() == {"type": "welcome", "facility": "", "subscribed": [], "recovered": None, "ping": 30}

    def frame(self):
        frame = json.loads(self.peer.message())
        return self.frame() if frame["type"] == "ping" else frame

    def frames(self, count):
        return [self.frame() for _ in range(count)]

    def texts(self, last):
        """Facility and data of messages, up to the data ``last``."""
        found = []
        while not found or found[-1][1] != last:
            frame = self.frame()
            found.append((frame.get("facility"), frame.get("data", frame["type"])))
        return found

    def send(self, *frames):
        """Send frames: several as a list."""
        self.peer.text(json.dumps(frames[0] if len(frames) == 1 else frames))

    def ask(self, kind, **content):
        """Send a frame and return the next one, which must be the answer."""
        self.send({"type": kind, "id": 1, **content})
        frame = self.frame()
        assert frame.pop("id") == 1, frame
        return frame

    def subscribe(self, facility, *audiences, **content):
        return self.ask("subscribe", facility=facility, audiences=audiences or ["broadcast"], **content)


@pytest.fixture
def open_page(front, shared_redis, with_settings):
    with_settings(WSLOOP=KEPT)

    def make(query="", **headers):
        return Page(front.connect(query, HTTP_SEC_WEBSOCKET_PROTOCOL=V1, **headers))

    return make


@pytest.fixture
def page(open_page):
    return open_page()


def publish(facility, *texts, **audience):
    publisher = RedisPublisher(facility=facility, **(audience or {"broadcast": True}))
    for text in texts:
        publisher.publish_message(text)


def handler():
    (connection,) = engine.engine().hub.connections
    return connection._handler


# Subscriptions come and go.


def test_a_subscription_is_answered_by_its_welcome_and_misses_nothing_from_then_on(page, facility):
    assert page.subscribe(facility) == {
        "type": "welcome",
        "facility": facility,
        "subscribed": ["broadcast"],
        "recovered": None,
    }
    publish(facility, "hello")
    assert page.frame() == {"type": "message", "facility": facility, "audience": "broadcast", "data": "hello"}


def test_several_facilities_on_one_socket(page, facility):
    others = [f"{facility}-{number}" for number in range(3)]
    for each in others:
        assert page.subscribe(each)["facility"] == each
    for number in range(3):
        for each in others:
            publish(each, f"{number}")
    assert page.texts("2")[-1] == (others[0], "2")
    assert [frame["facility"] for frame in page.frames(2)] == others[1:]


def test_the_kept_message_comes_behind_the_welcome(page, facility):
    publish(facility, "kept")
    page.subscribe(facility)
    frame = page.frame()
    assert (frame["data"], frame["kept"]) == ("kept", True)


def test_a_client_that_has_left_a_facility_gets_no_more_of_it(page, facility, redis_client):
    page.subscribe(facility)
    page.subscribe(f"{facility}-2")
    assert page.ask("unsubscribe", facility=facility) == {"type": "unsubscribed", "facility": facility}
    publish(facility, "not for you")
    publish(f"{facility}-2", "for you")
    assert page.frame()["data"] == "for you"
    wait_until(
        lambda: not redis_client.execute_command("PUBSUB", "NUMSUB", f"unit:broadcast:{facility}")[1],
        what="UNSUBSCRIBE",
    )
    assert list(handler().subscriptions._by_facility) == [f"{facility}-2"]


def test_it_may_come_back(page, facility):
    for number in range(3):
        page.subscribe(facility)
        publish(facility, f"{number}")
        while page.frame()["data"] != f"{number}":
            pass
        page.ask("unsubscribe", facility=facility)


def test_who_leaves_what_it_has_not_subscribed_to_is_answered_all_the_same(page, facility):
    assert page.ask("unsubscribe", facility=facility) == {"type": "unsubscribed", "facility": facility}


def test_a_facility_is_subscribed_to_once(page, facility):
    page.subscribe(facility)
    again = page.subscribe(facility, "user")
    assert (again["code"], again["facility"]) == ("frame", facility)
    first = {"type": "subscribe", "facility": f"{facility}-2", "audiences": ["broadcast"]}
    page.send({**first, "id": 1}, {**first, "id": 2})
    answers = sorted(page.frames(2), key=lambda frame: frame["id"])
    assert [(frame["type"], frame["id"]) for frame in answers] == [("welcome", 1), ("error", 2)]


def test_what_pages_have_in_common_is_kept_once_and_a_quiet_channel_keeps_nothing_else(open_page, facility):
    for _ in range(2):
        open_page().subscribe(f"kept-{facility}")
    one, other = engine.engine().hub.connections
    assert one.channels[0] is other.channels[0]
    mine, its = (each._handler.subscriptions.find(f"kept-{facility}") for each in (one, other))
    assert mine.facility is its.facility
    for kept in (mine, one._handler, one._handler.subscriptions, one._handler._pace):
        assert not hasattr(kept, "__dict__"), "a hundred bytes more for each page"
    state = engine.engine().broker._gapless._channels[one.channels[0]]
    assert (state.position.offset, state.known, state.ready, state.waiting) == (0, None, None, None)


def test_of_the_names_that_clients_send_only_so_many_are_kept(page, monkeypatch):
    """Python 3.12 up to 3.12.6 never forgets a text that was interned."""
    interned = []
    monkeypatch.setattr(sys, "intern", lambda text: interned.append(text) or text)
    assert page.ask("subscribe", facility="too-long" * 1000, audiences=["broadcast"])["code"] == "frame"
    page.subscribe("a-facility-of-its-own")
    assert not [each for each in interned if each.startswith(("too-long", "a-facility-of-its-own"))]
    assert page_subscriptions._shared.cache_info().maxsize is not None
    known = page_subscriptions._shared.cache_info().currsize
    page.ask("subscribe", facility="too-long" * 1000, audiences=["broadcast"])
    assert page_subscriptions._shared.cache_info().currsize == known


def test_who_leaves_leaves_nothing(page, facility):
    page.subscribe(facility, publish=["broadcast"])
    page.subscribe(f"kept-{facility}")
    page.subscribe(f"latest-{facility}")
    page.subscribe(f"here-{facility}", presence=True)
    page.ask("unsubscribe", facility=facility)
    page.peer.send(close_frame())
    assert page.peer.closing() == 1000
    page.peer.close()
    wait_until(nothing_is_left, what="the end of the connection")
    assert not engine.engine().hub._latest_only


def test_the_facility_without_a_name_may_be_in_the_url(front, shared_redis):
    peer = front.connect("?subscribe-broadcast&publish-broadcast", HTTP_SEC_WEBSOCKET_PROTOCOL=V1)
    assert json.loads(peer.message())["subscribed"] == ["broadcast"]
    peer.text('{"type": "publish", "data": "x", "id": 1}')
    found = set()  # with what other tests have published, if anything
    while not {("ack", None), ("message", "x")} <= found:
        frame = json.loads(peer.message())
        found.add((frame["type"], frame.get("data")))


def test_without_the_subprotocol_it_is_the_facility_without_a_name(front, shared_redis):
    peer = front.connect("?subscribe-broadcast")
    publish("", "bare")
    while peer.message() != "bare":  # before it comes what other tests have published, if anything
        pass


@pytest.mark.parametrize("frame", [{"type": "subscribe", "facility": "a"}, {"type": "call", "path": "/"}])
def test_the_socket_of_a_facility_refuses_what_only_that_of_a_page_does(front, shared_redis, facility, frame):
    peer = front.connect(f"{facility}?subscribe-broadcast", HTTP_SEC_WEBSOCKET_PROTOCOL=V1)
    json.loads(peer.message())
    peer.text(json.dumps({"id": 7, "audiences": ["broadcast"], **frame}))
    answer = json.loads(peer.message())
    assert (answer["code"], answer["id"]) == ("refused", 7)


# Who may do what.


def test_the_policy_is_asked_for_each_with_user_session_and_facility(page, front, facility, signed_in, with_settings):
    asked = []

    def policy(request, channels):
        name = request.user.get_username() if request.user and request.user.is_authenticated else None
        asked.append((request.path, name, request.session and request.session.session_key, channels))
        if request.path.endswith("forbidden"):
            raise PermissionDenied
        return [each for each in channels if not each.startswith("publish-")]

    with_settings(WSLOOP=KEPT, WS4REDIS_ALLOWED_CHANNELS=policy)
    mine = Page(front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL=V1, HTTP_COOKIE=signed_in.cookie))
    asked.clear()
    welcome = mine.subscribe(facility, "user", "group", publish=["broadcast"])
    assert set(welcome["subscribed"]) == {"user", "group:chatters"}
    key = signed_in.session_key
    wanted = ["subscribe-user", "subscribe-group", "publish-broadcast"]
    assert asked == [(f"/ws/{facility}", "john", key, wanted)]
    refused = mine.subscribe("forbidden")
    assert (refused["code"], refused["facility"]) == ("refused", "forbidden")
    publish(facility, "still here", users=["john"])
    assert mine.frame()["data"] == "still here"
    assert mine.ask("publish", facility=facility, data="x")["code"] == "refused"


def test_one_of_several_that_is_refused_or_fails_ends_no_other(page, front, facility, with_settings, caplog):
    def policy(request, channels):
        if request.path.endswith("forbidden"):
            raise PermissionDenied
        if request.path.endswith("broken"):
            raise ZeroDivisionError
        if request.path.endswith("nothing"):
            return []
        return channels

    with_settings(WS4REDIS_ALLOWED_CHANNELS=policy)
    mine = Page(front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL=V1))
    names = ["forbidden", f"{facility}-1", "broken", "nothing", f"{facility}-2", "a:b"]
    mine.send(
        *[{"type": "subscribe", "id": name, "facility": name, "audiences": ["broadcast", "user"]} for name in names]
    )
    answers = {frame["id"]: frame for frame in mine.frames(len(names))}
    assert {name: frame.get("code", frame["type"]) for name, frame in answers.items()} == {
        "forbidden": "refused",
        "broken": "internal",
        "nothing": "refused",
        "a:b": "refused",
        f"{facility}-1": "welcome",
        f"{facility}-2": "welcome",
    }
    assert "ZeroDivisionError" in caplog.text
    assert "ZeroDivisionError" not in json.dumps(answers)
    publish(f"{facility}-2", "hello")
    assert mine.frame()["data"] == "hello"


def test_a_policy_that_ends_its_greenlet_ends_nothing_else(front, shared_redis, facility, with_settings):
    def policy(request, channels):
        if request.path.endswith("exit"):
            sys.exit(1)
        if request.path.endswith("leak"):
            raise gevent.Timeout(1)
        if request.path.endswith("file"):
            raise FileNotFoundError("not Redis")
        return channels

    with_settings(WS4REDIS_ALLOWED_CHANNELS=policy)
    mine = Page(front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL=V1))
    names = ["exit", "leak", "file", facility]
    mine.send(*[{"type": "subscribe", "id": name, "facility": name, "audiences": ["broadcast"]} for name in names])
    answers = {frame["id"]: frame.get("code", frame["type"]) for frame in mine.frames(4)}
    assert answers == {"exit": "internal", "leak": "internal", "file": "internal", facility: "welcome"}


class Leaking(RedisSubscriber):
    def publish_message(self, message, expire=None):
        raise gevent.Timeout(1)


def test_a_subscriber_that_ends_its_greenlet_ends_the_socket_alone(front, facility, shared_redis, with_settings):
    with_settings(WS4REDIS_SUBSCRIBER=f"{__name__}.Leaking")
    page = Page(front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL=V1))
    page.subscribe(facility, publish=["broadcast"])
    page.send({"type": "publish", "facility": facility, "data": "x", "id": 1})
    assert page.frame()["code"] == 1011
    page.peer.close()
    wait_until(nothing_is_left, what="the end of the connection")


def test_a_token_for_one_facility_is_for_no_other_one(open_page, facility, signed_in, front):
    john = User.objects.get(username="john")
    page = open_page(f"?token={tokens.make(john, facility='')}")
    assert page.subscribe(facility, "user")["code"] == "refused"


def test_a_site_that_refuses_users_by_the_path_is_asked_with_it(front, shared_redis, facility, with_settings):
    def process_request(request):
        request.user = request.session = None
        if "secret" in request.path:
            raise PermissionDenied
        request.tenant = request.path.rpartition("/")[2]

    asked = []
    with_settings(
        WS4REDIS_PROCESS_REQUEST=process_request,
        WS4REDIS_ALLOWED_CHANNELS=lambda request, channels: asked.append(request.tenant) or channels,
    )
    page = Page(front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL=V1))
    assert page.subscribe("secret")["code"] == "refused"
    page.subscribe(facility)
    assert asked[-1] == facility


class Refusing(WebsocketServer):
    def process_request(self, request):
        super().process_request(request)
        if "secret" in request.path:
            raise PermissionDenied


def test_a_server_that_refuses_users_by_the_path_is_asked_with_it(front, shared_redis):
    page = Page(front.connect("", app=Refusing(), HTTP_SEC_WEBSOCKET_PROTOCOL=V1))
    assert page.subscribe("secret")["code"] == "refused"


def test_others_get_their_turn_between_the_subscriptions_of_a_page(front, shared_redis, facility, with_settings):
    seen = []
    with_settings(WS4REDIS_ALLOWED_CHANNELS=lambda request, channels: seen.append("asked") or channels)
    mine = Page(front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL=V1))
    seen.clear()

    def other():
        while True:
            seen.append("other")
            gevent.sleep(0)

    greenlet = gevent.spawn(other)
    names = [f"{facility}-{number}" for number in range(10)]
    mine.send(*[{"type": "subscribe", "facility": name, "audiences": ["broadcast"]} for name in names])
    mine.frames(10)
    greenlet.kill()
    between = seen[seen.index("asked") : len(seen) - seen[::-1].index("asked")]
    assert not any(one == two == "asked" for one, two in itertools.pairwise(between))


def test_who_has_signed_out_meanwhile_gets_no_subscription(open_page, facility, signed_in):
    page = open_page(HTTP_COOKIE=signed_in.cookie)
    User.objects.filter(username="john").update(password="another")  # without a signal
    page.send({"type": "subscribe", "facility": facility, "audiences": ["user"]})
    assert page.frame()["code"] == 4001
    assert Close.parse(page.peer.frame().data).code == 4001


def test_whose_rights_have_changed_must_come_again(open_page, facility, signed_in):
    page = open_page(HTTP_COOKIE=signed_in.cookie)
    User.objects.filter(username="john").update(is_staff=True)
    page.send({"type": "subscribe", "facility": facility, "audiences": ["user"]})
    assert page.frame()["code"] == 4003
    assert Close.parse(page.peer.frame().data).code == 4003


def test_signing_out_ends_all_of_them(open_page, facility, signed_in):
    page = open_page(HTTP_COOKIE=signed_in.cookie)
    page.subscribe(facility, "user")
    john = User.objects.get(username="john")
    john.set_password("another")
    john.save()
    assert page.frame()["code"] == 4001
    assert Close.parse(page.peer.frame().data).code == 4001


def test_a_token_signs_in_for_later_subscriptions_too(open_page, front, facility, signed_in):
    token = tokens.make(User.objects.get(username="john"))
    in_query = open_page(f"?token={token}")
    assert in_query.subscribe(facility, "user")["subscribed"] == ["user"]
    as_subprotocol = Page(front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL=f"{V1}, wsloop.token.{token}"))
    assert as_subprotocol.subscribe(facility, "user")["subscribed"] == ["user"]


class Renaming(RedisSubscriber):
    """A site's own subscriber: one more channel, which is no facility's."""

    def set_pubsub_channels(self, request, channels):
        super().set_pubsub_channels(request, channels)
        self._subscription.subscribe("everything")


def test_channels_of_a_sites_own_subscriber_are_named_in_the_welcome(
    front, shared_redis, facility, with_settings, redis_client
):
    with_settings(WS4REDIS_SUBSCRIBER=f"{__name__}.Renaming")
    label = resume_tokens.label(b"everything")
    mine = Page.__new__(Page)
    mine.peer = front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL=V1)
    assert mine.frame()["other"] == [label]
    assert mine.subscribe(facility)["other"] == [label]
    redis_client.publish("everything", "x")
    assert mine.frame() == {"type": "message", "channel": label, "audience": "other", "data": "x"}
    mine.ask("unsubscribe", facility=facility)
    redis_client.publish("everything", "y")
    assert mine.frame()["data"] == "y", "the other subscription has the channel still"


def test_an_address_of_a_consumer_is_no_facility(front, shared_redis):
    from wsloop.consumers import WebsocketConsumer

    app = WebsocketServer(urlpatterns=[path("ws/echo/", WebsocketConsumer.as_websocket())])
    mine = Page(front.connect("", app=app, HTTP_SEC_WEBSOCKET_PROTOCOL=V1))
    assert mine.subscribe("echo/")["code"] == "refused"


# Bounds.


def test_a_socket_has_so_many_subscriptions(page, front, facility, with_settings):
    with_settings(WSLOOP={"MAX_SUBSCRIPTIONS": 2})
    page.subscribe(f"{facility}-1")
    page.send(
        *[
            {"type": "subscribe", "id": number, "facility": f"{facility}-{number}", "audiences": ["broadcast"]}
            for number in (2, 3)
        ]
    )
    answers = {frame["id"]: frame.get("code", frame["type"]) for frame in page.frames(2)}
    assert answers == {2: "welcome", 3: "limit"}
    page.ask("unsubscribe", facility=f"{facility}-1")
    assert page.subscribe(f"{facility}-3")["type"] == "welcome"


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ({"facility": "a" * 256, "audiences": ["broadcast"]}, "too long"),
        ({"facility": "ü" * 128, "audiences": ["broadcast"]}, "too long"),
        ({"facility": "/a", "audiences": ["broadcast"]}, "one too many"),
        ({"facility": "a"}, "There must be"),
        ({"facility": "a", "presence": True}, "does not allow"),  # it has none
    ],
)
def test_what_cannot_be_subscribed_to(page, frame, words):
    answer = page.ask("subscribe", **frame)
    assert answer["type"] == "error"
    assert words in answer["reason"]


def test_commands_beyond_the_rate_wait_and_others_do_not(page, facility, with_settings):
    with_settings(WSLOOP={"COMMAND_RATE": (10, 4)})
    other = [{"type": "unsubscribe", "id": number, "facility": facility} for number in range(8)]
    page.send(*other)
    with gevent.Timeout(0.25, False):
        page.frames(8)
        pytest.fail("all of them were answered at once")
    answered = [page.frame()["id"]]
    while answered[-1] != 7:
        answered.append(page.frame()["id"])
    assert answered == sorted(answered)


def test_a_list_counts_as_its_frames_and_what_follows_waits(page, facility, with_settings, front):
    with_settings(WSLOOP={"RATE_LIMIT": (20, 4)})
    mine = Page(front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL=V1))
    ask = [{"type": "history", "id": number} for number in range(20)]
    began = time.monotonic()
    mine.send(*ask)
    assert [each["id"] for each in mine.frames(20)] == list(range(20))
    assert mine.ask("history")["type"] == "error"
    assert time.monotonic() - began >= 15 / 20, "20 frames, of which one counted as a frame, and 4 may come at once"


def test_while_commands_wait_the_socket_is_read_and_then_not(page, facility, with_settings):
    with_settings(WSLOOP={"COMMAND_RATE": (100, 4), "RATE_LIMIT": None})
    (connection,) = engine.engine().hub.connections
    frame = {"type": "unsubscribe", "id": 1, "facility": facility}
    page.send(*[frame] * 10)
    page.peer.send(masked(Opcode.PING, b"there?"))
    seen = []
    while not seen or seen[-1].opcode is not Opcode.PONG:
        seen.append(page.peer.frame())
    assert len(seen) < 10
    page.send(*[frame] * page_socket.MOST_WAITING)
    page.send(frame)
    wait_until(lambda: connection.held, what="the end of reading")
    page.frames(page_socket.MOST_WAITING + 12 - len(seen))
    wait_until(lambda: not connection.held, what="reading again")


# Recovery.


def restore(page, **tokens):
    page.send(
        *[
            {"type": "subscribe", "id": name, "facility": name, "audiences": ["broadcast"], "resume": token}
            for name, token in tokens.items()
        ]
    )
    return {frame["facility"]: frame for frame in page.frames(len(tokens))}


def test_all_of_them_are_restored_in_one_go_in_the_order_of_time(open_page, facility):
    names = [f"kept-{facility}-{number}" for number in range(3)]
    first = open_page()
    given = {name: first.subscribe(name)["token"] for name in names}
    first.peer.close()
    for number in range(5):
        for name in names:
            publish(name, f"{number}")
    second = open_page()
    welcomes = restore(second, **given)
    assert [welcomes[name]["recovered"] for name in names] == [True] * 3
    found = second.texts("4") + [(frame["facility"], frame["data"]) for frame in second.frames(2)]
    assert found == [(name, f"{number}") for number in range(5) for name in names]
    publish(names[1], "live")
    assert second.frame()["data"] == "live"


def test_one_that_cannot_be_recovered_says_so_and_the_others_are(open_page, facility):
    names = good, bad, fresh, plain = [f"kept-{facility}-{each}" for each in ("good", "bad", "fresh")] + [facility]
    first = open_page()
    token = first.subscribe(good)["token"]
    forgotten = first.subscribe(bad)["token"]
    first.peer.close()
    for name in names:
        publish(name, "1", "2")
    pool.client().delete(*[f"unit:wsloop:{kind}:{{unit:broadcast:{bad}}}" for kind in ("history", "meta")])
    publish(bad, "3")
    second = open_page()
    second.send(
        *[
            {
                "type": "subscribe",
                "facility": name,
                "audiences": ["broadcast"],
                **({"resume": resume} if resume else {}),
            }
            for name, resume in ((good, token), (bad, forgotten), (fresh, None), (plain, None))
        ]
    )
    welcomes = {frame["facility"]: frame["recovered"] for frame in second.frames(4)}
    assert welcomes == {good: True, bad: False, fresh: None, plain: None}
    rest = {(frame["facility"], frame["data"]) for frame in second.frames(4)}
    assert rest == {(fresh, "2"), (plain, "2"), (good, "1"), (good, "2")}
    publish(bad, "live")
    assert second.frame()["data"] == "live"


@pytest.fixture
def slowly(monkeypatch):
    """Recoveries of two messages a page."""
    monkeypatch.setattr(history, "PAGE", 2)
    monkeypatch.setattr(history, "PAGE_BYTES", 1)
    monkeypatch.setattr(history, "LEAST_BYTES", 1)


def missing_fifty(open_page, facility):
    """The token of a client that has left, and has missed 50 messages since."""
    page = open_page()
    token = page.subscribe(facility)["token"]
    page.peer.close()
    publish(facility, *[f"{number}" for number in range(50)])
    return token


def test_a_long_recovery_holds_up_no_other_subscription(open_page, facility, slowly):
    long, other = f"kept-{facility}", f"{facility}-other"
    token = missing_fifty(open_page, long)
    page = open_page()
    page.send(
        {"type": "subscribe", "facility": long, "audiences": ["broadcast"], "resume": token},
        {"type": "subscribe", "facility": other, "audiences": ["broadcast"]},
    )
    frames = [page.frame()]
    while frames[-1]["facility"] != other:
        frames.append(page.frame())
    publish(other, "meanwhile", "end")
    frames += page.frames(2 + 50 + 2 - len(frames))
    found = [(frame["facility"], frame.get("data")) for frame in frames]
    assert [data for name, data in found if name == long] == [None, *map(str, range(50))]
    assert [data for name, data in found if name == other][-2:] == ["meanwhile", "end"]


def test_leaving_a_facility_in_the_middle_of_its_recovery(open_page, facility, slowly):
    long = f"kept-{facility}"
    token = missing_fifty(open_page, long)
    page = open_page()
    page.send(
        {"type": "subscribe", "facility": long, "audiences": ["broadcast"], "resume": token},
        {"type": "unsubscribe", "facility": long},
        {"type": "subscribe", "id": 2, "facility": long, "audiences": ["broadcast"]},
    )
    kinds = [page.frame()]
    while kinds[-1].get("id") != 2:
        kinds.append(page.frame())
    assert kinds[-2]["type"] == "unsubscribed"
    publish(long, "live")
    assert page.texts("live")[-1] == (long, "live")
    page.peer.close()
    wait_until(nothing_is_left, what="the end of the connection")


def test_a_recovery_that_is_interrupted_ends_that_subscription_alone(open_page, facility, slowly, monkeypatch):
    long, other = f"kept-{facility}", f"{facility}-other"
    token = missing_fifty(open_page, long)
    page = open_page()
    page.subscribe(other)
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) > 2:
            raise ConnectionError("broken")
        return read(*arguments)

    read = history.read
    monkeypatch.setattr(history, "read", fail)
    page.send({"type": "subscribe", "facility": long, "audiences": ["broadcast"], "resume": token})
    frame = page.frame()
    while frame["type"] != "unsubscribed":
        frame = page.frame()
    assert (frame["facility"], frame["code"]) == (long, "unavailable")
    monkeypatch.setattr(history, "read", read)
    publish(other, "hello")
    assert page.frame()["data"] == "hello"
    assert page.subscribe(long, resume=token)["recovered"] is True


class Sharing(RedisSubscriber):
    """A site's own subscriber: all facilities share a channel."""

    def set_pubsub_channels(self, request, channels):
        super().set_pubsub_channels(request, channels)
        if channels:
            self._subscription.subscribe("unit:broadcast:kept-shared")


def test_a_long_recovery_of_facilities_that_share_a_channel(open_page, front, facility, slowly, with_settings):
    with_settings(WSLOOP=KEPT, WS4REDIS_SUBSCRIBER=f"{__name__}.Sharing")
    names = [f"kept-{facility}-{number}" for number in range(2)]
    first = open_page()
    given = {name: first.subscribe(name)["token"] for name in names}
    first.peer.close()
    for name in names:
        publish(name, *[f"{number}" for number in range(10)])
    page = open_page()
    restore(page, **given)
    while page.frame()["position"].split(".")[1] != "10":
        pass
    wait_until(lambda: not any(each.caught_up for each in handler().subscriptions._by_facility.values()), what="end")
    page.send({"type": "unsubscribe", "facility": names[0]})
    while page.frame()["type"] != "unsubscribed":
        pass
    publish("kept-shared", "for both")
    frame = page.frame()
    while frame.get("data") != "for both":
        frame = page.frame()
    assert page.ask("unsubscribe", facility=names[1])["type"] == "unsubscribed"
    page.peer.close()
    wait_until(nothing_is_left, what="the end of the connection")


def test_leaving_the_facility_of_the_url_in_the_middle_of_its_recovery(front, shared_redis, slowly, with_settings):
    with_settings(WSLOOP={"FACILITIES": {"*": {"size": 1000}}})
    peer = front.connect("?subscribe-broadcast", HTTP_SEC_WEBSOCKET_PROTOCOL=V1)
    token = json.loads(peer.message())["token"]
    peer.close()
    publish("", *[f"{number}" for number in range(50)])
    page = Page.__new__(Page)
    page.peer = front.connect(f"?subscribe-broadcast&resume={token}", HTTP_SEC_WEBSOCKET_PROTOCOL=V1)
    page.send({"type": "unsubscribe", "facility": "", "id": 1})
    frame = page.frame()
    while frame.get("id") != 1:
        frame = page.frame()
    assert frame["type"] == "unsubscribed"
    assert not engine.engine().hub._subscribers[dialects.V1_DIALECT][b"unit:broadcast:"]
    page.peer.close()
    wait_until(nothing_is_left, what="the end of the connection")


# Presence.


def test_presence_of_several_facilities(open_page, facility, signed_in):
    name = f"here-{facility}"
    page = open_page(HTTP_COOKIE=signed_in.cookie)
    assert page.subscribe(name, presence=True)["presence"]["users"] in ([], ["john"])
    wait_until(lambda: presence.who(name).users == ["john"], what="the presence of john")
    assert page.frame() == {"type": "presence", "facility": name, "event": "join", "user": "john"}
    page.ask("unsubscribe", facility=name)
    assert engine.engine().presence._places[name].users == {"john": 0}, "nobody, who may come back"


def test_who_leaves_before_the_welcome_is_present_nowhere(page, facility, monkeypatch):
    name = f"here-{facility}"
    payloads = Recovery.first_payloads

    def first_payloads(*arguments):
        page.peer.close()
        return payloads(*arguments)

    monkeypatch.setattr(Recovery, "first_payloads", first_payloads)
    page.send({"type": "subscribe", "facility": name, "audiences": ["broadcast"]})
    wait_until(nothing_is_left, what="the end of the connection")
    turn()
    assert name not in engine.engine().presence._places


# Publishing.


def test_messages_of_a_client(page, facility):
    page.subscribe(facility, publish=["broadcast"])
    page.send({"type": "publish", "facility": facility, "data": "x", "id": 7})
    by_type = {frame["type"]: frame for frame in page.frames(2)}
    assert by_type["ack"] == {"type": "ack", "id": 7}
    assert by_type["message"]["own"] is True


def test_a_message_right_behind_its_subscription(page, facility):
    page.send(
        {"type": "subscribe", "facility": facility, "audiences": ["broadcast"], "publish": ["broadcast"]},
        {"type": "publish", "facility": facility, "data": "1"},
        {"type": "publish", "facility": facility, "data": "2"},
    )
    assert page.texts("2") == [(facility, "welcome"), (facility, "1"), (facility, "2")]


@pytest.mark.parametrize("content", [{}, {"facility": "unknown"}])
def test_publishing_without_a_subscription_is_refused(page, content):
    answer = page.ask("publish", data="x", **content)
    assert answer["code"] == "refused"


def test_a_key_publishes_once(page, facility):
    page.subscribe(facility, publish=["broadcast"])
    for _ in range(3):
        page.send({"type": "publish", "facility": facility, "data": "once", "key": "k", "id": 1})
    page.send({"type": "publish", "facility": facility, "data": "end"})
    found = []
    while "end" not in found or found.count("ack") < 3:  # a message may come before the acknowledgement of another one
        frame = page.frame()
        found.append(frame.get("data", frame["type"]))
    assert sorted(found) == ["ack"] * 3 + ["end", "once"]


def test_a_clients_key_is_not_one_of_the_site(page, facility):
    page.subscribe(facility, publish=["broadcast"])
    page.send({"type": "publish", "facility": facility, "data": "of the client", "key": "k"})
    assert page.frame()["data"] == "of the client"
    RedisPublisher(facility=facility, broadcast=True).publish_message("of the site", key="k")
    assert page.frame()["data"] == "of the site"


def test_the_key_of_another_user_is_another_one(open_page, page, facility, signed_in, front):
    """A client that counts its messages swallows nobody's, nor could somebody who guesses a key."""
    mine = open_page(HTTP_COOKIE=signed_in.cookie)
    for each, data in ((mine, "of john"), (page, "of nobody")):
        each.subscribe(facility, publish=["broadcast"])
        each.send({"type": "publish", "facility": facility, "data": data, "key": "1"})
        assert each.texts(data)[-1] == (facility, data)  # before it the kept one, if any
    body = json.dumps({"type": "publish", "data": "of john", "key": "1"}).encode()
    headers = {"HTTP_ACCEPT": "*/*", "content_type": "application/json", "HTTP_COOKIE": signed_in.cookie}
    assert front.call(f"{facility}?publish-broadcast", method="POST", body=body, **headers).status == 200
    publish(facility, "end")
    assert [page.frame()["data"]] == ["end"], "and john's is the same on all ways"


class Twice(RedisSubscriber):
    def publish_message(self, message, expire=None):
        super().publish_message(message)
        super().publish_message(message + b" again")


def test_a_key_holds_for_all_that_a_sites_own_subscriber_publishes(front, facility, shared_redis, with_settings):
    with_settings(WS4REDIS_SUBSCRIBER=f"{__name__}.Twice")
    page = Page(front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL=V1))
    page.subscribe(facility, publish=["broadcast"])
    for _ in range(2):
        page.send({"type": "publish", "facility": facility, "data": "x", "key": "k", "id": 1})
    found = [frame.get("data", frame["type"]) for frame in page.frames(4)]
    assert sorted(found) == ["ack", "ack", "x", "x again"]


# The past.


def past(page, facility, **content):
    frame = page.ask("history", facility=facility, **content)
    return [message["data"] for message in frame["messages"]], frame["before"]


def test_pages_of_the_past(page, facility):
    name = f"kept-{facility}"
    publish(name, *[f"{number}" for number in range(10)])
    page.subscribe(name)
    page.frame()  # the kept one
    texts, before = past(page, name, limit=4)
    assert texts == ["6", "7", "8", "9"]
    publish(name, "live")
    assert page.frame()["data"] == "live"
    texts, before = past(page, name, limit=4, before=before)
    assert texts == ["2", "3", "4", "5"]
    texts, before = past(page, name, limit=4, before=before)
    assert (texts, before) == (["0", "1"], None)


def test_the_past_of_the_socket_of_a_facility(front, shared_redis, facility, with_settings):
    with_settings(WSLOOP=KEPT)
    name = f"kept-{facility}"
    publish(name, "1", "2")
    peer = front.connect(f"{name}?subscribe-broadcast", HTTP_SEC_WEBSOCKET_PROTOCOL=V1)
    peer.messages(2)
    peer.text('{"type": "history", "id": 1}')
    answer = json.loads(peer.message())
    assert [each["data"] for each in answer["messages"]] == ["1", "2"]
    assert answer["facility"] == name


@pytest.mark.parametrize("before", ["", "x", "~", "aaaaaaaa.1", "aaaaaaaa.1.x~", "+"])
def test_what_names_no_page_of_the_past_is_refused(page, facility, before):
    page.subscribe(f"kept-{facility}")
    assert page.ask("history", facility=f"kept-{facility}", before=before)["code"] == "frame"


def test_where_clients_may_not_recover_they_have_no_past(page, facility):
    page.subscribe(facility)
    assert page.ask("history", facility=facility)["code"] == "refused"
    assert page.ask("history", facility="unknown")["code"] == "refused"


def slow_ids(page, count):
    """The ids of as many frames, read more slowly than the server writes."""
    ids = []
    for _ in range(count):
        gevent.sleep(0.05)
        ids.append(page.frame()["id"])
    return ids


def test_who_reads_slowly_gets_all_pages_of_the_past(page, facility, with_settings):
    """The next one waits: the client would be closed as a slow one for what it has asked for."""
    name = f"kept-{facility}"
    page.subscribe(name)
    publish(name, *["x" * 60_000] * 4)
    page.frames(4)
    page.send(*[{"type": "history", "facility": name, "id": number, "limit": 4} for number in range(40)])
    assert slow_ids(page, 40) == [*range(40)]


def test_who_reads_slowly_gets_all_pages_of_the_past_of_a_facility(front, shared_redis, facility, with_settings):
    with_settings(WSLOOP=KEPT)
    name = f"kept-{facility}"
    publish(name, *["x" * 60_000] * 4)
    peer, other = [front.connect(f"{name}?subscribe-broadcast", HTTP_SEC_WEBSOCKET_PROTOCOL=V1) for _ in range(2)]
    for each in (peer, other):
        each.messages(2)
    peer.text(json.dumps([{"type": "history", "id": number, "limit": 4} for number in range(40)]))
    wait_until(lambda: not all(each.clear for each in engine.engine().hub.connections), what="a full kernel")
    other.text('{"type": "history", "id": "other", "limit": 1}')
    assert json.loads(other.message())["id"] == "other", "nobody waits for another one"
    assert [json.loads(peer.message())["id"] for _ in range(40)] == [*range(40)]


def test_pages_of_the_past_of_a_facility_beyond_the_rate_wait(front, shared_redis, facility, with_settings):
    with_settings(WSLOOP={**KEPT, "COMMAND_RATE": (10, 4)})
    peer = front.connect(f"kept-{facility}?subscribe-broadcast", HTTP_SEC_WEBSOCKET_PROTOCOL=V1)
    peer.message()
    peer.text(json.dumps([{"type": "history", "id": number} for number in range(8)]))
    with gevent.Timeout(0.25, False):
        peer.messages(8)
        pytest.fail("all of them were answered at once")


def test_who_has_left_has_no_past(front, shared_redis, facility, with_settings, monkeypatch):
    with_settings(WSLOOP=KEPT)
    peer = front.connect(f"kept-{facility}?subscribe-broadcast", HTTP_SEC_WEBSOCKET_PROTOCOL=V1)
    peer.message()
    read, go_on = [], Event()

    def past(*arguments):
        read.append(arguments)
        go_on.wait(WAIT)
        raise ValueError

    monkeypatch.setattr("wsloop.facilities.past.page", past)
    peer.text(json.dumps([{"type": "history"}] * 10))
    wait_until(lambda: read, what="the first one")
    (connection,) = engine.engine().hub.connections
    connection.abort()
    go_on.set()
    wait_until(nothing_is_left, what="the end of the connection")
    turn()
    assert len(read) == 1


# Calls.


def state(request, number=0):
    user = request.user.get_username() if request.user.is_authenticated else None
    return JsonResponse(
        {"user": user, "method": request.method, "query": request.GET.dict(), "body": request.body.decode()}
    )


def telling(request, facility):
    publish(facility, "1", "2", "3")
    return JsonResponse({})


def fail(request):
    raise ZeroDivisionError("a secret")


def leak(request):
    raise gevent.Timeout(1)


urlpatterns = [
    path("api/state/", state),
    path("api/tell/<facility>/", telling),
    path("api/fail/", fail),
    path("api/html/", lambda request: HttpResponse("<p>")),
    path("api/empty/", lambda request: HttpResponse(status=204, content_type="application/json")),
    path("api/moved/", lambda request: HttpResponse(status=302, headers={"Location": "/login/"})),
    path("api/large/", lambda request: JsonResponse({"x": "x" * 1024 * 1024})),
    path("api/deep/", lambda request: HttpResponse("[" * 100_000, content_type="application/json")),
    path("api/nested/", lambda request: HttpResponse("[" * 990 + "]" * 990, content_type="application/json")),
    path("api/stream/", lambda request: StreamingHttpResponse(iter(["{", "}"]), content_type="application/json")),
    path("api/meta/", lambda request: JsonResponse(sorted(map(str, request.META.items())), safe=False)),
    path("api/long/", lambda request: JsonResponse({"x": "x" * 1000})),
    path("api/quarter/", lambda request: JsonResponse({"x": "x" * 250_000})),
    path("api/leak/", leak),
    path("api/exit/", lambda request: sys.exit(1)),
    path("admin/", state),
]


def framework_urls():
    """Views of REST framework and of Ninja; imported late, because the first reads the settings."""
    from ninja import NinjaAPI
    from ninja.security import django_auth
    from rest_framework.authentication import SessionAuthentication
    from rest_framework.permissions import IsAuthenticated
    from rest_framework.response import Response
    from rest_framework.throttling import UserRateThrottle
    from rest_framework.views import APIView

    class Twice(UserRateThrottle):
        rate = "2/hour"

    class Order(APIView):
        authentication_classes = (SessionAuthentication,)
        permission_classes = (IsAuthenticated,)
        throttle_classes = (Twice,)

        def post(self, request, number):
            return Response({"user": request.user.get_username(), "number": number, "state": request.data["state"]})

    ninja = NinjaAPI(auth=django_auth, docs_url=None, openapi_url=None, urls_namespace="tests")

    @ninja.post("/orders/{number}/")
    def order(request, number: int):
        return {"user": request.auth.get_username(), "number": number, "state": json.loads(request.body)["state"]}

    return [path("api/rest/<int:number>/", Order.as_view()), path("api/ninja/", ninja.urls)]


@pytest.fixture
def api(open_page, with_settings, database):
    def make(**headers):
        with_settings(
            WSLOOP={"CALL_PATHS": ["/api/*"]},
            ROOT_URLCONF=__name__,
            MIDDLEWARE=[
                "django.middleware.gzip.GZipMiddleware",
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
            ],
        )
        page_socket.calls.handler.cache_clear()
        return open_page(**headers)

    yield make
    page_socket.calls.handler.cache_clear()


def test_a_call_runs_a_view_in_the_session_of_the_socket(api, signed_in):
    page = api(HTTP_COOKIE=signed_in.cookie)
    answer = page.ask("call", method="POST", path="/api/state/?a=%C3%BC", data={"n": 1})
    assert answer == {
        "type": "answer",
        "status": 200,
        "data": {"user": "john", "method": "POST", "query": {"a": "ü"}, "body": '{"n": 1}'},
    }


def test_the_answer_comes_behind_the_messages_of_the_call(api, facility):
    page = api()
    page.subscribe(facility)
    page.send({"type": "call", "id": 2, "path": f"/api/tell/{facility}/", "method": "POST"})
    assert [frame.get("data", frame["type"]) for frame in page.frames(4)] == ["1", "2", "3", {}]


@pytest.mark.parametrize(
    "path",
    ["/admin/", "/api", "/", "/ws/", "/%61dmin/", "/API/state/", "/api/%ff", "/api/%0a"],
)
def test_paths_that_are_not_allowed(api, path):
    assert api().ask("call", path=path)["code"] == "refused"


def test_the_middleware_is_loaded_when_the_site_starts(with_settings):
    """It may take half a second, in which no socket of the worker would be served."""
    calls.handler.cache_clear()
    WebsocketServer()
    assert not calls.handler.cache_info().currsize
    with_settings(WSLOOP={"CALL_PATHS": ["/api/*"]})
    WebsocketServer()
    assert calls.handler.cache_info().currsize
    calls.handler.cache_clear()


def test_without_the_setting_nothing_is_allowed(page):
    assert page.ask("call", path="/")["code"] == "refused"


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("html", {"status": 200}),
        ("empty", {"status": 204}),
        ("moved", {"status": 302, "location": "/login/"}),
        ("unknown", {"status": 404}),
        ("fail", {"status": 500}),
    ],
)
def test_responses_without_json(api, name, answer):
    assert api().ask("call", path=f"/api/{name}/") == {"type": "answer", **answer}


@pytest.mark.parametrize(("name", "code"), [("large", "refused"), ("deep", "internal"), ("nested", "internal")])
def test_responses_that_cannot_be_sent(api, name, code):
    page = api()
    assert page.ask("call", path=f"/api/{name}/")["code"] == code
    assert page.ask("call", path="/api/state/")["status"] == 200, "the socket goes on"


def test_a_stream_that_ends_is_a_response(api):
    assert api().ask("call", path="/api/stream/")["data"] == {}


def test_a_call_that_takes_its_time_holds_up_this_socket_alone(api, facility, monkeypatch):
    page, other = api(), api()
    page.subscribe(facility)
    go_on = Event()
    monkeypatch.setattr(page_socket.calls, "call", lambda visit, command: go_on.wait(WAIT) and {"status": 200})
    page.send({"type": "call", "id": 1, "path": "/api/state/"})
    page.send({"type": "unsubscribe", "id": 2, "facility": "x"})
    publish(facility, "live")
    assert page.frame()["data"] == "live"
    assert other.subscribe(facility)["type"] == "welcome"
    go_on.set()
    assert [frame["id"] for frame in page.frames(2)] == [1, 2]


def test_who_leaves_in_the_middle_of_a_call(api, monkeypatch):
    page = api()
    go_on = Event()
    monkeypatch.setattr(page_socket.calls, "call", lambda visit, command: go_on.wait(WAIT) and {"status": 200})
    page.send({"type": "call", "id": 1, "path": "/api/state/"})
    turn()
    page.peer.close()
    wait_until(lambda: not engine.engine().hub.connections, what="the end of the connection")
    go_on.set()
    wait_until(nothing_is_left, what="the end")


def test_views_of_rest_framework_and_ninja(api, signed_in, monkeypatch):
    """Sessions, permissions, throttles and the CSRF check are theirs."""
    cache.clear()
    page = api(HTTP_COOKIE=signed_in.cookie)
    monkeypatch.setattr(sys.modules[__name__], "urlpatterns", urlpatterns + framework_urls())
    clear_url_caches()
    answers = [
        page.ask("call", method="POST", path=path, data={"state": "paid"})
        for path in ("/api/ninja/orders/7/", *["/api/rest/7/"] * 3)
    ]
    assert [each["status"] for each in answers] == [200, 200, 200, 429]
    assert [each["data"] for each in answers[:3]] == [{"user": "john", "number": 7, "state": "paid"}] * 3
    nobody = api()
    statuses = [
        nobody.ask("call", method="POST", path=path, data={"state": "paid"})["status"]
        for path in ("/api/ninja/orders/7/", "/api/rest/7/")
    ]
    assert statuses == [401, 403]
    clear_url_caches()


def test_a_response_is_neither_compressed_nor_a_part_for_the_headers_of_the_handshake(api):
    headers = {"HTTP_ACCEPT_ENCODING": "gzip, deflate, br", "HTTP_IF_NONE_MATCH": "*", "HTTP_RANGE": "bytes=0-1"}
    assert api(**headers).ask("call", path="/api/long/") == {"type": "answer", "status": 200, "data": {"x": "x" * 1000}}


def test_a_call_sees_no_token(api, front, signed_in):
    api()
    token = tokens.make(User.objects.get(username="john"))
    bearer = f"Bearer wsloop.token.{token}"
    offered = f"{V1}, wsloop.token.{token}"
    page = Page(front.connect(f"?token={token}", HTTP_SEC_WEBSOCKET_PROTOCOL=offered, HTTP_AUTHORIZATION=bearer))
    assert token not in json.dumps(page.ask("call", path="/api/meta/"))
    page = Page(front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL=V1, HTTP_AUTHORIZATION=bearer))
    assert token not in json.dumps(page.ask("call", path="/api/meta/"))
    page = Page(front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL=V1, HTTP_AUTHORIZATION="Basic am9objpzZWNyZXQ="))
    assert "Basic am9objpzZWNyZXQ=" in json.dumps(page.ask("call", path="/api/meta/")), "that of the site is left"


@pytest.mark.parametrize("how", ["query", "subprotocol", "header"])
def test_a_client_with_a_token_calls_in_nobody_elses_name(api, front, signed_in, how):
    """Its cookie may be of another user: the socket is that of the token's."""
    page = api(HTTP_COOKIE=signed_in.cookie)
    assert page.ask("call", path="/api/state/")["data"]["user"] == "john"
    token = tokens.make(User.objects.create(username="mary"))
    offered = f"{V1}, wsloop.token.{token}" if how == "subprotocol" else V1
    header = {"HTTP_AUTHORIZATION": f"Bearer wsloop.token.{token}"} if how == "header" else {}
    query = f"?token={token}" if how == "query" else ""
    page = Page(front.connect(query, HTTP_COOKIE=signed_in.cookie, HTTP_SEC_WEBSOCKET_PROTOCOL=offered, **header))
    assert page.ask("call", path="/api/state/?token=its-own")["data"] == {
        "user": None,
        "method": "GET",
        "query": {"token": "its-own"},
        "body": "",
    }


def test_the_answer_to_head_has_no_body(api):
    assert api().ask("call", method="HEAD", path="/api/state/") == {"type": "answer", "status": 200}


@pytest.mark.parametrize("name", ["leak", "exit"])
def test_what_ends_a_greenlet_ends_neither_the_socket_nor_the_process(api, name):
    page = api()
    page.send({"type": "call", "id": 1, "path": f"/api/{name}/"}, {"type": "unsubscribe", "id": 2, "facility": "x"})
    assert [frame.get("code", frame["type"]) for frame in page.frames(2)] == ["internal", "unsubscribed"]
    assert handler()._waiting == 0


def test_calls_that_run_on_count_for_their_visitor(api, with_settings, front, monkeypatch, signed_in):
    """Otherwise a client that reconnects would have any number of views at work."""
    page = api(HTTP_COOKIE=signed_in.cookie)
    go_on = Event()
    monkeypatch.setattr(page_socket.calls, "call", lambda visit, command: go_on.wait(WAIT) and {"status": 200})
    with_settings(WSLOOP={"MAX_CONNECTIONS_PER_USER": 1})
    page.send({"type": "call", "id": 1, "path": "/api/state/"})
    turn()
    page.peer.close()
    wait_until(lambda: not engine.engine().hub.connections, what="the end of the connection")
    headers = {"HTTP_SEC_WEBSOCKET_PROTOCOL": V1, "HTTP_COOKIE": signed_in.cookie}
    assert front.call("", **headers).status == 429
    go_on.set()
    wait_until(nothing_is_left, what="the end of the call")
    assert front.call("", **headers).status == 101


def test_who_has_left_waits_for_no_turn(page, facility, with_settings):
    with_settings(WSLOOP={"COMMAND_RATE": (0.01, 4)})
    page.send(*[{"type": "unsubscribe", "facility": facility}] * 100)
    work = handler()
    wait_until(lambda: work._waiting < 100, what="the first commands")
    page.peer.close()
    wait_until(nothing_is_left, what="the end of the connection")
    wait_until(lambda: not work._queue._running, what="the end of its greenlet")


def test_who_reads_slowly_gets_all_answers(api):
    page = api()
    page.send(*[{"type": "call", "id": number, "path": "/api/quarter/"} for number in range(20)])
    assert slow_ids(page, 20) == [*range(20)]


def test_so_many_commands_are_carried_out_at_once(api, facility, monkeypatch):
    """Each may need a database connection: a thousand pages that come back at once would need a thousand."""
    monkeypatch.setitem(page_socket.AT_ONCE, Call, BoundedSemaphore(2))
    go_on, running = Event(), []

    def call(visit, command):
        running.append(command)
        go_on.wait(WAIT)
        return {"status": 200}

    monkeypatch.setattr(page_socket.calls, "call", call)
    pages = [api() for _ in range(4)]
    for each in pages:
        each.send({"type": "call", "path": "/api/state/"})
    wait_until(lambda: all(each._handler._waiting for each in engine.engine().hub.connections), what="all of them")
    turn()
    assert len(running) == 2
    go_on.set()
    assert [each.frame()["status"] for each in pages] == [200] * 4


# What is not understood.


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", "[1, {}]", '{"type": "welcome"}'])
def test_what_is_not_understood_is_answered(page, text, facility):
    page.peer.text(text)
    assert page.frame()["code"] == "frame"
    page.peer.text('{"type": "unsubscribe", "id": "end", "facility": "x"}')
    frame = page.frame()
    while frame["type"] == "error":
        frame = page.frame()
    assert frame["id"] == "end"


def test_a_binary_frame_has_no_facility(page):
    page.peer.send(masked(Opcode.BINARY, b"x"))
    assert page.frame()["code"] == "refused"


def test_redis_is_away(own_redis, front, facility, with_settings):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 1})
    page = Page(front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL=V1))
    page.subscribe(facility)
    own_redis.kill()
    wait_until(lambda: engine.engine().broker._down, what="the broker noticing")
    page.send(
        *[
            {"type": "subscribe", "id": number, "facility": f"{facility}-{number}", "audiences": ["broadcast"]}
            for number in range(3)
        ]
    )
    assert [frame["code"] for frame in page.frames(3)] == ["unavailable"] * 3
    own_redis.start()

    def subscribed():
        return page.subscribe(f"{facility}-1")["type"] == "welcome"

    wait_until(subscribed, what="Redis to be back")
