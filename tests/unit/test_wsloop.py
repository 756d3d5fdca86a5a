"""The template tags ``websocket_token`` and ``live``."""

import re
import types
from html import unescape

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.exceptions import ImproperlyConfigured
from django.template import Context, Engine, TemplateSyntaxError

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


# --- {% live %} -------------------------------------------------------------------------------------------------------


def allow_all(request, channels):
    return channels


@pytest.fixture
def policy(recovering, with_settings):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=allow_all)


def live(arguments, content="", **context):
    engine = Engine(libraries={"wsloop": "wsloop.templatetags.wsloop"})
    text = "{% load wsloop %}{% live " + arguments + " %}" + content + "{% endlive %}"
    return engine.from_string(text).render(Context(context))


def attributes(html):
    return dict(re.findall(r'([\w-]+)="([^"]*)"', html.partition(">")[0]))


def test_a_live_part_has_its_socket_and_begins_before_its_content(policy, facility, visitor):
    publisher = RedisPublisher(facility=facility, broadcast=True, users="john")

    def row():
        publisher.publish_message("while it is rendered")
        return "<b>"

    html = live(f'"{facility}" "user" "broadcast"', "<ul>{{ row }}</ul>", request=visitor, row=row)
    assert re.fullmatch(r"<wsloop-live [^>]*><ul>&lt;b&gt;</ul></wsloop-live>", html)
    found = attributes(html)
    assert found["id"] == f"live-{facility}-user-broadcast"
    assert unescape(found["data-url"]) == f"/ws/{facility}?subscribe-user&subscribe-broadcast"
    since = resume_tokens.read(found["data-token"], channels(facility, "user:john", "broadcast"))
    pages = history.read(pool.client(), list(since.items()))
    assert [[entry.message.payload for entry in page.entries] for page in pages] == [[b"while it is rendered"]] * 2


def test_a_live_part_from_variables_with_an_id_and_a_token_of_its_own(policy, facility, visitor):
    html = live(
        "room whom id=id token=token", request=visitor, room=f"{facility}/ä b?", whom="broadcast", id='"<', token="T"
    )
    assert attributes(html)["id"] == "&quot;&lt;"
    assert attributes(html)["data-url"] == f"/ws/{facility}/%C3%A4%20b%3F?subscribe-broadcast"
    assert attributes(html)["data-token"] == "T"


def test_of_a_visitor_who_is_nobody_only_the_part_for_everybody_is_live(policy, facility):
    nobody = types.SimpleNamespace(user=AnonymousUser(), session=SessionStore())
    html = live(f'"{facility}" "user" "group" "session" "broadcast"', "orders", request=nobody)
    assert attributes(html)["data-url"] == f"/ws/{facility}?subscribe-broadcast"
    assert resume_tokens.read(attributes(html)["data-token"], channels(facility, "broadcast"))
    html = live(f'"{facility}" "user" "group" "session"', "orders", request=nobody)
    assert html == f'<wsloop-live id="live-{facility}-user-group-session">orders</wsloop-live>'


def test_a_live_part_without_recovery_or_redis_has_no_token(policy, facility, visitor, own_redis):
    assert attributes(live(f'"{facility}-no" "broadcast"', request=visitor))["data-token"] == ""
    own_redis.kill()
    html = live(f'"{facility}" "broadcast"', "orders", request=visitor)
    assert attributes(html)["data-token"] == ""
    assert "orders" in html


def test_a_live_part_is_for_sites_that_decide_who_publishes(recovering, facility, visitor, with_settings):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=None)
    live(f'"{facility}" "broadcast"', request=visitor)  # nobody may
    with_settings(WSLOOP={"CLIENTS_MAY_PUBLISH": True})
    with pytest.raises(ImproperlyConfigured, match="without a POLICY every visitor may publish"):
        live(f'"{facility}" "broadcast"', request=visitor)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ("", TemplateSyntaxError, "live %} takes a facility, audiences"),
        ('"orders" "broadcast" load="/"', TemplateSyntaxError, "perhaps id= and token="),
        ('"orders"', ImproperlyConfigured, r"live takes a facility and some of .*, not \[\]"),
        ('"orders" "everybody"', ImproperlyConfigured, r"not \['everybody'\]"),
        ('7 "broadcast"', TypeError, "facility must be the name of a facility"),
        ('"/orders" "broadcast"', ValueError, "without a slash before it"),
    ],
)
def test_a_wrong_live_part_says_what_is_wrong(policy, visitor, arguments, error, words):
    with pytest.raises(error, match=words):
        live(arguments, request=visitor)


def test_a_live_part_without_the_request_says_what_is_needed(policy):
    with pytest.raises(ImproperlyConfigured, match=r"live needs the context processor"):
        live('"orders" "broadcast"')
