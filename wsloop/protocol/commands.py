"""What a client asks for in ``wsloop.v1``: its frames, read and checked.

A text frame is one command, or a list of them, which are carried out together. A binary frame is a message to be
published. The frames are documented in ``docs/reference/wsloop-v1.rst``. This module must not know Redis, sockets or
gevent.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from wsloop.protocol import strict_json
from wsloop.protocol.dialects import Id

SURROGATE = re.compile("[\ud800-\udfff]")
MOST_ID = 64  # characters of the id of a client's frame, and of an idempotency key
MOST_COMMANDS = 100  # in one frame: half of what RATE_LIMIT allows at once
MOST_HISTORY = 200  # messages in one page of the past
HISTORY = 50  # likewise, if the client does not say how many
AUDIENCES = ("broadcast", "user", "group", "session")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
FACILITY = "facility must be the name of a facility, a text."


class Publish(NamedTuple):
    """A message to be published.

    Attributes:
        id: of the frame; None: the client wants no acknowledgement.
        facility: for which the client may publish; None: that of the socket.
        payload: the message.
        key: idempotency key; empty: none.
    """

    id: Id | None
    facility: str | None
    payload: bytes
    key: str = ""


class Subscribe(NamedTuple):
    """A facility to be subscribed to.

    Attributes:
        id: of the frame; None if it has none.
        facility: its name.
        audiences, publish: those to subscribe and to publish to.
        presence: whether to tell who is there.
        resume: the client's positions; None: it has none.
    """

    id: Id | None
    facility: str
    audiences: tuple[str, ...]
    publish: tuple[str, ...]
    presence: bool
    resume: str | None


class Unsubscribe(NamedTuple):
    """A subscription to be ended."""

    id: Id | None
    facility: str


class History(NamedTuple):
    """A page of the past to be read.

    Attributes:
        id: of the frame; None if it has none.
        facility: of the subscription; None: that of the socket.
        limit: number of messages, at most.
        before: names the page before another one; None: the last page.
    """

    id: Id | None
    facility: str | None
    limit: int
    before: str | None


class Call(NamedTuple):
    """A request to the site.

    Attributes:
        id: of the frame; None if it has none.
        method: of HTTP.
        path: with the query, if any.
        data: body of the request, as JSON; None: it has none.
    """

    id: Id | None
    method: str
    path: str
    data: str | None


class Invalid(NamedTuple):
    """What is not valid in ``wsloop.v1``, and why; ``id`` is that of the frame, if any."""

    id: Id | None
    reason: str


Command = Publish | Subscribe | Unsubscribe | History | Call | Invalid


class _Wrong(Exception):
    """A frame is not valid; the text says why."""


def parse(payload: bytes, text: bool) -> list[Command]:
    """Return the commands of a client's frame, in order."""
    if not text:
        return [Publish(None, None, payload)]
    try:
        content = strict_json.decode(payload, surrogates=True)  # so that the answer has the frame's id
    except ValueError as exc:
        return [Invalid(None, f"A frame must be JSON, or binary: {exc}.")]
    if not isinstance(content, list):
        return [_command(content)]
    if not 0 < len(content) <= MOST_COMMANDS:
        return [Invalid(None, f"A list must have 1 to {MOST_COMMANDS} frames.")]
    return [_command(each) for each in content]


def _command(frame: Any) -> Command:
    if not isinstance(frame, dict):
        return Invalid(None, "A frame must be a JSON object.")
    id = frame.get("id")
    if not _is_id(id):
        return Invalid(None, f"id must be a number, or a text of up to {MOST_ID} characters.")
    kind = frame.get("type")
    read = _KINDS.get(kind) if isinstance(kind, str) else None
    if read is None:
        return Invalid(id, f"type must be one of {', '.join(_KINDS)}.")
    try:
        return read(id, frame)
    except _Wrong as exc:
        return Invalid(id, str(exc))


def _publish(id: Id | None, frame: dict[str, Any]) -> Publish:
    if ("data" in frame) == ("base64" in frame):
        raise _Wrong("There must be data or base64, and not both.")
    key = _text(frame, "key", f"key must be a text of up to {MOST_ID} characters.", "")
    if len(key) > MOST_ID:
        raise _Wrong(f"key must be a text of up to {MOST_ID} characters.")
    facility = None if frame.get("facility") is None else _text(frame, "facility", FACILITY)
    try:
        if "data" in frame:
            return Publish(id, facility, frame["data"].encode(), key)
        return Publish(id, facility, base64.b64decode(frame["base64"], validate=True), key)
    except (AttributeError, TypeError, UnicodeEncodeError):
        raise _Wrong("data and base64 must be text.") from None
    except ValueError:
        raise _Wrong("base64 is not valid.") from None


def _subscribe(id: Id | None, frame: dict[str, Any]) -> Subscribe:
    presence = frame.get("presence", False)
    if not isinstance(presence, bool):
        raise _Wrong("presence must be true or false.")
    resume = None if frame.get("resume") is None else _text(frame, "resume", "resume must be a text.")
    return Subscribe(
        id,
        _text(frame, "facility", FACILITY),
        _audiences(frame, "audiences"),
        _audiences(frame, "publish"),
        presence,
        resume,
    )


def _unsubscribe(id: Id | None, frame: dict[str, Any]) -> Unsubscribe:
    return Unsubscribe(id, _text(frame, "facility", FACILITY))


def _history(id: Id | None, frame: dict[str, Any]) -> History:
    limit = frame.get("limit", HISTORY)
    if type(limit) is not int or not 0 < limit <= MOST_HISTORY:
        raise _Wrong(f"limit must be a whole number from 1 to {MOST_HISTORY}.")
    facility = None if frame.get("facility") is None else _text(frame, "facility", FACILITY)
    before = None if frame.get("before") is None else _text(frame, "before", "before must be a text.")
    return History(id, facility, limit, before)


def _call(id: Id | None, frame: dict[str, Any]) -> Call:
    method = frame.get("method", "GET")
    if method not in METHODS:
        raise _Wrong(f"method must be one of {', '.join(METHODS)}.")
    path = _text(frame, "path", "path must be a text that begins with a slash.")
    if not path.startswith("/") or path.startswith("//") or not path.isascii() or not path.isprintable():
        raise _Wrong("path must be that of a URL: a slash, and ASCII characters, others quoted.")
    data = frame.get("data")
    try:
        return Call(id, method, path, None if data is None else strict_json.encode(data))
    except ValueError as exc:
        raise _Wrong(f"data is not valid: {exc}.") from None


_KINDS: dict[str, Callable[[Id | None, dict[str, Any]], Command]] = {
    "publish": _publish,
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "history": _history,
    "call": _call,
}


def _text(frame: dict[str, Any], name: str, wanted: str, default: str | None = None) -> str:
    value = frame.get(name, default)
    if not isinstance(value, str) or SURROGATE.search(value):
        raise _Wrong(wanted)
    return value


def _audiences(frame: dict[str, Any], name: str) -> tuple[str, ...]:
    value = frame.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, str) and each in AUDIENCES for each in value):
        raise _Wrong(f"{name} must be a list of some of {', '.join(AUDIENCES)}.")
    return tuple(dict.fromkeys(value))


def _is_id(id: Any) -> bool:
    if isinstance(id, str):
        return len(id) <= MOST_ID and not SURROGATE.search(id)  # half of a pair could not be sent back
    return isinstance(id, (int, float, type(None))) and not isinstance(id, bool)


__all__ = ["Call", "Command", "History", "Invalid", "Publish", "Subscribe", "Unsubscribe", "parse"]
