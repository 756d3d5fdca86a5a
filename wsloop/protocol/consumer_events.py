"""The events between a consumer and its socket, which are dictionaries with a ``type``: names and checks.

They are those of Django Channels and ASGI. This module must not know consumers, nor what runs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from websockets.frames import Close

Event = dict[str, Any]
Header = tuple[str | bytes, str | bytes]  # as a consumer gives it
Headers = tuple[tuple[str, str], ...]  # checked

MAX_REASON = 123  # bytes: a control frame has 125, two of which are the code (RFC 6455, sections 5.5 and 5.5.1)

MAX_HEADERS = 4096  # bytes of all headers that accept() adds: nginx takes a response with about as many by default
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, section 5.5: neither line breaks nor other controls
# Those of the handshake itself, and those that frame the response.
OWN_HEADERS = {"connection", "upgrade", "content-length", "transfer-encoding", "trailer"}


def handler_name(event: Event) -> str:
    """Return the name of the method that handles an event: its type, with dots as underscores.

    Raises:
        ValueError: if the event has no type, or one that begins with an underscore or a dot.
    """
    kind = event.get("type")
    if not isinstance(kind, str) or not kind:
        raise ValueError('an event needs a "type", the name of the method that handles it')
    if kind.startswith(("_", ".")):
        raise ValueError(f"Malformed type in message (leading underscore): {kind[:100]!r}")
    return kind.replace(".", "_")


def check_close(code: Any, reason: Any) -> None:
    """Check that code and reason fit into a close frame (RFC 6455, section 7.4).

    Raises:
        ValueError: if they do not.
    """
    try:
        Close(int.__index__(code), reason).check()
        size = len(reason.encode())
    except Exception:
        raise ValueError(
            "a close code must be 1000 to 1014 except 1004 to 1006, or 3000 to 4999, and its reason text: "
            f"not {code!r}, {reason!r}"
        ) from None
    if size > MAX_REASON:
        raise ValueError(f"the reason of a close frame may have {MAX_REASON} bytes, this one has {size}")


def check_sent(event: Event, subprotocols: Sequence[str]) -> None:
    """Check an event that a consumer has sent, whatever the state of its socket.

    Args:
        event: from the consumer.
        subprotocols: that the client has offered.

    Raises:
        TypeError: if a message is neither text nor bytes.
        ValueError: if the type is unknown, the subprotocol was not offered, or no close frame can carry the code.
    """
    kind = event.get("type")
    if kind == "websocket.accept":
        subprotocol = event.get("subprotocol")
        if subprotocol is not None and subprotocol not in subprotocols:
            raise ValueError(f"the client has not offered the subprotocol {subprotocol!r}")
    elif kind == "websocket.send":
        text = event.get("text")
        if not isinstance(text, str) and (
            text is not None or not isinstance(event.get("bytes"), (bytes, bytearray, memoryview))
        ):
            raise TypeError("a message must be text (str) or bytes; send_json() encodes other values")
    elif kind == "websocket.close":
        code = event.get("code")
        check_close(1000 if code is None else code, event.get("reason") or "")
    else:
        raise ValueError(f"a consumer can send websocket.accept, websocket.send and websocket.close, not {kind!r}")


def response_headers(headers: Any) -> Headers:
    """Return the headers that a consumer adds to the 101, checked (RFC 9110, section 5).

    Args:
        headers: pairs of name and value, text in Latin-1 or bytes; or None.

    Raises:
        ValueError: if a header is not valid, or belongs to the handshake, or if they have more than
            :data:`MAX_HEADERS` bytes.
    """
    found = []
    size = 0
    for header in _pairs(headers):
        name, value = (each.decode("latin-1") if isinstance(each, bytes) else each for each in header)
        if not isinstance(name, str) or not HEADER_NAME.fullmatch(name):
            raise ValueError(f"the name of a header must be letters, digits and hyphens, not {_short(name)}")
        if name.lower() in OWN_HEADERS or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"accept() cannot set the header {_short(name)}: the handshake does")
        if not isinstance(value, str) or not HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the header {_short(name)} must have one line of Latin-1 text as its value")
        size += len(name) + len(value) + 4  # with colon, space and line break
        if size > MAX_HEADERS:
            raise ValueError(f"the headers of accept() may have {MAX_HEADERS} bytes in all")
        found.append((name, value.strip(" \t")))
    return tuple(found)


def _pairs(headers: Any) -> Iterable[Header]:
    """Yield the pairs of an iterable, whatever was given instead of it."""
    if headers is None:
        return
    wanted = 'headers must be pairs of name and value, [(b"name", b"value")], not'
    if isinstance(headers, (str, bytes, dict)) or not isinstance(headers, Iterable):
        raise ValueError(f"{wanted} {_short(headers)}")
    for each in headers:
        if not isinstance(each, (tuple, list)) or len(each) != 2:
            raise ValueError(f"{wanted} {_short(each)}")
        yield each[0], each[1]


def _short(value: Any) -> str:
    """Return what an error shows of a value."""
    return repr(value)[:100]


def encode_text(text: str) -> bytes:
    """Return a text message as UTF-8.

    Raises:
        ValueError: if it has half of a surrogate pair, which UTF-8 cannot encode.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text message cannot contain half of a surrogate pair: UTF-8 does not encode it") from None


__all__ = [
    "Event",
    "Header",
    "Headers",
    "check_close",
    "check_sent",
    "encode_text",
    "handler_name",
    "response_headers",
]
