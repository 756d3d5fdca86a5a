"""Tokens: what one looks like, whom it signs in, what makes it invalid, and that it is shown nowhere."""

import re

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.signing import Signer
from django.test import RequestFactory

from wsloop import identity, tokens
from wsloop.refusals import Refused

HOUR = 3600


@pytest.fixture
def john(database):
    return User.objects.create_user("john", password="secret")


@pytest.fixture
def clock(monkeypatch):
    """The time, which the test sets: ``clock[0] += 60``."""
    now = [1_800_000_000.0]
    monkeypatch.setattr(tokens.time, "time", lambda: now[0])
    return now


def request(token=None, protocol=None, facility="news", query="subscribe-user", **environ):
    """A handshake that brings a token in the query, or in the header Sec-WebSocket-Protocol."""
    if token is not None:
        query = f"{query}&token={token}"
    if protocol is not None:
        environ["HTTP_SEC_WEBSOCKET_PROTOCOL"] = protocol
    made = RequestFactory().get(f"/ws/{facility}", QUERY_STRING=query, **environ)
    made.session, made.user = SessionStore("of-a-cookie"), AnonymousUser()
    return made


def user_of(**given):
    """Who is signed in by a token; the text of the refusal if nobody is."""
    made = request(**given)
    try:
        assert tokens.authenticate(made)
    except Refused as refused:
        assert refused.status == 403
        assert isinstance(made.user, AnonymousUser)
        return refused.reason
    return made.user.username


INVALID = "The token is not valid, has expired, or is not for this address. Get a new one."


def test_a_token_needs_no_quoting_anywhere(john):
    token = tokens.make(john, facility="news/ü &=,")
    assert re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", token)  # RFC 7230, section 3.2.6, and RFC 3986, section 2.3


@pytest.mark.parametrize("form", ["token={}", "token=other&token={}", "echo&token={}&subscribe-user"])
def test_a_token_in_the_query_signs_its_user_in(john, form):
    assert user_of(query=form.format(tokens.make(john))) == "john"


@pytest.mark.parametrize("form", ["wsloop.token.{}", "ws4redis, wsloop.token.{}", "wsloop.token.{} ,ws4redis"])
def test_a_token_as_a_subprotocol_signs_its_user_in(john, form):
    assert user_of(protocol=form.format(tokens.make(john))) == "john"


@pytest.mark.parametrize("form", ["Bearer wsloop.token.{}", "bearer  wsloop.token.{} "])
def test_a_token_in_a_header_signs_its_user_in(john, form):
    assert user_of(HTTP_AUTHORIZATION=form.format(tokens.make(john))) == "john"


def test_a_damaged_token_in_a_header_is_refused(john):
    assert user_of(HTTP_AUTHORIZATION=f"Bearer wsloop.token.{tokens.make(john)}x") == INVALID


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer x.y", "Basic wsloop.token.x", "wsloop.token.x", "Token wsloop.x"]
)
def test_a_header_of_others_is_left_alone(database, value):
    made = request(HTTP_AUTHORIZATION=value)
    assert not tokens.authenticate(made)
    assert made.headers["Authorization"] == value


def test_the_headers_of_a_request_have_no_token(john):
    token = tokens.make(john)
    made = request(protocol=f"ws4redis, wsloop.token.{token}", HTTP_AUTHORIZATION=f"Bearer wsloop.token.{token}")
    assert made.headers["Authorization"]  # asked for before, as a middleware may do
    tokens.authenticate(made)
    assert "Authorization" not in made.headers
    assert token not in f"{made.META} {made.headers}"


@pytest.mark.parametrize("protocol", [None, "", "ws4redis", "ws4redis, wsloop.v1"])
def test_without_a_token_nothing_changes(database, protocol):
    made = request(protocol=protocol)
    assert not tokens.authenticate(made)
    assert made.session.session_key == "of-a-cookie"


def test_a_token_wins_over_a_cookie(john):
    made = request(tokens.make(john))
    made.user = User(username="mary")
    tokens.authenticate(made)
    assert made.user == john
    assert made.session is None


def test_a_token_ends(john, clock):
    token = tokens.make(john, max_age=60)
    made = request(token)
    tokens.authenticate(made)
    assert made.token_expires == clock[0] + 60
    assert identity.visitor(made).expires == clock[0] + 60
    clock[0] += 59.9
    assert user_of(token=token) == "john"
    clock[0] += 0.1
    assert user_of(token=token) == INVALID


def test_a_token_lives_for_an_hour_by_itself(john, clock):
    token = tokens.make(john)
    clock[0] += HOUR - 1
    assert user_of(token=token) == "john"
    clock[0] += 1
    assert user_of(token=token) == INVALID


def test_a_token_may_be_for_one_facility(john):
    token = tokens.make(john, facility="orders/7")
    assert user_of(token=token, facility="orders/7") == "john"
    assert [user_of(token=token, facility=other) for other in ("orders/8", "orders", "orders/7/", "")] == [INVALID] * 4


def test_a_token_for_any_facility(john):
    token = tokens.make(john)
    assert [user_of(token=token, facility=any_one) for any_one in ("orders", "", "a/b")] == ["john"] * 3


def test_a_change_of_the_password_ends_a_token(john):
    token = tokens.make(john)
    john.set_password("another")
    john.save()
    assert user_of(token=token) == INVALID


def test_deactivation_and_deletion_end_a_token(john):
    token = tokens.make(john)
    User.objects.update(is_active=False)
    assert user_of(token=token) == INVALID
    User.objects.update(is_active=True)
    assert user_of(token=token) == "john"
    john.delete()
    assert user_of(token=token) == INVALID


def test_secret_keys_may_be_rotated(john, with_settings, settings_key="only-for-the-unit-tests"):
    token = tokens.make(john)
    with_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings_key])
    assert user_of(token=token) == "john"
    with_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[])
    assert user_of(token=token) == INVALID


def tampered(token):
    """The token with each of its characters changed in turn."""
    for place, character in enumerate(token):
        yield token[:place] + ("A" if character != "A" else "B") + token[place + 1 :]


def test_a_token_that_was_changed_anywhere_is_not_valid(john):
    token = tokens.make(john)
    # The last character of 32 bytes in base64 has two bits that mean nothing; but the text is compared, not the bytes.
    assert {user_of(token=each) for each in tampered(token)} == {INVALID}


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a", "undefined", "a.b", "%00", "%FF", "\u00fc", ".eJw.x", "A" * 2048, "A" * 100_000, "a.b" * 400],
)
def test_what_is_no_token_is_refused(database, token):
    assert user_of(token=token) == INVALID
    assert user_of(protocol=f"wsloop.token.{token}") == INVALID


def test_what_is_signed_for_something_else_is_no_token(john):
    content = ["1", "x", 1e12, None]
    for salt in (None, "wsloop", "django.core.signing"):
        assert user_of(token=Signer(salt=salt, sep=".").sign_object(content)) == INVALID


def test_a_token_that_is_too_long_is_not_verified(database, monkeypatch):
    verified = []
    monkeypatch.setattr(Signer, "unsign", lambda self, token: verified.append(len(token)) or 1 / 0)
    assert user_of(token="A" * (tokens.LONGEST + 1)) == INVALID
    assert verified == []
    with pytest.raises(ZeroDivisionError):
        user_of(token="A" * tokens.LONGEST)
    assert verified == [tokens.LONGEST]


def test_no_token_is_too_long(john, with_settings):
    """The longest facility, in the characters that take most: each is 2 bytes, and 6 in JSON."""
    facility = "ü" * 127
    token = tokens.make(john, facility=facility)
    assert len(token) < 1400 < tokens.LONGEST
    assert user_of(token=token, facility=facility) == "john"


def test_a_token_is_taken_out_of_the_request(john):
    token = tokens.make(john)
    made = request(
        token,
        protocol=f"ws4redis, wsloop.token.{token}",
        query="subscribe-user&x=1%262",
        REQUEST_URI=f"/ws/news?subscribe-user&x=1%262&token={token}",
        RAW_URI=f"/ws/news?token={token}",
    )
    tokens.authenticate(made)
    assert token not in f"{made.META} {made.environ} {made.GET} {made.get_full_path()} {made!r}"
    assert made.GET.dict() == {"subscribe-user": "", "x": "1&2"}
    assert made.META["HTTP_SEC_WEBSOCKET_PROTOCOL"] == "ws4redis"
    assert made.META["REQUEST_URI"].startswith("/ws/news?subscribe-user")


def test_one_that_is_not_valid_is_taken_out_too_and_not_repeated(database):
    made = request("very-secret", protocol="wsloop.token.very-secret")
    with pytest.raises(Refused) as refused:
        tokens.authenticate(made)
    assert "very-secret" not in f"{refused.value!r} {refused.value.reason} {refused.value.headers} {made.META}"


@pytest.mark.parametrize("token", ["", "abc", "07573bbb97b88e", "eyJhbGciOi.eyJ1c2VyX2lk.c2lnbmVk", "A" * 100_000])
def test_code_of_the_site_gets_the_tokens_of_the_site(database, token):
    made = request(token)
    made._wsloop_coded = True
    assert not tokens.authenticate(made)
    assert made.session.session_key == "of-a-cookie"
    assert made.META["QUERY_STRING"] == f"subscribe-user&token={token}"


def test_code_of_the_site_gets_none_of_ours(john, clock):
    made = request(tokens.make(john))
    made._wsloop_coded = True
    assert tokens.authenticate(made)
    assert (made.user.username, made.META["QUERY_STRING"]) == ("john", "subscribe-user=")
    for given in {"token": tokens.make(john, max_age=1)}, {"protocol": "wsloop.token.abc"}:
        made = request(**given)
        made._wsloop_coded = True
        clock[0] += 2
        with pytest.raises(Refused):
            tokens.authenticate(made)


def test_tokens_are_made_for_saved_users_only(john):
    for nobody in (None, AnonymousUser(), User(username="new"), "john", 1):
        with pytest.raises(ValueError, match="saved user"):
            tokens.make(nobody)


@pytest.mark.parametrize("age", [0, -1, float("nan")])
def test_the_age_must_be_positive(john, age):
    with pytest.raises(ValueError, match="max_age must be a positive number of seconds"):
        tokens.make(john, max_age=age)
