"""What becomes of what the sockets of facilities send; most of it is seen in ``test_server``, with real requests."""

import functools
import json

import pytest

from wsloop import conf
from wsloop.facilities import enveloped
from wsloop.facilities.enveloped import EnvelopeHandler
from wsloop.facilities.inbound import AckCollector, ReadOnlyHandler
from wsloop.protocol import dialects
from wsloop.sockets.limits import Bounds, Meter

EVENTS = "pausing", "drained", "closing", "closed"


class Hub:
    """What a handler hands on, and what it sends."""

    def __init__(self):
        self.sent = []
        self.told = []
        for event in EVENTS:
            setattr(self, event, functools.partial(self._tell, event))

    def _tell(self, event, connection):
        self.told.append((event, connection))

    def send(self, connection, texts):
        self.sent += texts


class Client:
    """A connection that notes its replies."""

    bounds = Bounds(64 * 1024, 1024 * 1024)

    def __init__(self):
        self.replies = []
        self.meter, self.bounds = Meter(), Bounds(65536, 65536)

    def reply(self, payload, text):
        self.replies.append((payload, text))


def test_a_listener_hands_its_connections_to_the_hub_and_ignores_what_they_send():
    hub, client = Hub(), Client()
    listener = ReadOnlyHandler(hub)
    for event in EVENTS:
        getattr(listener, event)(client)
    assert hub.told == [(event, client) for event in EVENTS]
    listener.received(client, b"hello", True)
    assert client.replies == hub.sent == []


def answers_to(*frames, publisher=None):
    """What a socket of ``wsloop.v1`` is answered."""
    hub, client = Hub(), Client()
    handler = EnvelopeHandler(hub, publisher, conf.PLAIN)
    for frame in frames:
        handler.received(client, frame, True)
    return [payload for payload, _ in client.replies] + hub.sent


def test_without_a_speaker_whoever_publishes_is_told_that_it_may_not():
    words = "A frame must be JSON, or binary: unexpected end or character at position 0."
    assert answers_to(b'{"type": "publish", "data": "x", "id": 7}') == [
        dialects.error("refused", "This socket may not publish.", 7)
    ]
    assert answers_to(b"no JSON") == [dialects.error("frame", words)]


class Speaker:
    facility = "news"

    def publish(self, connection, payload, answer, key=""):
        answer(True)


def test_a_frame_for_another_facility_than_that_of_the_url():
    frame = {"type": "publish", "data": "x", "id": 7}
    for facility, answer in (
        ("news", dialects.ack(7)),
        ("other", dialects.error("frame", enveloped.OTHER_FACILITY, 7)),
    ):
        assert answers_to(json.dumps({**frame, "facility": facility}).encode(), publisher=Speaker()) == [answer]


@pytest.mark.parametrize("kind", ["subscribe", "unsubscribe", "call"])
def test_what_only_the_socket_of_a_page_can_do_is_refused(kind):
    frame = json.dumps({"type": kind, "id": 7, "facility": "news", "audiences": ["user"], "path": "/"})
    assert answers_to(frame.encode()) == [dialects.error("refused", enveloped.ONE_FACILITY, 7)]


@pytest.mark.parametrize(("id", "taken", "sent"), [(None, True, []), (7, True, [dialects.ack(7)])])
def test_whoever_asks_is_told_that_the_message_was_taken(id, taken, sent):
    class PublishHandler:
        facility = "news"

        def publish(self, connection, payload, answer, key):
            assert (payload, key) == (b"x", "k")
            answer(taken)

    frame = {"type": "publish", "data": "x", "key": "k", **({"id": id} if id else {})}
    assert answers_to(json.dumps(frame).encode(), publisher=PublishHandler()) == sent


@pytest.mark.parametrize(("outcomes", "answer"), [([True, True], True), ([True, False], False), ([False, True], False)])
def test_for_several_publications_of_the_sites_code_there_is_one_answer_behind_the_last(outcomes, answer):
    given = []
    answers = AckCollector(given.append)
    first, second = answers.another(), answers.another()
    first(outcomes[0])
    answers.complete()
    assert given == []
    second(outcomes[1])
    assert given == [answer]


def test_code_that_publishes_nothing_has_taken_the_message():
    given = []
    AckCollector(given.append).complete()
    assert given == [True]
