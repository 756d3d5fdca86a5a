"""Consumers written for Django Channels run here when the ``sed`` command of the page for newcomers has edited them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import websocket

from testbed.processes import ROOT
from tests.docs.test_docs import code_blocks

GUIDES = Path(__file__).parent / "sites/channels_guides"
PAGE = ROOT / "docs/how-to/coming-from-channels.rst"

WSGI = """
from gevent import monkey

monkey.patch_all()

from django.core.wsgi import get_wsgi_application

django_application = get_wsgi_application()

from django.http import HttpResponse
from django.urls import path

from guides import answers, chat_routing, echo, notices, random_numbers
from wsloop.server import WebsocketServer

websocket_application = WebsocketServer(urlpatterns=[
    *chat_routing.websocket_urlpatterns,
    path("ws/echo/", echo.EchoConsumer.as_asgi()),
    path("ws/low-echo/", echo.LowEchoConsumer.as_asgi()),
    path("ws/numbers/", random_numbers.NumbersConsumer.as_asgi()),
    path("ws/countdown/", random_numbers.CountdownConsumer.as_asgi()),
    path("ws/answers/", answers.AnswersConsumer.as_asgi()),
    path("ws/notices/", notices.NoticesConsumer.as_asgi()),
])


def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/ws/"):
        return websocket_application(environ, start_response)
    return django_application(environ, start_response)
"""


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """A directory with the package ``guides``: the guides after the command of the page."""
    directory = tmp_path_factory.mktemp("guides")
    package = directory / "guides"
    package.mkdir()
    (package / "__init__.py").touch()
    for source in GUIDES.glob("*.py"):
        shutil.copy(source, package)
    (command,) = [code for code in code_blocks(PAGE, "console") if "sed -i" in code]
    command = command.removeprefix("$ ").replace("chat/*.py", "guides/*.py")
    assert "guides/*.py" in command
    subprocess.run(["sh", "-ec", command], cwd=directory, check=True)
    return directory


@pytest.fixture(scope="module")
def guides(shared_serve, edited):
    (edited / "guides_wsgi.py").write_text(WSGI)
    return shared_serve(processes=2, options=["--module", "guides_wsgi"], env={"PYTHONPATH": str(edited)})


def test_nothing_but_imports_is_changed(edited):
    for source in GUIDES.glob("*.py"):
        before, after = source.read_text(), (edited / "guides" / source.name).read_text()
        assert not re.search(r"\bchannels\b", re.sub(r"^from wsloop.*", "", after, flags=re.MULTILINE))
        assert before != after or source.name == "chat_routing.py"

        def kept(text):
            """What is not an import of Channels or wsloop."""
            text = re.sub(r"^(from|import) (channels|wsloop)\b.*\n", "", text, flags=re.MULTILINE)
            return text.replace("wsloop.", "channels.")

        assert kept(before) == kept(after)


def test_the_chat_of_the_tutorial(guides):
    everybody = [guides.connect("chat/lobby/") for _ in range(4)]
    elsewhere = guides.connect("chat/other/")
    for number, each in enumerate(everybody):
        each.send(json.dumps({"message": f"Hello {number}"}))
        assert [json.loads(client.next()) for client in everybody] == [{"message": f"Hello {number}"}] * 4
    elsewhere.send('{"message": "only here"}')
    assert json.loads(elsewhere.next()) == {"message": "only here"}
    everybody.pop().close()
    everybody[0].send('{"message": "one has left"}')
    assert [json.loads(client.next())["message"] for client in everybody] == ["one has left"] * 3


def test_a_message_that_is_no_json_ends_the_socket_of_the_tutorial_with_1011(guides):
    client = guides.connect("chat/lobby/")
    client.send("no JSON")
    assert client.closing() == 1011


def test_echoes(guides):
    client = guides.connect("echo/")
    client.send("text, with ä")
    assert client.next() == "text, with ä"
    client.send_binary(b"\x00\xff")
    assert client.next() == b"\x00\xff"
    low = guides.connect("low-echo/")
    low.send("hello")
    low.send("bye")
    assert low.take(2) == ["hello", "bye"]
    assert low.closing() == 4000


def test_random_numbers_in_a_loop_that_nobody_ends(guides):
    first, second = guides.connect("numbers/"), guides.connect("numbers/")
    for client in (first, second):
        assert all(1 <= json.loads(each)["message"] <= 100 for each in client.take(2))
    first.close()
    assert 1 <= json.loads(second.next())["message"] <= 100


def test_a_countdown_that_closes(guides):
    client = guides.connect("countdown/")
    assert [json.loads(each)["value"] for each in client.take(3)] == [3, 2, 1]
    assert client.closing() == 4123


def test_json_with_an_encoder_of_its_own(guides):
    client = guides.connect("answers/", cookies=guides.login("mary"), subprotocols=["one", "two"])
    assert client.subprotocol == "one"
    assert json.loads(client.next()) == {"type": "welcome", "name": "mary"}
    for command, answer in (
        ({"command": "today"}, {"today": "2026-01-31"}),
        ({"command": "add", "numbers": [1, 2]}, {"sum": 3}),
        ({}, {"error": "unknown command"}),
        ({"command": "leave"}, {"bye": True}),
    ):
        client.send(json.dumps(command))
        assert json.loads(client.next()) == answer
    assert client.closing() == 1000
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        guides.connect("answers/?nobody=1")
    assert refused.value.status_code == 403


def test_notices_from_a_task(guides, edited):
    clients = [guides.connect("notices/") for _ in range(3)]
    channels = [json.loads(client.next())["channel"] for client in clients]
    script = f"import sys; sys.path.insert(0, {str(edited)!r}); from guides.notices import *; "
    script += f"tell_all('all'); tell_all_directly('again'); tell_one({channels[1]!r}, 'one')"
    guides.manage("shell", "-c", script)
    for text in ("all", "again"):
        assert [json.loads(client.next()) for client in clients] == [{"text": text}] * 3
    assert json.loads(clients[1].next()) == {"text": "one"}
