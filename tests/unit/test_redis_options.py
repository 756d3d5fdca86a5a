"""Where Redis is: every form of ``WS4REDIS_CONNECTION``, and what is said about others."""

import json
import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured
from redis import ConnectionPool, Redis
from redis import exceptions as redis_exceptions
from redis.connection import SSLConnection, UnixDomainSocketConnection
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from testbed.processes import ROOT
from testbed.topologies import SentinelSetup
from tests.requires import need
from tests.unit.peer import events
from tests.unit.test_conf import plain_environment
from wsloop.backend import pool, redis_options
from wsloop.delivery.broker import Broker
from wsloop.presence import who
from wsloop.publisher import RedisPublisher

PASSWORD = "pa:ss/wo@rd"


# WS4REDIS_CONNECTION.


def forms(server):
    """Every way to write the address of a server in the setting."""
    yield server.connection()
    yield server.url
    if server.certificate is None:
        password = {"password": server.password} if server.password else {}
        yield {"unix_socket_path": server.socket_path, "db": 0, **password}
        if not server.password:
            yield f"unix://{server.socket_path}?db=0"
            yield {"unix_socket_path": server.socket_path, "ssl": False}


@pytest.mark.parametrize("options", [{}, {"password": PASSWORD}, {"tls": True}], ids=["plain", "password", "tls"])
def test_wsloop_connects_with_every_form(start_redis, with_settings, options):
    if "tls" in options:
        need("openssl")
    server = start_redis(**options)
    for form in forms(server):
        with_settings(WS4REDIS_CONNECTION=form)
        before = json.dumps(form)
        with Redis(connection_pool=ConnectionPool(**redis_options.connection())) as client:
            assert client.info("server")["process_id"] == server._process.pid
            client.connection_pool.disconnect()
        assert json.dumps(form) == before, "the setting itself is left alone"


STOCK = """
import json, sys
import django
from django.conf import settings
options = {"REDIS": json.loads(sys.argv[1]), "PREFIX": "site", "EXPIRE": 60, "HEARTBEAT": "beat", "URL": "/live/"}
settings.configure(INSTALLED_APPS=["wsloop", "ws4redis"], WSLOOP=options, USE_TZ=True, ALLOWED_HOSTS=["site"])
django.setup()
from django.test import RequestFactory
from ws4redis.context_processors import default
from ws4redis.publisher import RedisPublisher
from ws4redis.redis_store import RedisMessage
context = default(RequestFactory(headers={"Host": "site"}).get("/"))
assert context == {"WEBSOCKET_URI": "ws://site/live/", "WS4REDIS_HEARTBEAT": '"beat"'}, context
assert RedisMessage("beat") is None
RedisPublisher(facility="stock", broadcast=True).publish_message(RedisMessage(sys.argv[1]))
"""


@pytest.mark.parametrize("options", [{}, {"password": PASSWORD}, {"tls": True}], ids=["plain", "password", "tls"])
def test_the_stock_publisher_connects_with_every_form(start_redis, options):
    """ws4redis's own modules see what the options of ``WSLOOP`` say, all of them."""
    if "tls" in options:
        need("openssl")
    server = start_redis(**options)
    with server.client() as client:
        for form in forms(server):
            command = [sys.executable, "-W", "ignore", "-c", STOCK, json.dumps(form)]
            done = subprocess.run(command, cwd=ROOT, env=plain_environment(), capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert client.get("site:broadcast:stock") == json.dumps(form)
            assert 0 < client.ttl("site:broadcast:stock") <= 60


@pytest.mark.parametrize(
    ("setting", "options"),
    [
        ("redis://example.org:6380/3", {"host": "example.org", "port": 6380, "db": 3}),
        (
            "rediss://:secret@example.org/1",
            {"host": "example.org", "db": 1, "password": "secret", "connection_class": SSLConnection},
        ),
        ("unix:///run/redis.sock?db=2", {"path": "/run/redis.sock", "db": 2, "cls": UnixDomainSocketConnection}),
        (
            {"unix_socket_path": "/run/redis.sock", "db": 2},
            {"path": "/run/redis.sock", "db": 2, "cls": UnixDomainSocketConnection},
        ),
        ({"host": "example.org", "ssl": True}, {"host": "example.org", "connection_class": SSLConnection}),
        ({"host": "example.org", "ssl": False}, {"host": "example.org"}),
        ({"host": "example.org", "password": None}, {"host": "example.org", "password": None}),
        ({"host": "example.org", "unix_socket_path": None, "ssl": None}, {"host": "example.org"}),
    ],
)
def test_forms_of_the_connection(with_settings, setting, options):
    with_settings(WS4REDIS_CONNECTION=setting)
    if "cls" in options:
        options["connection_class"] = options.pop("cls")
    assert redis_options.connection() == options


def test_without_the_setting_redis_is_where_ws4redis_looks_for_it():
    assert redis_options.connection() == {"host": "localhost", "port": 6379, "db": 0}


@pytest.mark.parametrize(
    "setting",
    [f"http://:{PASSWORD}@example.org", f"redis://:secret-{PASSWORD}@example.org:port/0", "", "example.org:6379"],
)
def test_what_is_no_url_is_refused_without_showing_the_password(with_settings, setting):
    with_settings(WS4REDIS_CONNECTION=setting)
    with pytest.raises(
        ImproperlyConfigured, match="WS4REDIS_CONNECTION is not a URL of Redis; write redis://"
    ) as caught:
        redis_options.connection()
    assert "wo@rd" not in str(caught.value)


@pytest.mark.parametrize("setting", [None, 6379, ("localhost", 6379), ["redis://localhost"]])
def test_what_is_neither_dictionary_nor_url_is_refused(with_settings, setting):
    with_settings(WS4REDIS_CONNECTION=setting)
    with pytest.raises(ImproperlyConfigured, match="must be a dictionary or a URL, redis://host:port/db"):
        redis_options.connection()


# WS4REDIS_CONNECTION of Sentinels, and of a Cluster. Connecting: test_sentinel, test_cluster, test_topologies.

ADDRESSES = [("10.0.0.1", 26379), ["sentinel.example.org", 26379]]


@pytest.mark.parametrize("tls", [False, True])
def test_a_master_behind_sentinels_is_a_kind_of_connection(with_settings, tls):
    given = {"sentinels": ADDRESSES, "service_name": "main", "db": 2, "password": "secret", "ssl": tls}
    with_settings(WS4REDIS_CONNECTION={**given, "sentinel_kwargs": {"password": "another"}})
    options = redis_options.connection()
    assert options.pop("connection_pool").service_name == "main"
    kind = SentinelManagedSSLConnection if tls else SentinelManagedConnection
    assert options == {"db": 2, "password": "secret", "connection_class": kind}
    assert redis_options.nodes() == []


@pytest.mark.parametrize(
    ("setting", "nodes"),
    [
        ({"cluster": True}, [("localhost", 6379)]),
        ({"cluster": True, "host": "10.0.0.1", "port": 7000, "db": 0}, [("10.0.0.1", 7000)]),
        ({"startup_nodes": ADDRESSES}, [tuple(each) for each in ADDRESSES]),
        ({"cluster": True, "startup_nodes": ADDRESSES}, [tuple(each) for each in ADDRESSES]),
        ({"cluster": False, "host": "10.0.0.1"}, []),
    ],
)
def test_nodes_of_a_cluster(with_settings, setting, nodes):
    with_settings(WS4REDIS_CONNECTION={**setting, "password": "secret"})
    assert redis_options.nodes() == nodes
    host = {"host": nodes[0][0], "port": nodes[0][1]} if nodes else {"host": "10.0.0.1"}
    assert redis_options.connection() == {**host, "password": "secret"}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"sentinels": ADDRESSES}, 'write the name by which they know the master: "service_name": "mymaster"'),
        ({"sentinels": ADDRESSES, "service_name": b"main"}, '"service_name": "mymaster"'),
        ({"service_name": "main"}, r'"sentinels"\] must be a list of pairs of host and port: \[\("10.0.0.1", 6379\)'),
        ({"sentinels": [], "service_name": "main"}, "a list of pairs"),
        ({"sentinels": "10.0.0.1:26379", "service_name": "main"}, "a list of pairs"),
        ({"sentinels": ["10.0.0.1:26379"], "service_name": "main"}, "a list of pairs"),
        ({"sentinels": [("10.0.0.1", "26379")], "service_name": "main"}, "a list of pairs"),
        ({"sentinels": ADDRESSES, "service_name": "main", "host": "10.0.0.1"}, '"host" and "sentinels"; leave out one'),
        ({"sentinels": ADDRESSES, "service_name": "main", "port": 6379}, '"port" and "sentinels"; leave out one'),
        ({"sentinels": ADDRESSES, "service_name": "main", "unix_socket_path": "/run/r"}, "leave out .unix_socket_path"),
        ({"sentinels": ADDRESSES, "service_name": "main", "sentinel_kwargs": "secret"}, "must be a dictionary"),
        ({"cluster": "yes", "host": "10.0.0.1"}, r'"cluster"\] must be True'),
        ({"cluster": True, "db": 1}, 'has database 0 only; leave out "db"'),
        ({"cluster": True, "unix_socket_path": "/run/redis.sock"}, 'leave out "unix_socket_path"'),
        ({"cluster": True, "sentinels": ADDRESSES, "service_name": "main"}, 'leave out "sentinels"'),
        ({"startup_nodes": ADDRESSES, "host": "10.0.0.1"}, '"host" and "startup_nodes"; leave out one'),
        ({"startup_nodes": ["10.0.0.1"]}, r'"startup_nodes"\] must be a list of pairs'),
    ],
)
def test_other_forms_of_sentinels_and_clusters_are_refused_without_showing_the_password(with_settings, setting, words):
    with_settings(WS4REDIS_CONNECTION={"password": "secret", **setting})
    with pytest.raises(ImproperlyConfigured, match=words) as caught:
        redis_options.connection()
    assert "WS4REDIS_CONNECTION" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_stock_publisher_finds_the_master_by_sentinel():
    need("redis-server")
    sentinels = SentinelSetup(sentinels=1, password="secret")
    try:
        sentinels.start()
        form = json.dumps(sentinels.connection())
        command = [sys.executable, "-W", "ignore", "-c", STOCK, form]
        done = subprocess.run(command, cwd=ROOT, env=plain_environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert sentinels.master.ask("GET", "site:broadcast:stock") == form
    finally:
        sentinels.close()


# Further options of redis-py.


@pytest.mark.parametrize(
    "more",
    [
        {"protocol": 2},
        {"protocol": 3},
        {"protocol": 3, "legacy_responses": False},
        {"health_check_interval": 1},
        {"client_name": "site"},
        {"socket_read_size": 16},
        {"encoding": "utf-8", "encoding_errors": "replace"},
        {"retry": None, "retry_on_error": [], "cache": None, "connection_pool": None, "ssl": None},
        {"max_connections": 5},
        {"timeout": 1},
        {"socket_timeout": None},
        {"decode_responses": False, "retry_on_timeout": False, "single_connection_client": False},
        {"db": "3"},
        {"username": "default", "password": ""},
    ],
    ids=str,
)
def test_what_redis_py_takes_works(own_redis, with_settings, facility, more):
    with_settings(
        WS4REDIS_CONNECTION={"unix_socket_path": own_redis.socket_path, **more},
        WSLOOP={"FACILITIES": {"*": {"size": 10, "presence": True}}},
    )
    pool.forget()
    heard = []
    line = Broker(events(message=lambda channel, message, origin: heard.append(message.payload)))
    channel = f"unit:broadcast:{facility}".encode()
    line.subscribe([channel])
    publisher = RedisPublisher(facility=facility, broadcast=True)
    publisher.publish_message("hellö")
    line.publish([channel], b"\xff", 10)
    line.sync()
    line.stop()
    assert sorted(heard) == sorted(["hellö".encode(), b"\xff"])
    assert [entry.message.payload for entry in publisher.history()] == ["hellö".encode()]
    assert publisher.fetch_message(None, facility) in heard
    assert publisher.token()
    assert who(facility) == ([], 0)


def test_max_connections_is_that_of_the_pool(own_redis, with_settings):
    for setting in (
        {"unix_socket_path": own_redis.socket_path, "max_connections": 4},
        f"{own_redis.url}?max_connections=4",
    ):
        with_settings(WS4REDIS_CONNECTION=setting, WSLOOP={"REDIS_TIMEOUT": 0.1})
        pool.forget()
        taken = [pool.client().connection_pool.get_connection() for _ in range(4)]
        with pytest.raises(redis_exceptions.ConnectionError):
            pool.client().ping()
        for each in taken:
            pool.client().connection_pool.release(each)
        pool.subscription_connection().disconnect()  # of which the pool knows nothing


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"pasword": "secret"}, "an option that redis-py does not know: 'pasword'; did you mean 'password'?"),
        ({"unix_socket": "/run/redis.sock"}, "'unix_socket'; did you mean 'unix_socket_path'?"),
        ({"nonsense": 1}, "does not know: 'nonsense'$"),
        (
            {"unix_socket_path": "/r", "socket_keepalive": True},
            "'socket_keepalive', which this kind of connection does",
        ),
        ({"ssl_ca_certs": "/ca.pem"}, "'ssl_ca_certs', which this kind of connection does not have"),
        ({"decode_responses": True}, "must not have 'decode_responses': messages are bytes until"),
        ({"retry_on_timeout": True}, "'retry_on_timeout': no command may be sent twice"),
        ({"retry_on_error": [OSError]}, "'retry_on_error': no command may be sent twice"),
        ({"retry": 3}, "'retry': no command may be sent twice"),
        ({"single_connection_client": True}, "'single_connection_client': wsloop has a pool of its own"),
        ({"connection_pool": 5}, "'connection_pool': wsloop has a pool of its own"),
        ({"queue_class": list}, "'queue_class'"),
        ({"port": "redis"}, r"\['port'\] must be a whole number, from 1 to 65535"),
        ({"port": 0}, r"\['port'\]"),
        ({"port": 65536}, r"\['port'\]"),
        ({"port": True}, r"\['port'\]"),
        ({"port": 6379.0}, r"\['port'\]"),
        ({"db": -1}, r"\['db'\] must be a whole number, from 0 to 1000000"),
        ({"db": "zero"}, r"\['db'\]"),
        ({"max_connections": 1}, r"\['max_connections'\] must be a whole number, from 2 to 1000"),
        ({"max_connections": "many"}, r"\['max_connections'\]"),
        ({"socket_timeout": "5"}, r"\['socket_timeout'\] must be a positive number of seconds"),
        ({"socket_timeout": 0}, r"\['socket_timeout'\]"),
        ({"socket_connect_timeout": -1}, r"\['socket_connect_timeout'\]"),
        ({"timeout": True}, r"\['timeout'\]"),
        ({"host": None}, r"\['host'\] must be text, and not empty"),
        ({"host": ""}, r"\['host'\]"),
        ({"unix_socket_path": 5}, r"\['unix_socket_path'\] must be text"),
        ({"password": ["secret"]}, r"\['password'\] must be text"),
        ({"ssl": "yes"}, r"\[.ssl.\] must be True or False"),
        ({"connection_class": "redis.Connection"}, r"\[.connection_class.\] must be a class"),
        ({"ssl": True, "ssl_cert_reqs": "perhaps"}, "an option whose value redis-py refuses"),
        ({"protocol": 7}, r"\['protocol'\] must be 2 or 3"),
        ({"max_connections": 2**31}, "from 2 to 1000"),
        ({"health_check_interval": "30"}, r"\['health_check_interval'\] must be a whole number, from 0"),
        ({"socket_timeout": 1e12}, "a positive number of seconds, up to 1000000000"),
        ({"socket_timeout": 1e-300}, "a positive number of seconds"),
        ({"socket_read_size": 0}, r"\['socket_read_size'\] must be a whole number, from 1"),
        ({"socket_keepalive": "no"}, r"\['socket_keepalive'\] must be True or False"),
        ({"socket_keepalive_options": {"a": 1}}, r"\['socket_keepalive_options'\] must be a dictionary of numbers"),
        ({"legacy_responses": "x"}, r"\['legacy_responses'\] must be True or False"),
        ({"redis_connect_func": "x"}, r"\['redis_connect_func'\] must be a function"),
        ({"credential_provider": "x"}, r"\['credential_provider'\] must be a CredentialProvider"),
        ({"command_packer": 5}, "must not have 'command_packer'"),
        ({"encoding": "latin-1"}, r"\['encoding'\] must be utf-8"),
        ({"encoding_errors": "zz"}, r"\['encoding_errors'\] must be the name of one of Python's error handlers"),
        ({"client_name": "a b"}, r"\['client_name'\] must be text without blanks"),
        ({"password": "secret\ud800"}, r"\['password'\] must be text"),
        ({"username": "\ud800"}, r"\['username'\] must be text"),
        ({"driver_info": "x"}, r"\['driver_info'\] must be an object of redis-py"),
        (
            {"sentinels": ADDRESSES, "service_name": "main", "sentinel_kwargs": {"pasword": "secret"}},
            "sentinel_kwargs.. has an option that redis-py does not know: 'pasword'; did you mean 'password'",
        ),
        (
            {"sentinels": ADDRESSES, "service_name": "main", "sentinel_kwargs": {"port": 1}},
            "sentinel_kwargs.. has an option that redis-py does not know: 'port'",
        ),
        (
            {"sentinels": ADDRESSES, "service_name": "main", "sentinel_kwargs": {"decode_responses": True}},
            "sentinel_kwargs.. must not have 'decode_responses'",
        ),
        (
            {"sentinels": ADDRESSES, "service_name": "main", "sentinel_kwargs": {"socket_timeout": "5"}},
            r"sentinel_kwargs...'socket_timeout'\] must be a positive number of seconds",
        ),
        ({"sentinels": [("10.0.0.1", 0)], "service_name": "main"}, "a list of pairs of host and port"),
        ({"startup_nodes": [("10.0.0.1", 7000), ("", 7000)]}, "a list of pairs of host and port"),
        ({"startup_nodes": [("10.0.0.1", 7000), ("x", 99999)]}, "a list of pairs of host and port"),
        ({"cluster": True, "host": ""}, r"\['host'\] must be text, and not empty"),
        ({"cluster": True, "cluster_error_retry_attempts": 1}, "does not know: 'cluster_error_retry_attempts'"),
        ({"cluster": True, "port": "x"}, r"\['port'\]"),
    ],
)
def test_what_cannot_work_is_refused_and_named_without_a_value(with_settings, more, words):
    with_settings(WS4REDIS_CONNECTION=more)
    with pytest.raises(ImproperlyConfigured, match=words) as caught:
        redis_options.connection()
    assert str(caught.value).startswith("WS4REDIS_CONNECTION")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://host/0?max_connections=many", "a wrong value of 'max_connections' in the query of the URL"),
        ("redis://host/0?socket_timeout=soon", "a wrong value of 'socket_timeout'"),
        ("redis://host/0?decode_responses=True", "must not have 'decode_responses'"),
        (
            "redis://host/0?decode_responses=maybe",
            "'decode_responses' in the query of the URL: it must be True",
        ),
        ("redis://host/0?nonsense=1", "does not know: 'nonsense'"),
        ("redis://:secret@host/name", "a path that is not the number of a database"),
        ("redis://:secret@host/0/1", "write redis://.*in a password as %25 and %2F"),
        ("redis://:sec/ret@host/0", "is not a URL of Redis; write redis://"),
        ("redis://:123?secret@host/0", "a password with ., # or /: write %3F, %23 or %2F for it"),
        ("redis://user:12345?secret=1@host/0", "a password with ., # or /"),
        ("redis://user:1#secret@host/0", "a password with ., # or /"),
        ("redis://host/0?socket_keepalive_options=x", "'socket_keepalive_options'. must be a dictionary"),
        ("redis://host/0?socket_timeout=1e300", "'socket_timeout'. must be a positive number of seconds, up to"),
        ("rediss://host/0?ssl_min_version=3", "'ssl_min_version'. must be one of ssl.TLSVersion"),
        ("rediss://host/0?ssl_validate_ocsp=perhaps", "a wrong value of 'ssl_validate_ocsp'"),
    ],
)
def test_what_is_wrong_in_a_url_is_named_without_the_password(with_settings, url, words):
    with_settings(WS4REDIS_CONNECTION=url)
    with pytest.raises(ImproperlyConfigured, match=words) as caught:
        redis_options.connection()
    assert "secret" not in str(caught.value)
    assert "sec/" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://host/0?decode_responses=False", {"host": "host", "db": 0}),
        ("redis://host?db=2&max_connections=9", {"host": "host", "db": 2, "max_connections": 9}),
        ("redis://host/", {"host": "host"}),
        ("redis://", {}),
        ("rediss://host/0?ssl_cert_reqs=none", {"host": "host", "db": 0, "ssl_cert_reqs": "none", "tls": True}),
    ],
)
def test_options_in_a_url(with_settings, url, options):
    with_settings(WS4REDIS_CONNECTION=url)
    if options.pop("tls", False):
        options["connection_class"] = SSLConnection
    assert redis_options.connection() == options


def test_numbers_as_text_are_numbers_as_redis_py_takes_them(with_settings):
    with_settings(WS4REDIS_CONNECTION={"host": "host", "port": "6380", "db": "1", "max_connections": "4"})
    assert redis_options.connection() == {"host": "host", "port": 6380, "db": 1, "max_connections": 4}


def test_the_stock_publisher_gets_no_option_of_wsloops_pool(with_settings):
    from ws4redis import settings as stock

    before = stock.WS4REDIS_CONNECTION
    try:
        with_settings(WS4REDIS_CONNECTION={"host": "host", "max_connections": 4, "timeout": 2})
        redis_options.adapt_ws4redis()
        assert ConnectionPool(**stock.WS4REDIS_CONNECTION).make_connection().host == "host"
    finally:
        stock.WS4REDIS_CONNECTION = before


def test_what_is_returned_may_be_changed(with_settings):
    with_settings(WS4REDIS_CONNECTION={"host": "host"})
    redis_options.connection()["host"] = "another"
    redis_options.nodes().append(("another", 1))
    assert redis_options.connection() == {"host": "host"}
    assert redis_options.nodes() == []


def test_what_is_wrong_is_told_to_whoever_uses_the_stock_publisher_too(with_settings):
    from ws4redis import settings as stock

    before = stock.WS4REDIS_CONNECTION
    try:
        with_settings(WS4REDIS_CONNECTION={"pasword": "secret"})
        redis_options.adapt_ws4redis()
        with pytest.raises(ImproperlyConfigured, match="pasword"):
            ConnectionPool(**stock.WS4REDIS_CONNECTION)
        with pytest.raises(ImproperlyConfigured, match="pasword"):
            assert "unix_socket_path" in stock.WS4REDIS_CONNECTION
    finally:
        stock.WS4REDIS_CONNECTION = before
