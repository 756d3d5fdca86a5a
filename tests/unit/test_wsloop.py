"""The template tag ``websocket_token``."""

import types

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.exceptions import ImproperlyConfigured
from django.template import Context, Engine

from wsloop.backend import history, pool
from wsloop.protocol import resume_tokens
from wsloop.publisher import RedisPublisher


@pytest.fixture
def recovering(shared_redis, with_settings):
    """Facilities of tests keep a history, but for those that say no."""
    with_settings(
        WSLOOP={"FACILITIES": {"*-no": {}, "*-views": {"size": 10, "recover": False}, "test-*": {"size": 10}}}
    )


@pytest.fixture
def visitor():
    session = SessionStore()
    session._session_key = "johns-key"
    return types.SimpleNamespace(user=User(username="john"), session=session)


def render(arguments, **context):
    engine = Engine(libraries={"wsloop": "wsloop.templatetags.wsloop"})
    template = engine.from_string('{% load wsloop %}<a data-token="{% websocket_token ' + arguments + ' %}">')
    return template.render(Context(context)).partition('"')[2].rpartition('"')[0]


def channels(facility, *names):
    return [f"unit:{name}:{facility}".encode() for name in names]


def test_the_token_covers_the_audiences_named_and_what_comes_after_it(recovering, facility, visitor):
    publisher = RedisPublisher(facility=facility, broadcast=True, users="john")
    publisher.publish_message("before")
    token = render(f'"{facility}" "broadcast" "user" "session"', request=visitor)
    publisher.publish_message("after")
    names = channels(facility, "broadcast", "user:john", "session:johns-key")
    since = resume_tokens.read(token, names)
    pages = history.read(pool.client(), list(since.items()))
    assert [[entry.message.payload for entry in page.entries] for page in pages] == [[b"after"], [b"after"], []]
    assert all(page.continuous for page in pages)
    assert resume_tokens.read(token, channels(facility, "broadcast", "user:mary")) is None


def test_it_is_safe_in_an_attribute(recovering, facility, visitor):
    token = render(f'"{facility}" "broadcast"', request=visitor)
    assert token
    assert not set(token) & set("\"'<>& ")


def test_variables_and_another_name(recovering, facility, visitor):
    engine = Engine(libraries={"wsloop": "wsloop.templatetags.wsloop"})
    template = engine.from_string("{% load wsloop %}{% websocket_token room whom as token %}[{{ token }}]")
    text = template.render(Context({"request": visitor, "room": facility, "whom": "broadcast"}))
    assert resume_tokens.read(text[1:-1], channels(facility, "broadcast"))


@pytest.mark.parametrize("suffix", ["-no", "-views"])
def test_without_recovery_it_is_empty(recovering, facility, visitor, suffix):
    assert render(f'"{facility}{suffix}" "broadcast"', request=visitor) == ""


def test_of_a_visitor_who_is_nobody_only_what_is_for_everybody(recovering, facility):
    nobody = types.SimpleNamespace(user=AnonymousUser(), session=SessionStore())
    assert render(f'"{facility}" "user" "session" "group"', request=nobody) == ""
    token = render(f'"{facility}" "broadcast" "user"', request=nobody)
    assert resume_tokens.read(token, channels(facility, "broadcast"))


def test_without_redis_the_page_is_shown_without_it(own_redis, facility, visitor, with_settings, caplog):
    with_settings(WSLOOP={"FACILITIES": {"*": {"size": 10}}})
    own_redis.kill()
    assert render(f'"{facility}" "broadcast" "session"', request=visitor) == ""
    assert "Rendered a page without the token of its WebSocket" in caplog.text
    assert "johns-key" not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ('"news"', r"some of \['broadcast', 'user', 'group', 'session'\], not \[\]"),
        ('"news" "everybody"', r"not \['everybody'\]"),
        ('"news" "broadcast" "users"', r"not \['users'\]"),
        ('"news" "subscribe-broadcast"', r"not \['subscribe-broadcast'\]"),
    ],
)
def test_a_wrong_audience_is_refused_with_what_there_is(shared_redis, visitor, arguments, words):
    with pytest.raises(ImproperlyConfigured, match=words):
        render(arguments, request=visitor)


def test_without_the_request_it_says_what_is_needed(shared_redis):
    with pytest.raises(ImproperlyConfigured, match=r"needs the context processor django\.template\.context_processors"):
        render('"news" "broadcast"')
