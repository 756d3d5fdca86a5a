"""One direction: what each module of wsloop may import, and what it must not know (docs: the rooms of the engine)."""

import ast
import re
import subprocess
import sys

import pytest

from testbed.processes import ROOT

PACKAGE = ROOT / "wsloop"

# What the packages of the engine may import of each other; the modules at the top are above or below them, see there.
PACKAGES = {
    "protocol": set(),
    "backend": {"protocol"},
    "sockets": {"protocol"},
    "delivery": {"backend", "protocol"},
    "visitors": {"backend", "sockets", "protocol"},
    "facilities": {"delivery", "sockets", "backend", "protocol"},
    "aio": set(),
    "runtime": {"aio", "delivery", "sockets", "backend", "protocol"},
    "outbox": {"backend", "protocol"},
    "testing": {"backend", "protocol"},
}
# Single modules of packages that they must not import otherwise.
BESIDES = {
    # The rules for a consumer are the same under test: only the greenlets and the connection are not there.
    "testing.application_sockets": {"runtime.applications", "runtime.inbox"},
    "testing.communicator": {"runtime.applications"},
    "testing.greenlet_sockets": {"runtime.core"},
    "testing.sockets": {"runtime.core", "runtime.inbox"},
    "testing.task_sockets": {"runtime.core", "runtime.coroutines"},
    "testing.waiting": {"aio", "aio.travel"},
    # They are told when a client leaves, and when the worker ends, by the module that knows the server.
    "aio.streaming": {"sockets", "sockets.servers"},
    "aio.worker": {"sockets", "sockets.servers"},
}
# Modules that know no package, so that all may use them.
BELOW = {
    "addressees",
    "asgi_scope",
    "batch_queue",
    "commits",
    "conf",
    "db",
    "exceptions",
    "fair_scheduler",
    "greenlets",
    "kinds",
    "stock",
}
BELOW |= {"blocked", "deadline", "metrics", "options", "redaction", "refusals", "visit"}
# But what would bring gevent, or the database, to packages that must not know them.
ASYNC = {"batch_queue", "blocked", "deadline", "fair_scheduler", "greenlets"}
NOT_BELOW = {"protocol": ASYNC | {"commits", "db"}, "backend": ASYNC | {"commits", "db"}, "sockets": {"commits", "db"}}
# Of the modules at the top those that are no bridge from one package to another.
TOP = {
    "deploy": {"checks"},
    "checks": {"backend", "facilities"},
    "diagnosis": {"backend", "checks"},
    "handshake": {"protocol"},
    "http_api": {"api", "protocol", "sockets", "streams"},
    "health": {"backend"},
    "ops": {"api", "backend", "consumers", "protocol", "snapshots"},
    "identity": {"sockets"},
    "live": {"publisher"},
    "origin": {"handshake"},
    "pywsgi": {"sockets"},
    "templatetags": {"publisher"},
    "tokens": {"routing"},
    "exposition": {"metrics"},
    "snapshots": {"backend"},
    "views": {"exposition", "facilities", "origin", "publisher", "snapshots"},
}
# What sites import, and the pieces of it that packages build on.
SHARED = {"api", "consumers", "layers", "mailbox", "presence", "publisher", "routing", "signals", "store"}

SOCKETS = {"socket", "select", "selectors", "ssl", "asyncio"}
GEVENT = {"gevent", "greenlet"}
HTTP = {"django.http", "django.core.handlers", "wsgiref", "http"}
# Of packages, and of modules at the top.
MUST_NOT_KNOW = {
    "aio": {"redis", "ws4redis", "websockets"},
    "protocol": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis"},
    "backend": SOCKETS | GEVENT | HTTP | {"websockets"},
    "sockets": {"redis", "ws4redis", "django", "asyncio", "ssl"},
    "delivery": SOCKETS | HTTP | {"websockets", "django"},
    "visitors": SOCKETS | HTTP | {"ws4redis", "websockets"},
    "facilities": SOCKETS - {"select"} | {"asyncio"},
    "runtime": SOCKETS | {"ws4redis", "django.http"},
    "testing": SOCKETS | {"gevent", "ws4redis", "websockets"},
    "options": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "websockets"},
    "outbox": GEVENT | HTTP | {"ws4redis", "websockets"},
    "api": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "websockets"},
    "addressees": SOCKETS | GEVENT | HTTP | {"redis", "websockets"},
    "blocked": SOCKETS | HTTP | {"redis", "ws4redis", "django", "websockets"},
    "checks": SOCKETS | GEVENT | {"redis", "ws4redis", "websockets"},
    "commits": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "websockets"},
    "deadline": SOCKETS | {"redis", "ws4redis", "websockets", "django"},
    "deploy": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "websockets"},
    "visit": SOCKETS | GEVENT | {"redis", "ws4redis", "websockets"},
    "conf": SOCKETS | GEVENT | {"redis", "ws4redis", "websockets"},
    "consumers": SOCKETS | GEVENT | {"redis", "ws4redis"},
    "db": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "websockets"},
    "batch_queue": SOCKETS | {"redis", "django", "websockets"},
    "diagnosis": GEVENT | {"asyncio", "ws4redis"},
    "exceptions": SOCKETS | HTTP | {"gevent", "redis", "ws4redis", "django", "websockets"},
    "exposition": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "websockets", "django"},
    "greenlets": SOCKETS | {"redis", "ws4redis", "websockets", "django"},
    "handshake": SOCKETS | GEVENT | {"redis", "ws4redis"},
    "http_api": SOCKETS | GEVENT | {"ws4redis", "websockets"},
    "health": SOCKETS | GEVENT | {"redis", "ws4redis", "websockets"},
    "ops": SOCKETS | GEVENT | {"ws4redis", "websockets"},
    "identity": SOCKETS | GEVENT | {"redis", "ws4redis", "websockets"},
    "kinds": SOCKETS | GEVENT | {"redis", "ws4redis", "websockets"},
    "layers": SOCKETS - {"asyncio"} | GEVENT | HTTP | {"websockets"},
    "live": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "websockets"},
    "presence": SOCKETS | GEVENT | HTTP | {"ws4redis", "websockets"},
    "publisher": SOCKETS | GEVENT | HTTP | {"websockets"},
    "metrics": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "django", "websockets", "prometheus_client"},
    "redaction": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "django", "websockets"},
    "refusals": SOCKETS | GEVENT | {"redis", "ws4redis", "django", "websockets"},
    "routing": SOCKETS | GEVENT | {"redis", "ws4redis", "websockets"},
    "mailbox": SOCKETS - {"asyncio"} | GEVENT | HTTP | {"redis", "ws4redis", "websockets"},
    "opening": SOCKETS | HTTP | {"redis", "ws4redis"},
    "origin": SOCKETS | GEVENT | {"redis", "ws4redis", "websockets"},
    "rejection": SOCKETS | {"ws4redis", "websockets"},
    "server": SOCKETS,
    "pywsgi": SOCKETS | {"redis", "ws4redis", "django", "websockets"},
    "stages": SOCKETS,
    "signals": SOCKETS | GEVENT | HTTP | {"websockets"},
    "snapshots": SOCKETS | GEVENT | HTTP | {"redis", "ws4redis", "django", "websockets"},
    "stock": SOCKETS | GEVENT | HTTP | {"redis", "websockets"},
    "store": SOCKETS | GEVENT | HTTP | {"websockets"},
    "templatetags": SOCKETS | GEVENT | HTTP | {"ws4redis", "websockets"},
    "tokens": SOCKETS | GEVENT | {"redis", "ws4redis", "websockets"},
    "views": SOCKETS | GEVENT | {"ws4redis", "websockets"},
    "fair_scheduler": SOCKETS | {"redis", "django", "websockets"},
}
EXCEPTIONS = {
    "runtime.tasks": {"asyncio"},  # the two that run coroutines
    "runtime.asgi": {"asyncio"},
    "protocol.resume_tokens": {"django"},  # signs
    "consumers.asgi": {"asyncio"},
    "runtime.applications": {"asyncio"},
    "runtime.coroutines": {"asyncio"},
    "testing.communicator": {"asyncio"},
    "testing.own_loop": {"asyncio"},
    "testing.scheduler": {"asyncio"},  # to hide it
    "testing.task_sockets": {"asyncio"},
    "testing.waiting": {"asyncio"},
    "outbox.management.commands.wsloop_outbox": SOCKETS,  # waits for signals
    "sockets.transport": SOCKETS,  # its own
    "sockets.takeover": SOCKETS,
    "sockets.gunicorn": SOCKETS,
    "backend.option_values": {"ssl"},  # which versions there are
    "facilities.subscriptions": {"http"},
}
ONLY = {
    "uwsgi": {"sockets.uwsgi"},
    "django.conf": {
        *("checks.access", "checks.gunicorn", "checks.patching", "checks.problem", "checks.uwsgi", "conf", "signals"),
        *("deploy.advice", "deploy.site"),  # more of Django's settings than of wsloop's
    },
    "prometheus_client": {"exposition"},
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


def package_of(name):
    """The package of a module; of one at the top its own name."""
    return name.partition(".")[0]


@pytest.mark.parametrize("name", [name for name in MODULES if package_of(name) in PACKAGES])
def test_packages_are_imported_in_one_direction(name):
    package = package_of(name)
    modules = {module_of(each) for each in imported(MODULES[name])} - BESIDES.get(name, set())
    found = {package_of(each) for each in modules} - {"", package}
    allowed = PACKAGES[package] | (BELOW - NOT_BELOW.get(package, set()))
    if package in ("facilities", "runtime", "testing", "visitors"):
        allowed |= SHARED | {"identity"}
    if package == "facilities":
        allowed = (allowed - {"consumers", "layers"}) | {"tokens"}
    assert found <= allowed


@pytest.mark.parametrize("name", TOP)
def test_modules_at_the_top_are_imported_in_one_direction(name):
    trees = [tree for each, tree in MODULES.items() if package_of(each) == name]
    found = {package_of(module_of(each)) for tree in trees for each in imported(tree)} - {"", name}
    assert found <= TOP[name] | BELOW


@pytest.mark.parametrize("name", sorted(BELOW))
def test_what_all_may_use_knows_no_package(name):
    found = {package_of(module_of(each)) for each in imported(MODULES[name])} - {"", name}
    assert found <= BELOW


@pytest.mark.parametrize("name", sorted(SHARED))
def test_what_sites_import_needs_no_worker(name):
    found = {package_of(module_of(each)) for each in imported(MODULES[name])} - {"", name}
    assert found <= {"backend", "protocol"} | BELOW | SHARED


@pytest.mark.parametrize("name", [name for name in MODULES if package_of(name) in MUST_NOT_KNOW])
def test_what_a_module_must_not_know(name):
    forbidden = MUST_NOT_KNOW[package_of(name)] - EXCEPTIONS.get(name, set())
    known = {other for other in forbidden for each in imported(MODULES[name]) if is_part_of(each, other)}
    assert not known


@pytest.mark.parametrize("other", ONLY)
def test_what_only_one_module_knows(other):
    found = {name for name, tree in MODULES.items() if any(is_part_of(each, other) for each in imported(tree))}
    assert found == ONLY[other]


def test_the_websocket_api_of_uwsgi_is_not_called():
    """Its buffers belong to the whole process: one socket would get what another one sent."""
    for node in ast.walk(MODULES["sockets.uwsgi"]):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "uwsgi":
            assert "websocket" not in node.attr


def test_there_are_no_circles():
    knows = {name: {module_of(each) for each in imported(tree)} - {"", name} for name, tree in MODULES.items()}
    done = set()

    def visit(name, path=()):
        assert name not in path, f"circle: {' -> '.join([*path, name])}"
        if name not in done:
            for other in knows[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in knows:
        visit(name)


IMPORTED_BY_SITES = [
    *("api", "consumers", "exceptions", "layers", "presence", "publisher", "routing", "server", "signals"),
    *("exposition", "health", "http_api.views", "live", "ops.views", "testing", "tokens", "views"),
    *("runtime.core", "snapshots", "testing.communicator", "testing.notifications"),
]


def test_what_sites_import_loads_no_gevent():
    code = f"""
import importlib, sys
from django.conf import settings
apps = ["wsloop", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
settings.configure(INSTALLED_APPS=apps, USE_TZ=True)
import django
django.setup()
for name in {IMPORTED_BY_SITES}:
    importlib.import_module(f"wsloop.{{name}}")
    assert "gevent" not in sys.modules, name
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_module_says_what_it_is_responsible_for(name):
    assert ast.get_docstring(MODULES[name])


MOST_LINES, MOST_CLASS_LINES = 275, 260  # "about" 260 and 250: more of them needs a reason


def test_what_is_long_says_why_in_its_first_paragraph():
    long = {}
    for name, tree in MODULES.items():
        if tree.body and tree.body[-1].end_lineno > MOST_LINES:
            long[name] = ast.get_docstring(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.end_lineno - node.lineno >= MOST_CLASS_LINES:
                long[f"{name}.{node.name}"] = ast.get_docstring(node)
    reason = re.compile(r"\blonger\s+(module|than)|\ba (little longer|long class)", re.IGNORECASE)
    assert [each for each, text in long.items() if not reason.search(text.partition("\n\n")[0])] == []


# Pieces of a whole whose tests are those of the whole.
TESTED_WITH = {
    "aio.worker": "aio_worker",
    "sockets.census": "hub",
    "visitors.rows": "lookup",
    "sockets.index": "hub",
    "sockets.joining": "hub",
    "sockets.run": "hub",
    "sockets.admission": "hub",
    "sockets.heartbeat": "hub",
    "sockets.visitor": "hub",
    "sockets.limits": "connection",
    "sockets.output": "connection",
    "protocol.fragments": "connection",
    "protocol.frames": "connection",
    "protocol.parser": "connection",
    "protocol.close_codes": "dialects",
    "backend.layer_delivery": "layers",
    "backend.layer_events": "layers",
    "backend.asking": "api",
    "backend.keys": "publishing",
    "backend.node_addresses": "redis_options",
    "backend.option_values": "redis_options",
    "backend.scripts": "publishing",
    "checks.access": "checks",
    "checks.contradictions": "conf",
    "checks.gunicorn": "checks",
    "checks.loop": "checks",
    "checks.patching": "checks",
    "checks.problem": "checks",
    "checks.uwsgi": "checks",
    "ops.access": "ops",
    "ops.consumer": "ops",
    "ops.feed": "ops",
    "ops.urls": "ops",
    "ops.views": "ops",
    "http_api.schema": "http_api",
    "http_api.urls": "http_api",
    "http_api.views": "http_api",
    "management.commands.wskick": "wspublish",
    "management.commands.wstail": "wspublish",
    "management.operation": "wspublish",
    "diagnosis": "wsdoctor",
    "diagnosis.finding": "wsdoctor",
    "diagnosis.machine": "wsdoctor",
    "diagnosis.public_url": "wsdoctor",
    "diagnosis.redis_server": "wsdoctor",
    "snapshots": "wsstats",
    "options": "conf",
    "deploy": "wsloop_init",
    "deploy.advice": "wsloop_init",
    "deploy.files": "wsloop_init",
    "deploy.site": "wsloop_init",
    "deploy.wsgi_module": "wsloop_init",
    "delivery.answers": "broker",
    "delivery.catch_up": "gapless",
    "delivery.channel_state": "gapless",
    "delivery.channel_table": "broker",
    "delivery.events": "broker",
    "delivery.own_channel": "broker",
    "delivery.publish_queue": "broker",
    "delivery.subscription_connection": "broker",
    "consumers.asgi": "asynchronous",
    "consumers.base": "consumers",
    "consumers.sync": "consumers",
    "identity": "session_watch",
    "mailbox": "asynchronous",
    "visitors.answering": "api",
    "visitors.attendance": "presence",
    "store": "publishing",
    "refusals": "origin",
    "runtime.asgi": "asgi_runner",
    "runtime.driver": "core",
    "runtime.state": "core",
    "runtime.handlers": "runner",
    "runtime.applications": "async_communicator",
    "runtime.coroutines": "async_communicator",
    "testing.application_sockets": "async_communicator",
    "testing.greenlet_sockets": "sockets",
    "testing.handler": "scheduler",
    "testing.handshake": "communicator",
    "testing.own_loop": "async_communicator",
    "testing.recorder": "notifications",
    "testing.task_sockets": "async_communicator",
    "testing.waiting": "async_communicator",
    "runtime.batching": "groups",
    "runtime.worker": "runner",
    "engine": "server",
    "opening": "server",
    "stages": "server",
    "sockets.plan": "server",
    "facilities.setup": "server",
    "facilities.shared_reading": "recovery",
    "facilities.policy": "subscriptions",
    "sockets.farewell": "rejection",
    "facilities.decision": "server",
    "facilities.hooks": "server",
    "facilities.calls": "page_socket",
    "facilities.enveloped": "inbound",
    "facilities.posted": "event_stream",
    "facilities.recording": "subscriptions",
    "protocol.events": "event_stream",
    "streams": "event_stream",
    "sockets.handler": "connection",
    "sockets.websocket": "connection",
    "facilities.failures": "page_socket",
    "facilities.page_subscriptions": "page_socket",
    "deadline": "server",
    "runtime.setup": "server",
}


def test_there_is_a_test_module_for_every_module():
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "unit").glob("test_*.py")}
    tests -= {"costs", "imports"}  # which are about all of them
    named = {name: TESTED_WITH.get(name, name.rpartition(".")[2]) for name in MODULES if name}
    assert {name: test for name, test in named.items() if test not in tests and name not in PACKAGES} == {}
    assert tests - set(named.values()) == set(), "tests of modules that are gone"


def test_the_standard_library_and_the_requirements_are_all_it_needs():
    needed = {"django", "gevent", "greenlet", "msgpack", "prometheus_client", "redis", "websockets", "ws4redis"}
    needed.add("asgiref")  # comes with Django
    for name, tree in MODULES.items():
        tops = {each.partition(".")[0] for each in imported(tree)}
        if name == "testing.plugin":  # for pytest, which loads it
            tops.remove("pytest")
        assert tops - sys.stdlib_module_names <= needed | {"wsloop", "uwsgi"}, name
