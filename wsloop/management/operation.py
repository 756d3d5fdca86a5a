"""What the commands for operators have in common: audiences as options, output for people and for scripts, a quiet end.

This module must not know sockets.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist, ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.management.color import no_style
from django.db import Error
from redis.exceptions import RedisError

from wsloop import addressees, db

INTERRUPTED = 130  # exit status of a program that Ctrl-C has ended: 128 and the number of SIGINT


class OperatorCommand(BaseCommand):
    """A command that asks or tells the workers something, and can print JSON."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print JSON, for scripts.")

    def execute(self, *args: Any, **options: Any) -> Any:
        if os.environ.get("NO_COLOR") and not options.get("force_color"):  # https://no-color.org
            options["no_color"] = True
            self.style = no_style()
        try:
            with acting():
                return super().execute(*args, **options)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except BrokenPipeError:  # of `| head`; what Python would flush at its end goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)

    def say(self, text: str) -> None:
        """Print a line at once."""
        self.stdout.write(text)
        self.stdout.flush()

    def warn_about_names(self, whom: dict[str, Any]) -> None:
        """Say which users and groups the database does not have: a mistyped name is a valid channel.

        Args:
            whom: as :func:`audiences` returns it.
        """
        model: Any = get_user_model()
        groups = addressees.groups_field(model)
        kinds: list[tuple[str, Any, str, list[str]]] = [("user", model, model.USERNAME_FIELD, whom["users"])]
        if groups is not None:
            kinds.append(("group", groups.related_model, "name", whom["groups"]))
        # Redis is all that these commands need.
        with suppress(Error, ImproperlyConfigured, ValueError, ValidationError):
            for kind, owner, field, names in kinds:
                found = owner._default_manager.filter(**{f"{field}__in": names}).values_list(field, flat=True)
                known = {str(each) for each in found}
                for name in names:
                    if name not in known:
                        self.stderr.write(f"Note: there is no {kind} with the name {addressees.shown(name)}")
            db.give_back()

    def say_json(self, content: Any) -> None:
        """Print a value as one line of JSON."""
        self.say(json.dumps(content, ensure_ascii=False))


@contextmanager
def acting() -> Iterator[None]:
    """Turn errors that an operator can act on into those of a command, which have no traceback."""
    try:
        yield
    except (TypeError, ValueError, ObjectDoesNotExist, ImproperlyConfigured) as exc:
        raise CommandError(str(exc)) from exc
    except (RedisError, OSError) as exc:
        if isinstance(exc, BrokenPipeError):
            raise
        raise CommandError(f"Redis cannot be reached: {exc}") from exc


def add_audiences(parser: CommandParser) -> None:
    """Add the options that name the audiences of a facility."""
    parser.add_argument("--broadcast", action="store_true", help="All who listen to the facility.")
    parser.add_argument("--user", action="append", default=[], help="A user, by name; may be given again.")
    parser.add_argument("--group", action="append", default=[], help="A group, by name; may be given again.")
    parser.add_argument("--session", action="append", default=[], help="The key of a session; may be given again.")


def audiences(options: dict[str, Any]) -> dict[str, Any]:
    """Return the audiences that the options name, as arguments of :mod:`wsloop.api`."""
    return {
        "broadcast": options["broadcast"],
        "users": options["user"],
        "groups": options["group"],
        "sessions": options["session"],
    }


__all__ = ["OperatorCommand", "acting", "add_audiences", "audiences"]
