"""From a request's environ to an accepted WebSocket handshake, or a refusal that a person can act on.

The ``websockets`` library checks RFC 6455, section 4.2; its errors are worded here for people with a Django site behind
uWSGI and nginx. The Origin is the business of
:mod:`wsloop.origin`. This module must not know Redis or sockets.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidUpgrade
from websockets.extensions import Extension
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from wsloop import conf, metrics
from wsloop.protocol.deflate import DeflateFactory
from wsloop.refusals import Refused

# The headers of the handshake. The library checks each header that it gets, and others do not concern it.
HEADERS = (
    "Connection",
    "Upgrade",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
)
BOUNDED = ("HTTP_HOST", "HTTP_ORIGIN", *(f"HTTP_{name.upper().replace('-', '_')}" for name in HEADERS), "QUERY_STRING")
DEFLATE = DeflateFactory()


def check_sizes(environ: dict[str, Any], facility: str) -> None:
    """Refuse a request with larger parts than any real client sends, before it costs anything.

    Args:
        environ: of the WSGI request.
        facility: the path after ``WSLOOP["URL"]``.

    Raises:
        Refused: 414 or 431.
    """
    most = conf.option("MAX_HEADER_SIZE")
    # uWSGI drops a query string of half its buffer-size or more, and goes on without it.
    sizes = {"QUERY_STRING": len(environ.get("REQUEST_URI", "").partition("?")[2])}
    sizes |= {name: max(len(environ.get(name, "")), sizes.get(name, 0)) for name in BOUNDED}
    long = [name for name, size in sizes.items() if size > most]
    if long:
        metrics.reached("MAX_HEADER_SIZE")
        reason = f"The query string, or a header of the handshake, is longer than {most} bytes."
        raise Refused(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            reason,
            kind="MAX_HEADER_SIZE",
            detail=f"{long[0]} has {sizes[long[0]]} bytes, more than MAX_HEADER_SIZE of WSLOOP, {most}",
            told=reason if long == ["QUERY_STRING"] else "",
        )
    most = conf.option("MAX_FACILITY_SIZE")
    size = len(facility.encode())
    if size > most:
        metrics.reached("MAX_FACILITY_SIZE")
        reason = f"The name of the facility is longer than {most} bytes."
        detail = f"the name of the facility has {size} bytes, more than MAX_FACILITY_SIZE of WSLOOP, {most}"
        raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG, reason, kind="MAX_FACILITY_SIZE", detail=detail, told=reason)


def negotiate(
    environ: dict[str, Any], subprotocols: Sequence[str], compression: bool = False
) -> tuple[list[tuple[str, str]], list[Extension]]:
    """Return the headers of the 101 that answers the request, and the extensions agreed on.

    Args:
        environ: of the WSGI request.
        subprotocols: those that the server accepts, the preferred one first. One of them is chosen if the client offers
            it; no other text of the client is sent back.
        compression: whether to agree on permessage-deflate (RFC 7692).

    Raises:
        Refused: 405, 426, 505 or 400. Never told over a socket, which these requests are none for.
    """
    if environ.get("REQUEST_METHOD") != "GET":
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "A WebSocket is opened with a GET request.", [("Allow", "GET")])
    direct = is_from_uwsgi_pass(environ)  # nginx passes on what the client sent
    if environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        advice = "" if direct else " Behind nginx, set `proxy_http_version 1.1;`."
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, f"A WebSocket needs HTTP/1.1.{advice}")
    protocol = _negotiator(tuple(subprotocols), compression)
    headers = Headers()
    try:
        for name in HEADERS:
            value = environ.get(f"HTTP_{name.upper().replace('-', '_')}")
            if value:  # a proxy may send a missing header as an empty one
                headers[name] = value  # raises for control characters
        accept, extensions, subprotocol = protocol.process_request(Request("/", headers))
    except InvalidUpgrade:
        lines = '`proxy_set_header Upgrade $http_upgrade;` and `proxy_set_header Connection "upgrade";`'
        raise Refused(
            HTTPStatus.UPGRADE_REQUIRED,
            "This address is a WebSocket: connect to it with a WebSocket client. If you did, a proxy on the way has "
            f"dropped the Upgrade headers{'' if direct else f'; behind nginx, set {lines}'}.",
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


@functools.lru_cache(maxsize=16)
def _negotiator(subprotocols: tuple[str, ...], compression: bool) -> ServerProtocol:
    """Return an object that negotiates one handshake after the other: to make one takes longer than to ask it."""
    spoken = [Subprotocol(each) for each in subprotocols]
    return ServerProtocol(
        # Not the library's own choice, which refuses clients that offer none of them.
        select_subprotocol=lambda _, offered: next((each for each in spoken if each in offered), None),
        extensions=[DEFLATE] if compression else [],
    )


def client_address(environ: dict[str, Any]) -> str | None:
    """Return the address that a connection counts for, or None if it counts for none.

    The address of a proxy stands for many clients. So ``X-Forwarded-For`` is read if it comes from ``TRUSTED_PROXIES``,
    from its end, where proxies append; and addresses that are not global are not counted: the loopback, unix sockets,
    private networks. An IPv6 client has a network of its own, /64 at least.
    """
    proxies = conf.option("TRUSTED_PROXIES")
    chain = [each.strip() for each in environ.get("HTTP_X_FORWARDED_FOR", "").split(",")] if proxies else []
    text = environ.get("REMOTE_ADDR", "")
    if text == "0.0.0.0":  # uWSGI's http-socket reports a peer on a unix socket so
        text = ""
    while True:
        try:
            address = ipaddress.ip_address(text) if text else None
        except ValueError:
            return None
        # A peer without an address is on a unix socket: a proxy on this machine.
        trusted = address is None or any(address in network for network in proxies)
        if not (trusted and chain):
            break
        text = chain.pop()
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False)) if address.is_global else None
        address = address.ipv4_mapped
    return str(address) if address is not None and address.is_global else None


def is_from_uwsgi_pass(environ: dict[str, Any]) -> bool:
    """Return whether nginx uses uWSGI's own protocol (``uwsgi_pass``), not HTTP (``proxy_pass``).

    Its ``uwsgi_params`` add variables that neither uWSGI's HTTP parser nor gevent's sets, and no client can send.
    """
    return "DOCUMENT_ROOT" in environ or "REQUEST_SCHEME" in environ
