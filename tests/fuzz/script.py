"""What one input of the fuzzer means: a client that does this and that, and a server that closes in between.

Any bytes mean something, so that all that a fuzzer makes of an input can be run. The first byte holds options, and then
come steps, a byte each with what belongs to them; see :func:`steps`.
"""

from tests.property.line import Line, agrees
from tests.property.rfc6455 import client_frame, deflated, echo
from wsloop.protocol.frames import encode

COMPRESSION, SMALL, RATE, HANG_UP, SLOW = 1, 2, 4, 8, 16  # options
FRAME, FRAME_TOO, DEFLATED, RAW, WRITE, MESSAGE, CLOSE, LARGE = range(8)  # steps
CODES = (1001, 1011, 1012, 4001, 4003, 4008)
MOST_BYTES = 64 * 1024  # sent by the client; more answers than the kernel holds would not be read here
MOST_WRITES = 64


def steps(data):
    """Yield pairs of a step and what belongs to it.

    ``FRAME``, ``DEFLATED`` and ``LARGE`` are frames: the first byte of the header, a size, and as many bytes; these are
    compressed before they are sent, or repeated 64 times. ``RAW`` are bytes as they are. ``WRITE`` sends what has
    gathered so far. ``MESSAGE`` is one of the server, ``CLOSE`` its close frame.
    """
    at = 0

    def take(size):
        nonlocal at
        at += size
        return data[at - size : at]

    while at < len(data):
        step = take(1)[0] % 8
        if step == WRITE:
            yield step, b""
        elif step == CLOSE:
            yield step, CODES[(take(1) or b"\0")[0] % len(CODES)]
        elif step in (RAW, MESSAGE):
            yield step, take((take(1) or b"\0")[0])
        else:
            first = (take(1) or b"\0")[0]
            payload = take((take(1) or b"\0")[0])
            if step == DEFLATED:
                payload = deflated(payload)
            elif step == LARGE:
                payload *= 64
            yield step, client_frame(first & 15, payload, bool(first & 128), first >> 4 & 7)


def run(data):
    """Do what ``data`` says.

    Raises:
        AssertionError: if the server does what it must not do, see :class:`tests.property.line.Line`; and if its
            answers are not those of the oracle, where these are certain.
    """
    options = data[0] if data else 0
    max_size = 100 if options & SMALL else 65536
    bounds = {"rate": 1e-3, "burst": 5} if options & RATE else {}
    if options & SLOW:
        bounds |= {"max_queued": 2000, "buffer": 1}
    certain = not options & (RATE | SLOW)
    stream, gathered, writes = b"", b"", 0
    with Line(max_size, bool(options & COMPRESSION), **bounds) as line:
        for step, given in steps(data[1:]):
            if step in (WRITE, MESSAGE, CLOSE):
                writes += 1
                if writes > MOST_WRITES:
                    break
                line.write(gathered)
                stream, gathered = stream + gathered, b""
                certain = certain and step == WRITE
                if step == MESSAGE:
                    if line.connection.enqueue(encode(given, False, line.connection.window_bits)):
                        line.connection.flush()
                elif step == CLOSE:
                    line.connection.close(given, "closed by the server")
            elif len(stream) + len(gathered) + len(given) <= MOST_BYTES:
                gathered += given
        line.write(gathered)
        stream += gathered
        if options & HANG_UP:
            line.hang_up()
            return
        frames, code = line.finish()
    if certain:
        agrees(echo(stream, max_size, bool(options & COMPRESSION)), frames, code)
