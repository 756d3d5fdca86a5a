"""Streams of events, and commands that are posted: on a real Redis and real sockets."""

import base64
import json

import gevent
import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.handlers.wsgi import WSGIRequest
from django.http import UnreadablePostError
from ws4redis.subscriber import RedisSubscriber

from testbed.processes import wait_until
from tests.unit.front import nothing_is_left
from tests.unit.peer import WAIT, turn
from wsloop import engine, presence
from wsloop.backend import history
from wsloop.protocol import events, resume_tokens
from wsloop.publisher import RedisPublisher

KEPT = {"FACILITIES": {"kept-*": {"size": 1000}, "here-*": {"presence": True}}}
EVENTS = {"HTTP_ACCEPT": "text/event-stream"}
JSON = {"content_type": "application/json"}


@pytest.fixture
def stream(front, shared_redis, with_settings):
    with_settings(WSLOOP=KEPT)

    def make(path, **headers):
        answer = front.call(path, **EVENTS | headers)
        assert answer.status == 200, answer.body
        return answer.peer

    return make


def publish(facility, *texts, **options):
    for text in texts:
        RedisPublisher(facility=facility, broadcast=True).publish_message(text, **options)


# The bytes.


@pytest.mark.parametrize(
    ("payload", "made"),
    [
        (b"hello", b"data: hello\n\n"),
        (b"", b"data: \n\n"),
        (b"a\nb\r\nc\rd", b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (b"\n", b"data: \ndata: \n\n"),
        (b" x", b"data:  x\n\n"),
        ("grün \u2028 \x00".encode(), "data: grün \u2028 \x00\n\n".encode()),
        (b"id: 7\n\ndata: forged", b"data: id: 7\ndata: \ndata: data: forged\n\n"),
        (b"\xff", b"event: binary\ndata: /w==\n\n"),
    ],
)
def test_a_message_is_an_event(payload, made):
    assert events.BARE_EVENTS.encode(payload) == made


def test_a_heartbeat_is_a_comment():
    assert events.BARE_EVENTS.beat() == b":\n\n"
    assert events.V1_EVENTS.beat() == b'data: {"type": "ping"}\n\n'


# Streams.


def test_a_stream_begins_when_redis_has_subscribed(front, stream, facility, redis_client):
    subscribed = []
    channel = f"unit:broadcast:{facility}"
    serve = front.call(f"{facility}?subscribe-broadcast", **EVENTS)
    subscribed.append(redis_client.execute_command("PUBSUB", "NUMSUB", channel)[1])
    assert subscribed == [1]
    assert serve.headers == {
        "Content-Type": "text/event-stream",
        "Cache-Control": "no-store, no-transform",
        "Connection": "close",
        "X-Accel-Buffering": "no",
    }
    publish(facility, "hello", "two\nlines")
    assert serve.peer.data(2) == ["hello", "two\nlines"]


def test_the_kept_message_comes_first(stream, facility):
    publish(facility, "kept")
    reader = stream(f"{facility}?subscribe-broadcast")
    publish(facility, "live")
    assert reader.data(2) == ["kept", "live"]


def test_a_browser_that_comes_back_gets_what_it_has_missed(stream, facility):
    name = f"kept-{facility}"
    reader = stream(f"{name}?subscribe-broadcast")
    publish(name, "1", "2")
    assert reader.data(2) == ["1", "2"]
    reader.read_id(2)
    reader.close()
    publish(name, "3", "4")
    again = stream(f"{name}?subscribe-broadcast", HTTP_LAST_EVENT_ID=reader.last_id)
    publish(name, "5")
    assert again.data(3) == ["3", "4", "5"]
    again.read_id(5)


def test_a_long_recovery_goes_on_where_it_was_cut(stream, facility, monkeypatch):
    for name, value in (("PAGE", 2), ("PAGE_BYTES", 1), ("LEAST_BYTES", 1)):
        monkeypatch.setattr(history, name, value)
    name = f"kept-{facility}"
    reader = stream(f"{name}?subscribe-broadcast")
    publish(name, "0", "1")
    assert reader.data(2) == ["0", "1"]
    reader.read_id(2)
    reader.close()
    publish(name, *[str(number) for number in range(2, 40)])
    found, last_id = [], reader.last_id
    while not found or found[-1] != "39":
        again = stream(f"{name}?subscribe-broadcast", HTTP_LAST_EVENT_ID=last_id)
        for _ in range(12):
            event = again.event()
            found.append(event[1])
            if event[1] == "39":
                break
        last_id = again.last_id
        again.close()
    numbers = [int(each) for each in found]
    assert sorted(set(numbers)) == list(range(2, 40)), "nothing is missing"
    assert len(numbers) < 60, "and little comes again"


@pytest.mark.parametrize("last_id", ["damaged", "a:b", "\u00ff"])
def test_what_cannot_be_recovered_is_told(stream, facility, last_id):
    name = f"kept-{facility}"
    publish(name, "1")
    reader = stream(f"{name}?subscribe-broadcast", HTTP_LAST_EVENT_ID=last_id)
    kind, data = reader.event()
    assert (kind, json.loads(data)) == ("lost", {"reason": "Messages were lost. Load the state anew."})
    publish(name, "2")
    assert reader.data(1) == ["2"]


def test_a_stream_of_frames(stream, facility):
    reader = stream(f"kept-{facility}?subscribe-broadcast&protocol=wsloop.v1")
    assert json.loads(reader.data(1)[0])["type"] == "welcome"
    publish(f"kept-{facility}", "hello")
    assert json.loads(reader.data(1)[0])["data"] == "hello"


def test_the_stream_of_a_page(stream, facility):
    names = [f"kept-{facility}", facility]
    frames = [{"type": "subscribe", "id": name, "facility": name, "audiences": ["broadcast"]} for name in names]
    reader = stream("", method="POST", body=json.dumps(frames).encode(), **JSON)
    welcomes = [json.loads(each) for each in reader.data(3)]
    assert [each["facility"] for each in welcomes] == ["", *names]
    publish(facility, "hello")
    assert json.loads(reader.data(1)[0])["data"] == "hello"
    reader.close()
    publish(names[0], "missed")
    frames[0]["resume"] = welcomes[1]["token"]
    again = stream("", method="POST", body=json.dumps(frames).encode(), **JSON)
    found = [json.loads(each) for each in again.data(5)]
    assert found[1]["recovered"] is True
    assert {"missed", "hello"} == {each["data"] for each in found[3:]}


def test_signing_out_ends_a_stream(stream, facility, signed_in):
    reader = stream(f"{facility}?subscribe-user", HTTP_COOKIE=signed_in.cookie)
    john = User.objects.get(username="john")
    john.set_password("another")
    john.save()
    kind, data = reader.event()
    assert (kind, json.loads(data)) == ("close", {"code": 4001, "reason": "signed out", "reconnect": False})
    assert reader.event() is None


def test_a_worker_that_ends_tells_streams_to_come_back(stream, facility):
    plain, frames = (
        stream(f"{facility}?subscribe-broadcast"),
        stream(f"{facility}?subscribe-broadcast&protocol=wsloop.v1"),
    )
    frames.event()
    engine.engine().hub.close_all(1012, "server restarting")
    kind, data = plain.event()
    assert (kind, json.loads(data)["reconnect"]) == ("close", True)
    goodbye = json.loads(frames.event()[1])
    assert (goodbye["type"], goodbye["code"]) == ("goodbye", 1012)
    assert plain.event() is frames.event() is None


def test_who_leaves_leaves_nothing(stream, facility):
    readers = [stream(f"here-{facility}?subscribe-broadcast") for _ in range(3)]
    wait_until(lambda: presence.who(f"here-{facility}").anonymous == 3, what="the presence of three")
    for reader in readers:
        reader.close()
    wait_until(nothing_is_left, what="the end of the connections")


def test_who_does_not_read_is_closed(stream, facility, with_settings, reached):
    reader = stream(f"{facility}?subscribe-broadcast")
    (connection,) = engine.engine().hub.connections
    for _ in range(60):
        publish(facility, "x" * 100_000, expire=0)
        if not connection.open:
            break
        turn()
    wait_until(lambda: not connection.open, what="the end of a client that does not read")
    assert reached("MAX_QUEUED_BYTES") == 1
    reader.close()


def test_what_a_client_sends_on_a_stream_is_thrown_away(stream, facility):
    reader = stream(f"{facility}?subscribe-broadcast")
    reader.socket.sendall(b"GET /ws/other HTTP/1.1\r\n\r\n" * 1000)
    publish(facility, "hello")
    assert reader.data(1) == ["hello"]


def test_an_idle_stream_is_alive(stream, facility):
    stream(f"{facility}?subscribe-broadcast")
    (connection,) = engine.engine().hub.connections
    connection.alive = False
    assert connection.alive
    assert connection.close_code == 1006


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("a?subscribe-broadcast", {"method": "PUT"}, 405),
        ("a?subscribe-broadcast&protocol=other", {}, 400),
        ("a?subscribe-broadcast", {"HTTP_ORIGIN": "https://evil.example"}, 403),
        ("a" * 256, {}, 414),
        ("", {"method": "POST", "body": b"[]"}, 415),
    ],
)
def test_what_is_refused(front, shared_redis, path, headers, status):
    assert front.call(path, **EVENTS | headers).status == status


def test_the_policy_decides_about_streams_too(front, shared_redis, with_settings):
    def policy(request, channels):
        raise PermissionDenied

    with_settings(WS4REDIS_ALLOWED_CHANNELS=policy)
    assert front.call("a?subscribe-broadcast", **EVENTS).status == 403


def test_a_page_of_an_allowed_site_may_read(front, shared_redis, facility, with_settings):
    with_settings(WSLOOP={"ALLOWED_ORIGINS": ["https://app.example"]})
    answer = front.call(f"{facility}?subscribe-broadcast", **EVENTS, HTTP_ORIGIN="https://app.example")
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    asked = front.call(facility, method="OPTIONS", HTTP_ACCEPT="*/*", HTTP_ORIGIN="https://app.example")
    assert (asked.status, asked.headers["Access-Control-Allow-Methods"]) == (204, "GET, POST")
    assert "Authorization" in asked.headers["Access-Control-Allow-Headers"]  # a token, of a page without cookies
    refused = front.call(facility, method="OPTIONS", HTTP_ACCEPT="*/*", HTTP_ORIGIN="https://evil.example")
    assert refused.status == 403


# Commands.


@pytest.fixture
def post(front, shared_redis, with_settings):
    with_settings(WSLOOP=KEPT | {"CALL_PATHS": ["/api/*"]})

    def send(path, frame, **headers):
        body = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
        answer = front.call(path, method="POST", body=body, HTTP_ACCEPT="application/json", **JSON | headers)
        return answer.status, json.loads(answer.body) if answer.body.startswith(b"{") else answer.body

    return send


def test_a_message_is_posted(post, stream, facility):
    reader = stream(f"{facility}?subscribe-broadcast")
    frame = {"type": "publish", "id": 7, "data": "hello", "key": "k"}
    for _ in range(2):
        assert post(f"{facility}?publish-broadcast", frame) == (200, {"type": "ack", "id": 7})
    publish(facility, "end")
    assert reader.data(2) == ["hello", "end"]


def test_a_page_of_the_past_is_asked_for(post, facility):
    publish(f"kept-{facility}", "1", "2")
    status, answer = post(f"kept-{facility}?subscribe-broadcast", {"type": "history", "id": 1})
    assert (status, [each["data"] for each in answer["messages"]]) == (200, ["1", "2"])


def test_a_client_waits_for_its_answers_on_a_stream_of_a_facility(stream, facility):
    """They are events, not frames of a WebSocket, and leave at once."""
    body = b'[{"type": "subscribe", "id": 1, "facility": "x", "audiences": ["user"]}, "?"]'
    reader = stream(f"{facility}?subscribe-broadcast", method="POST", body=body, **JSON)
    welcome, refused, invalid = [json.loads(each) for each in reader.data(3)]
    assert (welcome["type"], refused["code"], invalid["code"]) == ("welcome", "refused", "frame")


class Own(RedisSubscriber):
    """A site's own subscriber, as ws4redis documents it."""

    def publish_message(self, message):
        RedisPublisher(facility="own", broadcast=True).publish_message(b"own: " + message)


def test_a_sites_own_subscriber_publishes_what_is_posted(post, stream, with_settings):
    reader = stream("own?subscribe-broadcast")
    with_settings(WS4REDIS_SUBSCRIBER=f"{__name__}.Own")
    assert post("own", {"type": "publish", "id": 7, "data": "x"}) == (200, {"type": "ack", "id": 7})
    event = reader.event()
    while event != ("message", "own: x"):  # before it what others have published to this facility
        event = reader.event()


@pytest.mark.parametrize("name", ["data", "base64"])
def test_a_message_is_no_larger_than_on_a_socket(post, stream, facility, name):
    reader = stream(f"{facility}?subscribe-broadcast")
    largest = 64 * 1024
    for size, status in ((largest, 200), (largest + 4, 413)):
        text = "x" * size if name == "data" else base64.b64encode(b"x" * size).decode()
        assert post(f"{facility}?publish-broadcast", {"type": "publish", "id": 7, name: text})[0] == status
    assert reader.data(1) == ["x" * largest]
    frames = [
        {"type": "subscribe", "facility": facility, "audiences": [], "publish": ["broadcast"]},
        {"type": "publish", "facility": facility, "id": 1, "data": "x" * (largest + 1)},
    ]
    with_publish = stream("", method="POST", body=json.dumps(frames).encode(), **JSON)
    assert [json.loads(each).get("code") for each in with_publish.data(3)] == [None, None, "frame"]


def test_a_policy_that_hangs_ends_with_the_time_for_a_handshake(post, with_settings):
    with_settings(
        WSLOOP={"HANDSHAKE_TIMEOUT": 0.1}, WS4REDIS_ALLOWED_CHANNELS=lambda request, channels: gevent.sleep(WAIT)
    )
    for frame in ({"type": "publish", "data": "x"}, {"type": "history"}):
        status, answer = post("a?publish-broadcast", frame)
        assert (status, answer["code"]) == (503, "unavailable")


def test_who_posts_too_much_without_a_socket_is_told_too(post, facility, with_settings, signed_in):
    with_settings(WSLOOP={"RATE_LIMIT": (0.01, 4)})
    for who in ({"HTTP_COOKIE": signed_in.cookie}, {"REMOTE_ADDR": "8.8.8.8"}):
        statuses = [post(facility, {"type": "publish", "data": "x"}, **who)[0] for _ in range(90)]
        assert (statuses[0], statuses[-1]) == (403, 429)
    assert post(facility, {"type": "publish", "data": "x"}, REMOTE_ADDR="9.9.9.9")[0] == 403
    assert nothing_is_left()


def test_a_page_of_an_allowed_site_reads_refusals_too(front, shared_redis, facility, with_settings):
    with_settings(WSLOOP={"ALLOWED_ORIGINS": ["https://app.example"]})
    for origin, allowed in (("https://app.example", "https://app.example"), ("https://evil.example", None)):
        answer = front.call(facility, method="POST", HTTP_ACCEPT="*/*", content_type="text/plain", HTTP_ORIGIN=origin)
        assert answer.status == (415 if allowed else 403)
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed


@pytest.mark.parametrize(
    ("path", "frame", "status", "code"),
    [
        ("a", {"type": "publish", "data": "x"}, 403, "refused"),
        ("a?subscribe-broadcast", {"type": "history"}, 403, "refused"),
        ("kept-a?subscribe-broadcast", {"type": "history", "before": "x"}, 400, "frame"),
        ("kept-a", {"type": "history"}, 403, "refused"),
        ("a?publish-broadcast", b"no JSON", 400, "frame"),
        ("a?publish-broadcast", [{"type": "publish", "data": "x"}] * 2, 400, "frame"),
        ("a", {"type": "subscribe", "facility": "a", "audiences": ["broadcast"]}, 400, "frame"),
        ("", {"type": "call", "path": "/admin/"}, 403, "refused"),
    ],
)
def test_commands_that_are_not_carried_out(post, path, frame, status, code):
    found, answer = post(path, frame)
    assert (found, answer["code"]) == (status, code)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_name_that_begins_with_a_slash_is_refused_without_a_traceback(front, post, caplog, method):
    """A URL has one too many: the client's error, and none of the site's code."""
    if method == "GET":
        status = front.call("/a?subscribe-broadcast", **EVENTS).status
    else:
        status, _ = post("/a?subscribe-broadcast", {"type": "history", "id": 1})
    assert status == {"GET": 404, "POST": 403}[method]
    (record,) = caplog.records
    assert record.getMessage().startswith("refused: URL: The name of a facility begins with no slash")


def test_a_frame_for_another_facility_than_that_of_the_url(post, facility):
    facility = f"kept-{facility}"
    for kind, query in (({"type": "publish", "data": "x"}, "publish"), ({"type": "history"}, "subscribe")):
        status, answer = post(f"{facility}?{query}-broadcast", {**kind, "id": 1, "facility": "another"})
        assert (status, answer["code"]) == (400, "frame")
        assert "another facility" in answer["reason"]
        assert post(f"{facility}?{query}-broadcast", {**kind, "id": 1, "facility": facility})[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"HTTP_ORIGIN": "https://evil.example"}, 403),
        ({"CONTENT_LENGTH": str(10**9)}, 413),
        ({"CONTENT_LENGTH": "x"}, 400),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 411),
    ],
)
def test_posts_that_are_refused(post, headers, status):
    assert post("a?publish-broadcast", {"type": "publish", "data": "x"}, **headers)[0] == status


def test_who_leaves_within_its_body_is_refused(post, monkeypatch):
    def broken(request, size):
        raise UnreadablePostError("the connection is broken")

    for read in (broken, lambda request, size: b"{"):
        monkeypatch.setattr(WSGIRequest, "read", read)
        assert post("a?publish-broadcast", {"type": "publish", "data": "x"})[0] == 400


def test_who_posts_too_much_is_told(post, stream, facility, with_settings, signed_in):
    stream(f"{facility}?subscribe-broadcast", HTTP_COOKIE=signed_in.cookie)
    with_settings(WSLOOP={"RATE_LIMIT": (0.01, 4)})
    frame = {"type": "publish", "data": "x"}
    statuses = [post(f"{facility}?publish-broadcast", frame, HTTP_COOKIE=signed_in.cookie)[0] for _ in range(90)]
    assert statuses[0] == 200
    assert statuses[-1] == 429


def test_tokens_of_streams_are_those_of_sockets(stream, facility):
    name = f"kept-{facility}"
    reader = stream(f"{name}?subscribe-broadcast&protocol=wsloop.v1")
    token = json.loads(reader.data(1)[0])["token"]
    assert resume_tokens.read(token, [f"unit:broadcast:{name}".encode()]) is not None
