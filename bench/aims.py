"""What was aimed at, beside what the records have: the table at the top of the page.

It must not know how anything is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from bench import full, handshakes, lineup, report
from bench.record import Record

LOOP = 1 / 1.1  # of the plain loop's rate


class Aim(NamedTuple):
    """A figure that is to be at least, or at most, so large.

    Attributes:
        part: of the record.
        words: what it is.
        measured: returns it; None if it is missing.
        bound: the aim.
        is_most: whether the figure may not be larger, rather than not smaller.
    """

    part: str
    words: str
    measured: Callable[[Record], float | None]
    bound: float
    is_most: bool = False


def _median(figure: str, /, **of: object) -> Callable[[Record], float | None]:
    return lambda record: spread.median if (spread := record.spread(figure, **of)) else None


def _ratio(figure: str, mine: dict[str, object], base: dict[str, object], /, **of: object):
    """Return what returns a figure of ``mine`` divided by that of ``base``."""

    def of_record(record: Record) -> float | None:
        above, below = (record.spread(figure, **each, **of) for each in (mine, base))
        return above.median / below.median if above and below else None

    return of_record


def _servers(mine: str, base: str, /, **of: object):
    return _ratio("rate", {"server": mine}, {"server": base}, **of)


def _last_step(kind: str, size: int) -> Callable[[Record], float | None]:
    return lambda record: next((row["per_socket"] for row in record.select({"kind": kind, "sockets": size})), None)


def _growth(grows: str, kind: str) -> Callable[[Record], float | None]:
    """Return what returns by how much the largest median of all steps exceeds the smallest."""

    def of_record(record: Record) -> float | None:
        steps = record.names("step", grows=grows, kind=kind)
        spreads = [record.spread("cpu", grows=grows, kind=kind, step=step) for step in steps]
        medians = [spread.median for spread in spreads if spread]
        return max(medians) / min(medians) if medians else None

    return of_record


def _with(kind: str) -> dict[str, object]:
    return {"kind": kind}


AIMS = (
    Aim("burst", "burst to 1,000 sockets: rate, to uWebSockets", _servers(lineup.WSLOOP, lineup.UWebSockets.name), 1),
    *(
        Aim(
            "listeners",
            f"one message at a time to {sockets:,} sockets: rate, to the plain loop",
            _servers(lineup.WSLOOP, lineup.EACH, sockets=sockets),
            LOOP,
        )
        for sockets in (1000, 10_000)
    ),
    Aim(
        "users",
        "a message to each of 10,000 users: rate, to Channels",
        _servers(lineup.WSLOOP, lineup.Channels.name),
        3,
    ),
    Aim("users", "a message to each of 10,000 users: rate, to ws for Node", _servers(lineup.WSLOOP, lineup.Ws.name), 1),
    *(
        Aim("doors", f"{door}, {words}: rate, to --http-socket", _servers(door, lineup.WSLOOP, kind=kind), 0.5)
        for door in ("--http", "nginx, proxy_pass", "nginx, uwsgi_pass", "gunicorn")
        for kind, words in (("burst", "burst"), ("paced", "one at a time"))
    ),
    *(
        Aim("growth", f"{grows}, {words}: CPU of the dearest step, to the cheapest", _growth(grows, kind), 1.5, True)
        for grows in ("one worker", "two workers")
        for kind, words in (("burst", "burst"), ("paced", "one at a time"))
    ),
    *(
        Aim(
            "growth",
            f"1 to 20,000 channels, {words}: CPU of the dearest step, to the cheapest",
            _growth("channels", kind),
            1.5,
            True,
        )
        for kind, words in (("paced", "a broadcast"), ("addressed", "a message to each socket"))
    ),
    Aim("full", "15,000 idle sockets: CPU, % of a core", _median("cpu", kind=full.IDLE), 1.5, True),
    Aim("full", "fan-out to 15,000 sockets: longest turn, ms", _median("turn", kind=full.FANOUT), 10, True),
    Aim(
        "full",
        "15,000 idle sockets: p99 of a page, to no socket",
        _ratio("p99", _with(full.IDLE), _with(full.EMPTY)),
        3,
        True,
    ),
    Aim(
        "full",
        "fan-out to 15,000 sockets: p99 of a page, to no socket",
        _ratio("p99", _with(full.FANOUT), _with(full.EMPTY)),
        3,
        True,
    ),
    Aim("handshakes", "handshake, signed in: CPU, ms", _median("cpu", kind=handshakes.SIGNED_IN, window=50), 2, True),
    Aim(
        "handshakes",
        "handshakes, signed in: a second, to Channels",
        _ratio("rate", _with(handshakes.SIGNED_IN), _with(handshakes.CHANNELS), window=50),
        4,
    ),
    Aim("handshakes", "handshake, coming back: CPU, ms", _median("cpu", kind=handshakes.RETURN, window=50), 1.3, True),
    *(
        Aim("idle", f"idle socket, {kind}: KiB", _last_step(kind, 1000), most, True)
        for kind, most in (
            ("signed in, four audiences", 2.8),
            ("the same, wsloop.v1", 3.0),
            ("signed in, consumer", 8.0),
        )
    ),
)


def rows(kept: Callable[[str], Record | None] = Record.kept) -> Iterator[list[str]]:
    """Return a row for each aim whose record has the figure."""
    records = {part: kept(part) for part in dict.fromkeys(aim.part for aim in AIMS)}
    for aim in AIMS:
        record = records[aim.part]
        measured = aim.measured(record) if record else None
        if measured is None:
            continue
        is_met = measured <= aim.bound if aim.is_most else measured >= aim.bound
        bound = f"at {'most' if aim.is_most else 'least'} {aim.bound:.3g}"
        yield [aim.words, bound, f"{measured:.3g}", "yes" if is_met else "no"]


def section() -> str:
    """Return the table."""
    return report.table(["figure", "aim", "measured", "met"], list(rows()))
