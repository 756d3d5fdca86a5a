"""``manage.py wsstats``: the numbers of all workers, once or again and again."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from wsloop.management.operation import OperatorCommand
from wsloop.redaction import one_line
from wsloop.snapshots import Snapshots, snapshots

INTERVAL, SHORTEST = 2.0, 0.2  # seconds between two looks
BUSIEST = 5  # facilities that are shown
CLEAR = "\x1b[2J\x1b[H"  # of a terminal (ECMA-48)
HEAD = ("MACHINE", "WORKER", "SOCKETS", "CHANNELS", "IN", "OUT", "QUEUED", "SLOW", "CLOSED", "REDIS", "MEMORY")

Worker = dict[str, Any]


class Command(OperatorCommand):
    help = "Shows the sockets, messages and closes of all workers, on all machines."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--watch",
            type=float,
            nargs="?",
            const=INTERVAL,
            metavar="SECONDS",
            help=f"Look again and again, every {INTERVAL:g} s or so many, until Ctrl-C; with messages of a second.",
        )
        parser.add_argument("--count", type=int, help="With --watch, end after this number of looks.")
        parser.add_argument("--machine", help="Of this machine only, by its host name.")

    def handle(self, *args: Any, watch: float | None, count: int | None, **options: Any) -> None:
        if watch is not None and not SHORTEST <= watch < float("inf"):
            raise CommandError(f"--watch must be {SHORTEST:g} seconds or more, not {watch:g}")
        if count is not None and (watch is None or count < 1):
            raise CommandError("--count must be a positive number, beside --watch")
        looks = 1 if watch is None else count
        before: Snapshots | None = None
        while True:
            now = snapshots(options["machine"])
            if options["json"]:
                self.say_json(now._asdict())
            else:
                clears = watch is not None and self.stdout.isatty()
                self.say((CLEAR if clears else "") + self._page(now, before))
            if looks is not None:
                looks -= 1
                if not looks:
                    return
            before = now
            time.sleep(watch or INTERVAL)

    def _page(self, now: Snapshots, before: Snapshots | None) -> str:
        earlier = {(each["machine"], each["worker"], each["pid"]): each for each in before.workers} if before else {}
        rows = [_row(each, earlier.get((each["machine"], each["worker"], each["pid"]))) for each in now.workers]
        if len(rows) > 1:
            sums = [sum(row[number] for row in rows) for number in range(2, len(HEAD) - 2)]
            slowest = max((row[-2] for row in rows if row[-2] is not None), default=None)
            rows.append(["all", f"{len(rows)}", *sums, slowest, sum(row[-1] for row in rows)])
        lines = [_line(HEAD, rows)] + [_line(_cells(row), rows) for row in rows]
        if rows:
            lines[0] = self.style.MIGRATE_HEADING(lines[0])
        else:
            lines = ["No worker has answered: none runs, or none has had a socket yet."]
        for facility, messages, deliveries in _busiest(now):
            lines.append(f"{one_line(facility) or '(no name)'}: {messages} messages, {deliveries} deliveries")
        if now.missing:
            lines.append(self.style.WARNING(f"Workers that did not answer: {now.missing}"))
        return "\n".join(lines) + ("\n" if before is not None else "")


def _row(worker: Worker, before: Worker | None) -> list[Any]:
    """Return the cells of a worker, as numbers: messages of a second, if there is an earlier snapshot."""
    messages: list[float] = [worker.get("messages_in", 0), worker.get("messages_out", 0)]
    if before is not None:
        seconds = max(worker["time"] - before["time"], 0.001)
        messages = [(worker.get(name, 0) - before.get(name, 0)) / seconds for name in ("messages_in", "messages_out")]
    return [
        one_line(worker["machine"]),
        str(worker["worker"]),
        _sum(worker, "sockets"),
        _sum(worker, "subscriptions"),
        *messages,
        worker.get("queued_bytes", 0),
        worker.get("slow_sockets", 0),
        sum(worker.get("closes", {}).values()),
        worker.get("redis_seconds") if worker.get("redis_up", 1) else None,
        worker.get("memory", 0),
    ]


def _sum(worker: Worker, name: str) -> int:
    return int(sum(row[-1] for row in worker.get(name, ())))


def _cells(row: list[Any]) -> list[str]:
    machine, worker, *numbers, queued, slow, closed, redis, memory = row
    return [
        machine,
        worker,
        *(f"{each:.0f}" for each in numbers),
        _size(queued),
        f"{slow}",
        f"{closed:.0f}",
        "down" if redis is None else f"{1000 * redis:.1f} ms",
        _size(memory),
    ]


def _line(cells: Any, rows: list[list[Any]]) -> str:
    table = [HEAD, *map(_cells, rows)]
    widths = [max(len(str(row[number])) for row in table) for number in range(len(HEAD))]
    left, *right = (str(cell) for cell in cells)
    return "  ".join(
        [left.ljust(widths[0]), *(each.rjust(width) for each, width in zip(right, widths[1:], strict=True))]
    )


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _busiest(now: Snapshots) -> list[tuple[str, int, int]]:
    """Return the facilities with the most deliveries, over all workers, with the numbers of messages and deliveries."""
    found: dict[str, list[int]] = {}
    for worker in now.workers:
        for facility, messages, deliveries in worker.get("busiest", ()):
            total = found.setdefault(facility, [0, 0])
            total[0] = max(total[0], messages)  # each worker gets each message
            total[1] += deliveries
    ordered = sorted(found.items(), key=lambda item: item[1][1], reverse=True)
    return [(name, messages, deliveries) for name, (messages, deliveries) in ordered[:BUSIEST]]
