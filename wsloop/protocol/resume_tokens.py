"""The token with which a client reconnects: its position in each of its channels.

The page, or the welcome frame of a socket, has a token that covers all channels. Each later message carries the
position in its own channel, which the client appends; it is the same text for all clients, so a message is encoded
once, however many clients there are. The token also consists of positions, and is signed, because it says for which
channels it is valid. A position alone needs no signature: to forge one, a client must know the random id of a message.

A short hash names each channel, because the names of some contain the key of a session, which is a secret. A token for
other channels, those of another user, session or facility, does not name the present ones.

This module must not know Redis, sockets or gevent.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Collection, Mapping

from django.core.signing import BadSignature, Signer

from wsloop.protocol.messages import Position, audience

PARAMETER = "resume"
GROUPS = "groups"  # in a token
SALT = "wsloop.resume"
POSITION = re.compile(r"([A-Za-z0-9_-]{8})\.([0-9]{1,16})\.([A-Za-z0-9_-]{1,32})")


@functools.lru_cache(maxsize=4096)
def label(channel: bytes) -> str:
    """Return the name of a channel in tokens and positions."""
    return base64.urlsafe_b64encode(hashlib.blake2b(channel, digest_size=6).digest()).decode()


def position(channel: bytes, at: Position) -> str:
    """Return the text of a position, for a client to send back."""
    return f"{label(channel)}.{at.offset}.{at.id}"


def read_position(text: str) -> tuple[str, Position]:
    """Return the name of the channel, and the position, that the text of a position has.

    Raises:
        ValueError: if it is not the text of a position.
    """
    match = POSITION.fullmatch(text)
    if match is None:
        raise ValueError("not the text of a position")
    return match[1], Position(int(match[2]), match[3])


def token(positions: Mapping[bytes, Position], groups: bool = False) -> str:
    """Return the token of a client that has all messages up to these positions.

    Args:
        positions: by channel.
        groups: whether the socket listens to the groups of its user, whichever these are.
    """
    return _signer().sign(_body(positions, groups))


def is_token(text: str, positions: Mapping[bytes, Position], groups: bool = False) -> bool:
    """Return whether a text is :func:`token` of these positions, as that of a client that has missed nothing."""
    # Not in constant time: with these positions the client would get that token in any case.
    body = _body(positions, groups)
    return text.startswith(f"{body}:") and text == _signer().sign(body)


def read(text: str, channels: Collection[bytes]) -> dict[bytes, Position] | None:
    """Return the positions of a client in ``channels``.

    Args:
        text: the token, and positions with ``~`` before each.
        channels: to which the client subscribes.

    Returns:
        None if the token is damaged, or not valid for these channels. In a token for the groups of a user, a group's
        channel may be missing: the user joined that group later, and missed no message of it.
    """
    body, _, rest = text.partition(":")
    signature, *later = rest.split("~")
    try:
        _signer().unsign(f"{body}:{signature}")
    except (BadSignature, ValueError):  # half a surrogate pair cannot be signed
        return None
    found: dict[str, Position] = {}
    signed = body.split("~")
    groups = signed[-1] == GROUPS
    if groups:
        signed.pop()
    for number, each in enumerate((*signed, *later)):
        try:
            name, at = read_position(each)
        except ValueError:
            return None
        if number < len(signed) or name in found:
            found[name] = at
    known = {channel: found[label(channel)] for channel in channels if label(channel) in found}
    others = [channel for channel in channels if channel not in known]
    joined = groups and all(audience(channel).kind == "group" for channel in others)
    return known if known and (joined or not others) else None


def _body(positions: Mapping[bytes, Position], groups: bool) -> str:
    names = [position(channel, at) for channel, at in positions.items()]
    return "~".join([*names, GROUPS] if groups else names)


def _signer() -> Signer:
    return Signer(salt=SALT)


__all__ = ["PARAMETER", "is_token", "label", "position", "read", "read_position", "token"]
