"""Independent WebSocket clients behind one set of words, and a line that shows what they and the server send.

Each client is a class: ``Client(url)`` connects (what Node and the browser run in is given besides), ``send`` takes
``str`` (text) or ``bytes`` (binary), ``receive`` returns the next message likewise, ``close(code, reason)`` ends the
connection and returns code and reason of the answer, ``closed()`` waits for the server to end it and returns code and
reason, ``end()`` frees what is left. ``COMPRESSES`` tells whether the client offers permessage-deflate.
"""

import asyncio
import base64
import contextlib
import json
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import websocket
import websockets.asyncio.client
import websockets.sync.client
import wsproto
from websockets.exceptions import ConnectionClosed
from wsproto import events
from wsproto.extensions import PerMessageDeflate

from tests.integration.harness import RedisProxy
from tests.requires import need

TIMEOUT = 15  # seconds for any one step


class Wire(RedisProxy):
    """A line to a site that notes what passes on the connection that becomes a WebSocket; the only one, or the latest.

    Attributes:
        url: of the site, through this line, to append a path to.
    """

    def __init__(self, port):
        self._passed = {}  # end of the connection that bytes come from: those bytes
        self._ends = []
        super().__init__(port)
        self.host = urlsplit(self.url).netloc
        self.url = f"ws://{self.host}"

    def _pass_on(self, source, target, wait):
        noted = self._passed[source] = bytearray()
        self._ends.append((source, target))
        super()._pass_on(source, target, noted.extend)

    def _websocket(self):
        for end, other in reversed(self._ends):
            if self._passed[end].startswith(b"HTTP/1.1 101"):
                return self._passed[other], self._passed[end]
        raise AssertionError("no connection has become a WebSocket")

    def extensions(self):
        """What the server has agreed to: the value of its header, or an empty string."""
        head = self._websocket()[1].partition(b"\r\n\r\n")[0].decode().split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head)}
        return headers.get("sec-websocket-extensions", "")

    def sent(self):
        """The data frames that the client has sent so far: pairs of whether RSV1 was set and the length on the line."""
        return data_frames(self._websocket()[0].partition(b"\r\n\r\n")[2])

    def received(self):
        """The same of the server."""
        return data_frames(self._websocket()[1].partition(b"\r\n\r\n")[2])


def data_frames(data):
    """Take a stream of complete frames apart (RFC 6455, section 5.2)."""
    frames = []
    while len(data) >= 2:
        first, second = data[:2]
        start, length = 2, second & 0x7F
        if length > 125:
            start = {126: 4, 127: 10}[length]
            length = int.from_bytes(data[2:start], "big")
        if second & 0x80:
            start += 4
        if first & 0x0F < 8:
            frames.append((bool(first & 0x40), length))
        data = data[start + length :]
    return frames


class Websockets:
    """What both clients of the ``websockets`` library have in common."""

    COMPRESSES = True

    def answered(self):
        answer = self.socket.protocol.close_rcvd
        return answer.code, answer.reason

    def closed(self):
        try:
            while True:
                self.receive()
        except ConnectionClosed as ended:
            return ended.rcvd.code, ended.rcvd.reason


class SyncWebsockets(Websockets):
    """``websockets.sync``: a thread reads."""

    def __init__(self, url):
        self._connection = contextlib.ExitStack()
        connecting = websockets.sync.client.connect(url, max_size=None, close_timeout=TIMEOUT)
        self.socket = self._connection.enter_context(connecting)

    def send(self, message):
        self.socket.send(message)

    def receive(self):
        return self.socket.recv(TIMEOUT)

    def close(self, code, reason):
        self.socket.close(code, reason)
        return self.answered()

    def end(self):
        self._connection.close()


class AsyncioWebsockets(Websockets):
    """``websockets.asyncio``; its loop runs while a step is waited for."""

    def __init__(self, url):
        self.loop = asyncio.new_event_loop()
        self.socket = self._run(self._connect(url))

    async def _connect(self, url):
        return await websockets.asyncio.client.connect(url, max_size=None, close_timeout=TIMEOUT)

    def _run(self, step):
        return self.loop.run_until_complete(asyncio.wait_for(step, TIMEOUT))

    def send(self, message):
        self._run(self.socket.send(message))

    def receive(self):
        return self._run(self.socket.recv())

    def close(self, code, reason):
        self._run(self.socket.close(code, reason))
        return self.answered()

    def end(self):
        self._run(self.socket.close())
        self.loop.close()


class WebsocketClient:
    """``websocket-client``."""

    COMPRESSES = False

    def __init__(self, url):
        self.socket = websocket.create_connection(url, timeout=TIMEOUT, suppress_origin=True)

    def send(self, message):
        (self.socket.send if isinstance(message, str) else self.socket.send_binary)(message)

    def receive(self):
        opcode, data = self.socket.recv_data()
        assert opcode in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY), (opcode, data)
        return data.decode() if opcode == websocket.ABNF.OPCODE_TEXT else data

    def close(self, code, reason):
        self.socket.send_close(code, reason.encode())
        return self.closed()

    def closed(self):
        while True:
            opcode, data = self.socket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return int.from_bytes(data[:2], "big"), data[2:].decode()

    def end(self):
        self.socket.shutdown()


class Wsproto:
    """``wsproto`` without I/O, over a socket of our own.

    Attributes:
        extension: its permessage-deflate; ``enabled()`` once it is negotiated.
        events: what it has read, the pongs and pings too.
    """

    COMPRESSES = True

    def __init__(self, url):
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port), TIMEOUT)
        self.protocol = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self.extension = PerMessageDeflate()
        self.events = []
        self.say(events.Request(host=address.netloc, target=address.path, extensions=[self.extension]))
        accepted = self.next()
        assert isinstance(accepted, events.AcceptConnection), accepted

    def say(self, event):
        self.socket.sendall(self.protocol.send(event))

    def next(self):
        while not self.events:
            data = self.socket.recv(65536)
            self.protocol.receive_data(data or None)
            self.events = list(self.protocol.events())
        return self.events.pop(0)

    def send(self, message):
        self.say(events.Message(data=message))

    def receive(self):
        parts = []
        while True:
            event = self.next()
            assert isinstance(event, events.Message), event
            parts.append(event.data)
            if event.message_finished:
                return parts[0][:0].join(parts)

    def close(self, code, reason):
        self.say(events.CloseConnection(code, reason))
        return self.closed()

    def closed(self):
        while True:
            event = self.next()
            if isinstance(event, events.CloseConnection):
                if self.protocol.state is wsproto.connection.ConnectionState.REMOTE_CLOSING:
                    self.say(event.response())
                return event.code, event.reason or ""

    def end(self):
        self.socket.close()


class Scripted:
    """A client that JavaScript drives: orders and answers are JSON, binary messages base64."""

    def ask(self, order, *arguments):
        """Have ``order`` done, and return its answer."""
        raise NotImplementedError

    def send(self, message):
        if isinstance(message, str):
            self.ask("send", message)
        else:
            self.ask("sendBinary", base64.b64encode(message).decode())

    def receive(self):
        answer = self.ask("receive")
        assert "code" not in answer, f"closed: {answer}"
        return answer["text"] if "text" in answer else base64.b64decode(answer["binary"])

    def close(self, code, reason):
        self.ask("close", code, reason)
        return self.closed()

    def closed(self):
        while True:
            answer = self.ask("receive")
            if "code" in answer:
                return answer["code"], answer["reason"]


class NodeWs(Scripted):
    """``ws`` of Node."""

    COMPRESSES = True

    def __init__(self, url, node_modules):
        script = Path(__file__).parent / "ws.mjs"
        package = node_modules / "ws/wrapper.mjs"
        self._process = subprocess.Popen(
            [need("node"), str(script), str(package), url, json.dumps(self.COMPRESSES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ask("opened")

    def ask(self, order, *arguments):
        self._process.stdin.write(json.dumps([order, *arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "Node has ended; what it said is above"
        return json.loads(answer)

    def end(self):
        self._process.stdin.close()
        self._process.wait(TIMEOUT)
        self._process.stdout.close()


class NodeWsPlain(NodeWs):
    """``ws`` of Node with ``perMessageDeflate: false``."""

    COMPRESSES = False


class Chromium(Scripted):
    """A page of the site in a browser, which must come through the line too, to be of the same origin."""

    COMPRESSES = True
    SCRIPT = (Path(__file__).parent / "page.js").read_text()

    def __init__(self, url, driver):
        self._driver = driver
        driver.set_script_timeout(TIMEOUT)
        driver.get(f"http://{urlsplit(url).netloc}/test/whoami/")
        driver.execute_script(self.SCRIPT, url)
        self.ask("opened")

    def ask(self, order, *arguments):
        script = "const [order, args, done] = arguments; conformance[order](...args).then(done);"
        return self._driver.execute_async_script(script, order, arguments)

    def end(self):
        self._driver.get("about:blank")
