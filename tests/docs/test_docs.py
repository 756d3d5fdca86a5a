"""The documentation says what is true: its code runs, its tables name what exists, its links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import docutils.core
import docutils.nodes
import docutils.utils
import pytest
import websocket

from tests.integration.harness import ROOT, Process, free_port, wait_until

PAGES = [ROOT / "README.rst", ROOT / "CHANGELOG.rst", *sorted((ROOT / "docs").rglob("*.rst"))]


def document(page):
    """Return the parsed page; any problem of its markup raises."""
    settings = {"report_level": 2, "halt_level": 2, "input_encoding": "utf-8", "file_insertion_enabled": False}
    return docutils.core.publish_doctree(page.read_text(), str(page), settings_overrides=settings)


def code_blocks(page, language):
    return [
        block.astext()
        for block in document(page).findall(docutils.nodes.literal_block)
        if language in block.get("classes", [])
    ]


def run(command, **options):
    """Run a command that must succeed and return what it printed."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
    assert result.returncode == 0, f"{command}:\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_is_valid_and_its_links_lead_to_files(page):
    for reference in document(page).findall(docutils.nodes.reference):
        target = reference.get("refuri", "")
        if target and "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_the_pages_compiles(page):
    for code in code_blocks(page, "python"):
        compile(code, str(page), "exec")


def test_script_of_the_readme_receives_its_message(site):
    """Run the script of "The same from a script" as it stands, but for the address."""
    (script,) = [code for code in code_blocks(ROOT / "README.rst", "python") if "create_connection" in code]
    output = run([sys.executable, "-c", script.replace("127.0.0.1:8000", site.host)])
    assert re.search(r"^received: Hello from a script", output, re.MULTILINE)


def test_settings_are_documented_with_their_defaults():
    from wsloop.conf import DEFAULTS

    text = (ROOT / "docs/reference/settings.rst").read_text()
    rows = {key: float(value) for key, value in re.findall(r"^([A-Z_]+) +(\d+) ", text, re.MULTILINE)}
    assert rows == DEFAULTS


def test_every_ws4redis_setting_is_in_the_readme():
    names = set(re.findall(r'"(W(?:S4REDIS|EBSOCKET)_\w+)"', (ROOT / "wsloop/conf.py").read_text()))
    names |= set(re.findall(r'callback\("(\w+)"\)', (ROOT / "wsloop/server.py").read_text()))
    assert names <= set(re.findall(r"^``(\w+)``", (ROOT / "README.rst").read_text(), re.MULTILINE))


def test_environment_is_documented():
    sources = "".join(path.read_text() for path in [*(ROOT / "project").glob("*.py"), ROOT / "uwsgi.ini"])
    names = set(re.findall(r'(?:environ(?:\.get\(|\[)|_on\()"([A-Z_]+)"', sources))
    names |= set(re.findall(r"\$\((\w+)\)", sources))
    names -= {"DJANGO_SETTINGS_MODULE"}
    assert {"REDIS_URL", "DATABASE_URL", "DEMO", "HTTP", "PROCESSES"} <= names
    page = (ROOT / "docs/reference/environment.rst").read_text()
    assert [name for name in sorted(names) if f"``{name}``" not in page] == []


def test_close_codes_and_refusals_are_those_of_the_code():
    from wsloop.connection import TOO_SLOW

    page = (ROOT / "docs/reference/websockets.rst").read_text()
    assert f"\n{TOO_SLOW} " in page
    statuses = {"400", "403", "405", "426", "500", "501", "503", "505"}
    assert set(re.findall(r"^(4\d\d|5\d\d)    ", page, re.MULTILINE)) == statuses


SETTINGS = """
import os
SECRET_KEY = "only for this test, and longer than fifty characters in all"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "mysite.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
MIDDLEWARE = []
APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.staticfiles"]
"""
URLS = """
from django.http import HttpResponse
from django.urls import path
from wsloop.publisher import RedisPublisher

def publish(request):
    RedisPublisher(facility="orders", broadcast=True).publish_message("It works")
    return HttpResponse("published")

urlpatterns = [path("publish/", publish)]
"""


def test_another_site_uses_the_installed_package(tmp_path, redis_server):
    """Install the package, make a site with what the README's "Use it in your site" shows, serve it by its command."""
    package, site = tmp_path / "package", tmp_path / "site"
    source = tmp_path / "source"
    files = run(["git", "-C", str(ROOT), "ls-files", "wsloop", "pyproject.toml", "README.rst"]).split()
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(package), str(source)])

    snippets = code_blocks(ROOT / "README.rst", "python")
    (settings,) = [code for code in snippets if "INSTALLED_APPS" in code]
    (wsgi,) = [code for code in snippets if "get_wsgi_application" in code]
    settings = settings.replace("    ...,\n", "    *APPS,\n").replace("redis://localhost:6379/0", redis_server.url)
    (site / "mysite").mkdir(parents=True)
    (site / "mysite/__init__.py").touch()
    (site / "mysite/settings.py").write_text(SETTINGS + settings)
    (site / "mysite/urls.py").write_text(URLS)
    (site / "mysite/wsgi.py").write_text(wsgi)

    (command,) = [code for code in code_blocks(ROOT / "README.rst", "console") if "--module mysite.wsgi" in code]
    address = f"127.0.0.1:{free_port()}"
    words = command.removeprefix("$ ").replace("127.0.0.1:9090", address).split()
    uwsgi = str(Path(sys.executable).with_name(words[0]))
    shell = f"cd {site} && exec {uwsgi} {' '.join(words[1:])}"
    env = {key: value for key, value in os.environ.items() if not key.startswith("DJANGO_")}
    server = Process(["sh", "-c", shell], tmp_path / "log", env | {"PYTHONPATH": f"{package}:{site}"})
    try:

        def connect():
            assert server.returncode is None, server.log()
            try:
                return websocket.create_connection(f"ws://{address}/ws/orders?subscribe-broadcast", timeout=10)
            except OSError:
                return None

        socket = wait_until(connect, what=f"the site answering\n{server.log()}")
        publish = f"import urllib.request; print(urllib.request.urlopen('http://{address}/publish/').read())"
        assert "published" in run([sys.executable, "-c", publish])
        assert socket.recv() == "It works"
        socket.close()
    finally:
        server.stop()
