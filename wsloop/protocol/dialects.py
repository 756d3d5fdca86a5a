"""The payloads on the wire: bare messages as ws4redis sends them, or the JSON envelopes of ``wsloop.v1``.

A dialect turns an event into the payload of a frame. It knows no connection: the payload is encoded once and sent to
all sockets of the dialect. The frames are documented in ``docs/reference/wsloop-v1.rst``. This module must not
know Redis, sockets or gevent.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Collection, Iterable
from typing import Any

from wsloop.protocol import frames, resume_tokens, strict_json
from wsloop.protocol.close_codes import is_final
from wsloop.protocol.messages import Audience, Message, Position, as_json, audience

LOST = "Messages were lost. Load the state anew."
SPREAD = 3000  # milliseconds within which clients reconnect after a goodbye frame

Id = int | float | str  # of a client's frame


class Dialect:
    """Bare messages; other dialects override methods.

    Attributes:
        name: the subprotocol.
        has_envelopes: whether messages are wrapped, and there are frames of other types.
        heartbeat: whether clients get the heartbeat of ws4redis.
        ping: payload of the message that shows scripts that the connection is alive; None: there is none.
    """

    name = "ws4redis"
    has_envelopes = False
    heartbeat = True
    ping: bytes | None = None

    def encode(self, payload: bytes, window_bits: int = 0) -> bytes:
        """Return the bytes on the wire that carry a payload; see :func:`wsloop.protocol.frames.encode`."""
        return frames.encode(payload, frames.is_text(payload), window_bits)

    def beat(self) -> bytes:
        """Return the bytes on the wire that show both ends that the connection is alive."""
        return frames.PING + (b"" if self.ping is None else self.encode(self.ping))

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

    def not_recovered(self) -> bytes | None:
        """Return the payload that begins a subscription whose missed messages are not known; None sends nothing."""
        return None

    def goodbye(self, code: int, reason: str, after: int | None = None) -> bytes | None:
        """Return the payload that is sent before the close frame; None sends nothing.

        Args:
            code: close code.
            reason: for the client.
            after: milliseconds after which the client is to come back, if it may; None: a random number of them.
        """
        return None


class V1(Dialect):
    """The subprotocol ``wsloop.v1``."""

    name = "wsloop.v1"
    has_envelopes = True
    heartbeat = False
    ping: bytes = b'{"type": "ping"}'

    def message(self, channel: bytes, message: Message, own: bool = False, kept: bool = False) -> bytes:
        whom = audience(channel)
        if whom.kind == "presence" and (event := _presence(whom.facility, message.payload)):
            return event
        content = _content(channel, message)
        if own:
            content["own"] = True
        if kept:
            content["kept"] = True
        return _frame("message", **content)

    def position(self, channel: bytes, message: Message) -> bytes | None:
        if not message.offset:
            return None
        position = resume_tokens.position(channel, message.position)
        return _frame("position", **_route(channel, audience(channel)), position=position)

    def lost(self, channel: bytes, at: Position) -> bytes:
        content = _address(channel, audience(channel))
        return error("lost", LOST, **content, position=resume_tokens.position(channel, at))

    def goodbye(self, code: int, reason: str, after: int | None = None) -> bytes:
        content: dict[str, Any] = {"code": code, "reason": reason, "reconnect": not is_final(code)}
        if content["reconnect"]:
            content["after"] = random.randrange(SPREAD) if after is None else after
        return _frame("goodbye", **content)


class ConsumerDialect(Dialect):
    """The messages that a consumer sends, and nothing else."""

    name = "consumer"  # never offered to a client
    heartbeat = False


@functools.lru_cache(maxsize=1024)
def missed(dialect: Dialect, channel: bytes, message: Message) -> bytes:
    """Return :meth:`Dialect.message` for a message that many clients have missed; of a small one."""
    return dialect.message(channel, message)


BARE = Dialect()
CONSUMER = ConsumerDialect()
V1_DIALECT = V1()
DIALECTS = {each.name: each for each in (V1_DIALECT, BARE)}  # the preferred one first


def welcome(facility: str, channels: Collection[bytes], recovered: bool | None, **content: Any) -> bytes:
    """Return the frame that begins a subscription.

    Args:
        facility: of the subscription.
        channels: of the subscription.
        recovered: whether all missed messages follow; None: there is nothing to recover.
        content: what else it has: ``id`` of the client's frame, ``token``, ``presence``, ``ping``; None is left out.
    """
    whom = {channel: audience(channel) for channel in channels}
    other = [
        resume_tokens.label(channel) if each.kind == "other" else each.facility
        for channel, each in whom.items()
        if each.facility != facility or each.kind == "other"
    ]
    return _frame(
        "welcome",
        facility=facility,
        subscribed=[str(each) for each in whom.values()],
        recovered=recovered,
        **({"other": sorted(set(other))} if other else {}),
        **{name: value for name, value in content.items() if value is not None},
    )


def ack(id: Id) -> bytes:
    """Return the frame that acknowledges a message of the client: Redis has taken it."""
    return _frame("ack", id=id)


def unsubscribed(facility: str, id: Id | None = None, **content: Any) -> bytes:
    """Return the frame that ends a subscription: the answer to the client, or with ``code`` and ``reason`` of its own.

    Args:
        facility: of the subscription.
        id: of the client's frame; None if it had none.
        content: what else it has.
    """
    return _frame("unsubscribed", **_with_id(id), facility=facility, **content)


def history(
    facility: str, messages: Iterable[tuple[bytes, Message]], before: str | None, id: Id | None = None
) -> bytes:
    """Return the frame with a page of the past.

    Args:
        facility: of the subscription.
        messages: pairs of channel and message, the oldest first.
        before: names the page before this one; None: there is none.
        id: of the client's frame; None if it had none.
    """
    return _frame(
        "history",
        **_with_id(id),
        facility=facility,
        messages=[_content(channel, message) for channel, message in messages],
        before=before,
    )


def answer(status: int, id: Id | None = None, **content: Any) -> bytes:
    """Return the frame with the response to a call: the HTTP status, and what else it has."""
    return _frame("answer", **_with_id(id), status=status, **content)


def error(code: str, reason: str, id: Id | None = None, **content: Any) -> bytes:
    """Return the frame that reports an error after which the connection goes on."""
    return _frame("error", code=code, reason=reason, **content, **_with_id(id))


def _with_id(id: Id | None) -> dict[str, Any]:
    return {} if id is None else {"id": id}


def _route(channel: bytes, whom: Audience) -> dict[str, Any]:
    """Return what tells a client which subscription a frame is for."""
    return {"channel": resume_tokens.label(channel)} if whom.kind == "other" else {"facility": whom.facility}


def _address(channel: bytes, whom: Audience) -> dict[str, Any]:
    """Return what tells a client which subscription and which audience a frame is for."""
    name = {"name": whom.name} if whom.name else {}
    return {**_route(channel, whom), "audience": whom.kind, **name}


def _content(channel: bytes, message: Message) -> dict[str, Any]:
    """Return a message as it is in a frame."""
    content = _address(channel, audience(channel)) | as_json(message.payload)
    if message.offset:
        content["position"] = resume_tokens.position(channel, message.position)
    return content


def _presence(facility: str, payload: bytes) -> bytes | None:
    """Return the frame for a presence event; None if the payload is not one of wsloop's."""
    try:
        event = strict_json.decode(payload)
        known = {name: event[name] for name in ("event", "user", "count") if name in event}
        # No value has parts: they might be readable but nested too deeply to be written.
        if "event" not in known or not all(isinstance(each, (str, int)) for each in known.values()):
            return None
        return _frame("presence", facility=facility, **known)
    except (ValueError, TypeError):
        return None


def _frame(kind: str, **content: Any) -> bytes:
    return strict_json.encode({"type": kind, **content}).encode()


__all__ = [
    "BARE",
    "CONSUMER",
    "DIALECTS",
    "Dialect",
    "Id",
    "ack",
    "answer",
    "error",
    "history",
    "missed",
    "unsubscribed",
    "welcome",
]
