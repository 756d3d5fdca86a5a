"""What clients have in the end whose network drops for two seconds again and again: wsloop, and others beside it.

Responsible for the scenario, which is the same for each server, and for the account of what each client got. It must
not know how any server works, nor its clients (``bench.contenders``).
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.contenders import NAME, TOLD, WSLOOP, Events, Running, Servers
from testbed.cutting_proxy import CuttingProxy
from testbed.ledger import Ledger
from testbed.processes import wait_until
from testbed.redis_servers import RedisServer

STALLED, RESET, RESET_LATE, LEFT = "stalled", "reset", "reset late", "left"
KINDS = (STALLED, RESET, RESET_LATE, LEFT)
OUTAGE = 2.0  # seconds
EVERY = 5.0, 8.0  # seconds from the beginning of a drop to that of the next one of the same network
CALM = 5.0  # seconds at the end without a drop, in which all come back
SETTLING = 20.0  # seconds that clients have afterwards to get the last message
ON_ITS_WAY = 0.5  # seconds before a drop in which what was published may still be on its way


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is done to every server.

    Attributes:
        clients, networks: how many; each network has as many clients as the others, and fails by itself.
        seconds: how long messages are published.
        rate: messages a second.
        seed: of the drops.
    """

    clients: int = 50
    networks: int = 10
    seconds: float = 60.0
    rate: int = 20
    seed: int = 1


QUICK = Plan(clients=8, networks=4, seconds=15.0)


@dataclasses.dataclass(frozen=True)
class Drop:
    """A network carries nothing from ``at`` on, in seconds, for ``OUTAGE``."""

    at: float
    network: int
    kind: str


def drops(plan: Plan) -> list[Drop]:
    """Return the drops of all networks in the order of time: the same for the same plan."""
    found = []
    for network in range(plan.networks):
        dice = random.Random(f"{plan.seed} {network}")
        at = dice.uniform(1, EVERY[1])
        while at + OUTAGE + CALM <= plan.seconds:
            found.append(Drop(at, network, dice.choice(KINDS)))
            at += dice.uniform(*EVERY)
    return sorted(found, key=lambda drop: drop.at)


class Network(CuttingProxy):
    """The line of some clients."""

    def begin(self, kind: str) -> None:
        self.stall()
        if kind == RESET:
            self.cut()
        elif kind == LEFT:
            self._call(self._leave)

    def end(self, kind: str) -> None:
        if kind == RESET_LATE:
            self.cut()
        self.go()

    def _leave(self) -> None:
        """Reset the clients' side of each line; the servers' hears nothing of it, nor anything else any more."""
        for client in [end for end in self.ends if not end.is_server]:
            server, client.other = client.other, None
            if server is not None:
                server.hold("left")
            client.reset()

    def __exit__(self, *exception: object) -> None:
        self._call(lambda: [end.reset() for end in self.ends if end.is_server])
        super().__exit__(*exception)


# --- the account ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Account:
    """What all clients of one server got.

    Attributes:
        published: messages.
        due: those that the clients should have got, together.
        delivered: those of them that they got.
        told_lost, silent: those that they did not, with a word of the server that something is missing, and without.
        duplicates, disorder: messages that came again, or after a later one.
        told: how often a client was told that something is missing.
        lost_in: kind of drop to messages that were lost in such.
        delays: seconds from publishing to arrival of what was delivered, sorted.
    """

    published: int
    due: int = 0
    told_lost: int = 0
    silent: int = 0
    duplicates: int = 0
    disorder: int = 0
    told: int = 0
    lost_in: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    delays: list[float] = dataclasses.field(default_factory=list)

    @property
    def delivered(self) -> int:
        return self.due - self.told_lost - self.silent

    def delay(self, share: float) -> float:
        """Return the delay, in seconds, that so large a share of what was delivered did not exceed."""
        return self.delays[min(int(share * len(self.delays)), len(self.delays) - 1)] if self.delays else float("nan")


def account(began: Sequence[float], clients: Sequence[tuple[Events, Sequence[Drop]]], start: float) -> Account:
    """Add up what the clients of one server got.

    Args:
        began: when messages 1, 2, 3, … were published, on the monotonic clock.
        clients: of each what it was sent, and the drops of its network in the order of time.
        start: from when on the times of the drops count.
    """
    total = Account(published=len(began))
    for events, dropped in clients:
        total.due += len(began)
        ledger = Ledger()
        stream = ledger.streams[NAME]
        seen = set()
        for at, number in events:
            if number == TOLD:
                ledger.lost()
                continue
            ledger.message(NAME, number, None)
            if number not in seen:
                seen.add(number)
                total.delays.append(at - began[number - 1])
        stream.end(len(began))
        total.told += ledger.told
        late = set(stream.disorder)
        total.disorder += len(late)
        # Of a message that came late and then again the ledger says that it was late twice.
        total.duplicates += sum(number != TOLD for _, number in events) - len(seen)
        starts = [start + drop.at for drop in dropped]
        for ranges, kind in ((stream.told_lost, "told_lost"), (stream.unexplained, "silent")):
            missing = [number for first, last in ranges for number in range(first, last + 1) if number not in seen]
            setattr(total, kind, getattr(total, kind) + len(missing))
            for number in missing:
                # What was on its way when the network dropped was lost there too.
                before = bisect.bisect_right(starts, began[number - 1] + ON_ITS_WAY)
                where = dropped[before - 1].kind if before else "no drop"
                total.lost_in[where] = total.lost_in.get(where, 0) + 1
    total.delays.sort()
    return total


# --- all together -----------------------------------------------------------------------------------------------------


def measure(server: Running, plan: Plan, script: Sequence[Drop]) -> Account:
    """Have the networks of the clients of one server drop as in the script, and return what the clients got."""
    acts = [(drop.at, Network.begin, drop) for drop in script]
    acts += [(drop.at + OUTAGE, Network.end, drop) for drop in script]
    acts.sort(key=lambda act: act[0])
    with contextlib.ExitStack() as stack:
        networks = [stack.enter_context(Network(server.port)) for _ in range(plan.networks)]
        of_client = [client % plan.networks for client in range(plan.clients)]
        sent = stack.enter_context(server.clients([networks[number].port for number in of_client]))
        publisher = server.publish(plan.rate)
        stack.callback(publisher.stop)
        wait_until(lambda: publisher.began, 60, "the first message")
        start = time.monotonic()
        for at, act, drop in acts:
            time.sleep(max(start + at - time.monotonic(), 0))
            act(networks[drop.network], drop.kind)
        time.sleep(max(start + plan.seconds - time.monotonic(), 0))
        publisher.stop()
        last = len(publisher.began)
        with contextlib.suppress(AssertionError):  # the account says what is missing
            wait_until(lambda: all(each and each[-1][1] == last for each in sent()), SETTLING, "the last message")
        per_network = [[drop for drop in script if drop.network == number] for number in range(plan.networks)]
        clients = [(events, per_network[number]) for events, number in zip(sent(), of_client, strict=True)]
        return account(publisher.began[:last], clients, start)


def failed(accounts: Mapping[str, Account | str]) -> list[str]:
    """Return the names of servers with recovery of wsloop's whose clients have not everything, once and in order."""
    found = accounts.get(WSLOOP)
    if not isinstance(found, Account):
        return [WSLOOP]
    return [] if found.delivered == found.due and not (found.duplicates or found.disorder) else [WSLOOP]


def measure_all(
    redis: RedisServer, directory: Path, plan: Plan, say: Callable[[str], object]
) -> tuple[dict[str, Account | str], str]:
    """Measure each server; instead of an account, why one cannot be. Also return the versions of the peers."""
    servers = Servers(redis, directory, round(plan.rate * (plan.seconds + SETTLING)))
    accounts: dict[str, Account | str] = {}
    for name, start in servers.names().items():
        say(f"drops: {name}")
        try:
            with start() as server:
                accounts[name] = found = measure(server, plan, drops(plan))
        except (RuntimeError, OSError, AssertionError) as exc:  # the last one: what was waited for did not come about
            accounts[name] = f"not measured, {exc}"
            say(f"  {accounts[name]}")
        else:
            say(f"  {found.delivered} of {found.due} delivered")
    return accounts, servers.versions()
