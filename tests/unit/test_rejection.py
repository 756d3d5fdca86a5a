"""Handshakes that fail: one line in the log, and a response, or a socket that opens to say why and ends."""

import json
import logging

import pytest
import redis.exceptions
from django.core.exceptions import DisallowedHost, PermissionDenied, TooManyFieldsSent
from websockets.frames import Close, Opcode

from testbed.processes import wait_until
from tests.unit.front import nothing_is_left
from tests.unit.peer import close_frame, masked
from wsloop import rejection
from wsloop.consumers import WebsocketConsumer
from wsloop.delivery.broker import Unavailable
from wsloop.protocol.close_codes import REFUSED, SIGNED_OUT
from wsloop.refusals import Refused
from wsloop.server import WebsocketServer
from wsloop.sockets import farewell

V1 = {"HTTP_SEC_WEBSOCKET_PROTOCOL": "wsloop.v1"}


def raising(error):
    def policy(request, channels):
        raise error

    return policy


class Denying(WebsocketConsumer):
    def connect(self):
        self.close(reason="members only")


def farewell_of(answer):
    """The reason that an open socket is closed with, which its goodbye has, too; and the close code."""
    assert answer.status == 101, (answer.status, answer.body)
    assert answer.headers["Sec-WebSocket-Protocol"] == "wsloop.v1"
    goodbye = json.loads(answer.peer.message())
    frame = answer.peer.frame()
    assert frame.opcode is Opcode.CLOSE
    close = Close.parse(frame.data)
    assert goodbye == {"type": "goodbye", "code": close.code, "reason": close.reason, "reconnect": False}
    assert 15 <= len(frame.data) - 2 <= 123
    return close.code, close.reason


def lines(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


FINAL = [
    (
        {"HTTP_ORIGIN": "http://elsewhere.example"},
        403,
        REFUSED,
        "Pages of this Origin may not open a WebSocket here",
        ['Origin: the page is of "http://elsewhere.example", the request for the host "testserver"', "ALLOWED_ORIGINS"],
    ),
    (
        {"HTTP_HOST": "elsewhere.example"},
        400,
        REFUSED,
        "The Host of the request is not one of the site's",
        ['Host: the request is for the host "elsewhere.example"', "ALLOWED_HOSTS"],
    ),
    (
        {"path": "forbidden?subscribe-user&publish-user"},
        403,
        REFUSED,
        "This site does not allow you to open this WebSocket. Sign in, perhaps.",
        [
            "policy: a visitor who has not signed in asks for subscribe-user, publish-user of 'forbidden'",
            "has raised PermissionDenied('a secret')",
        ],
    ),
    (
        {"path": "/orders?subscribe-broadcast"},
        404,
        REFUSED,
        "The name of a facility begins with no slash: the URL has one too many.",
        ["URL: The name of a facility begins with no slash", "[GET /ws//orders?subscribe-broadcast: 404]"],
    ),
    (
        {"path": "a:b?subscribe-user"},
        400,
        REFUSED,
        "A facility with a colon cannot have the audiences user and group",
        ["URL: A facility with a colon"],
    ),
    (
        {"path": f"{'a' * 300}?subscribe-broadcast"},
        414,
        REFUSED,
        "The name of the facility is longer than 255 bytes.",
        ["MAX_FACILITY_SIZE: the name of the facility has 300 bytes, more than MAX_FACILITY_SIZE of WSLOOP, 255"],
    ),
    (
        {"path": f"a?resume={'x' * 5000}"},
        431,
        REFUSED,
        "The query string, or a header of the handshake, is longer than 4096 bytes.",
        ["MAX_HEADER_SIZE: QUERY_STRING has 5007 bytes, more than MAX_HEADER_SIZE of WSLOOP, 4096"],
    ),
    (
        {"path": "?" + "&".join(["a"] * 1200)},
        400,
        REFUSED,
        "The request is not acceptable; perhaps it has too many parameters.",
        ["request: TooManyFieldsSent: The number of GET/POST parameters exceeded"],
    ),
    (
        {"path": "orders?subscribe-user&token=forged"},
        403,
        SIGNED_OUT,
        "The token is not valid, has expired, or is not for this address. Get a new one.",
        ["token: The token is not valid", "[GET /ws/orders?subscribe-user=: 403]"],
    ),
]


@pytest.fixture
def guarded(front, shared_redis, with_settings):
    """A site whose policy denies everything of one facility."""

    def policy(request, channels):
        if request.path_info.endswith("forbidden"):
            raise PermissionDenied("a secret")
        return channels

    with_settings(WS4REDIS_ALLOWED_CHANNELS=policy)
    return front


@pytest.mark.parametrize(("request_", "status", "code", "told", "words"), FINAL)
def test_a_page_of_wsloop_v1_is_told_why_and_others_get_a_status(guarded, caplog, request_, status, code, told, words):
    request_ = dict(request_)
    path = request_.pop("path", "orders?subscribe-broadcast")
    answer = guarded.call(path, **V1, **request_)
    found, reason = farewell_of(answer)
    assert (found, reason[: len(told)]) == (code, told)
    assert "secret" not in reason
    (line,) = lines(caplog)
    assert line.startswith("refused: ")
    for word in words:
        assert word in line
    assert "forged" not in line
    assert line.endswith(f": {status}]")
    caplog.clear()

    plain = guarded.call(path, **request_)
    assert (plain.status, plain.headers["Content-Type"]) == (status, "text/plain; charset=utf-8")
    assert lines(caplog) == [line]
    stream = guarded.call(path, HTTP_ACCEPT="text/event-stream", **request_)
    assert stream.status == status, "a stream has its status, which fetch() shows to a page"

    answer.peer.send(close_frame(code))
    assert answer.peer.frame() is None
    answer.peer.close()
    wait_until(nothing_is_left, what="the seat given back")


def test_a_client_that_may_publish_nothing_and_wants_nothing_else(front, shared_redis, with_settings, caplog):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=None)
    code, reason = farewell_of(front.call("orders?publish-broadcast", **V1))
    assert (code, reason) == (REFUSED, "This site lets no client publish over a socket.")
    (line,) = lines(caplog)
    assert "refused: publish: a client wants to publish to orders, and no policy allows it" in line


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"method": "PUT"}, 405, "request: A WebSocket is opened with a GET request."),
        ({"method": "POST"}, 415, "request: The Content-Type must be application/json."),
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, 505, "request: A WebSocket needs HTTP/1.1."),
        ({"HTTP_UPGRADE": ""}, 426, "behind nginx, set `proxy_set_header Upgrade $http_upgrade;`"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, 426, "version 13"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "short"}, 400, "Sec-WebSocket-Key is missing or not valid"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "x" * 9000}, 431, "HTTP_SEC_WEBSOCKET_KEY has 9000 bytes"),
        ({"path": "consumer/"}, 403, "has not accepted the socket, but closed it: 'members only'"),
    ],
)
def test_what_is_no_handshake_or_a_consumers_gets_a_status_and_one_line(
    front, shared_redis, caplog, request_, status, words
):
    from django.urls import path as pattern

    app = WebsocketServer(urlpatterns=[pattern("ws/consumer/", Denying.as_websocket())])
    path = request_.pop("path", "orders?subscribe-broadcast")
    assert front.call(path, app=app, **V1, **request_).status == status
    (line,) = lines(caplog)
    assert line.startswith("refused: ")
    assert words in line
    assert line.endswith(f": {status}]")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unavailable("messages were lost"), 503),
        (redis.exceptions.ConnectionError("down"), 503),
        (KeyError("a secret"), 500),
    ],
)
def test_what_may_pass_is_no_farewell_so_that_clients_come_back(
    front, shared_redis, with_settings, caplog, error, status
):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=raising(error))
    answer = front.call("orders?subscribe-broadcast", **V1)
    assert answer.status == status
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert len(lines(caplog)) == 1


def test_what_is_told_fits_into_a_close_frame_and_is_no_secret(front, shared_redis):
    errors = [PermissionDenied("a secret"), DisallowedHost("a secret"), TooManyFieldsSent("a secret")]
    told = [rejection.refusal(error).told for error in errors]
    assert all(0 < len(each.encode()) <= 123 and "secret" not in each for each in told)


@pytest.mark.parametrize("names", [("ws4redis",), ("other", "wsloop.v1")])
def test_a_server_that_answers_with_another_subprotocol_tells_nothing(front, shared_redis, names):
    class Other(WebsocketServer):
        subprotocols = names

    offered = {"HTTP_SEC_WEBSOCKET_PROTOCOL": "wsloop.v1, other", "HTTP_ORIGIN": "http://elsewhere.example"}
    assert front.call("orders", app=Other(), **offered).status == 403


def frame_of(peer, kind):
    while (frame := json.loads(peer.message()))["type"] != kind:
        pass
    return frame


@pytest.mark.parametrize(
    ("command", "code", "reason", "line"),
    [
        (
            {"type": "subscribe", "facility": "forbidden", "audiences": ["user"]},
            "refused",
            "This site does not allow this subscription. Sign in, perhaps.",
            "refused: policy: a visitor who has not signed in asks for subscribe-user of 'forbidden'; ",
        ),
        (
            {"type": "subscribe", "facility": "a:b", "audiences": ["user"]},
            "refused",
            "A facility with a colon cannot have the audiences user and group: its channels would be ambiguous.",
            "refused: URL: A facility with a colon cannot have the audiences",
        ),
        (
            {"type": "subscribe", "facility": "a"},
            "frame",
            "There must be audiences, publish or presence.",
            "refused: command: There must be audiences, publish or presence. [subscribe 'a': frame]",
        ),
        (
            {"type": "publish", "facility": "a", "data": "x"},
            "refused",
            "This socket is not subscribed to this facility.",
            "refused: command: This socket is not subscribed to this facility. [publish 'a': refused]",
        ),
        (
            {"type": "call", "path": "/admin/?token=SECRET"},
            "refused",
            "This site does not allow calls of this path.",
            "refused: command: This site does not allow calls of this path. [call: refused]",
        ),
    ],
)
def test_a_command_that_is_refused_is_one_line_too(guarded, caplog, command, code, reason, line):
    peer = guarded.connect("", **V1)
    frame_of(peer, "welcome")
    peer.text(json.dumps({**command, "id": 1}))
    error = frame_of(peer, "error")
    assert (error["code"], error["reason"]) == (code, reason)
    (found,) = lines(caplog)
    assert found.startswith(line)
    assert "SECRET" not in found


# What a farewell may cost.


def refused(front, **headers):
    return front.call("orders?subscribe-broadcast", HTTP_ORIGIN="http://elsewhere.example", **V1, **headers)


def test_what_a_page_sends_at_once_hides_no_reason(front, shared_redis):
    answer = refused(front)
    answer.peer.send(*[masked(Opcode.TEXT, b'[{"type": "subscribe", "facility": "a"}]')] * 30)
    code, _ = farewell_of(answer)
    answer.peer.send(close_frame(code))
    assert answer.peer.frame() is None
    answer.peer.close()
    wait_until(nothing_is_left, what="the seat given back")


def test_one_that_does_not_answer_is_ended(front, shared_redis, monkeypatch):
    monkeypatch.setattr(farewell, "SECONDS", 0.05)
    answer = refused(front)
    assert farewell_of(answer)[0] == REFUSED
    assert answer.peer.frame() is None
    assert nothing_is_left()


def test_one_that_floods_is_ended(front, shared_redis, monkeypatch):
    monkeypatch.setattr(farewell, "SECONDS", 1000)
    monkeypatch.setattr(farewell, "BURST", 2)
    answer = refused(front)
    answer.peer.send(*[masked(Opcode.PING)] * 200)
    assert farewell_of(answer)[0] == REFUSED
    assert answer.peer.frame() is None
    answer.peer.send(masked(Opcode.PING))
    wait_until(nothing_is_left, what="the seat given back")


def test_there_are_not_many_at_once(front, shared_redis, monkeypatch, caplog):
    monkeypatch.setattr(farewell, "MOST", 2)
    answers = [refused(front) for _ in range(3)]
    assert [each.status for each in answers] == [101, 101, 403]
    assert len(lines(caplog)) == 3
    answers[0].peer.close()
    wait_until(lambda: refused(front).status == 101, what="the place of one that has left")


@pytest.mark.parametrize(
    ("options", "address", "statuses"),
    [
        ({"MAX_CONNECTIONS": 8}, "127.0.0.1", [101, 101, 403]),  # a quarter of what others leave
        ({"MAX_CONNECTIONS_PER_ADDRESS": 2}, "8.8.8.8", [101, 101, 403]),
        ({"MAX_CONNECTIONS_PER_ADDRESS": 2}, "127.0.0.1", [101, 101, 101]),  # of a proxy: counted for nobody
    ],
)
def test_each_counts_as_a_socket(front, shared_redis, with_settings, options, address, statuses):
    with_settings(WSLOOP=options)
    assert [refused(front, REMOTE_ADDR=address).status for _ in range(3)] == statuses


def test_whoever_is_refused_takes_no_place_of_who_is_not(front, shared_redis, with_settings):
    """But for a quarter of them."""
    with_settings(WSLOOP={"MAX_CONNECTIONS": 8})
    statuses = []
    for _ in range(6):
        statuses.append(refused(front).status)
        front.connect("orders?subscribe-broadcast")
    assert statuses == [101, 101, 403, 403, 403, 403]


def test_sockets_of_the_address_are_counted_with_them(front, shared_redis, with_settings):
    with_settings(WSLOOP={"MAX_CONNECTIONS_PER_ADDRESS": 2})
    front.connect("orders?subscribe-broadcast", REMOTE_ADDR="8.8.8.8")
    assert [refused(front, REMOTE_ADDR="8.8.8.8").status for _ in range(2)] == [101, 403]
    assert front.call("orders?subscribe-broadcast", REMOTE_ADDR="8.8.8.8").status == 429


def test_a_client_that_has_hung_up_leaves_nothing(front, shared_redis):
    answer = refused(front, hang_up=True)
    assert answer.body == b""
    assert nothing_is_left()


def test_the_reason_of_a_refusal_has_no_secret_in_the_log(front, shared_redis, caplog):
    refused_ = Refused(403, "a reason", detail="because")
    assert (refused_.detail, Refused(403, "a reason").detail) == ("because", "a reason")
    front.call("orders?token=SECRET&subscribe-user&wsloop.token.SECRET", **V1, HTTP_ORIGIN="http://x?token=SECRET")
    assert "SECRET" not in caplog.text
