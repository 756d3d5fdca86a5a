"""JSON as RFC 8259 has it: what Python's module reads and writes beside that, no browser can parse.

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
    """A text is no JSON; why not, in words that a client may be told."""


MOST_DIGITS = 20  # of a whole number of 64 bits; Python takes longer ones, at a cost that grows with their square
# Without one of these no number can be too large, and Python need not be asked about each.
SUSPICIOUS = re.compile(r"[0-9]{19}|[0-9][eE]\+?[0-9]{3}")
SURROGATE = re.compile("\\\\u[dD][89a-fA-F]|[\ud800-\udfff]")  # escaped, one of a pair or a half


def decode(text: str | bytes, surrogates: bool = False) -> Any:
    """Return what a text says.

    Args:
        text: JSON, in UTF-8.
        surrogates: whether half of a surrogate pair may be in it; the caller sees to it that it goes nowhere.

    Raises:
        NotJson: if it is none.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        content = (_STRICT if SUSPICIOUS.search(text) else _DECODER).decode(text)
        if not surrogates and SURROGATE.search(text):
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise NotJson("half of a surrogate pair is no character") from None
    except UnicodeDecodeError:
        raise NotJson("text that is not UTF-8") from None
    except json.JSONDecodeError as exc:
        raise NotJson(f"it ends, or goes on otherwise, at character {exc.pos}") from None
    except RecursionError:
        raise NotJson("nested too deeply") from None
    return content


def encode(content: Any, cls: type[json.JSONEncoder] | None = None) -> str:
    """Return the text that says ``content``; any character may be in it, not only those of ASCII.

    Args:
        content: what JSON can carry.
        cls: writes what Python's own encoder does not.

    Raises:
        TypeError: if it has something that JSON cannot carry.
        ValueError: if it has a number that is none or infinite, half of a surrogate pair, or itself as a part.
    """
    try:
        text = json.dumps(content, cls=cls, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair cannot be written as JSON in UTF-8") from None
    except RecursionError:
        raise ValueError("what is nested so deeply cannot be written as JSON") from None
    except ValueError as exc:
        raise ValueError(f"this cannot be written as JSON: {exc}") from None
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
    raise NotJson(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_constant)
_STRICT = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_constant)
