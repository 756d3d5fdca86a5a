"""The WSGI servers beside uWSGI: the commands with which gunicorn and gevent's own server serve a site."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

PYTHON_SERVERS = ("gunicorn", "pywsgi")


def command(server: str, address: str, processes: int, requests: int, options: Sequence[str]) -> list[str]:
    """Return the command of a server.

    Args:
        server: one of ``PYTHON_SERVERS``.
        address: where it listens.
        processes: workers; gevent's own server has none.
        requests: that a worker answers at the same time.
        options: of the server; and ``--module`` as uWSGI has it, by default ``wsgi``.
    """
    module, others, rest = "wsgi", [], iter(options)
    for option in rest:
        if option == "--module":
            module = next(rest)
        else:
            others.append(option)
    if server == "pywsgi":
        return [sys.executable, "-m", "testbed.sample.pywsgi_server", address, module, *others]
    gunicorn = [str(Path(sys.executable).with_name("gunicorn")), "--bind", address, "--workers", str(processes)]
    gunicorn += ["--worker-class", "gevent", "--worker-connections", str(requests), "--access-logfile", "-"]
    return [*gunicorn, *others, f"{module}:application"]


def children(pid: int) -> list[int]:
    """Return the process ids of the children of a process, as Linux has them."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
