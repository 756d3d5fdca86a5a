"""From a request's environ to an accepted WebSocket handshake, or a refusal that a person can act on.

RFC 6455, section 4.2, checked by the ``websockets`` library; what the library words for its own servers is worded here
for people with a Django site behind uWSGI and nginx. This module must not know Redis or sockets.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidUpgrade
from websockets.extensions import Extension
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from wsloop import conf, kinds, metrics
from wsloop.protocol.deflate import DeflateFactory
from wsloop.redaction import redact
from wsloop.refusals import Refused

logger = logging.getLogger("wsloop.handshake")

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
LOGGED = 10  # refusals of one kind that are logged one by one in LOG_INTERVAL: a client can bring about any number
LOG_INTERVAL = 60.0  # seconds
SHOWN = 300  # characters of what a client has sent, in the log: the longest name of a host fits, with scheme and port


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
    direct = _is_from_uwsgi_pass(environ)  # nginx hands on what the client sent
    if environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        advice = "" if direct else " Behind nginx, set `proxy_http_version 1.1;`."
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, f"A WebSocket needs HTTP/1.1.{advice}")
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


def client_address(environ: dict[str, Any]) -> str | None:
    """Return the address that a connection counts for, or None if it counts for none.

    A proxy's address stands for many clients, so those of ``TRUSTED_PROXIES`` are asked whom they serve
    (``X-Forwarded-For``, read from its end, where they write), and addresses that are not global are not counted: the
    loopback, unix sockets, private networks. An IPv6 client has a network of its own, /64 at the least.
    """
    proxies = conf.option("TRUSTED_PROXIES")
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


class RefusalLog:
    """Tells the log of refusals that clients can bring about: some of each kind, and how many it has left out."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[float, int]] = {}  # when the interval began, and how many there were in it

    def log(self, level: int, kind: str, message: str, *arguments: Any) -> None:
        """Log a refusal, with ``kind`` in front of its message, unless there were too many of that kind."""
        now = time.monotonic()
        began, count = self._kinds.get(kind, (now, 0))
        if now - began >= LOG_INTERVAL:
            if count > LOGGED:
                logger.log(level, "refused: %s: %d more in %.0f s", kind, count - LOGGED, now - began)
            began, count = now, 0
        self._kinds[kind] = began, count + 1
        if count < LOGGED:
            logger.log(level, f"refused: %s: {message}", kind, *arguments)


refusals = RefusalLog()


def shown(value: str) -> str:
    """Return what a client has sent as it may stand in a log: one line, without secrets, bounded."""
    text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in redact(value))
    return f"{text[:SHOWN]}…" if len(text) > SHOWN else text


def check_origin(request: HttpRequest) -> None:
    """Let only pages of this site and of ``ALLOWED_ORIGINS`` open sockets (RFC 6455, section 10.2).

    A browser sends the user's cookies with a socket that any page opens, so a foreign page would act in their name.
    Scripts send no Origin and are let in. Host and port are compared. A page without encryption is another site than an
    encrypted one, as far as it is known that this site is encrypted (``SECURE_PROXY_SSL_HEADER``).

    The names that the request came with go to the log: the client need not know what a proxy makes of them.

    Raises:
        Refused: 403, or 400 if ``ALLOWED_HOSTS`` has not this request's host.
    """
    header, given, line = _host(request)
    try:
        host = request.get_host()
    except DisallowedHost:
        refusals.log(
            logging.WARNING,
            "Host",
            'the request is for the host "%s" (%s), which is not one of ALLOWED_HOSTS, or not the name of a host. '
            "Add it there if people know the site by it. If they know it by another name, a proxy has replaced that; "
            "%s.",
            shown(given),
            header,
            line,
        )
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            "The Host of the request is not one of the site's; see ALLOWED_HOSTS. If you have used the right address, "
            f"the proxy must hand on the Host header; {line}.",
        ) from None
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None:
        return
    allowed = conf.option("ALLOWED_ORIGINS")
    secure = request.is_secure()
    if _is_of(origin, host, secure) or any(_matches(origin, pattern) for pattern in allowed):
        return
    if secure and _is_of(origin, host, False):
        reason = (
            "A page without encryption (http) may not open a WebSocket here, for this site is encrypted: open the page "
            "with https. Other sites are let in by ALLOWED_ORIGINS."
        )
        advice = "it is a page of this site without encryption: redirect such pages to https (SECURE_SSL_REDIRECT)"
    else:
        reason = (
            "Pages of another site may not open a WebSocket here: the Origin of the page is not this host. "
            f"If it is the same site, the proxy must hand on the Host header; {line}. "
            "Other sites are let in by ALLOWED_ORIGINS."
        )
        advice = _advice(request, origin, line)
    refusals.log(
        logging.WARNING,
        "Origin",
        'the page is of "%s", the request for the host "%s" (%s); %s',
        shown(origin),
        shown(host),
        header,
        advice,
    )
    raise Refused(HTTPStatus.FORBIDDEN, reason)


def _host(request: HttpRequest) -> tuple[str, str, str]:
    """Return what Django takes the host of a request from, what that says, and how nginx would set it rightly."""
    meta = request.META
    if conf.uses_forwarded_host() and "HTTP_X_FORWARDED_HOST" in meta:
        header = "X-Forwarded-Host"
    elif "HTTP_HOST" in meta:
        header = "Host"
    else:
        return "no Host", meta.get("SERVER_NAME", ""), "the client must send the header Host"
    variable = f"HTTP_{header.upper().replace('-', '_')}"
    if _is_from_uwsgi_pass(meta):
        # Below, for the last one counts, and Debian's uwsgi_params have a HTTP_HOST without the port.
        line = f"behind nginx's uwsgi_pass, set `uwsgi_param {variable} $http_host;`, below `include uwsgi_params;`"
    else:
        line = f"behind nginx, set `proxy_set_header {header} $http_host;`"
    return header, meta[variable], line


def _is_from_uwsgi_pass(environ: dict[str, Any]) -> bool:
    """Tell whether nginx speaks uWSGI's own protocol here (``uwsgi_pass``), not HTTP (``proxy_pass``).

    Its ``uwsgi_params`` add variables that neither uWSGI's HTTP parser nor gevent's knows, and no client can send.
    """
    return "DOCUMENT_ROOT" in environ or "REQUEST_SCHEME" in environ


def _advice(request: HttpRequest, origin: str, line: str) -> str:
    """Return what may have to be done about a page that is not of the request's host."""
    forwarded = request.META.get("HTTP_X_FORWARDED_HOST", "")
    if not origin:
        return "a browser sends no empty Origin: a proxy has emptied it, and must hand it on"
    if origin in kinds.NAMELESS_ORIGINS:
        return "a local file or a sandboxed frame has no origin of its own; see ALLOWED_ORIGINS in WSLOOP"
    if forwarded and not conf.uses_forwarded_host() and _is_of(origin, forwarded, False):
        return (
            f"X-Forwarded-Host names the page's host: set USE_X_FORWARDED_HOST = True if your proxy writes that "
            f"header whatever the client sends, or let it hand on the Host as well; {line}"
        )
    return (
        f"if that is this site, a proxy has replaced the host or dropped its port: {line}; if it is another site that "
        "may open sockets here, name it in ALLOWED_ORIGINS of WSLOOP"
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
    # A browser keeps the dot at the end of a name that has one; nginx's $host does not.
    page, here = (re.sub(r"\.(?=(:\d+)?$)", "", _strip(each, port)) for each in (parts.netloc, host))
    return page == here


def _matches(origin: str, pattern: str) -> bool:
    """Tell whether an Origin is meant by an entry of ``ALLOWED_ORIGINS``; a wildcard stands for any subdomains."""
    if pattern == "*":
        return True
    if pattern in kinds.NAMELESS_ORIGINS:
        return origin == pattern
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
