"""The machine and the server: descriptors, the queue of connections, and options that hurt sockets.

The limits are those of the process that runs the command, unless a running server is named.
"""

from __future__ import annotations

import re
import resource
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core import checks

from wsloop import conf
from wsloop.checks import gunicorn, uwsgi
from wsloop.diagnosis.finding import NOTE, OK, WRONG, Finding

SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
UWSGI_LISTEN, GUNICORN_BACKLOG = 100, 2048  # their defaults
LEAST_LISTEN = 1024  # connections that wait to be accepted: after a restart all clients come back within seconds


def findings(config: Path | None = None, pid: int | None = None) -> Iterator[Finding]:
    """Look at the settings, the server's configuration and the machine.

    Args:
        config: a ``uwsgi.ini`` or ``gunicorn.conf.py``; None: the ``uwsgi.ini`` in the current directory or BASE_DIR.
        pid: of a running server, whose limits count; None: those of this process.

    Raises:
        OSError: if the file, or the process, cannot be read.
    """
    silent = True
    for each in checks.run_checks(include_deployment_checks=True):
        # That of uwsgi.ini is looked at below, if another file is named.
        if str(each.id).startswith("wsloop.") and not (config and each.msg.startswith("uwsgi.ini: ")):
            silent = False
            yield Finding(WRONG if each.level >= checks.WARNING else NOTE, str(each.id), each.msg, each.hint or "")
    if silent:
        yield Finding(OK, "Settings", "manage.py check --deploy finds nothing of wsloop's")
    listen = None
    if config is not None and config.suffix == ".py":
        options = runpy.run_path(str(config))
        yield from _gunicorn_findings(config.name, options)
        listen = int(options.get("backlog", GUNICORN_BACKLOG))
    else:
        found = uwsgi.ini(config)
        if config is not None and found is not None:
            for problem in uwsgi.problems(found):
                yield Finding(WRONG, f"wsloop.{problem.number}", f"{config.name}: {problem.message}", problem.hint)
        if found is not None:
            given = [each for each in found("listen") if each.isdigit()]
            listen = int(given[-1]) if given else UWSGI_LISTEN
    yield _descriptors(pid)
    if listen is not None:
        yield _backlog(listen)


def _gunicorn_findings(name: str, options: dict[str, Any]) -> Iterator[Finding]:
    worker = options.get("worker_class", "sync")  # gunicorn's default
    runs_gevent = gunicorn.WORKER in str(worker)  # or the path of its class
    options = {**options, "worker_class": gunicorn.WORKER if runs_gevent else worker}
    for problem in gunicorn.problems(options.get):
        yield Finding(WRONG, "gunicorn", f"{name}: {problem.message}", problem.hint)
    if runs_gevent:
        yield Finding(OK, "gunicorn", "its workers run on gevent")


def _descriptors(pid: int | None) -> Finding:
    if pid is None:
        limit, whose = resource.getrlimit(resource.RLIMIT_NOFILE)[0], "this shell"
    else:
        found = re.search(r"^Max open files +(\d+|unlimited)", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
        limit = int(found[1]) if found and found[1].isdigit() else resource.RLIM_INFINITY
        whose = f"the process {pid}"
    most = conf.option("MAX_CONNECTIONS")
    if limit == resource.RLIM_INFINITY or (most is not None and limit * 3 // 4 >= most):
        return Finding(OK, "Descriptors", f"{whose} may have enough")
    wanted = "any number of them" if most is None else f"{most}, as MAX_CONNECTIONS says"
    needed = "1048576" if most is None else str(-(-most * 4 // 3))
    return Finding(
        NOTE if pid is None else WRONG,  # the server has a limit of its own, of systemd for example
        "Descriptors",
        f"{whose} may have {limit}, so a worker holds {limit * 3 // 4} sockets and not {wanted}",
        f"Start the server with `ulimit -n {needed}`, with systemd LimitNOFILE={needed}.",
    )


def _backlog(listen: int) -> Finding:
    try:
        most = int(SOMAXCONN.read_text())
    except (OSError, ValueError):
        return Finding(NOTE, "Backlog", f"the kernel does not say what it allows; the server asks for {listen}")
    if listen > most:
        return Finding(
            WRONG,
            "Backlog",
            f"the server asks for {listen} waiting connections, the kernel allows {most}",
            f"sysctl -w net.core.somaxconn={listen}, and the same in /etc/sysctl.d/.",
        )
    if listen < LEAST_LISTEN:
        return Finding(
            NOTE,
            "Backlog",
            f"{listen} connections may wait; after a restart all clients come back within seconds",
            f"With more than {listen} clients set listen = {LEAST_LISTEN} (uWSGI), "
            f"and net.core.somaxconn to as much; it is {most}.",
        )
    return Finding(OK, "Backlog", f"{listen} connections may wait")


__all__ = ["findings"]
