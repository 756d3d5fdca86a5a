"""The Django application."""

import os
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import pytest
from django.apps import AppConfig, apps
from django.contrib.auth.models import Group, User
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.contrib.staticfiles.finders import AppDirectoriesFinder
from django.core.checks import run_checks
from django.core.signals import request_started
from django.test import RequestFactory

from testbed.processes import ROOT
from wsloop.refusals import LOGGED
from wsloop.store import SELF, Store


def test_groups_of_a_user_are_noted_in_the_session_at_login(database):
    john = User.objects.create_user("john")
    john.groups.set([Group.objects.create(name=name) for name in ("chatters", "staff")])
    request = types.SimpleNamespace(user=john, session=SessionStore())
    user_logged_in.send(User, user=john, request=request)
    channels = Store(None)._get_message_channels(request=request, facility="news", groups=[SELF])
    assert sorted(channels) == ["unit:group:chatters:news", "unit:group:staff:news"]


def test_a_login_without_a_request_notes_nothing(database):
    """As ``channels.auth.login()`` sends it: an application that this server hosts may use it."""
    user_logged_in.send(User, user=User.objects.create_user("john"), request=None)


def handshake(path="/ws/news", **environ):
    """Django's own handler gets a request: what is logged of it, by wsloop."""
    environ = {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade", **environ}
    request_started.send(None, environ=RequestFactory().get(path, **environ).environ)


def test_a_handshake_that_reaches_django_is_told_once_in_a_while(caplog):
    for _ in range(20):
        handshake("/ws/news?token=SECRET", HTTP_UPGRADE="WebSocket")
    assert len(caplog.records) == LOGGED
    assert "the handshake of a WebSocket, /ws/news, has reached Django itself" in caplog.text
    assert "wsloop.server.WebsocketServer()" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize(
    ("path", "environ"), [("/ws/news", {"HTTP_UPGRADE": ""}), ("/ws/news", {"HTTP_UPGRADE": "h2c"}), ("/other/", {})]
)
def test_other_requests_are_not_spoken_of(caplog, path, environ):
    handshake(path, **environ)
    request_started.send(None, scope={"type": "http"})  # by ASGI
    assert caplog.text == ""


def test_it_is_an_application_of_its_own():
    assert apps.get_app_config("wsloop").name == "wsloop"
    assert not list(apps.get_app_config("wsloop").get_models())


@pytest.mark.parametrize("installed", [["wsloop"], ["wsloop", "ws4redis"], ["ws4redis", "wsloop"]])
def test_the_script_of_ws4redis_is_that_of_the_first_application_that_has_it(monkeypatch, installed):
    configs = [AppConfig(name, import_module(name)) for name in installed]
    monkeypatch.setattr(apps, "get_app_configs", lambda: configs)
    found = Path(AppDirectoriesFinder().find("js/ws4redis.js"))
    assert found == Path(configs[0].path, "static/js/ws4redis.js")
    assert found.read_text().count("jQuery;") == (installed[0] == "ws4redis")


def run(code, directory):
    """Run code in a process that has no settings yet."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(directory)])
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_groups_are_noted_although_the_site_does_not_install_ws4redis(tmp_path):
    code = """
import types
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["wsloop", "django.contrib.auth", "django.contrib.contenttypes"])
django.setup()
from django.contrib.auth.signals import user_logged_in
group = types.SimpleNamespace(name="chatters")
user = types.SimpleNamespace(groups=types.SimpleNamespace(all=lambda: [group]), save=lambda **fields: None)
request = types.SimpleNamespace(session={})
user_logged_in.send(object, user=user, request=request)
assert request.session == {"ws4redis:memberof": ["chatters"]}, request.session
"""
    run(code, tmp_path)


@pytest.mark.parametrize("order", [["wsloop", "site_app"], ["site_app", "wsloop"], ["ws4redis", "site_app", "wsloop"]])
def test_models_of_a_site_may_import_the_stock_publisher_whatever_the_order(tmp_path, order):
    """ws4redis.publisher reads its setting while it is imported: by then it must be what redis-py understands."""
    site = tmp_path / "site_app"
    site.mkdir()
    (site / "__init__.py").touch()
    (site / "models.py").write_text("from ws4redis.publisher import RedisPublisher, redis_connection_pool\n")
    code = f"""
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS={[*order, "django.contrib.auth", "django.contrib.contenttypes"]!r},
    WS4REDIS_CONNECTION="redis://:secret@example.org:6380/3",
)
django.setup()
from site_app.models import redis_connection_pool
options = redis_connection_pool.connection_kwargs
assert (options["host"], options["port"], options["db"]) == ("example.org", 6380, 3), options
"""
    run(code, tmp_path)


def test_check_names_a_setting_that_is_wrong(with_settings):
    assert not [each for each in run_checks() if each.id == "wsloop.E001"]
    with_settings(WSLOOP={"MAX_MESSAGE_SIZE": -1})
    (error,) = [each for each in run_checks() if each.id == "wsloop.E001"]
    assert error.msg == "WSLOOP['MAX_MESSAGE_SIZE'] must be a positive whole number, not -1"
