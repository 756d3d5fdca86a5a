"""Clients that others wrote, against ``/ws/echo/``: what they send comes back, compressed where they can take it."""

import asyncio
import logging
import os
import subprocess
import threading

import pytest
import websockets.asyncio.client
import websockets.sync.client
from wsproto import events

from testbed.processes import free_port
from tests.conformance import tools
from tests.conformance.clients import (
    TIMEOUT,
    AsyncioWebsockets,
    Chromium,
    NodeWs,
    NodeWsPlain,
    SyncWebsockets,
    WebsocketClient,
    Wire,
    Wsproto,
)
from tests.integration.test_browser import Browser
from tests.requires import need

CLIENTS = [SyncWebsockets, AsyncioWebsockets, WebsocketClient, Wsproto, NodeWs, NodeWsPlain, Chromium]
RUN_IN = {NodeWs: ["node_modules"], NodeWsPlain: ["node_modules"], Chromium: ["driver"]}  # fixtures
MAX_MESSAGE_SIZE = 64 * 1024  # bytes, the default of the setting
COMPRESS_FROM = 1024  # bytes, likewise


@pytest.fixture(scope="module")
def echo_site(shared_serve):
    """The sample as it is, without the heartbeat that would come between the echoes."""
    return shared_serve(settings={"WS4REDIS_HEARTBEAT": None})


@pytest.fixture(scope="module")
def strict_site(shared_serve):
    """A site that takes four frames of a client, and no fifth."""
    return shared_serve(settings={"WS4REDIS_HEARTBEAT": None, "WSLOOP": {"RATE_LIMIT": [0.001, 4]}})


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    driver = Browser(tmp_path_factory.mktemp("profile")).driver
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def node_modules():
    return tools.node_modules()


@pytest.fixture
def connect(request):
    """``connect(site, client_class)``: a client, whose ``wire`` notes what passes."""
    opened = []

    def connect(site, client_class):
        wire = Wire(site.port)
        opened.append(wire.close)
        url = f"{wire.url}/ws/echo/"
        client = client_class(url, *map(request.getfixturevalue, RUN_IN.get(client_class, ())))
        opened.append(client.end)
        client.wire = wire
        return client

    yield connect
    for end in reversed(opened):
        end()


@pytest.fixture(params=CLIENTS, ids=lambda each: each.__name__)
def client_class(request):
    return request.param


@pytest.fixture
def client(connect, echo_site, client_class):
    return connect(echo_site, client_class)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("text", id="text"),
        pytest.param("Grüße, 你好, 🎈", id="text beyond ASCII"),
        pytest.param("", id="empty text"),
        pytest.param(bytes(range(256)), id="binary"),
        pytest.param(b"", id="empty binary"),
        pytest.param("ä" * (MAX_MESSAGE_SIZE // 2), id="largest text"),
        pytest.param(os.urandom(MAX_MESSAGE_SIZE), id="largest binary"),
    ],
)
def test_a_message_comes_back_as_it_was_sent(client, message):
    client.send(message)
    assert client.receive() == message


def test_messages_come_back_in_their_order(client):
    messages = [f"message {number}" if number % 2 else f"message {number}".encode() for number in range(50)]
    for message in messages:
        client.send(message)
    assert [client.receive() for _ in messages] == messages


def test_compression_is_used_where_the_client_offers_it(client):
    message = "compressible, again and again; " * 1000
    client.send(message)
    assert client.receive() == message
    assert client.wire.extensions().startswith("permessage-deflate") is client.COMPRESSES
    ((sent, _),) = client.wire.sent()
    ((received, size),) = client.wire.received()
    assert (sent, received) == (client.COMPRESSES, client.COMPRESSES)
    assert size < len(message) / 20 if client.COMPRESSES else size == len(message)


def test_small_messages_are_not_compressed(client):
    message = "x" * (COMPRESS_FROM - 1)
    client.send(message)
    assert client.receive() == message
    assert client.wire.received() == [(False, len(message))]


@pytest.mark.parametrize("message", ["x" * (MAX_MESSAGE_SIZE + 1), bytes(MAX_MESSAGE_SIZE + 1)], ids=["text", "binary"])
def test_a_message_that_is_too_large_closes_with_1009(client, message):
    client.send(message)
    code, _ = client.closed()
    assert code == 1009


@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (1000, ""), (4321, "Grüße, und Schluss")])
def test_code_and_reason_of_the_client_are_answered(client, code, reason):
    client.send("last")
    assert client.receive() == "last"
    assert client.close(code, reason) == (code, reason)


def test_code_and_reason_of_the_server_arrive(connect, strict_site, client_class):
    client = connect(strict_site, client_class)
    for number in range(5):
        client.send(f"message {number}")
    assert client.closed() == (4029, "too many frames")


@pytest.mark.parametrize("kind", [str, bytes])
def test_fragments_with_a_ping_between_them(connect, echo_site, kind):
    client = connect(echo_site, Wsproto)
    first, second, third = ["frag", "men", "ts"] if kind is str else [b"frag", b"men", b"ts"]
    assert client.extension.enabled()
    client.say(events.Message(data=first, message_finished=False))
    client.say(events.Ping(payload=b"between"))
    client.say(events.Message(data=second, message_finished=False))
    client.say(events.Message(data=third))
    assert client.next() == events.Pong(payload=b"between")
    assert client.receive() == first + second + third


def test_pings_of_every_size_are_answered_with_their_payload(connect, echo_site):
    client = connect(echo_site, Wsproto)
    for size in (0, 1, 125):
        client.say(events.Ping(payload=b"x" * size))
        assert client.next() == events.Pong(payload=b"x" * size)


def test_too_large_in_fragments_closes_with_1009(connect, echo_site):
    client = connect(echo_site, SyncWebsockets)
    client.send(iter(["x" * (MAX_MESSAGE_SIZE // 2)] * 2 + ["x"]))
    code, _ = client.closed()
    assert code == 1009


class Keepalive(logging.Handler):
    """Counts the answers to the pings that ``websockets`` sends to keep a connection alive, as its log tells them.

    Attributes:
        enough: called when the third has come.
    """

    def __init__(self, enough):
        super().__init__(logging.DEBUG)
        self.answers = 0
        self.enough = enough
        self.logger = logging.Logger("keepalive", logging.DEBUG)
        self.logger.addHandler(self)

    def emit(self, record):
        self.answers += "received keepalive pong" in record.msg
        if self.answers >= 3:
            self.enough()


def test_asyncio_keepalive_every_second(echo_site):
    async def hold():
        enough = asyncio.Event()
        logger = Keepalive(enough.set).logger
        options = {"ping_interval": 1, "ping_timeout": 1, "logger": logger}
        async with websockets.asyncio.client.connect(echo_site.ws_url("echo/"), **options) as socket:
            await asyncio.wait_for(enough.wait(), TIMEOUT)
            await socket.send("still here")
            assert await asyncio.wait_for(socket.recv(), TIMEOUT) == "still here"

    asyncio.run(hold())


def test_threaded_keepalive_every_second(echo_site):
    enough = threading.Event()
    logger = Keepalive(enough.set).logger
    options = {"ping_interval": 1, "ping_timeout": 1, "logger": logger}
    with websockets.sync.client.connect(echo_site.ws_url("echo/"), **options) as socket:
        assert enough.wait(TIMEOUT)
        socket.send("still here")
        assert socket.recv(TIMEOUT) == "still here"


NODE_CLIENT = """
import { WebSocket } from "%s";
import { connect } from "%s";

try {
  globalThis.WebSocket = undefined; // as before Node 22
  connect(process.argv[2], { onMessage() {} });
} catch (error) {
  console.log(error.message);
}
const states = [];
const line = connect(process.argv[2], {
  WebSocket,
  random: () => 0,
  onMessage() {},
  onState({ name }) {
    states.push(name);
    if (states.length < 3) return;
    line.close();
    console.log(states.join(" "));
  },
});
"""


def test_in_node_the_client_of_wsloop_outlives_a_server_that_is_not_there(node_modules, tmp_path):
    script = tmp_path / "client.mjs"
    client = tools.ROOT / "wsloop/static/wsloop/wsloop.js"
    script.write_text(NODE_CLIENT % (node_modules / "ws/wrapper.mjs", client))
    url = f"ws://127.0.0.1:{free_port()}/ws/news?subscribe-broadcast"
    node = subprocess.run(
        [need("node"), str(script), url], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    missing, states = node.stdout.splitlines()
    assert "Node has one from version 22 on" in missing
    assert states == "connecting reconnecting reconnecting"
    assert (node.returncode, "Error:" in node.stderr) == (0, False), node.stderr
