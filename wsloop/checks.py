"""What ``manage.py check`` finds wrong with a site's settings, and ``check --deploy`` with the way it is run.

Each warning says what can happen and what to do. The options of uWSGI are checked twice: those of ``uwsgi.ini`` by the
command, and those that are in force by the server, with the first WebSocket of a worker. This module must not know
sockets, gevent or uWSGI itself.
"""

from __future__ import annotations

import ast
import importlib.util
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.core.management import find_commands

from wsloop import conf, kinds
from wsloop.backend import redis_options

logger = logging.getLogger("wsloop.checks")

PUBLISHING = ("publish-broadcast", "publish-group", "publish-user", "publish-session")
# Options of uWSGI that end workers while the site is in use, with the sockets they hold.
ENDING = (
    "max-requests",
    "max-worker-lifetime",
    "reload-on-rss",
    "reload-on-as",
    "evil-reload-on-rss",
    "evil-reload-on-as",
    "cheaper",
    "idle",
)
HTTP_TIMEOUT = 60.0  # seconds; uWSGI's own default
LATE = 5.0  # seconds that a ping of a busy worker may be late


class Problem(NamedTuple):
    """One finding: what can happen, what to do, and the number of its check."""

    message: str
    hint: str
    number: str


def wrong_settings() -> Iterator[str]:
    """Yield what is wrong with the settings of wsloop, each that cannot be used."""
    yield from conf.problems()
    readers: list[Callable[[], Any]] = [redis_options.connection, redis_options.nodes, _subscriber_class]
    for read in readers:
        try:
            read()
        except ImproperlyConfigured as exc:
            yield str(exc)


def _subscriber_class() -> Any:
    from wsloop.facilities import subscriptions

    return subscriptions.subscriber_class(conf.subscriber_path())


def validate() -> None:
    """Read every setting once.

    Raises:
        ImproperlyConfigured: with all that is wrong.
    """
    found = list(dict.fromkeys(wrong_settings()))
    if found:
        raise ImproperlyConfigured("\n".join(found))


def check_settings(**kwargs: Any) -> list[checks.CheckMessage]:
    """``manage.py check`` names the settings of wsloop that are wrong, or do not go together."""
    wrong = list(dict.fromkeys(wrong_settings()))
    if wrong:
        return [checks.Error(each, id="wsloop.E001") for each in wrong]
    return [checks.Warning(message, hint=hint, id="wsloop.W014") for message, hint in conf.contradictions()]


def check_runserver(**kwargs: Any) -> list[checks.CheckMessage]:
    """``manage.py check``, and ``runserver`` before it serves, say that ``runserver`` is not the command of wsloop.

    Django's own would run the site on threads, in a process that the site's ``wsgi.py`` patches while they run.
    """
    owner = _owner_of_runserver()
    # Its own module, which imports gevent, is not imported for that: every command of manage.py checks.
    if owner == "wsloop" or _extends_runserver(owner):
        return []
    return [
        checks.Error(
            f'runserver is the command of {owner}, which stands before "wsloop" in INSTALLED_APPS: it cannot serve '
            "WebSockets, and may end in `cannot release un-acquired lock`.",
            hint=f'Put "wsloop" before "{owner}" in INSTALLED_APPS. Where nobody uses runserver, name wsloop.E002 in '
            "SILENCED_SYSTEM_CHECKS.",
            id="wsloop.E002",
        )
    ]


def _owner_of_runserver() -> str:
    """Return the first application that has a command ``runserver``: its command is the one that runs."""
    for application in apps.get_app_configs():
        if "runserver" in find_commands(os.path.join(application.path, "management")):
            return application.name
    return "wsloop"  # not installed: nothing to say


def _extends_runserver(application: str) -> bool:
    """Tell whether the ``runserver`` of an application is the one of wsloop with something added."""
    try:
        command = importlib.import_module(f"{application}.management.commands.runserver").Command
    except Exception:
        return False  # whoever runs it will see why
    return any(each.__module__ == "wsloop.management.commands.runserver" for each in command.__mro__)


def check_deployment(**kwargs: Any) -> list[checks.CheckMessage]:
    """``manage.py check --deploy`` names what is open to everybody, and what would cut sockets."""
    if any(wrong_settings()):
        return []  # said already; nothing can be read from settings that are wrong
    problems = [*_policy_problems(), *_origin_problems(), *_session_problems(), *_gevent_problems(), *_ini_problems()]
    return [checks.Warning(each.message, hint=each.hint, id=f"wsloop.{each.number}") for each in problems]


def register() -> None:
    """Have Django run these checks."""
    checks.register(check_settings)
    checks.register(check_runserver)
    checks.register(check_deployment, checks.Tags.security, deploy=True)


# Who may listen and speak.


def _policy_problems() -> Iterator[Problem]:
    policy = conf.callback("WS4REDIS_ALLOWED_CHANNELS")
    if policy is None:
        yield Problem(
            "WS4REDIS_ALLOWED_CHANNELS is not set: every visitor may publish to everybody who listens to a facility.",
            "Set it to a function (request, channels) that returns the channels allowed, or to its dotted path.",
            "W001",
        )
        return
    from django.test import RequestFactory  # here, for it is much, and no server needs it

    visitors: list[Any] = [None]  # without a session
    if apps.is_installed("django.contrib.auth"):
        from django.contrib.auth.models import AnonymousUser

        visitors.append(AnonymousUser())  # with one in which nobody has signed in
    published, failed = [], []
    for name in PUBLISHING:
        for user in visitors:
            request = RequestFactory().get(conf.websocket_url(), [(name, "")])
            request.session, request.user = None, user  # type: ignore[assignment]
            try:
                if name in list(policy(request, [name])):
                    published.append(name)
            except PermissionDenied:
                pass
            except Exception as exc:
                failed.append(f"{type(exc).__name__}: {exc}")
    if published:
        yield Problem(
            f"WS4REDIS_ALLOWED_CHANNELS lets visitors publish who have not signed in: "
            f"{', '.join(dict.fromkeys(published))}. Anybody can send anything to those who listen.",
            'Return only names that begin with "subscribe-" unless request.user is signed in. Views may publish.',
            "W002",
        )
    if failed:
        yield Problem(
            f"WS4REDIS_ALLOWED_CHANNELS fails for visitors who have not signed in ({failed[0]}): they get an error 500 "
            f"instead of a socket.",
            "Let it expect request.user to be None (there is no session) or anonymous; refuse with PermissionDenied.",
            "W003",
        )


def _origin_problems() -> Iterator[Problem]:
    allowed = conf.option("ALLOWED_ORIGINS")
    nameless = [each for each in kinds.NAMELESS_ORIGINS if each in allowed]
    if nameless:
        yield Problem(
            f"ALLOWED_ORIGINS has {' and '.join(map(repr, nameless))}, the Origin of pages that have none of their "
            "own: not only of an app's, but of any sandboxed frame, data: URL or local file, which so can open sockets "
            "here in the name of a visitor, wherever the browser sends the visitor's cookies.",
            "Let the app's pages have an origin of their own and name that, or open its sockets outside of the page; "
            "sign them in with tokens, not with cookies.",
            "W013",
        )
    if "*" in allowed:
        yield Problem(
            'ALLOWED_ORIGINS has "*": the page of any other site can open sockets here in the name of its visitors, '
            "with their cookies, and read what is meant for them.",
            'Name the sites in WSLOOP["ALLOWED_ORIGINS"], such as "https://*.example.com"; without it, only this host '
            "is let in.",
            "W004",
        )


def _session_problems() -> Iterator[Problem]:
    if settings.SESSION_ENGINE.endswith(".signed_cookies"):
        yield Problem(
            "SESSION_ENGINE keeps sessions in signed cookies: nothing on the server ends with a logout, so sockets "
            "that were opened with another cookie of the session stay open until it expires.",
            "Keep sessions in the database or the cache: django.contrib.sessions.backends.db or cached_db.",
            "W012",
        )


# Gevent.


def _gevent_problems() -> Iterator[Problem]:
    ini = _ini()
    if ini is not None and ini("gevent-early-monkey-patch"):
        return
    # Without the setting: the module that lies next to manage.py, whose directory Python imports from.
    name = str(getattr(settings, "WSGI_APPLICATION", None) or "").rpartition(".")[0] or "wsgi"
    path = _source(name)
    if path is None:
        yield Problem(
            f"The module {name!r}, which should serve the site, is not found: whether gevent patches it is not known.",
            "Set WSGI_APPLICATION to the dotted path of the application that uWSGI serves.",
            "W006",
        )
        return
    try:
        early = _imported_before_patching(ast.parse(path.read_text()))
    except (OSError, SyntaxError, ValueError) as exc:
        yield Problem(f"{path} cannot be read: {exc}", "Whether gevent patches the site is not known.", "W006")
        return
    if early is not None:
        reason = f"imports {early} before gevent has patched it" if early else "is not patched by gevent"
        yield Problem(
            f"{path} {reason}: who waits for Redis, a database or a lock stops all sockets of the worker meanwhile.",
            "Let the file begin with `from gevent import monkey` and `monkey.patch_all()`, before any other import.",
            "W005",
        )


def _source(name: str) -> Path | None:
    """Return the file of a module, without importing it."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    path = Path(spec.origin) if spec and spec.origin else None
    return path if path and path.suffix == ".py" and path.is_file() else None


def _imported_before_patching(module: ast.Module) -> str | None:
    """Return what is imported before ``patch_all()`` is called; empty if it is not called, None if all is well."""
    first = ""
    for statement in module.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue  # not executed yet
        for node in ast.walk(statement):
            if isinstance(node, ast.Call):
                function = node.func
                if getattr(function, "attr", getattr(function, "id", "")) == "patch_all":
                    return first or None
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "."]
            for name in names:
                if name.partition(".")[0] not in ("gevent", "__future__"):
                    first = first or name
    return ""


# uWSGI.

Options = Callable[[str], list[str]]


def _ini() -> Options | None:
    """Return the options of ``uwsgi.ini`` in the current directory or ``BASE_DIR``; None if there is none."""
    directories = [Path(), Path(getattr(settings, "BASE_DIR", "."))]
    path = next((each / "uwsgi.ini" for each in directories if (each / "uwsgi.ini").is_file()), None)
    if path is None:
        return None
    options: dict[str, list[str]] = {}
    section = ""
    for line in path.read_text(errors="replace").splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line.strip("[]")
        elif line and line[0] not in ";#" and section == "uwsgi":
            name, _, value = line.partition("=")
            options.setdefault(name.strip(), []).append(value.strip())
    return lambda name: [each for each in options.get(name, []) if each.lower() not in ("false", "0", "no", "off")]


def _ini_problems() -> Iterator[Problem]:
    ini = _ini()
    if ini is not None:
        for problem in uwsgi_problems(ini):
            yield problem._replace(message=f"uwsgi.ini: {problem.message}")


def uwsgi_problems(option: Options) -> Iterator[Problem]:
    """Yield which options of uWSGI hurt sockets.

    Args:
        option: returns the values that an option was given, none if it was not.
    """
    if not option("gevent") and "gevent" not in option("loop"):
        yield Problem(
            "without gevent no WebSocket can be opened: each is refused with 501.",
            "Add `gevent = 100`, the number of requests that a worker answers at the same time.",
            "W007",
        )
    if option("harakiri"):
        yield Problem(
            "harakiri kills a worker, and with it all of its sockets, for one request that takes too long.",
            "Remove it, and bound what may be slow where it waits: by the timeouts of databases and of HTTP clients.",
            "W008",
        )
    if (option("http") or option("https")) and not option("http-websockets"):
        yield Problem(
            "without http-websockets the router passes on nothing that a client sends after the handshake.",
            "Add `http-websockets = true`.",
            "W009",
        )
    if option("http") or option("https"):
        yield from _timeout_problems(option)
    ending = [name for name in ENDING if option(name)]
    if ending:
        yield Problem(
            f"{', '.join(ending)} ends workers while they hold sockets, which do not count as requests: all of them "
            f"break off at once, and their clients come back at once.",
            "Remove it and find what grows; or accept it, and name this warning in SILENCED_SYSTEM_CHECKS.",
            "W011",
        )


def _timeout_problems(option: Options) -> Iterator[Problem]:
    given = [each for each in option("http-timeout") if re.fullmatch(r"\d+", each)]
    if option("http-timeout") and not given:
        return  # from the environment
    timeout = float(given[-1]) if given else HTTP_TIMEOUT
    interval = conf.option("PING_INTERVAL")
    if timeout < interval + LATE:
        yield Problem(
            f"http-timeout ({timeout:g} s) cuts sockets on which nothing happens; pings go out every {interval:g} s.",
            f"Set http-timeout to {interval + LATE:g} or more, or PING_INTERVAL of WSLOOP to less.",
            "W010",
        )


def warn_about_uwsgi(option: Options) -> None:
    """Log which options of the running uWSGI hurt sockets; to be called once by each worker.

    Args:
        option: returns the values that an option was given, none if it was not.
    """
    for problem in uwsgi_problems(option):
        if f"wsloop.{problem.number}" not in settings.SILENCED_SYSTEM_CHECKS:
            logger.warning("uWSGI: %s %s (wsloop.%s)", problem.message, problem.hint, problem.number)
