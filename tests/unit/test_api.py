"""The server API, from a process that asks to the sockets of the workers, over a real Redis."""

import json
import logging
import time
import types

import gevent
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import ObjectDoesNotExist
from websockets.frames import Opcode

from testbed.processes import wait_until
from tests.unit.front import nothing_is_left
from tests.unit.peer import close_frame
from wsloop import api
from wsloop.api import Counts
from wsloop.backend import asking, keys, pool
from wsloop.engine import engine
from wsloop.protocol.close_codes import CLOSE_CODES
from wsloop.sockets.hub import Hub
from wsloop.visitors import answering
from wsloop.visitors.answering import Answering

DISCONNECTED = (4500, "disconnected")


def closed(peer):
    """Return the code and reason with which the server closes, and hang up."""
    while (frame := peer.frame()).opcode is not Opcode.CLOSE:
        pass
    peer.send(close_frame())
    peer.close()
    return int.from_bytes(frame.data[:2], "big"), frame.data[2:].decode()


@pytest.fixture
def sockets(front, shared_redis, facility, signed_in):
    """Sockets of john, who listens to two facilities, and of a visitor who has not signed in."""
    return types.SimpleNamespace(
        john=front.connect(f"{facility}?subscribe-broadcast&subscribe-user", HTTP_COOKIE=signed_in.cookie),
        elsewhere=front.connect(f"{facility}-2?subscribe-user", HTTP_COOKIE=signed_in.cookie),
        visitor=front.connect(f"{facility}?subscribe-broadcast"),
        session=signed_in.session_key,
    )


@pytest.fixture
def second_worker(shared_redis):
    """Another worker, which has subscribed to the requests and does what the test says: ``answers.append(…)``."""
    redis = pool.subscription_connection(protocol=2)
    redis.send_command("SUBSCRIBE", keys.requests_channel())
    redis.read_response()
    worker = types.SimpleNamespace(requests=[], answers=[])

    def work():
        while True:
            request = json.loads(redis.read_response(disable_decoding=True)[2])
            worker.requests.append(request)
            if worker.answers:
                pool.client().publish(keys.answers_channel(request["id"]), json.dumps(worker.answers.pop(0)))

    greenlet = gevent.spawn(work)
    yield worker
    greenlet.kill()
    redis.disconnect()


def test_counts(sockets, facility):
    assert api.counts() == Counts(3, 2, 1, 0)
    assert api.counts(facility=facility) == Counts(2, 1, 1, 0)
    assert api.counts(user="john") == api.counts(user=User.objects.get()) == Counts(2, 2, 1, 0)
    assert api.counts(user="john", facility=facility).sockets == 1
    assert api.counts(session=sockets.session, facility=f"{facility}-2").sockets == 1
    assert api.counts(session=SessionStore(sockets.session)).sockets == 2
    for nobody in ({"facility": facility[:-1]}, {"facility": f"{facility}-3"}, {"session": "another"}):
        assert api.counts(**nobody).sockets == 0


def test_listeners_are_sockets_and_not_workers(sockets, facility):
    assert api.listeners(facility=facility, broadcast=True) == 2
    assert api.listeners(facility=facility, users="john") == 1
    assert api.listeners(facility=facility, users=["john", "mary"], broadcast=True) == 2, "each socket once"
    assert api.listeners(facility=facility, users="mary") == 0
    assert api.listeners(facility=facility, groups="chatters") == 0


def test_disconnect_closes_the_sockets_of_a_user_and_no_others(sockets, facility):
    assert api.disconnect(user="john") == 2
    assert closed(sockets.john) == closed(sockets.elsewhere) == DISCONNECTED
    api.publish("still here", facility=facility, broadcast=True)
    assert sockets.visitor.message() == "still here"
    assert api.counts().sockets == 1


def test_arguments_narrow_it_down_and_code_and_reason_are_the_sites(sockets, facility):
    assert api.disconnect(user=User.objects.get(), facility=facility, code=4321, reason="room closed, später") == 1
    assert closed(sockets.john) == (4321, "room closed, später")
    assert api.disconnect(session=sockets.session) == 1
    assert api.counts().sockets == 1


def test_a_facility_and_everybody(sockets, facility):
    assert api.disconnect(facility=facility) == 2
    assert closed(sockets.visitor) == DISCONNECTED
    assert api.disconnect(everybody=True) == 1
    assert closed(sockets.elsewhere) == closed(sockets.john) == DISCONNECTED
    wait_until(nothing_is_left)


def test_the_session_of_a_visitor_who_has_not_signed_in(front, shared_redis, database, facility):
    session = SessionStore()
    session["cart"] = [7]
    session.save()
    peer = front.connect(f"{facility}?subscribe-session", HTTP_COOKIE=f"sessionid={session.session_key}")
    front.connect(f"{facility}?subscribe-broadcast")
    assert api.disconnect(session=session.session_key) == 1
    assert closed(peer) == DISCONNECTED


def test_the_socket_of_a_page_is_closed_with_a_goodbye(front, shared_redis, facility):
    page = front.connect("", HTTP_SEC_WEBSOCKET_PROTOCOL="wsloop.v1")
    assert json.loads(page.message())["type"] == "welcome"
    page.text(json.dumps({"type": "subscribe", "facility": facility, "audiences": ["broadcast"], "id": 1}))
    assert json.loads(page.message())["facility"] == facility
    assert api.disconnect(facility=facility, reason="the room is closed") == 1
    goodbye = {"type": "goodbye", "code": 4500, "reason": "the room is closed", "reconnect": False}
    assert json.loads(page.message()) == goodbye
    assert closed(page) == (4500, "the room is closed")
    assert CLOSE_CODES[4500].reconnect == "never"


def test_many_sockets_are_closed_in_batches(front, shared_redis, facility, monkeypatch):
    monkeypatch.setattr(answering, "BATCH", 2)
    peers = [front.connect(f"{facility}?subscribe-broadcast") for _ in range(5)]
    assert api.disconnect(facility=facility) == 5
    assert [closed(each) for each in peers] == [DISCONNECTED] * 5


def test_all_workers_are_asked_and_their_answers_added_up(sockets, second_worker):
    second_worker.answers += [{"sockets": 5, "signed_in": 4}, {"sockets": 7}]
    assert api.counts(user="john") == Counts(7, 6, 2, 0)
    assert api.disconnect(everybody=True, code=4001, reason="") == 10
    asked = [{name: value for name, value in each.items() if name != "id"} for each in second_worker.requests]
    assert asked == [
        {"do": "count", "user": str(User.objects.get().pk)},
        {"do": "disconnect", "code": 4001, "reason": ""},
    ]


def test_a_worker_that_does_not_answer_is_not_waited_for_for_ever(sockets, second_worker, with_settings, caplog):
    with_settings(WSLOOP={"REDIS_TIMEOUT": 2})
    began = time.monotonic()
    assert api.counts() == Counts(3, 2, 1, 1)
    assert time.monotonic() - began >= 2
    assert "1 of 2 workers did not answer a request within 2 s" in caplog.text


def test_without_workers_nobody_is_waited_for(shared_redis, facility):
    assert api.counts() == Counts(0, 0, 0, 0)
    assert api.listeners(facility=facility, broadcast=True) == api.disconnect(facility=facility) == 0


def test_several_processes_ask_at_once(sockets):
    asking_now = [gevent.spawn(api.counts) for _ in range(20)]
    assert [each.get(timeout=20).sockets for each in asking_now] == [3] * 20


def test_what_publish_presence_and_history_return_is_what_the_parts_say(front, shared_redis, facility, with_settings):
    with_settings(WSLOOP={"FACILITIES": {facility: {"size": 10, "presence": True}}})
    assert api.presence(facility) == ([], 0)
    peer = front.connect(f"{facility}?subscribe-broadcast")
    wait_until(lambda: api.presence(facility).anonymous == 1)
    assert isinstance(api.presence().users, list)
    for number in (1, 2, 2):
        api.publish({"order": number}, facility=facility, broadcast=True, key=f"order {number}", expire=0)
    assert peer.messages(2) == ['{"order": 1}', '{"order": 2}']
    entries = api.history(facility=facility, broadcast=True, users="john")
    assert [json.loads(each.message.payload)["order"] for each in entries] == [1, 2]
    assert [each.message.offset for each in api.history(facility=facility, broadcast=True, limit=1)] == [2]


def test_publish_addresses_somebody(shared_redis, facility):
    for call in (lambda: api.publish("text", facility=facility), lambda: api.history(facility=facility, users=[])):
        with pytest.raises(ValueError, match=r"give broadcast=True, users, groups or sessions"):
            call()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, TypeError, r"needs a user, a session or a facility; everybody=True closes all"),
        ({"everybody": 1}, TypeError, "everybody=True"),
        ({"facility": "x", "code": 1000}, ValueError, "code must be a whole number from 4000 to 4999"),
        ({"facility": "x", "code": True}, ValueError, "not True"),
        ({"facility": "x", "code": 5000}, ValueError, "not 5000"),
        ({"facility": "x", "reason": "é" * 62}, ValueError, "up to 123 bytes in UTF-8"),
        ({"facility": "x", "reason": "\ud800"}, ValueError, "UTF-8"),
        ({"facility": "x", "reason": 7}, TypeError, "reason must be text, not 7"),
        ({"facility": 7}, TypeError, "name of a facility"),
        ({"facility": "/news"}, ValueError, "without a slash"),
        ({"session": ""}, ValueError, "not an empty text"),
        ({"user": 7}, TypeError, "user names, user objects or SELF, not 7"),
        ({"user": ""}, ValueError, "not an empty text"),
        ({"user": AnonymousUser()}, ValueError, "has not signed in"),
        ({"user": User(username="unsaved")}, ValueError, "is not saved"),
    ],
)
def test_wrong_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        api.disconnect(**arguments)


def test_a_user_who_does_not_exist(database):
    with pytest.raises(ObjectDoesNotExist, match="there is no user with the name 'nobody'"):
        api.disconnect(user="nobody")
    with pytest.raises(get_user_model().DoesNotExist):
        api.counts(user="nobody")


def test_a_request_is_bounded(shared_redis, facility):
    with pytest.raises(ValueError, match="longer than 262144 bytes: name fewer"):
        api.listeners(facility=facility, users=[f"{number:0200}" for number in range(2000)])


@pytest.fixture
def worker(shared_redis, caplog):
    """A worker without sockets; ``worker.log()`` after it has handled what it got."""
    hub = Hub(lambda connection: None)
    worker = Answering(hub)

    def log():
        wait_until(lambda: not worker._requests._running)
        return caplog.text

    worker.log = log
    return worker


MALFORMED = [
    b"",
    b"\xff",
    b"[]",
    b"7",
    b"{}",
    b'{"id": "a"}',
    b'{"id": 7, "do": "count"}',
    b'{"id": "a:b", "do": "count"}',
    b'{"id": "%b", "do": "count"}' % (b"a" * 33),
    b'{"id": "a", "do": "shutdown"}',
    b'{"id": "a", "do": []}',
    b'{"id": "a", "do": "count", "user": []}',
    b'{"id": "a", "do": "count", "session": {}}',
    b'{"id": "a", "do": "listeners"}',
    b'{"id": "a", "do": "listeners", "channels": 7}',
    b'{"id": "a", "do": "listeners", "channels": [7]}',
    b'{"id": "a", "do": "disconnect"}',
    b'{"id": "a", "do": "disconnect", "code": 1005, "reason": ""}',
    b'{"id": "a", "do": "disconnect", "code": 4000, "reason": 7}',
    b'{"id": "a", "do": "disconnect", "code": 4000, "reason": "%b"}' % (b"a" * 124),
    b"[" * 100_000,
    b'{"id": "a", "do": "count", "user": "%b"}' % (b"a" * asking.MOST),
]


@pytest.mark.parametrize("payload", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_requests_are_ignored_and_the_next_one_is_answered(worker, payload):
    worker.on_request(payload)
    assert worker.log().count("Ignored malformed request to all workers") == 1
    with pool.client().pubsub() as answers:
        answers.subscribe(keys.answers_channel("next"))
        assert answers.get_message(timeout=5)["type"] == "subscribe"
        worker.on_request(b'{"id": "next", "do": "count", "facility": "news", "later": "more"}')
        assert json.loads(answers.get_message(timeout=5)["data"]) == {"sockets": 0, "signed_in": 0}


def test_requests_that_wait_are_bounded(worker, monkeypatch):
    monkeypatch.setattr(answering, "WAITING", 3)
    handled = []
    worker._carry_out["count"] = lambda request: (handled.append(request["id"]), [])
    for number in range(5):
        worker.on_request(json.dumps({"id": str(number), "do": "count"}).encode())
    assert "because 3 others wait" in worker.log()
    assert handled == ["0", "1", "2"]


def test_a_worker_that_cannot_answer_acts_all_the_same(own_redis, facility, front, caplog):
    peer = front.connect(f"{facility}?subscribe-broadcast")
    request = {"id": "a", "do": "disconnect", "facility": facility, "code": 4000, "reason": "bye"}
    worker = Answering(engine().hub)
    own_redis.kill()
    with caplog.at_level(logging.WARNING, logger="wsloop.answering"):
        worker.on_request(json.dumps(request).encode())
        assert closed(peer) == (4000, "bye")
    assert "Could not answer a request to all workers" in caplog.text
