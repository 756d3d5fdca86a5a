"""What a site's ``wsgi.py`` needs, so that it serves WebSockets: lines that are added, and none that is taken away.

The file is parsed, not imported.
"""

from __future__ import annotations

import ast
import json
from typing import NamedTuple

from wsloop.checks import patching

PATCH = """\
from gevent import monkey

monkey.patch_all()  # before any other import: sockets, locks and time imported later must be gevent's
"""
DISPATCH = '''
from wsloop.server import WebsocketServer  # noqa: E402

{django} = {attribute}
websocket_application = WebsocketServer()  # urlpatterns=[…]: the paths of consumers


def {attribute}(environ, start_response):
    """Give the URLs of WebSockets to wsloop, and all others to Django."""
    if environ.get("PATH_INFO", "").startswith({url}):
        return websocket_application(environ, start_response)
    return {django}(environ, start_response)
'''
NEW = '''\
"""The one entry point of the server: WebSockets to wsloop, everything else to Django."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{settings}")

{attribute} = get_wsgi_application()
'''


class Change(NamedTuple):
    """What becomes of the module.

    Attributes:
        text: the module with the lines that it needs.
        plain: whether it was as ``django-admin startproject`` writes it, so that no code of the site is in the way.
        problem: what lines alone do not mend, a sentence; empty if they do.
    """

    text: str
    plain: bool
    problem: str


def change(text: str, attribute: str, url: str) -> Change:
    """Return a WSGI module with what it needs.

    Args:
        text: of the module.
        attribute: name of the application in it.
        url: beginning of the path of all WebSockets.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as exc:
        return Change(text, False, f"It cannot be parsed: {exc}.")
    names = {each for node in ast.walk(tree) for each in _names(node)}
    if {"uWSGIWebsocketServer", "uwsgi_runserver", "django_runserver"} & names:
        return Change(text, False, "It names ws4redis's server: see the guide “Move a ws4redis site over”.")
    early = patching.imported_before_patching(tree)
    if early:
        return Change(text, False, f"Move its `monkey.patch_all()` above the import of {early}.")
    changed = text
    if "WebsocketServer" not in names:
        django = f"django_{attribute}"
        changed = changed.rstrip("\n") + "\n" + DISPATCH.format(django=django, attribute=attribute, url=json.dumps(url))
    if early == "":
        changed = _with_patch(changed, tree)
    return Change(changed, _is_plain(tree), "")


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.alias):
        return node.name.split(".")
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")
    return [getattr(node, "id", ""), getattr(node, "attr", "")]


def _with_patch(text: str, tree: ast.Module) -> str:
    """Return the module with gevent's patch below what has to be at the top."""
    above = 0
    for number, statement in enumerate(tree.body):
        is_docstring = number == 0 and ast.get_docstring(tree) is not None
        if not is_docstring and not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__"):
            break
        above = statement.end_lineno or 0
    lines = text.splitlines(keepends=True)
    while above < len(lines) and lines[above].startswith("#!" if above == 0 else "# -*-"):
        above += 1
    rest = "".join(lines[above:]).lstrip("\n")
    head = "".join(lines[:above])
    return (f"{head}\n" if head else "") + f"{PATCH}\n{rest}"


def _is_plain(tree: ast.Module) -> bool:
    """Return whether a module has the statements of ``django-admin startproject``, and no others."""
    wanted = [
        "import os",
        "from django.core.wsgi import get_wsgi_application",
        "os.environ.setdefault('DJANGO_SETTINGS_MODULE', …)",
        "application = get_wsgi_application()",
    ]
    found = []
    for statement in tree.body[ast.get_docstring(tree) is not None :]:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and len(call.args) == 2 and isinstance(call.args[1], ast.Constant):
            call.args[1] = ast.Name("…")
        found.append(ast.unparse(statement))
    return sorted(found) == sorted(wanted)
