"""The kinds of values of settings: functions that check a value and return it.

A wrong value raises :class:`ImproperlyConfigured` with the name of the setting, what it must be, and what it is. This
module must not read settings; :mod:`wsloop.options` and :mod:`wsloop.conf` give each setting its kind.
"""

from __future__ import annotations

import inspect
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

Kind = Callable[[str, Any], Any]  # takes the name of the setting and the value; returns the value

# Redis takes no expiry beyond 64 bits of milliseconds, sockets no timeout beyond some centuries. 30 years are enough.
LONGEST = 10**9  # seconds
SHORTEST = 0.001  # seconds; timers have no finer resolution
MOST = 10**12  # of anything that is counted
SHOWN = 200  # characters of a wrong value that an error shows

# The Origin that browsers send for pages without an origin of their own: sandboxed frames, data: URLs and local files.
NAMELESS_ORIGINS = ("null", "file://")
# RFC 6454, section 6.2: scheme, host, and a port unless it is the default one. A file has no host.
ORIGIN = re.compile(r"(?!file:)[a-z][a-z0-9+.-]*://(?P<host>\[[^]]*\]|[^:]*)(:(?P<port>[0-9]{1,5}))?", re.IGNORECASE)
# A host by name, perhaps with a wildcard for its subdomains. Browsers keep a dot at the end.
HOST_NAME = re.compile(r"(\*\.)?([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?", re.IGNORECASE)


def wrong(name: str, wanted: str, value: Any) -> ImproperlyConfigured:
    """Return the error that names a setting, what it must be, and what it is."""
    shown = repr(value)
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
    hint = ""
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+(\.\d+)?\s*", value):
        hint = ", which is text: write int(…) or float(…) around what comes from the environment"
    return ImproperlyConfigured(f"{name} must be {wanted}, not {shown}{hint}")


def whole(least: int = 1, most: int = MOST) -> Kind:
    """Return the kind of whole numbers from ``least`` to ``most``."""
    wanted = "a positive whole number" if least == 1 else f"a whole number, {least} or more"

    def check(name: str, value: Any) -> int:
        if type(value) is not int or value < least:
            raise wrong(name, wanted, value)
        if value > most:
            raise wrong(name, f"{wanted}, and not more than {most}", value)
        return value

    return check


def seconds(name: str, value: Any) -> float:
    """Return a duration in seconds, checked; fractions are allowed."""
    if type(value) not in (int, float) or not value >= SHORTEST:
        raise wrong(name, "a positive number of seconds", value)
    if value > LONGEST:
        raise wrong(name, f"a positive number of seconds, and not more than {LONGEST}", value)
    return value  # type: ignore[no-any-return]


def yes_or_no(name: str, value: Any) -> bool:
    """Return a value that is True or False, checked."""
    if type(value) is not bool:
        raise wrong(name, "True or False", value)
    return value


def anything(name: str, value: Any) -> Any:
    """Return any value: it is checked elsewhere."""
    return value


def or_none(kind: Kind) -> Kind:
    """Return the kind of values that may also be None."""
    return lambda name, value: None if value is None else kind(name, value)


def text(name: str, value: Any) -> str:
    """Return text that can be encoded as UTF-8, checked."""
    if not isinstance(value, str):
        raise wrong(name, "text (str)", value)
    if not is_utf8(value):
        raise wrong(name, "text that can be encoded as UTF-8", value)
    return value


def secret(name: str, value: Any) -> str:
    """Return a token that a client sends in a header, checked; the error does not show it."""
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]{16,}", value):
        raise ImproperlyConfigured(
            f"{name} must be text of 16 or more letters, digits and signs of ASCII, without blanks; "
            '`python -c "import secrets; print(secrets.token_urlsafe())"` makes one. It is not shown here.'
        )
    return value


def is_utf8(value: str) -> bool:
    """Return whether text can be encoded as UTF-8: half of a surrogate pair cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def text_on_sockets(most: int) -> Kind:
    """Return the kind of text that is sent to sockets, of up to ``most`` bytes as UTF-8."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise wrong(name, 'text such as "--heartbeat--", or None', value)
        if len(text(name, value).encode()) > most:
            raise wrong(name, f"text of up to {most} bytes", value)
        return value

    return check


def class_path(name: str, value: Any) -> str:
    """Return the dotted path of a class, checked for its form."""
    if not isinstance(value, str) or "." not in value:
        raise wrong(name, 'the dotted path of a class, such as "mysite.sockets.Subscriber"', value)
    return value


def path(name: str, value: Any) -> str:
    """Return the path of a URL that other paths begin with, checked."""
    wanted = 'a path that begins and ends with a slash, such as "/ws/"'
    if not isinstance(value, str) or not (value.startswith("/") and value.endswith("/")):
        raise wrong(name, wanted, value)
    if "//" in value or not value.isprintable() or re.search(r"[\s?#%\\]", value):
        raise wrong(name, f"{wanted}, without host, query, blanks and empty parts", value)
    return value


def paths(name: str, value: Any) -> tuple[str, ...]:
    """Return a list of patterns of paths, checked."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) and each[:1] == "/" for each in value):
        raise wrong(name, 'a list of paths that begin with a slash, such as "/api/*"', value)
    return tuple(value)


def file(name: str, value: Any) -> str:
    """Return the absolute path of a file, which need not be there, checked."""
    found = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(found, str) or not os.path.isabs(found) or "\0" in found:
        raise wrong(name, 'an absolute path of a file, such as "/run/mysite/leaving"', value)
    return found


def rate(name: str, value: Any) -> tuple[float, float]:
    """Return a rate, checked: a number a second in the long run, and a number at once."""
    wanted = "two positive numbers, frames a second and at once (at least 4), or None"
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise wrong(name, wanted, value)
    a_second, at_once = value
    if any(type(each) not in (int, float) or not 0 < each <= MOST for each in value) or at_once < 4:
        raise wrong(name, wanted, value)
    return a_second, at_once


def origins(name: str, value: Any) -> tuple[str, ...]:
    """Return a list of origins, checked (RFC 6454, section 6.2); a wildcard stands for any subdomains."""
    wanted = (
        'a list of origins, "https://example.com", "https://*.example.com", "null", "file://" or "*", written as '
        'browsers send them (no path, no slash at the end, "xn--…" for names that are not ASCII)'
    )
    if not isinstance(value, (list, tuple)):
        raise wrong(name, wanted, value)
    for each in value:
        if each in ("*", *NAMELESS_ORIGINS):
            continue
        found = ORIGIN.fullmatch(each) if isinstance(each, str) else None
        if found is None or not _is_host(found["host"]):
            raise wrong(name, wanted, value)
        if found["port"] and not 0 < int(found["port"]) < 65536:
            raise wrong(name, "a list of origins with ports up to 65535", value)
    return tuple(value)


def _is_host(host: str) -> bool:
    """Return whether a host is a name, perhaps with a wildcard, or an address as in a URL."""
    try:
        if host.startswith("["):
            return "%" not in host and ipaddress.IPv6Address(host[1:-1]) is not None
        if re.search(r"(^|\.)[0-9]+\.?$", host):  # a name that ends in a number is an address to a browser
            return ipaddress.IPv4Address(host) is not None
    except ValueError:
        return False
    return len(host) <= 255 and HOST_NAME.fullmatch(host) is not None


def networks(name: str, value: Any) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Return a list of addresses and networks, checked."""
    wanted = 'a list of addresses and networks such as "10.0.0.0/8"'
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
        raise wrong(name, wanted, value)
    try:
        return tuple(ipaddress.ip_network(each) for each in value)
    except ValueError as exc:
        raise wrong(name, f"{wanted} ({exc})", value) from None


def dictionary(kinds: Mapping[str, Kind]) -> Kind:
    """Return the kind of dictionaries that may have these keys, with values of these kinds."""

    def check(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):  # not shown: a Redis URL with its password may be in the wrong place
            raise ImproperlyConfigured(f"{name} must be a dictionary, not {type(value).__name__}")
        unknown = [key for key in value if key not in kinds]
        if unknown:
            raise ImproperlyConfigured(f"{name} has no option {unknown}; there are {list(kinds)}")
        return {key: kinds[key](f"{name}[{key!r}]", given) for key, given in value.items()}

    return check


def imported(name: str, value: str) -> Any:
    """Return the object that a dotted path names.

    Raises:
        ImproperlyConfigured: if it cannot be imported, errors of the module's own code included.
    """
    try:
        return import_string(value)
    except Exception as exc:
        raise ImproperlyConfigured(f"{name} = {value!r} cannot be imported: {type(exc).__name__}: {exc}") from exc


def function(*parameters: str) -> Kind:
    """Return the kind of plain functions, or dotted paths of such, that can be called with these parameters."""
    signature = f"({', '.join(parameters)})"

    def check(name: str, value: Any) -> Callable[..., Any]:
        found = value
        if isinstance(value, str):
            found = imported(name, value)
        if not callable(found):
            raise wrong(name, f"a function {signature} or the dotted path of one", value)
        if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__):
            raise wrong(name, f"a plain function {signature}: write `def` for `async def`", value)
        try:
            inspect.signature(found).bind(*parameters)
        except TypeError as exc:
            raise wrong(name, f"a function that can be called with {signature} ({exc})", value) from None
        except ValueError:
            pass  # without a signature, as some functions written in C
        return found  # type: ignore[no-any-return]

    return check
