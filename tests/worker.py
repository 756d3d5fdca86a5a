"""A pytest plugin: forks of this pytest run the tests that they are told to, unit by unit, and tell what came of them.

``python -m tests`` has several such processes side by side. The pytest collects all that they might have to run, which
takes seconds, and forks for each of the sockets in ``TEST_WORKERS``. What a fork and ``python -m tests`` say to each
other there are lines of JSON. A fork goes on until there is nothing left, so what is there for the whole session, the
shared servers above all, is started once in each.

A unit is what has to stay together: the tests of a module that need a fixture which is there for all of the module, or
else a single one.
"""

import contextlib
import json
import os
import sys
import time
from collections import Counter

import pytest

from testbed import processes
from testbed.processes import Process
from testbed.warm_python import Script


def pytest_configure(config):
    config.pluginmanager.register(Worker(json.loads(os.environ.pop("TEST_WORKERS"))))


class NothingOfThis:
    """What runs next as far as pytest has to know it: something that has nothing but the session in common."""

    def __init__(self, session):
        self._session = session

    def listchain(self):
        return [self._session]


def call_of_the_system(name):
    """A function of ``os`` itself: that of gevent would want its event loop, which is not to be forked."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original("os", name) if monkey else getattr(os, name)


def cpu_time():
    """Seconds of a core that this process has taken, and what it has started and is through."""
    return sum(os.times()[:4]) + Script.cpu


def units_of(items):
    """Units by their name, and whether they run alone. All processes have the same names for the same tests."""
    units, cases = {}, Counter()
    for item in items:
        scopes = {each.scope for fixtures in item._fixtureinfo.name2fixturedefs.values() for each in fixtures[-1:]}
        name, parameters, _ = item.nodeid.partition("[")
        if not scopes <= {"function", "session"}:
            name = name.partition("::")[0]
        elif parameters:  # which may have an id of their own in each process, where they are made up
            cases[name] += 1
            name = f"{name}[#{cases[name]}]"
        units.setdefault((name, item.get_closest_marker("alone") is not None), []).append(item)
    return units


class Worker:
    def __init__(self, lines):
        self._lines = lines  # descriptor and ports of each fork
        self._line = None  # descriptor of this one
        for descriptor, _ in lines:
            os.set_inheritable(descriptor, False)
        self._deselected = 0
        self._skipped = []  # whole modules: (path, reason)
        self._counts = Counter()
        self._parts = []  # (seconds, phase, test) of every setup, call and teardown of a unit

    # The plain calls of the system: gevent has nothing else to run meanwhile, and no test may stand in the way.

    def _tell(self, **message):
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self._line, data) :]

    def _ask(self):
        """The next unit to run, as ``units_of`` has it; None at the end."""
        self._tell(what="next")
        answer = b""
        while not answer.endswith(b"\n"):
            data = os.read(self._line, 65536)
            if not data:
                return None
            answer += data
        return json.loads(answer)

    def pytest_deselected(self, items):
        self._deselected += len(items)

    def pytest_collectreport(self, report):
        if report.skipped:
            self._skipped.append((report.nodeid, report.longrepr[2] if report.longrepr else ""))

    def _fork(self):
        """Return whether this is one of the forks; if not, they have all ended."""
        capture = self._config.pluginmanager.getplugin("capturemanager")
        capture.stop_global_capturing()  # into files that the forks would share
        forked = {}
        for descriptor, ports in self._lines:
            if pid := call_of_the_system("fork")():
                forked[pid] = descriptor
                continue
            os.setsid()
            for other, _ in self._lines:
                if other != descriptor:
                    os.close(other)
            self._line = descriptor
            processes.use_ports(ports)
            if gevent := sys.modules.get("gevent"):
                gevent.reinit()
            capture.start_global_capturing()
            capture.suspend_global_capture()
            return True
        while forked:
            pid, status = os.wait()
            if descriptor := forked.pop(pid, None):
                with open(descriptor, "w") as line, contextlib.suppress(BrokenPipeError):
                    line.write(json.dumps({"what": "ended", "code": os.waitstatus_to_exitcode(status)}) + "\n")
                    line.flush()
        return False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        if session.testsfailed or session.config.option.collectonly:
            return None  # pytest's own says what could not be collected
        if not self._fork():
            return True
        units = units_of(session.items)
        found = {"units": list(units), "deselected": self._deselected, "skipped": self._skipped}
        self._tell(what="collected", pid=os.getpid(), **found)
        while unit := self._ask():
            self._run(units[tuple(unit)], NothingOfThis(session))
        return True

    def _run(self, items, last):
        began, cpu, servers = time.monotonic(), cpu_time(), Counter(Process.started)
        self._counts, self._parts = Counter(), []
        for item, following in zip(items, [*items[1:], last], strict=True):
            self._tell(what="begins", test=item.nodeid)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        self._tell(
            what="ran",
            counts=self._counts,
            seconds=time.monotonic() - began,
            cpu=cpu_time() - cpu,
            servers=Process.started - servers,
            parts=self._parts,
        )

    def pytest_runtest_logreport(self, report):
        category, _, _ = self._config.hook.pytest_report_teststatus(report=report, config=self._config)
        if category:
            self._counts[category] += 1
        self._parts.append((report.duration, report.when, report.nodeid))
        if category in ("", "passed"):
            return  # thousands, which need no message each
        text = ""
        if report.failed:
            sections = [f"{f' {title} ':-^80}\n{content.rstrip()}" for title, content in report.sections]
            text = "\n".join([report.longreprtext.rstrip(), *sections])
        elif report.skipped and isinstance(report.longrepr, tuple):
            text = report.longrepr[2]
        self._tell(what="report", test=report.nodeid, category=category, text=text)

    def pytest_warning_recorded(self, warning_message, nodeid):
        self._counts["warnings"] += 1
        self._tell(what="report", test=nodeid, category="warnings", text=str(warning_message.message))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session):
        self._config = session.config
