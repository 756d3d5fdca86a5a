"""Calls: requests to the site's own URLs, sent over an open socket, as far as the setting ``CALL_PATHS`` allows them.

A call goes through all of Django's middleware, like any request: sessions, permissions, throttles. It needs no CSRF
token, because the Origin of the page was checked when the socket was opened (:mod:`wsloop.origin`). This module must
not know connections.
"""

from __future__ import annotations

import fnmatch
import functools
import io
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http import HttpResponseBase

from wsloop import conf, tokens
from wsloop.facilities.failures import Refusal
from wsloop.protocol import strict_json
from wsloop.protocol.commands import Call
from wsloop.visit import Visit

JSON = ("application/json", "application/problem+json")  # the second: RFC 9457
NOT_ALLOWED = "This site does not allow calls of this path."


class CallRequest(WSGIRequest):
    """A request whose page is known."""

    # Django's middleware and REST framework look at this; another site cannot send frames over this socket.
    _dont_enforce_csrf_checks = True


class CallHandler(WSGIHandler):
    request_class = CallRequest


@functools.cache
def handler() -> CallHandler:
    """Return the handler of this process; the first call loads the middleware, which may take half a second."""
    return CallHandler()


def _start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
    """Take the head of the response, which the response itself has, too (PEP 3333)."""
    return io.BytesIO().write


def call(visit: Visit, command: Call) -> dict[str, Any]:
    """Carry out a call, and return ``status`` and ``data`` for the answer. Blocks as long as the view does.

    Args:
        visit: of the client.
        command: what to call.

    Raises:
        Refusal: if the path is not allowed, or the response cannot be sent over a socket.
    """
    quoted, _, query = command.path.partition("?")
    try:
        path = visit.below_prefix(unquote(quoted, errors="strict"))
    except UnicodeDecodeError:
        raise Refusal("refused", NOT_ALLOWED) from None
    if not path.isprintable() or not any(fnmatch.fnmatchcase(path, each) for each in conf.option("CALL_PATHS")):
        raise Refusal("refused", NOT_ALLOWED)
    body = None if command.data is None else command.data.encode()
    environ = visit.environ(command.method, path, query, body)
    if tokens.given(visit.handshake(conf.websocket_url(), {})) is not None:
        # The cookie may be of another user than the token, who is that of the socket. Views know no tokens.
        environ.pop("HTTP_COOKIE", None)
    tokens.remove_from_headers(environ)  # reports of errors would show it
    environ.pop("HTTP_SEC_WEBSOCKET_PROTOCOL", None)
    response = handler()(environ, _start_response)
    try:
        return _content(response, command.method)
    finally:
        response.close()


def _content(response: HttpResponseBase, method: str) -> dict[str, Any]:
    content: dict[str, Any] = {"status": response.status_code}
    if "Location" in response:
        content["location"] = response["Location"]
    if method == "HEAD" or response.get("Content-Type", "").partition(";")[0].strip() not in JSON:
        return content
    most = conf.option("MAX_QUEUED_BYTES") // 4
    body = io.BytesIO()
    for part in response:
        body.write(part)
        if body.tell() > most:
            raise Refusal("refused", f"The response has more than {most} bytes: a quarter of MAX_QUEUED_BYTES.")
    if body.tell():
        content["data"] = strict_json.decode(body.getvalue())
    return content


__all__ = ["call", "handler"]
