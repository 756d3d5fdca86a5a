"""Runs cases of Autobahn|Testsuite against a server, and says which of them did not end as RFC 6455 and RFC 7692 want.

``DEVIATIONS`` is the one list of what is known to end otherwise, with the reasons; README.rst explains them at length.
"""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.tools import python_of_autobahn

WHOLE_FRAMES = "text is checked a frame at a time, not while a frame is still arriving"
# Case to what Autobahn calls it, and why it is so. The tests fail as soon as this is not the exact list.
DEVIATIONS = {
    "6.4.3": ("NON-STRICT", WHOLE_FRAMES),
    "6.4.4": ("NON-STRICT", WHOLE_FRAMES),
}

# Whatever a server does here is right: Autobahn only notes it (frames behind a close frame; close codes above 4999).
INFORMATIONAL = ["7.1.6", "7.13.1", "7.13.2"]

PROTOCOL = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]  # RFC 6455
COMPRESSION = ["12.*", "13.*"]  # RFC 7692
# The same without most of what takes long.
FAST_PROTOCOL = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
FAST_PROTOCOL += ["9.1.1", "9.1.4", "9.2.6", "9.3.2", "9.4.4", "9.5.2", "9.6.4", "9.7.1", "9.8.1"]
# Behind uWSGI's router, which copies bytes: where a frame ends, and what takes long.
ROUTED_PROTOCOL = ["1.*", "2.*", "5.*", "7.1.*", "7.3.*", "9.1.1", "9.3.2", "9.7.1"]
ROUTED_COMPRESSION = ["12.1.1", "13.7.8"]
FAST_COMPRESSION = ["12.1.1", "12.2.5", "12.3.1", "12.4.1", "12.5.1"]
FAST_COMPRESSION += ["13.1.3", "13.2.1", "13.3.1", "13.4.1", "13.5.1", "13.6.1", "13.7.8"]

LONG_SECTIONS = {"9", "12", "13"}  # their subsections are shown one by one


@dataclass(frozen=True)
class Outcome:
    """How one case ended, in Autobahn's words.

    Attributes:
        behavior: ``OK``, ``NON-STRICT``, ``INFORMATIONAL``, ``UNIMPLEMENTED`` or ``FAILED``.
        close: the same of the closing handshake; ``UNCLEAN`` and ``WRONG CODE`` besides.
        report: Autobahn's record of the case.
    """

    behavior: str
    close: str
    report: Path

    @property
    def verdict(self):
        """``OK`` if all went well, otherwise what did not."""
        return self.behavior if self.close in ("OK", self.behavior) else f"{self.behavior}, closing: {self.close}"

    def story(self):
        """What Autobahn wanted, what it saw, and the last that went over the wire."""
        case = json.loads(self.report.read_text())
        lines = [f"Case {case['id']}: {self.verdict}"]
        for name in ("description", "expectation", "result", "resultClose", "wasNotCleanReason", "httpResponse"):
            lines.append(f"  {name}: {str(case[name]).strip()}")
        for way in ("rx", "tx"):
            lines.append(f"  {way} frames by opcode: {case[f'{way}FrameStats']}")
        lines += [f"  wire: {entry}" for entry in case["wirelog"][-15:]]
        return "\n".join(lines)


# Autobahn sends a thousand messages in each of these, one after the other.
WSTEST = """
import sys
from autobahntestsuite import case, wstest
most = int(sys.argv.pop())
for each in case.Case9_7_X + case.Case9_8_X + case.Case12_X_X + case.Case13_X_X:
    each.COUNT = min(each.COUNT, most)
wstest.run()
"""


def run(url, agent, cases, most, directory, progress):
    """Run ``cases`` (numbers, or patterns such as ``6.*``) and return their outcomes by number.

    Args:
        url: of an echo.
        agent: name of the server in the report.
        most: messages in one case, one after the other.
        directory: where the report goes: ``index.html`` for people, JSON of every case.
        progress: called with a line of text when a section begins.

    Raises:
        AssertionError: if ``wstest`` did not run all of them.
    """
    specification = {
        "outdir": str(directory),
        "servers": [{"agent": agent, "url": url, "options": {"version": 18}}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    file = directory / "specification.json"
    file.write_text(json.dumps(specification))
    output = []
    command = [python_of_autobahn(), "-W", "ignore", "-c", WSTEST, "-m", "fuzzingclient", "-s", str(file), str(most)]
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            planned = follow(process.stdout, output, progress)
        except BaseException:
            process.kill()
            raise
    index = directory / "index.json"
    assert index.exists(), f"wstest ended without a report:\n{''.join(output[-50:])}"
    outcomes = {
        case: Outcome(found["behavior"], found["behaviorClose"], directory / found["reportfile"])
        for case, found in json.loads(index.read_text())[agent].items()
    }
    not_run = sorted(set(planned) - set(outcomes))
    assert planned and not not_run, f"not run: {not_run}; wstest said:\n{''.join(output[-50:])}"
    return outcomes


def follow(lines, output, progress):
    """Read what ``wstest`` prints until it ends, and return the numbers of the cases that it was to run."""
    planned, section = [], None
    for line in lines:
        output.append(line)
        if line.startswith("Cases = "):
            planned = re.findall(r"'([\d.]+)'", line)
        elif running := re.match(r"Running test case ID ([\d.]+)", line):
            case = running[1]
            parts = case.split(".")
            now = ".".join(parts[:2]) if parts[0] in LONG_SECTIONS else parts[0]
            if now != section:
                section = now
                progress(f"section {section}, case {planned.index(case) + 1} of {len(planned)}")
    return planned


def deviations(outcomes):
    """Return the cases that did not end well: number to verdict."""
    return {
        case: outcome.verdict
        for case, outcome in outcomes.items()
        if outcome.verdict != ("INFORMATIONAL" if case in INFORMATIONAL else "OK")
    }


def expected_deviations(outcomes):
    """Return what ``deviations`` must be for these cases."""
    return {case: verdict for case, (verdict, _) in DEVIATIONS.items() if case in outcomes}
