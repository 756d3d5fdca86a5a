"""``release()`` of the site's own subscriber class: called once for each that was made, when its socket has ended."""

import json
import sys

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import connections
from django.test import RequestFactory
from websockets.frames import Opcode
from ws4redis.subscriber import RedisSubscriber

from testbed.processes import wait_until
from tests.unit.front import nothing_is_left
from tests.unit.peer import close_frame, masked
from wsloop import engine, views
from wsloop.delivery.broker import Unavailable
from wsloop.facilities.setup import SubscriptionSetup

EVERYTHING = "subscribe-broadcast&publish-broadcast&echo"


class Counting(RedisSubscriber):
    """Counts the sockets of each facility, as sites do, and says so to the others."""

    listeners: dict[str, int] = {}
    events: list[str] = []

    def set_pubsub_channels(self, request, channels):
        self.facility = request.path_info.removeprefix("/ws/")
        self.listeners[self.facility] = self.listeners.get(self.facility, 0) + 1
        super().set_pubsub_channels(request, channels)
        if "refuse" in request.GET:
            raise PermissionDenied

    def release(self):
        super().release()
        self.listeners[self.facility] -= 1
        self.events.append(f"released {self.facility}")
        self._connection.publish(f"{self.get_prefix()}broadcast:{self.facility}", "somebody has left")


class Busy(Counting):
    """Has code for messages as well."""

    databases: list[object] = []

    def publish_message(self, message, expire=None):
        User.objects.count()
        self.databases.append(connections["default"])
        self.events.append(f"published {message.decode()}")
        super().publish_message(message, expire)


class Failing(Counting):
    def release(self):
        super().release()
        raise RuntimeError("a secret")


class Exits(Counting):
    def release(self):
        super().release()
        sys.exit("enough")


@pytest.fixture(autouse=True)
def forget():
    for kept in (Counting.listeners, Counting.events, Busy.databases):
        kept.clear()


@pytest.fixture(params=[Counting, Busy])
def counting(request, with_settings, database):
    with_settings(WS4REDIS_SUBSCRIBER=f"{__name__}.{request.param.__name__}")


def wait_for(listeners):
    wait_until(lambda: Counting.listeners == listeners, what="the subscribers' release")


def test_it_is_called_when_a_socket_ends(front, shared_redis, facility, counting):
    first, second, third = (front.connect(f"{facility}?{EVERYTHING}") for _ in range(3))
    assert Counting.listeners == {facility: 3}
    first.close()
    wait_for({facility: 2})
    assert second.message() == third.message() == "somebody has left"
    second.send(close_frame())
    wait_for({facility: 1})
    for connection in engine.engine().hub.connections:
        connection.close(1012, "restarting")
    wait_for({facility: 0})
    assert Counting.events == [f"released {facility}"] * 3
    wait_until(nothing_is_left, what="the end of the sockets")
    assert not engine.engine().facilities.releases._kept


def test_it_is_called_behind_the_last_message(front, shared_redis, facility, with_settings, database):
    with_settings(WS4REDIS_SUBSCRIBER=f"{__name__}.Busy")
    peer, other = (front.connect(f"{facility}?{EVERYTHING}") for _ in range(2))
    peer.send(*(masked(Opcode.TEXT, b"%d" % number) for number in range(3)), close_frame())
    assert other.messages(4) == ["0", "1", "2", "somebody has left"]
    assert Counting.events == ["published 0", "published 1", "published 2", f"released {facility}"]
    wait_until(lambda: all(each.connection is None for each in Busy.databases), what="the end of the connections")


@pytest.mark.parametrize(
    ("query", "status"),
    [("subscribe-broadcast&refuse", 403), ("subscribe-broadcast&presence", 500)],
)
def test_it_is_called_when_no_socket_is_opened(
    front, shared_redis, facility, with_settings, monkeypatch, counting, query, status
):
    if status == 500:
        monkeypatch.setattr(SubscriptionSetup, "_welcome", None)
        monkeypatch.setattr("wsloop.delivery.broker.Broker.sync", lambda self: 1 / 0)
    assert front.call(f"{facility}?{query}").status == status
    wait_for({facility: 0})


def test_it_is_called_when_redis_does_not_answer(front, shared_redis, facility, monkeypatch, counting):
    def fail(*arguments):
        raise Unavailable("down")

    monkeypatch.setattr("wsloop.delivery.broker.Broker.subscribe", fail)
    assert front.call(f"{facility}?{EVERYTHING}").status == 503
    wait_for({facility: 0})


def test_it_is_called_when_the_client_has_hung_up(front, shared_redis, facility, counting):
    front.call(f"{facility}?{EVERYTHING}", hang_up=True)
    wait_for({facility: 0})


@pytest.mark.parametrize("cls", ["Failing", "Exits"])
def test_one_that_fails_hinders_nobody(front, shared_redis, facility, with_settings, caplog, cls):
    with_settings(WS4REDIS_SUBSCRIBER=f"{__name__}.{cls}")
    peers = [front.connect(f"{facility}?{EVERYTHING}") for _ in range(3)]
    for peer in peers:
        peer.send(close_frame())
        assert peer.frame() is not None
    wait_for({facility: 0})
    wait_until(lambda: not engine.engine().facilities.releases._waiting, what="the end of the releases")
    assert caplog.text.count(f"{cls}.release failed") == 3


def test_subscriptions_of_a_page_are_released_one_by_one(front, shared_redis, facility, counting):
    peer = front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL="wsloop.v1")

    def say(kind, number, **content):
        peer.text(json.dumps({"type": kind, "id": number, "facility": f"{facility}-{number}", **content}))
        while json.loads(peer.message()).get("id") != number:
            pass

    for number in range(3):
        say("subscribe", number, audiences=["broadcast"])
    assert Counting.listeners == {"": 1, **{f"{facility}-{number}": 1 for number in range(3)}}
    say("unsubscribe", 1)
    wait_for({"": 1, f"{facility}-0": 1, f"{facility}-1": 0, f"{facility}-2": 1})
    peer.send(close_frame())
    wait_for({"": 0, **{f"{facility}-{number}": 0 for number in range(3)}})


def test_what_is_posted_has_a_subscriber_of_its_own(front, shared_redis, facility, counting):
    body = json.dumps({"type": "publish", "id": 1, "data": "posted"}).encode()
    headers = {"HTTP_ACCEPT": "application/json", "body": body, "content_type": "application/json"}
    assert front.call(f"{facility}?publish-broadcast", method="POST", **headers).status == 200
    assert Counting.listeners == {facility: 0}


def test_the_view_of_positions_opens_no_socket(shared_redis, facility, counting, with_settings):
    request = RequestFactory().get("/", {"facility": facility, "audience": "broadcast"})
    assert json.loads(views.token(request).content)["audiences"] == ["broadcast"]
    assert Counting.listeners == {facility: 0}


def test_when_uwsgi_ends_the_worker_it_waits_for_them(front, shared_redis, facility, counting, monkeypatch):
    exits = []
    monkeypatch.setattr("wsloop.sockets.servers.at_exit", exits.append)
    for _ in range(3):
        front.connect(f"{facility}?{EVERYTHING}")
    exits[0]()
    assert Counting.listeners == {facility: 0}
