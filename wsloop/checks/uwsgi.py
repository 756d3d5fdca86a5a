"""Options of uWSGI that hurt sockets: those in ``uwsgi.ini``, and those in force in a worker.

This module must not know uWSGI itself: a function returns its options.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from django.conf import settings

from wsloop import conf
from wsloop.checks.problem import Problem, warn

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

Options = Callable[[str], list[str]]


def ini(path: Path | None = None) -> Options | None:
    """Return the options of a file, by default ``uwsgi.ini`` in the current directory or ``BASE_DIR``.

    Returns:
        None if there is no such file there.

    Raises:
        OSError: if the file that is named cannot be read.
    """
    if path is None:
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


def ini_problems() -> Iterator[Problem]:
    """Yield the findings about ``uwsgi.ini``."""
    options = ini()
    if options is not None:
        for problem in problems(options):
            yield problem._replace(message=f"uwsgi.ini: {problem.message}")


def problems(option: Options) -> Iterator[Problem]:
    """Yield the options of uWSGI that hurt sockets.

    Args:
        option: returns the values that an option was given; empty if it was not given.
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
            "Remove it, and bound slow requests by the timeouts of databases and of HTTP clients.",
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
        # Who tries a server out by hand needs no goodbyes.
        # A running uWSGI tells of an option that is given several times only the last.
        hooks = [each.partition(" ")[2] for each in option("hook-master-start")]
        if not settings.DEBUG and not {"gracefully_kill_them_all", "uwsgi_reload_workers"} & set(hooks):
            yield Problem(
                "a stop ends the router before the workers: no socket gets a close frame, and all clients reconnect at "
                "once.",
                "Add the `hook-…` lines of docs/how-to/run-in-production.rst, or put nginx before an http-socket.",
                "W018",
            )
    ending = [name for name in ENDING if option(name)]
    if ending:
        yield Problem(
            f"{', '.join(ending)} ends workers while they hold sockets, which do not count as requests: all of them "
            "break at once, and their clients reconnect at once.",
            "Remove it and find out what grows; or accept it, and name this warning in SILENCED_SYSTEM_CHECKS.",
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
            f"http-timeout ({timeout:g} s) cuts idle sockets; pings are sent every {interval:g} s.",
            f"Set http-timeout to {interval + LATE:g} or more, or PING_INTERVAL of WSLOOP to less.",
            "W010",
        )


def warn_about_uwsgi(option: Options) -> None:
    """Log the options of the running uWSGI that hurt sockets. Called once by each worker.

    Args:
        option: returns the values that an option was given; empty if it was not given.
    """
    warn("uWSGI", problems(option))
