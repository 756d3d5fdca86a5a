"""The settings: every form they may have, and what is said about those they may not have."""

import fnmatch
import functools
import importlib.util
import os
import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured

from testbed.processes import ROOT
from wsloop import checks, conf
from wsloop.backend import redis_options

MAY_BE_NONE = {
    "COMMAND_RATE",
    "RATE_LIMIT",
    "MAX_CONNECTIONS",
    "MAX_CONNECTIONS_PER_USER",
    "MAX_CONNECTIONS_PER_ADDRESS",
    "COMPRESS_FROM",
    "BLOCKED_AFTER",
    "PREFIX",
    "HEARTBEAT",
    "POLICY",
    "PROCESS_REQUEST",
    "LEAVING_FILE",
    "METRICS_TOKEN",
}
# As tests/unit/settings.py has them, under the names of ws4redis: tests set WSLOOP as a whole.
OF_THE_SITE = {"URL", "PREFIX", "HEARTBEAT", "POLICY"}


def plain_environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}


# WSLOOP.


def test_options_have_defaults_and_can_be_set(with_settings):
    defaults = {name: value for name, value in conf.DEFAULTS.items() if name not in OF_THE_SITE}
    assert {name: conf.option(name) for name in defaults} == defaults
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
    with pytest.raises(ImproperlyConfigured, match=r"'CLOSE_TIMEOUT'\] must be a positive number of seconds, not"):
        conf.option("CLOSE_TIMEOUT")


@pytest.mark.parametrize("value", ["abc", ["x"], None, 5])
def test_what_is_no_dictionary_is_refused(with_settings, value):
    with_settings(WSLOOP=value)
    with pytest.raises(ImproperlyConfigured, match="WSLOOP must be a dictionary, not"):
        checks.validate()


@pytest.mark.parametrize("name", sorted(MAY_BE_NONE))
def test_some_bounds_can_be_switched_off(with_settings, name):
    with_settings(WSLOOP={name: None})
    assert conf.option(name) is None


@pytest.mark.parametrize("name", sorted(set(conf.DEFAULTS) - MAY_BE_NONE))
def test_others_cannot(with_settings, name):
    with_settings(WSLOOP={name: None})
    with pytest.raises(ImproperlyConfigured, match=f"'{name}'"):
        checks.validate()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PING_INTERVAL", 2.5, "a positive whole number"),
        ("PING_TIMEOUT", 0, "a positive whole number"),
        ("LEAVING_FILE", "leaving", 'an absolute path of a file, such as "/run/mysite/leaving"'),
        ("LEAVING_FILE", "/run/\0", "an absolute path of a file"),
        ("LEAVING_FILE", True, "an absolute path of a file"),
        ("MAX_CONNECTIONS", True, "a positive whole number"),
        ("MAX_MESSAGE_SIZE", float("nan"), "a positive whole number"),
        ("HANDSHAKE_TIMEOUT", float("inf"), "a positive number of seconds"),
        ("HANDSHAKE_TIMEOUT", float("nan"), "a positive number of seconds"),
        ("TRUSTED_PROXIES", [10], "a list of addresses and networks"),
        ("FACILITIES", {1: {}}, "a dictionary of patterns to dictionaries"),
        ("RATE_LIMIT", 100, "two positive numbers, frames a second and at once"),
        ("RATE_LIMIT", (100,), "two positive numbers"),
        ("RATE_LIMIT", (100, 0.5), r"frames a second and at once \(at least 4\)"),
        ("RATE_LIMIT", (float("nan"), 10), "two positive numbers"),
        ("RATE_LIMIT", {1: 2, 3: 4}, "two positive numbers"),
        ("MAX_HEADER_SIZE", 10, "a whole number, 256 or more"),
        ("REDIS_TIMEOUT", 1e-320, "a positive number of seconds"),
        ("ALLOWED_ORIGINS", ["https://a:99999"], "ports up to 65535"),
        ("RATE_LIMIT", (100, 1), r"at once \(at least 4\)"),
        ("PING_INTERVAL", 3601, "a positive whole number, and not more than 3600"),
        ("MAX_MESSAGE_SIZE", 2**30, "and not more than 536870912"),
        ("REDIS_TIMEOUT", 1e10, "a positive number of seconds, and not more than 1000000000"),
        ("PING_INTERVAL", "30", r"not '30', which is text: write int\(…\) or float\(…\) around what comes from the"),
        ("CLOSE_TIMEOUT", "2.5", "which is text: write int"),
        ("MAX_CONNECTIONS", "", "a positive whole number, not ''$"),
        ("TRUSTED_PROXIES", ["10.0.0.1/8"], "has host bits set"),
        ("FACILITIES", {"/orders": {"size": 1}}, "no facility matches: .* Write 'orders'"),
        ("FACILITIES", {"orders": {"ttl": 2**40}}, "and not more than 1000000000"),
        ("FACILITIES", {"orders": {"size": 10**30}}, "and not more than 1000000000"),
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
            r"\['size'\] must be a whole number, 0 or more, not True",
        ),
        ("FACILITIES", {"secrets": {"size": -1}}, "must be a whole number, 0 or more, not -1"),
        ("FACILITIES", {"secrets": {"size": 10.0}}, "must be a whole number, 0 or more, not 10.0"),
        ("FACILITIES", {"secrets": {"ttl": 0}}, "must be a positive whole number, not 0"),
        ("FACILITIES", {"secrets": {"ttl": None}}, "must be a positive whole number, not None"),
    ],
)
def test_an_option_of_the_wrong_kind_is_refused_with_what_it_must_be(with_settings, name, value, words):
    with_settings(WSLOOP={name: value})
    with pytest.raises(ImproperlyConfigured, match=words) as caught:
        checks.validate()
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
    checks.validate()
    read = {
        "TRUSTED_PROXIES": lambda: [str(each).removesuffix("/32").removesuffix("/128") for each in conf.option(name)],
        "FACILITIES": lambda: {
            pattern: {key: getattr(facility, key) for key in value[pattern]}
            for pattern, facility in conf.option(name).items()
        },
    }.get(name, lambda: type(value)(conf.option(name)))
    assert read() == value


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


# The site, under its names in WSLOOP and under those of ws4redis.


def allow_all(request, channels):
    return channels


def authenticate(request):
    request.user = request.session = None


VALUES = {  # each another than the default and than that of tests/unit/settings.py
    "URL": "/sockets/",
    "REDIS": {"host": "redis.example.com", "port": 6380},
    "PREFIX": "site",
    "EXPIRE": 0,
    "HEARTBEAT": "♥",
    "POLICY": allow_all,
    "PROCESS_REQUEST": authenticate,
    "SUBSCRIBER": "site.Subscriber",
}
READ = {"REDIS": lambda: {name: redis_options.connection()[name] for name in ("host", "port")}}


def read(name):
    return READ.get(name, functools.partial(conf.option, name))()


@pytest.mark.parametrize("name", VALUES)
def test_an_option_counts_before_the_setting_that_it_stands_for(with_settings, name):
    assert conf.ALIASES.keys() == VALUES.keys()
    value, alias = VALUES[name], conf.ALIASES[name]
    with_settings(**{alias: value})
    assert (read(name), conf.name_of(name)) == (value, alias)
    with_settings(**{alias: 7, "WSLOOP": {name: value}})
    assert (read(name), conf.name_of(name)) == (value, f"WSLOOP['{name}']")


@pytest.mark.parametrize("name", VALUES)
def test_two_values_of_one_setting_are_an_error_that_names_both(with_settings, name):
    value, alias = VALUES[name], conf.ALIASES[name]
    with_settings(**{alias: "another-secret", "WSLOOP": {name: value}})
    text = next(each.msg for each in checks.check_settings() if "two names of one setting" in each.msg)
    assert text == (
        f"WSLOOP['{name}'] and {alias} are two names of one setting, and have different values: WSLOOP['{name}'] "
        f"counts. Remove {alias}, or give both the same value."
    )
    with pytest.raises(ImproperlyConfigured, match="two names of one setting"):
        checks.validate()
    with_settings(**{alias: value})
    assert not any("two names" in each for each in checks.wrong_settings())


def test_an_option_that_is_none_counts_too(with_settings):
    with_settings(WSLOOP={"PREFIX": None, "POLICY": None})
    assert (conf.prefix(), conf.option("POLICY")) == ("", None)
    assert len(list(checks.wrong_settings())) == 2  # tests/unit/settings.py has both under their other names


def test_a_wrong_option_does_not_stop_the_others_from_being_read(with_settings):
    """A policy may be in a module that cannot be imported yet, when the application of wsloop is made."""
    with_settings(WSLOOP={"POLICY": "nowhere.policy", "PING_INTERVAL": 7})
    assert conf.option("PING_INTERVAL") == 7


def test_no_error_shows_where_redis_is(with_settings):
    for setting in ({"WSLOOP": {"REDIS": "secret"}}, {"WSLOOP": {"REDIS": ["secret"]}}, {"WSLOOP": "redis://:secret@"}):
        with_settings(**setting)
        with pytest.raises(ImproperlyConfigured) as caught:
            checks.validate()
        assert "secret" not in str(caught.value)
        assert "WSLOOP" in str(caught.value)


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
assert conf.option("POLICY") is None
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


@pytest.mark.parametrize("setting", [fnmatch.fnmatch, "fnmatch.fnmatch"])
def test_a_callback_is_a_function_or_its_path(with_settings, setting):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=setting)
    assert conf.option("POLICY") is fnmatch.fnmatch


@pytest.mark.parametrize("setting", ["nowhere.policy", "json.nothing", "json", ""])
def test_a_callback_that_cannot_be_imported_is_refused(with_settings, setting):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=setting)
    with pytest.raises(ImproperlyConfigured, match=f"WS4REDIS_ALLOWED_CHANNELS = '{setting}' cannot be imported: "):
        conf.option("POLICY")


@pytest.mark.parametrize("setting", [7, ["json.dumps"], "json.__name__"])
def test_a_callback_that_cannot_be_called_is_refused(with_settings, setting):
    with_settings(WS4REDIS_PROCESS_REQUEST=setting)
    with pytest.raises(
        ImproperlyConfigured, match=r"_PROCESS_REQUEST must be a function \(request\) or the dotted path"
    ):
        conf.option("PROCESS_REQUEST")


async def asynchronous(request, channels):
    return channels


class Asynchronous:
    async def __call__(self, request, channels):
        return channels


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("WEBSOCKET_URL", "/ws", "a path that begins and ends with a slash, such as \"/ws/\", not '/ws'$"),
        ("WEBSOCKET_URL", "ws/", "begins and ends with a slash"),
        ("WEBSOCKET_URL", "", "begins and ends with a slash"),
        ("WEBSOCKET_URL", None, "begins and ends with a slash"),
        ("WEBSOCKET_URL", b"/ws/", "begins and ends with a slash"),
        ("WEBSOCKET_URL", "wss://example.com/ws/", "begins and ends with a slash"),
        ("WEBSOCKET_URL", "//example.com/ws/", "without host, query, blanks and empty parts"),
        ("WEBSOCKET_URL", "/ws//", "without host, query"),
        ("WEBSOCKET_URL", "/w s/", "without host, query"),
        ("WEBSOCKET_URL", "/ws?x/", "without host, query"),
        ("WEBSOCKET_URL", "/ws\n/", "without host, query"),
        ("WEBSOCKET_URL", "/w%73/", "without host, query"),
        ("WS4REDIS_PREFIX", 7, r"text \(str\), not 7"),
        ("WS4REDIS_PREFIX", b"ws", r"text \(str\), not b'ws'"),
        ("WS4REDIS_PREFIX", "\ud800", "text that can be encoded as UTF-8"),
        ("WS4REDIS_EXPIRE", "3600", "a whole number, 0 or more, not '3600', which is text: write int"),
        ("WS4REDIS_EXPIRE", -1, "a whole number, 0 or more"),
        ("WS4REDIS_EXPIRE", None, "a whole number, 0 or more"),
        ("WS4REDIS_EXPIRE", True, "a whole number, 0 or more"),
        ("WS4REDIS_EXPIRE", 60.5, "a whole number, 0 or more"),
        ("WS4REDIS_EXPIRE", 10**10, "and not more than 1000000000"),
        ("WS4REDIS_HEARTBEAT", True, 'text such as "--heartbeat--", or None, not True'),
        ("WS4REDIS_HEARTBEAT", b"--heartbeat--", 'text such as "--heartbeat--", or None'),
        ("WS4REDIS_HEARTBEAT", 4, 'text such as "--heartbeat--", or None'),
        ("WS4REDIS_HEARTBEAT", "\udfff", "text that can be encoded as UTF-8"),
        ("WS4REDIS_HEARTBEAT", "x" * 1025, "text of up to 1024 bytes"),
        ("WS4REDIS_ALLOWED_CHANNELS", ".policy.f", "cannot be imported: "),
        ("WS4REDIS_PROCESS_REQUEST", "a..b", "cannot be imported: "),
        ("WS4REDIS_SUBSCRIBER", ".s.S", "cannot be imported: "),
        ("SESSION_ENGINE", ".sessions", "is not a module with a SessionStore"),
        ("WS4REDIS_SUBSCRIBER", "Subscriber", "the dotted path of a class"),
        ("WS4REDIS_SUBSCRIBER", None, "the dotted path of a class"),
        ("WS4REDIS_SUBSCRIBER", "nowhere.Subscriber", "cannot be imported"),
        ("WS4REDIS_SUBSCRIBER", "os.path", "is not a subclass of ws4redis's RedisSubscriber"),
        ("WS4REDIS_ALLOWED_CHANNELS", asynchronous, "a plain function .* write `def` for `async def`"),
        ("WS4REDIS_ALLOWED_CHANNELS", Asynchronous(), "a plain function .* write `def` for `async def`"),
        ("WS4REDIS_ALLOWED_CHANNELS", lambda request: [], r"can be called with \(request, channels\)"),
        ("WS4REDIS_PROCESS_REQUEST", lambda request, channels: None, r"can be called with \(request\)"),
        ("SESSION_ENGINE", "nowhere.sessions", "is not a module with a SessionStore: ModuleNotFoundError"),
        ("SESSION_ENGINE", "os.path", "is not a module with a SessionStore"),
        ("WS4REDIS_CONNECTION", {"pasword": "x"}, "an option that redis-py does not know: 'pasword'"),
    ],
)
def test_a_setting_that_is_wrong_is_refused_by_name_at_the_start_and_by_check(with_settings, name, value, words):
    with_settings(**{name: value})
    with pytest.raises(ImproperlyConfigured, match=words) as caught:
        checks.validate()
    (text,) = str(caught.value).splitlines()
    assert text.startswith(name)
    assert [(each.id, each.msg) for each in checks.check_settings()] == [("wsloop.E001", text)]


def test_all_that_is_wrong_is_named_at_once(with_settings):
    with_settings(
        WSLOOP={"PING_INTERVAL": 0, "CLOSE_TIMOUT": 5, "RATE_LIMIT": None}, WS4REDIS_EXPIRE=-1, WS4REDIS_CONNECTION=7
    )
    names = ["WSLOOP has no option", "WS4REDIS_EXPIRE must", "WSLOOP['PING_INTERVAL'] must", "WS4REDIS_CONNECTION must"]
    with pytest.raises(ImproperlyConfigured) as caught:
        checks.validate()
    found = str(caught.value).splitlines()
    assert [name for name, text in zip(names, found, strict=True) if text.startswith(name)] == names


def test_a_long_value_is_not_shown_whole(with_settings):
    with_settings(WS4REDIS_PREFIX=["x" * 100_000])
    (text,) = checks.wrong_settings()
    assert len(text) < 300


@pytest.mark.parametrize("value", ["/ws/", "/", "/a/b/", "/wś/", "/a-b_c.d/"])
def test_paths_that_sockets_may_live_below(with_settings, value):
    with_settings(WEBSOCKET_URL=value)
    assert list(checks.wrong_settings()) == []


@pytest.mark.parametrize(
    "value",
    [lambda request, channels, more=None: [], lambda *all: [], functools.partial(print, sep=""), dict.get],
)
def test_functions_that_can_be_called_so_are_taken(with_settings, value):
    with_settings(WS4REDIS_ALLOWED_CHANNELS=value)
    assert conf.option("POLICY") is value


# What does not go together.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"PING_TIMEOUT": 40}, ["PING_TIMEOUT (40 s) is longer than PING_INTERVAL (30 s)"]),
        ({"HANDSHAKE_TIMEOUT": 5}, ["HANDSHAKE_TIMEOUT (5 s) is not longer than REDIS_TIMEOUT (5 s)"]),
        ({"MAX_MESSAGE_SIZE": 2**22}, ["MAX_MESSAGE_SIZE (4194304 bytes) is larger than MAX_QUEUED_BYTES (1048576"]),
        ({"FACILITIES": {"*": {}, "orders": {"size": 1}}}, ["has 'orders' behind '*', which matches the same names"]),
        ({"FACILITIES": {"a/*": {}, "b": {}, "a/b": {}}}, ["has 'a/b' behind 'a/*'"]),
        ({"FACILITIES": {"a/*": {}, "a/b*": {}, "b/*": {}}}, []),
        ({"FACILITIES": {"": {}, "orders": {}, "*": {}}}, []),
        (
            {"FACILITIES": {"orders": {"ttl": 60, "recover": False}}},
            ["['orders'] has ttl and recover but no size"],
        ),
        ({"MAX_MESSAGE_SIZE": 2**22, "MAX_QUEUED_BYTES": 2**23, "FACILITIES": {"*": {"size": 1, "ttl": 60}}}, []),
        (
            {"REDIS": {"socket_timeout": 12, "socket_connect_timeout": 5, "timeout": 10}},
            [
                "WSLOOP['REDIS'] has socket_timeout (12 s), which is not",
                "WSLOOP['REDIS'] has timeout (10 s), which is not",
            ],
        ),
        ({"REDIS": "redis://localhost?socket_timeout=9"}, []),
        ({"BLOCKED_AFTER": 5}, ["BLOCKED_AFTER (5 s) is not shorter than REDIS_TIMEOUT (5 s)"]),
        ({"BLOCKED_AFTER": 20, "REDIS_TIMEOUT": 21, "HANDSHAKE_TIMEOUT": 50}, ["not shorter than PING_TIMEOUT (20 s)"]),
        ({"BLOCKED_AFTER": None}, []),
        (
            {"MAX_CONNECTIONS": 100},
            ["_PER_USER (100) is not less than MAX_CONNECTIONS", "_PER_ADDRESS (500) is not less"],
        ),
        ({"MAX_CONNECTIONS": None, "MAX_CONNECTIONS_PER_USER": 10**6}, []),
        ({"MAX_CONNECTIONS": 10, "MAX_CONNECTIONS_PER_USER": None, "MAX_CONNECTIONS_PER_ADDRESS": None}, []),
        ({"COMMAND_RATE": (101, 200)}, ["COMMAND_RATE (101 a second) is more than RATE_LIMIT (100 a second)"]),
        ({"COMMAND_RATE": (101, 200), "RATE_LIMIT": None}, []),
        ({"CLIENTS_MAY_PUBLISH": True}, ["has no effect beside WS4REDIS_ALLOWED_CHANNELS"]),
        ({"COMPRESS_FROM": 2**21}, ["COMPRESS_FROM (2097152 bytes) is larger than MAX_QUEUED_BYTES (1048576 bytes)"]),
        (
            {"COMPRESS_FROM": None, "FACILITIES": {"a": {"compression": True}}},
            ["['a'] has compression, but COMPRESS_F"],
        ),
        ({"COMPRESS_FROM": None, "FACILITIES": {"a": {"compression": False}}}, []),
        ({"FACILITIES": {"a": {"size": 1, "ttl": 49}}}, ["['a'] keeps its history for 49 s, and it takes up to 50 s"]),
        ({"FACILITIES": {"a": {"size": 1, "ttl": 49, "recover": False}}}, []),
        ({"FACILITIES": {"a": {"size": 2**15}}}, ["the history of one channel may take 2.0 GiB of Redis"]),
        ({"FACILITIES": {"a": {"size": 2**14}}}, []),
    ],
)
def test_settings_that_contradict_each_other_are_a_warning(with_settings, options, words):
    with_settings(WSLOOP=options)
    found = checks.check_settings()
    assert [each.id for each in found] == ["wsloop.W014"] * len(words)
    for each, text in zip(found, words, strict=True):
        assert text in each.msg
        assert len(each.hint) > 20
    assert list(checks.wrong_settings()) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("WSLOPP", "WSLOOP"),
        ("WSLOP", "WSLOOP"),
        ("WS_LOOP", "WSLOOP"),
        ("WS4REDIS_EXPIRES", "WS4REDIS_EXPIRE"),
        ("WS4REDIS_ALLOWED_CHANNEL", "WS4REDIS_ALLOWED_CHANNELS"),
        ("WSLOOP_ADMINS", ""),  # a site's own
        ("WEBSOCKET_URI", ""),
        ("WSGI_APPLICATION", ""),
        ("SLOP", ""),
    ],
)
def test_a_mistyped_name_is_a_warning(with_settings, name, meant):
    with_settings(**{name: {"PING_INTERVAL": 7}})
    told = [f"the setting {name} has no effect: wsloop reads {meant}."] if meant else []
    assert [each.msg for each in checks.check_settings()] == told


@pytest.mark.parametrize(
    ("layer", "found"),
    [
        ({"BACKEND": "channels_redis.core.RedisChannelLayer"}, 1),
        ({"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [("127.0.0.1", 6379)]}}, 1),
        ({"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [{"address": "redis://a"}]}}, 1),
        (
            {
                "BACKEND": "channels_redis.core.RedisChannelLayer",
                "CONFIG": {"hosts": [{"address": "redis://a", "socket_timeout": None}, "redis://b?socket_timeout=9"]},
            },
            0,
        ),
        ({"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"}, 0),
        ({"BACKEND": "wsloop.layers.RedisChannelLayer"}, 0),
    ],
)
def test_a_layer_of_channels_that_gives_up_after_5_seconds_is_a_warning(with_settings, monkeypatch, layer, found):
    with_settings(CHANNEL_LAYERS={"default": layer})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    warned = checks.check_settings()
    assert [each.msg.partition(":")[0] for each in warned] == ["CHANNEL_LAYERS['default']"] * found
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # a site that has moved over
    assert checks.check_settings() == []


def test_a_changed_setting_is_read_anew(with_settings):
    assert conf.option("PING_INTERVAL") == 30
    with_settings(WSLOOP={"PING_INTERVAL": 7}, WS4REDIS_PREFIX="another")
    assert (conf.option("PING_INTERVAL"), conf.prefix()) == (7, "another:")
