"""``manage.py runserver`` that serves the site and its WebSockets, with gevent's WSGI server.

Django's auto-reload, options and static files stay as they are. The process is patched by gevent before anything else,
so the command starts itself again under ``python -m gevent.monkey`` where manage.py has not done that.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from django.apps import apps
from django.core.management.commands.runserver import Command as RunserverCommand
from gevent import monkey
from gevent.pywsgi import WSGIHandler, WSGIServer

from wsloop.redaction import printable, redact

if apps.is_installed("django.contrib.staticfiles"):
    from django.contrib.staticfiles.management.commands.runserver import Command as RunserverCommand


class Handler(WSGIHandler):
    """Gives the WebSocket server the connection of the request, and logs no secrets."""

    requestline: str | None

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        environ["wsloop.socket"] = self.socket
        return environ

    def format_request(self) -> str:
        sent = self.requestline or ""
        self.requestline = redact(" ".join(map(printable, sent.split(" "))))
        try:
            return str(super().format_request())
        finally:
            self.requestline = sent

    def log_error(self, msg: str, *args: Any) -> None:
        super().log_error(redact(msg % args if args else msg))  # may have the line of a malformed request


class Server:
    """gevent's server behind the interface of the one that Django's command runs."""

    def __init__(self, address: tuple[str, int], handler_class: type, ipv6: bool = False) -> None:
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        self._listener = WSGIServer.get_listener(address, family=family)
        self.server_port = self._listener.getsockname()[1]

    def set_app(self, application: Callable[..., Any]) -> None:
        self._application = application

    def serve_forever(self) -> None:
        WSGIServer(self._listener, self._application, handler_class=Handler).serve_forever()


class Command(RunserverCommand):
    help = "Serves the site and its WebSockets for development, with auto-reload."
    server_cls = Server  # type: ignore[assignment]  # has what the command calls

    def execute(self, *args: Any, **options: Any) -> Any:
        if not monkey.is_module_patched("socket"):
            warnings = [f"-W{option}" for option in sys.warnoptions]
            # With -m Python looks for modules where it was started, not where manage.py is.
            paths = filter(None, [sys.path[0], os.environ.get("PYTHONPATH")])
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
            os.execve(sys.executable, [sys.executable, *warnings, "-m", "gevent.monkey", *sys.argv], environment)
        options["use_threading"] = False  # a greenlet serves each connection
        return super().execute(*args, **options)
