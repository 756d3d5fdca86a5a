"""What a connection makes of streams of bytes: valid ones however they are split, broken ones, and several at once."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.line import Line, agrees, conversation, split
from tests.property.rfc6455 import (
    BINARY,
    CLOSE,
    CONT,
    MASK,
    PING,
    PONG,
    TEXT,
    client_frame,
    deflated,
    echo,
    may_be_sent,
)

masks = st.sampled_from([MASK, b"\0\0\0\0", b"\xff\x00\x80\x7f"])
codes = st.sampled_from([1000, 1001, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999])
short = st.binary(max_size=125)
sizes = st.lists(st.integers(1, 300) | st.integers(1, 9), max_size=25)


@st.composite
def controls(draw, most=2):
    """Pings and pongs, as bytes."""
    return b"".join(
        client_frame(draw(st.sampled_from([PING, PONG])), draw(short), mask=draw(masks))
        for _ in range(draw(st.integers(0, most)))
    )


@st.composite
def messages(draw, compression=False):
    """One message, as bytes: in one frame or many, with control frames in between, compressed or not."""
    if draw(st.booleans()):
        opcode, payload = TEXT, draw(st.text(max_size=200)).encode()
    else:
        opcode, payload = BINARY, draw(st.binary(max_size=200))
    payload *= draw(st.sampled_from([1, 1, 1, 2, 50]))
    rsv = 0
    if compression and draw(st.booleans()):
        rsv, payload = 4, deflated(payload, draw(st.sampled_from([0, 6])))
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    parts = [payload[a:b] for a, b in itertools.pairwise([0, *cuts, len(payload)])]
    out = []
    for number, part in enumerate(parts):
        out.append(
            client_frame(CONT if number else opcode, part, number == len(parts) - 1, 0 if number else rsv, draw(masks))
        )
        out.append(draw(controls(1)))
    return b"".join(out)


@st.composite
def closes(draw):
    """A close frame, or none."""
    if draw(st.booleans()):
        return b""
    payload = draw(
        st.just(b"") | st.tuples(codes, st.text(max_size=20)).map(lambda c: c[0].to_bytes(2, "big") + c[1].encode())
    )
    return client_frame(CLOSE, payload, mask=draw(masks))


def valid_streams(compression=False):
    parts = st.lists(messages(compression) | controls(), max_size=5).map(b"".join)
    return st.tuples(parts, closes()).map(b"".join)


@st.composite
def mutated_streams(draw, compression=False):
    """A valid stream in which bytes were changed, removed, inserted or moved."""
    stream = bytearray(draw(valid_streams(compression)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(stream)))
        match draw(st.integers(0, 4)):
            case 0:
                stream[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del stream[at : at + draw(st.integers(1, 10))]
            case 2:
                stream[at:at] = draw(st.binary(min_size=1, max_size=10))
            case 3:
                stream[at : at + 1] = bytes([(stream[at : at + 1] or b"\0")[0] ^ 1 << draw(st.integers(0, 7))])
            case 4:
                stream += stream[at : at + draw(st.integers(1, 100))]
    return bytes(stream)


@st.composite
def odd_frames(draw, compression=False):
    """Frames of which each byte of the header may be anything, the length excepted."""
    out = []
    for _ in range(draw(st.integers(1, 8))):
        first = draw(
            st.integers(0, 255) | st.sampled_from([0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0xC1, 0x41])
        )
        payload = draw(st.binary(max_size=40) | st.sampled_from([b"", b"\xe2\x82", b"\xac", b"\x03\xe8", b"x" * 126]))
        if compression and first & 0x40 and draw(st.booleans()):
            payload = deflated(payload)
        frame = client_frame(first & 15, payload, bool(first & 128), first >> 4 & 7, draw(masks | st.none()))
        out.append(frame)
    return b"".join(out)


@pytest.mark.parametrize("compression", [False, True], ids=["plain", "compressed"])
@given(data=st.data())
def test_any_split_of_a_valid_stream_gives_the_same_answers_in_the_same_order(compression, data):
    stream = data.draw(valid_streams(compression), label="stream")
    expected = echo(stream, 65536, compression)
    assert expected.codes <= {code for code in range(1000, 5000) if may_be_sent(code)} | {None}
    frames, code = conversation(split(stream, data.draw(sizes, label="sizes")), compression=compression)
    agrees(expected, frames, code)


@given(stream=valid_streams(compression=True).filter(lambda stream: len(stream) < 400))
def test_byte_by_byte_is_as_good_as_at_once(stream):
    whole = conversation([stream], compression=True)
    assert conversation(split(stream, [1] * len(stream)), compression=True) == whole
    agrees(echo(stream, 65536, True), *whole)


@pytest.mark.parametrize("max_size", [100, 65536])
@pytest.mark.parametrize("compression", [False, True], ids=["plain", "compressed"])
@given(data=st.data())
def test_a_broken_stream_gets_a_clean_close_and_what_was_before_it_its_answers(compression, max_size, data):
    stream = data.draw(mutated_streams(compression) | odd_frames(compression), label="stream")
    chunks = split(stream, data.draw(sizes, label="sizes"))
    agrees(echo(stream, max_size, compression), *conversation(chunks, max_size, compression))


@given(stream=st.binary(max_size=600), sizes=sizes, compression=st.booleans())
def test_arbitrary_bytes_get_a_clean_close_or_nothing(stream, sizes, compression):
    agrees(echo(stream, 65536, compression), *conversation(split(stream, sizes), compression=compression))


@given(
    payload=st.binary(max_size=12)
    | st.text(max_size=8).map(lambda text: text.encode()[:-1])
    | st.text().map(str.encode),
    cuts=st.lists(st.integers(0, 12), max_size=4),
)
def test_text_is_taken_if_all_of_it_is_utf8_wherever_it_is_cut(payload, cuts):
    edges = [0, *sorted(min(cut, len(payload)) for cut in cuts), len(payload)]
    stream = b"".join(
        client_frame(CONT if number else TEXT, payload[a:b], number == len(edges) - 2)
        for number, (a, b) in enumerate(itertools.pairwise(edges))
    )
    try:
        payload.decode()
        expected = [(TEXT, payload)], False
    except UnicodeDecodeError:
        expected = [], 1007
    assert conversation([stream]) == expected


@given(count=st.integers(0, 90), stream=valid_streams(True) | mutated_streams(True), sizes=sizes)
def test_messages_that_take_their_time_are_answered_all_the_same(count, stream, sizes):
    stream = client_frame(TEXT, b"x" * 100) * count + stream  # more than is parsed at once
    with Line(compression=True, holding=True) as line:
        for chunk in split(stream, sizes):
            line.write(chunk)
        agrees(echo(stream, 65536, True), *line.finish())


@given(size=st.integers(0, 300), cuts=st.lists(st.integers(0, 300), max_size=4), seed=st.binary(max_size=20))
def test_no_message_is_larger_than_the_bound_however_it_is_compressed_and_cut(size, cuts, seed):
    """Around the bound, where zlib holds back what no longer fits."""
    payload = (seed + b"x" * 300)[:size]
    data = deflated(payload)
    cuts = sorted(min(cut, len(data)) for cut in cuts)
    parts = [data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)])]
    stream = b"".join(
        client_frame(CONT if number else BINARY, part, number == len(parts) - 1, 0 if number else 4)
        for number, part in enumerate(parts)
    )
    frames, code = conversation([stream], 150, True)
    if size <= 150 and len(data) <= 150:
        assert (frames, code) == ([(BINARY, payload)], False)
    elif size > 150:
        assert (frames, code) == ([], 1009)


@given(
    before=st.lists(messages(), max_size=2).map(b"".join),
    fragment=st.booleans(),
    after=valid_streams() | mutated_streams(),
    sizes=sizes,
    code=st.sampled_from([1001, 1012, 4001, 4003, 4008]),
)
def test_what_a_client_says_after_the_servers_close_frame_is_not_answered(before, fragment, after, sizes, code):
    if fragment:
        before += client_frame(TEXT, b"begun", fin=False)
        after = client_frame(CONT, b"ended") + after
    with Line() as line:
        line.write(before)
        line.connection.close(code, "reason")
        for chunk in split(after, sizes):
            line.write(chunk)
        frames, closed_with = line.finish()
        assert frames == echo(before, 65536).frames
        assert closed_with == code
        assert line.handler.events == ["closing", "closed"]


@given(stream=valid_streams() | mutated_streams(), sizes=sizes, burst=st.integers(1, 6))
def test_a_client_over_its_rate_is_answered_up_to_some_frame_and_closed(stream, sizes, burst):
    expected = echo(stream, 65536)
    with Line(rate=1e-3, burst=burst) as line:
        for chunk in split(stream, sizes):
            line.write(chunk)
        frames, code = line.finish()
    taken = [frame for frame in frames if frame[0] != PONG]  # pongs may be on their way when the rest is thrown away
    assert taken == [frame for frame in expected.frames if frame[0] != PONG][: len(taken)]
    assert len(taken) <= burst
    if code is False:
        agrees(expected, frames, code)


@given(stream=valid_streams(True) | mutated_streams(True), sizes=sizes, count=st.integers(0, 20))
def test_a_client_that_hangs_up_anywhere_leaves_nothing(stream, sizes, count):
    with Line(compression=True) as line:
        for chunk in itertools.islice(split(stream, sizes), count):
            line.write(chunk)
        line.hang_up()


# Several connections of one process.

A = [
    client_frame(TEXT, b"A-1 ", False),
    client_frame(CONT, b"A-2 ", False),
    client_frame(PING, b"A"),
    client_frame(CONT, b"A-3"),
]
B = [
    client_frame(BINARY, b"B-1 ", False),
    client_frame(PING, b"B"),
    client_frame(CONT, b"B-2 ", False),
    client_frame(CONT, b"B-3"),
]
PACKED = [
    client_frame(TEXT, deflated(b"secret " * 20)[:5], False, 4),
    client_frame(CONT, deflated(b"secret " * 20)[5:]),
    client_frame(BINARY, deflated(b"other " * 20), True, 4),
]


def interleaved(streams, order, compression=False):
    """Write the chunks of several connections, each time the next one of the connection that ``order`` names."""
    lines = [Line(compression=compression) for _ in streams]
    waiting = [iter(stream) for stream in streams]
    for line in lines:
        line.__enter__()
    try:
        for number in order:
            lines[number].write(next(waiting[number], b""))
        for number, rest in enumerate(waiting):
            for chunk in rest:
                lines[number].write(chunk)
        return [line.finish() for line in lines]
    finally:
        for line in lines:
            line.__exit__()


@pytest.mark.parametrize(("first", "second", "compression"), [(A, B, False), (PACKED, A, True), (PACKED, PACKED, True)])
def test_fragments_of_two_connections_never_mix_in_whatever_order_they_come(first, second, compression):
    alone = [conversation([b"".join(stream)], compression=compression) for stream in (first, second)]
    length = len(first) + len(second)
    for places in itertools.combinations(range(length), len(first)):
        order = [0 if place in places else 1 for place in range(length)]
        assert interleaved([first, second], order, compression) == alone, order
    agrees(echo(b"".join(first), 65536, compression), *alone[0])


@given(data=st.data(), compression=st.booleans())
def test_many_connections_never_mix(data, compression):
    count = data.draw(st.integers(2, 4))
    streams = [data.draw(valid_streams(compression) | mutated_streams(compression)) for _ in range(count)]
    chunks = [list(split(stream, data.draw(sizes))) for stream in streams]
    order = data.draw(st.permutations([number for number in range(count) for _ in chunks[number]]))
    for stream, answers in zip(streams, interleaved(chunks, order, compression), strict=True):
        agrees(echo(stream, 65536, compression), *answers)
