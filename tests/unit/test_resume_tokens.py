"""The token with which a client comes back."""

import base64
import re

import pytest
from django.core.signing import Signer

from wsloop.protocol import resume_tokens
from wsloop.protocol.messages import Position

NEWS, JOHN = b"unit:broadcast:news", b"unit:user:john:news"
CHATTERS, STAFF = b"unit:group:chatters:news", b"unit:group:staff:news"
SESSION = b"unit:session:a-secret-key:news"
AT, LATER = Position(17, "9fQ2mX0aB1cD"), Position(18, "Xy0aB1cD9fQ2")


def test_round_trip():
    positions = {NEWS: AT, JOHN: Position(0, "genesis-_0"), CHATTERS: Position(10**15, "z" * 12)}
    assert resume_tokens.read(resume_tokens.token(positions), list(positions)) == positions


def test_a_position_is_that_of_its_channel_and_replaces_the_one_in_the_token():
    token = resume_tokens.token({NEWS: AT, JOHN: AT})
    assert resume_tokens.read(f"{token}~{resume_tokens.position(JOHN, LATER)}", [NEWS, JOHN]) == {NEWS: AT, JOHN: LATER}
    both = [resume_tokens.position(JOHN, LATER), resume_tokens.position(NEWS, LATER)]
    assert resume_tokens.read("~".join([token, *both]), [NEWS, JOHN]) == {NEWS: LATER, JOHN: LATER}
    assert resume_tokens.read("~".join([token, *reversed(both)]), [JOHN, NEWS]) == {NEWS: LATER, JOHN: LATER}


def test_what_is_before_the_first_dot_names_the_channel():
    names = {resume_tokens.position(channel, AT).partition(".")[0] for channel in (NEWS, JOHN, CHATTERS, SESSION)}
    assert len(names) == 4
    assert resume_tokens.position(NEWS, AT).partition(".")[0] == resume_tokens.position(NEWS, LATER).partition(".")[0]
    assert re.fullmatch(r"[A-Za-z0-9_-]{8}\.17\.9fQ2mX0aB1cD", resume_tokens.position(NEWS, AT))


def test_it_can_stand_in_a_url_as_it_is_and_holds_no_secret():
    token = resume_tokens.token({SESSION: AT, JOHN: LATER})
    text = f"{token}~{resume_tokens.position(SESSION, LATER)}"
    assert re.fullmatch(r"[A-Za-z0-9._:~-]+", text)
    content = base64.urlsafe_b64decode(token.split(":")[0] + "==")
    for secret in (b"a-secret-key", b"john"):
        assert secret not in content
        assert secret.decode() not in text


def test_a_channel_of_the_token_that_is_not_asked_for_is_left_out():
    token = resume_tokens.token({NEWS: AT, JOHN: AT})
    assert resume_tokens.read(f"{token}~{resume_tokens.position(JOHN, LATER)}", [NEWS]) == {NEWS: AT}


@pytest.mark.parametrize(
    "channels",
    [
        [b"unit:broadcast:other"],  # of another facility
        [NEWS, b"unit:user:mary:news"],  # of another user
        [NEWS, JOHN, SESSION],  # of another session
        [NEWS, JOHN, b"unit:everything:news"],
    ],
)
def test_it_is_no_use_for_other_channels(channels):
    token = resume_tokens.token({NEWS: AT, JOHN: AT})
    assert resume_tokens.read(token, channels) is None
    forged = "~".join([token, *(resume_tokens.position(channel, LATER) for channel in channels)])
    assert resume_tokens.read(forged, channels) is None, "a position adds no channel"


def test_groups_may_have_changed():
    token = resume_tokens.token({NEWS: AT, CHATTERS: LATER}, groups=True)
    assert resume_tokens.read(token, [NEWS, CHATTERS, STAFF]) == {NEWS: AT, CHATTERS: LATER}
    assert resume_tokens.read(token, [NEWS]) == {NEWS: AT}
    assert resume_tokens.read(token, [STAFF]) is None, "nothing of it is in the token"
    assert resume_tokens.read(token, [NEWS, JOHN]) is None, "this is no group"
    assert resume_tokens.read(f"{token}~{resume_tokens.position(NEWS, LATER)}", [NEWS, STAFF]) == {NEWS: LATER}
    others = resume_tokens.token({NEWS: AT, CHATTERS: LATER})
    assert resume_tokens.read(others, [NEWS, CHATTERS, STAFF]) is None, "it was not for the groups of the user"
    assert resume_tokens.read(f"{others}~{resume_tokens.GROUPS}", [NEWS, STAFF]) is None, "nor can a client say so"


@pytest.mark.parametrize("empty", [{}, {NEWS: AT}])
def test_without_channels_there_is_nothing_to_come_back_to(empty):
    assert resume_tokens.read(resume_tokens.token(empty), []) is None


def damaged(token):
    content, colon, signature = token.partition(":")
    yield ""
    yield content
    yield colon + signature
    yield token[:-1]
    yield token + "x"
    yield "x" + token
    yield token.swapcase()
    yield content + colon + signature[::-1]
    yield f"{content}:{Signer(salt='another').sign(content).partition(':')[2]}"
    yield f"{token}~"
    yield f"~{token}"
    yield f"{token}~{token}"
    yield f"{token} "
    yield "\ud800"
    yield "grün"
    yield "\0"
    yield "." * 100_000


def test_a_damaged_token_is_none():
    token = resume_tokens.token({NEWS: AT})
    for text in damaged(token):
        assert resume_tokens.read(text, [NEWS]) is None, text[:100]


@pytest.mark.parametrize("content", [[], "text", 7, None, {"a": 1}, {"a": [1]}, {"a": ["x", "y"]}, {"a": [1, 2, 3]}])
def test_what_the_site_has_signed_with_the_same_key_and_is_no_token(content):
    assert resume_tokens.read(Signer(salt=resume_tokens.SALT).sign_object(content), [NEWS]) is None


@pytest.mark.parametrize(
    "position",
    [
        "",
        ".",
        "..",
        "17",
        "abc.17.x",
        "{name}",
        "{name}.17",
        "{name}.17.",
        "{name}.-1.x",
        "{name}.1e3.x",
        "{name}.٣.x",
        "{name}.17.x.y",
        "{name}.17.x\n",
        " {name}.17.x",
        "{name}.17.grün",
        "{name}.10000000000000000000000.x",
        "{name}.17." + "x" * 33,
    ],
)
def test_what_is_no_position_makes_it_none(position):
    name = resume_tokens.label(NEWS)
    assert resume_tokens.read(f"{resume_tokens.token({NEWS: AT})}~{position.format(name=name)}", [NEWS]) is None


def test_a_position_that_was_made_up_is_taken_for_the_history_to_judge():
    """It needs no signature: an id cannot be guessed. See ``history``."""
    made_up = f"{resume_tokens.token({NEWS: AT})}~{resume_tokens.label(NEWS)}.9999999999999999.guessed"
    assert resume_tokens.read(made_up, [NEWS]) == {NEWS: Position(9999999999999999, "guessed")}


def test_many_channels_and_many_positions():
    channels = [b"unit:group:%d:news" % number for number in range(500)]
    token = resume_tokens.token(dict.fromkeys(channels, AT))
    assert len(token) < 500 * 60
    text = "~".join([token, *(resume_tokens.position(channel, LATER) for channel in channels[::2])])
    found = resume_tokens.read(text, channels)
    assert list(found) == channels
    assert list(found.values()) == [LATER, AT] * 250


def test_a_key_that_was_rotated(with_settings):
    token = resume_tokens.token({NEWS: AT})
    with_settings(SECRET_KEY="a new one", SECRET_KEY_FALLBACKS=["an old one", "only-for-the-unit-tests"])
    assert resume_tokens.read(token, [NEWS]) == {NEWS: AT}
    assert resume_tokens.token({NEWS: AT}) != token
    with_settings(SECRET_KEY_FALLBACKS=[])
    assert resume_tokens.read(token, [NEWS]) is None


def test_a_token_is_the_positions_and_a_signature():
    positions, _, signature = resume_tokens.token({NEWS: AT}).partition(":")
    assert positions == resume_tokens.position(NEWS, AT)
    assert len(signature) == 43


def test_positions_of_channels_that_the_token_does_not_name_are_ignored():
    text = f"{resume_tokens.token({NEWS: AT})}~{resume_tokens.position(b'ws:user:mary:news', AT)}"
    assert resume_tokens.read(text, [NEWS]) == {NEWS: AT}
    assert resume_tokens.read(text, [NEWS, b"ws:user:mary:news"]) is None
