"""Fixtures of the unit tests. Their process is patched by gevent from its first line on, as those of the server are."""

import gc
import os
import socket
import types

import gevent
import pytest
from gevent import monkey

if not monkey.is_module_patched("socket"):
    raise pytest.UsageError(
        "tests/unit needs a process that gevent has patched: `make test TESTS=tests/unit`, "
        "or `python -m gevent.monkey --module pytest tests/unit`"
    )

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.unit.settings"

import django

django.setup()

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection as database_connection  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402
from django.test import override_settings  # noqa: E402
from prometheus_client import REGISTRY  # noqa: E402

from tests.unit.front import Front, PairTakeover  # noqa: E402
from tests.unit.gate import Gate  # noqa: E402
from tests.unit.peer import Peer, Recorder  # noqa: E402
from wsloop import blocked, conf, engine, exposition, layers, refusals  # noqa: E402
from wsloop.backend import pool  # noqa: E402
from wsloop.protocol.dialects import BARE  # noqa: E402
from wsloop.protocol.messages import unwrap  # noqa: E402
from wsloop.sockets.limits import Bounds  # noqa: E402
from wsloop.sockets.transport import Transport  # noqa: E402
from wsloop.sockets.websocket import WebSocket  # noqa: E402
from wsloop.testing import memory  # noqa: E402

BOUND = 60  # seconds; every wait of a test is for an event, and this is when it is given up

exposition.register()  # as a server does: tests of what is counted ask Prometheus's registry


def pytest_make_parametrize_id(val, argname):
    """Frames are masked at random, and a test must have the same name in all processes of ``python -m tests``."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def bounded():
    """Give up waiting in the test's own greenlet: the signal of pytest-timeout would reach the hub only."""
    with gevent.Timeout(BOUND):
        yield


@pytest.fixture(autouse=True)
def no_consumers_left():
    """A test may leave consumers behind; the next one must not find their channel layer, which has no Redis."""
    yield
    memory.forget()


@pytest.fixture(autouse=True)
def unwatched(monkeypatch):
    """What a slow machine holds up is not logged, other than in the tests of that."""
    monkeypatch.setattr(blocked, "_watch", lambda process: None)


@pytest.fixture(autouse=True)
def unlogged(monkeypatch):
    """What other tests have had refused keeps no line out of the log of this one."""
    for each in (refusals.refusals, refusals.hints):
        monkeypatch.setattr(each, "_kinds", {})
        monkeypatch.setattr(each, "_last", {})


@pytest.fixture
def with_settings():
    """Change settings until the end of the test: ``with_settings(WS4REDIS_EXPIRE=0)``."""
    changed = []

    def change(**settings):
        changed.append(override_settings(**settings))
        changed[-1].enable()

    yield change
    for each in reversed(changed):
        each.disable()


@pytest.fixture
def use_redis(with_settings):
    """Let wsloop use a server: ``use_redis(private_redis)``."""
    pool.forget()

    def use(server):
        pool.forget()
        with_settings(WS4REDIS_CONNECTION={"unix_socket_path": server.socket_path})
        return server

    yield use
    pool.forget()


@pytest.fixture
def shared_redis(redis_server, use_redis):
    """wsloop uses the Redis that tests share."""
    return use_redis(redis_server)


@pytest.fixture
def own_redis(private_redis, use_redis):
    """wsloop uses a Redis that this test may kill, stop and start again."""
    return use_redis(private_redis)


@pytest.fixture
def gate(private_redis, use_redis, tmp_path):
    """wsloop reaches ``private_redis`` through a line on which commands can be held back."""
    gate = Gate(private_redis, tmp_path)
    use_redis(gate)
    yield gate
    gate.close()


@pytest.fixture
def receive(facility):
    """Listen to a Redis; what is returned gives the texts that one channel has got so far, by default everybody's.

    ``received = receive(private_redis)``; ``received()``; ``received("unit:user:john:…")``.
    """
    subscriptions = []

    def listen(server):
        client = server.client()
        client.connection_pool.connection_kwargs["decode_responses"] = False
        subscription = client.pubsub()
        subscriptions.append((client, subscription))
        subscription.psubscribe(f"unit:*:{facility}")
        assert subscription.get_message(timeout=10)["type"] == "psubscribe"
        messages = []

        def received(channel=f"unit:broadcast:{facility}"):
            client.publish(f"unit:end:{facility}", "end")  # comes after all that was published so far
            while (message := subscription.get_message(timeout=10))["channel"] != f"unit:end:{facility}".encode():
                messages.append((message["channel"].decode(), unwrap(message["data"]).payload.decode()))
            return [text for name, text in messages if name == channel]

        return received

    yield listen
    for client, subscription in subscriptions:
        subscription.close()
        client.close()


@pytest.fixture
def received(shared_redis, receive):
    """What the Redis that tests share has got so far for everybody who listens to the test's facility."""
    return receive(shared_redis)


@pytest.fixture(scope="session", autouse=True)
def _own_database(tmp_path_factory):
    """Processes that run tests side by side have imported the settings together."""
    database_connection.close()
    database_connection.settings_dict["NAME"] = str(tmp_path_factory.mktemp("database") / "db.sqlite3")


@pytest.fixture(scope="session")
def _migrated(_own_database):
    call_command("migrate", verbosity=0)
    database_connection.close()


@pytest.fixture
def database(_migrated):
    """An empty database with tables; what the test leaves in it is removed."""
    opened = []

    def opens(connection, **kwargs):
        opened.append(connection)

    connection_created.connect(opens)
    yield database_connection
    call_command("flush", verbosity=0, interactive=False)
    connection_created.disconnect(opens)
    for each in opened:  # those of greenlets too, which are not closed with them; Python 3.13 warns of that
        each.inc_thread_sharing()
        each.close()


@pytest.fixture
def reached():
    """How often a bound was reached since the test began: ``reached("MAX_MESSAGE_SIZE")``."""

    def count(setting):
        return REGISTRY.get_sample_value("wsloop_bounds_reached_total", {"setting": setting}) or 0

    before = {setting: count(setting) for setting in conf.DEFAULTS}
    return lambda setting: count(setting) - before[setting]


@pytest.fixture
def lost():
    """How often something was lost since the test began: ``lost("publication")``."""

    def count(kind):
        return REGISTRY.get_sample_value("wsloop_lost_total", {"kind": kind}) or 0

    before = {kind: count(kind) for kind in ("publication", "interruption", "history", "replaced")}
    return lambda kind: count(kind) - before[kind]


@pytest.fixture
def descriptors():
    """How many descriptors the process has open: ``descriptors()``. Nothing of other tests is closed meanwhile."""
    gc.collect()
    gc.disable()
    yield lambda: len(os.listdir("/proc/self/fd"))
    gc.enable()


@pytest.fixture
def pair():
    """Make a socket pair: a transport, and the peer at its other end. ``pair(kind=socket.SOCK_SEQPACKET)``."""
    peers, transports = [], []

    def make(kind=socket.SOCK_STREAM, send_buffer=None):
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        if send_buffer is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        transports.append(Transport(ours.detach()))
        peers.append(Peer(theirs))
        return transports[-1], peers[-1]

    yield make
    for transport in transports:
        transport.close()
    for peer in peers:
        peer.close()


@pytest.fixture
def tcp_pair():
    """Make a TCP connection over the loopback: a transport, and the peer at its other end."""
    peers, transports = [], []

    def make():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        transports.append(Transport(ours.detach()))
        peers.append(Peer(theirs))
        return transports[-1], peers[-1]

    yield make
    for transport in transports:
        transport.close()
    for peer in peers:
        peer.close()


@pytest.fixture
def connect(pair):
    """Make a started connection: ``connection, peer, handler = connect(max_message_size=100)``."""

    def make(
        max_message_size=65536,
        max_queued_bytes=1024 * 1024,
        handler=None,
        sockets=None,
        extensions=(),
        rate=None,
        burst=0,
        dialect=BARE,
        **options,
    ):
        transport, peer = sockets or pair(**options)
        handler = handler or Recorder()
        bounds = Bounds(max_message_size, max_queued_bytes, rate, burst)
        connection = WebSocket(transport, handler, bounds, extensions, dialect)
        connection.start()
        return connection, peer, handler

    return make


@pytest.fixture
def fresh(monkeypatch):
    """A process that has not served a socket yet."""
    engine.engine.cache_clear()
    monkeypatch.setattr("wsloop.sockets.servers.claim", lambda environ: PairTakeover(environ["test.socket"]))
    yield
    if engine.engine.cache_info().currsize:
        made = engine.engine()
        for connection in [*made.hub.connections, *made.hub.heartbeat._closing]:
            connection.abort()
        made.broker.stop()
        made.presence._timer.stop()
        made.inspection.stop()
    engine.engine.cache_clear()
    layers.LAYER.local, layers.LAYER.remote = None, layers.RedisDelivery()


@pytest.fixture
def front(fresh):
    front = Front()
    yield front
    for peer in front.peers:
        peer.close()


@pytest.fixture
def signed_in(database):
    """Cookie header of john, who is in the group chatters."""
    john = User.objects.create_user("john", password="secret")
    john.groups.create(name="chatters")
    session = SessionStore()
    session[SESSION_KEY] = str(john.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = john.get_session_auth_hash()
    session.save()
    return types.SimpleNamespace(cookie=f"sessionid={session.session_key}", session_key=session.session_key)
