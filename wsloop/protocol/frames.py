"""Frames that the server sends (RFC 6455, section 5.2), encoded once for all connections that get them."""

from __future__ import annotations

import struct

from websockets.frames import Frame, Opcode

from wsloop.protocol import deflate

FIN = 0x80
TEXT, BINARY = FIN | Opcode.TEXT, FIN | Opcode.BINARY
pack_short, pack_medium, pack_long = struct.Struct("!BB").pack, struct.Struct("!BBH").pack, struct.Struct("!BBQ").pack


def encode(payload: bytes, text: bool, window_bits: int = 0) -> bytes:
    """Return the frame of a server that carries ``payload``, as text or binary (RFC 6455, section 5.2).

    Args:
        payload: the message.
        text: whether it is text, then valid UTF-8.
        window_bits: for a client that has negotiated permessage-deflate the largest window it takes, 9 to 15: the
            payload is compressed, if that makes it smaller (RFC 7692, section 7.2.1). 0 sends it as it is.
    """
    # Not by the library, which takes six times as long for a short message.
    first, size = TEXT if text else BINARY, len(payload)
    if size < 126:
        frame = pack_short(first, size) + payload
    elif size < 65536:
        frame = pack_medium(first, 126, size) + payload
    else:
        frame = pack_long(first, 127, size) + payload
    if window_bits and deflate.pays(payload):
        message = Frame(Opcode.TEXT if text else Opcode.BINARY, payload)
        compressed = message.serialize(mask=False, extensions=[deflate.compressor(window_bits)])
        return min(frame, compressed, key=len)
    return frame


def is_text(payload: bytes) -> bool:
    """Return whether a message leaves as text: a payload has no type in Redis, so all that is UTF-8 does."""
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


PING = Frame(Opcode.PING, b"").serialize(mask=False)
PONG_BYTE = Frame(Opcode.PONG, b"").serialize(mask=False)[:1]
EMPTY_PONG = PONG_BYTE + b"\x80"  # of a client: masked, so that four bytes of any value follow (RFC 6455, section 5.3)
