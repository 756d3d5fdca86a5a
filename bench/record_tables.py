"""The tables and plots of the parts that have a record, made of that alone."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import NamedTuple

from bench import aims, full, lineup, plots, report
from bench.deliveries import BURST
from bench.record import KEPT, Record, Spread
from bench.siege import percentile


def section(record: Record) -> str:
    """Return what the page shows of a record: its tables, and where its plot is."""
    shown = SHOWN[record.part](record)
    parts = [report.circumstances(record.command, record.peers, record.machine)]
    parts += [textwrap.fill(shown.words, 120), *shown.tables]
    parts += [textwrap.fill(f"{name}: {why}.", 120) for name, why in record.missing.items()]
    if shown.plot:
        parts.append(f".. image:: measured/{record.part}.svg\n   :alt: {shown.title}")
    return "\n\n".join(parts)


def plot(record: Record) -> str:
    """Return the plot of a record as SVG; empty if it has none."""
    return SHOWN[record.part](record).plot


def write(record: Record) -> None:
    """Put what is shown of a record into the page, with the table of what was aimed at, and write its plot."""
    report.write(record.part, section(record))
    report.write("aims", aims.section())
    if drawn := plot(record):
        (KEPT / f"{record.part}.svg").write_text(drawn)


class Shown(NamedTuple):
    """Words before the tables, the tables, and a plot with its title."""

    words: str
    tables: list[str]
    plot: str = ""
    title: str = ""


def _idle(record: Record) -> Shown:
    rows, series = [], {}
    for kind in record.names("kind"):
        measured = list(record.select({"kind": kind}))
        for row in measured:
            per_socket = f"{row['per_socket']:.1f}" if "per_socket" in row else ""
            cpu = f"{row['cpu']:.1f}" if "cpu" in row else ""
            memory = [report.mib(row["Rss"]), report.mib(row["Pss"]), per_socket]
            rows.append([kind, f"{row['sockets']:,}", *memory, int(row["redis"]), cpu])
        grown = [(row["sockets"], (row["Rss"] - measured[0]["Rss"]) / 1024) for row in measured]
        series[kind] = [(sockets, Spread(memory, memory, memory)) for sockets, memory in grown]
    head = ["sockets are", "sockets", "RSS, MiB", "PSS, MiB", "KiB a socket", "Redis connections", "CPU, % of a core"]
    title = "Memory that idle sockets add to a worker"
    shapes, end = plots.lines(title, "MiB, over the number of sockets", series)
    return Shown("Idle sockets of one worker:", [report.table(head, rows)], plots.document(end, shapes), title)


def _burst(record: Record) -> Shown:
    sockets = record.plan["listeners"]
    rows = [_row(record, name, record.spread("rate", server=lineup.EACH)) for name in _fastest(record)]
    head = ["server", *RATE, "to plain loop", *COST, "collector, %"]
    shorter = [
        name for name in record.names() if {row["messages"] for row in record.select({"server": name})} != {BURST}
    ]
    words = f"{BURST} messages of {record.plan['size']} bytes at once, to {sockets:,} sockets; {_rounds(record)}."
    if shorter:
        words += f" Of {' and '.join(shorter)} a burst has only {lineup.SLOW} messages, because a whole one takes long."
    title = f"A burst to {sockets:,} sockets: deliveries a second"
    return Shown(words, [report.table(head, rows)], _bars(record, title), title)


def _listeners(record: Record) -> Shown:
    tables = []
    for sockets in record.names("sockets"):
        base, rows = record.spread("rate", server=lineup.EACH, sockets=sockets), []
        for name in _fastest(record, sockets=sockets):
            last = [f"{value:,.1f}" for value in _last(record, name, sockets)]
            each = [f"{_median(record, figure, name, sockets):,.1f}" for figure in ("p50", "p99")]
            rows.append([*_row(record, name, base, sockets=sockets), *each, *last])
        head = ["server", *RATE, "to plain loop", *COST, "collector, %", "p50, ms", "p99, ms", "last, p50", "last, p99"]
        tables += [f"To {sockets:,} sockets:", report.table(head, rows)]
    words = (
        f"Messages of {record.plan['size']} bytes one at a time, the next one when every socket has the last one; "
        f"{_rounds(record)}. *p50* and *p99* are of the time until a socket has a message, *last* of the time until "
        "all of them have it:"
    )
    most = record.names("sockets")[-1]
    title = f"Time until the last of {most:,} listeners has a message"
    times = {name: _last(record, name, most) for name in record.names(sockets=most)}
    shown = [
        (name, Spread(median, median, p99), f"{median:,.0f}, p99 {p99:,.0f}")
        for name, (median, p99) in sorted(times.items(), key=lambda item: item[1])
    ]
    shapes, end = plots.bars(title, "ms, median and p99 (logarithmic)", shown)
    return Shown(words, tables, plots.document(end, shapes), title)


def _users(record: Record) -> Shown:
    base = record.spread("rate", server=lineup.Channels.name)
    rows = [_row(record, name, base) for name in _fastest(record)]
    head = ["server", *RATE, "to Channels", *COST, "collector, %"]
    count = record.plan["users"]
    words = f"{count:,} users with a socket each, and a message of {record.plan['size']} bytes to each of them, all at "
    title = f"A message to each of {count:,} users: deliveries a second"
    return Shown(words + f"once; {_rounds(record)}:", [report.table(head, rows)], _bars(record, title), title)


def _doors(record: Record) -> Shown:
    rows = []
    for name in record.names():
        cells = ["``--http-socket``" if name == lineup.WSLOOP else "``--http``" if name == "--http" else name]
        for kind in ("burst", "paced"):
            for figure, shown in (("rate", "{:,.0f}"), ("cpu", "{:.2f}")):
                base = record.spread(figure, server=lineup.WSLOOP, kind=kind)
                spread = record.spread(figure, server=name, kind=kind)
                cells += [shown.format(spread.median), _ratio(spread, base)] if spread else ["", ""]
        rows.append(cells)
    head = ["in front", *["a second", "ratio", "CPU, µs", "ratio"] * 2]
    words = (
        f"One worker and {record.plan['listeners']:,} sockets behind each of them, bursts of {BURST} messages and one "
        f"at a time; medians of {record.plan['rounds']} interleaved rounds. CPU is that of all processes of the server "
        "for one delivery; ratios are to the worker alone:"
    )
    return Shown(words, [report.table(head, rows, ["burst", "one at a time"])])


def _growth(record: Record) -> Shown:
    rows: list[list[str]] = []
    series: dict[str, dict[str, list[tuple[float, Spread]]]] = {}
    for grows in record.names("grows"):
        for kind in record.names("kind", grows=grows):
            steps = record.names("step", grows=grows, kind=kind)
            spreads = [(step, record.spread("cpu", grows=grows, kind=kind, step=step)) for step in steps]
            points = [(step, spread) for step, spread in spreads if spread]
            of_channels = grows == "channels"
            name = CHANNELS[kind] if of_channels else grows
            series.setdefault(grows if of_channels else kind, {})[name] = points
            for step, spread in points:
                what = [name, f"{step:,} channels"] if of_channels else [f"{name}, {KINDS[kind]}", f"{step:,} sockets"]
                cells = [f"{spread.median:.2f}", f"{spread.low:.2f} to {spread.high:.2f}"]
                rows.append([*what, *cells, _ratio(spread, points[0][1])])
    panels, top = [], 0.0
    for kind in series:
        shapes, top = plots.lines(PANELS[kind], "µs of CPU of the workers", series[kind], top)
        panels += shapes
    words = (
        f"CPU of the workers for one delivery; {_rounds(record)}, each with new workers. A burst has "
        f"{record.plan['burst']} messages. Channels are those to which {record.plan['listeners']:,} sockets subscribe, "
        "beside as many that listen to one channel. The last column is the ratio to the first row of its group:"
    )
    head = ["what", "step", "CPU, µs", SPREAD, "ratio"]
    title = "What a delivery costs with more sockets, channels and workers"
    return Shown(words, [report.table(head, rows)], plots.document(top, panels), title)


def _handshakes(record: Record) -> Shown:
    rows = []
    for kind in record.names("kind"):
        cells: list[str] = [kind]
        for window in record.plan["windows"]:
            cpu, rate = (record.spread(each, kind=kind, window=window) for each in ("cpu", "rate"))
            base = record.spread("cpu", kind="anonymous, broadcast", window=window)
            cells += (
                [f"{cpu.median:.2f}", _ratio(cpu, base), f"{rate.median:,.0f}"] if cpu and rate and base else [""] * 3
            )
        rows.append(cells)
    windows = [f"{window} at a time" for window in record.plan["windows"]]
    words = (
        f"{record.plan['count']:,} handshakes with a worker behind ``--http-socket``, so many under way at a time; "
        f"{_rounds(record)}. CPU is that of the server for one of them, *ratio* that to an anonymous one; a session is "
        "in the database (SQLite), and a user in one group:"
    )
    head = ["client", *["CPU, ms", "ratio", "a second"] * len(windows)]
    return Shown(words, [report.table(head, rows, windows)])


def _full(record: Record) -> Shown:
    rows = []
    for kind in record.names("kind"):
        cells: list[str] = [kind]
        for name in ("cpu", "turn", "p50", "p99"):
            figure, base = record.spread(name, kind=kind), record.spread(name, kind=full.EMPTY)
            assert figure
            cells += [f"{figure.median:.1f}", f"{figure.low:.1f} to {figure.high:.1f}"]
            if name == "p99":
                cells.append(_ratio(figure, base))
        rows.append(cells)
    words = f"A worker with {record.plan['sockets']:,} sockets that listen to a broadcast; {_rounds(record)}:"
    head = ["the worker has", "CPU, %", SPREAD, "longest turn, ms", SPREAD]
    head += ["page, p50, ms", SPREAD, "page, p99, ms", SPREAD, "ratio"]
    return Shown(words, [report.table(head, rows)])


SHOWN: dict[str, Callable[[Record], Shown]] = {
    "idle": _idle,
    "burst": _burst,
    "listeners": _listeners,
    "users": _users,
    "doors": _doors,
    "growth": _growth,
    "full": _full,
    "handshakes": _handshakes,
}
KINDS = {"burst": "burst", "paced": "one at a time"}
CHANNELS = {"paced": "a broadcast beside the channels", "addressed": "a message to each socket"}
PANELS = {
    "burst": "A delivery of a burst, over the number of sockets",
    "paced": "A delivery of one message at a time, over the number of sockets",
    "channels": "A delivery, over the number of channels",
}
SPREAD = "lowest to highest"
RATE, COST = ("a second", SPREAD), ("CPU, µs", SPREAD)


def _row(record: Record, name: str, base: Spread | None, **of: object) -> list[object]:
    """Return the cells of a server: name, rate, spread, ratio to ``base``, CPU, spread, how busy the collector was."""
    rate, cpu = (record.spread(figure, server=name, **of) for figure in ("rate", "cpu"))
    busy = record.spread("busy", server=name, **of)
    assert rate and cpu and busy
    digits = 3 if cpu.median < 1 else 1
    rates = [f"{rate.median:,.0f}", f"{rate.low:,.0f} to {rate.high:,.0f}", _ratio(rate, base)]
    costs = [f"{cpu.median:,.{digits}f}", f"{cpu.low:,.{digits}f} to {cpu.high:,.{digits}f}"]
    return [name, *rates, *costs, f"{100 * busy.median:.0f}"]


def _fastest(record: Record, **of: object) -> list[str]:
    """Return the servers, the fastest one first."""
    rates = {name: record.spread("rate", server=name, **of) for name in record.names(**of)}
    return sorted(rates, key=lambda name: -(spread.median if (spread := rates[name]) else 0))


def _ratio(spread: Spread, base: Spread | None) -> str:
    return f"{spread.median / base.median:.2f}" if base else ""


def _rounds(record: Record) -> str:
    count = record.plan["rounds"]
    return f"medians of {count} interleaved rounds, and their spread" if count > 1 else "one round"


def _median(record: Record, figure: str, name: str, sockets: int) -> float:
    spread = record.spread(figure, server=name, sockets=sockets)
    return spread.median if spread else 0.0


def _last(record: Record, name: str, sockets: int) -> tuple[float, float]:
    """Return median and p99, of all messages of all rounds, of the time until the last socket had it, in ms."""
    times = [each for row in record.select({"server": name, "sockets": sockets}) for each in row["last"]]
    return (percentile(times, 0.5), percentile(times, 0.99)) if times else (0.0, 0.0)


def _bars(record: Record, title: str) -> str:
    spreads = [(name, record.spread("rate", server=name)) for name in _fastest(record)]
    rows = [(name, spread, f"{spread.median:,.0f}") for name, spread in spreads if spread]
    under = f"median of {record.plan['rounds']} rounds, with the lowest and the highest (logarithmic)"
    shapes, end = plots.bars(title, under, rows)
    return plots.document(end, shapes)
