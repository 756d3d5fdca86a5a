"""Several pytest processes at once: which of them runs what next, and what came of it all.

Most tests wait most of the time, for servers that start and for what must not come, so there are more processes than
cores. Each is a pytest with the plugin ``worker.py``, which asks here for the next unit of tests: the longest first, as
``durations.txt`` has them. What is marked ``alone`` comes when all the others are through, with nothing beside it.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

DURATIONS = Path(__file__).with_name("durations.txt")
LONG = 5.0  # seconds; what takes longer is in that file
PORTS = range(10_000, 32_768)  # above, the kernel gives them to connections
NO_TESTS_COLLECTED = 5  # pytest's exit code, which is no failure where others have had some
INSIST = 60.0  # seconds that a process has to end its servers, and itself when there is nothing left to run


def shares(numbers, parts):
    """``numbers`` in so many parts of the same size."""
    share = len(numbers) // parts
    return [numbers[part * share : (part + 1) * share] for part in range(parts)]


def durations():
    lines = (line.split(maxsplit=1) for line in DURATIONS.read_text().splitlines() if not line.startswith("#"))
    return {unit.strip(): float(seconds) for seconds, unit in lines}


def name_of(unit):
    name, alone = unit
    return f"{name} (alone)" if alone else name


def test_of(unit):
    return unit[0].partition("[")[0]


def module_of(unit):
    return unit[0].partition("::")[0], unit[1]


def in_words(counts):
    """``3 failed, 20 passed``, as pytest's closing line has it."""
    order = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "warnings", "error")
    words = [*order, *sorted(set(counts) - set(order))]
    return ", ".join(f"{counts[word]} {word}" for word in words if counts.get(word)) or "no tests ran"


class Pytest:
    """A pytest that collects what there is to run, and then forks into several processes, which all have that already.

    Args:
        kind: of tests.
        command: of the process.
        lines: one for each fork: its end of the socket, and the ports that are its own.
        env: more environment.

    Attributes:
        output: file with what it and its forks print.
    """

    def __init__(self, kind, command, lines, env):
        self.kind = kind
        self.output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when it has ended
        described = [[line.fileno(), ports] for line, ports in lines]
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            pass_fds=[descriptor for descriptor, _ in described],
            env={**os.environ, **env, "TEST_WORKERS": json.dumps(described)},
            start_new_session=True,  # an interrupt from the terminal comes through interrupt(), and once
        )
        for line, _ in lines:
            line.close()

    def interrupt(self):
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(signal.SIGINT)

    def wait(self):
        """Return how it has ended, when its forks have."""
        try:
            return self._popen.wait(INSIST)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()

    def read(self):
        """Return what it and its forks have printed."""
        self.output.seek(0)
        text = self.output.read()
        self.output.close()
        return text


class Process:
    """A fork of a ``Pytest``, which runs tests for a ``Run``, and the thread that talks to it.

    Args:
        follows: whether it begins when a process of another kind has ended.
    """

    def __init__(self, run, kind, follows):
        self._run, self.kind, self.follows = run, kind, follows
        self._line, self.theirs = socket.socketpair()
        self.unit = self.test = None  # what it runs just now
        self.has_collected = False
        self.pid = None  # once it is there
        self.code = None
        self._overdue = None  # a timer, once there is nothing left for it to run
        self._thread = threading.Thread(target=self._talk)
        self._thread.start()

    def _talk(self):
        with self._line, self._line.makefile("rw") as line:
            for message in map(json.loads, line):
                what = message.pop("what")
                if what == "next":
                    self.unit = self._run.next(self)
                    if not self.unit:
                        self._overdue = threading.Timer(INSIST, self._abort)
                        self._overdue.start()
                    with contextlib.suppress(BrokenPipeError):
                        line.write(json.dumps(self.unit) + "\n")
                        line.flush()
                elif what == "begins":
                    self.test = message["test"]
                elif what == "ran":
                    unit, self.unit, self.test = self.unit, None, None
                    self._run.ran(unit, **message)
                elif what == "collected":
                    self.pid = message.pop("pid")
                    self.has_collected = True
                    self._run.collected(self, **message)
                elif what == "ended":
                    self.code = message["code"]
                else:
                    self._run.report(**message)
        if self._overdue:
            self._overdue.cancel()
        self._run.ended(self)

    def _signal(self, number):
        if self.pid and self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def interrupt(self):
        """Let it end what it has started, as after Ctrl-C."""
        self._signal(signal.SIGINT)

    def _abort(self):
        """End it where it hangs: its faulthandler writes what its threads do. Others may wait for its end."""
        self._signal(signal.SIGABRT)

    def kill(self):
        if self.pid and self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def join(self, until=None):
        """Wait for its end, or until a time of the monotonic clock; tell whether it has ended."""
        self._thread.join(None if until is None else max(until - time.monotonic(), 0))
        return not self._thread.is_alive()


class Run:
    """What several pytests have to run.

    Args:
        commands: of a pytest of each kind.
        jobs: how many processes of each kind run tests.
        followers: how many more do: each begins when a process of another kind has ended.
        env: more environment.
        limit: seconds after which they are ended, which is a failure.
    """

    def __init__(self, commands, jobs, followers, env, limit=None):
        self.counts = Counter()
        self.units = {}  # what came of each
        self.parts = []  # (seconds, phase, test) of every setup, call and teardown
        self.failures = []  # (category, test, text)
        self.skips = Counter()  # by module and reason
        self.problems = []  # what is wrong with the run itself
        self.processes = []
        self._commands = commands
        self._pytests = []
        self._numbers = list(zip(jobs, followers, strict=True))
        self._env = env
        self._limit = limit
        self._durations = durations()
        self._changed = threading.Condition()
        self._left = {}  # by kind: units that nobody runs yet, the next one last; none until its tests are collected
        self._unfinished = Counter()  # units of each module
        self._alive = Counter({kind: sum(numbers) for kind, numbers in enumerate(self._numbers)})
        self._busy = self._alive.total()  # processes that are not waiting for their turn alone
        self._stopped = False

    def run(self):
        began = time.monotonic()
        try:
            self._start()
            until = None if self._limit is None else began + self._limit
            if not all([process.join(until) for process in self.processes]):
                self.problems.append(f"The tests have taken longer than {self._limit / 60:g} minutes: ended")
                self._stop()
        except BaseException:
            self._stop()
            raise
        finally:
            self._collect_output()
        if left := [name_of(unit) for units in self._left.values() for unit in units]:
            self.problems.append(f"Nobody has run {', '.join(left)}")

    def _start(self):
        ports = iter(shares(PORTS, self._alive.total()))
        for kind, (jobs, followers) in enumerate(self._numbers):
            processes = [Process(self, kind, number >= jobs) for number in range(jobs + followers)]
            self.processes += processes
            own = [next(ports) for _ in processes]
            lines = [(each.theirs, f"{part[0]}-{part[-1]}") for each, part in zip(processes, own, strict=True)]
            self._pytests.append(Pytest(kind, self._commands[kind], lines, self._env))

    def _stop(self):
        """End all processes with all that they have started."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for pytest in self._pytests:
            if not all(process.pid for process in self.processes if process.kind == pytest.kind):
                pytest.interrupt()
        for process in self.processes:
            if process.test:
                self.problems.append(f"Interrupted: {process.test}")
            process.interrupt()
        until = time.monotonic() + INSIST
        for process in self.processes:
            if not process.join(until):
                process.kill()
                process.join()

    def _collect_output(self):
        """Print the output of a pytest where something is wrong with it or one of its forks, and not with a test."""
        for pytest in self._pytests:
            processes = [process for process in self.processes if process.kind == pytest.kind]
            code, output = pytest.wait(), pytest.read()
            if self._stopped:
                continue
            codes = {code} | {process.code for process in processes if process.has_collected}
            if wrong := codes - {0, 1, NO_TESTS_COLLECTED}:
                self.problems += [f"A process of pytest ended with {code}" for code in wrong]
                print(output, flush=True)

    # --- what the processes ask and tell ------------------------------------------------------------------------------

    def next(self, process):
        """The unit that this process runs next; None if there is nothing left for it."""
        with self._changed:
            self._changed.wait_for(lambda: not process.follows or self._stopped)
            if unit := self._take(process.kind, alone=False):
                return unit
            if self._alive[process.kind] == 1 and self._left[process.kind]:
                # The last of its kind stays for what runs alone.
                self._busy -= 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._busy == 0 or self._stopped)
                self._busy += 1
                if unit := self._take(process.kind, alone=True):
                    return unit
            self._alive[process.kind] -= 1
            return None

    def _take(self, kind, alone):
        left = self._left[kind]
        if self._stopped or not left or left[-1][1] != alone:
            return None
        return left.pop()

    def collected(self, process, units, deselected, skipped):
        with self._changed:
            if process.kind in self._left:
                return  # all of a kind collect the same
            units = [tuple(unit) for unit in units]
            units.sort(key=lambda unit: (unit[1], -self._durations.get(test_of(unit), 0.0)))
            self._left[process.kind] = units[::-1]
            self._unfinished.update(module_of(unit) for unit in units)
            self.counts.update(deselected=deselected, skipped=len(skipped))
            self.skips.update((path, reason) for path, reason in skipped)

    def report(self, test, category, text):
        with self._changed:
            if category in ("failed", "error"):
                self.failures.append((category, test, text))
                print(f"{f' {category}: {test} ':_^120}\n{text}\n{'_' * 120}", flush=True)
            elif category == "skipped":
                self.skips[test.partition("::")[0], text] += 1
            elif category == "warnings":
                print(f"Warning of {test}: {text}", flush=True)

    def ran(self, unit, counts, seconds, cpu, servers, parts):
        with self._changed:
            self.parts += parts
            self.counts.update(counts)
            self.units[unit] = {"counts": Counter(counts), "seconds": seconds, "cpu": cpu, "servers": Counter(servers)}
            module = module_of(unit)
            self._unfinished[module] -= 1
            if not self._unfinished[module]:
                results = [result for unit, result in self.units.items() if module_of(unit) == module]
                seconds, cpu = (sum(result[what] for result in results) for what in ("seconds", "cpu"))
                counts = sum((result["counts"] for result in results), Counter())
                print(f"{seconds:7.1f} s ({cpu:5.1f} of a core)  {name_of(module)}: {in_words(counts)}", flush=True)

    def ended(self, process):
        with self._changed:
            self._busy -= 1
            if process.unit or not process.has_collected:
                self._alive[process.kind] -= 1
            if follower := next((each for each in self.processes if each.follows and each.kind != process.kind), None):
                follower.follows = False
            self._changed.notify_all()
            if process.unit and not self._stopped:
                self.problems.append(f"A process ended with {process.code} in {process.test or name_of(process.unit)}")

    # --- what there is to say at the end ------------------------------------------------------------------------------

    def print_report(self, durations=None):
        """Where the time has gone, what was skipped, and once more what has failed.

        ``durations``: how many of the slowest parts of tests are named; 0 for all, as pytest's option has it.
        """
        if durations is not None:
            print(" slowest durations ".center(80, "="))
            for seconds, phase, test in sorted(self.parts, reverse=True)[: durations or None]:
                print(f"{seconds:.2f}s {phase:8} {test}")
            self._print_table(lambda unit: name_of(module_of(unit)))
        self._print_table(lambda unit: "/".join(unit[0].split("/")[:2]))
        for (module, reason), number in sorted(self.skips.items()):
            print(f"SKIPPED [{number}] {module}: {reason}")
        for category, test, text in self.failures:
            print(f"{category.upper()} {test}{first_line(text)}")
        for problem in self.problems:
            print(f"ERROR {problem}")

    def _print_table(self, row_of):
        rows = {}
        for unit, result in self.units.items():
            rows.setdefault(row_of(unit), []).append(result)
        width = max(map(len, rows), default=0)
        print(" where the time went ".center(80, "="))
        print(f"{'':{width}} {'tests':>6} {'seconds':>8} {'of a core':>10}  servers started")
        for name, results in sorted(rows.items()):
            counts, servers = (sum((result[what] for result in results), Counter()) for what in ("counts", "servers"))
            tests = sum(number for word, number in counts.items() if word not in ("warnings", "error"))
            seconds, cpu = (sum(result[what] for result in results) for what in ("seconds", "cpu"))
            started = ", ".join(f"{number} {server}" for server, number in servers.most_common())
            print(f"{name:{width}} {tests:6} {seconds:8.0f} {cpu:10.0f}  {started}")

    def write_durations(self):
        """Keep what matters for the order: how long the longest take, and of a test its longest case."""
        taken = {}
        for unit, result in self.units.items():
            taken[test_of(unit)] = max(taken.get(test_of(unit), 0.0), result["seconds"])
        lines = [f"{seconds:.0f} {name}\n" for name, seconds in sorted(taken.items()) if seconds > LONG]
        comment = "# Seconds that the longest tests take, or modules of which the tests share something\n"
        DURATIONS.write_text(comment + "".join(lines))


def first_line(text):
    """`` - AssertionError: …``, of the report of a failure."""
    lines = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")] or text.splitlines()
    return f" - {lines[0][:200]}" if lines else ""
