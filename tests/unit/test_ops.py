"""The page of staff: who may see it and act, what its socket brings, and what its actions do."""

import json
import logging
import types

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.middleware.csrf import get_token
from django.test import RequestFactory
from django.urls import include, path
from websockets.frames import Close, Opcode

from testbed.processes import wait_until
from wsloop import engine
from wsloop.ops import consumer, feed, views
from wsloop.publisher import RedisPublisher

VIEWS = [views.user, views.facility, views.message, views.disconnect]
STRANGERS = [None, AnonymousUser(), User(username="john"), User(is_staff=True, is_active=False)]

urls = types.ModuleType("tests.unit.ops_urls")
urls.urlpatterns = [path("ops/", include("wsloop.ops.urls"))]
bare_urls = types.ModuleType("tests.unit.bare_urls")
bare_urls.urlpatterns = []


@pytest.fixture(autouse=True)
def site(with_settings, shared_redis):
    templates = {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}
    with_settings(ROOT_URLCONF=urls, TEMPLATES=[templates], LOGIN_URL="/login/", STATIC_URL="/static/")
    feed.FEED._read_at = float("-inf")


@pytest.fixture
def anna(database):
    return User.objects.create_user("anna", is_staff=True)


def call(view, user, method="get", csrf=True, **values):
    request = getattr(RequestFactory(), method)("/ops/", values)
    if csrf:
        token = get_token(request)
        request.COOKIES["csrftoken"] = request.META["CSRF_COOKIE"]
        request.META["HTTP_X_CSRFTOKEN"] = token
    if user is not None:
        request.user = user
    return view(request)


def answer(view, user, method="get", status=200, **values):
    response = call(view, user, method, **values)
    assert response.status_code == status, response.content
    return json.loads(response.content)


def sign_in(front, signed_in, query):
    return front.connect(query, HTTP_COOKIE=signed_in.cookie)


# Who may.


@pytest.mark.parametrize("user", STRANGERS)
def test_the_page_is_for_staff(user):
    if getattr(user, "is_authenticated", False):
        with pytest.raises(PermissionDenied):
            call(views.page, user)
    else:
        response = call(views.page, user)
        assert (response.status_code, response["Location"]) == (302, "/login/?next=/ops/")


@pytest.mark.parametrize("user", STRANGERS)
@pytest.mark.parametrize("view", VIEWS)
def test_nobody_else_may_look_or_act(user, view):
    method = "post" if view in (views.message, views.disconnect) else "get"
    assert "Only staff" in answer(view, user, method, status=403, name="anna")["error"]


@pytest.mark.parametrize("view", [views.message, views.disconnect])
def test_actions_need_the_token_of_the_page_and_are_posted(view, anna):
    assert call(view, anna, "post", csrf=False, name="anna").status_code == 403
    assert call(view, anna, "get", name="anna").status_code == 405


def test_staff_see_the_page_with_no_content_that_a_strict_policy_would_refuse(anna):
    html = call(views.page, anna).content.decode()
    assert 'data-socket="/ws/wsloop/ops/"' in html
    assert "<style" not in html
    assert "style=" not in html
    assert "onclick" not in html
    assert html.count("<script") == html.count('<script type="module" src=') + html.count('type="application/json"')


# The socket.


def test_the_socket_brings_the_numbers_of_all_workers_to_staff(front, database, signed_in, facility):
    User.objects.update(is_staff=True)
    front.connect(f"{facility}?subscribe-broadcast")
    peer = sign_in(front, signed_in, "wsloop/ops/")
    content = json.loads(peer.message())
    (worker,) = content["workers"]
    assert ["ws4redis", "other", "broadcast", 1] in worker["sockets"]
    assert content["missing"] == 0
    assert content["redis"]["role"] == "master"


def test_it_is_for_nobody_else(front, signed_in):
    assert front.call("wsloop/ops/").status == 403
    assert front.call("wsloop/ops/", HTTP_COOKIE=signed_in.cookie).status == 403


@pytest.mark.parametrize("change", [{"is_staff": False}, {"is_active": False}])
def test_who_is_no_longer_of_the_staff_loses_it_though_no_signal_tells(front, database, signed_in, monkeypatch, change):
    monkeypatch.setattr(consumer, "EVERY", 0.01)
    monkeypatch.setattr(consumer, "AGAIN", 0.05)
    User.objects.update(is_staff=True)
    peer = sign_in(front, signed_in, "wsloop/ops/")
    assert "workers" in json.loads(peer.message())
    User.objects.update(**change)
    while (frame := peer.frame()).opcode is Opcode.TEXT:
        pass
    assert Close.parse(frame.data).code == 4003


def test_without_the_page_there_is_no_socket(front, database, signed_in, with_settings):
    with_settings(ROOT_URLCONF=bare_urls)
    User.objects.update(is_staff=True)
    assert front.call("wsloop/ops/", HTTP_COOKIE=signed_in.cookie).status == 403


def test_slow_clients_have_the_names_of_their_users(front, signed_in, facility):
    sign_in(front, signed_in, f"{facility}?subscribe-broadcast")
    publisher = RedisPublisher(facility=facility, broadcast=True)
    for _ in range(20):
        publisher.publish_message("x" * 30_000)
    wait_until(lambda: engine.engine().inspection.gauges()["slow_sockets"], what="the kernel being full")
    ((slow,),) = [each["slowest"] for each in feed.FEED.read()["workers"]]
    assert slow["name"] == "john"
    assert "user" not in slow


def test_redis_that_is_away_is_said(with_settings):
    with_settings(WS4REDIS_CONNECTION={"unix_socket_path": "/nowhere"})
    from wsloop.backend import pool

    pool.forget()
    assert feed.Feed().read()["error"] == "Redis does not answer."
    pool.forget()


def test_all_pages_of_a_worker_ask_once_a_second(front, monkeypatch):
    engine.engine().broker.ready()
    asked = []
    monkeypatch.setattr("wsloop.ops.feed._redis", lambda: asked.append(1) or {})
    one = feed.Feed()
    assert one.read() is one.read()
    assert len(asked) == 1


# Finding.


def test_a_user_is_found_with_open_sockets(front, anna, signed_in, facility):
    sign_in(front, signed_in, f"{facility}?subscribe-user&subscribe-session")
    found = answer(views.user, anna, name="john")
    assert (found["sockets"], found["missing"]) == (1, 0)
    (socket,) = found["shown"]
    assert (socket["name"], socket["facilities"], socket["audiences"]) == ("john", [facility], ["session", "user"])
    assert signed_in.session_key not in json.dumps(found)


@pytest.mark.parametrize(("name", "status"), [("", 400), ("  ", 400), ("nobody", 404)])
def test_nobody_is_found_by_such_a_name(anna, name, status):
    assert answer(views.user, anna, status=status, name=name)["error"].endswith(".")


def test_a_facility_shows_its_history_and_who_is_there(front, anna, signed_in, facility, with_settings):
    with_settings(WSLOOP={"FACILITIES": {"test-*": {"size": 10}}})
    sign_in(front, signed_in, f"{facility}?subscribe-broadcast")
    front.connect(f"{facility}?subscribe-broadcast")
    for message in ("first", b"\xff\x00", "<b>last</b>"):
        RedisPublisher(facility=facility, broadcast=True).publish_message(message)
    found = answer(views.facility, anna, name=facility)
    assert found["sockets"] == 2
    assert sorted(str(each["name"]) for each in found["shown"]) == ["None", "john"]
    assert [(each["text"], each["size"]) for each in found["history"]] == [("<b>last</b>", 11), (None, 2), ("first", 5)]
    assert found["size"] == 10


@pytest.mark.parametrize("name", ["", "a\0b", "/x"])
def test_what_is_no_facility_is_said(front, anna, name):
    engine.engine().broker.ready()
    response = call(views.facility, anna, name=name)
    assert response.status_code in (200, 400)
    assert json.loads(response.content).get("sockets", 0) == 0


# Acting.


def test_a_message_reaches_the_user_and_is_logged(front, anna, signed_in, facility, caplog):
    peer = sign_in(front, signed_in, f"{facility}?subscribe-user")
    other = front.connect(f"{facility}?subscribe-broadcast")
    sent = answer(views.message, anna, "post", name="john", facility=facility, text="Please call us")
    assert sent == {"sockets": 1}
    assert peer.message() == "Please call us"
    RedisPublisher(facility=facility, broadcast=True).publish_message("for all")
    assert other.message() == "for all"
    ((level, text),) = [(each[1], each[2]) for each in caplog.record_tuples if each[0] == "wsloop.ops"]
    assert level == logging.WARNING
    assert text == f"'anna' sent a message of 14 characters to 'john' on '{facility}'"


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"name": "john", "facility": "news", "text": " "}, 400),
        ({"name": "john", "facility": "news", "text": "x" * 70_000}, 400),
        ({"name": "nobody", "facility": "news", "text": "x"}, 404),
        ({"name": "john", "facility": "", "text": "x"}, 400),
        ({}, 400),
    ],
)
def test_a_message_that_cannot_be_sent(anna, signed_in, values, status):
    assert answer(views.message, anna, "post", status=status, **values)["error"].endswith(".")


def test_a_user_is_disconnected_and_that_is_logged(front, anna, signed_in, facility, caplog):
    peer = sign_in(front, signed_in, f"{facility}?subscribe-user")
    other = front.connect(f"{facility}?subscribe-broadcast")
    assert answer(views.disconnect, anna, "post", name="john") == {"sockets": 1}
    assert Close.parse(peer.frame().data) == Close(4500, "disconnected by the site's staff")
    RedisPublisher(facility=facility, broadcast=True).publish_message("for all")
    assert other.message() == "for all"
    assert "'anna' disconnected 'john': 1 sockets" in caplog.text


def test_without_redis_nothing_is_done(anna, with_settings):
    from wsloop.backend import pool

    pool.forget()
    with_settings(WS4REDIS_CONNECTION={"unix_socket_path": "/nowhere"})
    assert answer(views.disconnect, anna, "post", status=503, name="anna")["error"] == "Redis does not answer."
    pool.forget()
