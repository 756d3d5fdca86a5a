"""What holds up an event loop is counted, and logged with its stack.

A slow machine holds up loops as well, at any line: so these tests look for what they have caused, among what else there
may be, and never at how long it was.
"""

import asyncio
import functools
import inspect
import os
import re
import time
import traceback

import gevent
import pytest
from gevent import monkey
from prometheus_client import REGISTRY

from testbed.processes import wait_until
from wsloop import blocked, greenlets
from wsloop.aio.worker import WorkerLoop

pytestmark = pytest.mark.real_clock("the loop of gevent has the real one")

AFTER = 0.1
LONG = 8 * AFTER  # seconds that a loop is held up: on a busy machine the watch comes late

make_watch = blocked._watch.__wrapped__  # which other tests do without
native_sleep = monkey.get_original("time", "sleep")  # another C function that blocks without gevent


@pytest.fixture(autouse=True)
def nothing_logged_before(monkeypatch):
    monkeypatch.setattr(blocked, "_reported", {})


@pytest.fixture
def after():
    return AFTER


@pytest.fixture
def watch(after):
    made = blocked.Watch(after)
    yield made
    made.stop()


@pytest.fixture
def coroutines(watch, monkeypatch):
    """Run coroutines in an event loop like that of a worker: returns their future."""
    monkeypatch.setattr(blocked, "_watch", lambda process: watch)
    worker = WorkerLoop()
    yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, worker.loop)
    worker.end()


@pytest.fixture
def logged(caplog):
    """Wait for the line that names a line of this file: ``logged("time.sleep")``; return the record."""

    def find(code, loop="gevent"):
        beginning = "event loop blocked" if loop == "gevent" else "asyncio's event loop blocked"

        def found():
            for record in caplog.records:
                match = re.match(
                    rf"{beginning} for (\d+) ms, in tests/unit/test_blocked\.py:(\d+)", record.getMessage()
                )
                if match and code in line(int(match[2])):
                    assert (record.name, record.levelname) == ("wsloop.blocked", "WARNING")
                    return record
            return None

        wait_until(found, what=f"the line that names {code!r}")
        return found()

    return find


def line(number):
    """A line of this file."""
    return inspect.getsource(inspect.getmodule(line)).splitlines()[number - 1]


def count(loop, kind="total"):
    return REGISTRY.get_sample_value(f"wsloop_blocked_{kind}", {"loop": loop}) or 0


def compute():
    end = time.monotonic() + LONG
    while time.monotonic() < end:  # computes
        sum(range(1000))  # computes


def test_a_greenlet_that_computes_is_logged_with_its_stack_and_counted(watch, logged):
    before, seconds = count("gevent"), count("gevent", "seconds_total")
    gevent.spawn(compute).join()
    assert "in compute\n    " in logged("# computes").getMessage(), "the stack has functions, and their code"
    assert count("gevent") > before
    assert count("gevent", "seconds_total") >= seconds + AFTER


def test_code_that_blocks_where_gevent_cannot_switch_is_logged(watch, logged):
    def block():
        native_sleep(LONG)

    gevent.spawn(block).join()
    assert "native_sleep(LONG)" in logged("native_sleep(LONG)").getMessage()


def test_a_c_extension_that_does_not_release_the_lock_is_logged(watch, logged, caplog):
    size = 1 << 20
    while "event loop blocked" not in caplog.text:  # large enough for this machine, which lets the watch run in time
        began = time.monotonic()
        str_of_number(size)
        if time.monotonic() - began < 3 * AFTER:
            size *= 2
        gevent.sleep(AFTER)
    logged("number // divisor")


def str_of_number(bits):
    number, divisor = 1 << bits, 3 << (bits // 2)
    # In a loop: the interpreter lets other threads run where a loop goes on, not where a function returns.
    return gevent.spawn(lambda: [number // divisor for _ in "x"]).get()


def test_a_coroutine_that_blocks_is_logged_and_others_go_on(coroutines, logged):
    before = count("asyncio")

    async def inner():
        time.sleep(LONG)

    async def outer():
        await inner()

    ticks = []

    def tick():
        while not future.done():
            ticks.append(1)
            gevent.sleep(AFTER / 20)

    future = coroutines(outer())
    gevent.spawn(tick).join()
    message = logged("time.sleep(LONG)", "asyncio").getMessage()
    assert "in outer\n    await inner()" in message
    assert len(ticks) > 2
    assert count("asyncio") > before


def test_a_coroutine_that_computes_holds_up_both_loops_and_is_logged_once(coroutines, logged, caplog):
    async def coroutine():
        compute()

    gevent.spawn(coroutines(coroutine()).result).join()
    assert "in coroutine\n    compute()" in logged("# computes").getMessage()
    gevent.sleep(2 * AFTER)
    assert not [each for each in caplog.messages if each.startswith("asyncio's") and "in compute" in each]


def test_the_same_function_is_logged_once_a_minute_and_counted_each_time(watch, logged, caplog, monkeypatch):
    before = count("gevent")

    def block():
        native_sleep(LONG)

    def of_it():
        return [each for each in caplog.messages if "native_sleep(LONG)" in each]

    for number in range(3):
        gevent.spawn(block).join()
        wait_until(lambda number=number: count("gevent") > before + number, what="it being counted")
    logged("native_sleep(LONG)")
    assert len(of_it()) == 1
    monkeypatch.setattr(greenlets, "QUIET", 0)
    gevent.spawn(block).join()
    wait_until(lambda: len(of_it()) == 2, what="the second line")
    assert "(2 more times since this was last logged)" in of_it()[1]


@pytest.mark.parametrize("after", [1.0])  # longer than any machine stands still
def test_greenlets_and_coroutines_that_yield_are_not_logged(coroutines, caplog, after):
    """They compute all the time, but none of them for long."""
    end = time.monotonic() + 2.5 * after

    def greenlet():
        while time.monotonic() < end:
            sum(range(100))
            gevent.sleep(0)

    async def coroutine():
        while time.monotonic() < end:
            sum(range(100))
            await asyncio.sleep(0)

    async def idle():
        await asyncio.sleep(2 * after)

    gevent.joinall(
        [gevent.spawn(greenlet) for _ in range(3)]
        + [gevent.spawn(future.result) for future in (coroutines(coroutine()), coroutines(idle()))]
    )
    assert "event loop blocked" not in caplog.text


def test_what_is_imported_is_not_logged(watch, caplog, tmp_path, monkeypatch):
    """A site loads much with its first request."""
    (tmp_path / "slow_module.py").write_text(
        f"import time\nend = time.monotonic() + {LONG}\nwhile time.monotonic() < end: pass"
    )
    monkeypatch.syspath_prepend(tmp_path)
    gevent.spawn(lambda: __import__("slow_module")).join()
    gevent.sleep(2 * AFTER)
    assert "slow_module" not in caplog.text


@pytest.fixture
def watches(monkeypatch):
    """What :func:`watch` has made for this process."""
    made = functools.lru_cache(maxsize=1)(make_watch)
    monkeypatch.setattr(blocked, "_watch", made)
    return lambda: made(os.getpid())


def test_none_turns_it_off(with_settings, watches):
    with_settings(WSLOOP={"BLOCKED_AFTER": None})
    blocked.watch()
    assert watches() is None


def test_a_worker_that_may_start_no_thread_goes_on_without(watches, caplog, monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(blocked, "start_thread", refuse)
    blocked.watch()
    assert watches() is None
    assert caplog.messages == ["event loops that are held up will not be logged: can't start new thread"]


def test_a_worker_is_watched_once(watches):
    blocked.watch()
    made = watches()
    coroutines = blocked.Coroutines(lambda: None, lambda: None, lambda *arguments: None)
    blocked.watch(coroutines)
    assert watches() is made
    assert made.coroutines is coroutines
    made.stop()


@pytest.mark.parametrize(
    ("files", "shown"),
    [
        (["/srv/site/shop/views.py", traceback.__file__], "/srv/site/shop/views.py:1"),
        ([traceback.__file__, "/srv/site/shop/views.py"], "/srv/site/shop/views.py:2"),
        (["/srv/.venv/lib/python3.11/site-packages/django/x.py", "<string>"], "<string>:2"),
        ([greenlets.__file__], "wsloop/greenlets.py:1"),
        ([], "C code"),
    ],
)
def test_the_innermost_line_of_the_site_is_named_if_there_is_one(caplog, files, shown):
    blocked._report("gevent", 0.31, [(name, number, "f") for number, name in reversed(list(enumerate(files, 1)))])
    assert caplog.messages[0].splitlines()[0] == f"event loop blocked for 310 ms, in {shown}"
