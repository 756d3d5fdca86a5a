"""The scope with which an ASGI application is called for a WebSocket.

Source: ASGI 3.0, WebSocket specification, version 2.4. This module must not know gevent, Redis or sockets.
"""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import quote

from django.http import HttpRequest

SPECIFICATION = {"version": "3.0", "spec_version": "2.4"}
COMMON = {  # headers that are the same for many clients, and that nobody keeps a secret in
    *("HTTP_HOST", "HTTP_ORIGIN", "HTTP_USER_AGENT", "HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING", "HTTP_ACCEPT_LANGUAGE"),
    *("HTTP_CONNECTION", "HTTP_UPGRADE", "HTTP_CACHE_CONTROL", "HTTP_PRAGMA", "HTTP_X_FORWARDED_PROTO"),
    *("HTTP_SEC_WEBSOCKET_EXTENSIONS", "HTTP_SEC_WEBSOCKET_VERSION"),
}
UNPREFIXED = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}  # headers, as WSGI names them


def asgi_scope(request: HttpRequest) -> dict[str, Any]:
    """Return the scope of an application's socket. It keeps no part of the request alive.

    WSGI has joined repeated headers by commas, those with an underscore in their name are gone, and their order is not
    that of the client.

    Args:
        request: of the handshake.
    """
    meta = request.META
    headers = header_pairs(meta)
    headers += [(UNPREFIXED[name], meta[name].encode("latin-1", "replace")) for name in UNPREFIXED if meta.get(name)]
    sent = meta.get("REQUEST_URI", "").partition("?")[0]
    return {
        "type": "websocket",
        "asgi": dict(SPECIFICATION),
        "http_version": meta.get("SERVER_PROTOCOL", "HTTP/1.1").rpartition("/")[2],
        "scheme": "wss" if request.is_secure() else "ws",
        "path": meta.get("SCRIPT_NAME", "") + request.path_info,
        "raw_path": (sent or quote(request.path)).encode("latin-1", "replace"),
        "query_string": meta.get("QUERY_STRING", "").encode("latin-1", "replace"),
        "root_path": meta.get("SCRIPT_NAME", ""),
        "headers": headers,
        "client": address(meta, "REMOTE_ADDR", "REMOTE_PORT"),
        "server": address(meta, "SERVER_NAME", "SERVER_PORT"),
        "subprotocols": offered(meta),
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


@functools.lru_cache(maxsize=256)
def _header(name: str) -> bytes:
    """Return the name of a header, one object for all sockets, from its name in WSGI."""
    return name[5:].replace("_", "-").lower().encode("latin-1")


def _pair(name: str, value: str) -> tuple[bytes, bytes]:
    return _header(name), value.encode("latin-1", "replace")


_common_pair = functools.lru_cache(maxsize=1024)(_pair)  # one object for all sockets


def header_pairs(meta: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Return names and values of the headers that WSGI prefixes by ``HTTP_``."""
    return [
        _common_pair(name, value) if name in COMMON else _pair(name, value)
        for name, value in meta.items()
        if name.startswith("HTTP_")
    ]


def offered(meta: dict[str, Any]) -> list[str]:
    """Return the subprotocols that the client offers."""
    return [each.strip() for each in meta.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(",") if each.strip()]


def address(meta: dict[str, Any], host: str, port: str) -> tuple[str, int]:
    """Return an address and its port, 0 if it is not known, from these two keys of WSGI."""
    number = str(meta.get(port, ""))
    return meta.get(host, ""), int(number) if number.isdecimal() else 0


__all__ = ["address", "asgi_scope", "header_pairs", "offered"]
