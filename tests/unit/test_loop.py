"""The event loop that waits in gevent's hub does what asyncio's own does, and lets greenlets run beside it."""

import asyncio
import contextvars
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import gevent
import pytest
from gevent import monkey

from testbed.processes import ROOT
from tests.unit.peer import WAIT
from tests.unit.watcher import Watcher
from wsloop.aio import lines, travel
from wsloop.aio.loop import HubEventLoop, HubSelector


@pytest.fixture(autouse=True)
def installed():
    travel.install()


@pytest.fixture
def loop():
    loop = HubEventLoop()
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.fixture
def run(loop):
    """Run a coroutine while another greenlet looks whether it sees the loop."""

    def run(coroutine):
        with Watcher() as watcher:
            run.watcher = watcher
            return loop.run_until_complete(asyncio.wait_for(coroutine, WAIT))

    return run


@pytest.fixture
def pipe():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


# Time.


def test_timers_fire_in_order_and_not_early(run):
    async def main():
        loop, fired = asyncio.get_running_loop(), []
        began = loop.time()
        for delay in (0.03, 0.01, 0.02):
            loop.call_later(delay, lambda delay=delay: fired.append((delay, loop.time() - began)))
        await asyncio.sleep(0.05)
        assert [delay for delay, _ in fired] == [0.01, 0.02, 0.03]
        assert all(passed >= delay for delay, passed in fired)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is of Python 3.11")
def test_timeout_and_task_group(run):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0.001, number)) for number in range(5)]
        assert [task.result() for task in tasks] == [0, 1, 2, 3, 4]
        with pytest.raises(ExceptionGroup) as error:  # noqa: F821 - of Python 3.11
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(60))
                group.create_task(asyncio.to_thread(divmod, 1, 0))
        assert type(error.value.exceptions[0]) is ZeroDivisionError

    run(main())


def test_gather_queue_lock_event_and_wait_for(run):
    async def main():
        queue, lock, event, got = asyncio.Queue(1), asyncio.Lock(), asyncio.Event(), []

        async def produce():
            for number in range(5):
                await queue.put(number)
            await event.wait()

        async def consume():
            while len(got) < 5:
                async with lock:
                    got.append(await queue.get())
            event.set()

        await asyncio.gather(produce(), consume())
        assert got == [0, 1, 2, 3, 4]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(queue.get(), 0.01)

    run(main())


# Files.


def test_readers_and_writers(run, pipe):
    ours, theirs = pipe

    async def main():
        loop, got, writable = asyncio.get_running_loop(), asyncio.Queue(), asyncio.Event()
        loop.add_reader(ours, lambda: got.put_nowait(ours.recv(10)))
        theirs.sendall(b"one")
        assert await got.get() == b"one"
        loop.add_writer(ours, writable.set)
        await writable.wait()
        assert loop.remove_writer(ours)
        theirs.sendall(b"two")
        assert await got.get() == b"two"
        assert loop.remove_reader(ours.fileno()), "by its number, too"
        assert not loop.remove_reader(ours)
        theirs.sendall(b"three")
        await asyncio.sleep(0.01)
        assert got.empty()

    run(main())


def test_a_reader_may_be_replaced_by_the_file_or_its_number(run, pipe):
    ours, theirs = pipe

    async def main():
        loop, first, second = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        loop.add_reader(ours, first.set)
        loop.add_reader(ours, second.set)
        theirs.sendall(b"x")
        await second.wait()
        assert not first.is_set()
        loop.remove_reader(ours)
        loop.add_reader(ours.fileno(), first.set)
        await first.wait()
        loop.remove_reader(ours.fileno())

    run(main())


def test_a_file_that_is_ready_while_nobody_waits_does_not_spin(loop, pipe):
    ours, theirs = pipe
    fired = []
    loop.add_reader(ours, fired.append, 1)
    loop.run_until_complete(asyncio.sleep(0.001))
    theirs.sendall(b"x")
    selector, count = loop._selector, []
    fire = selector._fire

    def counting(*arguments):
        count.append(1)
        fire(*arguments)

    selector._fire = counting
    for _ in range(20):  # rounds of the hub in which the loop does not run
        gevent.sleep(0.001)
    assert len(count) <= 1
    loop.remove_reader(ours)
    assert fired == []


def test_selector_is_one_of_the_standard_library(pipe):
    ours, theirs = pipe
    selector = HubSelector()
    key = selector.register(ours, 1, "data")
    assert (key.fileobj, key.fd, key.events, key.data) == (ours, ours.fileno(), 1, "data")
    assert selector.get_key(ours) == selector.get_map()[ours] == selector.get_map()[ours.fileno()] == key
    assert selector.get_map().get(theirs) is None
    assert len(selector.get_map()) == 1 and list(selector.get_map()) == [ours.fileno()]
    with pytest.raises(KeyError, match="registered already"):
        selector.register(ours.fileno(), 2)
    with pytest.raises(ValueError, match="invalid events"):
        selector.register(theirs, 0)
    with pytest.raises(ValueError, match="invalid file descriptor"):
        selector.register(-1, 1)
    with pytest.raises(KeyError):
        selector.get_key(theirs)
    assert selector.select(0.001) == []
    theirs.sendall(b"x")
    assert selector.select(WAIT) == [(key, 1)]
    both = selector.modify(ours, 3, "more")
    assert selector.select(WAIT)[0][0] == both
    descriptor = ours.fileno()
    ours.close()
    assert selector.unregister(ours).fd == descriptor
    with pytest.raises(KeyError):
        selector.unregister(ours)
    selector.close()
    assert len(selector.get_map()) == 0


def test_streams_over_the_loopback(run):
    serving = []

    async def serve(reader, writer):
        serving.append(asyncio.current_task())
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    async def talk(port, lines):
        reader, writer = await asyncio.open_connection(
            "localhost", port, limit=1 << 23
        )  # a name: looked up in the loop
        for line in lines:
            writer.write(line)
            assert await reader.readline() == line.upper()
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 23)
        async with server:
            port = server.sockets[0].getsockname()[1]
            short = [[b"%d line %d\n" % (number, count) for count in range(10)] for number in range(20)]
            large = [bytes(5_000_000) + b"\n"]
            await asyncio.gather(*(talk(port, lines) for lines in [*short, large]))
            await asyncio.gather(*serving)

    run(main())


def test_connection_refused_and_names(run):
    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        addresses = await loop.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)
        assert ("127.0.0.1", port) in {address[:2] for *_, address in addresses}
        assert (await loop.getnameinfo(("127.0.0.1", port), socket.NI_NUMERICHOST))[0] == "127.0.0.1"

    run(main())


def test_datagrams(run):
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, address):
            self.transport.sendto(data.upper(), address)

    async def main():
        loop = asyncio.get_running_loop()
        echo, _ = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
        client = socket.socket(type=socket.SOCK_DGRAM)
        client.setblocking(False)
        with client:
            await loop.sock_connect(client, echo.get_extra_info("sockname"))
            await loop.sock_sendall(client, b"hello")
            assert await loop.sock_recv(client, 10) == b"HELLO"
        echo.close()

    run(main())


def test_programs(run):
    async def main():
        process = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            "cat; echo oops >&2; exit 3",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert await process.communicate(b"hello") == (b"hello", b"oops\n")
        assert process.returncode == 3
        killed = await asyncio.create_subprocess_exec("sleep", "60")
        killed.kill()
        assert await killed.wait() == -signal.SIGKILL
        ends = await asyncio.gather(*(asyncio.create_subprocess_shell(f"exit {code}") for code in range(5)))
        assert await asyncio.gather(*(each.wait() for each in ends)) == [0, 1, 2, 3, 4]

    run(main())


# Blocking code.


def test_blocking_code_runs_in_greenlets_of_this_thread(run):
    variable = contextvars.ContextVar("variable", default=None)

    def work(number):
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        time.sleep(0.05)
        return number, variable.get(), monkey.get_original("_thread", "get_ident")(), gevent.getcurrent()

    async def main():
        variable.set("mine")
        began = time.monotonic()
        results = await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(50)))
        assert time.monotonic() - began < 50 * 0.05, "side by side"
        assert [number for number, *_ in results] == list(range(50))
        assert {value for _, value, *_ in results} == {"mine"}
        assert {thread for *_, thread, _ in results} == {monkey.get_original("_thread", "get_ident")()}
        assert gevent.getcurrent() not in {greenlet for *_, greenlet in results}
        assert await asyncio.get_running_loop().run_in_executor(None, len, "abc") == 3

    run(main())


def test_executors_of_the_site_are_used(run):
    from concurrent.futures import ThreadPoolExecutor

    async def main():
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="given") as given, ThreadPoolExecutor(1) as default:
            name = lambda: threading.current_thread().name  # noqa: E731
            assert (await loop.run_in_executor(given, name)).startswith("given")
            loop.set_default_executor(default)
            assert (await asyncio.to_thread(name)).startswith("ThreadPoolExecutor")
            await loop.shutdown_default_executor()

    run(main())


def test_no_more_greenlets_than_the_bound(run, monkeypatch):
    monkeypatch.setattr(lines, "SIDE_BY_SIDE", 3)
    running, most = [], []

    def work():
        running.append(1)
        most.append(len(running))
        gevent.sleep(0.001)
        running.pop()

    async def main():
        await asyncio.gather(*(asyncio.to_thread(work) for _ in range(10)))

    run(main())
    assert max(most) == 3


@pytest.mark.parametrize("error", [ZeroDivisionError, gevent.Timeout, gevent.GreenletExit])
def test_errors_of_blocking_code_reach_the_coroutine(run, error):
    def fail():
        raise error

    async def main():
        with pytest.raises(error):
            await asyncio.to_thread(fail)
        await asyncio.sleep(0)

    run(main())


def test_a_cancelled_task_does_not_wait_for_its_blocking_code(run):
    done = []

    def work():
        time.sleep(0.05)
        done.append(True)

    async def main():
        task = asyncio.create_task(asyncio.to_thread(work))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done == []
        await asyncio.sleep(0.1)
        assert done == [True], "code that runs cannot be cut: it goes on to its end"

    run(main())


# Threads and greenlets that have something for the loop.


def test_threads_of_the_operating_system_wake_the_loop(run):
    async def answer(value):
        await asyncio.sleep(0.001)
        return value * 2

    async def main():
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        pool = gevent.get_hub().threadpool
        future = loop.create_future()
        pool.spawn(loop.call_soon_threadsafe, future.set_result, "from a thread")
        assert await asyncio.wait_for(future, WAIT) == "from a thread"

        def ask():
            return asyncio.run_coroutine_threadsafe(answer(21), loop).result(WAIT)

        asked = pool.spawn(ask)
        asked.rawlink(lambda _: loop.call_soon_threadsafe(event.set))
        await event.wait()
        assert asked.get() == 42

    run(main())


def test_greenlets_wake_the_loop_without_a_pipe(loop, monkeypatch):
    async def answer(value):
        await asyncio.sleep(0.001)
        return value * 2

    ended = loop.create_future()
    greenlet = gevent.spawn(loop.run_until_complete, ended)
    gevent.sleep(0.01)  # it waits
    monkeypatch.setattr(loop, "_csock", None)
    assert asyncio.run_coroutine_threadsafe(answer(21), loop).result(WAIT) == 42
    for number in range(1000):
        assert asyncio.run_coroutine_threadsafe(asyncio.sleep(0, number), loop).result(WAIT) == number
    loop.call_soon_threadsafe(ended.set_result, None)
    greenlet.get()
    monkeypatch.undo()


def test_busy_coroutines_starve_nobody(run, pipe):
    ours, theirs = pipe

    async def main():
        loop, ended, got = asyncio.get_running_loop(), [], asyncio.Event()

        async def busy():
            while not ended:
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(busy()) for _ in range(5)]
        loop.add_reader(ours, got.set)
        theirs.sendall(b"x")
        await asyncio.wait_for(got.wait(), WAIT)  # its own files have their turn,
        loop.remove_reader(ours)
        await asyncio.sleep(0.2)  # and its own timers
        ended.append(True)
        await asyncio.gather(*tasks)

    run(main())
    assert run.watcher.looks > 5
    assert run.watcher.longest < 0.2


def test_a_coroutine_that_blocks_holds_up_its_loop_and_no_greenlet(run):
    async def main():
        ticks = []

        async def tick():
            while True:
                ticks.append(1)
                await asyncio.sleep(0.001)

        task = asyncio.create_task(tick())
        await asyncio.sleep(0.01)
        before = len(ticks)
        looks = run.watcher.looks
        time.sleep(0.05)
        assert len(ticks) == before
        assert run.watcher.looks > looks
        task.cancel()

    run(main())


# Signals, interruptions.


def test_signal_handlers(run):
    async def main():
        loop, got = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR2, got.set)
        os.kill(os.getpid(), signal.SIGUSR2)
        await asyncio.wait_for(got.wait(), WAIT)
        assert loop.remove_signal_handler(signal.SIGUSR2)

    run(main())


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_system_exit_and_keyboard_interrupt_leave_the_loop_as_always(loop, error):
    async def main():
        raise error

    with Watcher():
        with pytest.raises(error):
            loop.run_until_complete(main())
        assert loop.run_until_complete(asyncio.sleep(0, "goes on")) == "goes on"


def test_debug_mode_names_who_blocks(loop, caplog):
    async def main():
        time.sleep(0.12)

    loop.set_debug(True)
    with Watcher():
        loop.run_until_complete(main())
    assert "test_debug_mode_names_who_blocks.<locals>.main() done" in caplog.text


def test_nothing_is_left_of_a_loop(descriptors):
    def once():
        loop = HubEventLoop()
        loop.run_until_complete(asyncio.to_thread(time.sleep, 0))
        loop.close()
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            loop.run_until_complete(loop.create_future())

    once()
    before = descriptors()
    for _ in range(10):
        once()
    assert descriptors() == before
    gc.collect()


def test_a_loop_that_was_made_before_a_fork_does_not_disturb_the_child():
    code = """
from gevent import monkey
monkey.patch_all()
import asyncio, os, gevent
from wsloop.aio import travel
from wsloop.aio.loop import HubEventLoop
travel.install()
loop = HubEventLoop()
greenlet = gevent.spawn(loop.run_forever)
gevent.sleep(0.01)
child = os.fork()
if not child:
    other = HubEventLoop()
    assert other.run_until_complete(asyncio.to_thread(len, "abc")) == 3
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01, 1), loop).result(5) == 1
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True, timeout=30)
