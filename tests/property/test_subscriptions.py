"""From any path and query to channels: an answer or a refusal, and never somebody else's channel."""

import io
import json
from urllib.parse import quote, unquote_to_bytes

from django.core.exceptions import SuspiciousOperation
from django.core.handlers.wsgi import WSGIRequest
from hypothesis import assume, given
from hypothesis import strategies as st

from wsloop.backend.keys import control_channel
from wsloop.backend.publishing import encode
from wsloop.facilities.subscriptions import Subscriber, check_facility, requested
from wsloop.refusals import Refused
from wsloop.routing import facility
from wsloop.store import Store

POSSIBLE = [*Subscriber.subscription_channels, *Subscriber.publish_channels]
latin_1 = st.text(st.characters(max_codepoint=255), max_size=100)


def request(path="/ws/x", query=""):
    return WSGIRequest(
        {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "wsgi.input": io.BytesIO(),
            "SERVER_NAME": "x",
        }
    )


words = st.sampled_from([*POSSIBLE, "echo", "Echo", "SUBSCRIBE-USER", " publish-group ", "subscribe-", "token", ""])
pairs = st.lists(st.tuples(words | latin_1, st.none() | latin_1), max_size=8)


@given(pairs=pairs, escape=st.booleans())
def test_a_query_asks_for_what_it_names_each_once_and_in_its_order(pairs, escape):
    safe = "" if escape else " -_"
    query = "&".join(
        quote(name, safe=safe) + ("" if value is None else "=" + quote(value, safe="")) for name, value in pairs
    )
    channels, echo = requested(request(query=query), POSSIBLE)
    named = list(dict.fromkeys(name.strip().lower() for name, _ in pairs))
    assert channels == [name for name in named if name in POSSIBLE]
    assert echo == ("echo" in named)


@given(query=latin_1 | st.lists(st.sampled_from(["&", "=", "%", "+", ";", "%ff", *POSSIBLE]), max_size=12).map("".join))
def test_any_query_is_understood_or_suspicious(query):
    try:
        channels, echo = requested(request(query=query), POSSIBLE)
    except SuspiciousOperation:
        return
    assert len(set(channels)) == len(channels)
    plain = unquote_to_bytes(query.encode("latin-1")).lower()
    assert all(channel in POSSIBLE and channel.encode() in plain for channel in channels)
    assert not echo or b"echo" in plain


@given(rest=latin_1 | st.text(max_size=50).map(lambda text: text.encode().decode("latin-1")), channels=st.sets(words))
def test_any_path_is_a_facility_or_refused(rest, channels):
    made = request(path=f"/ws/{rest}")
    name = facility(made)
    name.encode()
    try:
        assert name == rest.encode("latin-1").decode()
    except UnicodeDecodeError:
        assert name.isascii() or "%" in name  # Django escapes what is not UTF-8
    ambiguous = ":" in name and bool({channel.partition("-")[2] for channel in channels} & {"user", "group"})
    try:
        check_facility(name, channels)
    except Refused as refused:
        assert refused.status == 400
        assert ambiguous
    else:
        assert not ambiguous


# Names of channels.

colons = st.text("ab:", max_size=4) | st.text(max_size=8)
keys = st.text("ab0", min_size=1, max_size=4)  # of sessions: letters and digits
targets = st.one_of(
    st.tuples(st.just("broadcast"), st.just(""), colons),
    st.tuples(st.sampled_from(["user", "group"]), colons, colons),
    st.tuples(st.just("session"), keys, colons),
)


def channel(audience, name, facility):
    """Return the channels of a message; none if it is refused."""
    try:
        return channels_of(audience, name, facility)
    except ValueError:
        assert not name or not allowed(audience, facility)
        return []


def channels_of(audience, name, facility):
    if audience == "broadcast":
        return Store(None)._get_message_channels(facility=facility, broadcast=True)
    return Store(None)._get_message_channels(facility=facility, **{f"{audience}s": [name]})


def allowed(audience, facility):
    """Whether a socket may have it."""
    try:
        check_facility(facility, [f"subscribe-{audience}"])
    except Refused:
        return False
    return True


@given(first=targets, second=targets)
def test_different_targets_have_different_channels_as_far_as_sockets_may_have_them(first, second):
    assume(first != second)
    assume(allowed(first[0], first[2]) and allowed(second[0], second[2]))
    ones, others = channel(*first), channel(*second)
    assert not set(ones) & set(others)
    assert control_channel().decode() not in (*ones, *others)


# What is published.

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(value=values | st.binary())
def test_what_is_published_arrives(value):
    payload = encode(value)
    assert type(payload) is bytes
    if isinstance(value, bytes):
        assert payload == value
    elif isinstance(value, str):
        assert payload.decode() == value
    else:
        assert json.loads(payload) == value
