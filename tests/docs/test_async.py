"""The page "Use async code" is a site: its code runs on a real server, and does what the page says."""

import json
import os
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import websocket

from testbed.clients import Client
from testbed.processes import ROOT, Process, free_port, wait_until
from tests.docs.test_docs import code_blocks, run

PAGE = ROOT / "docs/how-to/async.rst"
FILES = {
    "__init__.py": "",
    "settings.py": """
from pathlib import Path
SECRET_KEY = "only for this test"
ROOT_URLCONF = "mysite.urls"
ALLOWED_HOSTS = ["127.0.0.1"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).with_name("db.sqlite3")}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "wsloop", "mysite", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"
]
import os
WSLOOP = {"REDIS": os.environ["REDIS_URL"]}
""",
    "models.py": """
from django.db import models


class Order(models.Model):
    paid = models.BooleanField(default=False)
""",
    "urls.py": """
from django.http import HttpResponse
from django.urls import path
from mysite import quotes, views

urlpatterns = [
    path("summary/", views.summary),
    path("countdown/", views.countdown),
    path("quote/<name>/", lambda request, name: HttpResponse(quotes.quote(name))),
]
""",
    "wsgi.py": """
from gevent import monkey
monkey.patch_all()
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
from django.core.wsgi import get_wsgi_application
django_application = get_wsgi_application()
from mysite.routing import websocket_urlpatterns
from wsloop.server import WebsocketServer
websocket_application = WebsocketServer(urlpatterns=websocket_urlpatterns)


def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/ws/"):
        return websocket_application(environ, start_response)
    return django_application(environ, start_response)
""",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory, redis_server):
    """The address of a server of the site that the page shows; each of its blocks begins with the name of a file."""
    directory = tmp_path_factory.mktemp("async")
    files = dict(FILES)
    for code in code_blocks(PAGE, "python"):
        name, _, text = code.partition("\n")
        assert name.startswith("# ") and name.endswith(".py"), f"in which file? {code}"
        files[name.removeprefix("# ")] = text
    (directory / "mysite").mkdir()
    for name, code in files.items():
        (directory / "mysite" / name).write_text(code)
    env = os.environ | {
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
        "PYTHONPATH": f"{directory}:{ROOT}",
        "REDIS_URL": redis_server.url,
    }
    migrate = "import django; django.setup(); from django.core.management import call_command as c; "
    migrate += "c('migrate', run_syncdb=True, verbosity=0); from mysite.models import Order; "
    migrate += "Order.objects.create(paid=True); Order.objects.create(); Order.objects.create()"
    run([sys.executable, "-c", migrate], cwd=directory, env=env)
    address = f"127.0.0.1:{free_port()}"
    command = [str(Path(sys.executable).with_name("uwsgi")), "--http-socket", address, "--module", "mysite.wsgi"]
    command += ["--gevent", "20", "--master", "--die-on-term", "--lazy-apps", "--enable-threads"]
    server = Process(command, directory / "uwsgi.log", env)

    def answers():
        assert server.returncode is None, server.log()
        try:
            return urllib.request.urlopen(f"http://{address}/summary/", timeout=10)
        except OSError:
            return None

    try:
        wait_until(answers, timeout=60, what=f"an answer\n{server.log()}").close()
        yield address
    finally:
        stopped = server.stop()
    assert stopped and "Traceback" not in server.log(), server.log()


def get(site, path):
    with urllib.request.urlopen(f"http://{site}{path}", timeout=10) as answer:
        return answer.read().decode()


def test_an_async_view_asks_the_database_twice_at_once(site):
    assert json.loads(get(site, "/summary/")) == {"paid": 1, "open": 2}


def test_each_part_of_a_stream_comes_when_it_is_there(site):
    with urllib.request.urlopen(f"http://{site}/countdown/", timeout=10) as answer:
        assert answer.readline() == b"data: 3\n"
        first = time.monotonic()
        assert answer.read() == b"\ndata: 2\n\ndata: 1\n\n"
    assert time.monotonic() - first > 0.1  # two pauses of 0.1 s; the whole at once would take none


def test_plain_code_calls_a_coroutine(site):
    assert get(site, "/quote/tea/") == "quote for tea"


def test_an_async_consumer_tells_its_group(site):
    clients = [
        websocket.create_connection(f"ws://{site}/ws/shown/", timeout=10, origin=f"http://{site}", class_=Client)
        for _ in range(2)
    ]
    clients[0].send(json.dumps({"order": 2}))
    assert [json.loads(each.next()) for each in clients] == [{"order": 2}] * 2
    for each in clients:
        each.close()
