"""From the audiences that a view names, as objects or names of users, groups and sessions, to their channels.

Redis knows an addressee by name only. So anything else must be refused here: the text that Python makes of any object
is a possible name too, and a visitor who has registered under it would read messages for another user. This module must
not know Redis.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db.models import Model, prefetch_related_objects
from django.utils.functional import Promise  # returned by gettext_lazy()

from wsloop import conf
from wsloop.kinds import is_utf8
from wsloop.stock import SELF

SHOWN = 100  # characters of an argument that an error shows


def facility_name(facility: Any) -> str:
    """Return the name of a facility, as in the URL of its sockets behind ``WSLOOP["URL"]``.

    Raises:
        TypeError: if it is not text.
        ValueError: if no URL could contain it.
    """
    name = _text(facility, "facility", 'the name of a facility, text such as "orders"')
    if name.startswith("/"):
        raise ValueError(
            f"facility must be the part of the URL behind {conf.name_of('URL')}, {shown(name.lstrip('/'))}, without a "
            "slash before it"
        )
    most = conf.option("MAX_FACILITY_SIZE")
    if len(name.encode()) > most:
        raise ValueError(f"facility is longer than MAX_FACILITY_SIZE, {most} bytes, so no socket can subscribe to it")
    return name


def user_name(user: Any) -> str:
    """Return the name of a user, from an object or a name.

    Raises:
        TypeError: if it is neither: a primary key, for example.
        ValueError: if it is the user object of a visitor who has not signed in, or an empty name.
    """
    if isinstance(user, get_user_model()):
        name = user.get_username()
        return _text("" if name is None else str(name), "users", "a user with a name")
    if hasattr(user, "is_authenticated") and not user.is_authenticated:
        raise ValueError(
            "users contains the user object of a visitor who has not signed in, which addresses nobody. Check "
            "is_authenticated first, or write users=[SELF] with request=request, which then addresses nobody."
        )
    return _text(user, "users", "user names, user objects or SELF")


def group_name(group: Any) -> str:
    """Return the name of a group, from an object (of the related model of users' ``groups``) or a name.

    Raises:
        TypeError: if it is neither.
        ValueError: if the name is empty.
    """
    field = groups_field(get_user_model())
    if isinstance(group, Group if field is None else field.related_model):
        return _text(getattr(group, "name", None), "groups", "a group with a name")
    return _text(group, "groups", "names of groups, group objects or SELF")


def session_key(session: Any) -> str:
    """Return the key of a session, from ``request.session``, a row of the table of sessions, or a key.

    Raises:
        TypeError: if it is none of these.
        ValueError: if the session has no key yet.
    """
    if isinstance(session, (SessionBase, AbstractBaseSession)):
        if not session.session_key:
            raise ValueError("sessions contains a session without a key: it has not been saved yet. Save it first.")
        return _text(session.session_key, "sessions", "a session with a key")
    return _text(session, "sessions", "keys of sessions, session objects or SELF")


def _text(value: Any, where: str, wanted: str) -> str:
    """Return a name as plain text, also from a lazy translation or a member of an enumeration."""
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, Promise):
        value = str(value)
    if not isinstance(value, str):
        text = f"the {type(value).__name__} {value.pk!r}" if isinstance(value, Model) else shown(value)
        raise TypeError(f"{where} must be {wanted}, not {text}")
    if not value and where != "facility":  # the facility at the URL of all sockets itself has an empty name
        raise ValueError(f"{where} must be {wanted}, not an empty text")
    if not is_utf8(value):
        raise ValueError(f"{where} must be {wanted}, in text that can be encoded as UTF-8, not {shown(value)}")
    return str.__str__(value)


def shown(value: Any) -> str:
    """Return a value as an error shows it, of limited length."""
    try:
        shown = repr(value)
    except Exception:  # raised by the object's own __repr__
        shown = f"an object of the class {type(value).__name__}"
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"


def as_list(value: Any, where: str) -> list[Any]:
    """Return ``value`` as a list: one name, object or SELF, or any iterable of them. True is SELF, as in ws4redis.

    Raises:
        TypeError: if it is none of these.
    """
    if value is None or value is False:
        return []
    if value is True:
        return [SELF]
    if value is SELF or isinstance(value, (str, Promise, enum.Enum, Model, SessionBase)):
        return [value]
    if hasattr(value, "is_authenticated"):  # AnonymousUser, lazy ones too
        return [value]
    if isinstance(value, (bytes, bytearray, memoryview, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"{where} must be a name, an object, SELF, or a list of them, not {shown(value)}")
    return list(value)


def channels(
    request: Any = None, *, facility: Any, broadcast: Any = False, groups: Any = (), users: Any = (), sessions: Any = ()
) -> list[str]:
    """Return the names of the channels of a message, each once, in a fixed order: broadcast, groups, users, sessions.

    Args:
        request: the request whose user, groups and session SELF stands for. For a visitor without user or session SELF
            addresses nobody.
        facility: name of the facility.
        broadcast: whether the message is for all subscribers of the facility.
        groups, users, sessions: names or objects, one or several, or SELF.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if an argument addresses nobody, or the channels of the facility would be ambiguous.
    """
    name = facility_name(facility)
    if not isinstance(broadcast, bool):
        raise TypeError(f"broadcast must be True or False, not {shown(broadcast)}")
    found = [f"{conf.prefix()}broadcast:{name}"] if broadcast else []
    for audience, value, own, read in (
        ("group", groups, own_groups, group_name),
        ("user", users, own_user, user_name),
        ("session", sessions, own_session, session_key),
    ):
        names = _names(as_list(value, f"{audience}s"), request, own, read)
        if names and audience != "session" and ":" in name:
            # In ws4redis's keys "group:team:admins:news" is the facility "news" of the group "team:admins" as well.
            raise ValueError(
                f"the facility {shown(name)} has a colon, so it cannot have the audiences users and groups: its "
                "channels would be those of others, too"
            )
        found.extend(f"{conf.prefix()}{audience}:{each}:{name}" for each in names)
    return list(dict.fromkeys(found))


def mistake(channels: Sequence[str], request: Any, facility: Any, users: Any, groups: Any, sessions: Any) -> str:
    """Return a text if a message is for nobody, though the view seems to name somebody; else an empty text.

    A facility without a name exists, but its sockets are rare, and a variable that is empty is not.

    Args:
        channels: of the message.
        request, facility, users, groups, sessions: see :func:`channels`.
    """
    absent = "nobody has signed in" if request is not None else "there is no request=request"
    for argument, given, own in (
        ("users", users, own_user),
        ("groups", groups, own_user),  # a user without groups is no mistake
        ("sessions", sessions, own_session),
    ):
        listed = given if isinstance(given, (list, tuple, set)) else [given]  # an iterator can be read only once
        if any(each is SELF or each is True for each in listed) and not own(request):
            is_session = own is own_session and request is not None
            why = "there is no session, or it was not saved yet" if is_session else absent
            return f"{argument}=[SELF] of a message to {shown(facility)} is nobody, because {why}"
    if channels and facility == "":
        return f"a message to the facility '' reaches sockets at {conf.websocket_url()} itself only"
    if channels:
        return ""
    return f"a message to {shown(facility)} has no audience, so nobody gets it: broadcast=True, or users=…, is missing"


def _names(
    given: list[Any], request: Any, own: Callable[[Any], list[str]], read: Callable[[Any], str]
) -> Iterable[str]:
    names: list[str] = []
    for each in given:
        names.extend(own(request) if each is SELF else [read(each)])
    return names


def own_user(request: Any) -> list[str]:
    """Return the name of the user of a request, in a list; an empty list if nobody has signed in."""
    user = getattr(request, "user", None)
    name = user.get_username() if user and user.is_authenticated else None
    return [] if name is None or name == "" else [str(name)]


def own_groups(request: Any) -> list[str]:
    """Return the names of the groups of the user of a request."""
    if not own_user(request):
        return []
    groups = user_groups(request.user)
    if groups is not None:
        return [group_name(group) for group in groups if getattr(group, "name", "")]
    # Not a user of the database: the groups that ws4redis.models, or the site itself, noted in the session.
    session = getattr(request, "session", None)
    return list(session.get("ws4redis:memberof", [])) if session else []


def own_session(request: Any) -> list[str]:
    """Return the key of the session of a request, in a list; an empty list if there is no key."""
    session = getattr(request, "session", None)
    return [session.session_key] if session and session.session_key else []


def user_groups(user: Any) -> list[Any] | None:
    """Return a user's groups from the database, read once for each user object.

    (ws4redis uses the groups noted in the session at login: a user removed from a group would stay subscribed.)

    Returns:
        None if the user is not in the database, or its model has no groups.
    """
    if getattr(user, "pk", None) is None or groups_field(user) is None:
        return None
    known = getattr(user, "_prefetched_objects_cache", {}).get("groups")  # Django's own look at it takes longer
    if known is None:
        prefetch_related_objects([user], "groups")
        known = user.groups.all()
    return list(known)


def groups_field(user: Any) -> Any:
    """Return the many-to-many field ``groups`` of a user, or of a user model; None if there is no such field."""
    meta = getattr(user, "_meta", None)
    return next((field for field in getattr(meta, "many_to_many", ()) if field.name == "groups"), None)


__all__ = ["SELF", "as_list", "channels", "facility_name", "group_name", "mistake", "session_key", "user_name"]
