"""What an operator has left to do: settings and URLs that the site lacks, and the commands with which it is served."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls import Resolver404, resolve

from wsloop import conf
from wsloop.deploy.files import server_package
from wsloop.deploy.site import BEHIND_TLS, DATA, STATIC, Site, sqlite_files
from wsloop.options import ALIASES

KEY = "DJANGO_SECRET_KEY"
# Without DEBUG Django only mails errors, to ADMINS.
LOGGING = """LOGGING = {  # errors, and what wsloop refuses, into the log of the server
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}"""


def missing_settings(site: Site, parts: list[str]) -> list[str]:
    """Return lines for the end of the settings, as far as these lack what the files expect."""
    source = _source(site.settings)
    lines = []
    if settings.DEBUG and "DJANGO_DEBUG" not in source:
        lines.append('DEBUG = "DJANGO_DEBUG" in os.environ  # to develop: DJANGO_DEBUG=1 python manage.py runserver')
    if _is_in(source):
        lines.append(
            f'SECRET_KEY = os.environ.get("{KEY}") or (SECRET_KEY if DEBUG else "")  # without one nothing starts'
        )
    hosts = settings.ALLOWED_HOSTS
    if "*" in hosts or not set(site.hosts) <= {each.lower() for each in hosts}:
        lines.append(f"ALLOWED_HOSTS = {json.dumps([*site.hosts, 'localhost', '127.0.0.1'])}")
    base = "BASE_DIR" if hasattr(settings, "BASE_DIR") else f"Path({json.dumps(site.place)})"
    if site.static_root and not settings.STATIC_ROOT:
        lines.append(f'STATIC_ROOT = {base} / "{STATIC}"  # of manage.py collectstatic')
    for alias, database in settings.DATABASES.items():
        if Path(str(database.get("NAME") or "")).absolute() in _loose():
            file = Path(database["NAME"]).name
            lines.append(
                f'DATABASES["{alias}"]["NAME"] = {base} / "{DATA}" / "{file}"  '
                "# in the one directory that the server may write to"
            )
    if not settings.SECURE_PROXY_SSL_HEADER:
        lines.append(
            f"SECURE_PROXY_SSL_HEADER = {json.dumps(BEHIND_TLS).replace('[', '(').replace(']', ')')}  # nginx sets it"
        )
    if not (settings.SESSION_COOKIE_SECURE and settings.CSRF_COOKIE_SECURE):
        lines.append("SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG")
    if not settings.LOGGING:
        lines += LOGGING.splitlines()
    lines += _wsloop(source, {"docker", "kubernetes"} & set(parts) != set())
    if any("os.environ" in each for each in lines) and "import os\n" not in source:
        lines = ["import os", "", *lines]
    if lines and base.startswith("Path") and "import Path" not in source:
        lines.insert(0, "from pathlib import Path")
    return lines


def _is_in(source: str) -> bool:
    """Return whether the secret key is in this text."""
    try:
        return settings.SECRET_KEY in source
    except ImproperlyConfigured:  # it comes from the environment, which has none here
        return False


def _wsloop(source: str, contained: bool) -> Iterator[str]:
    """Yield the lines about Redis and the proxy."""
    redis = 'os.environ.get("REDIS_URL", "redis://localhost:6379/0")'
    options = {}
    if contained and "REDIS_URL" not in source:
        if hasattr(settings, ALIASES["REDIS"]):  # two that differ are refused
            yield f"{ALIASES['REDIS']} = {redis}"
        else:
            options["REDIS"] = redis
    if not conf.option("TRUSTED_PROXIES"):
        options["TRUSTED_PROXIES"] = '["127.0.0.1"]'
    if options:
        yield "WSLOOP |= {" if hasattr(settings, "WSLOOP") else "WSLOOP = {"
        comments = {"TRUSTED_PROXIES": "  # whose X-Forwarded-For counts: nginx; in containers it has other addresses"}
        yield from (f'    "{name}": {value},{comments.get(name, "")}' for name, value in options.items())
        yield "}"


def _loose() -> list[Path]:
    """Return the files of SQLite that are in the directory of the code."""
    base = Path(getattr(settings, "BASE_DIR", ".")).resolve()
    return [each for each in sqlite_files() if each.parent.resolve() == base]


def _source(module: str) -> str:
    """Return the text of the settings module; empty if it has none."""
    spec = importlib.util.find_spec(module)
    try:
        return Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    except OSError:
        return ""


def missing_urls(site: Site) -> list[str]:
    """Return lines for ``urlpatterns``, as far as the URLs of the probes lead nowhere."""
    lines: list[str] = []
    if not site.urls:
        return lines
    for name in ("healthz", "readyz"):
        try:
            resolve(f"/{name}")
        except Resolver404:
            lines.append(f'path("{name}", health.{name}),')
    return lines


def warnings(site: Site, parts: list[str]) -> Iterator[str]:
    """Yield sentences about what the files cannot help."""
    if {"docker", "kubernetes"} & set(parts) and site.requirements == "requirements.txt":
        named = _packages(site.directory / site.requirements)
        for name in (server_package(site), "wsloop"):
            if name not in named and not (name == "pyuwsgi" and ("uwsgi" in named or "wsloop[uwsgi]" in named)):
                yield f"requirements.txt does not name {name}, which the image needs."
    if "kubernetes" in parts and sqlite_files():
        yield "Pods share no SQLite: with more than one of them take PostgreSQL."
    if site.static_root and not site.static_url:
        yield "The site serves its static files itself, or STATIC_URL is another host: nginx has no location for them."
    elif site.static_root and site.server == "gunicorn" and {"docker", "kubernetes"} & set(parts):
        yield "gunicorn serves no static files: in a container add WhiteNoise to the site, or let the proxy serve them."
    if settings.SESSION_ENGINE.endswith(".cache") and "locmem" in str(settings.CACHES):
        yield "Sessions are in the memory of one worker: take the database, or a cache that all workers share."


def _packages(path: Path) -> set[str]:
    text = path.read_text(encoding="utf-8", errors="replace").lower()
    return {each.strip() for each in re.findall(r"^[ \t]*([a-z0-9._-]+(?:\[[a-z0-9, ]+\])?)", text, re.MULTILINE)} | (
        {"wsloop"} if "wsloop" in text else set()
    )


def commands(site: Site, parts: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield what to type next: what for, and the command lines."""
    programs = site.relative(site.programs)
    python = f"{programs}/python"
    place = shlex.quote(site.place)
    first = [f"cd {place}"]
    if _loose():
        files = " ".join(shlex.quote(each.name) for each in _loose() if each.exists())
        first.append(f"mkdir -p {DATA}" + (f" && mv {files} {DATA}/" if files else ""))
    make_key = f'import secrets; print("{KEY}=" + secrets.token_urlsafe(48))'
    secrets = f"test -e {site.name}.env || (umask 077 && {python} -c '{make_key}' > {site.name}.env)"
    first += [secrets, f"set -a && . ./{site.name}.env && set +a"]
    if apps.is_installed("django.contrib.sessions") or settings.DATABASES:
        first.append(f"{python} manage.py migrate")
    if site.static_root:
        first.append(f"{python} manage.py collectstatic --no-input")
    first.append(f"{python} manage.py check --deploy")
    yield "Prepare it, with a secret key in a file of its own (keep it out of the repository)", first
    if "server" in parts:
        server = "gunicorn" if site.server == "gunicorn" else "uwsgi uwsgi.ini"
        yield (
            f"Try the server: http://127.0.0.1:{site.port}/",
            [
                f"{programs}/{server}",
                f"curl http://127.0.0.1:{site.port}/readyz  # in another shell",
            ],
        )
    if "systemd" in parts:
        unit = f"{site.name}.service"
        lines = [f"sudo useradd --system --home-dir {place} --shell /usr/sbin/nologin {site.name}"]
        lines += [f"sudo chown -R {site.name}: {shlex.quote(each)}" for each in site.writable]
        lines += [
            f"sudo install -m 600 {site.name}.env /etc/{site.name}.env",
            f"sudo install -m 644 deploy/{unit} /etc/systemd/system/{unit}",
            f"sudo systemctl daemon-reload && sudo systemctl enable --now {site.name}",
        ]
        yield "Let systemd run it", lines
    if "nginx" in parts:
        # Through the directory that nginx serves, before and after: certbot renews in the way in which it began.
        way = "--webroot --webroot-path /var/www/html --deploy-hook 'systemctl reload nginx'"
        names = " ".join(f"-d {each.lstrip('.')}" for each in site.hosts)
        yield (
            "Put nginx in front",
            [
                f"sudo certbot certonly {way} {names}",
                f"sudo install -m 644 deploy/nginx.conf /etc/nginx/conf.d/{site.name}.conf",
                "sudo nginx -t && sudo systemctl reload nginx",
            ],
        )
    if "docker" in parts:
        yield "Or in containers", ["docker compose up --build --detach"]
    if "kubernetes" in parts:
        yield (
            "Or in Kubernetes, with the name of your image, and REDIS_URL in the file of secrets",
            [
                f"kubectl create secret generic {site.name} --from-env-file={site.name}.env",
                "kubectl apply --filename deploy/kubernetes.yaml",
            ],
        )
    yield (
        "See a message arrive: in the console of a browser that shows a page of the site, and then in a shell",
        [
            f'new WebSocket(`${{location.origin.replace("http", "ws")}}{site.url}hello?subscribe-broadcast`)'
            ".onmessage = (event) => console.log(event.data)",
            f"{python} manage.py wspublish hello 'It works' --broadcast",
        ],
    )
