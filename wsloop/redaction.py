"""Makes parts of a request safe for logs: replaces secrets, and escapes characters that could forge another line.

A token that signs in a WebSocket is the query parameter ``token`` or a subprotocol ``wsloop.token.…``; the key of a
session is part of the names of its channels in Redis. This module must not know settings, servers or Redis, so that
``LOGGING`` can name it.
"""

from __future__ import annotations

import logging
import re
from urllib.parse import quote

REDACTED = "[redacted]"

SECRETS = re.compile(
    r"""
    (?<=wsloop\.token\.) [^\s,;&"'<>]+                  # as a subprotocol
    | ( [\w-]*token (?: = | %3D ) ) [^\s&;,#"'<>]+      # in a URL or a Cookie
    | ( ['"][\w-]*token['"] \s* [:,] \s* [\[(]? \s* ['"] ) [^'"]+   # in the representation of a dictionary or a pair
    | (?<=\bsession:) [a-z0-9]{20,}                     # in the name of a channel
    """,
    re.VERBOSE | re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return ``text`` with :data:`REDACTED` in place of tokens and session keys."""
    return SECRETS.sub(lambda found: f"{found[1] or found[2] or ''}{REDACTED}", text)


def one_line(text: str) -> str:
    """Return ``text`` with escapes in place of what is not printed: no line ends, nothing that a terminal obeys."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def printable(text: str) -> str:
    """Return ``text``, from WSGI, with all but visible ASCII percent-encoded: one line without control characters."""
    return re.sub(r"[^!-~]", lambda found: quote(found[0], safe="", encoding="latin-1", errors="replace"), text)


def request_line(method: str, uri: str) -> str:
    """Return method and URL of a request for a log: as sent, but printable, and without values in the query.

    The parameters of a WebSocket are names without values (``subscribe-user``), so a value is the token or superfluous.

    Args:
        method: ``REQUEST_METHOD`` of the environ.
        uri: ``REQUEST_URI`` from uWSGI, not decoded.
    """
    path, _, query = uri.partition("?")
    parameters = [re.sub("=.+", f"={REDACTED}", each, flags=re.DOTALL) for each in query.split("&") if each]
    line = f"{printable(method)} {printable(redact(path))}"  # redacted, because a client may quote the question mark
    return f"{line}?{printable(redact('&'.join(parameters)))}" if parameters else line


class RedactTokens(logging.Filter):
    """A filter for handlers of ``LOGGING`` that removes tokens and session keys from messages and tracebacks.

    ::

        LOGGING = {
            "filters": {"redact": {"()": "wsloop.redaction.RedactTokens"}},
            "handlers": {"console": {"class": "logging.StreamHandler", "filters": ["redact"]}},
            ...,
        }
    """

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:
            message = ""  # arguments that do not fit; the handler would report the error, and show them
            redacted = redact(f"{record.msg!r} cannot be filled with {record.args!r}")
        else:
            redacted = redact(message)
        if redacted != message:
            record.msg, record.args = redacted, ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)  # formatters look here first
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        return True
