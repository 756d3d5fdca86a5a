"""Whatever a view names: it is somebody who is meant, or it is refused."""

import enum
import types

from django.contrib.auth.models import AnonymousUser, Group, User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.contrib.sessions.models import Session
from django.utils.functional import Promise, SimpleLazyObject, lazystr
from hypothesis import given
from hypothesis import strategies as st

from wsloop import addressees
from wsloop.addressees import SELF

names = st.text(st.characters(exclude_categories=()), max_size=12)


class Word(enum.Enum):
    ONE = "one"
    NUMBER = 2


def session(key):
    made = SessionStore()
    made._session_key = key
    return made


somebody = st.one_of(
    names,
    names.map(lazystr),
    st.sampled_from(Word),
    names.map(lambda name: User(username=name, pk=1)),
    names.map(lambda name: SimpleLazyObject(lambda: User(username=name, pk=1))),
    names.map(lambda name: Group(name=name)),
    names.map(session),
    names.map(lambda key: Session(session_key=key)),
)
nobody = st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=4) | st.builds(object)
nobody |= st.just(AnonymousUser())
anything = somebody | nobody | st.just(SELF)
several = st.lists(anything, max_size=3) | st.sets(names, max_size=3) | st.dictionaries(names, names, max_size=2)
given_as = anything | several
visitors = st.sampled_from(
    [
        None,
        types.SimpleNamespace(user=AnonymousUser(), session=None),
        types.SimpleNamespace(user=User(username="visitor"), session=session("key-of-the-visitor")),
    ]
)


def meant(value):
    """The name that somebody goes by; None for what is nobody."""
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, AnonymousUser):
        return None
    if isinstance(value, User):
        return value.username
    if isinstance(value, Group):
        return value.name
    if isinstance(value, (SessionStore, Session)):
        return value.session_key
    return str(value) if isinstance(value, (str, Promise)) else None


def everybody(value, request, audience):
    if value is None or value is False:
        return
    for each in value if isinstance(value, (list, set)) else [SELF if value is True else value]:
        if each is not SELF:
            yield meant(each)
        elif request is not None and request.user.is_authenticated:
            yield from {"users": ["visitor"], "sessions": ["key-of-the-visitor"], "groups": []}[audience]


@given(audience=st.sampled_from(["users", "groups", "sessions"]), value=given_as, request=visitors, facility=names)
def test_a_channel_has_the_name_of_somebody_who_is_meant(audience, value, request, facility):
    try:
        found = addressees.channels(request, facility=facility, **{audience: value})
    except (TypeError, ValueError) as exc:
        assert str(exc)
        assert len(str(exc)) < 500
        return
    whom = list(everybody(value, request, audience))
    assert None not in whom
    assert "" not in whom
    assert found == [f"unit:{audience[:-1]}:{name}:{facility}" for name in dict.fromkeys(whom)]
    for channel in found:
        channel.encode()


@given(facility=anything, broadcast=st.booleans() | nobody)
def test_a_facility_is_what_a_socket_can_name(facility, broadcast):
    try:
        found = addressees.channels(facility=facility, broadcast=broadcast)
    except (TypeError, ValueError):
        return
    assert type(broadcast) is bool
    assert found == ([f"unit:broadcast:{meant(facility)}"] if broadcast else [])
    assert not meant(facility).startswith("/")
