"""Which pages may open sockets: those of this site, and of the sites that ``ALLOWED_ORIGINS`` names (RFC 6455, 10.2).

This module must not know Redis or sockets.
"""

from __future__ import annotations

import functools
import re
from http import HTTPStatus
from urllib.parse import urlsplit

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest

from wsloop import conf, handshake, kinds
from wsloop.refusals import Refused, shown

MOST_AGE = 600  # seconds for which a browser need not ask again
DEFAULT_PORTS = {"http": "80", "https": "443"}
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
# For any page, so without a word of how the site is set up.
HOST_REFUSED = "The Host of the request is not one of the site's; see ALLOWED_HOSTS, and the log of the site."
ORIGIN_REFUSED = "Pages of this Origin may not open a WebSocket here; see ALLOWED_ORIGINS, and the log of the site."


def check_origin(request: HttpRequest) -> None:
    """Allow only pages of this site and of ``ALLOWED_ORIGINS`` to open sockets (RFC 6455, section 10.2).

    A browser sends the user's cookies with a socket that any page opens, so a page of another site would act for the
    user. Scripts send no Origin and are allowed. Host and port are compared. A page without encryption belongs to
    another site than an encrypted one, if Django knows that this site is encrypted (``SECURE_PROXY_SSL_HEADER``).

    With DEBUG the names of the loopback are the same site, where the port is the same.

    The names in the request go to the log: the client need not know what a proxy makes of them.

    Raises:
        Refused: 403, or 400 if the host is not in ``ALLOWED_HOSTS``.
    """
    header, given, line = _host(request)
    try:
        host = request.get_host()
    except DisallowedHost:
        detail = (
            f'the request is for the host "{shown(given)}" ({header}), which is not one of ALLOWED_HOSTS, or not the '
            "name of a host. Add it there if people know the site by it. If they know it by another name, a proxy has "
            f"replaced that; {line}."
        )
        reason = (
            "The Host of the request is not one of the site's; see ALLOWED_HOSTS. If you have used the right address, "
            f"the proxy must hand on the Host header; {line}."
        )
        raise Refused(HTTPStatus.BAD_REQUEST, reason, kind="Host", detail=detail, told=HOST_REFUSED) from None
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None:
        return
    allowed = conf.option("ALLOWED_ORIGINS")
    secure = request.is_secure()
    if conf.debug() and _is_loopback_of(origin, host):
        return
    if _is_of(origin, host, secure) or any(_matches(origin, pattern) for pattern in allowed):
        return
    if secure and _is_of(origin, host, False):
        reason = (
            "A page without encryption (http) may not open a WebSocket here, because this site is encrypted: open the "
            "page with https. Other sites are let in by ALLOWED_ORIGINS."
        )
        advice = "it is a page of this site without encryption: redirect such pages to https (SECURE_SSL_REDIRECT)"
    else:
        reason = (
            "Pages of another site may not open a WebSocket here: the Origin of the page is not this host. "
            f"If it is the same site, the proxy must hand on the Host header; {line}. "
            "Other sites are let in by ALLOWED_ORIGINS."
        )
        advice = _advice(request, origin, host, line)
    detail = f'the page is of "{shown(origin)}", the request for the host "{shown(host)}" ({header}); {advice}'
    raise Refused(HTTPStatus.FORBIDDEN, reason, kind="Origin", detail=detail, told=ORIGIN_REFUSED)


def _host(request: HttpRequest) -> tuple[str, str, str]:
    """Return the header from which Django takes the host, its value, and the advice how nginx should set it."""
    meta = request.META
    if conf.uses_forwarded_host() and "HTTP_X_FORWARDED_HOST" in meta:
        header = "X-Forwarded-Host"
    elif "HTTP_HOST" in meta:
        header = "Host"
    else:
        return "no Host", meta.get("SERVER_NAME", ""), "the client must send the header Host"
    variable = f"HTTP_{header.upper().replace('-', '_')}"
    if handshake.is_from_uwsgi_pass(meta):
        # Below, because the last one counts, and Debian's uwsgi_params have a HTTP_HOST without the port.
        line = f"behind nginx's uwsgi_pass, set `uwsgi_param {variable} $http_host;`, below `include uwsgi_params;`"
    else:
        line = f"behind nginx, set `proxy_set_header {header} $http_host;`"
    return header, meta[variable], line


def _advice(request: HttpRequest, origin: str, host: str, line: str) -> str:
    """Return the advice about a page whose origin is not the request's host."""
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
    if _is_loopback_of(origin, host):
        return "open the page by the name that the socket has; with DEBUG both names of this machine are one site"
    return (
        f"if that is this site, a proxy has replaced the host or dropped its port: {line}, with Vite leave out "
        "changeOrigin; if it is another site that may open sockets here, name it in ALLOWED_ORIGINS of WSLOOP"
    )


@functools.lru_cache(maxsize=64)
def _is_of(origin: str, host: str, secure: bool) -> bool:
    """Return whether an origin is that of this ``host``."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    port = DEFAULT_PORTS.get(parts.scheme)
    if port is None or (secure and parts.scheme != "https"):
        return False
    # A browser keeps the dot at the end of a name that has one; nginx's $host does not.
    page, here = (re.sub(r"^([^:]+)\.(?=(:\d+)?$)", r"\1", _strip(each, port)) for each in (parts.netloc, host))
    return page == here


def _is_loopback_of(origin: str, host: str) -> bool:
    """Return whether both are this machine, by whatever name, and the same port."""
    page, here = re.sub("^https?://", "", origin.lower()), host.lower()
    names = [each for each in LOOPBACK if re.fullmatch(rf"{re.escape(each)}(:\d+)?", here)]
    return any(page == each + here.removeprefix(names[0]) for each in LOOPBACK) if names else False


def _matches(origin: str, pattern: str) -> bool:
    """Return whether an Origin matches an entry of ``ALLOWED_ORIGINS``; a wildcard stands for any subdomains."""
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
    # Only characters of host names: no other may turn the rest into a path, a user or a port.
    return name != rest and re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name) is not None


def _strip(host: str, port: str) -> str:
    return host.lower().removesuffix(f":{port}")


def cors(request: HttpRequest) -> list[tuple[str, str]]:
    """Return the headers with which a browser gives a response to a page of another site that :func:`check_origin`
    has allowed (Fetch, section 3.3); for other requests they mean nothing.
    """
    header = request.META.get("HTTP_ORIGIN")
    if header is None:
        return []
    return [
        ("Access-Control-Allow-Origin", header),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Expose-Headers", "Retry-After"),
        ("Vary", "Origin"),
    ]


def preflight(request: HttpRequest) -> list[tuple[str, str]]:
    """Return the headers that allow such a page to post (Fetch, section 4.8)."""
    return [
        *cors(request),
        ("Access-Control-Allow-Methods", "GET, POST"),
        ("Access-Control-Allow-Headers", "Accept, Authorization, Content-Type, Last-Event-ID"),
        ("Access-Control-Max-Age", str(MOST_AGE)),
    ]
