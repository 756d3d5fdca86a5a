"""Bad manners and bad luck of clients: slow ones, ones that vanish, close codes, limits. Nobody else may notice."""

import contextlib
import os
import socket
import struct
import threading
import time

import pytest
import websocket
from websockets.sync.client import connect as websockets_connect

from testbed.clients import HEARTBEAT, next_of
from testbed.processes import wait_until

BOTH = "subscribe-broadcast&publish-broadcast"


def frame(payload, opcode=websocket.ABNF.OPCODE_TEXT, fin=1):
    return websocket.ABNF.create_frame(payload, opcode, fin).format()


def descriptors(site):
    (count,) = site.descriptors().values()
    return count


def test_pong_carries_the_payload_of_the_ping(site, facility):
    client = site.connect(facility)
    for payload in (b"", b"x", b"\xff\x00 payload", b"p" * 125):
        assert client.round_trip(payload) == payload


def test_unasked_pongs_are_ignored(site, facility):
    client = site.connect(facility)
    client.pong(b"unasked")
    assert client.round_trip() == b"round trip"


def test_python_websockets_keeps_the_line(site, facility):
    """Its keepalive drops the connection unless each of its pings is answered with its own payload."""
    with websockets_connect(site.ws_url(facility), ping_interval=0.25, ping_timeout=1) as client:
        assert client.recv(timeout=10) == HEARTBEAT
        assert client.recv(timeout=10) == HEARTBEAT  # at least 4 s after the first: 16 pings
        assert 0 < client.latency < 1


def test_compression_is_negotiated_and_works(site, stock, facility):
    with websockets_connect(site.ws_url(f"{facility}?{BOTH}&echo")) as client:
        for text in ("short", "the same words " * 4000, "ä€😀" * 5000):
            client.send(text)
            assert next_of(client) == text
        plain = site.connect(f"{facility}?subscribe-broadcast")
        assert plain.next() == "ä€😀" * 5000  # one socket with compression, one without, the same message
        stock.publish(facility, "both", broadcast=True)
        assert next_of(client) == "both"
        assert plain.next() == "both"


def test_the_worker_does_not_go_on_watching_the_connections_of_requests(site, facility):
    """Else each socket that opens costs as much as all those that are open."""
    clients = [site.connect(f"{facility}?subscribe-broadcast") for _ in range(5)]
    wait_until(lambda: not site.stale_watches(), 5, "nothing watched through a closed descriptor")
    assert [client.round_trip() for client in clients] == [b"round trip"] * 5


# --- closing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
def test_close_is_answered_with_the_same_code(direct, facility, code):
    client = direct.connect(f"{facility}?subscribe-broadcast")
    client.send(code.to_bytes(2, "big") + "auf Wiedersehen ✓".encode(), opcode=websocket.ABNF.OPCODE_CLOSE)
    assert client.closing() == code
    assert client.closing() is None  # and the server hangs up


def test_close_without_a_code(direct, facility):
    client = direct.connect(f"{facility}?subscribe-broadcast")
    client.send(b"", opcode=websocket.ABNF.OPCODE_CLOSE)
    assert client.closing() in (1000, 1005)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (b"\x81\x05hello", 1002),  # a client must mask
        (frame("x" * 126, websocket.ABNF.OPCODE_PING), 1002),  # control frames carry 125 bytes at most
        (frame("x", websocket.ABNF.OPCODE_PING, 0), 1002),  # and are not fragmented
        (b"\xc1" + frame("x")[1:], 1002),  # RSV1 without compression
        (b"\x83" + frame("x")[1:], 1002),  # a reserved opcode
        (frame("x", websocket.ABNF.OPCODE_CONT), 1002),  # nothing to continue
        (frame("x", fin=0) + frame("y"), 1002),  # a new message inside of another
        (frame((999).to_bytes(2, "big"), websocket.ABNF.OPCODE_CLOSE), 1002),  # not a code for the wire
        (frame(b"\x03", websocket.ABNF.OPCODE_CLOSE), 1002),  # half a code
        (b"\x81\x82\0\0\0\0\xff\xfe", 1007),  # text that is not UTF-8
    ],
    ids=str,
)
def test_broken_frames_are_answered_with_the_code_of_the_rfc(direct, facility, wrong, code):
    (worker,) = direct.workers()
    bystander = direct.connect(f"{facility}?{BOTH}&echo")
    client = direct.connect(f"{facility}?{BOTH}&echo")
    client.sock.sendall(wrong)
    assert client.closing() == code
    bystander.send("not impressed")
    assert bystander.next() == "not impressed"
    assert direct.workers() == [worker]


def test_a_message_that_is_too_big_is_refused_with_1009(direct, facility):
    """From its announced length, whole or in fragments, compressed or not: memory is not filled first."""
    gigabyte = b"\x81\xff" + (1 << 30).to_bytes(8, "big") + b"\0\0\0\0"
    client = direct.connect(f"{facility}?{BOTH}")
    client.sock.sendall(gigabyte)
    assert client.closing() == 1009
    client = direct.connect(f"{facility}?{BOTH}")
    with contextlib.suppress(OSError):  # the server may hang up before it has been sent all
        client.sock.sendall(frame("x" * 60_000, fin=0))
        for _ in range(50):
            client.sock.sendall(frame("x" * 60_000, websocket.ABNF.OPCODE_CONT, 0))
    assert client.closing() in (1009, None)
    with websockets_connect(direct.ws_url(f"{facility}?{BOTH}")) as bomb:
        bomb.send("0" * 50_000_000)  # 50 kB on the wire
        with pytest.raises(Exception, match="1009"):
            while True:
                bomb.recv(timeout=10)


@pytest.mark.parametrize("manner", ["reset", "half-close", "vanish in a frame", "close frame and gone"])
def test_clients_that_leave_without_a_word(direct, stock, redis_client, facility, manner):
    """Others do not notice, and nothing of them is left: no descriptor, no subscription."""
    bystander = direct.connect(f"{facility}?{BOTH}&echo")
    bystander.send("before")
    assert bystander.next() == "before"
    before = descriptors(direct)
    clients = [direct.connect(f"{facility}/gone?{BOTH}") for _ in range(20)]
    assert descriptors(direct) > 20, "they are counted"  # those of other tests may still be closing, and end meanwhile
    for client in clients:
        raw = client.sock
        if manner == "reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
        elif manner == "half-close":
            raw.shutdown(socket.SHUT_WR)
        elif manner == "vanish in a frame":
            raw.sendall(frame("x" * 1000)[:500])
            raw.close()
        else:
            raw.sendall(frame((1000).to_bytes(2, "big"), websocket.ABNF.OPCODE_CLOSE))
            raw.close()
    stock.publish(f"{facility}/gone", *["is anybody there?"] * 10, broadcast=True)
    bystander.send("meanwhile")
    assert bystander.next() == "meanwhile"
    wait_until(lambda: descriptors(direct) <= before, what="descriptors closed")
    wait_until(lambda: not redis_client.pubsub_channels(f"*{facility}/gone"), what="unsubscribing")
    if manner == "half-close":
        for client in clients:
            client.closing()  # the server has ended its half, too
    bystander.send("after")
    assert bystander.next() == "after"


def test_a_client_that_does_not_read_is_closed_and_delays_nobody(direct, redis_client, facility):
    """Output is bounded: 30 MB are published; who does not read is not kept waiting for, the others get all at once."""
    lazy = direct.connect(f"{facility}?subscribe-broadcast", sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
    eager = direct.connect(f"{facility}?subscribe-broadcast")
    (worker,) = direct.workers()
    before = memory_of(worker)
    for number in range(500):
        redis_client.publish(f"ws:broadcast:{facility}", f"{number:04}" + "x" * 60_000)
        assert eager.next()[:4] == f"{number:04}"
    assert memory_of(worker) - before < 10_000_000
    received = 0
    with contextlib.suppress(websocket.WebSocketException, OSError, AssertionError):
        while True:
            lazy.next(5)
            received += 1
    assert received < 400
    wait_until(lambda: not established(direct, lazy), what="the end of the slow connection")


def memory_of(pid):
    """Resident memory of a process, in bytes."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def established(site, client):
    """Whether the client's connection is still up."""
    if client.sock is None:
        return False  # websocket-client has seen its end
    try:
        client.sock.settimeout(0.2)
        return bool(client.sock.recv(65536))
    except TimeoutError:
        return True
    except OSError:
        return False


def test_many_requests_beside_many_sockets(serve, stock, facility):
    """Fifty sockets on a worker with ten async cores: sockets do not take the cores of requests."""
    site = serve(front="http", gevent=10)
    clients = [site.connect(f"{facility}?subscribe-broadcast") for _ in range(50)]
    for _ in range(20):
        assert site.request("GET", "/test/whoami/").status == 200
    stock.publish(facility, "to all fifty", broadcast=True)
    assert [client.next() for client in clients] == ["to all fifty"] * 50
    sender = site.connect(f"{facility}?publish-broadcast")
    sender.send("from a socket")
    assert [client.next() for client in clients] == ["from a socket"] * 50


def test_idle_sockets_outlive_the_timeout_of_the_router(serve, stock, facility):
    """uWSGI's router cuts a silent line after --http-timeout; the server's pings, and the answers to them, keep it."""
    site = serve(
        front="http",
        options=["--http-timeout", 3],
        settings={"WS4REDIS_HEARTBEAT": None, "WSLOOP": {"PING_INTERVAL": 1}},
    )
    client = site.connect(f"{facility}?subscribe-broadcast")
    start = time.monotonic()
    while time.monotonic() < start + 7:
        client.settimeout(3)
        opcode, _ = client.recv_data(control_frame=True)  # websocket-client answers the ping
        assert opcode == websocket.ABNF.OPCODE_PING
    stock.publish(facility, "still here", broadcast=True)
    assert client.next() == "still here"


def test_the_session_key_is_a_secret(direct, stock, facility):
    """It is in no frame, no refusal and no log, though it names a channel."""
    cookies = direct.login("john")
    (key,) = (pair.split("=")[1] for pair in cookies.split("; ") if pair.startswith("sessionid="))
    audiences = ("broadcast", "user", "group", "session")
    query = "&".join(f"subscribe-{a}&publish-{a}" for a in audiences)
    received = []

    class Recording(websocket.WebSocket):
        def recv_frame(self):
            result = super().recv_frame()
            received.append(result.data)
            return result

    client = direct.connect(f"{facility}?{query}&echo", cookies=cookies, class_=Recording)
    stock.publish(facility, "to the session", sessions=[key])
    client.send("from the session")
    client.settimeout(10)
    while client.recv() != "from the session":
        pass
    client.close()
    for headers in ({}, {"Upgrade": "websocket"}, {"Origin": "null"}, {"Host": "evil.example"}):
        answer = direct.request("GET", f"/ws/{facility}?{query}", headers=headers, cookies=cookies)
        assert key not in answer.text + str(answer.headers)
    assert received
    assert not any(key.encode() in data for data in received)
    assert key not in direct.log()


def test_threads_of_senders(direct, facility):
    """Twenty sockets send at once: every message arrives everywhere, in each sender's order."""
    clients = [direct.connect(f"{facility}?{BOTH}&echo") for _ in range(20)]
    senders = [
        threading.Thread(target=lambda c=client, n=number: [c.send(f"{n}:{m}") for m in range(50)])
        for number, client in enumerate(clients)
    ]
    for sender in senders:
        sender.start()
    heard = [client.take(1000, 60) for client in clients]
    for sender in senders:
        sender.join()
    assert all(messages == heard[0] for messages in heard)  # one channel, one order for everybody
    for number in range(20):
        assert [m for m in heard[0] if m.startswith(f"{number}:")] == [f"{number}:{m}" for m in range(50)]
