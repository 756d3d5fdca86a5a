"""``manage.py wskick``: closes sockets, over all workers and machines, and prints how many."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from wsloop import api
from wsloop.management.operation import OperatorCommand
from wsloop.protocol.close_codes import DISCONNECTED

MANY = 10  # sockets that are closed without a question


class Command(OperatorCommand):
    help = "Closes the open WebSockets of a user, of a session, of a facility, or all; several options narrow it down."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--user", help="A user, by name.")
        parser.add_argument("--session", help="The key of a session.")
        parser.add_argument("--facility", help="Name of a facility.")
        parser.add_argument("--all", action="store_true", help="All sockets of the site.")
        parser.add_argument(
            "--code",
            type=int,
            default=DISCONNECTED,
            help=f"Close code, 4000 to 4999 (default: {DISCONNECTED}); from 4500 on clients do not come back.",
        )
        parser.add_argument("--reason", default="disconnected", help="For the client, up to 123 bytes.")
        parser.add_argument(
            "--yes", action="store_true", help=f"Do not ask before more than {MANY} sockets are closed."
        )

    def handle(self, *args: Any, code: int, reason: str, **options: Any) -> None:
        whose = {name: options[name] for name in ("user", "session", "facility") if options[name] is not None}
        if bool(whose) == options["all"]:
            raise CommandError("Say whose: --user NAME, --session KEY, --facility NAME, or --all alone.")
        if not options["yes"]:
            self._ask(api.counts(**whose).sockets)
        count = api.disconnect(**whose, everybody=options["all"], code=code, reason=reason)
        if options["json"]:
            self.say_json({"sockets": count})
        else:
            self.say(f"Disconnected sockets: {count}")

    def _ask(self, count: int) -> None:
        """Ask whether many sockets are meant.

        Raises:
            CommandError: if they are not, or there is nobody to ask.
        """
        if count <= MANY:
            return
        if not sys.stdin.isatty():
            raise CommandError(f"{count} sockets would be closed; with --yes they are.")
        if input(f"Close {count} sockets? [y/N] ").strip().lower() not in ("y", "yes"):
            raise CommandError("Closed none.")
