"""What an echo must answer to a stream of bytes by RFC 6455 and RFC 7692: the oracle of the property tests.

Written from the RFCs and for nothing but this, without wsloop and without the ``websockets`` library: the whole stream
is there, so there is no state to keep and nothing to be quick about. Where the RFCs leave a choice all is allowed.
"""

import codecs
import struct
import zlib
from typing import NamedTuple

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"  # that of the examples in RFC 6455, section 5.7


class Answers(NamedTuple):
    """What the server must send.

    Attributes:
        frames: pairs of opcode and payload, in order.
        codes: the close codes of which one must follow, None for a close frame without one; empty: no close frame.
        silent: whether the server may also still be waiting, because the frame that is at fault is not complete.
    """

    frames: list
    codes: frozenset
    silent: bool = False


def client_frame(opcode, payload=b"", fin=True, rsv=0, mask=MASK):
    """A frame as a client sends it (section 5.2); ``rsv``: the three reserved bits as a number; no mask: None."""
    head = bytes([fin << 7 | rsv << 4 | opcode])
    masked = 0x80 if mask is not None else 0
    if len(payload) < 126:
        head += bytes([masked | len(payload)])
    elif len(payload) < 65536:
        head += struct.pack("!BH", masked | 126, len(payload))
    else:
        head += struct.pack("!BQ", masked | 127, len(payload))
    return head + payload if mask is None else head + mask + unmask(payload, mask)


def unmask(payload, mask):
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


def deflated(payload, level=6):
    """A compressed message (RFC 7692, section 7.2.1)."""
    compressor = zlib.compressobj(level, wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def may_be_sent(code):
    """Tell whether a close frame may carry this code (section 7.4, and the registry of IANA that it set up)."""
    return code in {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014} or 3000 <= code <= 4999


def echo(stream, max_size, compression=False):
    """Return the answers of an echo to all of ``stream``."""
    at = 0
    out = []
    message = None  # opcode, gathered payload, decoder of text, decompressor
    while True:
        if len(stream) - at < 2:
            return Answers(out, frozenset())
        first, second = stream[at], stream[at + 1]
        fin, rsv, opcode = bool(first & 0x80), first >> 4 & 7, first & 0x0F
        size, at = second & 0x7F, at + 2
        codes = set()
        control = opcode >= 8
        if opcode not in (CONT, TEXT, BINARY, CLOSE, PING, PONG):
            codes.add(1002)
        if not second & 0x80:
            codes.add(1002)
        if rsv and not (compression and rsv == 4 and opcode in (TEXT, BINARY)):
            codes.add(1002)
            if compression and rsv & 4 and opcode in (TEXT, BINARY):
                codes.add(1009)  # the server may decompress it before it looks at the other bits
        if control and (size > 125 or not fin):
            codes.add(1002)
        if (opcode in (TEXT, BINARY) and message is not None) or (opcode == CONT and message is None):
            codes.add(1002)
        extended = {126: 2, 127: 8}.get(size, 0)
        if len(stream) - at < extended:
            return Answers(out, frozenset(codes), silent=True)
        if extended:
            size, at = int.from_bytes(stream[at : at + extended], "big"), at + extended
            if size >> 63:
                codes.add(1002)
        have = len(message[1]) if message is not None else 0
        # What does not compress grows: with compression the size on the wire says less than the size of the message.
        if size > max_size - have + (max_size // 8 + 64 if compression else 0):
            codes.add(1009)
        if len(stream) - at < 4 + size:
            return Answers(out, frozenset(codes), silent=True)
        mask, payload, at = stream[at : at + 4], stream[at + 4 : at + 4 + size], at + 4 + size
        if codes:
            return Answers(out, frozenset(codes | _faults_of(opcode, unmask(payload, mask))))
        payload = unmask(payload, mask)
        if opcode == PING:
            out.append((PONG, payload))
        elif opcode == CLOSE:
            return Answers(
                out, frozenset(_faults_of(opcode, payload) or {int.from_bytes(payload[:2], "big") if payload else None})
            )
        elif opcode != PONG:
            if opcode != CONT:
                decoder = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
                message = (opcode, bytearray(), decoder, zlib.decompressobj(wbits=-15) if rsv else None)
            kind, gathered, decoder, decompressor = message
            if decompressor is not None:
                try:
                    inflated = decompressor.decompress(payload, max_size + 1)
                    if fin and not decompressor.unconsumed_tail:
                        inflated += decompressor.decompress(b"\0\0\xff\xff", max_size + 1)
                except zlib.error:
                    # The server may have met the bound before it met the fault.
                    return Answers(out, frozenset({1002, 1007, 1009}))
                payload = inflated
            gathered += payload
            if len(gathered) > max_size:
                codes.add(1009)
            if decoder is not None:
                try:
                    decoder.decode(payload, final=fin)
                except UnicodeDecodeError:
                    codes.add(1007)
            if codes:
                return Answers(out, frozenset(codes), silent=not fin)
            if fin:
                out.append((kind, bytes(gathered)))
                message = None


def _faults_of(opcode, payload):
    """The codes that the payload of a close frame earns (sections 5.5.1 and 7.4)."""
    faults = set()
    if opcode == CLOSE and payload:
        if len(payload) < 2 or not may_be_sent(int.from_bytes(payload[:2], "big")):
            faults.add(1002)
        try:
            payload[2:].decode()
        except UnicodeDecodeError:
            faults.add(1007)
    return faults
