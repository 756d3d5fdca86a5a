"""The options of ``WSLOOP`` and of a facility: each with the kind of its values, and a default beside its reason.

This module must not read settings; :mod:`wsloop.conf` does.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured

from wsloop import kinds
from wsloop.kinds import Kind, or_none, seconds, whole


class Option(NamedTuple):
    """One setting: its default, and the kind of its values."""

    default: Any
    kind: Kind


class Facility(NamedTuple):
    """The options of one facility, with their defaults.

    Attributes:
        size: number of messages kept in the history of each channel, so that clients can recover missed messages; 0:
            no history, because it costs memory of Redis.
        ttl: seconds for which the history is kept after its last message; by default as long as ws4redis retains the
            last message.
        recover: whether clients may recover missed messages; False: the history is for views alone.
        latest_only: a client that does not read fast enough misses all but the newest message of each channel, instead
            of being closed: for prices and positions, where only the newest counts.
        presence: whether the facility has presence.
        compression: whether its sockets may negotiate compression. Off where a message mixes a secret with text of
            another person, who could guess the secret by the size on the wire (BREACH).
    """

    size: int = 0
    ttl: int = 3600
    recover: bool = True
    latest_only: bool = False
    presence: bool = False
    compression: bool = True

    @property
    def recovers(self) -> bool:
        """Whether clients may recover missed messages, and there is a history to recover them from."""
        return self.size > 0 and self.recover


PLAIN = Facility()

_facility_options = kinds.dictionary(
    {
        "size": whole(0, kinds.LONGEST),
        "ttl": whole(1, kinds.LONGEST),
        **dict.fromkeys(("recover", "latest_only", "presence", "compression"), kinds.yes_or_no),
    }
)


def _facilities(name: str, value: Any) -> dict[str, Facility]:
    if not isinstance(value, dict) or not all(
        isinstance(pattern, str) and isinstance(options, dict) for pattern, options in value.items()
    ):
        raise kinds.wrong(name, "a dictionary of patterns to dictionaries", value)
    for pattern in value:
        if pattern.startswith("/"):
            raise ImproperlyConfigured(
                f"{name} has the pattern {pattern!r}, which no facility matches: the name of a facility is the part of "
                f"the URL behind WSLOOP['URL']. Write {pattern.lstrip('/')!r}."
            )
    return {
        pattern: Facility(**_facility_options(f"{name}[{pattern!r}]", options)) for pattern, options in value.items()
    }


MOST_HEARTBEAT = 1024  # bytes: it goes to every socket every 4 s


class ApiKey(NamedTuple):
    """A key of the server API over HTTP: its secret token, and the names of what a program that shows it may do."""

    token: str
    may: tuple[str, ...]


API_PERMISSIONS = ("publish", "read", "disconnect")


def _api_keys(name: str, value: Any) -> dict[str, ApiKey]:
    # No error shows a value: it may be a secret.
    if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
        raise ImproperlyConfigured(
            f'{name} must be a dictionary such as {{"billing": {{"token": os.environ["TOKEN"], "may": ["publish"]}}}}'
        )
    found = {}
    for key, options in value.items():
        token, may = options.get("token"), options.get("may")
        if set(options) - {"token", "may"} or not isinstance(token, str) or not re.fullmatch(r"[!-~]{32,512}", token):
            raise ImproperlyConfigured(
                f"{name}[{key!r}] must have a token of 32 to 512 characters, ASCII without blanks: "
                'python -c "import secrets; print(secrets.token_urlsafe(32))"'
            )
        if not isinstance(may, (list, tuple)) or not may or not all(each in API_PERMISSIONS for each in may):
            raise ImproperlyConfigured(f"{name}[{key!r}]['may'] must be a list of {', '.join(API_PERMISSIONS)}")
        found[str(key)] = ApiKey(token, tuple(may))
    if len({each.token for each in found.values()}) < len(found):
        raise ImproperlyConfigured(f"{name} has the same token twice")
    return found


OPTIONS: dict[str, Option] = {
    # The site. Defaults are those of ws4redis.
    # Beginning of the path of all WebSockets.
    "URL": Option("/ws/", kinds.path),
    # Where Redis is: wsloop.backend.redis_options checks it.
    "REDIS": Option({"host": "localhost", "port": 6379, "db": 0}, kinds.anything),
    # Prefix of all Redis keys and channels: none, because most sites have a Redis, or a database of it, to themselves.
    "PREFIX": Option(None, or_none(kinds.text)),
    # Seconds for which a published message is retained as the last one of its channel; 0: not at all.
    "EXPIRE": Option(3600, whole(0, kinds.LONGEST)),
    # Text that sockets without wsloop.v1 get every 4 s: none, because the server pings.
    "HEARTBEAT": Option(None, or_none(kinds.text_on_sockets(MOST_HEARTBEAT))),
    # Functions that decide who may subscribe and publish, and that find session and user; or their dotted paths.
    "POLICY": Option(None, or_none(kinds.function("request", "channels"))),
    "PROCESS_REQUEST": Option(None, or_none(kinds.function("request"))),
    # The class that works out a socket's channels.
    "SUBSCRIBER": Option("ws4redis.subscriber.RedisSubscriber", kinds.class_path),
    # Input of a client.
    # Largest message accepted from a client, in bytes, over all of its fragments, decompressed: that of Centrifugo and
    # AnyCable. Redis takes 512 MiB.
    "MAX_MESSAGE_SIZE": Option(64 * 1024, whole(most=512 * 1024 * 1024)),
    # Frames a second accepted from a client in the long run, and at once: a drawing page sends one for each animation
    # frame, 60 a second. None: any number.
    "RATE_LIMIT": Option((100, 200), or_none(kinds.rate)),
    # Largest header of a handshake, and largest query string, in bytes: the longest real ones have some hundred, with
    # a token in it.
    "MAX_HEADER_SIZE": Option(4096, whole(least=256)),
    # Longest facility, in bytes: it is part of the names of up to four channels, kept as long as the socket is open.
    "MAX_FACILITY_SIZE": Option(255, whole()),
    # Subscriptions of the socket of a whole page: as many as Centrifugo allows.
    "MAX_SUBSCRIPTIONS": Option(128, whole()),
    # Commands of such a client other than publishing, a second in the long run and at once: each may cost some
    # milliseconds of the database. More of them wait. None: any number.
    "COMMAND_RATE": Option((20, 200), or_none(kinds.rate)),
    # Patterns of paths, as in shells, that a client may call over such a socket: none, because a site's views may count
    # on being called by a page of the site.
    "CALL_PATHS": Option((), kinds.paths),
    # Whether clients may publish where no POLICY decides, as in ws4redis: no, because
    # whoever opens a socket could write to all who listen, under the name of the site.
    "CLIENTS_MAY_PUBLISH": Option(False, kinds.yes_or_no),
    # Output that waits for a client.
    # Output that may wait for one client, in bytes, before it is closed as too slow: 1 MiB bounds 1,000 stuck clients
    # to 1 GiB, and holds some thousand notifications.
    "MAX_QUEUED_BYTES": Option(1024 * 1024, whole()),
    # Events of the channel layer that wait for one consumer, before more are dropped: ten times what Channels holds,
    # because a burst reaches all of a worker's consumers before the first of them can run. In bytes, not more than
    # MAX_QUEUED_BYTES.
    "CHANNEL_CAPACITY": Option(1000, whole()),
    # Number of sockets. Each worker counts its own; None: any number.
    # Sockets of one worker, closing ones included. Three quarters of its descriptors are the limit where that is less,
    # so that the site goes on answering.
    "MAX_CONNECTIONS": Option(25_000, or_none(whole())),
    # Sockets of one user: many tabs on many devices.
    "MAX_CONNECTIONS_PER_USER": Option(100, or_none(whole())),
    # Sockets of one address: an office, a school, or many phones behind one gateway.
    "MAX_CONNECTIONS_PER_ADDRESS": Option(500, or_none(whole())),
    # Addresses and networks whose X-Forwarded-For is trusted: none, because a client can send that header too.
    "TRUSTED_PROXIES": Option((), kinds.networks),
    # Timeouts, in seconds.
    # From the request to the 101: above REDIS_TIMEOUT, below the patience of proxies and people.
    "HANDSHAKE_TIMEOUT": Option(10, seconds),
    # Between two pings to a socket: half of the 60 s after which uWSGI's http router, nginx and most load balancers cut
    # an idle connection. A shorter interval costs more: pings are nearly all that 15,000 idle sockets cost. Connections
    # are divided into as many portions.
    "PING_INTERVAL": Option(30, whole(most=3600)),
    # For the answer to a ping: as much as Socket.IO grants; phones that wake up need some.
    "PING_TIMEOUT": Option(20, whole(most=3600)),
    # For the answer to a close frame and the end of the connection: slow phones manage, and stuck ones do not pile up.
    "CLOSE_TIMEOUT": Option(10, seconds),
    # For an answer of Redis, in a handshake as in a view that publishes.
    "REDIS_TIMEOUT": Option(5, seconds),
    # For a handler of a consumer to go on after its client has left: as much as Channels' daphne grants.
    "HANDLER_TIMEOUT": Option(10, seconds),
    # After which an event loop that is held up is logged: longer than what usually computes in a view, and as much as
    # people notice. None: never.
    "BLOCKED_AFTER": Option(0.25, or_none(seconds)),
    # A file with which an operator takes the workers of a machine out of service: while it exists, the view readyz
    # answers 503. None: there is no such file.
    "LEAVING_FILE": Option(None, or_none(kinds.file)),
    # Compression.
    # Smallest message that is compressed for clients that negotiated it, in bytes: below, compressing costs more than
    # it saves. None: nothing is compressed in either direction.
    "COMPRESS_FROM": Option(1024, or_none(whole())),
    # Other sites whose pages may open sockets: none, because a browser sends the user's cookies with every socket that
    # a page opens.
    "ALLOWED_ORIGINS": Option((), kinds.origins),
    # Keys of the server API over HTTP, by the names of the programs that have them: none, so that it is off.
    "API_KEYS": Option({}, _api_keys),
    # The operator.
    # With which a Prometheus server reads wsloop.views.metrics, as "Authorization: Bearer …". None: staff alone may.
    "METRICS_TOKEN": Option(None, or_none(kinds.secret)),
    # Options of facilities: patterns of their names, as in shells, to dictionaries; the first that matches counts.
    "FACILITIES": Option({}, _facilities),
}
DEFAULTS: dict[str, Any] = {name: option.default for name, option in OPTIONS.items()}

# The settings of ws4redis that options of WSLOOP stand for. A site that has moved over may keep them.
ALIASES: dict[str, str] = {
    "URL": "WEBSOCKET_URL",
    "REDIS": "WS4REDIS_CONNECTION",
    "PREFIX": "WS4REDIS_PREFIX",
    "EXPIRE": "WS4REDIS_EXPIRE",
    "HEARTBEAT": "WS4REDIS_HEARTBEAT",
    "POLICY": "WS4REDIS_ALLOWED_CHANNELS",
    "PROCESS_REQUEST": "WS4REDIS_PROCESS_REQUEST",
    "SUBSCRIBER": "WS4REDIS_SUBSCRIBER",
}
