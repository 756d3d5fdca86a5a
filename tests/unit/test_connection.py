"""One WebSocket on a real socket pair: messages, closing, bounded output."""

import gc
import json
import logging
import random
import socket
import tracemalloc
import types
import weakref
import zlib

import gevent
import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode

from tests.unit.peer import WAIT, Recorder, close_frame, masked, turn
from wsloop.protocol.close_codes import TOO_SLOW
from wsloop.protocol.deflate import Deflate
from wsloop.protocol.dialects import V1_DIALECT
from wsloop.protocol.frames import encode
from wsloop.protocol.parser import MOST_RESTING, parsers
from wsloop.sockets import limits
from wsloop.sockets import websocket as module
from wsloop.sockets.limits import Bounds
from wsloop.sockets.transport import READ
from wsloop.sockets.websocket import WebSocket

CONT, TEXT, BINARY, PING, PONG, CLOSE = (
    Opcode.CONT,
    Opcode.TEXT,
    Opcode.BINARY,
    Opcode.PING,
    Opcode.PONG,
    Opcode.CLOSE,
)


# Messages of the client.


def test_text_and_binary_messages_arrive_as_what_they_are(connect):
    _, peer, handler = connect()
    peer.send(masked(TEXT, "grün".encode()), masked(BINARY, "grün".encode()), masked(TEXT), masked(BINARY))
    assert [handler.next() for _ in range(4)] == ["grün", "grün".encode(), "", b""]


def test_fragments_are_put_together_and_control_frames_may_come_between(connect):
    _, peer, handler = connect()
    peer.send(masked(TEXT, b"one ", fin=False), masked(PING, b"!"), masked(CONT, b"two ", fin=False), masked(PONG))
    assert peer.frame() == Frame(PONG, b"!")
    assert handler.messages.empty()
    peer.send(masked(CONT, b"three"), masked(BINARY, b"\xff", fin=False), masked(CONT, b"\xfe"))
    assert handler.next() == "one two three"
    assert handler.next() == b"\xff\xfe"


def test_a_character_may_be_split_over_fragments(connect):
    _, peer, handler = connect()
    data = "a€😀z".encode()
    for at in range(len(data)):
        peer.send(masked(TEXT, data[:at], fin=False), masked(CONT, data[at:]))
        assert handler.next() == "a€😀z"
    frames = [masked(CONT, data[at : at + 1], fin=False) for at in range(len(data))]
    peer.send(masked(TEXT, b"", fin=False), *frames, masked(CONT, b""))
    assert handler.next() == "a€😀z"


def test_everything_may_arrive_byte_by_byte(connect):
    _, peer, handler = connect()
    conversation = b"".join(
        [
            masked(TEXT, "grün".encode()),
            masked(BINARY, b"x" * 300),
            masked(TEXT, b"\xe2\x82", fin=False),
            masked(PING, b"payload"),
            masked(CONT, b"\xac"),
            close_frame(1000),
        ]
    )
    for at in range(len(conversation)):
        peer.send(conversation[at : at + 1])
        turn(1)
    assert [handler.next() for _ in range(3)] == ["grün", b"x" * 300, "€"]
    assert peer.frame() == Frame(PONG, b"payload")
    assert peer.closing() == 1000


@pytest.mark.parametrize(
    "frames",
    [
        [masked(TEXT, b"\xff")],
        [masked(TEXT, b"abc\xc3")],  # ends within a character
        [masked(TEXT, b"\xed\xa0\x80")],  # a surrogate
        [masked(TEXT, b"\xf4\x90\x80\x80")],  # beyond Unicode
        [masked(TEXT, b"\xc0\x80")],  # longer than need be
        [masked(TEXT, b"ok", fin=False), masked(CONT, b"\xff")],
        [masked(TEXT, b"\xe2\x82", fin=False), masked(CONT, b"", fin=False), masked(CONT, b"")],
    ],
)
def test_text_that_is_not_utf8_closes_with_1007(connect, frames):
    _, peer, handler = connect()
    peer.send(masked(TEXT, b"before"), *frames, masked(TEXT, b"behind"))
    assert peer.closing() == 1007
    peer.close()
    handler.wait_closed()
    assert handler.next() == "before"
    assert handler.messages.empty()
    assert handler.events == ["closing", "closed"]


def test_text_that_is_not_utf8_is_refused_at_once_not_at_the_last_fragment(connect):
    _, peer, _ = connect()
    peer.send(masked(TEXT, b"ok\xff", fin=False))
    assert peer.closing() == 1007


def test_binary_need_not_be_utf8_and_says_nothing_about_the_next_text(connect):
    _, peer, handler = connect()
    peer.send(masked(BINARY, b"\xe2\x82"), masked(TEXT, b"ok"))
    assert [handler.next(), handler.next()] == [b"\xe2\x82", "ok"]


@pytest.mark.parametrize(
    "frames",
    [
        [masked(TEXT, b"x" * 101)],
        [masked(TEXT, b"x" * 60, fin=False), masked(CONT, b"x" * 41)],
        [masked(BINARY, b"x" * 99, fin=False), *[masked(CONT, b"x", fin=False)] * 2],
        [masked(TEXT, b"x" * 1000)[:8]],  # the header is enough
    ],
)
def test_a_message_over_the_bound_closes_with_1009(connect, frames):
    _, peer, handler = connect(max_message_size=100)
    peer.send(*frames)
    assert peer.closing() == 1009
    assert handler.messages.empty()


def test_a_message_of_the_bound_is_taken_each_time(connect):
    _, peer, handler = connect(max_message_size=100)
    peer.send(masked(TEXT, b"x" * 60, fin=False), masked(CONT, b"x" * 40), masked(TEXT, b"y" * 100))
    assert [handler.next(), handler.next()] == ["x" * 100, "y" * 100]


@pytest.mark.parametrize("payload", [b"", b"keepalive", bytes(range(125))])
def test_a_ping_is_answered_with_its_payload(connect, payload):
    _, peer, _ = connect()
    peer.send(masked(PING, payload))
    assert peer.frame() == Frame(PONG, payload)


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x02hi",  # not masked
        b"\xc1" + masked(TEXT, b"hi")[1:],  # reserved bits
        b"\xa1" + masked(TEXT, b"hi")[1:],
        b"\x91" + masked(TEXT, b"hi")[1:],
        b"\x83" + masked(TEXT, b"hi")[1:],  # reserved opcodes
        b"\x8b" + masked(TEXT, b"hi")[1:],
        masked(CONT, b"stray"),
        masked(CONT, b"stray", fin=False),
        masked(TEXT, b"one", fin=False) + masked(TEXT, b"two"),  # begins another message inside of one
        b"\x09" + masked(PING, b"hi")[1:],  # a control frame in fragments
        b"\x89\xfe\x00\x7e" + b"\0" * 130,  # a control frame that is too long
        masked(CLOSE, b"\x03"),  # half a code
        masked(CLOSE, b"\x03\xed"),  # 1005 never appears on the wire
        masked(CLOSE, b"\x00\x01"),
    ],
)
def test_what_is_not_the_protocol_closes_with_1002(connect, data):
    _, peer, handler = connect()
    peer.send(masked(TEXT, b"before"), data, masked(TEXT, b"behind"))
    assert peer.closing() == 1002
    peer.close()
    handler.wait_closed()
    assert handler.next() == "before"
    assert handler.messages.empty()
    assert handler.events == ["closing", "closed"]


def test_a_reason_that_is_not_utf8_closes_with_1007(connect):
    _, peer, _ = connect()
    peer.send(masked(CLOSE, b"\x03\xe8\xff"))
    assert peer.closing() == 1007


def test_an_error_of_the_handler_ends_this_connection_and_is_logged(connect, caplog):
    class Failing(Recorder):
        def received(self, connection, payload, text):
            raise RuntimeError("broken handler")

    _, peer, handler = connect(handler=Failing())
    peer.text("hello")
    handler.wait_closed()
    assert peer.frame() is None
    assert "an error of the server" in caplog.text
    assert "broken handler" in caplog.text


# The closing handshake.


@pytest.mark.parametrize(("sent", "code"), [(close_frame(1000, "bye"), 1000), (close_frame(4321), 4321)])
def test_the_peer_closes_and_what_it_sent_before_is_handled(connect, sent, code):
    connection, peer, handler = connect()
    peer.send(masked(TEXT, b"one"), masked(TEXT, b"two"), sent)
    assert peer.closing() == code
    assert [handler.next(), handler.next()] == ["one", "two"]
    assert not connection.open
    assert handler.events == ["closing"]
    peer.close()
    handler.wait_closed()
    assert handler.events == ["closing", "closed"]


class Busy(Recorder):
    """Holds the connection while a message is handled, as a publisher does until Redis has it."""

    def received(self, connection, payload, text):
        connection.hold()
        super().received(connection, payload, text)


def test_a_close_frame_is_answered_when_the_messages_before_it_are_handled(connect):
    connection, peer, handler = connect(handler=Busy())
    peer.send(masked(TEXT, b"one"), masked(TEXT, b"two"), close_frame(), masked(TEXT, b"late"))
    assert [handler.next(), handler.next()] == ["one", "two"]
    turn()
    assert connection.taking and not connection.open
    connection.release()
    turn()
    assert handler.events == [], "one message is not handled yet"
    connection.reply(b"sent meanwhile", True)
    connection.release()
    assert handler.events == ["closing"]
    assert not connection.taking
    assert peer.message() == "sent meanwhile"
    assert peer.closing() == 1000


def test_a_fault_behind_messages_is_answered_at_once(connect):
    _, peer, handler = connect(handler=Busy())
    peer.send(masked(TEXT, b"one"), b"\xff" * 10)
    assert peer.closing() == 1002
    assert handler.next() == "one"


def test_a_message_that_is_never_handled_delays_the_answer_for_some_seconds_only(connect, monkeypatch):
    monkeypatch.setattr(module, "LAST_MESSAGES", 0.01)
    connection, peer, handler = connect(handler=Busy())
    peer.send(masked(TEXT, b"one"), close_frame())
    assert peer.closing() == 1000
    connection.release()
    assert handler.events == ["closing"]


@pytest.mark.parametrize("end", ["abort", "fail"])
def test_the_end_while_a_close_frame_is_unanswered(connect, end):
    connection, peer, handler = connect(handler=Busy())
    peer.send(masked(TEXT, b"one"), close_frame())
    handler.next()
    turn()
    connection.close(1012, "restarting")  # the client's own close frame is here already
    assert connection.taking
    waiting = weakref.ref(connection._deadline)
    if end == "abort":
        connection.abort()
        assert peer.frame() is None
    else:
        connection.fail(4029, "too many frames")
        assert peer.closing() == 4029
    connection.release()
    turn()
    gc.collect()
    assert waiting() is None, "nothing waits any longer"


def test_a_close_frame_without_a_code_is_answered_without_one(connect):
    _, peer, _ = connect()
    peer.send(masked(CLOSE))
    assert peer.frame() == Frame(CLOSE, b"")
    assert peer.frame() is None


def test_nothing_is_handled_behind_the_close_frame(connect):
    _, peer, handler = connect()
    peer.send(close_frame(), masked(TEXT, b"late"), masked(PING, b"late"))
    assert peer.closing() == 1000
    peer.text("later")
    peer.close()
    handler.wait_closed()
    assert handler.messages.empty()


def test_we_close_and_output_that_waits_goes_first(connect):
    connection, peer, handler = connect()
    connection.enqueue(encode(b"one", True))
    connection.enqueue(encode(b"two", False))
    connection.close(1012, "server restarting")
    assert not connection.open
    assert handler.events == ["closing"]
    assert peer.messages(2) == ["one", b"two"]
    assert peer.frame() == Frame(CLOSE, Close(1012, "server restarting").serialize())
    assert handler.events == ["closing"], "the peer has neither answered nor hung up"
    peer.send(close_frame(1012))
    assert peer.frame() is None, "the server ends the stream when both have closed"
    peer.close()
    handler.wait_closed()
    assert handler.events == ["closing", "closed"]


def test_what_the_peer_says_while_we_close_is_not_handled(connect):
    connection, peer, handler = connect()
    connection.close(1001)
    peer.send(masked(TEXT, b"late"), masked(TEXT, b"\xff"), close_frame(1001))
    peer.frame()
    peer.close()
    handler.wait_closed()
    assert handler.messages.empty()
    assert handler.events == ["closing", "closed"]


def test_closing_again_does_nothing(connect):
    connection, peer, handler = connect()
    connection.close(1001)
    connection.close(1011)
    peer.send(close_frame(1001))
    assert peer.closing() == 1001
    assert handler.events == ["closing"]


def test_frames_are_not_taken_while_closing(connect):
    connection, peer, _ = connect()
    connection.close(1001)
    assert connection.enqueue(encode(b"late", True)) is False
    connection.flush()
    peer.send(close_frame(1001))
    assert peer.closing() == 1001


def test_the_handler_may_close_from_within_a_message(connect):
    class Strict(Recorder):
        def received(self, connection, payload, text):
            super().received(connection, payload, text)
            connection.close(1008, "not allowed")

    _, peer, handler = connect(handler=Strict())
    peer.send(masked(TEXT, b"one"), masked(TEXT, b"two"))
    assert peer.frame() == Frame(CLOSE, Close(1008, "not allowed").serialize())
    peer.close()
    handler.wait_closed()
    assert handler.next() == "one"
    assert handler.messages.empty()
    assert handler.events == ["closing", "closed"]


def test_the_handler_may_abort_from_within_a_message(connect):
    class Harsh(Recorder):
        def received(self, connection, payload, text):
            super().received(connection, payload, text)
            connection.abort()

    _, peer, handler = connect(handler=Harsh())
    peer.send(masked(TEXT, b"one"), masked(TEXT, b"two"), masked(PING))
    handler.wait_closed()
    assert handler.next() == "one"
    assert handler.messages.empty()
    assert handler.events == ["closed"]


# The end without a closing handshake.


def test_aborting_twice_tells_once(connect):
    connection, peer, handler = connect()
    connection.abort()
    connection.abort()
    assert handler.events == ["closed"]
    assert not connection.open
    assert peer.frame() is None


def test_a_connection_that_has_ended_takes_calls_and_does_nothing(connect):
    connection, _, handler = connect()
    connection.hold()
    connection.abort()
    assert connection.enqueue(encode(b"late", True)) is False
    connection.flush()
    connection.release()
    connection.close(1001)
    connection.ready(3)
    assert handler.events == ["closed"]


def test_the_peer_hangs_up(connect):
    _, peer, handler = connect()
    peer.close()
    handler.wait_closed()
    assert handler.events == ["closed"]


def test_the_peer_ends_its_half_only(connect):
    _, peer, handler = connect()
    peer.socket.shutdown(socket.SHUT_WR)
    handler.wait_closed()
    assert peer.frame() is None


def test_the_line_is_reset(connect, tcp_pair):
    _, peer, handler = connect(sockets=tcp_pair())
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # close() sends a reset
    peer.close()
    handler.wait_closed()
    assert handler.events == ["closed"]


def test_the_line_is_found_broken_while_writing(connect):
    connection, peer, handler = connect()
    connection.hold()  # so that it is not found by reading
    peer.close()
    connection.enqueue(encode(b"hello", True))
    connection.flush()
    assert handler.events == ["closed"]


def test_nothing_is_left_when_it_has_ended(descriptors, pair):
    class Watched(WebSocket):
        pass  # unlike its base it can be watched with a weak reference

    before = descriptors()
    transport, peer = pair()
    handler = Recorder()
    connection = Watched(transport, handler, Bounds(1000, 1000))
    connection.start()
    references = [weakref.ref(connection), weakref.ref(connection._protocol), weakref.ref(connection._handler)]
    peer.send(masked(TEXT, b"hello"), close_frame())
    assert peer.closing() == 1000
    peer.close()
    handler.wait_closed()
    del connection, handler
    assert not gc.isenabled()
    assert [reference() for reference in references] == [None] * 3, "something waits for the garbage collector"
    assert descriptors() == before


# Output.


def numbered(count, size=100):
    return [f"{number} ".ljust(size, "x") for number in range(count)]


def test_what_gathers_leaves_in_one_write(connect):
    connection, peer, _ = connect(kind=socket.SOCK_SEQPACKET)  # which keeps writes apart
    assert connection.enqueue(encode(b"one", True)) is True, "the caller has to see to a flush"
    assert connection.enqueue(encode(b"two", True)) is False, "it does already"
    connection.flush()
    assert peer.socket.recv(1000) == encode(b"one", True) + encode(b"two", True)
    assert connection.enqueue(encode(b"three", True)) is True
    connection.flush()
    assert peer.socket.recv(1000) == encode(b"three", True)


def test_a_slow_reader_gets_everything_in_order(connect):
    connection, peer, _ = connect(max_queued_bytes=10**7, send_buffer=1)  # the kernel makes it its smallest
    messages = numbered(5000)
    for at, message in enumerate(messages):
        connection.enqueue(encode(message.encode(), True))
        if not at % 7:
            connection.flush()
        if not at % 50:
            peer.send(masked(PING, b"%d" % at))  # pongs go in between, at the boundaries of frames
            turn(1)
    connection.flush()
    assert connection._writing, "the kernel has taken everything: this test shows nothing"
    received, pongs = [], []
    while len(received) < 5000 or pongs[-1:] != ["4950"]:
        frame = peer.frame()
        (pongs if frame.opcode is PONG else received).append(frame.data.decode())
    turn()
    assert connection._transport._events == READ, "the loop is still told of room to write, at every turn"
    assert received == messages
    assert pongs == sorted(pongs, key=int)
    assert set(pongs) <= {str(at) for at in range(0, 5000, 50)}


def test_what_waits_goes_out_before_a_close_frame_and_the_end_of_the_stream(connect):
    connection, peer, _ = connect(max_queued_bytes=10**7, send_buffer=1)
    messages = numbered(1000)
    for message in messages:
        connection.enqueue(encode(message.encode(), True))
    connection.flush()
    assert connection._writing
    peer.send(b"\x81\x02hi")  # not masked
    turn()
    assert not connection.open
    assert peer.messages(1000) == messages
    assert peer.closing() == 1002


def test_one_message_larger_than_the_kernel_takes(connect):
    connection, peer, _ = connect(max_queued_bytes=10**7, send_buffer=1)
    connection.enqueue(encode(b"x" * 1_000_000, True))
    connection.enqueue(encode(b"next", True))
    connection.flush()
    assert peer.messages(2) == ["x" * 1_000_000, "next"]


def test_what_was_written_is_counted_off_the_bound(connect):
    connection, peer, _ = connect(max_queued_bytes=1000, send_buffer=1)
    for message in numbered(500):
        connection.enqueue(encode(message.encode(), True))
        connection.flush()
        assert peer.message() == message
    assert connection.open


def fill(connection, size=700):
    """Enqueue messages of ``size`` bytes until it is too much; return how many bytes were given to it."""
    given = 0
    while connection.accepting:
        frame = encode(b"x" * size, True)
        given += len(frame)
        assert given < 10**7, "output is not bounded"
        connection.enqueue(frame)
        if connection.accepting:
            connection.flush()
    return given


def fill_until_blocked(connection, size=700):
    while not connection._writing:
        connection.enqueue(encode(b"x" * size, True))
        connection.flush()


@pytest.mark.parametrize(("size", "cut"), [(700, False), (20_000, True)])
@pytest.mark.parametrize("read_before", [0, 1, 333, 5000])
def test_output_over_the_bound_closes_with_4008_when_the_peer_reads_again(connect, size, cut, read_before, caplog):
    connection, peer, handler = connect(max_queued_bytes=100_000, send_buffer=1)
    fill_until_blocked(connection, size)
    if read_before:
        peer._protocol.receive_data(peer.socket.recv(read_before))
        turn()  # the kernel may have room again, within a frame
    fill(connection, size)
    assert bool(connection._sent) is cut, "whether a part of a frame is out: this test shows nothing"
    connection.flush()
    assert connection._queued_bytes < size + 200, "what waits was not thrown away"
    assert connection.enqueue(encode(b"late", True)) is False
    assert handler.events == ["closing"]
    assert "Closed a slow client" in caplog.text
    count = 0
    while (frame := peer.frame()).opcode is TEXT:
        assert len(frame.data) == size, "a frame was cut"
        count += 1
    assert count
    assert frame.opcode is CLOSE
    assert Close.parse(frame.data).code == TOO_SLOW == 4008
    peer.send(close_frame(4008))
    assert peer.frame() is None
    peer.close()
    handler.wait_closed()
    assert handler.events == ["closing", "closed"]


def test_output_over_the_bound_is_given_up_while_it_waits(connect):
    connection, _, _ = connect(max_queued_bytes=50_000, send_buffer=1)
    given = fill(connection)
    connection.flush()
    assert given > 50_000
    assert connection._queued_bytes < 1000, "only the rest of the frame that is on its way, and the close frame"
    assert sum(map(len, connection._queue)) < 2000


def test_a_single_frame_over_the_bound_is_no_sign_of_a_slow_client(connect):
    connection, peer, _ = connect(max_queued_bytes=1000)
    for _ in range(2):
        assert connection.enqueue(encode(b"x" * 2000, True)) is True
        connection.flush()
        assert peer.message() == "x" * 2000
    assert connection.open


def test_a_frame_behind_one_that_waits_is_bounded(connect):
    connection, peer, _ = connect(max_queued_bytes=1000)
    connection.enqueue(encode(b"x" * 900, True))
    connection.enqueue(encode(b"x" * 200, True))
    connection.flush()
    peer.send(close_frame(4008))
    assert peer.closing() == 4008


def test_pongs_that_nobody_reads_do_not_pile_up_and_the_latest_is_sent(connect):
    connection, peer, _ = connect(send_buffer=1)
    for number in range(20_000):
        peer.send(masked(PING, b"%0125d" % number))
        if not number % 10:
            turn(1)
    turn()
    assert connection._writing, "the kernel has taken everything: this test shows nothing"
    assert connection.open
    assert len(connection._queue) <= 12, "those of one read, and the one before"
    numbers = [int(peer.frame().data)]
    while numbers[-1] != 19_999:
        numbers.append(int(peer.frame().data))
    assert numbers == sorted(numbers)
    assert len(numbers) < 20_000


# Holding.


def test_a_held_connection_is_not_read_until_it_is_released_as_often(connect):
    connection, peer, handler = connect()
    connection.hold()
    connection.hold()
    peer.text("held")
    turn()
    connection.release()
    turn()
    assert handler.messages.empty()
    connection.release()
    assert handler.next() == "held"
    peer.text("again")
    assert handler.next() == "again"


def test_a_held_connection_still_writes(connect):
    connection, peer, _ = connect(max_queued_bytes=10**7, send_buffer=1)
    connection.hold()
    messages = numbered(1000)
    for message in messages:
        connection.enqueue(encode(message.encode(), True))
    connection.flush()
    assert peer.messages(1000) == messages


def test_a_connection_released_while_it_writes_reads_again(connect):
    connection, peer, handler = connect(max_queued_bytes=10**7, send_buffer=1)
    connection.hold()
    fill_until_blocked(connection)
    connection.release()
    peer.text("hello")
    assert handler.next() == "hello"


def test_a_handler_that_holds_gets_the_messages_of_one_chunk_nevertheless(connect):
    class Holding(Recorder):
        def received(self, connection, payload, text):
            super().received(connection, payload, text)
            connection.hold()

    connection, peer, handler = connect(handler=Holding())
    peer.send(masked(TEXT, b"one"), masked(TEXT, b"two"))
    assert [handler.next(), handler.next()] == ["one", "two"]
    peer.text("three")
    turn()
    assert handler.messages.empty()
    connection.release()
    connection.release()
    assert handler.next() == "three"


# Frames.


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("text", [True, False])
def test_frames_of_every_length_can_be_read(connect, size, text):
    connection, peer, _ = connect()
    connection.enqueue(encode(b"x" * size, text))
    connection.flush()
    assert peer.message() == ("x" * size if text else b"x" * size)


def test_an_idle_connection_keeps_no_queue(connect):
    connection, peer, _ = connect()
    connection.enqueue(encode(b"hello", True))
    connection.flush()
    assert peer.message() == "hello"
    assert connection._queue is None
    assert not hasattr(connection, "__dict__")


@pytest.mark.parametrize(
    "opcode",
    [TEXT, PING, PONG],
)
def test_a_sign_of_life_is_noted(connect, opcode):
    connection, peer, _ = connect()
    connection.alive = False
    peer.send(masked(opcode))
    turn()
    assert connection.alive


def test_bytes_that_the_kernel_takes_after_it_was_full_are_a_sign_of_life(connect):
    connection, peer, _ = connect(max_queued_bytes=10**7, send_buffer=1)
    connection.enqueue(encode(b"x" * 300_000, False))
    connection.flush()
    assert connection._writing
    connection.alive = False
    turn()
    assert not connection.alive, "the peer has not read"
    peer.socket.recv(65536)
    turn()
    assert connection.alive


def test_the_parser_does_not_log_frames(connect, caplog):
    with caplog.at_level(logging.DEBUG):
        _, peer, handler = connect()
        peer.text("secret")
        assert handler.next() == "secret"
    assert "secret" not in caplog.text


# What a client may do: frames a second, and how they arrive.


@pytest.fixture
def clock(monkeypatch):
    """The time that frames are counted by; ``clock.now += 1`` lets a second pass."""
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(limits, "monotonic", lambda: clock.now)
    return clock


def test_pongs_that_come_one_by_one_count_as_frames(connect, clock, reached):
    connection, peer, handler = connect(rate=10, burst=20)
    for _ in range(19):
        peer.send(masked(PONG))
        turn()
    assert connection.open
    assert connection._parser is None, "they need none"
    for _ in range(2):
        peer.send(masked(PONG))
        turn()
    assert handler.events == ["closing"]
    assert reached("RATE_LIMIT") == 1
    assert Close.parse(peer.frame().data) == Close(4029, "too many frames")


def test_a_pong_within_a_message_is_no_part_of_it(connect):
    _, peer, handler = connect()
    for data in (masked(TEXT, b"a", fin=False), masked(PONG), masked(CONT, b"b")):
        peer.send(data)
        turn()
    assert handler.messages.get(timeout=WAIT) == "ab"
    begin = masked(TEXT, b"x" * 20)
    for data in (begin[:10], begin[10:]):  # six bytes more of a message may look like one
        peer.send(data)
        turn()
    assert handler.messages.get(timeout=WAIT) == "x" * 20


@pytest.mark.parametrize(
    "frame",
    [
        masked(TEXT, b"x"),
        masked(BINARY, b""),
        masked(PING, b"x"),
        masked(PONG),
        masked(CONT, b"", fin=False),
    ],
    ids=["text", "binary", "ping", "pong", "empty fragment"],
)
def test_more_frames_than_the_burst_close_with_4029(connect, clock, reached, frame):
    connection, peer, handler = connect(rate=10, burst=20)
    peer.send(masked(TEXT, b"", fin=False) if frame[0] == 0 else frame, frame * 19)
    turn()
    assert connection.open
    count = handler.messages.qsize()
    peer.send(frame)
    turn()
    assert handler.events == ["closing"]
    assert handler.messages.qsize() == count, "what is too much is not handled"
    assert reached("RATE_LIMIT") == 1
    while (answer := peer.frame()).opcode is PONG:
        pass
    assert Close.parse(answer.data) == Close(4029, "too many frames")
    assert peer.frame() is None, "it is not waited for an answer"


def test_frames_at_the_rate_are_taken_for_ever(connect, clock):
    connection, peer, handler = connect(rate=10, burst=1)
    for number in range(100):
        peer.text(str(number))
        assert handler.next() == str(number)
        clock.now += 0.1
    assert connection.open


def test_what_was_not_used_is_not_saved_up_beyond_the_burst(connect, clock):
    connection, peer, _ = connect(rate=10, burst=20)
    clock.now += 3600
    peer.send(masked(TEXT, b"x") * 21)
    turn()
    assert not connection.open


def test_a_flood_in_one_packet_is_not_parsed_to_its_end(connect, clock):
    """The bound is looked at after each slice, so the work for one read is bounded, however small the frames."""
    connection, peer, handler = connect(rate=10, burst=20)
    peer.send(masked(TEXT, b"") * 10_000)
    turn()
    assert not connection.open
    assert handler.messages.qsize() == 0
    assert peer.closing() == 4029


def test_a_peer_that_floods_after_our_close_frame_is_not_listened_to_any_more(connect, clock):
    connection, peer, _ = connect(rate=10, burst=20)
    connection.close(1012)
    peer.send(masked(PING) * 100)
    turn()
    assert connection._protocol.eof_sent, "it is not waited for the answer to the close frame"
    assert peer.closing() == 1012


def test_after_our_close_frame_nothing_is_handled_nor_answered(connect):
    connection, peer, handler = connect()
    peer.send(masked(TEXT, b"abc", fin=False))
    turn()
    connection.close(4001, "signed out")
    peer.send(masked(CONT, b"def"), masked(TEXT, b"x"), masked(PING, b"x"), b"\xff\xff garbage")
    turn()
    assert handler.messages.qsize() == 0
    assert peer.closing() == 4001


class Pausing(Recorder):
    """Keeps connections on hold, as the hub does for a moment."""

    def __init__(self):
        super().__init__()
        self.paused = []

    def pausing(self, connection):
        self.paused.append(connection)


def test_a_peer_that_trickles_is_read_again_only_after_a_pause(connect):
    connection, peer, handler = connect(handler=Pausing())
    message = masked(TEXT, b"hello")
    for at in range(module.PATIENCE):
        peer.send(message[at : at + 1])
        turn()
    assert not handler.paused, "a frame may come in some pieces"
    peer.send(message[module.PATIENCE : module.PATIENCE + 1])
    turn()
    assert handler.paused == [connection]
    peer.send(message[module.PATIENCE + 1 :])
    turn()
    assert handler.messages.empty(), "it is not read meanwhile"
    connection.release()
    assert handler.next() == "hello"
    for at in range(module.PATIENCE):
        peer.send(message[at : at + 1])
        turn()
    assert len(handler.paused) == 1, "a read that completes a frame begins the count anew"


def test_a_large_message_in_large_pieces_is_not_paused(connect):
    _, peer, handler = connect(handler=Pausing())
    message = masked(BINARY, b"x" * 60_000)
    for start in range(0, len(message), 2000):
        peer.send(message[start : start + 2000])
        turn(1)
    assert handler.next() == b"x" * 60_000
    assert not handler.paused


def test_what_comes_while_closing_is_thrown_away_at_a_bounded_speed(connect):
    connection, peer, handler = connect(handler=Pausing())
    peer.send(b"\x81\x02hi")  # not masked
    turn()
    assert peer.closing() == 1002
    for count in range(1, 4):
        peer.send(b"x" * 1000)
        turn()
        assert handler.paused == [connection] * count
        connection.release()


@pytest.mark.parametrize("fragments", [1, 2, 100])
def test_a_message_that_is_too_big_is_counted(connect, reached, fragments):
    _, peer, handler = connect(max_message_size=1000)
    peer.send(masked(TEXT, b"", fin=False))
    for _ in range(fragments):
        peer.send(masked(CONT, b"x" * (1000 // fragments + 1), fin=False))
        turn()
    assert peer.closing() == 1009
    assert reached("MAX_MESSAGE_SIZE") == 1
    assert handler.messages.qsize() == 0


# Compression.


@pytest.fixture
def deflate():
    """What the handshake agrees on with a client that asks for a window of so many bits."""

    def make(window_bits=15):
        return [Deflate(15, window_bits)]

    return make


def compressed(opcode, payload, fin=True):
    return Frame(opcode, payload, fin).serialize(mask=True, extensions=[PerMessageDeflate(True, True, 15, 15)])


@pytest.mark.parametrize("payload", [b"", b"x", b"hello " * 1000, bytes(range(256)) * 200])
def test_compressed_messages_are_understood(connect, deflate, payload):
    _, peer, handler = connect(extensions=deflate())
    peer.send(compressed(BINARY, payload))
    assert handler.next() == payload
    peer.send(masked(BINARY, payload))
    assert handler.next() == payload, "each message may be compressed or not"


def test_without_agreement_a_compressed_frame_is_an_error(connect):
    _, peer, _ = connect()
    peer.send(compressed(TEXT, b"hello"))
    assert peer.closing() == 1002


@pytest.mark.parametrize("window_bits", range(9, 16))
def test_frames_are_compressed_as_far_as_the_client_can_take(window_bits):
    payload = b"the same again and again " * 400
    frame = encode(payload, True, window_bits)
    assert frame[0] == 0xC1, "RSV1 says that it is compressed (RFC 7692, section 6)"
    assert len(frame) < len(payload) / 10
    inflater = zlib.decompressobj(-window_bits)
    body = frame[4:] if frame[1] == 126 else frame[2:]
    assert inflater.decompress(body + b"\x00\x00\xff\xff") == payload


def test_what_does_not_become_smaller_is_sent_as_it_is():
    payload = random.Random(1).randbytes(2000)
    assert encode(payload, False, 15) == encode(payload, False)


def test_replies_are_compressed_from_the_threshold_on(pair, deflate):
    transport, peer = pair()
    bounds = Bounds(65536, 10**6, compress_from=100)
    connection = WebSocket(transport, Recorder(), bounds, deflate())
    connection.start()
    connection.reply(b"x" * 99, True)
    connection.reply(b"x" * 100, True)
    connection.flush()
    assert peer.socket.recv(65536) == encode(b"x" * 99, True) + encode(b"x" * 100, True, 15)
    assert encode(b"x" * 100, True, 15)[0] == 0xC1
    connection.abort()


def test_a_bomb_is_refused_before_it_is_built(connect, deflate, reached):
    bomb = compressed(BINARY, bytes(10_000_000))
    assert len(bomb) < 10_300
    _, peer, handler = connect(extensions=deflate())
    tracemalloc.start()
    try:
        peer.send(bomb)
        assert peer.closing() == 1009
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert handler.messages.qsize() == 0
    assert reached("MAX_MESSAGE_SIZE") == 1


def test_a_bomb_in_fragments_is_refused_at_the_bound(connect, deflate):
    _, peer, handler = connect(extensions=deflate())
    extension = PerMessageDeflate(True, True, 15, 15)
    opcode = BINARY
    for _ in range(20):
        peer.send(Frame(opcode, bytes(30_000), fin=False).serialize(mask=True, extensions=[extension]))
        opcode = CONT
    turn()
    assert peer.closing() == 1009
    assert handler.messages.qsize() == 0


@pytest.mark.parametrize("size", [65_535, 65_536])
def test_the_largest_message_is_taken_even_if_compression_makes_it_larger(connect, deflate, size):
    payload = random.Random(1).randbytes(size)
    frame = compressed(BINARY, payload)
    assert len(frame) > size + 20
    _, peer, handler = connect(extensions=deflate())
    peer.send(frame)
    assert handler.next() == payload


@pytest.mark.parametrize("payload", [b"x" * 65_537, random.Random(1).randbytes(65_537)], ids=["same", "random"])
def test_one_byte_more_is_too_big_compressed_or_not(connect, deflate, payload):
    for frame in (masked(BINARY, payload), compressed(BINARY, payload)):
        _, peer, handler = connect(extensions=deflate())
        peer.send(frame)
        assert peer.closing() == 1009
        assert handler.messages.qsize() == 0


def test_a_close_frame_between_fragments_is_answered(connect):
    """Autobahn 7.1.5; control frames may come between the fragments of a message (RFC 6455, section 5.4)."""
    _, peer, handler = connect()
    peer.send(masked(TEXT, b"abc", fin=False), close_frame(1000), masked(CONT, b"def"))
    assert peer.closing() == 1000
    assert handler.messages.qsize() == 0


def test_bad_text_and_a_close_frame_in_one_packet_get_1007(connect):
    _, peer, handler = connect()
    peer.send(masked(TEXT, b"good"), masked(TEXT, b"\xff"), close_frame(1000))
    assert handler.next() == "good"
    assert peer.closing() == 1007


def test_replies_and_pongs_leave_in_the_order_of_what_they_answer(pair):
    class Echo(Recorder):
        def received(self, connection, payload, text):
            connection.reply(payload, text)

    transport, peer = pair()
    connection = WebSocket(transport, Echo(), Bounds(65536, 10**6))
    connection.start()
    peer.send(
        masked(TEXT, b"one"),
        masked(TEXT, b"tw", fin=False),
        masked(PING, b"first"),
        masked(CONT, b"o"),
        masked(PING, b"second"),
        masked(BINARY, b"three"),
        close_frame(1000),
    )
    expected = [(TEXT, b"one"), (PONG, b"first"), (TEXT, b"two"), (PONG, b"second"), (BINARY, b"three")]
    assert [(frame.opcode, frame.data) for frame in (peer.frame() for _ in range(5))] == expected
    assert peer.closing() == 1000


class Waiting(Recorder):
    """Lets a second pass whenever the connection pauses, and counts how often."""

    def __init__(self, clock):
        super().__init__()
        self.clock, self.waits = clock, 0

    def pausing(self, connection):
        self.clock.now += 1
        self.waits += 1
        gevent.spawn(connection.release)


def test_large_messages_count_by_their_size_and_what_follows_waits(connect, clock, reached):
    handler = Pausing()
    connection, peer, _ = connect(rate=10, burst=20, handler=handler)
    for _ in range(3):
        peer.send(masked(BINARY, bytes(65_536)))
        assert len(handler.next()) == 65_536
    assert not handler.paused, "the largest message takes half of what may come at once"
    peer.text("next")
    turn()
    assert handler.paused
    assert handler.messages.empty()
    clock.now += 1
    connection.release()
    assert handler.next() == "next"
    assert connection.open
    assert reached("RATE_LIMIT") == 0


def test_with_room_for_more_4_kib_count_as_a_frame(connect, clock):
    handler = Pausing()
    connection, peer, _ = connect(rate=10, burst=100, handler=handler)
    for _ in range(7):
        peer.send(masked(BINARY, bytes(65_535)))
        assert len(handler.next()) == 65_535
    peer.text("next")
    turn()
    assert handler.paused, "15 each"
    assert connection.open


LARGE = 4 * 1024 * 1024


@pytest.mark.parametrize(
    ("piece", "burst"),
    [(LARGE, 4), (LARGE, 200), (65_536, 4), (65_536, 200), (4096, 200), (4082, 200), (1000, 4), (100, 200)],
)
def test_a_message_that_the_size_allows_is_never_too_much_by_itself(connect, clock, reached, burst, piece):
    """However it is cut into frames; nor is the next one."""
    handler = Waiting(clock)
    connection, peer, _ = connect(max_message_size=LARGE, rate=100, burst=burst, handler=handler)
    pieces = range(0, LARGE, piece)
    frames = [
        masked(TEXT if start == 0 else CONT, bytes(min(piece, LARGE - start)), fin=start + piece >= LARGE)
        for start in pieces
    ]
    sender = gevent.spawn(peer.send, b"".join(frames), masked(TEXT, b"next"))
    assert len(handler.next()) == LARGE
    assert handler.next() == "next"
    sender.get(timeout=WAIT)
    assert connection.open
    assert reached("RATE_LIMIT") == 0
    # Fragments wait where there are many: 2000 a second are read, and 20 times the burst at once.
    assert len(frames) / 2000 - 1 - burst / 100 <= handler.waits <= len(frames) / (20 * min(burst, 100)) + 5


def test_nor_is_one_that_arrives_in_tiny_segments(connect, clock, reached):
    """Each segment is read by itself, and completes no frame."""
    handler = Waiting(clock)
    connection, peer, _ = connect(max_message_size=LARGE, rate=100, burst=200, handler=handler)
    whole = masked(BINARY, bytes(LARGE))
    for start in range(0, 40 * 100, 100):
        peer.send(whole[start : start + 100])
        turn()
    sender = gevent.spawn(peer.send, whole[4000:])
    assert len(handler.next()) == LARGE
    sender.get(timeout=WAIT)
    assert connection.open
    assert reached("RATE_LIMIT") == 0


def test_nor_is_one_that_comes_compressed(connect, clock, deflate):
    connection, peer, handler = connect(max_message_size=LARGE, rate=0.5, burst=10, extensions=deflate())
    peer.send(compressed(BINARY, bytes(LARGE)))
    assert len(handler.next()) == LARGE
    assert connection.open


def test_a_flood_of_fragments_is_read_at_its_rate_and_no_faster(connect, clock):
    handler = Pausing()
    connection, peer, _ = connect(rate=10, burst=20, handler=handler)
    peer.send(masked(BINARY, b"x", fin=False) + masked(CONT, b"x", fin=False) * 10_000)
    turn()
    for second in range(5):
        assert handler.paused
        # One that is looked at has up to a slice of them more.
        most = limits.SHARED * (20 + 10 * second) + (second + 1) * module.SLICE // 7
        assert len(connection._fragments._payload) <= most
        handler.paused.clear()
        clock.now += 1
        connection.release()
        turn()
    assert connection.open


def test_small_frames_that_decompress_to_much_count_as_much(connect, clock, deflate):
    handler = Pausing()
    connection, peer, _ = connect(rate=10, burst=20, extensions=deflate(), handler=handler)
    frame = compressed(BINARY, bytes(65_536))
    assert len(frame) < 100
    peer.send(frame * 20)
    turn()
    assert handler.paused
    assert handler.messages.qsize() <= 3 + module.COMPRESSED_SLICE // len(frame)
    assert connection.open


class Holding(Recorder):
    """Holds the connection with every message, as one does that hands it to Redis."""

    def received(self, connection, payload, text):
        connection.hold()
        super().received(connection, payload, text)


def test_of_one_read_no_more_is_handled_than_of_a_slice_until_it_is_released(connect):
    connection, peer, handler = connect(handler=Holding())
    count = 3 * module.SLICE // 106
    expected = [f"{number:0100}" for number in range(count)]
    peer.send(b"".join(masked(TEXT, text.encode()) for text in expected))
    turn()
    handled = handler.messages.qsize()
    assert 0 < handled <= module.SLICE // 106 + 1
    received = []
    while len(received) < count:
        received.append(handler.next())
        connection.release()
        turn()
    assert received == expected
    assert connection._transport._events == READ


def test_what_is_left_of_a_read_is_forgotten_with_the_connection(connect):
    connection, peer, handler = connect(handler=Holding())
    peer.send(masked(TEXT, b"x" * 100) * 100)
    turn()
    assert connection._rest
    connection.abort()
    assert not connection._rest
    handled = handler.messages.qsize()
    connection.release()
    turn()
    assert handler.messages.qsize() == handled


def test_an_error_while_the_rest_is_handled_ends_the_connection(connect, caplog):
    class Failing(Holding):
        def received(self, connection, payload, text):
            if self.messages.qsize() > 10:
                raise ZeroDivisionError
            super().received(connection, payload, text)

    connection, peer, handler = connect(handler=Failing(), max_message_size=100_000)
    peer.send(masked(TEXT, b"x" * 2000) * 2, masked(TEXT, b"x" * 2000) * 20)
    for _ in range(30):
        turn()
        connection.release() if connection._held else None
    handler.wait_closed()
    assert "error of the server" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_too_many_frames_are_not_handled_even_if_a_close_frame_comes_with_them(connect, clock, reached):
    _, peer, handler = connect(rate=10, burst=20)
    peer.send(masked(TEXT, b"x") * 30, close_frame(1000))
    assert peer.closing() == 1000
    assert handler.messages.empty()
    assert reached("RATE_LIMIT") == 1


def test_where_input_may_be_compressed_little_of_it_is_inflated_before_it_is_counted(connect, clock, deflate):
    inflated = []

    class Watched(Deflate):
        def decode(self, frame, **options):
            decoded = super().decode(frame, **options)
            inflated.append(len(decoded.data))
            return decoded

    handler = Pausing()
    _, peer, _ = connect(rate=10, burst=20, extensions=[Watched(15, 15)], handler=handler)
    peer.send(compressed(BINARY, bytes(60_000)) * 100)
    turn()
    assert handler.paused
    assert sum(inflated) <= 60_000 * (3 + module.COMPRESSED_SLICE // 64 + 1)


def test_connections_of_one_user_wait_for_each_other_and_none_is_closed(connect, clock, reached):
    together = limits.Bucket()
    members = [connect(rate=10, burst=20, handler=Pausing()) for _ in range(2 * limits.SHARED)]
    for connection, peer, _ in members:
        connection.meter.shared = together
        peer.send(masked(TEXT, b"x") * 20)
    turn()
    handled = sum(handler.messages.qsize() for _, _, handler in members)
    burst = 20 * limits.SHARED
    assert burst <= handled <= burst + 20
    waiting = [(connection, handler) for connection, _, handler in members if handler.paused]
    assert len(waiting) >= limits.SHARED - 1
    connection, handler = waiting[0]
    connection.release()
    assert handler.messages.empty(), "it goes on waiting as long as there is no room"
    clock.now += 10
    for connection, handler in waiting:
        connection.release()
        assert handler.messages.qsize() == 20, "nothing is lost"
        clock.now += 10
    assert all(connection.open for connection, _, _ in members)
    assert reached("RATE_LIMIT") == 0


# Of what is not read, the newest of each channel.

RATES, WEATHER = b"rates", b"weather"


def put(connection, channel, text):
    return connection.enqueue(encode(text.encode(), True), channel)


def test_who_reads_gets_every_message(connect):
    connection, peer, _ = connect()
    assert put(connection, RATES, "1") is True, "the caller has to see to a flush"
    assert put(connection, RATES, "2") is False
    assert put(connection, WEATHER, "3") is False
    connection.flush()
    assert peer.messages(3) == ["1", "2", "3"]
    assert connection.clear


def test_who_does_not_read_gets_the_newest_of_each_channel_in_their_order(connect, lost):
    connection, peer, _ = connect(send_buffer=1)
    fill_until_blocked(connection)
    waiting = connection._queued_bytes
    for number in range(1000):
        assert put(connection, RATES, f"rate {number}") is False
        if number < 500:
            put(connection, WEATHER, f"weather {number}")
    connection.flush()
    assert connection._queued_bytes == waiting
    assert connection.open
    while set(message := peer.message()) == {"x"}:
        pass
    assert [message, peer.message()] == ["weather 499", "rate 999"]
    turn()
    assert connection.clear
    put(connection, RATES, "next")
    connection.flush()
    assert peer.message() == "next"
    assert lost("replaced") == 999 + 499


def test_the_newest_that_do_not_fit_into_the_kernel_are_replaced_again(connect):
    connection, peer, _ = connect(send_buffer=1, max_queued_bytes=100_000)
    fill_until_blocked(connection)
    put(connection, RATES, "1" * 20_000)
    while set(peer.message()) == {"x"} and not connection._sent:
        turn()
    put(connection, RATES, "2" * 20_000)
    put(connection, RATES, "3" * 20_000)
    found = []
    while "3" * 20_000 not in found:
        found.append(peer.message())
    assert {"1" * 20_000, "2" * 20_000} & set(found) <= {"1" * 20_000}, (
        "one on its way is completed, one that waits is not"
    )


def test_what_must_not_be_replaced_goes_before_and_is_bounded(connect):
    connection, peer, _ = connect(send_buffer=1, max_queued_bytes=50_000)
    fill_until_blocked(connection)
    put(connection, RATES, "rate")
    connection.enqueue(encode(b"a ping, say", True))
    while set(message := peer.message()) == {"x"}:
        pass
    assert [message, peer.message()] == ["a ping, say", "rate"]
    fill(connection)
    connection.flush()
    assert not connection.open, "other output is bounded as ever"


def test_what_one_turn_brings_beyond_the_bound_is_replaced(connect):
    connection, peer, _ = connect(max_queued_bytes=1000)
    for number in range(100):
        put(connection, RATES, str(number).ljust(100))
    connection.flush()
    found = [int(peer.message())]
    while found[-1] != 99:
        found.append(int(peer.message()))
    assert len(found) < 15
    assert found == sorted(found)
    assert connection.open


def test_a_small_message_does_not_overtake_a_large_one_of_its_channel(connect):
    """Or the client would take the older one for the newest."""
    connection, peer, _ = connect(max_queued_bytes=1000)
    put(connection, RATES, "1" * 800)
    put(connection, RATES, "2" * 800)
    put(connection, RATES, "3")
    connection.flush()
    found = [peer.message()[0]]
    while found[-1] != "3":
        found.append(peer.message()[0])
    assert found in (["1", "2", "3"], ["1", "3"])
    connection.enqueue(encode(b"end", True))
    connection.flush()
    assert peer.message() == "end"


def test_closing_sends_what_waits_and_the_newest_of_each_channel(connect):
    connection, peer, _ = connect(send_buffer=1)
    fill_until_blocked(connection)
    put(connection, RATES, "older")
    put(connection, RATES, "newest")
    connection.close(1012, "server restarting")
    assert put(connection, RATES, "late") is False
    while set(message := peer.message()) == {"x"}:
        pass
    assert message == "newest"
    assert Close.parse(peer.frame().data).code == 1012


# What is told beside messages.


def test_the_handler_is_told_when_the_kernel_has_taken_all(connect):
    connection, peer, handler = connect(send_buffer=1, max_queued_bytes=10**6)
    connection.enqueue(encode(b"small", True))
    connection.flush()
    assert connection.clear
    turn()
    assert handler.drains == 0, "it was never full"
    for count in (1, 2):
        connection.enqueue(encode(b"y" * 300_000, True))
        connection.flush()
        peer.socket.recv(1000)
        turn()
        assert not connection.clear
        assert handler.drains == count - 1
        while not connection.clear:
            peer.socket.recv(65536)
            turn()
        assert handler.drains == count


def test_a_goodbye_goes_before_the_close_frame(connect):
    connection, peer, _ = connect(dialect=V1_DIALECT)
    connection.enqueue(encode(b"waits", True))
    connection.close(1012, "server restarting")
    connection.close(1012, "again")
    assert peer.message() == "waits"
    goodbye = json.loads(peer.message())
    assert (goodbye["type"], goodbye["code"], goodbye["reason"]) == ("goodbye", 1012, "server restarting")
    assert Close.parse(peer.frame().data) == Close(1012, "server restarting")


def test_who_is_too_slow_gets_the_close_frame_alone(connect):
    connection, peer, _ = connect(dialect=V1_DIALECT, max_queued_bytes=50_000, send_buffer=1)
    fill(connection)
    connection.flush()
    while (frame := peer.frame()).opcode is TEXT:
        assert b"goodbye" not in frame.data
    assert Close.parse(frame.data).code == 4008


def test_a_goodbye_to_who_closes_first_is_not_said(connect):
    _, peer, _ = connect(dialect=V1_DIALECT)
    peer.send(close_frame(1000))
    assert peer.closing() == 1000


# How it ends.


class Codes(Recorder):
    """Keeps the code that the connection has when its handler is told of the end."""

    def __init__(self):
        super().__init__()
        self.codes = []

    def closing(self, connection):
        super().closing(connection)
        self.codes.append(connection.close_code)

    def closed(self, connection):
        self.codes.append(connection.close_code)
        super().closed(connection)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (close_frame(1000), 1000),
        (close_frame(4321, "bye"), 4321),
        (masked(CLOSE), 1005),
        (masked(CLOSE, b"\x03"), 1002),
        (masked(CLOSE, b"\x03\xed"), 1002),  # 1005 must not be sent
        (masked(TEXT, b"\xff"), 1007),
        (masked(TEXT, b"x" * 70_000), 1009),
        (Frame(TEXT, b"x").serialize(mask=False), 1002),
        (masked(TEXT, b"fine") + close_frame(3000), 3000),
    ],
)
def test_the_code_that_a_connection_ends_with(connect, sent, code):
    _, peer, handler = connect(handler=Codes())
    peer.send(sent)
    peer.close()
    handler.wait_closed()
    assert handler.codes == [code, code]


def test_without_a_close_frame_it_is_1006(connect):
    connection, peer, handler = connect(handler=Codes())
    assert connection.close_code == 1006
    peer.close()
    handler.wait_closed()
    assert handler.codes == [1006]
    connection.abort()
    assert connection.close_code == 1006


def test_of_ones_own_close_frame_it_is_its_code_until_the_client_says_another(connect):
    connection, peer, handler = connect(handler=Codes())
    connection.close(4000, "enough")
    assert handler.codes == [4000]
    connection.close(4001)
    assert connection.close_code == 4000
    peer.close()
    handler.wait_closed()
    assert handler.codes == [4000, 4000]


def test_who_is_too_slow_ends_with_4008(connect):
    connection, _, handler = connect(handler=Codes(), max_queued_bytes=1000, send_buffer=1)
    while connection.open:
        connection.enqueue(encode(bytes(5000), False))
        connection.flush()
    assert handler.codes == [TOO_SLOW]


def test_a_held_connection_shows_that_its_peer_has_hung_up(connect):
    connection, peer, handler = connect()
    connection.hold()
    peer.text("unread")
    turn()
    assert not connection.hung_up
    peer.close()
    turn()
    assert connection.hung_up
    assert handler.events == []
    connection.release()
    handler.wait_closed()
    assert handler.next() == "unread"
    assert connection.hung_up


# The parser, which connections share.


def test_what_arrives_for_several_at_the_same_time_stays_apart(connect, deflate):
    """In each state between two bytes the others may have the parser that one has given back."""
    extensions = [(), (), deflate(), deflate()]
    clients = [connect(max_message_size=100, extensions=each) for each in extensions]
    sent = []
    for number, each in enumerate(extensions):
        write = compressed if each else masked
        own = b"%d" % number * (20 + number)
        sent.append(
            b"".join(
                [
                    write(BINARY, own),
                    masked(PING, own),
                    masked(BINARY, own, fin=False),
                    masked(PONG),
                    masked(CONT, own),
                    write(BINARY, own),
                ]
            )
        )
    for at in range(max(map(len, sent))):
        for (connection, peer, _), conversation in zip(clients, sent, strict=True):
            if at < len(conversation):
                peer.send(conversation[at : at + 1])
                connection.ready(READ)
    for number, (_, peer, handler) in enumerate(clients):
        own = b"%d" % number * (20 + number)
        assert [handler.next() for _ in range(3)] == [own, own + own, own]
        assert handler.messages.empty()
        assert peer.frame() == Frame(PONG, own)


def test_a_connection_has_a_parser_while_a_message_arrives_and_when_it_closes(connect):
    connection, peer, _ = connect(max_message_size=1000)
    whole = masked(TEXT, b"one")

    def has_parser(data):
        peer.send(data)
        connection.ready(READ)
        return connection._parser is not None

    for data in (whole, masked(PING), masked(PONG), whole + whole):
        assert not has_parser(data)
    for at in range(1, len(whole)):
        assert has_parser(whole[:at])
        assert not has_parser(whole[at:])
    assert has_parser(masked(TEXT, b"two", fin=False))
    assert has_parser(masked(PING)), "the message is not complete"
    assert not has_parser(masked(CONT))
    assert [peer.frame().opcode for _ in range(2)] == [PONG, PONG]
    connection.hold()
    assert has_parser(close_frame(1001))
    connection.release()
    assert peer.closing() == 1001
    assert connection.close_code == 1001


def test_one_that_has_failed_leaves_its_parser_to_nobody(connect):
    for data in (masked(TEXT, b"\xff"), b"\xff" * 20, masked(BINARY, bytes(2000)), close_frame(1000)):
        _, peer, handler = connect(max_message_size=1000)
        peer.send(masked(TEXT, b"before"), data)
        assert peer.closing() in (1000, 1002, 1007, 1009)
        peer.close()
        handler.wait_closed()
    connection, peer, handler = connect(max_message_size=1000)
    peer.text("hello")
    assert handler.next() == "hello"
    assert connection.open


def test_few_parsers_wait_for_a_connection(connect):
    clients = [connect(max_message_size=1001) for _ in range(3 * MOST_RESTING)]
    message = masked(TEXT, b"hello")
    for part in (message[:3], message[3:]):
        for connection, peer, _ in clients:
            peer.send(part)
            connection.ready(READ)
    assert [handler.next() for *_, handler in clients] == ["hello"] * len(clients)
    assert len(parsers(1001, False).resting) == MOST_RESTING
