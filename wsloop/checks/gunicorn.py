"""Settings of gunicorn that hurt sockets: those in ``gunicorn.conf.py``, and those in force in a worker.

This module must not know gunicorn itself: a function returns its settings.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.conf import settings

from wsloop.checks.problem import Problem, warn

FAREWELL = 7.0  # seconds that a worker needs for its sockets, consumers and tasks when it ends
WORKER = "gevent"
UNKNOWN = object()  # the value of a setting that is computed

Setting = Callable[[str], Any]


def configuration() -> Setting | None:
    """Return the settings of ``gunicorn.conf.py`` in the current directory or ``BASE_DIR``; None if there is none.

    The file is Python, and is not executed: of a value that is computed it is only known that there is one.
    """
    directories = [Path(), Path(getattr(settings, "BASE_DIR", "."))]
    path = next((each / "gunicorn.conf.py" for each in directories if (each / "gunicorn.conf.py").is_file()), None)
    if path is None:
        return None
    found: dict[str, Any] = {}
    try:
        statements = ast.parse(path.read_text(errors="replace")).body
    except (SyntaxError, ValueError):
        return None  # gunicorn says so
    for statement in statements:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            found |= {each.id: statement.value.value for each in statement.targets if isinstance(each, ast.Name)}
        elif isinstance(statement, ast.Assign):  # computed: not known, but set
            found |= {each.id: UNKNOWN for each in statement.targets if isinstance(each, ast.Name)}
    return found.get


def configuration_problems() -> Iterator[Problem]:
    """Yield the findings about ``gunicorn.conf.py``."""
    setting = configuration()
    if setting is not None:
        for problem in problems(setting):
            yield problem._replace(message=f"gunicorn.conf.py: {problem.message}")


def patches_in_time(setting: Setting) -> bool:
    """Return whether gunicorn's worker patches the process before the site is loaded."""
    return setting("worker_class") == WORKER and not setting("preload_app")


def problems(setting: Setting) -> Iterator[Problem]:
    """Yield the settings of gunicorn that hurt sockets.

    Args:
        setting: returns the value of a setting; None if it was not given, and anything else if it is not known.
    """
    if setting("worker_class") not in (None, WORKER, UNKNOWN):
        yield Problem(
            f'without worker_class = "{WORKER}" no WebSocket can be opened: each is refused, or the start ends.',
            f'Write worker_class = "{WORKER}".',
            "W015",
        )
    if setting("certfile") or setting("keyfile"):
        yield Problem(
            "with certfile gunicorn keeps the encryption to itself: each WebSocket is refused with 501.",
            "Remove certfile and keyfile, and let a proxy such as nginx end TLS.",
            "W016",
        )
    if setting("max_requests"):
        yield Problem(
            "max_requests ends workers while they hold sockets, which do not count as requests: all of them are "
            "closed, and the next worker starts only when the old one has ended.",
            "Remove it and find out what grows; or accept it, with two workers or more, and name this warning in "
            "SILENCED_SYSTEM_CHECKS.",
            "W011",
        )
    for name in ("graceful_timeout", "timeout"):
        value = setting(name)
        if (isinstance(value, (int, float)) and 0 < value <= FAREWELL) or (name == "graceful_timeout" and value == 0):
            yield Problem(
                f"{name} ({value:g} s) kills a worker that ends before it has said goodbye to its sockets.",
                f"Set {name} to more than {FAREWELL:g}, plus the time of your slowest requests.",
                "W017",
            )


def warn_about_gunicorn(setting: Setting) -> None:
    """Log the settings of the running gunicorn that hurt sockets. Called once by each worker.

    Args:
        setting: returns the value of a setting.
    """
    # What cannot be opened is logged with each refusal.
    warn("gunicorn", (each for each in problems(setting) if each.number not in ("W015", "W016")))
