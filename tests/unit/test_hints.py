"""Mistakes that pass in silence end in a line of the log, while a site is developed."""

import types

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.urls import include, path, re_path

from wsloop import refusals
from wsloop.consumers import WebsocketConsumer
from wsloop.publisher import SELF, RedisPublisher
from wsloop.routing import Routes
from wsloop.server import WebsocketServer

V1 = {"HTTP_SEC_WEBSOCKET_PROTOCOL": "wsloop.v1"}


class Chat(WebsocketConsumer):
    pass


PATTERNS = [
    path("ws/chat/<str:room>/", Chat.as_websocket()),
    re_path(r"^ws/echo/$", Chat.as_websocket()),
    path("ws/inner/", include(([path("orders/<int:pk>/lines/", Chat.as_websocket())], "inner"))),
]


@pytest.fixture
def developed(front, shared_redis, with_settings):
    with_settings(DEBUG=True)
    app = WebsocketServer(urlpatterns=PATTERNS)
    return lambda url, **headers: front.connect(url, app=app, **headers)


def hints(caplog):
    return [each.getMessage() for each in caplog.records if each.name == "wsloop.hints"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("orders?subscribe-user", "subscribe-user of 'orders' is for nobody, because nobody has signed in"),
        ("orders?subscribe-broadcast&publish-group", "publish-group of 'orders' is for nobody"),
        ("orders?subscribe-session", "subscribe-session of 'orders' is for nobody, because there is no session"),
        ("orders", "the URL of 'orders' names no audience, so its socket gets no message"),
        ("orders", "perhaps ?subscribe-broadcast is missing"),
        ("orders?broadcast&echo", "the URL of 'orders' names no audience"),
        ("chat/lobby", "perhaps the consumer at 'ws/chat/<str:room>/' was meant"),
        ("chta/lobby/", "perhaps the consumer at 'ws/chat/<str:room>/' was meant"),
        ("Echo/", "perhaps the consumer at 'ws/echo/$' was meant"),
        ("inner/order/7/lines", "perhaps the consumer at 'ws/inner/orders/<int:pk>/lines/' was meant"),
        (
            "orders?subscribe-brodcast",
            "'subscribe-brodcast' of 'orders' has no effect: 'subscribe-broadcast' was meant",
        ),
        ("orders?subscribe-broadcast&publish-users", "'publish-users' of 'orders' has no effect: 'publish-user' was"),
        ("orders?subscribe-presence", "has no effect: the facility does not have the option presence"),
    ],
)
def test_what_means_nothing_is_spoken_of_once(developed, caplog, url, words):
    for _ in range(3):
        developed(url)
    found = [line for line in hints(caplog) if words in line]
    assert len(found) == 1, hints(caplog)
    assert found[0].startswith("perhaps a mistake: ")


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("orders?subscribe-broadcast&publish-broadcast&echo&x=1", {}),
        ("?subscribe-broadcast", V1),
        ("", V1),  # the socket of a whole page
        ("chat/lobby/", {}),
        ("echo/?subscribe-user", {}),  # the consumer's own business
    ],
)
def test_what_is_right_is_not_spoken_of(developed, caplog, url, headers):
    developed(url, **headers)
    assert hints(caplog) == []


def test_somebody_who_has_signed_in_is_somebody(developed, signed_in, caplog):
    query = "subscribe-user&subscribe-group&subscribe-session&publish-user"
    developed(f"orders?{query}", HTTP_COOKIE=signed_in.cookie)
    assert hints(caplog) == []


def test_a_page_of_localhost_that_asks_127_0_0_1_is_told_of_its_cookies(developed, caplog):
    developed("orders?subscribe-user", HTTP_ORIGIN="http://localhost:8000", HTTP_HOST="127.0.0.1:8000")
    (line,) = hints(caplog)
    assert "the page is of 'localhost:8000', and a browser has other cookies for '127.0.0.1:8000'" in line


def test_in_production_nothing_is_spoken_of(front, shared_redis, with_settings, caplog):
    for url in ("orders", "orders?subscribe-user", "chat/lobby"):
        front.connect(url, app=WebsocketServer(urlpatterns=PATTERNS))
    RedisPublisher(facility="orders").publish_message("to nobody")
    assert hints(caplog) == []


@pytest.mark.parametrize(
    ("route", "path_", "same"),
    [
        ("ws/a/b/", "/ws/a/b", True),
        ("ws/a/b/", "/ws/a/b/c", False),
        ("ws/chat/<str:room>/", "/ws/orders/7", False),
        ("ws/notifications/", "/ws/notification", True),
        ("ws/news/", "/ws/orders", False),
        ("ws/a/", "/ws/", False),
    ],
)
def test_what_a_path_resembles(route, path_, same):
    assert (Routes([path(route, Chat.as_websocket())]).similar(path_) == route) == same
    assert Routes().similar(path_) is None


# Publishing.


NOBODY = types.SimpleNamespace(user=AnonymousUser(), session=None)
JOHN = types.SimpleNamespace(user=User(username="john"), session=types.SimpleNamespace(session_key="key"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"users": [SELF], "request": NOBODY},
            "users=[SELF] of a message to 'orders' is nobody, because nobody",
        ),
        ({"users": SELF, "broadcast": True, "request": NOBODY}, "users=[SELF] of a message to 'orders' is nobody"),
        ({"users": True, "request": NOBODY}, "users=[SELF] of a message to 'orders' is nobody"),
        ({"groups": [SELF], "request": NOBODY}, "groups=[SELF] of a message to 'orders' is nobody"),
        ({"sessions": [SELF], "request": NOBODY}, "because there is no session, or it was not saved yet"),
        ({"users": [SELF]}, "because there is no request=request"),
        ({}, "a message to 'orders' has no audience, so nobody gets it"),
        ({"users": []}, "a message to 'orders' has no audience, so nobody gets it"),
    ],
)
def test_a_message_to_nobody(shared_redis, with_settings, caplog, arguments, words):
    with_settings(DEBUG=True)
    for _ in range(3):
        publisher = RedisPublisher(facility="orders", **arguments)
        publisher.publish_message("x")
    (line,) = hints(caplog)
    assert words in line


def test_a_message_to_somebody(shared_redis, with_settings, caplog):
    with_settings(DEBUG=True)
    for arguments in (
        {"users": [SELF], "sessions": [SELF]},
        {"broadcast": True},
        {"users": (name for name in ["mary"])},
    ):
        RedisPublisher(facility="orders", request=JOHN, **arguments).publish_message("x")
    RedisPublisher(facility="orders", users=[SELF], request=NOBODY).history()
    assert hints(caplog) == []


def test_later_mistakes_are_spoken_of_again(developed, monkeypatch, caplog):
    now = 1000.0
    monkeypatch.setattr(refusals.time, "monotonic", lambda: now)
    for _ in range(3):
        developed("orders")
    assert len(hints(caplog)) == 1, "one that is repeated is a page that comes back"
    developed("news")
    assert len(hints(caplog)) == 2, "another one is the next try"
    now += refusals.LOG_INTERVAL
    developed("news")
    assert len(hints(caplog)) == 3


def test_a_message_to_the_facility_without_a_name(shared_redis, with_settings, caplog):
    with_settings(DEBUG=True)
    RedisPublisher(facility="", broadcast=True).publish_message("x")
    (line,) = hints(caplog)
    assert "a message to the facility '' reaches sockets at /ws/ itself only" in line
