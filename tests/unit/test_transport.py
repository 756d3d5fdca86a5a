"""Connections that were taken over: real socket pairs, and TCP where it differs."""

import os
import socket

import gevent
import pytest
from gevent.event import Event
from gevent.queue import Queue

from testbed.processes import wait_until
from tests.unit.peer import WAIT, turn
from wsloop.sockets.transport import READ, WRITE


def test_receives_what_has_arrived_and_nothing_else(pair):
    transport, peer = pair()
    assert transport.receive() is None
    peer.send(b"hello")
    assert transport.receive() == b"hello"
    assert transport.receive() is None


def test_the_end_of_the_stream_is_empty(pair):
    transport, peer = pair()
    peer.close()
    assert transport.receive() == b""


def test_a_broken_line_reads_as_the_end_of_the_stream(tcp_pair):
    transport, peer = tcp_pair()
    ready = Event()
    transport.start(lambda events: ready.set())
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # close() sends a reset
    peer.close()
    assert ready.wait(WAIT)
    assert transport.receive() == b""


@pytest.mark.parametrize("how", ["close", "shutdown"])
@pytest.mark.parametrize("unread", [b"", b"x" * 100_000])
@pytest.mark.parametrize("make", ["pair", "tcp_pair"])
def test_that_the_peer_has_hung_up_is_seen_without_reading(request, make, how, unread):
    transport, peer = request.getfixturevalue(make)()
    transport.start(lambda events: None)
    transport.watch(0)
    assert not transport.hung_up
    peer.send(unread)
    turn()
    assert not transport.hung_up, "what can be read is no end"
    peer.close() if how == "close" else peer.socket.shutdown(socket.SHUT_WR)
    wait_until(lambda: transport.hung_up, what="the end")
    received = b""
    while len(received) < len(unread):
        received += transport.receive()
    assert received == unread
    assert transport.receive() == b""
    assert transport.hung_up


def test_a_reset_is_seen_without_reading(tcp_pair):
    transport, peer = tcp_pair()
    transport.start(lambda events: None)
    transport.watch(0)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    peer.close()
    wait_until(lambda: transport.hung_up, what="the end")


def test_a_connection_that_has_ended_or_not_begun_counts_as_hung_up(pair):
    transport, _ = pair()
    assert transport.hung_up
    transport.start(lambda events: None)
    assert not transport.hung_up
    transport.close()
    assert transport.hung_up


def test_looking_for_the_end_blocks_nobody(pair):
    transport, _ = pair()
    transport.start(lambda events: None)
    others = gevent.spawn(lambda: "ran")
    assert not transport.hung_up
    assert not others.ready(), "it must not yield: it is asked in callbacks of the loop"
    others.join()


def test_sends_as_much_as_the_kernel_takes(pair):
    transport, peer = pair(send_buffer=4096)
    data = bytes(range(256)) * 4096
    taken = transport.send(data)
    assert 0 < taken < len(data)
    while more := transport.send(data[taken:]):
        taken += more
    received = b""
    while len(received) < taken:
        received += peer.socket.recv(65536)
    assert received == data[:taken]


def test_sending_on_a_broken_line_raises(pair):
    transport, peer = pair()
    peer.close()
    with pytest.raises(OSError):
        transport.send(b"hello")


def test_a_tcp_connection_does_not_hold_small_frames_back(tcp_pair):
    transport, _ = tcp_pair()
    assert transport._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_reports_reading_then_what_is_watched(pair):
    transport, peer = pair()
    calls = Queue()
    transport.start(calls.put)
    turn()
    assert calls.empty(), "there is nothing to read, and nobody asked about writing"
    peer.send(b"x")
    assert calls.get(timeout=WAIT) == READ
    transport.watch(WRITE)
    assert transport._events == WRITE
    turn()
    seen = {calls.get(timeout=WAIT) for _ in range(calls.qsize())} - {READ}
    assert seen == {WRITE}
    transport.watch(READ + WRITE)
    assert calls.get(timeout=WAIT) in (READ + WRITE, WRITE)
    transport.watch(0)
    turn()
    while not calls.empty():
        calls.get()
    turn()
    assert calls.empty()


def test_watching_before_the_start_and_after_the_end_does_nothing(pair):
    transport, _ = pair()
    transport.watch(WRITE)
    assert transport._events == 0
    transport.start(lambda events: None)
    transport.close()
    transport.watch(READ)


def test_closing_ends_the_connection_although_a_duplicate_is_held_elsewhere(pair):
    transport, peer = pair()
    duplicate = os.dup(transport._socket.fileno())
    try:
        transport.close()
        assert peer.socket.recv(1) == b""
    finally:
        os.close(duplicate)


def test_closing_twice_leaves_no_descriptor(descriptors, pair):
    before = descriptors()
    transport, peer = pair()
    transport.start(lambda events: None)
    transport.close()
    transport.close()
    peer.close()
    assert descriptors() == before


def test_the_end_of_the_outgoing_half_leaves_the_other_one(pair):
    transport, peer = pair()
    transport.send_eof()
    assert peer.socket.recv(1) == b""
    peer.send(b"still there")
    assert transport.receive() == b"still there"
    peer.close()
    transport.close()
    transport.send_eof()  # the peer was faster: no error
