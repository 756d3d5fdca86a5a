"""What the files for a server have to know about a site: read from its settings, and from what the operator says.

Where the settings lack something, the files expect what :mod:`wsloop.deploy.advice` tells the operator to set. No
secret is read here, so none can get into a file.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from django.apps import apps
from django.conf import settings

from wsloop import conf

STATIC, DATA = "staticfiles", "data"  # directories that the site gets, where the settings have none
BEHIND_TLS = ("HTTP_X_FORWARDED_PROTO", "https")
HOMES = {"home", "root"}  # directories at the top that systemd's ProtectHome hides
EXAMPLE = "www.example.com"  # where neither the settings nor the operator name a host
# Characters that nginx, systemd, a shell and YAML all take as they are.
PLAIN_PATH = re.compile(r"/[\w./+@-]*", re.ASCII)
PLAIN_HOST = re.compile(
    r"(?=.{1,253}$)\.?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.I
)
PLAIN_NAME = re.compile(r"[a-z]([a-z0-9-]{0,29}[a-z0-9])?")  # of a service, a user and a Kubernetes object
LOOPBACK = re.compile(r"localhost|\[::1\]|127\.[\d.]+|testserver")
PING_MARGIN = 15  # seconds that a ping or its answer may be late


class Site(NamedTuple):
    """A site, as its server needs it.

    Attributes:
        name: of the service, its user, and its objects in Kubernetes.
        directory: where its modules are imported from, here; the files go there.
        place: the same directory on the server.
        settings, urls: the modules of settings and URLs; the latter may be empty.
        wsgi_path: file of the WSGI module, which may be missing.
        module, attribute: name of the WSGI module, and of the application in it.
        server: "uwsgi" or "gunicorn".
        hosts: its hosts; a dot at the beginning stands for all subdomains.
        port: where the server listens, behind its proxy.
        url: beginning of the path of all WebSockets.
        python: version, such as "3.11".
        programs: directory of the server's programs, those of its virtual environment.
        static_url: path of the static files; empty if the site serves them itself, or has none.
        static_root: directory of the collected static files on the server; empty if there are none.
        writable: directories that the site writes to, on the server.
        silence: seconds after which a proxy may take a connection for dead.
        mercy: seconds that a worker may take to end.
        requirements: name of the file of requirements, if the site has one; "." for a pyproject.toml alone.
        wheels: whether there is a directory of wheels beside it.
        packages: names of further packages that the settings need.
        leaving_file: see ``LEAVING_FILE``; empty without one.
        behind_tls: name and value of the header by which Django knows that a request came by TLS.
        home: whether something that it runs on is below a home directory.
    """

    name: str
    directory: Path
    place: str
    settings: str
    urls: str
    wsgi_path: Path
    module: str
    attribute: str
    server: str
    hosts: tuple[str, ...]
    port: int
    url: str
    python: str
    programs: str
    static_url: str
    static_root: str
    writable: tuple[str, ...]
    silence: int
    mercy: int
    requirements: str
    wheels: bool
    packages: tuple[str, ...]
    leaving_file: str
    behind_tls: tuple[str, str]
    home: bool

    @property
    def host(self) -> str:
        """The first of its hosts."""
        return self.hosts[0].lstrip(".")

    @property
    def variable(self) -> str:
        """Its name where there may be no hyphens."""
        return self.name.replace("-", "_")

    def relative(self, path: str) -> str:
        """Return a path on the server, relative to the site's directory if it is in there."""
        return path.removeprefix(f"{self.place}/")


def read(
    *, server: str = "uwsgi", hosts: list[str] | None = None, place: str = "", name: str = "", port: int = 8000
) -> Site:
    """Return what the settings say about the site.

    Args:
        server: "uwsgi" or "gunicorn".
        hosts: names of the site; by default those of ``ALLOWED_HOSTS``.
        place: absolute path of the site's directory on its server; by default that of this machine.
        name: of the service; by default that of the site's package.
        port: where the server listens, on the loopback.

    Raises:
        ValueError: if one of these cannot be used; the text says why, and what to do.
    """
    module = os.environ.get("DJANGO_SETTINGS_MODULE") or settings.SETTINGS_MODULE
    package = module.partition(".")[0]
    directory = _import_directory(package)
    place = (place or str(directory)).rstrip("/")
    if not PLAIN_PATH.fullmatch(place) or place == "":
        raise ValueError(
            f"The directory {place!r} has characters that nginx, systemd or a shell would take for something else, or "
            "is not absolute: name the site's directory on its server, such as --directory /srv/mysite."
        )
    name = name or re.sub(r"[^a-z0-9]+", "-", package.lower()).strip("-")
    if not PLAIN_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be the name of a service: --name mysite, of up to 31 lower-case letters, digits and "
            "hyphens, which begins with a letter."
        )
    if not 0 < port < 65536:
        raise ValueError("--port must be a number from 1 to 65535.")
    url = conf.websocket_url()
    if not PLAIN_PATH.fullmatch(url):
        raise ValueError(f"nginx would take {url!r}, the beginning of the path of all WebSockets, for something else.")
    wsgi_path, wsgi_module, attribute = _wsgi(directory, package)
    programs = _programs(directory, place)
    here = [os.path.realpath(sys.executable)] if place == str(directory) else []
    return Site(
        name=name,
        directory=directory,
        place=place,
        settings=module,
        urls=getattr(settings, "ROOT_URLCONF", ""),
        wsgi_path=wsgi_path,
        module=wsgi_module,
        attribute=attribute,
        server=server,
        hosts=_hosts(hosts),
        port=port,
        url=url,
        python=f"{sys.version_info[0]}.{sys.version_info[1]}",
        programs=programs,
        static_url=_static_url(),
        static_root=_static_root(directory, place),
        writable=_writable(directory, place),
        silence=max(75, 2 * conf.option("PING_INTERVAL") + PING_MARGIN),
        mercy=20,  # see docs/how-to/run-in-production.rst
        requirements=_requirements(directory),
        wheels=(directory / "wheels").is_dir(),
        packages=_packages(),
        leaving_file=conf.option("LEAVING_FILE") or "",
        behind_tls=_behind_tls(),
        home=any(HOMES & {*Path(each).parts[1:2]} for each in (place, programs, *here)),
    )


def _import_directory(package: str) -> Path:
    """Return the directory from which the package of the settings is imported."""
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve().parent
    if spec is not None and spec.origin:
        return Path(spec.origin).resolve().parent
    return Path(getattr(settings, "BASE_DIR", ".")).resolve()


def _wsgi(directory: Path, package: str) -> tuple[Path, str, str]:
    """Return file and name of the site's WSGI module, and the name of its application."""
    module, _, attribute = str(getattr(settings, "WSGI_APPLICATION", None) or "").rpartition(".")
    if module:
        path = directory.joinpath(*module.split(".")).with_suffix(".py")
        if path.exists() or module.partition(".")[0] == package:
            return path, module, attribute
    if (directory / package).is_dir():
        return directory / package / "wsgi.py", f"{package}.wsgi", "application"
    return directory / "wsgi.py", "wsgi", "application"


def _hosts(given: list[str] | None) -> tuple[str, ...]:
    for host in given or ():
        if not PLAIN_HOST.fullmatch(host):
            raise ValueError(f"{host!r} is not the name of a host: --host www.example.com, without scheme and port.")
    found = given or [each for each in settings.ALLOWED_HOSTS if PLAIN_HOST.fullmatch(each)]
    public = [each.lower() for each in found if given or not LOOPBACK.fullmatch(each)]
    return tuple(dict.fromkeys(public)) or (EXAMPLE,)


def _programs(directory: Path, place: str) -> str:
    """Return where the programs of the virtual environment are on the server."""
    here = Path(sys.prefix).resolve()
    if sys.prefix != sys.base_prefix and here.is_relative_to(directory):
        return f"{place}/{here.relative_to(directory)}/bin"
    if sys.prefix != sys.base_prefix and place == str(directory) and PLAIN_PATH.fullmatch(str(here)):
        return f"{here}/bin"
    return f"{place}/.venv/bin"


def _on_server(path: object, directory: Path, place: str) -> str:
    """Return a path of this machine as it is on the server: what is in the site's directory moves with it."""
    if not path:
        return ""
    found = Path(os.fspath(path)).absolute()  # type: ignore[call-overload]
    moved = f"{place}/{found.relative_to(directory)}" if found.is_relative_to(directory) else str(found)
    if not PLAIN_PATH.fullmatch(moved):
        raise ValueError(f"The path {moved!r} of the settings has characters that a server would not take as they are.")
    return moved.removesuffix("/.")


def _static_url() -> str:
    url = str(getattr(settings, "STATIC_URL", None) or "")
    itself = any("whitenoise" in each.lower() for each in settings.MIDDLEWARE)
    return url if not itself and re.fullmatch(r"/[\w./-]+/", url) else ""


def _static_root(directory: Path, place: str) -> str:
    if not apps.is_installed("django.contrib.staticfiles"):
        return ""
    return _on_server(getattr(settings, "STATIC_ROOT", None) or directory / STATIC, directory, place)


def sqlite_files() -> list[Path]:
    """Return the files of the site's databases, as far as they are SQLite's."""
    names = [
        str(each.get("NAME") or "")
        for each in settings.DATABASES.values()
        if each.get("ENGINE", "").endswith("sqlite3")
    ]
    return [Path(each).absolute() for each in names if each and ":" not in each]


def _writable(directory: Path, place: str) -> tuple[str, ...]:
    # SQLite keeps its journal beside the file.
    data = [directory / DATA if each.parent == directory else each.parent for each in sqlite_files()]
    paths = [getattr(settings, "MEDIA_ROOT", None), *data]
    return tuple(dict.fromkeys(filter(None, (_on_server(each, directory, place) for each in paths))))


def _packages() -> tuple[str, ...]:
    postgres = any("postgresql" in each.get("ENGINE", "") for each in settings.DATABASES.values())
    whitenoise = any("whitenoise" in each.lower() for each in settings.MIDDLEWARE)
    return ("psycopg",) * postgres + ("whitenoise",) * whitenoise


def _behind_tls() -> tuple[str, str]:
    name, value = (settings.SECURE_PROXY_SSL_HEADER or BEHIND_TLS)[:2]
    return name.removeprefix("HTTP_").replace("_", "-").title(), value


def _requirements(directory: Path) -> str:
    if (directory / "requirements.txt").is_file():
        return "requirements.txt"
    return "." if (directory / "pyproject.toml").is_file() else ""
