"""``manage.py runserver`` that serves the site and its WebSockets, with gevent's WSGI server.

Django's auto-reload, options and static files work as usual. The process that serves must be patched by gevent before
anything else, so the command starts itself again, patched, unless manage.py has patched it. The process that only
watches it for Django's auto-reload is not started again: Django starts the next server with the same command line.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import gevent
from django.apps import apps
from django.core.management.base import CommandError
from django.core.management.commands.runserver import Command as RunserverCommand
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV
from gevent import monkey
from gevent.pywsgi import WSGIServer

from wsloop.pywsgi import Handler

if apps.is_installed("django.contrib.staticfiles"):
    from django.contrib.staticfiles.management.commands.runserver import Command as RunserverCommand

# The program with which the command starts itself again. Not `python -m gevent.monkey`, which looks for modules in the
# current directory: a file there with the name of a standard module would be imported first.
PATCHED = """
import sys
_, sys.path[0], how, *sys.argv = sys.argv
from gevent import monkey
monkey.patch_all()
import runpy
if how == "module":
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
# Options of Python that have a letter, by their names in sys.flags.
LETTERS = {
    "bytes_warning": "b",
    "debug": "d",
    "dont_write_bytecode": "B",
    "ignore_environment": "E",
    "isolated": "I",
    "no_site": "S",
    "no_user_site": "s",
    "optimize": "O",
    "quiet": "q",
    "safe_path": "P",
    "verbose": "v",
}


class Server:
    """gevent's server, with the interface of the server that Django's command runs."""

    def __init__(self, address: tuple[str, int], handler_class: type, ipv6: bool = False) -> None:
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        self._listener = WSGIServer.get_listener(address, family=family)
        self.server_port = self._listener.getsockname()[1]

    def set_app(self, application: Callable[..., Any]) -> None:
        self._application = application

    def serve_forever(self) -> None:
        hub = gevent.get_hub()
        hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)  # else gevent would write it before Django's command ends
        WSGIServer(self._listener, self._application, handler_class=Handler).serve_forever()


class Command(RunserverCommand):
    help = "Serves the site and its WebSockets for development, with auto-reload."
    server_cls = Server  # type: ignore[assignment]  # has the methods that the command calls

    def execute(self, *args: Any, **options: Any) -> Any:
        watches = options["use_reloader"] and os.environ.get(DJANGO_AUTORELOAD_ENV) != "true"
        if not watches and not monkey.is_module_patched("socket"):
            command = patched_command()
            os.execv(command[0], command)
        options["use_threading"] = False  # a greenlet serves each connection
        return super().execute(*args, **options)


def patched_command() -> list[str]:
    """Return the command line of this process for a process that gevent patches first.

    Raises:
        CommandError: if this process was started by neither a script nor a module (``python -c``).
    """
    options = [f"-W{each}" for each in sys.warnoptions]
    options += [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]
    letters = "".join(letter * int(getattr(sys.flags, name, 0)) for name, letter in LETTERS.items())
    if getattr(sys.stdout, "write_through", False):
        letters += "u"
    if letters:
        options.append(f"-{letters}")
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name.removesuffix("__main__").removesuffix(".") if spec is not None else ""
    if name:  # python -m
        how, program, directory = "module", name, os.getcwd()
    else:
        how, program = "script", sys.argv[0]
        if not os.path.exists(program):
            raise CommandError(
                "runserver cannot start itself again with gevent, because this process was started by neither a script "
                "nor a module. Begin it with `from gevent import monkey` and `monkey.patch_all()`, before any other "
                "import."
            )
        directory = os.path.dirname(os.path.realpath(program))
    if getattr(sys.flags, "safe_path", False) or sys.flags.isolated:
        directory = sys.path[0]  # Python has not inserted a directory
    return [sys.executable, *options, "-c", PATCHED, directory, how, program, *sys.argv[1:]]
