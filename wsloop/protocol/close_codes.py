"""The close codes of this server, and what a client does after each (RFC 6455, section 7.4).

One table for all: the documentation and the browser's scripts repeat its rows, and tests compare them word by word.
Codes from 4000 on are this project's own; a site may close with others of them (``wsloop.api.disconnect``). This module
must not know anything else of wsloop.
"""

from __future__ import annotations

from typing import NamedTuple

NORMAL = 1000
PROTOCOL_ERROR = 1002
ABNORMAL = 1006  # never sent: the code of a connection that ends without a close frame (section 7.1.5)
INVALID_DATA = 1007
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013
SIGNED_OUT = 4001  # 401 of HTTP
RIGHTS_CHANGED = 4003  # 403
TOO_SLOW = 4008  # 408
TOO_MANY = 4029  # 429
REFUSED = 4030  # 403, which is taken
DISCONNECTED = 4500  # from here on a client does not reconnect, as in Centrifugo

MOST_REASON = 123  # bytes of UTF-8 beside a code: a control frame has 125, and two are the code's (section 5.5)

SOON, LATER, NEVER = "soon", "later", "never"


class Row(NamedTuple):
    """One row of the table.

    Attributes:
        meaning: why the server closes.
        action: what the author of a client should do, or its user.
        reconnect: SOON, after a random pause; LATER, after a longer one; or NEVER.
    """

    meaning: str
    action: str
    reconnect: str = SOON


CLOSE_CODES = {
    NORMAL: Row("the answer to the client's own close; or the consumer is finished", "nothing"),
    PROTOCOL_ERROR: Row("the client broke the protocol", "fix the client"),
    INVALID_DATA: Row("text that is not UTF-8, or no JSON where a consumer expects it", "fix the client"),
    MESSAGE_TOO_BIG: Row("message over MAX_MESSAGE_SIZE", "send smaller messages"),
    INTERNAL_ERROR: Row("the server's or the site's code failed", "reconnect later"),
    SERVICE_RESTART: Row(
        "the worker restarts",
        "reconnect after a random pause. Workers that stop close their sockets over some seconds",
    ),
    TRY_AGAIN_LATER: Row(
        "Redis cannot be read, in the middle of a long recovery", "reconnect after a random pause, with resume"
    ),
    SIGNED_OUT: Row(
        "signed out: logout, another password, user not active or deleted; session or token expired or invalid",
        "do not reconnect; show that the user is signed out. With a token: get a new one first",
        NEVER,
    ),
    RIGHTS_CHANGED: Row(
        "the user's permissions or groups have changed",
        "reconnect after a random pause: the server decides the channels anew",
    ),
    TOO_SLOW: Row(
        "too slow: more than MAX_QUEUED_BYTES waited, or no answer to a ping in PING_TIMEOUT",
        "reconnect after a random pause, with resume. Without history the waiting messages are lost",
    ),
    TOO_MANY: Row(
        "more frames than RATE_LIMIT",
        "send more slowly, and reconnect, but not at once",
        LATER,
    ),
    REFUSED: Row(
        "refused, right after it was opened: Origin, Host, URL, or the site's policy",
        "do not reconnect; show the reason, which says what to do",
        NEVER,
    ),
    DISCONNECTED: Row(
        "the site has ended the connection: wsloop.api.disconnect(), manage.py wskick",
        "do not reconnect; tell the user",
        NEVER,
    ),
}

# After these codes the dialect wsloop.v1 tells clients not to reconnect. Consumers and proxies of a site may send 1008.
FINAL = frozenset({POLICY_VIOLATION, *(code for code, row in CLOSE_CODES.items() if row.reconnect == NEVER)})


def is_final(code: int) -> bool:
    """Return whether a client must not reconnect after this code, which may be a site's own."""
    return code in FINAL or code >= DISCONNECTED


__all__ = ["CLOSE_CODES", "FINAL", "Row", "is_final"]
