"""``manage.py wsloop_outbox``: publishes the messages that wait in the outbox, continuously or once.

Any number of processes may run it. It waits while Redis or the database cannot be reached and ends with SIGTERM or
SIGINT, between two batches. :mod:`wsloop.outbox.delivery` does the work; this module must not know Redis beyond its
errors.
"""

from __future__ import annotations

import select
import signal
import socket
import time
from types import FrameType, TracebackType
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError
from django.db import close_old_connections, connections
from redis.exceptions import RedisError

from wsloop.outbox.delivery import BATCH, describe, drain, waiting
from wsloop.outbox.models import Message

LONGEST_PAUSE = 30.0  # seconds between two attempts while Redis or the database cannot be reached
PROGRESS = 5.0  # seconds between two lines about a backlog


class Ending:
    """Waits for SIGTERM and SIGINT. A second signal ends the process as it would without this."""

    def __init__(self) -> None:
        self._asked = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def __enter__(self) -> Ending:
        # Not an Event: a signal may arrive while its lock is held. Nor a sleep: Python resumes it after the signal.
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno())
        self._handlers = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._restore()
        signal.set_wakeup_fd(self._wakeup)
        self._reader.close()
        self._writer.close()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        self._restore()

    def wait(self, seconds: float) -> bool:
        """Wait for at most this many seconds, and return whether the process has been asked to end."""
        if not self._asked and select.select([self._reader], [], [], seconds)[0]:
            self._reader.recv(4096)  # the number of any signal that has a handler
        return self._asked


class Command(BaseCommand):
    help = "Publishes the messages of the outbox, in order, until SIGTERM or SIGINT."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--once", action="store_true", help="Publish the waiting messages and exit, with status 1 if some remain."
        )
        parser.add_argument(
            "--interval", type=float, default=1.0, help="Seconds between two queries of the outbox (default: 1)."
        )

        parser.add_argument(
            "--database", help="Alias of the database with the table (default: the one that the router names)."
        )

    def handle(self, *args: Any, once: bool, interval: float, database: str | None, **options: Any) -> None:
        if not 0 < interval < float("inf"):
            raise CommandError(f"--interval must be a positive number of seconds, not {interval:g}")
        if database is not None and database not in connections.settings:
            raise CommandError(f"--database must be one of {sorted(connections.settings)}, not {database!r}")
        self._database = database
        self._reported_at = time.monotonic()
        if once:
            self._once()
        else:
            self._until_asked(interval)

    def _once(self) -> None:
        try:
            # New messages are left to the next run, or this one might never end.
            left = waiting(self._database).count()
            while left > 0 and (done := drain(min(BATCH, left), self._database)):
                left -= done
                self._report_progress()
            rows = Message.objects.using(self._database)
            remain, refused = rows.count(), rows.exclude(refused="").count()
        except (RedisError, DatabaseError) as exc:
            raise CommandError(f"Could not publish the outbox; its messages wait: {describe(exc)}") from exc
        if remain:
            raise CommandError(f"Messages that remain in the outbox: {remain}; refused by Redis: {refused}")

    def _until_asked(self, interval: float) -> None:
        lost, done, pause = False, 0, interval
        with Ending() as ending:
            self._say("Publishing the outbox")
            while True:
                close_old_connections()  # broken ones, and those older than CONN_MAX_AGE
                try:
                    done = drain(BATCH, self._database)
                    if done == BATCH:
                        self._report_progress()
                    else:
                        self._reported_at = time.monotonic()
                except (RedisError, DatabaseError) as exc:
                    if not lost:
                        self._say(f"Could not publish the outbox; its messages wait: {describe(exc)}")
                    lost, done, pause = True, 0, min(2 * pause, max(LONGEST_PAUSE, interval))
                else:
                    if lost:
                        self._say("Publishing the outbox again")
                    lost, pause = False, interval
                if ending.wait(0 if done == BATCH else pause):
                    break
            self._say("Stopped publishing the outbox")

    def _report_progress(self) -> None:
        if time.monotonic() - self._reported_at >= PROGRESS:
            self._reported_at = time.monotonic()
            self._say(f"Messages that wait in the outbox: {waiting(self._database).count()}")

    def _say(self, text: str) -> None:
        self.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")
        self.stdout.flush()
