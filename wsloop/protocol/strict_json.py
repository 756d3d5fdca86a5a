"""JSON as in RFC 8259, without the extensions of Python's module, which no browser can parse.

Refused are ``NaN`` and ``Infinity``, numbers that become infinite (``1e999``) or need more than 64 bits (neither
MessagePack nor databases carry them), and half of a surrogate pair (``"\\ud800"``), which cannot be encoded as UTF-8.
This module must not know anything else of wsloop.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any


class NotJson(ValueError):
    """A text is not JSON; the message says why, and may be sent to a client."""


MOST_DIGITS = 20  # of an integer of 64 bits; Python parses longer ones at a cost that grows with their square
# A text without such a part has no number that is too large, so the quicker decoder will do.
SUSPICIOUS = re.compile(r"[0-9]{19}|[0-9][eE]\+?[0-9]{3}")
SURROGATE = re.compile("\\\\u[dD][89a-fA-F]|[\ud800-\udfff]")  # escaped, one of a pair or a half


def decode(text: str | bytes, surrogates: bool = False) -> Any:
    """Return the value that a text represents.

    Args:
        text: JSON, in UTF-8.
        surrogates: whether half of a surrogate pair is allowed; the caller must not pass it on.

    Raises:
        NotJson: if it is not JSON.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        content = (_STRICT if SUSPICIOUS.search(text) else _DECODER).decode(text)
        if not surrogates and SURROGATE.search(text):
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise NotJson("half of a surrogate pair is not a character") from None
    except UnicodeDecodeError:
        raise NotJson("text that is not UTF-8") from None
    except json.JSONDecodeError as exc:
        raise NotJson(f"unexpected end or character at position {exc.pos}") from None
    except RecursionError:
        raise NotJson("nested too deeply") from None
    return content


def encode(content: Any, cls: type[json.JSONEncoder] | None = None) -> str:
    """Return the text that represents ``content``; it may contain any character, not only ASCII.

    Args:
        content: any value that JSON can represent.
        cls: encodes values that Python's own encoder does not.

    Raises:
        TypeError: if it contains a value that JSON cannot represent.
        ValueError: if it contains NaN, an infinite number, half of a surrogate pair, or itself.
    """
    try:
        text = json.dumps(content, cls=cls, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair cannot be written as JSON in UTF-8") from None
    except RecursionError:
        raise ValueError("the value is nested too deeply for JSON") from None
    except ValueError as exc:
        raise ValueError(f"the value cannot be written as JSON: {exc}") from None
    return text


def _integer(text: str) -> int:
    if len(text) <= MOST_DIGITS:
        number = int(text)
        if -(2**63) <= number < 2**64:
            return number
    raise NotJson("a number of more than 64 bits")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotJson("a number that is too large")
    return number


def _constant(name: str) -> Any:
    raise NotJson(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_constant)
_STRICT = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_constant)
