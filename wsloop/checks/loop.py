"""Whether the module that serves the site gives the URLs of sockets to wsloop at all."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from wsloop import conf
from wsloop.checks.patching import site_module, source
from wsloop.checks.problem import Problem


def problems() -> Iterator[Problem]:
    """Yield the finding, if neither the WSGI module of the site nor a module that it imports is about wsloop."""
    name = site_module()
    path = source(name)
    if path is None:
        return  # check --deploy says so
    try:
        text = path.read_text()
        if "wsloop" in text:
            return
        root = path.parents[name.count(".")]
        if any("wsloop" in other.read_text() for other in _imported(ast.parse(text), root)):
            return
    except (OSError, SyntaxError, ValueError):
        return  # likewise
    yield Problem(
        f"{path} does not name wsloop: the handshakes of sockets below {conf.websocket_url()} reach Django itself, "
        "which knows no such URL.",
        "Let its application hand these requests to wsloop.server.WebsocketServer(), as the README shows, or let "
        "WSGI_APPLICATION name a module that does. If another module serves the sockets, name wsloop.W020 in "
        "SILENCED_SYSTEM_CHECKS.",
        "W020",
    )


def _imported(module: ast.Module, root: Path) -> Iterator[Path]:
    """Yield the files of the site that a module imports; one of them may have made the application. Imports nothing."""
    for node in ast.walk(module):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            place = root.joinpath(*name.split("."))
            yield from filter(Path.is_file, (place.with_suffix(".py"), place / "__init__.py"))


__all__ = ["problems"]
