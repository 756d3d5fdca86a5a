"""The payloads on the wire: bare messages as ws4redis sends them, or the JSON envelopes of ``wsloop.v1``.

A dialect turns an event into the payload of a frame. It knows no connection: the payload is encoded once and sent to
all sockets of the dialect. The frames are documented in ``docs/reference/wsloop-v1.rst``. This module must not
know Redis, sockets or gevent.
"""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from wsloop.protocol import resume_tokens, strict_json
from wsloop.protocol.close_codes import FINAL
from wsloop.protocol.messages import Message, Position, audience

SPREAD = 3000  # milliseconds within which clients reconnect after a goodbye frame

SURROGATE = re.compile("[\ud800-\udfff]")
MOST_ID = 64  # characters of the id of a client's frame


class Dialect:
    """Bare messages; other dialects override methods.

    Attributes:
        name: the subprotocol.
        has_envelopes: whether messages are wrapped, and there are frames of other types.
        heartbeat: whether clients get the heartbeat of ws4redis.
        ping: payload of the message that shows that the connection is alive; None: there is none.
    """

    name = "ws4redis"
    has_envelopes = False
    heartbeat = True
    ping: bytes | None = None

    def message(self, channel: bytes, message: Message, own: bool = False, kept: bool = False) -> bytes:
        """Return the payload for a message.

        Args:
            channel: on which it came.
            message: from Redis.
            own: whether it goes to the socket that published it.
            kept: whether it is the retained message, from before the socket was opened.
        """
        return message.payload

    def position(self, channel: bytes, message: Message) -> bytes | None:
        """Return the payload for a message that the client has from another channel already; None sends nothing."""
        return None

    def lost(self, channel: bytes, at: Position) -> bytes | None:
        """Return the payload that reports lost messages of a channel, now at position ``at``; None sends nothing."""
        return None

    def goodbye(self, code: int, reason: str) -> bytes | None:
        """Return the payload that is sent before the close frame; None sends nothing."""
        return None


class V1(Dialect):
    """The subprotocol ``wsloop.v1``."""

    name = "wsloop.v1"
    has_envelopes = True
    heartbeat = False
    ping = b'{"type": "ping"}'

    def message(self, channel: bytes, message: Message, own: bool = False, kept: bool = False) -> bytes:
        whom = audience(channel)
        if whom.kind == "presence" and (event := _presence(message.payload)):
            return event
        content: dict[str, Any] = {"audience": whom.kind}
        if whom.name:
            content["name"] = whom.name
        try:
            content["data"] = message.payload.decode()
        except UnicodeDecodeError:
            content["base64"] = base64.b64encode(message.payload).decode()
        if message.offset:
            content["position"] = resume_tokens.position(channel, message.position)
        if own:
            content["own"] = True
        if kept:
            content["kept"] = True
        return _frame("message", **content)

    def position(self, channel: bytes, message: Message) -> bytes | None:
        if not message.offset:
            return None
        return _frame("position", position=resume_tokens.position(channel, message.position))

    def lost(self, channel: bytes, at: Position) -> bytes:
        whom = audience(channel)
        content = {"audience": whom.kind, **({"name": whom.name} if whom.name else {})}
        return error(
            "lost", "Messages were lost. Load the state anew.", **content, position=resume_tokens.position(channel, at)
        )

    def goodbye(self, code: int, reason: str) -> bytes:
        content: dict[str, Any] = {"code": code, "reason": reason, "reconnect": code not in FINAL}
        if content["reconnect"]:
            content["after"] = random.randrange(SPREAD)
        return _frame("goodbye", **content)


class ConsumerDialect(Dialect):
    """The messages that a consumer sends, and nothing else."""

    name = "consumer"  # never offered to a client
    heartbeat = False


BARE = Dialect()
CONSUMER = ConsumerDialect()
V1_DIALECT = V1()
DIALECTS = {each.name: each for each in (V1_DIALECT, BARE)}  # the preferred one first


def welcome(
    channels: Iterable[bytes], recovered: bool | None, token: str | None, ping: int, presence: dict[str, Any] | None
) -> bytes:
    """Return the first frame of ``wsloop.v1``."""
    content: dict[str, Any] = {"subscribed": [str(audience(each)) for each in channels], "recovered": recovered}
    if token is not None:
        content["token"] = token
    if presence is not None:
        content["presence"] = presence
    return _frame("welcome", **content, ping=ping)


def ack(id: int | float | str) -> bytes:
    """Return the frame that acknowledges a message of the client: Redis has taken it."""
    return _frame("ack", id=id)


def error(code: str, reason: str, id: int | float | str | None = None, **content: Any) -> bytes:
    """Return the frame that reports an error after which the connection goes on."""
    if id is not None:
        content["id"] = id
    return _frame("error", code=code, reason=reason, **content)


class Published(NamedTuple):
    """A message that a client publishes; ``id`` is None if it wants no acknowledgement."""

    payload: bytes
    id: int | float | str | None = None


class InvalidFrame(Exception):
    """A client's frame is not valid in ``wsloop.v1``; the text says why, ``id`` is that of the frame, if any."""

    def __init__(self, reason: str, id: int | float | str | None = None) -> None:
        super().__init__(reason)
        self.id = id


def parse(payload: bytes, text: bool) -> Published:
    """Return the message that a frame of a client carries.

    Raises:
        InvalidFrame: if it is not a valid frame of ``wsloop.v1``.
    """
    if not text:
        return Published(payload)
    try:
        frame = strict_json.decode(payload, surrogates=True)  # so that the answer has the frame's id
    except ValueError as exc:
        raise InvalidFrame(f"A frame must be JSON, or binary: {exc}.") from None
    if not isinstance(frame, dict):
        raise InvalidFrame("A frame must be a JSON object.")
    id = frame.get("id")
    if not _is_id(id):
        raise InvalidFrame(f"id must be a number, or a text of up to {MOST_ID} characters.")
    if frame.get("type") != "publish":
        raise InvalidFrame('type must be "publish".', id)
    if ("data" in frame) == ("base64" in frame):
        raise InvalidFrame("There must be data or base64, and not both.", id)
    try:
        if "data" in frame:
            return Published(frame["data"].encode(), id)
        return Published(base64.b64decode(frame["base64"], validate=True), id)
    except (AttributeError, TypeError, UnicodeEncodeError):
        raise InvalidFrame("data and base64 must be text.", id) from None
    except ValueError:
        raise InvalidFrame("base64 is not valid.", id) from None


def _presence(payload: bytes) -> bytes | None:
    """Return the frame for a presence event; None if the payload is not one of wsloop's."""
    try:
        event = strict_json.decode(payload)
        known = {name: event[name] for name in ("event", "user", "count") if name in event}
        # No value has parts: they might be readable but nested too deeply to be written.
        if "event" not in known or not all(isinstance(each, (str, int)) for each in known.values()):
            return None
        return _frame("presence", **known)
    except (ValueError, TypeError):
        return None


def _is_id(id: Any) -> bool:
    if isinstance(id, str):
        return len(id) <= MOST_ID and not SURROGATE.search(id)  # half of a pair could not be sent back
    return isinstance(id, (int, float, type(None))) and not isinstance(id, bool)


def _frame(kind: str, **content: Any) -> bytes:
    return strict_json.encode({"type": kind, **content}).encode()


__all__ = ["BARE", "CONSUMER", "DIALECTS", "Dialect", "InvalidFrame", "Published", "ack", "error", "parse", "welcome"]
