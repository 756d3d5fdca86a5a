"""Whatever comes in as JSON can go out, and whatever goes out can be read by others."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from wsloop import layers
from wsloop.consumers import JsonWebsocketConsumer
from wsloop.protocol import dialects, strict_json
from wsloop.protocol.commands import Invalid, parse
from wsloop.protocol.strict_json import NotJson

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=())), inner, max_size=4)
    ),
    max_leaves=8,
)
texts = anything.map(json.dumps) | anything.map(lambda value: json.dumps(value, ensure_ascii=False)) | st.text()


def finite(value):
    """Tell whether JSON, UTF-8 and 64 bits can carry a value."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return all(finite(key) and finite(each) for key, each in value.items())
    return all(map(finite, value)) if isinstance(value, list) else True


@given(anything)
def test_what_is_written_is_read_by_others_as_it_was(value):
    try:
        text = strict_json.encode(value)
    except ValueError:
        assert not finite(value)
        return
    text.encode()
    assert json.loads(text, parse_constant=lambda name: 1 / 0) == value


@given(anything)
def test_what_browsers_could_have_written_is_read_and_nothing_else(value):
    text = json.dumps(value)
    try:
        assert strict_json.decode(text) == value
        assert finite(value)
    except NotJson:
        assert not finite(value)


@given(texts)
def test_what_one_client_sends_can_be_sent_to_all_others(text):
    try:
        content = JsonWebsocketConsumer.decode_json(text)
    except ValueError:
        return
    event = layers.decode(layers.encode({"type": "chat.message", "content": content}))
    sent = JsonWebsocketConsumer.encode_json(event["content"])
    assert json.loads(sent.encode(), parse_constant=lambda name: 1 / 0) == content


@given(texts)
def test_a_frame_of_the_protocol_is_understood_or_refused(text):
    for command in parse(text.encode("utf-8", "replace"), True):
        if isinstance(command, Invalid):
            dialects.error("frame", command.reason, command.id)
