"""``manage.py check``: what is wrong with settings, and with the way a site is run."""

import logging
import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.core.exceptions import PermissionDenied

from testbed.processes import ROOT
from wsloop import checks

PATCHED = "from gevent import monkey\n\nmonkey.patch_all()\n\nimport os\n"
HOOK = "unix_signal:15 gracefully_kill_them_all"
GOOD_INI = f"[uwsgi]\nhttp = :8000\nhttp-websockets = true\ngevent = 100\nhook-master-start = {HOOK}\n"


def listen_only(request, channels):
    return [name for name in channels if name.startswith("subscribe-")]


@pytest.fixture
def site(with_settings, tmp_path, monkeypatch):
    """A site of which nothing is to be said; a test makes one thing worse."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with_settings(WS4REDIS_ALLOWED_CHANNELS=listen_only, WSGI_APPLICATION="site_for_checks.application")
    (tmp_path / "site_for_checks.py").write_text(PATCHED)
    (tmp_path / "uwsgi.ini").write_text(GOOD_INI)
    assert found() == []
    return tmp_path


ALWAYS = {"wsloop.W001", "wsloop.W002", "wsloop.W003"}  # who may publish matters before a site is deployed, too


def found():
    """The warnings of wsloop that ``manage.py check --deploy`` gives, but that of modules that do not name wsloop."""
    every = run_checks(include_deployment_checks=True)
    return [each for each in every if (each.id or "").startswith("wsloop.") and each.id != "wsloop.W020"]


def the_one(number):
    (warning,) = found()
    assert warning.id == f"wsloop.{number}"
    assert len(warning.msg) > 40
    assert len(warning.hint) > 20
    assert [each.id for each in run_checks(include_deployment_checks=True)].count(warning.id) == 1
    always = [each for each in run_checks() if each.id == warning.id]
    assert len(always) == (warning.id in ALWAYS), "the others only with --deploy"
    return warning.msg


def test_a_wrong_setting_is_an_error_and_nothing_else_is_said(site, with_settings):
    with_settings(WSLOOP={"MAX_MESSAGE_SIZE": -1}, WS4REDIS_ALLOWED_CHANNELS=None)
    (error,) = found()
    assert error.id == "wsloop.E001"
    assert error.msg == "WSLOOP['MAX_MESSAGE_SIZE'] must be a positive whole number, not -1"


# Who may listen and speak.


def test_sessions_that_cannot_be_ended(site, with_settings):
    with_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies")
    assert "stay open until it expires" in the_one("W012")


def test_no_policy(site, with_settings):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=None)
    assert found() == []  # nobody may publish
    with_settings(WSLOOP={"CLIENTS_MAY_PUBLISH": True})
    assert "every visitor may publish" in the_one("W001")


@pytest.mark.parametrize("name", ["publish-broadcast", "publish-group", "publish-user", "publish-session"])
def test_publishing_open_to_all(site, with_settings, name):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=lambda request, channels: [each for each in channels if each == name])
    assert f"who have not signed in: {name}. " in the_one("W002")


def test_publishing_open_to_who_has_a_session(site, with_settings):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=lambda request, channels: channels if request.user else [])
    assert "publish-broadcast, publish-group, publish-user, publish-session" in the_one("W002")


def test_a_policy_that_refuses(site, with_settings):
    def refuse(request, channels):
        raise PermissionDenied("not you")

    with_settings(WS4REDIS_ALLOWED_CHANNELS=refuse)
    assert found() == []


@pytest.mark.parametrize(
    "policy", [lambda request, channels: request.user.is_staff and channels, lambda request, channels: None]
)
def test_a_policy_that_fails(site, with_settings, policy):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=policy)
    message = the_one("W003")
    assert "fails for visitors who have not signed in" in message
    assert "'NoneType' object" in message


def test_a_policy_that_reads_request_and_query(site, with_settings):
    def read(request, channels):
        assert request.path == "/ws/"
        assert list(request.GET) == channels
        return []

    with_settings(WS4REDIS_ALLOWED_CHANNELS=read)
    assert found() == []


def test_no_restriction_of_the_origin(site, with_settings):
    with_settings(WSLOOP={"ALLOWED_ORIGINS": ["https://www.example.com", "*"]})
    assert "any other site" in the_one("W004")
    with_settings(WSLOOP={"ALLOWED_ORIGINS": ["https://*.example.com"]})
    assert found() == []


@pytest.mark.parametrize("names", [["null"], ["file://"], ["null", "file://"]])
def test_pages_without_an_origin_of_their_own(site, with_settings, names):
    with_settings(WSLOOP={"ALLOWED_ORIGINS": ["capacitor://localhost", *names]})
    message = the_one("W013")
    assert f"ALLOWED_ORIGINS has {' and '.join(map(repr, names))}, " in message
    assert "any sandboxed frame" in message


# The command runserver.


RUNSERVERS = {
    "derived": "from wsloop.management.commands.runserver import Command as Theirs\n\nclass Command(Theirs): pass",
    "another": "from django.core.management.commands.runserver import Command",
    "broken": "import no_such_module",
}


@pytest.fixture
def with_applications(site, with_settings):
    """Install these before and behind ``"wsloop"``: Django's, or one of ``RUNSERVERS``."""
    for name, code in RUNSERVERS.items():
        commands = site / f"site_{name}" / "management" / "commands"
        commands.mkdir(parents=True)
        for directory in (commands, commands.parent, commands.parent.parent):
            (directory / "__init__.py").touch()
        (commands / "runserver.py").write_text(code)
    others = [each for each in settings.INSTALLED_APPS if each != "wsloop"]
    return lambda before, behind: with_settings(INSTALLED_APPS=[*before, "wsloop", *behind, *others])


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ([], ["django.contrib.staticfiles", "site_another"]),
        (["django.contrib.messages"], ["django.contrib.staticfiles"]),
        (["site_derived"], ["django.contrib.staticfiles"]),
        (["whitenoise.runserver_nostatic"], ["django.contrib.staticfiles"]),  # a subclass of whatever comes next
    ],
)
def test_runserver_is_the_one_of_wsloop(with_applications, before, behind):
    with_applications(before, behind)
    assert found() == []


@pytest.mark.parametrize("owner", ["django.contrib.staticfiles", "site_another", "site_broken"])
def test_runserver_is_somebody_elses(with_applications, owner):
    with_applications(["django.contrib.messages", owner], ["site_derived"])
    (error,) = found()
    assert (error.id, error.is_serious()) == ("wsloop.E002", True)
    assert error.msg.startswith(f'runserver is the command of {owner}, which stands before "wsloop" in INSTALLED_APPS')
    assert error.hint.startswith(f'Put "wsloop" before "{owner}" in INSTALLED_APPS.')


def test_a_process_that_checks_does_not_import_gevent():
    """It is every process that manage.py starts, with threads of its own perhaps."""
    code = """
import sys
import django
from django.conf import settings
from django.core.checks import run_checks
from django.test.utils import override_settings
applications = ["wsloop", "django.contrib.auth", "django.contrib.contenttypes"]
settings.configure(INSTALLED_APPS=applications, STATIC_URL="static/")
django.setup()
assert not run_checks(), run_checks()
with override_settings(INSTALLED_APPS=["django.contrib.staticfiles", *applications]):
    (error,) = run_checks()
assert error.id == "wsloop.E002"
assert "gevent" not in sys.modules
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# Gevent.


@pytest.mark.parametrize(
    "code",
    [
        '"""Doc."""\nfrom __future__ import annotations\nimport gevent.monkey\ngevent.monkey.patch_all()\nimport os',
        "from gevent.monkey import patch_all\npatch_all(thread=True)\nimport os",
        "from gevent import monkey as m; m.patch_all()\nimport os",
        "import gevent\nfrom gevent import monkey\nif not monkey.is_module_patched('socket'):\n    monkey.patch_all()",
        "from gevent import monkey\ndef later():\n    import os\nmonkey.patch_all()",
    ],
)
def test_patched_in_time(site, code):
    (site / "site_for_checks.py").write_text(code)
    assert found() == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os\nfrom gevent import monkey\nmonkey.patch_all()", "imports os before"),
        (
            "from gevent import monkey\nfrom django.conf import settings\nmonkey.patch_all()",
            "imports django.conf before",
        ),
        (
            "try:\n    import redis\nfinally:\n    import gevent.monkey\ngevent.monkey.patch_all()",
            "imports redis before",
        ),
        ("import gevent.monkey", "is not patched"),
        ("from gevent import monkey\ndef patch():\n    monkey.patch_all()", "is not patched"),
        ("application = None", "is not patched"),
    ],
)
def test_not_patched_in_time(site, code, words):
    (site / "site_for_checks.py").write_text(code)
    assert words in the_one("W005")


# The loop.


def of_the_loop():
    return [each for each in run_checks() if each.id == "wsloop.W020"]


@pytest.mark.parametrize(
    "code",
    [
        "from wsloop.server import WebsocketServer",
        "from importlib import import_module\nserver = import_module('wsloop.server')",
        "from site_beside import application",  # which another module of the site has made
        "import site_beside",
    ],
)
def test_a_module_that_names_the_loop(site, code):
    (site / "site_beside.py").write_text("from wsloop.server import WebsocketServer")
    (site / "site_for_checks.py").write_text(code)
    assert of_the_loop() == []


@pytest.mark.parametrize(
    "code",
    [
        "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()",
        "from ws4redis.uwsgi_runserver import uWSGIWebsocketServer",
        "import no_such_module, os",
    ],
)
def test_a_module_that_does_not_name_the_loop(site, code):
    (site / "site_for_checks.py").write_text(code)
    (warning,) = of_the_loop()
    assert warning.msg.startswith(f"{site / 'site_for_checks.py'} does not name wsloop: ")
    assert "wsloop.server.WebsocketServer()" in warning.hint


@pytest.mark.parametrize("code", ["import (", None])
def test_a_module_that_cannot_be_read_is_not_warned_of_twice(site, code):
    if code is None:
        (site / "site_for_checks.py").unlink()
    else:
        (site / "site_for_checks.py").write_text(code)
    assert of_the_loop() == []


def test_patched_by_uwsgi(site):
    (site / "site_for_checks.py").write_text("import os")
    (site / "uwsgi.ini").write_text(f"{GOOD_INI}gevent-early-monkey-patch = true\n")
    assert found() == []


@pytest.mark.parametrize("name", ["no_such_site.application", "no_such_site.wsgi.application", "time.application"])
def test_a_module_that_is_not_found(site, with_settings, name):
    with_settings(WSGI_APPLICATION=name)
    assert repr(name.rpartition(".")[0]) in the_one("W006")


def test_a_module_that_is_no_python(site):
    (site / "site_for_checks.py").write_text("import (")
    assert "site_for_checks.py cannot be read" in the_one("W006")


def test_without_the_setting_it_is_the_module_next_to_manage_py(site, with_settings):
    with_settings(WSGI_APPLICATION=None)
    (site / "wsgi.py").write_text(PATCHED)
    assert found() == []
    (site / "wsgi.py").write_text("import os")
    assert str(site / "wsgi.py") in the_one("W005")


# uWSGI.


@pytest.mark.parametrize(
    ("ini", "number", "words"),
    [
        (GOOD_INI.replace("gevent", "threads"), "W007", "refused with 501"),
        (f"{GOOD_INI}harakiri = 30", "W008", "kills a worker"),
        (GOOD_INI.replace("http-websockets", ";http-websockets"), "W009", "passes on nothing"),
        (GOOD_INI.replace("websockets = true", "websockets = false"), "W009", "passes on nothing"),
        (f"{GOOD_INI}http-timeout = 29", "W010", "http-timeout (29 s)"),
        (f"{GOOD_INI}max-requests = 1000", "W011", "max-requests ends"),
        (f"{GOOD_INI}reload-on-rss = 500\ncheaper = 1", "W011", "reload-on-rss, cheaper ends"),
        (f"{GOOD_INI}idle = 60", "W011", "idle ends"),
        (GOOD_INI.replace(HOOK, "unix_signal:1 abs"), "W018", "a stop ends the router"),
    ],
)
def test_options_of_uwsgi_that_hurt(site, ini, number, words):
    (site / "uwsgi.ini").write_text(ini)
    message = the_one(number)
    assert message.startswith("uwsgi.ini: ")
    assert words in message


@pytest.mark.parametrize(
    "ini",
    [
        "[uwsgi]\nhttp-socket = :8000\ngevent = 100",
        "[uwsgi]\nhttp-socket = :8000\nloop = gevent\nasync = 100",
        f"{GOOD_INI}http-timeout = 35",
        GOOD_INI.replace(HOOK, "unix_signal:1 uwsgi_reload_workers"),
        f"{GOOD_INI}http-timeout = 20\nhttp-timeout = 120",
        f"{GOOD_INI}http-timeout = $(TIMEOUT)",
        f"; harakiri = 1\n# harakiri = 1\n{GOOD_INI}harakiri = false",
        f"{GOOD_INI}[other]\nharakiri = 1",
        f"{GOOD_INI}processes = 4\nmaster = true\nhttp-keepalive = true",
    ],
)
def test_options_of_uwsgi_that_do_not(site, ini):
    (site / "uwsgi.ini").write_text(ini)
    assert found() == []


def test_who_tries_a_router_out_needs_no_hooks(site, with_settings):
    with_settings(DEBUG=True)
    (site / "uwsgi.ini").write_text(GOOD_INI.replace(HOOK, ""))
    assert found() == []


def test_the_default_timeout_of_the_router(site, with_settings):
    with_settings(WSLOOP={"PING_INTERVAL": 56})
    assert "http-timeout (60 s)" in the_one("W010")


def test_without_the_file_nothing_is_said_and_base_dir_has_it_too(site, with_settings, monkeypatch):
    (site / "uwsgi.ini").write_text(f"{GOOD_INI}harakiri = 30")
    elsewhere = site / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert found() == []
    with_settings(BASE_DIR=site)
    the_one("W008")


def test_the_running_uwsgi(site, with_settings, caplog):
    options = {"gevent": ["100"], "http": [":8000"], "http-websockets": ["True"], "harakiri": ["30"]}
    options["hook-master-start"] = [HOOK]
    with caplog.at_level(logging.WARNING, "wsloop.checks"):
        checks.warn_about_uwsgi(lambda name: options.get(name, []))
    (record,) = caplog.records
    assert record.getMessage().startswith("uWSGI: harakiri kills a worker")
    assert record.getMessage().endswith("(wsloop.W008)")
    caplog.clear()
    with_settings(SILENCED_SYSTEM_CHECKS=["wsloop.W008"])
    checks.warn_about_uwsgi(lambda name: options.get(name, []))
    assert not caplog.records


@pytest.mark.parametrize(
    ("line", "number", "words"),
    [
        ('worker_class = "gthread"', "W015", "no WebSocket can be opened"),
        ('certfile = "cert.pem"', "W016", "keeps the encryption to itself"),
        ("keyfile = os.environ['KEY']", "W016", "keeps the encryption to itself"),
        ("max_requests = 1000", "W011", "max_requests ends workers"),
        ("graceful_timeout = 5", "W017", "graceful_timeout (5 s) kills"),
        ("graceful_timeout = 0", "W017", "graceful_timeout (0 s) kills"),
        ("timeout = 7", "W017", "timeout (7 s) kills"),
    ],
)
def test_settings_of_gunicorn_that_hurt(site, line, number, words):
    (site / "gunicorn.conf.py").write_text(f"import os\n{line}\n")
    message = the_one(number)
    assert message.startswith("gunicorn.conf.py: ")
    assert words in message


@pytest.mark.parametrize(
    "text",
    [
        (ROOT / "gunicorn.conf.py").read_text(),
        "workers = 4",  # the worker class may be an argument
        "worker_class = os.environ['WORKER']",
        "timeout = 0",  # that is none
        "this is no Python",
    ],
)
def test_settings_of_gunicorn_that_do_not(site, text):
    (site / "gunicorn.conf.py").write_text(text)
    assert found() == []


def test_a_worker_of_gunicorn_patches_before_it_loads_the_site(site):
    (site / "site_for_checks.py").write_text("import os")
    (site / "gunicorn.conf.py").write_text('worker_class = "gevent"')
    the_one("W005")  # there is a uwsgi.ini, too
    (site / "uwsgi.ini").unlink()
    assert found() == []
    (site / "gunicorn.conf.py").write_text('worker_class = "gevent"\npreload_app = True')
    the_one("W005")


def test_the_running_gunicorn(with_settings, caplog):
    settings = {"worker_class": "sync", "certfile": "cert.pem", "graceful_timeout": 3, "timeout": 30}
    with caplog.at_level(logging.WARNING, "wsloop.checks"):
        checks.warn_about_gunicorn(settings.get)
    (record,) = caplog.records
    assert record.getMessage().startswith("gunicorn: graceful_timeout (3 s) kills")
    assert record.getMessage().endswith("(wsloop.W017)")
    caplog.clear()
    with_settings(SILENCED_SYSTEM_CHECKS=["wsloop.W017"])
    checks.warn_about_gunicorn(settings.get)
    assert not caplog.records


def test_nothing_is_said_of_the_sample_site_as_it_is_run():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    environment |= {"DJANGO_SECRET_KEY": "x" * 60, "REDIS_URL": "redis://127.0.0.1:1/0"}
    command = [sys.executable, "manage.py", "check", "--deploy"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "security.W" in done.stderr, "the checks of Django have run"
    assert "wsloop." not in done.stderr
