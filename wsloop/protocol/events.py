"""Server-Sent Events: the dialects of streams, and the bytes of their events.

Source: HTML, section 9.2. This module must not know Redis, sockets or gevent.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from wsloop.protocol import resume_tokens, strict_json
from wsloop.protocol.close_codes import is_final
from wsloop.protocol.dialects import LOST, V1, Dialect
from wsloop.protocol.messages import Position

LINE_ENDS = re.compile("\r\n|\r|\n")
CONTENT_TYPE = "text/event-stream"


def event(data: str, kind: str = "") -> bytes:
    """Return an event.

    Args:
        data: any text.
        kind: its type; empty: "message".
    """
    lines = [f"data: {line}\n" for line in LINE_ENDS.split(data)]
    return f"{f'event: {kind}' + chr(10) if kind else ''}{''.join(lines)}\n".encode()


def id_line(text: str) -> bytes:
    """Return an event without data, which only sets the id that a browser sends back when it reconnects."""
    return f"id: {text}\n\n".encode()


def last_id(token: str, positions: Mapping[bytes, Position]) -> str:
    """Return the id of a client that started with ``token``, and has come to these positions since."""
    return "~".join([token, *(resume_tokens.position(channel, at) for channel, at in positions.items())])


class Typed(bytes):
    """The payload of an event with a type: "binary", "close" or "lost"."""

    kind = ""

    @classmethod
    def make(cls, kind: str, **content: Any) -> Typed:
        """Return the payload with this content, as JSON."""
        payload = cls(strict_json.encode(content).encode())
        payload.kind = kind
        return payload


class BareEvents(Dialect):
    """Bare messages, as events without a type; those that are no text as events of the type "binary", in base64.

    A loss is an event of the type "lost", the end one of the type "close"; both have JSON.
    """

    name = "events"
    heartbeat = False

    def encode(self, payload: bytes, window_bits: int = 0) -> bytes:
        if isinstance(payload, Typed):
            return event(payload.decode(), payload.kind)
        try:
            return event(payload.decode())
        except UnicodeDecodeError:
            return event(base64.b64encode(payload).decode(), "binary")

    def beat(self) -> bytes:
        return b":\n\n"  # a comment

    def lost(self, channel: bytes, at: Position) -> bytes:
        return Typed.make("lost", reason=LOST)

    def not_recovered(self) -> bytes:
        return Typed.make("lost", reason=LOST)

    def goodbye(self, code: int, reason: str, after: int | None = None) -> bytes:
        return Typed.make("close", code=code, reason=reason, reconnect=not is_final(code))


class V1Events(V1):
    """The frames of ``wsloop.v1``, each as the data of an event."""

    name = "wsloop.v1-events"

    def encode(self, payload: bytes, window_bits: int = 0) -> bytes:
        return event(payload.decode())

    def beat(self) -> bytes:
        return self.encode(self.ping)


BARE_EVENTS, V1_EVENTS = BareEvents(), V1Events()
EVENT_DIALECTS = {each.name: each for each in (BARE_EVENTS, V1_EVENTS)}

__all__ = ["BARE_EVENTS", "CONTENT_TYPE", "EVENT_DIALECTS", "V1_EVENTS", "last_id"]
