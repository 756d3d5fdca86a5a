"""One attack on one server, with a neighbour beside it: what becomes of the attackers, the worker and the neighbour."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.servers import Server
from testbed.attacks import DROPPED, PAUSE, Attack, Target, forged
from testbed.processes import ROOT

QUIET = 3.0  # seconds for which the neighbour is alone
TAIL = 0.5  # seconds that the last echoes get
LOST = 10.0  # seconds that stand for an echo that never came


@dataclasses.dataclass
class Outcome:
    """What an attack did.

    Attributes:
        fates: what became of the attackers, with how many; see ``attacks``.
        cpu, quiet_cpu: the worker's, in per cent of a core, during the attack and before.
        memory: how much larger than before the worker's resident set was at most, MiB.
        p50, p99, quiet_p50, quiet_p99: of the neighbour's echoes, in ms.
        newcomer: the longest handshake of a newcomer, in ms; infinite if one was not answered.
        lost: echoes that did not come.
        survived: whether the worker did.
        others: what happened to others: "foreign data" if somebody saw what was not for them, "neighbour dropped", "log
            forged".
    """

    fates: dict[str, int]
    cpu: float = math.nan
    quiet_cpu: float = math.nan
    memory: float = math.nan
    p50: float = math.nan
    p99: float = math.nan
    quiet_p50: float = math.nan
    quiet_p99: float = math.nan
    newcomer: float = math.nan
    lost: int = 0
    survived: bool = True
    others: str = ""

    @property
    def ratio(self) -> float:
        """The neighbour's p99 during the attack, in those without it."""
        return self.p99 / self.quiet_p99

    def brief(self) -> str:
        """Return what can be told while others are measured."""
        return (
            f"{dict(self.fates)}, {self.others if self.survived else 'worker crashed'}; CPU {self.cpu:.0f} %, "
            f"{self.memory:.1f} MiB, p50 {self.quiet_p50:.2f} -> {self.p50:.2f} ms, p99 {self.quiet_p99:.1f} -> "
            f"{self.p99:.1f} ms, newcomer {self.newcomer:.0f} ms, {self.lost} lost"
        )


@contextlib.contextmanager
def neighbour(server: Server, target: Target, *view: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """Run ``bench.neighbour``, which is warm when the block begins; what is yielded ends it and returns its results."""
    command = [sys.executable, "-m", "bench.neighbour", target.address[0], str(target.address[1]), target.path, *view]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the neighbour gets no WebSocket:\n{server.log()}")
        time.sleep(1)  # warm
        yield lambda: json.loads(process.communicate(timeout=30)[0])
    finally:
        process.kill()
        process.wait()


def measure(server: Server, target: Target, attack: Attack, seconds: float | None = None) -> Outcome:
    """Run ``attack`` on ``server``, which must have been started for it."""
    with neighbour(server, target) as end:
        quiet, cpu = time.monotonic(), server.cpu_time()
        time.sleep(QUIET)
        server.forget_peak()
        resident = server.peak()
        began, quiet_cpu = time.monotonic(), server.cpu_time() - cpu
        with concurrent.futures.ThreadPoolExecutor(1, initializer=_give_way) as thread:
            fates = thread.submit(_attack, server, target, attack, began + (seconds or attack.seconds)).result()
        ended = time.monotonic()
        outcome = Outcome(fates)
        with contextlib.suppress(OSError, StopIteration):  # it may just have crashed
            outcome.cpu = 100 * (server.cpu_time() - cpu - quiet_cpu) / (ended - began)
            outcome.quiet_cpu = 100 * quiet_cpu / (began - quiet)
            outcome.memory = (server.peak() - resident) / 1024
        time.sleep(TAIL)
        outcome.survived = server.alive()
        results = end()
    _neighbour(outcome, results, quiet, began, ended)
    if results["foreign"] or fates.pop("foreign data", 0):
        outcome.others = "foreign data"
    elif outcome.survived and results["ended"] is not None:
        outcome.others = "neighbour dropped"
    elif forged(server.log()):
        outcome.others = "log forged"
    return outcome


def _give_way() -> None:
    # To the worker and the neighbour, so that what is measured is not the lack of a core for the attackers.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _attack(server: Server, target: Target, attack: Attack, until: float) -> collections.Counter[str]:
    fates: collections.Counter[str] = collections.Counter()
    while True:
        try:
            fates.update(attack.run(target, attack.count, until))
        except OSError:
            fates[DROPPED] += 1
        if not attack.again or time.monotonic() + PAUSE >= until or not server.alive():
            return fates
        time.sleep(PAUSE)


def _neighbour(outcome: Outcome, results: dict[str, Any], quiet: float, began: float, ended: float) -> None:
    before, during = (between(results["echoes"], start, end) for start, end in ((quiet, began), (began, ended)))
    outcome.lost = sum(took is None for sent, took in results["echoes"] if quiet <= sent < ended)
    if len(before) > 1:
        outcome.quiet_p50, outcome.quiet_p99 = statistics.median(before), percentile(before, 0.99)
    if len(during) > 1:
        outcome.p50, outcome.p99 = statistics.median(during), percentile(during, 0.99)
    newcomers = [math.inf if took is None else 1000 * took for sent, took in results["newcomers"] if began <= sent]
    outcome.newcomer = max(newcomers, default=math.nan)


def between(timed: Sequence[tuple[float, float | None]], start: float, end: float) -> list[float]:
    """Return how long what a neighbour has sent in some time took, in ms; what never came took ``LOST``."""
    return [1000 * (LOST if took is None else took) for sent, took in timed if start <= sent < end]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of ``values`` that at least ``share`` of them do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]
