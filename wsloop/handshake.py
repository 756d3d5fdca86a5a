"""From a request's environ to an accepted WebSocket handshake, or a refusal that a person can act on.

RFC 6455, section 4.2, checked by the ``websockets`` library; what the library words for its own servers is worded here
for people with a Django site behind uWSGI and nginx. This module must not know Redis or sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from django.http import HttpRequest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidUpgrade
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

# What the handshake is made of. The library checks whatever it is given, and garbage elsewhere is not its business.
HEADERS = (
    "Connection",
    "Upgrade",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
)
DEFAULT_PORTS = {"http": "80", "https": "443"}


class Refused(Exception):
    """The handshake ends with an HTTP response instead of the 101.

    Args:
        status: HTTP status.
        reason: what is wrong and what to do, for the person who wrote the client or runs the site. Never internals.
        headers: further response headers.
    """

    def __init__(self, status: HTTPStatus, reason: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = list(headers)


def negotiate(environ: dict[str, Any], subprotocols: Sequence[str]) -> list[tuple[str, str]]:
    """Return the headers of the 101 that answers the request.

    Args:
        environ: of the WSGI request.
        subprotocols: those that the server speaks, the preferred one first. One of them is chosen if the client offers
            it; nothing that the client says is sent back otherwise.

    Raises:
        Refused: 405, 426, 505 or 400.
    """
    if environ.get("REQUEST_METHOD") != "GET":
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "A WebSocket is opened with a GET request.", [("Allow", "GET")])
    if environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        raise Refused(
            HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
            "A WebSocket needs HTTP/1.1. Behind nginx, set `proxy_http_version 1.1;`.",
        )
    spoken = [Subprotocol(each) for each in subprotocols]
    # Not the library's own choice, which refuses clients that offer none of them.
    protocol = ServerProtocol(
        select_subprotocol=lambda _, offered: next((each for each in spoken if each in offered), None)
    )
    headers = Headers()
    try:
        for name in HEADERS:
            value = environ.get(f"HTTP_{name.upper().replace('-', '_')}")
            if value:  # a proxy may hand on what is not there as empty
                headers[name] = value  # raises for control characters
        accept, _, subprotocol = protocol.process_request(Request("/", headers))
    except InvalidUpgrade:
        raise Refused(
            HTTPStatus.UPGRADE_REQUIRED,
            "This address is a WebSocket: connect to it with a WebSocket client. If you did, a proxy on the way has "
            "dropped the Upgrade headers; behind nginx, set `proxy_set_header Upgrade $http_upgrade;` and "
            '`proxy_set_header Connection "upgrade";`.',
            [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")],
        ) from None
    except InvalidHandshake as exc:
        if headers.get("Sec-WebSocket-Version", "13") != "13":
            raise Refused(
                HTTPStatus.UPGRADE_REQUIRED,
                "This server speaks version 13 of the WebSocket protocol (RFC 6455) only.",
                [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")],
            ) from None
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            f"The header {getattr(exc, 'name', 'of the handshake')} is missing or not valid (RFC 6455, section 4.1).",
        ) from None
    answer = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
    if subprotocol is not None:
        answer.append(("Sec-WebSocket-Protocol", subprotocol))
    return answer


def check_origin(request: HttpRequest) -> None:
    """Let only pages of this site open sockets (RFC 6455, section 10.2). Scripts send no Origin and are let in.

    A browser sends the user's cookies with a socket that any page opens, so a foreign page would act in their name.
    Host and port are compared, not the scheme: behind a proxy that ends TLS the site may not know it was https.

    Raises:
        Refused: 403.
        django.core.exceptions.DisallowedHost: if ``ALLOWED_HOSTS`` has not this request's host.
    """
    host = request.get_host()
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None:
        return
    try:
        parts = urlsplit(origin)
        port = DEFAULT_PORTS.get(parts.scheme)
        same = port is not None and _strip(parts.netloc, port) == _strip(host, port)
    except ValueError:
        same = False
    if not same:
        raise Refused(
            HTTPStatus.FORBIDDEN,
            "Pages of another site may not open a WebSocket here: the Origin of the page is not this host. "
            "If it is the same site, the proxy must hand on the Host header; behind nginx, set "
            "`proxy_set_header Host $http_host;`.",
        )


def _strip(host: str, port: str) -> str:
    return host.lower().removesuffix(f":{port}")
