"""Asyncio's state follows its greenlet: wherever a coroutine blocks, no other greenlet sees its running loop."""

import asyncio
import gc
import subprocess
import sys
import threading
import time

import gevent
import pytest
from greenlet import GreenletExit

from testbed.processes import ROOT
from tests.unit.watcher import Watcher, visible
from wsloop.aio import travel

BRIEF = 0.02  # seconds that something blocks


@pytest.fixture(autouse=True)
def installed():
    travel.install()


async def sleeps():
    await asyncio.sleep(BRIEF)


async def blocks():
    time.sleep(BRIEF)


async def waits_for_a_lock():
    lock = threading.Lock()
    lock.acquire()
    gevent.spawn_later(BRIEF, lock.release)
    with lock:
        pass


async def waits_for_an_event():
    event = threading.Event()
    gevent.spawn_later(BRIEF, event.set)
    assert event.wait(5)


async def reads_a_socket():
    ours, theirs = gevent.socket.socketpair()
    gevent.spawn_later(BRIEF, theirs.sendall, b"x")
    assert ours.recv(1) == b"x"
    ours.close()
    theirs.close()


async def runs_a_program():
    subprocess.run(["sleep", str(BRIEF)], check=True)


async def numbers():
    for number in range(3):
        await asyncio.sleep(BRIEF / 3)
        yield number


async def iterates():
    assert [number async for number in numbers()] == [0, 1, 2]


WAYS = [sleeps, blocks, waits_for_a_lock, waits_for_an_event, reads_a_socket, runs_a_program, iterates]


@pytest.mark.parametrize("way", WAYS)
def test_others_see_no_loop_while_a_coroutine_blocks(way):
    async def main():
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        hooks = sys.get_asyncgen_hooks()
        looks = watcher.looks
        await way()
        assert watcher.looks > looks, "it had its turn meanwhile"
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is task
        assert sys.get_asyncgen_hooks() == hooks

    with Watcher() as watcher:
        asyncio.run(main())
    assert visible() == []


def new_event_loop(coroutine):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


def runner(coroutine):
    with asyncio.Runner() as runner:
        return runner.run(coroutine)


STARTS = [asyncio.run, new_event_loop]
if sys.version_info >= (3, 11):
    STARTS.append(runner)


@pytest.mark.parametrize("start", STARTS)
def test_many_greenlets_run_a_loop_each(start):
    async def work(number):
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.001)
        time.sleep(0.001)
        with pytest.raises(RuntimeError):
            asyncio.run(sleeps())  # asyncio's own rule stays: one loop for each greenlet
        assert [each async for each in numbers()] == [0, 1, 2]
        assert asyncio.get_running_loop() is loop
        return number

    def each(number):
        coroutine = work(number)
        return start(coroutine)

    with Watcher(), pytest.warns(RuntimeWarning, match="never awaited"):
        greenlets = [gevent.spawn(each, number) for number in range(20)]
        assert [greenlet.get() for greenlet in greenlets] == list(range(20))
        gc.collect()


def test_a_loop_runs_again_after_it_has_stopped_and_another_one_after_it_has_closed():
    loop = asyncio.new_event_loop()
    with Watcher():
        for _ in range(3):
            loop.run_until_complete(sleeps())
            assert visible() == []
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            loop.run_forever()
        asyncio.run(sleeps())
    assert not {"switch", "throw", "switch_out"} & vars(gevent.getcurrent()).keys(), "it is as it was before"


def test_a_loop_inside_of_a_running_one_is_refused_and_harms_nobody():
    async def main():
        other = asyncio.new_event_loop()
        with pytest.raises(RuntimeError, match="another loop is running"):
            other.run_forever()
        other.close()
        await sleeps()
        await blocks()

    with Watcher():
        asyncio.run(main())


@pytest.mark.parametrize("error", [GreenletExit, gevent.Timeout, ZeroDivisionError])
@pytest.mark.parametrize("way", [sleeps, blocks])
def test_what_is_thrown_into_a_greenlet_reaches_its_loop(error, way):
    seen = []

    async def main():
        try:
            while True:
                await way()
        finally:
            seen.append(asyncio.get_running_loop().is_running())

    def run():
        try:
            asyncio.run(main())
        except BaseException as exc:
            seen.append(type(exc))
        seen.append(visible())

    with Watcher():
        greenlet = gevent.spawn(run)
        gevent.sleep(BRIEF / 2)
        greenlet.kill(error)
    assert seen == [True, error, []]


def test_a_kept_switch_does_nothing_to_the_state_after_the_loop_has_ended():
    kept, ended = [], []

    async def main():
        kept.append(gevent.getcurrent().switch)
        await sleeps()

    def run():
        asyncio.run(main())
        ended.append(True)
        assert gevent.get_hub().switch() == "late"
        return visible()

    greenlet = gevent.spawn(run)
    while not ended:
        gevent.sleep(0.001)
    gevent.get_hub().loop.run_callback(kept[0], "late")
    assert greenlet.get() == []


def test_threads_of_the_operating_system_have_a_state_of_their_own():
    async def main():
        await sleeps()
        await blocks()
        return threading.get_ident()

    pool = gevent.get_hub().threadpool
    with Watcher():
        assert pool.apply(asyncio.run, [main()])
        results = [pool.spawn(asyncio.run, main()) for _ in range(3)]
        asyncio.run(main())
        assert all(result.get() for result in results)


def test_context_variables_and_exceptions_being_handled_stay_with_their_coroutine():
    async def main(number):
        try:
            raise KeyError(number)
        except KeyError:
            await asyncio.sleep(0.001)
            time.sleep(0.001)
            assert sys.exc_info()[1].args == (number,)

    with Watcher():
        gevent.joinall([gevent.spawn(asyncio.run, main(number)) for number in range(10)], raise_error=True)


def test_debug_mode(caplog):
    async def main():
        await sleeps()
        time.sleep(0.15)  # a coroutine that holds up its loop is named

    with Watcher():
        asyncio.run(main(), debug=True)
    assert "test_debug_mode.<locals>.main() done" in caplog.text
    assert "took 0.1" in caplog.text


def test_installing_again_wraps_nothing_twice():
    before = asyncio.BaseEventLoop.run_forever
    travel.install()
    assert asyncio.BaseEventLoop.run_forever is before


def test_without_it_others_see_the_loop():
    """The tests above can fail: this is what they would see."""
    code = """
from gevent import monkey
monkey.patch_all()
import asyncio
from tests.unit.watcher import Watcher
with Watcher() as watcher:
    asyncio.run(asyncio.sleep(0.02))
    assert "loop" in watcher.leaks and "hooks" in watcher.leaks
    watcher.leaks.clear()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)


def test_many_at_once_with_everything_that_blocks():
    async def main():
        for way in WAYS:
            await way()
            await asyncio.gather(*(each() for each in WAYS if each is not runs_a_program))

    with Watcher():
        gevent.joinall([gevent.spawn(asyncio.run, main()) for _ in range(5)], raise_error=True)
