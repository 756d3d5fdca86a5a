"""A Python that has imported what every site imports, and forks for each script that starts: four fifths of a start.

It has imported nothing that reads settings, and does what the script does first: with ``patched`` it is gevent's from
its first line on, as ``wsgi.py`` has it. A script becomes the leader of a session, and its environment, arguments and
descriptors are those that it would have been started with. What ``PYTHON…`` variables change when Python itself starts
is not to be had here, but for ``PYTHONPATH``. A script that wants to start itself again, as the master of uWSGI does
after SIGHUP, would find the arguments of this process: it has to start cold.

This module is both ends: ``python -m testbed.warm_python`` is the one that forks.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
# fmt: off
MODULES = [
    "asyncio", "csp.middleware", "dj_database_url", "django.contrib.admin.sites", "django.contrib.admin.widgets",
    "django.contrib.auth.hashers", "django.contrib.auth.password_validation", "django.contrib.messages.middleware",
    "django.contrib.messages.storage.fallback", "django.contrib.sessions.middleware",
    "django.contrib.staticfiles.finders", "django.contrib.staticfiles.storage", "django.core.handlers.asgi",
    "django.core.management.base", "django.core.wsgi", "django.db.backends.sqlite3.base", "django.db.models",
    "django.forms", "django.middleware.clickjacking", "django.middleware.common", "django.middleware.csrf",
    "django.middleware.security", "django.template.backends.django", "django.template.defaulttags",
    "django.template.loader_tags", "django.views.debug", "django.views.generic", "django.views.static", "gevent.pool",
    "gevent.queue", "gevent.subprocess", "gevent.threadpool", "prometheus_client", "redis", "redis.asyncio",
    "redis.cluster", "redis.sentinel", "sqlparse", "websockets.extensions.permessage_deflate", "websockets.server",
    "whitenoise.middleware", "whitenoise.storage", "wsloop.checks", "wsloop.consumers", "wsloop.layers",
    "wsloop.protocol.frames", "wsloop.runtime.coroutines",
]
# fmt: on
ORDER = 1 << 18  # bytes that an order may have


class Script:
    """A script that runs in a fork, with the methods of ``subprocess.Popen`` that its users need.

    Attributes:
        cpu: seconds of a core that all scripts have taken: they are not among the children of this process.
    """

    cpu = 0.0
    stdin = None

    def __init__(self, line: socket.socket, command: Sequence[str]) -> None:
        self._line = line  # tells the process id, and the exit status at the end
        self._command = command
        self.returncode: int | None = None
        self.pid = int(self._line.recv(100))

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._line.settimeout(timeout)
            try:
                status, cpu = self._line.recv(100).split()
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self._command, timeout or 0.0) from None
            self._line.close()
            self.returncode = os.waitstatus_to_exitcode(int(status))
            Script.cpu += float(cpu)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmPython:
    """The process that forks. It ends with the process that has started it."""

    def __init__(self, patched: bool) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-u", "-m", __name__, str(theirs.fileno()), *(["patched"] if patched else [])]
            env = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "PYTHON"))}
            self._popen = subprocess.Popen(
                command, cwd=ROOT, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )

    def start(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        stdout: IO[Any],
        stderr: IO[Any] | None = None,
        stdin: IO[Any] | None = None,
    ) -> Script:
        """Start a Python script, its path and arguments, at the root of the checkout.

        Without ``stdin`` it has nothing to read; without ``stderr`` it has that of this process.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open(os.devnull) as nothing:
            order = json.dumps({"script": command[0], "arguments": command[1:], "env": dict(env)}).encode()
            assert len(order) < ORDER
            standard = [(stdin or nothing).fileno(), stdout.fileno(), stderr.fileno() if stderr else 2]
            socket.send_fds(self._line, [order], [theirs.fileno(), *standard])
        return Script(ours, command)


@functools.cache
def warm_python(patched: bool) -> WarmPython:
    """Return the one of this process."""
    return WarmPython(patched)


def can_be_warm(env: Mapping[str, str]) -> bool:
    """Return whether a Python that has started before makes no difference to a script with this environment."""
    known = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONUNBUFFERED"}
    read_at_import = {"PROMETHEUS_MULTIPROC_DIR"}
    return not {name for name in env if name.startswith("PYTHON") or name in read_at_import} - known


# --- the other end ----------------------------------------------------------------------------------------------------


def run(script: str, arguments: list[str], env: dict[str, str], standard: Sequence[int]) -> None:
    """Be the script from now on."""
    os.setsid()
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    sys.path[1:1] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    runpy.run_path(script, run_name="__main__")
    sys.exit()


def main(line: socket.socket, patched: bool) -> None:
    """Fork for each order a process that tells of the script, and from this one the script."""
    # gevent's would want its event loop, which is not to be forked.
    fork, wait4, on_signal, receive = os.fork, os.wait4, signal.signal, socket.recv_fds
    if patched:
        from gevent import monkey

        monkey.patch_all()
    for module in MODULES:
        importlib.import_module(module)
    assert not [name for name, module in sys.modules.items() if getattr(module, "uwsgi", module) is None], (
        "has looked for the module uwsgi before there is one"
    )
    gc.collect()
    gc.freeze()  # or the collector of each fork would look at all of it again, and so copy it
    on_signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        order, descriptors, _, _ = receive(line, ORDER, 4)
        if not order:
            return
        if not fork():
            break
        for descriptor in descriptors:
            os.close(descriptor)
    line.close()
    on_signal(signal.SIGCHLD, signal.SIG_DFL)
    tell, *standard = descriptors
    if pid := fork():
        os.write(tell, str(pid).encode())
        _, status, usage = wait4(pid, 0)
        with contextlib.suppress(OSError):  # nobody wants to know
            os.write(tell, f"{status} {usage.ru_utime + usage.ru_stime}".encode())
        os._exit(0)
    os.close(tell)
    run(**json.loads(order), standard=standard)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), "patched" in sys.argv)
