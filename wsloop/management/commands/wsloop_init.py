"""``manage.py wsloop_init``: shows what a site needs on its server, and writes it when it is told to."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from wsloop.deploy import advice, site
from wsloop.deploy.files import PARTS, File, files

STATES = {"new": "new", "changes": "changes", "same": "is as it should be", "stays": "stays as it is"}


class Command(BaseCommand):
    help = (
        "Shows the files with which this site is served: wsgi.py, uwsgi.ini or gunicorn.conf.py, and those for nginx, "
        "systemd, Docker and Kubernetes; and what is left to do. Writes nothing without --write, or a yes."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
        parser.add_argument(
            "parts", nargs="*", metavar="part", help=f"Of {', '.join(PARTS)}; all of them if none is named."
        )
        parser.add_argument("--server", choices=("uwsgi", "gunicorn"), default="uwsgi", help="The server.")
        parser.add_argument(
            "--host", action="append", dest="hosts", help="A name of the site, instead of ALLOWED_HOSTS."
        )
        parser.add_argument("--directory", default="", help="The site's directory on its server, if it is another one.")
        parser.add_argument("--name", default="", help="Name of the service, instead of that of the site's package.")
        parser.add_argument("--port", type=int, default=8000, help="Port on which the server listens behind nginx.")
        parser.add_argument("--write", action="store_true", help="Write the files that are missing.")
        parser.add_argument(
            "--force",
            action="store_true",
            help="With --write: also those that differ; the former ones are kept as .bak.",
        )
        parser.add_argument("--no-input", action="store_false", dest="interactive", help="Ask nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        parts = list(dict.fromkeys(options["parts"])) or list(PARTS)
        unknown = [each for each in parts if each not in PARTS]
        if unknown:
            raise CommandError(f"There is no part {unknown[0]!r}; there are {', '.join(PARTS)}.")
        try:
            found = site.read(
                server=options["server"],
                hosts=options["hosts"],
                place=options["directory"],
                name=options["name"],
                port=options["port"],
            )
            planned = files(found, parts)
        except (OSError, ValueError) as exc:
            raise CommandError(str(exc)) from exc
        for file in planned:
            self._show(found, file)
        self.stdout.write(self.style.MIGRATE_HEADING(f"{found.name}, for {' and '.join(found.hosts)}:"))
        for file in planned:
            state = STATES[_state(file, options["force"])]
            self.stdout.write(f"  {_name(found, file):<28} {state}{file.note and '. '}{file.note}")
        write = options["write"] or (options["interactive"] and self._says_yes(planned))
        if write:
            for file in planned:
                if _state(file, options["force"]) in ("new", "changes"):
                    self._write(found, file)
        else:
            self.stdout.write("Nothing was written: --write does that.\n")
        self._advise(found, parts)
        left = [_name(found, each) for each in planned if _state(each, options["force"]) == "stays"]
        if write and left:
            raise CommandError(
                f"Not written, because it differs: {', '.join(left)}. --write --force replaces what is there, and "
                "keeps it as .bak."
            )

    def _show(self, found: site.Site, file: File) -> None:
        """Print how a file differs from the present one."""
        name = _name(found, file)
        before = [] if file.old is None else file.old.splitlines()
        after = file.text.splitlines()
        for line in difflib.unified_diff(before, after, name if before else "/dev/null", name, lineterm=""):
            style = {"+": self.style.SUCCESS, "-": self.style.ERROR}.get(line[0], str)
            self.stdout.write(style(line))
        if file.changes:
            self.stdout.write("")

    def _says_yes(self, planned: list[File]) -> bool:
        new = sum(_state(each, False) in ("new", "changes") for each in planned)
        if not new or not sys.stdin.isatty():
            return False
        return input(f"Write {new} files? [y/N] ").strip().lower() in ("y", "yes")

    def _write(self, found: site.Site, file: File) -> None:
        kept = ""
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            if file.old is not None:
                backup = _free(file.path)
                backup.write_text(file.old, encoding="utf-8")
                kept = f"; the former one is {backup.name}"
            file.path.write_text(file.text, encoding="utf-8")
        except OSError as exc:
            raise CommandError(f"Cannot write {file.path}: {exc.strerror}") from exc
        self.stdout.write(f"Wrote {_name(found, file)}{kept}")

    def _advise(self, found: site.Site, parts: list[str]) -> None:
        """Print what is left to do."""
        heading = self.style.MIGRATE_HEADING
        if lines := advice.missing_settings(found, parts):
            self.stdout.write(heading(f"\nAdd to the end of the settings ({found.settings}):\n"))
            self.stdout.write("\n".join(f"    {each}".rstrip() for each in lines))
        if lines := advice.missing_urls(found):
            self.stdout.write(heading(f"\nAdd to the URLs ({found.urls}), for probes:\n"))
            self.stdout.write("    from wsloop import health\n")
            self.stdout.write("\n".join(f"    {each}" for each in lines))
        for sentence in advice.warnings(found, parts):
            self.stdout.write(self.style.WARNING(f"\n{sentence}"))
        for what, lines in advice.commands(found, parts):
            self.stdout.write(heading(f"\n{what}:\n"))
            self.stdout.write("\n".join(f"    {each}" for each in lines))


def _state(file: File, force: bool) -> str:
    if not file.changes:
        return "stays" if file.note else "same"
    if file.old is None:
        return "new"
    if file.edited and not file.note:
        return "changes"
    return "changes" if force else "stays"


def _name(found: site.Site, file: File) -> str:
    return os.path.relpath(file.path, found.directory)


def _free(path: Path) -> Path:
    """Return a name for a copy of a file that is not taken."""
    number = 1
    while (backup := path.with_name(f"{path.name}.bak{number if number > 1 else ''}")).exists():
        number += 1
    return backup
