"""Checks before the site starts. On failure it exits with one line that says what to do, without a traceback.

``wsgi.py``, ``manage.py`` and ``make run`` call it first.
"""

from __future__ import annotations

import os
import sys

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandParser, handle_default_options
from django.db import DEFAULT_DB_ALIAS, connections

from project import embedded_redis

NO_SECRET_KEY = (
    "The site has no secret key: set DJANGO_SECRET_KEY to a long random text, "
    "or DEMO=1 to try the site out, or DJANGO_DEBUG=1 to develop it."
)
# uWSGI's exit code for "the application could not be loaded": if a worker exits with it during a reload, uWSGI tries
# again, while the other workers go on serving.
COULD_NOT_LOAD = 22


class RefusedError(Exception):
    """The site must not start; the text is one line that says why and what to do."""


def prepare() -> None:
    """Check the settings and start the embedded Redis if they use it; on failure print one line and exit."""
    try:
        check()
        if uses_embedded_redis():
            embedded_redis.use(settings.VAR_DIR, _master())
    except (RefusedError, embedded_redis.EmbeddedRedisError) as exc:
        print(exc, file=sys.stderr)
        sys.exit(COULD_NOT_LOAD)


def _master() -> int:
    """Return the process id of uWSGI's master, or the one that gunicorn.conf.py tells; 0 where there is none."""
    try:
        import uwsgi
    except ImportError:
        return int(os.environ.get("SITE_MASTER", 0))
    return int(uwsgi.masterpid())


def check() -> None:
    """Check that the settings can be read and have a secret key; create the directories that the site writes to.

    Raises:
        RefusedError: if the site must not start with these settings.
    """
    module = os.environ.get("DJANGO_SETTINGS_MODULE", "")
    try:
        variable_files = getattr(settings, "VAR_DIR", None)  # the first access imports the settings
    except ModuleNotFoundError as exc:
        if exc.name and (module == exc.name or module.startswith(f"{exc.name}.")):
            raise RefusedError(f"DJANGO_SETTINGS_MODULE is {module}, but there is no module {exc.name}.") from exc
        raise
    except ImproperlyConfigured as exc:
        raise RefusedError(str(exc)) from exc
    try:
        settings.SECRET_KEY  # noqa: B018 - Django raises on access if it is empty
    except ImproperlyConfigured as exc:
        raise RefusedError(NO_SECRET_KEY) from exc
    try:
        connections[DEFAULT_DB_ALIAS]  # loads the driver, does not connect
    except ImproperlyConfigured as exc:
        raise RefusedError(
            f"{str(exc).splitlines()[0].rstrip('.')}; install the driver of DATABASE_URL with pip."
        ) from exc
    if variable_files:
        try:
            # With the directory of static files, even if none were collected: WhiteNoise warns if it is missing.
            (variable_files / "static").mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise RefusedError(f"Cannot create {variable_files}: {exc.strerror}") from exc


def check_command(arguments: list[str]) -> None:
    """Call ``check`` for ``manage.py``, whose ``arguments`` may name other settings, or only request help.

    Raises:
        RefusedError: as ``check``.
    """
    if len(arguments) < 2 or {"help", "version"} & {arguments[1]} or {"--help", "-h", "--version"} & set(arguments):
        return
    parser = CommandParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--settings")
    parser.add_argument("--pythonpath")
    options, _ = parser.parse_known_args(arguments[2:])
    handle_default_options(options)
    check()


def uses_embedded_redis() -> bool:
    """Return whether the settings use the embedded Redis of their ``VAR_DIR``, as they do without ``REDIS_URL``."""
    from wsloop import conf  # the checks before work without it

    directory = getattr(settings, "VAR_DIR", None)
    connection = conf.unchecked("REDIS")
    if directory is None or not isinstance(connection, dict):
        return False
    return connection.get("unix_socket_path") == str(embedded_redis.socket_path(directory))
