"""A plugin of pytest: the applications in the tests of Channels are reached by real sockets, through this server.

The tests run in a greenlet of the worker of a uWSGI (``worker.py``). Their ``WebsocketCommunicator`` is replaced by a
client that opens a socket to that uWSGI, which passes it to Channels, unchanged: ``WebsocketServer(asgi=...)``. One
thing does not go through the socket: an application that raises an exception raises it in its test, as tests expect,
besides what its client sees.
"""

import asyncio
import concurrent.futures
import functools
import itertools
import json
import os
from urllib.parse import quote, unquote, urlparse

from asgiref.compatibility import guarantee_single_callable
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

HEADER = "X-Peer-Application"  # of a handshake: the application that the socket is for
# Names of headers that each answer to a handshake has; the others are those of the application.
OF_THE_HANDSHAKE = {"upgrade", "connection", "date", "server"}
PATIENCE = 5.0  # seconds, where tests have 1: their applications are in the same process

applications = {}
clients = []  # of the current test
numbers = itertools.count()


class Served:
    """An application under test.

    Attributes:
        ended: done when the application has returned or raised.
    """

    def __init__(self, application):
        self.application = guarantee_single_callable(application)
        self.ended = concurrent.futures.Future()

    async def __call__(self, scope, receive, send):
        try:
            await self.application(scope, receive, send)
        except BaseException as exc:
            self.ended.set_exception(exc)
            raise
        self.ended.set_result(None)


async def dispatch(scope, receive, send):
    """The ASGI application of the server: passes a socket to the application that its handshake names."""
    if scope["type"] == "websocket":
        number = dict(scope["headers"])[HEADER.lower().encode()]
        await applications[int(number)](scope, receive, send)


class WebsocketCommunicator:
    """The client of an application, with the methods of ``channels.testing.WebsocketCommunicator`` that tests use."""

    def __init__(self, application, path, headers=None, subprotocols=None, spec_version=None):
        if not isinstance(path, str):
            raise TypeError(f"Expected str, got {type(path)}")
        parsed = urlparse(path)
        query = f"?{parsed.query}" if parsed.query else ""
        number = next(numbers)
        self.url = f"ws://{os.environ['PEER_ADDRESS']}/{quote(unquote(parsed.path).lstrip('/'))}{query}"
        self.headers = [(name.decode(), value.decode()) for name, value in headers or ()]
        self.headers.append((HEADER, str(number)))
        self.subprotocols = subprotocols
        self.served = applications[number] = Served(application)
        self.response_headers = None

    async def connect(self, timeout=PATIENCE):
        """Return True and the subprotocol, or False and the status of the refusal."""
        try:
            self.socket = await connect(
                self.url,
                additional_headers=self.headers,
                subprotocols=self.subprotocols,
                open_timeout=max(timeout, PATIENCE),
                proxy=None,
            )
        except InvalidStatus as refused:
            return False, refused.response.status_code
        clients.append(self.socket)
        self.response_headers = [
            [name.lower().encode(), value.encode()]
            for name, value in self.socket.response.headers.raw_items()
            if name.lower() not in OF_THE_HANDSHAKE and not name.lower().startswith("sec-websocket-")
        ]
        return True, self.socket.subprotocol

    async def send_input(self, message):
        text = message.get("text")
        await self.socket.send(message["bytes"] if text is None else text)

    async def send_to(self, text_data=None, bytes_data=None):
        await self.send_input({"text": text_data, "bytes": bytes_data})

    async def send_json_to(self, data):
        await self.send_to(text_data=json.dumps(data))

    async def receive_output(self, timeout=PATIENCE):
        """Return what the client sees, as the event that it stands for; raise what the application has raised."""
        try:
            message = await asyncio.wait_for(self.socket.recv(), max(timeout, PATIENCE))
        except ConnectionClosed as closed:
            frame = closed.rcvd
            if frame is None or frame.code == 1011:  # Internal Error
                await self.wait()
            if frame is None:
                raise
            return {"type": "websocket.close", "code": frame.code, "reason": frame.reason}
        return {"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message}

    async def receive_from(self, timeout=PATIENCE):
        event = await self.receive_output(timeout)
        assert event["type"] == "websocket.send", f"Expected type 'websocket.send', but was '{event['type']}'"
        return event["text"] if "text" in event else event["bytes"]

    async def receive_json_from(self, timeout=PATIENCE):
        return json.loads(await self.receive_from(timeout))

    async def disconnect(self, code=1000, timeout=PATIENCE):
        if self.response_headers is not None:  # it was not refused
            await self.socket.close(code)
        await self.wait(timeout)

    async def wait(self, timeout=PATIENCE):
        """Wait until the application has ended, and raise what it has raised."""
        await asyncio.wait_for(asyncio.wrap_future(self.served.ended), max(timeout, PATIENCE))


@functools.cache
def server():
    """Return the server of all applications, made when Django is set up."""
    from wsloop.server import WebsocketServer

    return WebsocketServer(asgi=dispatch)


def application(environ, start_response):
    """The WSGI application of the uWSGI: all of its requests are those of the tests' sockets."""
    return server()(environ, start_response)


def adapt(settings):
    """Make the site of the tests one of this server, too. Channels decides about the Origin, as its tests expect."""
    settings.INSTALLED_APPS = ["wsloop", *(name for name in settings.INSTALLED_APPS if name != "daphne")]
    settings.ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
    settings.WSLOOP = {"ALLOWED_ORIGINS": ["*"]}
    settings.WEBSOCKET_URL = "/"
    settings.WS4REDIS_CONNECTION = os.environ["PEER_REDIS"]


def pytest_configure():
    """Adapt the settings; the ``conftest.py`` of the tests has named them by now."""
    from django.conf import settings

    adapt(settings)


def pytest_runtest_teardown():
    """The clients of a test leave at its end, even if it has not closed their sockets."""
    for client in clients:
        client.transport.abort()
    clients.clear()


def pytest_sessionstart():
    """Replace the communicator, before a test imports it."""
    from channels import testing

    testing.WebsocketCommunicator = testing.websocket.WebsocketCommunicator = WebsocketCommunicator
    server()
