"""Who is behind a socket, and what closes it: real connections, a real database, notices as Redis brings them."""

import datetime
import json
import logging
import time
import types
import uuid

import gevent
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, Group, User
from django.contrib.sessions.backends import cache, cached_db, db, file, signed_cookies
from django.db import DatabaseError, connections
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from gevent.event import Event
from websockets.frames import Close, Opcode

from tests.unit.peer import turn
from wsloop import identity, signals, tokens
from wsloop.facilities.inbound import ReadOnlyHandler
from wsloop.identity import visitor
from wsloop.sockets import heartbeat
from wsloop.sockets.admission import NOBODY, Visitor
from wsloop.sockets.hub import Hub
from wsloop.sockets.limits import Bounds
from wsloop.sockets.websocket import WebSocket
from wsloop.visitors import session_watch
from wsloop.visitors.session_watch import SessionWatch

SIGNED_OUT, RIGHTS_CHANGED = 4001, 4003
DATED_FILE = pytest.param(file, marks=pytest.mark.real_clock("the kernel tells when the file was written"))


@pytest.fixture(autouse=True)
def _no_redis(monkeypatch):
    """Notices are brought by the tests themselves."""
    monkeypatch.setattr(signals, "_publish", lambda notice: None)


@pytest.fixture(autouse=True)
def _seldom(monkeypatch):
    """Sessions are not asked for again while a test looks at when they end."""
    monkeypatch.setattr(identity, "ASK_AGAIN", 10**9)


@pytest.fixture
def john(database):
    return User.objects.create_user("john", password="secret")


@pytest.fixture
def mary(database):
    return User.objects.create_user("mary", password="secret")


def request(user=None, session=None, **more):
    return types.SimpleNamespace(user=user, session=session, **more)


def session_of(user, engine=db, **content):
    """A saved session, as one finds it that comes with a cookie."""
    made = engine.SessionStore()
    made["_auth_user_id"] = str(user.pk)
    made.update(content)
    made.save()
    return engine.SessionStore(made.session_key)


@pytest.fixture
def hub(monkeypatch, with_settings):
    """A hub whose timer the test turns by hand, with ``hub.heartbeat._tick()``."""
    monkeypatch.setattr(heartbeat, "TICK", 3600)
    with_settings(WS4REDIS_HEARTBEAT=None)
    hub = Hub(lambda connection: None, lambda connections: hub.session_watch.expired(connections))
    hub.session_watch = SessionWatch(hub)
    yield hub
    for connection in [*hub.connections, *hub.heartbeat._closing]:
        connection.abort()


@pytest.fixture
def look(hub):
    return hub.session_watch


@pytest.fixture
def member(hub, pair):
    """Open a socket for a visitor: ``peer = member(visitor(request(john)))``."""

    def make(who):
        transport, peer = pair()
        peer.connection = WebSocket(transport, ReadOnlyHandler(hub), Bounds(1000, 1000))
        seat = hub.admission.take()
        seat.assign(who)
        hub.open(peer.connection, seat)
        hub.enter(hub.join([b"news"]), peer.connection, ())
        return peer

    return make


@pytest.fixture
def socket_of(member):
    """Open a socket for a user, with a session if one is given."""
    return lambda user, session=None: member(visitor(request(user, session)))


def notice(*users, **more):
    """A notice as wsloop.signals publishes it."""
    return json.dumps({"users": [str(user.pk) for user in users], **more} if users else more).encode()


def code_of(peer):
    """The code of the close frame, which must be next, but for pings."""
    frame = next(frame for frame in iter(peer.frame, None) if frame.opcode is not Opcode.PING)
    assert frame.opcode is Opcode.CLOSE, frame
    return Close.parse(frame.data).code


def idle(look):
    """Let the work that is due be done, and its pause pass."""
    while look._looking._running:
        gevent.sleep(0.01)


# Who it is.


@pytest.mark.parametrize(
    "made",
    [
        types.SimpleNamespace(),
        request(),
        request(AnonymousUser()),
        request(SimpleLazyObject(AnonymousUser)),
        request(AnonymousUser(), signed_cookies.SessionStore("some-session")),
    ],
)
def test_nobody(made):
    assert visitor(made) is NOBODY
    assert visitor(made, "192.0.2.1") == Visitor(address="192.0.2.1")


def test_a_user_with_a_session(john):
    session = session_of(john)
    found = visitor(request(SimpleLazyObject(lambda: john), session), "192.0.2.1")
    assert found[:3] == (john.pk, session.session_key, "192.0.2.1")
    assert type(found.user) is int
    assert found.expires == db.SessionStore.get_model_class().objects.get().expire_date.timestamp()
    assert found.auth_hash and found.permissions_hash


def test_a_session_is_asked_for_again_before_its_end_in_case_it_ended_without_a_signal(john, monkeypatch):
    monkeypatch.setattr(identity, "ASK_AGAIN", 600)
    expires = visitor(request(john, session_of(john))).expires
    assert 590 < expires - time.time() <= 600


def test_the_end_of_a_session_is_the_stored_one_however_old_it_is(john):
    session = session_of(john)
    end = timezone.now() + datetime.timedelta(seconds=100)
    db.SessionStore.get_model_class().objects.update(expire_date=end)
    assert visitor(request(john, session)).expires == end.timestamp()


@pytest.mark.parametrize(
    "engine", [db, cached_db, cache, DATED_FILE, signed_cookies], ids=lambda engine: engine.__name__
)
def test_every_session_store_tells_when_a_session_ends(john, with_settings, tmp_path, engine):
    with_settings(SESSION_ENGINE=engine.__name__, SESSION_FILE_PATH=str(tmp_path))
    before = timezone.now()
    session = session_of(john, engine)
    age = datetime.timedelta(seconds=session.get_session_cookie_age())
    end = visitor(request(john, session)).expires
    assert (before + age).timestamp() <= end <= (timezone.now() + age).timestamp()
    session.flush()
    assert identity.session_ends([session_of(john, engine).session_key])
    assert not identity.session_ends(["nosuchsession0123456789"])


@pytest.mark.parametrize("engine", [cache, file, signed_cookies], ids=lambda engine: engine.__name__)
def test_a_fixed_end_is_kept_by_other_stores(john, with_settings, tmp_path, engine):
    with_settings(SESSION_ENGINE=engine.__name__, SESSION_FILE_PATH=str(tmp_path))
    made = engine.SessionStore()
    end = timezone.now() + datetime.timedelta(seconds=100)
    made.set_expiry(end)
    made.save()
    assert visitor(request(john, engine.SessionStore(made.session_key))).expires == end.timestamp()


@pytest.mark.parametrize("engine", [cache, DATED_FILE], ids=lambda engine: engine.__name__)
def test_an_empty_session_is_there(database, with_settings, tmp_path, engine):
    with_settings(SESSION_ENGINE=engine.__name__, SESSION_FILE_PATH=str(tmp_path))
    made = engine.SessionStore()
    made.create()
    assert list(identity.session_ends([made.session_key])) == [made.session_key]


def test_a_session_that_has_ended_while_the_socket_was_opened(john, member, hub):
    session = session_of(john)
    found = request(john, db.SessionStore(session.session_key))
    session.flush()
    peer = member(visitor(found))
    hub.heartbeat._tick()
    assert code_of(peer) == SIGNED_OUT


@pytest.mark.parametrize(
    "session", [None, types.SimpleNamespace(session_key="x"), {}, signed_cookies.SessionStore("x")]
)
def test_a_user_without_a_session_of_the_site(john, session):
    found = visitor(request(john, session))
    assert (found.user, found.session, found.expires) == (john.pk, None, None)


def test_proof_and_rights_are_the_same_for_the_same_state(john):
    john.groups.add(Group.objects.create(name="a"), Group.objects.create(name="b"))
    again = User.objects.get(pk=john.pk)
    assert visitor(request(john)) == visitor(request(again))


@pytest.mark.parametrize(
    ("change", "proof", "rights"),
    [
        (lambda user: user.set_password("other"), True, False),
        (lambda user: setattr(user, "is_active", False), True, False),
        (lambda user: setattr(user, "is_staff", True), False, True),
        (lambda user: setattr(user, "is_superuser", True), False, True),
        (lambda user: user.groups.add(Group.objects.create(name="new")), False, True),
        (lambda user: setattr(user, "email", "john@example.org"), False, False),
        (lambda user: setattr(user, "last_login", timezone.now()), False, False),
    ],
)
def test_what_proof_and_rights_tell_apart(john, change, proof, rights):
    before = identity.auth_hash(john), identity.permissions_hash(john)
    change(john)
    assert (identity.auth_hash(john) != before[0], identity.permissions_hash(john) != before[1]) == (proof, rights)


class Stranger:
    """A user that is in no table: of a token of some other service, say."""

    is_authenticated = True
    pk = 1
    groups = types.SimpleNamespace(all=list)


@pytest.mark.parametrize("user", [Stranger(), User(username="unsaved")])
def test_users_that_are_not_in_the_database_are_left_alone(look, hub, member, database, user):
    found = visitor(request(user))
    assert found.auth_hash == 0
    peer = member(found)
    look.on_notice(b'{"users": ["1"]}')
    look.recheck(peer.connection)
    idle(look)
    assert hub.connections == {peer.connection}


# Whether it is still so.


def change(user, **fields):
    """Change a user as if by SQL."""
    get_user_model().objects.filter(pk=user.pk).update(**fields)


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda user: change(user, password="other"), SIGNED_OUT),
        (lambda user: change(user, is_active=False), SIGNED_OUT),
        (lambda user: User.objects.filter(pk=user.pk).delete(), SIGNED_OUT),
        (lambda user: user.groups.clear(), RIGHTS_CHANGED),
        (lambda user: user.groups.add(Group.objects.create(name="another")), RIGHTS_CHANGED),
        (lambda user: Group.objects.update(name="of another name"), RIGHTS_CHANGED),
        (lambda user: Group.objects.all().delete(), RIGHTS_CHANGED),
        (lambda user: change(user, is_staff=True), RIGHTS_CHANGED),
        (lambda user: change(user, is_superuser=True), RIGHTS_CHANGED),
    ],
)
def test_a_change_closes_the_sockets_of_that_user(hub, look, socket_of, john, mary, act, code):
    john.groups.add(Group.objects.create(name="chatters"))
    peers = [socket_of(john), socket_of(john, session_of(john))]
    others = {socket_of(mary).connection, socket_of(AnonymousUser()).connection}
    told = notice(john, mary)
    act(john)
    look.on_notice(told)
    assert [code_of(peer) for peer in peers] == [code] * 2
    idle(look)
    assert hub.connections == others


def test_without_a_change_nothing_is_closed(hub, look, socket_of, john):
    john.groups.add(Group.objects.create(name="chatters"))
    peer = socket_of(john, session_of(john))
    change(john, last_login=timezone.now(), email="new@example.org", first_name="J")
    look.on_notice(notice(john))
    look.connected()
    look.recheck(peer.connection)
    idle(look)
    assert hub.connections == {peer.connection}


def test_many_notices_are_looked_at_together(look, socket_of, john, mary, monkeypatch):
    asked, pause = [], Event()
    users = session_watch.find_users
    monkeypatch.setattr(session_watch, "find_users", lambda pks: asked.append(set(pks)) or users(pks))
    sleep = types.SimpleNamespace(sleep=lambda seconds: pause.wait() if seconds == session_watch.ROUND else None)
    monkeypatch.setattr(session_watch, "gevent", sleep)
    socket_of(john), socket_of(mary), socket_of(john)
    for _ in range(100):
        look.on_notice(notice(john))
        look.on_notice(notice(mary))
    for _ in range(100):  # during the pause behind the first look, whatever else runs meanwhile
        turn()
        look.on_notice(notice(john))
    assert asked == [{john.pk, mary.pk}]
    assert len(look._looking) == 1
    pause.set()
    idle(look)
    assert asked == [{john.pk, mary.pk}, {john.pk}]


def test_a_notice_about_the_user_does_not_replace_the_look_at_the_session(look, socket_of, john):
    session = session_of(john)
    peer = socket_of(john, session)
    session.flush()
    look.recheck(peer.connection)
    look.on_notice(notice(john))
    assert code_of(peer) == SIGNED_OUT


def test_users_without_sockets_here_cost_no_question(look, socket_of, john, mary, monkeypatch):
    monkeypatch.setattr(session_watch, "find_users", None)
    socket_of(john)
    look.on_notice(notice(mary))
    look.on_notice(b'{"users": []}')
    assert not look._looking._running


def test_the_end_of_a_session_closes_its_sockets_and_no_others(hub, look, socket_of, john):
    one, other = session_of(john), session_of(john)
    peers = [socket_of(john, one), socket_of(john, one)]
    stay = {socket_of(john, other).connection, socket_of(john).connection, socket_of(AnonymousUser(), one).connection}
    look.on_notice(notice(session=one.session_key))
    assert [code_of(peer) for peer in peers] == [SIGNED_OUT] * 2
    assert hub.connections == stay


def test_a_session_that_is_used_just_before_it_ends(hub, look, socket_of, john, monkeypatch):
    """Django tells of a logout before the session is gone, so a handshake may still succeed."""
    later = []
    monkeypatch.setattr(session_watch.greenlets, "spawn_later", lambda seconds, *call: later.append((seconds, call)))
    session = session_of(john)
    look.on_notice(notice(session=session.session_key))
    quick = socket_of(john, session)
    [(first, (act, *arguments)), (second, _)] = later
    assert (first, second) == (1, 11)  # the last handshake that can have begun ends after HANDSHAKE_TIMEOUT, 10 s
    act(*arguments)
    assert code_of(quick) == SIGNED_OUT
    slow = socket_of(john, session)
    act(*arguments)
    assert code_of(slow) == SIGNED_OUT


def test_all_sockets_are_looked_at_when_the_subscription_stands(look, socket_of, john, mary, monkeypatch):
    monkeypatch.setattr(session_watch, "SPREAD", 0)
    ended, session = session_of(john), session_of(mary)
    peers = [socket_of(john), socket_of(mary, session), socket_of(mary, ended)]
    change(john, is_active=False)
    ended.flush()
    look.connected()
    assert code_of(peers[0]) == SIGNED_OUT
    assert code_of(peers[2]) == SIGNED_OUT
    assert peers[1].connection.open


def test_without_sockets_there_is_nothing_to_look_at(look, socket_of, john, monkeypatch):
    """As when the first socket of a worker lets the subscription begin; it is looked at because of the mark."""
    monkeypatch.setattr(session_watch, "SPREAD", 0)
    monkeypatch.setattr(session_watch, "find_users", None)
    look.connected()
    socket_of(john)
    turn()
    assert not look._looking._running


def test_more_sockets_than_one_batch(hub, look, socket_of, john, mary, monkeypatch):
    monkeypatch.setattr(session_watch, "BATCH", 3)
    monkeypatch.setattr(session_watch, "SPREAD", 0)
    peers = [socket_of(john) for _ in range(7)]
    stay = {socket_of(mary).connection for _ in range(7)}
    change(john, password="other")
    look.connected()
    assert [code_of(peer) for peer in peers] == [SIGNED_OUT] * 7
    idle(look)
    assert hub.connections == stay


def test_a_change_while_a_socket_is_opened(look, socket_of, john):
    """The server's part: take the mark before it authenticates, and compare it when the socket has joined."""
    mark = look.generation()
    before = User.objects.get(pk=john.pk)
    change(john, password="other")
    look.on_notice(notice(john))
    peer = socket_of(before)
    assert look.generation() != mark
    look.recheck(peer.connection)
    assert code_of(peer) == SIGNED_OUT


def test_the_mark_stays_without_notices(look, socket_of, john):
    mark = look.generation()
    socket_of(john)
    assert look.generation() == mark
    look.connected()
    assert look.generation() != mark


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff", b"[]", b"1", b"null", b'"users"', b'{"users": 1}', b'{"users": [[]]}', b'{"users": ["x"]}',
     b'{"users": [null]}', b'{"session": 1}', b'{"session": []}', b'{"users": ["99999999999999999999"]}',
     b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_notice_does_nothing(hub, look, socket_of, john, payload):
    peer = socket_of(john)
    look.on_notice(payload)
    idle(look)
    assert hub.connections == {peer.connection}


def test_notices_of_a_newer_version_are_understood_as_far_as_they_go(look, socket_of, john):
    peer = socket_of(john)
    change(john, password="other")
    look.on_notice(notice(john, reason="of tomorrow"))
    assert code_of(peer) == SIGNED_OUT


# Expiry.


@pytest.fixture
def clock(monkeypatch):
    """Seconds that have passed, as the hub sees it; the test adds to them."""
    passed = [0.0]
    time = heartbeat.time.time
    monkeypatch.setattr(heartbeat, "time", types.SimpleNamespace(time=lambda: time() + passed[0]))
    return passed


def lasts(session, seconds):
    """Let a stored session end in so many seconds."""
    end = timezone.now() + datetime.timedelta(seconds=seconds)
    db.SessionStore.get_model_class().objects.filter(session_key=session.session_key).update(expire_date=end)


def test_the_socket_ends_with_the_session(hub, look, socket_of, john, clock):
    session, longer = session_of(john), session_of(john)
    lasts(session, 20)
    peer, other = socket_of(john, session), socket_of(john, longer)
    hub.heartbeat._tick()
    idle(look)
    assert peer.connection.open
    clock[0] = 21
    lasts(session, -1)
    hub.heartbeat._tick()
    assert code_of(peer) == SIGNED_OUT
    assert hub.connections == {other.connection}


def test_a_session_that_was_prolonged_keeps_its_sockets(hub, look, socket_of, john, clock):
    """As with SESSION_SAVE_EVERY_REQUEST."""
    session = session_of(john)
    lasts(session, 10)
    peer = socket_of(john, session)
    lasts(session, 20)
    clock[0] = 11
    hub.heartbeat._tick()
    idle(look)
    assert peer.connection.open
    assert peer.connection.visitor.expires == identity.session_ends([session.session_key])[session.session_key]
    clock[0] = 21
    lasts(session, -1)
    hub.heartbeat._tick()
    assert code_of(peer) == SIGNED_OUT


def test_the_socket_ends_with_the_token(hub, member, john, clock):
    made = request(john, token_expires=heartbeat.time.time() + 10)
    peer = member(visitor(made))
    clock[0] = 9
    hub.heartbeat._tick()
    assert peer.connection.open
    clock[0] = 10
    hub.heartbeat._tick()
    assert code_of(peer) == SIGNED_OUT


def test_a_token_and_a_change_of_the_password(look, member, john):
    from django.test import RequestFactory

    made = RequestFactory().get("/ws/news", {"token": tokens.make(john)})
    tokens.authenticate(made)
    peer = member(visitor(made))
    change(john, password="other")
    look.on_notice(notice(john))
    assert code_of(peer) == SIGNED_OUT


# What fails.


def test_when_the_database_is_back_all_that_was_due_is_looked_at(hub, look, socket_of, john, mary, monkeypatch, caplog):
    monkeypatch.setattr(session_watch, "RETRY", 0.05)
    users, session_ends = session_watch.find_users, identity.session_ends
    failing = [DatabaseError("the database is down")] * 3

    def fail(*arguments):
        raise failing.pop() if failing else AssertionError

    session = session_of(john)
    peers = [socket_of(john, session), socket_of(mary)]
    monkeypatch.setattr(session_watch, "find_users", lambda pks: fail() if failing else users(pks))
    monkeypatch.setattr(session_watch, "session_ends", lambda keys: session_ends(keys))
    change(mary, is_active=False)
    session.flush()
    look.on_notice(notice(mary))
    look.recheck(peers[0].connection)
    assert [code_of(peer) for peer in peers] == [SIGNED_OUT] * 2
    assert not failing
    assert "Could not look up users and sessions; retrying in 0.05 s" in caplog.text


def test_users_are_looked_at_although_the_sessions_cannot_be(look, socket_of, john, mary, monkeypatch):
    sockets = [socket_of(john, session_of(john)), socket_of(mary)]

    def down(keys):
        raise ConnectionError("the cache is down")

    monkeypatch.setattr(session_watch, "session_ends", down)
    change(mary, is_active=False)
    for each in sockets:
        look.recheck(each.connection)
    assert code_of(sockets[1]) == SIGNED_OUT
    assert sockets[0].connection.open


def test_database_connections_are_given_back(look, socket_of, john, monkeypatch):
    used = []
    users = session_watch.find_users
    monkeypatch.setattr(session_watch, "find_users", lambda pks: (users(pks), used.append(connections["default"]))[0])
    socket_of(john)
    look.on_notice(notice(john))
    idle(look)
    assert [each.connection for each in used] == [None]


def test_no_secret_is_logged_or_sent(look, socket_of, john, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    session = session_of(john)
    peer = socket_of(john, session)
    look.on_notice(notice(session=session.session_key))
    look.on_notice(f'{{"users": {session.session_key}}}'.encode())
    frame = peer.frame()
    assert session.session_key.encode() not in bytes(frame.data)
    assert session.session_key not in caplog.text


def test_keys_that_are_no_numbers(look, hub, member, monkeypatch, database):
    """What is published is text; what the hub knows are primary keys."""
    from django.db.models import UUIDField

    key = uuid.uuid4()
    peer = member(Visitor(user=key, auth_hash=1))
    monkeypatch.setattr(session_watch, "find_users", lambda pks: dict.fromkeys(pks, (2, 2)))
    model = types.SimpleNamespace(_meta=types.SimpleNamespace(pk=UUIDField()))
    monkeypatch.setattr(session_watch, "get_user_model", lambda: model)
    look.on_notice(json.dumps({"users": [str(key)]}).encode())
    assert code_of(peer) == SIGNED_OUT
