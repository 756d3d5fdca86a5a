"""``manage.py wstail``: prints what is published to a facility, or to an audience of it, until Ctrl-C.

It listens in Redis, as a worker does, so it sees what sockets get, and nothing of the history. When Redis goes away it
waits for its return.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandError, CommandParser
from redis.connection import ConnectionInterface
from redis.exceptions import RedisError

from wsloop import addressees, conf
from wsloop.backend import pool
from wsloop.management.operation import OperatorCommand, add_audiences, audiences
from wsloop.protocol.messages import Message, as_json, audience, unwrap
from wsloop.redaction import one_line

PROBE = 15.0  # seconds of silence after which the connection is tried
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between attempts to connect


class Command(OperatorCommand):
    help = "Prints the messages that are published to a facility, until Ctrl-C."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("facility", nargs="?", help="Name of the facility; without it all facilities.")
        add_audiences(parser)
        parser.add_argument("--count", type=int, help="End after this number of messages.")

    def handle(self, *args: Any, facility: str | None, count: int | None, **options: Any) -> None:
        if count is not None and count < 1:
            raise CommandError(f"--count must be a positive number, not {count}")
        whom = audiences(options)
        self.warn_about_names(whom)
        left = float("inf") if count is None else count
        for channel, message in _messages(_patterns(facility, whom), self._note):
            if options["json"]:
                self.say_json(_content(channel, message))
            else:
                self.say(self._line(channel, message))
            left -= 1
            if not left:
                return

    def _note(self, text: str) -> None:
        self.stderr.write(f"{time.strftime('%H:%M:%S')} {text}")

    def _line(self, channel: bytes, message: Message) -> str:
        found = _content(channel, message)
        whom = f"{found['audience']}:{found['name']}" if found["name"] else found["audience"]
        offset = f" #{found['offset']}" if found["offset"] else ""
        text = one_line(found["data"]) if "data" in found else f"(base64) {found['base64']}"
        head = f"{time.strftime('%H:%M:%S')} {one_line(found['facility'])} {one_line(whom)}{offset}"
        return f"{self.style.HTTP_INFO(head)} {text}"


def _patterns(facility: str | None, whom: dict[str, Any]) -> list[str]:
    """Return the patterns of the channels that are meant, as of PSUBSCRIBE."""
    name = "*" if facility is None else _literal(addressees.facility_name(facility))
    prefix = _literal(conf.prefix())
    found = [f"{prefix}broadcast:{name}"] if whom["broadcast"] else []
    for kind, read in (
        ("user", addressees.user_name),
        ("group", addressees.group_name),
        ("session", addressees.session_key),
    ):
        found += [f"{prefix}{kind}:{_literal(read(each))}:{name}" for each in whom[f"{kind}s"]]
    if found:
        return found
    return [f"{prefix}{kind}:{name}" for kind in ("broadcast", "presence", "user:*", "group:*", "session:*")]


def _literal(text: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def _messages(patterns: list[str], note: Any) -> Iterator[tuple[bytes, Message]]:
    """Yield channel and message for all that is published on the channels, and go on when Redis returns.

    Raises:
        redis.exceptions.RedisError, OSError: if Redis cannot be reached at the beginning.
    """
    connection = _subscribe(patterns)
    note("Listening; Ctrl-C ends it")
    try:
        while True:
            try:
                yield from _read(connection)
            except (RedisError, OSError) as exc:
                note(f"Redis cannot be reached, and messages are missed: {exc}")
                connection.disconnect()
                connection = _return(patterns)
                note("Listening again")
    finally:
        connection.disconnect()


def _return(patterns: list[str]) -> ConnectionInterface:
    pause = FIRST_PAUSE
    while True:
        time.sleep(pause)
        try:
            return _subscribe(patterns)
        except (RedisError, OSError):
            pause = min(2 * pause, LONGEST_PAUSE)


def _subscribe(patterns: list[str]) -> ConnectionInterface:
    connection = pool.subscription_connection(protocol=2, client_name="wsloop-tail")
    connection.send_command("PSUBSCRIBE", *patterns)
    for _ in patterns:
        connection.read_response(disable_decoding=True)
    return connection


def _read(connection: ConnectionInterface) -> Iterator[tuple[bytes, Message]]:
    while True:
        if not connection.can_read(timeout=PROBE):
            connection.send_command("PING")  # its answer is there in socket_timeout, or reading fails
        response = connection.read_response(disable_decoding=True)
        if response[0] == b"pmessage":
            _, _, channel, data = response
            yield channel, unwrap(data)


def _content(channel: bytes, message: Message) -> dict[str, Any]:
    whom = audience(channel)
    name = ""
    if whom.kind in ("user", "group"):
        # All but the facility; the key of a session is a secret.
        name = channel.decode(errors="replace").removeprefix(conf.prefix()).split(":", 1)[1]
        name = name.removesuffix(f":{whom.facility}")
    moment = message.time or int(1e6 * time.time())  # as of a history: microseconds, by the clock of Redis if it tells
    about = {"facility": whom.facility, "audience": whom.kind, "name": name, "offset": message.offset, "time": moment}
    return {**about, **as_json(message.payload)}


__all__ = ["Command"]
