"""JSON as browsers know it. For all values: tests/property/test_json."""

import json
import math

import pytest

from wsloop.protocol import strict_json
from wsloop.protocol.strict_json import NotJson


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("null", None),
        (' {"a": [1, -2.5, true]} ', {"a": [1, -2.5, True]}),
        ('"\\ud83d\\ude00"', "😀"),
        ('"\\\\ud800"', "\\ud800"),  # a backslash, and text
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
        ("1e308", 1e308),
        ("1e-999", 0.0),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ("[" * 500 + "]" * 500, None),
    ],
)
def test_what_is_json_is_read(text, content):
    assert strict_json.decode(text) == (json.loads(text) if content is None else content)
    assert strict_json.decode(text.encode()) == strict_json.decode(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "at position 0"),
        ("{", "at position 1"),
        ("[1] 2", "at position 4"),
        ("'a'", "at position 0"),
        ("\ufeff{}", "at position 0"),
        ("NaN", "NaN is not a JSON number"),
        ("[Infinity]", "Infinity is not a JSON number"),
        ("-Infinity", "-Infinity is not a JSON number"),
        ("1e999", "too large"),
        ("-1e400", "too large"),
        ("18446744073709551616", "more than 64 bits"),
        ("-9223372036854775809", "more than 64 bits"),
        ("9" * 10_000, "more than 64 bits"),
        ('"\\ud800"', "half of a surrogate pair"),
        ('{"\\udfff": 1}', "half of a surrogate pair"),
        ('["\\ud83d\\ude00", "\\uD83D"]', "half of a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_what_is_none_is_refused_in_words_for_the_client(text, words):
    with pytest.raises(NotJson, match=words) as caught:
        strict_json.decode(text)
    assert len(f"JSON is expected: {caught.value}".encode()) <= 123  # the reason of a close frame


def test_bytes_that_are_no_text():
    with pytest.raises(NotJson, match="not UTF-8"):
        strict_json.decode(b'"\xff"')


@pytest.mark.parametrize("content", [None, {"ä": [1, 2.5, "😀"]}, "\x00\u2028", {1: True, None: 2}, (1, 2)])
def test_what_json_can_carry_is_written(content):
    assert json.loads(strict_json.encode(content)) == json.loads(json.dumps(content))


LOOP = []
LOOP.append(LOOP)
DEEP = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (math.nan, ValueError, "cannot be written as JSON: Out of range float"),
        ({"a": [math.inf]}, ValueError, "Out of range float"),
        ({math.nan: 1}, ValueError, "Out of range float"),
        ("\ud800", ValueError, "half of a surrogate pair"),
        ({"\udc00": 1}, ValueError, "half of a surrogate pair"),
        (LOOP, ValueError, "Circular reference"),
        (DEEP, ValueError, "nested too deeply"),
        ({1, 2}, TypeError, "not JSON serializable"),
        ({(1, 2): 3}, TypeError, "keys must be"),
        (b"bytes", TypeError, "not JSON serializable"),
    ],
    ids=["nan", "inf", "key", "surrogate", "surrogate key", "loop", "deep", "set", "tuple key", "bytes"],
)
def test_what_it_cannot_is_refused(content, error, words):
    with pytest.raises(error, match=words):
        strict_json.encode(content)
