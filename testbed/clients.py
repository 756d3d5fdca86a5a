"""What clients of a site have in their hands: answers to HTTP requests, and WebSockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import time
from dataclasses import dataclass
from typing import Any

import websocket

HEARTBEAT = "--heartbeat--"


@dataclass(frozen=True)
class Response:
    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return json.loads(self.content)


def next_of(client: Any, timeout: float = 10.0) -> Any:
    """Return the next message that is not the heartbeat, of a client of the package ``websockets``; seconds."""
    while (message := client.recv(timeout=timeout)) == HEARTBEAT:
        pass
    return message


class Client(websocket.WebSocket):
    """A websocket-client connection that skips the heartbeat. Every wait is bounded, in seconds."""

    def next(self, timeout: float = 10.0) -> Any:
        """Return the next message that is not the heartbeat: ``str`` from a text frame, ``bytes`` from a binary one."""
        deadline = time.monotonic() + timeout
        while True:
            self.settimeout(max(deadline - time.monotonic(), 0.001))
            opcode, data = self.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                raise AssertionError(f"closed by the server: {close_code(data)}")
            message = data.decode() if opcode == websocket.ABNF.OPCODE_TEXT else data
            if message != HEARTBEAT:
                return message

    def take(self, count: int, timeout: float = 30.0) -> list[Any]:
        """Return the next ``count`` messages."""
        deadline = time.monotonic() + timeout
        return [self.next(max(deadline - time.monotonic(), 0.001)) for _ in range(count)]

    def until(self, last: Any, timeout: float = 10.0) -> list[Any]:
        """Return the messages before ``last``; publishing ``last`` afterwards shows that nothing else arrives."""
        deadline = time.monotonic() + timeout
        return list(iter(lambda: self.next(max(deadline - time.monotonic(), 0.001)), last))

    def round_trip(self, payload: bytes = b"round trip", timeout: float = 10.0) -> Any:
        """Ping, and return the payload of the pong: by then the server has read every frame that was sent before."""
        self.ping(payload)
        self.settimeout(timeout)
        while True:
            opcode, data = self.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_PONG:
                return data
            if opcode != websocket.ABNF.OPCODE_PING:  # the server's own pings come at any time
                assert data == HEARTBEAT.encode(), f"{data!r} came before the pong"

    def closing(self, timeout: float = 15.0) -> int | None:
        """Read on until the server ends the connection: the code of its close frame, or None if there was none.

        Frames are read as they come: ``recv_data`` would answer a ping or the close frame of a server that is gone by
        now, fail with that, and never say that the close frame is there.
        """
        deadline = time.monotonic() + timeout
        while True:
            self.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                frame = self.recv_frame()
            except (websocket.WebSocketConnectionClosedException, ConnectionResetError, BrokenPipeError):
                return None
            with contextlib.suppress(OSError, websocket.WebSocketException):
                if frame.opcode == websocket.ABNF.OPCODE_PING:
                    self.pong(frame.data)
                elif frame.opcode == websocket.ABNF.OPCODE_CLOSE:
                    self.send_close()
            if frame.opcode == websocket.ABNF.OPCODE_CLOSE:
                return close_code(frame.data)


def close_code(payload: bytes) -> int:
    """Return the code in the payload of a close frame; 1005, as RFC 6455 has it, where there is none."""
    return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005


def cookies_of(response: Response) -> dict[str, str]:
    """Return names and values of the cookies that a response sets."""
    found = (re.match(r"([^=]+)=([^;]*)", line) for line in response.headers.get_all("Set-Cookie", []))
    return {match[1]: match[2] for match in found if match}
