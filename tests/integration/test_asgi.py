"""An ASGI application on the real server: what it is promised, what it may do, and how it ends.

Where uvicorn and daphne agree, it is the same here. What they do differently is written beside the test.
"""

import json
import os
import re
import signal
import socket
import threading
import time

import pytest
import websocket

from testbed.processes import wait_until
from tests.integration.test_consumers import closed, name, refusal, trace, wait_for_trace

__all__ = ["name"]  # a fixture

HANDLER_TIMEOUT = 1  # seconds
OPTIONS = {"HANDLER_TIMEOUT": HANDLER_TIMEOUT, "HANDSHAKE_TIMEOUT": 2, "PING_TIMEOUT": 2, "RATE_LIMIT": None}
MERCY = 20  # seconds, of uwsgi.ini


@pytest.fixture(scope="module")
def hosted(shared_serve):
    """One worker, without a router, whose only application is ``sites/asgi_application.py``."""
    return shared_serve(
        front="http-socket",
        options=["--module", "tests.integration.sites.asgi_wsgi"],
        settings={"WSLOOP": OPTIONS},
    )


def counted(site, what):
    """Return a counter of the site."""
    found = re.search(rf"^{re.escape(what)} ([0-9.]+)$", site.request("GET", "/test/metrics/").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def wait_for_disconnect(site, name, code):
    """Wait until the application's last word is that the socket has ended with this code."""
    wait_until(lambda: f"websocket.disconnect {code} " in f"{''.join(trace(site, name)[-1:])} ", 20, "the disconnect")


# --- the handshake ----------------------------------------------------------------------------------------------------


def test_the_scope_describes_the_socket(hosted):
    client = hosted.connect(
        "scope/?a=%C3%A4&b", cookies="a=b", subprotocols=["soap", "chat"], header=["X-One: 1", "X-Two: ü"]
    )
    found = json.loads(client.next())
    assert client.subprotocol == "soap"
    headers = found.pop("headers")
    assert ["x-one", "1"] in headers
    assert ["x-two", "Ã¼"] in headers
    assert ["cookie", "a=b"] in headers
    assert found.pop("client")[0] == "127.0.0.1"
    assert found.pop("server")[1] == hosted.port
    assert found == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/ws/scope/",
        "raw_path": "/ws/scope/",
        "query_string": "a=%C3%A4&b",
        "root_path": "",
        "subprotocols": ["soap", "chat"],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


def test_accepting_with_a_subprotocol_and_headers(hosted):
    client = hosted.connect("accept/?subprotocol=chat", subprotocols=["soap", "chat"])
    assert client.subprotocol == "chat"
    assert client.headers["x-served-by"] == "application"
    assert client.headers["set-cookie"] == "theme=dark; Path=/"


def test_closing_before_accepting_is_a_403(hosted, name):
    assert refusal(hosted, f"deny/?name={name}")[0] == 403
    wait_for_disconnect(hosted, name, 1006)
    assert trace(hosted, name)[0] == "closed"


def test_a_response_of_the_application_s_own(hosted, name):
    """uvicorn passes its wrong content-length on; daphne does not have the extension."""
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        hosted.connect(f"answer/?name={name}")
    answer = refused.value
    assert (answer.status_code, answer.resp_body) == (402, b"first, pay")
    assert answer.resp_headers["x-why"] == "not paid"
    assert answer.resp_headers["content-length"] == "10"
    wait_for_disconnect(hosted, name, 1006)
    assert trace(hosted, name)[0] == "answered"


@pytest.mark.parametrize(
    ("what", "log"),
    [
        ("nothing", "the application has returned without accepting or closing the socket"),
        ("half_an_answer", "the application has returned without accepting or closing the socket"),
        ("crash", "ZeroDivisionError: a bug of the site"),
        ("no_route", "ValueError: No route found for path '/ws/no_route/'."),
    ],
)
def test_an_application_that_does_not_decide_is_a_500_and_the_log_says_why(hosted, what, log):
    """As uvicorn and daphne do with the last two."""
    hosted.mark_log()
    status, body = refusal(hosted, f"{what}/")
    assert (status, "the site's log says why" in body) == (500, True)
    wait_until(lambda: log in hosted.log_since_mark(), 20, log)
    assert f"The application at '/ws/{what}/' has failed" in hosted.log_since_mark()


def test_a_page_of_another_site_is_refused_before_the_application_is_asked(hosted, name):
    assert refusal(hosted, f"echo/?name={name}", origin="https://elsewhere.example")[0] == 403
    assert trace(hosted, name) == []


def test_a_client_that_leaves_before_the_decision(hosted, name):
    """The application is told, and cancelled when its time is over."""
    request = f"GET /ws/stubborn/?name={name} HTTP/1.1\r\nHost: {hosted.host}\r\nConnection: Upgrade\r\n"
    request += "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    with socket.create_connection(("127.0.0.1", hosted.port)) as client:
        client.sendall(request.encode())
        wait_for_trace(hosted, name, "asked")
    wait_for_trace(hosted, name, "asked", "cancelled", timeout=30)


# --- an open socket ---------------------------------------------------------------------------------------------------


def test_text_and_bytes_come_back_as_what_they_are(hosted):
    client = hosted.connect("echo/")
    for message in ("text, with ä", "", b"\x00\xff", b""):
        client.send(message) if isinstance(message, str) else client.send_binary(message)
        assert client.next() == message


def test_the_client_closes(hosted, name):
    client = hosted.connect(f"echo/?name={name}")
    client.close(4321, b"because")
    wait_for_trace(hosted, name, "open", "websocket.disconnect 4321 because")


@pytest.mark.parametrize(("frame", "code"), [(b"", 1006), (b"\x88\x80\0\0\0\0", 1005)])
def test_the_client_drops_the_connection_or_closes_without_a_code(hosted, name, frame, code):
    client = hosted.connect(f"echo/?name={name}")
    client.sock.sendall(frame)
    client.sock.close()
    wait_for_disconnect(hosted, name, code)


def test_the_application_closes(hosted, name):
    client = hosted.connect(f"echo/?name={name}")
    client.send("close 4321 Grüße")
    assert closed(client) == (4321, "Grüße")
    wait_for_disconnect(hosted, name, 4321)


def test_an_application_that_returns_closes_with_1000(hosted):
    """uvicorn drops the connection; daphne leaves it open."""
    client = hosted.connect("brief/")
    assert client.next() == "that is all"
    assert closed(client)[0] == 1000


def test_an_application_that_fails_closes_its_own_socket_with_1011(hosted):
    """As daphne does; uvicorn drops the connection."""
    hosted.mark_log()
    client, neighbour = hosted.connect("crash_later/"), hosted.connect("echo/")
    client.send("go")
    assert closed(client) == (1011, "internal error")
    neighbour.send("hello")
    assert neighbour.next() == "hello"
    assert hosted.log_since_mark().count("ZeroDivisionError: a bug of the site") == 1


def test_sending_when_the_client_has_left_raises_an_oserror(hosted, name):
    """As the specification has it from version 2.4 on. Behind the disconnect it does nothing, as with daphne."""
    hosted.connect(f"mumble/?name={name}").close(1000)
    wait_until(lambda: "raised nothing" in trace(hosted, name), 20)
    assert trace(hosted, name)[-3:] == ["raised True", "websocket.disconnect 1000 ", "raised nothing"]


def test_sending_after_one_s_own_close_raises_an_error(hosted, name):
    client = hosted.connect(f"after_close/?name={name}")
    assert closed(client) == (4000, "")
    wait_for_disconnect(hosted, name, 4000)
    assert trace(hosted, name)[0] == "raised True"


@pytest.mark.parametrize("at_once", ["", "&at-once=1"])
def test_tasks_in_receive_that_are_cancelled_take_nothing_with_them(hosted, name, at_once):
    client = hosted.connect(f"impatient/?name={name}{at_once}")
    for number in range(100):
        client.send(str(number))
        time.sleep(0.001 * (number % 4))  # so that cancellations fall before, behind and between messages
    assert client.take(100) == [str(number) for number in range(100)]
    client.close(1000)
    wait_for_trace(hosted, name, "websocket.disconnect 1000")


def test_two_sockets_at_once_send_and_receive_side_by_side(hosted, name):
    first, second = (hosted.connect(f"ticker/?name={name}-{number}") for number in range(2))
    for number in range(5):
        for client in (first, second):
            client.send(str(number))
            ticks = client.until(f"got {number}")
            assert all(each.startswith("tick ") for each in ticks)
    first.close(1000)
    wait_for_trace(hosted, f"{name}-0", "websocket.disconnect 1000")
    assert second.next().startswith("tick ")
    assert trace(hosted, f"{name}-1") == []


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_client_that_sends_faster_than_the_application_receives_is_held(hosted, name):
    size, count = 60_000, 2000
    client = hosted.connect(f"deaf/?name={name}")
    sent = []

    def send():
        for number in range(count):
            client.send_binary(b"%08d" % number + bytes(size - 8))
            sent.append(number)
        client.send("end")

    sender = threading.Thread(target=send)
    sender.start()
    wait_until(lambda: len(sent) > 16, 20, "what the inbox holds")
    before, deadline = -1, time.monotonic() + 20
    while len(sent) != before and time.monotonic() < deadline:  # the buffers of the kernel are filled, too
        before = len(sent)
        time.sleep(0.3)
    assert len(sent) < count, "the rest waits at the client"
    assert hosted.connect(f"open_gate/?name={name}").next() == "open"
    sender.join(30)
    assert json.loads(client.next(30)) == [count, True]


def test_a_client_that_does_not_read_holds_the_application(hosted, name):
    before = counted(hosted, 'wsloop_bounds_reached_total{setting="PING_TIMEOUT"}')
    sockopt = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)]
    client = hosted.connect(f"flood/?name={name}", sockopt=sockopt)
    wait_until(lambda: "websocket.disconnect 4008" in " ".join(trace(hosted, name)), 20, "the end of its patience")
    *_, total, _ = trace(hosted, name)
    assert int(re.search(r"sent (\d+) in all", total)[1]) < 10_000_000, "bytes, most of them in the kernel's buffers"
    assert counted(hosted, 'wsloop_bounds_reached_total{setting="PING_TIMEOUT"}') > before
    client.sock.close()


def test_a_message_that_is_too_large_closes_with_1009(hosted, name):
    before = counted(hosted, 'wsloop_bounds_reached_total{setting="MAX_MESSAGE_SIZE"}')
    client = hosted.connect(f"echo/?name={name}")
    client.send_binary(bytes(65536))
    assert client.next() == bytes(65536)
    client.send_binary(bytes(65537))
    assert closed(client)[0] == 1009
    wait_for_disconnect(hosted, name, 1009)
    assert counted(hosted, 'wsloop_bounds_reached_total{setting="MAX_MESSAGE_SIZE"}') == before + 1


# --- the end ----------------------------------------------------------------------------------------------------------


def test_an_application_that_goes_on_without_its_client_is_cancelled(hosted, name):
    """HANDLER_TIMEOUT later; one that catches it, again."""
    hosted.mark_log()
    client = hosted.connect(f"deep/?name={name}")
    wait_for_trace(hosted, name, "open")
    began = time.monotonic()
    client.close(1000)
    wait_for_trace(hosted, name, "open", "cancelled", "cancelled", "ended")
    assert time.monotonic() - began > HANDLER_TIMEOUT / 2
    assert "went on for too long without its client" in hosted.log_since_mark()


def test_signing_out_ends_the_application_s_socket(hosted, name):
    cookies = hosted.login("john")
    client = hosted.connect(f"echo/?name={name}", cookies=cookies)
    token = dict(pair.split("=") for pair in cookies.split("; "))["csrftoken"]
    answer = hosted.request(
        "POST",
        "/accounts/logout/",
        headers={"Content-Type": "application/x-www-form-urlencoded", "Origin": hosted.url},
        cookies=cookies,
        body=f"csrfmiddlewaretoken={token}",
    )
    assert answer.status == 302
    assert closed(client) == (4001, "signed out")
    wait_for_disconnect(hosted, name, 4001)


def test_a_worker_that_reloads_gives_its_applications_time_and_then_cancels_them(hosted, name):
    kinds = ("tidy", "tidy", "deep", "echo")
    clients = [hosted.connect(f"{kind}/?name={name}-{number}") for number, kind in enumerate(kinds)]
    for number in range(len(kinds)):
        wait_for_trace(hosted, f"{name}-{number}", "open")
    (worker,) = hosted.workers()
    began = time.monotonic()
    os.kill(worker, signal.SIGHUP)
    assert {closed(client)[0] for client in clients} == {1012}
    wait_until(lambda: worker not in hosted.workers() and hosted.workers(), MERCY, "the end of the worker")
    assert time.monotonic() - began < MERCY / 2
    gone = "websocket.disconnect 1012"
    for number in range(2):
        was_open, left, cleaned = trace(hosted, f"{name}-{number}")
        assert (was_open, left.startswith(gone), cleaned) == ("open", True, "cleaned up")
    assert trace(hosted, f"{name}-2") == ["open", "cancelled", "cancelled", "ended"]
    assert trace(hosted, f"{name}-3")[-1].startswith(gone)
    client = hosted.connect("echo/", timeout=30)
    client.send("again")
    assert client.next() == "again"
