"""The server API over HTTP, asked as a program in another language does, for real sockets and a real Redis."""

import base64
import json
import logging

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIRequest
from django.http import UnreadablePostError
from django.test import Client
from django.urls import include, path

from tests.unit.test_api import closed
from wsloop import conf
from wsloop.http_api import views
from wsloop.options import API_PERMISSIONS

urlpatterns = [path("api/", include("wsloop.http_api.urls"))]

TOKEN, READER = "T" * 32, "R" * 32
KEYS = {"all": {"token": TOKEN, "may": API_PERMISSIONS}, "reader": {"token": READER, "may": ["read"]}}


@pytest.fixture(autouse=True)
def _no_requests_before(monkeypatch):
    monkeypatch.setattr(views, "_buckets", {})


@pytest.fixture
def site(shared_redis, with_settings, facility):
    options = {"API_KEYS": KEYS, "FACILITIES": {facility: {"size": 10, "presence": True}}}
    with_settings(
        ROOT_URLCONF=__name__, WSLOOP=options, MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"], DEBUG=False
    )
    return options


def ask(name, body=None, token=TOKEN, method="post", content_type="application/json", **more):
    """Ask, with a cookie that must not be looked at, and return the status and the answer."""
    client = Client(enforce_csrf_checks=True)
    client.cookies["sessionid"] = "stolen"
    headers = {"authorization": f"Bearer {token}"} if token else {}
    data = body if isinstance(body, bytes) else json.dumps(body)
    answer = getattr(client, method)(f"/api/{name}", data, content_type, headers=headers, **more)
    assert "no-store" in answer["Cache-Control"]
    assert not answer.cookies
    ask.headers = answer.headers
    return answer.status_code, answer.json()


def error(answer):
    status, content = answer
    return status, content["error"]["code"], content["error"]["message"]


def test_publish(site, front, facility):
    peer = front.connect(f"{facility}?subscribe-broadcast")
    for body in (
        {"data": "text"},
        {"data": {"order": 7}},
        {"data": None},
        {"base64": base64.b64encode(b"\0\xff").decode()},
        {"data": "once", "key": "k1"},
        {"data": "twice", "key": "k1", "expire": 0},
        {"data": "last", "users": ["john", "mary"], "groups": "staff", "sessions": ["key"]},
    ):
        assert ask("publish", {"facility": facility, "broadcast": True, **body}) == (200, {})
    assert peer.messages(6) == ["text", '{"order": 7}', "null", b"\0\xff", "once", "last"]


def test_read_and_disconnect(site, front, facility, signed_in, caplog):
    peer = front.connect(f"{facility}?subscribe-broadcast", HTTP_COOKIE=signed_in.cookie)
    ask("publish", {"facility": facility, "broadcast": True, "data": "text"})
    ask("publish", {"facility": facility, "broadcast": True, "base64": "AP8="})
    peer.messages(2)
    status, answer = ask("history", {"facility": facility, "broadcast": True, "limit": 5}, READER)
    assert status == 200
    assert [{k: v for k, v in each.items() if k != "time"} for each in answer["messages"]] == [
        {"offset": 1, "data": "text"},
        {"offset": 2, "base64": "AP8="},
    ]
    assert ask("presence", {"facility": facility}, READER) == (200, {"users": ["john"], "anonymous": 0})
    assert ask("presence", {}, READER) == (200, {"users": ["john"], "anonymous": 0})
    numbers = {"sockets": 1, "signed_in": 1, "workers": 1, "missing": 0}
    for whose in ({}, {"user": "john"}, {"session": signed_in.session_key}, {"facility": facility}):
        assert ask("counts", whose, READER) == (200, numbers)
    assert ask("listeners", {"facility": facility, "broadcast": True}, READER) == (200, {"listeners": 1})
    with caplog.at_level(logging.INFO, logger="wsloop.http_api"):
        body = {"session": signed_in.session_key, "code": 4400, "reason": "bye"}
        assert ask("disconnect", body) == (200, {"sockets": 1})
    assert closed(peer) == (4400, "bye")
    assert "The key all has disconnected 1 sockets" in caplog.text
    assert signed_in.session_key not in caplog.text


def test_without_keys_there_is_no_api(site, with_settings):
    with_settings(WSLOOP={})
    for name in ("publish", "openapi.json"):
        answer = Client().post(f"/api/{name}", {}, headers={"authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 404


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", "Bearer ü"]
)
def test_only_who_shows_a_token_is_let_in(site, header, caplog):
    headers = {} if header is None else {"authorization": header}
    for method, name in (("post", "publish"), ("get", "openapi.json"), ("delete", "counts")):
        answer = getattr(Client(), method)(f"/api/{name}", headers=headers)
        assert answer.status_code == 401
        assert answer["WWW-Authenticate"] == 'Bearer realm="wsloop"'
        assert "Authorization: Bearer TOKEN" in answer.json()["error"]["message"]
    assert TOKEN[1:] not in caplog.text


def test_keys_are_for_what_they_may_and_change_one_after_the_other(site, with_settings, facility):
    body = {"facility": facility, "broadcast": True, "data": "x"}
    for name in ("publish", "disconnect"):
        assert error(ask(name, body, READER)) == (403, "forbidden", f"This key may not do that; it lacks {name!r}.")
    new = {"token": "N" * 32, "may": ["publish"]}
    with_settings(WSLOOP={"API_KEYS": {**KEYS, "all, new": new}})
    assert ask("publish", body, "N" * 32)[0] == ask("publish", body)[0] == 200
    with_settings(WSLOOP={"API_KEYS": {"all, new": new}})
    assert ask("publish", body, "N" * 32)[0] == 200
    assert ask("publish", body)[0] == 401


def test_a_key_has_a_rate(site, with_settings, facility):
    with_settings(WSLOOP={**site, "RATE_LIMIT": (0.0001, 4)})
    statuses = [ask("presence", {"facility": facility})[0] for _ in range(100)]
    assert statuses.index(429) in range(79, 83)
    assert error(ask("presence", {}))[1:] == (
        "rate",
        "This key has sent too many requests. Try again in a few seconds.",
    )
    assert ask.headers["Retry-After"] == "5"
    assert ask("presence", {}, READER)[0] == 200, "the other key has its own"
    with_settings(WSLOOP={**site, "RATE_LIMIT": None})
    assert ask("presence", {})[0] == 200


@pytest.mark.parametrize(
    ("name", "body", "text"),
    [
        ("publish", [], "The body must be of the type object."),
        ("publish", {}, "The body must have the field facility."),
        ("publish", {"facility": "x"}, "The body must have broadcast, users, groups or sessions."),
        ("publish", {"facility": "x", "broadcast": True}, "The body must have either data or base64."),
        ("publish", {"facility": "x", "broadcast": True, "data": 1, "base64": ""}, "either data or base64."),
        ("publish", {"facility": "x", "broadcast": False, "data": 1}, "Nobody is addressed"),
        ("publish", {"facility": "x", "broadcast": 1, "data": 1}, "Broadcast must be of the type boolean."),
        ("publish", {"facility": "x", "user": "john", "data": 1}, "unknown field 'user'; there are facility,"),
        ("publish", {"facility": "/x", "broadcast": True, "data": 1}, "Facility must not begin with a slash."),
        ("publish", {"facility": "a" * 256, "broadcast": True, "data": 1}, "up to 255 characters"),
        ("publish", {"facility": "é" * 255, "broadcast": True, "data": 1}, "longer than MAX_FACILITY_SIZE"),
        ("publish", {"facility": "a:b", "users": "john", "data": 1}, "has a colon"),
        ("publish", {"facility": "x", "users": 7, "data": 1}, "Users must be a name, or a list"),
        ("publish", {"facility": "x", "users": [""], "data": 1}, "Users must be a name, or a list"),
        ("publish", {"facility": "x", "users": ["x"] * 101, "data": 1}, "list of up to 100 names"),
        ("publish", {"facility": "x", "users": [], "data": 1}, "Nobody is addressed"),
        ("publish", {"facility": "x", "broadcast": True, "base64": "ä"}, "Base64 must be Base64"),
        ("publish", {"facility": "x", "broadcast": True, "base64": "A"}, "Base64 must be Base64"),
        ("publish", {"facility": "x", "broadcast": True, "data": 1, "expire": -1}, "from 0 to 1000000000"),
        ("publish", {"facility": "x", "broadcast": True, "data": 1, "expire": True}, "of the type integer"),
        ("publish", {"facility": "x", "broadcast": True, "data": 1, "expire": 1.0}, "of the type integer"),
        ("publish", {"facility": "x", "broadcast": True, "data": 1, "key": "k" * 256}, "up to 255"),
        ("history", {"facility": "x", "broadcast": True, "limit": 0}, "Limit must be from 1 to 1000."),
        ("presence", {"facility": None}, "Facility must be of the type string."),
        ("counts", {"user": ""}, "User must not be empty."),
        ("disconnect", {}, "must have user, session, facility or everybody."),
        ("disconnect", {"everybody": False}, "Disconnect() needs a user"),
        ("disconnect", {"user": "x", "code": 1000}, "Code must be from 4000 to 4999."),
        ("disconnect", {"facility": "x", "reason": "é" * 62}, "up to 123 bytes"),
        ("disconnect", b" ", "The body must be JSON"),
        ("disconnect", b"{", "The body must be JSON"),
        ("disconnect", b'{"user": "\\ud800"}', "half of a surrogate pair"),
        ("disconnect", b'{"code": NaN}', "The body must be JSON"),
        ("disconnect", b"[" * 100_000, "nested too deeply"),
        ("disconnect", b'{"user": "\xff"}', "not UTF-8"),
    ],
)
def test_wrong_requests(site, database, name, body, text):
    status, code, message = error(ask(name, body))
    assert (status, code) == (400, "invalid")
    assert text in message
    assert len(message) < 500


def test_other_errors(site, database, facility, with_settings):
    assert error(ask("counts", {"user": "nobody"})) == (
        404,
        "unknown_user",
        "There is no user with the name 'nobody'.",
    )
    assert error(ask("publish", method="put"))[:2] == (405, "method")
    assert ask.headers["Allow"] == "POST"
    assert error(ask("openapi.json", {}))[:2] == (405, "method")
    assert error(ask("publish", {}, content_type="text/plain"))[:2] == (415, "content_type")
    with_settings(WSLOOP={**site, "MAX_QUEUED_BYTES": 1000})
    assert error(ask("publish", b" " * 2001)) == (413, "too_large", "The body is longer than 2000 bytes.")
    assert ask("publish", {}, CONTENT_LENGTH="many")[0] == 400
    assert error(ask("publish", {}, HTTP_TRANSFER_ENCODING="chunked"))[:2] == (411, "length")


def test_a_client_that_leaves_within_its_body_is_no_failure_of_redis(site, monkeypatch):
    def broken(request, size):
        raise UnreadablePostError("the connection is broken")

    for read in (broken, lambda request, size: b"{"):
        monkeypatch.setattr(WSGIRequest, "read", read)
        assert error(ask("publish", {"data": "x"}))[:2] == (400, "incomplete")


def test_answers_to_head_have_no_body_and_django_logs_no_refusal(site, caplog):
    client = Client()
    for name, token, status in (("openapi.json", TOKEN, 200), ("openapi.json", "wrong", 401), ("publish", TOKEN, 405)):
        answer = client.head(f"/api/{name}", headers={"authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.content) == (status, b"")
    for _ in range(20):
        ask("publish", {}, token="wrong")
    assert "django.request" not in {record.name for record in caplog.records}
    assert 0 < len(caplog.records) <= 10


def test_without_redis(site, own_redis, facility, caplog):
    own_redis.kill()
    for name in ("publish", "counts"):
        body = {"publish": {"facility": facility, "broadcast": True, "data": "secret"}}.get(name, {})
        assert error(ask(name, body))[:2] == (503, "unavailable")
        assert ask.headers["Retry-After"] == "5"
    assert "Could not carry out publish" in caplog.text
    assert "secret" not in caplog.text


def test_the_description_is_served(site):
    answer = Client().get("/api/openapi.json", headers={"authorization": f"Bearer {READER}"})
    assert answer["Content-Type"] == "application/json"
    described = answer.json()
    assert {each[1:] for each in described["paths"]} == {*views.OPERATIONS, "openapi.json"}
    for name, (permission, _) in views.OPERATIONS.items():
        assert f"`{permission}`" in described["paths"][f"/{name}"]["post"]["description"]


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ([], "must be a dictionary such as"),
        ({"a": TOKEN}, "must be a dictionary such as"),
        ({"a": {}}, r"API_KEYS'?\]?\['a'\] must have a token of 32 to 512 characters"),
        ({"a": {"token": "secret-but-short", "may": ["read"]}}, "32 to 512"),
        ({"a": {"token": "secret " * 8, "may": ["read"]}}, "without blanks"),
        ({"a": {"token": TOKEN}}, "'may'.* must be a list of publish, read, disconnect"),
        ({"a": {"token": TOKEN, "may": []}}, "must be a list of publish"),
        ({"a": {"token": TOKEN, "may": ["write"]}}, "must be a list of publish"),
        ({"a": {"token": TOKEN, "may": [[]]}}, "must be a list of publish"),
        ({"a": {"token": TOKEN, "may": ["read"], "more": 1}}, "must have a token"),
        ({"a": KEYS["all"], "b": KEYS["all"]}, "has the same token twice"),
    ],
)
def test_wrong_keys_are_named_and_never_shown(with_settings, keys, text):
    with_settings(WSLOOP={"API_KEYS": keys})
    with pytest.raises(ImproperlyConfigured, match=text) as raised:
        conf.option("API_KEYS")
    assert TOKEN not in str(raised.value)
    assert "secret" not in str(raised.value).replace("import secrets; print(secrets", "")


def test_users_are_named_as_everywhere(site, front, facility, signed_in):
    front.connect(f"{facility}?subscribe-user", HTTP_COOKIE=signed_in.cookie)
    assert ask("listeners", {"facility": facility, "users": User.objects.get().username})[1] == {"listeners": 1}
