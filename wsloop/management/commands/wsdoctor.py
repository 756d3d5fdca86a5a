"""``manage.py wsdoctor``: looks at what WebSockets need, and says what to change.

:mod:`wsloop.diagnosis` looks; this module prints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from wsloop import conf
from wsloop.checks import wrong_settings
from wsloop.diagnosis import machine, public_url, redis_server
from wsloop.diagnosis.finding import NOTE, OK, WRONG, Finding
from wsloop.management.operation import OperatorCommand
from wsloop.redaction import one_line

LONGEST_HOLD = 600.0  # seconds
LINES = 15  # seconds between two lines of progress where no line can be written again


class Command(OperatorCommand):
    help = "Looks at Redis, the server's options and the machine, and with --url at the way through proxies."
    requires_system_checks: list[str] = []  # they are among what it looks at

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--url", help="Public URL of a facility that everybody may listen to: wss://host/ws/news.")
        parser.add_argument(
            "--header", action="append", default=[], help='Further header of the handshakes: "Cookie: sessionid=…".'
        )
        parser.add_argument(
            "--hold",
            type=float,
            help="Seconds for which a socket is held open, 0 to 600 (default: two pings and 5 s).",
        )
        parser.add_argument("--config", type=Path, help="The server's uwsgi.ini or gunicorn.conf.py.")
        parser.add_argument("--pid", type=int, help="Process id of the running server, whose limits count.")

    def handle(self, *args: Any, **options: Any) -> None:
        found = []
        for each in self._findings(options):
            found.append(each)
            if not options["json"]:
                self._show(each)
        wrong = sum(each.level == WRONG for each in found)
        if options["json"]:
            self.say_json({"ok": not wrong, "findings": [each._asdict() for each in found]})
        else:
            self.say(f"\nTo be changed: {wrong}" if wrong else "\nNothing to be changed.")
        if wrong:
            sys.exit(1)

    def _findings(self, options: dict[str, Any]) -> Iterator[Finding]:
        headers = dict(_header(each) for each in options["header"])
        wrong = list(dict.fromkeys(wrong_settings()))
        if wrong:  # nothing else can be read then
            yield from (Finding(WRONG, "wsloop.E001", each, "See docs/reference/settings.rst.") for each in wrong)
            return
        hold = options["hold"]
        if hold is None:
            hold = min(2.0 * conf.option("PING_INTERVAL") + 5, LONGEST_HOLD)
        if not 0 <= hold <= LONGEST_HOLD:
            raise CommandError(f"--hold must be from 0 to {LONGEST_HOLD:g} seconds, not {hold:g}")
        for name in ("config", "pid"):
            path = options["config"] if name == "config" else options["pid"] and Path(f"/proc/{options['pid']}/limits")
            if path and not path.is_file():
                raise CommandError(f"--{name}: there is no {path}")
        yield from redis_server.findings()
        yield from machine.findings(options["config"], options["pid"])
        if options["url"]:
            quiet = options["json"] or not options["verbosity"]
            progress = (lambda seconds, pings: None) if quiet else Progress(self.stderr, hold)
            yield from public_url.findings(options["url"], headers, hold, progress)

    def _show(self, finding: Finding) -> None:
        style = {OK: self.style.SUCCESS, NOTE: self.style.WARNING, WRONG: self.style.ERROR}[finding.level]
        self.say(f"{style(finding.level.ljust(6))}{finding.about}: {one_line(finding.text)}")
        if finding.advice:
            self.say(f"      {one_line(finding.advice)}")


class Progress:
    """Says how long a socket has been held: on one line of a terminal, elsewhere on a line now and then."""

    def __init__(self, out: Any, hold: float) -> None:
        self._out = out
        self._hold = hold
        self._next = 0.0

    def __call__(self, seconds: float, pings: int) -> None:
        terminal = self._out.isatty()
        if seconds < self._next:
            return
        self._next = seconds + (1 if terminal else LINES)
        text = f"holding a socket open: {seconds:.0f} of {self._hold:.0f} s, pings: {pings}"
        if terminal:
            self._out.write(f"\r{text}", ending="\r" if seconds < self._hold - 1 else "\n")
        else:
            self._out.write(text)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or not one_line(text) == text:
        raise CommandError('--header must be a name and a value: "Cookie: sessionid=…"')
    return name.strip(), value.strip()
