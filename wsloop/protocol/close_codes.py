"""The close codes of this server, and what a client does after each (RFC 6455, section 7.4).

One table for all: the documentation and the browser's scripts have the same rows, and tests compare them. Codes from
4000 on are this project's own. This module must not know anything else of wsloop.
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


class CloseCode(NamedTuple):
    """One row: the meaning of a code, and whether the client may reconnect."""

    meaning: str
    reconnect: bool


CLOSE_CODES = {
    NORMAL: CloseCode("the client's own, sent back, or the consumer has done its work", False),
    PROTOCOL_ERROR: CloseCode("the client broke the protocol", False),
    INVALID_DATA: CloseCode("text that is not UTF-8, or no JSON where a consumer expects it", False),
    MESSAGE_TOO_BIG: CloseCode("a message over MAX_MESSAGE_SIZE", False),
    INTERNAL_ERROR: CloseCode("the server's or the site's code failed", True),
    SERVICE_RESTART: CloseCode("the worker restarts", True),
    TRY_AGAIN_LATER: CloseCode("Redis cannot be read, in the middle of a long recovery", True),
    SIGNED_OUT: CloseCode("signed out", False),
    RIGHTS_CHANGED: CloseCode("the user's rights or groups have changed", True),
    TOO_SLOW: CloseCode("more than MAX_QUEUED_BYTES waited, or no answer to a ping in PING_TIMEOUT", True),
    TOO_MANY: CloseCode("more frames, or bytes, than RATE_LIMIT", True),
}

# After these codes the dialect wsloop.v1 tells clients not to reconnect. After the other codes for a client's own fault
# clients decide for themselves: the same client would be closed again.
FINAL = frozenset({POLICY_VIOLATION, SIGNED_OUT})

__all__ = ["CLOSE_CODES", "FINAL", "CloseCode"]
