"""The view ``token``, for single-page applications, gives nothing that a socket of the same visitor would not get; and
the view ``metrics``.
"""

import json

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.test import RequestFactory
from ws4redis.subscriber import RedisSubscriber

from wsloop import engine, views
from wsloop.backend import pool
from wsloop.protocol import resume_tokens
from wsloop.publisher import RedisPublisher

SEEN = []


def policy(request, channels):
    """As sites write them: everything but the groups, and nothing of secret facilities."""
    SEEN.append((request.path_info, list(request.GET), getattr(request.user, "username", None), channels))
    if request.path_info.removeprefix("/ws/") == "secret":
        raise PermissionDenied("not for you")
    return [name for name in channels if name != "subscribe-group"]


def as_mary(request):
    request.user, request.session = User(username="mary"), None


class Team(RedisSubscriber):
    """Subscribes to a channel of its own as well."""

    def set_pubsub_channels(self, request, channels):
        super().set_pubsub_channels(request, channels)
        self._subscription.subscribe(f"unit:team:blue:{self._facility}")


@pytest.fixture(autouse=True)
def site(shared_redis, with_settings):
    SEEN.clear()
    options = {"FACILITIES": {"*-no": {}, "test-*": {"size": 10}}}
    with_settings(WSLOOP=options, WS4REDIS_ALLOWED_CHANNELS=policy)


def ask(query="", user=None, method="get", **headers):
    request = getattr(RequestFactory(), method)(f"/socket-token/{query and '?'}{query}", **headers)
    request.user, request.session = user or User(username="john"), SessionStore()
    return views.token(request)


def answer(*arguments, status=200, **more):
    response = ask(*arguments, **more)
    assert response.status_code == status, response.content
    return json.loads(response.content)


def channels(facility, *names):
    return [f"unit:{name}:{facility}".encode() for name in names]


def test_the_token_is_that_of_a_socket_and_comes_with_those_audiences_that_are_allowed(facility):
    RedisPublisher(facility=facility, broadcast=True).publish_message("before")
    found = answer(f"facility={facility}&audience=broadcast&audience=group&audience=user&audience=user")
    assert found["audiences"] == ["broadcast", "user"]
    assert resume_tokens.read(found["token"], channels(facility, "broadcast", "user:john"))
    assert resume_tokens.read(found["token"], channels(facility, "user:mary")) is None
    since = resume_tokens.read(found["token"], channels(facility, "broadcast"))
    assert [each.offset for each in since.values()] == [1]
    asked = ["subscribe-broadcast", "subscribe-group", "subscribe-user"]
    assert [(f"/ws/{facility}", asked, "john", asked)] == SEEN


def test_the_policy_sees_the_name_of_the_facility_as_in_the_url_of_a_socket(facility):
    answer(f"facility={facility}/%C3%A4%20%26x=1%3F&audience=broadcast")
    assert SEEN[0][:2] == (f"/ws/{facility}/ä &x=1?", ["subscribe-broadcast"])


def test_the_csrf_token_belongs_to_the_cookie_that_comes_with_it(facility):
    response = ask(f"facility={facility}&audience=broadcast")
    cookie = response.cookies["csrftoken"].value
    middleware = CsrfViewMiddleware(HttpResponse)
    for token, accepted in ((json.loads(response.content)["csrf_token"], True), ("x" * 64, False)):
        post = RequestFactory().post("/", headers={"x-csrftoken": token})
        post.COOKIES["csrftoken"] = cookie
        post._dont_enforce_csrf_checks = False
        middleware.process_request(post)
        assert (middleware.process_view(post, HttpResponse, (), {}) is None) == accepted


def test_without_a_facility_there_is_only_the_csrf_token():
    assert list(answer()) == ["csrf_token"]
    assert not SEEN


def test_it_is_never_cached(facility):
    response = ask(f"facility={facility}&audience=broadcast")
    assert {"no-store", "private"} <= set(response["Cache-Control"].split(", "))
    assert "Cookie" in response["Vary"]
    assert "no-store" in ask("facility=secret&audience=broadcast")["Cache-Control"]


@pytest.mark.parametrize("query", ["facility=secret&audience=broadcast", "facility=orders&audience=group"])
def test_what_the_policy_does_not_allow_is_refused(query):
    assert answer(query, status=403) == {
        "error": "This site does not allow you to open this WebSocket. Sign in, perhaps."
    }


def test_of_a_visitor_who_is_nobody_only_what_is_for_everybody(facility):
    found = answer(f"facility={facility}&audience=broadcast&audience=user", user=AnonymousUser())
    assert resume_tokens.read(found["token"], channels(facility, "broadcast"))
    assert resume_tokens.read(found["token"], channels(facility, "user:")) is None
    assert answer(f"facility={facility}&audience=user", user=AnonymousUser())["token"] == ""


def test_without_a_policy_it_gives_what_a_socket_would_get(facility, with_settings):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=None)
    assert answer(f"facility={facility}&audience=group")["audiences"] == ["group"]


def test_the_user_is_the_one_that_the_sites_own_code_finds_for_sockets(facility, with_settings):
    with_settings(WS4REDIS_PROCESS_REQUEST=as_mary)
    found = answer(f"facility={facility}&audience=user")
    assert resume_tokens.read(found["token"], channels(facility, "user:mary"))
    assert resume_tokens.read(found["token"], channels(facility, "user:john")) is None


def test_the_channels_of_the_sites_own_subscriber_are_in_the_token(facility, with_settings):
    with_settings(WS4REDIS_SUBSCRIBER=f"{__name__}.Team")
    found = answer(f"facility={facility}&audience=broadcast")
    assert resume_tokens.read(found["token"], channels(facility, "broadcast", "team:blue"))


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("facility=orders", "one or several audiences of broadcast, user, group, session"),
        ("audience=user", "must have one facility"),
        ("facility=a&facility=b&audience=user", "must have one facility"),
        ("facility=orders&audience=everybody", "one or several audiences"),
        ("facility=orders&audience=subscribe-user", "one or several audiences"),
        ("facility=/orders&audience=user", "without a slash before it"),
        (f"facility={'x' * 256}&audience=user", "longer than MAX_FACILITY_SIZE"),
        ("facility=a:b&audience=user", "A facility with a colon"),
        ("what=ever", "must have one facility"),
    ],
)
def test_a_wrong_query_is_answered_with_what_is_wrong(query, words):
    assert words in answer(query, status=400)["error"]


def test_pages_of_other_sites_are_refused_unless_they_may_open_sockets(facility, with_settings):
    query = f"facility={facility}&audience=broadcast"
    assert "Pages of another site" in answer(query, headers={"origin": "https://evil.test"}, status=403)["error"]
    assert answer(query, headers={"origin": "http://testserver"})["token"]
    with_settings(WSLOOP={"ALLOWED_ORIGINS": ["https://app.test"]})
    assert answer(query, headers={"origin": "https://app.test"})["audiences"] == ["broadcast"]
    assert "ALLOWED_HOSTS" in answer(query, headers={"host": "evil.test"}, status=400)["error"]


def test_without_recovery_or_redis_the_token_is_empty(facility, own_redis, caplog):
    query = f"facility={facility}-no&audience=broadcast"
    assert answer(query)["token"] == ""
    own_redis.kill()
    found = answer(query.replace("-no", ""))
    assert (found["token"], found["audiences"], bool(found["csrf_token"])) == ("", ["broadcast"], True)
    assert "Answered without the token of a WebSocket" in caplog.text


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_other_methods_are_not_allowed(method):
    assert ask(method=method).status_code == 405


def test_a_request_that_no_middleware_has_seen_is_that_of_nobody(facility):
    request = RequestFactory().get(f"/?facility={facility}&audience=broadcast&audience=user")
    found = json.loads(views.token(request).content)
    assert resume_tokens.read(found["token"], channels(facility, "broadcast"))
    assert SEEN[0][2] is None


def test_an_error_of_the_policy_is_the_sites(facility, with_settings):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=lambda request, channels: "all")
    with pytest.raises(TypeError, match="must return a list"):
        ask(f"facility={facility}&audience=user")


# The view ``metrics``.

TOKEN = "0123456789abcdef-token"


def scrape(user=None, **headers):
    request = RequestFactory().get("/metrics/", **headers)
    if user is not None:
        request.user = user
    return views.metrics(request)


def test_staff_and_the_token_see_the_metrics_of_all_workers(with_settings, front):
    engine.engine().broker.ready()
    front.connect("news?subscribe-broadcast")
    with_settings(WSLOOP={"METRICS_TOKEN": TOKEN})
    for answer in (scrape(User(is_staff=True)), scrape(HTTP_AUTHORIZATION=f"Bearer {TOKEN}")):
        assert answer.status_code == 200
        assert answer["Content-Type"].startswith("text/plain")
        assert "no-store" in answer["Cache-Control"]
        lines = answer.content.decode().splitlines()
        assert "wsloop_workers 1.0" in lines
        assert any(line.startswith('wsloop_sockets{audience="broadcast",dialect="ws4redis"') for line in lines)
    accept = "application/openmetrics-text;version=1.0.0"
    assert scrape(User(is_staff=True), HTTP_ACCEPT=accept)["Content-Type"].startswith("application/openmetrics-text")


@pytest.mark.parametrize(
    ("user", "authorization"),
    [
        (None, ""),
        (AnonymousUser(), ""),
        (User(username="john"), ""),
        (User(is_staff=True, is_active=False), ""),
        (None, f"Bearer {TOKEN}x"),
        (None, f"Bearer {TOKEN[:-1]}"),
        (None, f"Basic {TOKEN}"),
        (None, TOKEN),
        (None, "Bearer "),
        (None, "Bearer \u00fc"),
    ],
)
def test_nobody_else_sees_that_there_are_any(with_settings, user, authorization):
    with_settings(WSLOOP={"METRICS_TOKEN": TOKEN})
    with pytest.raises(Http404):
        scrape(user, HTTP_AUTHORIZATION=authorization)


@pytest.mark.parametrize("authorization", ["Bearer None", "Bearer", f"Bearer {TOKEN}"])
def test_without_a_token_in_the_settings_none_opens_it(authorization):
    with pytest.raises(Http404):
        scrape(HTTP_AUTHORIZATION=authorization)


def test_metrics_without_redis_are_a_503(with_settings, caplog):
    pool.forget()
    with_settings(WS4REDIS_CONNECTION={"unix_socket_path": "/nowhere"})
    answer = scrape(User(is_staff=True))
    assert (answer.status_code, answer.content) == (503, b"Redis does not answer.\n")
    assert "Answered without metrics" in caplog.text
    pool.forget()
