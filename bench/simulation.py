"""A model of sites that are larger than one machine: workers, machines and Redis servers, and the delay of a message.

Everything here is computed, with the costs that ``bench.costs`` has measured on real processes of one machine. ``python
-m bench.simulation`` prints the tables of ``docs/explanation/scale.rst``, and ``--write`` keeps them there.

The model: a message is published at a Redis server (in a Cluster: at that of its slot, which passes it to all others),
which serves one message after the other and sends it to each worker that has subscribed. A worker serves what has
arrived, all of it in one turn: some work for each message, and one write for each socket that gets any of them. What it
leaves out: pages, the site's own code, slow clients, TLS, and how CPUs differ.
"""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import heapq
import itertools
import json
import math
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench import plots, report
from bench.costs import RECORDED, SIZE, Costs

PAGE = report.DOCS / "explanation/scale.rst"
PLOT = PAGE.with_suffix(".svg")
SIZES = (10_000, 100_000, 1_000_000)
ROOM = 50  # members
PING_INTERVAL = 30  # seconds; the default of wsloop
BUSY = 0.5  # share of a core that a worker or a Redis may use: the other half is for pages, bursts and returns
PER_WORKER = 10_000  # sockets: so that the return of all of them takes a worker less than a minute
WORKERS = 8  # of a machine with as many cores
WORKER = 62 * 2**20  # bytes of a worker without sockets (docs/reference/performance.rst)
ON_THE_LINE = 66  # bytes of Ethernet, IP and TCP around a message
HOP = 0.0001  # seconds between two machines
MOST_NODES = 30
NODES = (3, 6, 12)  # of a Cluster, in the table
SEED = 1  # the tables are the same each time


class Shape(NamedTuple):
    """What the messages of a site are, for each socket a second, and whether there is a history."""

    words: str
    broadcasts: float = 0.0  # for the whole site
    users: float = 0.0
    rooms: float = 0.0
    history: bool = False


SHAPES = (
    Shape("10 broadcasts a second", broadcasts=10.0),
    Shape("each user gets a message a minute", users=1 / 60),
    Shape("the same, with a history", users=1 / 60, history=True),
    Shape(f"rooms of {ROOM}, each member writes once a minute", rooms=1 / 60),
    Shape("each user gets a message in 10 s", users=1 / 10),
)


@dataclasses.dataclass(frozen=True)
class Site:
    """A number of sockets, and the processes that serve them.

    Args:
        nodes: Redis servers; more than one are a Cluster.
    """

    costs: Costs
    shape: Shape
    sockets: int
    workers: int = 1
    nodes: int = 1

    # Messages.

    @property
    def published(self) -> float:
        """Messages a second."""
        return self.shape.broadcasts + (self.shape.users + self.shape.rooms) * self.sockets

    @property
    def deliveries(self) -> float:
        """Messages a second that reach a socket, of all of them."""
        return (self.shape.broadcasts + self.shape.users + self.shape.rooms * ROOM) * self.sockets

    @property
    def share(self) -> float:
        """Share of the workers that a message goes to: those with a member of the room, and so on."""
        members = self.sockets if self.shape.broadcasts else ROOM if self.shape.rooms else 1
        return 1 - (1 - 1 / self.workers) ** members if self.workers > 1 else 1.0

    # Shares of a core.

    @property
    def pings(self) -> float:
        return self.sockets / self.workers / PING_INTERVAL * self.costs.ping

    @property
    def worker(self) -> float:
        """What a worker uses of its core."""
        arriving = self.published * self.share * self.costs.message
        return self.pings + arriving + self.deliveries / self.workers * self.costs.write

    def served(self, own: bool) -> float:
        """Seconds that a Redis takes for a message that was published there, or that another node has passed on."""
        sent = self.share * self.workers / self.nodes * self.costs.subscriber
        if not own:
            return self.costs.passed + sent
        publish = self.costs.history if self.shape.history else self.costs.publish
        return publish + (self.nodes - 1) * self.costs.node + sent

    @property
    def redis(self) -> float:
        """What a Redis uses of its core."""
        own = self.published / self.nodes
        return own * self.served(True) + (self.published - own) * self.served(False)

    # Other resources.

    @property
    def machines(self) -> int:
        """Those of the workers; the Redis servers have their own."""
        return math.ceil(self.workers / WORKERS)

    @property
    def memory(self) -> float:
        """Bytes of the workers of one machine, without what the kernel has for connections."""
        return min(self.workers, WORKERS) * (WORKER + self.sockets / self.workers * self.costs.socket)

    @property
    def redis_line(self) -> float:
        """Bits a second that leave one Redis; in a Cluster without those to other nodes."""
        return 8 * self.published * self.share * self.workers / self.nodes * (SIZE + 60 + ON_THE_LINE)

    @property
    def machine_line(self) -> float:
        """Bits a second that leave one machine of workers."""
        return 8 * self.deliveries / self.machines * (SIZE + 4 + ON_THE_LINE)

    @property
    def storm(self) -> float:
        """Seconds until all users are back after all workers have been killed, if nothing else slows them."""
        opening = self.costs.opening / self.nodes + (1 - 1 / self.nodes) * self.costs.passed  # it publishes once
        return max(self.sockets / self.workers * self.costs.signed_in, self.sockets * opening)


def fitted(costs: Costs, shape: Shape, sockets: int) -> Site:
    """Return the site with as few Redis servers and workers as keep each of them below ``BUSY``.

    If no number of servers does, the one with the least busy ones.
    """
    sites = []
    for nodes in range(1, MOST_NODES + 1):
        if nodes == 2:  # a Cluster has three or more
            continue
        workers = math.ceil(sockets / PER_WORKER)
        while (site := Site(costs, shape, sockets, workers, nodes)).worker > BUSY and workers < sockets:
            workers += 1 + workers // 50
        if site.redis <= BUSY:
            return site
        sites.append(site)
    return min(sites, key=lambda each: each.redis)


# The delay of messages.

WATCHED = 8  # workers whose sockets are looked at: they are alike
MESSAGES, ARRIVING = 2000, 1000  # of a simulation: at least so many, and so many that arrive in each of these workers
PLACES = (0.1, 0.3, 0.5, 0.7, 0.9)  # in the order of its writes, where the sockets are that are looked at
MOST_OF_A_TURN = 500  # messages: wsloop.delivery.subscription_connection


def sent(site: Site, count: int, dice: random.Random) -> Iterator[tuple[float, int, float]]:
    """Publish messages at random; yield when each was published, and when each Redis has sent it to its workers."""
    free = [0.0] * site.nodes
    clock = 0.0
    coming: list[tuple[float, float, int, bool]] = []  # when, when published, at which Redis, whether it is the first
    for _ in range(count):
        clock += dice.expovariate(site.published)
        coming.append((clock, clock, dice.randrange(site.nodes), True))
    heapq.heapify(coming)
    while coming:
        arrived, published, node, own = heapq.heappop(coming)
        free[node] = max(arrived, free[node]) + site.served(own)
        yield published, node, free[node]
        if own:
            for other in range(site.nodes):
                if other != node:
                    heapq.heappush(coming, (free[node] + HOP, published, other, False))


def addressed(site: Site) -> list[float]:
    """Return the probabilities that a message is for no socket of a worker, for one at most, and so on."""
    if site.shape.broadcasts:
        return []
    size = ROOM if site.shape.rooms else 1
    one = 1 / site.workers
    each = [math.comb(size, k) * one**k * (1 - one) ** (size - k) for k in range(size + 1)]
    return list(itertools.accumulate(each))


def delays(site: Site, seed: int = SEED) -> list[float]:
    """Return the seconds from publishing to writing, sorted: of some sockets of each message."""
    dice = random.Random(seed)
    queues: list[list[tuple[float, float, int]]] = [[] for _ in range(min(WATCHED, site.workers))]
    odds = addressed(site)
    for published, node, at in sent(site, max(MESSAGES, round(ARRIVING / site.share)), dice):
        for number in range(node, len(queues), site.nodes):
            count = bisect.bisect(odds, dice.random()) if odds else site.sockets // site.workers
            if count:
                queues[number].append((at + HOP, published, count))
    found = []
    slower = 1 / (1 - site.pings)
    for queue in queues:
        queue.sort()
        free, done = 0.0, 0
        while done < len(queue):
            began = max(free, queue[done][0])
            end = bisect.bisect(queue, (began, math.inf), done)
            turn = queue[done : min(end, done + MOST_OF_A_TURN)]
            done += len(turn)
            # A broadcast reaches the same sockets again; other messages rarely do.
            total = sum(each[2] for each in turn)
            writes = turn[0][2] if site.shape.broadcasts else total
            prepared = began + len(turn) * site.costs.message * slower
            free = prepared + (writes * site.costs.write + (total - writes) * site.costs.joined) * slower
            for _, published, _ in turn:
                found += [prepared + (free - prepared) * place - published for place in PLACES]
    return sorted(found)


def percentile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


# The page.


def limit(site: Site) -> str:
    """Return what sets the numbers of this site: which it reaches first as it grows."""
    first = max(site.redis, site.worker)
    if first < BUSY / 2:
        return "returns"
    return "Redis" if site.redis == first or site.nodes > 1 else "workers"


def costs_section(costs: Costs, circumstances: str) -> str:
    """Return the table of what was measured."""
    us = 1e6
    rows = [
        ["worker: a message that arrives", f"{us * costs.message:.0f} µs"],
        ["worker: a write to a socket", f"{us * costs.write:.1f} µs"],
        ["worker: one more message for a socket, in the same turn", f"{us * costs.joined:.2f} µs"],
        ["worker: a ping and its answer", f"{us * costs.ping:.0f} µs"],
        ["worker: a handshake, anonymous", f"{1e3 * costs.handshake:.1f} ms"],
        ["worker: a handshake, signed in, four audiences", f"{1e3 * costs.signed_in:.1f} ms"],
        ["worker: memory of a socket, signed in, four audiences", f"{costs.socket / 1024:.1f} KiB"],
        ["Redis: a message that is published", f"{us * costs.publish:.0f} µs"],
        ["Redis: the same, with a history", f"{us * costs.history:.0f} µs"],
        ["Redis: each worker that is sent it", f"{us * costs.subscriber:.1f} µs"],
        ["Redis: a handshake, signed in", f"{us * costs.opening:.0f} µs"],
        ["Redis Cluster: to pass it to one other node", f"{us * costs.node:.1f} µs"],
        ["Redis Cluster: a message that is passed to a node", f"{us * costs.passed:.1f} µs"],
    ]
    return "\n\n".join([circumstances, report.table(["of one core", "measured"], rows)])


def checked_section(checked: Sequence[tuple[str, float, float]]) -> str:
    """Return the table of predictions beside what real processes did."""
    rows = [
        [what, f"{1e3 * predicted:.2f}", f"{1e3 * measured:.2f}", f"{measured / predicted:.2f}"]
        for what, predicted, measured in checked
    ]
    return report.table(["CPU, ms", "computed", "measured", "ratio"], rows)


def carried_section(costs: Costs) -> str:
    """Return the tables of what one worker and one Redis do in a second of a core."""
    burst, socket = 200, costs.write
    rows = [
        ["a broadcast, one at a time: deliveries", f"{1 / socket:,.0f}"],
        [f"{burst} broadcasts at once: deliveries", f"{burst / (socket + (burst - 1) * costs.joined):,.0f}"],
        ["messages to single users", f"{1 / (costs.message + costs.write):,.0f}"],
        [f"messages to rooms of {ROOM}: deliveries", f"{ROOM / (costs.message + ROOM * costs.write):,.0f}"],
        ["handshakes, signed in, four audiences", f"{1 / costs.signed_in:,.0f}"],
        ["idle sockets with pings", f"{PING_INTERVAL / costs.ping:,.0f}"],
    ]
    worker = report.table(["a core of one worker", "a second"], rows)
    head = ["messages a second, to", "1 Redis", *(f"{nodes} nodes" for nodes in NODES), "any number"]
    rows = []
    for words, broadcasts, workers in (("one user", 0.0, 100), ("100 workers", 1.0, 100), ("1,000 workers", 1.0, 1000)):
        for history in (False, True):
            shape = Shape("", broadcasts=broadcasts, users=1.0 - broadcasts, history=history)
            sites = [Site(costs, shape, 10**6, workers, nodes) for nodes in (1, *NODES)]
            # With very many nodes each of them does nothing but take what is passed to it, and pass its own on.
            rates = [*(site.published / site.redis for site in sites), 1 / (costs.passed + costs.node)]
            rows.append([f"{words}{', with a history' * history}", *(f"{round(each, -2):,.0f}" for each in rates)])
    return f"{worker}\n\n{report.table(head, rows)}"


def processes_section(sites: Sequence[Site]) -> str:
    """Return the table of the processes that sites need."""
    rows = []
    for site in sites:
        cells = [f"{site.sockets:,}: {site.shape.words}", f"{site.published:,.0f}", f"{site.deliveries:,.0f}"]
        cells += [f"{site.workers:,}", f"{site.machines}", f"{site.worker:.0%}", f"{site.nodes}", f"{site.redis:.0%}"]
        rows.append([*cells, limit(site)])
    head = ["sockets, and what they get", "in", "out", "workers", "machines", "busy", "Redis", "busy", "first"]
    return report.table(head, rows)


def delays_section(sites: Sequence[Site]) -> str:
    """Return the table of delays, and of the other resources."""
    rows = []
    for site in sites:
        found = delays(site) if max(site.redis, site.worker) < 0.95 else []
        times = [f"{1e3 * percentile(found, share):.1f}" if found else "no end" for share in (0.5, 0.99, 0.999)]
        others = [f"{site.memory / 2**20:,.0f}", f"{site.machine_line / 1e6:,.1f}", f"{site.redis_line / 1e6:,.1f}"]
        others.append(f"{site.storm:.0f}")
        rows.append([f"{site.sockets:,}: {site.shape.words}", *times, *others])
    head = ["sockets, and what they get", "p50, ms", "p99, ms", "p99.9, ms", "MiB", "out", "Redis", "return, s"]
    return report.table(head, rows)


# The plot.

LEFT, RIGHT, HEIGHT = 60, 660, 180


def panel(
    top: int,
    title: str,
    series: dict[str, list[tuple[float, float]]],
    x_ticks: dict[float, str],
    y_ticks: dict[float, str],
) -> list[str]:
    """Return lines between the first and the last tick, on logarithmic scales if there is none at 0."""

    def scale(value: float, ticks: dict[float, str]) -> float:
        low, high = min(ticks), max(ticks)
        if low:
            return math.log(max(low, value) / low) / math.log(high / low)
        return value / high

    bottom, names = top + 52 + HEIGHT, 20.0
    shapes = [plots.text(20, top + 20, title, font_size=15, font_weight=600)]
    for tick, words in y_ticks.items():
        y = bottom - HEIGHT * scale(tick, y_ticks)
        shapes.append(plots.line("faint", f"M{LEFT} {y:.0f}H{RIGHT}"))
        shapes.append(plots.text(LEFT - 8, y + 4, words, "soft", text_anchor="end"))
    for tick, words in x_ticks.items():
        x = LEFT + (RIGHT - LEFT) * scale(tick, x_ticks)
        anchor = "middle" if tick < max(x_ticks) else "end"
        shapes.append(plots.text(x, bottom + 18, words, "soft", text_anchor=anchor))
    for colour, (name, points) in zip(plots.SERIES, series.items(), strict=False):
        path = "L".join(
            f"{LEFT + (RIGHT - LEFT) * scale(x, x_ticks):.0f} {bottom - HEIGHT * min(1, scale(y, y_ticks)):.0f}"
            for x, y in points
        )
        shapes.append(plots.line(colour, f"M{path}", 2))
        shapes.append(plots.text(names, top + 40, name, colour, font_size=12))
        names += 6.3 * len(name) + 14
    return shapes


def plot(costs: Costs) -> str:
    """Return the picture: cores over the number of sockets, and delay over how busy Redis is."""
    steps = [round(10 ** (4 + each / 8)) for each in range(17)]
    cores: dict[str, list[tuple[float, float]]] = {}
    for shape in (SHAPES[0], SHAPES[1], SHAPES[3]):
        sites = [fitted(costs, shape, each) for each in steps]
        cores[f"workers: {shape.words}"] = [(each.sockets, each.workers * each.worker) for each in sites]
        cores[f"Redis servers: {shape.words}"] = [(each.sockets, each.nodes * each.redis) for each in sites]
    sizes = {10_000.0: "10,000", 100_000.0: "100,000", 1_000_000.0: "1,000,000 sockets"}
    ticks = {0.001: "0.001", 0.01: "0.01", 0.1: "0.1", 1.0: "1", 10.0: "10", 100.0: "100"}
    names = list(cores)
    shapes = []
    for number, kind in enumerate(("workers", "Redis servers")):
        title = f"Cores that the {kind} use (logarithmic)"
        some = {name.partition(": ")[2]: cores[name] for name in names if name.startswith(kind)}
        shapes += panel(number * 282, title, some, sizes, ticks)
    return plots.document(3 * 282, [*shapes, *waiting(costs, 2 * 282)])


def waiting(costs: Costs, top: int) -> list[str]:
    """Return the panel of the delay over how busy a Redis is, with messages to single users."""
    curves: dict[str, list[tuple[float, float]]] = {"p50": [], "p99": [], "p99.9": []}
    for percent in (5, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95):
        once = Site(costs, SHAPES[1], 100_000, 100)
        shape = SHAPES[1]._replace(users=SHAPES[1].users * percent / 100 / once.redis)
        found = delays(Site(costs, shape, 100_000, 100))
        for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
            curves[name].append((percent, 1e3 * percentile(found, share)))
    y_ticks = {0.1: "0.1", 1.0: "1", 10.0: "10"}
    x_ticks = {0.0: "0", 25.0: "25", 50.0: "50", 75.0: "75", 100.0: "100 % of a core"}
    return panel(top, "Delay of a message to one user, ms, by how busy its Redis is", curves, x_ticks, y_ticks)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simulation", description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="keep the tables and the plot in the documentation")
    write = parser.parse_args().write
    recorded = json.loads(RECORDED.read_text())
    costs = Costs(**recorded["costs"])
    sites = [fitted(costs, shape, size) for size in SIZES for shape in SHAPES]
    sections = {
        "costs": costs_section(costs, recorded["circumstances"]),
        "checked": checked_section(recorded["checked"]),
        "carried": carried_section(costs),
        "processes": processes_section(sites),
        "delays": delays_section(sites),
    }
    print(*sections.values(), sep="\n\n")
    if write:
        for name, words in sections.items():
            report.write(name, words, PAGE)
        PLOT.write_text(plot(costs))


if __name__ == "__main__":
    main()
