"""Results as tables of reStructuredText and as plots, kept in pages of the documentation between markers.

Knows nothing about how anything is measured.
"""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import asynchronous, events, pages, plots, record
from bench.siege import Outcome
from testbed.attacks import Attack

if TYPE_CHECKING:
    from bench.drops import Account, Plan
    from bench.storm import Plan as StormPlan
    from bench.storm import Storm

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "reference/performance.rst"
ATTACKS_PAGE = DOCS / "explanation/what-a-client-can-do.rst"
DROPS_PAGE = DOCS / "reference/drops.rst"
ATTACKS_PLOT = ATTACKS_PAGE.with_suffix(".svg")
# What asynchronous code is to reach: of which host, which figure of it, and which ratios to uvicorn with asyncio.
AIMS = (
    ("memory of an idle socket of Channels on wsloop", asynchronous.ASGI, "socket", "at most", 0.5),
    ("echoes a second of Channels on wsloop", asynchronous.ASGI, "echoes", "at least", 1 / 1.5),
    ("group, burst, of wsloop's async consumers", asynchronous.ASYNC, "burst", "more than", 1.0),
    ("group, paced, of wsloop's async consumers", asynchronous.ASYNC, "paced", "more than", 1.0),
)
SERVERS = {"wsloop": "wsloop", "bare": "uWSGI's own API"}
PATIENCE = 5000  # ms after which a newcomer has gone


def table(head: Sequence[str], rows: Sequence[Sequence[object]], groups: Sequence[str] = ()) -> str:
    """Return a simple table; all columns but the first are flush right.

    ``groups`` are titles over equal numbers of the columns but the first.
    """
    cells = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    rule = "  ".join("=" * width for width in widths)
    lines = []
    for row in cells:
        padded = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(padded).rstrip())
    if groups:
        each = (len(head) - 1) // len(groups)
        spans = [sum(widths[start : start + each]) + 2 * each - 2 for start in range(1, len(head), each)]
        titles = "  ".join(title.center(span) for title, span in zip(groups, spans, strict=True))
        under = "  ".join("-" * span for span in (widths[0], *spans))
        lines[:1] = [f"{' ' * widths[0]}  {titles}".rstrip(), under, lines[0]]
    first = 3 if groups else 1
    return "\n".join([rule, *lines[:first], rule, *lines[first:], rule])


def mib(kib: float) -> str:
    return f"{kib / 1024:.1f}"


def circumstances(command: str, peers: str = "", machine: Mapping[str, str] | None = None) -> str:
    """Return when, on what and by what command it was measured; without ``machine`` it was here and now."""
    about = machine or record.machine()
    told = f"Measured on {about['date']} with ``{command}``, on {about['processor']}, {about['system']}, "
    told += f"{about['versions']}." + (f" Peers: {peers}." if peers else "")
    return textwrap.fill(told, 120, break_on_hyphens=False)


def async_section(results: asynchronous.Results, plan: asynchronous.Plan, command: str) -> str:
    """Return the tables of asynchronous code: each host, what was aimed at, and synchronous code beside it."""
    kinds = {
        "socket": "KiB a socket",
        "handshakes": "handshakes",
        "echoes": "echoes",
        "burst": "group, burst",
        "paced": "group, paced",
    }
    base = results.hosts.get(asynchronous.UVICORN, {})
    rows = []
    for name, figures in results.hosts.items():
        cells = []
        for kind in kinds:
            shown = "{:.1f}" if kind == "socket" else "{:,.0f}"
            cells.append(shown.format(figures[kind]) if kind in figures else "")
            cells.append(f"{figures[kind] / base[kind]:.2f}" if kind in figures and kind in base else "")
        rows.append([name, *cells])
    parts = [
        circumstances(command, results.peers),
        f"{plan.idle:,} idle sockets; handshakes with a session, {plan.window} at a time; {plan.echoing} sockets that "
        f"echo JSON; a group of {plan.members}. All but memory is a second; ratios are to {asynchronous.UVICORN}:",
        table(["server", *["", "ratio"] * len(kinds)], rows, list(kinds.values())),
        *(f"{name}: {why}." for name, why in results.missing.items()),
    ]
    if aims := _aims(results.hosts):
        parts += ["What was aimed at, as ratios to the same:", table(["figure", "aim", "measured", "met"], aims)]
    beside = []
    for name, each in results.beside.items():
        latencies = [f"{ms:.1f}" for ms in (each.view_p50, each.view_p99, each.echo_p50, each.echo_p99)]
        beside.append([name, f"{each.load:,.0f}" if each.load else "", *latencies, f"{each.rate:,.0f}"])
    head = ["beside", "its echoes", "view p50, ms", "view p99, ms", "echo p50, ms", "echo p99, ms", "echoes a second"]
    parts += [f"Synchronous code beside {plan.echoing} sockets that echo:", table(head, beside)]
    return "\n\n".join(textwrap.fill(part, 120) if "\n" not in part else part for part in parts)


def pages_section(results: pages.Results, plan: pages.Plan) -> str:
    """Return the table of ``make bench-pages``: the socket of a page, and as many sockets as it has subscriptions.

    Times depend on the load of the machine, so that only their ratios are given.
    """
    rows = []

    def add(words: str, kinds: Mapping[str, float], kind: str = pages.PAGE, shown: str = "") -> None:
        one, many = kinds[kind], kinds[pages.SINGLE]
        ratio = f"{one / many:.2f}" if many else ""
        rows.append([words, *(format(each, shown) if shown else "" for each in (one, many)), ratio])

    first, last = min(results.memory), max(results.memory)
    slope = {kind: (results.memory[last][kind] - at) / (last - first) for kind, at in results.memory[first].items()}
    for kind, words in ((pages.PAGE, ""), (pages.STREAM, ", a stream")):
        for size, kinds in results.memory.items():
            add(f"KiB, subscriptions: {size}{words}", kinds, kind, ".1f")
        add(f"KiB of one more subscription{words}", slope, kind, ".2f")
    resumed = {kind: cost._asdict() for kind, cost in results.resumed.items()}
    for name, words in (("seconds", "time"), ("cpu", "CPU of the worker")):
        add(f"coming back: {words}", {kind: cost[name] for kind, cost in resumed.items()})
    for name, words in (("commands", "Redis commands"), ("reads", "requests to Redis")):
        add(f"coming back: {words}", {kind: cost[name] / plan.pages for kind, cost in resumed.items()}, shown=".1f")
    for name in ("burst", "paced"):
        add(f"broadcast, {name}: deliveries", {kind: each[name] for kind, each in results.deliveries.items()})
    scenario = (
        f"{plan.pages:,} pages. Coming back, and for a broadcast, they have {last} subscriptions, each of which has "
        f"missed {plan.missed} messages. Memory and requests are those of a page. "
        + (f"Medians of {plan.rounds} rounds:" if plan.rounds > 1 else "One round:")
    )
    head = ["what", "one socket", "single sockets", "ratio"]
    command = f"make bench-pages PAGES={plan.pages} ROUNDS={plan.rounds}"
    return "\n\n".join([circumstances(command), textwrap.fill(scenario, 120), table(head, rows)])


def events_section(results: events.Results, plan: events.Plan) -> str:
    """Return the tables of ``make bench-events``."""
    parts = [circumstances(f"make bench-events ROUNDS={plan.rounds}")]
    rows = []
    for (members, count, kind), each in results.echoes.items():
        aim = events.AIMS.get(count)
        cells = [f"{ms:.1f}" for ms in (each.quiet, each.p50, each.p99)]
        met = "" if aim is None else "yes" if each.p50 < aim else "no"
        rows.append(
            [f"{count:,} {members}", kind, *cells, aim or "", met, f"{1e6 * each.cpu / count / plan.events:.1f}"]
        )
    if rows:
        parts.append(
            f"The echo of a neighbour while {plan.events} events, published at once, are handled by each member of a "
            f"group, and CPU of the worker for each of them. Medians of {plan.rounds} bursts:"
        )
        head = ["members", "neighbour", "alone, ms", "p50, ms", "p99, ms", "aim", "met", "CPU, µs"]
        parts.append(table(head, rows))
    if results.histories:
        parts.append(
            f"{plan.messages} messages to {plan.listeners:,} sockets, from publishing to the last delivery, and CPU of "
            "the publisher, Redis and the worker, as ratios to the first row:"
        )
        parts.append(_costs(results.histories, "what the facility has"))
    if results.recoveries:
        parts.append(
            f"{plan.clients:,} clients of ``wsloop.v1`` that come back at once, each of which has missed {plan.missed} "
            "messages. Seconds until the last one has everything, and of the worker's CPU:"
        )
        parts.append(_costs(results.recoveries, "what"))
    return "\n\n".join(textwrap.fill(part, 120) if "\n" not in part else part for part in parts)


def _costs(costs: Mapping[str, events.Cost], words: str) -> str:
    """Return a table of costs, each beside the first one."""
    first = next(iter(costs.values()))
    rows = []
    for name, cost in costs.items():
        cells = []
        for one, base in zip(cost, first, strict=True):
            cells += [f"{one:.2f}", f"{one / base:.2f}" if base else ""]
        rows.append([name, *cells])
    return table([words, "time, s", "ratio", "CPU, s", "ratio"], rows)


def _aims(hosts: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Return a row for each aim, as far as it could be measured."""
    rows = []
    base = hosts.get(asynchronous.UVICORN, {})
    for words, name, kind, relation, bound in AIMS:
        figures = hosts.get(name, {})
        if kind in figures and kind in base:
            ratio = figures[kind] / base[kind]
            met = {"at most": ratio <= bound, "at least": ratio >= bound, "more than": ratio > bound}[relation]
            rows.append([words, f"{relation} {bound:.2f}", f"{ratio:.2f}", "yes" if met else "no"])
    return rows


def leaks_section(rows: Sequence[Mapping[str, float]]) -> str:
    """Return the table of ``make bench-leaks``."""
    head = ["connects", "RSS, MiB", "descriptors", "tasks", "greenlets", "consumers"]
    head += ["Redis connections", "Redis channels", "subscribers of broadcast"]
    lines = []
    for row in rows:
        redis = [int(row[key]) for key in ("redis", "channels", "subscribers")]
        if "connects" in row:
            worker = [int(row[key]) for key in ("descriptors", "tasks", "greenlets", "consumers")]
            lines.append([f"{int(row['connects']):,}", mib(row["Rss"]), *worker, *redis])
        else:
            lines.append(["worker ended", *[""] * 5, *redis])
    return "\n\n".join([circumstances("make bench-leaks"), table(head, lines)])


def attacks_section(rows: Sequence[tuple[Attack, Mapping[str, Outcome]]]) -> str:
    """Return the tables of ``make bench-attacks``: what became of everybody, and what it cost."""
    names = [name for name in SERVERS if name in rows[0][1]]
    titles = [SERVERS[name] for name in names]
    became = [[attack.words, *(cell for name in names for cell in _became(each[name]))] for attack, each in rows]
    costs = [[attack.words, *(cell for name in names for cell in _cost(each[name]))] for attack, each in rows]
    quiet = [each[name].quiet_p99 for _, each in rows for name in names if math.isfinite(each[name].quiet_p99)]
    return "\n\n".join(
        [
            circumstances("make bench-attacks"),
            "What became of them:",
            table(["attack", *["attackers", "others", "newcomer"] * len(names)], became, titles),
            "What it cost. Without an attack the neighbour's p99 was "
            f"{min(quiet):.1f} to {max(quiet):.1f} ms, median {statistics.median(quiet):.1f} ms:",
            table(["attack", *["CPU, %", "MiB", "p99, ms", "times"] * len(names)], costs, titles),
        ]
    )


def drops_section(accounts: Mapping[str, Account | str], plan: Plan, peers: str) -> str:
    """Return the tables of ``make bench-drops``: what arrived, and in which kind of drop what did not was lost."""
    measured = [account for account in accounts.values() if not isinstance(account, str)]
    kinds = list(dict.fromkeys(kind for account in measured for kind in account.lost_in))
    got, lost, missing = [], [], []
    for name, account in accounts.items():
        if isinstance(account, str):
            missing.append(f"{name}: {account}.")
            continue
        counts = [account.told_lost, account.silent, account.duplicates, account.disorder, account.told]
        delays = [f"{1000 * account.delay(share):,.0f}" for share in (0.5, 0.99)]
        got.append([name, f"{account.published:,}", _per_cent(account), *(f"{count:,}" for count in counts), *delays])
        lost.append([name, *(f"{account.lost_in.get(kind, 0):,}" for kind in kinds)])
    head = ["server", "published", "delivered, %", "told lost", "lost", "twice", "out of order", "told"]
    scenario = (
        f"{plan.clients} clients, {plan.networks} networks, {plan.rate} messages a second for {plan.seconds:g} s, "
    )
    return "\n\n".join(
        [
            circumstances("make bench-drops", peers),
            f"{scenario}seed {plan.seed}:",
            table([*head, "p50, ms", "p99, ms"], got),
            "Messages that were lost, told or not, by the kind of drop:",
            table(["server", *kinds], lost),
            *missing,
        ]
    )


def storm_section(storms: Mapping[str, Storm], plan: StormPlan, peers: str) -> str:
    """Return the tables of ``make bench-storm``."""
    rows, pages = [], []
    for name, storm in storms.items():
        back = [f"{seconds:.1f}" for seconds in storm.back] or [""] * 3
        refused = ", ".join(f"{count:,} {kind}" for kind, count in sorted(storm.failures.items())) or "none"
        counts = [storm.dropped, storm.missing, *back, storm.lost, storm.doubled, storm.attempts, refused]
        rows.append([name, *(f"{each:,}" if isinstance(each, int) else each for each in counts)])
        if storm.pages:
            times = [f"{1000 * seconds:,.0f}" for seconds in (*storm.quiet, *storm.pages)]
            pages.append([name, *times, storm.bad_pages, f"{storm.generator:.0f}", f"{storm.cpu:.0f}"])
    head = ["storm", "dropped", "not back", "half, s", "99 %, s", "last, s", "lost", "twice", "attempts", "failed"]
    under = [
        "storm",
        "quiet p50, ms",
        "quiet p99",
        "p50",
        "p99",
        "longest",
        "none",
        "clients' CPU, %",
        "server's CPU, s",
    ]
    scenario = (
        f"{plan.clients:,} clients, signed in, four audiences; {plan.rate:g} message a second to all of them, "
        f"{plan.pages:g} pages a second. Seconds until half of the clients, 99 % of them, and the last were back:"
    )
    return "\n\n".join(
        [
            circumstances("make bench-storm", peers),
            textwrap.fill(scenario, 120),
            table(head, rows),
            "A signed-in page of the site meanwhile, and the CPU of the process of the clients and of the server:",
            table(under, pages),
        ]
    )


def _per_cent(account: Account) -> str:
    """Return how much was delivered; 100 only if it was all."""
    share = 100 * account.delivered / account.due
    return "100" if account.delivered == account.due else f"{math.floor(100 * share) / 100:.2f}"


def _became(outcome: Outcome) -> list[str]:
    """Return what became of the attackers, the most frequent first, of the others, and of a newcomer."""
    ordered = sorted(outcome.fates, key=lambda fate: -outcome.fates[fate])
    crashed = "" if outcome.survived else "crashed"
    others = ", ".join(filter(None, (outcome.others, crashed))) or "unharmed"
    newcomer = "" if crashed else "none" if outcome.newcomer > PATIENCE else f"{outcome.newcomer:,.0f}"
    return ["" if crashed else ", ".join(ordered[:3]), others, newcomer]


def _cost(outcome: Outcome) -> list[str]:
    """Return CPU, memory, the neighbour's p99, and how many times it was the one before."""
    if not outcome.survived:
        return [""] * 4
    ratio = f"{outcome.ratio:.1f}" if outcome.ratio < 100 else f"{outcome.ratio:,.0f}"
    return [f"{outcome.cpu:.0f}", f"{max(0.0, outcome.memory):.1f}", f"{outcome.p99:,.1f}", ratio]


def write(section: str, text: str, page: Path = PAGE) -> None:
    """Put ``text`` into the page, between the markers of ``section``."""
    start, end = f".. {section}: begin", f".. {section}: end"
    before, found, rest = page.read_text().partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise RuntimeError(f"{page} has no lines {start!r} and {end!r}")
    page.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}")


# Plots.


def write_attacks_plot(rows: Sequence[tuple[Attack, Mapping[str, Outcome]]]) -> None:
    """Write the plot of the neighbour's p99 during each attack, in ms, on a logarithmic scale from 0.1 to 10,000."""
    left, pitch, decades = 300, 30, 5
    span, bottom = plots.WIDTH - left - 20, 76 + pitch * len(rows)
    shapes = [
        plots.text(20, 24, "p99 of a neighbour's echo during the attack, ms", font_size=15, font_weight=600),
        plots.text(left, 48, "wsloop", "ours"),
        plots.text(left + 60, 48, "echo on uWSGI's own WebSocket API", "soft"),
    ]
    for decade in range(decades + 1):
        x = left + span * decade / decades
        shapes.append(plots.line("faint", f"M{x:.0f} 60V{bottom}"))
        shapes.append(plots.text(x, bottom + 16, f"{10 ** (decade - 1):g}", "soft", text_anchor="middle"))
    for number, (attack, outcomes) in enumerate(rows):
        y = 66 + pitch * number
        shapes.append(plots.text(left - 8, y + 16, attack.words, text_anchor="end"))
        for name, top, colour in (("wsloop", y, "ours"), ("bare", y + 11, "other")):
            outcome = outcomes.get(name)
            if outcome is None:
                continue
            if not outcome.survived:
                shapes.append(plots.text(left + 4, top + 9, "worker crashed", "alarm", font_size=10))
                continue
            width = span * max(0.0, math.log10(outcome.p99) + 1) / decades
            shapes.append(plots.box(colour, left, top, width, 9))
    ATTACKS_PLOT.write_text(plots.document(bottom + 30, shapes))
