"""What clients may say: each frame as docs/reference/wsloop-v1.rst has it, and what they must not."""

import base64
import json

import pytest

from tests.unit.test_dialects import examples
from wsloop.protocol import commands, dialects
from wsloop.protocol.commands import Call, History, Invalid, Publish, Subscribe, Unsubscribe, parse


def one(payload, text=True):
    (command,) = parse(payload, text)
    return command


def of(**frame):
    return one(json.dumps(frame).encode())


def test_what_is_to_be_published_as_the_page_has_it():
    text, binary = examples("publish")
    assert of(**text) == Publish(7, "orders", b"Hello", text["key"])
    assert of(**binary) == Publish(None, None, base64.b64decode("AAEC/w=="))


@pytest.mark.parametrize("payload", [b"", b"\xff", b'{"type": "publish"}'])
def test_a_binary_frame_is_published_as_it_is(payload):
    assert one(payload, False) == Publish(None, None, payload)


@pytest.mark.parametrize(
    ("content", "published"),
    [
        ('"data": ""', Publish(None, None, b"")),
        ('"data": "gr\\u00fcn \\ud83d\\ude00"', Publish(None, None, "grün \U0001f600".encode())),
        ('"data": "x", "id": null', Publish(None, None, b"x")),
        ('"data": "x", "id": 0', Publish(0, None, b"x")),
        ('"data": "x", "id": -1.5', Publish(-1.5, None, b"x")),
        ('"data": "x", "id": ""', Publish("", None, b"x")),
        ('"data": "x", "id": "' + "ü" * 64 + '"', Publish("ü" * 64, None, b"x")),
        ('"data": "x", "unknown": [1]', Publish(None, None, b"x")),
        ('"base64": ""', Publish(None, None, b"")),
    ],
)
def test_what_is_understood(content, published):
    assert one(f'{{"type": "publish", {content}}}'.encode()) == published


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
    (b"[]", "A list must have 1 to 100 frames"),
    (b"[[]]", "must be a JSON object"),
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
    found = one(payload)
    assert isinstance(found, Invalid)
    assert words in found.reason


@pytest.mark.parametrize("id", [0, 7, "seven"])
@pytest.mark.parametrize(
    ("payload", "words"), [each for each in HOSTILE if b"publish" in each[0] and "JSON" not in each[1]]
)
def test_it_is_told_with_the_id_of_the_frame_if_it_has_one(payload, words, id):
    found = one(payload[:-1] + b', "id": ' + json.dumps(id).encode() + b"}")
    assert isinstance(found, Invalid)
    assert words in found.reason
    assert found.id == id


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
    found = one(f'{{{rest}, "id": {id}}}'.encode())
    assert found == Invalid(None, "id must be a number, or a text of up to 64 characters.")


@pytest.mark.parametrize("value", ["9" * 65, "NaN", "-Infinity", "1e999", '{"a": [NaN]}'])
@pytest.mark.parametrize("name", ["id", "data", "more"])
def test_what_is_no_json_anywhere_in_a_frame_is_refused(name, value):
    id, reason = found = one(f'{{"type": "publish", "{name}": {value}}}'.encode())
    assert isinstance(found, Invalid)
    assert id is None
    assert reason.startswith("A frame must be JSON, or binary: ")
    dialects.error("frame", reason).decode()


@pytest.mark.parametrize(
    "id", ["0", "-7", "1.25", "1e300", "9007199254740993", '"x y"', '"\\u00fc"', '"a\\"b"', '"\\u2603"']
)
def test_what_is_answered_is_json_with_the_same_id(id):
    published = one(f'{{"type": "publish", "data": "x", "id": {id}}}'.encode())

    def strict(constant):
        raise AssertionError(f"{constant} is no JSON")

    for made in (dialects.ack(published.id), dialects.error("unavailable", "reason", published.id)):
        assert json.loads(made, parse_constant=strict)["id"] == json.loads(id)


def test_what_is_asked_for_as_the_page_has_it():
    (subscribe,) = examples("subscribe")
    assert of(**subscribe) == Subscribe(1, "orders", ("user", "broadcast"), ("user",), True, subscribe["resume"])
    (unsubscribe,) = examples("unsubscribe")
    assert of(**unsubscribe) == Unsubscribe(2, "orders")
    (history,) = [each for each in examples("history") if "limit" in each]
    assert of(**history) == History(4, "orders", 50, history["before"])
    (call,) = examples("call")
    assert of(**call) == Call(5, "POST", "/api/orders/7/", '{"state": "paid"}')


def test_what_may_be_missing():
    assert of(type="subscribe", facility="a") == Subscribe(None, "a", (), (), False, None)
    assert of(type="history") == History(None, None, commands.HISTORY, None)
    assert of(type="call", path="/") == Call(None, "GET", "/", None)
    assert of(type="subscribe", facility="a", audiences=["user", "user"]).audiences == ("user",)


def test_a_list_has_several_commands_each_valid_or_not():
    frames = [{"type": "unsubscribe", "facility": "a", "id": 1}, 7, {"type": "publish", "id": 2}]
    first, second, third = parse(json.dumps(frames).encode(), True)
    assert first == Unsubscribe(1, "a")
    assert second == Invalid(None, "A frame must be a JSON object.")
    assert isinstance(third, Invalid)
    assert third.id == 2


def test_a_list_is_bounded():
    frames = [{"type": "unsubscribe", "facility": "a"}] * commands.MOST_COMMANDS
    assert len(parse(json.dumps(frames).encode(), True)) == commands.MOST_COMMANDS
    assert one(json.dumps([*frames, {}]).encode()) == Invalid(None, "A list must have 1 to 100 frames.")


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ({"type": "subscribe"}, "facility must be"),
        ({"type": "subscribe", "facility": 7}, "facility must be"),
        ({"type": "subscribe", "facility": ["a"]}, "facility must be"),
        ({"type": "subscribe", "facility": "\ud800"}, "facility must be"),
        ({"type": "subscribe", "facility": "a", "audiences": "user"}, "audiences must be a list"),
        ({"type": "subscribe", "facility": "a", "audiences": ["users"]}, "audiences must be a list"),
        ({"type": "subscribe", "facility": "a", "audiences": [["user"]]}, "audiences must be a list"),
        ({"type": "subscribe", "facility": "a", "audiences": {"user": 1}}, "audiences must be a list"),
        ({"type": "subscribe", "facility": "a", "publish": [None]}, "publish must be a list"),
        ({"type": "subscribe", "facility": "a", "presence": 1}, "presence must be"),
        ({"type": "subscribe", "facility": "a", "resume": 1}, "resume must be"),
        ({"type": "subscribe", "facility": "a", "resume": "\udfff"}, "resume must be"),
        ({"type": "unsubscribe"}, "facility must be"),
        ({"type": "publish", "data": "x", "facility": 7}, "facility must be"),
        ({"type": "publish", "data": "x", "key": 7}, "key must be"),
        ({"type": "publish", "data": "x", "key": None}, "key must be"),
        ({"type": "publish", "data": "x", "key": "x" * 65}, "key must be"),
        ({"type": "publish", "data": "x", "key": "\ud800"}, "key must be"),
        ({"type": "history", "limit": 0}, "limit must be"),
        ({"type": "history", "limit": 201}, "limit must be"),
        ({"type": "history", "limit": True}, "limit must be"),
        ({"type": "history", "limit": 1.5}, "limit must be"),
        ({"type": "history", "before": 7}, "before must be"),
        ({"type": "call"}, "path must be"),
        ({"type": "call", "path": "api"}, "path must be"),
        ({"type": "call", "path": "//other.example/api"}, "path must be"),
        ({"type": "call", "path": "/ü"}, "path must be"),
        ({"type": "call", "path": "/\n"}, "path must be"),
        ({"type": "call", "path": "/", "method": "get"}, "method must be"),
        ({"type": "call", "path": "/", "method": ["GET"]}, "method must be"),
        ({"type": "call", "path": "/", "method": "TRACE"}, "method must be"),
        ({"type": "call", "path": "/", "data": "\ud800"}, "data is not valid"),
    ],
)
def test_what_is_not_valid_is_told(frame, words):
    found = of(**frame, id=7)
    assert isinstance(found, Invalid)
    assert found.id == 7
    assert words in found.reason
