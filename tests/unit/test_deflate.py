"""permessage-deflate: what a client may send compressed, and what of it is kept."""

import random
import zlib

import pytest
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode

from wsloop.protocol.deflate import Deflate, compressor, pays, window_bits

TEXT, BINARY, CONT, PING = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING


def deflated(payload, mode=zlib.Z_SYNC_FLUSH, window_bits=15):
    """What a client sends for ``payload`` (RFC 7692, section 7.2.1)."""
    deflater = zlib.compressobj(wbits=-window_bits)
    data = deflater.compress(payload) + deflater.flush(mode)
    return data.removesuffix(b"\x00\x00\xff\xff") if mode == zlib.Z_SYNC_FLUSH else data + b"\x00"


def first(data, fin=True):
    return Frame(BINARY, data, fin, rsv1=True)


@pytest.mark.parametrize("window_bits", range(9, 16))
@pytest.mark.parametrize("payload", [b"", b"x", b"hello " * 5000, bytes(range(256)) * 20])
def test_what_is_compressed_is_what_arrives(window_bits, payload):
    receiver = Deflate(window_bits, 15)
    for _ in range(2):  # nothing of one message is needed for the next
        frame = receiver.decode(first(deflated(payload, window_bits=window_bits)), max_size=len(payload) + 1)
        assert bytes(frame.data) == payload
        assert not frame.rsv1
        assert receiver.decoder is None, "nothing is kept between messages"


def test_fragments_with_control_frames_between(receiver):
    data = deflated(b"hello " * 100)
    pieces = [data[:5], data[5:9], b"", data[9:]]
    ping = Frame(PING, b"ping")
    got = b""
    for number, piece in enumerate(pieces):
        frame = Frame(CONT if number else BINARY, piece, number == 3, rsv1=not number)
        got += bytes(receiver.decode(frame, max_size=600).data)
        assert receiver.decode(ping) is ping
    assert got == b"hello " * 100
    assert receiver.decoder is None


@pytest.fixture
def receiver():
    return Deflate(15, 15)


def test_a_message_that_is_not_compressed_passes(receiver):
    for frame in (Frame(TEXT, b"plain"), Frame(TEXT, b"pla", False), Frame(CONT, b"in")):
        assert receiver.decode(frame) is frame
    assert receiver.decoder is None


def test_a_last_block_may_end_the_message(receiver):
    """RFC 7692, section 7.2.3.4."""
    for payload in (b"hello", b"x" * 10_000, bytes(range(256)) * 20):
        assert bytes(receiver.decode(first(deflated(payload, zlib.Z_FINISH)), max_size=20_000).data) == payload


@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("size", [6, 1000, 60_000])
def test_nothing_may_come_behind_a_last_block(receiver, fin, size):
    """zlib would keep it for ever: memory that no bound counts."""
    with pytest.raises(ProtocolError, match="behind the end"):
        receiver.decode(first(deflated(b"", zlib.Z_FINISH) + b"x" * size, fin), max_size=65_536)


def test_fragments_behind_a_last_block_are_an_error_and_do_not_pile_up(receiver):
    receiver.decode(first(deflated(b"", zlib.Z_FINISH), False), max_size=65_536)
    with pytest.raises(ProtocolError, match="behind the end"):
        for _ in range(10):
            receiver.decode(Frame(CONT, b"x", False), max_size=65_536)
    assert len(receiver.decoder.unused_data) < 10


def test_a_second_message_in_one_frame_is_not_cut_off_in_silence(receiver):
    with pytest.raises(ProtocolError, match="behind the end"):
        receiver.decode(first(deflated(b"one", zlib.Z_FINISH) + deflated(b"two")), max_size=65_536)


@pytest.mark.parametrize("most", [0, 1, 999])
def test_more_than_the_bound_is_not_built(receiver, most):
    with pytest.raises(PayloadTooBig):
        receiver.decode(first(deflated(bytes(1000))), max_size=most or 1)


@pytest.mark.parametrize("data", [b"\xff", b"garbage", b"\x07" * 100])
def test_garbage_is_an_error_of_the_protocol(receiver, data):
    with pytest.raises(ProtocolError, match="decompression failed"):
        receiver.decode(first(data), max_size=65_536)


def test_the_compressor_of_a_window_is_shared_and_keeps_nothing():
    assert compressor(12) is compressor(12)
    frame = compressor(12).encode(Frame(TEXT, b"hello " * 100))
    assert frame.rsv1
    assert not hasattr(compressor(12), "encoder")
    assert compressor(12).encode(Frame(TEXT, b"hello " * 100)).data == frame.data


@pytest.mark.parametrize(("asked", "used"), [(8, 0), (9, 0), (11, 0), (12, 12), (13, 12), (15, 12)])
def test_all_clients_are_compressed_for_with_one_window_or_not_at_all(asked, used):
    assert window_bits(Deflate(15, max(asked, 9))) == used


@pytest.mark.parametrize(
    ("payload", "pays_"),
    [
        (b"x" * 1000, True),
        (random.Random(1).randbytes(4096), True),  # small enough to try
        (random.Random(1).randbytes(60_000), False),
        (b"hello " * 10_000, True),
        (random.Random(1).randbytes(4096) + b"x" * 60_000, False),  # the beginning decides
    ],
)
def test_by_its_beginning_it_is_told_whether_compressing_pays(payload, pays_):
    assert pays(payload) is pays_
