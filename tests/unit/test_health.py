"""The views for probes: who asks gets an answer, soon, from whatever middleware, and learns names only."""

import contextlib
import json
import logging
import socket
import types
from time import monotonic

import pytest
from django.db import connections
from django.http import HttpResponse
from django.test import Client
from django.urls import path

from tests.docs.test_docs import ROOT, code_blocks
from wsloop import engine, health

PAGE = ROOT / "docs/how-to/run-in-production.rst"
urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("page/", lambda request: HttpResponse("a page")),
]
OK = (200, {"ready": True, "failing": []})


@pytest.fixture(autouse=True)
def site(with_settings, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "wsloop.health")
    with_settings(ROOT_URLCONF=__name__)
    monkeypatch.setattr(health, "FRESH", 0.0)
    monkeypatch.setattr(health, "_checks", tuple(health.Check(each.name, each._ask) for each in health._checks))


@pytest.fixture
def use_database(monkeypatch):
    """Let new connections of the site's database have other settings."""
    return lambda **settings: monkeypatch.setitem(
        connections.settings, "default", connections["default"].settings_dict | settings
    )


@contextlib.contextmanager
def mute():
    """A server that accepts connections, and says nothing; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def readyz(**headers):
    response = Client().get("/readyz", headers=headers)
    return response.status_code, json.loads(response.content)


def failing(*names):
    return (503, {"ready": False, "failing": list(names)})


def test_ready_while_redis_and_database_answer(shared_redis, caplog):
    assert readyz() == OK
    assert caplog.messages == []


def test_not_ready_without_redis_and_ready_again_with_it(own_redis, caplog):
    own_redis.kill()
    assert [readyz(), readyz()] == [failing("redis")] * 2
    own_redis.start()
    assert readyz() == OK
    reason, again = caplog.messages  # once, and not with each probe
    assert reason.startswith("not ready: redis: ConnectionError: Error ")
    assert again == "ready again: redis"


def test_a_redis_that_hangs_makes_it_not_ready_in_time(own_redis, caplog):
    """And holds nobody up: later probes share the question, and get their answer when its time is over."""
    began = monotonic()
    own_redis.pause()
    try:
        assert [readyz(), readyz()] == [failing("redis")] * 2
    finally:
        own_redis.resume()
    assert "not ready: redis: no answer for 2 s" in caplog.messages or "Timeout" in caplog.text
    assert health.TIMEOUT == 2.0 <= monotonic() - began


def test_a_database_that_is_not_there(shared_redis, use_database, caplog, tmp_path):
    use_database(NAME=str(tmp_path / "nowhere/db.sqlite3"))
    assert readyz() == failing("database")
    assert caplog.messages == ["not ready: database: OperationalError: unable to open database file"]


def test_a_database_that_hangs(shared_redis, use_database, caplog, monkeypatch):
    monkeypatch.setattr(health, "TIMEOUT", 0.3)
    (check,) = (each for each in health._checks if each.name == "database")
    monkeypatch.setattr(health, "_checks", (check,))  # the other one waits while the driver is imported
    with mute() as port:
        use_database(ENGINE="django.db.backends.postgresql", NAME="x", HOST="127.0.0.1", PORT=port, PASSWORD="hidden")
        assert readyz() == failing("database")
        assert caplog.messages == ["not ready: database: no answer for 0.3 s"]
        question = check._began
        assert readyz() == failing("database")
        assert check._began == question  # no second one
        check._began -= health.ABANDONED
        assert readyz() == failing("database")
        assert check._began > question  # a connection that was lost may never end


def test_a_site_without_database(shared_redis, use_database):
    use_database(ENGINE="django.db.backends.dummy")
    assert readyz() == OK


def test_both_fail(own_redis, use_database, tmp_path):
    use_database(NAME=str(tmp_path / "nowhere/db.sqlite3"))
    own_redis.kill()
    assert readyz() == failing("redis", "database")


def test_a_flood_of_probes_is_no_flood_of_questions(shared_redis, monkeypatch):
    monkeypatch.setattr(health, "FRESH", 1e9)
    asked = []
    monkeypatch.setattr(health, "_checks", (health.Check("redis", lambda: asked.append(1)),))
    assert [readyz() for _ in range(5)] == [OK] * 5
    assert asked == [1]


def test_not_ready_while_the_worker_says_goodbye(shared_redis, monkeypatch):
    monkeypatch.setattr(health, "_leaving", False)
    assert readyz() == OK
    hub = types.SimpleNamespace(connections=[], close_all=lambda *reason: None)
    runtime = types.SimpleNamespace(wait=lambda seconds: seen.append(readyz()))
    seen = []
    facilities = types.SimpleNamespace(releases=types.SimpleNamespace(wait=lambda seconds: None))
    engine.Engine._take_leave(types.SimpleNamespace(hub=hub, consumer_runtime=runtime, facilities=facilities))
    assert seen == [failing("leaving")]
    assert Client().get("/healthz").status_code == 200


def test_not_ready_while_there_is_the_file(shared_redis, with_settings, tmp_path):
    file = tmp_path / "leaving"
    with_settings(WSLOOP={"LEAVING_FILE": file})
    assert readyz() == OK
    file.touch()
    assert readyz() == failing("leaving")
    file.unlink()
    assert readyz() == OK


def test_healthz_asks_nobody(own_redis, use_database, tmp_path):
    use_database(NAME=str(tmp_path / "nowhere/db.sqlite3"))
    own_redis.kill()
    response = Client().get("/healthz")
    assert (response.status_code, json.loads(response.content)) == (200, {"alive": True})


@pytest.mark.parametrize("url", ["/healthz", "/readyz"])
def test_methods_and_headers(shared_redis, url):
    answer = Client().head(url)
    assert (answer.status_code, answer.content) == (200, b"")
    assert "no-store" in answer["Cache-Control"]
    assert "no-store" in Client().get(url)["Cache-Control"]
    assert Client().post(url).status_code == 405
    assert "Set-Cookie" not in answer and not answer.cookies


MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
]


@pytest.mark.parametrize("url", ["/healthz", "/readyz"])
def test_the_middleware_of_a_site_lets_probes_pass_that_name_its_host(shared_redis, with_settings, use_database, url):
    """As those of the Kubernetes manifest do. Without a database, too: no session and no user is read."""
    use_database(NAME="/nowhere/db.sqlite3")
    with_settings(
        MIDDLEWARE=MIDDLEWARE,
        ALLOWED_HOSTS=["www.example.com"],
        SECURE_SSL_REDIRECT=True,
        SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    )
    status = {"/healthz": 200, "/readyz": 503}[url]
    assert Client().get(url, headers={"host": "www.example.com", "x-forwarded-proto": "https"}).status_code == status
    assert Client().get(url, headers={"host": "www.example.com"}).status_code == 301
    assert Client().get(url, headers={"host": "10.0.0.7", "x-forwarded-proto": "https"}).status_code == 400


def test_the_middleware_of_the_page_answers_probes_that_cannot(shared_redis, with_settings, monkeypatch):
    """Of load balancers, which ask for an address, without TLS: see "Health checks" of the page."""
    (code,) = [each for each in code_blocks(PAGE, "python") if "health.readyz" in each and "get_response" in each]
    module = types.ModuleType("probes")
    exec(code, vars(module))
    monkeypatch.setitem(__import__("sys").modules, "probes", module)
    with_settings(
        MIDDLEWARE=["probes.probes", *MIDDLEWARE], ALLOWED_HOSTS=["www.example.com"], SECURE_SSL_REDIRECT=True
    )
    assert readyz(host="10.0.0.7") == OK
    assert Client().get("/healthz", headers={"host": "10.0.0.7"}).status_code == 200
    assert Client().get("/page/", headers={"host": "10.0.0.7"}).status_code == 400
