"""Whom a view can name, and what of that is refused. Channels of those who made a request: test_store."""

import enum
import types
import uuid

import pytest
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import models
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from wsloop import addressees, presence, signals, tokens
from wsloop.addressees import SELF
from wsloop.publisher import RedisPublisher

JOHN = User(username="john", pk=7)


class Role(models.TextChoices):
    STAFF = "staff"


class Plain(str, enum.Enum):
    STAFF = "staff"


class Number(models.IntegerChoices):
    ONE = 1


class Colour(enum.Enum):
    RED = "red"


class Nameless:
    def __repr__(self):
        return None


class Phone(int):
    """What get_username() of some user models returns."""


def session(key):
    made = SessionStore()
    made._session_key = key
    return made


def channels(**audience):
    return addressees.channels(**{"facility": "news", **audience})


@pytest.mark.parametrize(
    ("audience", "names"),
    [
        ({"users": Role.STAFF}, ["user:staff:news"]),
        ({"groups": [Plain.STAFF]}, ["group:staff:news"]),
        ({"groups": Role}, ["group:staff:news"]),
        ({"groups": Colour.RED}, ["group:red:news"]),
        ({"groups": gettext_lazy("staff")}, ["group:staff:news"]),
        ({"users": mark_safe("john")}, ["user:john:news"]),
        ({"users": SimpleLazyObject(lambda: JOHN)}, ["user:john:news"]),
        ({"users": [SimpleLazyObject(lambda: JOHN), "mary"]}, ["user:john:news", "user:mary:news"]),
        ({"users": {"john": 1}.keys()}, ["user:john:news"]),
        ({"groups": SimpleLazyObject(lambda: Group(name="chatters"))}, ["group:chatters:news"]),
        ({"groups": "team:a"}, ["group:team:a:news"]),
        ({"sessions": session("visitors-key")}, ["session:visitors-key:news"]),
        ({"sessions": [Session(session_key="key"), "other"]}, ["session:key:news", "session:other:news"]),
        ({"facility": Role.STAFF, "broadcast": True}, ["broadcast:staff"]),
        ({"facility": gettext_lazy("staff"), "broadcast": True}, ["broadcast:staff"]),
        ({"facility": "", "broadcast": True}, ["broadcast:"]),
        ({"facility": "a:b", "broadcast": True, "sessions": "key"}, ["broadcast:a:b", "session:key:a:b"]),
        ({"facility": "a:b", "users": [SELF], "groups": []}, []),
        ({"facility": "x" * 255, "broadcast": True}, [f"broadcast:{'x' * 255}"]),
    ],
)
def test_who_is_meant_is_addressed(audience, names):
    assert channels(**audience) == [f"unit:{name}" for name in names]


@pytest.mark.parametrize(
    ("audience", "error", "words"),
    [
        # Nobody.
        ({"users": AnonymousUser()}, ValueError, "a visitor who has not signed in, which addresses nobody"),
        ({"users": [AnonymousUser()]}, ValueError, r"write users=\[SELF\] with request=request"),
        ({"users": ["john", SimpleLazyObject(AnonymousUser)]}, ValueError, "who has not signed in"),
        ({"users": ""}, ValueError, "users must be user names.*, not an empty text"),
        ({"users": ["john", ""]}, ValueError, "not an empty text"),
        ({"users": User()}, ValueError, "users must be a user with a name, not an empty text"),
        ({"groups": Group()}, ValueError, "groups must be a group with a name"),
        ({"groups": [""]}, ValueError, "not an empty text"),
        ({"sessions": session(None)}, ValueError, "a session without a key: it has not been saved yet"),
        ({"sessions": [""]}, ValueError, "not an empty text"),
        ({"users": "\ud800"}, ValueError, "in text that can be encoded as UTF-8"),
        # Something else.
        ({"users": 7}, TypeError, "users must be a name, an object, SELF, or a list of them, not 7"),
        ({"users": [7]}, TypeError, "users must be user names, user objects or SELF, not 7"),
        ({"users": uuid.UUID(int=1)}, TypeError, "not UUID"),
        ({"users": [None]}, TypeError, "not None"),
        ({"users": [True]}, TypeError, "not True"),
        ({"users": b"john"}, TypeError, "not b'john'"),
        ({"users": [b"john"]}, TypeError, "not b'john'"),
        ({"users": {"john": 1}}, TypeError, "not {'john': 1}"),
        ({"users": [["john"]]}, TypeError, r"not \['john'\]"),
        ({"users": Number.ONE}, TypeError, "user objects or SELF, not 1"),
        ({"users": Group(name="chatters")}, TypeError, "user objects or SELF, not the Group None"),
        ({"users": [Permission(pk=3)]}, TypeError, "not the Permission 3"),
        ({"users": User}, TypeError, "not <class"),
        ({"users": User.objects}, TypeError, "Manager"),
        ({"users": [object()]}, TypeError, "not <object object"),
        ({"users": ["x" * 3, 10**50]}, TypeError, r"1000…$|10{40,}"),
        ({"groups": JOHN}, TypeError, "groups must be names of groups, group objects or SELF, not the User 7"),
        ({"groups": [3]}, TypeError, "names of groups, group objects or SELF, not 3"),
        ({"sessions": [3]}, TypeError, "keys of sessions, session objects or SELF, not 3"),
        ({"sessions": {"a": "session"}}, TypeError, "sessions must be a name"),
        ({"broadcast": "yes"}, TypeError, "broadcast must be True or False, not 'yes'"),
        ({"broadcast": 1}, TypeError, "broadcast must be True or False, not 1"),
        ({"broadcast": None}, TypeError, "broadcast must be True or False, not None"),
        # Facilities.
        ({"facility": None, "broadcast": True}, TypeError, 'facility must be .* such as "orders", not None'),
        ({"facility": 7, "broadcast": True}, TypeError, "facility must be"),
        ({"facility": b"news"}, TypeError, "facility must be"),
        ({"facility": "\ud800"}, ValueError, "UTF-8"),
        (
            {"facility": "x" * 256},
            ValueError,
            "longer than MAX_FACILITY_SIZE, 255 bytes, so no socket can subscribe",
        ),
        ({"facility": "ä" * 128}, ValueError, "longer than MAX_FACILITY_SIZE"),
        ({"facility": "admins:news", "groups": "team"}, ValueError, "has a colon, so it cannot have the audiences"),
        ({"facility": "a:b", "users": "john"}, ValueError, "has a colon"),
        (
            {"facility": "/orders", "broadcast": True},
            ValueError,
            "URL behind WEBSOCKET_URL, 'orders', without",
        ),
        ({"users": [Nameless()]}, TypeError, "not an object of the class Nameless"),
    ],
)
def test_what_is_nobody_or_something_else_is_refused(audience, error, words):
    with pytest.raises(error, match=words):
        channels(**audience)
    if "request" not in audience:
        with pytest.raises(error, match=words):
            RedisPublisher(**{"facility": "news", **audience})


def test_a_publisher_without_a_facility_is_refused():
    with pytest.raises(TypeError, match="'facility'"):
        RedisPublisher(broadcast=True)
    with pytest.raises(TypeError, match='facility must be the name of a facility, text such as "orders", not None'):
        RedisPublisher(facility=None, broadcast=True)


def test_groups_of_a_model_of_the_sites_own(monkeypatch):
    class Team:  # as the model is that users' field `groups` leads to
        def __init__(self, name):
            self.name = name

    field = types.SimpleNamespace(name="groups", related_model=Team)
    monkeypatch.setattr(addressees, "groups_field", lambda model: field)
    assert channels(groups=[Team("red"), "blue"]) == ["unit:group:red:news", "unit:group:blue:news"]
    with pytest.raises(TypeError, match="not the Group None"):
        channels(groups=[Group(name="blue")])
    with pytest.raises(TypeError, match="a group with a name, not None"):
        channels(groups=[Team(None)])


def test_a_user_model_of_the_sites_own_may_have_other_names(monkeypatch):
    class Customer:
        is_authenticated = True

        def get_username(self):
            return Phone(4930)

    monkeypatch.setattr(addressees, "get_user_model", lambda: Customer)
    assert channels(users=[Customer()]) == ["unit:user:4930:news"]
    assert channels(users=[SELF], request=types.SimpleNamespace(user=Customer())) == ["unit:user:4930:news"]


def test_a_user_without_a_name_is_nobody_and_not_called_none(monkeypatch):
    class Customer:
        is_authenticated = True

        def get_username(self):
            return None

    monkeypatch.setattr(addressees, "get_user_model", lambda: Customer)
    assert channels(users=[SELF], request=types.SimpleNamespace(user=Customer())) == []
    with pytest.raises(ValueError, match="a user with a name, not an empty text"):
        channels(users=[Customer()])


def test_a_user_of_another_model_is_none_of_the_site(monkeypatch):
    class Staff:
        pass

    monkeypatch.setattr(addressees, "get_user_model", lambda: Staff)
    with pytest.raises(TypeError, match="user names, user objects or SELF, not the User 7"):
        channels(users=[JOHN])


def test_a_user_whose_name_is_empty_is_nobody():
    visitor = types.SimpleNamespace(user=User(username=""), session=None)
    assert channels(users=[SELF], request=visitor) == []


def test_groups_may_come_from_a_generator(shared_redis, with_settings, facility):
    with_settings(WSLOOP={"FACILITIES": {"*": {"size": 1}}})
    visitor = types.SimpleNamespace(user=JOHN, session={"ws4redis:memberof": ["chatters"]})
    JOHN._prefetched_objects_cache = {"groups": Group.objects.none()}
    token = RedisPublisher(facility=facility, broadcast=True, groups=(each for each in [SELF]), request=visitor).token()
    assert "~groups:" in token


# Others that name somebody.


@pytest.mark.parametrize("facility", [None, 7, b"news"])
def test_presence_of_what_is_no_facility(facility):
    with pytest.raises(TypeError, match="facility must be"):
        presence.who(facility)


@pytest.mark.parametrize("facility", [7, b"news", ["news"]])
def test_tokens_for_what_is_no_facility(facility):
    with pytest.raises(TypeError, match="facility must be"):
        tokens.make(JOHN, facility=facility)


@pytest.mark.parametrize("age", [True, "3600", float("inf"), float("nan"), 10**10, None])
def test_tokens_that_live_for_ever_or_for_something_else(age):
    with pytest.raises(ValueError, match="max_age must be a positive number of seconds, up to 1000000000"):
        tokens.make(JOHN, max_age=age)


@pytest.mark.parametrize(
    ("user", "error"),
    [
        (AnonymousUser(), ValueError),
        (None, ValueError),
        (User(username="new"), ValueError),
        ("john", TypeError),
        (True, TypeError),
        ([7], TypeError),
        (Group(pk=7), TypeError),
        (3.7, TypeError),
        (b"5", TypeError),
        (Nameless(), TypeError),
    ],
)
def test_nobody_else_is_looked_at_again(user, error, monkeypatch):
    told = []
    monkeypatch.setattr(signals, "_publish", told.append)
    with pytest.raises(error, match=r"recheck\(\) takes"):
        signals.recheck(JOHN, user)
    assert told == []


def test_users_and_primary_keys_are(monkeypatch, database):
    told = []
    monkeypatch.setattr(signals, "_publish", told.append)
    signals.recheck(JOHN, 8, "9", SimpleLazyObject(lambda: JOHN))
    assert told == ['{"users": ["7", "8", "9", "7"]}']
