"""The tests hold at every hour: some of those that know of dates, in processes with other clocks (``tests/clock.py``).

Which it is when the tests are run is chance, and a test that fails on one day of the year fails on somebody else's.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.__main__ import PATCHED, PLAIN
from tests.clock import VARIABLE

ROOT = Path(__file__).resolve().parents[2]

# Where dates are written, compared and shown: as many as seconds allow. To run everything: tests/README.rst.
UNKEPT = ["-p", "no:cacheprovider"]  # what failed last is what failed in the run around these
ROOMS = [*PLAIN, *UNKEPT, "tests/chat/rooms/test_rooms.py"]
WATCHES = ["tests/unit/test_session_watch.py", "tests/unit/test_tokens.py"]
ENDS = [*PATCHED, *UNKEPT, *WATCHES, "-k", "session or token or end"]

RUNS = [
    ("2028-02-29T23:59:58 Asia/Kathmandu", ROOMS),  # which is not whole hours from UTC
    ("2027-10-31T02:59:58 Europe/Berlin", ENDS),  # summer time ends at three o'clock, which is two again
]

# In a process that is patched by gevent: what is to be another time, and what must stay as it is.
PROBE = """
import datetime, os, tempfile, time
import gevent
before = time.time(), time.monotonic(), time.perf_counter(), gevent.get_hub().loop.now()
from tests import clock
clock.travel()
assert 0 <= (datetime.datetime.now() - datetime.datetime(2028, 2, 29, 23, 59, 58)).total_seconds() < 60
assert 0 <= time.time() - datetime.datetime(2028, 2, 29, 18, 14, 58, tzinfo=datetime.timezone.utc).timestamp() < 60
assert time.tzname[0] == "+0545", time.tzname
began = time.time()
gevent.sleep(0.1)
assert 0.05 <= time.time() - began < 60
for measure, moment in zip((time.monotonic, time.perf_counter, gevent.get_hub().loop.now), before[1:], strict=True):
    assert 0 <= measure() - moment < 60, measure
with clock.real(), tempfile.TemporaryFile() as file:
    assert abs(time.time() - os.stat(file.fileno()).st_mtime) < 60
    assert 0 <= time.time() - before[0] < 60
assert 0.05 <= time.time() - began < 60  # and back
"""


def run(clock, command):
    """Run a command with another clock, and return it with its exit code and output."""
    environment = {**os.environ, VARIABLE: clock}
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_clock_of_the_tests_tells_another_date_and_measures_as_before(tmp_path):
    """Else timers and timeouts would have other ideas of time than Redis and the kernel."""
    probe = tmp_path / "probe.py"
    probe.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{PROBE}")
    done = run("2028-02-29T23:59:58 Asia/Kathmandu", [sys.executable, "-m", "gevent.monkey", str(probe)])
    assert done.returncode == 0, done.stdout


@pytest.mark.timeout(300)
def test_tests_that_know_of_dates_pass_at_other_ones():
    with ThreadPoolExecutor(2) as executor:
        done = list(executor.map(lambda each: run(*each), RUNS))
    for (clock, _), each in zip(RUNS, done, strict=True):
        assert f"clock: {clock[:10]}" in each.stdout, each.stdout  # it is pytest, and has travelled
    if failed := [each.stdout for each in done if each.returncode != 0]:
        pytest.fail("\n".join(failed), pytrace=False)
