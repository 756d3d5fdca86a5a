"""For sites that run gevent's own WSGI server: a handler of its requests that logs no secrets.

::

    server = WSGIServer(("127.0.0.1", 8000), application, handler_class=wsloop.pywsgi.Handler)

Sockets work without it, but a token in a URL is refused, because the log would have it.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from gevent.pywsgi import WSGIHandler

from wsloop.redaction import printable, redact, request_line
from wsloop.sockets.pywsgi import SOCKET

PARAMETER = "token"  # of the query, whose value is a secret


class Handler(WSGIHandler):
    """``handler_class`` of ``gevent.pywsgi.WSGIServer``: passes the connection on, and logs no secrets.

    Values of the query parameter ``token``, tokens as subprotocols and session keys are replaced in its lines.
    """

    requestline: str | None

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        environ[SOCKET] = self.socket
        return environ

    def format_request(self) -> str:
        sent = self.requestline or ""
        line = printed = " ".join(map(printable, sent.split(" ")))
        line = redact(line)
        if line == printed and PARAMETER in unquote(sent).lower():  # it is written in another way
            method, _, rest = sent.partition(" ")
            line = request_line(method, rest.rpartition(" ")[0])
        self.requestline = line
        try:
            return str(super().format_request())
        finally:
            self.requestline = sent

    def log_error(self, msg: str, *args: Any) -> None:
        super().log_error(redact(msg % args if args else msg))  # may contain the line of a malformed request


__all__ = ["Handler"]
