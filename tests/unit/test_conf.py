"""The settings: every form they may have, and what is said about those they may not have."""

import json
import os
import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured
from redis import ConnectionPool, Redis
from redis.connection import SSLConnection, UnixDomainSocketConnection
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from tests.integration.harness import ROOT
from tests.integration.redis_topologies import SentinelSetup
from tests.requires import need
from wsloop import conf

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
        with Redis(connection_pool=ConnectionPool(**conf.redis_options())) as client:
            assert client.info("server")["process_id"] == server._process.pid
            client.connection_pool.disconnect()
        assert json.dumps(form) == before, "the setting itself is left alone"


STOCK = """
import json, sys
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["wsloop", "ws4redis"], WS4REDIS_CONNECTION=json.loads(sys.argv[1]), USE_TZ=True)
django.setup()
from ws4redis.publisher import RedisPublisher
from ws4redis.redis_store import RedisMessage
RedisPublisher(facility="stock", broadcast=True).publish_message(RedisMessage(sys.argv[1]))
"""


@pytest.mark.parametrize("options", [{}, {"password": PASSWORD}, {"tls": True}], ids=["plain", "password", "tls"])
def test_the_stock_publisher_connects_with_every_form(start_redis, options):
    if "tls" in options:
        need("openssl")
    server = start_redis(**options)
    with server.client() as client:
        for form in forms(server):
            command = [sys.executable, "-W", "ignore", "-c", STOCK, json.dumps(form)]
            done = subprocess.run(command, cwd=ROOT, env=plain_environment(), capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert client.get("broadcast:stock") == json.dumps(form)


def plain_environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}


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
    ],
)
def test_forms_of_the_connection(with_settings, setting, options):
    with_settings(WS4REDIS_CONNECTION=setting)
    if "cls" in options:
        options["connection_class"] = options.pop("cls")
    assert conf.redis_options() == options


def test_without_the_setting_redis_is_where_ws4redis_looks_for_it():
    assert conf.redis_options() == {"host": "localhost", "port": 6379, "db": 0}


@pytest.mark.parametrize(
    "setting",
    [f"http://:{PASSWORD}@example.org", f"redis://:secret-{PASSWORD}@example.org:port/0", "", "example.org:6379"],
)
def test_what_is_no_url_is_refused_without_showing_the_password(with_settings, setting):
    with_settings(WS4REDIS_CONNECTION=setting)
    with pytest.raises(ImproperlyConfigured, match="WS4REDIS_CONNECTION is no URL of Redis; write redis://") as caught:
        conf.redis_options()
    assert "wo@rd" not in str(caught.value)


@pytest.mark.parametrize("setting", [None, 6379, ("localhost", 6379), ["redis://localhost"]])
def test_what_is_neither_dictionary_nor_url_is_refused(with_settings, setting):
    with_settings(WS4REDIS_CONNECTION=setting)
    with pytest.raises(ImproperlyConfigured, match="must be a dictionary or a URL"):
        conf.redis_options()


# WSLOOP.


def test_options_have_defaults_and_can_be_set(with_settings):
    assert {name: conf.option(name) for name in conf.DEFAULTS} == conf.DEFAULTS
    with_settings(WSLOOP={"CLOSE_TIMEOUT": 0.5})
    assert conf.option("CLOSE_TIMEOUT") == 0.5
    assert conf.option("PING_INTERVAL") == conf.DEFAULTS["PING_INTERVAL"]


def test_an_unknown_option_is_refused_with_those_there_are(with_settings):
    with_settings(WSLOOP={"CLOSE_TIMOUT": 5})
    with pytest.raises(
        ImproperlyConfigured, match=r"WSLOOP has no option \['CLOSE_TIMOUT'\]; there are .*CLOSE_TIMEOUT"
    ):
        conf.option("PING_INTERVAL")


@pytest.mark.parametrize("value", [0, -1, "5", None, True])
def test_an_option_that_is_no_positive_number_is_refused(with_settings, value):
    with_settings(WSLOOP={"CLOSE_TIMEOUT": value})
    with pytest.raises(ImproperlyConfigured, match=r"WSLOOP\['CLOSE_TIMEOUT'\] must be a positive number, not"):
        conf.option("CLOSE_TIMEOUT")


@pytest.mark.parametrize("value", ["abc", ["x"], None, 5])
def test_what_is_no_dictionary_is_refused(with_settings, value):
    with_settings(WSLOOP=value)
    with pytest.raises(ImproperlyConfigured, match="WSLOOP must be a dictionary, not"):
        conf.validate()


@pytest.mark.parametrize("name", sorted(conf.MAY_BE_NONE))
def test_some_bounds_can_be_switched_off(with_settings, name):
    with_settings(WSLOOP={name: None})
    assert conf.option(name) is None


@pytest.mark.parametrize("name", sorted(set(conf.DEFAULTS) - conf.MAY_BE_NONE))
def test_others_cannot(with_settings, name):
    with_settings(WSLOOP={name: None})
    with pytest.raises(ImproperlyConfigured, match=f"'{name}'"):
        conf.option(name)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PING_INTERVAL", 2.5, "a positive whole number"),
        ("PING_TIMEOUT", 0, "a positive whole number"),
        ("MAX_CONNECTIONS", True, "a positive whole number"),
        ("MAX_MESSAGE_SIZE", float("nan"), "a positive whole number"),
        ("HANDSHAKE_TIMEOUT", float("inf"), "a positive number"),
        ("HANDSHAKE_TIMEOUT", float("nan"), "a positive number"),
        ("TRUSTED_PROXIES", [10], "a list of addresses and networks"),
        ("FACILITIES", {1: {}}, "a dictionary of patterns to dictionaries"),
        ("RATE_LIMIT", 100, "two positive numbers, frames a second and at once, or None"),
        ("RATE_LIMIT", (100,), "two positive numbers"),
        ("RATE_LIMIT", (100, 0), "two positive numbers"),
        ("RATE_LIMIT", ("100", "200"), "two positive numbers"),
        ("ALLOWED_ORIGINS", "https://example.com", "a list of origins"),
        ("ALLOWED_ORIGINS", ["example.com"], "a list of origins"),
        ("ALLOWED_ORIGINS", ["https://example.com/"], "a list of origins"),
        ("ALLOWED_ORIGINS", ["https://www.*.com"], "a list of origins"),
        ("ALLOWED_ORIGINS", ["https://*"], "a list of origins"),
        ("ALLOWED_ORIGINS", [None], "a list of origins"),
        ("TRUSTED_PROXIES", "10.0.0.0/8", "a list of addresses and networks"),
        ("TRUSTED_PROXIES", ["proxy.example"], "a list of addresses and networks"),
        ("TRUSTED_PROXIES", 5, "a list of addresses and networks"),
        ("FACILITIES", ["secrets"], "a dictionary of patterns to dictionaries"),
        ("FACILITIES", {"secrets": False}, "a dictionary of patterns to dictionaries"),
        (
            "FACILITIES",
            {"secrets": {"compresion": False}},
            r"has no option \['compresion'\]; there are \['size', 'ttl', .*'latest_only', 'presence', 'compression'\]$",
        ),
        ("FACILITIES", {"secrets": {"compression": 0}}, "must be True or False, not 0"),
        ("FACILITIES", {"secrets": {"recover": None}}, "must be True or False, not None"),
        (
            "FACILITIES",
            {"secrets": {"size": True}},
            r"\['size'\] must be a positive whole number, not True",
        ),
        ("FACILITIES", {"secrets": {"size": -1}}, "must be a positive whole number, not -1"),
        ("FACILITIES", {"secrets": {"size": 10.0}}, "must be a positive whole number, not 10.0"),
        ("FACILITIES", {"secrets": {"ttl": 0}}, "must be a positive whole number, not 0"),
        ("FACILITIES", {"secrets": {"ttl": None}}, "must be a positive whole number, not None"),
    ],
)
def test_an_option_of_the_wrong_kind_is_refused_with_what_it_must_be(with_settings, name, value, words):
    with_settings(WSLOOP={name: value})
    with pytest.raises(ImproperlyConfigured, match=words) as caught:
        conf.validate()
    assert f"WSLOOP['{name}']" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RATE_LIMIT", [0.5, 10]),
        ("ALLOWED_ORIGINS", ["*"]),
        ("ALLOWED_ORIGINS", ("https://*.example.com:8443", "capacitor://localhost", "http://[::1]:8000")),
        ("TRUSTED_PROXIES", ["127.0.0.1", "10.0.0.0/8", "::1", "fd00::/8"]),
        ("FACILITIES", {}),
        ("FACILITIES", {"secrets/*": {"compression": False}, "*": {}}),
        ("FACILITIES", {"*": {"size": 0, "ttl": 1, "recover": False, "latest_only": True, "presence": True}}),
    ],
)
def test_other_forms_of_options(with_settings, name, value):
    with_settings(WSLOOP={name: value})
    conf.validate()
    assert conf.option(name) == value


def test_the_first_pattern_that_matches_a_facility_counts(with_settings):
    with_settings(
        WSLOOP={"FACILITIES": {"a/b": {"compression": True}, "a/*": {"compression": False}, "*": {"compression": True}}}
    )
    compressed = {name: conf.facility(name).compression for name in ("a/b", "a/c", "a/c/d", "A/c", "b")}
    assert compressed == {"a/b": True, "a/c": False, "a/c/d": False, "A/c": True, "b": True}


def test_without_a_pattern_a_facility_has_the_defaults(with_settings):
    with_settings(WSLOOP={"FACILITIES": {"secret": {}}})
    assert conf.facility("secret") == conf.facility("other") == conf.Facility()
    assert conf.Facility() == (0, 3600, True, False, False, True)


# The settings of ws4redis.


def test_defaults_are_those_of_ws4redis():
    code = """
from django.conf import settings
settings.configure()
from wsloop import conf
assert conf.websocket_url() == "/ws/"
assert conf.prefix() == ""
assert conf.expire() == 3600
assert conf.heartbeat() is None
assert conf.subscriber_path() == "ws4redis.subscriber.RedisSubscriber"
assert conf.callback("WS4REDIS_ALLOWED_CHANNELS") is None
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=plain_environment(), check=True)


def test_settings_are_read_when_they_are_asked_for(with_settings):
    with_settings(
        WEBSOCKET_URL="/sockets/",
        WS4REDIS_PREFIX="site",
        WS4REDIS_EXPIRE=0,
        WS4REDIS_HEARTBEAT="♥",
        WS4REDIS_SUBSCRIBER="site.Subscriber",
    )
    assert conf.websocket_url() == "/sockets/"
    assert conf.prefix() == "site:"
    assert conf.expire() == 0
    assert conf.heartbeat() == "♥".encode()
    assert conf.subscriber_path() == "site.Subscriber"
    with_settings(WS4REDIS_PREFIX="", WS4REDIS_HEARTBEAT="")
    assert conf.prefix() == ""
    assert conf.heartbeat() is None


@pytest.mark.parametrize("setting", [json.dumps, "json.dumps"])
def test_a_callback_is_a_function_or_its_path(with_settings, setting):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=setting)
    assert conf.callback("WS4REDIS_ALLOWED_CHANNELS") is json.dumps


@pytest.mark.parametrize("setting", ["nowhere.policy", "json.nothing", "json", ""])
def test_a_callback_that_cannot_be_imported_is_refused(with_settings, setting):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=setting)
    with pytest.raises(ImproperlyConfigured, match=f"WS4REDIS_ALLOWED_CHANNELS = '{setting}' cannot be imported: "):
        conf.callback("WS4REDIS_ALLOWED_CHANNELS")


@pytest.mark.parametrize("setting", [7, ["json.dumps"], "json.__name__"])
def test_a_callback_that_cannot_be_called_is_refused(with_settings, setting):
    with_settings(WS4REDIS_PROCESS_REQUEST=setting)
    with pytest.raises(ImproperlyConfigured, match="WS4REDIS_PROCESS_REQUEST must be a function or the dotted path"):
        conf.callback("WS4REDIS_PROCESS_REQUEST")


# WS4REDIS_CONNECTION of Sentinels, and of a Cluster. Connecting: test_sentinel, test_cluster, test_topologies.

ADDRESSES = [("10.0.0.1", 26379), ["sentinel.example.org", 26379]]


@pytest.mark.parametrize("tls", [False, True])
def test_a_master_behind_sentinels_is_a_kind_of_connection(with_settings, tls):
    given = {"sentinels": ADDRESSES, "service_name": "main", "db": 2, "password": "secret", "ssl": tls}
    with_settings(WS4REDIS_CONNECTION={**given, "sentinel_kwargs": {"password": "another"}})
    options = conf.redis_options()
    assert options.pop("connection_pool").service_name == "main"
    kind = SentinelManagedSSLConnection if tls else SentinelManagedConnection
    assert options == {"db": 2, "password": "secret", "connection_class": kind}
    assert conf.redis_nodes() == []
    conf.validate()


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
    assert conf.redis_nodes() == nodes
    host = {"host": nodes[0][0], "port": nodes[0][1]} if nodes else {"host": "10.0.0.1"}
    assert conf.redis_options() == {**host, "password": "secret"}
    conf.validate()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"sentinels": ADDRESSES}, 'write the name they know the master by: "service_name": "mymaster"'),
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
        conf.validate()
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
        assert sentinels.master.ask("GET", "broadcast:stock") == form
    finally:
        sentinels.close()
