"""A pytest plugin: this pytest runs the tests that it is told to, unit by unit, and tells what came of them.

``python -m tests`` has several such processes side by side. What they say to it and it to them are lines of JSON on the
socket ``TEST_WORKER``. A process collects all it might have to run and goes on until there is nothing left, so what is
there for the whole session, the shared servers above all, is started once in each.

A unit is what has to stay together: the tests of a module that need a fixture which is there for all of the module, or
else a single one.
"""

import json
import os
import time
from collections import Counter

import pytest

from testbed.processes import Process
from testbed.warm_python import Script


def pytest_configure(config):
    config.pluginmanager.register(Worker(int(os.environ.pop("TEST_WORKER"))))


class NothingOfThis:
    """What runs next as far as pytest has to know it: something that has nothing but the session in common."""

    def __init__(self, session):
        self._session = session

    def listchain(self):
        return [self._session]


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
    def __init__(self, descriptor):
        self._line = descriptor
        os.set_inheritable(descriptor, False)
        self._deselected = 0
        self._skipped = []  # whole modules: (path, reason)
        self._counts = Counter()

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

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        if session.testsfailed or session.config.option.collectonly:
            return None  # pytest's own says what could not be collected
        units = units_of(session.items)
        self._tell(what="collected", units=list(units), deselected=self._deselected, skipped=self._skipped)
        while unit := self._ask():
            self._run(units[tuple(unit)], NothingOfThis(session))
        return True

    def _run(self, items, last):
        began, cpu, servers = time.monotonic(), cpu_time(), Counter(Process.started)
        self._counts = Counter()
        for item, following in zip(items, [*items[1:], last], strict=True):
            self._tell(what="begins", test=item.nodeid)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        self._tell(
            what="ran",
            counts=self._counts,
            seconds=time.monotonic() - began,
            cpu=cpu_time() - cpu,
            servers=Process.started - servers,
        )

    def pytest_runtest_logreport(self, report):
        category, _, _ = self._config.hook.pytest_report_teststatus(report=report, config=self._config)
        if category:
            self._counts[category] += 1
        text = ""
        if report.failed:
            sections = [f"{f' {title} ':-^80}\n{content.rstrip()}" for title, content in report.sections]
            text = "\n".join([report.longreprtext.rstrip(), *sections])
        elif report.skipped and isinstance(report.longrepr, tuple):
            text = report.longrepr[2]
        part = {"phase": report.when, "seconds": report.duration}
        self._tell(what="report", test=report.nodeid, category=category, text=text, **part)

    def pytest_warning_recorded(self, warning_message, nodeid):
        self._counts["warnings"] += 1
        self._tell(what="report", test=nodeid, category="warnings", text=str(warning_message.message))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session):
        self._config = session.config
