"""The files that a site needs on its server, each with its text: templates beside this module, filled in.

This module must not write them.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import re
from pathlib import Path
from typing import NamedTuple

from django.template import Context, Engine

from wsloop import conf
from wsloop.deploy import wsgi_module
from wsloop.deploy.site import Site

PARTS = ("wsgi", "server", "nginx", "systemd", "docker", "kubernetes")
PRE_STOP = 5  # seconds in which proxies learn that a container leaves
SPARE = 10  # seconds that a supervisor waits longer than the server does
TEMPLATES = Path(__file__).with_name("templates")


class File(NamedTuple):
    """A file that the site needs.

    Attributes:
        path: where it goes.
        text: its content.
        old: its present content, None if there is none.
        edited: whether the content is the present one with lines added, which are the site's as they were.
        note: why it is not written, and what to do, a sentence; empty if it may be.
    """

    path: Path
    text: str
    old: str | None
    edited: bool = False
    note: str = ""

    @property
    def changes(self) -> bool:
        """Whether it is not there, or differs."""
        return self.text != self.old


def files(site: Site, parts: list[str]) -> list[File]:
    """Return what the site needs.

    Args:
        site: see :mod:`wsloop.deploy.site`.
        parts: names of ``PARTS``.

    Raises:
        OSError, ValueError: if a file that is there cannot be read.
    """
    found: list[File] = []
    if "wsgi" in parts:
        found.append(_wsgi(site))
    if "server" in parts:
        name = "gunicorn.conf.py" if site.server == "gunicorn" else "uwsgi.ini"
        found.append(_filled_in(site, name, name))
    if "nginx" in parts:
        found.append(_filled_in(site, "nginx.conf", "deploy/nginx.conf"))
    if "systemd" in parts:
        found.append(_filled_in(site, "systemd.service", f"deploy/{site.name}.service"))
    if "docker" in parts:
        if not site.requirements:
            found.append(_filled_in(site, "requirements.txt", "requirements.txt"))
        found.append(_filled_in(site, "Dockerfile", "Dockerfile"))
        found.append(_filled_in(site, "dockerignore", ".dockerignore"))
        found.append(_filled_in(site, "compose.yaml", "compose.yaml"))
    if "kubernetes" in parts:
        found.append(_filled_in(site, "kubernetes.yaml", "deploy/kubernetes.yaml"))
    return found


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _wsgi(site: Site) -> File:
    old = _read(site.wsgi_path)
    text = old if old is not None else wsgi_module.NEW.format(settings=site.settings, attribute=site.attribute)
    change = wsgi_module.change(text, site.attribute, site.url)
    note = change.problem
    if not note and change.text != old and old is not None and not change.plain:
        note = "It has code of the site: see whether these lines fit, and add them, or let --force do it."
    return File(site.wsgi_path, change.text, old, True, note)


def _filled_in(site: Site, template: str, name: str) -> File:
    path = site.directory / name
    return File(path, _template(template).render(Context(_values(site), autoescape=False)), _read(path))


@functools.cache
def _template(name: str):  # type: ignore[no-untyped-def]  # of Django's engine
    text = (TEMPLATES / f"{name}.tpl").read_text(encoding="utf-8")
    # A line that has nothing but a tag leaves no empty line behind.
    text = re.sub(r"^[ \t]*(\{%[^%]*%\})[ \t]*\n", r"\1", text, flags=re.MULTILINE)
    return Engine(autoescape=False).from_string(text)


def _values(site: Site) -> dict[str, object]:
    gunicorn = site.server == "gunicorn"
    command = "gunicorn" if gunicorn else "uwsgi uwsgi.ini"
    probe = {"Host": site.host, site.behind_tls[0]: site.behind_tls[1]}
    inside = {each: site.relative(each) for each in site.writable if each.startswith(f"{site.place}/")}
    stop_seconds = site.mercy + SPARE
    leaving = f"touch {site.leaving_file}; " if site.leaving_file else ""
    return {
        "site": site,
        "command": f"{site.programs}/{command}",
        "container_command": json.dumps(command.split()),
        "container_data": [f"/app/{each}" for each in inside.values()],
        "not_in_image": [
            each for each in [*inside.values(), site.relative(site.static_root)] if each[:1] not in ("", "/")
        ],
        "grace_seconds": PRE_STOP + stop_seconds,
        "image": f"registry.example.com/{site.name}:latest",
        "has_static": bool(site.static_root),
        "ping_interval": conf.option("PING_INTERVAL"),
        "pre_stop": f"{leaving}sleep {PRE_STOP}",
        "probe_headers": json.dumps(probe).replace('"', "'"),
        "probe_pairs": list(probe.items()),
        "protect_home": "read-only" if site.home else "yes",
        "reload": "/bin/kill -HUP $MAINPID" if gunicorn else f"/usr/bin/touch /run/{site.name}/reload",
        "requirements": requirements(site),
        "server_names": " ".join(site.hosts),
        "server_package": server_package(site),
        "static": site.static_url.rstrip("/") if site.static_root else "",
        "static_root": site.relative(site.static_root),
        "stop_seconds": stop_seconds,
    }


def server_package(site: Site) -> str:
    """Return the name of the package with the server."""
    return "gunicorn" if site.server == "gunicorn" else "pyuwsgi"


def requirements(site: Site) -> list[str]:
    """Return the lines of a file of requirements for a site that has none: what runs it here."""
    names = ["django", "wsloop", server_package(site), *site.packages]
    return [f"{name}~={_release(name)}" if _version(name) else name for name in names]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _release(name: str) -> str:
    """Return the numbers of a version, such as "5.2.1" for "5.2.1.post1"."""
    found = re.match(r"\d+(\.\d+)*", _version(name))
    numbers = found[0] if found else "0"
    return numbers if "." in numbers else f"{numbers}.0"
