"""What a socket keeps of its handshake, so that the site's code can be asked again: requests like the handshake's.

The request itself, or its environ, would be most of the memory of a socket. Kept are the variables of the environ that
say who the client is; what all clients of one kind have in common, such as the name of the browser, is kept once. This
module must not know Redis, gevent or sockets.
"""

from __future__ import annotations

import functools
import io
import re
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from django.core.handlers.wsgi import WSGIRequest, get_script_name

# Of the handshake alone; and what is different in each request.
DROPPED = {
    *("CONTENT_LENGTH", "CONTENT_TYPE", "PATH_INFO", "QUERY_STRING", "RAW_URI", "REQUEST_METHOD", "REQUEST_URI"),
    *("HTTP_ACCEPT", "HTTP_CACHE_CONTROL", "HTTP_CONNECTION", "HTTP_CONTENT_LENGTH", "HTTP_PRAGMA", "HTTP_UPGRADE"),
    *("HTTP_SEC_WEBSOCKET_EXTENSIONS", "HTTP_SEC_WEBSOCKET_KEY", "HTTP_SEC_WEBSOCKET_VERSION", "HTTP_TE"),
    *("REMOTE_PORT", "HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "HTTP_LAST_EVENT_ID"),
    # Of a response: none is to be compressed, cut, or left out.
    *("HTTP_ACCEPT_ENCODING", "HTTP_IF_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_IF_RANGE"),
    *("HTTP_IF_UNMODIFIED_SINCE", "HTTP_RANGE"),
}
OWN = {"HTTP_COOKIE", "HTTP_AUTHORIZATION", "HTTP_SEC_WEBSOCKET_PROTOCOL", "REMOTE_ADDR", "HTTP_X_FORWARDED_FOR"}
OF_SUBSCRIPTIONS = re.compile("((subscribe|publish)-.*|echo|resume)", re.IGNORECASE | re.DOTALL)  # parameters
SHARED_SIZE = 1024  # values of other variables, and sets of names, that are kept once


@functools.lru_cache(maxsize=SHARED_SIZE)
def _shared(value: Any) -> Any:
    return value


class Visit:
    """A client, as the site's code has seen it at the handshake.

    Args:
        environ: of the handshake, before anything was removed from it (PEP 3333), but a request was made of it, which
            leaves ``SCRIPT_NAME`` as text.
    """

    __slots__ = ("_names", "_parameters", "_values")

    def __init__(self, environ: Mapping[str, Any]) -> None:
        kept = {
            name: value
            for name, value in environ.items()
            if isinstance(value, str) and name not in DROPPED and ("." not in name or name == "wsgi.url_scheme")
        }
        self._names: tuple[str, ...] = _shared(tuple(kept))
        self._values = tuple(value if name in OWN else _shared(value) for name, value in kept.items())
        query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        self._parameters = tuple((name, value) for name, value in query if not OF_SUBSCRIPTIONS.fullmatch(name.strip()))

    def environ(self, method: str, path: str, query: str, body: bytes | None = None) -> dict[str, Any]:
        """Return the environ of a request by this client.

        Args:
            method: of HTTP.
            path: not quoted.
            query: quoted.
            body: as JSON; None: there is none.
        """
        kept = dict(zip(self._names, self._values, strict=True))
        content = {} if body is None else {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body))}
        return {
            **kept,
            "SCRIPT_NAME": kept.get("SCRIPT_NAME", "").encode().decode("latin-1"),
            "REQUEST_METHOD": method,
            "PATH_INFO": path.encode().decode("latin-1"),  # as in PEP 3333
            "QUERY_STRING": query,
            "wsgi.input": io.BytesIO(body or b""),
            "wsgi.errors": sys.stderr,
            "wsgi.version": (1, 0),
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            **content,
        }

    def below_prefix(self, path: str) -> str:
        """Return the path as the URLconf has it: without the prefix of a site that is below a path (``SCRIPT_NAME``).

        Args:
            path: of a URL, not quoted; without the prefix it stays as it is.
        """
        prefix = get_script_name(self.environ("GET", "/", "")).rstrip("/")
        return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path

    def handshake(self, path: str, parameters: Mapping[str, str]) -> WSGIRequest:
        """Return a request like a handshake of this client.

        Args:
            path: not quoted.
            parameters: of the query, beside those of the handshake that are not about subscriptions, such as a token.
        """
        return WSGIRequest(self.environ("GET", path, urlencode([*parameters.items(), *self._parameters])))


__all__ = ["Visit"]
