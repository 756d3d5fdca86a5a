"""An ASGI application without any framework: each path shows one thing that servers promise to applications.

It knows nothing of wsloop, so that other servers can run it too: ``uvicorn asgi_application:application``. What happens
to it is written to standard output: ``trace NAME …``, where the query names it.
"""

import asyncio
import json
import sys
from urllib.parse import parse_qsl


class Socket:
    """What an application is called with, and the trace."""

    def __init__(self, scope, receive, send):
        self.scope, self.receive, self.send = scope, receive, send
        self.query = dict(parse_qsl(scope["query_string"].decode()))

    def note(self, *words):
        sys.stdout.write(f"trace {self.query.get('name')} {' '.join(map(str, words))}\n")
        sys.stdout.flush()

    async def accept(self, **more):
        assert await self.receive() == {"type": "websocket.connect"}
        await self.send({"type": "websocket.accept", **more})

    async def text(self, text):
        await self.send({"type": "websocket.send", "text": text})

    async def closing(self):
        """Throw messages away until the client has left, and write down with which code."""
        while (event := await self.receive())["type"] == "websocket.receive":
            pass
        self.note(event["type"], event["code"], event.get("reason"))


async def echo(socket):
    """Send what comes back, as what it is; and ``close 4321 reason`` closes."""
    await socket.accept()
    socket.note("open")
    while (event := await socket.receive())["type"] == "websocket.receive":
        text, data = event.get("text"), event.get("bytes")
        if text is not None and text.startswith("close "):
            _, code, reason = text.split(" ", 2)
            await socket.send({"type": "websocket.close", "code": int(code), "reason": reason})
        elif text is not None:
            await socket.send({"type": "websocket.send", "text": text})
        else:
            await socket.send({"type": "websocket.send", "bytes": data})
    socket.note(event["type"], event["code"], event.get("reason"))


async def scope(socket):
    """Accept with the first subprotocol, and send the scope, with those headers that are of interest."""
    await socket.accept(subprotocol=next(iter(socket.scope["subprotocols"]), None))
    found = {name: value for name, value in socket.scope.items() if name != "headers"}
    headers = [pair for pair in socket.scope["headers"] if pair[0].startswith((b"x-", b"sec-websocket-p", b"cookie"))]
    await socket.text(json.dumps(found | {"headers": headers}, default=lambda value: value.decode("latin-1")))
    await socket.closing()


async def accept(socket):
    """Accept with a subprotocol and headers."""
    headers = [(b"x-served-by", b"application"), (b"set-cookie", b"theme=dark; Path=/")]
    await socket.accept(subprotocol=socket.query.get("subprotocol"), headers=headers)
    await socket.closing()


async def deny(socket):
    """Close before accepting, and wait for what comes then."""
    await socket.receive()
    await socket.send({"type": "websocket.close", "code": 4003, "reason": "members only"})
    socket.note("closed")
    await socket.closing()


async def answer(socket):
    """Refuse with a response of its own, in two pieces."""
    await socket.receive()
    assert "websocket.http.response" in socket.scope["extensions"]
    headers = [(b"content-type", b"text/plain"), (b"x-why", b"not paid"), (b"content-length", b"999")]
    await socket.send({"type": "websocket.http.response.start", "status": 402, "headers": headers})
    await socket.send({"type": "websocket.http.response.body", "body": b"first, ", "more_body": True})
    await socket.send({"type": "websocket.http.response.body", "body": b"pay"})
    socket.note("answered")
    await socket.closing()


async def half_an_answer(socket):
    """Begin a response, and return."""
    await socket.receive()
    await socket.send({"type": "websocket.http.response.start", "status": 402, "headers": []})


async def nothing(socket):
    """Return without accepting."""
    await socket.receive()


async def crash(socket):
    """Raise before accepting."""
    await socket.receive()
    raise ZeroDivisionError("a bug of the site")


async def no_route(socket):
    """Do what Channels' URLRouter does with a path that it does not know."""
    raise ValueError(f"No route found for path {socket.scope['path']!r}.")


async def brief(socket):
    """Return although the socket is open."""
    await socket.accept()
    await socket.text("that is all")


async def crash_later(socket):
    """Raise although the socket is open."""
    await socket.accept()
    await socket.receive()
    raise ZeroDivisionError("a bug of the site")


async def mumble(socket):
    """Send when the client has left, and write down what comes of it."""
    await socket.accept()
    socket.note("open")
    try:
        while True:
            await socket.text("anybody there?")
            await asyncio.sleep(0.01)
    except Exception as exc:
        socket.note("raised", isinstance(exc, OSError))
    await socket.closing()
    await socket.text("nobody")
    socket.note("raised nothing")


async def after_close(socket):
    """Close, then send and close again, and write down what comes of it."""
    await socket.accept()
    await socket.send({"type": "websocket.close", "code": 4000})
    try:
        await socket.text("too late")
    except Exception as exc:
        socket.note("raised", isinstance(exc, (OSError, RuntimeError)))
    else:
        socket.note("raised nothing")
    await socket.closing()


async def impatient(socket):
    """Call ``receive()`` in tasks that are cancelled all the time, and send back what comes nevertheless."""
    await socket.accept()
    while True:
        receiving = asyncio.create_task(socket.receive())
        await asyncio.wait([receiving], timeout=0.002)
        if receiving.done():
            event = receiving.result()
        else:
            receiving.cancel()
            if "at-once" not in socket.query:
                await asyncio.wait([receiving])
                continue
            event = await socket.receive()
        if event["type"] == "websocket.disconnect":
            break
        await socket.text(event["text"])
    socket.note("websocket.disconnect", event["code"])


async def ticker(socket):
    """Send and receive at the same time, in two tasks."""
    await socket.accept()

    async def tick():
        number = 0
        while True:
            await socket.text(f"tick {number}")
            number += 1
            await asyncio.sleep(0.05)

    ticking = asyncio.create_task(tick())
    while (event := await socket.receive())["type"] == "websocket.receive":
        await socket.text(f"got {event['text']}")
    ticking.cancel()
    socket.note("websocket.disconnect", event["code"])


gates = {}  # of applications that wait, by the name of the test


def gate(socket):
    return gates.setdefault(socket.query["name"], asyncio.Event())


async def open_gate(socket):
    """Let those go on that wait, and leave."""
    await socket.accept()
    gate(socket).set()
    await socket.text("open")


async def deaf(socket):
    """Receive nothing until the gate is open; then send how many messages there were, in which order."""
    await socket.accept()
    await gate(socket).wait()
    numbers = []
    while (event := await socket.receive())["type"] == "websocket.receive" and event.get("text") != "end":
        numbers.append(int(event["bytes"][:8]))
    await socket.text(json.dumps([len(numbers), numbers == list(range(len(numbers)))]))
    await socket.closing()


async def flood(socket):
    """Send until the client has left, whether it reads or not."""
    await socket.accept()
    size = sent = 0
    try:
        while True:
            await socket.send({"type": "websocket.send", "bytes": bytes(10_000)})
            size += 10_000
            if size > sent + 1_000_000:
                sent = size
                socket.note("sent", size)
    except OSError:
        socket.note("sent", size, "in all")
    await socket.closing()


async def deep(socket):
    """Do not listen: wait for something else, in spite of a first cancellation."""
    await socket.accept()
    socket.note("open")
    for _ in range(2):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            socket.note("cancelled")
    socket.note("ended")


async def tidy(socket):
    """Take a moment to clean up behind the disconnect."""
    await socket.accept()
    socket.note("open")
    await socket.closing()
    await asyncio.sleep(0.3)
    socket.note("cleaned up")


async def stubborn(socket):
    """Do not decide."""
    await socket.receive()
    socket.note("asked")
    try:
        await asyncio.Event().wait()
    finally:
        socket.note("cancelled")


APPLICATIONS = {
    each.__name__: each
    for each in (
        *(echo, scope, accept, deny, answer, half_an_answer, nothing, crash, no_route, brief, crash_later, mumble),
        *(after_close, impatient, ticker, open_gate, deaf, flood, deep, tidy, stubborn),
    )
}


async def application(scope, receive, send):
    assert scope["type"] == "websocket", scope["type"]  # there is no lifespan: servers take that for an answer
    await APPLICATIONS[scope["path"].rstrip("/").rpartition("/")[2]](Socket(scope, receive, send))
