"""From a request's environ to an accepted WebSocket handshake, or a refusal that a person can act on.

RFC 6455, section 4.2, checked by the ``websockets`` library; what the library words for its own servers is worded here
for people with a Django site behind uWSGI and nginx. This module must not know Redis or sockets.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from django.http import HttpRequest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidUpgrade
from websockets.extensions import Extension
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from wsloop import conf, metrics
from wsloop.deflate import DeflateFactory

# What the handshake is made of. The library checks whatever it is given, and garbage elsewhere is not its business.
HEADERS = (
    "Connection",
    "Upgrade",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
)
BOUNDED = ("HTTP_HOST", "HTTP_ORIGIN", *(f"HTTP_{name.upper().replace('-', '_')}" for name in HEADERS), "QUERY_STRING")
DEFAULT_PORTS = {"http": "80", "https": "443"}
DEFLATE = DeflateFactory()
RETRY_AFTER = 5  # seconds; the broker tries to reach Redis at least as often


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


def try_again(status: HTTPStatus, reason: str) -> Refused:
    """Return a refusal for now only."""
    return Refused(status, f"{reason} Try again in a few seconds.", [("Retry-After", str(RETRY_AFTER))])


def check_sizes(environ: dict[str, Any], facility: str) -> None:
    """Refuse what is larger than any real client sends, before anything is done with it.

    Args:
        environ: of the WSGI request.
        facility: the path behind ``WEBSOCKET_URL``.

    Raises:
        Refused: 414 or 431.
    """
    most = conf.option("MAX_HEADER_SIZE")
    # uWSGI drops a query string of half its buffer-size or more, and goes on without it.
    query = environ.get("REQUEST_URI", "").partition("?")[2]
    if len(query) > most or any(len(environ.get(name, "")) > most for name in BOUNDED):
        metrics.reached("MAX_HEADER_SIZE")
        raise Refused(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"The query string, or a header of the handshake, is longer than {most} bytes.",
        )
    most = conf.option("MAX_FACILITY_SIZE")
    if len(facility.encode()) > most:
        metrics.reached("MAX_FACILITY_SIZE")
        raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG, f"The name of the facility is longer than {most} bytes.")


def negotiate(
    environ: dict[str, Any], subprotocols: Sequence[str], compression: bool = False
) -> tuple[list[tuple[str, str]], list[Extension]]:
    """Return the headers of the 101 that answers the request, and the extensions agreed on.

    Args:
        environ: of the WSGI request.
        subprotocols: those that the server speaks, the preferred one first. One of them is chosen if the client offers
            it; nothing that the client says is sent back otherwise.
        compression: whether to agree on permessage-deflate (RFC 7692).

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
        select_subprotocol=lambda _, offered: next((each for each in spoken if each in offered), None),
        extensions=[DEFLATE] if compression else [],
    )
    headers = Headers()
    try:
        for name in HEADERS:
            value = environ.get(f"HTTP_{name.upper().replace('-', '_')}")
            if value:  # a proxy may hand on what is not there as empty
                headers[name] = value  # raises for control characters
        accept, extensions, subprotocol = protocol.process_request(Request("/", headers))
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
    if extensions is not None:
        answer.append(("Sec-WebSocket-Extensions", extensions))
    return answer, list(protocol.extensions)


def client_address(environ: dict[str, Any]) -> str | None:
    """Return the address that a connection counts for, or None if it counts for none.

    A proxy's address stands for many clients, so those of ``TRUSTED_PROXIES`` are asked whom they serve
    (``X-Forwarded-For``, read from its end, where they write), and addresses that are not global are not counted: the
    loopback, unix sockets, private networks. An IPv6 client has a network of its own, /64 at the least.
    """
    proxies = [ipaddress.ip_network(each) for each in conf.option("TRUSTED_PROXIES")]
    chain = [each.strip() for each in environ.get("HTTP_X_FORWARDED_FOR", "").split(",")] if proxies else []
    text = environ.get("REMOTE_ADDR", "")
    if text == "0.0.0.0":  # what uWSGI's http-socket says of a peer at a unix socket
        text = ""
    while True:
        try:
            address = ipaddress.ip_address(text) if text else None
        except ValueError:
            return None
        # A peer without an address is at a unix socket: a proxy of this machine.
        trusted = address is None or any(address in network for network in proxies)
        if not (trusted and chain):
            break
        text = chain.pop()
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False)) if address.is_global else None
        address = address.ipv4_mapped
    return str(address) if address is not None and address.is_global else None


def check_origin(request: HttpRequest) -> None:
    """Let only pages of this site and of ``ALLOWED_ORIGINS`` open sockets (RFC 6455, section 10.2).

    A browser sends the user's cookies with a socket that any page opens, so a foreign page would act in their name.
    Scripts send no Origin and are let in. Host and port are compared. A page without encryption is another site than an
    encrypted one, as far as it is known that this site is encrypted (``SECURE_PROXY_SSL_HEADER``).

    Raises:
        Refused: 403.
        django.core.exceptions.DisallowedHost: if ``ALLOWED_HOSTS`` has not this request's host.
    """
    host = request.get_host()
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None:
        return
    allowed = conf.option("ALLOWED_ORIGINS")
    if not (_is_of(origin, host, request.is_secure()) or any(_matches(origin, pattern) for pattern in allowed)):
        raise Refused(
            HTTPStatus.FORBIDDEN,
            "Pages of another site may not open a WebSocket here: the Origin of the page is not this host. "
            "If it is the same site, the proxy must hand on the Host header; behind nginx, set "
            "`proxy_set_header Host $http_host;`. Other sites are let in by ALLOWED_ORIGINS.",
        )


def _is_of(origin: str, host: str, secure: bool) -> bool:
    """Tell whether the page at ``origin`` is one of this ``host``."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    port = DEFAULT_PORTS.get(parts.scheme)
    if port is None or (secure and parts.scheme != "https"):
        return False
    return _strip(parts.netloc, port) == _strip(host, port)


def _matches(origin: str, pattern: str) -> bool:
    """Tell whether an Origin is meant by an entry of ``ALLOWED_ORIGINS``; a wildcard stands for any subdomains."""
    if pattern == "*":
        return True
    scheme, _, rest = origin.lower().partition("://")
    wanted_scheme, _, wanted = pattern.lower().partition("://")
    port = DEFAULT_PORTS.get(scheme, "")
    rest, wanted = _strip(rest, port), _strip(wanted, port)
    if scheme != wanted_scheme:
        return False
    if not wanted.startswith("*."):
        return rest == wanted
    name = rest.removesuffix(wanted[1:])
    # Only what can be in the name of a host: nothing that would make the rest a path, a user or a port.
    return name != rest and re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name) is not None


def _strip(host: str, port: str) -> str:
    return host.lower().removesuffix(f":{port}")
