"""The loop of the process: what asgiref and Django do with it, seen from greenlets as those of requests are."""

import asyncio
import contextlib
import contextvars
import gc
import subprocess
import sys
import threading
import time
import traceback
import weakref

import gevent
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection, transaction
from django.db.backends.signals import connection_created
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils import timezone, translation
from django.utils.decorators import async_only_middleware, sync_and_async_middleware
from gevent import monkey

from testbed.processes import ROOT
from tests.unit.peer import WAIT
from tests.unit.watcher import Watcher, visible
from wsloop.aio import lines, worker


@pytest.fixture(autouse=True)
def watched():
    """Sees no loop, whatever the test does."""
    worker.install()
    with Watcher() as watcher:
        yield watcher


@pytest.fixture
def opened(database):
    """Count the database connections that are open of those that the test has opened: ``opened()``."""
    database.close()
    seen = []

    def keep(connection, **more):
        seen.append(connection)

    connection_created.connect(keep)
    yield lambda: sum(each.connection is not None for each in seen)
    connection_created.disconnect(keep)
    assert seen


def greenlets(work, numbers):
    """Call ``work`` in greenlets of their own, at once, and return the results."""
    started = [gevent.spawn(work, number) for number in numbers]
    gevent.joinall(started, timeout=WAIT, raise_error=True)
    return [greenlet.value for greenlet in started]


def until(condition):
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        gevent.sleep(0.001)


# async_to_sync and sync_to_async, one in the other.


def test_many_greenlets_call_coroutines_of_one_loop():
    async def work(number):
        await asyncio.sleep(0.01)
        return number, asyncio.get_running_loop()

    results = greenlets(async_to_sync(work), range(100))
    assert [number for number, _ in results] == list(range(100))
    assert {loop for _, loop in results} == {worker.worker_loop()}
    assert visible() == []


def test_nested_in_each_other():
    def inner(depth):
        assert visible() == []
        return async_to_sync(outer)(depth - 1) if depth else gevent.getcurrent()

    async def outer(depth):
        await asyncio.sleep(0.001)
        return await sync_to_async(inner)(depth)

    def request(depth):
        return async_to_sync(outer)(depth) is gevent.getcurrent()

    assert all(greenlets(request, [1, 2, 3, 4, 5] * 5)), "blocking code runs in the greenlet that has asked"


def test_nested_by_way_of_to_thread_and_gather():
    async def leaf(number):
        await asyncio.sleep(0.001)
        return number

    async def work(number):
        results = await asyncio.gather(
            asyncio.to_thread(async_to_sync(leaf), number),
            sync_to_async(async_to_sync(leaf))(number),
            sync_to_async(async_to_sync(leaf), thread_sensitive=False)(number),
            leaf(number),
        )
        return sum(results)

    assert greenlets(async_to_sync(work), range(30)) == [4 * number for number in range(30)]


def test_it_is_refused_where_a_loop_runs_as_always():
    async def leaf():
        pass

    async def work():
        with pytest.raises(RuntimeError, match="You cannot use AsyncToSync in the same thread"):
            async_to_sync(leaf)()
        with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
            asyncio.run(leaf())

    with pytest.warns(RuntimeWarning, match="never awaited"):
        async_to_sync(work)()
        gc.collect()


def test_a_greenlet_may_run_a_loop_of_its_own_beside():
    async def work(number):
        await asyncio.sleep(0.001)
        inner = await sync_to_async(async_to_sync(asyncio.sleep))(0.001, number)
        return inner, await asyncio.to_thread(lambda: number)

    async def main(number):
        return await asyncio.gather(work(number), work(number))

    results = greenlets(lambda number: (asyncio.run(main(number)), async_to_sync(work)(number)), range(10))
    assert results == [([(number, number)] * 2, (number, number)) for number in range(10)]


def test_threads_of_the_operating_system_call_coroutines_too():
    async def work(number):
        await asyncio.sleep(0.001)
        return number, await sync_to_async(monkey.get_original("_thread", "get_ident"))()

    pool = gevent.get_hub().threadpool
    results = [pool.spawn(async_to_sync(work), number) for number in range(5)]
    here = async_to_sync(work)(5)
    assert [result.get()[0] for result in results] == list(range(5))
    assert here[1] not in {result.get()[1] for result in results}, "each thread has its own blocking code"


def test_the_loop_is_that_of_the_hub_even_if_another_thread_asks_first():
    code = """
from gevent import monkey
monkey.patch_all()
import asyncio, gevent, sys
from asgiref.sync import async_to_sync
from wsloop.aio import worker
worker.install()
async def work():
    await asyncio.sleep(0.001)
    return asyncio.get_running_loop()
pool = gevent.get_hub().threadpool
assert pool.apply(async_to_sync(work)) is not async_to_sync(work)()
assert async_to_sync(work)() is worker.worker_loop()
sys.exit(7)  # and nothing waits for the executor that asgiref has made in the thread
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, timeout=30).returncode == 7


def test_errors_have_their_trace():
    async def fail():
        raise ZeroDivisionError("of the coroutine")

    with pytest.raises(ZeroDivisionError, match="of the coroutine") as error:
        async_to_sync(fail)()
    assert error.traceback[-1].name == "fail"


# What ends or interrupts.


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_who_raises_system_exit_ends_alone(error, caplog):
    async def fail():
        await asyncio.sleep(0.005)
        raise error

    async def work():
        await asyncio.sleep(0.02)
        return "goes on"

    other = gevent.spawn(async_to_sync(work))
    with pytest.raises(error):
        async_to_sync(fail)()
    assert other.get() == "goes on"
    assert async_to_sync(work)() == "goes on"


def test_a_timeout_of_gevent_around_an_await_interrupts_nobody_else(caplog):
    async def late():
        with gevent.Timeout(0.005):
            while interrupted not in caplog.text:
                await asyncio.sleep(0.03)
        return "late"

    async def work():
        await asyncio.sleep(0.02)
        return "goes on"

    interrupted = "Timeout has interrupted the event loop, which goes on"
    other = gevent.spawn(async_to_sync(work))
    assert async_to_sync(late)() == "late"
    other.join(WAIT)
    assert other.ready(), "".join(traceback.format_stack(other.gr_frame))
    assert other.get() == "goes on"


def test_a_loop_that_is_stopped_runs_on():
    async def stop():
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.001)
        return "runs"

    assert async_to_sync(stop)() == "runs"


@pytest.mark.parametrize("error", [gevent.GreenletExit, gevent.Timeout])
def test_a_greenlet_that_is_ended_while_it_waits_leaves_the_others_alone(error):
    ended = []

    async def work():
        try:
            await asyncio.sleep(0.5)
            ended.append("returned")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    def request():
        try:
            async_to_sync(work)()
        except error:
            return visible()

    greenlet = gevent.spawn(request)
    gevent.sleep(0.01)
    other = gevent.spawn(async_to_sync(work))
    greenlet.kill(error)
    assert greenlet.value == []
    other.get()
    assert ended == ["cancelled", "returned"]


@pytest.mark.parametrize("asked", ["before", "after"])
def test_the_coroutine_of_a_greenlet_that_was_ended_can_still_have_its_blocking_code_run(asked):
    seen = []

    async def work():
        if asked == "after":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            return seen.append(await asyncio.wait_for(sync_to_async(gevent.getcurrent)(), WAIT / 10))
        greenlet.kill(block=False)
        asking = asyncio.create_task(sync_to_async(gevent.getcurrent)())
        try:
            await asyncio.shield(asking)
        finally:
            seen.append(await asking)

    greenlet = gevent.spawn(async_to_sync(work))
    gevent.sleep(0.01)
    greenlet.kill(block=True)
    until(lambda: seen)
    assert seen != [greenlet]


def test_a_task_that_goes_on_after_its_view_uses_the_database(opened):
    tasks = []

    async def later():
        await asyncio.sleep(0.01)
        return await User.objects.acount(), await sync_to_async(gevent.getcurrent)()

    async def view():
        tasks.append(asyncio.create_task(later()))
        return await User.objects.acount()

    def request(_):
        try:
            return async_to_sync(view)()
        finally:
            connection.close()

    assert greenlets(request, range(5)) == [0] * 5
    until(lambda: all(task.done() for task in tasks))
    assert [task.result()[0] for task in tasks] == [0] * 5
    for greenlet in {task.result()[1] for task in tasks}:
        greenlet.join(WAIT)
    until(lambda: opened() == 0)


def test_a_timeout_in_blocking_code_reaches_the_coroutine():
    async def work():
        with pytest.raises(gevent.Timeout):
            await sync_to_async(block)()
        return "goes on"

    def block():
        with gevent.Timeout(0.01):
            time.sleep(WAIT)

    assert async_to_sync(work)() == "goes on"


def test_a_coroutine_that_blocks_holds_up_coroutines_but_no_greenlet(watched):
    async def block():
        lock = threading.Lock()
        lock.acquire()
        gevent.spawn_later(0.05, lock.release)
        with lock:
            time.sleep(0.05)
        ended.append("block")

    async def work():
        await asyncio.sleep(0)
        ended.append("work")

    ended, looks = [], watched.looks
    blocking = gevent.spawn(async_to_sync(block))
    gevent.sleep(0.001)
    async_to_sync(work)()
    blocking.get()
    assert ended == ["block", "work"]
    assert watched.looks > looks + 2


def test_nothing_is_left_of_many_calls():
    class Value:
        pass

    values = weakref.WeakSet()

    async def work():
        value = Value()
        values.add(value)
        await sync_to_async(lambda: value)()
        await asyncio.sleep(0)
        return value

    for _ in range(5):
        greenlets(lambda _: async_to_sync(work)() and None, range(20))
    tasks = async_to_sync(current_tasks)()
    gc.collect()
    assert len(values) == 0
    assert len(tasks) == 1, "the one that asks"


async def current_tasks():
    return asyncio.all_tasks()


# Contexts.


def test_language_time_zone_and_context_variables_of_the_request():
    variable = contextvars.ContextVar("variable")

    async def work(number):
        await asyncio.sleep(0.001)
        seen = (translation.get_language(), str(timezone.get_current_timezone()), variable.get())
        inner = await sync_to_async(lambda: (translation.get_language(), variable.get()))()
        assert inner == (seen[0], seen[2])
        variable.set(-number)
        return seen

    def request(number):
        variable.set(number)
        with (
            translation.override(("de", "fr")[number % 2]),
            timezone.override(("Europe/Berlin", "Asia/Tokyo")[number % 2]),
        ):
            seen = async_to_sync(work)(number)
            assert variable.get() == -number, "what it sets is seen afterwards"
            return seen

    for number, seen in enumerate(greenlets(request, range(20))):
        assert seen == (("de", "fr")[number % 2], ("Europe/Berlin", "Asia/Tokyo")[number % 2], number)


# Django's ORM.


def test_orm_of_coroutines_and_of_greenlets_at_once(database):
    User.objects.bulk_create(User(username=f"user {number}") for number in range(10))

    async def view(number):
        assert await User.objects.acount() == 10
        user = await User.objects.aget(username=f"user {number % 10}")
        names = [each.username async for each in User.objects.order_by("pk")]
        assert len(names) == 10
        await asyncio.sleep(0.001)
        return user.username

    def plain(number):
        with transaction.atomic():
            gevent.sleep(0.001)
            assert User.objects.count() == 10
            return User.objects.get(username=f"user {number % 10}").username

    results = greenlets(lambda number: (plain, async_to_sync(view))[number % 2](number), range(100))
    assert results == [f"user {number % 10}" for number in range(100)]


def test_orm_of_a_coroutine_uses_the_connection_of_its_request(database):
    async def view():
        return await sync_to_async(lambda: connection.connection)(), await User.objects.acount()

    def request(_):
        with transaction.atomic():
            User.objects.create(username="ann")
            inside, count = async_to_sync(view)()
            assert inside is connection.connection
            transaction.set_rollback(True)
        return count

    assert greenlets(request, [0]) == [1]
    assert User.objects.count() == 0


def test_synchronous_orm_in_a_coroutine_is_refused_and_nowhere_else(database):
    async def view():
        with pytest.raises(SynchronousOnlyOperation):
            User.objects.count()
        time.sleep(0.001)
        with pytest.raises(SynchronousOnlyOperation):
            User.objects.count()
        return await sync_to_async(User.objects.count)()

    assert greenlets(async_to_sync(view), []) == []
    assert greenlets(lambda _: (async_to_sync(view)(), User.objects.count()), range(20)) == [(0, 0)] * 20


def test_connections_of_to_thread_are_given_back(opened):
    async def view():
        return await asyncio.gather(*(asyncio.to_thread(User.objects.count) for _ in range(10)))

    for _ in range(3):
        assert async_to_sync(view)() == [0] * 10
    until(lambda: opened() == 0)


def test_connections_of_loops_of_the_site_are_given_back(opened, monkeypatch):
    monkeypatch.setattr(lines, "IDLE", 0.02)

    async def main():
        return await User.objects.acount()

    assert greenlets(lambda _: asyncio.run(main()), range(5)) == [0] * 5
    until(lambda: opened() == 0)


# Django's middleware, as a WSGI server calls it.


@async_only_middleware
def only(get_response):
    async def middleware(request):
        await asyncio.sleep(0.001)
        request.seen.append(f"async {await User.objects.acount()}")
        return await get_response(request)

    return middleware


@sync_and_async_middleware
def both(get_response):
    if asyncio.iscoroutinefunction(get_response):
        return only(get_response)

    def middleware(request):
        request.seen.append(f"sync {User.objects.count()}")
        return get_response(request)

    return middleware


class Plain:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        request.seen.append(f"plain {User.objects.count()}")
        return self.get_response(request)


async def async_view(request):
    await asyncio.sleep(0.001)
    return HttpResponse(f"{await User.objects.acount()} {' '.join(request.seen)}")


def sync_view(request):
    gevent.sleep(0.001)
    with transaction.atomic():
        return HttpResponse(f"{User.objects.count()} {' '.join(request.seen)}")


@pytest.mark.parametrize("view", [async_view, sync_view])
@pytest.mark.parametrize(
    "names, seen",
    [
        (["both"], "sync 0"),
        (["only"], "async 0"),
        (["Plain", "only", "Plain", "both", "only"], "plain 0 async 0 plain 0 async 0 async 0"),
        (["only", "both", "Plain"], "async 0 sync 0 plain 0"),
    ],
)
def test_middleware_around_views(database, with_settings, view, names, seen):
    from django.core.handlers.wsgi import WSGIHandler
    from django.urls import path

    class Urls:
        urlpatterns = [path("", view)]

    with_settings(MIDDLEWARE=[f"{__name__}.{name}" for name in names], ROOT_URLCONF=Urls)
    handler = WSGIHandler()

    def request(_):
        request = RequestFactory().get("/")
        request.seen = []
        return handler.get_response(request).content.decode()

    assert set(greenlets(request, range(20))) == {f"0 {seen}"}


# Installing.


def test_installing_again_changes_nothing():
    from asgiref.sync import SyncToAsync

    before = SyncToAsync.threadlocal, SyncToAsync.single_thread_executor
    worker.install()
    assert (SyncToAsync.threadlocal, SyncToAsync.single_thread_executor) == before


def test_nothing_changes_without_gevent():
    code = """
import asyncio
from asgiref.sync import SyncToAsync, async_to_sync
from wsloop.aio import worker
before = SyncToAsync.threadlocal, asyncio.BaseEventLoop.run_forever
worker.install()
assert (SyncToAsync.threadlocal, asyncio.BaseEventLoop.run_forever) == before
assert async_to_sync(asyncio.sleep)(0, 1) == 1
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True, timeout=30)


@pytest.mark.parametrize("used", [False, True])
def test_a_fork_after_installing(used):
    """As uWSGI without lazy-apps: the master loads the site, and workers are forked."""
    code = f"""
from gevent import monkey
monkey.patch_all()
import asyncio, os, gevent
from asgiref.sync import async_to_sync, sync_to_async
from wsloop.aio import worker
worker.install()
async def work():
    await asyncio.sleep(0.001)
    return await asyncio.to_thread(len, "abc"), await sync_to_async(os.getpid)()
if {used}:
    assert async_to_sync(work)() == (3, os.getpid())
children = []
for _ in range(2):
    child = os.fork()
    if not child:
        started = [gevent.spawn(async_to_sync(work)) for _ in range(10)]
        os._exit(7 if {{each.get() for each in started}} == {{(3, os.getpid())}} else 1)
    children.append(child)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [7, 7]
assert async_to_sync(work)() == (3, os.getpid())
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True, timeout=30)


@pytest.mark.parametrize("begun", [True, False])
def test_nothing_is_left_of_coroutines_whose_greenlets_were_ended(begun):
    """The handler of a consumer of plain code, for example, whose client has left."""

    async def for_ever():
        while True:
            await asyncio.sleep(60)

    async def nested():
        await sync_to_async(async_to_sync(for_ever))()

    started = [gevent.spawn(async_to_sync(work)) for work in ((for_ever, nested) if begun else (for_ever,)) * 10]
    gevent.sleep(0.05 if begun else 0)
    gevent.killall(started)
    until(lambda: not asyncio.all_tasks(worker.worker_loop()))
