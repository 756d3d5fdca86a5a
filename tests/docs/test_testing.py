"""The page "Test consumers and notifications" is a site with tests, which pass without Redis, whoever runs them."""

import ast
import os
import re
import subprocess
import sys

import pytest

from testbed.processes import ROOT
from tests.docs.test_docs import code_blocks

PAGE = ROOT / "docs/how-to/test.rst"
SETTINGS = """
SECRET_KEY = "only for this test"
ROOT_URLCONF = "mysite.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["wsloop", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
WSLOOP = {"REDIS": {"unix_socket_path": "/nowhere/redis.sock"}}
"""
URLS = """
from django.urls import path
from mysite import views

urlpatterns = [
    path("orders/<int:order>/pay/", views.pay),
    path("announce/", views.announce),
    path("greet/", views.greet),
]
"""
# What a site has by pytest-django.
CONFTEST = """
import django, pytest
from django.test import Client

def pytest_configure():
    django.setup()

@pytest.fixture
def client():
    return Client()
"""


@pytest.fixture
def site(tmp_path):
    """The site that the page shows: each of its blocks begins with the name of a file."""
    files = {"settings.py": SETTINGS, "urls.py": URLS, "__init__.py": "", "conftest.py": CONFTEST}
    for code in code_blocks(PAGE, "python"):
        name = code.partition("\n")[0].removeprefix("# ")
        assert name.endswith(".py"), f"in which file? {code}"
        files[name] = files.get(name, "") + code + "\n"
    (tmp_path / "mysite").mkdir()
    for name, code in files.items():
        (tmp_path / "mysite" / name).write_text(code)
    return tmp_path


@pytest.mark.parametrize("patched", [[], ["-m", "gevent.monkey", "--module"]], ids=["plain", "gevent"])
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["django", "test", "mysite", "--verbosity=2"], "Ran 9 tests in "),
        (["pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "mysite"], "5 passed in "),
    ],
    ids=["manage.py", "pytest"],
)
def test_the_examples_pass(site, patched, command, said):
    env = {key: value for key, value in os.environ.items() if not key.startswith(("DJANGO_", "PYTEST_"))}
    env |= {"DJANGO_SETTINGS_MODULE": "mysite.settings", "PYTHONPATH": f"{site}:{ROOT}"}
    words = [*patched, *command] if patched else ["-m", *command]
    result = subprocess.run(
        [sys.executable, *words], cwd=site, env=env, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert said in result.stdout + result.stderr


def members(module, name):
    """The names of what a class of ``wsloop.testing`` has that is not private."""
    tree = ast.parse((ROOT / "wsloop/testing" / module).read_text())
    (found,) = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name]
    names = [getattr(node, "name", None) or getattr(getattr(node, "target", None), "id", "_") for node in found.body]
    return {name for name in names if not name.startswith("_")}


def test_what_the_page_names_is_there():
    page = PAGE.read_text()
    named = set(re.findall(r"``(\w+)", page))
    assert members("communicator.py", "WebsocketCommunicator") <= named
    assert members("recorder.py", "Notification") - {"number"} <= named
    assert members("notifications.py", "NotificationsMixin") - {"setUpClass", "run"} <= named
