"""``wsloop.testing`` in a process like those of sites: not patched by gevent, and without Redis."""

import os
import re
import subprocess
import sys

import pytest

from testbed.processes import ROOT
from wsloop import testing
from wsloop.testing.communicator import WebsocketCommunicator
from wsloop.testing.notifications import NotificationsMixin

CONFTEST = """
import sys
import django, pytest
from django.core.management import call_command
from django.db import connection
from django.test import override_settings

pytest_plugins = ["wsloop.testing.plugin"]
django.setup()

def pytest_sessionfinish():
    assert not [name for name in ("gevent", "websockets.server") if name in sys.modules]

@pytest.fixture
def with_settings():
    changed = []
    def change(**settings):
        changed.append(override_settings(**settings))
        changed[-1].enable()
    yield change
    for each in reversed(changed):
        each.disable()

@pytest.fixture(scope="session")
def _migrated():
    call_command("migrate", verbosity=0)

@pytest.fixture
def database(_migrated):
    yield connection
    call_command("flush", verbosity=0, interactive=False)
"""


def run(*words, **options):
    env = {key: value for key, value in os.environ.items() if not key.startswith(("DJANGO_", "PYTEST_"))}
    env |= {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "tests.unit.settings"}
    result = subprocess.run(
        [sys.executable, *words], env=env, capture_output=True, text=True, timeout=180, check=False, **options
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_names():
    assert testing.WebsocketCommunicator is WebsocketCommunicator
    assert testing.NotificationsMixin is NotificationsMixin
    with pytest.raises(AttributeError, match=r"'wsloop\.testing' has no attribute 'Websocket'"):
        _ = testing.Websocket


def test_the_plugin_is_loaded_before_django_is_set_up():
    run("-W", "error", "-c", "import sys, wsloop.testing.plugin; assert 'django' not in sys.modules")


def test_the_tests_of_this_package_pass_in_a_plain_process(tmp_path):
    """The tests of communicators and notifications pass without gevent, too."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for name in ("test_communicator.py", "test_async_communicator.py", "test_notifications.py"):
        (tmp_path / name).write_text((ROOT / "tests/unit" / name).read_text())
    said = run("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path), cwd=tmp_path)
    assert re.search(r"^2\d\d passed in ", said, re.MULTILINE)
