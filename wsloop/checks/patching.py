"""Whether gevent patches the site before anything else is imported."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from wsloop.checks.gunicorn import configuration, patches_in_time
from wsloop.checks.problem import Problem
from wsloop.checks.uwsgi import ini


def problems() -> Iterator[Problem]:
    """Yield the finding, if the WSGI module of the site can be read and does not patch in time."""
    options = ini()
    if options is not None and options("gevent-early-monkey-patch"):
        return
    setting = configuration()
    if options is None and setting is not None and patches_in_time(setting):
        return
    name = site_module()
    path = source(name)
    if path is None:
        yield Problem(
            f"The module {name!r}, which should serve the site, was not found: cannot check whether gevent patches it.",
            "Set WSGI_APPLICATION to the dotted path of the application that uWSGI serves.",
            "W006",
        )
        return
    try:
        early = imported_before_patching(ast.parse(path.read_text()))
    except (OSError, SyntaxError, ValueError) as exc:
        yield Problem(
            f"{path} cannot be read: {exc}",
            "Make the file readable: the check looks for gevent's patching in it.",
            "W006",
        )
        return
    if early is not None:
        reason = f"imports {early} before gevent has patched it" if early else "is not patched by gevent"
        yield Problem(
            f"{path} {reason}: waiting for Redis, a database or a lock blocks all sockets of the worker.",
            "Let the file begin with `from gevent import monkey` and `monkey.patch_all()`, before any other import.",
            "W005",
        )


def site_module() -> str:
    """Return the name of the module that should serve the site, that of ``WSGI_APPLICATION``."""
    # Without the setting: the module that lies next to manage.py, whose directory Python imports from.
    return str(getattr(settings, "WSGI_APPLICATION", None) or "").rpartition(".")[0] or "wsgi"


def source(name: str) -> Path | None:
    """Return the file of a module, without importing it."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    path = Path(spec.origin) if spec and spec.origin else None
    return path if path and path.suffix == ".py" and path.is_file() else None


def imported_before_patching(module: ast.Module) -> str | None:
    """Return the first module imported before ``patch_all()`` is called.

    Returns:
        None if there is no such module; empty if ``patch_all()`` is not called.
    """
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
