"""What the page for people from Channels says of this package is so, and it leaves no name of Channels out.

Channels is not installed with the tests. Its public names, and the parameters of what sites call, are those of Channels
4.3.2, channels_redis 4.3.0 and daphne 4.2.3, read from the packages by ``inspect``.
"""

import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import docutils.nodes
import pytest
import websocket

from testbed.clients import Client
from testbed.processes import ROOT, Process, free_port, wait_until
from tests.docs.test_docs import code_blocks, document, rows, run
from wsloop import conf

PAGE = ROOT / "docs/how-to/coming-from-channels.rst"
GUIDES = ROOT / "tests/integration/sites/channels_guides"

HERE = {  # where the names of a module of Channels are, as far as they are
    "channels.generic.websocket": "wsloop.consumers",
    "channels.consumer": "wsloop.consumers",
    "channels.exceptions": "wsloop.exceptions",
    "channels.layers": "wsloop.layers",
    "channels.testing": "wsloop.testing",
}
NAMES = {
    "channels.generic.websocket": """
        WebsocketConsumer WebsocketConsumer.groups WebsocketConsumer.websocket_connect WebsocketConsumer.connect
        WebsocketConsumer.accept WebsocketConsumer.websocket_receive WebsocketConsumer.receive WebsocketConsumer.send
        WebsocketConsumer.close WebsocketConsumer.websocket_disconnect WebsocketConsumer.disconnect
        JsonWebsocketConsumer JsonWebsocketConsumer.receive JsonWebsocketConsumer.receive_json
        JsonWebsocketConsumer.send_json JsonWebsocketConsumer.decode_json JsonWebsocketConsumer.encode_json
        AsyncWebsocketConsumer AsyncJsonWebsocketConsumer""",
    "channels.consumer": """
        AsyncConsumer SyncConsumer SyncConsumer.channel_layer_alias SyncConsumer.dispatch SyncConsumer.send
        SyncConsumer.as_asgi SyncConsumer.scope SyncConsumer.channel_layer SyncConsumer.channel_name
        SyncConsumer.channel_receive SyncConsumer.base_send SyncConsumer.__call__ get_handler_name""",
    "channels.exceptions": """
        RequestAborted RequestTimeout InvalidChannelLayerError AcceptConnection DenyConnection ChannelFull
        MessageTooLarge StopConsumer""",
    "channels.layers": """
        ChannelLayerManager BaseChannelLayer BaseChannelLayer.MAX_NAME_LENGTH BaseChannelLayer.compile_capacities
        BaseChannelLayer.get_capacity BaseChannelLayer.match_type_and_length BaseChannelLayer.channel_name_regex
        BaseChannelLayer.group_name_regex BaseChannelLayer.invalid_name_error
        BaseChannelLayer.require_valid_channel_name BaseChannelLayer.require_valid_group_name
        BaseChannelLayer.valid_channel_names BaseChannelLayer.non_local_name BaseChannelLayer.send
        BaseChannelLayer.receive BaseChannelLayer.new_channel BaseChannelLayer.flush BaseChannelLayer.group_add
        BaseChannelLayer.group_discard BaseChannelLayer.group_send BaseChannelLayer.valid_channel_name
        BaseChannelLayer.valid_group_name InMemoryChannelLayer get_channel_layer channel_layers
        DEFAULT_CHANNEL_LAYER""",
    "channels_redis": """
        core.RedisChannelLayer pubsub.RedisPubSubChannelLayer hosts prefix expiry group_expiry capacity
        channel_capacity symmetric_encryption_keys random_prefix_length serializer_format on_disconnect on_reconnect
        close_pools serializers.registry""",
    "Users, sessions, databases": """
        channels.auth.get_user channels.auth.login channels.auth.logout channels.auth.UserLazyObject
        channels.auth.AuthMiddleware channels.auth.AuthMiddlewareStack channels.sessions.CookieMiddleware
        channels.sessions.InstanceSessionWrapper channels.sessions.SessionMiddleware
        channels.sessions.SessionMiddlewareStack channels.middleware.BaseMiddleware channels.db.DatabaseSyncToAsync
        channels.db.database_sync_to_async channels.db.aclose_old_connections""",
    "Routing and origins": """
        channels.routing.get_default_application channels.routing.ProtocolTypeRouter channels.routing.URLRouter
        channels.routing.ChannelNameRouter channels.security.websocket.OriginValidator
        channels.security.websocket.AllowedHostsOriginValidator channels.security.websocket.WebsocketDenier""",
    "Others": """
        channels.generic.http.AsyncHttpConsumer channels.worker.Worker channels.utils.name_that_thing
        channels.utils.await_many_dispatch""",
    "Setting": "ASGI_APPLICATION CHANNEL_LAYERS TEST_CONFIG",
    "channels.testing": """
        ApplicationCommunicator HttpCommunicator ChannelsLiveServerTestCase WebsocketCommunicator
        WebsocketCommunicator.connect WebsocketCommunicator.send_to WebsocketCommunicator.send_json_to
        WebsocketCommunicator.receive_from WebsocketCommunicator.receive_json_from
        WebsocketCommunicator.receive_nothing WebsocketCommunicator.disconnect WebsocketCommunicator.scope
        WebsocketCommunicator.send_input WebsocketCommunicator.receive_output WebsocketCommunicator.wait
        WebsocketCommunicator.response_headers""",
    "Key of scope": """
        type path raw_path query_string headers cookies client server subprotocols user session url_route
        path_remaining root_path scheme http_version asgi""",
    "Event": """
        websocket.connect websocket.receive websocket.disconnect websocket.accept websocket.send websocket.close
        websocket.http.response.start http.request http.disconnect lifespan.startup""",
    "Command or option": """
        runserver runworker daphne --port --bind --websocket_timeout --websocket_connect_timeout --unix-socket --fd
        --endpoint --verbosity --http-timeout --access-log --log-fmt --ping-interval --ping-timeout
        --websocket-max-message-size --websocket-max-frame-size --application-close-timeout --root-path
        --proxy-headers --proxy-headers-host --proxy-headers-port --server-name --no-server-name --noasgi
        --http_timeout --websocket_handshake_timeout""",
}
PARAMETERS = {
    "WebsocketConsumer.accept": ["subprotocol", "headers"],
    "WebsocketConsumer.receive": ["text_data", "bytes_data"],
    "WebsocketConsumer.send": ["text_data", "bytes_data", "close"],
    "WebsocketConsumer.close": ["code", "reason"],
    "JsonWebsocketConsumer.receive": ["text_data", "bytes_data", "kwargs"],
    "JsonWebsocketConsumer.receive_json": ["content", "kwargs"],
    "JsonWebsocketConsumer.send_json": ["content", "close"],
    "JsonWebsocketConsumer.decode_json": ["text_data"],
    "JsonWebsocketConsumer.encode_json": ["content"],
    "SyncConsumer.as_asgi": ["initkwargs"],
    "SyncConsumer.dispatch": ["message"],
    "SyncConsumer.send": ["message"],
}
WORDS = set(re.findall(r"[\w.-]+", PAGE.read_text()))


def table(heading):
    """Return the rows of a table: what it is in Channels to what it is here."""
    found = {row[0]: row[1] for row in rows(PAGE, heading)}
    assert found, heading
    return found


INSPECT = """
import importlib, inspect, json, sys
import django
django.setup()

def has(found, name):
    try:
        return hasattr(found, name)
    except ImportError:  # a name of Channels, whose absence is explained
        return False

def missing(path):
    parts = path.split(".")
    for number in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:number]))
        except ModuleNotFoundError:
            continue
        for name in parts[number:]:
            annotated = [vars(each).get("__annotations__", ()) for each in getattr(found, "__mro__", ())]
            if not has(found, name) and not any(name in each for each in annotated):
                return True
            found = getattr(found, name, None)
        return False
    return True

print(json.dumps([path for path in json.loads(sys.argv[1]) if missing(path)]))
"""
SCOPE = """
import json
import django
django.setup()
from django.test import RequestFactory
from wsloop import consumers, routing
request = RequestFactory().get("/ws/", headers={"cookie": "a=b", "authorization": "secret", "x-name": "value"})
request.session = object()
scope = routing.scope(request, routing.Match(consumers.SyncConsumer, {}))
print(json.dumps([list(scope), [[name.decode(), value.decode()] for name, value in scope["headers"]]]))
"""


def ask(script, *arguments):
    """Return what a script prints that needs Django, which is not set up in this process."""
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.unit.settings"}
    return json.loads(run([sys.executable, "-c", script, *arguments], cwd=ROOT, env=env))


def missing(paths):
    """Return those dotted names of which there is nothing; attributes that only instances have count as there."""
    return set(ask(INSPECT, json.dumps(sorted(paths))))


@pytest.mark.parametrize("heading", NAMES)
def test_no_name_of_channels_is_left_out(heading):
    left = " ".join(table(heading))
    words = set(re.findall(r"[\w.-]+", left))
    assert [name for name in NAMES[heading].split() if name not in words] == []


def test_what_is_the_same_is_here_and_what_is_not_is_not():
    same, not_here = set(), set()
    for heading, module in HERE.items():
        for name, answer in table(heading).items():
            if answer.startswith("The same"):
                same.add(f"{module}.{name}")
            elif answer.startswith("Not available") and re.fullmatch(r"[\w.]+", name) and not name.endswith("__"):
                not_here.add(f"{module}.{name}")
    assert len(same) > 45 and len(not_here) > 15
    assert missing(same | not_here) == not_here


def test_what_is_the_same_takes_the_same_arguments():
    for name, parameters in PARAMETERS.items():
        class_name, method = name.split(".")
        ours = inspect.signature(getattr(getattr(importlib.import_module("wsloop.consumers"), class_name), method))
        names = [each for each in ours.parameters if each != "self"]
        assert names == parameters, name


def test_everything_of_ours_that_the_page_names_exists():
    literals = {node.astext() for node in document(PAGE).findall(docutils.nodes.literal)}
    paths = {each for each in literals if re.fullmatch(r"wsloop(\.\w+)+", each)}
    assert len(paths) > 8
    loggers = {"wsloop.server", "wsloop.runner"}
    assert missing(paths - loggers) == set()
    options = {option for each in literals for option in re.findall(r'WSLOOP\["(\w+)"\]', each)}
    options |= {each for each in literals if re.fullmatch(r"(MAX|RATE|PING|CHANNEL|HANDLER|HANDSHAKE)_\w+", each)}
    assert len(options) > 8 and options <= set(conf.DEFAULTS) | {"CHANNEL_LAYERS"}


def test_numbers_of_ours_that_the_page_names_are_the_defaults():
    units = {"s": 1, "KiB": 1024}
    found = re.findall(r'WSLOOP\["(\w+)"\]: (\d+) (s|KiB)\b', " ".join(table("Command or option").values()))
    assert len(found) == 5
    assert {name: int(number) * units[unit] for name, number, unit in found} == {
        name: conf.DEFAULTS[name] for name, *_ in found
    }
    text = PAGE.read_text()
    assert conf.DEFAULTS["CHANNEL_CAPACITY"] == 1000 and "1000 instead of 100" in text
    assert conf.DEFAULTS["MAX_MESSAGE_SIZE"] == 64 * 1024 and "64 KiB (``MAX_MESSAGE_SIZE``)" in text
    assert conf.DEFAULTS["RATE_LIMIT"][0] == 100 and conf.DEFAULTS["MAX_CONNECTIONS_PER_USER"] == 100


def test_the_scope_has_what_the_page_says():
    keys, headers = ask(SCOPE)
    said = table("Key of scope")
    assert {key for key, answer in said.items() if not answer.startswith("Not available")} == set(keys)
    assert ["x-name", "value"] in headers and "cookie" not in dict(headers)


LEFT_IN = """
import json
import django
django.setup()
from asgiref.sync import async_to_sync
from wsloop.layers import ChannelLayer

class Remote:
    blocks = True

    def publish(self, channel, payload):
        print(json.dumps("it has done its work"))

layer = ChannelLayer()
layer.remote = Remote()
async_to_sync(layer.group_send)("group", {"type": "said"})
"""


def test_a_wrapper_that_is_left_in_works_as_the_page_says():
    assert "``async_to_sync()`` works as before." in PAGE.read_text()
    assert ask(LEFT_IN) == "it has done its work"


# --- the project that the page changes --------------------------------------------------------------------------------

SETTINGS = """
SECRET_KEY = "only for this test, and longer than fifty characters in all"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "mysite.urls"
INSTALLED_APPS = ["wsloop", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}}
{setting}
WSLOOP |= {{"POLICY": "mysite.policy.allowed_channels", "PROCESS_REQUEST": "mysite.sockets.process_request"}}
"""
URLS = """
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("page/", lambda request: HttpResponse("a page"))]
"""
KEYS = """
from types import SimpleNamespace

def user_of(key):
    if key == "the key":
        return SimpleNamespace(is_authenticated=True, pk=None, team="red", get_username=lambda: "robot")
"""
MEMBERS = """

    def receive_json(self, content):
        self.send_json(self.scope["team"])
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory, redis_server):
    """A project of Channels' tutorial, changed as the page says, under the server that the page says."""
    directory = tmp_path_factory.mktemp("project")
    (chat, mysite) = (directory / "chat", directory / "mysite")
    for package in (chat, mysite):
        package.mkdir()
        (package / "__init__.py").touch()
    shutil.copytree(ROOT / "wsloop", directory / "wsloop")  # with what is compiled already
    python, consoles = code_blocks(PAGE, "python"), code_blocks(PAGE, "console")

    shutil.copy(GUIDES / "chat.py", chat / "consumers.py")
    routing = (GUIDES / "chat_routing.py").read_text().replace("import chat as consumers", "import consumers, members")
    extra = '    re_path(r"ws/members/$", members.MembersConsumer.as_asgi()),\n]'
    (chat / "routing.py").write_text(re.sub(r"\]\s*$", extra, routing))
    (members,) = [code for code in python if "class MembersConsumer" in code]
    (chat / "members.py").write_text(members + MEMBERS)
    (sed,) = [code for code in consoles if "sed -i" in code]
    run(["sh", "-ec", sed.removeprefix("$ ")], cwd=directory)

    (wsgi,) = [code for code in python if "WebsocketServer(urlpatterns" in code]
    (policy,) = [code for code in python if "def allowed_channels" in code]
    (sockets,) = [code for code in python if "def process_request(request)" in code]
    (diff,) = [code for code in code_blocks(PAGE, "diff") if "WSLOOP" in code]
    (setting,) = re.findall(r"^\+(WSLOOP = .*)$", diff, re.MULTILINE)
    setting = setting.replace("127.0.0.1:6379/0", f"127.0.0.1:{redis_server.port}/0")
    (mysite / "settings.py").write_text(SETTINGS.format(setting=setting))
    for name, text in (("wsgi", wsgi), ("policy", policy), ("sockets", sockets), ("keys", KEYS), ("urls", URLS)):
        (mysite / f"{name}.py").write_text(text)

    address = f"127.0.0.1:{free_port()}"
    command, _ = [code for code in consoles if "uwsgi --http" in code]  # of both ways, which are the same
    command = command.removeprefix("$ ").replace("127.0.0.1:8000", address)
    command = command.replace("uwsgi", str(Path(sys.executable).with_name("uwsgi")), 1)
    (tests,) = [code for code in code_blocks(PAGE, "diff") if "class ChatTests" in code]
    (chat / "tests.py").write_text("".join(f"{line[1:]}\n" for line in tests.splitlines() if not line.startswith("-")))
    server = Process(["sh", "-c", f"cd {directory} && exec {command}"], directory / "log", {"PATH": "/usr/bin:/bin"})

    def answers():
        assert server.returncode is None, server.log()
        try:
            with urllib.request.urlopen(f"http://{address}/page/", timeout=30) as answer:
                return answer.read() == b"a page"
        except OSError:
            return False

    try:
        wait_until(answers, timeout=60, what=f"the project answering\n{server.log()}")
        yield address, directory
    finally:
        server.stop()


def connect(project, path):
    address, _ = project
    return websocket.create_connection(f"ws://{address}{path}", timeout=20, suppress_origin=True, class_=Client)


def test_the_chat_of_the_changed_project(project):
    john, mary = connect(project, "/ws/chat/lobby/"), connect(project, "/ws/chat/lobby/")
    john.send('{"message": "Hello"}')
    assert john.next() == mary.next() == '{"message": "Hello"}'
    john.close()
    mary.close()


def test_the_middleware_that_has_become_a_function_and_a_base_class(project):
    client = connect(project, "/ws/members/?key=the%20key")
    client.send("1")
    assert client.next() == '"red"'
    client.close()
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        connect(project, "/ws/members/?key=another")
    assert refused.value.status_code == 403


def test_paths_without_a_pattern_can_be_refused(project):
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        connect(project, "/ws/chat/lobby/mistyped/?subscribe-broadcast")
    assert refused.value.status_code == 403


def test_the_test_of_the_changed_project(project):
    _, directory = project
    env = {"PATH": "/usr/bin:/bin", "DJANGO_SETTINGS_MODULE": "mysite.settings"}
    command = [sys.executable, "-m", "django", "test", "chat"]
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Ran 1 test" in done.stderr, done.stderr


# --- the project that hosts its ASGI application ----------------------------------------------------------------------

HOSTED = """
CHANNEL_LAYERS["default"]["CONFIG"]["prefix"] = WSLOOP["PREFIX"] = "hosted"
"""


@pytest.fixture(scope="module")
def hosted(tmp_path_factory, redis_server):
    """A project of Channels' tutorial, with nothing changed but ``wsgi.py``, under the server that the page says."""
    directory = tmp_path_factory.mktemp("hosted")
    (chat, mysite) = (directory / "chat", directory / "mysite")
    for package in (chat, mysite):
        package.mkdir()
        (package / "__init__.py").touch()
    python, consoles = code_blocks(PAGE, "python"), code_blocks(PAGE, "console")
    (asgi,) = [code for code in python if "ProtocolTypeRouter(" in code]
    (wsgi,) = [code for code in python if "WebsocketServer(asgi=" in code]
    settings = "".join(code + "\n" for code in python if code.startswith(("CHANNEL_LAYERS =", "WSLOOP = ")))
    settings = settings.replace("127.0.0.1:6379/0", f"127.0.0.1:{redis_server.port}/0")
    shutil.copy(GUIDES / "chat.py", chat / "consumers.py")
    routing = (GUIDES / "chat_routing.py").read_text().replace("import chat as consumers", "import consumers")
    (chat / "routing.py").write_text(routing)
    settings = SETTINGS.format(setting=settings + HOSTED)
    settings = re.sub(r"^WSLOOP \|= .*$", "", settings, flags=re.MULTILINE)
    for name, text in (("settings", settings), ("asgi", asgi), ("wsgi", wsgi), ("urls", URLS)):
        (mysite / f"{name}.py").write_text(text)
    address = f"127.0.0.1:{free_port()}"
    command, _ = [code for code in consoles if "uwsgi --http" in code]
    command = command.removeprefix("$ ").replace("127.0.0.1:8000", address)
    command = command.replace("uwsgi", str(Path(sys.executable).with_name("uwsgi")), 1)
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    server = Process(["sh", "-c", f"cd {directory} && exec {command}"], directory / "log", environ)

    def answers():
        assert server.returncode is None, server.log()
        try:
            with urllib.request.urlopen(f"http://{address}/page/", timeout=30) as answer:
                return answer.read() == b"a page"
        except OSError:
            return False

    try:
        wait_until(answers, timeout=60, what=f"the project answering\n{server.log()}")
        yield address, directory
    finally:
        server.stop()


def test_the_chat_of_the_hosted_project(hosted):
    address, _ = hosted

    def opened(query=""):
        return websocket.create_connection(
            f"ws://{address}/ws/chat/lobby/{query}", timeout=20, origin=f"http://{address}", class_=Client
        )

    john, mary = opened(), opened("?token=a.token.of-the-site")
    for text in ("Hello", "Hello again"):
        john.send(json.dumps({"message": text}))
        assert json.loads(john.next()) == json.loads(mary.next()) == {"message": text}
        time.sleep(5.5)  # longer than redis-py's socket_timeout, which the page takes away
    john.send('{"message": "the end"}')
    assert john.next() == mary.next() == '{"message": "the end"}'
    john.close()
    mary.close()
