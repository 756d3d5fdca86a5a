"""The settings: what each variable of the environment does, and what a wrong one says."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("DJANGO_SECRET_KEY", "DJANGO_DEBUG", "DJANGO_ALLOWED_HOSTS", "DATABASE_URL", "REDIS_URL", "DEMO")
SHOW = """
import json
from project import settings
names = "SECRET_KEY DEBUG DEMO ALLOWED_HOSTS WSLOOP WHITENOISE_USE_FINDERS".split()
shown = {name: getattr(settings, name) for name in names}
print(json.dumps({**shown, "ENGINE": settings.DATABASES["default"]["ENGINE"]}))
"""


@pytest.fixture
def checkout(tmp_path):
    """A place with the package ``project`` and a ``var/`` of its own."""
    shutil.copytree(ROOT / "project", tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "manage.py", tmp_path)
    return tmp_path


def environment(**given):
    return {name: value for name, value in os.environ.items() if name not in NAMES} | given


def python(checkout, *arguments, **given):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env=environment(**given),
        capture_output=True,
        text=True,
        check=False,
    )


def settings(checkout, **given):
    answer = python(checkout, "-c", SHOW, **given)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_without_environment_nothing_is_on_and_there_is_no_key(checkout):
    shown = settings(checkout)
    assert shown["SECRET_KEY"] == ""
    assert not shown["DEBUG"]
    assert not shown["DEMO"]
    assert shown["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]"]
    assert shown["ENGINE"] == "django.db.backends.sqlite3"
    assert shown["WSLOOP"]["REDIS"] == {"unix_socket_path": str(checkout / "var/redis.sock")}
    assert not (checkout / "var").exists()


def test_the_environment_replaces_them(checkout):
    shown = settings(
        checkout,
        DJANGO_SECRET_KEY="given",
        DJANGO_DEBUG="1",
        DJANGO_ALLOWED_HOSTS="one.example, .two.example",
        DATABASE_URL="postgres://user:password@localhost/name",
        REDIS_URL="rediss://localhost:6380/3",
    )
    assert shown["SECRET_KEY"] == "given"
    assert shown["DEBUG"]
    assert shown["ALLOWED_HOSTS"] == ["one.example", ".two.example"]
    assert shown["ENGINE"] == "django.db.backends.postgresql"
    assert shown["WSLOOP"]["REDIS"] == "rediss://localhost:6380/3"


@pytest.mark.parametrize("mode", ["DEMO", "DJANGO_DEBUG"])
def test_a_secret_key_is_made_up_once_for_this_user_alone(checkout, mode):
    key = settings(checkout, **{mode: "1"})["SECRET_KEY"]
    assert len(key) >= 50
    assert settings(checkout, **{mode: "1"})["SECRET_KEY"] == key
    assert stat.S_IMODE((checkout / "var/secret_key").stat().st_mode) == 0o600


def test_processes_that_start_at_once_agree_on_the_key(checkout):
    code = "from project import settings; print(settings.SECRET_KEY)"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=checkout, env=environment(DEMO="1"), stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    keys = {process.communicate()[0].strip() for process in started}
    assert len(keys) == 1
    assert keys == {(checkout / "var/secret_key").read_text()}
    assert [path.name for path in (checkout / "var").iterdir()] == ["secret_key"]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {},
            "The site has no secret key: set DJANGO_SECRET_KEY to a long random text, "
            "or DEMO=1 to try the site out, or DJANGO_DEBUG=1 to develop it.",
        ),
        (
            {"DJANGO_SECRET_KEY": "x", "REDIS_URL": "http://:hunter2@localhost"},
            "REDIS_URL is not the URL of a Redis; write redis://host:port/db, rediss://… (TLS) or unix:///path?db=0",
        ),
        (
            {"DJANGO_SECRET_KEY": "x", "DATABASE_URL": "nonsense://user:hunter2@localhost"},
            "DATABASE_URL is not the URL of a database; write postgres://user:password@host/name or sqlite:////path",
        ),
        (
            {"DJANGO_SECRET_KEY": "x", "DATABASE_URL": "mysql://user:hunter2@localhost/name"},
            "Error loading MySQLdb module; install the driver of DATABASE_URL with pip.",
        ),
        (
            {"DJANGO_SETTINGS_MODULE": "nowhere.settings"},
            "DJANGO_SETTINGS_MODULE is nowhere.settings, but there is no module nowhere.",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_without_passwords(checkout, given, line):
    answer = python(checkout, "manage.py", "migrate", **given)
    assert answer.returncode == 1
    assert answer.stderr == line + "\n"


def test_a_directory_that_cannot_be_made_is_named(checkout):
    (checkout / "var").write_text("in the way")
    answer = python(checkout, "manage.py", "migrate", DEMO="1")
    assert answer.stderr == f"Cannot store the secret key in {checkout / 'var/secret_key'}: File exists\n"
    answer = python(checkout, "manage.py", "migrate", DJANGO_SECRET_KEY="x")
    assert answer.stderr == f"Cannot create {checkout / 'var'}: Not a directory\n"


@pytest.mark.parametrize("arguments", [["help"], ["--version"], ["migrate", "--help"]])
def test_help_needs_no_secret_key(checkout, arguments):
    for application in ("chat", "wsloop", "templates", "static"):
        (checkout / application).symlink_to(ROOT / application)
    answer = python(checkout, "manage.py", *arguments)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout


def test_another_settings_module_may_bring_its_own_key(checkout):
    (checkout / "other.py").write_text("from project.settings import *\nSECRET_KEY = 'from here'\n")
    code = "from project import startup; startup.check(); from django.conf import settings; print(settings.SECRET_KEY)"
    answer = python(checkout, "-c", code, DJANGO_SETTINGS_MODULE="other")
    assert answer.stdout == "from here\n", answer.stderr
