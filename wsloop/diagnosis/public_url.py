"""The way from outside: opens WebSockets through the public URL, as a page does, and holds one.

How it works. What arrives behind the proxies is known from the server's answers: handshakes with the Origin of the
site's own page, of the page without encryption, and of another site must be let in or refused, each for its reason.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from wsloop import conf
from wsloop.diagnosis.finding import NOTE, OK, WRONG, Finding

TIMEOUT = 15.0  # seconds for a handshake: longer than HANDSHAKE_TIMEOUT
LATE = 5.0  # seconds that a ping may be late
SHOWN = 300  # characters of an answer
LONGEST_ANSWER = 65536  # bytes
OTHER_SITE = "https://another-site.invalid"
UPGRADE = (
    "Behind nginx, set `proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "
    '"upgrade";`. Behind uWSGI\'s router, set `http-websockets = true`.'
)

Progress = Callable[[float, int], None]


class Answer(NamedTuple):
    """The answer to a handshake: the open line, or a status and a text."""

    status: int
    text: str
    line: Line | None = None


class Line:
    """An open WebSocket of a client."""

    def __init__(self, sock: socket.socket, protocol: ClientProtocol) -> None:
        self._socket = sock
        self._protocol = protocol

    def read(self, timeout: float) -> list[Frame] | None:
        """Return the frames that come within some seconds, answering pings; None at the end."""
        self._socket.settimeout(max(timeout, 0.01))
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            return []
        except OSError:
            return None
        if data:
            self._protocol.receive_data(data)
        frames = [each for each in self._protocol.events_received() if isinstance(each, Frame)]
        with contextlib.suppress(OSError):
            for part in self._protocol.data_to_send():
                if part:
                    self._socket.sendall(part)
        return frames if data or frames else None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._protocol.send_close(1000)
            self._socket.sendall(b"".join(self._protocol.data_to_send()))
        self._socket.close()


def findings(url: str, headers: Mapping[str, str], hold: float, progress: Progress) -> Iterator[Finding]:
    """Look at the way from outside.

    Args:
        url: of a facility, ``wss://example.com/ws/news``.
        headers: further ones of the handshakes, such as a cookie.
        hold: seconds for which a socket is held open; 0: none is.
        progress: called about once a second with the seconds so far and the number of pings.

    Raises:
        ValueError: if it is not the URL of a WebSocket.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"--url must begin with wss:// or ws://, and have a host, not {url!r}")
    secure = parts.scheme == "wss"
    own = f"{'https' if secure else 'http'}://{parts.netloc.rpartition('@')[2]}"
    began = time.monotonic()
    try:
        script = shake_hands(url, None, headers)
    except (OSError, InvalidHandshake) as exc:
        yield _unreachable(exc)
        return
    took = time.monotonic() - began
    page = _again(url, own, headers)
    yield from _opens(script, page, took)
    if script.status in (101, 403):  # it is wsloop that answers, and it has looked at the Origin
        yield from _origins(url, own, secure, headers, script, page)
    line = page.line or script.line
    if line is not None and hold:
        yield _hold(line, hold, progress)
    for each in (page, script):
        if each.line is not None:
            each.line.close()


def shake_hands(url: str, origin: str | None, headers: Mapping[str, str]) -> Answer:
    """Ask for a WebSocket, and return the answer. Blocks.

    Raises:
        OSError, InvalidHandshake: if there is none.
    """
    uri = parse_uri(url)
    protocol = ClientProtocol(uri, origin=origin, max_size=None)  # type: ignore[arg-type]
    sock = socket.create_connection((uri.host, uri.port), timeout=TIMEOUT)
    try:
        if uri.secure:
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=uri.host)
        request = protocol.connect()
        request.headers.update(headers)
        protocol.send_request(request)
        end, read = time.monotonic() + TIMEOUT, 0
        sock.sendall(b"".join(protocol.data_to_send()))
        while protocol.handshake_exc is None and not protocol.events_received():
            if time.monotonic() > end or read > LONGEST_ANSWER:
                raise TimeoutError(f"there was no answer in {TIMEOUT:g} s")
            data = sock.recv(65536)
            read += len(data)
            if data:
                protocol.receive_data(data)
            else:
                protocol.receive_eof()
    except BaseException:
        sock.close()
        raise
    failure = protocol.handshake_exc
    if failure is None:
        return Answer(101, "", Line(sock, protocol))
    sock.close()
    if isinstance(failure, InvalidStatus):
        response = failure.response
        return Answer(response.status_code, _text(bytes(response.body or b"")))
    raise failure


def _again(url: str, origin: str, headers: Mapping[str, str]) -> Answer:
    try:
        return shake_hands(url, origin, headers)
    except (OSError, InvalidHandshake) as exc:
        return Answer(0, str(exc))


def _text(body: bytes) -> str:
    """Return the answer of wsloop, which is one paragraph of plain text; of a page in HTML nothing."""
    text = " ".join(body.decode(errors="replace").split())
    return "" if text.startswith("<") else "".join(each for each in text if each.isprintable())[:SHOWN]


def _unreachable(error: Exception) -> Finding:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Finding(
            WRONG, "URL", f"the certificate is not valid: {error.verify_message}", "Renew it: browsers refuse it."
        )
    advice = "Is the server running, and is this the address by which people know the site?"
    return Finding(WRONG, "URL", f"cannot be reached: {error}", advice)


def _opens(script: Answer, page: Answer, took: float) -> Iterator[Finding]:
    """Yield whether a client without an Origin gets a socket."""
    status, text = script.status, script.text
    if status == 101:
        yield Finding(OK, "Handshake", f"a WebSocket opens in {1000 * took:.0f} ms")
    elif status == 403:
        yield Finding(
            NOTE,
            "Handshake",
            f"403: {text}",
            'Name a facility that everybody may listen to, or sign in: --header "Cookie: sessionid=…".',
        )
    elif status == 400 and "Host" in text:
        yield Finding(WRONG, "Host", text, "Let the proxy hand on the Host, or name it in ALLOWED_HOSTS.")
    elif status in (400, 426, 505):
        yield Finding(WRONG, "Upgrade", f"{status}: {text or 'the proxy does not hand on the handshake'}", UPGRADE)
    elif status == 404:
        advice = f"The URL must begin with {conf.websocket_url()}, and the proxy must hand it on to the site."
        yield Finding(WRONG, "Handshake", f"404: {text}", advice)
    elif status in (502, 504):
        yield Finding(
            WRONG, "Handshake", f"{status} of the proxy: the server behind it does not answer", "Is it running?"
        )
    else:
        yield Finding(WRONG, "Handshake", f"{status}: {text}", "The log of the site has the reason.")


def _origins(
    url: str, own: str, secure: bool, headers: Mapping[str, str], script: Answer, page: Answer
) -> Iterator[Finding]:
    """Yield what the server makes of the Origins of pages, and with it what it knows of host and scheme."""
    if page.status != script.status or page.text != script.text:
        text = f"a page of {own} gets {page.status} where a script gets {script.status}: {page.text}"
        advice = (
            "The Host does not arrive as the browser sends it. Behind nginx, set `proxy_set_header Host $http_host;`, "
            "with uwsgi_pass `uwsgi_param HTTP_HOST $http_host;` below `include uwsgi_params;`."
        )
        yield Finding(WRONG, "Host", text, advice)
        return
    yield Finding(OK, "Host", f"arrives: pages of {own} are let in")
    other = _again(url, OTHER_SITE, headers)
    if other.line is not None:
        other.line.close()
        text = "pages of any other site open sockets in the name of their visitors"
        yield Finding(WRONG, "Origin", text, 'Remove "*" from ALLOWED_ORIGINS; a proxy must hand on the Origin.')
    if secure and script.status == 101:
        plain = _again(url, re.sub("^https", "http", own), headers)
        if plain.line is not None:
            plain.line.close()
            yield Finding(
                WRONG,
                "Scheme",
                "the site does not know that it is encrypted: a page without encryption is let in",
                "Let the proxy set X-Forwarded-Proto (nginx: `proxy_set_header X-Forwarded-Proto $scheme;`), and set "
                'SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https").',
            )
        else:
            yield Finding(OK, "Scheme", "arrives: the site knows that it is encrypted")


def _hold(line: Line, hold: float, progress: Progress) -> Finding:
    """Hold a socket open, and return whether it stays."""
    interval = conf.option("PING_INTERVAL")
    began = time.monotonic()
    pings = 0
    while (gone := time.monotonic() - began) < hold:
        progress(gone, pings)
        frames = line.read(min(1.0, hold - gone))
        gone = time.monotonic() - began
        if frames is None:
            return Finding(
                WRONG,
                "Timeouts",
                f"it was cut after {gone:.0f} s, with {_number(pings)}; there should be one each {interval} s",
                "Raise the timeout of the proxy for silence (nginx: `proxy_read_timeout` or `uwsgi_read_timeout`; "
                f"uWSGI: `http-timeout`) to {interval + LATE:g} s or more, or set PING_INTERVAL to less.",
            )
        for frame in frames:
            if frame.opcode is Opcode.CLOSE:
                code = int.from_bytes(frame.data[:2], "big")
                return Finding(NOTE, "Timeouts", f"the server closed the socket after {gone:.0f} s, with {code}")
            pings += frame.opcode is Opcode.PING
    if not pings and hold > interval + LATE:
        return Finding(
            WRONG,
            "Timeouts",
            f"no ping arrived in {hold:.0f} s; the server should send one every {interval} s",
            "A proxy ends WebSockets by itself, or the server has another PING_INTERVAL.",
        )
    return Finding(OK, "Timeouts", f"a socket stayed open for {hold:.0f} s, with {_number(pings)}")


def _number(pings: int) -> str:
    return "1 ping" if pings == 1 else f"{pings} pings"


__all__ = ["findings"]
