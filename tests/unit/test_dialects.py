"""What is said on the wire: each frame as docs/reference/wsloop-v1.rst has it, and what clients may say."""

import base64
import json
import random
import re

import pytest

from testbed.processes import ROOT
from wsloop.protocol import commands, dialects, resume_tokens
from wsloop.protocol.close_codes import FINAL
from wsloop.protocol.dialects import BARE, CONSUMER, DIALECTS, V1_DIALECT
from wsloop.protocol.events import BARE_EVENTS, V1_EVENTS
from wsloop.protocol.messages import Message, Position

NEWS, CHATTERS = b"unit:broadcast:orders", b"unit:group:chatters:orders"
PAGE = (ROOT / "docs" / "reference" / "wsloop-v1.rst").read_text()


def frames_of(text):
    """The JSON objects at the beginning of a text."""
    decoder = json.JSONDecoder()
    while text.startswith("{"):
        frame, end = decoder.raw_decode(text)
        yield frame
        text = text[end:].lstrip()


def examples(kind):
    """The frames of this type that the page shows, from the server or to it."""
    texts = re.findall(r"code-block:: json\n\n((?: +.*\n|\n)+)", PAGE) + re.findall(r"``(\{\"type[^`]*)``", PAGE)
    return [frame for text in texts for frame in frames_of(text.strip()) if frame["type"] == kind]


def words(section):
    """What the first column of this section's table names."""
    text = re.search(rf"\n{section}\n~+\n(.*?)(?=\n[a-z]+\n~|\n[A-Z][a-z ]+\n---)", PAGE, re.S)[1]
    return set(re.findall(r"^([a-z]\w+) +[\w`]", text, re.M))


def frame(payload):
    return json.loads(payload)


# From the server.


def test_wsloop_v1_is_preferred_and_bare_messages_are_the_other_one():
    assert list(DIALECTS) == ["wsloop.v1", "ws4redis"]
    assert DIALECTS["wsloop.v1"] is V1_DIALECT


def test_the_heartbeat_of_ws4redis_is_for_its_own_clients_only():
    assert [each.heartbeat for each in (BARE, V1_DIALECT, CONSUMER)] == [True, False, False]


def test_consumers_speak_a_dialect_that_says_nothing_and_that_no_client_can_ask_for():
    message = Message(b"payload", "id", 7, "-")
    assert CONSUMER not in DIALECTS.values()
    assert (CONSUMER.has_envelopes, CONSUMER.ping) == (False, None)
    assert CONSUMER.goodbye(1012, "server restarting") is None
    assert CONSUMER.lost(NEWS, Position(7, "id")) is None
    assert CONSUMER.position(NEWS, message) is None
    assert CONSUMER.message(NEWS, message) == b"payload"


def test_a_message_as_the_page_has_it():
    text, binary = examples("message")
    made = frame(V1_DIALECT.message(NEWS, Message(b"Hello", "9fQ2mX0aB1cD", 17, "-")))
    assert made == text | {"position": f"{resume_tokens.label(NEWS)}.17.9fQ2mX0aB1cD"}
    assert re.fullmatch(r"[\w-]{8}\.17\.9fQ2mX0aB1cD", text["position"])
    assert frame(V1_DIALECT.message(CHATTERS, Message(base64.b64decode("AAEC/w==")), own=True)) == binary


@pytest.mark.parametrize(
    ("channel", "whom"),
    [
        (NEWS, {"facility": "orders", "audience": "broadcast"}),
        (b"unit:broadcast:a:b", {"facility": "a:b", "audience": "broadcast"}),
        (b"unit:user:john:orders", {"facility": "orders", "audience": "user"}),
        (b"unit:user:john:doe:orders", {"facility": "orders", "audience": "user"}),
        (CHATTERS, {"facility": "orders", "audience": "group", "name": "chatters"}),
        (b"unit:group:a:b:orders", {"facility": "orders", "audience": "group", "name": "a:b"}),
        (b"unit:session:a-secret:orders", {"facility": "orders", "audience": "session"}),
        (b"unit:session:a-secret:a:b", {"facility": "a:b", "audience": "session"}),
        (b"everything", {"channel": resume_tokens.label(b"everything"), "audience": "other"}),
    ],
)
def test_whom_a_message_is_for(channel, whom):
    payload = V1_DIALECT.message(channel, Message(b"x"))
    assert frame(payload) == {"type": "message", **whom, "data": "x"}
    assert b"secret" not in payload


@pytest.mark.parametrize("text", ["", "grün", '{"n": 1}', 'a "quoted"\n\0\u2028 line', "\U0001f600", "</script>"])
def test_text_is_data_and_comes_back_as_it_was(text):
    assert frame(V1_DIALECT.message(NEWS, Message(text.encode())))["data"] == text


@pytest.mark.parametrize("payload", [b"\xff", b"\xed\xa0\x80", bytes(range(256))])
def test_what_is_no_text_is_base64(payload):
    made = frame(V1_DIALECT.message(NEWS, Message(payload)))
    assert "data" not in made
    assert base64.b64decode(made["base64"], validate=True) == payload


def test_words_about_a_message():
    message = Message(b"x", "a", 1, "-")
    assert frame(V1_DIALECT.message(NEWS, message, own=True, kept=True)) == {
        "type": "message",
        "facility": "orders",
        "audience": "broadcast",
        "data": "x",
        "position": resume_tokens.position(NEWS, Position(1, "a")),
        "own": True,
        "kept": True,
    }
    assert set(frame(V1_DIALECT.message(NEWS, Message(b"x")))) == {"type", "facility", "audience", "data"}
    assert words("message") == {"facility", "audience", "name", "data", "base64", "position", "own", "kept"}


def test_a_position_by_itself():
    (example,) = examples("position")
    made = frame(V1_DIALECT.position(NEWS, Message(b"x", "a", 1, "-", True)))
    assert set(made) == set(example)
    assert made["position"] == resume_tokens.position(NEWS, Position(1, "a"))
    assert V1_DIALECT.position(NEWS, Message(b"x", "a", multi_audience=True)) is None, "without a history there is none"


def test_presence_as_the_page_has_it():
    for example in examples("presence"):
        published = json.dumps({key: value for key, value in example.items() if key != "type"}).encode()
        assert frame(V1_DIALECT.message(b"unit:presence:orders", Message(published))) == example
    assert len(examples("presence")) == 3


def test_a_welcome_as_the_page_has_it():
    of_url, of_page, empty = examples("welcome")
    channels = [NEWS, b"unit:user:john:orders", CHATTERS]
    assert frame(dialects.welcome("orders", channels, True, token=of_url["token"], ping=30)) == of_url
    assert frame(dialects.welcome("orders", [NEWS], None, id=1, token=None)) == of_page
    assert frame(dialects.welcome("", [], None, ping=30)) == empty
    channels = [b"unit:session:a-secret:orders", b"unit:presence:orders"]
    present = {"users": ["john"], "anonymous": 2}
    assert frame(dialects.welcome("orders", channels, None, ping=30, presence=present)) == {
        "type": "welcome",
        "facility": "orders",
        "subscribed": ["session", "presence"],
        "recovered": None,
        "ping": 30,
        "presence": present,
    }
    assert words("welcome") == {"facility", "subscribed", "recovered", "token", "ping", "presence", "other"}


def test_a_welcome_names_channels_that_are_not_of_its_facility():
    """Of a site's own subscriber: their frames do not name the facility of the subscription."""
    channels = [NEWS, b"everything", b"unit:broadcast:news", b"unit:user:john:news"]
    made = frame(dialects.welcome("orders", channels, None))
    assert made["subscribed"] == ["broadcast", "other", "broadcast", "user"]
    assert made["other"] == sorted([resume_tokens.label(b"everything"), "news"])


def test_the_end_of_a_subscription_as_the_page_has_it():
    asked, ended = examples("unsubscribed")
    assert frame(dialects.unsubscribed("orders", 2)) == asked
    assert frame(dialects.unsubscribed("orders", code=ended["code"], reason=ended["reason"])) == ended


def test_a_page_of_the_past_as_the_page_has_it():
    answer, asked = sorted(examples("history"), key=lambda each: "limit" in each)
    assert asked["limit"] == commands.HISTORY
    message = Message(b"Hello", "9fQ2mX0aB1cD", 17, "-")
    position = f"{resume_tokens.label(NEWS)}.17.9fQ2mX0aB1cD"
    answer["messages"][0]["position"] = position
    assert frame(dialects.history("orders", [(NEWS, message)], answer["before"], 4)) == answer
    assert frame(dialects.history("orders", [], None)) == {
        "type": "history",
        "facility": "orders",
        "messages": [],
        "before": None,
    }


def test_the_answer_to_a_call_as_the_page_has_it():
    (example,) = examples("answer")
    assert frame(dialects.answer(200, 5, data={"state": "paid"})) == example
    assert frame(dialects.answer(302, location="/login/")) == {"type": "answer", "status": 302, "location": "/login/"}


def test_an_ack_as_the_page_has_it():
    (example,) = examples("ack")
    assert frame(dialects.ack(7)) == example


def test_a_loss_as_the_page_has_it():
    example, refused = examples("error")
    assert frame(dialects.error("refused", refused["reason"], 1, facility="orders")) == refused
    made = frame(V1_DIALECT.lost(b"unit:user:john:orders", Position(3, "Xy0aB1cD9fQ2")))
    assert made == example | {"position": resume_tokens.position(b"unit:user:john:orders", Position(3, "Xy0aB1cD9fQ2"))}
    assert frame(V1_DIALECT.lost(CHATTERS, Position(3, "x")))["name"] == "chatters"


def test_errors_and_their_ids():
    assert frame(dialects.error("refused", "This socket may not publish.")) == {
        "type": "error",
        "code": "refused",
        "reason": "This socket may not publish.",
    }
    for id in (0, "", 7, "seven", 1.5):
        assert frame(dialects.error("frame", "reason", id))["id"] == id
    assert words("error") == {"lost", "frame", "refused", "unavailable", "limit", "internal"}


def test_a_goodbye_as_the_page_has_it(monkeypatch):
    (example,) = examples("goodbye")
    monkeypatch.setattr(random, "randrange", lambda most: 1730)
    assert frame(V1_DIALECT.goodbye(1012, "server restarting")) == example


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 4000, 4008, 4029, 4499])
def test_after_most_goodbyes_clients_come_back_spread_over_some_seconds(code):
    made = [frame(V1_DIALECT.goodbye(code, "reason")) for _ in range(300)]
    assert all(each["reconnect"] for each in made)
    times = sorted(each["after"] for each in made)
    assert 0 <= times[0] < 0.2 * dialects.SPREAD
    assert 0.8 * dialects.SPREAD < times[-1] < dialects.SPREAD
    assert all(isinstance(each, int) for each in times)


def test_the_server_may_know_when_they_are_to_come_back():
    for dialect in (V1_DIALECT, V1_EVENTS):
        assert b'"after": 7' in dialect.goodbye(1012, "reason", 7)
        assert b"after" not in dialect.goodbye(4001, "reason", 7)
    assert b"after" not in BARE_EVENTS.goodbye(1012, "reason", 7)


@pytest.mark.parametrize("code", [*sorted(FINAL), 4500, 4999])
def test_after_others_they_must_not(code):
    assert frame(V1_DIALECT.goodbye(code, "reason")) == {
        "type": "goodbye",
        "code": code,
        "reason": "reason",
        "reconnect": False,
    }


def test_a_ping_as_the_page_has_it():
    assert [frame(V1_DIALECT.ping)] == examples("ping")


def test_the_bare_dialect_has_messages_alone():
    for payload in (b"", b"hello", b"\xff"):
        message = Message(payload, "a", 1, "-", True)
        assert BARE.message(NEWS, message, own=True, kept=True) == payload
        assert BARE.position(NEWS, message) is None
    assert BARE.lost(NEWS, Position(1, "a")) is None
    assert BARE.goodbye(1012, "reason") is None
    assert BARE.ping is None


@pytest.mark.parametrize(
    "event", ['{"event": NaN}', '{"event": "join", "user": "\\ud800"}', '{"event": "n", "count": 1e999}']
)
def test_what_somebody_has_published_as_presence_and_no_client_could_read_is_a_message(event):
    text = V1_DIALECT.message(b"unit:presence:orders", Message(event.encode()))
    assert json.loads(text)["data"] == event


@pytest.mark.parametrize("depth", [1, 500, 980, 985, 990, 995, 999])
def test_parts_of_what_is_published_as_presence_break_nothing(depth):
    payload = '{"event": ' + "[" * depth + "]" * depth + "}"
    text = V1_DIALECT.message(b"unit:presence:orders", Message(payload.encode()))
    assert json.loads(text)["data"] == payload
