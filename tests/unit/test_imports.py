"""One direction: what each module of wsloop may import, and what it must not know (docs: the rooms of the engine)."""

import ast
import re
import sys

import pytest

from tests.integration.harness import ROOT

PACKAGE = ROOT / "wsloop"

# Of wsloop. A connection is set up server -> handshake, subscriptions, broker, hub -> connection -> transport.
MAY_IMPORT = {
    "": set(),
    "sentinel": set(),
    "cluster": set(),
    "greenlets": set(),
    "kinds": set(),
    "strict_json": set(),
    "commits": set(),
    "conf": {"kinds"},
    "redis_options": {"conf", "sentinel"},
    "addressees": {"conf", "kinds"},
    "drain": {"greenlets"},
    "turns": {"greenlets"},
    "transport": set(),
    "metrics": set(),
    "deflate": set(),
    "handshake": {"conf", "deflate", "kinds", "metrics", "redaction"},
    "redaction": set(),
    "checks": {"conf", "kinds", "redis_options", "subscriptions"},
    "pool": {"cluster", "conf", "redis_options"},
    "messages": {"conf"},
    "store": {"addressees", "conf", "messages", "redis_options", "strict_json"},
    "history": {"messages", "store"},
    "replay": {"history", "messages"},
    "resume": {"messages"},
    "dialects": {"messages", "resume", "strict_json"},
    "publisher": {"addressees", "commits", "conf", "history", "pool", "resume", "store"},
    "templatetags.wsloop": {"publisher"},
    "signals": {"addressees", "pool", "store"},
    "apps": {"checks", "redis_options", "signals"},
    "connection": {"deflate", "dialects", "metrics", "transport"},
    "hub": {"conf", "connection", "dialects", "greenlets", "messages", "metrics"},
    "access": {"addressees", "conf", "connection", "drain", "greenlets", "hub"},
    "presence": {"addressees", "conf", "drain", "greenlets", "pool", "signals", "store"},
    "tokens": {"addressees", "conf", "handshake"},
    "continuity": {"drain", "greenlets", "history", "messages", "metrics", "pool", "replay"},
    "broker": {"conf", "continuity", "drain", "greenlets", "messages", "metrics", "pool", "store", "turns"},
    "recovery": {
        "broker",
        "conf",
        "connection",
        "dialects",
        "history",
        "replay",
        "hub",
        "messages",
        "metrics",
        "pool",
        "resume",
    },
    "subscriptions": {"conf", "handshake", "pool", "store"},
    "exceptions": set(),
    "consumers": {"exceptions", "strict_json"},
    "layers": {"conf", "consumers", "exceptions", "pool", "store"},
    "members": {"broker", "drain", "greenlets", "layers", "pool", "store"},
    "routing": {"conf", "consumers"},
    "runner": {
        "access",
        "conf",
        "connection",
        "consumers",
        "exceptions",
        "greenlets",
        "handshake",
        "hub",
        "layers",
        "members",
        "metrics",
        "strict_json",
        "turns",
    },
    "handlers": {"access", "broker", "conf", "connection", "dialects", "drain", "hub", "store", "subscriptions"},
    "server": {
        "access",
        "broker",
        "checks",
        "conf",
        "connection",
        "dialects",
        "greenlets",
        "handlers",
        "handshake",
        "hub",
        "layers",
        "members",
        "messages",
        "metrics",
        "pool",
        "presence",
        "recovery",
        "redaction",
        "redis_options",
        "resume",
        "routing",
        "runner",
        "subscriptions",
        "tokens",
        "transport",
    },
    "management.commands.runserver": {"redaction"},
    "testing": {"testing.communicator", "testing.notifications"},
    "testing.communicator": {"conf", "consumers", "routing", "testing.memory", "testing.scheduler", "testing.sockets"},
    "testing.memory": {"layers", "testing.scheduler"},
    "testing.notifications": {
        "conf",
        "history",
        "messages",
        "publisher",
        "signals",
        "store",
        "testing.memory",
        "testing.scheduler",
    },
    "testing.plugin": {"testing.memory", "testing.notifications"},
    "testing.scheduler": {"exceptions"},
    "testing.sockets": {"conf", "consumers", "exceptions", "layers", "testing.memory", "testing.scheduler"},
    "outbox": {"outbox.delivery"},
    "outbox.apps": set(),
    "outbox.models": set(),
    "outbox.delivery": {"commits", "conf", "outbox.models", "pool", "store"},
    "outbox.management.commands.wsloop_outbox": {"outbox.delivery", "outbox.models"},
}

SOCKETS = {"socket", "select", "selectors", "ssl", "asyncio"}
GEVENT = {"gevent", "greenlet"}
HTTP = {"django.http", "django.core.handlers", "wsgiref", "http"}
MUST_NOT_KNOW = {
    "conf": SOCKETS | GEVENT | {"redis", "ws4redis", "websockets"},
    "kinds": SOCKETS | GEVENT | {"redis", "ws4redis", "websockets"},
    "redis_options": SOCKETS | GEVENT | {"websockets"},
    "addressees": SOCKETS | GEVENT | HTTP | {"redis", "websockets"},
    "commits": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "websockets"},
    "greenlets": SOCKETS | {"redis", "ws4redis", "websockets", "django"},
    "strict_json": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "websockets", "django"},
    "sentinel": SOCKETS | GEVENT | {"websockets", "django", "ws4redis"},
    "cluster": SOCKETS | GEVENT | {"websockets", "django", "ws4redis"},
    "drain": SOCKETS | {"redis", "django", "websockets"},
    "turns": SOCKETS | {"redis", "django", "websockets"},
    "transport": {"redis", "django", "websockets", "ws4redis"},
    "handshake": SOCKETS | GEVENT | {"redis", "ws4redis"},
    "checks": SOCKETS | GEVENT | {"redis", "ws4redis", "websockets"},
    "redaction": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "django", "websockets"},
    "pool": SOCKETS | GEVENT | {"websockets", "django"},
    "store": SOCKETS | GEVENT | HTTP | {"websockets"},
    "messages": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "django", "websockets"},
    "replay": SOCKETS | GEVENT | HTTP | {"ws4redis", "django", "websockets"},
    "history": SOCKETS | GEVENT | HTTP | {"ws4redis", "django", "websockets"},
    "resume": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "websockets"},
    "dialects": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "django", "websockets"},
    "publisher": SOCKETS | GEVENT | HTTP | {"websockets"},
    "templatetags.wsloop": SOCKETS | GEVENT | HTTP | {"ws4redis", "websockets"},
    "continuity": SOCKETS | HTTP | {"ws4redis", "django", "websockets"},
    "recovery": SOCKETS | HTTP | {"ws4redis", "django"},
    "signals": SOCKETS | GEVENT | HTTP | {"websockets"},
    "tokens": SOCKETS | GEVENT | {"redis", "ws4redis", "websockets"},
    "access": SOCKETS | {"redis", "ws4redis", "websockets"},
    "presence": SOCKETS | HTTP | {"ws4redis", "websockets"},
    "connection": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "django", "os"},
    "hub": SOCKETS | HTTP | {"redis", "ws4redis", "websockets", "django"},
    "broker": SOCKETS | HTTP | {"websockets", "django"},
    "subscriptions": SOCKETS | GEVENT | {"websockets"},
    "exceptions": SOCKETS | HTTP | {"gevent", "redis", "ws4redis", "django", "websockets"},
    "consumers": SOCKETS | GEVENT | {"redis", "ws4redis"},
    "layers": SOCKETS | GEVENT | HTTP | {"websockets"},
    "members": SOCKETS | HTTP | {"websockets", "django"},
    "routing": SOCKETS | GEVENT | {"redis", "ws4redis", "websockets"},
    "runner": SOCKETS | {"ws4redis", "django.http"},
    "handlers": SOCKETS | HTTP | {"ws4redis"},
    "server": SOCKETS,
    "testing": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "django", "websockets"},
    "testing.communicator": SOCKETS | GEVENT | {"redis", "ws4redis", "websockets"},
    "testing.memory": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "django", "websockets"},
    "testing.notifications": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "websockets"},
    "testing.plugin": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "django", "websockets"},
    "testing.scheduler": SOCKETS | HTTP | {"gevent", "redis", "ws4redis", "websockets"},
    "testing.sockets": SOCKETS | HTTP | {"gevent", "ws4redis", "websockets"},
    "outbox": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "django", "websockets"},
    "outbox.models": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "websockets"},
    "outbox.delivery": SOCKETS | GEVENT | HTTP | {"ws4redis", "websockets"},
    "outbox.management.commands.wsloop_outbox": GEVENT | HTTP | {"ws4redis", "websockets"},
}
ONLY = {
    "uwsgi": {"transport"},
    "django.conf": {"checks", "conf", "redis_options", "signals"},
    "websockets.server": {"handshake"},
    "pytest": {"testing.plugin"},
}


def modules():
    """The modules of the engine, by their names below ``wsloop``."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")
        if name or path.parent == PACKAGE:
            yield name, ast.parse(path.read_text())


# Of Django's commands and migrations those are left out that hold no code, or none of ours.
NO_MODULE = re.compile(r"(.*\.)?(management|management\.commands|migrations(\..*)?|templatetags)")
MODULES = {name: tree for name, tree in modules() if not NO_MODULE.fullmatch(name)}


def imported(tree):
    """Every module that is imported anywhere in ``tree``, functions included; of ``from a import b`` both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the direction"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_part_of(name, package):
    return name == package or name.startswith(f"{package}.")


def module_of(name):
    """The module of the engine that an import is about: of a package and a module in it the module."""
    return max((other for other in MODULES if other and is_part_of(name, f"wsloop.{other}")), key=len, default="")


def test_every_module_is_in_the_tables():
    assert set(MODULES) == set(MAY_IMPORT)


@pytest.mark.parametrize("name", MODULES)
def test_imports_of_the_engine_go_one_way(name):
    found = {module_of(each) for each in imported(MODULES[name])} - {"", name}
    assert found <= MAY_IMPORT[name]
    assert found == MAY_IMPORT[name], "the table says more than there is"


@pytest.mark.parametrize("name", MUST_NOT_KNOW)
def test_what_a_module_must_not_know(name):
    known = {other for other in MUST_NOT_KNOW[name] for each in imported(MODULES[name]) if is_part_of(each, other)}
    assert not known


@pytest.mark.parametrize("other", ONLY)
def test_what_only_one_module_knows(other):
    found = {name for name, tree in MODULES.items() if any(is_part_of(each, other) for each in imported(tree))}
    assert found == ONLY[other]


def test_the_websocket_api_of_uwsgi_is_not_called():
    """Its buffers belong to the whole process: one socket would get what another one sent."""
    for node in ast.walk(MODULES["transport"]):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "uwsgi":
            assert "websocket" not in node.attr


def test_there_are_no_circles():
    order = []

    def visit(name, path=()):
        assert name not in path, f"circle: {' -> '.join([*path, name])}"
        for other in MAY_IMPORT[name]:
            visit(other, (*path, name))
        if name not in order:
            order.append(name)

    for name in MAY_IMPORT:
        visit(name)
    assert len(order) == len(MAY_IMPORT)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_module_says_what_it_is_responsible_for(name):
    assert ast.get_docstring(MODULES[name])


def test_there_is_a_test_module_for_every_module():
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "unit").glob("test_*.py")} - {"imports"}
    assert tests == {name.rpartition(".")[2] for name in MODULES if name}


def test_the_standard_library_and_the_requirements_are_all_it_needs():
    needed = {"django", "gevent", "greenlet", "msgpack", "prometheus_client", "redis", "websockets", "ws4redis"}
    for name, tree in MODULES.items():
        tops = {each.partition(".")[0] for each in imported(tree)}
        if name == "testing.plugin":  # for pytest, which loads it
            tops.remove("pytest")
        assert tops - sys.stdlib_module_names <= needed | {"wsloop", "uwsgi"}, name
