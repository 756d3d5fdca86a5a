"""Who is behind the handshakes that wait at the same time: as Django says it for each, with three queries for all."""

import types
from datetime import timedelta

import gevent
import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user
from django.contrib.auth.backends import AllowAllUsersModelBackend, ModelBackend
from django.contrib.auth.models import Group, User, UserManager
from django.contrib.sessions.backends import cached_db, db, signed_cookies
from django.contrib.sessions.models import Session
from django.db import DatabaseError, connection, transaction
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from gevent.event import Event

from wsloop import addressees, conf, identity
from wsloop.db import give_back
from wsloop.visitors import lookup, rows
from wsloop.visitors.lookup import Lookup

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"
FORMER = "a-secret-key-that-was-replaced"


class Renamed(ModelBackend):
    """Finds users in a way of its own."""

    def get_user(self, user_id):
        return User.objects.filter(pk=user_id).annotate().first()


class Unloadable(db.SessionStore):
    def load(self):
        return {"from": "elsewhere"}


@pytest.fixture
def john(database):
    john = User.objects.create_user("john", password="secret")
    john.groups.create(name="chatters")
    return john


@pytest.fixture(autouse=True)
def _no_linger(monkeypatch):
    """The greenlet of a test ends with it."""
    monkeypatch.setattr(lookup, "LINGER", 0.01)


def session_of(user, **content):
    """The key of a session as a login leaves it."""
    made = db.SessionStore()
    made[SESSION_KEY] = str(user.pk)
    made[BACKEND_SESSION_KEY] = MODEL_BACKEND
    made[HASH_SESSION_KEY] = user.get_session_auth_hash()
    made.update(content)
    made.save()
    return made.session_key


def sign_in(key, at=None):
    request = types.SimpleNamespace()
    (at or Lookup()).sign_in(request, key)
    return request


@pytest.fixture
def queries(monkeypatch):
    """The queries that lookups make, each in a greenlet with a connection of its own."""
    seen = []
    fill = lookup.fill

    def counted(batch):
        with CaptureQueriesContext(connection) as captured:
            fill(batch)
        seen.extend(each["sql"] for each in captured)

    monkeypatch.setattr(lookup, "fill", counted)
    return seen


def together(keys):
    """Sign all of them in at the same time, and look at the users."""
    at = Lookup()
    requests = [types.SimpleNamespace() for _ in keys]

    def one(request, key):
        at.sign_in(request, key)
        return request.user.is_authenticated

    jobs = [gevent.spawn(one, *each) for each in zip(requests, keys, strict=True)]
    gevent.joinall(jobs, timeout=10, raise_error=True)
    return requests


def test_one_query_each_finds_sessions_users_and_groups_of_all(database, queries):
    users = [User.objects.create_user(f"user{number}") for number in range(20)]
    for user in users[::2]:
        user.groups.create(name=f"of {user}")
    keys = [session_of(user) for user in users]
    requests = together(keys)
    assert [request.user.username for request in requests] == [user.username for user in users]
    assert [request.session.session_key for request in requests] == keys
    assert len(queries) == 3
    with CaptureQueriesContext(connection) as more:
        assert [addressees.own_groups(request) for request in requests[:2]] == [["of user0"], []]
        visitors = [identity.visitor(request) for request in requests]
    assert [each["sql"] for each in more] == []
    assert [(each.user, each.session) for each in visitors] == [
        (user.pk, key) for user, key in zip(users, keys, strict=True)
    ]


def test_groups_are_those_that_django_finds(database):
    users = [User.objects.create_user(f"user{number}") for number in range(3)]
    groups = [Group.objects.create(name=name) for name in ("staff", "chatters", "other")]
    users[0].groups.set(groups)
    users[1].groups.set(groups[1:2])
    for request, user in zip(together([session_of(user) for user in users]), users, strict=True):
        assert set(request.user.groups.all()) == set(user.groups.all())
        assert set(addressees.own_groups(request)) == {group.name for group in user.groups.all()}
        assert {group.pk for group in request.user.groups.filter(name="chatters")} <= {groups[1].pk}
        request.user.groups.clear()  # what the site changes, it sees
        assert not request.user.groups.exists()


def test_the_same_sql_serves_all_later_handshakes_and_other_numbers_of_them(database):
    users = [User.objects.create_user(f"user{number}") for number in range(5)]
    for count in (1, 2, 5, 2, 1):
        some = users[-count:]
        assert [request.user for request in together([session_of(user) for user in some])] == some


class Active(UserManager):
    def get_queryset(self):
        return super().get_queryset().filter(is_active=True)


class Queries(QuerySet):
    def filter(self, *args, **kwargs):
        return super().filter(*args, is_active=True, **kwargs)


@pytest.mark.parametrize("manager", [Active(), UserManager.from_queryset(Queries)()])
def test_a_manager_of_the_sites_own_decides_who_is_found(john, monkeypatch, manager):
    """What it adds to a query may be another thing each time, so nothing is kept of it."""
    manager.model, manager.name = User, "objects"
    assert not rows.is_plain(manager)
    monkeypatch.setattr(lookup.get_user_model()._meta, "default_manager", manager)
    key = session_of(john)
    assert sign_in(key).user == john
    User.objects.update(is_active=False)
    assert not sign_in(key).user.is_authenticated


def test_another_database_may_write_the_query_in_another_way(john, monkeypatch):
    monkeypatch.setattr(rows, "_made", {})
    field = User._meta.get_field("username")

    def prepare(value, connection, prepared=False):
        return value if prepared else ["an array", value]

    monkeypatch.setattr(field, "get_db_prep_value", prepare)
    assert rows.read(User.objects, "username", field, ["john"], "default") == [john]
    assert rows._made == {}


def test_the_visitor_is_the_one_that_is_found_without(john, monkeypatch):
    monkeypatch.setattr(identity, "ASK_AGAIN", 10**9)
    key = session_of(john)
    alone = types.SimpleNamespace(session=db.SessionStore(key))
    alone.user = get_user(alone)
    assert identity.visitor(sign_in(key)) == identity.visitor(alone)


def test_those_who_come_later_find_the_present(john):
    at, key = Lookup(), session_of(john)
    assert sign_in(key, at).user.is_active
    john.groups.clear()
    User.objects.filter(pk=john.pk).update(first_name="John")
    again = sign_in(key, at)
    assert (again.user.first_name, addressees.own_groups(again)) == ("John", [])
    Session.objects.all().delete()
    assert not sign_in(key, at).user.is_authenticated


class LateEvent(Event):
    """Its wait ends at the very moment at which somebody comes."""

    def wait(self, timeout=None):
        self.comes()
        return False


def test_who_comes_just_when_the_greenlet_is_about_to_end_is_looked_up(john, monkeypatch):
    at, key, later = Lookup(), session_of(john), []

    def comes():
        if not later:
            later.append(gevent.spawn(lambda: sign_in(key, at).user.username))
            gevent.sleep(0)  # until it waits

    at._more = LateEvent()
    monkeypatch.setattr(LateEvent, "comes", staticmethod(comes), raising=False)
    assert sign_in(key, at).user.username == "john"
    assert later[0].get(timeout=10) == "john"


def test_two_sockets_of_a_user_have_an_object_each(john):
    first, second = together([session_of(john), session_of(john)])
    first.user.username = "changed by the site"
    assert second.user.username == "john"
    assert first.user == second.user


def test_a_session_keeps_its_content_and_not_the_row(john, queries):
    (request,) = together([session_of(john, colour="blue")])
    assert request.session["colour"] == "blue"
    assert len(queries) == 3
    assert "_get_session_from_db" not in vars(request.session)
    Session.objects.all().delete()
    assert request.session.load() == {}, "whoever loads it anew gets the present"


def test_a_session_that_is_not_there_is_as_with_django(john, queries):
    ended = session_of(john)
    Session.objects.filter(session_key=ended).update(expire_date=timezone.now() - timedelta(seconds=1))
    here, gone, unknown = together([session_of(john), ended, "nosuchsession0123456789"])
    assert here.user == john
    for request in (gone, unknown):
        assert not request.user.is_authenticated
        assert (request.session.session_key, dict(request.session.items())) == (None, {})
        assert identity.visitor(request) == identity.NOBODY
    assert len(queries) == 3


@pytest.mark.parametrize(
    "content",
    [
        {HASH_SESSION_KEY: "that of another password"},
        {HASH_SESSION_KEY: ""},
        {HASH_SESSION_KEY: None},
        {SESSION_KEY: "0"},
        {SESSION_KEY: "not a number"},
        {SESSION_KEY: None},
        {BACKEND_SESSION_KEY: "site.backends.Gone"},
        {BACKEND_SESSION_KEY: None},
        {BACKEND_SESSION_KEY: f"{__name__}.Renamed"},
    ],
)
def test_what_is_not_as_it_should_be_is_left_to_django(john, with_settings, content):
    """Whatever it says: who it is, nobody, or an error; and the others do not notice."""
    with_settings(AUTHENTICATION_BACKENDS=[MODEL_BACKEND, f"{__name__}.Renamed"])

    def by_django(key):
        request = types.SimpleNamespace(session=db.SessionStore(key))
        return outcome(lambda: get_user(request))

    def outcome(who):
        try:
            return who().pk
        except Exception as exc:
            return type(exc)

    expected = by_django(session_of(john, **content))
    odd, usual = session_of(john, **content), session_of(john)
    at, found = Lookup(), {}

    def one(key):
        request = sign_in(key, at)
        found[key] = outcome(lambda: request.user)

    gevent.joinall([gevent.spawn(one, key) for key in (odd, usual)], timeout=10, raise_error=True)
    assert found == {odd: expected, usual: john.pk}


@pytest.mark.parametrize(("backend", "who"), [(MODEL_BACKEND, None), ("AllowAllUsersModelBackend", "john")])
def test_the_backend_says_who_may_sign_in(john, with_settings, backend, who):
    path = backend if "." in backend else f"{AllowAllUsersModelBackend.__module__}.{backend}"
    with_settings(AUTHENTICATION_BACKENDS=[path])
    User.objects.update(is_active=False)
    request = sign_in(session_of(john, **{BACKEND_SESSION_KEY: path}))
    assert (request.user.get_username() or None) == who


def test_a_former_secret_key_signs_in_and_keeps_the_session(john, with_settings):
    former = next(iter([john._get_session_auth_hash(secret=FORMER)]))
    key = session_of(john, **{HASH_SESSION_KEY: former})
    assert not sign_in(key).user.is_authenticated
    key = session_of(john, **{HASH_SESSION_KEY: former})
    with_settings(SECRET_KEY_FALLBACKS=[FORMER])
    request = sign_in(key)
    assert (request.user.username, request.session.session_key) == ("john", key)


@pytest.mark.parametrize("key", ["", "\x00" * 32, "a" * 31 + "\x00", "short", "a" * 5000])
def test_a_key_that_no_session_has(john, key):
    other, usual = together([key, session_of(john)])
    assert (other.user.is_authenticated, usual.user.username) == (False, "john")


def test_sessions_that_cannot_be_read_concern_nobody_else(john, queries):
    broken = session_of(john)
    Session.objects.filter(session_key=broken).update(session_data="no signature")
    other, usual = together([broken, session_of(john)])
    assert (other.user.is_authenticated, usual.user.username) == (False, "john")
    assert len(queries) == 3


def test_when_the_query_of_all_fails_each_asks_by_itself(john, monkeypatch):
    def fail(batch):
        raise DatabaseError("of all")

    monkeypatch.setattr(lookup, "fill", fail)
    requests = together([session_of(john) for _ in range(3)])
    assert [request.user.username for request in requests] == ["john"] * 3


def test_when_the_database_does_not_answer_a_handshake_gives_up_and_the_next_is_served(
    john, monkeypatch, with_settings
):
    with_settings(WSLOOP={"HANDSHAKE_TIMEOUT": 1})
    calls, fill = [], lookup.fill

    def hang(batch):
        calls.append(len(batch))
        if len(calls) == 1:
            gevent.sleep(60)
        fill(batch)

    monkeypatch.setattr(lookup, "fill", hang)
    at, key = Lookup(), session_of(john)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.2):
        str(sign_in(key, at).user)
    assert sign_in(key, at).user.username == "john"
    assert calls == [1, 1]


@pytest.mark.parametrize("engine", [cached_db.SessionStore, signed_cookies.SessionStore, Unloadable])
def test_other_sessions_are_not_looked_up(john, monkeypatch, queries, engine):
    monkeypatch.setattr(conf, "session_store", lambda: engine)
    request = sign_in(session_of(john))
    assert request.user.is_authenticated is (engine is cached_db.SessionStore)
    assert queries == []


def test_inside_a_transaction_django_asks(john, queries):
    """Of a test, say: what is not committed is there for its own connection only."""
    with transaction.atomic():
        mary = User.objects.create_user("mary")
        assert sign_in(session_of(mary)).user == mary
        transaction.set_rollback(True)
    assert queries == []


def test_a_session_that_the_site_has_read_or_replaced_counts(john, queries):
    request = sign_in("nosuchsession0123456789")
    request.session = db.SessionStore(session_of(john))
    assert request.session["_auth_user_id"]  # loaded by the site's own code
    assert request.user.username == "john"
    assert queries == []


def test_the_connection_is_kept_for_the_next_and_given_back(john, monkeypatch):
    monkeypatch.setattr(lookup, "LINGER", 0.2)
    at, used, fill = Lookup(), [], lookup.fill

    def noting(batch):
        fill(batch)
        used.append(connection.connection)

    monkeypatch.setattr(lookup, "fill", noting)
    given_back = Event()
    monkeypatch.setattr(lookup, "give_back", lambda: (give_back(), given_back.set()))
    for _ in range(3):
        assert sign_in(session_of(john), at).user == john
    assert used[0] is used[1] is used[2] is not None
    assert given_back.wait(10)
