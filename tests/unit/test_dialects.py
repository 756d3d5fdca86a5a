"""What is said on the wire: each frame as docs/reference/wsloop-v1.rst has it, and what clients may say."""

import base64
import json
import random
import re

import pytest

from testbed.processes import ROOT
from wsloop.protocol import dialects, resume_tokens
from wsloop.protocol.dialects import BARE, CONSUMER, DIALECTS, V1_DIALECT, InvalidFrame, Published, parse
from wsloop.protocol.messages import Message, Position

NEWS, CHATTERS = b"unit:broadcast:news", b"unit:group:chatters:news"
PAGE = (ROOT / "docs" / "reference" / "wsloop-v1.rst").read_text()


def examples(kind):
    """The frames of this type that the page shows, from the server or to it."""
    found = [json.loads(text) for text in re.findall(r'\{"type": "[a-z]+"[^`]*?\}(?=``|\n\s|\n\n)', PAGE)]
    return [frame for frame in found if frame["type"] == kind]


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
        (NEWS, {"audience": "broadcast"}),
        (b"unit:user:john:news", {"audience": "user"}),
        (CHATTERS, {"audience": "group", "name": "chatters"}),
        (b"unit:session:a-secret:news", {"audience": "session"}),
        (b"everything", {"audience": "other"}),
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
        "audience": "broadcast",
        "data": "x",
        "position": resume_tokens.position(NEWS, Position(1, "a")),
        "own": True,
        "kept": True,
    }
    assert set(frame(V1_DIALECT.message(NEWS, Message(b"x")))) == {"type", "audience", "data"}
    assert words("message") == {"audience", "name", "data", "base64", "position", "own", "kept"}


def test_a_position_by_itself():
    (example,) = examples("position")
    made = frame(V1_DIALECT.position(NEWS, Message(b"x", "a", 1, "-", True)))
    assert set(made) == set(example)
    assert made["position"] == resume_tokens.position(NEWS, Position(1, "a"))
    assert V1_DIALECT.position(NEWS, Message(b"x", "a", multi_audience=True)) is None, "without a history there is none"


def test_presence_as_the_page_has_it():
    for example in examples("presence"):
        published = json.dumps({key: value for key, value in example.items() if key != "type"}).encode()
        assert frame(V1_DIALECT.message(b"unit:presence:news", Message(published))) == example
    assert len(examples("presence")) == 3


def test_a_welcome_as_the_page_has_it():
    (example,) = examples("welcome")
    channels = [NEWS, b"unit:user:john:news", CHATTERS]
    assert frame(dialects.welcome(channels, True, example["token"], 30, None)) == example
    channels = [b"unit:session:a-secret:news", b"unit:presence:news"]
    present = {"users": ["john"], "anonymous": 2}
    assert frame(dialects.welcome(channels, None, None, 30, present)) == {
        "type": "welcome",
        "subscribed": ["session", "presence"],
        "recovered": None,
        "ping": 30,
        "presence": present,
    }
    assert words("welcome") == {"subscribed", "recovered", "token", "ping", "presence"}


def test_an_ack_as_the_page_has_it():
    (example,) = examples("ack")
    assert frame(dialects.ack(7)) == example


def test_a_loss_as_the_page_has_it():
    (example,) = examples("error")
    made = frame(V1_DIALECT.lost(b"unit:user:john:news", Position(3, "Xy0aB1cD9fQ2")))
    assert made == example | {"position": resume_tokens.position(b"unit:user:john:news", Position(3, "Xy0aB1cD9fQ2"))}
    assert frame(V1_DIALECT.lost(CHATTERS, Position(3, "x")))["name"] == "chatters"


def test_errors_and_their_ids():
    assert frame(dialects.error("refused", "This socket may not publish.")) == {
        "type": "error",
        "code": "refused",
        "reason": "This socket may not publish.",
    }
    for id in (0, "", 7, "seven", 1.5):
        assert frame(dialects.error("frame", "reason", id))["id"] == id
    assert words("error") == {"lost", "frame", "refused", "unavailable"}


def test_a_goodbye_as_the_page_has_it(monkeypatch):
    (example,) = examples("goodbye")
    monkeypatch.setattr(random, "randrange", lambda most: 1730)
    assert frame(V1_DIALECT.goodbye(1012, "server restarting")) == example


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 4008, 4029])
def test_after_most_goodbyes_clients_come_back_spread_over_some_seconds(code):
    made = [frame(V1_DIALECT.goodbye(code, "reason")) for _ in range(300)]
    assert all(each["reconnect"] for each in made)
    times = sorted(each["after"] for each in made)
    assert 0 <= times[0] < 0.2 * dialects.SPREAD
    assert 0.8 * dialects.SPREAD < times[-1] < dialects.SPREAD
    assert all(isinstance(each, int) for each in times)


@pytest.mark.parametrize("code", sorted(dialects.FINAL))
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


# From the client.


def test_what_is_to_be_published_as_the_page_has_it():
    text, binary = examples("publish")
    assert parse(json.dumps(text).encode(), True) == Published(b"Hello", 7)
    assert parse(json.dumps(binary).encode(), True) == Published(base64.b64decode("AAEC/w=="))


@pytest.mark.parametrize("payload", [b"", b"\xff", b'{"type": "publish"}'])
def test_a_binary_frame_is_published_as_it_is(payload):
    assert parse(payload, False) == Published(payload)


@pytest.mark.parametrize(
    ("content", "published"),
    [
        ('"data": ""', Published(b"")),
        ('"data": "gr\\u00fcn \\ud83d\\ude00"', Published("grün \U0001f600".encode())),
        ('"data": "x", "id": null', Published(b"x")),
        ('"data": "x", "id": 0', Published(b"x", 0)),
        ('"data": "x", "id": -1.5', Published(b"x", -1.5)),
        ('"data": "x", "id": ""', Published(b"x", "")),
        ('"data": "x", "id": "' + "ü" * 64 + '"', Published(b"x", "ü" * 64)),
        ('"data": "x", "unknown": [1]', Published(b"x")),
        ('"base64": ""', Published(b"")),
    ],
)
def test_what_is_understood(content, published):
    assert parse(f'{{"type": "publish", {content}}}'.encode(), True) == published


HOSTILE = [
    (b"", "must be JSON"),
    (b"hello", "must be JSON"),
    (b"{", "must be JSON"),
    (b"[" * 100_000, "must be JSON"),
    (b'{"a":' * 100_000, "must be JSON"),
    (b"[" * 100_000 + b"]" * 100_000, "must be JSON"),
    (b'{"type": "publish", "data": "x", "id": ' + b"9" * 5000 + b"}", "must be JSON"),
    (b'{"type": "publish", "data": "\n"}', "must be JSON"),
    (b"null", "must be a JSON object"),
    (b"[]", "must be a JSON object"),
    (b'"publish"', "must be a JSON object"),
    (b"NaN", "must be JSON"),
    (b"{}", "type must be"),
    (b'{"type": "ack", "id": 7}', "type must be"),
    (b'{"type": ["publish"]}', "type must be"),
    (b'{"type": "publish"}', "data or base64"),
    (b'{"type": "publish", "data": "x", "base64": "AA=="}', "not both"),
    (b'{"type": "publish", "data": null}', "must be text"),
    (b'{"type": "publish", "data": 1}', "must be text"),
    (b'{"type": "publish", "data": {"a": 1}}', "must be text"),
    (b'{"type": "publish", "data": ["x"]}', "must be text"),
    (b'{"type": "publish", "data": "\\ud800"}', "must be text"),
    (b'{"type": "publish", "base64": null}', "must be text"),
    (b'{"type": "publish", "base64": 7}', "must be text"),
    (b'{"type": "publish", "base64": ["AA=="]}', "must be text"),
    (b'{"type": "publish", "base64": {"a": 1}}', "must be text"),
    (b'{"type": "publish", "base64": "A"}', "base64 is not valid"),
    (b'{"type": "publish", "base64": "AA==\\n"}', "base64 is not valid"),
    (b'{"type": "publish", "base64": "A-_="}', "base64 is not valid"),
    ('{"type": "publish", "base64": "ü==="}'.encode(), "base64 is not valid"),
    (b'{"type": "publish", "base64": "\\ud800"}', "base64 is not valid"),
]


@pytest.mark.parametrize(("payload", "words"), HOSTILE)
def test_what_is_not_understood_is_told(payload, words):
    with pytest.raises(InvalidFrame, match=words):
        parse(payload, True)


@pytest.mark.parametrize("id", [0, 7, "seven"])
@pytest.mark.parametrize(
    ("payload", "words"), [each for each in HOSTILE if b"publish" in each[0] and "JSON" not in each[1]]
)
def test_it_is_told_with_the_id_of_the_frame_if_it_has_one(payload, words, id):
    with pytest.raises(InvalidFrame, match=words) as caught:
        parse(payload[:-1] + b', "id": ' + json.dumps(id).encode() + b"}", True)
    assert caught.value.id == id
    assert words in frame(dialects.error("frame", str(caught.value), id))["reason"]


@pytest.mark.parametrize(
    "id",
    [
        "true",
        "false",
        "[]",
        "{}",
        "[1]",
        '"' + "x" * 65 + '"',
        '"\\ud800"',
        '"\\udfff x"',
    ],
)
@pytest.mark.parametrize("rest", ['"type": "publish", "data": "x"', '"type": "other"', '"type": "publish", "data": 1'])
def test_an_id_that_could_not_be_sent_back_is_refused_without_it(id, rest):
    with pytest.raises(InvalidFrame, match="id must be a number, or a text of up to 64 characters") as caught:
        parse(f'{{{rest}, "id": {id}}}'.encode(), True)
    assert caught.value.id is None


@pytest.mark.parametrize("value", ["9" * 65, "NaN", "-Infinity", "1e999", '{"a": [NaN]}'])
@pytest.mark.parametrize("name", ["id", "data", "more"])
def test_what_is_no_json_anywhere_in_a_frame_is_refused(name, value):
    with pytest.raises(InvalidFrame, match="A frame must be JSON, or binary: ") as caught:
        parse(f'{{"type": "publish", "{name}": {value}}}'.encode(), True)
    assert caught.value.id is None
    dialects.error("frame", str(caught.value)).decode()


@pytest.mark.parametrize(
    "event", ['{"event": NaN}', '{"event": "join", "user": "\\ud800"}', '{"event": "n", "count": 1e999}']
)
def test_what_somebody_has_published_as_presence_and_no_client_could_read_is_a_message(event):
    text = V1_DIALECT.message(b"unit:presence:news", Message(event.encode()))
    assert json.loads(text)["data"] == event


@pytest.mark.parametrize(
    "id", ["0", "-7", "1.25", "1e300", "9007199254740993", '"x y"', '"\\u00fc"', '"a\\"b"', '"\\u2603"']
)
def test_what_is_answered_is_json_with_the_same_id(id):
    published = parse(f'{{"type": "publish", "data": "x", "id": {id}}}'.encode(), True)

    def strict(constant):
        raise AssertionError(f"{constant} is no JSON")

    for made in (dialects.ack(published.id), dialects.error("unavailable", "reason", published.id)):
        assert json.loads(made, parse_constant=strict)["id"] == json.loads(id)


@pytest.mark.parametrize("depth", [1, 500, 980, 985, 990, 995, 999])
def test_parts_of_what_is_published_as_presence_break_nothing(depth):
    payload = '{"event": ' + "[" * depth + "]" * depth + "}"
    text = V1_DIALECT.message(b"unit:presence:news", Message(payload.encode()))
    assert json.loads(text)["data"] == payload
