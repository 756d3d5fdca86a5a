"""System checks: ``manage.py check`` for a site's settings, and ``check --deploy`` for the way it is run.

Each warning says what can happen and what to do. The options of the server are checked twice: those of ``uwsgi.ini``
and ``gunicorn.conf.py`` by the command, and those that are in force by the server, with the first WebSocket of a
worker. This package must not know sockets, gevent, uWSGI or gunicorn itself.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.apps import apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import find_commands

from wsloop import conf
from wsloop.backend import redis_options
from wsloop.checks import access, gunicorn, loop, patching, uwsgi
from wsloop.checks.contradictions import contradictions
from wsloop.checks.gunicorn import warn_about_gunicorn
from wsloop.checks.problem import Problem
from wsloop.checks.uwsgi import warn_about_uwsgi


def wrong_settings() -> Iterator[str]:
    """Yield a text for each setting of wsloop that cannot be used."""
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
        ImproperlyConfigured: if some are wrong; the text names all of them.
    """
    found = list(dict.fromkeys(wrong_settings()))
    if found:
        raise ImproperlyConfigured("\n".join(found))


def check_settings(**kwargs: Any) -> list[checks.CheckMessage]:
    """Return errors for the settings of wsloop that are wrong, or warnings for those that contradict each other."""
    wrong = list(dict.fromkeys(wrong_settings()))
    if wrong:
        return [checks.Error(each, id="wsloop.E001") for each in wrong]
    return [checks.Warning(message, hint=hint, id="wsloop.W014") for message, hint in contradictions()]


def check_policy(**kwargs: Any) -> list[checks.CheckMessage]:
    """Return warnings about who may publish, which matters before a site is deployed, too."""
    return [] if any(wrong_settings()) else _warnings(access.policy_problems())


def check_loop(**kwargs: Any) -> list[checks.CheckMessage]:
    """Return a warning if the site's ``wsgi.py`` does not name wsloop, which would not be seen before a socket is."""
    return [] if any(wrong_settings()) else _warnings(loop.problems())


def check_runserver(**kwargs: Any) -> list[checks.CheckMessage]:
    """Return an error if ``runserver`` is not the command of wsloop.

    Django's own would run the site on threads, in a process that the site's ``wsgi.py`` patches while they run.
    """
    owner = _owner_of_runserver()
    # The command of wsloop is not imported for this, because it imports gevent, and every command of manage.py checks.
    if owner == "wsloop" or _extends_runserver(owner):
        return []
    return [
        checks.Error(
            f'runserver is the command of {owner}, which stands before "wsloop" in INSTALLED_APPS: it cannot serve '
            "WebSockets, and may end in `cannot release un-acquired lock`.",
            hint=f'Put "wsloop" before "{owner}" in INSTALLED_APPS. If nobody uses runserver, name wsloop.E002 in '
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
    """Return whether the ``runserver`` of an application extends the one of wsloop."""
    try:
        command = importlib.import_module(f"{application}.management.commands.runserver").Command
    except Exception:
        return False  # running it shows why
    return any(each.__module__ == "wsloop.management.commands.runserver" for each in command.__mro__)


def check_deployment(**kwargs: Any) -> list[checks.CheckMessage]:
    """Return warnings about insecure settings, and about options of uWSGI or gunicorn that would cut sockets."""
    if any(wrong_settings()):
        return []  # reported already; settings that are wrong cannot be read
    return _warnings(
        [*access.problems(), *patching.problems(), *uwsgi.ini_problems(), *gunicorn.configuration_problems()]
    )


def _warnings(problems: Iterable[Problem]) -> list[checks.CheckMessage]:
    return [checks.Warning(each.message, hint=each.hint, id=f"wsloop.{each.number}") for each in problems]


def register() -> None:
    """Register these checks with Django."""
    checks.register(check_settings)
    checks.register(check_policy)
    checks.register(check_loop)
    checks.register(check_runserver)
    checks.register(check_deployment, checks.Tags.security, deploy=True)


__all__ = ["register", "validate", "warn_about_gunicorn", "warn_about_uwsgi", "wrong_settings"]
