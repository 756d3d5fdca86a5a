"""``manage.py wspublish``: publishes one message, from an argument or from standard input, and says how many listen."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from wsloop import api
from wsloop.backend import pool
from wsloop.backend.scripts import is_cluster
from wsloop.management.operation import OperatorCommand, add_audiences, audiences


class Command(OperatorCommand):
    help = "Publishes a message to the WebSockets of a facility."

    def create_parser(self, *args: Any, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(*args, **kwargs)
        plain = parser.parse_args

        def parse_args(args: Any = None, namespace: Any = None) -> Any:
            # The plain way of Python 3.11, for example, does not know `orders --user john hello`, and the other one no
            # `--`, behind which a message may begin with a hyphen.
            parse = plain if "--" in (args or ()) else parser.parse_intermixed_args
            return parse(args, namespace)

        parser.parse_args = parse_args  # type: ignore[method-assign]
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("facility", help='Name of the facility: the part of the URL behind "/ws/".')
        parser.add_argument("message", nargs="?", default="-", help="The message; by default standard input, as it is.")
        add_audiences(parser)
        parser.add_argument("--expire", type=int, help="Seconds for which it is retained as the last message; 0: not.")
        parser.add_argument("--key", default="", help="Idempotency key: a message with the same key is published once.")

    def handle(self, *args: Any, facility: str, message: str, **options: Any) -> None:
        whom = audiences(options)
        if not any(whom.values()):
            raise CommandError("Say to whom: --broadcast, --user NAME, --group NAME or --session KEY.")
        if not facility:
            raise CommandError("The name of the facility is empty.")
        if options["expire"] is not None and options["expire"] < 0:
            raise CommandError("--expire must be a number of seconds, or 0.")
        payload = message.encode(errors="surrogateescape")
        if message == "-":
            if sys.stdin.isatty():
                self.stderr.write("The message, to the end of the input (Ctrl-D):")
            payload = sys.stdin.buffer.read()
            if not payload:
                raise CommandError("The standard input is empty: there is no message.")
        self.warn_about_names(whom)
        count = api.listeners(facility=facility, **whom)
        reached = api.publish(payload, facility=facility, expire=options["expire"], key=options["key"], **whom)
        repeated = bool(options["key"]) and reached is None and not is_cluster(pool.client())
        if options["json"]:
            self.say_json({"listeners": count, "bytes": len(payload), "repeated": repeated})
        elif repeated:
            self.say(f"Published nothing: a message with the key {options['key']} was published before")
        else:
            self.say(f"Published {len(payload)} bytes; sockets that listen: {count}")
